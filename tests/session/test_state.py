"""The state of a session: records applied one after another."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.format import journal, manifest
from avccfs.format.filename import FileDesc, Kind
from avccfs.format.journal import Policy, Record
from avccfs.format.manifest import AddedTable, CompactionPointer, DeletedTable, SessionRecord
from avccfs.session.state import EMPTY, SessionState, snapshot
from tests.session import dump


def table(number: int, *, level: int = 0, size: int = 100) -> AddedTable:
    return AddedTable(level, number, size, b"a" + bytes(8), b"z" + bytes(8))


def adding(*tables: AddedTable) -> SessionRecord:
    return SessionRecord(added_tables=tables)


def deleting(*tables: tuple[int, int]) -> SessionRecord:
    return SessionRecord(deleted_tables=tuple(DeletedTable(*gone) for gone in tables))


def listed(state: SessionState) -> dict[int, list[int]]:
    return {level: [each.number for each in tables] for level, tables in state.levels.items()}


def test_the_empty_state_says_nothing() -> None:
    assert snapshot(EMPTY) == SessionRecord()


def test_what_a_record_leaves_out_stays() -> None:
    first = SessionRecord(b"cmp", 3, 9, 77, 2, (CompactionPointer(1, b"p"),))
    state = EMPTY.apply(first).apply(SessionRecord(sequence=78))
    assert snapshot(state) == replace(first, sequence=78)


def test_apply_leaves_the_state_it_started_from() -> None:
    before = EMPTY.apply(adding(table(1), table(2)))
    kept = replace(before)
    before.apply(SessionRecord(deleted_tables=(DeletedTable(0, 1),), sequence=5, comparer=b"x"))
    assert before == kept
    assert listed(before) == {0: [1, 2]}


def test_a_state_cannot_be_changed() -> None:
    state = EMPTY.apply(adding(table(1)))
    with pytest.raises(FrozenInstanceError):
        cast(Any, state).sequence = 1
    with pytest.raises(TypeError):
        cast(Any, state.levels)[0] = ()


def test_tables_of_a_level_stand_in_ascending_number() -> None:
    state = EMPTY.apply(adding(table(9), table(2, level=3), table(4), table(5, level=1)))
    assert list(listed(state).items()) == [(0, [4, 9]), (1, [5]), (3, [2])]


def test_the_same_table_twice_in_one_record_is_there_once() -> None:
    assert listed(EMPTY.apply(adding(table(7), table(8), table(7)))) == {0: [7, 8]}


def test_of_two_additions_of_a_table_the_last_counts() -> None:
    state = EMPTY.apply(adding(table(7, size=1), table(7, size=2))).apply(adding(table(7, size=3)))
    assert [each.size for each in state.tables()] == [3]


def test_in_one_record_deletions_come_before_additions() -> None:
    moved = SessionRecord(deleted_tables=(DeletedTable(0, 7),), added_tables=(table(7, size=2),))
    assert [each.size for each in EMPTY.apply(adding(table(7))).apply(moved).tables()] == [2]


def test_a_table_moves_from_one_level_to_another() -> None:
    moved = SessionRecord(deleted_tables=(DeletedTable(1, 7),), added_tables=(table(7, level=2),))
    assert listed(EMPTY.apply(adding(table(7, level=1))).apply(moved)) == {2: [7]}


def test_a_level_without_tables_is_not_there() -> None:
    assert listed(EMPTY.apply(adding(table(7, level=4))).apply(deleting((4, 7)))) == {}


def test_deleting_a_table_that_is_not_there_does_nothing_and_is_told() -> None:
    state = EMPTY.apply(adding(table(7)))
    stray = deleting((0, 8), (1, 7), (0, 7), (0, 7))
    assert state.unmatched_deletions(stray) == (
        DeletedTable(0, 8),
        DeletedTable(1, 7),
        DeletedTable(0, 7),
    )
    assert listed(state.apply(stray)) == {}
    assert state.unmatched_deletions(deleting((0, 7))) == ()


def test_a_previous_journal_of_number_0_is_none() -> None:
    needed = EMPTY.apply(SessionRecord(previous_journal_number=4))
    assert needed.previous_journal_number == 4
    assert needed.apply(SessionRecord(previous_journal_number=0)).previous_journal_number is None


def test_a_snapshot_keeps_a_previous_journal_that_is_still_needed() -> None:
    assert snapshot(EMPTY.apply(SessionRecord(previous_journal_number=4))) == SessionRecord(
        previous_journal_number=4
    )


def test_a_forged_level_costs_nothing() -> None:
    state = EMPTY.apply(adding(table(7, level=2**63 - 1)))
    assert listed(state) == {2**63 - 1: [7]}


def test_the_live_manifest_is_kept_through_changes() -> None:
    desc = FileDesc(4, Kind.MANIFEST)
    assert replace(EMPTY, manifest=desc).apply(SessionRecord(sequence=1)).manifest == desc


NUMBERS = st.integers(0, 4)
RECORDS = st.builds(
    SessionRecord,
    comparer=st.none() | st.binary(max_size=2),
    journal_number=st.none() | NUMBERS,
    next_file_number=st.none() | NUMBERS,
    sequence=st.none() | NUMBERS,
    previous_journal_number=st.none() | NUMBERS,
    compaction_pointers=st.lists(
        st.builds(CompactionPointer, NUMBERS, st.binary(max_size=2)), max_size=3
    ).map(tuple),
    deleted_tables=st.lists(st.builds(DeletedTable, NUMBERS, NUMBERS), max_size=3).map(tuple),
    added_tables=st.lists(st.builds(table, NUMBERS, level=NUMBERS, size=NUMBERS), max_size=5).map(
        tuple
    ),
)


@given(st.lists(RECORDS, max_size=6))
def test_records_at_once_and_one_by_one_give_the_same(records: list[SessionRecord]) -> None:
    state = EMPTY
    for record in records:
        state = state.apply(record)
    assert EMPTY.apply_all(records) == state


@given(st.lists(RECORDS, max_size=6))
def test_a_snapshot_makes_the_same_state_out_of_nothing(records: list[SessionRecord]) -> None:
    state = EMPTY.apply_all(records)
    assert EMPTY.apply(manifest.decode(manifest.encode(snapshot(state)))) == state


@given(st.lists(RECORDS, max_size=6))
def test_tables_are_those_of_a_plain_dictionary(records: list[SessionRecord]) -> None:
    model: dict[tuple[int, int], AddedTable] = {}
    for record in records:
        for gone in record.deleted_tables:
            model.pop((gone.level, gone.number), None)
        for each in record.added_tables:
            model[each.level, each.number] = each
    assert list(EMPTY.apply_all(records).tables()) == [model[place] for place in sorted(model)]


@pytest.mark.parametrize("fixture", dump.fixtures())
def test_every_manifest_of_the_engines_adds_up_to_what_leveldb_says(fixture: str) -> None:
    expected = dump.expectations(fixture)
    if "leveldbutil_manifest_dump" not in expected:
        assert fixture.startswith("avccdb-")
        return
    for name, lines in expected["leveldbutil_manifest_dump"].items():
        data = (dump.FIXTURES / fixture / "db" / name).read_bytes()
        records = [
            manifest.decode(item.payload)
            for item in journal.read(data, Policy.LEVELDB)
            if isinstance(item, Record)
        ]
        dump.assert_same(EMPTY.apply_all(records), dump.parse(lines))
