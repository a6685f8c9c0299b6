from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import plyvel
import pytest

from avccfs.format import batch, ikey, journal
from avccfs.format.filename import Kind
from avccfs.format.ikey import InternalKey, KeyKind
from avccfs.format.table import Table
from avccfs.session import whereabouts
from avccfs.session.engines import Engine
from avccfs.session.folder import Folder
from avccfs.session.whereabouts import PREVIEW, Role, Whereabouts
from avccfs.vfs.base import File, Open
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from tests.format.tables import Layout
from tests.session.dump import FIXTURES

GO = Engine.GOLEVELDB
LEVEL = Engine.LEVELDB


def find(fixture: str | Path, key: bytes) -> Whereabouts:
    path = FIXTURES / fixture / "db" if isinstance(fixture, str) else fixture
    directory = LocalDirectory(path, read_only=True)
    try:
        return whereabouts.find(directory, key)
    finally:
        directory.close()


def told(found: Whereabouts) -> list[tuple[str, int, dict[Engine, Role], set[Engine]]]:
    """File, sequence, roles, and who shows it."""
    return [
        (
            place.file,
            place.sequence,
            {sight.engine: sight.role for sight in sights},
            {sight.engine for sight in sights if sight.visible},
        )
        for place, sights in found.places
    ]


def test_engines_that_read_different_manifests_show_it_from_different_files() -> None:
    found = find("goleveldb-killed-at-fsync-5", b"key00000204")
    assert told(found) == [
        ("000009.ldb", 205, {LEVEL: Role.ORPHAN, GO: Role.LEVEL}, {GO}),
        ("000006.log", 205, {LEVEL: Role.REPLAYED, GO: Role.OBSOLETE}, {LEVEL}),
    ]
    assert {view.engine: view.manifest for view in found.views} == {
        LEVEL: "MANIFEST-000000",
        GO: "MANIFEST-000010",
    }


def test_versions_come_newest_first() -> None:
    found = find("avccdb-tables-and-journal", b"key00000032")
    assert [place.version for place, _ in found.places] == [4, 3, 2, 1]
    assert [sights[0].visible for _, sights in found.places] == [True, False, False, False]


def test_avccdb_does_not_get_back_what_its_journals_hold() -> None:
    found = find("avccdb-versioned-journal", b"key00000000")
    assert [(place.file, place.version) for place, _ in found.places] == [
        ("000001.log", version) for version in (4, 3, 2, 1)
    ]
    assert {sights[0].role for _, sights in found.places} == {Role.DROPPED}
    assert not any(sights[0].visible for _, sights in found.places)


def test_batches_below_the_sequence_number_are_dropped_by_goleveldb_alone() -> None:
    differing = 0
    for number in range(3000):
        found = find("leveldb-killed", b"k%07d" % number)
        for _, _, roles, visible in told(found):
            if roles[GO] is Role.DROPPED:
                assert roles[LEVEL] is Role.REPLAYED
                assert GO not in visible
                differing += 1
        if differing > 2:
            return
    raise AssertionError("no batch was dropped")


def test_a_database_that_does_not_open_shows_nothing() -> None:
    for fixture, said in (("current-missing", "no live manifest"), ("missing-table", "missing")):
        found = find(fixture, b"key00000000")
        ((place, sights),) = found.places
        assert place.file == "000003.ldb"
        assert {sight.role for sight in sights} == {Role.UNREACHABLE}
        assert all(view.error is not None and said in view.error for view in found.views)


def test_damage_that_may_hide_more_is_told() -> None:
    found = find("flipped-table-block", b"key00000070")
    assert found.places == ()
    (fault,) = found.faults
    assert fault.file == "000005.ldb"
    assert fault.fault is not None
    assert fault.fault.offset == 0


def test_what_lies_behind_damage_is_found_and_shown_by_nobody() -> None:
    for number in range(272, 337):
        found = find("flipped-journal-byte", b"key%08d" % number)
        for _, _, roles, visible in told(found):
            if set(roles.values()) == {Role.DROPPED}:
                assert not visible
                assert found.faults
                return
    raise AssertionError("nothing was dropped")


def test_a_key_that_is_nowhere_is_in_no_place() -> None:
    found = find("goleveldb-closed", b"key0000000")
    assert (found.places, found.faults) == ((), ())
    assert found.searched == 5


class Counting(MemoryDirectory):
    """Notes where tables are read."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.reads: list[int] = []
        for name, content in files.items():
            file = super().open(name, Open.WRITE | Open.CREATE)
            file.write_at(content, 0)
            file.close()

    def open(  # type: ignore[override]
        self, path: str, flags: Open = Open.READ, mode: int = 0o644
    ) -> File:
        file = super().open(path, flags, mode)
        reads = self.reads

        class Counted:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def read_at(self, size: int, offset: int) -> bytes:
                reads.append(offset)
                return file.read_at(size, offset)

        return Counted()


def internal(user_key: bytes, sequence: int = 1) -> bytes:
    return ikey.encode(InternalKey(user_key, sequence, KeyKind.PUT))


def test_a_filter_spares_the_reading_of_a_block(tmp_path: Path) -> None:
    database = plyvel.DB(str(tmp_path), create_if_missing=True, bloom_filter_bits=10)
    for number in range(2000):
        database.put(b"key%06d" % (2 * number), b"v" * 50)
    database.compact_range()
    database.close()
    folder = LocalDirectory(tmp_path, read_only=True)
    (name,) = Folder(folder).of_kind(Kind.TABLE)
    folder.close()
    content = (tmp_path / name).read_bytes()
    directory = Counting({name: content})
    data = {handle.offset for _, handle in table_of(content).blocks()}
    spared = 0
    for number in range(0, 2000, 40):
        directory.reads.clear()
        absent = whereabouts.find(directory, b"key%06d" % (2 * number + 1))
        assert absent.places == ()
        spared += not data.intersection(directory.reads)
        directory.reads.clear()
        present = whereabouts.find(directory, b"key%06d" % (2 * number))
        assert len(present.places) == 1
        assert len(data.intersection(directory.reads)) == 1
    assert spared >= 45


def test_a_damaged_filter_is_told_and_not_believed(tmp_path: Path) -> None:
    database = plyvel.DB(str(tmp_path), create_if_missing=True, bloom_filter_bits=10)
    database.put(b"key", b"value")
    database.compact_range()
    database.close()
    (path,) = tmp_path.glob("*.ldb")
    content = bytearray(path.read_bytes())
    (handle,) = table_of(bytes(content)).filters.values()
    content[handle.offset : handle.offset + 4] = b"\0\0\0\0"
    path.write_bytes(content)
    found = find(tmp_path, b"key")
    assert [place.file for place, _ in found.places] == [path.name]
    assert [fault.fault.part for fault in found.faults if fault.fault] == ["filter block"]


def test_a_damaged_index_is_not_believed() -> None:
    layout = Layout()
    for start in range(0, 100, 10):
        layout.add([(internal(b"%04d" % number), b"") for number in range(start, start + 10)])
    content = bytearray(layout.finish())
    content[layout.handles["index"].offset + 1] ^= 0xFF
    directory = Counting({"000005.ldb": bytes(content)})
    found = whereabouts.find(directory, b"0055")
    assert [place.file for place, _ in found.places] == ["000005.ldb"]
    assert found.faults


def table_of(content: bytes) -> Table:
    return Table(lambda size, offset: content[offset : offset + size], len(content))


def test_values_are_cut_and_their_size_is_kept() -> None:
    layout = Layout()
    layout.add([(internal(b"k"), bytes(1000))])
    found = whereabouts.find(Counting({"000005.ldb": layout.finish()}), b"k")
    ((place, _),) = found.places
    assert (place.size, len(place.preview)) == (1000, PREVIEW)


def test_an_ambiguous_batch_holds_it_perhaps() -> None:
    sure = batch.encode(1, [batch.Change(b"x", b"", version=5)])
    doubtful = (9).to_bytes(8, "little") + (1).to_bytes(4, "little") + b"\x00\x02\x01x"
    writer = journal.Writer()
    content = writer.append(sure) + writer.append(doubtful)
    found = whereabouts.find(Counting({"000001.log": content}), b"x")
    assert [(place.sequence, place.version, place.certain) for place, _ in found.places] == [
        (9, 2, False),
        (1, 5, True),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_what_leveldb_shows_is_what_is_called_visible(tmp_path: Path, seed: int) -> None:
    """Puts and deletions over tables and journals, then the keys as LevelDB reads them."""
    chance = random.Random(seed)
    keys = [b"k%02d" % number for number in range(20)]
    path = tmp_path / "db"
    for _ in range(3):
        database = plyvel.DB(str(path), create_if_missing=True, write_buffer_size=65536)
        for _ in range(60):
            key = chance.choice(keys)
            if chance.random() < 0.3:
                database.delete(key)
            else:
                database.put(key, chance.randbytes(chance.choice((5, 3000))))
        database.close()
    seen = {key: find(path, key) for key in keys}
    with plyvel.DB(str(path)) as database:
        for key, found in seen.items():
            value = database.get(key)
            shown = [
                place
                for place, sights in found.places
                for sight in sights
                if sight.engine is LEVEL and sight.visible
            ]
            if value is None:
                assert all(place.change is KeyKind.DELETE for place in shown)
            else:
                assert {place.preview for place in shown} == {value[:PREVIEW]}


def test_nothing_is_changed_and_nothing_is_locked(tmp_path: Path) -> None:
    database = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
    database.put(b"k", b"v")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "db").iterdir()}
    found = find(tmp_path / "db", b"k")
    assert len(found.places) == 1
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "db").iterdir()}
    assert before == after
    database.put(b"k", b"w")
    database.close()
