"""Ways of exactly n steps through bytes whose records do not say which form they have.

A *place* is an offset at which a record may begin. A record has form 0 or form 1, and each form it
could have leads on to another, greater offset. A *path* leads from the first place to the end; what
is asked is how many paths have exactly n steps, which come first, and what they share.

Their number can grow exponentially with the length, so no path is followed on its own. A place is
looked at once, whatever leads to it. Places from which the end cannot be reached fall away; what is
left is, as a rule, one line. Only at a *fork*, where both forms are left, the numbers of steps to
the end are kept, each with the number of ways to do it in so many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

MAX_WAYS: Final = 1_000_000
"""Ways are counted up to here; this number also stands for more."""
MAX_STATES: Final = 1 << 18
"""Numbers of steps that are kept for all forks together."""

Step = tuple[int, int]
"""A place, and the form of the record there."""
Path = list[Step]
Forward = Callable[[int], tuple[int, int]]
"""The offset behind a record by form, 0 where it cannot have that form."""


class TooManyPathsError(Exception):
    """More than `MAX_STATES` would have to be kept."""


class Paths:
    """All paths from `start` to `end`."""

    def __init__(self, forward: Forward, start: int, end: int) -> None:
        self._start = start
        self._end = end
        self._next: dict[int, tuple[int, int]] = {}
        self._reached_from: dict[int, Step] = {}
        self._ways: dict[int, dict[int, int]] = {end: {0: 1}}
        """By fork: ways to the end by number of steps."""
        self._straight: dict[int, tuple[int, int]] = {}
        """By place on a straight line: the fork, or the end, that it leads to; steps until there.
        """
        self.furthest = self._explore(forward)
        """The greatest place that can be reached; `end` if there is any path."""

    def to(self, place: int) -> Path:
        """One path that leads to a place that can be reached."""
        path: Path = []
        while place != self._start:
            step = self._reached_from[place]
            path.append(step)
            place = step[0]
        path.reverse()
        return path

    def plain(self) -> Path | None:
        """The path of form 0 alone, if it reaches the end."""
        path: Path = []
        place = self._start
        while place != self._end:
            path.append((place, 0))
            place = self._next.get(place, (0, 0))[0]
            if not place:
                return None
        return path

    def solve(self, most: int) -> None:
        """Prepare `count`, `first` and `shared` for up to `most` steps.

        Raises `TooManyPathsError` if that takes too much.
        """
        alive = {self._end}
        straight, ways = self._straight, self._ways
        states = 0
        for place in sorted(self._next, reverse=True):
            ends = [behind for behind in self._next[place] if behind in alive]
            if not ends:
                continue
            alive.add(place)
            leads_to = [
                (behind, 1) if behind in ways else (straight[behind][0], straight[behind][1] + 1)
                for behind in ends
            ]
            if len(leads_to) == 1:
                straight[place] = leads_to[0]
                continue
            here: dict[int, int] = {}
            for fork, steps in leads_to:
                for more, number in ways[fork].items():
                    if steps + more <= most:
                        known = here.get(steps + more, 0)
                        here[steps + more] = min(MAX_WAYS, known + number)
            states += len(here)
            if states > MAX_STATES:
                raise TooManyPathsError
            ways[place] = here

    def count(self, steps: int) -> int:
        """Number of paths of exactly so many steps, up to `MAX_WAYS`."""
        return self._ways_from(self._start, steps)

    def first(self, steps: int, limit: int) -> Iterator[Path]:
        """The first `limit` of them; where two part, the one with form 0 comes first."""
        open_choices: list[tuple[int, Step, int]] = []
        path: Path = []
        place = self._start
        while True:
            while place != self._end:
                choices = self._choices(place, steps - len(path))
                for step, behind in choices[1:]:
                    open_choices.append((len(path), step, behind))
                step, place = choices[0]
                path.append(step)
            yield path.copy()
            limit -= 1
            if not limit or not open_choices:
                return
            depth, step, place = open_choices.pop()
            path[depth:] = [step]

    def shared(self, steps: int) -> tuple[Path, int]:
        """The steps with which all of them begin, and the place behind those steps."""
        path: Path = []
        place = self._start
        while place != self._end:
            choices = self._choices(place, steps - len(path))
            if len(choices) > 1:
                break
            step, place = choices[0]
            path.append(step)
        return path, place

    def _explore(self, forward: Forward) -> int:
        """Look at every place that can be reached, in ascending order."""
        marks = bytearray(self._end + 1)
        place = self._start
        furthest = place
        while 0 <= place < self._end:
            furthest = place
            following = forward(place)
            if following != (0, 0):
                self._next[place] = following
                for form, behind in enumerate(following):
                    if behind and not marks[behind]:
                        marks[behind] = 1
                        self._reached_from[behind] = (place, form)
            place = marks.find(1, place + 1)
        return self._end if place == self._end else furthest

    def _choices(self, place: int, steps: int) -> list[tuple[Step, int]]:
        """The steps from a place that leave a way to the end in exactly so many."""
        return [
            ((place, form), behind)
            for form, behind in enumerate(self._next[place])
            if behind and self._ways_from(behind, steps - 1)
        ]

    def _ways_from(self, place: int, steps: int) -> int:
        if place not in self._ways:
            if place not in self._straight:
                return 0
            place, done = self._straight[place]
            steps -= done
        return self._ways[place].get(steps, 0)
