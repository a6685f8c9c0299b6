"""What a mount answers to other processes: its faults, and what an overlay has changed.

The transport is `fuse.control`'s; here is what the questions mean.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from avccfs.errors import UsageError
from avccfs.fs.core import Core
from avccfs.fs.faultwords import rule_lines, tell_plan, told_stats
from avccfs.vfs.fault import FaultPlan

if TYPE_CHECKING:
    # Most mounts are no overlays, and do without all this.
    from avccfs.storage.rehearsal import Rehearsal

Progress = Callable[[int, int, str], None]

_INEXACT = (
    "this mount was made without --fault: the kernel may collect writes and answer reads itself, so "
    "rules see its operations and not the engine's, and `drop` does not know what to take back. Mount "
    "with --fault none to have them one by one"
)


_CLOSING_SECONDS = 0.3


class MountService:
    """Answers questions about one mount."""

    def __init__(
        self, core: Core, *, rehearsal: Rehearsal | None = None, exact: bool = False
    ) -> None:
        """`rehearsal` is what lies below, where it is an overlay. `exact` as in `MountOptions`."""
        self._core = core
        self._rehearsal = rehearsal
        self._rehearsing = threading.Lock()
        self._exact = exact
        self._questions: dict[str, Callable[[Mapping[str, object], Progress], object]] = {
            "tell-faults": self._tell_faults,
            "faults": self._faults,
            "stats": self._stats,
            "overlay": self._where,
            "diff": self._diff,
            "commit": self._commit,
            "discard": self._discard,
        }

    def is_quick(self, name: str) -> bool:
        """Faults are changed between two requests, and even while every thread is held up."""
        return name in ("tell-faults", "faults", "stats")

    def answer(self, name: str, details: Mapping[str, object], progress: Progress) -> object:
        """See `fuse.control.Service`."""
        question = self._questions.get(name)
        if question is None:
            raise UsageError(
                f"this mount does not know what {name!r} is: it was made by another version of avccfs"
            )
        return question(details, progress)

    # -- faults

    def _plan(self) -> FaultPlan:
        if self._core.faults is None:
            raise UsageError("nothing can go wrong on this mount")
        return self._core.faults

    def _tell_faults(self, details: Mapping[str, object], progress: Progress) -> object:
        done = tell_plan(self._plan(), str(details["line"]))
        late = self._plan().armed and not self._exact
        return {"done": done, "warning": _INEXACT if late else None}

    def _faults(self, details: Mapping[str, object], progress: Progress) -> object:
        plan = self._plan()
        return {"lines": list(rule_lines(plan)), "rules": plan.stats()["rules"]}

    def _stats(self, details: Mapping[str, object], progress: Progress) -> object:
        return told_stats(self._plan())

    # -- overlays

    def _overlay(self) -> Rehearsal:
        if self._rehearsal is None:
            raise UsageError(
                "this mount is no overlay: what is changed on it is changed in the source. Mount with "
                "--overlay to rehearse"
            )
        return self._rehearsal

    def _where(self, details: Mapping[str, object], progress: Progress) -> object:
        """The directory of the overlay's changes; null for one in memory, and for what is none."""
        return None if self._rehearsal is None else self._rehearsal.directory

    def _diff(self, details: Mapping[str, object], progress: Progress) -> object:
        rehearsal = self._overlay()
        self._core.fetch()
        from avccfs.storage import changetext

        if rehearsal.is_half_committed():
            return {"half_committed": True, "source": rehearsal.source}
        changes = rehearsal.changes(_told(progress))
        return {
            "half_committed": False,
            "source": rehearsal.source,
            "empty": changes.empty,
            "left_over": rehearsal.has_left_over(),
            "digest": changes.digest,
            "lines": list(changetext.as_lines(changes)),
            "json": changetext.as_json(changes),
        }

    def _commit(self, details: Mapping[str, object], progress: Progress) -> object:
        rehearsal = self._overlay()
        self._core.fetch()
        with self._rehearsing:
            busy = _busy(rehearsal)
            if not busy:
                rehearsal.commit(str(details["digest"]), _told(progress))
                # What lies below has other identities now.
                self._core.start_over()
        return {"busy": busy}

    def _discard(self, details: Mapping[str, object], progress: Progress) -> object:
        rehearsal = self._overlay()
        self._core.fetch()
        with self._rehearsing:
            busy = _busy(rehearsal)
            if not busy:
                rehearsal.discard()
                self._core.start_over()
        return {"busy": busy}


def _busy(rehearsal: Rehearsal) -> list[str]:
    """What is open in an overlay and keeps it from being exchanged, if it stays open.

    The kernel tells of the last close of a file a moment after close(2) has returned.
    """
    deadline = time.monotonic() + _CLOSING_SECONDS
    while (busy := rehearsal.overlay.busy()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return busy


def _told(progress: Progress) -> Progress:
    """Progress, a few times a second."""
    last = 0.0

    def tell(done: int, total: int, what: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1:
            last = now
            progress(done, total, what)

    return tell
