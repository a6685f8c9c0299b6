"""What was done, how long it took, and which faults fired."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from time import perf_counter_ns
from typing import ParamSpec, TypeVar

from avccfs.format.filename import Kind
from avccfs.vfs.fault.ops import ALL_KINDS, ALL_OPS, Call, Op, Pair, kind_word, op_word

P = ParamSpec("P")
T = TypeVar("T")

_BUCKETS = 64


def iso_now() -> str:
    """This moment: `2026-01-31T12:00:00.000000+00:00`."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Tally:
    """The calls of one operation on one kind of file. Safe between threads."""

    __slots__ = (
        "_buckets",
        "_mutex",
        "bytes",
        "calls",
        "failures",
        "faulted",
        "max_ns",
        "total_ns",
    )

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        # Bucket 0 counts what took less than a microsecond, bucket n what took less than 2**n.
        self._buckets = [0] * _BUCKETS
        self.calls = 0
        """How many there were, those that failed included."""
        self.failures = 0
        """How many raised anything."""
        self.faulted = 0
        """How many of those a plan made fail."""
        self.bytes = 0
        """How many bytes were really read or written."""
        self.total_ns = 0
        self.max_ns = 0

    def add(self, took_ns: int, moved: int = 0) -> None:
        """Note a call that succeeded, and how many bytes it moved."""
        with self._mutex:
            self.calls += 1
            self.bytes += moved
            self.total_ns += took_ns
            if took_ns > self.max_ns:
                self.max_ns = took_ns
            self._buckets[(took_ns // 1000).bit_length()] += 1

    def add_failure(self, took_ns: int, moved: int = 0, *, faulted: bool = False) -> None:
        """Note a call that raised."""
        self.add(took_ns, moved)
        with self._mutex:
            self.failures += 1
            self.faulted += faulted

    def count(self, action: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Carry out a call, and note it."""
        begun = perf_counter_ns()
        try:
            done = action(*args, **named)
        except BaseException:
            self.add_failure(perf_counter_ns() - begun)
            raise
        self.add(perf_counter_ns() - begun)
        return done

    def told(self) -> dict[str, object]:
        """As `FaultPlan.stats` shows it."""
        with self._mutex:
            buckets = {1 << n: count for n, count in enumerate(self._buckets) if count}
            return {
                "calls": self.calls,
                "failures": self.failures,
                "faulted": self.faulted,
                "bytes": self.bytes,
                "latency_us": {
                    "total": self.total_ns / 1000,
                    "max": self.max_ns / 1000,
                    "p50": self._percentile(0.50),
                    "p99": self._percentile(0.99),
                    "below": {str(limit): count for limit, count in buckets.items()},
                },
            }

    def _percentile(self, share: float) -> float:
        """The upper edge of the bucket that the call of that rank is in, or the maximum."""
        seen = 0
        for n, count in enumerate(self._buckets):
            seen += count
            if seen >= share * self.calls:
                return min(float(1 << n), self.max_ns / 1000)
        return 0.0


class FileTallies:
    """The tallies that an open file needs, looked up once."""

    __slots__ = ("close", "read", "set_attributes", "stat", "sync", "truncate", "write")

    def __init__(
        self,
        *,
        read: Tally,
        write: Tally,
        truncate: Tally,
        sync: Tally,
        stat: Tally,
        set_attributes: Tally,
        close: Tally,
    ) -> None:
        self.read = read
        self.write = write
        self.truncate = truncate
        self.sync = sync
        self.stat = stat
        self.set_attributes = set_attributes
        self.close = close


class Tallies:
    """All tallies of a plan, made as they are asked for. Safe between threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._pairs: dict[Pair, Tally] = {}
        self._files: dict[Kind, FileTallies] = {}

    def of(self, op: Op, kind: Kind) -> Tally:
        """That of a pair."""
        tally = self._pairs.get((op, kind))
        if tally is None:
            with self._mutex:
                tally = self._pairs.setdefault((op, kind), Tally())
        return tally

    def of_file(self, kind: Kind) -> FileTallies:
        """Those of all that is done to an open file."""
        found = self._files.get(kind)
        if found is None:
            found = self._files[kind] = FileTallies(
                read=self.of(Op.READ, kind),
                write=self.of(Op.WRITE, kind),
                truncate=self.of(Op.TRUNCATE, kind),
                sync=self.of(Op.SYNC, kind),
                stat=self.of(Op.STAT, kind),
                set_attributes=self.of(Op.SET_ATTRIBUTES, kind),
                close=self.of(Op.CLOSE, kind),
            )
        return found

    def among(self, ops: Op, kinds: Kind) -> list[Tally]:
        """Those of every pair of a mask that were ever asked for."""
        with self._mutex:
            return [self._pairs[pair] for pair in product(ops, kinds) if pair in self._pairs]

    def told(self) -> dict[str, dict[str, object]]:
        """As `FaultPlan.stats` shows them."""
        operations: dict[str, dict[str, object]] = {}
        with self._mutex:
            for op, kind in product(ALL_OPS, ALL_KINDS):
                tally = self._pairs.get((op, kind))
                if tally is not None and tally.calls:
                    operations.setdefault(op_word(op), {})[kind_word(kind)] = tally.told()
        return operations


@dataclass(frozen=True, slots=True)
class Fired:
    """A fault that fired."""

    time: str
    """In ISO 8601."""
    rule: int | None
    """The number of its rule; None for one that `fail` or `stall` armed."""
    text: str
    call: Call
    number: int
    """Which of the calls that the rule matched it was, from 1 on."""
    did: str
    """`EIO`, `bit 4711 flipped`, `first 100 of 4096 bytes written, then EIO` ..."""

    def told(self) -> dict[str, object]:
        """As `FaultPlan.stats` shows it."""
        call = self.call
        told: dict[str, object] = {
            "time": self.time,
            "rule": self.rule,
            "text": self.text,
            "op": op_word(call.op),
            "kind": kind_word(call.kind),
            "path": _printable(call.path),
        }
        if call.other is not None:
            told["new_path"] = _printable(call.other)
        if call.offset is not None:
            told |= {"offset": call.offset, "length": call.length}
        return told | {"call": self.number, "did": self.did}


def _printable(path: str) -> str:
    """A path as text: what is not UTF-8 as `\\xff`."""
    return os.fsencode(path).decode(errors="backslashreplace")
