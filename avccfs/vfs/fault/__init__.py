"""A disk that fails on demand: any directory under a `FaultPlan` (SPEC section 3, "Fault storage").

    plan = FaultPlan()
    directory = FaultDirectory(LocalDirectory(path), plan)
    plan.add("sync journal #3: EIO")
    plan.fail(Op.WRITE | Op.SYNC, Kind.MANIFEST, OneIn(10, seed=7), error=errno.ENOSPC)

ops         operations, kinds, and the words for them
effects     what goes wrong: errors, waits, and the bytes of torn and corrupted ones
triggers    when
rule        both, with files, as a value; `text` is its line (read by `lines`), `toml` a file of them
armed       a rule at work
plan        the rules, who waits for them, and the counters (`tallies`)
ticket      one call, from its announcement to its count
file, directory     carry calls out under a plan
unsynced    what `drop` takes back
"""

from __future__ import annotations

from avccfs.vfs.fault.armed import RuleStatus
from avccfs.vfs.fault.directory import FaultDirectory
from avccfs.vfs.fault.effects import (
    Amount,
    CorruptBit,
    CorruptBlock,
    Delay,
    Drop,
    Fail,
    Short,
    Stall,
    TornAt,
    TornPrefix,
    TornSectors,
    What,
)
from avccfs.vfs.fault.file import FaultFile
from avccfs.vfs.fault.lines import FaultSyntaxError
from avccfs.vfs.fault.ops import (
    ALL_KINDS,
    ALL_OPS,
    KIND_WORDS,
    OP_WORDS,
    RULE_OPS,
    Call,
    Op,
    Pair,
    kind_of_path,
)
from avccfs.vfs.fault.plan import Armed, FaultPlan
from avccfs.vfs.fault.rule import EVERY_FILE, Rule, Targets
from avccfs.vfs.fault.text import parse_rule, parse_rules
from avccfs.vfs.fault.toml import load_toml
from avccfs.vfs.fault.triggers import EVERY_CALL, Always, Once, OneIn, Trigger, When

__all__ = [
    "ALL_KINDS",
    "ALL_OPS",
    "EVERY_CALL",
    "EVERY_FILE",
    "KIND_WORDS",
    "OP_WORDS",
    "RULE_OPS",
    "Always",
    "Amount",
    "Armed",
    "Call",
    "CorruptBit",
    "CorruptBlock",
    "Delay",
    "Drop",
    "Fail",
    "FaultDirectory",
    "FaultFile",
    "FaultPlan",
    "FaultSyntaxError",
    "Once",
    "OneIn",
    "Op",
    "Pair",
    "Rule",
    "RuleStatus",
    "Short",
    "Stall",
    "Targets",
    "TornAt",
    "TornPrefix",
    "TornSectors",
    "Trigger",
    "What",
    "When",
    "kind_of_path",
    "load_toml",
    "parse_rule",
    "parse_rules",
]
