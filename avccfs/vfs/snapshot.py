"""A directory's content as a plain value: what is read once, compared, and written out again.

A `Snapshot` maps the identity of each node to the node; `ROOT` is the directory itself. Names are
kept apart from the nodes they lead to, because a crash can lose one and keep the other: two names
of one node are hard links, and a node may have no name at all.
"""

from __future__ import annotations

import enum
import stat as stat_bits
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from avccfs.vfs.base import Directory, Open, join

ROOT = 0
"""The identity of the directory a snapshot was taken of."""


class NodeKind(enum.Enum):
    """What a node is. Sockets, pipes and devices hold nothing to lose: a snapshot skips them."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"


@dataclass(frozen=True, slots=True)
class Node:
    """A file with its content, a directory with its entries, or a symbolic link with its target."""

    kind: NodeKind
    mode: int
    """Permission bits."""
    content: bytes = b""
    target: str = ""
    entries: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Name to identity; only of a directory."""


Snapshot = Mapping[int, Node]


def take(directory: Directory, *, leave_out: Collection[str] = ()) -> dict[int, Node]:
    """Read all of a directory into a snapshot, except the paths to leave out.

    Raises what reading raises (`OSError`).
    """
    nodes: dict[int, Node] = {}
    linked: dict[int, int] = {}
    """Inode of a file with several names, to its identity here."""

    def read(path: str) -> bytes:
        handle = directory.open(path, Open.READ)
        try:
            return handle.read_at(handle.stat().size, 0)
        finally:
            handle.close()

    def visit(path: str, mode: int, identity: int) -> None:
        entries: dict[str, int] = {}
        # Takes the place of the directory, so that the nodes below get identities after it.
        nodes[identity] = Node(NodeKind.DIRECTORY, mode)
        for name, status in sorted(directory.scan(path)):
            below = join(path, name)
            bits = stat_bits.S_IMODE(status.mode)
            if below in leave_out:
                continue
            if status.inode in linked:
                entries[name] = linked[status.inode]
                continue
            child = len(nodes)
            if stat_bits.S_ISDIR(status.mode):
                visit(below, bits, child)
            elif stat_bits.S_ISLNK(status.mode):
                nodes[child] = Node(NodeKind.SYMLINK, bits, target=directory.readlink(below))
            elif stat_bits.S_ISREG(status.mode):
                nodes[child] = Node(NodeKind.FILE, bits, content=read(below))
                if status.nlink > 1:
                    linked[status.inode] = child
            else:
                continue
            entries[name] = child
        nodes[identity] = Node(NodeKind.DIRECTORY, mode, entries=MappingProxyType(entries))

    visit("", stat_bits.S_IMODE(directory.stat().mode), ROOT)
    return nodes


def walk(snapshot: Snapshot) -> Iterator[tuple[str, int]]:
    """Path and identity of everything that has a name, parents first, names sorted.

    A directory that a lost half of a rename made its own descendant is entered only once a branch.
    """

    def visit(path: str, identity: int, above: frozenset[int]) -> Iterator[tuple[str, int]]:
        for name, child in sorted(snapshot[identity].entries.items()):
            if child in above:
                continue
            below = join(path, name)
            yield below, child
            if snapshot[child].kind is NodeKind.DIRECTORY:
                yield from visit(below, child, above | {child})

    yield from visit("", ROOT, frozenset({ROOT}))


def put(snapshot: Snapshot, directory: Directory) -> None:
    """Write a snapshot into an empty directory and sync all of it.

    Two names of one file become hard links, as they were. A directory with two names (half of a
    rename was lost) becomes two directories, because nothing lets such a thing be made.
    Raises `FileExistsError` where a name is taken.
    """
    first: dict[int, str] = {}
    folders = [""]
    for path, identity in walk(snapshot):
        node = snapshot[identity]
        match node.kind:
            case NodeKind.DIRECTORY:
                directory.mkdir(path, node.mode)
                folders.append(path)
            case NodeKind.SYMLINK:
                directory.symlink(path, node.target)
            case NodeKind.FILE if identity in first:
                directory.link(first[identity], path)
            case NodeKind.FILE:
                first[identity] = path
                flags = Open.WRITE | Open.CREATE | Open.EXCLUSIVE
                handle = directory.open(path, flags, node.mode)
                try:
                    if node.content:
                        handle.write_at(node.content, 0)
                    handle.sync()
                finally:
                    handle.close()
    for path in folders:
        directory.sync(path)


def contents(snapshot: Snapshot) -> dict[str, bytes]:
    """Path to content of every regular file that has a name."""
    return {
        path: snapshot[identity].content
        for path, identity in walk(snapshot)
        if snapshot[identity].kind is NodeKind.FILE
    }
