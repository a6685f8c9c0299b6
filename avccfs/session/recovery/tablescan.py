"""Tables as each engine reads them from the first key to the last (SPEC section 7 and 9).

`format.table` says what a table holds and what is wrong with it. Here it is what an engine makes of
it, damage included:

- LevelDB compares no checksum. It decodes whatever it finds, leaves a block at the first entry
  that cannot be, goes on at the next block and keeps the error for those who ask.
- goleveldb and avccDB compare checksums, of the metaindex too, and stop where one is wrong.

All three look for the footer where the manifest says that the file ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from avccfs.errors import FormatError
from avccfs.format import block
from avccfs.format.block import TRAILER_SIZE, BlockError
from avccfs.format.coding import MAX_UINT32, MAX_UINT64, masked_crc32c, read_varint
from avccfs.format.ikey import KeyKind
from avccfs.format.table import FOOTER_SIZE, MAGIC
from avccfs.session.folder import Opened
from avccfs.session.recovery.keyspace import ReadError, Status, UndefinedError

ReadAt = Callable[[int, int], bytes]
Raw = tuple[bytes, bytes]
"""Internal key and value."""

LIMIT: Final = 1 << 30
"""Bytes of a block. Engines have no limit; where they would ask for more, they end or are killed."""

_FIXED32: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class _Handle:
    offset: int
    length: int
    end: int
    """Behind its bytes, in the buffer that it was read from."""


def leveldb_entries(file: Opened, size: int, label: str, status: Status) -> Iterator[Raw]:
    """What LevelDB reads in a table that the manifest gives `size` bytes; errors go to `status`.

    `label` is the path of the directory, for errors. Raises `UndefinedError`.
    """
    if size < FOOTER_SIZE:
        status.add("Corruption: file is too short to be an sstable")
        return
    outside = f"IO error: {label}/{file.name}: Invalid argument"
    if size > file.size:
        status.add(outside)
        return
    footer = file.read_at(FOOTER_SIZE, size - FOOTER_SIZE)
    if footer[-len(MAGIC) :] != MAGIC:
        status.add("Corruption: not an sstable (bad magic number)")
        return
    metaindex = _handle(footer, 0)
    index = None if metaindex is None else _handle(footer, metaindex.end)
    if index is None:
        status.add("Corruption: bad block handle")
        return
    content = _leveldb_block(file, index, outside, status)
    if content is None:
        return
    for _, value in _leveldb_block_entries(content, status):
        handle = _handle(value, 0)
        if handle is None:
            status.add("Corruption: bad block handle")
            continue
        data = _leveldb_block(file, handle, outside, status)
        if data is not None:
            yield from _leveldb_block_entries(data, status)


def _leveldb_block(file: Opened, handle: _Handle, outside: str, status: Status) -> bytes | None:
    if handle.length > LIMIT:
        raise UndefinedError(f"{file.name}: it asks for {handle.length} bytes of memory")
    if (handle.offset + handle.length + TRAILER_SIZE) & MAX_UINT64 > file.size:
        status.add(outside)
        return None
    stored = file.read_at(handle.length + 1, handle.offset)
    if len(stored) <= handle.length:
        status.add(outside)
        return None
    try:
        return block.unpack(stored[:-1], stored[-1], limit=LIMIT)
    except BlockError as error:
        if error.reason is block.Reason.UNKNOWN_COMPRESSION:
            status.add("Corruption: bad block type")
        else:
            name = {1: "snappy", 2: "zstd"}.get(stored[-1], "")
            status.add(f"Corruption: corrupted {name} compressed block folder")
        return None


def _leveldb_block_entries(content: bytes, status: Status) -> Iterator[Raw]:
    if len(content) < 4:
        status.add("Corruption: bad block folder")
        return
    (restarts,) = _FIXED32.unpack_from(content, len(content) - 4)
    if restarts > (len(content) - 4) // 4:
        status.add("Corruption: bad block folder")
        return
    if restarts == 0:
        return
    end = len(content) - 4 * (restarts + 1)
    # It begins where the first restart says, which need not be the beginning.
    (position,) = _FIXED32.unpack_from(content, end)
    key = b""
    while position < end:
        shared = unshared = size = 0x80
        if end - position >= 3:
            shared, unshared, size = content[position], content[position + 1], content[position + 2]
        if shared | unshared | size < 0x80:
            position += 3
        elif end - position < 3:
            status.add("Corruption: bad entry in block")
            return
        else:
            lengths = _lengths32(content, position, end)
            if lengths is None:
                status.add("Corruption: bad entry in block")
                return
            shared, unshared, size, position = lengths
        left = end - position
        if left < (unshared + size) & MAX_UINT32 or len(key) < shared:
            status.add("Corruption: bad entry in block")
            return
        if left < unshared + size:
            raise UndefinedError("the lengths of an entry add up to more than 2**32")
        value_at = position + unshared
        key = key[:shared] + content[position:value_at]
        position = value_at + size
        yield key, content[value_at:position]


def _lengths32(content: bytes, position: int, end: int) -> tuple[int, int, int, int] | None:
    """Three numbers as LevelDB reads them: at most five bytes each, cut to 32 bits."""
    values: list[int] = []
    for _ in range(3):
        value = 0
        for shift in range(0, 35, 7):
            if position >= end:
                return None
            byte = content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            return None
        values.append(value & MAX_UINT32)
    return values[0], values[1], values[2], position


@dataclass(slots=True)
class Damage:
    """What goleveldb's rebuild counts while it reads a table."""

    blocks: int = 0


def goleveldb_entries(
    file: Opened, size: int, label: str, status: Status, lenient: Damage | None = None
) -> Iterator[Raw]:
    """What goleveldb, or avccDB, reads in a table that the manifest gives `size` bytes.

    Raises `ReadError` where it stops; with `lenient` it goes on behind a damaged data block, as
    the rebuild does, and stops silently at any other damage.
    """
    reader = _GoTable(file, size, label, status)
    try:
        index = reader.open()
        for _, value in reader.entries(index, "index-block"):
            handle = _handle(value, 0)
            if handle is None:
                raise _CorruptedError(reader.corruption("index-block", 0, "bad data block handle"))
            try:
                yield from reader.entries(handle, "data-block")
            except _CorruptedError:
                if lenient is None:
                    raise
                lenient.blocks += 1
    except _CorruptedError:
        if lenient is None:
            raise


def is_good_key(raw: bytes) -> bool:
    """Whether the rebuild of goleveldb, and of avccDB, takes an internal key for one."""
    return len(raw) >= 8 and raw[-8] <= KeyKind.PUT


class _CorruptedError(ReadError):
    """What goleveldb calls a corruption, other than an error of the file system."""


class _GoTable:
    def __init__(self, file: Opened, size: int, label: str, status: Status) -> None:
        self._status = status
        self._file = file
        self._size = size
        self._label = label
        digits = file.name.partition(".")[0]
        self._shown = f"{digits}.ldb"

    def corruption(self, kind: str, position: int, reason: str) -> str:
        return (
            f"leveldb/table: corruption on {kind} (pos={position}): {reason} [file={self._shown}]"
        )

    def open(self) -> _Handle:
        """The handle of the index, after looking at what it looks at when it opens a table."""
        if self._size < FOOTER_SIZE:
            raise _CorruptedError(self.corruption("table", 0, "too small"))
        at = self._size - FOOTER_SIZE
        footer = self._file.read_at(FOOTER_SIZE, at).ljust(FOOTER_SIZE, b"\0")
        if footer[-len(MAGIC) :] != MAGIC:
            raise _CorruptedError(self.corruption("table-footer", at, "bad magic number"))
        metaindex = _handle(footer, 0)
        if metaindex is None:
            reason = "bad metaindex block handle"
            raise _CorruptedError(self.corruption("table-footer", at, reason))
        index = _handle(footer, metaindex.end)
        if index is None:
            raise _CorruptedError(self.corruption("table-footer", at, "bad index block handle"))
        self.content(metaindex, "meta-block")
        return index

    def content(self, handle: _Handle, kind: str) -> bytes:
        if handle.length > LIMIT:
            raise UndefinedError(f"{self._shown}: it asks for {handle.length} bytes of memory")
        if handle.offset >= 1 << 63:
            raise ReadError(f"read {self._label}/{self._shown}: negative offset")
        stored = self._file.read_at(handle.length + TRAILER_SIZE, handle.offset)
        whole = len(stored) == handle.length + TRAILER_SIZE
        (wanted,) = _FIXED32.unpack_from(stored, handle.length + 1) if whole else (0,)
        got = masked_crc32c(stored[: handle.length + 1])
        if not stored:
            # It goes on with whatever an old buffer holds: now and then that is a sound block.
            self._status.doubt = (
                f"{self._shown}: a block lies behind the end of the file, and goleveldb takes what "
                "its buffer held before for it"
            )
        if not whole or wanted != got:
            reason = f"checksum mismatch, want={wanted:#x} got={got:#x}"
            raise _CorruptedError(self.corruption(kind, handle.offset, reason))
        compression = stored[handle.length]
        if compression > block.Compression.SNAPPY:
            reason = f"unknown compression type {compression:#x}"
            raise _CorruptedError(self.corruption(kind, handle.offset, reason))
        try:
            return block.unpack(stored[: handle.length], compression, limit=LIMIT)
        except BlockError:
            reason = "snappy: corrupt input"
            raise _CorruptedError(self.corruption(kind, handle.offset, reason)) from None

    def entries(self, handle: _Handle, kind: str) -> Iterator[Raw]:
        content = self.content(handle, kind)
        try:
            for key, value, _ in block.entries(content, 0):
                yield key, value
        except BlockError:
            reason = "entries corrupted"
            raise _CorruptedError(self.corruption(kind, handle.offset, reason)) from None


def _handle(data: bytes, offset: int) -> _Handle | None:
    try:
        place, behind = read_varint(data, offset)
        length, end = read_varint(data, behind)
    except FormatError:
        return None
    return _Handle(place, length, end)
