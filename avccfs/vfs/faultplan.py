"""Plans of what goes wrong (SPEC section 3, "Fault storage").

Whoever carries out operations (`vfs.fault.FaultDirectory`) asks the plan before each of them. A plan
is a set of rules, each armed for one operation on one kind of file:

    matcher   the pair (operation, kind) it is filed under
    trigger   decides, call by call, whether the rule acts (`Once`, `Always`, `OneIn`)
    effect    what it does then: raise an error, or make the caller wait

A mask that names several operations and several kinds arms *every* pair of them, each with a
trigger of its own: `fail(Op.WRITE | Op.SYNC, Kind.JOURNAL | Kind.TABLE, Once())` makes four calls
fail.
"""

from __future__ import annotations

import enum
import errno
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product, repeat
from types import TracebackType
from typing import Protocol

from avccfs.errors import ClosedError
from avccfs.format import filename
from avccfs.format.filename import Kind


class Op(enum.Flag):
    """What can be asked of a directory or a file. A flag, so that a rule can name several."""

    OPEN = enum.auto()
    """Opening without `Open.CREATE`, also where `Open.TRUNCATE` then cuts the file."""
    CREATE = enum.auto()
    """Opening with `Open.CREATE`, whether or not the file existed."""
    READ = enum.auto()
    WRITE = enum.auto()
    TRUNCATE = enum.auto()
    """`File.truncate`; the flag `Open.TRUNCATE` belongs to the opening."""
    SYNC = enum.auto()
    """Sync of a file's content."""
    CLOSE = enum.auto()
    """Close of a file. Even when it fails the handle is released, as with close(2)."""
    REMOVE = enum.auto()
    RENAME = enum.auto()
    LINK = enum.auto()
    SYMLINK = enum.auto()
    READLINK = enum.auto()
    MKDIR = enum.auto()
    RMDIR = enum.auto()
    LIST = enum.auto()
    """`names` and `scan`."""
    STAT = enum.auto()
    """`stat` of a name or of an open file."""
    SET_ATTRIBUTES = enum.auto()
    """`set_attributes` of a name or of an open file."""
    SYNC_DIR = enum.auto()
    """Sync of the names in a directory."""
    SPACE = enum.auto()
    LOCK = enum.auto()


ALL_OPS = ~Op(0)
ALL_KINDS = ~Kind(0)

Pair = tuple[Op, Kind]
Error = int | BaseException | Callable[[], BaseException]
"""What a failing call raises: the errno of an `OSError` that names the path, an exception, or
something that makes one."""


def kind_of_path(path: str) -> Kind:
    """The kind that rules and counters go by.

    Only names in the directory itself are database files: a folder's content, the folder and the
    directory itself (as in `Op.SYNC_DIR`) are FOREIGN.
    """
    return Kind.FOREIGN if "/" in path else filename.kind_of(path)


@dataclass(frozen=True, slots=True)
class Call:
    """One operation that is about to happen."""

    op: Op
    kind: Kind
    path: str


# --- triggers ---------------------------------------------------------------------------------


class Trigger(Protocol):
    """When a rule acts."""

    def decisions(self, pair: Pair) -> Iterator[bool]:
        """One decision per call of the pair. The rule is disarmed when there are no more."""


@dataclass(frozen=True, slots=True)
class Once:
    """The next call, and none after it."""

    def decisions(self, pair: Pair) -> Iterator[bool]:
        """True, and no more."""
        return iter((True,))


@dataclass(frozen=True, slots=True)
class Always:
    """Every call."""

    def decisions(self, pair: Pair) -> Iterator[bool]:
        """True for ever."""
        return repeat(True)


@dataclass(frozen=True, slots=True)
class OneIn:
    """Each call with a chance of one in `n`, decided by `seed`.

    Every pair has a sequence of its own, so the order in which threads do different things does not
    change what fails.
    """

    n: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"one in {self.n} is no chance; give 1 or more")

    def decisions(self, pair: Pair) -> Iterator[bool]:
        """The same decisions for the same seed and pair."""
        op, kind = pair
        chance = random.Random(f"{self.seed}:{op.name}:{kind.name}")
        while True:
            yield chance.randrange(self.n) == 0


# --- effects ----------------------------------------------------------------------------------


class Effect(Protocol):
    """What a rule does to a call."""

    def act(self, call: Call) -> None:
        """Return to let the call go on, or raise. Called without any lock held."""

    def end(self) -> None:
        """The rule was disarmed: let go of every call that it holds up."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise an error instead of doing anything."""

    error: Error = errno.EIO

    def act(self, call: Call) -> None:
        """Raise it."""
        error = self.error
        if isinstance(error, int):
            raise OSError(error, os.strerror(error), call.path)
        # A given exception is raised again and again: without what it collected before.
        raise error.with_traceback(None) if isinstance(error, BaseException) else error()

    def end(self) -> None:
        """Nothing is held up."""


class Stall:
    """Make the calling thread wait until the rule is disarmed."""

    def __init__(self, changed: threading.Condition) -> None:
        """`changed` is the plan's own condition, told of every thread that comes."""
        self._changed = changed
        self._over = False
        self.waiting = 0
        """How many threads wait now."""

    def act(self, call: Call) -> None:
        """Wait."""
        with self._changed:
            self.waiting += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._over)
            finally:
                self.waiting -= 1

    def end(self) -> None:
        """Let all of them go on."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


# --- the plan ---------------------------------------------------------------------------------


class _Rule:
    """A trigger and an effect, armed for one pair."""

    __slots__ = ("decisions", "effect")

    def __init__(self, decisions: Iterator[bool], effect: Effect) -> None:
        self.decisions = decisions
        self.effect = effect


class Armed:
    """The rules that one call of `fail` or `stall` armed. As a context manager disarms them."""

    def __init__(self, plan: FaultPlan, rules: list[tuple[Pair, _Rule]]) -> None:
        self._plan = plan
        self._rules = rules

    def disarm(self) -> None:
        """Take back these rules and no others; what they stalled goes on. May be called again."""
        self._plan._disarm(self._rules)

    def __enter__(self) -> Armed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disarm()


class FaultPlan:
    """What goes wrong, and a count of what was done. Safe to use from several threads.

    Rules of one pair act in the order in which they were armed; the first to raise ends it. One
    plan may serve several directories. As a context manager it is closed at the end.
    """

    def __init__(self) -> None:
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._rules: dict[Pair, list[_Rule]] = {}
        self._calls: Counter[Pair] = Counter()
        self._failures: Counter[Pair] = Counter()
        self._bytes: Counter[Pair] = Counter()
        self._closed = False

    # Arming

    def fail(
        self,
        ops: Op,
        kinds: Kind = ALL_KINDS,
        how: Trigger | None = None,
        *,
        error: Error = errno.EIO,
    ) -> Armed:
        """Make every pair of these fail, `Once` each unless `how` says otherwise.

        The operation is then not done at all, except that a handle is closed. Raises `ClosedError`
        if the plan was closed.
        """
        return self._arm(ops, kinds, Once() if how is None else how, lambda: Fail(error))

    def stall(self, ops: Op, kinds: Kind = ALL_KINDS) -> Armed:
        """Make whoever does one of these wait until `release`; everybody else goes on."""
        return self._arm(ops, kinds, Always(), lambda: Stall(self._changed))

    def release(self, ops: Op = ALL_OPS, kinds: Kind = ALL_KINDS) -> None:
        """End the stalls of every pair of these."""
        self._disarm(self._select(ops, kinds, Stall))

    def clear(self, ops: Op = ALL_OPS, kinds: Kind = ALL_KINDS) -> None:
        """Disarm everything for every pair of these, stalls included. Counters stay."""
        self._disarm(self._select(ops, kinds, object))

    def close(self) -> None:
        """Disarm everything for good: from now on operations pass. May be called again."""
        with self._mutex:
            self._closed = True
        self.clear()

    def __enter__(self) -> FaultPlan:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Counters; a mask adds up all of its pairs

    def count(self, op: Op = ALL_OPS, kind: Kind = ALL_KINDS) -> int:
        """How many calls there were, those that failed included."""
        return self._sum(self._calls, op, kind)

    def failures(self, op: Op = ALL_OPS, kind: Kind = ALL_KINDS) -> int:
        """How many calls this plan made fail."""
        return self._sum(self._failures, op, kind)

    def bytes(self, op: Op = ALL_OPS, kind: Kind = ALL_KINDS) -> int:
        """How many bytes were really read or written."""
        return self._sum(self._bytes, op, kind)

    def stalled(self, op: Op = ALL_OPS, kind: Kind = ALL_KINDS) -> int:
        """How many threads wait at this moment."""
        with self._mutex:
            rules = self._select(op, kind, Stall)
            return sum(r.effect.waiting for _, r in rules if isinstance(r.effect, Stall))

    def wait_stalled(
        self,
        op: Op = ALL_OPS,
        kind: Kind = ALL_KINDS,
        *,
        threads: int = 1,
        timeout: float | None = None,
    ) -> bool:
        """Wait until at least so many threads are stalled; False if `timeout` seconds run out."""
        with self._changed:
            return self._changed.wait_for(lambda: self.stalled(op, kind) >= threads, timeout)

    # For whoever carries the operations out

    def before(self, op: Op, kind: Kind, path: str) -> None:
        """Announce one operation on one kind. Waits, or raises, as the rules say."""
        pair = (op, kind)
        with self._mutex:
            self._calls[pair] += 1
            rules = tuple(self._rules.get(pair, ()))
        for rule in rules:
            if self._fires(pair, rule):
                try:
                    rule.effect.act(Call(op, kind, path))
                except BaseException:
                    with self._mutex:
                        self._failures[pair] += 1
                    raise

    def moved(self, op: Op, kind: Kind, count: int) -> None:
        """Report how many bytes an operation read or wrote."""
        with self._mutex:
            self._bytes[op, kind] += count

    # Rules

    def _arm(self, ops: Op, kinds: Kind, how: Trigger, effect: Callable[[], Effect]) -> Armed:
        pairs = list(product(ops, kinds))
        armed = [(pair, _Rule(how.decisions(pair), effect())) for pair in pairs]
        with self._mutex:
            if self._closed:
                raise ClosedError("the fault plan was closed; make a new one to arm more")
            for pair, rule in armed:
                self._rules.setdefault(pair, []).append(rule)
        return Armed(self, armed)

    def _fires(self, pair: Pair, rule: _Rule) -> bool:
        with self._mutex:
            if rule not in self._rules.get(pair, ()):
                return False  # Disarmed while an earlier rule held this call up.
            decision = next(rule.decisions, None)
            if decision is None:
                self._rules[pair].remove(rule)
            return bool(decision)

    def _select(self, ops: Op, kinds: Kind, effect: type[object]) -> list[tuple[Pair, _Rule]]:
        with self._mutex:
            return [
                (pair, rule)
                for pair in product(ops, kinds)
                for rule in self._rules.get(pair, ())
                if isinstance(rule.effect, effect)
            ]

    def _disarm(self, rules: list[tuple[Pair, _Rule]]) -> None:
        with self._mutex:
            for pair, rule in rules:
                if rule in self._rules.get(pair, ()):
                    self._rules[pair].remove(rule)
        for _, rule in rules:
            rule.effect.end()

    def _sum(self, counter: Counter[Pair], ops: Op, kinds: Kind) -> int:
        with self._mutex:
            return sum(counter[pair] for pair in product(ops, kinds) if pair in counter)
