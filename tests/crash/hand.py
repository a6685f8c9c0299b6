"""Traces written down by hand, in few words."""

from __future__ import annotations

from types import MappingProxyType

from avccfs.crash.model import WEAKEST, Profile
from avccfs.crash.states import reachable
from avccfs.crash.trace import Trace
from avccfs.crash.versions import FINE, GARBAGE, Granularity
from avccfs.vfs.recorder import Operation, Slot
from avccfs.vfs.snapshot import ROOT, Node, NodeKind, Snapshot, contents

Found = frozenset[tuple[str, bytes]]


def slot(name: str) -> Slot:
    return Slot(ROOT, name, name)


def holding(**files: bytes) -> Snapshot:
    """A directory with these files; they are nodes 1, 2, ... in this order."""
    entries = {name: number for number, name in enumerate(files, start=1)}
    nodes = {ROOT: Node(NodeKind.DIRECTORY, 0o755, entries=MappingProxyType(entries))}
    for name, number in entries.items():
        nodes[number] = Node(NodeKind.FILE, 0o644, content=files[name])
    return nodes


def found_after(
    base: Snapshot,
    *operations: Operation,
    profile: Profile = WEAKEST,
    granularity: Granularity = FINE,
) -> set[Found]:
    """What the directory may hold when the power goes after the last of these operations."""
    *_, last = reachable(Trace(base, operations), profile, granularity)
    assert last.exhaustive
    return {frozenset(contents(state.snapshot()).items()) for state in last}


def states(*each: dict[str, bytes]) -> set[Found]:
    """The expected counterpart of `found_after`."""
    return {frozenset(one.items()) for one in each}


def garbage(length: int) -> bytes:
    return (GARBAGE * length)[:length]
