"""A directory that asks before each thing it does, and what may be answered."""

from __future__ import annotations

import os
from collections.abc import Callable

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

Ask = Callable[[str, str], None]
"""Told what is about to be done, and to which path; raises to prevent it."""

CHANGES = frozenset(
    {"create", "write", "truncate", "sync", "remove", "rename", "link", "symlink", "mkdir", "rmdir"}
    | {"attributes", "owner", "sync names"}
)


class Dies(BaseException):
    """The process is killed."""


class Killed:
    """Lets `left` changes pass and none after that."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, what: str, path: str) -> None:
        if what in CHANGES:
            self.left -= 1
            if self.left < 0:
                raise Dies


class FailsOnce:
    """Fails the change after `left` others, with an errno."""

    def __init__(self, left: int, code: int) -> None:
        self.left = left
        self._code = code

    def __call__(self, what: str, path: str) -> None:
        if what in CHANGES:
            self.left -= 1
            if self.left == -1:
                raise OSError(self._code, os.strerror(self._code), path)


class Refuses:
    """Refuses some things always."""

    def __init__(self, code: int, *what: str, path: str | None = None) -> None:
        self.count = 0
        self._code = code
        self._what = what
        self._path = path

    def __call__(self, what: str, path: str) -> None:
        if what in self._what and self._path in (None, path):
            self.count += 1
            raise OSError(self._code, os.strerror(self._code), path)


def owns(change: Attributes) -> str:
    return "attributes" if change.uid is None and change.gid is None else "owner"


class WatchedFile:
    def __init__(self, inner: File, ask: Ask, path: str) -> None:
        self._inner = inner
        self._ask = ask
        self._path = path

    def read_at(self, size: int, offset: int) -> bytes:
        self._ask("read", self._path)
        return self._inner.read_at(size, offset)

    def write_at(self, data: Buffer, offset: int) -> int:
        self._ask("write", self._path)
        return self._inner.write_at(data, offset)

    def truncate(self, size: int) -> None:
        self._ask("truncate", self._path)
        self._inner.truncate(size)

    def sync(self, *, data_only: bool = False) -> None:
        self._ask("sync", self._path)
        self._inner.sync(data_only=data_only)

    def stat(self) -> Stat:
        return self._inner.stat()

    def set_attributes(self, change: Attributes) -> None:
        self._ask(owns(change), self._path)
        self._inner.set_attributes(change)

    def close(self) -> None:
        self._inner.close()


class Watched:
    """Asks `ask`, then hands on to `inner`."""

    def __init__(self, inner: Directory, ask: Ask) -> None:
        self._inner = inner
        self._ask = ask

    @property
    def read_only(self) -> bool:
        return self._inner.read_only

    @property
    def label(self) -> str:
        return self._inner.label

    def names(self, path: str = "") -> list[str]:
        return self._inner.names(path)

    def scan(self, path: str = "") -> list[tuple[str, Stat]]:
        return self._inner.scan(path)

    def stat(self, path: str = "") -> Stat:
        return self._inner.stat(path)

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> WatchedFile:
        if Open.CREATE in flags:
            self._ask("create", path)
        return WatchedFile(self._inner.open(path, flags, mode), self._ask, path)

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        self._ask("rename", old)
        self._inner.rename(old, new, how)

    def remove(self, path: str) -> None:
        self._ask("remove", path)
        self._inner.remove(path)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._ask("mkdir", path)
        self._inner.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        self._ask("rmdir", path)
        self._inner.rmdir(path)

    def symlink(self, path: str, target: str) -> None:
        self._ask("symlink", path)
        self._inner.symlink(path, target)

    def readlink(self, path: str) -> str:
        return self._inner.readlink(path)

    def link(self, existing: str, new: str) -> None:
        self._ask("link", existing)
        self._inner.link(existing, new)

    def set_attributes(self, path: str, change: Attributes) -> None:
        self._ask(owns(change), path)
        self._inner.set_attributes(path, change)

    def sync(self, path: str = "") -> None:
        self._ask("sync names", path)
        self._inner.sync(path)

    def space(self) -> Space:
        return self._inner.space()

    def lock(self, *, exclusive: bool) -> DirectoryLock | None:
        return self._inner.lock(exclusive=exclusive)

    def close(self) -> None:
        self._inner.close()
