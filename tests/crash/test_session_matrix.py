"""The crash matrix of the session: create, commit, rotate; every step, every state.

In every state the next opening finds everything that was acknowledged, at most what had been begun,
a manifest without damage (but for the torn end of a commit under way), and every table it names.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from avccfs.crash.model import WEAKEST, Profile
from avccfs.crash.states import State, reachable
from avccfs.crash.trace import Trace, record
from avccfs.crash.versions import COARSE, FINE, Granularity
from avccfs.errors import AvccfsError
from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.format.manifest import AddedTable, DeletedTable, SessionRecord
from avccfs.session.session import Session
from avccfs.session.state import SessionState
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Directory
from avccfs.vfs.fault import ALL_KINDS, FaultDirectory, FaultPlan, Op, Pair
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.snapshot import Snapshot, contents
from tests.crash.matrix import restored

WHOLE = Granularity(every_byte_up_to=0, most_tears=0)


def told(state: SessionState) -> SessionState:
    """What of a state must come back: not which manifest, nor the number it happened to take."""
    return replace(state, manifest=None, next_file_number=None)


@dataclass
class History:
    """A session at work on a recorded directory, with what it promised when."""

    directory: Directory
    trace: Trace
    states: list[SessionState | None] = field(default_factory=lambda: [None])
    """What there was to be acknowledged, oldest first; None before there was a database."""
    begun: list[int] = field(default_factory=lambda: [0])
    """The position at which each of them was begun."""
    returned: list[int | None] = field(default_factory=lambda: [0])
    """The position at which it was acknowledged; None if it failed."""

    def allowed(self, position: int) -> list[SessionState | None]:
        """What an opening after a crash at this position may find."""
        acknowledged = max(
            index for index, at in enumerate(self.returned) if at is not None and at <= position
        )
        later = range(acknowledged + 1, len(self.states))
        under_way = [index for index in later if self.begun[index] < position]
        return [self.states[index] for index in (acknowledged, *under_way)]

    def under_way(self, position: int) -> bool:
        """Whether a change had been begun then and not acknowledged."""
        return len(self.allowed(position)) > 1

    def step(self, text: str, wanted: SessionState, action: Callable[[], object]) -> None:
        """Carry out a change, which is to make `wanted` the state."""
        self.states.append(told(wanted))
        self.begun.append(len(self.trace))
        self.returned.append(None)
        self.trace.mark(f"begun: {text}")
        action()
        self.returned[-1] = self.trace.mark(f"acknowledged: {text}")


def table(number: int, level: int = 0) -> AddedTable:
    smallest, largest = b"a%d" % number, b"z%d" % number
    return AddedTable(level, number, len(table_content(number)), smallest, largest)


def table_content(number: int) -> bytes:
    return b"table %d" % number


class Work:
    """One session over a recorded storage, and the changes that engines make."""

    def __init__(self, base: MemoryDirectory, plan: FaultPlan | None = None) -> None:
        directory, trace = record(base, leave_out=("LOCK",))
        self.history = History(directory, trace)
        top = directory if plan is None else FaultDirectory(directory, plan)
        self.storage = DirectoryStorage(top, write_log=False)
        self.session = Session(self.storage)

    def create(self) -> None:
        self.history.step(
            "create",
            SessionState(comparer=b"leveldb.BytewiseComparator", journal_number=0, sequence=0),
            self.session.create,
        )

    def recover(self) -> None:
        self.session.recover()
        self.history.states[0] = told(self.session.state)

    def write_table(self) -> AddedTable:
        """As an engine does: the content is synced, the name is not."""
        number = self.session.numbers.allocate()
        writer = self.storage.create(FileDesc(number, Kind.TABLE))
        writer.write(table_content(number))
        writer.sync()
        writer.close()
        return table(number)

    def commit(self, change: SessionRecord) -> None:
        self.history.step(
            f"commit to sequence {change.sequence}",
            self.session.state.apply(change),
            lambda: self.session.commit(change),
        )

    def rotate(self) -> None:
        self.history.step("rotate", self.session.state, self.session.rotate)

    def add_table(self) -> None:
        change = SessionRecord(sequence=self._next(), added_tables=(self.write_table(),))
        self.commit(change)

    def compact(self) -> None:
        """Two tables become one, one level down; the old ones are removed afterwards."""
        old = list(self.session.state.tables())[:2]
        new = replace(self.write_table(), level=1)
        gone = tuple(DeletedTable(each.level, each.number) for each in old)
        self.commit(SessionRecord(sequence=self._next(), added_tables=(new,), deleted_tables=gone))
        for each in old:
            self.storage.remove(FileDesc(each.number, Kind.TABLE))

    def _next(self) -> int:
        return (self.session.state.sequence or 0) + 10

    def close(self) -> History:
        self.session.close()
        self.storage.close()
        return self.history


@dataclass(frozen=True)
class Opened:
    """What the next opening finds."""

    state: SessionState | None
    why_not: str = ""
    damage: tuple[str, ...] = ()
    trouble: tuple[str, ...] = ()
    """What is wrong whatever the history was."""


_opened: dict[bytes, Opened] = {}


def opened(state: State) -> Opened:
    if state.digest not in _opened:
        _opened[state.digest] = _open(state.snapshot())
    return _opened[state.digest]


def _open(snapshot: Snapshot) -> Opened:
    directory = restored(snapshot)
    held = contents(snapshot)
    with DirectoryStorage(directory, write_log=False) as storage, Session(storage) as session:
        try:
            session.recover()
        except (FileNotFoundError, AvccfsError) as error:
            return Opened(None, str(error))
        trouble = [
            f"table {each.number} is not there, or not whole"
            for each in session.state.tables()
            if held.get(name_of(FileDesc(each.number, Kind.TABLE))) != table_content(each.number)
        ]
        trouble += [
            f"the number of {each} would be given out again"
            for each in storage.list(Kind.MANIFEST | Kind.TABLE | Kind.JOURNAL)
            if each.number >= session.numbers.next
        ]
        damage = tuple(str(fault) for fault in session.faults)
        return Opened(told(session.state), "", damage, tuple(trouble))


def complaints(
    history: History, profile: Profile = WEAKEST, granularity: Granularity = FINE
) -> Iterator[tuple[State, str]]:
    for point in reachable(history.trace, profile, granularity):
        allowed = history.allowed(point.position)
        for state in point:
            found = opened(state)
            if found.state not in allowed:
                yield state, f"found {found.state or found.why_not}\nallowed: {allowed}"
            elif found.trouble:
                yield state, "; ".join(found.trouble)
            elif found.damage and not history.under_way(point.position):
                yield state, f"damage with nothing under way: {found.damage}"


def demand_none(history: History, granularity: Granularity = FINE) -> None:
    worst = min(
        complaints(history, granularity=granularity),
        key=lambda each: (len(each[0].faults), each[0].position),
        default=None,
    )
    assert worst is None, f"{worst[0].describe(history.trace)}\n{worst[1]}"


def with_two_tables() -> MemoryDirectory:
    """A database at rest: everything in it is durable."""
    base = MemoryDirectory()
    work = Work(base)
    work.create()
    work.add_table()
    work.add_table()
    work.close()
    return base


def test_creating_a_database() -> None:
    work = Work(MemoryDirectory())
    work.create()
    demand_none(work.close())


def test_commits_to_a_new_database() -> None:
    work = Work(MemoryDirectory())
    work.create()
    work.add_table()
    work.add_table()
    work.compact()
    demand_none(work.close())


def test_the_first_commit_after_recovery_begins_a_new_manifest() -> None:
    work = Work(with_two_tables())
    work.recover()
    work.add_table()
    assert work.session.state.manifest != FileDesc(0, Kind.MANIFEST)
    work.compact()
    demand_none(work.close())


def test_rotation() -> None:
    work = Work(with_two_tables())
    work.recover()
    work.add_table()
    work.rotate()
    work.add_table()
    work.rotate()
    work.rotate()
    demand_none(work.close())


def test_a_record_longer_than_a_sector() -> None:
    work = Work(with_two_tables())
    work.recover()
    work.rotate()
    long = replace(work.write_table(), largest=b"z" * 1500)
    work.commit(SessionRecord(sequence=99, added_tables=(long,)))
    demand_none(work.close())


def test_every_position_of_these_histories_is_enumerated_in_full() -> None:
    work = Work(with_two_tables())
    work.recover()
    work.compact()
    work.rotate()
    history = work.close()
    assert all(point.exhaustive for point in reachable(history.trace))


def test_recovery_goes_on_after_a_crash() -> None:
    """From every state of a commit: recover, commit again, and crash in that."""
    work = Work(with_two_tables())
    work.recover()
    work.compact()
    left = {
        state.digest: state
        for point in reachable(work.close().trace, WEAKEST, COARSE)
        for state in point
    }
    assert len(left) > 50
    for state in left.values():
        again = Work(restored(state.snapshot()))
        again.recover()
        again.add_table()
        demand_none(again.close(), WHOLE)


class Nth:
    """Fails the n-th of all changes, whatever they are."""

    def __init__(self, n: int) -> None:
        self.left = n

    def decisions(self, pair: Pair) -> Iterator[bool]:
        while True:
            self.left -= 1
            yield self.left == 0


CHANGES = Op.CREATE | Op.WRITE | Op.TRUNCATE | Op.SYNC | Op.REMOVE | Op.RENAME | Op.SYNC_DIR


@pytest.mark.parametrize("step", range(1, 38))
def test_a_step_fails_and_the_power_fails_later(step: int) -> None:
    """The session clears up after itself and goes on; no moment of that may lose anything."""
    plan = FaultPlan()
    work = Work(with_two_tables(), plan)
    work.recover()
    work.add_table()
    nth = Nth(step)
    plan.fail(CHANGES, ALL_KINDS, nth, error=errno.EIO)
    failed = 0
    for action in (work.rotate, work.compact, work.add_table):
        try:
            action()
        except (OSError, AvccfsError):
            failed += 1
    assert failed <= 1
    assert nth.left <= 0, "there are fewer changes than that"
    work.rotate()
    demand_none(work.close(), COARSE)


class TestWhatTheMatrixWouldCatch:
    """The same questions, asked of a storage that leaves something out."""

    class WithoutDirectorySync:
        """Passes on everything but the sync of the directory."""

        def __init__(self, inner: Directory) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def sync(self, path: str = "") -> None:
            """Nothing."""

    def test_a_directory_that_is_never_synced(self) -> None:
        work = Work(with_two_tables())
        lazy = self.WithoutDirectorySync(work.history.directory)
        work.storage = DirectoryStorage(lazy, write_log=False, take_lock=False)  # type: ignore[arg-type]
        work.session = Session(work.storage)
        work.recover()
        work.add_table()
        history = work.close()
        assert any(found.state is None for found in map(opened, self._states(history)))
        assert list(complaints(history, granularity=COARSE))

    def test_a_table_that_its_writer_did_not_sync(self) -> None:
        work = Work(with_two_tables())
        work.recover()
        number = work.session.numbers.allocate()
        writer = work.storage.create(FileDesc(number, Kind.TABLE))
        writer.write(table_content(number))
        work.commit(SessionRecord(sequence=99, added_tables=(table(number),)))
        writer.close()
        wrong = [text for _, text in complaints(work.close(), granularity=COARSE)]
        assert wrong
        assert set(wrong) == {f"table {number} is not there, or not whole"}

    @staticmethod
    def _states(history: History) -> Iterator[State]:
        for point in reachable(history.trace, WEAKEST, COARSE):
            yield from point
