"""What `diff`, `commit` and `discard` have in common: an overlay, mounted or in its directory."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from avccfs.errors import AvccfsError, LockedError, UsageError
from avccfs.fuse import mounts
from avccfs.fuse.asking import Asking, Progress, asking

if TYPE_CHECKING:
    from avccfs.storage.rehearsal import Rehearsal


@dataclass(frozen=True, slots=True)
class Difference:
    """What an overlay has changed."""

    source: str
    half_committed: bool
    """A commit was stopped after it had begun: there is nothing to compare any more."""
    empty: bool = True
    digest: str = ""
    lines: tuple[str, ...] = ()
    json: Any = None
    left_over: bool = False
    """A commit has left something behind that is to be cleared away."""


class Target(Protocol):
    """An overlay."""

    def diff(self, progress: Progress | None) -> Difference:
        """What it has changed."""

    def commit(self, digest: str, progress: Progress | None) -> None:
        """Carry over the changes that were shown."""

    def discard(self) -> None:
        """Drop them."""


class MountedTarget:
    """An overlay that is mounted."""

    def __init__(self, mount: Asking) -> None:
        self._mount = mount

    def diff(self, progress: Progress | None) -> Difference:
        """See `Target`."""
        told = self._mount.ask("diff", progress=progress)
        if told["half_committed"]:
            return Difference(told["source"], True)
        lines = tuple(told["lines"])
        return Difference(
            *(told["source"], False, told["empty"], told["digest"], lines, told["json"]),
            left_over=told["left_over"],
        )

    def commit(self, digest: str, progress: Progress | None) -> None:
        """See `Target`."""
        self._demand_free(self._mount.ask("commit", progress=progress, digest=digest), "committed")

    def discard(self) -> None:
        """See `Target`."""
        self._demand_free(self._mount.ask("discard"), "discarded")

    def _demand_free(self, told: Any, what: str) -> None:
        if told["busy"]:
            found = mounts.holders_of(self._mount.mountpoint)
            holders = [(pid, name) for pid, name in found if pid != os.getpid()]
            raise AvccfsError(
                f"{self._mount.mountpoint}: nothing was {what}, because {', '.join(told['busy'])} is "
                f"open there. In use by {mounts.describe(holders)}. Close that, and try again"
            )


class StoredTarget:
    """An overlay whose changes lie in a directory and are not mounted."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal

    def diff(self, progress: Progress | None) -> Difference:
        """See `Target`."""
        from avccfs.storage import changetext

        source = self._rehearsal.source
        if self._rehearsal.is_half_committed():
            return Difference(source, True)
        changes = self._rehearsal.changes(progress)
        lines = tuple(changetext.as_lines(changes))
        json = changetext.as_json(changes)
        return Difference(
            *(source, False, changes.empty, changes.digest, lines, json),
            left_over=self._rehearsal.has_left_over(),
        )

    def commit(self, digest: str, progress: Progress | None) -> None:
        """See `Target`."""
        self._rehearsal.commit(digest, progress)

    def discard(self) -> None:
        """See `Target`."""
        self._rehearsal.discard()


@contextlib.contextmanager
def target(place: str, *, read_only: bool) -> Iterator[Target]:
    """The overlay at a place: a mount point, or the directory of its changes.

    Raises `UsageError` for anything else.
    """
    there = mounts.mount_at(mounts.resolve(place))
    if there is not None and there.fstype == mounts.FSTYPE:
        with asking(place) as mount:
            yield MountedTarget(mount)
        return
    if not os.path.isdir(place):
        raise UsageError(
            f"{place} is neither a mounted overlay nor the directory of one: there is no such directory"
        )
    from avccfs.storage.rehearsal import opened

    with contextlib.ExitStack() as stack:
        try:
            rehearsal = stack.enter_context(opened(os.path.realpath(place), read_only=read_only))
        except LockedError as error:
            found = next(_mounts_of(error, os.path.realpath(place), stack), None)
            if found is None:
                raise
            yield MountedTarget(found)
        else:
            yield StoredTarget(rehearsal)


def _mounts_of(error: LockedError, directory: str, stack: contextlib.ExitStack) -> Iterator[Asking]:
    """The mount that has the directory of an overlay in use."""
    holders = {pid for pid, _ in error.holders}
    for there in mounts.mounts():
        if there.fstype == mounts.FSTYPE and mounts.is_served_by(there, holders):
            mount = stack.enter_context(asking(there.mountpoint))
            if mount.ask("overlay") == directory:
                yield mount


def agreed(question: str, *, yes: bool) -> bool:
    """Whether the user wants it. Raises `UsageError` where there is nobody to ask."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked; if this is what you want, say --yes")
    import click

    return click.confirm(question, default=False)


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """A bar on the terminal, if there is one, once the work takes longer than a moment."""
    if not sys.stderr.isatty():
        yield None
        return
    from avccfs.cli.bar import Bar

    with Bar() as bar:
        yield bar.show
