"""Talking to a fault plan in lines: what `.avccfs/faults` and `avccfs fault` have in common.

A line is a rule, which is added, or one of

    clear           disarm everything
    remove N        disarm rule N
    release [N]     let everybody go whom a stall (that of rule N) holds up; its rule is done
    none            nothing
"""

from __future__ import annotations

from collections.abc import Iterator

from avccfs.errors import UsageError
from avccfs.vfs.fault import OP_WORDS, FaultPlan

_REMARK = "    # rule "


def tell_plan(plan: FaultPlan, line: str) -> str:
    """Do what one line says; returns what was done, for people. Raises `UsageError`.

    Empty lines and those that begin with `#` are skipped, and so is what `rule_lines` adds to a rule.
    """
    line = line.partition(_REMARK)[0]
    words = line.split()
    match words:
        case [] | ["none"]:
            return "nothing to do"
        case [word, *_] if word.startswith("#"):
            return "nothing to do"
        case ["clear"]:
            count = len(plan.rules())
            plan.clear()
            return f"rules disarmed: {count}"
        case ["remove", number]:
            plan.remove(_number(number, line))
            return f"rule {number} disarmed"
        case ["release"]:
            return f"calls let go: {plan.release_rules(None)}"
        case ["release", number]:
            return f"calls let go: {plan.release_rules(_number(number, line))}"
    rule = plan.add(line)
    return f"rule {rule.id}: {rule.text}"


def rule_lines(plan: FaultPlan) -> Iterator[str]:
    """The rules, one a line, each a line that would add it, and behind it what it has done."""
    for rule in plan.rules():
        held = f", {rule.stalled} stalled now" if rule.stalled else ""
        yield f"{rule.text}{_REMARK}{rule.id}: fired on {rule.fired} of {rule.matched} calls{held}"


def told_stats(plan: FaultPlan) -> dict[str, object]:
    """`FaultPlan.stats`, of the operations that a rule can name.

    Those that only look are left out: to look at these numbers would change them.
    """
    stats = plan.stats()
    operations = stats["operations"]
    assert isinstance(operations, dict)
    return {**stats, "operations": {op: of for op, of in operations.items() if op in OP_WORDS}}


def _number(word: str, line: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 10):
        raise UsageError(f"{line!r}: {word!r} is no rule's number; `cat faults` shows them")
    return int(word)
