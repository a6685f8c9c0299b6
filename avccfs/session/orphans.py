"""Which keys only a file has that no engine would read.

Engines delete files that the live manifest does not name. As a rule nothing goes with them: what a
table was made of is still there, or what it held has been written anew. To be sure, each change in
such a file is looked for in the live ones: a change is *unique* if they have none of the same key
(in avccDB: and version) that is as new or newer.

The changes of the file are held in memory, `MAX_KEYS` of them at a time, while the live files pass
by; of live tables only those whose range has any of the keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from avccfs.format import batch, journal
from avccfs.format.filename import Kind
from avccfs.format.ikey import Dialect
from avccfs.format.manifest import AddedTable
from avccfs.format.table import Table
from avccfs.session.inventory import Inventory

MAX_KEYS: Final = 50_000
"""Keys that are looked for at once."""

_TRAILER: Final = 8

Change = tuple[bytes, int]
"""An internal key without its trailer, and the sequence number."""


class Orphans:
    """The live files of a database, to compare others with.

    What cannot be read, of either, counts as not there.
    """

    def __init__(
        self,
        files: Inventory,
        dialect: Dialect,
        tables: list[AddedTable],
        journals: Mapping[int, str],
    ) -> None:
        self._files = files
        self._dialect = dialect
        names = files.names(Kind.TABLE)
        self._tables = [(names[each.number], each) for each in tables if each.number in names]
        self._journals = list(journals.values())

    def unique_in_table(self, name: str) -> tuple[int, int]:
        """Number of unique keys of a table, and the highest sequence number of one, or 0."""
        return self._unique(self._table_changes(name))

    def unique_in_journal(self, name: str) -> tuple[int, int]:
        """The same of a journal. A key that stands there again, `MAX_KEYS` other ones later, is
        counted again."""
        return self._unique(self._journal_changes(name))

    def _unique(self, changes: Iterable[Change]) -> tuple[int, int]:
        keys = newest = 0
        for wanted in _portions(changes):
            self._strike_out(wanted)
            keys += len(wanted)
            newest = max(newest, *wanted.values()) if wanted else newest
        return keys, newest

    def _strike_out(self, wanted: dict[bytes, int]) -> None:
        """Take out what live files have in the same or a newer state."""
        for file in self._live():
            if any(map(file.may_have, wanted)):
                for key, sequence in file.changes:
                    known = wanted.get(key)
                    if known is not None and known <= sequence:
                        del wanted[key]
            if not wanted:
                return

    def _live(self) -> Iterator[_Live]:
        for name in self._journals:
            yield _Live(self._journal_changes(name), lambda _: True)
        for name, table in self._tables:
            low, high = (self._user_key(key[:-_TRAILER]) for key in (table.smallest, table.largest))
            yield _Live(self._table_changes(name), partial(self._lies_between, low, high))

    def _lies_between(self, low: bytes, high: bytes, key: bytes) -> bool:
        return low <= self._user_key(key) <= high

    def _user_key(self, key: bytes) -> bytes:
        return key[: max(0, len(key) - self._dialect.suffix_length + _TRAILER)]

    def _table_changes(self, name: str) -> Iterator[Change]:
        shortest = self._dialect.suffix_length
        with contextlib.suppress(OSError), self._files.open(name) as (read_at, size):
            for key, _, _ in Table(read_at, size).entries(_ignore):
                if len(key) >= shortest:
                    yield key[:-_TRAILER], int.from_bytes(key[1 - _TRAILER :], "little")

    def _journal_changes(self, name: str) -> Iterator[Change]:
        versioned = self._dialect is Dialect.AVCCDB
        with contextlib.suppress(OSError), self._files.open(name) as (read_at, _):
            for item in journal.read(read_at, journal.Policy.GOLEVELDB):
                if isinstance(item, journal.Record):
                    for entry in batch.decode(item.payload, self._dialect).entries:
                        version = (entry.version or 0).to_bytes(8, "little") if versioned else b""
                        yield entry.key + version, entry.sequence


class _Live:
    """A file that the database needs."""

    def __init__(self, changes: Iterable[Change], may_have: Callable[[bytes], bool]) -> None:
        self.changes = changes
        self.may_have = may_have
        """False for a key that it does not have."""


def _portions(changes: Iterable[Change]) -> Iterator[dict[bytes, int]]:
    """The newest sequence number of each key, some keys at a time."""
    wanted: dict[bytes, int] = {}
    for key, sequence in changes:
        if len(wanted) == MAX_KEYS and key not in wanted:
            yield wanted
            wanted = {}
        if sequence >= wanted.get(key, -1):
            wanted[key] = sequence
    if wanted:
        yield wanted


def _ignore(_: object) -> None:
    """A report for faults that have been reported already."""
