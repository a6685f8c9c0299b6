"""kill -9: of the mount, of an engine on it, and of the mount at chosen system calls.

AVCCFS_KILL_ROUNDS in the environment is how often the mount is killed at a random moment, for each
engine; AVCCFS_KILL_SEED chooses other moments.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from avccfs.cli.main import USAGE
from avccfs.format.filename import FileDesc, Kind
from avccfs.fuse import mounts
from avccfs.storage.directory import open_storage
from tests.engines import (
    ENGINES,
    EXISTING,
    Content,
    Engine,
    EngineCrash,
    EngineError,
    Options,
)
from tests.mounting import AVCCFS, avccfs, mounted, pid_of, tree
from tests.test_engines import EXPECTED, FIXTURES
from tests.workload import Fill, key_of, value_of

pytestmark = pytest.mark.mounted

ROUNDS = int(os.environ.get("AVCCFS_KILL_ROUNDS", "8"))
SEED = int(os.environ.get("AVCCFS_KILL_SEED", "1"))
SMALL = Options(create=True, write_buffer=64 << 10, table_size=32 << 10)

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)


def clean_up_dead(source: Path, mnt: Path) -> None:
    """Find the mount dead, have it explained, and do what the explanation says."""
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        os.statvfs(mnt)
    explained = avccfs("mount", source, mnt, check=False)
    assert explained.returncode == USAGE
    assert f"{mnt} is a dead mount" in explained.stderr
    assert f"avccfs umount {mnt}" in explained.stderr
    assert "cleaned up" in avccfs("umount", mnt).stderr
    assert mnt.is_dir()
    assert not mnt.is_mount()


@each_engine
def test_killed_mount_loses_no_acknowledged_key(engine: Engine, db: Path, mnt: Path) -> None:
    chance = random.Random(f"{SEED}/{engine}")
    engine.fill(db, Fill(200, seed="before"), SMALL)
    (db / "notes").write_bytes(value_of("notes", 0, 100_000))
    must_be, may_be = dict(Fill(200, seed="before").items()), {}
    for turn in range(ROUNDS):
        # Entries of another number each round, under the same names again and again.
        fill = Fill(3000, start=chance.randrange(100), value_size=400, seed=f"round {turn}")
        with mounted(db, mnt, unmount=False) as at, engine.write_sync(mnt, fill, SMALL) as writer:
            for _ in range(chance.randrange(200)):
                writer.next()
            time.sleep(chance.random() / 50)
            os.kill(at.pid, signal.SIGKILL)
            acknowledged = len(writer.drain())
            clean_up_dead(db, mnt)
        written = list(fill.items())
        must_be.update(written[:acknowledged])
        # The one that was on its way may have arrived.
        may_be = dict(written[acknowledged : acknowledged + 1])
        with mounted(db, mnt):
            items = engine.items(mnt)
        unsure = {key: items[key] for key in may_be if key in items}
        assert unsure.items() <= may_be.items() | {
            (key, must_be[key]) for key in unsure if key in must_be
        }, f"round {turn}"
        must_be.update(unsure)
        assert items == must_be, f"round {turn}"
        assert engine.items(db) == must_be, f"round {turn}"
        assert (db / "notes").read_bytes() == value_of("notes", 0, 100_000)


@pytest.mark.parametrize("ways", [(), ("--write-through",)], ids=["write-back", "write-through"])
@each_engine
def test_killed_engine_loses_nothing_that_was_written(
    engine: Engine, ways: tuple[str, ...], db: Path, mnt: Path
) -> None:
    chance = random.Random(f"{SEED}/{engine}/{ways}")
    model: dict[bytes, bytes] = {}
    with mounted(db, mnt, *ways):
        for turn in range(4):
            with engine.session(mnt, SMALL) as session:
                session.model.update(model)
                for number in range(chance.randrange(50, 400)):
                    session.put(key_of(chance.randrange(500)), value_of(f"{turn}", number, 300))
                session.kill()
                model = dict(session.model)
            assert engine.items(mnt) == model
    assert engine.items(db) == model


# Exactly at a system call: the mount runs under strace, which kills it as it enters its N-th one.


@contextlib.contextmanager
def dies_at(call: str, number: int, source: Path, mnt: Path, log: Path) -> Iterator[int]:
    """A mount that is killed at its `number`-th system call of this name. Yields its pid."""
    injection = f"inject={call}:signal=KILL:when={number}"
    trace = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull]
    mount = [*AVCCFS, "mount", "-f", str(source), str(mnt)]
    command = [*trace, "-e", f"trace={call}", "-e", injection, *mount]
    with log.open("ab") as words, subprocess.Popen(command, stdout=words, stderr=words) as strace:
        try:
            deadline = time.monotonic() + 60
            while (pid := answering(mnt)) is None:
                assert strace.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.01)
            yield pid
        finally:
            if mounts.mount_at(str(mnt)) is not None:
                avccfs("umount", mnt)
            strace.wait(timeout=60)


def answering(mnt: Path) -> int | None:
    try:
        return pid_of(mnt)
    except (AssertionError, OSError):
        return None


def is_dead(mnt: Path) -> bool:
    try:
        # The kernel answers stat from its cache; this it must ask for.
        os.statvfs(mnt)
    except OSError:
        return True
    return False


# Both manifests of this fixture lead to the same 337 keys.
TWO_MANIFESTS = "goleveldb-killed-at-fsync-5"
OLD, NEW = FileDesc(0, Kind.MANIFEST), FileDesc(10, Kind.MANIFEST)


# By the time of the rename there is a durable CURRENT.10, which wins over CURRENT.
@pytest.mark.parametrize(("call", "first"), [("pwrite64", OLD), ("fsync", OLD), ("renameat", NEW)])
def test_mount_killed_inside_a_switch_leaves_the_old_or_the_new_manifest(
    call: str, first: FileDesc, tmp_path: Path, mnt: Path
) -> None:
    answers = []
    for number in range(1, 30):
        db = Path(shutil.copytree(FIXTURES / TWO_MANIFESTS / "db", tmp_path / f"{number}"))
        (db / "CURRENT.10").unlink()
        with dies_at(call, number, db, mnt, tmp_path / "log"):
            done = subprocess.run(
                ["bash", "-c", f"echo {NEW} > CURRENT"],
                cwd=mnt,
                capture_output=True,
                timeout=60,
                check=False,
            )
            killed = is_dead(mnt)
        with open_storage(db, read_only=True) as storage:
            answers.append(storage.get_meta())
        if done.returncode == 0:
            assert answers[-1] == NEW
        for engine in ENGINES:
            copy = Path(shutil.copytree(db, tmp_path / f"{number}-{engine}"))
            assert engine.open(copy).keys == EXPECTED[TWO_MANIFESTS][f"{engine}.open"]["keys"]
        if not killed:
            break
    assert not killed, "the switch never came to its end"
    assert (answers[0], answers[-1]) == (first, NEW)
    assert answers == sorted(answers), "once it is the new one it stays the new one"


@pytest.mark.parametrize("call", ["fsync", "renameat"])
@each_engine
def test_mount_killed_while_an_engine_opens_loses_no_key(
    engine: Engine, call: str, tmp_path: Path, mnt: Path
) -> None:
    sample = tmp_path / "sample"
    engine.fill(sample, Fill(300))
    for number in range(1, 30):
        db = Path(shutil.copytree(sample, tmp_path / f"{number}"))
        (db / "notes").write_text("of somebody")
        with dies_at(call, number, db, mnt, tmp_path / "log"):
            with contextlib.suppress(EngineError, EngineCrash):
                engine.open(mnt, EXISTING)
            killed = is_dead(mnt)
        with open_storage(db, read_only=True) as storage:
            assert storage.get_meta().kind is Kind.MANIFEST
        assert tree(db)["notes"] == b"of somebody"
        assert engine.open(db) == Content.of(Fill(300).items())
        if not killed:
            break
    assert not killed, "the opening never came to its end"
    assert number > 1, "there was nothing to kill at"
