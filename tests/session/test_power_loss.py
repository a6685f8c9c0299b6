"""A step fails, the session goes on, and then the power fails: at every moment, on a disk that
keeps or loses every unsynced thing by itself (SPEC section 10).

This is where clearing up goes wrong: what was removed comes back, and what came back points to a
file whose number was given to another.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from avccfs import errors
from avccfs.format.filename import FileDesc, Kind
from avccfs.format.manifest import DeletedTable, SessionRecord
from avccfs.session.session import Session
from avccfs.session.state import SessionState
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Open
from avccfs.vfs.fault import FaultDirectory, FaultPlan
from avccfs.vfs.memory import MemoryDirectory
from tests.session.places import added, arm, content
from tests.storage.weakdisk import State, WeakDisk

Recovered = tuple[SessionState, frozenset[str]]
"""What is recovered, and the files that are there."""


class AppendingDisk(WeakDisk):
    """What was synced of a file stays when more is appended; only the rest may be torn."""

    def _contents(self, inode: int | None) -> set[bytes | None]:
        if inode is None:
            return {None}
        now, durable = self._now[inode], self._durable.get(inode, b"")
        if not now.startswith(durable):
            return super()._contents(inode)
        rest = now[len(durable) :]
        return {durable, durable + rest[: len(rest) // 2], durable + bytes(len(rest)), now}


@functools.lru_cache(maxsize=100_000)
def recovered(files: frozenset[tuple[str, bytes]]) -> Recovered:
    directory = MemoryDirectory()
    for name, data in files:
        file = directory.open(name, Open.WRITE | Open.CREATE)
        file.write_at(data, 0)
        file.close()
    with DirectoryStorage(directory, write_log=False) as storage, Session(storage) as session:
        session.recover()
        return content(session.state), frozenset(name for name, _ in files)


class Run:
    """One history on a weak disk, watched."""

    def __init__(self) -> None:
        self.disk = AppendingDisk()
        self.plan = FaultPlan()
        self.storage = DirectoryStorage(FaultDirectory(self.disk, self.plan), write_log=False)
        self.allowed: list[SessionState] = []
        self.looks = 0
        with Session(self.storage) as session:
            session.create()
            self.write_table(1)
            session.commit(SessionRecord(sequence=10, added_tables=added(1)))
        self.disk.settle()
        self.disk.before_sync = self.look

    def look(self) -> None:
        """In every state that the power loss may leave, the database is whole, and as allowed."""
        for state in self.disk.states():
            self.looks += 1
            found, files = recovered(_key(state))
            assert found in self.allowed, self.told(state)
            for table in found.tables():
                assert f"{table.number:06d}.ldb" in files, self.told(state)

    def told(self, state: State) -> str:
        return "\n".join(f"{name}: {data!r}" for name, data in sorted(state.items()))

    def write_table(self, number: int) -> None:
        """A synced table, whose name nobody has synced."""
        writer = self.storage.create(FileDesc(number, Kind.TABLE))
        writer.write(b"table %d" % number)
        writer.sync()
        writer.close()

    def commit(self, session: Session, change: SessionRecord, *, fail_at: int | None) -> bool:
        """Commit, perhaps with a step that fails; whether it did."""
        old = content(session.state)
        new = content(old.apply(change))
        before = list(self.allowed)
        if new not in self.allowed:
            self.allowed.append(new)
        trigger = None if fail_at is None else arm(self.plan, fail_at)
        try:
            session.commit(change)
        except errors.SessionError as error:
            assert trigger is not None
            if error.settled:
                self.allowed = before
        else:
            self.allowed = [new]
        finally:
            self.plan.clear()
        self.look()
        return trigger is not None and trigger.fired > 0


def _key(state: State) -> frozenset[tuple[str, bytes]]:
    return frozenset((name, data) for name, data in state.items() if name != "LOCK")


def changes() -> Iterator[SessionRecord]:
    """Each adds a table and takes away the one before it."""
    number = 1
    while True:
        yield SessionRecord(
            sequence=10 * number + 10,
            deleted_tables=(DeletedTable(0, number),),
            added_tables=added(number + 1),
        )
        number += 1


def history(run: Run, max_manifest_size: int, fail_at: tuple[int, int]) -> tuple[bool, bool]:
    """Four commits, of which the second and the third may fail at a step; whether they did."""
    with Session(run.storage, max_manifest_size=max_manifest_size) as session:
        session.recover()
        # Tables are given out beforehand, so that their numbers are not those of manifests.
        session.numbers.mark(10)
        run.allowed = [content(session.state)]
        fired = []
        steps = [None, *fail_at, None]
        for fails, change in zip(steps, changes(), strict=False):
            run.write_table(change.added_tables[0].number)
            fired.append(run.commit(session, change, fail_at=fails))
        return fired[1], fired[2]


@pytest.mark.parametrize("max_manifest_size", [1, 1 << 20], ids=["every commit rotates", "appends"])
def test_after_a_failed_step_and_power_loss_nothing_acknowledged_is_gone(
    max_manifest_size: int,
) -> None:
    never = 10**6
    step = 0
    while True:
        run = Run()
        fired, _ = history(run, max_manifest_size, (step, never))
        assert run.looks > 20
        if not fired:
            break
        step += 1
    assert step >= 5


@pytest.mark.parametrize("max_manifest_size", [1, 1 << 20], ids=["every commit rotates", "appends"])
def test_after_two_failed_steps_and_power_loss_nothing_acknowledged_is_gone(
    max_manifest_size: int,
) -> None:
    stride = 11  # Not every pair: each first step meets its own tenth of the second ones.
    first = 0
    fired = True
    while fired:
        second = first % stride
        fired_second = True
        while fired and fired_second:
            fired, fired_second = history(Run(), max_manifest_size, (first, second))
            second += stride
        first += 1
    assert first >= 5
