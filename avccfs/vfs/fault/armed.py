"""Rules that are armed: the state a plan keeps for each. All of it is under the plan's mutex."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from avccfs.vfs.fault.effects import What
from avccfs.vfs.fault.ops import Call, Pair, kind_word, op_word
from avccfs.vfs.fault.rule import Rule
from avccfs.vfs.fault.triggers import Schedule


class ArmedRule(Protocol):
    """What the plan needs of a rule, whoever armed it."""

    pairs: list[Pair]
    """Under which it is filed: every call that it may match is of one of them."""
    what: What
    gone: bool
    """Whether it was disarmed: nobody waits for it any longer."""
    released: int
    """How often those that it held up were let go."""
    waiting: int
    """How many threads it holds up now."""

    @property
    def id(self) -> int | None:
        """Its number, if it has one."""

    def meet(self, call: Call, now: float) -> int:
        """A call comes: its number if the rule may act on it, else 0."""

    def acts(self) -> bool | None:
        """It is the rule's turn: whether it acts; None if it never will again."""

    def settled(self, *, acted: bool) -> None:
        """A call that was met is over; whether something came of it."""

    @property
    def spent(self) -> bool:
        """Whether it will never act again, and acts on nothing now."""

    def random(self, number: int) -> random.Random:
        """What chooses bits and bytes for the call of that number."""


class PairRule:
    """A trigger and an effect for one pair, as `fail` and `stall` arm them."""

    def __init__(self, pair: Pair, decisions: Iterator[bool], what: What) -> None:
        self.pairs = [pair]
        self.what = what
        self.gone = False
        self.released = 0
        self.waiting = 0
        self._decisions = decisions
        self._matched = 0

    @property
    def id(self) -> int | None:
        """None."""
        return None

    def meet(self, call: Call, now: float) -> int:
        """Every call of the pair may be one; the trigger is asked in its turn."""
        self._matched += 1
        return self._matched

    def acts(self) -> bool | None:
        """As the trigger says."""
        return next(self._decisions, None)

    def settled(self, *, acted: bool) -> None:
        """A trigger cannot be turned back."""

    @property
    def spent(self) -> bool:
        """Only the trigger knows, when asked."""
        return False

    def random(self, number: int) -> random.Random:
        """Not used: such rules change no bytes."""
        return random.Random(number)

    def __str__(self) -> str:
        op, kind = self.pairs[0]
        return f"{op_word(op)} {kind_word(kind)}: {self.what}"


class NumberedRule:
    """A `Rule` with a number, one counter for all of its calls, and a history."""

    def __init__(self, id_: int, rule: Rule, added: datetime, now: float) -> None:
        self._id = id_
        self.rule = rule
        self.pairs = rule.pairs()
        self.what = rule.what
        self.added = added
        self.schedule = Schedule(rule.when, rule.name, now)
        self._pending = 0
        self.gone = False
        self.released = 0
        self.waiting = 0

    @property
    def id(self) -> int:
        """Counted from 1 by the plan, and never given again."""
        return self._id

    def meet(self, call: Call, now: float) -> int:
        """Count a call that matches, and decide on it."""
        number = self.schedule.meet(now) if self.rule.matches(call) else 0
        self._pending += number > 0
        return number

    def acts(self) -> bool | None:
        """Decided when the call came."""
        return True

    def settled(self, *, acted: bool) -> None:
        """A call that came to nothing before the rule could act does not count as acted on."""
        self._pending -= 1
        self.schedule.fired -= not acted

    @property
    def spent(self) -> bool:
        """As its schedule."""
        return not self._pending and self.schedule.spent

    def random(self, number: int) -> random.Random:
        """The same in every run."""
        return self.rule.random(number)

    def told(self) -> RuleStatus:
        """What has become of it."""
        return RuleStatus(
            id=self.id,
            rule=self.rule,
            added=self.added,
            matched=self.schedule.matched,
            fired=self.schedule.fired,
            stalled=self.waiting,
            done=self.spent,
        )

    def __str__(self) -> str:
        return str(self.rule)


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """A rule of a plan, at one moment."""

    id: int
    """Counted from 1, and never given again."""
    rule: Rule
    added: datetime
    matched: int = 0
    """How many calls it has counted. It stops counting when it is done."""
    fired: int = 0
    """On how many of them it acted."""
    stalled: int = 0
    """How many threads it holds up now, by a stall or a delay."""
    done: bool = False
    """Whether it will never act again: its calls, or its times, are over."""

    @property
    def text(self) -> str:
        """The rule as a line."""
        return str(self.rule)

    def told(self) -> dict[str, object]:
        """As `FaultPlan.stats` shows it."""
        return {
            "id": self.id,
            "text": self.text,
            "added": self.added.isoformat(timespec="microseconds"),
            "matched": self.matched,
            "fired": self.fired,
            "stalled": self.stalled,
            "done": self.done,
        }


@dataclass(slots=True, eq=False)
class Hit:
    """A rule that acts on a call."""

    rule: ArmedRule
    number: int
    """Which of the rule's calls it is."""
    acted: bool = False
    """Whether something came of it."""
    settled: bool = False
    """Whether that is certain."""

    def random(self) -> random.Random:
        """What chooses bits and bytes."""
        return self.rule.random(self.number)
