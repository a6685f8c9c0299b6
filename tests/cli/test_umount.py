"""`avccfs umount`: it returns when everything is written and the database is free."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from avccfs.cli.main import FAILED, FINE, USAGE
from avccfs.fuse import mounts
from tests.cli.test_mount import assert_unlocked, is_running, wait_until_gone
from tests.engines import ENGINES, Content
from tests.mounting import avccfs, mounted, pid_of
from tests.workload import Fill

pytestmark = pytest.mark.mounted


@pytest.fixture
def db(tmp_path: Path) -> Path:
    folder = tmp_path / "db"
    folder.mkdir()
    return folder


def test_database_is_free_the_moment_umount_returns(db: Path, mnt: Path) -> None:
    engine = ENGINES[1]
    fill = Fill(200)
    engine.fill(db, fill)
    for turn in range(20):
        avccfs("mount", db, mnt)
        (mnt / "fresh").write_bytes(bytes([turn]) * 1_000_000)
        said = avccfs("umount", mnt)
        assert_unlocked(db)
        assert (db / "fresh").read_bytes() == bytes([turn]) * 1_000_000
        assert said.stdout == said.stderr == ""
        assert engine.open(db) == Content.of(fill.items())


def test_umount_writes_what_the_kernel_still_holds(db: Path, mnt: Path) -> None:
    data = os.urandom(40 << 20)
    avccfs("mount", db, mnt)
    # Open while it is mounted, closed by the time of umount: no close has written it back.
    with (mnt / "big").open("wb") as file:
        file.write(data)
    (mnt / "big").rename(mnt / "000007.ldb")
    avccfs("umount", mnt)
    assert (db / "000007.ldb").read_bytes() == data


def test_mount_in_use_is_refused_and_the_holder_named(db: Path, mnt: Path) -> None:
    avccfs("mount", db, mnt)
    pid = pid_of(mnt)
    with subprocess.Popen(["cat"], cwd=mnt, stdin=subprocess.PIPE) as sleeper:
        refused = avccfs("umount", mnt, check=False)
        assert refused.returncode == FAILED
        assert f"{mnt} is in use by cat (pid {sleeper.pid})" in refused.stderr
        assert f"avccfs umount -l {mnt}" in refused.stderr
        (mnt / "fresh").write_text("still served")
        assert avccfs("umount", "-l", mnt).returncode == FINE
        assert not mnt.is_mount()
        assert is_running(pid)
        sleeper.communicate(timeout=30)
    wait_until_gone(pid)
    assert (db / "fresh").read_text() == "still served"
    assert_unlocked(db)


def test_lazy_umount_of_an_idle_mount_waits_like_any_other(db: Path, mnt: Path) -> None:
    avccfs("mount", db, mnt)
    (mnt / "fresh").write_bytes(bytes(5_000_000))
    avccfs("umount", "--lazy", mnt)
    assert (db / "fresh").stat().st_size == 5_000_000
    assert_unlocked(db)


def test_dead_mount_is_cleaned_up_and_nothing_else(db: Path, mnt: Path) -> None:
    avccfs("mount", db, mnt)
    (mnt / "fresh").write_text("here")
    pid = pid_of(mnt)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    said = avccfs("umount", mnt)
    assert f"{mnt} was a dead mount; it is cleaned up" in said.stderr
    assert mnt.is_dir()
    assert avccfs("umount", mnt, check=False).returncode == USAGE
    assert (db / "fresh").read_text() == "here"
    assert_unlocked(db)


def test_what_is_no_mount_of_avccfs_is_left_alone(mnt: Path, tmp_path: Path) -> None:
    refused = avccfs("umount", mnt, check=False)
    assert (refused.returncode, refused.stderr) == (USAGE, f"avccfs: nothing is mounted at {mnt}\n")
    refused = avccfs("umount", tmp_path / "missing", check=False)
    assert refused.returncode == USAGE
    refused = avccfs("umount", "/proc", check=False)
    assert refused.returncode == USAGE
    assert "/proc is not an avccfs mount but proc" in refused.stderr
    assert Path("/proc/self").exists()


def test_server_that_mounted_there_is_told_from_one_that_is_still_ending() -> None:
    # A device number is given out again while the process that had it before is still ending.
    device = f"test:{os.getpid()}"
    old, new = (mounts.Mount(place, device, mounts.FSTYPE, "db") for place in ("/old", "/new"))
    with mounts.announce(old) as ending, mounts.announce(new) as serving:
        told: list[socket.socket] = []

        def greet(listener: socket.socket) -> None:
            connection, _ = listener.accept()
            connection.sendall(mounts.greeting())
            told.append(connection)

        for mount, listener in ((new, serving), (old, ending)):
            told.clear()
            greeter = threading.Thread(target=greet, args=[listener])
            greeter.start()
            server = mounts.server_of(mount)
            greeter.join(30)
            assert server is not None
            with server.connection, told[0]:
                assert server.pid == os.getpid()
                assert not server.wait(0.05)
                told[0].close()
                assert server.wait(30)
    assert mounts.server_of(old) is None


def test_topmost_of_two_mounts_at_a_place_goes_first(db: Path, mnt: Path, tmp_path: Path) -> None:
    with mounted(db, mnt), mounted("mem:", tmp_path / "other"):
        # What lies inside a mount is a mount point like any other.
        inner = mnt / "lost"
        inner.mkdir()
        second = tmp_path / "second"
        second.mkdir()
        (second / "mark").touch()
        with mounted(second, inner):
            assert (inner / "mark").exists()
            refused = avccfs("umount", mnt, check=False)
            assert refused.returncode == FAILED
        assert inner.is_dir()
        assert not (inner / "mark").exists()
