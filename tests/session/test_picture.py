"""The data of a picture: what the manifest says at every record, and how the files stand."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avccfs.errors import UsageError
from avccfs.format import ikey, journal
from avccfs.format import manifest as session_records
from avccfs.format.ikey import Dialect, InternalKey, KeyKind
from avccfs.format.manifest import AddedTable, DeletedTable, SessionRecord
from avccfs.session.picture import history, lanes
from avccfs.session.picture.history import History
from avccfs.session.picture.scene import Fate, RowKind, Scene
from avccfs.session.picture.survey import survey
from avccfs.session.state import EMPTY
from avccfs.vfs.base import Open
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from tests.session import dump

_OFFSET = re.compile(r"--- offset (\d+); VersionEdit \{")

DUMPS = [
    (fixture, name)
    for fixture in dump.fixtures()
    for name, lines in dump.expectations(fixture).get("leveldbutil_manifest_dump", {}).items()
    if not dump.parse(lines).damaged
]


def read_bytes(content: bytes) -> History:
    return history.read(lambda size, offset: content[offset : offset + size])


def written(records: Sequence[SessionRecord]) -> bytes:
    framing = journal.Writer()
    return b"".join(framing.append(session_records.encode(record)) for record in records)


def key(user_key: bytes, sequence: int = 1) -> bytes:
    return ikey.encode(InternalKey(user_key, sequence, KeyKind.PUT))


def table(number: int, low: bytes, high: bytes, level: int = 0) -> AddedTable:
    return AddedTable(level, number, 1000 + number, key(low), key(high))


def fixture_scene(name: str, *, checksums: bool = False, manifest: str | None = None) -> Scene:
    directory = LocalDirectory(dump.FIXTURES / name / "db", read_only=True)
    try:
        return survey(directory, checksums=checksums, manifest=manifest)
    finally:
        directory.close()


def scene_of(records: Sequence[SessionRecord], *empty: str) -> Scene:
    """The picture of a directory that has these records, and files with nothing in them."""
    directory = MemoryDirectory()
    for name, content in (
        ("CURRENT", b"MANIFEST-000001\n"),
        ("MANIFEST-000001", written(records)),
        *((name, b"") for name in empty),
    ):
        file = directory.open(name, Open.WRITE | Open.CREATE)
        file.write_at(content, 0)
        file.close()
    return survey(directory)


def fates(scene: Scene, step: int | None = None) -> dict[tuple[str, int], Fate]:
    """Row and number of the boxes after a step, the last by default, and how each stands."""
    at = len(scene.steps) if step is None else step
    return {(scene.rows[box.row].title, box.number): box.fate for box in scene.boxes_at(at)}


@pytest.mark.parametrize(("fixture", "name"), DUMPS)
def test_every_step_has_the_tables_and_the_offset_that_leveldb_dumps(
    fixture: str, name: str
) -> None:
    lines = dump.expectations(fixture)["leveldbutil_manifest_dump"][name]
    starts = [number for number, line in enumerate(lines) if _OFFSET.fullmatch(line)]
    told = read_bytes((dump.FIXTURES / fixture / "db" / name).read_bytes())
    sound = [step for step in told.steps if step.edit is not None]
    assert len(sound) == len(starts)
    for step, start, end in zip(sound, starts, [*starts[1:], len(lines)], strict=True):
        match = _OFFSET.fullmatch(lines[start])
        assert match is not None
        assert step.offset == int(match[1])
        expected = dump.parse(lines[:end])
        number = told.steps.index(step) + 1
        assert {(t.level, t.number): t for t in told.at(number)} == expected.tables
        assert step.journal_number == expected.number("LogNumber")


numbers = st.integers(1, 4)
levels = st.integers(0, 2)
user_keys = st.sampled_from([b"a", b"b", b"c", b"d"])
tables = st.builds(table, numbers, user_keys, user_keys, levels)
records = st.builds(
    SessionRecord,
    deleted_tables=st.lists(st.builds(DeletedTable, levels, numbers), max_size=4).map(tuple),
    added_tables=st.lists(tables, max_size=4).map(tuple),
)


@settings(max_examples=150)
@given(st.lists(records, max_size=8))
def test_the_tables_of_every_step_are_those_of_the_session_state(
    changes: list[SessionRecord],
) -> None:
    told = read_bytes(written(changes))
    for count in range(len(changes) + 1):
        state = EMPTY.apply_all(changes[:count])
        expected = {(each.level, each.number): each for each in state.tables()}
        at = list(told.at(count))
        assert {(each.level, each.number): each for each in at} == expected
        assert len(at) == len(expected)


@settings(max_examples=150)
@given(st.lists(records, max_size=8))
def test_no_box_ever_covers_another(changes: list[SessionRecord]) -> None:
    scene = scene_of(changes)
    for step in range(len(scene.steps) + 1):
        covered: set[tuple[int, int, int]] = set()
        for box in scene.boxes_at(step):
            for place in range(box.low, box.high + 1):
                assert (box.row, box.lane, place) not in covered
                assert box.lane < scene.rows[box.row].lanes
                covered.add((box.row, box.lane, place))


def test_a_row_grows_no_higher_than_it_may() -> None:
    extents = [lanes.Extent(0, 5, 1, None)] * (lanes.MAX_LANES * 3)
    chosen, count = lanes.assign(extents)
    assert count == lanes.MAX_LANES
    assert set(chosen) == set(range(lanes.MAX_LANES))


def test_lanes_are_free_again_when_a_box_is_gone() -> None:
    extents = [lanes.Extent(0, 5, 1, 3), lanes.Extent(5, 6, 2, None), lanes.Extent(1, 4, 3, None)]
    assert lanes.assign(extents) == ([0, 1, 0], 2)


def test_the_axis_has_every_boundary_once_and_in_order() -> None:
    scene = scene_of(
        [
            SessionRecord(added_tables=(table(5, b"b", b"f"), table(6, b"f", b"z"))),
            SessionRecord(
                deleted_tables=(DeletedTable(0, 5),), added_tables=(table(7, b"", b"c", 1),)
            ),
        ]
    )
    assert scene.keys == (b"", b"b", b"c", b"f", b"z")
    assert {box.number: (box.low, box.high) for box in scene.boxes} == {
        5: (1, 3),
        6: (3, 4),
        7: (0, 2),
    }
    assert [row.lanes for row in scene.rows] == [2, 1]


def test_a_table_that_moves_is_live_in_both_levels_and_never_loose() -> None:
    moved = [
        SessionRecord(added_tables=(table(5, b"a", b"b"),)),
        SessionRecord(
            deleted_tables=(DeletedTable(0, 5),), added_tables=(table(5, b"a", b"b", 2),)
        ),
    ]
    scene = scene_of(moved)
    assert fates(scene, 1) == {("L0", 5): Fate.MISSING}
    assert fates(scene) == {("L2", 5): Fate.MISSING}
    assert all(row.kind is RowKind.LEVEL for row in scene.rows)


def test_a_table_that_was_dropped_and_deleted_is_past_and_no_damage() -> None:
    scene = scene_of(
        [
            SessionRecord(added_tables=(table(5, b"a", b"b"),)),
            SessionRecord(deleted_tables=(DeletedTable(0, 5),)),
        ]
    )
    assert fates(scene, 1) == {("L0", 5): Fate.PAST}
    assert fates(scene) == {}
    assert not scene.damaged


def test_a_table_that_was_dropped_but_is_there_lies_in_no_level_from_then_on() -> None:
    scene = fixture_scene("goleveldb-killed-at-unlinkat-2")
    assert scene.manifest == "MANIFEST-000010"
    directory = dump.FIXTURES / "goleveldb-killed-at-unlinkat-2" / "db"
    told = read_bytes((directory / "MANIFEST-000010").read_bytes())
    named = {stay.table.number for stay in told.stays}
    there = {int(path.name[:6]) for path in directory.glob("*.ldb")}
    assert {number for row, number in fates(scene) if row == "In no level"} == there - named


def test_files_that_a_manifest_never_had_are_orphans_with_their_own_key_range() -> None:
    scene = fixture_scene("goleveldb-killed-at-fsync-1")
    orphans = [box for box in scene.boxes if box.fate is Fate.ORPHAN]
    assert [box.number for box in orphans] == [9]
    [orphan] = orphans
    assert orphan.ends is not None
    # It was made of the journal 000006, which is still there.
    [journal_box] = [box for box in scene.boxes if box.fate is Fate.JOURNAL and box.number == 6]
    assert journal_box.ends is not None
    assert [end.key for end in orphan.ends] == [end.key for end in journal_box.ends]
    assert not scene.damaged


def test_a_journal_is_needed_until_a_record_names_a_later_one() -> None:
    told = [
        SessionRecord(journal_number=3),
        SessionRecord(journal_number=8, previous_journal_number=6),
        SessionRecord(previous_journal_number=0),
    ]
    scene = scene_of(told, "000003.log", "000006.log", "000008.log")
    needed = [
        {box.number for box in scene.boxes if scene.is_needed(box, step)} for step in range(4)
    ]
    assert needed == [{3, 6, 8}, {3, 6, 8}, {6, 8}, {8}]


def test_a_missing_table_keeps_its_place() -> None:
    scene = fixture_scene("missing-table")
    assert fates(scene)["L0", 5] is Fate.MISSING
    assert scene.damaged
    [box] = [box for box in scene.boxes if box.number == 5]
    assert box.note == "000005.ldb is missing: the levels need it"


def test_old_names_of_tables_are_found() -> None:
    scene = fixture_scene("goleveldb-old-sst-names")
    assert Fate.MISSING not in fates(scene).values()
    assert "000005.sst" in {box.name for box in scene.boxes}


def test_a_table_without_its_footer_is_seen_to_be_damaged() -> None:
    scene = fixture_scene("truncated-table-footer")
    damaged = [box for box in scene.boxes if box.fate is Fate.DAMAGED]
    assert len(damaged) == 1
    assert damaged[0].note is not None
    assert "as the manifest says, found" in damaged[0].note
    assert scene.damaged


def test_damage_inside_a_table_is_seen_with_checksums() -> None:
    assert not fixture_scene("flipped-table-block").damaged
    scene = fixture_scene("flipped-table-block", checksums=True)
    damaged = [box for box in scene.boxes if box.fate is Fate.DAMAGED]
    assert len(damaged) == 1
    assert damaged[0].note is not None
    assert "checksum" in damaged[0].note
    assert scene.damaged


@pytest.mark.parametrize("fixture", ["goleveldb-closed", "avccdb-compacted", "leveldb-killed"])
def test_sound_tables_are_sound_with_checksums_too(fixture: str) -> None:
    assert not fixture_scene(fixture, checksums=True).damaged


def test_damage_in_a_manifest_is_a_step_that_changes_nothing() -> None:
    scene = fixture_scene("flipped-manifest-byte")
    [number] = [n for n, step in enumerate(scene.steps, start=1) if step.edit is None]
    assert scene.steps[number - 1].fault is not None
    assert fates(scene, number) == fates(scene, number - 1)
    assert [step.edit for step in scene.steps if step.edit] == [1, 2, 3]
    assert scene.damaged
    assert any("MANIFEST-000000 is damaged" in note for note in scene.notes)


def test_a_sound_record_that_does_not_decode_is_damage_too() -> None:
    framing = journal.Writer()
    content = framing.append(session_records.encode(SessionRecord(sequence=5))) + framing.append(
        b"\x08x"
    )
    told = read_bytes(content)
    assert [step.edit for step in told.steps] == [1, None]
    assert "tag of a field" in (told.steps[1].fault or "")


def test_deletions_of_what_is_not_there_are_told() -> None:
    told = read_bytes(written([SessionRecord(deleted_tables=(DeletedTable(3, 9),))]))
    assert told.steps[0].unmatched == (DeletedTable(3, 9),)


@pytest.mark.parametrize("fixture", ["current-missing", "current-empty", "current-dangling"])
def test_without_a_live_manifest_the_newest_is_shown_and_said_so(fixture: str) -> None:
    scene = fixture_scene(fixture)
    assert scene.manifest == "MANIFEST-000000"
    assert scene.damaged
    assert scene.notes[0].startswith("No manifest is live. ")
    assert "Shown is MANIFEST-000000" in scene.notes[1]
    assert len(scene.steps) == 5


def test_the_live_manifest_is_that_of_get_meta() -> None:
    for fixture in dump.fixtures():
        expected = dump.expectations(fixture)["get_meta"].get("meta")
        if expected is not None:
            assert fixture_scene(fixture).manifest == expected, fixture


def test_another_manifest_can_be_asked_for() -> None:
    scene = fixture_scene("goleveldb-killed-at-fsync-5", manifest="MANIFEST-000000")
    assert (scene.manifest, len(scene.steps)) == ("MANIFEST-000000", 5)


@pytest.mark.parametrize("name", ["MANIFEST-000099", "000003.ldb", "../MANIFEST-000000"])
def test_a_manifest_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="MANIFEST-0000"):
        fixture_scene("goleveldb-closed", manifest=name)


def test_tables_without_any_manifest_are_shown(tmp_path: Path) -> None:
    source = dump.FIXTURES / "goleveldb-closed" / "db"
    shutil.copy(source / "000003.ldb", tmp_path)
    directory = LocalDirectory(tmp_path, read_only=True)
    scene = survey(directory)
    directory.close()
    assert scene.manifest is None
    assert fates(scene) == {("In no level", 3): Fate.ORPHAN}
    assert scene.damaged


def test_a_directory_without_a_database_is_refused() -> None:
    with pytest.raises(UsageError, match="no manifest, no table and no journal"):
        survey(MemoryDirectory())


def test_the_dialect_is_what_the_files_show() -> None:
    assert fixture_scene("avccdb-tables-and-journal").dialect is Dialect.AVCCDB
    assert fixture_scene("avccdb-versioned-journal").dialect is Dialect.AVCCDB
    assert fixture_scene("leveldb-killed").dialect is Dialect.STANDARD
    scene = fixture_scene("avccdb-tables-and-journal")
    expected = ikey.decode(
        next(read_manifest("avccdb-tables-and-journal").at(len(scene.steps))).smallest,
        Dialect.AVCCDB,
    )
    assert expected.user_key in scene.keys


def read_manifest(fixture: str) -> History:
    return read_bytes((dump.FIXTURES / fixture / "db" / "MANIFEST-000000").read_bytes())


def test_forged_levels_numbers_and_keys_are_drawn_as_they_are() -> None:
    most = 2**63 - 1
    forged = AddedTable(most, most, most, b"", b"\xff")
    backwards = AddedTable(0, 1, 1, key(b"z"), key(b"a"))
    scene = scene_of([SessionRecord(added_tables=(forged, backwards))])
    assert [row.level for row in scene.rows] == [0, most]
    by_number = {box.number: box for box in scene.boxes}
    ends = by_number[most].ends
    assert ends is not None
    assert [end.sequence for end in ends] == [None, None]
    assert by_number[1].low < by_number[1].high
    assert "smallest key is behind its largest" in (by_number[1].note or "")


def test_a_broken_orphan_without_any_key_covers_the_axis() -> None:
    directory = MemoryDirectory()
    file = directory.open("000004.ldb", Open.WRITE | Open.CREATE)
    file.write_at(b"nothing of a table", 0)
    file.close()
    scene = survey(directory)
    [box] = scene.boxes
    assert (box.fate, box.ends, box.low, box.high) == (Fate.DAMAGED, None, 0, 0)


@pytest.mark.parametrize("fixture", dump.fixtures())
def test_every_fixture_is_drawn_and_left_alone(fixture: str, tmp_path: Path) -> None:
    copied = tmp_path / "db"
    shutil.copytree(dump.FIXTURES / fixture / "db", copied)
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    holder = LocalDirectory(copied)
    held = holder.lock(exclusive=True)
    assert held is not None
    before.setdefault("LOCK", b"")
    directory = LocalDirectory(copied, read_only=True)
    scene = survey(directory, checksums=True)
    directory.close()
    held.release()
    holder.close()
    assert scene.boxes
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
