"""The programs that drive the engines are held against what the fixtures say of the engines."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engines import (
    ENGINES,
    GOLEVELDB,
    LEVELDB,
    Content,
    Engine,
    EngineCrash,
    EngineError,
    Options,
)
from tests.workload import Fill, apply, digest, key_of, mixed_changes, value_of

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED: dict[str, dict[str, Any]] = {
    path.parent.name: json.loads(path.read_text())
    for path in sorted(FIXTURES.glob("*/expect.json"))
}
SMALL = Options(create=True, write_buffer=64 << 10, table_size=32 << 10)

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)


def having(key: str) -> list[str]:
    return [name for name, expected in EXPECTED.items() if key in expected]


@pytest.fixture
def fixture_copy(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    # LevelDB's expected words call the database DB.
    return Path(shutil.copytree(FIXTURES / request.param / "db", tmp_path / "DB"))


def named(key: str) -> pytest.MarkDecorator:
    names = having(key)
    arguments = [(name, EXPECTED[name][key]) for name in names]
    return pytest.mark.parametrize(
        ("fixture_copy", "expected"), arguments, ids=names, indirect=["fixture_copy"]
    )


def observed(engine: Engine, directory: Path, *, recover: bool = False) -> dict[str, Any]:
    """What the engine makes of a directory, in the words of expect.json."""
    try:
        content = engine.recover(directory) if recover else engine.open(directory)
        if content.iter_error and engine is LEVELDB:  # there it was written down as plain error
            raise EngineError(content.iter_error)
    except EngineError as error:
        return {"error": str(error).replace(f"{directory.parent}/", "")}
    answer: dict[str, Any] = {
        "keys": content.keys,
        "sha256_of_hexkey_space_hexvalue_lines": content.sha256,
    }
    return answer if engine is LEVELDB else {**answer, "iter_error": content.iter_error}


def without_log(expected: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in expected.items() if key != "log"}


@named("goleveldb.open")
def test_goleveldb_opens_as_expected(fixture_copy: Path, expected: dict[str, Any]) -> None:
    assert observed(GOLEVELDB, fixture_copy) == without_log(expected)


@named("goleveldb.recover")
def test_goleveldb_recovers_as_expected(fixture_copy: Path, expected: dict[str, Any]) -> None:
    assert observed(GOLEVELDB, fixture_copy, recover=True) == without_log(expected)


@named("leveldb.open")
def test_leveldb_opens_as_expected(fixture_copy: Path, expected: dict[str, Any]) -> None:
    assert observed(LEVELDB, fixture_copy) == without_log(expected)


@named("get_meta")
def test_goleveldb_names_the_live_manifest(fixture_copy: Path, expected: dict[str, Any]) -> None:
    if "error" in expected:
        with pytest.raises(EngineError) as refused:
            GOLEVELDB.get_meta(fixture_copy)
        assert str(refused.value) == expected["error"]
        return
    assert GOLEVELDB.get_meta(fixture_copy) == expected["meta"]
    family = sorted(fixture_copy.glob("CURRENT*"))
    assert [f"{path.name}={path.read_text()}" for path in family] == expected[
        "meta_files_after_rw_get"
    ]


def test_goleveldb_reading_only_names_the_manifest_and_changes_nothing(tmp_path: Path) -> None:
    source = FIXTURES / "goleveldb-killed-at-fsync-5/db"
    directory = Path(shutil.copytree(source, tmp_path / "db"))
    assert GOLEVELDB.get_meta(directory, read_only=True) == "MANIFEST-000010"
    for path in source.iterdir():
        assert (directory / path.name).read_bytes() == path.read_bytes(), path.name


@each_engine
def test_fill_writes_what_the_model_holds(engine: Engine, tmp_path: Path) -> None:
    first = Fill(500, value_size=333)
    second = Fill(100, start=450, value_size=33, seed="again")
    engine.fill(tmp_path / "db", first, SMALL, batch=7)
    engine.fill(tmp_path / "db", second, SMALL, sync=True)
    model = dict(first.items()) | dict(second.items())
    assert engine.items(tmp_path / "db") == model
    assert engine.open(tmp_path / "db") == Content.of(model.items())
    assert engine.compact(tmp_path / "db") == Content.of(model.items())


@each_engine
def test_session_obeys_and_its_model_agrees(engine: Engine, tmp_path: Path) -> None:
    with engine.session(tmp_path / "db", SMALL) as session:
        changes = list(mixed_changes(1, 400, keys=80, value_size=700))
        for start in range(0, len(changes), 50):
            session.batch(changes[start : start + 50], sync=start % 100 == 0)
        session.put(b"", b"")
        session.put(b"\x00\xff \n", b"gone soon", sync=True)
        assert session.get(b"\x00\xff \n") == b"gone soon"
        session.delete(b"\x00\xff \n", sync=True)
        assert session.get(b"\x00\xff \n") is None
        assert session.get(b"") == b""
        assert session.content() == session.expected()
        before = set((tmp_path / "db").glob("MANIFEST-*"))
        session.reopen()
        assert not before & set((tmp_path / "db").glob("MANIFEST-*"))
        session.compact()
        assert session.content() == session.expected()
        session.shut()
        with pytest.raises(EngineError, match="closed"):
            session.put(b"k", b"v")
        assert b"k" not in session.model
        assert engine.open(tmp_path / "db") == session.expected()
        session.release()


@each_engine
def test_acknowledged_keys_survive_the_kill_of_the_writer(engine: Engine, tmp_path: Path) -> None:
    fill = Fill(100_000)
    with engine.write_sync(tmp_path / "db", fill) as writer:
        for _ in range(20):
            writer.next()
        writer.kill()
        acknowledged = writer.drain()
    assert acknowledged == [key_of(number) for number in range(len(acknowledged))]
    assert 20 <= len(acknowledged) < fill.count
    items = engine.items(tmp_path / "db")
    assert set(acknowledged) <= set(items)
    assert items.items() <= dict(fill.items()).items()


@each_engine
def test_writer_tells_its_end(engine: Engine, tmp_path: Path) -> None:
    with engine.write_sync(tmp_path / "db", Fill(3)) as writer:
        assert [writer.next() for _ in range(4)] == [key_of(0), key_of(1), key_of(2), None]


@each_engine
def test_held_database_refuses_a_second_process(engine: Engine, tmp_path: Path) -> None:
    engine.fill(tmp_path / "db", Fill(10))
    with engine.hold(tmp_path / "db") as held:
        with pytest.raises(EngineError, match="temporarily unavailable"):
            engine.open(tmp_path / "db")
        held.release()
    assert engine.open(tmp_path / "db").keys == 10


def test_goleveldb_readers_share_a_database(tmp_path: Path) -> None:
    GOLEVELDB.fill(tmp_path / "db", Fill(10))
    reading = Options(read_only=True)
    with GOLEVELDB.hold(tmp_path / "db", reading), GOLEVELDB.hold(tmp_path / "db", reading):
        assert GOLEVELDB.open(tmp_path / "db", reading) == Content.of(Fill(10).items())


def test_leveldb_repairs_and_destroys(tmp_path: Path) -> None:
    LEVELDB.fill(tmp_path / "db", Fill(10))
    (tmp_path / "db/CURRENT").unlink()
    LEVELDB.repair(tmp_path / "db")
    assert LEVELDB.open(tmp_path / "db") == Content.of(Fill(10).items())
    LEVELDB.destroy(tmp_path / "db")
    assert not [*tmp_path.glob("db/*.l*"), *tmp_path.glob("db/MANIFEST-*")]


@each_engine
def test_missing_database_is_refused_not_created(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    with pytest.raises(EngineError):
        engine.open(tmp_path / "db")
    with pytest.raises(EngineError):
        engine.session(tmp_path / "db", Options())


@each_engine
def test_wrong_script_ends_the_process(engine: Engine, tmp_path: Path) -> None:
    with engine.session(tmp_path / "db") as session:
        session.send("paint it black")
        with pytest.raises(EngineCrash, match="status 2"):
            session.answer()


def test_mixed_changes_come_back_the_same_and_delete() -> None:
    changes = list(mixed_changes(5, 200, keys=10))
    assert changes == list(mixed_changes(5, 200, keys=10))
    assert 20 < sum(value is None for _, value in changes) < 80
    model: dict[bytes, bytes] = {}
    apply(model, [*changes, (key_of(3), b"kept"), (key_of(4), None)])
    assert model[key_of(3)] == b"kept"
    assert key_of(4) not in model


def test_digest_is_the_one_of_the_fixtures() -> None:
    assert digest([(b"k", b"v1")]) == hashlib.sha256(b"6b 7631\n").hexdigest()
    assert len(value_of("s", 1, 33)) == 33
