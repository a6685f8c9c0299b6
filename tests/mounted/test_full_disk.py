"""A full disk behind the mount is the writer's trouble and nobody else's."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import ENGINES, Content, Engine, EngineError, Options, SyncWriter
from tests.mounting import mounted, tree
from tests.workload import Fill

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk"),
]

MIB = 1 << 20
NO_SPACE = "No space left on device"
FILL = Fill(500)
SMALL = Options(create=True, write_buffer=64 << 10, table_size=32 << 10)

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)
each_way_of_writing = pytest.mark.parametrize(
    "ways", [(), ("--write-through",)], ids=["write-back", "write-through"]
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "none", str(folder)],
        timeout=30,
        check=True,
    )
    yield folder
    subprocess.run(["umount", folder], timeout=30, check=True)


def enlarge(disk: Path) -> None:
    command = ["mount", "-o", "remount,size=64m", str(disk)]
    subprocess.run(command, timeout=30, check=True)


def fill_up(folder: Path) -> None:
    """Leave not a page free, from behind the mount."""
    with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@each_way_of_writing
def test_copy_to_a_full_disk_fails_and_the_rest_goes_on(
    ways: tuple[str, ...], disk: Path, mnt: Path, tmp_path: Path
) -> None:
    engine = ENGINES[0]
    engine.fill(disk, FILL)
    (disk / "notes").write_text("precious")
    before = tree(disk)
    (tmp_path / "big").write_bytes(os.urandom(6 * MIB))
    with mounted(disk, mnt, *ways, provoked=NO_SPACE):
        copy = ["cp", str(tmp_path / "big"), str(mnt / "big")]
        failed = subprocess.run(copy, capture_output=True, text=True, timeout=60, check=False)
        assert failed.returncode == 1
        assert NO_SPACE in failed.stderr
        assert {**tree(mnt), "big": b""} == {**before, "big": b""}
        (mnt / "big").unlink()
        assert tree(mnt) == before
        (mnt / "notes").write_text("go on")
        assert engine.open(mnt) == Content.of(FILL.items())
    assert (disk / "notes").read_text() == "go on"
    assert engine.open(disk) == Content.of(FILL.items())


@each_way_of_writing
@pytest.mark.parametrize(
    "finish", [os.fsync, os.fdatasync, os.close], ids=lambda call: call.__name__
)
def test_writer_learns_of_the_full_disk_at_the_latest_when_it_asks(
    finish: object, ways: tuple[str, ...], disk: Path, mnt: Path
) -> None:
    assert callable(finish)
    with mounted(disk, mnt, *ways, provoked=NO_SPACE):
        fd = os.open(mnt / "file", os.O_WRONLY | os.O_CREAT)
        told = []
        try:
            for turn in range(96):
                os.pwrite(fd, bytes(65536), turn * 65536)
        except OSError as error:
            told.append(error.errno)
        try:
            finish(fd)
        except OSError as error:
            told.append(error.errno)
        if finish is not os.close:
            os.close(fd)
        assert errno.ENOSPC in told
        assert set(told) == {errno.ENOSPC}


def write_and_sync(fd: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])
    os.fsync(fd)


@each_way_of_writing
@pytest.mark.parametrize("missing", [1, 5000, 30_000])
def test_writer_whose_last_bytes_alone_find_no_room_learns_of_it(
    missing: int, ways: tuple[str, ...], disk: Path, mnt: Path
) -> None:
    with mounted(disk, mnt, *ways, provoked=NO_SPACE):
        # The room that is left is no multiple of what the kernel writes back in one request.
        (disk / "ballast").write_bytes(bytes(200_000))
        room = os.statvfs(disk)
        data = os.urandom(room.f_bavail * room.f_frsize + missing)
        fd = os.open(mnt / "file", os.O_WRONLY | os.O_CREAT)
        try:
            with pytest.raises(OSError, match=NO_SPACE):
                write_and_sync(fd, data)
        finally:
            os.close(fd)


def write_all(writer: SyncWriter) -> None:
    while writer.next() is not None:
        pass


@each_way_of_writing
@each_engine
def test_engine_on_a_full_disk_keeps_what_it_acknowledged(
    engine: Engine, ways: tuple[str, ...], disk: Path, mnt: Path
) -> None:
    fill = Fill(2500, value_size=3000)
    (disk / "notes").write_text("precious")
    with mounted(disk, mnt, *ways, provoked=NO_SPACE):
        with engine.write_sync(mnt, fill, SMALL) as writer:
            with pytest.raises(EngineError, match=f"(?i){NO_SPACE}"):
                write_all(writer)
            acknowledged = set(writer.acknowledged)
        assert len(acknowledged) > 100
        assert (mnt / "notes").read_text() == "precious"
        enlarge(disk)
        items = engine.items(mnt)
        assert acknowledged <= set(items)
        assert items.items() <= dict(fill.items()).items()
    assert engine.items(disk) == items


def test_switch_of_current_on_a_full_disk_leaves_the_old_one(disk: Path, mnt: Path) -> None:
    engine = ENGINES[0]
    engine.fill(disk, FILL)
    [live] = disk.glob("MANIFEST-*")
    (disk / "MANIFEST-000099").write_bytes(live.read_bytes())
    before = tree(disk)
    with mounted(disk, mnt, provoked=NO_SPACE):
        fill_up(disk)
        command = "echo MANIFEST-000099 > CURRENT"
        failed = subprocess.run(
            ["bash", "-c", command],
            cwd=mnt,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert failed.returncode == 1
        assert NO_SPACE in failed.stderr
        assert (mnt / "CURRENT").read_text() == f"{live.name}\n"
        (mnt / "ballast").unlink()
        assert tree(mnt) == before
        subprocess.run(["bash", "-c", command], cwd=mnt, timeout=60, check=True)
        assert (mnt / "CURRENT").read_text() == "MANIFEST-000099\n"
    assert engine.open(disk) == Content.of(FILL.items())
