"""The LOG file: lines for people, in the engines' form (SPEC section 3, file storage).

    =============== Nov 20, 2026 (UTC) ===============
    15:04:05.000123 text

The banner precedes the first line of a writer, of a day, and of a file. Engines write to the same
file, so nothing is kept open and no position is remembered: each line is one write at the file's
true end. When LOG has passed 1 MiB it becomes LOG.old and a new one is begun.

An engine, though, remembers where its own last line ended. Whoever lets an engine write to the same
LOG says so with `share`: lines then wait while the engine has the file open, since one put in between
would be overwritten in its middle, or overwrite.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime

from avccfs import errors
from avccfs.format.filename import LOG, LOG_OLD
from avccfs.vfs.base import Directory, File, Open

ROTATE_AFTER = 1024 * 1024
"""Size in bytes past which LOG is renamed to LOG.old."""

MAX_WAITING = 1000
"""Lines that wait at most; beyond that the oldest go, and LOG says how many."""

# Not strftime: month names must not depend on the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127) if code != ord("\t")}


def utc_now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


class LogWriter:
    """Writes lines to the LOG of a directory. Creates nothing until there is a line."""

    def __init__(
        self,
        directory: Directory,
        *,
        clock: Callable[[], datetime] = utc_now,
        rotate_after: int = ROTATE_AFTER,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._rotate_after = rotate_after
        self._day: date | None = None
        self._mutex: AbstractContextManager[object] = threading.Lock()
        self._busy: Callable[[], bool] = lambda: False
        self._written: Callable[[], None] = lambda: None
        self._waiting: deque[tuple[datetime, str]] = deque()
        self._lost = 0

    def share(
        self,
        lock: AbstractContextManager[object],
        *,
        busy: Callable[[], bool],
        written: Callable[[], None],
        beneath: Directory | None = None,
    ) -> None:
        """Leave LOG alone while `busy()`; say `written()` after it was changed.

        Both are called with `lock` held, and `lock` guards this writer from now on. `beneath` is
        the directory by another way, on which nothing can make the holder of `lock` wait.
        """
        self._mutex, self._busy, self._written = lock, busy, written
        self._directory = beneath or self._directory

    def write(self, text: str) -> None:
        """Append a line. Line breaks in `text` become ` | `. What cannot be written is dropped."""
        with self._mutex:
            if len(self._waiting) == MAX_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append((self._clock().astimezone(UTC), fold(text)))
            self._write_waiting()

    def settle(self) -> None:
        """Write what waits, if nobody is in the way any more."""
        with self._mutex:
            self._write_waiting()

    def _write_waiting(self) -> None:
        if not self._waiting or self._busy():
            return
        if self._lost:
            now, lost = self._waiting[0][0], f"{self._lost} older lines were dropped"
            self._waiting.appendleft((now, lost))
            self._lost = 0
        try:
            while self._waiting:
                self._append(*self._waiting.popleft())
        except (OSError, errors.AvccfsError):
            # There is no better place to complain in than the one that just failed.
            self._waiting.clear()
        self._written()

    def _append(self, now: datetime, text: str) -> None:
        file = self._open()
        try:
            end = file.stat().size
            if end > self._rotate_after:
                file.close()
                self._directory.rename(LOG, LOG_OLD)
                file = self._open()
                end = file.stat().size
            line = f"{now:%H:%M:%S.%f} {text}\n"
            if end == 0 or self._day != now.date():
                line = f"{banner(now)}\n{line}"
            if end and file.read_at(1, end - 1) != b"\n":
                # Somebody died within a line: it keeps its own.
                line = f"\n{line}"
            file.write_at(line.encode("utf-8", "backslashreplace"), end)
            self._day = now.date()
        finally:
            file.close()

    def _open(self) -> File:
        return self._directory.open(LOG, Open.WRITE | Open.CREATE)


def banner(now: datetime) -> str:
    """The line that begins a day."""
    day = f"{_MONTHS[now.month - 1]} {now.day}, {now.year}"
    return f"=============== {day} (UTC) ==============="


def fold(text: str) -> str:
    """Any text as one line: breaks become ` | `, other control characters are escaped."""
    return " | ".join(text.splitlines()).translate(_CONTROL)
