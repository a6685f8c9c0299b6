"""Fault plans as TOML files.

seed = 7                          # of the rules below that give none

[[fault]]
op = ["sync", "write"]            # or "sync|write"
on = ["journal", "*.tmp"]         # or "journal|*.tmp"; every file without it
nth = 3                           # or "3-", "3-5"
every = 10
after = "30s"
probability = 0.05
seed = 8
times = 2
what = "torn prefix 100"

[[fault]]
rule = "sync journal #3: EIO"     # the same as a line
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Never, TypeVar

from avccfs.errors import UsageError
from avccfs.vfs.fault.effects import CorruptBit, CorruptBlock
from avccfs.vfs.fault.lines import FaultSyntaxError
from avccfs.vfs.fault.rule import EVERY_FILE, Rule
from avccfs.vfs.fault.text import (
    parse_ops,
    parse_range,
    parse_rule,
    parse_targets,
    parse_time,
    parse_what,
)
from avccfs.vfs.fault.triggers import When

T = TypeVar("T")

_EXAMPLE = '[[fault]]\nop = "sync"\non = "journal"\nnth = 3\nwhat = "EIO"'
_WHEN = ("nth", "every", "after", "probability", "seed", "times")


def load_toml(text: str, name: str) -> list[Rule]:
    """The rules of a plan; `name` is the file's, for errors. Raises `UsageError`."""
    try:
        plan = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: no TOML: {error}") from None
    file = _Table(plan, name, ("seed", "fault"))
    seed = file.integer("seed")
    tables = plan.get("fault", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{name}: fault: expected tables, such as\n{_EXAMPLE}")
    rules = [_rule(table, f"{name}: fault {n}") for n, table in enumerate(tables, start=1)]
    return rules if seed is None else [_seeded(rule, seed) for rule in rules]


def _rule(content: Mapping[str, object], where: str) -> Rule:
    if "rule" in content:
        table = _Table(content, where, ("rule",))
        return table.parsed("rule", parse_rule)
    table = _Table(content, where, ("op", "on", *_WHEN, "what"))
    ops = table.parsed("op", parse_ops)
    targets = table.parsed("on", parse_targets) if "on" in content else EVERY_FILE
    what = table.parsed("what", parse_what)
    try:
        return Rule(ops, what, targets, _when(table))
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def _when(table: _Table) -> When:
    first, last = table.parsed("nth", parse_range) if "nth" in table.content else (1, None)
    return When(
        first=first,
        last=last,
        every=table.integer("every", least=1) or 1,
        after=table.parsed("after", parse_time) if "after" in table.content else 0,
        chance=table.chance("probability"),
        seed=table.integer("seed"),
        times=table.integer("times", least=1),
    )


def _seeded(rule: Rule, seed: int) -> Rule:
    """The rule with this seed, if it has none and uses one."""
    chancy = rule.when.chance is not None or isinstance(rule.what, CorruptBit | CorruptBlock)
    if rule.when.seed is not None or not chancy:
        return rule
    return dataclasses.replace(rule, when=dataclasses.replace(rule.when, seed=seed))


class _Table:
    """A table of the file: values that are what they should be, or an error that names them."""

    def __init__(self, content: Mapping[str, object], where: str, known: Iterable[str]) -> None:
        self.content = content
        self._where = where
        known = tuple(known)
        for key in content:
            if key not in known:
                raise UsageError(f"{where}: {key}: no such key here; known: {', '.join(known)}")

    def parsed(self, key: str, parse: Callable[[str], T]) -> T:
        """A value that is written as in a line; a list is one joined by `|`."""
        value = self.content.get(key)
        if value is None:
            raise UsageError(f"{self._where}: {key} is missing; for example\n{_EXAMPLE}")
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            value = "|".join(value)
        if isinstance(value, bool) or not isinstance(value, str | int):
            self._refuse(key, "text")
        try:
            return parse(str(value))
        except FaultSyntaxError as error:
            raise UsageError(f"{self._where}: {key}: {error}") from None

    def integer(self, key: str, least: int = 0) -> int | None:
        """A number that is at least that; None where there is none."""
        value = self.content.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self._refuse(key, f"a whole number, {least} or more")
        return value

    def chance(self, key: str) -> float | None:
        """A probability; None where there is none."""
        value = self.content.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            self._refuse(key, "a number above 0 and up to 1")
        return float(value)

    def _refuse(self, key: str, expected: str) -> Never:
        found = self.content[key]
        raise UsageError(f"{self._where}: {key}: expected {expected}, found {found!r}")
