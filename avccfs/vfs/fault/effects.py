"""What a rule does to a call: the words behind the colon, and the bytes they mean.

Every effect is a value. Those that act before the operation (`Fail`, `Delay`, `Stall`) are carried
out by the plan, those that act on its bytes by `fault.file`; what is worked out here are the bytes.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from avccfs.vfs.fault.ops import RULE_OPS, Op

SECTOR = 512
"""The unit of `torn sectors`, and of `corrupt block` where no other is given, in bytes."""
MAX_DELAY_US = 365 * 24 * 3600 * 10**6
"""The longest time that can be written: a year."""

Part = tuple[int, int]
"""A part of a write: its first byte and the one after its last, counted in the write."""

Error = int | BaseException | Callable[[], BaseException]
"""What a failing call raises: the errno of an `OSError` that names the path, an exception, or
something that makes one."""


def error_word(code: int) -> str:
    """The name of an errno: `EIO`."""
    return errno.errorcode.get(code, str(code))


def os_error(code: int, path: str) -> OSError:
    """The error of a failing call."""
    return OSError(code, os.strerror(code), path)


def time_text(micros: int) -> str:
    """A length of time as a rule writes it: `200ms`, `30s`, `1.5ms`."""
    for unit, size in (("h", 3600 * 10**6), ("m", 60 * 10**6), ("s", 10**6)):
        if micros and micros % size == 0:
            return f"{micros // size}{unit}"
    whole, rest = divmod(micros, 1000)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".") + "ms"


@dataclass(frozen=True, slots=True)
class Amount:
    """A part of a read or a write: so many bytes, or so much of it in per cent."""

    number: int
    percent: bool = False

    def __post_init__(self) -> None:
        if self.number < 0 or (self.percent and self.number > 100):
            raise ValueError(f"{self} is no part of anything")

    def of(self, length: int) -> int:
        """How many bytes that is of `length`; per cent are rounded down."""
        return length * self.number // 100 if self.percent else min(self.number, length)

    def __str__(self) -> str:
        return f"{self.number}%" if self.percent else str(self.number)


# --- before the operation ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise an error instead of doing anything. A rule's is an errno."""

    error: Error = errno.EIO
    fits: ClassVar[Op] = RULE_OPS

    def make(self, path: str) -> BaseException:
        """The exception to raise."""
        error = self.error
        if isinstance(error, int):
            return os_error(error, path)
        # A given exception is raised again and again: without what it collected before.
        return error.with_traceback(None) if isinstance(error, BaseException) else error()

    def __str__(self) -> str:
        if isinstance(self.error, int):
            return error_word(self.error)
        name = getattr(self.error, "__name__", None)
        return name if isinstance(name, str) else type(self.error).__name__


@dataclass(frozen=True, slots=True)
class Delay:
    """Do it later."""

    micros: int
    fits: ClassVar[Op] = RULE_OPS

    def __post_init__(self) -> None:
        if not 0 < self.micros <= MAX_DELAY_US:
            raise ValueError(f"a delay of {self.micros} microseconds is none")

    def __str__(self) -> str:
        return f"delay {time_text(self.micros)}"


@dataclass(frozen=True, slots=True)
class Stall:
    """Make the calling thread wait until the rule is released or disarmed."""

    fits: ClassVar[Op] = RULE_OPS

    def __str__(self) -> str:
        return "stall"


# --- on its bytes -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Short:
    """Read or write only so much, and say so by the count alone."""

    amount: Amount
    fits: ClassVar[Op] = Op.READ | Op.WRITE

    def of(self, length: int) -> int:
        """How many bytes go through.

        Per cent leave at least one byte: a caller that goes on with the rest comes to an end.
        """
        least = 1 if self.amount.percent and self.amount.number else 0
        return max(min(least, length), self.amount.of(length))

    def __str__(self) -> str:
        return f"short {self.amount}"


@dataclass(frozen=True, slots=True)
class TornPrefix:
    """The first bytes of a write reach the file, and it fails."""

    amount: Amount
    error: int = errno.EIO
    fits: ClassVar[Op] = Op.WRITE

    def parts(self, offset: int, length: int) -> list[Part]:
        """What reaches the file of a write of `length` bytes at `offset`."""
        return _joined([(0, self.amount.of(length))])

    def __str__(self) -> str:
        return f"torn prefix {self.amount}{_unless_eio(self.error)}"


@dataclass(frozen=True, slots=True)
class TornAt:
    """A write is cut at `cuts`; the parts named reach the file, and it fails."""

    cuts: tuple[int, ...]
    """Offsets in the write, ascending, above 0."""
    keep: tuple[int, ...]
    """Which parts, counted from 1; n cuts make n + 1 of them."""
    error: int = errno.EIO
    fits: ClassVar[Op] = Op.WRITE

    def __post_init__(self) -> None:
        if not self.cuts or list(self.cuts) != sorted({*self.cuts} - {0}) or self.cuts[0] < 0:
            raise ValueError(f"cuts must be ascending offsets above 0, not {self.cuts}")
        if list(self.keep) != sorted({*self.keep}) or not self.keep:
            raise ValueError(f"parts to keep must be ascending numbers, not {self.keep}")
        if self.keep[0] < 1 or self.keep[-1] > len(self.cuts) + 1:
            raise ValueError(f"{len(self.cuts)} cuts make the parts 1 to {len(self.cuts) + 1}")

    def parts(self, offset: int, length: int) -> list[Part]:
        """What reaches the file of a write of `length` bytes at `offset`."""
        edges = [0, *(min(cut, length) for cut in self.cuts), length]
        return _joined([(edges[part - 1], edges[part]) for part in self.keep])

    def __str__(self) -> str:
        cuts, keep = (",".join(map(str, numbers)) for numbers in (self.cuts, self.keep))
        return f"torn at {cuts} keep {keep}{_unless_eio(self.error)}"


@dataclass(frozen=True, slots=True)
class TornSectors:
    """Chosen sectors of a write reach the file, and it fails.

    Sectors lie at multiples of 512 in the *file*; number 0 is the one the write begins in, so the
    first and the last may be there in part only.
    """

    ranges: tuple[Part, ...]
    """First and last number, ascending, and apart by at least one sector."""
    error: int = errno.EIO
    fits: ClassVar[Op] = Op.WRITE

    def __post_init__(self) -> None:
        if not self.ranges or self.ranges != merged(self.ranges):
            raise ValueError(f"ranges of sectors must ascend and lie apart, unlike {self.ranges}")

    def parts(self, offset: int, length: int) -> list[Part]:
        """What reaches the file of a write of `length` bytes at `offset`."""
        lead = offset % SECTOR
        edges = [(first * SECTOR - lead, (last + 1) * SECTOR - lead) for first, last in self.ranges]
        return _joined([(max(0, start), min(stop, length)) for start, stop in edges])

    def __str__(self) -> str:
        numbers = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.ranges)
        return f"torn sectors {numbers}{_unless_eio(self.error)}"


@dataclass(frozen=True, slots=True)
class CorruptBit:
    """Turn one bit over, and say nothing."""

    bit: int | None = None
    """Which one of the read or write: bit 0 is the lowest of its first byte. None: any."""
    fits: ClassVar[Op] = Op.READ | Op.WRITE

    def spoil(self, data: bytes, offset: int, chance: random.Random) -> tuple[bytes, str]:
        """The bytes after it, and what was done. `chance` chooses where nothing is said."""
        if not data or (self.bit is not None and self.bit >= 8 * len(data)):
            return data, f"no such bit in {len(data)} bytes, nothing changed"
        bit = chance.randrange(8 * len(data)) if self.bit is None else self.bit
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        return bytes(spoiled), f"bit {bit} flipped"

    def __str__(self) -> str:
        return "corrupt bit" if self.bit is None else f"corrupt bit {self.bit}"


@dataclass(frozen=True, slots=True)
class CorruptBlock:
    """Change every byte of one block, and say nothing.

    Blocks lie at multiples of their size in the *file*; number 0 is the one the read or write
    begins in.
    """

    block: int | None = None
    """Which one of the read or write. None: any."""
    size: int = SECTOR
    """In bytes."""
    fits: ClassVar[Op] = Op.READ | Op.WRITE

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a block of {self.size} bytes is none")

    def spoil(self, data: bytes, offset: int, chance: random.Random) -> tuple[bytes, str]:
        """The bytes after it, and what was done. `chance` chooses what they become."""
        lead = offset % self.size
        count = -(-(lead + len(data)) // self.size) if data else 0
        if not count or (self.block is not None and self.block >= count):
            return data, f"no such block in {len(data)} bytes, nothing changed"
        block = chance.randrange(count) if self.block is None else self.block
        start = max(0, block * self.size - lead)
        stop = min(len(data), (block + 1) * self.size - lead)
        mask = bytes(chance.randrange(1, 256) for _ in range(stop - start))
        changed = bytes(byte ^ other for byte, other in zip(data[start:stop], mask, strict=True))
        spoiled = data[:start] + changed + data[stop:]
        return spoiled, f"bytes {start} to {stop - 1} of {len(data)} changed"

    def __str__(self) -> str:
        block = "" if self.block is None else f" {self.block}"
        size = "" if self.size == SECTOR else f" size={self.size}"
        return f"corrupt block{block}{size}"


@dataclass(frozen=True, slots=True)
class Drop:
    """A sync that fails and loses what it should have kept; the next one succeeds."""

    error: int = errno.EIO
    fits: ClassVar[Op] = Op.SYNC

    def __str__(self) -> str:
        return f"drop{_unless_eio(self.error)}"


Torn = TornPrefix | TornAt | TornSectors
Corrupt = CorruptBit | CorruptBlock
What = Fail | Delay | Stall | Short | Torn | Corrupt | Drop


def parts_text(parts: list[Part], length: int) -> str:
    """What was written, for people: `first 100 of 4096 bytes written`."""
    if not parts:
        return f"none of {length} bytes written"
    if len(parts) == 1 and parts[0][0] == 0:
        return f"first {parts[0][1]} of {length} bytes written"
    ranges = ", ".join(f"{start} to {stop - 1}" for start, stop in parts)
    return f"bytes {ranges} of {length} written"


def merged(ranges: tuple[Part, ...]) -> tuple[Part, ...]:
    """Ranges of numbers (first and last), in order, neighbours joined."""
    joined: list[Part] = []
    for first, last in sorted(ranges):
        if not 0 <= first <= last:
            raise ValueError(f"{first}-{last} is no range")
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _joined(parts: list[Part]) -> list[Part]:
    """Parts without the empty ones, neighbours as one."""
    result: list[Part] = []
    for start, stop in parts:
        if start >= stop:
            continue
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], stop)
        else:
            result.append((start, stop))
    return result


def _unless_eio(error: int) -> str:
    return "" if error == errno.EIO else f" {error_word(error)}"
