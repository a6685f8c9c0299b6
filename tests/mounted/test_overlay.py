"""Engines on an overlay do what they do on a copy, and the source stays as it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from avccfs.cli.main import FINE, LOCKED
from avccfs.format.filename import LOCK
from tests.engines import (
    ENGINES,
    EXISTING,
    GOLEVELDB,
    LEVELDB,
    Content,
    Engine,
    EngineError,
    Options,
)
from tests.mounting import avccfs, mounted, tree
from tests.overlays import facts, start_over, unchanged
from tests.test_engines import EXPECTED, FIXTURES, observed, without_log
from tests.workload import Fill, key_of, mixed_changes, value_of

pytestmark = pytest.mark.mounted

FILL = Fill(300, value_size=200)
READING = Options(read_only=True)
NEW_SMALL = Options(create=True, write_buffer=64 << 10, table_size=32 << 10)
SMALL = Options(write_buffer=64 << 10, table_size=32 << 10)
IN_USE = "(?i)Resource temporarily unavailable"
WAYS = ("open", "recover")
OPENED = [
    name for name in EXPECTED if any(f"{engine}.open" in EXPECTED[name] for engine in ENGINES)
]
WORKED_ON = ("leveldb-killed", "goleveldb-killed-at-fsync-5", "torn-journal-tail", "leveldb-closed")

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)


@pytest.fixture
def filled(db: Path) -> Path:
    """A database of goleveldb: with a LOCK."""
    GOLEVELDB.fill(db, FILL)
    return db


# What engines make of it


@pytest.mark.parametrize("name", OPENED)
def test_fixture_opens_and_recovers_as_on_a_copy_time_after_time(
    name: str, mnt: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(FIXTURES / name / "db", tmp_path / "source"))
    expected = EXPECTED[name]
    with unchanged(source), mounted(source, mnt, "--overlay"):
        for engine in ENGINES:
            for way in WAYS:
                if f"{engine}.{way}" not in expected:
                    continue
                found = observed(engine, mnt, recover=way == "recover")
                assert found == without_log(expected[f"{engine}.{way}"]), f"{engine}, {way}"
                # Each finds what the one before it found.
                start_over(mnt)
                assert tree(mnt) | {LOCK: b""} == tree(source) | {LOCK: b""}
        if "meta" in expected.get("get_meta", {}):
            assert GOLEVELDB.get_meta(mnt) == expected["get_meta"]["meta"]
            assert (mnt / "CURRENT").read_text() == f"{expected['get_meta']['meta']}\n"


@pytest.mark.parametrize("name", WORKED_ON)
@each_engine
def test_engine_writes_and_compacts_as_on_a_copy(
    engine: Engine, name: str, mnt: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(FIXTURES / name / "db", tmp_path / "source"))
    copy = Path(shutil.copytree(FIXTURES / name / "db", tmp_path / "copy"))
    before = engine.items(Path(shutil.copytree(source, tmp_path / "before")))
    with unchanged(source), mounted(source, mnt, "--overlay"):
        for place in (mnt, copy):
            with engine.session(place, SMALL) as session:
                session.model.update(before)
                session.batch(mixed_changes(1, 800, keys=200, value_size=400))
                session.compact()
                session.reopen()
                session.put(b"last", value_of("last", 1, 100_000), sync=True)
                assert session.content() == session.expected()
                session.release()
        assert engine.items(mnt) == engine.items(copy) == session.model
        # Another process that looks at the source meanwhile sees nothing of it.
        assert GOLEVELDB.get_meta(source, read_only=True)


def test_repair_and_destruction_go_as_on_a_copy(mnt: Path, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    LEVELDB.fill(source, Fill(3000, value_size=300), NEW_SMALL)
    LEVELDB.compact(source, SMALL)
    shutil.copytree(source, copy)
    with unchanged(source), mounted(source, mnt, "--overlay"):
        for place in (mnt, copy):
            (place / "CURRENT").unlink()
            with pytest.raises(EngineError, match="does not exist"):
                LEVELDB.open(place, EXISTING)
            LEVELDB.repair(place)
        assert {*tree(mnt)} == {*tree(copy)}
        assert LEVELDB.open(mnt) == Content.of(Fill(3000, value_size=300).items())
        LEVELDB.destroy(mnt)
        LEVELDB.fill(mnt, Fill(50))
        assert LEVELDB.open(mnt) == Content.of(Fill(50).items())
        start_over(mnt)
        assert LEVELDB.open(mnt) == Content.of(Fill(3000, value_size=300).items())


# Who else may have the source open


def without_logs(directory: Path) -> dict[str, bytes]:
    """LevelDB begins a new LOG before it finds the lock taken."""
    return {name: content for name, content in tree(directory).items() if "LOG" not in name}


def test_readers_share_the_source_while_an_engine_works_on_the_overlay(
    filled: Path, mnt: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    with (
        unchanged(filled),
        mounted(filled, mnt, "--overlay"),
        GOLEVELDB.session(mnt) as session,
    ):
        session.put(b"key", b"of the overlay")
        assert GOLEVELDB.open(filled, READING) == Content.of(FILL.items())
        with mounted(filled, second, "--read-only"):
            assert tree(second) == tree(filled)
        # Any number of overlays, none of which knows of the others.
        with mounted(filled, second, "--overlay"):
            assert GOLEVELDB.open(second) == Content.of(FILL.items())
            LEVELDB.fill(second, Fill(10, seed="other"), EXISTING)
        session.model.update(FILL.items())
        assert session.content() == session.expected()
        session.release()


@each_engine
def test_engine_that_wants_the_source_is_refused_until_it_is_unmounted(
    engine: Engine, filled: Path, mnt: Path, tmp_path: Path
) -> None:
    third = tmp_path / "third"
    third.mkdir()
    with mounted(filled, mnt, "--overlay") as at:
        before = without_logs(filled)
        with pytest.raises(EngineError, match=IN_USE):
            engine.open(filled)
        assert without_logs(filled) == before
        refused = avccfs("mount", filled, third, check=False)
        assert refused.returncode == LOCKED
        assert f"(pid {at.pid})" in refused.stderr
    assert engine.open(filled) == Content.of(FILL.items())


@each_engine
def test_source_that_an_engine_has_open_gets_no_overlay(
    engine: Engine, filled: Path, mnt: Path
) -> None:
    with engine.hold(filled) as held:
        refused = avccfs("mount", "--overlay", filled, mnt, check=False)
        assert refused.returncode == LOCKED
        assert f"(pid {held.pid})" in refused.stderr
        assert not mnt.is_mount()
        held.release()


@pytest.mark.parametrize("other", ENGINES, ids=str)
@each_engine
def test_engines_on_an_overlay_exclude_each_other_as_on_a_copy(
    engine: Engine, other: Engine, filled: Path, mnt: Path, tmp_path: Path
) -> None:
    def is_refused(place: Path) -> bool:
        with engine.hold(place) as held:
            try:
                other.open(place)
                refused = False
            except EngineError as refusal:
                if not re.search(IN_USE, str(refusal)):
                    raise
                refused = True
            held.release()
        return refused

    copy = Path(shutil.copytree(filled, tmp_path / "copy"))
    with unchanged(filled), mounted(filled, mnt, "--overlay"):
        assert is_refused(mnt) == is_refused(copy)


# Sources of other kinds


def test_source_without_a_lock_file_gets_none(filled: Path, mnt: Path) -> None:
    (filled / LOCK).unlink()
    with unchanged(filled), mounted(filled, mnt, "--overlay"):
        for engine in ENGINES:
            assert engine.open(mnt) == Content.of(FILL.items())
        assert LOCK in tree(mnt)
        start_over(mnt)
        assert GOLEVELDB.open(mnt) == Content.of(FILL.items())


@pytest.fixture
def unwritable(filled: Path, tmp_path: Path) -> Iterator[Path]:
    """The database on a file system that nobody can write."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a directory read-only")
    folder = tmp_path / "unwritable"
    folder.mkdir()
    subprocess.run(["mount", "--bind", filled, folder], timeout=30, check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], timeout=30, check=True)
    yield folder
    subprocess.run(["umount", folder], timeout=30, check=True)


@pytest.mark.parametrize("locked", [True, False], ids=["with LOCK", "without LOCK"])
def test_source_on_a_read_only_file_system_can_be_rehearsed_on(
    locked: bool, filled: Path, unwritable: Path, mnt: Path
) -> None:
    if not locked:
        (filled / LOCK).unlink()
    with unchanged(unwritable), mounted(unwritable, mnt, "--overlay"):
        for engine in ENGINES:
            with engine.session(mnt, SMALL) as session:
                session.model.update(FILL.items())
                session.put(key_of(1), value_of(str(engine), 1, 100))
                session.compact()
                assert session.content() == session.expected()
                session.release()
            start_over(mnt)


def test_source_of_closed_modes_is_shown_with_them_and_keeps_them(filled: Path, mnt: Path) -> None:
    for path in filled.iterdir():
        path.chmod(0o440)
    filled.chmod(0o550)
    try:
        with unchanged(filled), mounted(filled, mnt, "--overlay"):
            shown = {name: told[2] for name, told in facts(mnt).items()}
            assert shown == {name: told[2] for name, told in facts(filled).items()}
            mnt.chmod(0o750)
            for path in mnt.iterdir():
                path.chmod(0o640)
            assert GOLEVELDB.open(mnt) == Content.of(FILL.items())
            assert GOLEVELDB.compact(mnt) == Content.of(FILL.items())
    finally:
        filled.chmod(0o750)


def test_time_and_place_of_what_is_only_looked_at_are_those_of_the_source(
    filled: Path, mnt: Path
) -> None:
    with unchanged(filled), mounted(filled, mnt, "--overlay"):
        assert tree(mnt) == tree(filled)
        for path in filled.iterdir():
            ours, theirs = path.stat(), (mnt / path.name).stat()
            assert ours.st_mtime_ns == theirs.st_mtime_ns
            assert ours.st_blocks == theirs.st_blocks
        assert avccfs("diff", mnt).returncode == FINE
