"""What there is on disk of the tables and journals that a picture shows.

Everything is opened for reading only, and anything may vanish meanwhile: then it is missing.
"""

from __future__ import annotations

import collections
import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from avccfs.errors import FormatError
from avccfs.format import batch, filename, journal, table
from avccfs.format.batch import Evidence
from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.format.ikey import Dialect
from avccfs.format.journal import ReadAt
from avccfs.format.table import FOOTER_SIZE, MAGIC, Part, Table
from avccfs.vfs.base import Directory

_RECORDS_LOOKED_AT: Final = 1000
_MAX_OFFSET: Final = 1 << 63
_NO_DAMAGE: Final = (batch.Reason.AMBIGUOUS, batch.Reason.UNDECIDED)
"""A record that reads in several ways may be as it was written."""


@dataclass(frozen=True, slots=True)
class TableOnDisk:
    """What was found of a table."""

    name: str
    size: int
    """In bytes."""
    fault: str | None
    """For people; None if nothing is wrong as far as was looked."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What a journal holds."""

    name: str
    number: int
    size: int
    """In bytes."""
    entries: int
    bounds: tuple[bytes, bytes] | None
    """Its smallest and largest user key; None without any entry."""
    fault: str | None
    """The first of its faults, for people."""


class Files:
    """The tables and journals of a directory, by number, as its listing had them."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._sizes: dict[str, int] = {}
        self.tables: dict[int, str] = {}
        """Numbers and names; of two names of a table the one that engines write today."""
        self.journals: dict[int, str] = {}
        self.manifests: list[FileDesc] = []
        for name, told in sorted(directory.scan()):
            desc = filename.parse(name)
            if desc is None or not stat.S_ISREG(told.mode):
                continue
            self._sizes[name] = told.size
            if desc.kind is Kind.TABLE and (
                name == name_of(desc) or desc.number not in self.tables
            ):
                self.tables[desc.number] = name
            elif desc.kind is Kind.JOURNAL:
                self.journals[desc.number] = name
            elif desc.kind is Kind.MANIFEST:
                self.manifests.append(desc)
        self.manifests.sort()

    def dialect(self) -> Dialect:
        """The form of internal keys: what a table shows, or else the journals."""
        for number in sorted(self.tables):
            with contextlib.suppress(OSError), self.opened(self.tables[number]) as (read_at, size):
                shown = Table(read_at, size).dialect
                if shown is not None:
                    return shown
        for number in sorted(self.journals):
            with contextlib.suppress(OSError), self.opened(self.journals[number]) as (read_at, _):
                if _journal_dialect(read_at) is Dialect.AVCCDB:
                    return Dialect.AVCCDB
        return Dialect.STANDARD

    def look(
        self, number: int, expected_size: int | None, *, checksums: bool
    ) -> TableOnDisk | None:
        """What there is of a table; None if there is nothing.

        Without `checksums` only size and footer are looked at; with it, every block. `expected_size`
        is what the manifest says, None where it says nothing.
        """
        name = self.tables.get(number)
        if name is None:
            return None
        try:
            with self.opened(name) as (read_at, size):
                fault = _fault_of_size(size, expected_size) or _fault_of_footer(read_at, size)
                if checksums:
                    fault = fault or _fault_of_blocks(Table(read_at, size))
                return TableOnDisk(name, size, fault)
        except FileNotFoundError:
            return None
        except OSError as error:
            return TableOnDisk(name, self._sizes[name], f"cannot be read: {error.strerror}")

    def bounds(self, number: int) -> tuple[bytes, bytes] | None:
        """The first and the last internal key in a table; None if it shows none."""
        with contextlib.suppress(OSError), self.opened(self.tables[number]) as (read_at, size):
            opened = Table(read_at, size)
            first = _first_key(opened)
            last = _last_key(opened)
            if first is not None and last is not None:
                return first, last
        return None

    def journal(self, number: int, dialect: Dialect) -> Journal | None:
        """What a journal holds, read from beginning to end; None if it is gone."""
        name = self.journals[number]
        entries = 0
        low: bytes | None = None
        high: bytes | None = None
        fault: str | None = None
        size = self._sizes[name]
        try:
            with self.opened(name) as (read_at, size):
                for item in journal.read(read_at, journal.Policy.LEVELDB):
                    if isinstance(item, journal.Fault):
                        fault = fault or item.detail
                        continue
                    keys, wrong = _batch_keys(item.payload, dialect)
                    if wrong is not None:
                        fault = fault or f"record at offset {item.offset}: {wrong}"
                    if keys:
                        entries += len(keys)
                        smallest, largest = min(keys), max(keys)
                        low = smallest if low is None else min(low, smallest)
                        high = largest if high is None else max(high, largest)
        except FileNotFoundError:
            return None
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        bounds = None if low is None or high is None else (low, high)
        return Journal(name, number, size, entries, bounds, fault)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[tuple[ReadAt, int]]:
        """A file, open for reading, and its size now."""
        file = self._directory.open(name)
        try:

            def read_at(size: int, offset: int) -> bytes:
                return b"" if offset >= _MAX_OFFSET else file.read_at(size, offset)

            yield read_at, file.stat().size
        finally:
            file.close()


def _fault_of_size(size: int, expected: int | None) -> str | None:
    if expected is None or size == expected:
        return None
    return f"expected {expected} bytes, as the manifest says, found {size}"


def _fault_of_footer(read_at: ReadAt, size: int) -> str | None:
    if size < FOOTER_SIZE:
        return f"expected at least {FOOTER_SIZE} bytes for the footer, found {size}"
    footer = read_at(FOOTER_SIZE, size - FOOTER_SIZE)
    if footer.endswith(MAGIC):
        return None
    found = footer[-len(MAGIC) :].hex()
    return f"expected the magic {MAGIC.hex()} at offset {size - len(MAGIC)}, found {found}"


def _fault_of_blocks(opened: Table) -> str | None:
    """The first fault, and how many more there are."""
    faults: list[table.Fault] = list(opened.faults)
    for _, handle in opened.blocks():
        opened.content(handle, Part.DATA, faults.append)
    for policy in opened.filters:
        opened.filter_block(policy, faults.append)
    opened.merkle_tree(faults.append)
    if not faults:
        return None
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{faults[0].detail}{more}"


def _first_key(opened: Table) -> bytes | None:
    return next((key for key, _, _ in opened.entries(_ignore)), None)


def _last_key(opened: Table) -> bytes | None:
    handles = [handle for _, handle in opened.blocks()]
    for handle in reversed(handles):
        keys = [key for key, _, _ in opened.block_entries(handle, _ignore)]
        if keys:
            return keys[-1]
    rest = collections.deque(opened.entries(_ignore), maxlen=1)
    return rest[0][0] if rest else None


def _ignore(_: table.Fault) -> None:
    pass


def _batch_keys(payload: bytes, dialect: Dialect) -> tuple[list[bytes], str | None]:
    if dialect is Dialect.STANDARD:
        with contextlib.suppress(FormatError):
            return [entry.key for entry in batch.entries(payload)], None
    decoded = batch.decode(payload, dialect)
    fault = decoded.fault
    wrong = None if fault is None or fault.reason in _NO_DAMAGE else fault.detail
    return [entry.key for entry in decoded.entries], wrong


def _journal_dialect(read_at: ReadAt) -> Dialect | None:
    evidence = Evidence()
    looked_at = 0
    for item in journal.read(read_at, journal.Policy.LEVELDB):
        if isinstance(item, journal.Record):
            evidence.add(item.payload)
            looked_at += 1
            if evidence.versioned_only or looked_at == _RECORDS_LOOKED_AT:
                break
    return evidence.dialect
