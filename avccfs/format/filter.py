"""Filter blocks: which keys a range of a table cannot hold (LevelDB's table format, SPEC section 7).

    block     filter ... | offset of each filter (fixed32 each) | offset of the first offset (fixed32)
              | base (1)
    filter    bits | number of probes (1)

Filter i is for the keys of the data blocks that begin at the offsets from i << base up to, not
including, (i + 1) << base; base is 11. The filters are Bloom filters: the policies named in
`BLOOM_POLICIES` are of one layout. What is put in is the user key; in avccDB user key and version.
"""

from __future__ import annotations

import struct
from typing import Final

from avccfs.errors import FormatError
from avccfs.format.coding import MAX_UINT32

METAINDEX_PREFIX: Final = b"filter."
"""The metaindex names a filter block by this and the name of its policy."""
BLOOM_POLICIES: Final = frozenset({b"leveldb.BuiltinBloomFilter2", b"leveldb.BuiltinBloomFilter"})
"""LevelDB's name, and goleveldb's and avccDB's."""

_MAX_PROBES: Final = 30
"""More are kept for encodings to come: such a filter says "perhaps" to everything."""
_MAX_BASE: Final = 63
_SEED: Final = 0xBC9F1D34
_MULTIPLIER: Final = 0xC6A4A793
_WORD: Final = struct.Struct("<I")
_TAIL: Final = struct.Struct("<IB")


class FilterBlock:
    """A filter block. Raises `FormatError` for content that is none.

    The engines take a block that is none, and a filter that lies outside of it, for a "perhaps".
    """

    def __init__(self, content: bytes) -> None:
        if len(content) < _TAIL.size:
            raise FormatError(
                f"filter block: expected at least {_TAIL.size} bytes, found {len(content)}"
            )
        tail = len(content) - _TAIL.size
        self._filters_end, self._base = _TAIL.unpack_from(content, tail)
        if self._filters_end > tail or (tail - self._filters_end) % 4:
            raise FormatError(
                f"filter block: expected whole offsets between the filters and offset {tail}, "
                f"found that they begin at {self._filters_end}",
                offset=tail,
            )
        if self._base > _MAX_BASE:
            raise FormatError(
                f"filter block: expected a base of at most {_MAX_BASE} at offset {tail + 4}, "
                f"found {self._base}",
                offset=tail + 4,
            )
        self.count = (tail - self._filters_end) // 4
        """Number of filters."""
        self._content = content
        start = 0
        for index in range(self.count + 1):
            (offset,) = _WORD.unpack_from(content, self._filters_end + 4 * index)
            if not start <= offset <= self._filters_end:
                raise FormatError(
                    f"filter block: expected filter {index} to begin at offset {start} to "
                    f"{self._filters_end}, found {offset}",
                    offset=self._filters_end + 4 * index,
                )
            start = offset

    def may_contain(self, block_offset: int, key: bytes) -> bool:
        """Whether the data block that begins at `block_offset` may hold `key`.

        `False` for a key that it does hold means that the filter is wrong: the engines do not find
        that key. `key` is the user key; in avccDB user key and version.
        """
        index = block_offset >> self._base
        if index >= self.count:
            return True
        # The word behind the last offset is the end of the filters.
        start, end = struct.unpack_from("<II", self._content, self._filters_end + 4 * index)
        return bloom_may_contain(self._content[start:end], key)


def bloom_may_contain(bloom: bytes, key: bytes) -> bool:
    """Whether `key` may be among those that the filter was made of; an empty filter has none."""
    bits = (len(bloom) - 1) * 8
    if bits <= 0:
        return False
    probes = bloom[-1]
    if probes > _MAX_PROBES:
        return True
    position = bloom_hash(key)
    delta = (position >> 17 | position << 15) & MAX_UINT32
    for _ in range(probes):
        bit = position % bits
        if not bloom[bit >> 3] >> (bit & 7) & 1:
            return False
        position = (position + delta) & MAX_UINT32
    return True


def bloom_hash(key: bytes) -> int:
    """The 32-bit hash of a key: words of four bytes are added, multiplied and folded."""
    size = len(key)
    value = (_SEED ^ size * _MULTIPLIER) & MAX_UINT32
    whole = size & ~3
    for (word,) in _WORD.iter_unpack(key[:whole]):
        value = (value + word) * _MULTIPLIER & MAX_UINT32
        value ^= value >> 16
    if rest := key[whole:]:
        value = (value + int.from_bytes(rest, "little")) * _MULTIPLIER & MAX_UINT32
        value ^= value >> 24
    return value
