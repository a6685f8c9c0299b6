"""What is wrong with the framing of a journal or a manifest (SPEC section 4).

The records come as goleveldb reads them, which gives up the fewest; what it passes over is told
apart further than any engine does it:

- A file that ends inside a chunk was cut off there, unless a whole chunk lies in what is left: then
  it is the length that is wrong, and everything behind it is passed over for that.
- Zeros up to the end of the file are a tail that was allocated and not written. Zeros with
  something behind them are damage.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from avccfs.format import journal
from avccfs.format.coding import masked_crc32c
from avccfs.format.journal import BLOCK_SIZE, HEADER_SIZE, Fault, Policy, ReadAt, Reason, Record
from avccfs.session.faults import Code, Flaw, Report

_CODES: Final = {
    Reason.BAD_CHECKSUM: Code.CHUNK_CHECKSUM,
    Reason.BAD_LENGTH: Code.CHUNK_LENGTH,
    Reason.TORN_CHUNK: Code.TORN_TAIL,
    Reason.TORN_HEADER: Code.TORN_TAIL,
    Reason.TORN_RECORD: Code.TORN_TAIL,
    Reason.ZERO_HEADER: Code.ZEROED_RANGE,
    Reason.UNKNOWN_TYPE: Code.CHUNK_TYPE,
    Reason.ORPHAN_CHUNK: Code.CHUNK_ORPHAN,
    Reason.BROKEN_RECORD: Code.RECORD_BROKEN,
    Reason.JOINED_RECORDS: Code.RECORDS_JOINED,
    Reason.PADDING: Code.BLOCK_PADDING,
}
_PIECE: Final = 1024 * 1024
_HEADER: Final = struct.Struct("<IH")
_TYPE: Final = re.compile(rb"[\x01-\x04]")
_DETAIL: Final = re.compile(r"(?:.*?: )?expected (.*), found (.*)", re.DOTALL)


def read_records(read_at: ReadAt, report: Report) -> Iterator[Record]:
    """The records of a file, while `report` gets what is wrong between them, in file order.

    Raises nothing for any content; errors of `read_at` pass through. Memory holds a block and the
    record that is being put together.
    """
    zeros = _Zeros(read_at)
    broken: Fault | None = None
    for item in journal.read(read_at, Policy.GOLEVELDB):
        if isinstance(item, Fault) and item.reason is Reason.BROKEN_RECORD:
            # What it was broken by comes next, and says which of the two it is.
            broken = item
            continue
        flaw = _flaw(item, read_at, zeros) if isinstance(item, Fault) else None
        if broken is not None and flaw is not None and flaw.code is Code.TORN_TAIL:
            flaw = _stretched(flaw, broken.offset)
        elif broken is not None:
            report(_plain(broken))
        broken = None
        if flaw is not None:
            report(flaw)
            if flaw.code is Code.TORN_TAIL:
                return
        elif isinstance(item, Record):
            yield item
    if broken is not None:
        report(_plain(broken))


def split_detail(detail: str) -> tuple[str, str]:
    """Expected and found of a sentence that says both; else the whole sentence as what was found."""
    match = _DETAIL.fullmatch(detail)
    return (match[1], match[2]) if match is not None else ("", detail)


def _flaw(fault: Fault, read_at: ReadAt, zeros: _Zeros) -> Flaw:
    if fault.reason is Reason.ZERO_HEADER:
        end = zeros.end_of(fault.offset)
        if end is not None:
            expected = "a chunk or the end of the file"
            found = f"{end - fault.offset} zeros up to the end of the file"
            return Flaw(Code.TORN_TAIL, fault.offset, end - fault.offset, expected, found)
    flaw = _plain(fault)
    if fault.reason not in (Reason.TORN_CHUNK, Reason.BAD_CHECKSUM, Reason.BAD_LENGTH):
        return flaw
    passed_over = _count_chunks(read_at(min(fault.length, BLOCK_SIZE), fault.offset))
    if not passed_over:
        return flaw
    chunks = "1 sound chunk" if passed_over == 1 else f"{passed_over} sound chunks"
    code = Code.CHUNK_LENGTH if flaw.code is Code.TORN_TAIL else flaw.code
    found = f"{flaw.found}; engines pass over {chunks} behind it in the block"
    return Flaw(code, flaw.offset, flaw.length, flaw.expected, found)


def _plain(fault: Fault) -> Flaw:
    expected, found = split_detail(fault.detail)
    return Flaw(_CODES[fault.reason], fault.offset, fault.length, expected, found)


def _stretched(flaw: Flaw, start: int) -> Flaw:
    """The same, beginning where the record begins that the file ends inside."""
    if flaw.offset is None or flaw.length is None:
        return flaw
    length = flaw.offset + flaw.length - start
    return Flaw(flaw.code, start, length, flaw.expected, flaw.found)


def _count_chunks(passed_over: bytes) -> int:
    """How many sound chunks lie in bytes that begin with the header of one that is not."""
    count = 0
    position = 1
    while (match := _TYPE.search(passed_over, position + HEADER_SIZE - 1)) is not None:
        position = match.start() - HEADER_SIZE + 1
        stored, length = _HEADER.unpack_from(passed_over, position)
        end = match.end() + length
        if end <= len(passed_over) and masked_crc32c(passed_over[match.start() : end]) == stored:
            count += 1
            position = end
        else:
            position += 1
    return count


class _Zeros:
    """Looks for the end of zeros, once for each stretch of them."""

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._until = 0
        """Where the stretch ends that was looked at last: at something else."""

    def end_of(self, offset: int) -> int | None:
        """The end of the file, if there are only zeros from `offset` up to it."""
        if offset < self._until:
            return None
        position = offset
        while piece := self._read_at(_PIECE, position):
            rest = piece.lstrip(b"\0")
            if rest:
                self._until = position + len(piece) - len(rest)
                return None
            position += len(piece)
        return position
