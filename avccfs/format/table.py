"""Tables: footer, index, metaindex, and the entries of the data blocks (SPEC section 7).

    file    data block ... | Merkle block, filter block | metaindex block | index block | footer
    footer  handle of the metaindex | handle of the index | zeros up to 40 bytes | magic (8)
    handle  offset (varint) | length (varint), which leaves out the trailer of the block

Index entry i has the handle of data block i, under a key that is not before the last one in it and
before the first one of the next. The metaindex has the handles of filter and Merkle block under
their names (`filter`, `merkle`). Old tables, `.sst`, are the same.

`Table` reads block by block, and every byte of a sound file has its place: padding, gaps between
blocks and handles that overlap are faults. What the index leads to is what an engine sees. What it
does not lead to, because it is damaged itself or lacks a block, is found by the blocks' own
checksums (`salvage`), if that is asked for.
"""

from __future__ import annotations

import bisect
import enum
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from avccfs.errors import FormatError
from avccfs.format import block, merkle, salvage
from avccfs.format.block import (
    ALL_COMPRESSIONS,
    MAX_CONTENT,
    TRAILER_SIZE,
    BlockError,
    Compression,
    Entry,
    Reason,
)
from avccfs.format.coding import Buffer, encode_varint, mask, read_varint
from avccfs.format.filter import METAINDEX_PREFIX, FilterBlock
from avccfs.format.ikey import Dialect

FOOTER_SIZE: Final = 48
MAGIC: Final = bytes.fromhex("57fb808b247547db")

MAX_BAD_HANDLES: Final = 1000
"""Behind so many handles that are wrong the index is not followed any further."""
MAX_NAMED: Final = 100
"""Nor is the metaindex behind so many blocks; engines name two at most."""

_PADDED_SIZE: Final = FOOTER_SIZE - len(MAGIC)
_CHECKSUM: Final = struct.Struct("<I")

ReadAt = Callable[[int, int], bytes]
"""`read_at(size, offset)`: up to `size` bytes from `offset`; fewer only at the end of the file."""


class Part(enum.Enum):
    """Which part of a table a fault is in."""

    FOOTER = "footer"
    INDEX = "index block"
    METAINDEX = "metaindex block"
    FILTER = "filter block"
    MERKLE = "Merkle block"
    DATA = "data block"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Handle:
    """Where a block is."""

    offset: int
    length: int
    """Without the trailer."""

    @property
    def end(self) -> int:
        """The offset behind the trailer."""
        return self.offset + self.length + TRAILER_SIZE


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a table. Offset and length in bytes of the file.

    For an entry of a compressed block they are those of the block; `expected` says which byte.
    """

    offset: int
    length: int
    part: Part
    reason: Reason
    expected: str
    found: str

    @property
    def detail(self) -> str:
        """For people."""
        where = f"{self.part.value} at offset {self.offset}"
        return f"{where}: expected {self.expected}, found {self.found}"


Report = Callable[[Fault], None]
"""Gets the faults one by one, when the reading comes upon them."""


@dataclass(frozen=True, slots=True)
class Footer:
    """The end of a table."""

    metaindex: Handle
    index: Handle


class Table:
    """A table, to be read through `read_at`, of `size` bytes.

    Reading it never raises for what it holds: `faults` has what is wrong with its structure from
    the start, and what reads blocks takes a `Report`. Errors of `read_at` pass through. A block of
    more than `limit` bytes of content is a fault.

    With `verify=False` no checksum is compared and no handle refused because another one covers
    its bytes already. That is how LevelDB reads by default. A block compressed in a way that is
    not among `compressions` is a fault: goleveldb, avccDB and LevelDB up to 1.23 know no zstd.
    """

    def __init__(
        self,
        read_at: ReadAt,
        size: int,
        *,
        verify: bool = True,
        compressions: frozenset[Compression] = ALL_COMPRESSIONS,
        limit: int = MAX_CONTENT,
    ) -> None:
        self.size = size
        self.footer: Footer | None = None
        """None if it does not decode."""
        self.dialect: Dialect | None = None
        """What the metaindex shows; None if it cannot be read."""
        self.merkle: Handle | None = None
        self.filters: dict[bytes, Handle] = {}
        """By name of the policy."""
        self.others: dict[bytes, Handle] = {}
        """What else the metaindex names."""
        self._read_at = read_at
        self._verify = verify
        self._compressions = compressions
        self._limit = limit
        self._faults: list[Fault] = []
        self._index: bytes | None = None
        self._data_end = size
        """Where the data ends at the latest."""
        self._behind_data: list[tuple[Part, Handle]] = []
        """What lies between data and footer, in no order."""
        self._damaged: list[tuple[int, int]] = []
        """From where to where metaindex and index lie, if they cannot be read."""
        self._open()
        self.faults = tuple(self._faults)
        """What is wrong with everything but the data blocks, as far as it takes no filter or
        Merkle block to know it."""

    @property
    def indexed(self) -> bool:
        """Whether there is an index to read by."""
        return self._index is not None

    def blocks(self) -> Iterator[tuple[bytes, Handle]]:
        """The data blocks that the index leads to, each under its key there.

        Handles that are wrong are left out: they are in `faults`.
        """
        for key, handle, _ in self._walk_index(_ignore):
            if handle is not None:
                yield key, handle

    def entries(self, report: Report, *, beyond_index: bool = True) -> Iterator[Entry]:
        """Internal key, value and offset of the block of every entry, in file order.

        `report` gets the faults of data blocks. A block whose checksum is wrong is left out as a
        whole; if entries do not decode, those before the first such one are given. Unless
        `beyond_index` is False, blocks that no handle leads to are looked for and read as well.
        """
        if self._index is None:
            if beyond_index:
                yield from self._salvage(0, self._data_end, report)
            return
        for _, handle, gap in self._walk_index(_ignore):
            if beyond_index and gap is not None:
                yield from self._salvage(*gap, report)
            if handle is not None:
                yield from self.block_entries(handle, report)

    def block_entries(self, handle: Handle, report: Report) -> Iterator[Entry]:
        """The entries of one data block, as `entries` gives them."""
        content = self.content(handle, Part.DATA, report)
        if content is not None:
            yield from self._entries_of(content, handle, Part.DATA, report)

    def content(self, handle: Handle, part: Part, report: Report) -> bytes | None:
        """The content of a block; None, and a fault for `report`, if it cannot be had."""
        offset, length = handle.offset, handle.length
        try:
            if length > block.longest_stored(self._limit):
                expected = f"at most {self._limit} bytes of content"
                raise BlockError(Reason.TOO_LARGE, expected, f"{length} bytes on disk")
            raw = self._read_at(length + TRAILER_SIZE, offset)
            if len(raw) != length + TRAILER_SIZE:
                expected = f"{length + TRAILER_SIZE} bytes"
                raise BlockError(Reason.TRUNCATED, expected, str(len(raw)))
            if self._verify:
                (stored,) = _CHECKSUM.unpack_from(raw, length + 1)
                computed = mask(crc32c(memoryview(raw)[: length + 1]))
                if stored != computed:
                    expected = f"the checksum {computed:#010x} of its bytes"
                    found = f"{stored:#010x} in its trailer"
                    raise BlockError(Reason.BAD_CHECKSUM, expected, found)
            compression = raw[length]
            if compression not in self._compressions:
                raise block.unknown_compression(compression, self._compressions)
            return block.unpack(raw[:length], compression, self._limit)
        except BlockError as error:
            report(_fault_of(error, handle, part))
            return None

    def filter_block(self, policy: bytes, report: Report) -> FilterBlock | None:
        """The filter block of a policy; None if the table has none, or none that can be read."""
        handle = self.filters.get(policy)
        if handle is None or (content := self.content(handle, Part.FILTER, report)) is None:
            return None
        try:
            return FilterBlock(content)
        except FormatError as error:
            report(_no_block(Reason.BAD_FILTER, handle, Part.FILTER, "a filter block", error))
            return None

    def merkle_tree(self, report: Report) -> merkle.MerkleTree | None:
        """What the Merkle block says; None if the table has none, or none that can be read."""
        handle = self.merkle
        if handle is None or (content := self.content(handle, Part.MERKLE, report)) is None:
            return None
        try:
            return merkle.decode(content)
        except FormatError as error:
            report(_no_block(Reason.BAD_MERKLE, handle, Part.MERKLE, "a Merkle block", error))
            return None

    def _open(self) -> None:
        footer = self._read_footer()
        if footer is None:
            return
        self.footer = footer
        tell = self._faults.append
        self._data_end = self.size - FOOTER_SIZE
        metaindex = self._content_before_footer(footer.metaindex, Part.METAINDEX)
        self._index = self._content_before_footer(footer.index, Part.INDEX)
        whole = metaindex is not None and self._read_metaindex(metaindex, footer.metaindex)
        position = 0
        for _, handle, gap in self._walk_index(tell):
            if handle is not None:
                position = max(position, handle.end)
                if gap is not None:
                    tell(_gap(*gap))
        if whole and self._index is not None:
            self._check_tiling(position)

    def _content_before_footer(self, handle: Handle, part: Part) -> bytes | None:
        """The content of metaindex or index; where it can be had, the data ends before it."""
        tell = self._faults.append
        end = self.size - FOOTER_SIZE
        if handle.end > end:
            self._refuse(handle, 0, end, Handle(end, FOOTER_SIZE), Part.FOOTER, tell)
            return None
        content = self.content(handle, part, tell)
        if content is None:
            self._damaged.append((handle.offset, handle.end))
        else:
            self._behind_data.append((part, handle))
            self._data_end = min(self._data_end, handle.offset)
        return content

    def _read_footer(self) -> Footer | None:
        tell = self._faults.append
        if self.size < FOOTER_SIZE:
            found = f"{self.size} bytes"
            expected = f"at least {FOOTER_SIZE} bytes"
            tell(Fault(0, self.size, Part.FILE, Reason.TOO_SMALL, expected, found))
            return None
        start = self.size - FOOTER_SIZE
        raw = self._read_at(FOOTER_SIZE, start)
        if len(raw) != FOOTER_SIZE:
            expected, found = f"{FOOTER_SIZE} bytes", str(len(raw))
            tell(Fault(start, FOOTER_SIZE, Part.FOOTER, Reason.TRUNCATED, expected, found))
            return None
        if raw[_PADDED_SIZE:] != MAGIC:
            expected, found = f"the magic {MAGIC.hex()}", raw[_PADDED_SIZE:].hex()
            tell(Fault(start, FOOTER_SIZE, Part.FOOTER, Reason.BAD_MAGIC, expected, found))
            return None
        try:
            metaindex, position = read_handle(raw, 0)
            index, position = read_handle(raw, position)
        except FormatError as error:
            expected = "handles of metaindex and index"
            found = f"none: {error}"
            tell(Fault(start, FOOTER_SIZE, Part.FOOTER, Reason.BAD_HANDLE, expected, found))
            return None
        shortest = encode_handle(metaindex) + encode_handle(index)
        if raw[:position] != shortest:
            # It means the same to the engines, but none of them wrote it.
            expected, found = f"{shortest.hex()} for its handles", raw[:position].hex()
            tell(Fault(start, position, Part.FOOTER, Reason.BAD_HANDLE, expected, found))
        padding = raw[position:_PADDED_SIZE]
        if any(padding):
            expected, found = "zeros", padding.hex()
            offset = start + position
            tell(Fault(offset, len(padding), Part.FOOTER, Reason.BAD_PADDING, expected, found))
        return Footer(metaindex, index)

    def _read_metaindex(self, content: bytes, place: Handle) -> bool:
        """Note the blocks that it names; whether all of it could be read."""
        tell = self._faults.append
        faults = len(self._faults)
        listed = self._entries_of(content, place, Part.METAINDEX, tell)
        for number, (name, value, _) in enumerate(listed):
            if number == MAX_NAMED:
                _tell_of_too_many(place, Part.METAINDEX, f"at most {MAX_NAMED} entries", tell)
                break
            handle = self._whole_handle(value, place, Part.METAINDEX, tell)
            if handle is None:
                continue
            if handle.end > place.offset:
                self._refuse(handle, 0, place.offset, place, Part.METAINDEX, tell)
                continue
            if name == merkle.METAINDEX_KEY:
                self.merkle = handle
                self._behind_data.append((Part.MERKLE, handle))
            elif name.startswith(METAINDEX_PREFIX):
                self.filters[name.removeprefix(METAINDEX_PREFIX)] = handle
                self._behind_data.append((Part.FILTER, handle))
            else:
                self.others[name] = handle
                self._behind_data.append((Part.FILE, handle))
        whole = len(self._faults) == faults
        if self.merkle is not None:
            self.dialect = Dialect.AVCCDB
        elif whole:
            self.dialect = Dialect.STANDARD
        return whole

    def _check_tiling(self, position: int) -> None:
        """Whether what is not data lies one behind the other from `position` on."""
        for part, handle in sorted(self._behind_data, key=lambda each: each[1].offset):
            if handle.offset > position:
                self._faults.append(_gap(position, handle.offset))
            elif handle.offset < position:
                self._refuse(handle, position, self.size, handle, part, self._faults.append)
            position = max(position, handle.end)
        if position < self.size - FOOTER_SIZE:
            self._faults.append(_gap(position, self.size - FOOTER_SIZE))

    def _walk_index(
        self, report: Report
    ) -> Iterator[tuple[bytes, Handle | None, tuple[int, int] | None]]:
        """Key and handle of each data block, and start and end of what no handle covers before it.

        What none covers behind the last one comes at the end, without a handle.
        """
        if self._index is None or self.footer is None:
            return
        place = self.footer.index
        position = 0
        wrong = 0
        for key, value, _ in self._entries_of(self._index, place, Part.INDEX, report):
            if wrong == MAX_BAD_HANDLES:
                _tell_of_too_many(place, Part.INDEX, f"fewer than {wrong} bad handles", report)
                break
            handle = self._whole_handle(value, place, Part.INDEX, report)
            if handle is None:
                wrong += 1
                continue
            if handle.offset < position or handle.end > self._data_end:
                wrong += 1
                self._refuse(handle, position, self._data_end, place, Part.INDEX, report)
                if self._verify or handle.end > self.size:
                    continue
            gap = (position, handle.offset) if handle.offset > position else None
            yield key, handle, gap
            position = max(position, handle.end)
        behind = [handle.offset for _, handle in self._behind_data if handle.offset >= position]
        if behind and position < min(behind):
            yield b"", None, (position, min(behind))

    def _entries_of(
        self, content: bytes, handle: Handle, part: Part, report: Report
    ) -> Iterator[Entry]:
        try:
            yield from block.entries(content, handle.offset)
        except BlockError as error:
            report(_fault_of(error, handle, part))

    def _whole_handle(
        self, value: bytes, place: Handle, part: Part, report: Report
    ) -> Handle | None:
        """The handle that is the value of an entry of `part`."""
        try:
            handle, end = read_handle(value, 0)
            if end == len(value):
                return handle
        except FormatError:
            pass
        expected, found = "a handle as the value of an entry", value[:20].hex() or "nothing"
        report(Fault(place.offset, place.length, part, Reason.BAD_HANDLE, expected, found))
        return None

    def _refuse(
        self, handle: Handle, low: int, high: int, place: Handle, part: Part, report: Report
    ) -> None:
        """Report a handle that is written at `place` and leads out of `low` to `high`."""
        outside = handle.end > self.size
        reason = Reason.BAD_HANDLE if outside else Reason.OVERLAP
        expected = f"a handle of bytes from {low} to {high}"
        found = f"one of {handle.offset} to {handle.end}"
        report(Fault(place.offset, place.length, part, reason, expected, found))

    def _salvage(self, start: int, end: int, report: Report) -> Iterator[Entry]:
        """The entries of the data blocks that can be found from `start` to `end`.

        Without a footer index, metaindex and the blocks that it names come along with the data. An
        index or metaindex is known by its values: all are handles of blocks found before.
        """
        seen = _Seen()
        for found in salvage.find_blocks(self._read_at, start, end):
            if not found.sound:
                # Behind the last block of a table without a footer lies what is left of that.
                behind = found.offset + found.length
                if found.length < FOOTER_SIZE and behind == self.size:
                    continue
                # Metaindex or index, of which it has been said already.
                if (found.offset, behind) in self._damaged:
                    continue
                expected, what = "blocks with checksums that are right", "none"
                reason = Reason.UNREADABLE
                report(Fault(found.offset, found.length, Part.FILE, reason, expected, what))
                continue
            handle = Handle(found.offset, found.length - TRAILER_SIZE)
            content = self.content(handle, Part.DATA, report)
            if content is None:
                continue
            if not seen.is_named_by(content) and not _is_filter_or_merkle(content):
                yield from self._entries_of(content, handle, Part.DATA, report)
            seen.add(handle)


def encode_handle(handle: Handle) -> bytes:
    """The bytes of a handle."""
    return encode_varint(handle.offset) + encode_varint(handle.length)


def read_handle(data: Buffer, offset: int) -> tuple[Handle, int]:
    """The handle at `offset`, and the offset behind it. Raises `FormatError`."""
    start, position = read_varint(data, offset)
    length, position = read_varint(data, position)
    return Handle(start, length), position


class _Seen:
    """Blocks that were found, in ascending order."""

    def __init__(self) -> None:
        self._offsets = array("Q")
        self._lengths = array("Q")

    def add(self, handle: Handle) -> None:
        self._offsets.append(handle.offset)
        self._lengths.append(handle.length)

    def is_named_by(self, content: bytes) -> bool:
        """Whether the content has entries, and all their values are handles of these blocks."""
        named = 0
        try:
            for _, value, _ in block.entries(content, 0):
                handle, end = read_handle(value, 0)
                named += 1
                if end != len(value) or not self._has(handle) or named > len(self._offsets):
                    return False
        except FormatError:
            return False
        return named > 0

    def _has(self, handle: Handle) -> bool:
        index = bisect.bisect_left(self._offsets, handle.offset)
        return (
            index < len(self._offsets)
            and self._offsets[index] == handle.offset
            and self._lengths[index] == handle.length
        )


def _is_filter_or_merkle(content: bytes) -> bool:
    """Whether content is that of such a block and not that of one with entries."""
    try:
        for _ in block.entries(content, 0):
            return False
    except BlockError:
        pass
    else:
        return False
    for decode in (merkle.decode, FilterBlock):
        try:
            decode(content)
        except FormatError:
            continue
        return True
    return False


def _gap(start: int, end: int) -> Fault:
    expected, found = "a block that a handle leads to", f"{end - start} bytes without one"
    return Fault(start, end - start, Part.FILE, Reason.GAP, expected, found)


def _tell_of_too_many(place: Handle, part: Part, expected: str, report: Report) -> None:
    report(Fault(place.offset, place.length, part, Reason.TOO_LARGE, expected, "more"))


def _fault_of(error: BlockError, handle: Handle, part: Part) -> Fault:
    length = handle.length + TRAILER_SIZE
    return Fault(handle.offset, length, part, error.reason, error.expected, error.found)


def _no_block(
    reason: Reason, handle: Handle, part: Part, expected: str, error: FormatError
) -> Fault:
    length = handle.length + TRAILER_SIZE
    return Fault(handle.offset, length, part, reason, expected, f"none: {error}")


def _ignore(_: Fault) -> None:
    """A report for faults that have been reported already."""
