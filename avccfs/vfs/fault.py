"""Storage that fails on demand: any directory under a `FaultPlan` (SPEC section 3, "Fault storage").

plan = FaultPlan()
directory = FaultDirectory(LocalDirectory(path), plan)
plan.fail(Op.WRITE | Op.SYNC, Kind.MANIFEST, OneIn(10, seed=7), error=errno.ENOSPC)
"""

from __future__ import annotations

from avccfs.format import filename
from avccfs.vfs.base import (
    Attributes,
    Buffer,
    Directory,
    DirectoryLock,
    File,
    Open,
    Rename,
    Space,
    Stat,
)
from avccfs.vfs.faultplan import (
    ALL_KINDS,
    ALL_OPS,
    Always,
    Armed,
    FaultPlan,
    Once,
    OneIn,
    Op,
    Trigger,
    kind_of_path,
)

__all__ = [
    "ALL_KINDS",
    "ALL_OPS",
    "Always",
    "Armed",
    "FaultDirectory",
    "FaultFile",
    "FaultPlan",
    "Once",
    "OneIn",
    "Op",
    "Trigger",
    "kind_of_path",
]


class FaultFile:
    """An open file under a plan. Its kind is that of the name it was opened by."""

    def __init__(self, inner: File, plan: FaultPlan, path: str) -> None:
        self._inner = inner
        self._plan = plan
        self._path = path
        self._kind = kind_of_path(path)
        self._closed = False

    def read_at(self, size: int, offset: int) -> bytes:
        """Op.READ."""
        self._plan.before(Op.READ, self._kind, self._path)
        data = self._inner.read_at(size, offset)
        self._plan.moved(Op.READ, self._kind, len(data))
        return data

    def write_at(self, data: Buffer, offset: int) -> int:
        """Op.WRITE."""
        self._plan.before(Op.WRITE, self._kind, self._path)
        count = self._inner.write_at(data, offset)
        self._plan.moved(Op.WRITE, self._kind, count)
        return count

    def truncate(self, size: int) -> None:
        """Op.TRUNCATE."""
        self._plan.before(Op.TRUNCATE, self._kind, self._path)
        self._inner.truncate(size)

    def sync(self, *, data_only: bool = False) -> None:
        """Op.SYNC."""
        self._plan.before(Op.SYNC, self._kind, self._path)
        self._inner.sync(data_only=data_only)

    def stat(self) -> Stat:
        """Op.STAT."""
        self._plan.before(Op.STAT, self._kind, self._path)
        return self._inner.stat()

    def set_attributes(self, change: Attributes) -> None:
        """Op.SET_ATTRIBUTES."""
        self._plan.before(Op.SET_ATTRIBUTES, self._kind, self._path)
        self._inner.set_attributes(change)

    def close(self) -> None:
        """Op.CLOSE, the first time; the inner handle is released in any case."""
        if self._closed:
            return
        self._closed = True
        try:
            self._plan.before(Op.CLOSE, self._kind, self._path)
        finally:
            self._inner.close()


class FaultDirectory:
    """A directory under a plan: the plan is asked first, then `inner` does it.

    What is asked of a closed directory reaches the plan too. Closing the directory is no operation
    of the plan; it closes `inner`.
    """

    def __init__(self, inner: Directory, plan: FaultPlan) -> None:
        self.inner = inner
        self.plan = plan

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
        self._before(Op.LIST, path)
        return self.inner.names(path)

    def scan(self, path: str = "") -> list[tuple[str, Stat]]:
        """Op.LIST."""
        self._before(Op.LIST, path)
        return self.inner.scan(path)

    def stat(self, path: str = "") -> Stat:
        """Op.STAT."""
        self._before(Op.STAT, path)
        return self.inner.stat(path)

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> FaultFile:
        """Op.CREATE with `Open.CREATE`, else Op.OPEN."""
        self._before(Op.CREATE if Open.CREATE in flags else Op.OPEN, path)
        return FaultFile(self.inner.open(path, flags, mode), self.plan, path)

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        """Op.RENAME of the kind of the *old* name."""
        self._before(Op.RENAME, old)
        self.inner.rename(old, new, how)

    def remove(self, path: str) -> None:
        """Op.REMOVE."""
        self._before(Op.REMOVE, path)
        self.inner.remove(path)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Op.MKDIR."""
        self._before(Op.MKDIR, path)
        self.inner.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        """Op.RMDIR."""
        self._before(Op.RMDIR, path)
        self.inner.rmdir(path)

    def symlink(self, path: str, target: str) -> None:
        """Op.SYMLINK of the kind of the link's name."""
        self._before(Op.SYMLINK, path)
        self.inner.symlink(path, target)

    def readlink(self, path: str) -> str:
        """Op.READLINK."""
        self._before(Op.READLINK, path)
        return self.inner.readlink(path)

    def link(self, existing: str, new: str) -> None:
        """Op.LINK of the kind of the *existing* name."""
        self._before(Op.LINK, existing)
        self.inner.link(existing, new)

    def set_attributes(self, path: str, change: Attributes) -> None:
        """Op.SET_ATTRIBUTES."""
        self._before(Op.SET_ATTRIBUTES, path)
        self.inner.set_attributes(path, change)

    def sync(self, path: str = "") -> None:
        """Op.SYNC_DIR."""
        self._before(Op.SYNC_DIR, path)
        self.inner.sync(path)

    def space(self) -> Space:
        """Op.SPACE."""
        self._before(Op.SPACE, "")
        return self.inner.space()

    def lock(self, *, exclusive: bool) -> DirectoryLock | None:
        """Op.LOCK, always of the kind LOCK."""
        self._before(Op.LOCK, filename.LOCK)
        return self.inner.lock(exclusive=exclusive)

    def close(self) -> None:
        """Close the inner directory."""
        self.inner.close()

    def _before(self, op: Op, path: str) -> None:
        self.plan.before(op, kind_of_path(path), path)
