"""A rule: operations x targets x when x what."""

from __future__ import annotations

import errno
import fnmatch
import random
import re
from dataclasses import dataclass

from avccfs.format.filename import Kind
from avccfs.vfs.base import split
from avccfs.vfs.fault.effects import Fail, What
from avccfs.vfs.fault.ops import (
    ALL_KINDS,
    KIND_WORDS,
    OP_WORDS,
    RULE_OPS,
    Call,
    Op,
    Pair,
    kind_of_path,
)
from avccfs.vfs.fault.triggers import EVERY_CALL, When

_BARE = re.compile(r"[A-Za-z0-9_.*?\[\]!/+~^@-]+", re.ASCII)
_UNMISTAKABLE = re.compile(r"[*?\[.0-9A-Z/-]")
NO_KIND = Kind(0)


@dataclass(frozen=True, slots=True)
class Targets:
    """Files: by kind, by name, or either.

    A pattern (`*`, `?`, `[abc]`; upper and lower case differ) goes by the last name of a path; one
    with a `/` in it by the whole path.
    """

    kinds: Kind = NO_KIND
    patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.kinds and not self.patterns:
            raise ValueError("a rule that is about no file at all")
        for pattern in self.patterns:
            if not pattern or not pattern.isprintable():
                raise ValueError(f"{pattern!r} is no pattern; use ? for what cannot be typed")
        # One way to say a thing: what is equal has equal text.
        everything = self.kinds == ALL_KINDS or "*" in self.patterns
        object.__setattr__(self, "kinds", ALL_KINDS if everything else self.kinds)
        patterns = () if everything else tuple(dict.fromkeys(self.patterns))
        object.__setattr__(self, "patterns", patterns)

    @property
    def foreign(self) -> bool:
        """Whether a folder, or what is no database file, may be one of them."""
        return bool(self.kinds & Kind.FOREIGN or self.patterns)

    def matches(self, call: Call) -> bool:
        """Whether a call is about one of them. A rename is about its old and its new name."""
        if call.kind in self.kinds:
            return True
        if call.other is not None and kind_of_path(call.other) in self.kinds:
            return True
        return any(
            fnmatch.fnmatchcase(path if "/" in pattern else split(path)[1], pattern)
            for pattern in self.patterns
            for path in (call.path, call.other)
            if path is not None
        )

    def __str__(self) -> str:
        if self.kinds == ALL_KINDS:
            return ""
        kinds = [word for word, kind in KIND_WORDS.items() if kind in self.kinds]
        return "|".join(kinds + [_pattern_text(pattern) for pattern in self.patterns])


EVERY_FILE = Targets(ALL_KINDS)


@dataclass(frozen=True, slots=True)
class Rule:
    """What goes wrong, where and when. `str` is the line that `parse_rule` reads back."""

    ops: Op
    """Of the ten in `RULE_OPS`."""
    what: What
    targets: Targets = EVERY_FILE
    when: When = EVERY_CALL

    def __post_init__(self) -> None:
        if not self.ops or self.ops not in RULE_OPS:
            raise ValueError(f"a rule is about {', '.join(OP_WORDS)}; not about {self.ops}")
        if self.ops not in self.what.fits:
            raise ValueError(f"`{self.what}` fits {ops_text(self.what.fits)} only")
        if self.ops is Op.SYNC_DIR and not self.targets.foreign:
            raise ValueError(f"sync-dir is about folders, never about {self.targets}")
        what = self.what
        if isinstance(what, Fail) and what.error not in errno.errorcode:
            raise ValueError(f"a rule fails with an errno, not with {what.error!r}")

    def pairs(self) -> list[Pair]:
        """Every operation and kind of which a call may match."""
        found = []
        for op in self.ops:
            any_kind = op is Op.RENAME or self.targets.patterns
            found += [(op, kind) for kind in (ALL_KINDS if any_kind else self.targets.kinds)]
        return found

    def matches(self, call: Call) -> bool:
        """Whether a call is one that this rule counts."""
        return call.op in self.ops and self.targets.matches(call)

    def random(self, number: int) -> random.Random:
        """What chooses bits and bytes for its call of that number, the same in every run."""
        return random.Random(f"{self.when.seed or 0}:{self.name}:{number}")

    @property
    def name(self) -> str:
        """Operations and targets, without what and when."""
        return f"{ops_text(self.ops)} {self.targets}".rstrip()

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, str(self.when)))) + f": {self.what}"


def ops_text(ops: Op) -> str:
    """A mask of operations as a rule writes it."""
    if ops == RULE_OPS:
        return "any"
    return "|".join(word for word, op in OP_WORDS.items() if op in ops)


def is_bare(pattern: str) -> bool:
    """Whether a pattern can do without quotes: it cannot be taken for anything else in a rule."""
    return (
        _BARE.fullmatch(pattern) is not None
        and _UNMISTAKABLE.search(pattern) is not None
        and not pattern.isdecimal()
        and not hasattr(errno, pattern)
    )


def _pattern_text(pattern: str) -> str:
    return pattern if is_bare(pattern) else "'" + pattern.replace("'", "''") + "'"
