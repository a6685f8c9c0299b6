"""Asking the process that serves a mount, from another one. See `control` for the words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from avccfs.errors import AvccfsError, LockedError, UsageError
from avccfs.fuse import mounts
from avccfs.fuse.mounts import Server

Progress = Callable[[int, int, str], None]

_ERRORS: dict[str, type[AvccfsError]] = {
    "usage": UsageError,
    "locked": LockedError,
    "failed": AvccfsError,
}


class Asking:
    """A conversation with the process that serves a mount."""

    def __init__(self, server: Server, mountpoint: str) -> None:
        self.pid = server.pid
        self.mountpoint = mountpoint
        self._connection = server.connection
        self._connection.settimeout(None)
        self._answers = self._connection.makefile("rb")

    def ask(self, name: str, *, progress: Progress | None = None, **details: object) -> Any:
        """The answer to one question. Raises `AvccfsError` with the words of the other side."""
        question = json.dumps({"ask": name, **details}).encode() + b"\n"
        try:
            self._connection.sendall(question)
            for line in self._answers:
                said = json.loads(line)
                if "progress" in said:
                    if progress is not None:
                        progress(*said["progress"])
                elif "error" in said:
                    error = said["error"]
                    raise _ERRORS.get(error["kind"], AvccfsError)(error["text"])
                else:
                    return said["answer"]
        except OSError as error:
            raise AvccfsError(f"{self.mountpoint}: the mount ended meanwhile ({error})") from error
        raise AvccfsError(
            f"{self.mountpoint}: the mount (pid {self.pid}) ended before it had answered"
        )

    def close(self) -> None:
        """End the conversation."""
        self._answers.close()
        self._connection.close()


@contextmanager
def asking(mountpoint: str) -> Iterator[Asking]:
    """Talk to the mount at a place, without touching the mount itself.

    Raises `UsageError` where there is none, `AvccfsError` where nobody answers.
    """
    place = mounts.resolve(mountpoint)
    there = mounts.mount_at(place)
    if there is None:
        raise UsageError(
            f"nothing is mounted at {place}. Mount it first: avccfs mount SOURCE {place}"
        )
    if there.fstype != mounts.FSTYPE:
        raise UsageError(f"{place} is not an avccfs mount but {there.fstype} ({there.source})")
    server = mounts.server_of(there)
    if server is None:
        raise AvccfsError(
            f"{place}: the process that serves this mount does not answer. If it is gone, clean up "
            f"with: avccfs umount {place}"
        )
    conversation = Asking(server, place)
    try:
        yield conversation
    finally:
        conversation.close()
