"""Who may have the database open beside a mount: as many, and as few, as without one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from avccfs.cli.main import FINE, LOCKED
from tests.engines import ENGINES, GOLEVELDB, LEVELDB, Content, Engine, EngineError, Options
from tests.mounting import avccfs, mounted, tree
from tests.workload import Fill, key_of

pytestmark = pytest.mark.mounted

FILL = Fill(100)
READING = Options(read_only=True)
IN_USE = "Resource temporarily unavailable|resource temporarily unavailable"

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)


@pytest.fixture
def filled(db: Path) -> Path:
    GOLEVELDB.fill(db, FILL)
    return db


def without_logs(directory: Path) -> dict[str, bytes]:
    """LevelDB begins a new LOG before it finds the lock taken."""
    return {name: content for name, content in tree(directory).items() if "LOG" not in name}


@each_engine
def test_mounted_directory_is_refused_to_engines_until_it_is_unmounted(
    engine: Engine, filled: Path, mnt: Path
) -> None:
    with mounted(filled, mnt):
        before = without_logs(filled)
        with pytest.raises(EngineError, match=IN_USE):
            engine.open(filled)
        assert without_logs(filled) == before
        # The refusal cost nothing: the mount still holds its lock.
        with pytest.raises(EngineError, match=IN_USE):
            engine.open(filled)
    assert engine.open(filled) == Content.of(FILL.items())


def test_mounted_directory_is_refused_to_goleveldb_readers(filled: Path, mnt: Path) -> None:
    with mounted(filled, mnt), pytest.raises(EngineError, match=IN_USE):
        GOLEVELDB.open(filled, READING)


@each_engine
def test_directory_that_an_engine_has_open_is_not_mounted(
    engine: Engine, filled: Path, mnt: Path
) -> None:
    with engine.hold(filled) as held:
        before = tree(filled)
        for options in ((), ("--read-only",), ("--foreground",)):
            refused = avccfs("mount", *options, filled, mnt, check=False)
            assert refused.returncode == LOCKED
            program = Path(f"/proc/{held.pid}/comm").read_text().strip()
            assert f"{program} (pid {held.pid})" in refused.stderr
            assert str(filled) in refused.stderr
            assert "--unlocked" in refused.stderr
            assert not mnt.is_mount()
        assert tree(filled) == before
        held.release()
    with mounted(filled, mnt):
        assert engine.open(mnt) == Content.of(FILL.items())


def test_directory_that_a_reader_has_open_is_mounted_to_read_only(filled: Path, mnt: Path) -> None:
    with GOLEVELDB.hold(filled, READING) as held:
        refused = avccfs("mount", filled, mnt, check=False)
        assert refused.returncode == LOCKED
        assert f"(pid {held.pid})" in refused.stderr
        with mounted(filled, mnt, "--read-only"):
            assert GOLEVELDB.open(mnt, READING) == Content.of(FILL.items())


def is_excluded(holder: Engine, other: Engine, directory: Path) -> bool:
    """Whether `other` is refused while `holder` has the database open."""
    with holder.hold(directory) as held:
        try:
            other.hold(directory).close()
            refused = False
        except EngineError as refusal:
            if not re.search(IN_USE, str(refusal)):
                raise
            refused = True
        held.release()
    return refused


@pytest.mark.parametrize("other", ENGINES, ids=str)
@pytest.mark.parametrize("holder", ENGINES, ids=str)
def test_engines_on_the_mount_exclude_each_other_as_they_do_below(
    holder: Engine, other: Engine, filled: Path, mnt: Path, tmp_path: Path
) -> None:
    # The two engines lock in two ways that do not see each other: what counts is "as below".
    plain = Path(shutil.copytree(filled, tmp_path / "plain"))
    natively = is_excluded(holder, other, plain)
    assert natively or holder is not other
    with mounted(filled, mnt):
        assert is_excluded(holder, other, mnt) == natively
        if natively:
            assert other.open(mnt) == Content.of(FILL.items())


def test_read_only_mounts_share_a_directory_and_keep_writers_out(
    filled: Path, mnt: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    third = tmp_path / "third"
    third.mkdir()
    with mounted(filled, mnt, "--read-only") as one, mounted(filled, second, "-r") as two:
        assert one.pid != two.pid
        assert tree(mnt) == tree(second) == tree(filled)
        refused = avccfs("mount", filled, third, check=False)
        assert refused.returncode == LOCKED
        assert f"(pid {one.pid})" in refused.stderr
        assert f"(pid {two.pid})" in refused.stderr
        assert GOLEVELDB.open(filled, READING) == Content.of(FILL.items())
        for engine in ENGINES:
            with pytest.raises(EngineError, match=IN_USE):
                engine.open(filled)
        avccfs("umount", mnt)
        # The other one still holds the lock.
        assert avccfs("mount", filled, third, check=False).returncode == LOCKED
    with mounted(filled, third):
        assert tree(third) == tree(filled)


def test_mount_to_write_keeps_every_other_mount_out(
    filled: Path, mnt: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    with mounted(filled, mnt) as at:
        for options in ((), ("--read-only",)):
            refused = avccfs("mount", *options, filled, second, check=False)
            assert refused.returncode == LOCKED
            assert f"(pid {at.pid})" in refused.stderr
        assert not second.is_mount()


@each_engine
def test_unlocked_mount_shows_what_an_engine_is_writing(
    engine: Engine, db: Path, mnt: Path
) -> None:
    engine.fill(db, FILL)
    with engine.session(db) as session:
        said = avccfs("mount", "--unlocked", db, mnt)
        try:
            assert said.returncode == FINE
            assert str(db) in said.stderr
            assert "without its lock" in said.stderr
            for turn in range(20):
                session.put(key_of(turn), b"seen at once %d" % turn)
                assert tree(mnt) == tree(db)
                journals = [path for path in mnt.iterdir() if path.suffix == ".log"]
                assert any(b"seen at once %d" % turn in path.read_bytes() for path in journals)
            session.compact()
            session.reopen()
            assert tree(mnt) == tree(db)
            with pytest.raises(OSError, match="Read-only file system"):
                (mnt / "CURRENT").write_text("MANIFEST-000001\n")
            with pytest.raises(OSError, match="Read-only file system"):
                (mnt / "new").touch()
        finally:
            avccfs("umount", mnt)
        session.release()
    assert LEVELDB.open(db).keys == engine.open(db).keys == FILL.count
