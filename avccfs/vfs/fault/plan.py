"""Plans of what goes wrong.

Whoever carries out operations (`FaultDirectory`) asks the plan before each of them. A plan is a list
of armed rules. There are two ways to arm one:

    add             a `Rule`, or a line of text, with a number and one counter for all it matches
    fail, stall     for programs: arms *every* pair of operation and kind in a mask, each with a
                    trigger of its own; `fail(Op.WRITE | Op.SYNC, Kind.JOURNAL | Kind.TABLE, Once())`
                    makes four calls fail

The rules that match a call act in the order in which they were armed; the first that fails it ends
it. A numbered rule counts every call it matches, also one that another rule fails.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count, product
from types import TracebackType

from avccfs.errors import ClosedError, UsageError
from avccfs.format.filename import Kind
from avccfs.vfs.fault.armed import ArmedRule, Hit, NumberedRule, PairRule, RuleStatus
from avccfs.vfs.fault.effects import Delay, Error, Fail, Stall, What
from avccfs.vfs.fault.ops import ALL_KINDS, ALL_OPS, Call, Op, Pair
from avccfs.vfs.fault.rule import Rule
from avccfs.vfs.fault.tallies import Fired, Tallies, Tally, iso_now
from avccfs.vfs.fault.text import parse_rule
from avccfs.vfs.fault.ticket import Admission, Admissions, Ticket
from avccfs.vfs.fault.triggers import Always, Once, Trigger

FIRED_KEPT = 100
"""How many of the faults that fired are remembered."""


class Armed:
    """The rules that one call of `fail` or `stall` armed. As a context manager disarms them."""

    def __init__(self, plan: FaultPlan, rules: list[PairRule]) -> None:
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

    One plan may serve several directories. As a context manager it is closed at the end.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells the seconds by which `after` goes."""
        self.armed = False
        """Whether any rule may act: while it is False nothing needs to be announced."""
        self.tallies = Tallies()
        """The counters."""
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._clock = clock
        self._since = iso_now()
        self._filed: dict[Pair, list[ArmedRule]] = {}
        self._numbered: dict[int, NumberedRule] = {}
        self._ids = count(1)
        self._waiting: Counter[Pair] = Counter()
        self._admissions = Admissions()
        self._admitted = 0
        self._fired: deque[Fired] = deque(maxlen=FIRED_KEPT)
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed: nothing can be armed any more."""
        return self._closed

    # Rules with numbers

    def add(self, rule: Rule | str) -> RuleStatus:
        """Arm a rule, from now on.

        Raises `FaultSyntaxError` for a line that is none, `ClosedError` if the plan was closed.
        """
        rule = parse_rule(rule) if isinstance(rule, str) else rule
        with self._mutex:
            self._check_open()
            numbered = NumberedRule(next(self._ids), rule, datetime.now(UTC), self._clock())
            self._numbered[numbered.id] = numbered
            self._file(numbered)
            return numbered.told()

    def rules(self) -> list[RuleStatus]:
        """The rules that were added and not removed, in that order; those that are done too."""
        with self._mutex:
            return [numbered.told() for numbered in self._numbered.values()]

    def remove(self, number: int) -> None:
        """Disarm a rule; whoever it holds up goes on. Raises `UsageError` if there is none."""
        with self._mutex:
            self._disarm([self._get(number)])

    def release_rules(self, number: int | None = None) -> int:
        """Let go on whoever a rule (None: any that was added) holds up; returns how many.

        A rule that stalls is then done and removed; one that delays stays. Raises `UsageError` for
        a number that is no rule's, or that of a rule that does neither.
        """
        with self._mutex:
            rules = list(self._numbered.values()) if number is None else [self._get(number)]
            holding = [rule for rule in rules if isinstance(rule.what, Stall | Delay)]
            if number is not None and not holding:
                raise UsageError(
                    f"rule {number} ({rules[0]}) holds nobody up: only stall and delay do; "
                    "remove takes it away"
                )
            waiting = sum(rule.waiting for rule in holding)
            self._release(holding)
            return waiting

    # Rules of programs

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
        return self._arm(ops, kinds, Once() if how is None else how, Fail(error))

    def stall(self, ops: Op, kinds: Kind = ALL_KINDS) -> Armed:
        """Make whoever does one of these wait until `release`; everybody else goes on."""
        return self._arm(ops, kinds, Always(), Stall())

    # All of them

    def release(self, ops: Op = ALL_OPS, kinds: Kind = ALL_KINDS) -> None:
        """End the stalls of every pair of these, and the delays under way.

        A numbered rule is meant if these are all that it can match.
        """
        with self._mutex:
            self._release(self._select(ops, kinds))

    def clear(self, ops: Op = ALL_OPS, kinds: Kind = ALL_KINDS) -> None:
        """Disarm everything for every pair of these, stalls included. Counters stay.

        A numbered rule goes if these are all that it can match.
        """
        with self._mutex:
            self._disarm(self._select(ops, kinds))

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
        """How many calls have ended, those that failed included."""
        return sum(tally.calls for tally in self.tallies.among(op, kind))

    def failures(self, op: Op = ALL_OPS, kind: Kind = ALL_KINDS) -> int:
        """How many calls this plan made fail."""
        return sum(tally.faulted for tally in self.tallies.among(op, kind))

    def bytes(self, op: Op = ALL_OPS, kind: Kind = ALL_KINDS) -> int:
        """How many bytes were really read or written."""
        return sum(tally.bytes for tally in self.tallies.among(op, kind))

    def stalled(self, op: Op = ALL_OPS, kind: Kind = ALL_KINDS) -> int:
        """How many threads are held up at this moment, by stalls or delays."""
        with self._mutex:
            return sum(self._waiting[pair] for pair in product(op, kind) if pair in self._waiting)

    def wait_stalled(
        self,
        op: Op = ALL_OPS,
        kind: Kind = ALL_KINDS,
        *,
        threads: int = 1,
        timeout: float | None = None,
    ) -> bool:
        """Wait until at least so many threads are held up; False if `timeout` seconds run out."""
        with self._changed:
            return self._changed.wait_for(lambda: self.stalled(op, kind) >= threads, timeout)

    def stats(self) -> dict[str, object]:
        """What was done and what went wrong, ready for JSON.

        since       when the plan was made, ISO 8601
        operations  operation -> kind of file -> calls, failures (for whatever reason), faulted
                    (those of them that were made to fail), bytes (really read or written) and
                    latency_us: total, max, p50, p99 (upper edges of their buckets) and below,
                    which counts the calls in [half of the key, key) microseconds, under "1"
                    those below one; waiting for faults included
        faults      the last 100 that fired, oldest first: time, rule (its number or null), text,
                    op, kind, path, for a rename new_path, for reads and writes offset and
                    length, call (the rule's how many-th), did
        rules       those that were added: id, text, added, matched, fired, stalled, done
        """
        with self._mutex:
            return {
                "since": self._since,
                "operations": self.tallies.told(),
                "faults": [fired.told() for fired in self._fired],
                "rules": [status.told() for status in self.rules()],
            }

    # For whoever carries the operations out

    def admit(self, op: Op, path: str, other: str | None = None) -> Admission:
        """Announce one operation before it comes: for callers who will hold a lock around it.

        Entering the block waits, or raises, as the rules say. The next `(op, path)` that this
        thread does within the block, a rename by its old path, is then not announced again; what
        rules do to its bytes, they do then. Blocks nest. A file goes by the path it was opened by.
        """
        return Admission(self, op, path, other)

    def before(self, op: Op, kind: Kind, path: str) -> None:
        """Announce and count one operation on one kind. Waits, or raises, as the rules say."""
        if not self.armed:
            self.tallies.of(op, kind).add(0)
            return
        with self.ticket(Call(op, kind, path)):
            pass

    def ticket(self, call: Call, tally: Tally | None = None) -> Ticket:
        """A block in which a call is carried out: announced at its begin, counted at its end."""
        return Ticket(self, call, tally or self.tallies.of(call.op, call.kind))

    def announce(self, call: Call) -> list[Hit]:
        """What tickets do first. Returns the rules that will act on the call's bytes."""
        due, acting = [], []
        with self._mutex:
            now = self._clock()
            for rule in tuple(self._filed.get((call.op, call.kind), ())):
                if number := rule.meet(call, now):
                    due.append(Hit(rule, number))
                elif rule.spent:
                    self._unfile(rule)
        try:
            for hit in due:
                if self._in_turn(hit, call):
                    acting.append(hit)
                else:
                    self.settle([hit])
        except BaseException:
            self.settle(due)
            raise
        return acting

    def settle(self, hits: list[Hit]) -> None:
        """What tickets do last. Rules that are spent go."""
        with self._mutex:
            for hit in hits:
                if not hit.settled:
                    hit.settled = True
                    hit.rule.settled(acted=hit.acted)
                    if hit.rule.spent:
                        self._unfile(hit.rule)

    def fired(self, hit: Hit, call: Call, did: str) -> None:
        """Note that a rule has acted."""
        with self._mutex:
            hit.acted = True
            text = str(hit.rule)
            self._fired.append(Fired(iso_now(), hit.rule.id, text, call, hit.number, did))

    def admission(self, call: Call) -> Admission | None:
        """Take the one that this thread has entered for a call."""
        return self._admissions.take(call)

    def enter(self, admission: Admission, *, announced: bool) -> None:
        """From now on a call on this thread is admitted."""
        self._admissions.add(admission)
        if announced:
            with self._mutex:
                self._admitted += 1
                self._rearm()

    def leave(self, admission: Admission, *, announced: bool) -> None:
        """The end of its block."""
        self._admissions.drop(admission)
        if announced:
            with self._mutex:
                self._admitted -= 1
                self._rearm()

    # Acting

    def _in_turn(self, hit: Hit, call: Call) -> bool:
        """Let one rule act, or raise; True if it will act on the bytes."""
        rule, what = hit.rule, hit.rule.what
        with self._mutex:
            # Disarmed while an earlier rule held this call up?
            acts = False if rule.gone else rule.acts()
            if acts is None:
                self._unfile(rule)
            if not acts:
                return False
        if isinstance(what, Fail):
            error = what.make(call.path)
            self.fired(hit, call, str(what))
            raise error
        if not isinstance(what, Stall | Delay):
            return True
        self.fired(hit, call, str(what))
        self._hold_up(rule, what, call)
        return False

    def _hold_up(self, rule: ArmedRule, what: Stall | Delay, call: Call) -> None:
        seconds = what.micros / 1e6 if isinstance(what, Delay) else None
        pair = (call.op, call.kind)
        with self._changed:
            released = rule.released
            rule.waiting += 1
            self._waiting[pair] += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: rule.gone or rule.released != released, seconds)
            finally:
                rule.waiting -= 1
                self._waiting[pair] -= 1

    # Filing; with the mutex held

    def _arm(self, ops: Op, kinds: Kind, how: Trigger, what: What) -> Armed:
        rules = [PairRule(pair, how.decisions(pair), what) for pair in product(ops, kinds)]
        with self._mutex:
            self._check_open()
            for rule in rules:
                self._file(rule)
        return Armed(self, rules)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the fault plan was closed; make a new one to arm more")

    def _get(self, number: int) -> NumberedRule:
        rule = self._numbered.get(number)
        if rule is None:
            known = ", ".join(map(str, self._numbered)) or "none"
            raise UsageError(f"there is no rule {number}; there are: {known}")
        return rule

    def _file(self, rule: ArmedRule) -> None:
        for pair in rule.pairs:
            self._filed.setdefault(pair, []).append(rule)
        self._rearm()

    def _unfile(self, rule: ArmedRule) -> None:
        for pair in rule.pairs:
            filed = self._filed.get(pair, [])
            if rule in filed:
                filed.remove(rule)
            if not filed:
                self._filed.pop(pair, None)
        self._rearm()

    def _rearm(self) -> None:
        self.armed = bool(self._filed) or self._admitted > 0

    def _disarm(self, rules: list[ArmedRule] | list[PairRule] | list[NumberedRule]) -> None:
        with self._changed:
            for rule in rules:
                rule.gone = True
                self._unfile(rule)
                if rule.id is not None:
                    self._numbered.pop(rule.id, None)
            self._changed.notify_all()

    def _release(self, rules: list[ArmedRule] | list[NumberedRule]) -> None:
        self._disarm([rule for rule in rules if isinstance(rule.what, Stall)])
        for rule in rules:
            rule.released += 1
        self._changed.notify_all()

    def _select(self, ops: Op, kinds: Kind) -> list[ArmedRule]:
        """The rules of these pairs, each once."""
        wanted = set(product(ops, kinds))
        filed = {id(rule): rule for pair in wanted for rule in self._filed.get(pair, ())}
        armed = [rule for rule in filed.values() if isinstance(rule, PairRule)]
        return armed + [rule for rule in self._numbered.values() if wanted.issuperset(rule.pairs)]
