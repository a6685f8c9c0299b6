"""Mounts on which things go wrong, and callers that may have to wait."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from avccfs.errors import AvccfsError
from avccfs.fuse.asking import asking
from tests.mounting import MountedAt, mounted

PROVOKED = "[Errno "
"""What the mount says of a failure that has an errno; of one that nobody expected it says more."""

PATIENCE = 60.0


@contextmanager
def faulty(
    source: str | Path, mnt: Path, *rules: str, more: tuple[str, ...] = ()
) -> Iterator[MountedAt]:
    """A mount with these rules. At the end nobody is held up any more, and it unmounts."""
    options = [word for rule in rules or ("none",) for word in ("--fault", rule)]
    with mounted(source, mnt, *options, *more, provoked=PROVOKED) as at:
        try:
            yield at
        finally:
            tell(mnt, "clear")


@contextmanager
def let_go_at_end(mnt: Path) -> Iterator[None]:
    """At the end nobody is held up any more: to be left before what would wait for them."""
    try:
        yield
    finally:
        with suppress(AvccfsError):
            tell(mnt, "clear")


def tell(mnt: Path, line: str) -> str:
    """Say a line to the plan of a mount; returns what was done."""
    with asking(os.fspath(mnt)) as mount:
        done: str = mount.ask("tell-faults", line=line)["done"]
    return done


def stats(mnt: Path) -> dict[str, Any]:
    """What `.avccfs/stats.json` says."""
    found: dict[str, Any] = json.loads((mnt / ".avccfs/stats.json").read_bytes())
    return found


def fired(mnt: Path) -> list[tuple[object, ...]]:
    """The faults that fired, in order: all that is the same whenever the same is done."""
    keys = ("rule", "op", "path", "offset", "length", "call", "did")
    return [tuple(fault.get(key) for key in keys) for fault in stats(mnt)["faults"]]


def rules(mnt: Path) -> list[dict[str, Any]]:
    """The rules of a mount, without touching it."""
    with asking(os.fspath(mnt)) as mount:
        found: list[dict[str, Any]] = mount.ask("faults")["rules"]
    return found


def held_up(mnt: Path) -> int:
    """How many calls are held up."""
    return sum(rule["stalled"] for rule in rules(mnt))


def wait_held_up(mnt: Path, count: int) -> None:
    """Wait until that many are."""
    wait_until(lambda: held_up(mnt) == count, f"{count} calls that are held up")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so, which must come."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.002)


def outcome(call: Callable[[], object]) -> str:
    """`ok`, or the name of the errno that a call failed with."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


class Caller:
    """A call in a thread."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._outcome: str | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], object]) -> None:
        try:
            self._outcome = outcome(call)
        except BaseException as error:
            self._outcome = error

    @property
    def waits(self) -> bool:
        """Whether it has not come back."""
        return self._thread.is_alive()

    def result(self) -> str:
        """What came of it, as soon as it comes back."""
        self._thread.join(PATIENCE)
        assert not self.waits, "a call never came back"
        assert isinstance(self._outcome, str), self._outcome
        return self._outcome


def no_such_mount(mnt: Path) -> bool:
    """Whether nobody answers for a mount any more."""
    try:
        with asking(os.fspath(mnt)):
            return False
    except AvccfsError:
        return True
