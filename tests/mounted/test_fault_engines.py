"""Real engines on a disk that misbehaves: what they acknowledged they keep, and they say what failed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from avccfs.session.engines import GOLEVELDB as GOLEVELDB_PROFILE
from avccfs.session.engines import LEVELDB as LEVELDB_PROFILE
from avccfs.session.engines import Profile
from avccfs.session.recovery import Prediction, predict
from avccfs.vfs.local import LocalDirectory
from tests.engines import ENGINES, EXISTING, Content, Engine, EngineError, Options, Session
from tests.faulty import Caller, faulty, held_up, let_go_at_end, outcome, stats, tell, wait_held_up
from tests.workload import Fill, Item, key_of, value_of

pytestmark = pytest.mark.mounted

SMALL = Options(create=True, write_buffer=64 << 10, table_size=32 << 10)
PROFILES: dict[str, Profile] = {"leveldb": LEVELDB_PROFILE, "goleveldb": GOLEVELDB_PROFILE}

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)


def predicted(engine: Engine, place: Path) -> Prediction:
    """What the engine would make of a directory."""
    with contextlib.closing(LocalDirectory(place, read_only=True)) as directory:
        return predict(directory, PROFILES[engine.name])


def assert_holds(engine: Engine, db: Path, model: dict[bytes, bytes], tmp_path: Path) -> None:
    """A native opening of a copy finds just that, as it was predicted."""
    copy = Path(shutil.copytree(db, tmp_path / "copy"))
    prediction = predicted(engine, copy)
    assert prediction.opens
    found = engine.open(copy, EXISTING)
    assert (prediction.keys, prediction.sha256) == (found.keys, found.sha256)
    assert found == Content.of(model.items())
    assert prediction.uncertain is None


@contextlib.contextmanager
def some_keys(engine: Engine, mnt: Path) -> Iterator[Session]:
    """A database with twenty synced keys in its journal, open."""
    with engine.session(mnt) as session:
        for number in range(20):
            session.put(key_of(number), value_of("first", number, 100), sync=True)
        yield session


def refused_put(session: Session, key: bytes, value: bytes) -> str:
    with pytest.raises(EngineError) as told:
        session.put(key, value, sync=True)
    return str(told.value).lower()


# A journal that cannot be synced


@each_engine
def test_failed_sync_is_reported_and_earlier_keys_are_kept(
    engine: Engine, db: Path, mnt: Path
) -> None:
    last = (key_of(77), value_of("last", 77, 100))
    with faulty(db, mnt):
        with some_keys(engine, mnt) as session:
            tell(mnt, "sync journal: EIO")
            assert "input/output error" in refused_put(session, *last)
            for number in (0, 19):
                assert session.get(key_of(number)) == value_of("first", number, 100)
            session.kill()
        assert stats(mnt)["operations"]["sync"]["journal"]["faulted"] == 1
        tell(mnt, "clear")
        kept = engine.items(mnt)
        # Written it was; that it is durable nobody promised.
        assert kept in (session.model, session.model | dict([last]))
        assert engine.items(mnt) == kept
    assert engine.items(db) == kept


@each_engine
def test_failed_sync_leaves_an_engine_that_closes_and_opens_again(
    engine: Engine, db: Path, mnt: Path
) -> None:
    with faulty(db, mnt, "sync journal #21: EIO"), some_keys(engine, mnt) as session:
        refused_put(session, b"last", b"value")
        with contextlib.suppress(EngineError):
            session.shut()
        session.reopen()
        assert all(session.get(key) == value for key, value in list(session.model.items()))
        session.put(b"after", b"value", sync=True)
        session.release()
    assert session.model.items() <= engine.items(db).items()


@each_engine
def test_dropped_sync_loses_nothing_that_was_acknowledged(
    engine: Engine, db: Path, mnt: Path, tmp_path: Path
) -> None:
    with faulty(db, mnt):
        with some_keys(engine, mnt) as session:
            tell(mnt, "sync journal: drop")
            assert "input/output error" in refused_put(session, b"last", bytes(300))
            [fault] = stats(mnt)["faults"]
            assert fault["did"].startswith("3")
            session.kill()
        assert_holds(engine, db, session.model, tmp_path)
        tell(mnt, "clear")
        assert engine.items(mnt) == session.model
    assert engine.items(db) == session.model


@each_engine
def test_dropped_sync_of_unsynced_writes_loses_them_and_keeps_what_was_synced(
    engine: Engine, db: Path, mnt: Path, tmp_path: Path
) -> None:
    with faulty(db, mnt):
        with some_keys(engine, mnt) as session:
            synced = dict(session.model)
            for number in range(20, 40):
                session.put(key_of(number), value_of("second", number, 100))
            assert session.content() == session.expected()
            tell(mnt, "sync journal: drop")
            refused_put(session, b"last", b"value")
            session.kill()
        assert_holds(engine, db, synced, tmp_path)


# A disk that does not answer


@each_engine
def test_stalled_sync_stalls_its_caller_while_others_read_and_write(
    engine: Engine, db: Path, mnt: Path
) -> None:
    last = (key_of(99), value_of("last", 99, 100))
    with faulty(db, mnt), some_keys(engine, mnt) as session, let_go_at_end(mnt):
        tell(mnt, "sync journal: stall")
        session.put_later(*last)
        wait_held_up(mnt, 1)
        # Another thread of the engine reads.
        for number in range(20):
            assert session.get(key_of(number)) == value_of("first", number, 100)
        assert session.content().keys >= 20
        # Another process uses other files, also of this folder.
        (mnt / "other").write_bytes(b"other")
        assert outcome(lambda: (mnt / "other").rename(mnt / "renamed")) == "ok"
        assert Caller(lambda: engine.fill(mnt / "second", Fill(100), sync=False)).result() == "ok"
        assert held_up(mnt) == 1
        tell(mnt, "release")
        session.result(*last)
        assert session.content() == session.expected()
        session.release()
        assert engine.open(mnt / "second") == Content.of(Fill(100).items())
    assert engine.items(db) == session.model


@each_engine
def test_stalled_write_of_a_table_lets_the_engine_go_on(
    engine: Engine, db: Path, mnt: Path
) -> None:
    """A memory table that cannot become a file keeps nobody from reading, or writing a little."""
    with faulty(db, mnt), engine.session(mnt, SMALL) as session, let_go_at_end(mnt):
        session.batch(Fill(100, value_size=400).items(), sync=True)
        tell(mnt, "write table: stall")
        # More than fits into one memory table, and less than into two.
        fill = list(Fill(150, start=100, value_size=300).items())
        for start in range(0, 150, 10):
            session.batch(fill[start : start + 10])
        wait_held_up(mnt, 1)
        session.put(b"meanwhile", b"value", sync=True)
        assert session.content() == session.expected()
        tell(mnt, "release")
        session.compact()
        assert session.content() == session.expected()
        session.release()
    assert engine.items(db) == session.model


# A write of which only a part arrives

LARGE = 3000
"""Bytes of a value that takes several sectors of the journal."""
TORN = (
    "torn prefix 0",
    "torn prefix 1",
    "torn prefix 6",
    "torn prefix 7",
    "torn prefix 8",
    "torn prefix 19",
    "torn prefix 50%",
    "torn prefix 99%",
    "torn at 3,40 keep 1,3",
    "torn at 7 keep 2",
    "torn at 1000,2000 keep 1,3",
    "torn sectors 0,2-3",
    "torn sectors 1",
    "torn prefix 2000 ENOSPC",
)


@each_engine
def test_torn_last_journal_write_loses_only_the_last_batch(
    engine: Engine, db: Path, mnt: Path, tmp_path: Path
) -> None:
    first = Path(shutil.copytree(filled(engine, tmp_path / "first"), db, dirs_exist_ok=True))
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    with faulty(db, mnt):
        for turn, what in enumerate(TORN):
            with engine.session(mnt, EXISTING) as session:
                session.model.update(Fill(50).items())
                session.put(b"synced", b"value", sync=True)
                tell(mnt, f"write journal #1: {what}")
                batch: list[Item] = [(b"large", value_of(what, 0, LARGE)), (b"small", b"value")]
                with pytest.raises(EngineError):
                    session.batch(batch, sync=True)
                session.kill()
            tell(mnt, "clear")
            assert_holds(engine, db, session.model, tmp_path / f"{turn}")
            assert engine.items(mnt) == session.model, what
            # The next one begins where this one did.
            for path in mnt.iterdir():
                if path.name != "LOCK":
                    path.unlink()
            for name in sorted(before, key="CURRENT".__eq__):
                if name != "LOCK":
                    (mnt / name).write_bytes(before[name])


def filled(engine: Engine, folder: Path) -> Path:
    folder.mkdir()
    engine.fill(folder, Fill(50))
    return folder


@each_engine
def test_whole_write_that_is_said_to_have_failed_is_there_after_all(
    engine: Engine, db: Path, mnt: Path, tmp_path: Path
) -> None:
    with faulty(db, mnt):
        with some_keys(engine, mnt) as session:
            tell(mnt, "write journal: torn prefix 100%")
            refused_put(session, b"last", b"value")
            session.kill()
        assert_holds(engine, db, session.model | {b"last": b"value"}, tmp_path)


# A full disk in the middle of a compaction


@pytest.mark.parametrize(
    "rule",
    [
        "write table #5-: ENOSPC",
        "write table 30% seed=7 times 3: ENOSPC",
        "create table #2-: ENOSPC",
        "write manifest #3-: ENOSPC",
        "write,create table|manifest #12-: ENOSPC",
        "write table #4-: torn prefix 50% ENOSPC",
        "sync table|manifest #2-: ENOSPC",
    ],
)
@each_engine
def test_full_disk_in_the_middle_of_a_compaction_loses_nothing(
    engine: Engine, rule: str, db: Path, mnt: Path, tmp_path: Path
) -> None:
    fills = [Fill(150, value_size=400, seed=f"{turn}") for turn in range(12)]
    unsure: dict[bytes, set[bytes | None]] = {}
    with faulty(db, mnt):
        with engine.session(mnt, SMALL) as session:
            session.batch(fills[0].items(), sync=True)
            tell(mnt, rule)
            failed = False
            for fill in fills[1:]:
                items = list(fill.items())
                try:
                    session.batch(items, sync=True)
                except EngineError:
                    failed = True
                    for key, value in items:
                        unsure.setdefault(key, {session.model.get(key)}).add(value)
                    break
            if not failed:
                with contextlib.suppress(EngineError):
                    session.compact()
            assert {fault["op"] for fault in stats(mnt)["faults"]} <= {"write", "create", "sync"}
            assert stats(mnt)["faults"], "there was no room for a single fault"
            session.kill()
        tell(mnt, "clear")
        items_now = engine.items(mnt)
        assert items_now.keys() == session.model.keys() | (unsure.keys() & items_now.keys())
        for key, found in items_now.items():
            assert found in unsure.get(key, {session.model.get(key)}), key
        # And it works again.
        with engine.session(mnt, SMALL) as again:
            again.put(b"after", b"value", sync=True)
            again.compact()
            again.release()
    assert engine.items(db) == items_now | {b"after": b"value"}
