"""Overlays that keep their changes in a directory: what survives, what it costs, what is refused."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avccfs.cli.main import FAILED, LOCKED, USAGE
from avccfs.format.filename import LOCK
from tests.engines import ENGINES, GOLEVELDB, LEVELDB, Content, Engine, EngineError, Options
from tests.fs.waiting import wait_for
from tests.mounted.test_full_disk import NO_SPACE, enlarge, write_all
from tests.mounted.test_kill import ROUNDS, SEED, clean_up_dead, is_dead
from tests.mounting import avccfs, mounted, tree
from tests.overlays import facts, size_on_disk, unchanged
from tests.workload import Fill, mixed_changes

pytestmark = pytest.mark.mounted

FILL = Fill(300, value_size=200)
SMALL = Options(create=True, write_buffer=64 << 10, table_size=32 << 10)
READING = Options(read_only=True)
MIB = 1 << 20

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)


@pytest.fixture
def filled(db: Path) -> Path:
    GOLEVELDB.fill(db, FILL)
    return db


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """Where the changes go; it does not exist yet."""
    return tmp_path / "changes"


# What survives


@each_engine
def test_changes_survive_any_number_of_mounts(
    engine: Engine, filled: Path, mnt: Path, upper: Path
) -> None:
    model = dict(FILL.items())
    with unchanged(filled):
        for turn in range(3):
            with (
                mounted(filled, mnt, "--overlay", os.fspath(upper)),
                engine.session(mnt, SMALL) as session,
            ):
                session.model.update(model)
                assert session.content() == session.expected()
                session.batch(mixed_changes(turn, 600, keys=400, value_size=300))
                if turn == 1:
                    session.compact()
                session.release()
                model = session.model
                (mnt / f"notes-{turn}").write_text("mine")
        with mounted(filled, mnt, "--overlay", os.fspath(upper)):
            assert engine.items(mnt) == model
            assert len(list(mnt.glob("notes-*"))) == 3
    # Without the overlay nothing of it is there.
    assert engine.open(filled) == Content.of(FILL.items())


@pytest.mark.parametrize("ways", [(), ("--write-through",)], ids=["write-back", "write-through"])
@each_engine
def test_killed_mount_loses_no_acknowledged_key(
    engine: Engine, ways: tuple[str, ...], filled: Path, mnt: Path, upper: Path
) -> None:
    chance = random.Random(f"{SEED}/{engine}/{ways}")
    must_be = dict(FILL.items())
    overlay = (*ways, "--overlay", os.fspath(upper))
    with unchanged(filled):
        for turn in range(max(1, ROUNDS // 4)):
            fill = Fill(3000, start=chance.randrange(100), value_size=400, seed=f"round {turn}")
            with (
                mounted(filled, mnt, *overlay, unmount=False) as at,
                engine.write_sync(mnt, fill, SMALL) as writer,
            ):
                for _ in range(chance.randrange(150)):
                    writer.next()
                time.sleep(chance.random() / 50)
                os.kill(at.pid, signal.SIGKILL)
                acknowledged = len(writer.drain())
                clean_up_dead(filled, mnt)
            written = list(fill.items())
            before = dict(must_be)
            must_be.update(written[:acknowledged])
            with mounted(filled, mnt, *overlay):
                items = engine.items(mnt)
            # The one that was on its way may have arrived.
            for key, value in written[acknowledged : acknowledged + 1]:
                assert items.get(key) in (value, before.get(key)), f"round {turn}"
                if key in items:
                    must_be[key] = items[key]
            assert items == must_be, f"round {turn}"


def test_killed_mount_keeps_names_and_bytes_that_were_synced(
    filled: Path, mnt: Path, upper: Path
) -> None:
    (filled / "big").write_bytes(bytes(300_000))
    (filled / "old").write_bytes(b"of the source")
    (filled / "gone").touch()
    overlay = ("--overlay", os.fspath(upper))
    with unchanged(filled):
        with mounted(filled, mnt, *overlay, unmount=False) as at:
            with (mnt / "big").open("r+b", buffering=0) as file:
                os.pwrite(file.fileno(), b"here", 200_000)
                os.fsync(file.fileno())
            (mnt / "old").rename(mnt / "renamed")
            (mnt / "gone").unlink()
            folder = os.open(mnt, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
            os.kill(at.pid, signal.SIGKILL)
            wait_for(lambda: is_dead(mnt))
            clean_up_dead(filled, mnt)
        with mounted(filled, mnt, *overlay):
            content = bytearray(300_000)
            content[200_000:200_004] = b"here"
            assert (mnt / "big").read_bytes() == content
            assert (mnt / "renamed").read_bytes() == b"of the source"
            assert not (mnt / "old").exists()
            assert not (mnt / "gone").exists()


def test_read_only_mount_shows_the_changes_and_adds_none(
    filled: Path, mnt: Path, upper: Path
) -> None:
    with mounted(filled, mnt, "--overlay", os.fspath(upper)):
        GOLEVELDB.fill(mnt, Fill(50, seed="changed"), SMALL)
        (mnt / "notes").write_text("mine")
        shown = tree(mnt)
    with (
        unchanged(filled),
        unchanged(upper),
        mounted(filled, mnt, "--read-only", "--overlay", os.fspath(upper)),
    ):
        assert tree(mnt) == shown
        expected = dict(FILL.items()) | dict(Fill(50, seed="changed").items())
        assert GOLEVELDB.open(mnt, READING) == Content.of(expected.items())
        with pytest.raises(OSError, match="Read-only file system"):
            (mnt / "notes").write_text("yours")
        with pytest.raises(OSError, match="Read-only file system"):
            (mnt / "000099.log").touch()


def test_read_only_mount_begins_no_changes(filled: Path, mnt: Path, upper: Path) -> None:
    said = refused(USAGE, "--read-only", f"--overlay={upper}", filled, mnt)
    assert str(upper) in said
    assert not upper.exists()
    upper.mkdir()
    with unchanged(filled), mounted(filled, mnt, "--read-only", f"--overlay={upper}"):
        assert tree(mnt) == tree(filled)
    with unchanged(filled), mounted(filled, mnt, "--read-only", "--overlay="):
        assert tree(mnt) == tree(filled)
        with pytest.raises(OSError, match="Read-only file system"):
            (mnt / "notes").touch()


def test_directory_is_named_among_the_words_of_mount_8_too(
    filled: Path, mnt: Path, upper: Path
) -> None:
    with unchanged(filled):
        # As mount.fuse3 runs it for `mount -t fuse.avccfs` and for fstab.
        avccfs(filled, mnt, "-o", f"rw,overlay={upper},noatime")
        (mnt / "notes").write_text("mine")
        avccfs("umount", mnt)
        avccfs(filled, mnt, "-o", f"ro,overlay={upper}")
        assert (mnt / "notes").read_text() == "mine"
        avccfs("umount", mnt)
        avccfs(filled, mnt, "-o", "overlay")
        assert not (mnt / "notes").exists()
        (mnt / "notes").write_text("in memory")
        avccfs("umount", mnt)


# What it costs


def resident(pid: int) -> int:
    """The most memory a process has had so far, in bytes."""
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in line
    ]
    return int(line.split()[1]) << 10


def test_byte_changed_in_a_large_file_costs_a_few_blocks(db: Path, mnt: Path, upper: Path) -> None:
    size, place = 2 << 30, (1 << 30) + 12_345
    with (db / "000005.ldb").open("wb") as file:
        file.truncate(size)
        file.seek(place - 10_000)
        file.write(b"x" * 20_000)
    with unchanged_facts(db):
        with mounted(db, mnt, "--overlay", os.fspath(upper)) as at:
            before, empty = resident(at.pid), size_on_disk(upper)
            with (mnt / "000005.ldb").open("r+b", buffering=0) as file:
                assert os.pwrite(file.fileno(), b"!", place) == 1
                os.fsync(file.fileno())
                assert os.fstat(file.fileno()).st_size == size
            assert size_on_disk(upper) - empty <= 64 << 10
            assert read_at(mnt / "000005.ldb", 20_000, place - 10_000) == (
                b"x" * 10_000 + b"!" + b"x" * 9_999
            )
            assert resident(at.pid) - before < 32 * MIB
            told = avccfs("diff", mnt).stdout
            assert f"[{place}, +1)" in told
        with mounted(db, mnt, "--overlay", os.fspath(upper)) as at:
            assert read_at(mnt / "000005.ldb", 3, place - 1) == b"x!x"
            # What is cut off and grown again is zeros, and takes no room either.
            os.truncate(mnt / "000005.ldb", place - 5_000)
            os.truncate(mnt / "000005.ldb", size)
            found = read_at(mnt / "000005.ldb", 10_000, place - 10_000)
            assert found == b"x" * 5_000 + bytes(5_000)
            assert size_on_disk(upper) - empty <= 128 << 10
            assert resident(at.pid) < 256 * MIB


def test_byte_changed_in_memory_costs_no_copy(db: Path, mnt: Path) -> None:
    with (db / "000005.ldb").open("wb") as file:
        file.truncate(2 << 30)
    with unchanged_facts(db), mounted(db, mnt, "--overlay") as at:
        before = resident(at.pid)
        for place in range(0, 2 << 30, 64 << 20):
            with (mnt / "000005.ldb").open("r+b", buffering=0) as file:
                os.pwrite(file.fileno(), b"!", place)
        (mnt / "000005.ldb").rename(mnt / "000006.ldb")
        (mnt / "000006.ldb").chmod(0o600)
        assert read_at(mnt / "000006.ldb", 2, 64 << 20) == b"!\0"
        assert resident(at.pid) - before < 64 * MIB


def read_at(path: Path, size: int, offset: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, offset)


@contextmanager
def unchanged_facts(source: Path) -> Iterator[None]:
    """As `unchanged`, for files too large to be read."""
    before = facts(source)
    yield
    assert facts(source) == before


# A full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for 4 MiB, for the changes."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    options = "size=4m,mode=755"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], timeout=30, check=True
    )
    yield folder
    subprocess.run(["umount", folder], timeout=30, check=True)


@each_engine
def test_engine_on_a_full_disk_keeps_what_it_acknowledged(
    engine: Engine, filled: Path, disk: Path, mnt: Path
) -> None:
    fill = Fill(2500, start=1000, value_size=3000)
    (filled / "notes").write_text("precious")
    overlay = ("--overlay", os.fspath(disk))
    with unchanged(filled):
        with mounted(filled, mnt, *overlay, provoked=NO_SPACE):
            with engine.write_sync(mnt, fill, SMALL) as writer:
                with pytest.raises(EngineError, match=f"(?i){NO_SPACE}"):
                    write_all(writer)
                acknowledged = set(writer.acknowledged)
            assert len(acknowledged) > 100
            assert (mnt / "notes").read_text() == "precious"
            enlarge(disk)
            items = engine.items(mnt)
            assert acknowledged | dict(FILL.items()).keys() <= items.keys()
            assert items.items() <= (dict(fill.items()) | dict(FILL.items())).items()
        with mounted(filled, mnt, *overlay, provoked=NO_SPACE):
            assert engine.items(mnt) == items


def write_until_full(fd: int, data: bytes, step: int) -> None:
    """Write at every `step` bytes, at most 10 MiB, until the disk is full."""
    number = 0
    try:
        for turn in range(10 * MIB // step):
            os.pwrite(fd, data, turn * step)
    except OSError as error:
        number = error.errno or 0
    assert number == errno.ENOSPC


def test_what_finds_no_room_fails_and_leaves_everything_as_it_was(
    filled: Path, disk: Path, mnt: Path
) -> None:
    (filled / "big").write_bytes(os.urandom(2 * MIB))
    overlay = ("--overlay", os.fspath(disk), "--write-through")
    with unchanged(filled):
        with mounted(filled, mnt, *overlay, provoked=NO_SPACE):
            with (mnt / "ballast").open("wb", buffering=0) as ballast:
                write_until_full(ballast.fileno(), bytes(1000), 1000)
            kept = tree(mnt)
            with (mnt / "big").open("r+b", buffering=0) as file:
                write_until_full(file.fileno(), b"!", 4096)
                changed = os.pread(file.fileno(), 2 * MIB, 0)
            refused_at = next(
                offset for offset in range(0, 2 * MIB, 4096) if changed[offset : offset + 1] != b"!"
            )
            assert changed[refused_at:] == kept["big"][refused_at:]
            assert {**tree(mnt), "big": b""} == {**kept, "big": b""}
            (mnt / "ballast").unlink()
            (mnt / "big").write_bytes(b"small")
            (mnt / "notes").write_text("go on")
        with mounted(filled, mnt, *overlay, provoked=NO_SPACE):
            assert tree(mnt) == {**tree(filled), "big": b"small", "notes": b"go on"}
            assert GOLEVELDB.open(mnt) == Content.of(FILL.items())


# What is refused


def refused(code: int, *arguments: str | Path) -> str:
    """Run `mount` with these, which must fail; what it said."""
    done = avccfs("mount", *arguments, check=False)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert not Path(arguments[-1]).is_mount()
    return done.stderr


@pytest.fixture
def begun(filled: Path, mnt: Path, upper: Path) -> Path:
    """A directory with changes of `filled`."""
    with mounted(filled, mnt, "--overlay", os.fspath(upper)):
        (mnt / "notes").write_text("mine")
    return upper


def test_changes_of_another_source_are_refused(
    filled: Path, begun: Path, mnt: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(filled, tmp_path / "other"))
    with unchanged(begun), unchanged(other):
        said = refused(FAILED, f"--overlay={begun}", other, mnt)
    assert f"{begun}: holds changes to {filled}, not to {other}" in said
    assert "name another directory" in said


def test_directory_of_somebody_else_is_refused(filled: Path, mnt: Path, upper: Path) -> None:
    upper.mkdir()
    (upper / "thesis.tex").write_text("precious")
    with unchanged(upper), unchanged(filled):
        said = refused(FAILED, f"--overlay={upper}", filled, mnt)
    assert str(upper) in said
    assert "thesis.tex" in said
    assert "name another directory" in said


def test_file_in_place_of_the_directory_is_refused(filled: Path, mnt: Path, upper: Path) -> None:
    upper.write_text("no directory")
    said = refused(FAILED, f"--overlay={upper}", filled, mnt)
    assert str(upper) in said
    assert upper.read_text() == "no directory"


def test_directory_in_use_is_refused_and_the_holder_named(
    filled: Path, mnt: Path, upper: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    with mounted(filled, mnt, "--overlay", os.fspath(upper)) as at:
        for ways in ((), ("--read-only",)):
            said = refused(LOCKED, *ways, f"--overlay={upper}", filled, second)
            assert str(upper) in said
            assert f"(pid {at.pid})" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "notes.txt").write_text("new"),
        lambda source: (source / "CURRENT").unlink(),
        lambda source: os.utime(next(source.glob("*.log"))),
        lambda source: LEVELDB.fill(source, Fill(1)),
    ],
    ids=["a new file", "a removed file", "another time", "an engine's work"],
)
def test_source_that_changed_in_between_is_refused_and_what_changed_is_named(
    change: object, filled: Path, begun: Path, mnt: Path
) -> None:
    assert callable(change)
    before = {name: told[:-1] for name, told in facts(filled).items()}
    change(filled)
    changed = {
        name
        for name, told in facts(filled).items()
        if before.get(name) != told[:-1] and name not in (".", LOCK)
    }
    changed |= before.keys() - facts(filled).keys()
    with unchanged(begun):
        said = refused(FAILED, f"--overlay={begun}", filled, mnt)
    assert str(filled) in said
    assert any(name in said for name in changed)
    assert f"avccfs discard {begun}" in said
    # As it says: without the changes it can be used again.
    avccfs("discard", "--yes", begun)
    with mounted(filled, mnt, "--overlay", os.fspath(begun)):
        assert tree(mnt) == tree(filled)


def test_damaged_ledger_is_refused_and_left_alone(filled: Path, begun: Path, mnt: Path) -> None:
    [ledger] = begun.glob("ledger-*")
    content = bytearray(ledger.read_bytes())
    content[20] ^= 1
    ledger.write_bytes(content)
    with unchanged(begun), unchanged(filled):
        said = refused(FAILED, f"--overlay={begun}", filled, mnt)
    assert str(begun) in said


def test_torn_end_of_the_ledger_costs_what_was_not_synced_and_no_more(
    filled: Path, begun: Path, mnt: Path
) -> None:
    with mounted(filled, mnt, f"--overlay={begun}"):
        (mnt / "second").write_text("too")
        (mnt / "second").rename(mnt / "third")
    [ledger] = begun.glob("ledger-*")
    os.truncate(ledger, ledger.stat().st_size - 3)
    with unchanged(filled), mounted(filled, mnt, f"--overlay={begun}"):
        assert (mnt / "notes").read_text() == "mine"
        assert (mnt / "second").read_text() == "too"
        assert not (mnt / "third").exists()


def test_places_that_lie_in_each_other_are_refused(filled: Path, mnt: Path, tmp_path: Path) -> None:
    with unchanged(filled):
        for place in (filled, filled / "changes", tmp_path, mnt, mnt / "changes"):
            said = refused(USAGE, f"--overlay={place}", filled, mnt)
            assert "must not lie in each other" in said
    assert not (mnt / "changes").exists()


def test_overlay_of_what_cannot_have_one_is_refused(filled: Path, mnt: Path) -> None:
    assert "mem:" in refused(USAGE, "--overlay", "mem:", mnt)
    assert "--unlocked" in refused(USAGE, "--overlay", "--unlocked", filled, mnt)


def test_value_of_the_option_is_told_from_the_source(filled: Path, mnt: Path, upper: Path) -> None:
    for words, kept in (
        (("--overlay", filled, mnt), False),
        (("--overlay=", filled, mnt), False),
        ((filled, mnt, "--overlay"), False),
        (("--overlay", upper, filled, mnt), True),
        ((filled, mnt, "--overlay", upper), True),
        ((filled, "--overlay", upper, "--write-through", mnt), True),
    ):
        with unchanged(filled):
            avccfs("mount", *words)
            (mnt / "notes").write_text("kept" if kept else "in memory")
            avccfs("umount", mnt)
        assert upper.exists() == kept
        shutil.rmtree(upper, ignore_errors=True)
