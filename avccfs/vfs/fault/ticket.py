"""One call under a plan, from its announcement to its count; and calls announced beforehand."""

from __future__ import annotations

import threading
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING

from avccfs.vfs.fault.armed import Hit
from avccfs.vfs.fault.ops import Call, Op, kind_of_path
from avccfs.vfs.fault.tallies import Tally

if TYPE_CHECKING:
    from avccfs.vfs.fault.plan import FaultPlan


class Ticket:
    """The block in which a call is carried out.

    Entering it announces the call, unless an admission did: then it waits or raises as the rules
    say. Leaving it counts the call, and what it took.
    """

    __slots__ = ("_begun", "_plan", "_tally", "call", "faulted", "hits", "moved")

    def __init__(self, plan: FaultPlan, call: Call, tally: Tally) -> None:
        self.call = call
        self.hits: list[Hit] = []
        """The rules that act on the call's bytes; whoever carries it out does what they say."""
        self.moved = 0
        """How many bytes were read or written."""
        self.faulted = False
        """Whether the plan makes it fail."""
        self._plan = plan
        self._tally = tally
        self._begun = 0

    def __enter__(self) -> Ticket:
        self._begun = perf_counter_ns()
        admission = self._plan.admission(self.call)
        if admission is not None:
            self.hits = [hit for hit in admission.hits if not hit.rule.gone]
            self._begun -= admission.took_ns
            return self
        if self._plan.armed:
            try:
                self.hits = self._plan.announce(self.call)
            except BaseException:
                self._tally.add_failure(perf_counter_ns() - self._begun, faulted=True)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        took = perf_counter_ns() - self._begun
        if kind is None:
            self._tally.add(took, self.moved)
        else:
            self._tally.add_failure(took, self.moved, faulted=self.faulted)
        if self.hits:
            self._plan.settle(self.hits)

    def did(self, hit: Hit, what: str) -> None:
        """Note what a rule has done to the bytes."""
        self._plan.fired(hit, self.call, what)


class Admission:
    """The block of `FaultPlan.admit`."""

    __slots__ = ("_announced", "_op", "_other", "_path", "_plan", "_taken", "hits", "took_ns")

    def __init__(self, plan: FaultPlan, op: Op, path: str, other: str | None) -> None:
        self.hits: list[Hit] = []
        self.took_ns = 0
        """How long the announcement took, waiting included."""
        self._plan = plan
        self._op = op
        self._path = path
        self._other = other
        self._announced = False
        self._taken = False

    def __enter__(self) -> Admission:
        plan = self._plan
        if plan.armed:
            self._announce()
        # Also where nothing is armed: a rule that comes now must not stop whoever holds a lock.
        plan.enter(self, announced=self._announced)
        return self

    def _announce(self) -> None:
        call = Call(self._op, kind_of_path(self._path), self._path, self._other)
        begun = perf_counter_ns()
        try:
            self.hits = self._plan.announce(call)
        except BaseException:
            took = perf_counter_ns() - begun
            self._plan.tallies.of(call.op, call.kind).add_failure(took, faulted=True)
            raise
        self._announced = True
        self.took_ns = perf_counter_ns() - begun

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._plan.leave(self, announced=self._announced)
        if not self._taken and self.hits:
            self._plan.settle(self.hits)

    def take(self, call: Call) -> bool:
        """Whether this is the call that was admitted; once."""
        fits = not self._taken and call.op is self._op and call.path == self._path
        self._taken |= fits
        return fits


class Admissions(threading.local):
    """Those that a thread has entered, the last one last."""

    def __init__(self) -> None:
        self._entered: list[Admission] = []

    def add(self, admission: Admission) -> None:
        """A block is entered."""
        self._entered.append(admission)

    def drop(self, admission: Admission) -> None:
        """A block is left."""
        self._entered.remove(admission)

    def take(self, call: Call) -> Admission | None:
        """The innermost that fits a call, which is used up by that."""
        return next((one for one in reversed(self._entered) if one.take(call)), None)
