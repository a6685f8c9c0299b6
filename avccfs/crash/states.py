"""Every state in which a crash may leave a directory.

At one position of a trace the states are a product: which of the loose changes of names are kept,
times, for each file that can still be reached, its possible contents (`versions`). States with the
same names and contents are told once. Where the product passes the limits of the `Granularity`,
a fixed part of it is enumerated instead, and `Reachable.limits` says so: nothing is sampled, and
nothing is left out silently.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from avccfs.crash.model import WEAKEST, Disk, Loose, Profile, disks
from avccfs.crash.trace import Trace
from avccfs.crash.versions import FINE, Granularity, Version, Versions, digest_of, versions
from avccfs.vfs.recorder import Slot
from avccfs.vfs.snapshot import ROOT, Node, NodeKind, Snapshot, contents, walk


@dataclass(frozen=True, slots=True)
class State:
    """One way in which the disk may be found."""

    disk: Disk
    tree: Tree
    chosen: Mapping[int, Version]
    """The version of each file that has more than one."""
    digest: bytes
    """The same for two states if all names, links and contents are the same."""

    @property
    def position(self) -> int:
        """How many operations had been done."""
        return self.disk.position

    @property
    def faults(self) -> tuple[str, ...]:
        """What was lost or torn, one line each; nothing where all that was done is on disk."""
        lost = [f"operation {piece.position}: {piece.text} is lost" for piece in self.tree.lost]
        return (*lost, *(line for version in self.chosen.values() for line in version.faults))

    def snapshot(self) -> Snapshot:
        """The directory as it is found."""
        nodes = dict(self.tree.skeleton)
        for identity in self.tree.files:
            node, version = nodes[identity], self.chosen.get(identity)
            content = version.content() if version else self.disk.files[identity].durable
            if content is not node.content:
                nodes[identity] = Node(node.kind, node.mode, content=content)
        return nodes

    def describe(self, trace: Trace) -> str:
        """The story for people: what was done, what was lost, what is found."""
        found = contents(self.snapshot())
        lines = [trace.describe(self.position), "of this, on disk:"]
        lines += [f"  {fault}" for fault in self.faults] or ["  everything"]
        lines.append("so the directory holds:")
        lines += [f"  {path}: {_brief(content)}" for path, content in found.items()]
        return "\n".join(lines)


def _brief(content: bytes, shown: int = 48) -> str:
    more = f"... ({len(content)} bytes)" if len(content) > shown else ""
    return f"{content[:shown]!r}{more}"


@dataclass(frozen=True, slots=True)
class Tree:
    """One way in which the names may be found."""

    lost: tuple[Loose, ...]
    skeleton: Mapping[int, Node]
    """The nodes that can be reached: directories with their entries, files with any content."""
    paths: tuple[tuple[str, int], ...]
    """Every path and where it leads, parents first."""
    files: tuple[int, ...]
    """The files that can be reached."""


@dataclass
class Reachable:
    """The states at one position of a trace. Iterating tells each once, fewest losses of names
    first.
    """

    disk: Disk
    profile: Profile = WEAKEST
    granularity: Granularity = FINE
    _versions: dict[int, Versions] = field(default_factory=dict, init=False, repr=False)

    @property
    def position(self) -> int:
        """How many operations had been done."""
        return self.disk.position

    @property
    def exhaustive(self) -> bool:
        """Whether these are all states that the model allows at this granularity."""
        return not self.limits

    @property
    def limits(self) -> tuple[str, ...]:
        """Where the enumeration is only a part of what the model allows, in words."""
        told: list[str] = []
        if not self._all_names:
            told.append(
                f"{len(self.disk.loose)} changes of names are loose: only every run of them from "
                "the first on, every one missing alone and every one kept alone"
            )
        for identity in self._loose_files:
            if not self._of(identity).exhaustive:
                changes = self.disk.files[identity].pending
                told.append(
                    f"{changes[-1][1].path} has {len(changes)} changes pending: each one torn only "
                    "while the others are kept or lost together"
                )
        if self._together < len(self._loose_files):
            told.append(
                f"{len(self._loose_files)} files have changes pending: {self._together} vary at a "
                "time, while the others have all of theirs kept or all lost"
            )
        return tuple(told)

    @cached_property
    def bound(self) -> int:
        """An upper bound of the number of states."""
        return sum(self._size(tree, self._together) for tree in self._trees)

    def __iter__(self) -> Iterator[State]:
        told: set[bytes] = set()
        for tree in self._trees:
            for chosen in self._choices(tree, self._together):
                digest = self._digest(tree, chosen)
                if digest not in told:
                    told.add(digest)
                    yield State(self.disk, tree, MappingProxyType(chosen), digest)

    # Names

    @property
    def _all_names(self) -> bool:
        count = len(self.disk.loose)
        return self.profile.ordered_names or 2**count <= self.granularity.most_names

    def _losses(self) -> Iterator[frozenset[int]]:
        """Which loose changes are lost: index sets."""
        count = len(self.disk.loose)
        everything = frozenset(range(count))
        if self.profile.ordered_names:
            yield from (frozenset(range(kept, count)) for kept in range(count, -1, -1))
        elif self._all_names:
            for size in range(count + 1):
                yield from map(frozenset, itertools.combinations(range(count), size))
        else:
            yield from (frozenset(range(kept, count)) for kept in range(count, -1, -1))
            yield from (frozenset({index}) for index in range(count))
            yield from (everything - {index} for index in range(count))

    @cached_property
    def _trees(self) -> list[Tree]:
        """The ways in which the names may be found; no two have the same names."""
        found: dict[frozenset[tuple[Slot, int]], Tree] = {}
        for lost in self._losses():
            names = dict(self.disk.names)
            for index, piece in enumerate(self.disk.loose):
                for change in piece.changes if index not in lost else ():
                    if change.node is None:
                        names.pop(change.slot, None)
                    else:
                        names[change.slot] = change.node
            key = frozenset(names.items())
            if key not in found:
                found[key] = self._tree(names, tuple(self.disk.loose[i] for i in sorted(lost)))
        return list(found.values())

    def _tree(self, names: Mapping[Slot, int], lost: tuple[Loose, ...]) -> Tree:
        entries: dict[int, dict[str, int]] = {}
        for slot, child in names.items():
            entries.setdefault(slot.directory, {})[slot.name] = child
        nodes = dict(self.disk.nodes)
        for identity, node in nodes.items():
            if node.kind is NodeKind.DIRECTORY:
                held = entries.get(identity, {})
                nodes[identity] = Node(node.kind, node.mode, entries=MappingProxyType(held))
        paths = tuple(walk(nodes))
        skeleton = {identity: nodes[identity] for identity in (ROOT, *(each for _, each in paths))}
        files = tuple(each for each, node in skeleton.items() if node.kind is NodeKind.FILE)
        return Tree(lost, skeleton, paths, files)

    # Contents

    def _of(self, identity: int) -> Versions:
        if identity not in self._versions:
            file = self.disk.files[identity]
            self._versions[identity] = versions(file, self.profile, self.granularity)
        return self._versions[identity]

    @cached_property
    def _loose_files(self) -> list[int]:
        """Files with changes pending that some tree can reach."""
        reached = {identity for tree in self._trees for identity in tree.files}
        return [each for each in sorted(reached) if self.disk.files[each].pending]

    def _in(self, tree: Tree) -> list[int]:
        return [each for each in self._loose_files if each in tree.skeleton]

    @cached_property
    def _together(self) -> int:
        """How many files vary at a time: all if the limit allows it, else two, else one."""
        count = len(self._loose_files)
        for together in (count, 2):
            total = sum(self._size(tree, together) for tree in self._trees)
            if together <= count and total <= self.granularity.most_states:
                return together
        return min(1, count)

    def _size(self, tree: Tree, together: int) -> int:
        """An upper bound of the states of one tree when so many files vary at a time."""
        sizes = [len(self._of(each).all) for each in self._in(tree)]
        if len(sizes) <= together:
            return math.prod(sizes)
        return 2 * sum(math.prod(some) for some in itertools.combinations(sizes, together))

    def _choices(self, tree: Tree, together: int) -> Iterator[dict[int, Version]]:
        files = self._in(tree)
        if len(files) <= together:
            for combination in itertools.product(*(self._of(each).all for each in files)):
                yield dict(zip(files, combination, strict=True))
            return
        kept = {each: self._of(each).all[0] for each in files}
        lost = {each: self._of(each).nothing_kept for each in files}
        for some in itertools.combinations(files, together):
            for combination in itertools.product(*(self._of(each).all for each in some)):
                varied = dict(zip(some, combination, strict=True))
                yield kept | varied
                yield lost | varied

    # Identity

    @cached_property
    def _durable_digests(self) -> dict[int, bytes]:
        return {
            identity: digest_of(file.durable)
            for identity, file in self.disk.files.items()
            if not file.pending
        }

    def _digest(self, tree: Tree, chosen: Mapping[int, Version]) -> bytes:
        total = hashlib.blake2b(digest_size=16)
        first: dict[int, int] = {}
        for number, (path, identity) in enumerate(tree.paths):
            node = tree.skeleton[identity]
            same_as = first.setdefault(identity, number)
            if node.kind is NodeKind.FILE:
                version = chosen.get(identity)
                what = version.digest if version else self._durable_digests[identity]
            else:
                what = digest_of(os.fsencode(node.target))
            total.update(os.fsencode(f"{path}\0{node.kind.name}\0{same_as}\0") + what)
        return total.digest()


def reachable(
    trace: Trace, profile: Profile = WEAKEST, granularity: Granularity = FINE
) -> Iterator[Reachable]:
    """The states at every position of a trace, from before its first operation to after its last."""
    for disk in disks(trace, profile):
        yield Reachable(disk, profile, granularity)


def every_state(
    trace: Trace, profile: Profile = WEAKEST, granularity: Granularity = FINE
) -> Iterator[State]:
    """All states of all positions. The same directory may come once for each position."""
    for point in reachable(trace, profile, granularity):
        yield from point
