"""A session from creation to close, on every storage, while nothing fails."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.format import journal, manifest
from avccfs.format.filename import FileDesc, Kind
from avccfs.format.journal import Policy, Record
from avccfs.format.manifest import BYTEWISE_COMPARER, DeletedTable, SessionRecord
from avccfs.session.session import DEFAULT_MAX_MANIFEST_SIZE, Session
from avccfs.storage.directory import open_storage
from avccfs.vfs.fault import Op
from tests.session.places import Place, added, change, content, manifest_desc


def records(place: Place, number: int) -> list[SessionRecord]:
    """What a manifest holds, which must be sound."""
    items = list(journal.read(place.read(f"MANIFEST-{number:06d}"), Policy.GOLEVELDB))
    assert all(isinstance(item, Record) for item in items)
    return [manifest.decode(item.payload) for item in items if isinstance(item, Record)]


def created(place: Place, *, max_manifest_size: int = DEFAULT_MAX_MANIFEST_SIZE) -> Session:
    session = Session(place.storage, max_manifest_size=max_manifest_size)
    session.create()
    return session


# --- creation


def test_a_new_database_is_one_manifest_with_one_snapshot(place: Place) -> None:
    with created(place) as session:
        assert session.numbers.next == 1
        assert session.state.manifest == manifest_desc(0) == place.storage.get_meta()
    assert records(place, 0) == [
        SessionRecord(BYTEWISE_COMPARER, journal_number=0, next_file_number=1, sequence=0)
    ]


def test_the_first_manifest_is_byte_for_byte_what_goleveldb_writes(place: Place) -> None:
    created(place).close()
    fixture = Path(__file__).parent.parent / "fixtures/goleveldb-closed/db/MANIFEST-000000"
    ours = place.read("MANIFEST-000000")
    assert len(ours) == 41
    assert fixture.read_bytes()[:41] == ours


def test_a_second_creation_is_refused_and_changes_nothing(place: Place) -> None:
    with created(place) as session:
        session.commit(change(5, sequence=9))
        state = content(session.state)
    with Session(place.storage) as session, pytest.raises(errors.MetaError, match="Recover it"):
        session.create()
    with place.recovered() as session:
        assert content(session.state) == state


@pytest.mark.parametrize("name", ["000003.ldb", "000003.sst", "000004.log", "MANIFEST-000001"])
def test_nothing_is_created_over_database_files_without_an_entry_point(
    place: Place, name: str
) -> None:
    place.put(name, b"precious")
    with Session(place.storage) as session:
        for attempt in (session.recover, session.create):
            with pytest.raises(errors.MetaError, match="missing or corrupted") as caught:
                attempt()
            assert str(caught.value).count(f"{name.split('.')[0]}")
            assert caught.value.file == "CURRENT"
    assert place.read(name) == b"precious"


def test_foreign_files_do_not_make_a_database(place: Place) -> None:
    place.put("README")
    place.put("5.ldb")
    with Session(place.storage) as session:
        with pytest.raises(FileNotFoundError):
            session.recover()
        session.create()
        assert session.state.sequence == 0


# --- commits


def test_a_commit_is_one_record_with_the_next_file_number(place: Place) -> None:
    with created(place) as session:
        number = session.numbers.allocate()
        session.commit(change(number, sequence=7))
        session.commit(SessionRecord(deleted_tables=(DeletedTable(0, number),)))
        assert session.state.sequence == 7
        assert list(session.state.tables()) == []
    assert records(place, 0)[1:] == [
        SessionRecord(next_file_number=2, sequence=7, added_tables=added(1)),
        SessionRecord(next_file_number=2, deleted_tables=(DeletedTable(0, 1),)),
    ]


def test_an_empty_commit_is_durable_too(place: Place) -> None:
    with created(place) as session:
        session.numbers.mark(40)
        session.commit(SessionRecord())
    with place.recovered() as session:
        assert session.numbers.next == 41


def test_numbers_that_a_change_names_count_as_used(place: Place) -> None:
    with created(place) as session:
        session.commit(SessionRecord(journal_number=12, added_tables=added(30, 20)))
        assert session.numbers.next == 31
        session.commit(SessionRecord(journal_number=44))
        assert session.numbers.next == 45
        session.commit(SessionRecord(next_file_number=60))
        assert session.numbers.next == 60
        session.commit(SessionRecord(next_file_number=3))
        assert session.state.next_file_number == 60


def test_the_first_commit_after_recovery_begins_a_new_manifest(place: Place) -> None:
    with created(place) as session:
        session.commit(change(5, 6, sequence=9))
    with place.recovered() as session:
        session.commit(
            SessionRecord(deleted_tables=(DeletedTable(0, 5),), added_tables=added(6, 8))
        )
        session.commit(SessionRecord(sequence=10))
        assert session.state.manifest == manifest_desc(9) == place.storage.get_meta()
        assert place.manifests() == [9]
    # In the snapshot the change is worked in: nothing is deleted, no table named twice.
    assert records(place, 9) == [
        SessionRecord(BYTEWISE_COMPARER, 0, 10, 9, added_tables=added(6, 8)),
        SessionRecord(next_file_number=10, sequence=10),
    ]


def test_a_manifest_past_its_limit_is_replaced_at_the_next_commit(place: Place) -> None:
    with created(place, max_manifest_size=60) as session:
        session.commit(SessionRecord(sequence=1))
        assert place.manifests() == [0]
        session.commit(SessionRecord(sequence=2))
        assert len(place.read("MANIFEST-000000")) >= 60
        session.commit(SessionRecord(sequence=3))
        assert place.manifests() == [1]
        assert session.state.sequence == 3
    with place.recovered() as session:
        assert session.state.sequence == 3


def test_a_limit_below_one_snapshot_still_works(place: Place) -> None:
    with created(place, max_manifest_size=1) as session:
        for sequence in range(5):
            session.commit(SessionRecord(sequence=sequence))
        assert place.manifests() == [5]
        assert session.state.sequence == 4


def test_rotation_writes_the_same_state_into_a_new_manifest(place: Place) -> None:
    with created(place) as session:
        session.commit(change(5, sequence=9))
        before = content(session.state)
        session.rotate()
        assert content(session.state) == before
        assert place.manifests() == [6]
    assert records(place, 6) == [
        SessionRecord(BYTEWISE_COMPARER, 0, 7, 9, added_tables=added(5)),
    ]


def test_a_change_that_cannot_be_written_is_refused_before_anything_happens(place: Place) -> None:
    with created(place) as session:
        before, size = session.state, len(place.read("MANIFEST-000000"))
        impossible = [
            SessionRecord(journal_number=-1),
            SessionRecord(sequence=2**64),
            SessionRecord(comparer=b"another"),
            SessionRecord(deleted_tables=(DeletedTable(-1, 2),)),
        ]
        for each in impossible:
            with pytest.raises(ValueError, match=r"not -1|not 18446744073709551616|comparer"):
                session.commit(each)
        assert session.state is before
        session.commit(SessionRecord(sequence=1))
    assert len(place.read("MANIFEST-000000")) > size


def test_names_are_durable_before_a_record_relies_on_them(place: Place) -> None:
    with created(place) as session:
        plan = place.plan
        before = plan.count(Op.SYNC_DIR)
        with plan.fail(Op.WRITE, Kind.MANIFEST), pytest.raises(errors.SessionError):
            session.commit(change(1))
        syncs = plan.count(Op.SYNC_DIR) - before
    assert syncs == 1


def test_commits_of_many_threads_all_arrive(place: Place) -> None:
    with created(place, max_manifest_size=500) as session:
        start = threading.Barrier(4)

        def work() -> None:
            start.wait()
            for _ in range(10):
                session.commit(change(session.numbers.allocate()))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        state = session.state
        assert len(list(state.tables())) == 40
    with place.recovered() as session:
        assert content(session.state) == content(state)


# --- recovery


def test_everything_comes_back(place: Place) -> None:
    with created(place) as session:
        session.commit(
            SessionRecord(
                journal_number=4,
                sequence=2**56 - 1,
                previous_journal_number=3,
                compaction_pointers=(manifest.CompactionPointer(1, b"k" + bytes(8)),),
                added_tables=added(7) + added(8, level=6),
            )
        )
        state = session.state
    for _ in range(3):
        with place.recovered() as session:
            assert content(session.state) == content(state)
            session.rotate()
            assert content(session.state) == content(state)


def test_recovery_of_an_empty_storage_finds_no_database(place: Place) -> None:
    with Session(place.storage) as session, pytest.raises(FileNotFoundError):
        session.recover()


def test_no_allocation_meets_a_file_that_is_there(place: Place) -> None:
    created(place).close()
    for name in ("000017.ldb", "000021.sst", "000019.log", "MANIFEST-000020", "000090.tmp"):
        place.put(name)
    with place.recovered() as session:
        assert session.numbers.next == 22
        assert session.numbers.allocate_temp() == 91


def test_no_allocation_meets_a_table_that_is_named_but_missing(place: Place) -> None:
    write_manifest(place, complete(next_file_number=2, added_tables=added(33)))
    with place.recovered() as session:
        assert session.numbers.next == 34


def test_deletions_without_a_table_are_told(place: Place) -> None:
    write_manifest(place, complete(), SessionRecord(deleted_tables=(DeletedTable(2, 8),)))
    with place.recovered() as session:
        (found,) = session.unmatched_deletions
        assert found.table == DeletedTable(2, 8)
        assert found.offset == 41
        assert session.faults == ()


# --- what a manifest must have


def complete(**fields: object) -> SessionRecord:
    """A record with all that is demanded, but for what `fields` say."""
    all_fields: dict[str, object] = {
        "comparer": BYTEWISE_COMPARER,
        "journal_number": 0,
        "next_file_number": 4,
        "sequence": 0,
    }
    return SessionRecord(**{**all_fields, **fields})  # type: ignore[arg-type]


def write_manifest(place: Place, *entries: SessionRecord, damage: int | None = None) -> None:
    """Make manifest 3 live, of these records, with one byte flipped."""
    writer = journal.Writer()
    data = bytearray(b"".join(writer.append(manifest.encode(each)) for each in entries))
    if damage is not None:
        data[damage] ^= 1
    place.put("MANIFEST-000003", bytes(data))
    place.storage.set_meta(manifest_desc(3))


@pytest.mark.parametrize(
    ("attribute", "field"),
    [
        ("comparer", "comparer"),
        ("next_file_number", "next file number"),
        ("journal_number", "journal number"),
        ("sequence", "sequence number"),
    ],
)
def test_a_missing_field_is_named(place: Place, attribute: str, field: str) -> None:
    write_manifest(place, complete(**{attribute: None}))
    with Session(place.storage) as session:
        with pytest.raises(errors.ManifestError, match=f"the {field} is missing") as caught:
            session.recover()
        assert (caught.value.field, caught.value.file) == (field, "MANIFEST-000003")
        assert "none among 1" in str(caught.value)
        assert "rebuild" in str(caught.value)


def test_fields_may_come_from_different_records(place: Place) -> None:
    write_manifest(
        place,
        SessionRecord(comparer=BYTEWISE_COMPARER),
        SessionRecord(sequence=3, next_file_number=9),
        SessionRecord(journal_number=2),
    )
    with place.recovered() as session:
        assert (session.state.sequence, session.state.journal_number) == (3, 2)


def test_an_empty_manifest_lacks_its_comparer(place: Place) -> None:
    write_manifest(place)
    with Session(place.storage) as session:
        with pytest.raises(errors.ManifestError) as caught:
            session.recover()
        assert caught.value.field == "comparer"


def test_another_comparer_is_refused_with_both_names_and_the_offset(place: Place) -> None:
    write_manifest(place, SessionRecord(sequence=3), complete(comparer=b"idb_cmp1"))
    with (
        Session(place.storage) as session,
        pytest.raises(errors.ManifestError, match="does not match") as caught,
    ):
        session.recover()
    assert (caught.value.field, caught.value.offset) == ("comparer", 9)
    assert "idb_cmp1" in str(caught.value)
    assert "leveldb.BytewiseComparator" in str(caught.value)
    with Session(place.storage, comparer=b"idb_cmp1") as session:
        session.recover()
        assert session.state.comparer == b"idb_cmp1"


def test_an_entry_point_that_names_no_manifest_is_refused(place: Place) -> None:
    created(place).close()
    place.put("000007.log")
    place.storage.set_meta(FileDesc(7, Kind.JOURNAL))
    with Session(place.storage) as session, pytest.raises(errors.MetaError, match=r"000007\.log"):
        session.recover()


# --- damage


def test_damage_is_passed_over_and_told(place: Place) -> None:
    write_manifest(place, complete(), change(9), SessionRecord(sequence=5), damage=42)
    with place.recovered() as session:
        assert list(session.state.tables()) == []
        assert session.state.sequence == 0
        (fault,) = session.faults
        assert (fault.file, fault.offset) == ("MANIFEST-000003", 41)
        assert "checksum" in str(fault)


def test_a_record_that_does_not_decode_counts_for_nothing(place: Place) -> None:
    writer = journal.Writer()
    bad = manifest.encode(SessionRecord(sequence=9, added_tables=added(5))) + b"\x08"
    parts = [manifest.encode(complete()), bad, manifest.encode(SessionRecord(journal_number=1))]
    place.put("MANIFEST-000003", b"".join(writer.append(part) for part in parts))
    place.storage.set_meta(manifest_desc(3))
    with place.recovered() as session:
        assert (session.state.sequence, session.state.journal_number) == (0, 1)
        assert list(session.state.tables()) == []
        (fault,) = session.faults
        assert (fault.offset, fault.length) == (41, 7 + len(bad))
        assert "expected 1 to 7 or 9" in str(fault)


def test_strict_refuses_damage_with_file_offset_and_advice(place: Place) -> None:
    write_manifest(place, complete(), SessionRecord(sequence=5), damage=42)
    with Session(place.storage, strict=True) as session:
        with pytest.raises(errors.ManifestError, match="without strict") as caught:
            session.recover()
        assert (caught.value.file, caught.value.offset) == ("MANIFEST-000003", 41)
        with pytest.raises(errors.StorageError, match="not open"):
            session.commit(SessionRecord())


def test_a_damaged_manifest_is_kept_when_a_new_one_takes_over(place: Place) -> None:
    write_manifest(place, complete(), SessionRecord(sequence=5), damage=42)
    with place.recovered() as session:
        session.rotate()
        session.rotate()
    assert place.manifests() == [3, 5]
    with place.recovered() as session:
        assert session.faults == ()


# --- journals


def test_journals_to_replay_are_those_from_the_journal_number_on_and_the_previous(
    place: Place,
) -> None:
    write_manifest(place, complete(journal_number=6, previous_journal_number=2))
    for number in (1, 2, 3, 6, 5, 8, 7):
        place.put(f"{number:06d}.log")
    with place.recovered() as session:
        session.numbers.set_next(4)
        found = session.journals_to_replay()
        assert [desc.number for desc in found] == [2, 6, 7, 8]
        assert session.numbers.next == 9


def test_without_journals_nothing_is_marked(place: Place) -> None:
    with created(place) as session:
        assert session.journals_to_replay() == ()
        assert session.numbers.next == 1


def test_a_new_journal_has_a_number_of_its_own(place: Place) -> None:
    with created(place) as session:
        desc, writer = session.new_journal()
        writer.write(b"entry")
        writer.close()
        assert desc == FileDesc(1, Kind.JOURNAL)
        session.commit(SessionRecord(journal_number=desc.number))
    with place.recovered() as session:
        assert session.journals_to_replay() == (desc,)
    assert place.read("000001.log") == b"entry"


# --- life cycle


def test_two_sessions_cannot_share_a_storage(place: Place) -> None:
    with created(place), Session(place.storage) as second:
        for attempt in (second.recover, second.create):
            with pytest.raises(errors.LockedError):
                attempt()
    with place.recovered() as session:
        assert session.state.sequence == 0


def test_a_failed_recovery_lets_go_of_the_lock(place: Place) -> None:
    with Session(place.storage) as session:
        with pytest.raises(FileNotFoundError):
            session.recover()
        with created(place):
            pass
        session.recover()
        assert session.state.sequence == 0


def test_a_session_is_opened_once(place: Place) -> None:
    with created(place) as session:
        for attempt in (session.create, session.recover):
            with pytest.raises(errors.StorageError, match="open already"):
                attempt()


def test_before_it_is_opened_and_after_it_is_closed_a_session_refuses(place: Place) -> None:
    session = Session(place.storage)
    with pytest.raises(errors.StorageError, match="not open"):
        session.rotate()
    session.create()
    session.close()
    session.close()
    calls: list[Callable[[], object]] = [
        session.create,
        session.recover,
        session.rotate,
        session.new_journal,
        session.journals_to_replay,
        lambda: session.commit(SessionRecord()),
        lambda: session.state,
    ]
    for call in calls:
        with pytest.raises(errors.ClosedError):
            call()


def test_a_read_only_storage_can_be_recovered_and_nothing_else(tmp_path: Path) -> None:
    with open_storage(tmp_path / "db") as storage, Session(storage) as session:
        session.create()
        session.commit(change(5, sequence=9))
    before = {path.name: path.read_bytes() for path in (tmp_path / "db").iterdir()}
    with (
        open_storage(tmp_path / "db", read_only=True) as storage,
        Session(storage) as one,
        Session(storage) as two,
    ):
        for session in (one, two):
            session.recover()
            assert session.state.sequence == 9
            with pytest.raises(errors.ReadOnlyError):
                session.rotate()
            with pytest.raises(errors.ReadOnlyError):
                session.new_journal()
            with pytest.raises(errors.ReadOnlyError):
                session.commit(change(77))
            assert session.numbers.next == 6
    assert {path.name: path.read_bytes() for path in (tmp_path / "db").iterdir()} == before


def test_a_snapshot_of_many_tables_spans_blocks(place: Place) -> None:
    numbers = range(1, 3000)
    with created(place) as session:
        session.commit(change(*numbers))
        session.rotate()
    assert len(place.read("MANIFEST-003000")) > 2 * journal.BLOCK_SIZE
    with place.recovered() as session:
        assert [each.number for each in session.state.tables()] == list(itertools.chain(numbers))
