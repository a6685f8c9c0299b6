"""A crash state as a directory: to look into, or to put down somewhere and run an engine on."""

from __future__ import annotations

import errno
import os
import stat as stat_bits

from avccfs.crash.states import State
from avccfs.vfs import rules
from avccfs.vfs import snapshot as snapshots
from avccfs.vfs.base import (
    Attributes,
    Buffer,
    Directory,
    DirectoryLock,
    Open,
    Rename,
    Space,
    Stat,
    join,
)
from avccfs.vfs.snapshot import ROOT, Node, NodeKind, Snapshot, walk

_TYPE_BITS = {
    NodeKind.FILE: stat_bits.S_IFREG,
    NodeKind.DIRECTORY: stat_bits.S_IFDIR,
    NodeKind.SYMLINK: stat_bits.S_IFLNK,
}


def materialise(state: State, directory: Directory) -> None:
    """Write a state into an empty directory, and sync it."""
    snapshots.put(state.snapshot(), directory)


class CrashImage:
    """A read-only `Directory` over a snapshot, which is what a crash state shows.

    Everything that would change it raises `ReadOnlyError`. Times are 0, and nobody owns the files.
    """

    def __init__(self, snapshot: Snapshot, label: str = "crash:") -> None:
        self._nodes = snapshot
        self._label = label
        self._closed = False
        self._links: dict[int, int] = {}
        for _, identity in walk(snapshot):
            self._links[identity] = self._links.get(identity, 0) + 1

    @property
    def read_only(self) -> bool:
        """True."""
        return True

    @property
    def label(self) -> str:
        """What it was called when it was made."""
        return self._label

    def names(self, path: str = "") -> list[str]:
        """See `Directory`."""
        return list(self._folder(path).entries)

    def scan(self, path: str = "") -> list[tuple[str, Stat]]:
        """See `Directory`."""
        return [(name, self.stat(join(path, name))) for name in self.names(path)]

    def stat(self, path: str = "") -> Stat:
        """See `Directory`."""
        identity = self._find(path)
        return _stat(identity, self._nodes[identity], self._links.get(identity, 1))

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> _ImageFile:
        """See `Directory`; for reading only."""
        rules.check_open(flags, path)
        if flags & Open.WRITE:
            raise self._refusal(path)
        identity = self._find(path)
        match self._nodes[identity].kind:
            case NodeKind.DIRECTORY:
                raise rules.error(errno.EISDIR, path)
            case NodeKind.SYMLINK:
                raise rules.error(errno.ELOOP, path)
        return _ImageFile(self, path, self.stat(path), self._nodes[identity].content)

    def readlink(self, path: str) -> str:
        """See `Directory`."""
        node = self._nodes[self._find(path)]
        if node.kind is not NodeKind.SYMLINK:
            raise rules.error(errno.EINVAL, path)
        return node.target

    def space(self) -> Space:
        """See `Directory`: there is no room."""
        self._check()
        return Space()

    def lock(self, *, exclusive: bool) -> DirectoryLock | None:
        """A shared lock is not needed: nobody can write here."""
        self._check()
        if exclusive:
            raise self._refusal("")
        return None

    def close(self) -> None:
        """See `Directory`."""
        self._closed = True

    # What is refused

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        """Refused."""
        raise self._refusal(old)

    def remove(self, path: str) -> None:
        """Refused."""
        raise self._refusal(path)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Refused."""
        raise self._refusal(path)

    def rmdir(self, path: str) -> None:
        """Refused."""
        raise self._refusal(path)

    def symlink(self, path: str, target: str) -> None:
        """Refused."""
        raise self._refusal(path)

    def link(self, existing: str, new: str) -> None:
        """Refused."""
        raise self._refusal(new)

    def set_attributes(self, path: str, change: Attributes) -> None:
        """Refused."""
        raise self._refusal(path)

    def sync(self, path: str = "") -> None:
        """Refused."""
        raise self._refusal(path)

    def _refusal(self, path: str) -> Exception:
        self._check()
        return rules.read_only(self._label, path)

    def _check(self) -> None:
        if self._closed:
            raise rules.closed_directory(self._label)

    def _find(self, path: str) -> int:
        self._check()
        identity = ROOT
        for part in rules.components(path):
            node = self._nodes[identity]
            if node.kind is not NodeKind.DIRECTORY:
                raise rules.error(errno.ENOTDIR, path)
            if part not in node.entries:
                raise rules.error(errno.ENOENT, path)
            identity = node.entries[part]
        return identity

    def _folder(self, path: str) -> Node:
        node = self._nodes[self._find(path)]
        if node.kind is not NodeKind.DIRECTORY:
            raise rules.error(errno.ENOTDIR, path)
        return node


class _ImageFile:
    def __init__(self, image: CrashImage, path: str, status: Stat, content: bytes) -> None:
        self._image = image
        self._path = path
        self._status = status
        self._content = content
        self._closed = False

    def read_at(self, size: int, offset: int) -> bytes:
        self._check()
        return self._content[offset : offset + size]

    def write_at(self, data: Buffer, offset: int) -> int:
        raise self._refusal()

    def truncate(self, size: int) -> None:
        raise self._refusal()

    def sync(self, *, data_only: bool = False) -> None:
        self._check()

    def stat(self) -> Stat:
        self._check()
        return self._status

    def set_attributes(self, change: Attributes) -> None:
        raise self._refusal()

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise rules.closed_file(self._path)

    def _refusal(self) -> Exception:
        self._check()
        return self._image._refusal(self._path)


def _stat(identity: int, node: Node, links: int) -> Stat:
    size = len(node.content) or len(os.fsencode(node.target))
    return Stat(
        mode=_TYPE_BITS[node.kind] | node.mode,
        size=size,
        inode=identity + 1,
        nlink=links,
        blocks=-(-size // 512),
    )
