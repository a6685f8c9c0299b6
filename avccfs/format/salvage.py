"""Finding the blocks of a table without its index.

Blocks lie one behind the other, and each ends in a trailer: its compression and a checksum of
everything before. So a block that begins at a known offset ends where a trailer fits, which chance
alone brings about once in 2**32 places tried. That is `_block_from`.

Behind damage not even the beginning is known. A checksum of the bytes from one offset to another is
the difference of two checksums that begin at the same place, the first of them carried on over as
many zeros as the second one goes further:

    crc(B) = crc(AB) ^ carried(crc(A), len(B))

So of a *window* of the file each possible beginning, and each possible end with the checksum that is
stored there, is carried on to the end of the window. Where the two come out the same there is a
block. That takes one look at each place, not one at each pair: `_blocks_in_window`.

What is found are sound blocks. A table that lies as a value within another one consists of them
too; its blocks are found if the block around them is damaged, and only then.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from avccfs.format.block import TRAILER_SIZE
from avccfs.format.coding import MAX_UINT32, mask, unmask

LONGEST: Final = 16 * 1024 * 1024
"""A longer block than this is not found, wherever it begins. In bytes, with its trailer."""
LONGEST_BEHIND_DAMAGE: Final = 256 * 1024
"""The same for blocks of which the beginning is not known. Blocks of more than a quarter of this
are looked for only if there were some before."""

ReadAt = Callable[[int, int], bytes]

_CHUNK: Final = 64 * 1024
_STORED: Final = struct.Struct("<I")

# The compression, with a checksum behind it. No block has the checksum 0 but one in 2**32, while
# files with damage hold long runs of zeros.
_END: Final = re.compile(rb"[\x00-\x02](?=.{4})(?!\x00{4})", re.DOTALL)

_LITERALS: Final = b"".join(re.escape(bytes([length << 2])) for length in range(60))
# How a block with entries begins: nothing shared, and a key of 8 bytes or more. Snappy puts the
# length of the content and the head of a literal before that, zstd its magic number.
_START: Final = re.compile(
    rb"(?=\x00[\x08-\xff]"
    rb"|[\x80-\xff]{0,3}[\x01-\x7f](?:[" + _LITERALS + rb"]|\xf0.|\xf4..)\x00[\x08-\xff]"
    rb"|\x28\xb5\x2f\xfd)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Found:
    """A part of the file: a block, or bytes that are of none."""

    offset: int
    length: int
    """In bytes, with the trailer of the block."""
    sound: bool
    """Whether it is a block, with a checksum that is right."""


def find_blocks(read_at: ReadAt, start: int, end: int) -> Iterator[Found]:
    """The blocks from `start`, where one should begin, up to `end`, and what lies between them.

    The parts come in order and cover everything, up to where the file ends if that is before. Of
    the file no more is held in memory than twice `LONGEST_BEHIND_DAMAGE`.
    """
    reach = LONGEST_BEHIND_DAMAGE // 4
    lost_from = start
    position = start
    while position < end:
        begins_here = position == lost_from
        blocks: list[tuple[int, int]] = []
        if begins_here:
            blocks = _block_from(read_at, position, min(end, position + reach))
        if not blocks:
            near = min(reach, LONGEST_BEHIND_DAMAGE)
            wanted = min(end - position, 2 * near)
            window = read_at(wanted, position)
            if len(window) < wanted:
                end = position + len(window)
            blocks = _blocks_in_window(window, position)
            if not blocks and begins_here:
                blocks = _block_from(read_at, position, min(end, position + LONGEST))
            if not blocks:
                position += near
        for offset, length in blocks:
            if offset > lost_from:
                yield Found(lost_from, offset - lost_from, sound=False)
            yield Found(offset, length, sound=True)
            lost_from = position = offset + length
            reach = min(LONGEST, max(reach, 2 * length))
    if lost_from < end:
        yield Found(lost_from, end - lost_from, sound=False)


def _block_from(read_at: ReadAt, start: int, end: int) -> list[tuple[int, int]]:
    """Offset and length of the block that begins at `start` and ends at `end` at the latest."""
    checksum = 0
    base = start
    while base + TRAILER_SIZE <= end:
        chunk = read_at(min(_CHUNK, end - base), base)
        if len(chunk) < TRAILER_SIZE:
            break
        done = 0
        for match in _END.finditer(chunk):
            behind = match.end()
            checksum = crc32c(chunk[done:behind], checksum)
            done = behind
            if mask(checksum) == _STORED.unpack_from(chunk, behind)[0]:
                return [(start, base + behind + _STORED.size - start)]
        # The last bytes are looked at again with what follows them.
        kept = max(done, len(chunk) - TRAILER_SIZE + 1)
        checksum = crc32c(chunk[done:kept], checksum)
        base += kept
    return []


def _blocks_in_window(window: bytes, start: int) -> list[tuple[int, int]]:
    """Offsets and lengths of its blocks that do not overlap, in order; it begins at `start`."""
    size = len(window)
    zeros = bytes(size)
    starts: dict[int, int] = {}
    """By the checksum carried on: the first beginning in the window that gives it."""
    ends = _carried_ends(window, zeros)
    blocks: list[tuple[int, int]] = []
    checksum = 0
    done = 0
    for match in _START.finditer(window):
        begin = match.start()
        checksum = crc32c(window[done:begin], checksum)
        done = begin
        starts.setdefault(_carried(checksum, size - begin, zeros), begin)
    for value, behind in ends:
        begin = starts.get(value, behind)
        if begin < behind:
            blocks.append((begin, behind + _STORED.size - begin))
    blocks.sort()
    chosen: list[tuple[int, int]] = []
    position = 0
    for begin, length in blocks:
        if begin >= position:
            chosen.append((start + begin, length))
            position = begin + length
    return chosen


def _carried_ends(window: bytes, zeros: bytes) -> Iterator[tuple[int, int]]:
    """The checksum of what lies before the block, carried on, and the end of the block."""
    checksum = 0
    done = 0
    for match in _END.finditer(window):
        behind = match.end()
        checksum = crc32c(window[done:behind], checksum)
        done = behind
        stored = unmask(_STORED.unpack_from(window, behind)[0])
        yield _carried(checksum ^ stored, len(window) - behind, zeros), behind


def _carried(checksum: int, count: int, zeros: bytes) -> int:
    """The part that a checksum has in one over `count` more bytes."""
    return crc32c(memoryview(zeros)[:count], checksum ^ MAX_UINT32) ^ MAX_UINT32
