"""Which calls a rule acts on: when, and on which files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from avccfs.format.filename import CURRENT_BAK, LOCK, LOG
from avccfs.fuse.selftest.bench import (
    SUCCESS,
    Bench,
    Check,
    Topic,
    UnlikeError,
    check,
    check_outcome,
    outcome_of,
)
from avccfs.vfs.fault import KIND_WORDS

_CALLS = 12
_CHANCES = 64
_NAMES = {
    "manifest": "MANIFEST-000001",
    "journal": "000002.log",
    "table": "000003.ldb",
    "temp": "000004.tmp",
    "meta": CURRENT_BAK,
    "foreign": "notes",
    "log": LOG,
    "lock": LOCK,
}
"""A file of each kind."""


def _acted(bench: Bench, rule: str, calls: int) -> list[int]:
    """On which of so many writes a rule acts that is added now, and taken away again."""
    fd = bench.open(bench.make())
    bench.clear()
    bench.add(rule)
    acted = [
        number
        for number in range(1, calls + 1)
        if outcome_of(lambda: os.pwrite(fd, b"x", 0)) == "EIO"
    ]
    bench.check_fired(len(acted))
    return acted


def _acts_on(when: str, expected: list[int]) -> Check:
    def run(bench: Bench, rule: str) -> str:
        acted = _acted(bench, rule, _CALLS)
        check(acted == expected, f"that it acts on {_listed(expected)}", _listed(acted))
        return f"of {_CALLS} writes, {_listed(acted)} failed"

    return Check(Topic.WHEN, f"write journal {when}: EIO", run)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _acts_by_chance(bench: Bench, rule: str) -> str:
    first, again = _acted(bench, rule, _CHANCES), _acted(bench, rule, _CHANCES)
    check(first == again, "the same writes twice", f"{_listed(first)}; then {_listed(again)}")
    other = _acted(bench, rule.replace("seed=7", "seed=8"), _CHANCES)
    check(other != first, "other writes with another seed", "the same")
    check(0 < len(first) < _CHANCES, "some writes, and not all", f"{len(first)} of {_CHANCES}")
    return f"{len(first)} of {_CHANCES} writes failed, twice the same; others with seed=8"


def _acts_later(bench: Bench, rule: str) -> str:
    # Who is slow to write may be late for the time in which nothing fails yet: give it longer.
    for micros in (50_000, 500_000, 5_000_000):
        seconds = micros / 1e6
        fd = bench.open(bench.make())
        bench.clear()
        before = time.monotonic()
        bench.add(rule.replace("50ms", f"{micros // 1000}ms"))
        added = time.monotonic()
        seen = outcome_of(lambda: os.pwrite(fd, b"x", 0))  # noqa: B023 - called at once
        if time.monotonic() - before < seconds:
            check(seen == SUCCESS, "success until then", seen)
            time.sleep(max(0.0, added + seconds + 0.001 - time.monotonic()))
            check_outcome(lambda: os.pwrite(fd, b"x", 0), "EIO", "a write after that")  # noqa: B023
            bench.check_fired(1)
            return "the first write succeeded, one after that time failed"
    raise UnlikeError("a write within five seconds", "none: this machine is too busy")


def _goes_when_removed(bench: Bench, rule: str) -> str:
    fd = bench.open(bench.make())
    bench.add(rule)
    check_outcome(lambda: os.pwrite(fd, b"x", 0), "EIO", "a write")
    bench.clear()
    check_outcome(lambda: os.pwrite(fd, b"x", 0), SUCCESS, "a write without the rule")
    bench.add(rule)
    check_outcome(lambda: os.pwrite(fd, b"x", 0), "EIO", "a write with the rule again")
    return "failed at once, not when cleared, and again when added again"


def _is_about(targets: str, hit: Callable[[str], bool]) -> Check:
    """Opening those files fails of which `hit` is true, and no others."""

    def run(bench: Bench, rule: str) -> str:
        names = [*_NAMES.values(), "lost/000002.log", "a note"]
        for name in names:
            if name != LOCK:
                bench.make(name)
        bench.add(rule)
        failed = [name for name in names if outcome_of(lambda: _open(bench, name)) == "EIO"]  # noqa: B023
        expected = [name for name in names if hit(name)]
        check(failed == expected, f"of {', '.join(expected)} only", ", ".join(failed) or "none")
        bench.check_fired(len(expected))
        return f"of {len(names)} files, {', '.join(failed)} could not be opened"

    return Check(Topic.FILES, f"open {targets}: EIO", run)


def _open(bench: Bench, name: str) -> None:
    os.close(os.open(bench.path(name), os.O_RDONLY))


def _knows_both_names(bench: Bench, rule: str) -> str:
    old, table, other = bench.make(bench.name(".tmp")), bench.name(".ldb"), bench.name(".tmp")
    bench.add(rule)
    at = bench.path
    check_outcome(lambda: os.rename(at(old), at(table)), "EIO", f"rename of {old} to {table}")
    check_outcome(lambda: os.rename(at(old), at(other)), SUCCESS, f"rename of {old} to {other}")
    bench.clear()
    os.rename(at(other), at(table))
    bench.add(rule)
    check_outcome(lambda: os.rename(at(table), at(other)), "EIO", f"rename of {table} to {other}")
    return "a rename to a table's name, and from one, failed; another did not"


def _is_of_kind(kind: str) -> Callable[[str], bool]:
    # What lies in a folder, or has no name that an engine would give, is foreign.
    others = {"lost/000002.log", "a note"} if kind == "foreign" else set()
    return lambda name: name == _NAMES[kind] or name in others


CHECKS = (
    _acts_on("#3", [3]),
    _acts_on("#3-5", [3, 4, 5]),
    _acts_on("#10-", [10, 11, 12]),
    _acts_on("every 5", [5, 10]),
    _acts_on("times 2", [1, 2]),
    _acts_on("#4- every 2 times 3", [4, 6, 8]),
    _acts_on("100%", [*range(1, _CALLS + 1)]),
    Check(Topic.WHEN, "write journal 30% seed=7: EIO", _acts_by_chance),
    Check(Topic.WHEN, "write journal after 50ms: EIO", _acts_later),
    Check(Topic.WHEN, "write journal: EIO", _goes_when_removed),
    *(_is_about(kind, _is_of_kind(kind)) for kind in KIND_WORDS),
    _is_about("*.log", lambda name: name.endswith(".log")),
    _is_about("'a note'|00000[3-4].*", lambda name: name in ("000003.ldb", "000004.tmp", "a note")),
    _is_about("lost/*", lambda name: name == "lost/000002.log"),
    Check(Topic.FILES, "rename table: EIO", _knows_both_names),
)
