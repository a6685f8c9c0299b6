"""A directory under a plan."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter_ns
from typing import ParamSpec, TypeVar

from avccfs.errors import AvccfsError
from avccfs.format import filename
from avccfs.vfs.base import (
    Attributes,
    Directory,
    DirectoryLock,
    File,
    Open,
    Rename,
    Space,
    Stat,
)
from avccfs.vfs.fault.file import FaultFile
from avccfs.vfs.fault.ops import Call, Op, kind_of_path
from avccfs.vfs.fault.plan import FaultPlan
from avccfs.vfs.fault.unsynced import LIMIT, Track, Unsynced

P = ParamSpec("P")
T = TypeVar("T")


class FaultDirectory:
    """A directory under a plan: the plan is asked first, then `inner` does it.

    What is asked of a closed directory reaches the plan too. Closing the directory is no operation
    of the plan; it closes `inner`.
    """

    def __init__(
        self,
        inner: Directory,
        plan: FaultPlan,
        *,
        track: bool = False,
        track_limit: int = LIMIT,
        closes: bool = True,
    ) -> None:
        """`track`: note what is not synced, so that `drop` knows what to take back.

        Without it `drop` only fails the sync. It costs every write a look at the file, and up to
        `track_limit` bytes of memory (see `fault.unsynced`). `closes`: closing a file is an
        operation of the plan; False where the caller announces Op.CLOSE by `plan.before`.
        """
        self.inner = inner
        """The directory below: for who must look without being counted, and without faults."""
        self.plan = plan
        self.on_spoiled: Callable[[str], None] | None = None
        """Called with a path, and no lock held, when a file's content is not what was written or
        read (torn, corrupted on its way in, dropped): caches above must let go of it."""
        self.announces_close = closes
        self._unsynced = Unsynced(track_limit) if track else None
        self._mutex = threading.Lock()
        self._files: set[FaultFile] = set()

    @property
    def disarmed(self) -> Directory:
        """The directory below, by the name of what it is for."""
        return self.inner

    @property
    def read_only(self) -> bool:
        """As the inner directory's."""
        return self.inner.read_only

    @property
    def label(self) -> str:
        """As the inner directory's."""
        return self.inner.label

    def names(self, path: str = "") -> list[str]:
        """Op.LIST."""
        return self._do(Op.LIST, path, self.inner.names, path)

    def scan(self, path: str = "") -> list[tuple[str, Stat]]:
        """Op.LIST."""
        return self._do(Op.LIST, path, self.inner.scan, path)

    def stat(self, path: str = "") -> Stat:
        """Op.STAT."""
        if self.plan.armed:
            return self._do(Op.STAT, path, self.inner.stat, path)
        # As `_do`, without its cost: nothing is asked more often.
        tally = self.plan.tallies.of(Op.STAT, kind_of_path(path))
        begun = perf_counter_ns()
        try:
            found = self.inner.stat(path)
        except BaseException:
            tally.add_failure(perf_counter_ns() - begun)
            raise
        tally.add(perf_counter_ns() - begun)
        return found

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> FaultFile:
        """Op.CREATE with `Open.CREATE`, else Op.OPEN."""
        op = Op.CREATE if flags is not Open.READ and Open.CREATE in flags else Op.OPEN
        inner = self._do(op, path, self.inner.open, path, flags, mode)
        track = None
        if self._unsynced is not None:
            try:
                track = self._track(self._unsynced, inner, flags)
            except BaseException:
                inner.close()
                raise
        file = FaultFile(inner, self, self.plan, path, track)
        with self._mutex:
            self._files.add(file)
        return file

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        """Op.RENAME; of the kind of the *old* name, but that rules of text go by either."""
        replaced = None if how is Rename.EXCHANGE else self._last_name(new, unless=old)
        call = Call(Op.RENAME, kind_of_path(old), old, new)
        with self.plan.ticket(call):
            self.inner.rename(old, new, how)
        self._moved(old, new, exchanged=how is Rename.EXCHANGE)
        self._removed(replaced)

    def remove(self, path: str) -> None:
        """Op.REMOVE."""
        removed = self._last_name(path)
        self._do(Op.REMOVE, path, self.inner.remove, path)
        self._removed(removed)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Op.MKDIR."""
        self._do(Op.MKDIR, path, self.inner.mkdir, path, mode)

    def rmdir(self, path: str) -> None:
        """Op.RMDIR."""
        self._do(Op.RMDIR, path, self.inner.rmdir, path)

    def symlink(self, path: str, target: str) -> None:
        """Op.SYMLINK of the kind of the link's name."""
        self._do(Op.SYMLINK, path, self.inner.symlink, path, target)

    def readlink(self, path: str) -> str:
        """Op.READLINK."""
        return self._do(Op.READLINK, path, self.inner.readlink, path)

    def link(self, existing: str, new: str) -> None:
        """Op.LINK of the kind of the *existing* name."""
        self._do(Op.LINK, existing, self.inner.link, existing, new)

    def set_attributes(self, path: str, change: Attributes) -> None:
        """Op.SET_ATTRIBUTES."""
        self._do(Op.SET_ATTRIBUTES, path, self.inner.set_attributes, path, change)

    def sync(self, path: str = "") -> None:
        """Op.SYNC_DIR."""
        self._do(Op.SYNC_DIR, path, self.inner.sync, path)

    def space(self) -> Space:
        """Op.SPACE."""
        return self._do(Op.SPACE, "", self.inner.space)

    def lock(self, *, exclusive: bool) -> DirectoryLock | None:
        """Op.LOCK, always of the kind LOCK."""
        return self._do(Op.LOCK, filename.LOCK, self.inner.lock, exclusive=exclusive)

    def close(self) -> None:
        """Close the inner directory."""
        self.inner.close()

    def _do(self, op: Op, path: str, action: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        kind = kind_of_path(path)
        if not self.plan.armed:
            return self.plan.tallies.of(op, kind).count(action, *args, **named)
        with self.plan.ticket(Call(op, kind, path)):
            return action(*args, **named)

    # For open files

    def spoiled(self, file: FaultFile) -> None:
        """See `file.Owner`."""
        if self.on_spoiled is not None:
            self.on_spoiled(file.place)

    def forget(self, file: FaultFile) -> None:
        """See `file.Owner`."""
        with self._mutex:
            self._files.discard(file)
        if self._unsynced is not None and file.track is not None:
            self._unsynced.leave(file.track, file.inner)

    def reopen(self, file: FaultFile) -> File | None:
        """See `file.Owner`."""
        try:
            found = self.inner.open(file.place, Open.WRITE)
        except OSError:
            return None
        if file.track is not None and found.stat().inode == file.track.inode:
            return found
        found.close()
        return None

    # Names

    def _moved(self, old: str, new: str, *, exchanged: bool) -> None:
        """Open files follow a rename, also one of a folder above them."""
        moves = ((old, new), (new, old)) if exchanged else ((old, new),)
        with self._mutex:
            for file in self._files:
                for before, after in moves:
                    if file.place == before or file.place.startswith(f"{before}/"):
                        file.place = after + file.place[len(before) :]
                        break

    def _track(self, unsynced: Unsynced, inner: File, flags: Open) -> Track:
        writable = Open.WRITE in flags
        track = unsynced.join(inner.stat().inode, inner, writable=writable)
        if Open.TRUNCATE in flags:
            track.cut(0)
        return track

    def _last_name(self, path: str, unless: str | None = None) -> int | None:
        """The inode that is about to lose its last name, if that matters."""
        if self._unsynced is None:
            return None
        try:
            found = self.inner.stat(path)
            same = unless is not None and self.inner.stat(unless).inode == found.inode
        except (OSError, AvccfsError):
            return None  # The change itself will say what is wrong.
        return found.inode if found.nlink == 1 and not same else None

    def _removed(self, inode: int | None) -> None:
        if self._unsynced is not None and inode is not None:
            self._unsynced.removed(inode)
