"""The merged tree: which node a path leads to, and how a change of names is carried out.

A name leads to what the changes of its folder say, else to a lower node that is held because it
changed or is open, else to whatever the lower directory has there. Everything in this module is
called with `Tree.mutex` held, unless it says otherwise.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from avccfs.vfs import rules
from avccfs.vfs.base import Attributes, Directory, Stat, join, split
from avccfs.vfs.overlay.nodes import FolderNode, Node, OtherNode, kind_of
from avccfs.vfs.overlay.state import NEW_INODES, ROOT, UNRECORDED, Json, Kind, State, merged

NAME_MAX = 255
"""The longest name, in bytes."""
_SURELY_SHORT = NAME_MAX // 4

_ABSENT: Final = object()

# In a record: what a name leads to when it leads to no node.
_NOWHERE, _AS_BELOW = 0, -1


@dataclass(frozen=True, slots=True)
class Below:
    """A lower node of which nothing is held."""

    path: str
    stat: Stat


class Change:
    """A change of names and nodes that is carried out, and written down, as a whole."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.now = time.time_ns()
        self.states: dict[Node, State] = {}
        self.names: list[tuple[FolderNode, str, Node | None, bool]] = []
        """Folder, name, node, and whether the name is from now on what it is below."""

    def state(self, node: Node) -> State:
        """The state of a node so far."""
        return self.states.get(node, node.state)

    def set(self, node: Node, state: State) -> None:
        """Give a node a state."""
        self.states[node] = state

    def take(self, folder: FolderNode, name: str, node: Node) -> None:
        """Take a name away."""
        as_below = name not in folder.names_below(self.tree.lower)
        self.names.append((folder, name, None, as_below))
        if isinstance(node, FolderNode):
            self._count(folder, -1)

    def put(self, folder: FolderNode, name: str, node: Node) -> None:
        """Let a name lead to a node."""
        self.names.append((folder, name, node, self.tree.is_natural(folder, name, node)))
        self.set(node, replace(self.state(node), ctime_ns=self.now))
        if isinstance(node, FolderNode):
            self._count(folder, 1)

    def drop(self, folder: FolderNode, name: str, node: Node) -> None:
        """Take a name away, and the node if it was the last."""
        self.take(folder, name, node)
        state = self.state(node)
        nlink = 0 if isinstance(node, FolderNode) else state.nlink - 1
        self.set(node, replace(state, nlink=nlink, ctime_ns=self.now))

    def _count(self, folder: FolderNode, difference: int) -> None:
        state = self.state(folder)
        # 1 is what file systems say that do not count the folders in a folder.
        if state.nlink > 1:
            self.set(folder, replace(state, nlink=state.nlink + difference))


class Tree:
    """The nodes and names of an overlay. `record` writes a change down before it is carried out."""

    def __init__(self, lower: Directory, make_file: Callable[[State], Node]) -> None:
        """`make_file` makes the node of a file."""
        self.mutex = threading.RLock()
        self.lower = lower
        self.record: Callable[[Change], int] = lambda _: 0
        """Writes a change down (`told_of`) and returns the ledger's ticket for it."""
        self._make_file = make_file
        self.pinned: set[Node] = set()
        """The nodes that are in use."""
        self._next = ROOT + 1
        self._clear()

    def _clear(self) -> None:
        self._nodes: dict[int, Node] = {}
        """Every node that something has to be remembered of, by number."""
        self._by_origin: dict[str, Node] = {}
        """The held nodes at their lower paths, those with several names below aside."""
        self._by_inode: dict[int, Node] = {}
        """The held files that have several names below."""
        told = self.lower.stat()
        self.root = FolderNode(State(Kind.FOLDER, told.inode, told.nlink, id=ROOT, origin=""))
        self._nodes[ROOT] = self.root

    def next_number(self) -> int:
        """A number for a node or a file of ours that was never used before."""
        self._next += 1
        return self._next - 1

    def take_number(self) -> int:
        """As `next_number`, for whoever does not hold the mutex."""
        with self.mutex:
            return self.next_number()

    def skip(self, number: int) -> None:
        """Never hand this number out, nor any below it."""
        self._next = max(self._next, number + 1)

    @property
    def nodes(self) -> Iterator[Node]:
        """Every node that something has to be remembered of."""
        return iter(self._nodes.values())

    # Paths

    def place(self, path: str, *, root: int) -> tuple[FolderNode, str]:
        """The folder and the name a path leads to; `root` is the errno for the empty path."""
        parts = rules.components(path)
        if not parts:
            raise rules.error(root, path)
        folder = self.root
        for name in parts[:-1]:
            folder = self._enter(folder, name, path)
        return folder, parts[-1]

    def free_place(self, path: str) -> tuple[FolderNode, str]:
        """The folder and the name for something new."""
        folder, name = self.place(path, root=errno.EEXIST)
        if self.look(folder, name) is not None:
            raise rules.error(errno.EEXIST, path)
        return folder, name

    def find(self, path: str) -> Node | Below:
        """What a path leads to."""
        if not path:
            return self.root
        folder, name = self.place(path, root=errno.EINVAL)
        found = self.look(folder, name)
        if found is None:
            raise rules.error(errno.ENOENT, path)
        return found

    def node(self, path: str) -> Node:
        """The node a path leads to, held from now on."""
        return self.hold(self.find(path))

    def folder(self, path: str) -> FolderNode:
        """The folder a path leads to."""
        if not path:
            return self.root
        folder, name = self.place(path, root=errno.EINVAL)
        return self._enter(folder, name, path)

    def _enter(self, folder: FolderNode, name: str, path: str) -> FolderNode:
        found = self.look(folder, name)
        if isinstance(found, Below):
            if kind_of(found.stat.mode) is Kind.FOLDER:
                found = self.hold(found)
            else:
                raise rules.error(_not_a_folder(found.stat.mode), path)
        if isinstance(found, FolderNode):
            return found
        if found is None:
            raise rules.error(errno.ENOENT, path)
        raise rules.error(_not_a_folder(found.stat(self.lower).mode), path)

    # Names

    def look(self, folder: FolderNode, name: str) -> Node | Below | None:
        """What a name in a folder leads to."""
        found = self.look_above(folder, name)
        if found is not _ABSENT:
            return found if isinstance(found, Node) else None
        path = join(folder.state.origin or "", name)
        try:
            told = self.lower.stat(path)
        except FileNotFoundError:
            return None
        return self.known(Below(path, told))

    def known(self, below: Below) -> Node | Below:
        """The held node of a lower file with several names, or what was given."""
        told = below.stat
        if told.nlink < 2 or kind_of(told.mode) is Kind.FOLDER:
            return below
        return self._by_inode.get(told.inode, below)

    def look_above(self, folder: FolderNode, name: str) -> object:
        """A node, None for nothing, or something else: what is there is the lower node."""
        if len(name) > _SURELY_SHORT and len(os.fsencode(name)) > NAME_MAX:
            raise rules.error(errno.ENAMETOOLONG, name)
        entry = folder.entries.get(name, _ABSENT)
        if entry is not _ABSENT:
            return entry
        origin = folder.state.origin
        if origin is None or (folder.below is not None and name not in folder.below):
            return None
        return self._by_origin.get(f"{origin}/{name}" if origin else name, _ABSENT)

    def child(self, folder: FolderNode, name: str) -> Node | None:
        """The node a name leads to, held from now on."""
        found = self.look(folder, name)
        return None if found is None else self.hold(found)

    def hold(self, found: Node | Below) -> Node:
        """The node, made now for one that was not held."""
        if isinstance(found, Node):
            return found
        told, path = found.stat, found.path
        kind = kind_of(told.mode)
        linked = told.nlink > 1 and kind is not Kind.FOLDER
        size = told.size if kind is Kind.FILE else 0
        state = State(kind, told.inode, told.nlink, origin=path, linked=linked, limit=size)
        node = self._make(state)
        self._register(node, state)
        return node

    def pin(self, node: Node) -> None:
        """Keep a node until `unpin`."""
        node.pins += 1
        self.pinned.add(node)

    def forget(self, node: Node) -> None:
        """Do not hold a node any longer that nobody uses and that did not change."""
        if not node.pins and node.state.id == UNRECORDED:
            self._unregister(node)

    def unpin(self, node: Node) -> bool:
        """Whether nobody uses it any more. If nothing has to be remembered of it, it is forgotten."""
        node.pins -= 1
        if node.pins:
            return False
        self.pinned.discard(node)
        self.forget(node)
        return True

    def names(self, folder: FolderNode) -> list[str]:
        """The names in a folder."""
        entries = folder.entries
        if not entries:
            origin = folder.state.origin
            return [] if origin is None else self.lower.names(origin)
        found = [name for name in folder.names_below(self.lower) if name not in entries]
        found += [name for name, node in entries.items() if node is not None]
        return found

    def scan(self, folder: FolderNode, below: list[tuple[str, Stat]]) -> list[tuple[str, Stat]]:
        """The names in a folder with what `stat` tells; `below` is the listing of the lower one."""
        entries, origin = folder.entries, folder.state.origin
        found: list[tuple[str, Stat]] = []
        if self._by_origin or self._by_inode or entries:
            prefix = f"{origin}/" if origin else ""
            for name, told in below:
                if name in entries:
                    continue
                node = self._by_origin.get(prefix + name)
                if node is None and told.nlink > 1:
                    node = self._by_inode.get(told.inode)
                    if node is not None and kind_of(told.mode) is Kind.FOLDER:
                        node = None
                found.append((name, told if node is None else node.stat(self.lower)))
        else:
            found = below
        for name, node in entries.items():
            if node is not None:
                found.append((name, node.stat(self.lower)))
        return found

    def is_natural(self, folder: FolderNode, name: str, node: Node) -> bool:
        """Whether a node lies where it lies below."""
        state, origin = node.state, folder.state.origin
        if origin is None or state.origin is None:
            return False
        if not state.linked:
            return state.origin == join(origin, name)
        if name not in folder.names_below(self.lower):
            return False
        return self.lower.stat(join(origin, name)).inode == state.inode

    # Changing

    def commit(self, change: Change) -> None:
        """Number what is new, write the change down, and carry it out; or raise, and do neither."""
        for folder, _, node, _ in change.names:
            for each in (folder, node):
                if each is not None and each not in change.states:
                    change.set(each, each.state)
        for node, state in change.states.items():
            if state.id == UNRECORDED:
                state = replace(state, id=self.next_number())
                if state.origin is None and not state.inode:
                    state = replace(state, inode=NEW_INODES + state.id)
                change.states[node] = state
        ticket = self.record(change)
        for node in change.states:
            node.ticket = ticket
        self._carry_out(change)

    def told_of(self, change: Change) -> Json:
        """The record of a change that is being committed."""
        ids = {node: state.id for node, state in change.states.items()}
        return {
            "now": change.now,
            "next": self._next,
            "nodes": [
                state.to_json()
                for node, state in change.states.items()
                if state != node.state or node.state.id == UNRECORDED
            ],
            "names": [
                [
                    ids[folder],
                    name,
                    _AS_BELOW if as_below else _NOWHERE if node is None else ids[node],
                ]
                for folder, name, node, as_below in change.names
            ],
        }

    def _carry_out(self, change: Change, *, at_once: bool = True) -> None:
        """`at_once`: what happens to a folder happens to it now, and moves its times."""
        for node, state in change.states.items():
            if state.nlink:
                node.state = state
                self._nodes[state.id] = node
                self._register(node, state)
            else:
                self._nodes.pop(state.id, None)
                self._unregister(node)
                # Nobody will find it again: what it still is, it is for those who have it open.
                node.state = replace(state, id=UNRECORDED)
        for folder, name, leads_to, as_below in change.names:
            if as_below:
                folder.entries.pop(name, None)
            else:
                folder.entries[name] = leads_to
        times = Attributes(mtime_ns=change.now)
        for folder in {folder for folder, *_ in change.names} if at_once else ():
            state = folder.state
            folder.state = replace(state, own=merged(state.own, times), ctime_ns=change.now)

    def _make(self, state: State) -> Node:
        if state.kind is Kind.FILE:
            return self._make_file(state)
        return FolderNode(state) if state.kind is Kind.FOLDER else OtherNode(state)

    def _register(self, node: Node, state: State) -> None:
        if state.linked:
            self._by_inode[state.inode] = node
        elif state.origin:
            self._by_origin[state.origin] = node

    def _unregister(self, node: Node) -> None:
        state = node.state
        if state.linked:
            if self._by_inode.get(state.inode) is node:
                del self._by_inode[state.inode]
        elif state.origin and self._by_origin.get(state.origin) is node:
            del self._by_origin[state.origin]

    # The whole of it

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every path that leads to a node that is held, folders before what is in them."""
        at_home: dict[str, list[tuple[str, Node]]] = {}
        for node in (*self._by_origin.values(), *self._by_inode.values()):
            parent, name = split(node.state.origin or "")
            at_home.setdefault(parent, []).append((name, node))
        folders = [("", self.root)]
        while folders:
            above, folder = folders.pop()
            origin = folder.state.origin
            here = [each for each in folder.entries.items() if each[1] is not None]
            for name, node in at_home.get(origin, []) if origin is not None else []:
                if name not in folder.entries:
                    here.append((name, node))
            for name, found in here:
                if found is not None:
                    path = join(above, name)
                    yield path, found
                    if isinstance(found, FolderNode):
                        folders.append((path, found))

    def blank(self) -> Json:
        """What `to_json` gives when nothing has to be remembered."""
        return {"next": self._next, "nodes": [], "names": []}

    def to_json(self) -> Json:
        """All that has to be remembered."""
        return {
            "next": self._next,
            "nodes": [node.state.to_json() for node in self._nodes.values()],
            "names": [
                [number, name, _NOWHERE if entry is None else entry.state.id]
                for number, node in self._nodes.items()
                if isinstance(node, FolderNode)
                for name, entry in node.entries.items()
            ],
        }

    def replay(self, record: Json) -> None:
        """Carry out a record of `commit`, or what `to_json` gave."""
        change = Change(self)
        change.now = record.get("now", 0)
        made: dict[int, Node] = {}
        for told in record["nodes"]:
            state = State.from_json(told)
            node = self._nodes.get(state.id)
            if node is None:
                node = self._make(state)
            made[state.id] = node
            change.set(node, state)
        for number, name, what in record["names"]:
            folder = made.get(number) or self._nodes[number]
            if not isinstance(folder, FolderNode):
                raise TypeError(f"node {number} is no folder")
            leads_to = None if what <= 0 else made.get(what) or self._nodes[what]
            change.names.append((folder, name, leads_to, what == _AS_BELOW))
        self._carry_out(change, at_once="now" in record)
        self.skip(record["next"] - 1)

    def reset(self) -> None:
        """Forget every change. Nodes that are in use and did not change stay held."""
        self._clear()
        for node in self.pinned:
            if node.state.id == UNRECORDED and node.state.nlink:
                self._register(node, node.state)


def _not_a_folder(mode: int) -> int:
    return errno.ELOOP if stat.S_ISLNK(mode) else errno.ENOTDIR
