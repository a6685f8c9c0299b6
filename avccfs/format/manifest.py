"""Session records: what each record of a manifest holds (SPEC section 6).

A record is a sequence of fields, each a tag (varint) and then, by tag:

    1  comparer             bytes
    2  journal number       varint
    3  next file number     varint
    4  sequence number      varint
    5  compaction pointer   level varint, internal key bytes
    6  deleted table        level varint, number varint
    7  added table          level varint, number varint, size varint, smallest, largest key bytes
    9  previous journal     varint; LevelDB still writes it, right after the journal number

Tag 8 was used once and is never written. All but the sequence number must stay below 2**63. Of a
field that may stand only once the last one counts, as for the engines. One record may name the same
added table twice: goleveldb's do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from avccfs.errors import FormatError
from avccfs.format.coding import Buffer, encode_bytes, encode_varint, read_bytes, read_varint

BYTEWISE_COMPARER: Final = b"leveldb.BytewiseComparator"
"""The comparer that all three engines write unless told otherwise."""

MAX_INT64: Final = 2**63 - 1


class Tag(enum.IntEnum):
    """Field tags. The values are on disk."""

    COMPARER = 1
    JOURNAL_NUMBER = 2
    NEXT_FILE_NUMBER = 3
    SEQUENCE = 4
    COMPACTION_POINTER = 5
    DELETED_TABLE = 6
    ADDED_TABLE = 7
    PREVIOUS_JOURNAL_NUMBER = 9


@dataclass(frozen=True, slots=True)
class CompactionPointer:
    """Where the next compaction of a level begins."""

    level: int
    key: bytes
    """An encoded internal key."""


@dataclass(frozen=True, slots=True)
class DeletedTable:
    """A table that a level no longer has."""

    level: int
    number: int


@dataclass(frozen=True, slots=True)
class AddedTable:
    """A table that a level has from now on."""

    level: int
    number: int
    size: int
    """In bytes."""
    smallest: bytes
    """Encoded internal key, as `largest`; both are in the table."""
    largest: bytes


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One change of a session. None, and the empty tuple, mean that the record does not say.

    Levels are whatever the record claims, up to 2**63 - 1: index nothing by them unchecked.
    """

    comparer: bytes | None = None
    journal_number: int | None = None
    next_file_number: int | None = None
    sequence: int | None = None
    previous_journal_number: int | None = None
    compaction_pointers: tuple[CompactionPointer, ...] = ()
    deleted_tables: tuple[DeletedTable, ...] = ()
    added_tables: tuple[AddedTable, ...] = ()


def encode(record: SessionRecord) -> bytes:
    """The bytes of a record, in the order in which the engines write fields.

    A number out of its range is a `ValueError`.
    """
    out: list[bytes] = []
    if record.comparer is not None:
        out += encode_varint(Tag.COMPARER), encode_bytes(record.comparer)
    for tag, number in (
        (Tag.JOURNAL_NUMBER, record.journal_number),
        (Tag.PREVIOUS_JOURNAL_NUMBER, record.previous_journal_number),
        (Tag.NEXT_FILE_NUMBER, record.next_file_number),
    ):
        if number is not None:
            out += encode_varint(tag), _encode_number(number)
    if record.sequence is not None:
        out += encode_varint(Tag.SEQUENCE), encode_varint(record.sequence)
    for pointer in record.compaction_pointers:
        out += encode_varint(Tag.COMPACTION_POINTER), _encode_number(pointer.level)
        out.append(encode_bytes(pointer.key))
    for gone in record.deleted_tables:
        out += encode_varint(Tag.DELETED_TABLE), _encode_number(gone.level)
        out.append(_encode_number(gone.number))
    for table in record.added_tables:
        out += encode_varint(Tag.ADDED_TABLE), _encode_number(table.level)
        out += _encode_number(table.number), _encode_number(table.size)
        out += encode_bytes(table.smallest), encode_bytes(table.largest)
    return b"".join(out)


def decode(payload: Buffer) -> SessionRecord:
    """The record that `payload` holds as a whole.

    Raises `FormatError` for an unknown tag, a number of 2**63 or more where none may be negative,
    and a field cut short; its offset is that of the part of the field that is wrong.
    """
    record, error = decode_partial(payload)
    if error is not None:
        raise error
    return record


def decode_partial(payload: Buffer) -> tuple[SessionRecord, FormatError | None]:
    """The fields up to the first that does not decode, and the error that `decode` would raise."""
    fields = _Fields(payload)
    error: FormatError | None = None
    try:
        while fields.offset < len(payload):
            fields.read_field()
    except FormatError as caught:
        error = caught
    return fields.record(), error


def _encode_number(value: int) -> bytes:
    if not 0 <= value <= MAX_INT64:
        raise ValueError(f"a level, number or size in a manifest is 0 to 2**63 - 1, not {value}")
    return encode_varint(value)


class _Fields:
    """A record being read: each `read_field` adds one whole field, or raises and adds nothing."""

    def __init__(self, payload: Buffer) -> None:
        self.offset = 0
        self._payload = payload
        self._comparer: bytes | None = None
        self._numbers: dict[Tag, int] = {}
        self._pointers: list[CompactionPointer] = []
        self._deleted: list[DeletedTable] = []
        self._added: list[AddedTable] = []

    def record(self) -> SessionRecord:
        return SessionRecord(
            comparer=self._comparer,
            journal_number=self._numbers.get(Tag.JOURNAL_NUMBER),
            next_file_number=self._numbers.get(Tag.NEXT_FILE_NUMBER),
            sequence=self._numbers.get(Tag.SEQUENCE),
            previous_journal_number=self._numbers.get(Tag.PREVIOUS_JOURNAL_NUMBER),
            compaction_pointers=tuple(self._pointers),
            deleted_tables=tuple(self._deleted),
            added_tables=tuple(self._added),
        )

    def read_field(self) -> None:
        match self._tag():
            case Tag.COMPARER:
                self._comparer = self._bytes("comparer (tag 1)")
            case Tag.JOURNAL_NUMBER:
                self._numbers[Tag.JOURNAL_NUMBER] = self._number("journal number (tag 2)")
            case Tag.NEXT_FILE_NUMBER:
                self._numbers[Tag.NEXT_FILE_NUMBER] = self._number("next file number (tag 3)")
            case Tag.SEQUENCE:
                self._numbers[Tag.SEQUENCE] = self._varint("sequence number (tag 4)")
            case Tag.COMPACTION_POINTER:
                level = self._number("level of a compaction pointer (tag 5)")
                key = self._bytes("key of a compaction pointer (tag 5)")
                self._pointers.append(CompactionPointer(level, key))
            case Tag.DELETED_TABLE:
                level = self._number("level of a deleted table (tag 6)")
                number = self._number("number of a deleted table (tag 6)")
                self._deleted.append(DeletedTable(level, number))
            case Tag.ADDED_TABLE:
                level = self._number("level of an added table (tag 7)")
                number = self._number("number of an added table (tag 7)")
                size = self._number("size of an added table (tag 7)")
                smallest = self._bytes("smallest key of an added table (tag 7)")
                largest = self._bytes("largest key of an added table (tag 7)")
                self._added.append(AddedTable(level, number, size, smallest, largest))
            case Tag.PREVIOUS_JOURNAL_NUMBER:
                number = self._number("previous journal number (tag 9)")
                self._numbers[Tag.PREVIOUS_JOURNAL_NUMBER] = number

    def _tag(self) -> Tag:
        start = self.offset
        value = self._varint("tag of a field")
        try:
            return Tag(value)
        except ValueError:
            raise FormatError(
                f"tag of a field, in a session record: expected 1 to 7 or 9 at offset {start}, "
                f"found {value}",
                offset=start,
            ) from None

    def _number(self, what: str) -> int:
        start = self.offset
        value = self._varint(what)
        if value > MAX_INT64:
            raise FormatError(
                f"{what}, in a session record: expected 0 to 2**63 - 1 at offset {start}, "
                f"found {value}, which engines read as negative",
                offset=start,
            )
        return value

    def _varint(self, what: str) -> int:
        try:
            value, self.offset = read_varint(self._payload, self.offset)
        except FormatError as error:
            raise _in_field(what, error) from None
        return value

    def _bytes(self, what: str) -> bytes:
        try:
            value, self.offset = read_bytes(self._payload, self.offset)
        except FormatError as error:
            raise _in_field(what, error) from None
        return value


def _in_field(what: str, error: FormatError) -> FormatError:
    return FormatError(f"{what}, in a session record: {error}", offset=error.offset)
