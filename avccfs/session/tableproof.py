"""Whether a table is sound from the first byte to the last: the quick answer.

`prove` reads a table once, from front to back in large pieces, and either proves all of what
`tablecheck` looks for, or gives up without a word at the first thing that is not as it should be. A
sound table costs little this way, and what is wrong with another `tablecheck` finds out at leisure.

Proven are: footer, index and metaindex decode in the only form that engines write; the blocks that
they name lie one behind the other and fill the file; checksums; decompression; restarts; the order
of keys and separators; that no filter denies a key; the Merkle tree; and the highest sequence
number. Millions of entries pass through the one loop of `_prove_entries`, so it does nothing for
which there is a cheaper reason to be sure:

- User keys that ascend strictly are in order whatever their trailers say. Equal ones, and ones that
  share a part of the trailer, go the long way.
- Trailers are put side by side and looked at all at once: the greatest has the highest sequence
  number, and each eighth byte is a kind.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from avccfs.errors import FormatError
from avccfs.format import block, ikey, merkle
from avccfs.format.block import TRAILER_SIZE, Compression
from avccfs.format.coding import mask, read_varint
from avccfs.format.filter import BLOOM_POLICIES, METAINDEX_PREFIX
from avccfs.format.ikey import Dialect
from avccfs.format.table import (
    FOOTER_SIZE,
    MAGIC,
    Footer,
    Handle,
    ReadAt,
    encode_handle,
    read_handle,
)
from avccfs.session.bloom import BulkFilter

READ_AHEAD: Final = 512 * 1024
"""Bytes that are read at once. Larger pieces are slower: they do not stay in the caches."""

_TRAILER: Final = 8
_COUNT: Final = struct.Struct("<I")
_BLOCK_TRAILER: Final = struct.Struct("<BI")
_LONGEST: Final = block.longest_stored(block.MAX_CONTENT)


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in a sound table."""

    dialect: Dialect
    """What the metaindex shows."""
    blocks: int
    """All, not only those of data."""
    entries: int
    smallest: bytes
    """Encoded internal key, as `largest`; empty if there are no entries."""
    largest: bytes
    highest_sequence: int


def prove(read_at: ReadAt, size: int, dialect: Dialect | None = None) -> Summary | None:
    """What is in the table of `size` bytes, if all of it is sound; None if anything is not.

    `dialect` is how to read internal keys; None goes by what the table shows. Errors of `read_at`
    pass through. Memory holds `READ_AHEAD`, the index, and one block.
    """
    try:
        return _Proof(Window(read_at, size), size, dialect).run()
    except (_UnprovenError, FormatError):
        return None


class Window:
    """A file that is read from front to back, in pieces of at least `READ_AHEAD`."""

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self._read_at = read_at
        self._size = size
        self._base = 0
        self._data = b""

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        start = offset - self._base
        end = start + size
        if start < 0 or end > len(self._data):
            if size <= 0 or offset >= self._size:
                return b""
            wanted = min(max(size, READ_AHEAD), self._size - offset)
            self._data = self._read_at(wanted, offset)
            self._base = offset
            start, end = 0, size
        return self._data[start:end]


class _UnprovenError(Exception):
    """Something is not as it should be, or not as it usually is."""


def _demand(condition: object) -> None:
    if not condition:
        raise _UnprovenError


class _Proof:
    """The proof of one table."""

    def __init__(self, window: Window, size: int, dialect: Dialect | None) -> None:
        self._window = window
        self._size = size
        self._asked = dialect

    def run(self) -> Summary:
        footer = self._footer()
        named = dict(self._named(footer.metaindex))
        merkle_handle = named.get(merkle.METAINDEX_KEY)
        shown = Dialect.STANDARD if merkle_handle is None else Dialect.AVCCDB
        dialect = self._asked or shown
        behind_data = sorted(
            (*named.values(), footer.metaindex, footer.index), key=lambda handle: handle.offset
        )
        for one, other in itertools.pairwise(behind_data):
            _demand(one.end == other.offset)
        _demand(behind_data[-1].end == self._size - FOOTER_SIZE)
        filters = [self._filter(name, handle) for name, handle in named.items()]
        stored_tree = None
        if merkle_handle is not None:
            stored_tree = merkle.decode(self._content(merkle_handle))
        index = self._content(footer.index)
        data = _Data(dialect, [each for each in filters if each is not None], stored_tree)
        position = 0
        for separator, value, _ in block.entries(index, 0):
            handle = _whole_handle(value)
            if handle.offset != position:
                raise _UnprovenError
            data.add(position, self._content(handle), separator)
            position += handle.length + TRAILER_SIZE
        _demand(position == behind_data[0].offset)
        _demand(first_restart(index) == 0)
        data.finish()
        return Summary(
            shown,
            data.blocks + len(behind_data),
            data.entries,
            data.smallest,
            data.largest,
            data.highest >> 8,
        )

    def _footer(self) -> Footer:
        _demand(self._size >= FOOTER_SIZE)
        raw = self._window.read(FOOTER_SIZE, self._size - FOOTER_SIZE)
        metaindex, position = read_handle(raw, 0)
        index, _ = read_handle(raw, position)
        footer = Footer(metaindex, index)
        _demand(raw == encode_footer(footer))
        _demand(max(metaindex.end, index.end) <= self._size - FOOTER_SIZE)
        return footer

    def _named(self, metaindex: Handle) -> Iterator[tuple[bytes, Handle]]:
        before = None
        content = self._content(metaindex)
        for name, value, _ in block.entries(content, 0):
            _demand(before is None or name > before)
            before = name
            yield name, _whole_handle(value)
        _demand(first_restart(content) == 0)

    def _filter(self, name: bytes, handle: Handle) -> BulkFilter | None:
        if name == merkle.METAINDEX_KEY:
            return None
        # What else is named here is not known, and a person should hear of it.
        _demand(name.startswith(METAINDEX_PREFIX))
        _demand(name.removeprefix(METAINDEX_PREFIX) in BLOOM_POLICIES)
        return BulkFilter(self._content(handle))

    def _content(self, handle: Handle) -> bytes:
        length = handle.length
        if length > _LONGEST:
            raise _UnprovenError
        raw = self._window.read(length + TRAILER_SIZE, handle.offset)
        if len(raw) != length + TRAILER_SIZE:
            raise _UnprovenError
        compression, stored = _BLOCK_TRAILER.unpack_from(raw, length)
        content = raw[:length]
        if mask(crc32c(raw[length : length + 1], crc32c(content))) != stored:
            raise _UnprovenError
        return content if compression == Compression.NONE else block.unpack(content, compression)


class _Data:
    """What the data blocks have shown so far."""

    def __init__(
        self, dialect: Dialect, filters: list[BulkFilter], tree: merkle.MerkleTree | None
    ) -> None:
        self.blocks = 0
        self.entries = 0
        self.smallest = b""
        self.largest = b""
        self.highest = 0
        self._dialect = dialect
        self._suffix = dialect.suffix_length
        self._filters = filters
        self._tree = tree
        self._leaves: list[bytes] = []
        self._separator: bytes | None = None

    def add(self, offset: int, content: bytes, separator: bytes) -> None:
        """One more block, which begins at `offset` of the file, and its key in the index."""
        proven = None
        if self._tree is None and self._dialect is Dialect.STANDARD:
            keys: list[bytes] | None = [] if self._filters else None
            proven = _prove_entries(content, keys)
            if proven is not None and keys is not None:
                self._ask_filters(offset, keys)
        if proven is None:
            proven = self._walk_entries(offset, content)
        first, last, entries, highest = proven
        if self._separator is None:
            self.smallest = first
        elif not self._before(self._separator, first):
            raise _UnprovenError
        if last != separator and not self._before(last, separator):
            raise _UnprovenError
        self._separator = separator
        self.largest = last
        self.blocks += 1
        self.entries += entries
        if highest > self.highest:
            self.highest = highest

    def finish(self) -> None:
        """After the last block: the tree can be compared."""
        _demand(self.entries)
        if self._tree is not None:
            _demand(self._tree == merkle.build(self._leaves))

    def _before(self, one: bytes, other: bytes) -> bool:
        """Whether internal key `one` comes before `other`."""
        suffix = self._suffix
        user_key, other_user_key = one[:-suffix], other[:-suffix]
        if user_key != other_user_key:
            return user_key < other_user_key and len(one) >= suffix
        return ikey.sort_key(one, self._dialect) < ikey.sort_key(other, self._dialect)

    def _walk_entries(self, offset: int, content: bytes) -> tuple[bytes, bytes, int, int]:
        """Any block that is sound, entry by entry."""
        keys: list[bytes] = []
        before = None
        for key, value, _ in block.entries(content, 0):
            place = ikey.sort_key(key, self._dialect)
            _demand(before is None or place > before)
            before = place
            keys.append(key)
            if self._tree is not None:
                self._leaves.append(merkle.leaf_hash(key, value))
        _demand(keys)
        if self._tree is not None:
            _demand(len(self._leaves) <= self._tree.leaves)
        _demand(first_restart(content) == 0)
        self._ask_filters(offset, [key[:-_TRAILER] for key in keys])
        highest = _highest(b"".join([key[-_TRAILER:] for key in keys]), len(keys))
        return keys[0], keys[-1], len(keys), highest

    def _ask_filters(self, offset: int, keys: list[bytes]) -> None:
        for each in self._filters:
            _demand(each.first_denied(offset, keys) is None)


def _prove_entries(
    content: bytes, keys: list[bytes] | None
) -> tuple[bytes, bytes, int, int] | None:
    """First and last key, number of entries and highest trailer of a block in the standard dialect.

    None if it is not sound, or is but not of the plain form for which this is made: user keys
    strictly ascend, lengths of keys take one byte each. `keys` gets the user keys.
    """
    size = len(content)
    if size < _COUNT.size:
        return None
    (count,) = _COUNT.unpack_from(content, size - _COUNT.size)
    end = size - _COUNT.size * (count + 1)
    if count == 0 or end <= 0:
        return None
    position = 0
    key = b""
    length = 0
    """Of the user key."""
    whole: list[int] = []
    """Offsets of entries that share nothing, which restarts may lead to."""
    trailers: list[bytes] = []
    add = trailers.append
    while position < end:
        # The restarts behind the entries make it safe to look at three bytes.
        shared = content[position]
        unshared = content[position + 1]
        value_size = content[position + 2]
        start = position + 3
        if value_size >= 0x80:
            following = content[start]
            if following < 0x80:
                value_size = value_size & 0x7F | following << 7
                start += 1
            else:
                value_size, start = read_varint(content, start - 1)
        if unshared < _TRAILER or unshared >= 0x80 or shared > length:
            return None
        stop = start + unshared - _TRAILER
        if shared:
            next_key = key[:shared] + content[start:stop]
        else:
            whole.append(position)
            next_key = content[start:stop]
        if next_key <= key and trailers:
            return None
        key = next_key
        if keys is not None:
            keys.append(key)
        length = shared + stop - start
        position = stop + _TRAILER
        add(content[stop:position])
        position += value_size
    if position != end:
        return None
    restarts = _words(count).unpack_from(content, end)
    if restarts != tuple(whole) and not _leads_to(restarts, whole):
        return None
    if restarts[0]:
        return None
    last = key + trailers[-1]
    entries = len(trailers)
    if entries == 1:
        return last, last, 1, _highest(trailers[0], 1)
    # The first entry shares nothing: its key stands in the block as it is.
    start = 3 if content[2] < 0x80 else read_varint(content, 2)[1]
    first = content[start : start + content[1]]
    return first, last, entries, _highest(b"".join(trailers), entries)


def _leads_to(restarts: tuple[int, ...], whole: list[int]) -> bool:
    """Whether all restarts are among the offsets, in their order."""
    return set(restarts) <= set(whole) and list(restarts) == sorted(set(restarts))


def _highest(trailers: bytes, count: int) -> int:
    """The greatest of the trailers that stand side by side. None of them is of unknown kind."""
    if trailers[::_TRAILER].strip(b"\x00\x01"):
        raise _UnprovenError
    highest: int = max(_quads(count).unpack(trailers))
    return highest


@functools.lru_cache(maxsize=1024)
def _words(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")


@functools.lru_cache(maxsize=1024)
def _quads(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}Q")


def first_restart(content: bytes) -> int:
    """The restart from which engines read when what they look for is before all others."""
    (count,) = _COUNT.unpack_from(content, len(content) - _COUNT.size)
    restart: int
    (restart,) = _COUNT.unpack_from(content, len(content) - _COUNT.size * (count + 1))
    return restart


def _whole_handle(value: bytes) -> Handle:
    handle, end = read_handle(value, 0)
    if end != len(value):
        raise _UnprovenError
    return handle


def encode_footer(footer: Footer) -> bytes:
    """The one form in which engines write a footer."""
    handles = encode_handle(footer.metaindex) + encode_handle(footer.index)
    return handles.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC
