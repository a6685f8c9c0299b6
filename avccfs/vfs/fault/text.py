"""Rules as lines: `OPS [TARGETS] [WHEN...]: WHAT`.

OPS      open create read write sync sync-dir rename remove truncate close, joined by | or ,
         `any` is all ten
TARGETS  manifest journal table temp meta foreign log lock, and patterns of names: quoted ('it''s'
         is it's), or bare with a capital, a digit or one of * ? [ . - / in them; joined alike.
         `*`, or nothing, is every file. A rename goes by either name, sync-dir by the folder's,
         whose kind is foreign.
WHEN     all that is given must hold; calls that match are counted from when the rule was added
         #3 #3- #3-5      the third call, from the third on, the third to the fifth
         every 10         the tenth, the twentieth ...
         after 30s        from that long after the rule was added (ms, s, m, h)
         5%  p=0.05       by chance; seed=7 decides which
         times 2          at most so often
WHAT     EIO, ENOSPC ...              fail with that errno, and do nothing
         delay 200ms                  wait, then do it
         stall                        wait until released
         short 100, short 50%         (read, write) go through with fewer bytes
         torn prefix 100 [ERRNO]      (write) the first bytes, or per cent, reach the file
         torn at 100,200 keep 1,3     (write) cut there, these parts reach the file
         torn sectors 0,2-3           (write) these sectors of 512 bytes reach it
         corrupt bit [N]              (read, write) silently turn a bit over
         corrupt block [N] [SIZE]     (read, write) silently change a block; also `size=SIZE`
         drop [ERRNO]                 (sync) fail, and lose what was not synced
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import TypeVar

from avccfs.format.filename import Kind
from avccfs.vfs.fault.effects import (
    SECTOR,
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
from avccfs.vfs.fault.lines import Reader, Sort, Token, errno_of
from avccfs.vfs.fault.ops import KIND_WORDS, OP_WORDS, RULE_OPS, Op
from avccfs.vfs.fault.rule import EVERY_FILE, Rule, Targets, is_bare, ops_text
from avccfs.vfs.fault.triggers import When

T = TypeVar("T")

NONE = "none"
"""A line that stands for no rule."""

_OPS = f"an operation ({', '.join(OP_WORDS)}, any)"
_KINDS = f"a kind of file ({', '.join(KIND_WORDS)}) or a pattern of names such as '*.log'"
_WHEN = "#3, every 10, after 30s, 5%, seed=7, times 2, or a colon and what is to happen"
_WHAT = "an errno such as EIO, or short, delay, stall, torn, corrupt, drop"
_EXAMPLES = {
    "short": "write journal: short 50%",
    "delay": "sync: delay 200ms",
    "stall": "sync manifest: stall",
    "torn": "write journal: torn prefix 100",
    "corrupt": "read table: corrupt bit",
    "drop": "sync journal #3: drop",
}
_TORN = "prefix 100, at 100,200 keep 1,3, or sectors 0,2-3"


def parse_rule(line: str) -> Rule:
    """The rule a line says. Raises `FaultSyntaxError`."""
    return _whole(line, _Line.rule)


def parse_rules(lines: Iterable[str]) -> list[Rule]:
    """The rules that lines say; blank ones, and `none`, say none. Raises `FaultSyntaxError`."""
    return [parse_rule(line) for line in lines if line.strip() not in ("", NONE)]


def parse_ops(text: str) -> Op:
    """The operations of a rule alone."""
    return _whole(text, _Line.ops)


def parse_targets(text: str) -> Targets:
    """The targets of a rule alone."""
    return _whole(text, _Line.targets)


def parse_what(text: str) -> What:
    """What a rule does, alone."""
    return _whole(text, _Line.what)


def parse_range(text: str) -> tuple[int, int | None]:
    """The calls that `3`, `3-` and `3-5` mean."""
    return _whole(text, lambda line: line.range(line.word("a call, such as 3, 3- or 3-5")))


def parse_time(text: str) -> int:
    """A length of time, such as `200ms`, in microseconds."""
    return _whole(text, _Line.time)


def _whole(text: str, parse: Callable[[_Line], T]) -> T:
    line = _Line(text)
    found = parse(line)
    line.end()
    return found


def _says_when(token: Token) -> bool:
    return token.is_word and bool(
        token.text in ("every", "after", "times")
        or token.text.startswith(("#", "p=", "seed="))
        or token.text.endswith("%")
    )


def _says_what(word: str) -> bool:
    return word in _EXAMPLES or errno_of(word) is not None


class _Line(Reader):
    """A line that is read as a rule, or as a part of one."""

    def rule(self) -> Rule:
        """The whole line."""
        if len(self._tokens) == 2 and self.next.text == NONE:
            self.fail("a rule: `none` stands for none and is not one")
        ops = self.ops()
        targets = EVERY_FILE
        token = self.next
        if token.sort in (Sort.WORD, Sort.QUOTED) and not _says_when(token):
            targets = self.targets()
        if ops is Op.SYNC_DIR and not targets.foreign:
            self.fail("no kind but foreign: sync-dir is about folders", token, "sync-dir: EIO")
        when = self.when()
        self.take()
        token = self.next
        what = self.what()
        if ops not in what.fits:
            unfit = ops_text(ops & ~what.fits).replace("|", ", ")
            fits = ops_text(what.fits)
            expected = f"what can happen to {unfit}: this is for {fits.replace('|', ' and ')}"
            self.fail(expected, token, f"{fits} journal: {what}")
        return Rule(ops, what, targets, when)

    def ops(self) -> Op:
        """`sync|write`."""
        found = Op(0)
        while True:
            token = self.next
            word = self.word(_OPS)
            if word not in OP_WORDS and word != "any":
                self.fail(_OPS, token, close=[*OP_WORDS, "any"])
            found |= OP_WORDS.get(word, RULE_OPS)
            if not self.joined():
                return found

    def targets(self) -> Targets:
        """`journal|'*.tmp'`."""
        kinds, patterns = Kind(0), []
        while True:
            token = self.take()
            if token.is_word and token.text in KIND_WORDS:
                kinds |= KIND_WORDS[token.text]
            elif self._is_pattern(token):
                patterns.append(token.text)
            else:
                self.fail(_KINDS, token, close=KIND_WORDS)
            if not self.joined():
                return Targets(kinds, tuple(patterns))

    def _is_pattern(self, token: Token) -> bool:
        if token.sort is Sort.QUOTED:
            return bool(token.text)
        if token.is_word and token.text.isdecimal():
            self.fail(f"a file, or '#{token.text}' for call number {token.text}", token)
        if token.is_word and _says_what(token.text):
            self.fail("a colon before what is to happen", token)
        return token.is_word and is_bare(token.text)

    def when(self) -> When:
        """`#3- 5% seed=7`, up to the colon."""
        said: dict[str, int | float] = {}
        while not self.next.is_mark(":"):
            token = self.next
            if not _says_when(token):
                if _says_what(token.text):
                    self.fail("a colon before what is to happen")
                late = token.text in KIND_WORDS or token.sort is Sort.QUOTED
                self.fail(_WHEN + (" (files come right behind the operation)" if late else ""))
            new = self._condition(self.word(_WHEN), token)
            if not said.keys().isdisjoint(new):
                self.fail("each condition once", token)
            said |= {name: value for name, value in new.items() if value is not None}
        return When(**said)  # type: ignore[arg-type]  # `_condition` names the fields

    def _condition(self, word: str, token: Token) -> dict[str, int | float | None]:
        if word == "every":
            return {"every": self.number("how many calls, such as every 10", 1)}
        if word == "times":
            return {"times": self.number("how often, such as times 2", 1)}
        if word == "after":
            return {"after": self.time()}
        if word.startswith("#"):
            first, last = self.range(word[1:], token)
            return {"first": first, "last": last}
        name, _, value = word.partition("=")
        if name == "seed":
            return {"seed": self.seed(value, token)}
        return {"chance": self.chance(value or word, token)}

    def what(self) -> What:
        """`torn prefix 100`, up to the end."""
        token = self.next
        word = self.word(_WHAT)
        self.example = _EXAMPLES.get(word, self.example)
        match word:
            case "stall":
                return Stall()
            case "delay":
                return Delay(self.time())
            case "short":
                return Short(self.amount())
            case "drop":
                return Drop(self.error())
            case "torn":
                return self._torn()
            case "corrupt":
                return self._corrupt()
        error = errno_of(word)
        if error is None:
            self.fail(_WHAT, token, close=[*_EXAMPLES, *errno.errorcode.values()])
        return Fail(error)

    def _torn(self) -> What:
        token = self.next
        match self.word(_TORN):
            case "prefix":
                return TornPrefix(self.amount(), self.error())
            case "at":
                cuts = self.numbers("offsets in the write, above 0 and ascending", least=1)
                keep_token = self.next
                if self.word("`keep`, and the parts that reach the file") != "keep":
                    self.fail("`keep`, and the parts that reach the file", keep_token)
                parts = f"parts to keep, of 1 to {len(cuts) + 1}, ascending"
                keep = self.numbers(parts, least=1, most=len(cuts) + 1)
                return TornAt(cuts, keep, self.error())
            case "sectors":
                return TornSectors(self.ranges(), self.error())
        return self.fail(_TORN, token)

    def _corrupt(self) -> What:
        token = self.next
        match self.word("bit or block"):
            case "bit":
                bit = self.number("a bit's number") if self.next.is_word else None
                return CorruptBit(bit)
            case "block":
                return self._block()
        return self.fail("bit or block", token)

    def _block(self) -> CorruptBlock:
        block, size = None, SECTOR
        if self.next.is_word and not self.next.text.startswith("size="):
            block = self.number("a block's number, counted from 0")
        if self.next.is_word:
            size = self.size()
        return CorruptBlock(block, size)
