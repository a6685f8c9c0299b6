"""From tables and memtables to what a reader sees: merging, hiding, counting (SPEC sections 8, 9).

Every source is a stream of items `(order, trailer, value)`. `order` is what the engine compares;
its first part is the user key. `trailer` is `sequence << 8 | kind`; None stands for an internal key
that the engine cannot take apart.

Sources may be out of order, as damage leaves them: the merge does then what the engine's does,
which looks at nothing but the next item of each source. Among equal items the engines choose
differently, too:

    LevelDB     the first source
    goleveldb   the source that gave the item before, else the first
    avccDB      whatever comes up in its binary heap
"""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from avccfs.format.ikey import Dialect, KeyKind
from avccfs.session.engines import BadBlock, Engine, Profile
from avccfs.session.recovery.prediction import Reading

Order = tuple[bytes, int, int]
Item = tuple[Order, int | None, bytes]
Source = Iterator[Item]
Ordering = Callable[[bytes], tuple[Order, int | None]]
"""What an engine makes of an internal key."""

_TRAILER: Final = struct.Struct("<Q")
_VERSION_AND_TRAILER: Final = struct.Struct("<QQ")
_UNREADABLE: Final[Order] = (b"", 0, 0)


class ReadError(Exception):
    """Reading stops here, with the engine's words."""


class UndefinedError(Exception):
    """The engine reads memory that it should not, or asks for more than there is."""


class Status:
    """What comes up while tables are read."""

    def __init__(self) -> None:
        self.error: str | None = None
        """The first of the errors that LevelDB collects while it goes on."""
        self.doubt: str | None = None
        """Why it is not certain what the engine reads."""

    def add(self, error: str) -> None:
        """Keep an error, if it is the first."""
        if self.error is None:
            self.error = error


def ordering(profile: Profile) -> Ordering:
    """How an engine orders internal keys."""
    return _avccdb_order if profile.reads_as is Dialect.AVCCDB else _standard_order


def _standard_order(raw: bytes) -> tuple[Order, int | None]:
    if len(raw) < 8:
        raise UndefinedError(f"an internal key of {len(raw)} bytes, where there are at least 8")
    (trailer,) = _TRAILER.unpack_from(raw, len(raw) - 8)
    return (raw[:-8], -trailer, 0), trailer if trailer & 0xFF <= KeyKind.PUT else None


def _avccdb_order(raw: bytes) -> tuple[Order, int | None]:
    """avccDB compares user key, version and kind, and leaves the sequence number aside.

    A key that it cannot take apart counts as the empty key of version 0 there.
    """
    if len(raw) < 16:
        return _UNREADABLE, None
    version, trailer = _VERSION_AND_TRAILER.unpack_from(raw, len(raw) - 16)
    kind = trailer & 0xFF
    if kind > KeyKind.PUT:
        return _UNREADABLE, None
    return (raw[:-16], -version, -kind), trailer


def merge(sources: Iterable[Source], profile: Profile) -> Source:
    """The items of all sources as the engine's merging iterator gives them.

    A source is taken further only after its item was given: an error of it comes then.
    """
    if profile.engine is Engine.AVCCDB:
        return _merge_by_go_heap(sources)
    return _merge_by_scan(sources, stays=profile.engine is Engine.GOLEVELDB)


def _merge_by_scan(sources: Iterable[Source], *, stays: bool) -> Source:
    """`stays`: of equal items the one of the source that gave the item before comes first."""
    listed = list(sources)
    heap: list[tuple[Order, int, Item]] = []
    for index, source in enumerate(listed):
        item = next(source, None)
        if item is not None:
            heap.append((item[0], index, item))
    heapq.heapify(heap)
    while heap:
        _, index, item = heap[0]
        source = listed[index]
        while True:
            yield item
            following = next(source, None)
            if following is None:
                heapq.heappop(heap)
                break
            item = following
            order = item[0]
            # Only the root changes, so the least of the others is one of its two children.
            others = [heap[child][:2] for child in (1, 2) if child < len(heap)]
            if others and not (order <= min(others)[0] if stays else (order, index) < min(others)):
                heapq.heapreplace(heap, (order, index, item))
                break


def _merge_by_go_heap(sources: Iterable[Source]) -> Source:
    """As Go's container/heap: where items are equal, its swaps decide."""
    listed = list(sources)
    heads: list[Item | None] = [next(source, None) for source in listed]
    heap = [index for index, head in enumerate(heads) if head is not None]

    def less(one: int, other: int) -> bool:
        first, second = heads[heap[one]], heads[heap[other]]
        assert first is not None
        assert second is not None
        return first[0] < second[0]

    def down(place: int, size: int) -> None:
        while (child := 2 * place + 1) < size:
            if child + 1 < size and less(child + 1, child):
                child += 1
            if not less(child, place):
                break
            heap[place], heap[child] = heap[child], heap[place]
            place = child

    def up(place: int) -> None:
        while place and less(place, parent := (place - 1) // 2):
            heap[place], heap[parent] = heap[parent], heap[place]
            place = parent

    for place in reversed(range(len(heap) // 2)):
        down(place, len(heap))
    while heap:
        heap[0], heap[-1] = heap[-1], heap[0]
        down(0, len(heap) - 1)
        index = heap.pop()
        item = heads[index]
        assert item is not None
        yield item
        heads[index] = next(listed[index], None)
        if heads[index] is not None:
            heap.append(index)
            up(len(heap) - 1)


def read_all(merged: Source, sequence: int, profile: Profile, status: Status) -> Reading:
    """Go over every key that is visible at a sequence number, as the engine's iterator does.

    The same key twice, deletions, and entries above the sequence number are hidden. May raise
    `UndefinedError`.
    """
    digest = hashlib.sha256()
    keys = 0
    last: bytes | None = None
    try:
        for (user, _, _), trailer, value in merged:
            if trailer is None:
                if profile.bad_block is BadBlock.STOPS:
                    raise ReadError(_bad_key(profile))
                status.add("Corruption: corrupted internal key in DBIter")
                continue
            if trailer >> 8 > sequence:
                continue
            if not trailer & 0xFF:
                last = user
            elif last is None or user > last:
                if status.error is not None:
                    return Reading(keys, digest.hexdigest(), status.error)
                last = user
                digest.update(b"%b %b\n" % (user.hex().encode(), value.hex().encode()))
                keys += 1
    except ReadError as error:
        return Reading(keys, digest.hexdigest(), str(error))
    return Reading(keys, digest.hexdigest(), None, status.error)


def _bad_key(profile: Profile) -> str:
    if profile.reads_as is Dialect.AVCCDB:
        return "leveldb: internal key corrupted: invalid length for versioned key"
    return "leveldb: internal key corrupted: invalid type"
