"""The nodes that an overlay holds on to: those that changed, and those that are open.

Everything else is looked up in the lower directory each time. A node's `state` is replaced as a
whole, so that whoever reads it needs no lock.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from avccfs.vfs.base import Directory, Stat
from avccfs.vfs.overlay.state import NOTHING, Kind, State


class Node:
    """A node of the merged tree."""

    __slots__ = ("pins", "state", "ticket")

    def __init__(self, state: State) -> None:
        self.state = state
        self.pins = 0
        """How many are using it: open handles, and operations under way."""
        self.ticket = 0
        """The ledger's for the last change of it."""

    def stat(self, lower: Directory) -> Stat:
        """What `stat` tells of it. Raises what the lower directory raises."""
        state = self.state
        if state.origin is None:
            size = len(os.fsencode(state.target))
            told = Stat(state.own.mode or 0, size, state.inode)
        else:
            told = lower.stat(state.origin)
        return shown(told, state)


class OtherNode(Node):
    """A symbolic link, or something special from below."""

    __slots__ = ()

    def readlink(self, lower: Directory) -> str:
        """Where it points."""
        origin = self.state.origin
        return self.state.target if origin is None else lower.readlink(origin)


class FolderNode(Node):
    """A folder: the changes to the names of a lower folder, or all names of a new one."""

    __slots__ = ("below", "entries")

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.entries: dict[str, Node | None] = {}
        """Names that lead elsewhere than in the lower folder; None: nowhere."""
        self.below: frozenset[str] | None = None if state.origin is not None else frozenset()
        """The names in the lower folder; None until somebody asks."""

    def names_below(self, lower: Directory) -> frozenset[str]:
        """The names in the lower folder. It never changes, so it is read once."""
        below = self.below
        if below is None:
            below = self.below = frozenset(lower.names(self.state.origin or ""))
        return below


def shown(told: Stat, state: State) -> Stat:
    """`told` of the lower node, or of the file with our bytes, with what we know better."""
    own = state.own
    if own == NOTHING and (told.inode, told.nlink) == (state.inode, state.nlink):
        return told if state.ctime_ns <= told.ctime_ns else replace(told, ctime_ns=state.ctime_ns)
    return Stat(
        mode=told.mode if own.mode is None else stat.S_IFMT(told.mode) | stat.S_IMODE(own.mode),
        size=told.size,
        inode=state.inode,
        nlink=state.nlink,
        uid=told.uid if own.uid is None else own.uid,
        gid=told.gid if own.gid is None else own.gid,
        blocks=told.blocks,
        atime_ns=told.atime_ns if own.atime_ns is None else own.atime_ns,
        mtime_ns=told.mtime_ns if own.mtime_ns is None else own.mtime_ns,
        ctime_ns=max(told.ctime_ns, state.ctime_ns),
        rdev=told.rdev,
        blksize=told.blksize,
    )


def kind_of(mode: int) -> Kind:
    """The kind of a node by its mode."""
    if stat.S_ISREG(mode):
        return Kind.FILE
    return Kind.FOLDER if stat.S_ISDIR(mode) else Kind.OTHER
