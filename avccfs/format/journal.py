"""Journal framing: how records lie in journals and manifests (SPEC section 4).

    file    block of 32768 bytes ... the last one may be short
    block   chunk ... then fewer than 7 bytes, zeros
    chunk   masked CRC-32C over type and payload (4) | length of payload (2) | type (1) | payload
    record  one chunk of type 1, or chunks 2, 3 ..., 4

Sound files read the same everywhere. Damaged ones do not: a `Policy` says whose reading this is,
and what that engine passes over becomes a `Fault`, also where the engine itself keeps silent:

                                goleveldb, avccDB             LevelDB
    checksum wrong              the rest of the block goes    the same
    length runs past the block  the rest of the block goes    the same; in a short last block it is
                                                              the end of the file, silently
    header of zeros             the rest of the block goes    the same, silently, and already when
                                                              type and length are zero
    other types                 the rest of the block goes    a sound chunk: only it goes, except
                                                              that type 5 ends the reading and
                                                              type 6 is passed over, silently
    3 or 4 without a 2          the chunk goes                the same
    1 or 2 inside a record      read on as if it were 4 or 3  the open record goes, a new one starts
    damage inside a record      the record goes               the same
    file ends inside a record   the record goes, reported     the same, silently

The two silent types of LevelDB come from its reader, whose own codes for "end of file" and "bad
record" are the numbers behind the last chunk type.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from avccfs.format.coding import Buffer, mask

BLOCK_SIZE: Final = 32768
HEADER_SIZE: Final = 7

_HEADER: Final = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_LEVELDB_END, _LEVELDB_BAD = 5, 6

# By whether the record has begun in an earlier chunk, and whether it goes on in another.
_KIND_OF: Final = {
    (False, False): _FULL,
    (False, True): _FIRST,
    (True, True): _MIDDLE,
    (True, False): _LAST,
}

# The checksum of a chunk covers its type first: these are where it goes on from.
_CRC_OF_TYPE: Final = tuple(crc32c(bytes([kind])) for kind in range(256))

ReadAt = Callable[[int, int], bytes]
"""`read_at(size, offset)`: up to `size` bytes from `offset`; fewer only at the end of the file."""

Source = ReadAt | Buffer


class Policy(enum.Enum):
    """Whose way of reading on after damage (the module's text has the differences)."""

    GOLEVELDB = "goleveldb"
    """goleveldb when not strict, with checksums; avccDB too."""
    LEVELDB = "leveldb"


class Reason(enum.Enum):
    """Why bytes of a journal carry no record."""

    BAD_CHECKSUM = "bad checksum"
    BAD_LENGTH = "bad length"
    """A chunk longer than its block."""
    TORN_CHUNK = "torn chunk"
    """The file ends inside a chunk: what an append that was cut off leaves."""
    TORN_HEADER = "torn header"
    """The file ends inside the header of a chunk."""
    ZERO_HEADER = "zero header"
    """A chunk of type 0: a stretch that was allocated and never written."""
    UNKNOWN_TYPE = "unknown type"
    ORPHAN_CHUNK = "orphan chunk"
    """A middle or last chunk of no record, as a rule of one that was lost before it."""
    BROKEN_RECORD = "broken record"
    """Sound chunks of a record that does not go on behind them."""
    TORN_RECORD = "torn record"
    """Sound chunks of a record that the file ends inside."""
    JOINED_RECORDS = "joined records"
    """goleveldb reads on into the start of another record and takes the two for one."""
    PADDING = "padding"
    """The bytes that no chunk fits into at the end of a block are not zeros."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the engine itself says of a fault."""

    text: str
    size: int
    """Bytes as the engine counts them; the length of the fault is what really went."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Bytes of the file that carry no record. Offsets and lengths in bytes of the file."""

    offset: int
    length: int
    """All that is passed over because of this; zero for `JOINED_RECORDS`, which loses nothing."""
    reason: Reason
    detail: str
    """For people: what was expected and what was found, and at which offset."""
    report: Report | None
    """None where the engine keeps silent."""

    @property
    def end(self) -> int:
        """The offset behind the fault."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the engine gets it."""

    payload: bytes
    offset: int
    """Of the header of its first chunk."""
    end: int
    """Behind its last chunk."""


Item = Record | Fault


def read(source: Source, policy: Policy) -> Iterator[Item]:
    """The records of a journal and the faults between them, in file order.

    `source` is a buffer or a `ReadAt`. Blocks are read one by one as the iteration goes on: memory
    holds one, and the record that is being put together, which is never longer than the chunks that
    the file really has. Raises nothing for any content; errors of `source` pass through.

    Records and faults together cover every byte of the file but zeros at the end of blocks, and
    overlap nowhere. Only `PADDING` and `JOINED_RECORDS` may lie inside a record, and come before it.
    """
    read_at = source if callable(source) else _reader_of(source)
    diagnose = _diagnose_goleveldb if policy is Policy.GOLEVELDB else _diagnose_leveldb
    record_open: _OpenRecord | None = None
    base = 0
    size = BLOCK_SIZE
    while size == BLOCK_SIZE and (block := read_at(BLOCK_SIZE, base)):
        size = len(block)
        position = 0
        while position + HEADER_SIZE <= size:
            stored, length, kind = _HEADER.unpack_from(block, position)
            start = position + HEADER_SIZE
            end = start + length
            payload = block[start:end]
            if not (
                _FULL <= kind <= _LAST
                and end <= size
                and mask(crc32c(payload, _CRC_OF_TYPE[kind])) == stored
            ):
                damage = diagnose(_Chunk(block, base, position, stored, length, kind), record_open)
                if record_open is not None:
                    yield record_open.broken(base + position, damage.report_of_record)
                    record_open = None
                if damage.ends_reading:
                    yield _stretched_to_end(damage.fault, read_at, base + size)
                    return
                yield damage.fault
                position += damage.fault.length
            elif record_open is None:
                if kind == _FULL:
                    yield Record(payload, base + position, base + end)
                elif kind == _FIRST:
                    record_open = _OpenRecord(payload, base + position, base + end)
                else:
                    yield _orphan(policy, kind, base + position, length)
                position = end
            else:
                if kind <= _FIRST:
                    # An old LevelDB could leave an empty first chunk at the end of a block, and
                    # start again in the next: its reader reports only what had content.
                    if policy is Policy.LEVELDB:
                        yield record_open.interrupted(base + position, kind)
                        record_open = None
                        continue
                    yield _joined(kind, base + position, record_open.offset)
                record_open.add(payload, base + end)
                if kind in (_FULL, _LAST):
                    yield record_open.finish()
                    record_open = None
                position = end
        if size == BLOCK_SIZE:
            yield from _check_padding(block, base, position)
            base += BLOCK_SIZE
    if record_open is not None:
        yield record_open.torn(policy)
    if size < BLOCK_SIZE:
        yield from _check_tail(block, base, position)


def goleveldb_wording(fault: Fault) -> str | None:
    """The error that goleveldb hands to its dropper; None where it drops silently."""
    if fault.report is None:
        return None
    return (
        f"leveldb/journal: block/chunk corrupted: {fault.report.text} ({fault.report.size} bytes)"
    )


def leveldb_wording(fault: Fault) -> str | None:
    """The line that `leveldbutil dump` prints; None where LevelDB drops silently."""
    if fault.report is None:
        return None
    return f"corruption: {fault.report.size} bytes; Corruption: {fault.report.text}"


def frame(payload: Buffer, offset: int) -> bytes:
    """What to append to a file of `offset` bytes for one record: padding if needed, and chunks."""
    view = memoryview(payload).cast("B")
    out: list[bytes | memoryview] = []
    room = BLOCK_SIZE - offset % BLOCK_SIZE
    if room < HEADER_SIZE:
        out.append(bytes(room))
        room = BLOCK_SIZE
    begun = False
    while True:
        piece = view[: room - HEADER_SIZE]
        view = view[len(piece) :]
        kind = _KIND_OF[begun, bool(view)]
        checksum = mask(crc32c(piece, _CRC_OF_TYPE[kind]))
        out += _HEADER.pack(checksum, len(piece), kind), piece
        if not view:
            return b"".join(out)
        begun = True
        room = BLOCK_SIZE


class Writer:
    """Frames records one after another, from any offset of a file on.

    It writes nothing itself. If the bytes it gave did not all reach the file, the file ends in a
    torn record, behind which no engine appends: start another file.
    """

    def __init__(self, offset: int = 0) -> None:
        if offset < 0:
            raise ValueError(f"an offset in a file is not negative: {offset}")
        self._offset = offset

    @property
    def offset(self) -> int:
        """The length of the file once all that was given so far has been appended."""
        return self._offset

    def append(self, payload: Buffer) -> bytes:
        """The bytes to append for this record."""
        data = frame(payload, self._offset)
        self._offset += len(data)
        return data


class _OpenRecord:
    """A record of which the first chunk has been read, and not yet the last."""

    def __init__(self, payload: bytes, offset: int, end: int) -> None:
        self.offset = offset
        self._data = bytearray(payload)
        self._end = end

    @property
    def size(self) -> int:
        return len(self._data)

    def add(self, payload: bytes, end: int) -> None:
        self._data += payload
        self._end = end

    def finish(self) -> Record:
        return Record(bytes(self._data), self.offset, self._end)

    def broken(self, at: int, report: Report | None) -> Fault:
        detail = f"expected the next chunk of the record at offset {at}, found damage"
        return self._fault(Reason.BROKEN_RECORD, detail, report)

    def interrupted(self, at: int, kind: int) -> Fault:
        number = 1 if kind == _FULL else 2
        report = Report(f"partial record without end({number})", self.size) if self.size else None
        detail = f"expected a middle or last chunk at offset {at}, found the start of a record"
        return self._fault(Reason.BROKEN_RECORD, detail, report)

    def torn(self, policy: Policy) -> Fault:
        report = Report("missing chunk part", 0) if policy is Policy.GOLEVELDB else None
        detail = f"expected the next chunk of the record behind offset {self._end}, found none"
        return self._fault(Reason.TORN_RECORD, detail, report)

    def _fault(self, reason: Reason, detail: str, report: Report | None) -> Fault:
        return Fault(self.offset, self._end - self.offset, reason, detail, report)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk that is not sound, in its block."""

    block: bytes
    base: int
    position: int
    stored: int
    length: int
    kind: int

    @property
    def end(self) -> int:
        return self.position + HEADER_SIZE + self.length

    @property
    def rest(self) -> int:
        """Bytes from its header to the end of the block."""
        return len(self.block) - self.position

    @property
    def in_last_block(self) -> bool:
        """LevelDB's idea of it: the block is short. A file may also end with a whole one."""
        return len(self.block) < BLOCK_SIZE

    def checksum(self) -> int:
        data = self.block[self.position + HEADER_SIZE : self.end]
        return mask(crc32c(data, _CRC_OF_TYPE[self.kind]))

    def fault(self, reason: Reason, found: str, length: int, report: Report | None) -> Fault:
        offset = self.base + self.position
        return Fault(offset, length, reason, f"chunk at offset {offset}: {found}", report)

    def overrun(self, report: Report | None) -> Fault:
        behind = self.rest - HEADER_SIZE
        if self.in_last_block and self.end <= BLOCK_SIZE:
            found = f"expected {self.length} bytes of payload, found the end of the file"
            reason = Reason.TORN_CHUNK
        else:
            found = f"expected at most {BLOCK_SIZE - self.position - HEADER_SIZE} bytes of payload"
            found += f", found the length {self.length}"
            reason = Reason.BAD_LENGTH
        return self.fault(reason, f"{found} ({behind} bytes follow)", self.rest, report)

    def mismatch(self, report: Report | None) -> Fault:
        found = f"expected the checksum {self.checksum():#010x} of its bytes, "
        found += f"found {self.stored:#010x} in its header"
        return self.fault(Reason.BAD_CHECKSUM, found, self.rest, report)

    def zeros(self, report: Report | None) -> Fault:
        found = "expected a header, found zeros"
        return self.fault(Reason.ZERO_HEADER, found, self.rest, report)

    def unknown(self, length: int, report: Report | None) -> Fault:
        found = f"expected the type 1, 2, 3 or 4, found {self.kind}"
        return self.fault(Reason.UNKNOWN_TYPE, found, length, report)


@dataclass(frozen=True, slots=True)
class _Damage:
    """What an engine does at a chunk that is not sound: it goes on behind `fault`, or ends."""

    fault: Fault
    report_of_record: Report | None = None
    """What it says of the record that was open."""
    ends_reading: bool = False


def _diagnose_goleveldb(chunk: _Chunk, _: _OpenRecord | None) -> _Damage:
    """The checks in goleveldb's order. Of the open record, which goes too, it says nothing."""
    if chunk.stored == chunk.length == chunk.kind == 0:
        return _Damage(chunk.zeros(Report("zero header", chunk.rest)))
    if not _FULL <= chunk.kind <= _LAST:
        report = Report(f"invalid chunk type {chunk.kind:#x}", chunk.rest)
        return _Damage(chunk.unknown(chunk.rest, report))
    if chunk.end > len(chunk.block):
        return _Damage(chunk.overrun(Report("chunk length overflows block", chunk.rest)))
    return _Damage(chunk.mismatch(Report("checksum mismatch", chunk.rest)))


def _diagnose_leveldb(chunk: _Chunk, record_open: _OpenRecord | None) -> _Damage:
    """The checks in LevelDB's order."""
    lost = record_open.size if record_open is not None else 0
    of_record = Report("error in middle of record", lost)
    if chunk.end > len(chunk.block):
        if chunk.in_last_block:
            return _Damage(chunk.overrun(None))
        return _Damage(chunk.overrun(Report("bad record length", chunk.rest)), of_record)
    if chunk.kind == chunk.length == 0:
        return _Damage(chunk.zeros(None), of_record)
    if chunk.checksum() != chunk.stored:
        return _Damage(chunk.mismatch(Report("checksum mismatch", chunk.rest)), of_record)
    length = HEADER_SIZE + chunk.length
    if chunk.kind == _LEVELDB_END:
        return _Damage(chunk.unknown(length, None), ends_reading=True)
    if chunk.kind == _LEVELDB_BAD:
        return _Damage(chunk.unknown(length, None), of_record)
    # Its C++ reads the type as a signed char: on x86-64 it prints 255 as 4294967295.
    printed = chunk.kind if chunk.kind < 0x80 else chunk.kind + 2**32 - 2**8
    report = Report(f"unknown record type {printed}", chunk.length + lost)
    return _Damage(chunk.unknown(length, report))


def _orphan(policy: Policy, kind: int, offset: int, length: int) -> Fault:
    if policy is Policy.GOLEVELDB:
        report = Report("orphan chunk", HEADER_SIZE + length)
    else:
        number = 1 if kind == _MIDDLE else 2
        report = Report(f"missing start of fragmented record({number})", length)
    detail = f"chunk at offset {offset}: expected the start of a record, found the type {kind}"
    return Fault(offset, HEADER_SIZE + length, Reason.ORPHAN_CHUNK, detail, report)


def _joined(kind: int, offset: int, record_offset: int) -> Fault:
    detail = (
        f"chunk at offset {offset}: expected the type 3 or 4, found {kind}, which is taken for "
        f"a part of the record at offset {record_offset}"
    )
    return Fault(offset, 0, Reason.JOINED_RECORDS, detail, None)


def _check_padding(block: bytes, base: int, position: int) -> Iterator[Fault]:
    """The few bytes at the end of a whole block."""
    padding = block[position:]
    if any(padding):
        detail = f"expected zeros at offset {base + position}, found {padding.hex()}"
        yield Fault(base + position, len(padding), Reason.PADDING, detail, None)


def _check_tail(block: bytes, base: int, position: int) -> Iterator[Fault]:
    """The few bytes at the end of a short block: a header cut off, or padding cut off."""
    tail = block[position:]
    if BLOCK_SIZE - position < HEADER_SIZE:
        yield from _check_padding(block, base, position)
    elif tail:
        detail = f"expected a header of 7 bytes at offset {base + position}, found {len(tail)}"
        yield Fault(base + position, len(tail), Reason.TORN_HEADER, detail, None)


def _stretched_to_end(fault: Fault, read_at: ReadAt, end: int) -> Fault:
    """`fault` made to cover the file from its offset on; `end` is how far the file was read."""
    while more := read_at(BLOCK_SIZE, end):
        end += len(more)
    return Fault(fault.offset, end - fault.offset, fault.reason, fault.detail, fault.report)


def _reader_of(data: Buffer) -> ReadAt:
    view = memoryview(data).cast("B")

    def read_at(size: int, offset: int) -> bytes:
        return bytes(view[offset : offset + size])

    return read_at
