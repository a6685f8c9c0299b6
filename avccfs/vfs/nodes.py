"""What a directory in memory is made of: files, folders, links, and the room they share.

Nothing here is safe between threads; `vfs.memory` holds the mutex of the `Disk`.
"""

from __future__ import annotations

import itertools
import os
import stat
import threading
import time
from dataclasses import dataclass, field

from avccfs.vfs.base import Attributes, Stat
from avccfs.vfs.sparse import PAGE, SparseBytes


@dataclass(slots=True, eq=False)
class Node:
    """What every entry has; `mode` includes the type."""

    inode: int
    mode: int
    uid: int = field(default_factory=lambda: os.getuid() if hasattr(os, "getuid") else 0)
    gid: int = field(default_factory=lambda: os.getgid() if hasattr(os, "getgid") else 0)
    nlink: int = 1
    atime_ns: int = field(default_factory=time.time_ns)
    mtime_ns: int = 0
    ctime_ns: int = 0

    def __post_init__(self) -> None:
        self.mtime_ns = self.ctime_ns = self.atime_ns

    def modified(self) -> None:
        """The content changed now."""
        self.mtime_ns = self.ctime_ns = time.time_ns()

    def changed(self) -> None:
        """Something about it changed now, the content not."""
        self.ctime_ns = time.time_ns()

    def set(self, change: Attributes) -> None:
        """Apply a change of attributes."""
        if change.mode is not None:
            self.mode = stat.S_IFMT(self.mode) | stat.S_IMODE(change.mode)
        self.uid = self.uid if change.uid is None else change.uid
        self.gid = self.gid if change.gid is None else change.gid
        self.atime_ns = self.atime_ns if change.atime_ns is None else change.atime_ns
        self.mtime_ns = self.mtime_ns if change.mtime_ns is None else change.mtime_ns
        if change != Attributes():
            self.changed()


@dataclass(slots=True, eq=False)
class FileNode(Node):
    """A regular file; `opens` counts its handles."""

    data: SparseBytes = field(default_factory=SparseBytes)
    opens: int = 0


@dataclass(slots=True, eq=False)
class LinkNode(Node):
    """A symbolic link."""

    target: str = ""


@dataclass(slots=True, eq=False)
class FolderNode(Node):
    """A folder; `parent` is None for the root, and for one that was removed."""

    parent: FolderNode | None = None
    entries: dict[str, Node] = field(default_factory=dict)

    def within(self, other: Node) -> bool:
        """Whether this folder is `other`, or lies anywhere in it."""
        folder: FolderNode | None = self
        while folder is not None and folder is not other:
            folder = folder.parent
        return folder is not None


def stat_of(node: Node) -> Stat:
    """What `stat` tells of a node."""
    size = allocated = 0
    if isinstance(node, FileNode):
        size, allocated = node.data.size, node.data.allocated
    elif isinstance(node, LinkNode):
        size = len(os.fsencode(node.target))
    return Stat(
        mode=node.mode,
        size=size,
        inode=node.inode,
        nlink=node.nlink,
        uid=node.uid,
        gid=node.gid,
        blocks=allocated // 512,
        atime_ns=node.atime_ns,
        mtime_ns=node.mtime_ns,
        ctime_ns=node.ctime_ns,
        blksize=PAGE,
    )


class Disk:
    """What files and names share: one mutex, the room left, the inode numbers."""

    def __init__(self, capacity: int | None) -> None:
        self.mutex = threading.RLock()
        self.capacity = capacity
        self.used = 0
        self.inodes = itertools.count(1)

    def write(self, node: FileNode, content: memoryview, offset: int) -> int:
        """Write what there is room for; returns how much that was."""
        before = node.data.allocated
        room = None if self.capacity is None else self.capacity - self.used
        done = node.data.write(content, offset, room)
        self.used += node.data.allocated - before
        return done

    def truncate(self, node: FileNode, size: int) -> None:
        """Cut or extend, and give back the room."""
        before = node.data.allocated
        node.data.truncate(size)
        self.used += node.data.allocated - before

    def forget(self, node: Node) -> None:
        """Give back the room of a file that has neither a name nor a handle left."""
        if isinstance(node, FileNode) and not node.nlink and not node.opens:
            self.truncate(node, 0)
