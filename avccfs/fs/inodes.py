"""Which file a number on the mount stands for, and for how long.

Three things that are easily taken for one are kept apart here: an `Inode` is an identity that the
kernel was told about; `lookups` counts how often it was told, and the identity may be forgotten only
when the kernel has given all of them back; open handles (`handles.py`) live longer than names.

Numbers are our own and never used twice, so a number can never come to mean another file. A name
that this side replaced (CURRENT after a switch) is *detached*: the old number keeps standing for the
old file, the next lookup gets a new number, and the kernel cannot confuse the two. That matters
because with a write-back cache the kernel believes its own idea of a file's size for as long as it
knows the number.
"""

from __future__ import annotations

import stat as stat_module
from collections.abc import Iterator
from typing import TYPE_CHECKING

from avccfs.vfs.base import Stat, join

if TYPE_CHECKING:
    from avccfs.fs.handles import Handle

ROOT = 1


class StaleInodeError(Exception):
    """The number no longer stands for anything with a name; the caller must look the name up again."""


class Inode:
    """One file or folder, as the kernel knows it."""

    __slots__ = (
        "children",
        "former",
        "handles",
        "identity",
        "is_folder",
        "lookups",
        "names",
        "number",
    )

    def __init__(self, number: int, identity: int, *, is_folder: bool) -> None:
        self.number = number
        self.identity = identity
        """The inode number below, to notice that a name has come to mean another file."""
        self.is_folder = is_folder
        self.lookups = 0
        self.names: dict[tuple[Inode, str], None] = {}
        """Every (folder, name) that leads here; none for a file that was removed while in use."""
        self.children = 0
        """How many names known in this folder: their paths go through it."""
        self.former: str | None = None
        """The path of a file that this side replaced; under it lies what took its place."""
        self.handles: list[Handle] = []

    @property
    def path(self) -> str:
        """A path that leads here. Raises `StaleInodeError` when there is none any more."""
        parts: list[str] = []
        inode = self
        # Not recursive: folders may lie deeper than the stack.
        while inode.number != ROOT:
            if not inode.names:
                raise StaleInodeError(self.number)
            inode, name = next(iter(inode.names))
            parts.append(name)
        return "/".join(reversed(parts))

    @property
    def depth(self) -> int:
        """How many folders lie between the root and here; the root itself has depth 0."""
        path = self.path
        return path.count("/") + 1 if path else 0

    def __repr__(self) -> str:
        names = ", ".join(repr(name) for _, name in self.names) or "no name"
        return f"<Inode {self.number} ({names}), {self.lookups} lookups, {len(self.handles)} open>"


class InodeTable:
    """All identities in use. Not locked: the owner calls it from one thread at a time."""

    def __init__(self, root: Stat) -> None:
        self.root = Inode(ROOT, root.inode, is_folder=True)
        self.root.lookups = 1
        self._next = ROOT + 1
        self._by_number: dict[int, Inode] = {ROOT: self.root}
        self._by_name: dict[tuple[int, str], Inode] = {}
        # Only files with several names: the one case in which two names must share a number.
        self._shared: dict[int, Inode] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Inode]:
        return iter(self._by_number.values())

    def get(self, number: int) -> Inode:
        """The identity of a number. Raises `StaleInodeError` for one that was forgotten."""
        try:
            return self._by_number[number]
        except KeyError:
            raise StaleInodeError(number) from None

    def at(self, folder: Inode, name: str) -> Inode | None:
        """The identity that a name is known under, if the kernel knows it at all."""
        return self._by_name.get((folder.number, name))

    def bind(self, folder: Inode, name: str, found: Stat) -> Inode:
        """The identity of a name that a lookup has just found to be `found`."""
        key = (folder.number, name)
        inode = self._by_name.get(key)
        if inode is not None:
            if inode.identity == found.inode:
                return inode
            self._unbind(folder, name)
        is_folder = stat_module.S_ISDIR(found.mode)
        inode = None
        if found.nlink > 1 and not is_folder:
            inode = self._shared.get(found.inode)
        if inode is None:
            inode = self._new(found.inode, is_folder=is_folder)
            if found.nlink > 1 and not is_folder:
                self._shared[found.inode] = inode
        self._bind(inode, folder, name)
        return inode

    def nameless(self, identity: int) -> Inode:
        """A new identity that no name leads to: a file that is only being written so far."""
        return self._new(identity, is_folder=False)

    def share(self, inode: Inode) -> None:
        """Note that this file is about to have a second name."""
        self._shared[inode.identity] = inode

    def detach(self, folder: Inode, name: str) -> Inode | None:
        """Take a name away from its identity; returns that, or None if the name was not known."""
        inode = self._unbind(folder, name)
        self.drop_if_unused(folder)
        return inode

    def supersede(self, folder: Inode, name: str) -> None:
        """Detach a name that this side has given to another file, or is about to.

        The kernel may be on its way to the old number this very moment; `former` says what it wants.
        """
        inode = self.detach(folder, name)
        if inode is not None and not inode.names:
            inode.former = join(folder.path, name)

    def move(self, folder: Inode, name: str, new_folder: Inode, new_name: str) -> Inode | None:
        """Follow a rename; what the new name meant before is detached. Returns what moved."""
        if (folder.number, name) == (new_folder.number, new_name):
            return self._by_name.get((folder.number, name))
        self._unbind(new_folder, new_name)
        inode = self._take(folder, name)
        if inode is not None:
            self._bind(inode, new_folder, new_name)
        self.drop_if_unused(folder)
        self.drop_if_unused(new_folder)
        return inode

    def swap(self, folder: Inode, name: str, new_folder: Inode, new_name: str) -> None:
        """Follow an exchange of two names."""
        one, two = self._take(folder, name), self._take(new_folder, new_name)
        if one is not None:
            self._bind(one, new_folder, new_name)
        if two is not None:
            self._bind(two, folder, name)
        self.drop_if_unused(folder)
        self.drop_if_unused(new_folder)

    def forget(self, number: int, count: int) -> None:
        """The kernel gives back `count` lookups. An unknown number is ignored."""
        inode = self._by_number.get(number)
        if inode is None or number == ROOT:
            return
        inode.lookups = max(0, inode.lookups - count)
        self.drop_if_unused(inode)

    def drop_if_unused(self, inode: Inode) -> None:
        """Let an identity go that the kernel does not know, nobody has open and no path needs.

        With it go the folders above that were kept for its path only.
        """
        waiting = [inode]
        while waiting:
            one = waiting.pop()
            if one.lookups or one.handles or one.children or one.number == ROOT:
                continue
            for folder, name in list(one.names):
                self._unbind(folder, name)
                waiting.append(folder)
            self._by_number.pop(one.number, None)

    def _bind(self, inode: Inode, folder: Inode, name: str) -> None:
        inode.names[(folder, name)] = None
        self._by_name[(folder.number, name)] = inode
        folder.children += 1

    def _take(self, folder: Inode, name: str) -> Inode | None:
        inode = self._by_name.pop((folder.number, name), None)
        if inode is not None:
            del inode.names[(folder, name)]
            folder.children -= 1
        return inode

    def _unbind(self, folder: Inode, name: str) -> Inode | None:
        """As `_take`, for good: a file without any name is not shared any more."""
        inode = self._take(folder, name)
        if inode is not None and not inode.names and self._shared.get(inode.identity) is inode:
            del self._shared[inode.identity]
        return inode

    def _new(self, identity: int, *, is_folder: bool) -> Inode:
        inode = Inode(self._next, identity, is_folder=is_folder)
        self._by_number[self._next] = inode
        self._next += 1
        return inode
