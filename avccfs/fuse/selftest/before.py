"""Faults that act before the operation: an errno instead of it, a delay, a stall."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from avccfs.fuse.selftest.bench import (
    NEW,
    SUCCESS,
    Bench,
    Check,
    Topic,
    check,
    check_outcome,
)
from avccfs.fuse.selftest.deeds import (
    CLOSE,
    CREATE,
    DEEDS,
    OPEN,
    READ,
    REMOVE,
    RENAME,
    SYNC,
    SYNC_DIR,
    TRUNCATE,
    WRITE,
    Begun,
    Deed,
)

_DELAY_MS = 25

_ERRORS = (
    (OPEN, "EMFILE"),
    (CREATE, "ENOSPC"),
    (READ, "EIO"),
    (WRITE, "ENOSPC"),
    (SYNC, "EIO"),
    (SYNC_DIR, "EIO"),
    (RENAME, "EROFS"),
    (REMOVE, "EBUSY"),
    (TRUNCATE, "EFBIG"),
    (CLOSE, "EDQUOT"),
)


def _fails(deed: Deed, error: str) -> Check:
    def run(bench: Bench, rule: str) -> str:
        first, second = deed.begin(bench), deed.begin(bench)
        bench.add(rule)
        check_outcome(first.call, error, deed.words)
        _check_not_done(first, deed)
        bench.check_fired(1)
        bench.clear()
        check_outcome(second.call, SUCCESS, f"without the rule, {deed.words}")
        _check_done(second, deed)
        unchanged = ", nothing changed" if first.happened else ""
        return f"{deed.words}: {error}{unchanged}; without the rule it succeeds"

    return Check(Topic.ERRNO, f"{deed.targets}: {error}", run)


def _comes_late(deed: Deed) -> Check:
    def run(bench: Bench, rule: str) -> str:
        begun = deed.begin(bench)
        bench.add(rule)
        start = time.monotonic()
        check_outcome(begun.call, SUCCESS, deed.words)
        took = (time.monotonic() - start) * 1000
        check(
            took >= _DELAY_MS,
            f"{deed.words} that takes {_DELAY_MS} ms or more",
            f"it took {took:.1f} ms",
        )
        _check_done(begun, deed)
        bench.check_fired(1)
        return f"{deed.words} took {took:.0f} ms, and was done"

    return Check(Topic.DELAY, f"{deed.targets}: delay {_DELAY_MS}ms", run)


def _waits(deed: Deed) -> Check:
    def run(bench: Bench, rule: str) -> str:
        begun, work_elsewhere = deed.begin(bench), _elsewhere(bench)
        bench.add(rule)
        caller = bench.start(begun.call)
        bench.wait(lambda: caller.ended or bench.stalled() == 1)
        check(
            not caller.ended and bench.stalled() == 1,
            f"{deed.words} that waits",
            f"it returned: {caller.said}" if caller.ended else "it neither waits nor returns",
        )
        other = bench.start(work_elsewhere)
        check(
            bench.wait(lambda: other.ended) and other.said == SUCCESS,
            "other files that can be used meanwhile",
            other.said or "they wait too",
        )
        check(not caller.ended, "that it waits until it is released", f"it returned: {caller.said}")
        _check_not_done(begun, deed)
        bench.release()
        check(
            bench.wait(lambda: caller.ended) and caller.said == SUCCESS,
            "success once it is released",
            caller.said or "it still waits",
        )
        _check_done(begun, deed)
        return f"{deed.words} waited, other files did not; done when released"

    return Check(Topic.STALL, f"{deed.targets}: stall", run)


def _elsewhere(bench: Bench) -> Callable[[], None]:
    """Work on two other files: all that can be done to one, but for a sync of a folder.

    Names are made and removed in another folder. While a file is created, renamed or removed, and
    while a folder is synced, the kernel lets nobody else change the folder that it is in, whatever
    the file system.
    """
    known = bench.path(bench.make(bench.name(".known")))
    folder = bench.path(bench.name(".folder"))
    folder.mkdir()

    def work() -> None:
        _use(known, os.O_RDWR)
        new = folder / "new"
        _use(new, os.O_RDWR | os.O_CREAT)
        new.rename(folder / "moved").unlink()

    return work


def _use(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.pwrite(fd, NEW, 100)
        os.ftruncate(fd, 100 + len(NEW))
        os.fsync(fd)
        if os.pread(fd, len(NEW), 100) != NEW:
            raise AssertionError("another content than what was written")
    finally:
        os.close(fd)


def _check_done(begun: Begun, deed: Deed) -> None:
    if begun.happened is not None:
        check(begun.happened(), f"{deed.words}, done behind the mount", "nothing changed there")


def _check_not_done(begun: Begun, deed: Deed) -> None:
    if begun.happened is not None:
        check(not begun.happened(), f"{deed.words}, not done", "it was done behind the mount")


CHECKS = (
    *(_fails(deed, error) for deed, error in _ERRORS),
    *(_comes_late(deed) for deed in DEEDS),
    *(_waits(deed) for deed in DEEDS),
)
