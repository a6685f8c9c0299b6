"""What a switch of CURRENT must keep, asked of every state that a crash may leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from avccfs.crash.image import CrashImage
from avccfs.crash.model import WEAKEST, Profile
from avccfs.crash.states import State, reachable
from avccfs.crash.trace import Trace, record
from avccfs.crash.versions import FINE, Granularity
from avccfs.errors import MetaError
from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.storage import meta
from avccfs.vfs.base import Directory, Open
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.snapshot import Snapshot, put

RETURNED = "the call returned"

Action = Callable[[Directory], object]


def manifest(number: int) -> FileDesc:
    return FileDesc(number, Kind.MANIFEST)


def silent(_: str) -> None:
    """A log that nobody reads."""


def write_file(directory: Directory, name: str, content: bytes, *, sync: bool = True) -> None:
    handle = directory.open(name, Open.WRITE | Open.CREATE | Open.TRUNCATE)
    if content:
        handle.write_at(content, 0)
    if sync:
        handle.sync()
    handle.close()


def directory_with(files: Mapping[str, bytes]) -> MemoryDirectory:
    directory = MemoryDirectory()
    for name, content in files.items():
        write_file(directory, name, content)
    return directory


def restored(snapshot: Snapshot) -> MemoryDirectory:
    directory = MemoryDirectory()
    put(snapshot, directory)
    return directory


@dataclass(frozen=True)
class Answer:
    """What get_meta says, and what the manifest that it names holds; None if there is no answer."""

    meta: FileDesc | None
    content: bytes = b""

    def __str__(self) -> str:
        return f"{self.meta}, which holds {self.content!r}" if self.meta else "no answer"


NO_ANSWER = Answer(None)


def answer(directory: Directory, *, tidy: bool = False) -> Answer:
    try:
        desc = meta.get_meta(directory, silent, tidy=tidy)
    except (FileNotFoundError, MetaError):
        return NO_ANSWER
    handle = directory.open(name_of(desc))
    try:
        return Answer(desc, handle.read_at(handle.stat().size, 0))
    finally:
        handle.close()


_answers: dict[bytes, Answer] = {}


def answer_in(state: State) -> Answer:
    """What a reader of the crash image is told. Equal directories are asked once."""
    if state.digest not in _answers:
        _answers[state.digest] = answer(CrashImage(state.snapshot()))
    return _answers[state.digest]


@dataclass(frozen=True)
class Switch:
    """A recorded switch: what get_meta said before it, and what it must say after it."""

    trace: Trace
    before: Answer
    after: Answer
    returned: int
    """The position at which the call had returned."""

    def allowed(self, position: int) -> tuple[Answer, ...]:
        return (self.after,) if position >= self.returned else (self.before, self.after)


def recorded(base: Directory, action: Action, target: FileDesc, content: bytes) -> Switch:
    """Carry out `action`, which is to make `target`, holding `content`, the live manifest."""
    before = answer(base)
    directory, trace = record(base)
    action(directory)
    returned = trace.mark(RETURNED)
    return Switch(trace, before, Answer(target, content), returned)


def violations(
    switch: Switch, profile: Profile = WEAKEST, granularity: Granularity = FINE
) -> Iterator[tuple[State, Answer]]:
    """The states in which get_meta says what it must not, with what it says."""
    for point in reachable(switch.trace, profile, granularity):
        assert point.exhaustive, point.limits
        allowed = switch.allowed(point.position)
        for state in point:
            found = answer_in(state)
            if found not in allowed:
                yield state, found


def complaint(switch: Switch, state: State, found: Answer) -> str:
    allowed = " or ".join(str(each) for each in switch.allowed(state.position))
    return f"{state.describe(switch.trace)}\nget_meta says {found}; it must say {allowed}"


def simplest(found: Iterator[tuple[State, Answer]]) -> tuple[State, Answer] | None:
    """The violation with the shortest story."""
    return min(found, key=lambda each: (len(each[0].faults), each[0].position), default=None)


def demand_none(
    switch: Switch, profile: Profile = WEAKEST, granularity: Granularity = FINE
) -> None:
    worst = simplest(violations(switch, profile, granularity))
    assert worst is None, complaint(switch, *worst)
