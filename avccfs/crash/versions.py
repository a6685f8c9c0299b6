"""The contents one file may be found with after a crash.

Every pending write of a file is lost, kept, or torn: one piece of it kept, from either end. A
pending truncation is lost or kept. Beside that the *size* on disk is any that the file had since
its last sync, or the one that the kept pieces make; where it is ahead of the bytes, they read as
zeros or as garbage. All combinations are made, up to a limit; beyond it a fixed choice of them.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from avccfs.crash.model import FileOnDisk, Profile
from avccfs.vfs.recorder import DataChange, Truncate, Write

T = TypeVar("T")

# No zero byte (that is the other filling), no text, and no newline at the end of any name.
GARBAGE = bytes.fromhex("a7d3f19c8be5")


class Filling(enum.Enum):
    """What a file shows where its size is ahead of its bytes."""

    ZEROS = "zeros"
    GARBAGE = "garbage"


@dataclass(frozen=True, slots=True)
class Granularity:
    """How finely the states are told apart, and where a complete enumeration stops.

    All byte counts; the `most_` fields are numbers of alternatives.
    """

    every_byte_up_to: int = 64
    """A write up to this long is torn after every byte."""
    sector: int = 512
    """A longer one is torn where its file's sectors end, after its first byte, before its last
    and in the middle."""
    most_tears: int = 64
    """Of more places to tear one write than this, this many are taken, evenly spread."""
    most_versions: int = 4096
    """Combinations for one file up to which all are made."""
    most_names: int = 1024
    """Combinations of lost name changes up to which all are made."""
    most_states: int = 200_000
    """States at one position up to which all are made."""


FINE = Granularity()

COARSE = Granularity(every_byte_up_to=0, most_tears=3)
"""Only a few tears a write; everything else as in FINE."""

Piece = tuple[int, int]
"""Which bytes of a write are kept: from, up to. `(0, 0)` is lost. A truncation counts as long 1."""


@dataclass(frozen=True, slots=True)
class Version:
    """One content that a file may be found with. Built when asked for: files can be large."""

    file: FileOnDisk
    kept: tuple[Piece, ...]
    """For each pending change what is kept of it."""
    size: int
    filling: Filling
    digest: bytes

    @property
    def faults(self) -> tuple[str, ...]:
        """What happened to the pending changes, one line each; nothing where all were kept."""
        return _tell(self)

    def content(self) -> bytes:
        """The bytes."""
        return _build(self.file, self.kept, self.size, self.filling)


@dataclass(frozen=True, slots=True)
class Versions:
    """All versions of a file: the one with everything kept first, then by number of faults."""

    all: tuple[Version, ...]
    exhaustive: bool

    @property
    def nothing_kept(self) -> Version:
        """The content of the last sync."""
        durable = digest_of(self.all[0].file.durable)
        return next(version for version in self.all if version.digest == durable)


def digest_of(content: bytes) -> bytes:
    """A short name for a content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def versions(file: FileOnDisk, profile: Profile, granularity: Granularity = FINE) -> Versions:
    """Every content that `file` may be found with. See the module's text."""
    changes = [change for _, change in file.pending]
    outcomes = [_outcomes(change, granularity) for change in changes]
    exhaustive = math.prod(map(len, outcomes)) <= granularity.most_versions
    sizes = _sizes(file)
    if exhaustive:
        choices: Iterator[tuple[Piece, ...]] = itertools.product(*outcomes)
    else:
        choices = _some(outcomes, granularity.most_versions)
        sizes = list(dict.fromkeys((sizes[0], sizes[-1])))

    fillings = (Filling.ZEROS,) if profile.no_garbage else tuple(Filling)
    found: dict[bytes, Version] = {}
    ranked: list[tuple[int, bool, tuple[Piece, ...], int]] = []
    for kept in choices:
        natural = _natural_size(file, kept)
        for size in dict.fromkeys((natural, *sizes)):
            faults = _faulty(changes, kept) + (size != natural)
            if not (profile.ordered_data and faults and _ahead(file, kept, size)):
                ranked.append((faults, size != natural, kept, size))
    # The shortest explanation of a content is the one to tell.
    ranked.sort(key=lambda each: each[:2])
    for _, _, kept, size in ranked:
        for filling in fillings:
            digest = digest_of(_build(file, kept, size, filling))
            if digest not in found:
                found[digest] = Version(file, kept, size, filling, digest)
    return Versions(tuple(found.values()), exhaustive)


def _length(change: DataChange) -> int:
    return len(change.data) if isinstance(change, Write) else 1


def _outcomes(change: DataChange, granularity: Granularity) -> list[Piece]:
    """What may be kept of a change: all, nothing, each piece that a tear leaves."""
    length = _length(change)
    whole, lost = (0, length), (0, 0)
    if isinstance(change, Truncate):
        return [whole, lost]
    if length <= granularity.every_byte_up_to:
        tears: Sequence[int] = range(1, length)
    else:
        sector = granularity.sector
        first = sector - change.offset % sector
        spots = {1, length // 2, length - 1, *range(first, length, sector)}
        tears = thin(sorted(spot for spot in spots if 0 < spot < length), granularity.most_tears)
    return [whole, lost, *((0, tear) for tear in tears), *((tear, length) for tear in tears)]


def thin(things: Sequence[T], most: int) -> list[T]:
    """At most `most` of these, evenly spread, the first and the last among them."""
    if len(things) <= most:
        return list(things)
    step = (len(things) - 1) / max(1, most - 1)
    return [things[round(index * step)] for index in range(most)]


def _some(outcomes: Sequence[Sequence[Piece]], most: int) -> Iterator[tuple[Piece, ...]]:
    """Each change with each outcome of its own while the others are kept; while those before it
    are kept and those after it lost (as in a file that is appended to); while the others are lost.
    Thinned evenly where even that is more than `most`.
    """
    count = len(outcomes)
    whole = tuple(each[0] for each in outcomes)
    lost = ((0, 0),) * count
    each_may_have = max(2, most // (3 * count))
    yield whole
    yield lost
    for index in thin(range(count), max(1, most // 6)):
        for piece in thin(outcomes[index], each_may_have):
            yield (*whole[:index], piece, *whole[index + 1 :])
            yield (*whole[:index], piece, *lost[index + 1 :])
            yield (*lost[:index], piece, *lost[index + 1 :])


def _sizes(file: FileOnDisk) -> list[int]:
    """The sizes since the last sync, the durable one first, the last one last."""
    size = len(file.durable)
    sizes = [size]
    for _, change in file.pending:
        size = _resize(size, change, _length(change))
        sizes.append(size)
    return sizes


def _resize(size: int, change: DataChange, end: int) -> int:
    """The size after a change of which the bytes up to `end` are kept."""
    if isinstance(change, Truncate):
        return change.size if end else size
    return max(size, change.offset + end) if end else size


def _natural_size(file: FileOnDisk, kept: Sequence[Piece]) -> int:
    """The size that the kept pieces make by themselves."""
    size = len(file.durable)
    for (_, change), (_, end) in zip(file.pending, kept, strict=True):
        size = _resize(size, change, end)
    return size


def _build(file: FileOnDisk, kept: Sequence[Piece], size: int, filling: Filling) -> bytes:
    content = bytearray(file.durable)

    def grow(end: int) -> None:
        if end > len(content):
            content.extend(_background(file, kept, len(content), end, filling))

    for (_, change), (start, end) in zip(file.pending, kept, strict=True):
        if start == end:
            continue
        if isinstance(change, Truncate):
            del content[change.size :]
            grow(change.size)
            continue
        offset = change.offset + start
        grow(offset)
        content[offset : offset + end - start] = change.data[start:end]
    del content[size:]
    grow(size)
    return bytes(content)


def _background(
    file: FileOnDisk, kept: Sequence[Piece], start: int, stop: int, filling: Filling
) -> bytes:
    """What stands from `start` to `stop` where a file has grown and no written byte is kept.

    Garbage only where something should be: what was skipped over, or cut off before, is a hole and
    reads as zeros on every file system.
    """
    ground = bytearray(stop - start)
    if filling is Filling.ZEROS:
        return bytes(ground)
    for (_, change), (_, end) in zip(file.pending, kept, strict=True):
        if isinstance(change, Write):
            low, high = max(start, change.offset), min(stop, change.offset + len(change.data))
            if low < high:
                repeated = GARBAGE * ((high - low) // len(GARBAGE) + 1)
                ground[low - start : high - start] = repeated[: high - low]
        elif end and change.size < stop:
            cut = max(change.size, start) - start
            ground[cut:] = bytes(len(ground) - cut)
    return bytes(ground)


def _ahead(file: FileOnDisk, kept: Sequence[Piece], size: int) -> bool:
    """Whether the size takes in bytes that were to be written and are not kept."""
    return _build(file, kept, size, Filling.ZEROS) != _build(file, kept, size, Filling.GARBAGE)


def _faulty(changes: Sequence[DataChange], kept: Sequence[Piece]) -> int:
    return sum(piece != (0, _length(change)) for change, piece in zip(changes, kept, strict=True))


def _tell(version: Version) -> tuple[str, ...]:
    lines: list[str] = []
    path = ""
    for (position, change), (start, end) in zip(version.file.pending, version.kept, strict=True):
        path, length = change.path, _length(change)
        if start == end:
            lines.append(f"operation {position}, {change}: lost")
        elif (start, end) != (0, length):
            lines.append(f"operation {position}, {change}: only bytes {start} to {end} of {length}")
    if version.size != _natural_size(version.file, version.kept):
        lines.append(f"the size of {path} on disk is {version.size}")
    if _ahead(version.file, version.kept, version.size):
        lines.append(f"what is missing from {path} reads as {version.filling.value}")
    return tuple(lines)
