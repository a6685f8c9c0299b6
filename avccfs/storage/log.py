"""The LOG file: lines for people, in the engines' form (SPEC section 3, file storage).

    =============== Nov 20, 2026 (UTC) ===============
    15:04:05.000123 text

The banner precedes the first line of a writer, of a day, and of a file. Engines write to the same
file, so nothing is kept open and no position is remembered: each line is one write at the file's
true end. When LOG has passed 1 MiB it becomes LOG.old and a new one is begun.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime

from avccfs import errors
from avccfs.format.filename import LOG, LOG_OLD
from avccfs.vfs.base import Directory, File, Open

ROTATE_AFTER = 1024 * 1024
"""Size in bytes past which LOG is renamed to LOG.old."""

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
        self._mutex = threading.Lock()

    def write(self, text: str) -> None:
        """Append a line. Line breaks in `text` become ` | `. What cannot be written is dropped."""
        with self._mutex:
            try:
                self._append(fold(text))
            except (OSError, errors.AvccfsError):
                # There is no better place to complain in than the one that just failed.
                return

    def _append(self, text: str) -> None:
        file = self._open()
        try:
            end = file.stat().size
            if end > self._rotate_after:
                file.close()
                self._directory.rename(LOG, LOG_OLD)
                file = self._open()
                end = file.stat().size
            now = self._clock().astimezone(UTC)
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
