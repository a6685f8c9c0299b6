"""What a manifest, a journal or a table holds, in the order of the file, faults in their places.

Everything that is sound comes out: the good blocks around a bad one, the good entries before a bad
one, the fields of a record up to the first that does not decode. Nothing here raises for what a
file holds; errors of reading it pass through. At any moment one block or one record is in memory.

After damage, journals and manifests are read on as LevelDB does, which loses least and never takes
two records for one. What every engine passes over with the damage, the rest of its block, is then
searched for records by their checksums: these are *salvaged*.
"""

from __future__ import annotations

import itertools
import operator
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from avccfs.errors import FormatError
from avccfs.format import batch, ikey, journal, manifest, table
from avccfs.format.block import Entry
from avccfs.format.coding import mask
from avccfs.format.ikey import Dialect, InternalKey, KeyKind
from avccfs.format.journal import ReadAt
from avccfs.format.manifest import SessionRecord
from avccfs.format.table import Table

_POLICY: Final = journal.Policy.LEVELDB


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at a place of a file. Offset and length in bytes of the file."""

    offset: int
    length: int
    part: str
    """Which part of the file: `chunk`, `batch`, `session record`, `data block` ..."""
    reason: str
    """One of the reasons of `format.journal`, `format.batch` and `format.block`, or one of here."""
    expected: str
    found: str

    @property
    def detail(self) -> str:
        """For people."""
        return f"{self.part} at offset {self.offset}: expected {self.expected}, found {self.found}"


BAD_RECORD: Final = "bad record"
"""A sound record of a manifest that is no session record."""
BAD_KEY: Final = "bad internal key"


@dataclass(frozen=True, slots=True)
class Edit:
    """A record of a manifest."""

    offset: int
    end: int
    number: int | None
    """1 for the first that decodes; None if it is salvaged, and for the fields before the first
    bad one of a record that does not decode."""
    record: SessionRecord
    salvaged: bool = False
    """Whether it lies behind damage where no engine reads it; it has no number then."""


@dataclass(frozen=True, slots=True)
class Changes:
    """A record of a journal."""

    offset: int
    end: int
    sequence: int
    """Of the batch, as its header says; 0 if the record is too short to say."""
    count: int
    """What the header says."""
    entries: Sequence[batch.Entry]
    """Those that are sound, in order. Of a record with more than one reading those at its start
    that all readings share."""
    readings: Sequence[Sequence[batch.Entry]] = ()
    """The first complete ones, where there is more than one."""
    total: int = 1
    """How many readings there are."""
    salvaged: bool = False
    """Whether it lies behind damage where no engine reads it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Entries of a data block of a table, with internal keys that decode."""

    offset: int
    entries: list[Entry]
    only_puts: bool
    """Whether none of them is a deletion."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """User keys from `low` on, up to and not including `high`."""

    low: bytes = b""
    high: bytes | None = None
    """None: no end."""

    def __contains__(self, key: bytes) -> bool:
        return self.low <= key and (self.high is None or key < self.high)

    def and_prefix(self, prefix: bytes) -> Bounds:
        """Of these keys the ones that begin with `prefix`."""
        stem = prefix.rstrip(b"\xff")
        behind = stem[:-1] + bytes([stem[-1] + 1]) if stem else None
        ends = [end for end in (self.high, behind) if end is not None]
        return Bounds(max(self.low, prefix), min(ends) if ends else None)


def read_manifest(read_at: ReadAt) -> Iterator[Edit | Fault]:
    """The edits of a manifest, numbered from 1."""
    number = 0
    for item, salvaged in _records(read_at):
        if isinstance(item, journal.Fault):
            yield _framing_fault(item)
            continue
        record, error = manifest.decode_partial(item.payload)
        if error is None:
            number += not salvaged
            counted = None if salvaged else number
            yield Edit(item.offset, item.end, counted, record, salvaged)
            continue
        expected, found = _expectation(str(error))
        length = item.end - item.offset
        yield Fault(item.offset, length, "session record", BAD_RECORD, expected, found)
        if record != _NOTHING:
            yield Edit(item.offset, item.end, None, record, salvaged)


def read_journal(
    read_at: ReadAt, dialect: Dialect, bounds: Bounds | None = None
) -> Iterator[Changes | Fault]:
    """The batches of a journal; with `bounds` only entries within, and batches that have some.

    Of a record with more than one reading the entries are those that all readings share; the fault
    behind it says so.
    """
    for item, salvaged in _records(read_at):
        if isinstance(item, journal.Fault):
            yield _framing_fault(item)
            continue
        payload = item.payload
        fault: batch.Fault | None = None
        readings: Sequence[Sequence[batch.Entry]] = ()
        total = 1
        entries: Sequence[batch.Entry]
        try:
            entries = _entries_of(payload, dialect)
            sequence, count = int.from_bytes(payload[:8], "little"), len(entries)
        except FormatError:
            whole = batch.decode(payload, dialect)
            fault, entries, sequence, count = (
                whole.fault,
                whole.entries,
                whole.sequence,
                whole.count,
            )
            if whole.total > 1:
                readings, total = whole.readings, whole.total
        if bounds is not None:
            entries = [entry for entry in entries if entry.key in bounds]
            readings = [[entry for entry in each if entry.key in bounds] for each in readings]
        if bounds is None or entries or any(readings):
            yield Changes(
                item.offset, item.end, sequence, count, entries, readings, total, salvaged
            )
        if fault is not None:
            expected = f"{fault.expected} at byte {fault.offset} of the record"
            reason, length = fault.reason.value, item.end - item.offset
            yield Fault(item.offset, length, "batch", reason, expected, fault.found)


def read_table(
    opened: Table, dialect: Dialect, bounds: Bounds | None = None
) -> Iterator[Block | Fault]:
    """The data blocks of a table, also those that no index leads to; with `bounds` of each only the
    entries within.

    A block of which some internal keys do not decode comes in pieces, with the faults between them.
    """
    structure = sorted(opened.faults, key=lambda fault: fault.offset)
    told: list[table.Fault] = []
    for offset, group in itertools.groupby(
        _entries(opened, dialect, bounds, told.append), operator.itemgetter(2)
    ):
        # The first entry of this block has been read by now, and all before it, but no more.
        while structure and structure[0].offset <= offset:
            yield of_table(structure.pop(0))
        yield from map(of_table, told)
        told.clear()
        entries = list(group)
        if bounds is not None:
            cut = dialect.suffix_length
            entries = [each for each in entries if each[0][:-cut] in bounds]
        if entries:
            yield from _checked(offset, entries, dialect)
    yield from map(of_table, told)
    yield from map(of_table, structure)


def of_table(fault: table.Fault) -> Fault:
    """A fault of a table."""
    part, reason = fault.part.value, fault.reason.value
    return Fault(fault.offset, fault.length, part, reason, fault.expected, fault.found)


def internal_key(raw: bytes, dialect: Dialect) -> InternalKey | None:
    """The key, or None if it does not decode."""
    try:
        return ikey.decode(raw, dialect)
    except FormatError:
        return None


_NOTHING: Final = SessionRecord()
_CHUNK: Final = struct.Struct("<IH")
_ENDS_BLOCK: Final = frozenset(
    {
        journal.Reason.BAD_CHECKSUM,
        journal.Reason.BAD_LENGTH,
        journal.Reason.TORN_CHUNK,
        journal.Reason.ZERO_HEADER,
        journal.Reason.UNKNOWN_TYPE,
    }
)
"""What makes an engine go on at the next block, or not at all."""
_PUT: Final = {KeyKind.PUT}
_KINDS: Final = {KeyKind.DELETE, KeyKind.PUT}


def _records(read_at: ReadAt) -> Iterator[tuple[journal.Item, bool]]:
    """Records and faults; behind a fault what is salvaged, which the flag tells."""
    for item in journal.read(read_at, _POLICY):
        yield item, False
        if isinstance(item, journal.Fault) and item.reason in _ENDS_BLOCK:
            for record in _salvage(read_at, item):
                yield record, True


def _salvage(read_at: ReadAt, fault: journal.Fault) -> Iterator[journal.Record]:
    """The records of one chunk behind the one that is damaged, up to the end of its block."""
    room = journal.BLOCK_SIZE - fault.offset % journal.BLOCK_SIZE
    data = read_at(min(fault.length, room), fault.offset)
    # The type, 1, is the last byte of a header.
    place = data.find(b"\x01", journal.HEADER_SIZE)
    while place >= 0:
        stored, length = _CHUNK.unpack_from(data, place - 6)
        start, end = place + 1, place + 1 + length
        if 0 < length <= len(data) - start and mask(crc32c(memoryview(data)[place:end])) == stored:
            offset = fault.offset
            yield journal.Record(data[start:end], offset + place - 6, offset + end)
            place = data.find(b"\x01", end + 6)
        else:
            place = data.find(b"\x01", place + 1)


def _entries_of(payload: bytes, dialect: Dialect) -> Sequence[batch.Entry]:
    """The entries of a record that has one sound reading, in the quickest way."""
    if dialect is Dialect.STANDARD:
        return batch.entries(payload)
    whole = batch.decode(payload, dialect)
    if whole.fault is not None:
        raise FormatError(whole.fault.detail, offset=whole.fault.offset)
    return whole.entries


def _entries(
    opened: Table, dialect: Dialect, bounds: Bounds | None, report: table.Report
) -> Iterator[Entry]:
    if bounds is None or opened.faults:
        # Damage may have made the index lead anywhere: then every block is read.
        yield from opened.entries(report)
        return
    cut = dialect.suffix_length
    for separator, handle in opened.blocks():
        user_key = separator[:-cut]
        if user_key < bounds.low and len(separator) >= cut:
            continue
        for entry in opened.block_entries(handle, report):
            if bounds.high is not None and entry[0][:-cut] >= bounds.high:
                return
            yield entry


def _checked(offset: int, entries: list[Entry], dialect: Dialect) -> Iterator[Block | Fault]:
    shortest = dialect.suffix_length
    if min([len(key) for key, _, _ in entries]) >= shortest:
        # The kind is the lowest byte of the trailer.
        kinds = {key[-8] for key, _, _ in entries}
        if kinds <= _KINDS:
            yield Block(offset, entries, kinds == _PUT)
            return
    yield from _in_pieces(offset, entries, dialect)


def _in_pieces(offset: int, entries: list[Entry], dialect: Dialect) -> Iterator[Block | Fault]:
    piece: list[Entry] = []
    for entry in entries:
        try:
            ikey.decode(entry[0], dialect)
        except FormatError as error:
            if piece:
                yield Block(offset, piece, only_puts=False)
                piece = []
            expected, found = _expectation(str(error))
            found += f", in the key {entry[0].hex() or '(empty)'}"
            yield Fault(offset, 0, "data block", BAD_KEY, expected, found)
        else:
            piece.append(entry)
    if piece:
        yield Block(offset, piece, only_puts=False)


def _framing_fault(fault: journal.Fault) -> Fault:
    expected, found = _expectation(fault.detail)
    return Fault(fault.offset, fault.length, "chunk", fault.reason.value, expected, found)


def _expectation(text: str) -> tuple[str, str]:
    """Both halves of what the format room says in one sentence."""
    expected, _, found = text.partition("expected ")[2].partition(", found ")
    return expected, found
