"""What each change of names does to the merged tree, with the errors of a local directory.

A change is collected in a `Change`; its owner writes it down and carries it out. The order of the
checks is the kernel's, because it decides which error comes out.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace

from avccfs.vfs import rules
from avccfs.vfs.base import Attributes, Rename
from avccfs.vfs.overlay.nodes import FolderNode, Node, OtherNode
from avccfs.vfs.overlay.state import Kind, State, merged
from avccfs.vfs.overlay.tree import Change, Tree


def rename(change: Change, old: str, new: str, how: Rename) -> None:
    """A name goes, another comes, and both mean the same node."""
    tree = change.tree
    old_folder, old_name = tree.place(old, root=errno.EBUSY)
    new_folder, new_name = tree.place(new, root=errno.EBUSY)
    source = tree.child(old_folder, old_name)
    if source is None:
        raise rules.error(errno.ENOENT, old)
    target = tree.child(new_folder, new_name)
    if how is Rename.NOREPLACE and target is not None:
        raise rules.error(errno.EEXIST, new)
    if how is Rename.EXCHANGE and target is None:
        raise rules.error(errno.ENOENT, new)
    # No link is ever followed, so a path says what lies in what.
    if new.startswith(f"{old}/"):
        raise rules.error(errno.EINVAL, old)
    if old.startswith(f"{new}/"):
        code = errno.EINVAL if how is Rename.EXCHANGE else errno.ENOTEMPTY
        raise rules.error(code, new)
    if target is source:
        return
    change.take(old_folder, old_name, source)
    if target is not None and how is Rename.EXCHANGE:
        change.take(new_folder, new_name, target)
        change.put(old_folder, old_name, target)
    elif target is not None:
        _check_replace(tree, source, target, new)
        change.drop(new_folder, new_name, target)
    change.put(new_folder, new_name, source)


def _check_replace(tree: Tree, source: Node, target: Node, new: str) -> None:
    if isinstance(source, FolderNode):
        if not isinstance(target, FolderNode):
            raise rules.error(errno.ENOTDIR, new)
        if tree.names(target):
            raise rules.error(errno.ENOTEMPTY, new)
    elif isinstance(target, FolderNode):
        raise rules.error(errno.EISDIR, new)


def remove(change: Change, path: str) -> None:
    """A name goes, and with the last one its file."""
    folder, name = change.tree.place(path, root=errno.EISDIR)
    node = _existing(change.tree, folder, name, path)
    if isinstance(node, FolderNode):
        raise rules.error(errno.EISDIR, path)
    change.drop(folder, name, node)


def mkdir(change: Change, path: str, mode: int) -> None:
    """A new folder; what lies below at its path does not show through."""
    folder, name = change.tree.free_place(path)
    own = _owner(change.now, stat.S_IFDIR | stat.S_IMODE(mode))
    change.put(folder, name, FolderNode(State(Kind.FOLDER, 0, 2, own=own)))


def rmdir(change: Change, path: str) -> None:
    """An empty folder goes."""
    folder, name = change.tree.place(path, root=errno.EBUSY)
    node = _existing(change.tree, folder, name, path)
    if not isinstance(node, FolderNode):
        raise rules.error(errno.ENOTDIR, path)
    if change.tree.names(node):
        raise rules.error(errno.ENOTEMPTY, path)
    change.drop(folder, name, node)


def symlink(change: Change, path: str, target: str) -> None:
    """A new symbolic link."""
    change.tree.place(path, root=errno.EEXIST)
    rules.check_target(target, path)
    folder, name = change.tree.free_place(path)
    own = _owner(change.now, stat.S_IFLNK | 0o777)
    change.put(folder, name, OtherNode(State(Kind.OTHER, 0, 1, target=target, own=own)))


def link(change: Change, existing: str, new: str) -> None:
    """Another name for a file."""
    tree = change.tree
    # Both ways are walked before either entry is looked at, as by a local directory.
    if existing:
        tree.place(existing, root=errno.EPERM)
    tree.place(new, root=errno.EEXIST)
    node = tree.node(existing)
    folder, name = tree.free_place(new)
    if isinstance(node, FolderNode):
        raise rules.error(errno.EPERM, existing)
    change.set(node, replace(node.state, nlink=node.state.nlink + 1))
    change.put(folder, name, node)


def attributes(tree: Tree, node: Node, change: Attributes, path: str) -> Change | None:
    """Other attributes for what is no file; None if nothing changes."""
    kind = stat.S_IFMT(node.stat(tree.lower).mode)
    if change.mode is not None:
        if stat.S_ISLNK(kind):
            raise rules.error(errno.EOPNOTSUPP, path)
        change = replace(change, mode=kind | stat.S_IMODE(change.mode))
    if change == Attributes():
        return None
    made = Change(tree)
    own = merged(node.state.own, change)
    made.set(node, replace(node.state, own=own, ctime_ns=made.now))
    return made


def _existing(tree: Tree, folder: FolderNode, name: str, path: str) -> Node:
    node = tree.child(folder, name)
    if node is None:
        raise rules.error(errno.ENOENT, path)
    return node


def _owner(now: int, mode: int) -> Attributes:
    """The attributes of something new."""
    uid = os.getuid() if hasattr(os, "getuid") else 0
    gid = os.getgid() if hasattr(os, "getgid") else 0
    return Attributes(mode=mode, uid=uid, gid=gid, atime_ns=now, mtime_ns=now)
