"""Real engines at work on a real mount; afterwards the directory behind it opens natively."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import (
    ENGINES,
    EXISTING,
    GOLEVELDB,
    LEVELDB,
    Content,
    Engine,
    EngineError,
    Options,
    Session,
)
from tests.mounting import mounted, tree
from tests.workload import Fill, key_of, mixed_changes, value_of

pytestmark = pytest.mark.mounted

SMALL = Options(create=True, write_buffer=64 << 10, table_size=32 << 10)
MIB = 1 << 20

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)
each_way_of_writing = pytest.mark.parametrize(
    "ways", [(), ("--write-through",)], ids=["write-back", "write-through"]
)


def work(session: Session, seed: int) -> None:
    """Overwrite, delete, compact, reopen; small buffers make many tables of it."""
    changes = list(mixed_changes(seed, 1000, keys=150, value_size=300))
    for start in range(0, len(changes), 100):
        session.batch(changes[start : start + 100], sync=start % 500 == 0)
    assert session.content() == session.expected()
    session.reopen()
    assert session.content() == session.expected()
    session.put(b"large", value_of("large", seed, MIB))
    session.put(b"empty", b"")
    session.put(key_of(seed), b"once more", sync=True)
    session.delete(key_of(seed + 1))
    session.compact()
    assert session.get(b"large") == value_of("large", seed, MIB)
    assert session.get(key_of(seed + 1)) is None
    session.batch([(b"large", None), (b"larger", value_of("larger", seed, 3 * MIB))], sync=True)
    session.reopen()
    assert session.content() == session.expected()


@each_way_of_writing
@each_engine
def test_what_an_engine_wrote_is_on_the_mount_and_behind_it(
    engine: Engine, ways: tuple[str, ...], db: Path, mnt: Path
) -> None:
    with mounted(db, mnt, *ways):
        with engine.session(mnt, SMALL) as session:
            work(session, 1)
            session.release()
        assert engine.open(mnt) == session.expected()
    with mounted(db, mnt, *ways):
        assert engine.items(mnt) == session.model
        seen = tree(mnt)
    assert tree(db) == seen
    assert engine.items(db) == session.model


@each_engine
def test_directory_in_memory_holds_a_database_until_it_is_unmounted(
    engine: Engine, mnt: Path, tmp_path: Path
) -> None:
    with mounted("mem:", mnt):
        with engine.session(mnt, SMALL) as session:
            work(session, 2)
            session.release()
        assert engine.items(mnt) == session.model
        shutil.copytree(mnt, tmp_path / "copy")
    assert engine.items(tmp_path / "copy") == session.model
    with mounted("mem:", mnt):
        assert list(tree(mnt)) == ["LOCK"]


@each_engine
def test_small_buffers_make_many_tables(engine: Engine, db: Path, mnt: Path) -> None:
    fill = Fill(5000, value_size=500)
    with mounted(db, mnt):
        engine.fill(mnt, fill, SMALL, batch=50)
        assert engine.compact(mnt, SMALL) == Content.of(fill.items())
        tables = sorted(path.name for path in mnt.glob("*.ldb"))
        # LevelDB makes no table smaller than 1 MiB.
        assert len(tables) >= (3 if engine is LEVELDB else 50)
    assert sorted(path.name for path in db.glob("*.ldb")) == tables
    assert engine.open(db) == Content.of(fill.items())


@each_engine
def test_each_opening_begins_a_new_manifest_and_removes_the_old(
    engine: Engine, db: Path, mnt: Path
) -> None:
    with mounted(db, mnt), engine.session(mnt) as session:
        live = []
        for turn in range(8):
            session.put(key_of(turn), value_of("", turn, 50))
            session.reopen()
            [manifest] = mnt.glob("MANIFEST-*")
            assert (mnt / "CURRENT").read_text() == f"{manifest.name}\n"
            live.append(manifest.name)
        assert len(set(live)) == len(live)
        assert session.content() == session.expected()
        session.release()
    assert engine.items(db) == session.model


@each_engine
def test_iterator_sees_its_moment_while_everything_changes(
    engine: Engine, db: Path, mnt: Path
) -> None:
    with mounted(db, mnt), engine.session(mnt, SMALL) as session:
        session.batch(Fill(2000, value_size=300).items())
        session.compact()
        then = session.expected()
        session.begin()
        for seed in ("a", "b", "c"):
            session.batch(Fill(2000, value_size=300, seed=seed).items())
            session.compact()
        session.batch((key_of(number), None) for number in range(0, 2000, 2))
        session.compact()
        assert session.rest() == then
        assert session.content() == session.expected()
        session.release()
    assert engine.items(db) == session.model


def test_database_goes_from_engine_to_engine_on_the_mount(db: Path, mnt: Path) -> None:
    model: dict[bytes, bytes] = {}
    with mounted(db, mnt):
        for turn, engine in enumerate((LEVELDB, GOLEVELDB, LEVELDB, GOLEVELDB)):
            with engine.session(mnt, SMALL) as session:
                session.model.update(model)
                assert session.content() == session.expected()
                changes = mixed_changes(turn, 600, keys=200, value_size=200)
                session.batch(changes)
                # goleveldb skips what LevelDB left in a journal from before its last manifest
                # record (natively too): leave nothing there.
                session.reopen()
                session.release()
                model = session.model
        assert LEVELDB.items(mnt) == model
        assert GOLEVELDB.items(mnt) == model
    assert LEVELDB.items(db) == model
    assert GOLEVELDB.items(db) == model


def test_goleveldb_readers_share_a_read_only_mount(db: Path, mnt: Path) -> None:
    GOLEVELDB.fill(db, Fill(500))
    before = tree(db)
    reading = Options(read_only=True)
    with (
        mounted(db, mnt, "--read-only"),
        GOLEVELDB.hold(mnt, reading),
        GOLEVELDB.hold(mnt, reading),
    ):
        assert GOLEVELDB.open(mnt, reading) == Content.of(Fill(500).items())
    assert tree(db) == before


@each_engine
def test_engine_that_must_write_is_refused_by_a_read_only_mount(
    engine: Engine, db: Path, mnt: Path
) -> None:
    engine.fill(db, Fill(500))
    before = tree(db)
    with mounted(db, mnt, "--read-only") as at:
        with pytest.raises(EngineError, match=r"(?i)read-only file system"):
            engine.open(mnt)
        assert tree(mnt) == before
        assert "ERROR" not in at.log()
    assert tree(db) == before
    assert engine.open(db) == Content.of(Fill(500).items())


@contextlib.contextmanager
def native_and_mounted(tmp_path: Path, mnt: Path, fill: Fill) -> Iterator[tuple[Path, Path, Path]]:
    """The same LevelDB database twice: a plain directory, a mount, and what is behind the mount."""
    plain = tmp_path / "plain"
    LEVELDB.fill(plain, fill, SMALL)
    LEVELDB.compact(plain, SMALL)
    behind = Path(shutil.copytree(plain, tmp_path / "behind"))
    with mounted(behind, mnt):
        yield plain, mnt, behind


def test_repair_on_the_mount_does_what_it_does_below(tmp_path: Path, mnt: Path) -> None:
    fill = Fill(5000, value_size=300)
    with native_and_mounted(tmp_path, mnt, fill) as (plain, mount, behind):
        for place in (plain, mount):
            (place / "CURRENT").unlink()
            with pytest.raises(EngineError, match="does not exist"):
                LEVELDB.open(place, EXISTING)
            LEVELDB.repair(place)
        assert {*tree(mount)} == {*tree(plain)}
        # What the old manifest said is put aside.
        assert list((mount / "lost").glob("MANIFEST-*"))
        assert LEVELDB.open(mount) == LEVELDB.open(plain) == Content.of(fill.items())
    assert LEVELDB.open(behind) == Content.of(fill.items())
    assert list((behind / "lost").glob("MANIFEST-*"))


def test_destroy_on_the_mount_does_what_it_does_below(tmp_path: Path, mnt: Path) -> None:
    with native_and_mounted(tmp_path, mnt, Fill(100)) as (plain, mount, behind):
        for place in (plain, mount):
            (place / "notes.txt").write_text("not LevelDB's")
            LEVELDB.destroy(place)
        assert tree(mount) == tree(plain) == {"notes.txt": b"not LevelDB's"}
        LEVELDB.fill(mount, Fill(50))
        assert LEVELDB.open(mount) == Content.of(Fill(50).items())
    assert LEVELDB.open(behind) == Content.of(Fill(50).items())
