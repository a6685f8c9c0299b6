"""Open files under a plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import ParamSpec, Protocol, TypeVar

from avccfs.vfs.base import Attributes, Buffer, File, Stat
from avccfs.vfs.fault.armed import Hit
from avccfs.vfs.fault.effects import (
    CorruptBit,
    CorruptBlock,
    Drop,
    Short,
    Torn,
    TornAt,
    TornPrefix,
    TornSectors,
    error_word,
    os_error,
    parts_text,
)
from avccfs.vfs.fault.ops import Call, Op, kind_of_path
from avccfs.vfs.fault.plan import FaultPlan
from avccfs.vfs.fault.tallies import Tally
from avccfs.vfs.fault.ticket import Ticket
from avccfs.vfs.fault.unsynced import Track

P = ParamSpec("P")
T = TypeVar("T")


class Owner(Protocol):
    """What an open file needs of its directory."""

    announces_close: bool
    """Whether closing a file is an operation of the plan."""

    def spoiled(self, file: FaultFile) -> None:
        """The content is not what its readers and writers believe. Called with no lock held."""

    def forget(self, file: FaultFile) -> None:
        """It is about to be closed."""

    def reopen(self, file: FaultFile) -> File | None:
        """An inner handle that can write to it; None if its name does not lead to it any more."""


class FaultFile:
    """An open file under a plan: `vfs.base.File`, but for what the plan says goes wrong.

    Rules, counters and errors know it by the path it was opened by, and by the kind of that.
    """

    __slots__ = (
        "_closed",
        "_kind",
        "_owner",
        "_plan",
        "_read",
        "_reads",
        "_tallies",
        "_write",
        "_writes",
        "inner",
        "path",
        "place",
        "track",
    )

    def __init__(
        self, inner: File, owner: Owner, plan: FaultPlan, path: str, track: Track | None
    ) -> None:
        """Made by `FaultDirectory.open`. `track` is kept for `drop`, if anything is."""
        self.inner = inner
        self.track = track
        self.path = path
        """The path it was opened by."""
        self.place = path
        """Where it is now, as far as its directory has renamed it."""
        self._owner = owner
        self._plan = plan
        self._kind = kind_of_path(path)
        self._tallies = plan.tallies.of_file(self._kind)
        self._closed = False
        # The hot path: looked up once.
        self._read = inner.read_at
        self._write: Callable[[Buffer, int], int] = inner.write_at
        if track is not None:
            self._write = partial(track.write, inner)
        self._reads, self._writes = self._tallies.read, self._tallies.write

    def read_at(self, size: int, offset: int) -> bytes:
        """Op.READ."""
        if self._plan.armed:
            return self._read_armed(size, offset)
        begun = perf_counter_ns()
        try:
            data = self._read(size, offset)
        except BaseException:
            self._reads.add_failure(perf_counter_ns() - begun)
            raise
        self._reads.add(perf_counter_ns() - begun, len(data))
        return data

    def write_at(self, data: Buffer, offset: int) -> int:
        """Op.WRITE. Unlike any other file's, a count made short by a rule warns of nothing."""
        if self._plan.armed:
            return self._write_armed(data, offset)
        begun = perf_counter_ns()
        try:
            done = self._write(data, offset)
        except BaseException:
            self._writes.add_failure(perf_counter_ns() - begun)
            raise
        self._writes.add(perf_counter_ns() - begun, done)
        return done

    def truncate(self, size: int) -> None:
        """Op.TRUNCATE."""
        if self.track is None:
            self._carry(Op.TRUNCATE, self._tallies.truncate, self.inner.truncate, size)
        else:
            cut = self.track.truncate
            self._carry(Op.TRUNCATE, self._tallies.truncate, cut, self.inner, size)

    def sync(self, *, data_only: bool = False) -> None:
        """Op.SYNC."""
        if self._plan.armed:
            self._sync_armed(data_only=data_only)
        else:
            self._tallies.sync.count(self._sync, data_only=data_only)

    def stat(self) -> Stat:
        """Op.STAT."""
        return self._carry(Op.STAT, self._tallies.stat, self.inner.stat)

    def set_attributes(self, change: Attributes) -> None:
        """Op.SET_ATTRIBUTES."""
        change_them = self.inner.set_attributes
        self._carry(Op.SET_ATTRIBUTES, self._tallies.set_attributes, change_them, change)

    def close(self) -> None:
        """Op.CLOSE, the first time; the inner handle is released in any case."""
        if self._closed:
            return
        self._closed = True
        self._owner.forget(self)
        try:
            if self._owner.announces_close:
                self._carry(Op.CLOSE, self._tallies.close, self.inner.close)
        finally:
            self.inner.close()

    def _carry(
        self, op: Op, tally: Tally, action: Callable[P, T], *args: P.args, **named: P.kwargs
    ) -> T:
        if not self._plan.armed:
            return tally.count(action, *args, **named)
        with self._ticket(op, tally):
            return action(*args, **named)

    # Under rules

    def _ticket(
        self, op: Op, tally: Tally, offset: int | None = None, length: int | None = None
    ) -> Ticket:
        return self._plan.ticket(Call(op, self._kind, self.path, None, offset, length), tally)

    def _read_armed(self, size: int, offset: int) -> bytes:
        with self._ticket(Op.READ, self._reads, offset, size) as ticket:
            data = self._read(size, offset)
            for hit in ticket.hits:
                what = hit.rule.what
                if isinstance(what, Short):
                    length, data = len(data), data[: what.of(len(data))]
                    ticket.did(hit, f"first {len(data)} of {length} bytes returned")
                elif isinstance(what, CorruptBit | CorruptBlock):
                    data, did = what.spoil(data, offset, hit.random())
                    ticket.did(hit, did)
            ticket.moved = len(data)
        return data

    def _write_armed(self, data: Buffer, offset: int) -> int:
        spoiled = False
        length = data.nbytes if isinstance(data, memoryview) else len(data)
        try:
            with self._ticket(Op.WRITE, self._writes, offset, length) as ticket:
                if not ticket.hits:
                    ticket.moved = self._write(data, offset)
                else:
                    spoiled = any(not isinstance(hit.rule.what, Short) for hit in ticket.hits)
                    self._write_faulty(ticket, bytes(memoryview(data).cast("B")), offset)
        finally:
            if spoiled:
                self._owner.spoiled(self)
        return ticket.moved

    def _sync_armed(self, *, data_only: bool) -> None:
        dropped = False
        try:
            with self._ticket(Op.SYNC, self._tallies.sync) as ticket:
                for hit in ticket.hits:
                    dropped = True
                    self._drop(ticket, hit)
                self._sync(data_only=data_only)
        finally:
            if dropped:
                self._owner.spoiled(self)

    def _write_faulty(self, ticket: Ticket, data: bytes, offset: int) -> None:
        """Write what the rules leave of it, in their order; the first that tears it ends it."""
        for hit in ticket.hits:
            what = hit.rule.what
            if isinstance(what, Short):
                length, data = len(data), data[: what.of(len(data))]
                ticket.did(hit, f"first {len(data)} of {length} bytes written")
            elif isinstance(what, CorruptBit | CorruptBlock):
                data, did = what.spoil(data, offset, hit.random())
                ticket.did(hit, did)
            elif isinstance(what, TornPrefix | TornAt | TornSectors):
                self._tear(ticket, hit, what, data, offset)
        ticket.moved = self._write(data, offset)

    def _tear(self, ticket: Ticket, hit: Hit, what: Torn, data: bytes, offset: int) -> None:
        parts = what.parts(offset, len(data))
        for start, stop in parts:
            ticket.moved += self._write(data[start:stop], offset + start)
        ticket.did(hit, f"{parts_text(parts, len(data))}, then {error_word(what.error)}")
        ticket.faulted = True
        raise os_error(what.error, self.path)

    def _sync(self, *, data_only: bool) -> None:
        if self.track is None:
            self.inner.sync(data_only=data_only)
        else:
            self.track.sync(partial(self.inner.sync, data_only=data_only))

    def _drop(self, ticket: Ticket, hit: Hit) -> None:
        what = hit.rule.what
        assert isinstance(what, Drop)
        track = self.track
        lost = (0, 0) if track is None else track.drop(lambda: self._owner.reopen(self))
        did = "nothing dropped: the file has no name and no handle that can write"
        if lost is not None:
            did = f"{lost[0]} bytes in {lost[1]} ranges dropped"
        ticket.did(hit, f"{did}, then {error_word(what.error)}")
        ticket.faulted = True
        raise os_error(what.error, self.path)
