"""Merkle blocks: the hashes that avccDB keeps of a table's entries (SPEC section 7).

    block     root (32) | height (4) | number of leaves (4)
              | count (4) | hashes of the leaves (32 each)
              | count (4) | internal hashes (32 each)
    leaf      SHA-256 of 0x00, key, value; the key is the internal key without its last 8 bytes
    internal  SHA-256 of 0x01, left, right

Integers are big-endian here. Neighbours are paired level by level; an odd one out moves up as it
is. The internal hashes are in the order of a walk from the root down, level by level and from left
to right, in which what moved up stands where it arrived; leaves are left out of it. The height is
the number of levels above the leaves.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from avccfs.errors import FormatError

METAINDEX_KEY: Final = b"merkle.tree"
"""The metaindex names the block by this. Only avccDB's tables have it."""
HASH_SIZE: Final = 32

_HEAD: Final = struct.Struct(">32sII")
_COUNT: Final = struct.Struct(">I")
_TRAILER_SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class MerkleTree:
    """What a Merkle block says. Nothing in it need agree with anything else in it."""

    root: bytes
    height: int
    leaves: int
    """Number of leaves."""
    leaf_hashes: tuple[bytes, ...]
    internal_hashes: tuple[bytes, ...]


class Part(enum.Enum):
    """What can differ between two trees."""

    ROOT = "root"
    HEIGHT = "height"
    LEAVES = "number of leaves"
    LEAF_HASH_COUNT = "count of leaf hashes"
    LEAF_HASH = "leaf hash"
    INTERNAL_HASH_COUNT = "count of internal hashes"
    INTERNAL_HASH = "internal hash"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing in which a Merkle block differs from what the entries give."""

    offset: int
    """Where the block says it, in bytes of the block."""
    part: Part
    index: int | None
    """Of the first hash that differs: leaf i is the table's entry i. None for single values."""
    expected: str
    """What the entries give."""
    found: str

    @property
    def detail(self) -> str:
        """For people."""
        which = "" if self.index is None else f" {self.index}"
        return (
            f"Merkle block, {self.part.value}{which} at offset {self.offset}: "
            f"expected {self.expected} from the entries, found {self.found}"
        )


def decode(content: bytes) -> MerkleTree:
    """The tree that a block holds as a whole. Raises `FormatError`."""
    if len(content) < _HEAD.size:
        raise FormatError(
            f"Merkle block: expected at least {_HEAD.size} bytes, found {len(content)}"
        )
    root, height, leaves = _HEAD.unpack_from(content)
    leaf_hashes, position = _read_hashes(content, _HEAD.size, "leaf")
    internal_hashes, position = _read_hashes(content, position, "internal")
    if position != len(content):
        raise FormatError(
            f"Merkle block: expected its end at offset {position}, "
            f"found {len(content) - position} more bytes",
            offset=position,
        )
    return MerkleTree(root, height, leaves, leaf_hashes, internal_hashes)


def encode(tree: MerkleTree) -> bytes:
    """The block of a tree."""
    return b"".join(
        (
            _HEAD.pack(tree.root, tree.height, tree.leaves),
            _COUNT.pack(len(tree.leaf_hashes)),
            *tree.leaf_hashes,
            _COUNT.pack(len(tree.internal_hashes)),
            *tree.internal_hashes,
        )
    )


def leaf_hash(internal_key: bytes, value: bytes) -> bytes:
    """The hash of one entry of a table, given with its whole internal key."""
    return hashlib.sha256(b"".join((b"\x00", internal_key[:-_TRAILER_SIZE], value))).digest()


def build(leaf_hashes: Iterable[bytes]) -> MerkleTree:
    """The tree over these leaves. One without leaves, which no table has, has a root of zeros."""
    leaves = tuple(leaf_hashes)
    if not leaves:
        return MerkleTree(bytes(HASH_SIZE), 0, 0, (), ())
    levels = [list(leaves)]
    while len(below := levels[-1]) > 1:
        above = [
            hashlib.sha256(b"\x01" + below[index] + below[index + 1]).digest()
            for index in range(0, len(below) - 1, 2)
        ]
        if len(below) % 2:
            above.append(below[-1])
        levels.append(above)
    internal = tuple(_walk(levels))
    return MerkleTree(levels[-1][0], len(levels) - 1, len(leaves), leaves, internal)


def compare(stored: MerkleTree, computed: MerkleTree) -> tuple[Fault, ...]:
    """In what a block differs from the tree that the entries give; of hashes the first one of each
    kind."""
    leaf_count_at = _HEAD.size
    leaf_hashes_at = leaf_count_at + _COUNT.size
    internal_count_at = leaf_hashes_at + HASH_SIZE * len(stored.leaf_hashes)
    internal_hashes_at = internal_count_at + _COUNT.size
    faults: list[Fault] = []
    if stored.root != computed.root:
        faults.append(Fault(0, Part.ROOT, None, computed.root.hex(), stored.root.hex()))
    for offset, part, expected, found in (
        (HASH_SIZE, Part.HEIGHT, computed.height, stored.height),
        (HASH_SIZE + 4, Part.LEAVES, computed.leaves, stored.leaves),
        (
            leaf_count_at,
            Part.LEAF_HASH_COUNT,
            len(computed.leaf_hashes),
            len(stored.leaf_hashes),
        ),
        (
            internal_count_at,
            Part.INTERNAL_HASH_COUNT,
            len(computed.internal_hashes),
            len(stored.internal_hashes),
        ),
    ):
        if expected != found:
            faults.append(Fault(offset, part, None, str(expected), str(found)))
    for start, part, ours, theirs in (
        (leaf_hashes_at, Part.LEAF_HASH, computed.leaf_hashes, stored.leaf_hashes),
        (
            internal_hashes_at,
            Part.INTERNAL_HASH,
            computed.internal_hashes,
            stored.internal_hashes,
        ),
    ):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            if one != other:
                at = start + HASH_SIZE * index
                faults.append(Fault(at, part, index, one.hex(), other.hex()))
                break
    return tuple(sorted(faults, key=lambda fault: fault.offset))


def _walk(levels: list[list[bytes]]) -> Iterable[bytes]:
    """The internal hashes from the root down.

    A place in a level is a pair's hash if the level below has both halves of it, and else what
    moved up from there: that one's children come as soon as the walk reaches it.
    """
    queue = [(len(levels) - 1, 0)]
    while queue:
        following: list[tuple[int, int]] = []
        for level, index in queue:
            value = levels[level][index]
            while level and 2 * index + 1 >= len(levels[level - 1]):
                level, index = level - 1, 2 * index
            if level:
                yield value
                following += (level - 1, 2 * index), (level - 1, 2 * index + 1)
        queue = following


def _read_hashes(content: bytes, offset: int, what: str) -> tuple[tuple[bytes, ...], int]:
    start = offset + _COUNT.size
    if start > len(content):
        raise FormatError(
            f"Merkle block: expected the count of {what} hashes at offset {offset}, "
            f"found {len(content) - offset} bytes",
            offset=offset,
        )
    (count,) = _COUNT.unpack_from(content, offset)
    end = start + HASH_SIZE * count
    if end > len(content):
        raise FormatError(
            f"Merkle block: expected {count} {what} hashes at offset {start}, "
            f"found {len(content) - start} bytes",
            offset=offset,
        )
    hashes = tuple(content[at : at + HASH_SIZE] for at in range(start, end, HASH_SIZE))
    return hashes, end
