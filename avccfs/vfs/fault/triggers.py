"""When a rule acts: per pair of operation and kind (`Trigger`), or by one counter (`When`)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import repeat
from typing import Protocol

from avccfs.vfs.fault.effects import MAX_DELAY_US, time_text
from avccfs.vfs.fault.ops import Pair


class Trigger(Protocol):
    """When the rules that `FaultPlan.fail` arms act, each for one pair."""

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


@dataclass(frozen=True, slots=True)
class When:
    """Which of the calls that a rule matches it acts on: those for which all of this holds.

    Calls are numbered from 1 on, counted from the moment the rule was added.
    """

    first: int = 1
    """Not before this call."""
    last: int | None = None
    """Not after this one."""
    every: int = 1
    """Calls whose number is a multiple of this."""
    after: int = 0
    """Not before so many microseconds have passed since the rule was added."""
    chance: float | None = None
    """With this probability, above 0 and up to 1; drawn for each call that is counted."""
    seed: int | None = None
    """Decides what `chance` draws, and where `corrupt` strikes. None is as good as 0."""
    times: int | None = None
    """At most so often."""

    def __post_init__(self) -> None:
        if self.first < 1 or (self.last is not None and self.last < self.first):
            raise ValueError(f"there are no calls from {self.first} to {self.last}")
        if self.every < 1 or (self.times is not None and self.times < 1):
            raise ValueError("every call, or once, is the least")
        if not 0 <= self.after <= MAX_DELAY_US:
            raise ValueError(f"{self.after} microseconds are too long to wait")
        if self.chance is not None and not 0 < self.chance <= 1:
            raise ValueError(f"{self.chance} is no probability that says anything")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"{self.seed} is no seed; give 0 or more")

    def __str__(self) -> str:
        words = []
        if self.last == self.first:
            words.append(f"#{self.first}")
        elif self.last is not None or self.first > 1:
            words.append(f"#{self.first}-{'' if self.last is None else self.last}")
        if self.every > 1:
            words.append(f"every {self.every}")
        if self.after:
            words.append(f"after {time_text(self.after)}")
        if self.chance is not None:
            words.append(_chance_text(self.chance))
        if self.seed is not None:
            words.append(f"seed={self.seed}")
        if self.times is not None:
            words.append(f"times {self.times}")
        return " ".join(words)


EVERY_CALL = When()


class Schedule:
    """`When` at work: the counter of one rule. Not safe between threads."""

    __slots__ = ("_chance", "_start", "fired", "matched", "when")

    def __init__(self, when: When, name: str, now: float) -> None:
        """`name` keeps rules of one seed from acting in step. `now` in seconds, as for `meet`."""
        self.when = when
        self.matched = 0
        """How many calls were met."""
        self.fired = 0
        """On how many of them the rule acts."""
        self._start = now
        self._chance = random.Random(f"{when.seed or 0}:{name}")

    def meet(self, now: float) -> int:
        """Count a call; returns its number if the rule is to act on it, else 0."""
        when = self.when
        self.matched += 1
        number = self.matched
        # Drawn in any case: the decision on a call does not depend on what else is asked of it.
        drawn = when.chance is None or self._chance.random() < when.chance
        if (
            not drawn
            or number < when.first
            or (when.last is not None and number > when.last)
            or number % when.every
            or (when.times is not None and self.fired >= when.times)
            or (when.after and (now - self._start) * 1e6 < when.after)
        ):
            return 0
        self.fired += 1
        return number

    @property
    def spent(self) -> bool:
        """Whether it will never act again."""
        when = self.when
        over = when.last is not None and self.matched >= when.last
        return over or (when.times is not None and self.fired >= when.times)


def _chance_text(chance: float) -> str:
    if chance < 0.0001:
        return f"p={chance!r}"
    percent = format(Decimal(repr(chance)) * 100, "f")
    return (percent.rstrip("0").rstrip(".") if "." in percent else percent) + "%"
