"""What the mount has to say, and where it may say it.

Everything goes to the program's own log (`logging`, logger `avccfs.mount`). What changed the
database (a switch of CURRENT, its removal) is also worth a line in the database's LOG, beside the
lines of the engine that did it. But an engine that has LOG open writes at an offset it remembers: a
line put in between would be overwritten in the middle, or overwrite. So a line waits while anybody
on the mount has LOG open, and is written when the last one has closed it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

_log = logging.getLogger("avccfs.mount")

MAX_WAITING = 1000
"""Lines that wait for LOG at most; beyond that the oldest go, and their number is told."""


def said(error: Exception) -> str:
    """An error in its own words, without the errno and the repeated file name around them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


class Notes:
    """Says things to the log of the program and, when it is safe, to LOG."""

    def __init__(
        self,
        write_line: Callable[[str], None],
        log_is_busy: Callable[[], bool],
        lock: threading.RLock,
    ) -> None:
        """`lock` is the owner's: its functions are called with it held."""
        self._lock = lock
        self._write_line = write_line
        self._log_is_busy = log_is_busy
        self._waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self._lost = 0

    def changed(self, text: str) -> None:
        """Something about the database itself was changed through the mount."""
        _log.info("%s", text)
        with self._lock:
            if len(self._waiting) == MAX_WAITING:
                self._lost += 1
            self._waiting.append(text)
            self.settle()

    def refused(self, text: str) -> None:
        """A request was refused: nothing changed, so LOG does not change either."""
        _log.warning("%s", text)

    def settle(self) -> None:
        """Write what waits, unless somebody has LOG open."""
        with self._lock:
            if not self._waiting or self._log_is_busy():
                return
            if self._lost:
                self._write_line(
                    f"avccfs: {self._lost} older lines were dropped while LOG was in use"
                )
                self._lost = 0
            while self._waiting:
                self._write_line(f"avccfs: {self._waiting.popleft()}")
