"""Does the disk misbehave as it was told to? Checks of every kind of fault, on a mount of their own.

Each check adds rules to the mount, makes plain system calls on it, and compares two things with what
the rules promise: what the calls returned, and what lies in the directory behind the mount.

bench    where a check works
deeds    the ten operations, each as one system call
before   faults that act before the operation: errno, delay, stall
content  faults of its bytes: short, torn, corrupt, drop
choice   which calls a rule acts on: when, and on which files
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from avccfs.fuse.selftest import before, choice, content
from avccfs.fuse.selftest.bench import Bench, Check, Outcome, Questions, Topic

__all__ = ["CHECKS", "Bench", "Check", "Outcome", "Questions", "Topic", "run"]

CHECKS: tuple[Check, ...] = (*before.CHECKS, *content.CHECKS, *choice.CHECKS)


def run(bench: Bench, topics: Iterable[Topic] = ()) -> Iterator[Outcome]:
    """Carry out the checks of these topics (none: of all), one after the other."""
    wanted = frozenset(topics) or frozenset(Topic)
    for check in CHECKS:
        if check.topic in wanted:
            yield bench.carry_out(check)
