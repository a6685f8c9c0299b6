"""Every step of a session fails, one after the other, and nothing acknowledged is ever lost."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.format.filename import FileDesc, Kind
from avccfs.format.manifest import DeletedTable, SessionRecord
from avccfs.session.session import Session
from avccfs.session.state import SessionState
from avccfs.vfs.fault import Always, Op
from tests.session.places import (
    PLACES,
    Place,
    When,
    arm,
    change,
    content,
    manifest_desc,
    memory,
    memory_files,
)

FAILS = (OSError, errors.AvccfsError)

BASE = change(5, sequence=10)
STEP = SessionRecord(
    sequence=20, deleted_tables=(DeletedTable(0, 5),), added_tables=change(6, 7).added_tables
)
LATER = change(8, sequence=30)

# --- what is done while steps fail: from a session in some condition, one change


def first_commit_after_recovery(place: Place) -> Session:
    session = Session(place.storage)
    session.recover()
    return session


def commit_to_an_open_manifest(place: Place) -> Session:
    session = first_commit_after_recovery(place)
    session.commit(SessionRecord())
    return session


def commit_that_rotates(place: Place) -> Session:
    session = Session(place.storage, max_manifest_size=1)
    session.recover()
    session.commit(SessionRecord())
    return session


def commit_after_a_failed_one(place: Place) -> Session:
    session = commit_to_an_open_manifest(place)
    with place.plan.fail(Op.WRITE, Kind.MANIFEST), pytest.raises(errors.SessionError):
        session.commit(change(99))
    return session


CONDITIONS: tuple[Callable[[Place], Session], ...] = (
    first_commit_after_recovery,
    commit_to_an_open_manifest,
    commit_that_rotates,
    commit_after_a_failed_one,
)


# The steps are those of the storage, not of what is below it: a real directory, where each sync
# takes its time, shows in one condition that nothing is different there.
Make = Callable[[Path], Place]
IN_MEMORY: dict[str, Make] = {"memory files": memory_files, "memory": memory}
RUNS = [
    pytest.param(make, condition, id=f"{name}-{condition.__name__}")
    for condition in CONDITIONS
    for name, make in PLACES.items()
    if name in IN_MEMORY or condition is commit_to_an_open_manifest
]


@dataclass(frozen=True, slots=True)
class Ends:
    """The states between which a run of a commit must choose."""

    old: SessionState
    new: SessionState
    later: SessionState
    """Old, then `LATER`."""

    @classmethod
    def of(cls, session: Session) -> Ends:
        old = content(session.state)
        return cls(old, content(old.apply(STEP)), content(old.apply(LATER)))


def base(place: Place) -> None:
    with Session(place.storage) as session:
        session.create()
        session.commit(BASE)


def state_on_disk(place: Place) -> SessionState:
    with place.recovered() as session:
        return content(session.state)


@pytest.mark.parametrize(("make", "condition"), RUNS)
def test_whatever_step_of_a_commit_fails_the_outcome_is_old_or_new(
    make: Make, condition: Callable[[Place], Session], tmp_path: Path
) -> None:
    outcomes = set()
    for step in range(10_000):
        place = make(tmp_path / str(step))
        base(place)
        session = condition(place)
        ends = Ends.of(session)
        number, manifests = session.numbers.next, place.manifests()
        trigger = arm(place.plan, step)
        error: errors.SessionError | None = None
        try:
            session.commit(STEP)
        except errors.SessionError as caught:
            error = caught
        place.plan.clear()
        assert content(session.state) == (ends.new if error is None else ends.old)
        if error is not None:
            assert error.__cause__ is error.causes[0]
            assert all(str(cause) in str(error) for cause in error.causes)
            # Numbers that the change names stay used; those of a file that is gone do not.
            after = max(number, 8)
            if error.settled:
                assert place.manifests() == manifests
                assert session.numbers.next == after
            else:
                assert session.unsettled
            outcomes.add(error.settled)
        session.close()
        found = state_on_disk(place)
        allowed = [ends.new] if error is None else [ends.old]
        if error is not None and not error.settled:
            allowed.append(ends.new)
        assert found in allowed
        assert place.storage.open_handles == ()
        place.storage.close()
        place.directory.close()
        if not trigger.fired:
            assert error is None
            break
    # The loop saw failures of both kinds, where this condition has them.
    assert True in outcomes


@pytest.mark.parametrize(("make", "condition"), RUNS)
@pytest.mark.parametrize("dead", [False, True], ids=["one step", "from there on"])
def test_whatever_step_failed_the_session_goes_on(
    make: Make,
    dead: bool,
    condition: Callable[[Place], Session],
    tmp_path: Path,
) -> None:
    for step in range(10_000):
        place = make(tmp_path / str(step))
        base(place)
        session = condition(place)
        ends = Ends.of(session)
        trigger = arm(place.plan, step, None if dead else 1)
        failed = False
        try:
            session.commit(STEP)
        except errors.SessionError:
            failed = True
        place.plan.clear()
        session.commit(LATER)
        expected = ends.later if failed else content(ends.new.apply(LATER))
        assert content(session.state) == expected
        assert not session.unsettled
        session.rotate()
        session.close()
        with place.recovered() as again:
            assert content(again.state) == expected
            assert again.faults == ()
            assert place.manifests() == [again.state.manifest.number if again.state.manifest else 0]
        place.storage.close()
        place.directory.close()
        if not trigger.fired:
            assert not failed
            break


@pytest.mark.parametrize("dead", [False, True], ids=["one step", "from there on"])
@pytest.mark.parametrize("make", list(IN_MEMORY.values()), ids=list(IN_MEMORY))
def test_whatever_step_of_a_creation_fails_there_is_no_database_or_a_whole_one(
    make: Make, dead: bool, tmp_path: Path
) -> None:
    for step in range(10_000):
        place = make(tmp_path / str(step))
        session = Session(place.storage)
        trigger = arm(place.plan, step, None if dead else 1)
        error: Exception | None = None
        try:
            session.create()
        except FAILS as caught:
            error = caught
        place.plan.clear()
        if error is not None:
            with pytest.raises(errors.StorageError, match="not open"):
                session.commit(SessionRecord())
            settled = not isinstance(error, errors.SessionError) or error.settled
            if settled and not dead:
                assert place.manifests() == []
                assert session.numbers.next == 0
            try:
                session.recover()
            except (FileNotFoundError, errors.MetaError):
                session.create()
        session.commit(LATER)
        session.close()
        with place.recovered() as again:
            assert [each.number for each in again.state.tables()] == [8]
        place.storage.close()
        place.directory.close()
        if not trigger.fired:
            assert error is None
            break


def test_recovery_changes_no_state_whatever_step_fails(place: Place) -> None:
    base(place)
    with place.recovered() as session:
        session.commit(STEP)
        expected = content(session.state)
    for step in range(10_000):
        session = Session(place.storage)
        trigger = arm(place.plan, step)
        try:
            session.recover()
        except FAILS:
            place.plan.clear()
            session.recover()
        place.plan.clear()
        assert content(session.state) == expected
        session.close()
        if not trigger.fired:
            break
    assert step > 3


def test_whatever_step_of_a_new_journal_fails_its_number_is_free_again(place: Place) -> None:
    base(place)
    with place.recovered() as session:
        number = session.numbers.next
        steps = place.plan.count()
        desc, writer = session.new_journal()
        steps = place.plan.count() - steps
        writer.close()
        place.storage.remove(desc)
        assert desc == FileDesc(number, Kind.JOURNAL)
        assert session.numbers.reuse(number)
        assert steps > 0
        for step in range(steps):
            arm(place.plan, step)
            with pytest.raises(errors.SessionError) as caught:
                session.new_journal()
            place.plan.clear()
            assert caught.value.settled
            assert session.numbers.next == number
            assert place.storage.list(Kind.JOURNAL) == []


# --- the single cases that the rules are about


def two_manifests(place: Place) -> tuple[Session, int]:
    """A session that is about to rotate, and the number its new manifest will have."""
    base(place)
    session = first_commit_after_recovery(place)
    session.commit(SessionRecord())
    return session, session.numbers.next


def test_both_errors_are_told_when_clearing_up_fails_too(place: Place) -> None:
    session, number = two_manifests(place)
    with (
        session,
        place.plan.fail(Op.WRITE, Kind.MANIFEST, error=errno.ENOSPC),
        place.plan.fail(Op.REMOVE, Kind.MANIFEST, error=errno.EROFS),
        pytest.raises(errors.SessionError, match=r"(?s)No space left.*Read-only file") as caught,
    ):
        session.rotate()
    full, read_only = caught.value.causes
    assert isinstance(full, OSError)
    assert isinstance(read_only, OSError)
    assert (full.errno, read_only.errno) == (errno.ENOSPC, errno.EROFS)
    assert caught.value.__cause__ is full
    assert str(manifest_desc(number)) in str(caught.value)


def test_the_number_of_a_file_that_could_not_be_removed_is_not_reused(place: Place) -> None:
    session, number = two_manifests(place)
    with session:
        with (
            place.plan.fail(Op.WRITE | Op.REMOVE, Kind.MANIFEST),
            pytest.raises(errors.SessionError),
        ):
            session.rotate()
        assert place.manifests() == [number - 1, number]
        assert session.numbers.next == number + 1
        session.rotate()
        assert place.manifests() == [number + 1]


def test_a_manifest_with_an_unknown_end_is_never_appended_to(place: Place) -> None:
    session, number = two_manifests(place)
    with session:
        for op in (Op.WRITE, Op.SYNC):
            live = f"MANIFEST-{number - 1:06d}"
            with place.plan.fail(op, Kind.MANIFEST), pytest.raises(errors.SessionError) as caught:
                session.commit(SessionRecord(sequence=50))
            assert not caught.value.settled
            before = place.read(live)
            with (
                place.plan.fail(Op.CREATE, Kind.MANIFEST, Always()),
                pytest.raises(errors.SessionError),
            ):
                session.commit(LATER)
            assert place.read(live) == before
            session.commit(LATER)
            number = session.numbers.next
            assert place.manifests() == [number - 1]


def test_a_sync_that_failed_before_the_write_is_settled_and_still_not_trusted(
    place: Place,
) -> None:
    session, number = two_manifests(place)
    with session:
        size = len(place.read(f"MANIFEST-{number - 1:06d}"))
        with place.plan.fail(Op.SYNC_DIR), pytest.raises(errors.SessionError) as caught:
            session.commit(change(number))
        assert caught.value.settled
        assert not session.unsettled
        assert len(place.read(f"MANIFEST-{number - 1:06d}")) == size
        session.commit(SessionRecord())
        assert place.manifests() == [number + 1]


def test_closing_a_session_survives_a_failing_close(place: Place) -> None:
    session, _ = two_manifests(place)
    with place.plan.fail(Op.CLOSE, Kind.MANIFEST):
        session.close()
    with place.recovered() as again:
        assert again.state.sequence == 10


# --- the switch itself, half-way, where the meta value is made of files


def after(place: Place, op: Op) -> When:
    """A trigger for the calls that come once `op` has been asked for one more time."""
    before = place.plan.count(op)
    return When(lambda: place.plan.count(op) > before)


@pytest.fixture
def session_and_number(files: Place) -> Iterator[tuple[Session, int]]:
    session, number = two_manifests(files)
    with session:
        yield session, number


def test_a_switch_that_fails_before_the_rename_is_undone(
    files: Place, session_and_number: tuple[Session, int]
) -> None:
    session, _ = session_and_number
    session.rotate()
    number, before = session.numbers.next, files.manifests()
    with files.plan.fail(Op.RENAME), pytest.raises(errors.SessionError) as caught:
        session.rotate()
    assert caught.value.settled
    assert session.numbers.next == number
    assert files.manifests() == before
    assert not session.unsettled
    size = len(files.read(f"MANIFEST-{before[0]:06d}"))
    session.commit(LATER)
    # The old manifest was never in doubt: it goes on.
    assert files.manifests() == before
    assert len(files.read(f"MANIFEST-{before[0]:06d}")) > size


def test_a_switch_that_fails_behind_the_rename_keeps_both_manifests(
    files: Place, session_and_number: tuple[Session, int]
) -> None:
    session, number = session_and_number
    with (
        files.plan.fail(Op.SYNC_DIR, how=after(files, Op.RENAME)),
        pytest.raises(errors.SessionError) as caught,
    ):
        session.rotate()
    assert not caught.value.settled
    assert files.manifests() == [number - 1, number]
    assert session.numbers.next == number + 1
    assert files.storage.get_meta() == manifest_desc(number)
    session.commit(LATER)
    assert not session.unsettled
    assert files.manifests() == [session.numbers.next - 1]


def test_when_nobody_knows_which_manifest_is_live_both_are_kept(
    files: Place, session_and_number: tuple[Session, int]
) -> None:
    session, number = session_and_number
    with (
        files.plan.fail(Op.RENAME),
        files.plan.fail(Op.OPEN, Kind.META, after(files, Op.RENAME), error=errno.EMFILE),
        pytest.raises(errors.SessionError, match="asking which manifest is live") as caught,
    ):
        session.rotate()
    assert not caught.value.settled
    assert len(caught.value.causes) == 2
    assert files.manifests() == [number - 1, number]
    assert session.numbers.next == number + 1
    session.commit(LATER)
    assert files.manifests() == [session.numbers.next - 1]


def test_when_the_entry_point_vanishes_during_a_switch_both_manifests_are_kept(
    files: Place, session_and_number: tuple[Session, int]
) -> None:
    session, number = session_and_number

    def somebody_removes_it() -> OSError:
        for name in ("CURRENT", "CURRENT.bak"):
            files.directory.remove(name)
        return OSError(errno.EIO, "and the rename fails")

    with (
        files.plan.fail(Op.RENAME, error=somebody_removes_it),
        pytest.raises(errors.SessionError, match="asking which manifest is live") as caught,
    ):
        session.rotate()
    assert not caught.value.settled
    assert files.manifests() == [number - 1, number]
    session.commit(LATER)
    assert files.manifests() == [session.numbers.next - 1]
    assert files.storage.get_meta() == session.state.manifest


def test_a_pending_pointer_that_stays_behind_keeps_its_manifest(files: Place) -> None:
    base(files)
    session = first_commit_after_recovery(files)
    before = content(session.state)
    with (
        files.plan.fail(Op.RENAME),
        files.plan.fail(Op.REMOVE, Kind.META, after(files, Op.RENAME)),
        pytest.raises(errors.SessionError) as caught,
    ):
        session.commit(STEP)
    assert not caught.value.settled
    assert len(files.manifests()) == 2
    assert content(session.state) == before
    session.close()
    assert state_on_disk(files) == content(before.apply(STEP))


def test_a_number_is_not_reused_while_a_lost_pointer_to_it_could_come_back(
    files: Place, session_and_number: tuple[Session, int]
) -> None:
    session, number = session_and_number
    with (
        files.plan.fail(Op.RENAME),
        files.plan.fail(Op.SYNC_DIR, how=after(files, Op.RENAME)),
        pytest.raises(errors.SessionError) as caught,
    ):
        session.rotate()
    assert not caught.value.settled
    assert files.manifests() == [number - 1]
    assert session.numbers.next == number + 1
    session.commit(LATER)
    assert files.manifests() == [session.numbers.next - 1]
    assert session.numbers.next > number + 1


def test_an_old_manifest_that_cannot_be_cleared_away_does_not_fail_the_commit(
    files: Place, session_and_number: tuple[Session, int]
) -> None:
    session, number = session_and_number
    with files.plan.fail(Op.REMOVE | Op.CLOSE, Kind.MANIFEST, after(files, Op.RENAME)):
        session.rotate()
    assert files.plan.failures(Op.REMOVE | Op.CLOSE, Kind.MANIFEST) == 2
    assert files.manifests() == [number - 1, number]
    assert session.state.manifest == manifest_desc(number) == files.storage.get_meta()
    session.rotate()
    assert files.manifests() == [number + 1]
