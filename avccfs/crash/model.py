"""What a disk may lose when the power goes (SPEC section 10).

The weakest model promises only what POSIX does: an fsync that returned covers the content of that
file, an fsync of a directory covers the names in it, and nothing covers anything else. A `Profile`
adds promises that real file systems make; `WEAKEST` makes none.

`disks` follows a trace and says at each position what is certain and what is still loose. Which
states that allows is the matter of `states`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from avccfs.crash.trace import Trace
from avccfs.vfs.recorder import (
    Create,
    DataChange,
    Exchange,
    Link,
    Move,
    Operation,
    Remove,
    Slot,
    SyncDirectory,
    SyncFile,
    Truncate,
    Write,
)
from avccfs.vfs.snapshot import Node, NodeKind


@dataclass(frozen=True, slots=True)
class Profile:
    """What a file system promises beyond POSIX. Each field that is set rules states out."""

    atomic_rename: bool = False
    """The halves of a rename are kept or lost together."""
    ordered_names: bool = False
    """Changes of names are kept in order, over all directories: what is lost is a tail of them.
    Syncing a directory also keeps everything that came before in any other."""
    fsync_keeps_name: bool = False
    """fsync of a file also makes the names durable that the file has at that moment."""
    ordered_data: bool = False
    """Bytes are on disk before a size that includes them."""
    no_garbage: bool = False
    """Where a size is ahead of the bytes, the file reads as zeros, never as somebody's old data."""


WEAKEST = Profile()
STRONGEST = Profile(
    atomic_rename=True,
    ordered_names=True,
    fsync_keeps_name=True,
    ordered_data=True,
    no_garbage=True,
)


@dataclass(frozen=True, slots=True)
class SlotChange:
    """A slot gets a node, or (None) becomes free."""

    slot: Slot
    node: int | None


@dataclass(frozen=True, slots=True)
class Loose:
    """Changes of names that the disk keeps or loses together."""

    position: int
    """The operation that made them: the first of a trace is 1."""
    changes: tuple[SlotChange, ...]
    text: str
    """What it is that may get lost, for people: `the new name CURRENT`."""


@dataclass(frozen=True, slots=True)
class FileOnDisk:
    """A file: its content at the last sync, and the changes since, each with its position."""

    durable: bytes
    pending: tuple[tuple[int, DataChange], ...] = ()

    def as_written(self) -> bytes:
        """The content that everybody saw before the power went."""
        if not self.pending:
            return self.durable
        content = bytearray(self.durable)
        for _, change in self.pending:
            apply(content, change)
        return bytes(content)


@dataclass(frozen=True, slots=True)
class Disk:
    """What is certain and what is loose after `position` operations."""

    position: int
    nodes: Mapping[int, Node]
    """Kind, mode and link target of every node there ever was; content and entries are below."""
    names: Mapping[Slot, int]
    """The names that are durable."""
    loose: tuple[Loose, ...]
    """The changes of names that are not, in the order in which they were made."""
    files: Mapping[int, FileOnDisk]


def apply(content: bytearray, change: DataChange) -> None:
    """Carry out a write or a truncation in place; what is skipped or added reads as zeros."""
    match change:
        case Write(offset=offset, data=data):
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data
        case Truncate(size=size):
            del content[size:]
            content.extend(bytes(size - len(content)))


def disks(trace: Trace, profile: Profile = WEAKEST) -> Iterator[Disk]:
    """The disk at every position of a trace, from 0 (nothing done) to its length."""
    follower = _Follower(trace, profile)
    yield follower.disk(0)
    for position, operation in enumerate(trace.operations, start=1):
        follower.follow(position, operation)
        yield follower.disk(position)


class _Follower:
    def __init__(self, trace: Trace, profile: Profile) -> None:
        self._profile = profile
        self._nodes: dict[int, Node] = dict(trace.base)
        self._files = {
            identity: FileOnDisk(node.content)
            for identity, node in trace.base.items()
            if node.kind is NodeKind.FILE
        }
        self._names = {
            Slot(identity, name, name): child
            for identity, node in trace.base.items()
            for name, child in node.entries.items()
        }
        self._now = dict(self._names)
        """The names as everybody sees them."""
        self._loose: list[Loose] = []

    def disk(self, position: int) -> Disk:
        return Disk(
            position,
            MappingProxyType(dict(self._nodes)),
            MappingProxyType(dict(self._names)),
            tuple(self._loose),
            MappingProxyType(dict(self._files)),
        )

    def follow(self, position: int, operation: Operation) -> None:
        match operation:
            case Write(node=node) | Truncate(node=node):
                file = self._files[node]
                self._files[node] = FileOnDisk(file.durable, (*file.pending, (position, operation)))
            case SyncFile(node=node):
                self._files[node] = FileOnDisk(self._files[node].as_written())
                if self._profile.fsync_keeps_name:
                    self._settle(
                        lambda change: change.node == node and self._now.get(change.slot) == node
                    )
            case SyncDirectory(node=node):
                self._settle(lambda change: change.slot.directory == node)
            case _:
                self._rename_things(position, operation)

    def _rename_things(
        self, position: int, operation: Create | Link | Remove | Move | Exchange
    ) -> None:
        """Note what an operation does to names, in the pieces in which it may be lost."""
        match operation:
            case Create(slot=slot, node=node, kind=kind, mode=mode, target=target):
                self._nodes[node] = Node(kind, mode, target=target)
                if kind is NodeKind.FILE:
                    self._files[node] = FileOnDisk(b"")
                pieces = [_gain(slot, node)]
            case Link(slot=slot, node=node):
                pieces = [_gain(slot, node)]
            case Remove(slot=slot):
                pieces = [_drop(slot, "the removal of")]
            case Move(old=old, new=new, node=node, replaced=replaced):
                pieces = [_gain(new, node), _drop(old, "the removal of the old name")]
                if replaced is not None:
                    pieces.insert(0, _drop(new, "the removal of the replaced"))
            case Exchange(first=first, second=second, first_node=one, second_node=two):
                pieces = [
                    _drop(first, "the removal of the former"),
                    _gain(first, two),
                    _drop(second, "the removal of the former"),
                    _gain(second, one),
                ]
        if self._profile.atomic_rename and isinstance(operation, Move | Exchange):
            whole = tuple(change for changes, _ in pieces for change in changes)
            pieces = [(whole, f"the {str(operation).partition(' ')[0]}")]
        for changes, text in pieces:
            self._loose.append(Loose(position, changes, text))
            for change in changes:
                _set(self._now, change)

    def _settle(self, covered: Callable[[SlotChange], bool]) -> None:
        """Make durable what a sync covers; an older loose change of the same slot is then moot."""
        hit = [any(covered(change) for change in piece.changes) for piece in self._loose]
        if self._profile.ordered_names and True in hit:
            last = len(hit) - 1 - hit[::-1].index(True)
            hit = [index <= last for index in range(len(hit))]
        for piece, durable in zip(self._loose, hit, strict=True):
            if durable:
                for change in piece.changes:
                    _set(self._names, change)
        settled: set[Slot] = set()
        remaining: list[Loose] = []
        for piece, durable in zip(reversed(self._loose), reversed(hit), strict=True):
            if durable:
                settled.update(change.slot for change in piece.changes)
                continue
            open_changes = tuple(c for c in piece.changes if c.slot not in settled)
            if open_changes:
                remaining.append(Loose(piece.position, open_changes, piece.text))
        self._loose = remaining[::-1]


def _gain(slot: Slot, node: int) -> tuple[tuple[SlotChange, ...], str]:
    return (SlotChange(slot, node),), f"the new name {slot}"


def _drop(slot: Slot, what: str) -> tuple[tuple[SlotChange, ...], str]:
    return (SlotChange(slot, None),), f"{what} {slot}"


def _set(names: dict[Slot, int], change: SlotChange) -> None:
    if change.node is None:
        names.pop(change.slot, None)
    else:
        names[change.slot] = change.node
