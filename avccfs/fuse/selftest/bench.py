"""Where a check works: a mount, the directory behind it, and somebody to ask about its faults."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from avccfs.errors import AvccfsError

SIZE = 4096
"""Bytes in a file that a check works on, and in a write that replaces them."""
OLD = bytes(1 + place % 251 for place in range(SIZE))
"""What is in a file. No byte is zero, none is as in `NEW`."""
NEW = bytes(byte ^ 0xFF for byte in OLD)
"""What is written over it."""
PATIENCE = 30.0
"""Seconds to wait for what should come at once."""


class Topic(enum.Enum):
    """What a check is about."""

    ERRNO = "errno"
    DELAY = "delay"
    STALL = "stall"
    SHORT = "short"
    TORN = "torn"
    CORRUPT = "corrupt"
    DROP = "drop"
    WHEN = "when"
    FILES = "files"


class UnlikeError(Exception):
    """Something is not as the rule promises. Both in words."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected {expected}; seen {seen}")
        self.expected = expected
        self.seen = seen


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a fault promises."""

    topic: Topic
    rule: str
    run: Callable[[Bench, str], str]
    """Given the rule, says in words what was seen. Raises `UnlikeError`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check."""

    check: Check
    seen: str
    expected: str | None = None
    """What was promised, where something else was seen."""

    @property
    def fine(self) -> bool:
        """Whether what was seen is what was promised."""
        return self.expected is None


class Questions(Protocol):
    """Somebody who can be asked about a mount: `fuse.asking.Asking`."""

    def ask(self, name: str, *, line: str = "") -> Any:
        """The answer to one question, about a line where it needs one. Raises `AvccfsError`."""


class Bench:
    """Files to work on, and rules for them. For one thread."""

    def __init__(
        self, mountpoint: Path, source: Path, mount: Questions, *, patience: float = PATIENCE
    ) -> None:
        """`source` is the directory behind the mount, on which nobody else works."""
        self.mountpoint = mountpoint
        self._source = source
        self._mount = mount
        self._patience = patience
        self._numbers = count(1)
        self._ends = contextlib.ExitStack()

    def carry_out(self, check: Check) -> Outcome:
        """What comes of a check. It leaves no rule behind, and no descriptor."""
        try:
            with contextlib.ExitStack() as self._ends:
                try:
                    return Outcome(check, check.run(self, check.rule))
                finally:
                    self.clear()
        except UnlikeError as unlike:
            return Outcome(check, unlike.seen, unlike.expected)
        except (OSError, AvccfsError) as error:
            return Outcome(check, str(error), "no such failure")

    # Rules

    def add(self, line: str) -> None:
        """Add a rule."""
        self._mount.ask("tell-faults", line=line)

    def clear(self) -> None:
        """Take all rules away."""
        self._mount.ask("tell-faults", line="clear")

    def release(self) -> None:
        """Let go on whoever is held up."""
        self._mount.ask("tell-faults", line="release")

    def stalled(self) -> int:
        """How many calls are held up now."""
        return sum(rule["stalled"] for rule in self._mount.ask("faults")["rules"])

    def check_fired(self, times: int) -> None:
        """The rules that are there have acted so often, by their own account."""
        fired = sum(rule["fired"] for rule in self._mount.ask("faults")["rules"])
        check(fired == times, f"a rule that counts {times} calls it acted on", f"it counts {fired}")

    # Files

    def path(self, name: str) -> Path:
        """A file on the mount."""
        return self.mountpoint / name

    def name(self, suffix: str = ".log") -> str:
        """A name that no file had yet; that of a journal unless told otherwise."""
        return f"{next(self._numbers):06d}{suffix}"

    def make(self, name: str | None = None, content: bytes = OLD) -> str:
        """A durable file with this content; a journal unless a name is given. Returns its name."""
        name = name or self.name()
        self.path(name).parent.mkdir(exist_ok=True)
        fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        return name

    def open(self, name: str, flags: int = os.O_RDWR) -> int:
        """A descriptor. What is read first is asked of the mount: opening empties the kernel's cache."""
        fd = os.open(self.path(name), flags)
        self.at_end(lambda: os.close(fd))
        return fd

    def at_end(self, call: Callable[[], object]) -> None:
        """Make a call when the check is over and no rule is left."""
        self._ends.callback(call)

    def read(self, name: str) -> bytes:
        """The content as the mount shows it to whoever opens the file now."""
        return self.path(name).read_bytes()

    def is_below(self, name: str) -> bool:
        """Whether the directory behind the mount has a file."""
        return (self._source / name).exists()

    def below(self, name: str) -> bytes:
        """Its content there."""
        return (self._source / name).read_bytes()

    def check_content(self, name: str, expected: bytes, words: str) -> None:
        """The file holds `expected`, which is `words`: behind the mount, and as the mount shows it."""
        for where, found in (("behind the mount", self.below(name)), ("on it", self.read(name))):
            check(found == expected, f"{words}, {where}", f"{where}, {unlike(expected, found)}")

    # Calls in threads

    def start(self, call: Callable[[], object]) -> Attempt:
        """Make a call that may not come back."""
        return Attempt(call)

    def wait(self, condition: Callable[[], bool]) -> bool:
        """Wait until something is so; False if it never is."""
        deadline = time.monotonic() + self._patience
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True


class Attempt:
    """A call in a thread of its own. One that never ends does not keep the process from ending."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._ended = threading.Event()
        self._said = ""
        threading.Thread(target=self._run, args=(call,), daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it has returned."""
        return self._ended.is_set()

    @property
    def said(self) -> str:
        """Once it has ended, what `outcome_of` makes of it."""
        return self._said

    def _run(self, call: Callable[[], object]) -> None:
        try:
            self._said = outcome_of(call)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what came of it
            self._said = repr(error)
        self._ended.set()


SUCCESS = "success"


def outcome_of(call: Callable[[], object]) -> str:
    """What comes of a system call: `SUCCESS`, or the name of an errno."""
    try:
        call()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return SUCCESS


def check(fine: bool, expected: str, seen: str) -> None:
    """Raise `UnlikeError` unless it is fine."""
    if not fine:
        raise UnlikeError(expected, seen)


def check_outcome(call: Callable[[], object], expected: str, what: str) -> None:
    """The call, which is `what` in words, comes to this."""
    seen = outcome_of(call)
    check(seen == expected, f"{what}: {expected}", f"{what}: {seen}")


def unlike(expected: bytes, found: bytes) -> str:
    """How one content differs from another, in words."""
    if len(found) != len(expected):
        return f"{len(found)} bytes instead of {len(expected)}"
    wrong = [
        place for place, pair in enumerate(zip(expected, found, strict=True)) if len({*pair}) > 1
    ]
    if not wrong:
        return "just that"
    return f"{len(wrong)} other bytes, from offset {wrong[0]} on"
