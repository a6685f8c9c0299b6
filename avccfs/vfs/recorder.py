"""Recording: a directory that notes down every change made through it.

What is noted are the primitives that a disk knows: a name appears or goes, bytes are written, a
file or a directory is synced. Each one names the *node* it is about, not only the path, because
after a crash a file may be reached by an old name, by two, or by none.

A change is noted after the directory below has carried it out, in the order in which they were
carried out: changes are made one at a time. What failed is not noted; of a write that came to a
stop half-way, the half. Attributes are not noted: no crash state depends on them.
"""

from __future__ import annotations

import stat as stat_bits
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

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
    split,
)
from avccfs.vfs.snapshot import ROOT, NodeKind, Snapshot


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a name: the identity of the directory, and the name in it."""

    directory: int
    name: str
    path: str = field(compare=False)
    """Where that was when it was used; for people."""

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Create:
    """A new file, directory or symbolic link, empty, with its first name."""

    slot: Slot
    node: int
    kind: NodeKind = NodeKind.FILE
    mode: int = 0o644
    target: str = ""

    def __str__(self) -> str:
        verb = "create" if self.kind is NodeKind.FILE else f"make the {self.kind.value}"
        return f"{verb} {self.slot}"


@dataclass(frozen=True, slots=True)
class Link:
    """One more name for a file."""

    slot: Slot
    node: int

    def __str__(self) -> str:
        return f"link {self.slot}"


@dataclass(frozen=True, slots=True)
class Remove:
    """A name goes: remove or rmdir."""

    slot: Slot
    node: int

    def __str__(self) -> str:
        return f"remove {self.slot}"


@dataclass(frozen=True, slots=True)
class Move:
    """A rename. `replaced` is the node that had the new name, None if nothing had it."""

    old: Slot
    new: Slot
    node: int
    replaced: int | None = None

    def __str__(self) -> str:
        return f"rename {self.old} to {self.new}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """Two names swap their nodes. The nodes are those before the swap."""

    first: Slot
    second: Slot
    first_node: int
    second_node: int

    def __str__(self) -> str:
        return f"exchange {self.first} and {self.second}"


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written at an offset. `path` is the name by which the file was opened."""

    node: int
    path: str
    offset: int
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"write {len(self.data)} bytes at {self.offset} of {self.path}"


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file cut or extended to `size` bytes."""

    node: int
    path: str
    size: int

    def __str__(self) -> str:
        return f"truncate {self.path} to {self.size} bytes"


@dataclass(frozen=True, slots=True)
class SyncFile:
    """The content of a file was made durable, so far as it had come."""

    node: int
    path: str

    def __str__(self) -> str:
        return f"sync {self.path}"


@dataclass(frozen=True, slots=True)
class SyncDirectory:
    """The names in a directory were made durable, so far as they had come."""

    node: int
    path: str

    def __str__(self) -> str:
        return f"sync the directory {self.path}" if self.path else "sync the directory"


NameChange = Create | Link | Remove | Move | Exchange
DataChange = Write | Truncate
Operation = NameChange | DataChange | SyncFile | SyncDirectory


class Sink(Protocol):
    """Where a recorder puts what it notes down."""

    def append(self, operation: Operation, /) -> None:
        """Take one operation. Called by one thread at a time, in order."""


class Recorder:
    """A `Directory` that hands everything on to `inner` and notes each change in `sink`.

    `base` is what is there when the recording begins, as `snapshot.take` reads it. All changes must
    go through the recorder; a file that turns up on its own (the lock's) is noted when it is first
    met. Paths in `leave_out` are handed on and never noted: that is for files whose content nobody
    will ask for after the crash (a log for people), which would only multiply the states.
    """

    def __init__(
        self, inner: Directory, base: Snapshot, sink: Sink, *, leave_out: Collection[str] = ()
    ) -> None:
        self._inner = inner
        self._sink = sink
        self._leave_out = frozenset(leave_out)
        self._changes = threading.Lock()
        self._next_node = max(base) + 1
        self._entries = {
            identity: dict(node.entries)
            for identity, node in base.items()
            if node.kind is NodeKind.DIRECTORY
        }

    # Names to nodes, as they are now

    def _node(self, path: str) -> int | None:
        node: int | None = ROOT
        for part in path.split("/") if path else ():
            node = self._entries.get(node, {}).get(part) if node is not None else None
        return node

    def _slot(self, path: str) -> Slot | None:
        """The place of a name; None for what is left out or lies below nothing we know."""
        parent, name = split(path)
        directory = self._node(parent)
        if path in self._leave_out or directory not in self._entries:
            return None
        return Slot(directory, name, path)

    def _note(self, operation: Operation) -> None:
        self._sink.append(operation)

    def _appear(self, path: str, kind: NodeKind, mode: int, target: str = "") -> int | None:
        """Note a new node at a path; None where the path is left out."""
        slot = self._slot(path)
        if slot is None:
            return None
        node = self._next_node
        self._next_node += 1
        if kind is NodeKind.DIRECTORY:
            self._entries[node] = {}
        self._entries[slot.directory][slot.name] = node
        self._note(Create(slot, node, kind, mode, target))
        return node

    def _meet(self, path: str, handle: File) -> int | None:
        """Note a file that came into being without us, with what it holds."""
        status = handle.stat()
        node = self._appear(path, NodeKind.FILE, stat_bits.S_IMODE(status.mode))
        if node is not None and status.size:
            self._note(Write(node, path, 0, handle.read_at(status.size, 0)))
        return node

    # The Directory

    @property
    def read_only(self) -> bool:
        """Whether the directory below refuses changes."""
        return self._inner.read_only

    @property
    def label(self) -> str:
        """The label of the directory below."""
        return self._inner.label

    def names(self, path: str = "") -> list[str]:
        """See `Directory`."""
        return self._inner.names(path)

    def scan(self, path: str = "") -> list[tuple[str, Stat]]:
        """See `Directory`."""
        return self._inner.scan(path)

    def stat(self, path: str = "") -> Stat:
        """See `Directory`."""
        return self._inner.stat(path)

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> File:
        """See `Directory`. Notes the creation, or that what was there was cut to nothing."""
        with self._changes:
            known = self._node(path)
            existed = known is not None or not flags & Open.CREATE or self._exists(path)
            handle = self._inner.open(path, flags, mode)
            if path in self._leave_out:
                return handle
            if not existed:
                known = self._appear(path, NodeKind.FILE, mode)
            elif known is None:
                known = self._meet(path, handle)
            elif flags & Open.TRUNCATE:
                self._note(Truncate(known, path, 0))
        return handle if known is None else _RecordedFile(self, handle, known, path)

    def _exists(self, path: str) -> bool:
        try:
            self._inner.stat(path)
        except OSError:
            return False
        return True

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        """See `Directory`."""
        with self._changes:
            self._inner.rename(old, new, how)
            first, second = self._slot(old), self._slot(new)
            moved, replaced = self._node(old), self._node(new)
            if first == second or (moved is not None and moved == replaced):
                return  # rename(2) does nothing when both names lead to the same file
            if first is None or second is None or moved is None:
                self._rename_across(first, second, moved, replaced, how)
                return
            if how is Rename.EXCHANGE and replaced is not None:
                self._entries[first.directory][first.name] = replaced
                self._note(Exchange(first, second, moved, replaced))
            else:
                del self._entries[first.directory][first.name]
                self._note(Move(first, second, moved, replaced))
            self._entries[second.directory][second.name] = moved

    def _rename_across(
        self,
        first: Slot | None,
        second: Slot | None,
        moved: int | None,
        replaced: int | None,
        how: Rename,
    ) -> None:
        """A rename with one end among what is left out: there a name goes, or a file turns up."""
        if first is not None and moved is not None:
            del self._entries[first.directory][first.name]
            self._note(Remove(first, moved))
        if second is not None and replaced is not None:
            del self._entries[second.directory][second.name]
            self._note(Remove(second, replaced))
        for slot in (second, first if how is Rename.EXCHANGE else None):
            if slot is not None:
                handle = self._inner.open(slot.path, Open.READ)
                try:
                    self._meet(slot.path, handle)
                finally:
                    handle.close()

    def _remove(self, path: str) -> None:
        slot, node = self._slot(path), self._node(path)
        if slot is not None and node is not None:
            del self._entries[slot.directory][slot.name]
            self._note(Remove(slot, node))

    def remove(self, path: str) -> None:
        """See `Directory`."""
        with self._changes:
            self._inner.remove(path)
            self._remove(path)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """See `Directory`."""
        with self._changes:
            self._inner.mkdir(path, mode)
            self._appear(path, NodeKind.DIRECTORY, mode)

    def rmdir(self, path: str) -> None:
        """See `Directory`."""
        with self._changes:
            self._inner.rmdir(path)
            self._remove(path)

    def symlink(self, path: str, target: str) -> None:
        """See `Directory`."""
        with self._changes:
            self._inner.symlink(path, target)
            self._appear(path, NodeKind.SYMLINK, 0o777, target)

    def readlink(self, path: str) -> str:
        """See `Directory`."""
        return self._inner.readlink(path)

    def link(self, existing: str, new: str) -> None:
        """See `Directory`."""
        with self._changes:
            self._inner.link(existing, new)
            slot, node = self._slot(new), self._node(existing)
            if slot is not None and node is not None:
                self._entries[slot.directory][slot.name] = node
                self._note(Link(slot, node))

    def set_attributes(self, path: str, change: Attributes) -> None:
        """See `Directory`. Not noted."""
        self._inner.set_attributes(path, change)

    def sync(self, path: str = "") -> None:
        """See `Directory`."""
        with self._changes:
            self._inner.sync(path)
            node = self._node(path)
            if node is not None:
                self._note(SyncDirectory(node, path))

    def space(self) -> Space:
        """See `Directory`."""
        return self._inner.space()

    def lock(self, *, exclusive: bool) -> DirectoryLock | None:
        """See `Directory`. Taking a lock may make a file; it is noted when somebody opens it."""
        return self._inner.lock(exclusive=exclusive)

    def close(self) -> None:
        """See `Directory`."""
        self._inner.close()

    # What an open file reports

    def _write(self, handle: File, node: int, path: str, data: Buffer, offset: int) -> int:
        with self._changes:
            written = handle.write_at(data, offset)
            if written:
                self._note(Write(node, path, offset, bytes(memoryview(data)[:written])))
            return written

    def _truncate(self, handle: File, node: int, path: str, size: int) -> None:
        with self._changes:
            handle.truncate(size)
            self._note(Truncate(node, path, size))

    def _sync(self, handle: File, node: int, path: str, data_only: bool) -> None:
        with self._changes:
            handle.sync(data_only=data_only)
            # fdatasync leaves only times aside: the size and the bytes are covered by both.
            self._note(SyncFile(node, path))


class _RecordedFile:
    """An open file of a recorder."""

    def __init__(self, recorder: Recorder, inner: File, node: int, path: str) -> None:
        self._recorder = recorder
        self._inner = inner
        self._node = node
        self._path = path

    def read_at(self, size: int, offset: int) -> bytes:
        return self._inner.read_at(size, offset)

    def write_at(self, data: Buffer, offset: int) -> int:
        return self._recorder._write(self._inner, self._node, self._path, data, offset)

    def truncate(self, size: int) -> None:
        self._recorder._truncate(self._inner, self._node, self._path, size)

    def sync(self, *, data_only: bool = False) -> None:
        self._recorder._sync(self._inner, self._node, self._path, data_only)

    def stat(self) -> Stat:
        return self._inner.stat()

    def set_attributes(self, change: Attributes) -> None:
        self._inner.set_attributes(change)

    def close(self) -> None:
        self._inner.close()
