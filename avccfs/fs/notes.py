"""What the mount has to say.

Everything goes to the program's own log (`logging`, logger `avccfs.mount`), and the last of it is kept
for the view `log`. What changed the database (a switch of CURRENT, its removal) is also worth a line
in the database's LOG, beside those of the engine that did it.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime

from avccfs.storage.directory import DirectoryStorage

KEPT = 1000
"""Messages that are kept to be looked at."""

_log = logging.getLogger("avccfs.mount")


def said(error: Exception) -> str:
    """An error in its own words, without the errno and the repeated file name around them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


class Notes:
    """Says things to the log of the program and, where they concern the database, to LOG."""

    def __init__(self, storage: DirectoryStorage) -> None:
        self._storage = storage
        self._kept: deque[str] = deque(maxlen=KEPT)

    def changed(self, text: str) -> None:
        """Something about the database itself was changed through the mount."""
        self._keep("changed", text)
        _log.info("%s", text)
        self._storage.log(f"avccfs: {text}")

    def refused(self, text: str) -> None:
        """A request was refused: nothing changed, so LOG does not change either."""
        self._keep("refused", text)
        _log.warning("%s", text)

    def kept(self) -> list[str]:
        """The last messages, oldest first: time (UTC), what happened, and the words."""
        return list(self._kept)

    def _keep(self, what: str, text: str) -> None:
        now = datetime.now(UTC)
        self._kept.append(f"{now:%Y-%m-%d %H:%M:%S.%f} {what}: {text}")
