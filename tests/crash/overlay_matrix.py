"""What the directory that keeps an overlay's changes must hold in every state a crash may leave.

Every step is carried out twice: on the overlay, whose upper directory is recorded, and on a plain
directory with the same content, which tells what there was to see after each step.

Names must be those after some step: the ledger is in order. Not one before the last that was
synced, and not one that was not begun. Content is asked byte by byte: each must be one that the
file had at this offset since its last sync; only where it grew or was cut since, zeros and garbage
are allowed too, as POSIX does.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from avccfs.crash.model import WEAKEST
from avccfs.crash.states import State, reachable
from avccfs.crash.trace import Trace, record
from avccfs.crash.versions import Granularity
from avccfs.vfs.base import Directory, Open, join
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.overlay import Overlay
from avccfs.vfs.snapshot import Snapshot, put

# Tears of a page are what a disk does; of a record in the ledger three are as good as a hundred.
ROUGH = Granularity(every_byte_up_to=0, sector=4096, most_tears=2, most_versions=512)

# For many histories instead of one: the states that lose a run, or one thing, or all but one.
SPARSE = Granularity(
    every_byte_up_to=0, sector=4096, most_tears=1, most_versions=12, most_names=32, most_states=200
)

Step = Callable[[Directory], None]
LOCKS = ("LOCK",)


@dataclass(frozen=True)
class Seen:
    """A tree: what each path leads to, and the content of each file."""

    names: dict[str, tuple[int, int]]
    """Path to type bits and identity."""
    contents: dict[int, bytes]

    def shape(self) -> frozenset[tuple[str, int, str]]:
        """The names without the identities: of each path the first that is the same node."""
        first: dict[int, str] = {}
        return frozenset(
            (path, kind, first.setdefault(node, path))
            for path, (kind, node) in sorted(self.names.items())
        )


def see(directory: Directory) -> Seen:
    seen = Seen({}, {})
    folders = [""]
    while folders:
        folder = folders.pop()
        for name, told in directory.scan(folder):
            path = join(folder, name)
            if path in LOCKS:
                continue
            seen.names[path] = (stat.S_IFMT(told.mode), told.inode)
            if stat.S_ISDIR(told.mode):
                folders.append(path)
            elif stat.S_ISREG(told.mode) and told.inode not in seen.contents:
                file = directory.open(path)
                seen.contents[told.inode] = file.read_at(told.size, 0)
                file.close()
    return seen


@dataclass
class History:
    """What there was to see after each step, and what had been promised by then."""

    trace: Trace
    lower: MemoryDirectory
    views: list[Seen]
    ends: list[int] = field(default_factory=lambda: [0])
    """Position of the trace at which each step had returned; of step 0, nothing done."""
    names_kept: list[int] = field(default_factory=lambda: [0])
    """After each step: the earliest view whose names a crash may bring back."""
    content_kept: list[dict[int, int]] = field(default_factory=lambda: [{}])
    """After each step: the view at which each file was synced last."""

    def step_at(self, position: int) -> int:
        """The last step that had returned at a position of the trace."""
        return max(step for step, end in enumerate(self.ends) if end <= position)


def sync_file(path: str) -> Step:
    """Sync the content of a file, and promise its name."""

    def step(directory: Directory) -> None:
        file = directory.open(path, Open.WRITE)
        file.sync()
        file.close()

    step.__name__ = f"sync {path}"
    return step


def sync_names(path: str = "") -> Step:
    def step(directory: Directory) -> None:
        directory.sync(path)

    step.__name__ = "sync names"
    return step


def carried_out(fill: Step, steps: Sequence[Step]) -> History:
    """Carry the steps out over a lower directory made by `fill`, and note what there was to see."""
    lower, plain = MemoryDirectory(), MemoryDirectory()
    fill(lower)
    fill(plain)
    upper, trace = record(MemoryDirectory(), leave_out=LOCKS)
    overlay = Overlay(lower, upper, close_inner=False)
    history = History(trace, lower, [see(plain)])
    history.ends[0] = len(trace)
    for number, step in enumerate(steps, start=1):
        done = _attempt(step, overlay)
        assert done == _attempt(step, plain)
        view = see(plain)
        history.views.append(view)
        history.ends.append(len(trace))
        names, synced = history.names_kept[-1], dict(history.content_kept[-1])
        told = step.__name__ if done is None else ""
        if told == "sync names":
            names = number
        elif told.startswith("sync "):
            path = told.removeprefix("sync ")
            node = view.names[path]
            synced[node[1]] = number
            since = number
            while since and history.views[since - 1].names.get(path) == node:
                since -= 1
            names = max(names, since)
        history.names_kept.append(names)
        history.content_kept.append(synced)
    return history


def _attempt(step: Step, directory: Directory) -> int | None:
    """Carry a step out; returns the errno it failed with."""
    try:
        step(directory)
    except OSError as exc:
        return exc.errno
    return None


def complaints(history: History, granularity: Granularity = ROUGH) -> Iterator[str]:
    """What is wrong in any state that a crash may leave, in words."""
    found: dict[bytes, Seen] = {}
    judged: set[tuple[bytes, int]] = set()
    for point in reachable(history.trace, WEAKEST, granularity):
        step = history.step_at(point.position) if point.position >= history.ends[0] else 0
        for state in point:
            if (state.digest, step) in judged:
                continue
            judged.add((state.digest, step))
            if state.digest not in found:
                found[state.digest] = opened(history.lower, state.snapshot())
            wrong = judge(history, step, found[state.digest])
            if wrong is not None:
                yield f"{state.describe(history.trace)}\n{wrong}"


def restored(snapshot: Snapshot) -> MemoryDirectory:
    directory = MemoryDirectory()
    put(snapshot, directory)
    return directory


def opened(lower: Directory, snapshot: Snapshot) -> Seen:
    """What the overlay shows that is opened on a state."""
    with_changes = Overlay(lower, restored(snapshot), close_inner=False)
    try:
        return see(with_changes)
    finally:
        with_changes.close()


def judge(history: History, step: int, seen: Seen) -> str | None:
    """What is wrong with what is seen when `step` had returned; None if nothing is."""
    earliest, latest = history.names_kept[step], min(step + 1, len(history.views) - 1)
    shape = seen.shape()
    fitting = [
        number for number in range(earliest, latest + 1) if history.views[number].shape() == shape
    ]
    if not fitting:
        return f"the names are those of no step from {earliest} to {latest}: {sorted(seen.names)}"
    wrong = None
    for number in fitting:
        wrong = _judge_contents(history, step, latest, number, seen)
        if wrong is None:
            return None
    return wrong


def _judge_contents(history: History, step: int, latest: int, names: int, seen: Seen) -> str | None:
    for path, (kind, node) in history.views[names].names.items():
        if kind != stat.S_IFREG:
            continue
        content = seen.contents[seen.names[path][1]]
        since = history.content_kept[step].get(node, 0)
        versions = [
            view.contents[node]
            for view in history.views[since : latest + 1]
            if node in view.contents
        ]
        if node not in history.views[since].contents:
            versions.insert(0, b"")  # What it began as.
        if content in versions:
            continue
        sizes = {len(version) for version in versions}
        if len(content) > max(sizes) or len(content) < min(sizes):
            return f"{path} is {len(content)} bytes long, not one of {sorted(sizes)}"
        resized = _resized(versions)
        for offset, byte in enumerate(content):
            here = {version[offset] for version in versions if offset < len(version)}
            if byte not in here and not any(offset in span for span in resized):
                return f"{path} has {bytes([byte])!r} at {offset}, which it never had"
    return None


def _resized(versions: Sequence[bytes]) -> list[range]:
    """Where a file grew or was cut: there POSIX allows zeros and garbage until it is synced."""
    sizes = [len(version) for version in versions]
    return [range(min(pair), max(pair)) for pair in itertools.pairwise(sizes)]


def crash_states(history: History, *, since: int = 0) -> Iterator[State]:
    """Every state from a position of the trace on, once."""
    told: set[bytes] = set()
    for point in reachable(history.trace, WEAKEST, ROUGH):
        for state in point if point.position >= since else ():
            if state.digest not in told:
                told.add(state.digest)
                yield state
