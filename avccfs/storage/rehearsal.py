"""An overlay and its source: what was changed, carrying it over, and dropping it.

The same for an overlay that is mounted and for one that only lies in its directory. A commit that is
stopped halfway has left its plan in the source; which overlay it belongs to is noted beside the
overlay's own changes before that plan exists, so that no other overlay is emptied for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from avccfs.errors import AvccfsError, CommitError, UsageError
from avccfs.storage import commit as carrying
from avccfs.storage.commit.staging import sweep
from avccfs.storage.handles import write_all
from avccfs.vfs.base import Directory, Open, exists
from avccfs.vfs.changes import Changes
from avccfs.vfs.differences import Progress, differences
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.overlay import LowerChangedError, Overlay, source_of, wipe

NOTE = "committing"
"""In an overlay's directory: the digest of the changes that are being carried over."""

_ATTEMPTS = 3


class ChangedMeanwhileError(AvccfsError):
    """The changes are not those that were shown."""


class SourceGoneError(AvccfsError):
    """The directory that an overlay's changes were made over is not there."""


class Rehearsal:
    """An overlay over a local directory."""

    def __init__(self, overlay: Overlay, source: str, upper: Directory | None) -> None:
        """`source` is the path of what lies below, `upper` where the changes are, if in a directory."""
        self.overlay = overlay
        self.source = source
        self._upper = upper
        self._begun: str | None = None

    @property
    def directory(self) -> str | None:
        """The path of the directory of its changes; None if they are in memory."""
        return None if self._upper is None else self._upper.label

    def changes(self, progress: Progress | None = None) -> Changes:
        """What differs from the source. While an engine works, what differed at some moment."""
        for _ in range(_ATTEMPTS):
            try:
                return differences(self.overlay, progress=progress)
            except FileNotFoundError:
                continue  # It was there when it was listed.
        self.overlay.check_lower()
        raise AvccfsError(
            f"{self.source}: files come and go too fast to be compared; stop what works on the mount, "
            "and try again"
        )

    def commit(self, digest: str, progress: Progress | None = None) -> None:
        """Carry over the changes of this digest, or finish doing so; the overlay is then empty.

        Raises `ChangedMeanwhileError` if the changes are others by now, `OSError(EBUSY)` if something
        is open that would be pulled from under its user, `LockedError` if somebody else has the
        source open, and what `storage.commit` raises.
        """
        with self.overlay.held_still(), self._source() as source:
            left = carrying.unfinished(source)
            if left is not None and left.durable:
                if left.digest != self._noted():
                    raise CommitError(
                        f"{self.source}: a commit of other changes than these was stopped there. "
                        f"Finish it first: avccfs commit {self.source}",
                        begun=False,
                    )
                carrying.resume(source, settled=self._settle, progress=progress)
                self._forget_note()
                return
            self.overlay.check_lower()
            changes = self.changes(progress)
            if changes.digest != digest:
                raise ChangedMeanwhileError(
                    "the changes are not those that were shown any more; look at them again"
                )
            self._note(digest)
            carrying.commit(self.overlay, source, changes, settled=self._settle, progress=progress)
            # Not before the plan is gone: until then it tells whose plan it is.
            self._forget_note()

    def is_half_committed(self) -> bool:
        """Whether a commit of these changes was stopped after it had begun."""
        with closing(LocalDirectory(self.source, read_only=True)) as source:
            left = carrying.unfinished(source)
        return left is not None and left.durable and left.digest == self._noted()

    def has_left_over(self) -> bool:
        """Whether there is anything in the source that a commit has left there."""
        with closing(LocalDirectory(self.source, read_only=True)) as source:
            return carrying.unfinished(source) is not None

    def discard(self) -> None:
        """Drop every change. Raises `OSError(EBUSY)` if a changed file is open."""
        if self.is_half_committed():
            raise CommitError(
                f"{self.source}: a commit of these changes was stopped halfway; without them it could "
                "not be finished. Run avccfs commit again",
                begun=True,
            )
        with self.overlay.held_still():
            self._settle()
            self._forget_note()

    def _settle(self) -> None:
        self.overlay.reset()

    def _forget_note(self) -> None:
        self._begun = None
        if self._upper is not None and exists(self._upper, NOTE):
            self._upper.remove(NOTE)
            self._upper.sync()

    @contextmanager
    def _source(self) -> Iterator[Directory]:
        """The source, to be written: nobody else may have it open."""
        with self.overlay.lower_let_go(), locked(self.source) as source:
            yield source

    def _note(self, digest: str) -> None:
        self._begun = digest
        if self._upper is not None:
            flags = Open.WRITE | Open.CREATE | Open.TRUNCATE
            with closing(self._upper.open(NOTE, flags)) as file:
                write_all(file, digest.encode(), 0)
                file.sync()
            self._upper.sync()

    def _noted(self) -> str | None:
        return self._begun if self._upper is None else _note_in(self._upper)


@contextmanager
def opened(path: str, *, read_only: bool) -> Iterator[Rehearsal]:
    """The overlay whose changes lie in a directory. Raises `UsageError` where there is none."""
    with closing(LocalDirectory(path, read_only=read_only, create=False)) as upper:
        source = source_of(upper)
        if source is None:
            raise UsageError(f"{path} holds no changes of an overlay")
        try:
            below = LocalDirectory(source, read_only=True, create=False)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceGoneError(
                f"{path}: holds changes to {source}, which is not there ({error.strerror}). Bring it back, "
                f"or drop the changes: avccfs discard {path}"
            ) from error
        with closing(below) as lower:
            noted, left = _note_in(upper), carrying.unfinished(lower)
            half = left is not None and left.durable and left.digest == noted
            try:
                overlay = Overlay(lower, upper, check=not half, close_inner=False)
            except LowerChangedError as error:
                if noted is None:
                    raise
                raise LowerChangedError(
                    f"{error}. A commit of these changes had begun: if it was finished from {source}, "
                    f"nothing is left to do but avccfs discard {path}"
                ) from None
            with closing(overlay):
                yield Rehearsal(overlay, source, upper)


def discard_unopened(path: str) -> None:
    """Drop the changes in a directory, whatever has become of their source."""
    with closing(LocalDirectory(path, create=False)) as upper:
        source = source_of(upper)
        if source is None:
            raise UsageError(f"{path} holds no changes of an overlay")
        try:
            below = LocalDirectory(source, read_only=True, create=False)
        except (FileNotFoundError, NotADirectoryError):
            _wipe(upper)
            return
        with (
            closing(below) as lower,
            closing(Overlay(lower, upper, check=False, close_inner=False)) as overlay,
        ):
            Rehearsal(overlay, source, upper).discard()


def _wipe(upper: Directory) -> None:
    lock = upper.lock(exclusive=True)
    try:
        if exists(upper, NOTE):
            upper.remove(NOTE)
        wipe(upper)
    finally:
        if lock is not None:
            lock.release()


def finish(path: str, progress: Callable[[int, int, str], None] | None = None) -> bool:
    """Finish a commit that was stopped in a directory, or clear away one that had not begun.

    Returns whether it had.
    """
    with locked(path) as source:
        left = carrying.unfinished(source)
        if left is None:
            return False
        if not left.durable:
            sweep(source)
            return False
        carrying.resume(source, settled=lambda: None, progress=progress)
    return True


@contextmanager
def locked(path: str) -> Iterator[Directory]:
    """A directory, open for writing, and locked."""
    with closing(LocalDirectory(path, create=False)) as source:
        lock = source.lock(exclusive=True)
        try:
            yield source
        finally:
            if lock is not None:
                lock.release()


def _note_in(upper: Directory) -> str | None:
    if not exists(upper, NOTE):
        return None
    with closing(upper.open(NOTE)) as file:
        return file.read_at(128, 0).decode("ascii", "replace")
