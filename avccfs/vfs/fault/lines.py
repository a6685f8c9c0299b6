"""Reading a line word by word, and saying where it stops making sense."""

from __future__ import annotations

import difflib
import enum
import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Never

from avccfs.errors import UsageError
from avccfs.vfs.fault.effects import Amount, Part, merged

EXAMPLE = "sync journal #3: EIO"

_TOKEN = re.compile(r"\s*(?:(?P<quoted>'(?:[^']|'')*')|(?P<mark>[|,:])|(?P<word>[^\s|,:']+))")
_RANGE = re.compile(r"(\d{1,18})(?:(-)(\d{0,18}))?", re.ASCII)
_TIME = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h)", re.ASCII)
_DECIMAL = re.compile(r"\d{1,9}(?:\.\d+)?(?:e-?\d{1,3})?", re.ASCII)
_DIGITS = re.compile(r"\d{1,18}", re.ASCII)
_PERCENT = re.compile(r"(\d{1,9}(?:\.\d+)?)%", re.ASCII)
_MICROS = {"ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6}


class FaultSyntaxError(UsageError):
    """A line that is no rule. `column` counts from 0; the message shows the place and an example."""

    def __init__(self, line: str, column: int, *, expected: str, found: str, example: str) -> None:
        super().__init__(
            f"no fault rule: at column {column + 1} expected {expected}; found {found}\n"
            f"    {line}\n"
            f"    {' ' * column}^\n"
            f"for example: {example}"
        )
        self.line = line
        self.column = column
        self.expected = expected
        self.found = found
        self.example = example


class Sort(enum.Enum):
    """What a token is; by the names of the groups of `_TOKEN`."""

    WORD = "word"
    MARK = "mark"
    """One of `|`, `,`, `:`."""
    QUOTED = "quoted"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """A word, mark or quoted text, and where it begins."""

    sort: Sort
    text: str
    """Without quotes."""
    column: int

    @property
    def is_word(self) -> bool:
        """Whether it is a word without quotes."""
        return self.sort is Sort.WORD

    def is_mark(self, marks: str) -> bool:
        """Whether it is one of these."""
        return self.sort is Sort.MARK and self.text in marks

    def __str__(self) -> str:
        return "the end of the line" if self.sort is Sort.END else f"'{self.text}'"


def errno_of(word: str) -> int | None:
    """The number of `EIO`; None for what is no errno's name."""
    found = getattr(errno, word, None) if word.startswith("E") else None
    return found if isinstance(found, int) else None


class Reader:
    """A line that is being read, one token after the other."""

    def __init__(self, text: str) -> None:
        # What cannot be printed would hide which column is meant.
        self._text = "".join(char if char.isprintable() else " " for char in text.rstrip())
        self._tokens: list[Token] = []
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                column = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                self._fail("a closing quote", column, self._text[column:], "sync 'it''s': EIO")
            sort = Sort(match.lastgroup)
            word = match[sort.value]
            word = word[1:-1].replace("''", "'") if sort is Sort.QUOTED else word
            self._tokens.append(Token(sort, word, match.start(sort.value)))
            at = match.end()
        self._tokens.append(Token(Sort.END, "", len(self._text)))
        self._at = 0
        self.example = EXAMPLE
        """A line such as this one should be, for errors."""

    @property
    def next(self) -> Token:
        """The token that comes; at the end, that it is the end."""
        return self._tokens[self._at]

    def take(self) -> Token:
        """Go on behind it."""
        token = self.next
        self._at += token.sort is not Sort.END
        return token

    def joined(self) -> bool:
        """Whether the list goes on: take a `|` or `,`."""
        return self.next.is_mark("|,") and bool(self.take())

    def end(self) -> None:
        """Nothing may follow."""
        if self.next.sort is not Sort.END:
            self.fail("nothing more")

    # What lines are made of

    def word(self, expected: str) -> str:
        """The next token, which must be a word."""
        if not self.next.is_word:
            self.fail(expected)
        return self.take().text

    def number(self, expected: str, least: int = 0, most: int = 10**18) -> int:
        """The next token, which must be a number."""
        token = self.next
        word = self.word(expected)
        if not _DIGITS.fullmatch(word) or not least <= int(word) <= most:
            self.fail(expected, token)
        return int(word)

    def range(self, word: str, token: Token | None = None) -> tuple[int, int | None]:
        """First and last of `3`, `3-` or `3-5`, counted from 1."""
        token = token or self._tokens[0]
        match = _RANGE.fullmatch(word)
        if match is None:
            self.fail("calls, such as #3, #3- or #3-5", token)
        first = int(match[1])
        last = first if match[2] is None else int(match[3]) if match[3] else None
        if first < 1 or (last is not None and last < first):
            self.fail("calls counted from 1, the earlier one first", token)
        return first, last

    def time(self) -> int:
        """A length of time, in microseconds."""
        expected = "a time, such as 200ms, 30s, 5m or 1h"
        token = self.next
        match = _TIME.fullmatch(self.word(expected))
        if match is None:
            self.fail(expected, token)
        micros = int(Decimal(match[1]) * _MICROS[match[2]])
        if not 0 < micros <= 8760 * _MICROS["h"]:
            self.fail("a time of 0.001ms to 8760h", token)
        return micros

    def amount(self) -> Amount:
        """`100` or `50%`."""
        expected = "how many bytes, or per cent, such as 100 or 50%"
        token = self.next
        word = self.word(expected)
        digits = word.removesuffix("%")
        percent = digits != word
        if not _DIGITS.fullmatch(digits) or (percent and int(digits) > 100):
            self.fail(expected, token)
        return Amount(int(digits), percent)

    def chance(self, word: str, token: Token) -> float:
        """`5%` or `0.05`."""
        percent = _PERCENT.fullmatch(word)
        if percent is None and not _DECIMAL.fullmatch(word):
            self.fail("a chance, such as 5% or p=0.05", token)
        chance = float(Decimal(percent[1]) / 100 if percent else Decimal(word))
        if not 0 < chance <= 1:
            self.fail("a chance above 0% and up to 100%", token)
        return chance

    def seed(self, word: str, token: Token) -> int:
        """`7`."""
        if not _DIGITS.fullmatch(word):
            self.fail("a number, such as seed=7", token)
        return int(word)

    def size(self) -> int:
        """`4096` or `size=4096`."""
        token = self.next
        digits = self.word("a size in bytes, such as size=4096").removeprefix("size=")
        if not _DIGITS.fullmatch(digits) or int(digits) < 1:
            self.fail("a size in bytes, such as size=4096", token)
        return int(digits)

    def error(self) -> int:
        """The errno at the end; EIO where there is none."""
        if self.next.sort is Sort.END:
            return errno.EIO
        token = self.next
        found = errno_of(self.word("an errno such as EIO"))
        if found is None:
            self.fail("an errno such as EIO", token, close=errno.errorcode.values())
        return found

    def numbers(self, expected: str, least: int, most: int = 10**18) -> tuple[int, ...]:
        """`1,3`, ascending."""
        found: list[int] = []
        while True:
            above = found[-1] + 1 if found else least
            found.append(self.number(expected, above, most))
            if not self.joined():
                return tuple(found)

    def ranges(self) -> tuple[Part, ...]:
        """`0,2-3`, in any order."""
        found = []
        while True:
            token = self.next
            match = _RANGE.fullmatch(self.word("sectors, such as 0,2-3"))
            if match is None or match[3] == "":
                self.fail("sectors, such as 0,2-3", token)
            first, last = int(match[1]), int(match[3] or match[1])
            if last < first:
                self.fail("sectors with the earlier one first", token)
            found.append((first, last))
            if not self.joined():
                return merged(tuple(found))

    # Errors

    def fail(
        self,
        expected: str,
        token: Token | None = None,
        example: str | None = None,
        close: Iterable[str] = (),
    ) -> Never:
        """Raise for `token`, or the next one; `close` are words that may have been meant."""
        token = token or self.next
        found = str(token)
        words = {word.lower(): word for word in close}
        meant = [words[word] for word in difflib.get_close_matches(token.text.lower(), words, n=1)]
        if meant:
            found += f" (did you mean {meant[0]}?)"
        self._fail(expected, token.column, found, example or self.example)

    def _fail(self, expected: str, column: int, found: str, example: str) -> Never:
        raise FaultSyntaxError(self._text, column, expected=expected, found=found, example=example)
