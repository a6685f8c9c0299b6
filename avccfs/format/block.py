"""What a block of a table holds: compressed content, and in most of them entries (SPEC section 7).

    block     content, perhaps compressed | trailer
    trailer   compression (1) | masked CRC-32C of all before it (4)
    content   entry ... | restart offset (fixed32 each) | their count (fixed32)
    entry     shared (varint) | unshared (varint) | value length (varint) | unshared key | value

An entry's key is the first `shared` bytes of the key before it, then its own. At a restart offset
nothing is shared. Data, index and metaindex blocks have entries; filter and Merkle blocks do not.

What a block may cost is bounded before it is paid. Content of more than a limit is refused by what
the compressed form announces, and an announcement that the compressed bytes cannot keep by their
number. Keys are made one after the other, and of long shared parts no more than `MAX_SHARED` bytes.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final

import cramjam
import zstandard

from avccfs.errors import FormatError
from avccfs.format.coding import read_varint

TRAILER_SIZE: Final = 5
MAX_CONTENT: Final = 64 * 1024 * 1024
"""Bytes of content in a block unless the caller says otherwise. Engines write blocks of 4 KiB, and
larger ones for single values that do not fit."""
MAX_SHARED: Final = 16 * MAX_CONTENT
"""Bytes that all entries of a block together may take over from keys before them, counting only
parts of 128 bytes and more. What engines write by default stays below 16 times the content."""

_COUNT: Final = struct.Struct("<I")
_SNAPPY_FACTOR: Final = 22
"""A snappy copy makes at most 64 bytes out of 3."""

Entry = tuple[bytes, bytes, int]
"""Key, value, and the offset of the block in the file. A plain tuple: tables hold millions."""


class Compression(enum.IntEnum):
    """How content is compressed. The values are on disk."""

    NONE = 0
    SNAPPY = 1
    ZSTD = 2


ALL_COMPRESSIONS: Final = frozenset(Compression)


class Reason(enum.Enum):
    """What is wrong with a table, or a block of one."""

    TOO_SMALL = "too small"
    """The file is shorter than a footer."""
    BAD_MAGIC = "bad magic"
    BAD_PADDING = "bad padding"
    BAD_HANDLE = "bad handle"
    """It does not decode, or what it names is not within the file."""
    OVERLAP = "overlap"
    """A handle of bytes that belong to another block."""
    GAP = "gap"
    """Bytes that no handle leads to."""
    TRUNCATED = "truncated"
    """The file ends before the size that was given for it."""
    TOO_LARGE = "too large"
    BAD_CHECKSUM = "bad checksum"
    UNKNOWN_COMPRESSION = "unknown compression"
    BAD_COMPRESSION = "bad compression"
    BAD_RESTARTS = "bad restarts"
    """There are more than the block has room for, or none."""
    MISPLACED_RESTART = "misplaced restart"
    """It does not lead to an entry. Engines notice only when they look for a key."""
    BAD_ENTRY = "bad entry"
    BAD_FILTER = "bad filter"
    BAD_MERKLE = "bad merkle"
    UNREADABLE = "unreadable"
    """Where blocks are looked for without an index: bytes that are part of no sound one."""


class BlockError(FormatError):
    """A block that does not decode: why, and what was expected and found. The offset counts from
    the start of the content."""

    def __init__(self, reason: Reason, expected: str, found: str, *, offset: int = 0) -> None:
        super().__init__(f"expected {expected}, found {found}", offset=offset)
        self.reason = reason
        self.expected = expected
        self.found = found


def longest_stored(limit: int) -> int:
    """The bytes that a block of `limit` bytes of content may have on disk: snappy at its worst."""
    return 32 + limit + limit // 6


def unpack(stored: bytes, compression: int, limit: int = MAX_CONTENT) -> bytes:
    """The content of a block that was read without its trailer. Raises `BlockError`."""
    if compression == Compression.SNAPPY:
        return _unpack_snappy(stored, limit)
    if compression == Compression.NONE:
        _check_size(len(stored), limit)
        return stored
    if compression == Compression.ZSTD:
        return _unpack_zstd(stored, limit)
    raise unknown_compression(compression, ALL_COMPRESSIONS)


def unknown_compression(found: int, known: frozenset[Compression]) -> BlockError:
    """The error for a compression that is not among those known."""
    names = " or ".join(f"{each} ({each.name.lower()})" for each in sorted(known))
    return BlockError(Reason.UNKNOWN_COMPRESSION, f"compression {names}", str(found))


def entries(content: bytes, origin: int) -> Iterator[Entry]:
    """The entries of a block, one by one, each with `origin` as its third part.

    Raises `BlockError` at the first that does not decode, after the good ones before it; and after
    the last one, if a restart offset does not lead to an entry with a whole key.
    """
    end = _end_of_entries(content)
    restarts = _COUNT.iter_unpack(content[end:-4])
    (restart,) = next(restarts, (-1,))
    if end == 0 and restart == 0:
        # A block without entries has one restart all the same.
        (restart,) = next(restarts, (-1,))
    allowance = MAX_SHARED
    key = b""
    start = 0
    while start < end:
        # The trailing restarts make it safe to look at three bytes before knowing their place.
        shared = content[start]
        unshared = content[start + 1]
        size = content[start + 2]
        if shared < 0x80 and unshared < 0x80:
            position = start + 3
            if size >= 0x80:
                size, position = _read_length(content, start + 2, start, end)
        else:
            shared, position = _read_length(content, start, start, end)
            unshared, position = _read_length(content, position, start, end)
            size, position = _read_length(content, position, start, end)
            allowance -= shared
            if allowance < 0:
                raise _bad_entry(start, f"at most {MAX_SHARED} bytes shared in the block", "more")
        key_end = position + unshared
        value_end = key_end + size
        if value_end > end:
            expected = f"{unshared} bytes of key and {size} of value"
            raise _bad_entry(start, expected, f"{max(0, end - position)} bytes")
        if shared:
            if shared > len(key):
                expected = f"at most {len(key)} bytes shared with the key before it"
                raise _bad_entry(start, expected, str(shared))
            key = key[:shared] + content[position:key_end]
        else:
            if start == restart:
                (restart,) = next(restarts, (-1,))
            key = content[position:key_end]
        yield key, content[key_end:value_end], origin
        start = value_end
    if restart != -1:
        expected = f"an entry with a whole key at the restart offset {restart} of the content"
        raise BlockError(Reason.MISPLACED_RESTART, expected, "none", offset=end)


def _end_of_entries(content: bytes) -> int:
    if len(content) < _COUNT.size:
        found = f"{len(content)} bytes of content"
        raise BlockError(Reason.BAD_RESTARTS, "the count of restarts", found)
    count: int
    (count,) = _COUNT.unpack_from(content, len(content) - _COUNT.size)
    end = len(content) - _COUNT.size * (count + 1)
    if count == 0 or end < 0:
        most = len(content) // _COUNT.size - 1
        offset = len(content) - _COUNT.size
        expected = f"1 to {most} restarts" if most else "at least one restart"
        raise BlockError(Reason.BAD_RESTARTS, expected, str(count), offset=offset)
    return end


def _read_length(content: bytes, offset: int, start: int, end: int) -> tuple[int, int]:
    try:
        return read_varint(content, offset)
    except FormatError:
        found = f"no varint at byte {offset} of the content, of which {end} are for entries"
        raise _bad_entry(start, "the lengths of an entry", found) from None


def _bad_entry(start: int, expected: str, found: str) -> BlockError:
    expected = f"{expected} in the entry at byte {start} of the content"
    return BlockError(Reason.BAD_ENTRY, expected, found, offset=start)


def _unpack_snappy(stored: bytes, limit: int) -> bytes:
    try:
        size, start = read_varint(stored, 0)
    except FormatError:
        raise BlockError(Reason.BAD_COMPRESSION, "the length of snappy content", "none") from None
    _check_size(size, limit)
    if size > _SNAPPY_FACTOR * (len(stored) - start):
        found = f"{len(stored) - start} bytes, which cannot give so many"
        raise BlockError(Reason.BAD_COMPRESSION, f"snappy of {size} bytes", found)
    try:
        return bytes(cramjam.snappy.decompress_raw(stored))
    except cramjam.DecompressionError as error:
        expected = f"snappy of {size} bytes"
        raise BlockError(Reason.BAD_COMPRESSION, expected, str(error)) from None


def _unpack_zstd(stored: bytes, limit: int) -> bytes:
    try:
        size = zstandard.frame_content_size(stored)
        if size < 0:
            # LevelDB, the only engine that writes zstd, reads no frame that leaves it out.
            raise BlockError(Reason.BAD_COMPRESSION, "a zstd frame that tells its size", "none")
        _check_size(size, limit)
        decompressor = zstandard.ZstdDecompressor()
        return decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BlockError(Reason.BAD_COMPRESSION, "a zstd frame", str(error)) from None


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise BlockError(Reason.TOO_LARGE, f"at most {limit} bytes of content", str(size))
