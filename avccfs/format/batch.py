"""Write batches: what each record of a journal holds (SPEC section 5).

    batch   sequence (fixed64) | count (fixed32) | count entries
    entry   kind (1) | key (bytes) | value (bytes), which a delete lacks
            kind (1) | version (varint) | key | value      avccDB, for a version above 0

Entry i has the sequence number of the batch plus i. avccDB leaves out a version of 0, and nothing
marks which of the two forms an entry has. A *reading* gives every entry a form such that exactly
`count` entries use up the record. A version counts only as avccDB writes it: above 0, and in the
shortest encoding. Lengths may be encoded longer than needed, as for the engines.

A standard batch has one reading at most. For avccDB all are looked for, in bounded time and memory
(`paths`), and a record with more than one is `AMBIGUOUS`: nothing in it says which was meant.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from avccfs.errors import FormatError
from avccfs.format.coding import (
    MAX_UINT32,
    MAX_UINT64,
    Buffer,
    encode_bytes,
    encode_varint,
    read_varint,
)
from avccfs.format.ikey import Dialect, KeyKind
from avccfs.format.paths import MAX_STATES, MAX_WAYS, Path, Paths, TooManyPathsError

HEADER_SIZE: Final = 12
MAX_READINGS: Final = 4
"""How many readings of an ambiguous record are spelled out."""

_HEADER: Final = struct.Struct("<QI")
_KINDS: Final = (KeyKind.DELETE, KeyKind.PUT)


class Reason(enum.Enum):
    """Why a record is not one batch for certain."""

    SHORT_HEADER = "short header"
    BAD_KIND = "bad kind"
    BAD_KEY = "bad key"
    BAD_VALUE = "bad value"
    NO_READING = "no reading"
    """avccDB: the entry decodes neither with a version nor without."""
    WRONG_COUNT = "wrong count"
    """The entries use up the record, but there are more or fewer than its header says."""
    AMBIGUOUS = "ambiguous"
    UNDECIDED = "undecided"
    """Too many ways to read the record to follow them all."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a record. The offset counts from the start of the record."""

    offset: int
    reason: Reason
    expected: str
    found: str

    @property
    def detail(self) -> str:
        """For people."""
        return f"batch, at offset {self.offset}: expected {self.expected}, found {self.found}"


class Entry(NamedTuple):
    """One change of one key. A named tuple, because journals hold millions."""

    kind: KeyKind
    key: bytes
    value: bytes | None
    """None for a delete."""
    sequence: int
    version: int | None
    """0 to 2**64 - 1 when read as avccDB's; None in the standard dialect."""
    offset: int
    """Of its kind byte, in the record."""
    length: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A record, read as far as it is sound."""

    sequence: int
    """Of the first entry; 0 if the record is too short to say, as `count`."""
    count: int
    """What the header says."""
    entries: tuple[Entry, ...]
    """All, if there is no fault. Of an ambiguous record those at its start that all readings
    share. Otherwise those before the damage, in the reading that gets furthest; with
    `WRONG_COUNT` all that are there."""
    readings: tuple[tuple[Entry, ...], ...]
    """The first `MAX_READINGS` complete ones; where they differ, the one without a version first.
    """
    total: int
    """Number of readings; `paths.MAX_WAYS` also stands for more. 0 if undecided."""
    fits_standard: bool
    """Whether reading it without any version is one of the readings."""
    fault: Fault | None

    @property
    def fits_versioned(self) -> bool:
        """Whether a reading has a version; never of a batch decoded as a standard one."""
        return self.total > self.fits_standard


@dataclass(frozen=True, slots=True)
class Change:
    """An entry to be written: its sequence number comes from its place in the batch."""

    key: bytes
    value: bytes | None = None
    """None deletes the key."""
    version: int = 0
    """For avccDB; 0 is not written."""


def encode(sequence: int, changes: Iterable[Change]) -> bytes:
    """The record of a batch. A number out of range is a `ValueError`."""
    listed = list(changes)
    if not 0 <= sequence <= MAX_UINT64 or len(listed) > MAX_UINT32:
        raise ValueError(f"no batch starts at {sequence} and has {len(listed)} entries")
    out = [_HEADER.pack(sequence, len(listed))]
    for change in listed:
        out.append(b"\x00" if change.value is None else b"\x01")
        if change.version:
            out.append(encode_varint(change.version))
        out.append(encode_bytes(change.key))
        if change.value is not None:
            out.append(encode_bytes(change.value))
    return b"".join(out)


def decode(payload: Buffer, dialect: Dialect) -> Batch:
    """The batch that a record holds. Never raises: what is wrong is the batch's `fault`."""
    record = bytes(payload)
    if len(record) < HEADER_SIZE:
        found = f"{len(record)} bytes"
        fault = Fault(0, Reason.SHORT_HEADER, f"a header of {HEADER_SIZE} bytes", found)
        return Batch(0, 0, (), (), 0, False, fault)
    if dialect is Dialect.AVCCDB:
        return _decode_avccdb(record)
    sequence, count = _HEADER.unpack_from(record)
    entries: list[Entry] = []
    damage: Fault | None = None
    try:
        _read_standard(record, sequence, entries)
    except _DamageError as error:
        damage = error.fault
    else:
        if len(entries) != count:
            damage = _wrong_count(count, len(entries))
    whole = tuple(entries)
    sound = damage is None
    return Batch(sequence, count, whole, (whole,) if sound else (), int(sound), sound, damage)


def entries(payload: bytes) -> list[Entry]:
    """The entries of a standard batch: the same as `decode` gives, at a third of the cost.

    Raises `FormatError` where `decode` finds a fault.
    """
    if len(payload) < HEADER_SIZE:
        raise _error(decode(payload, Dialect.STANDARD).fault)
    sequence, count = _HEADER.unpack_from(payload)
    found: list[Entry] = []
    _read_standard(payload, sequence, found)
    if len(found) != count:
        raise _error(_wrong_count(count, len(found)))
    return found


class Evidence:
    """What the records of journals say about the dialect of their database.

    Feed it sound records, as many as wanted; each is searched like an avccDB one.
    """

    def __init__(self) -> None:
        self.standard_only = 0
        """Records that read without a version and in no other way."""
        self.versioned_only = 0
        self.both = 0
        self.neither = 0

    def add(self, payload: Buffer) -> None:
        """Count one record. An undecided one counts as neither, an empty one not at all."""
        batch = decode(payload, Dialect.AVCCDB)
        if batch.fits_standard and batch.fits_versioned:
            self.both += 1
        elif batch.fits_versioned:
            self.versioned_only += 1
        elif not batch.fits_standard:
            self.neither += 1
        elif batch.count:
            self.standard_only += 1

    @property
    def dialect(self) -> Dialect | None:
        """avccDB once a record reads with versions alone; None if no record says anything.

        `STANDARD` is no proof: avccDB's entries of version 0 look the same.
        """
        if self.versioned_only:
            return Dialect.AVCCDB
        return Dialect.STANDARD if self.standard_only else None


class _DamageError(FormatError):
    """An entry that does not decode."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.detail, offset=fault.offset)
        self.fault = fault


def _error(fault: Fault | None) -> FormatError:
    assert fault is not None
    return _DamageError(fault)


def _wrong_count(count: int, found: int) -> Fault:
    return Fault(8, Reason.WRONG_COUNT, f"{count} entries, as the header says", str(found))


def _read_standard(record: bytes, sequence: int, out: list[Entry]) -> None:
    """Append the entries to `out` until the record is used up; `_DamageError` where one is not sound.

    The lengths of nearly all keys and values fit into one byte or two, and a journal has an entry
    of its own for each change: hence the straight line.
    """
    size = len(record)
    position = HEADER_SIZE
    kinds = _KINDS
    new = tuple.__new__
    while position < size:
        start = position
        try:
            kind = kinds[record[start]]
            length = record[start + 1]
            position = start + 2
            if length >= 0x80:
                length, position = read_varint(record, start + 1)
            key_end = position + length
            key = record[position:key_end]
            if kind:
                length = record[key_end]
                position = key_end + 1
                if length >= 0x80:
                    length, position = read_varint(record, key_end)
                end = position + length
                value: bytes | None = record[position:end]
            else:
                end = key_end
                value = None
        except (IndexError, FormatError):
            raise _DamageError(_diagnose(record, start)) from None
        if end > size:
            raise _DamageError(_diagnose(record, start))
        out.append(new(Entry, (kind, key, value, sequence, None, start, end - start)))
        sequence += 1
        position = end


def _read_entry(record: bytes, start: int, sequence: int, *, versioned: bool) -> Entry:
    """The entry at `start` in the form given, as avccDB's; `_DamageError` if it is none."""
    kind = record[start]
    if kind > KeyKind.PUT:
        raise _damage(start, Reason.BAD_KIND, "kind 0 (delete) or 1 (put)", str(kind))
    version, position = 0, start + 1
    if versioned:
        version, position = _read_version(record, position)
    key, position = _read_part(record, position, Reason.BAD_KEY, "key")
    value: bytes | None = None
    if kind == KeyKind.PUT:
        value, position = _read_part(record, position, Reason.BAD_VALUE, "value")
    return Entry(_KINDS[kind], key, value, sequence, version, start, position - start)


def _read_version(record: bytes, offset: int) -> tuple[int, int]:
    expected = "a version above 0 in its shortest form"
    try:
        version, end = read_varint(record, offset)
    except FormatError:
        raise _damage(offset, Reason.BAD_KEY, expected, "no varint") from None
    if version == 0 or record[end - 1] == 0:
        raise _damage(offset, Reason.BAD_KEY, expected, record[offset:end].hex())
    return version, end


def _read_part(record: bytes, offset: int, reason: Reason, what: str) -> tuple[bytes, int]:
    try:
        length, start = read_varint(record, offset)
    except FormatError:
        found = f"no varint in the {max(0, len(record) - offset)} bytes that follow"
        raise _damage(offset, reason, f"the length of a {what}", found) from None
    end = start + length
    if end > len(record):
        found = f"{len(record) - start}"
        raise _damage(offset, reason, f"{length} bytes of {what}", found)
    return record[start:end], end


def _damage(offset: int, reason: Reason, expected: str, found: str) -> _DamageError:
    return _DamageError(Fault(offset, reason, expected, found))


def _diagnose(record: bytes, start: int) -> Fault:
    """Why the entry at `start` is none in the form without a version."""
    try:
        _read_entry(record, start, 0, versioned=False)
    except _DamageError as error:
        return error.fault
    raise AssertionError(f"the entry at offset {start} is sound")


def _decode_avccdb(record: bytes) -> Batch:
    sequence, count = _HEADER.unpack_from(record)
    if (line := _read_line(record, sequence)) is not None and len(line) == count:
        plain_only = not any(entry.version for entry in line)
        return Batch(sequence, count, line, (line,), 1, plain_only, None)
    end = len(record)
    paths = Paths(lambda start: _ends_of_entry(record, start), HEADER_SIZE, end)

    def read(path: Path) -> tuple[Entry, ...]:
        return tuple(
            _read_entry(record, start, sequence + index, versioned=form == 1)
            for index, (start, form) in enumerate(path)
        )

    if paths.furthest != end:
        before = read(paths.to(paths.furthest))
        fault = _diagnose_avccdb(record, paths.furthest)
        return Batch(sequence, count, before, (), 0, False, fault)
    plain = paths.plain()
    standard = plain if plain is not None and len(plain) == count else None
    fits_standard = standard is not None
    try:
        paths.solve(count)
    except TooManyPathsError:
        found = f"more than {MAX_STATES} partial ones"
        fault = Fault(HEADER_SIZE, Reason.UNDECIDED, "few enough readings to follow", found)
        known = () if standard is None else (read(standard),)
        return Batch(sequence, count, (), known, 0, fits_standard, fault)
    total = paths.count(count)
    if total == 0:
        entries = read(plain if plain is not None else paths.to(end))
        fault = _wrong_count(count, len(entries))
        return Batch(sequence, count, entries, (), 0, False, fault)
    readings = tuple(read(path) for path in paths.first(count, MAX_READINGS))
    if total == 1:
        return Batch(sequence, count, readings[0], readings, 1, fits_standard, None)
    shared, fork = paths.shared(count)
    many = f"{total} or more" if total == MAX_WAYS else str(total)
    fault = Fault(fork, Reason.AMBIGUOUS, "one way to read the entries from here on", many)
    return Batch(sequence, count, read(shared), readings, total, fits_standard, fault)


def _read_line(record: bytes, sequence: int) -> tuple[Entry, ...] | None:
    """The entries, if one look at what follows settles each form, as in nearly all records."""
    size = len(record)
    start = HEADER_SIZE
    entries: list[Entry] = []
    while start < size:
        plain, versioned = _ends_of_entry(record, start)
        plain_fits = plain == size or (plain > 0 and record[plain] <= KeyKind.PUT)
        versioned_fits = versioned == size or (versioned > 0 and record[versioned] <= KeyKind.PUT)
        if plain_fits == versioned_fits:
            return None
        entry = _read_entry(record, start, sequence, versioned=not plain_fits)
        entries.append(entry)
        sequence += 1
        start += entry.length
    return tuple(entries)


def _ends_of_entry(record: bytes, start: int) -> tuple[int, int]:
    """Where the entry ends without a version and with one; 0 where it is none of that form."""
    kind = record[start]
    position = start + 1
    if kind > KeyKind.PUT or position == len(record):
        return 0, 0
    plain = _end_of_parts(record, position, kind)
    first = record[position]
    if first < 0x80:
        return plain, _end_of_parts(record, position + 1, kind) if first else 0
    try:
        _, position = _read_version(record, position)
    except _DamageError:
        return plain, 0
    return plain, _end_of_parts(record, position, kind)


def _end_of_parts(record: bytes, position: int, kind: int) -> int:
    """Where the key, and for a put the value, that begin at `position` end; 0 if they do not fit."""
    try:
        length = record[position]
        if length < 0x80:
            position += 1 + length
        else:
            length, position = read_varint(record, position)
            position += length
        if kind:
            length = record[position]
            if length < 0x80:
                position += 1 + length
            else:
                length, position = read_varint(record, position)
                position += length
    except (IndexError, FormatError):
        return 0
    return position if position <= len(record) else 0


def _diagnose_avccdb(record: bytes, start: int) -> Fault:
    plain = _diagnose(record, start)
    if plain.reason is Reason.BAD_KIND:
        return plain
    try:
        _read_entry(record, start, 0, versioned=True)
    except _DamageError as error:
        versioned = error.fault
        found = (
            f"none: without a version expected {plain.expected} at offset {plain.offset}, "
            f"found {plain.found}; with a version expected {versioned.expected} "
            f"at offset {versioned.offset}, found {versioned.found}"
        )
        return Fault(start, Reason.NO_READING, "an entry", found)
    raise AssertionError(f"the entry at offset {start} is sound")
