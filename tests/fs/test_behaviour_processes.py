"""What must be as on a local disk, and takes the kernel: memory maps, locks, several processes."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fs.places import refused
from tests.mounting import mounted

TIMEOUT = 60


@contextmanager
def other_process(code: str, path: Path) -> Iterator[None]:
    """Another process that runs `code`, says so, and waits for our leave to end."""
    script = f"import fcntl, os, struct, sys\nfd = os.open(sys.argv[1], os.O_RDWR)\n{code}\n"
    script += "print('ready', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", script, os.fspath(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
            process.stdin.close()
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


def file_lock(kind: int, start: int, length: int) -> bytes:
    return struct.pack("@hhqqi4x", kind, os.SEEK_SET, start, length, 0)


# Memory maps


def test_a_map_and_a_handle_show_the_same_bytes(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(bytes(3 * mmap.PAGESIZE))
    with path.open("r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[5:9] = b"here"
        memory.flush()
        assert path.read_bytes()[:10] == b"\0" * 5 + b"here\0"
        os.pwrite(file.fileno(), b"there", mmap.PAGESIZE)
        assert memory[mmap.PAGESIZE : mmap.PAGESIZE + 5] == b"there"


def test_a_private_map_is_private(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"content" * 1000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as memory:
        memory[:7] = b"changed"
        memory.flush()
    assert path.read_bytes() == b"content" * 1000


def test_a_map_survives_the_removal_of_its_file(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"content" * 1000)
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    with memory:
        path.unlink()
        memory[:7] = b"CONTENT"
        memory.flush()
        assert memory[:14] == b"CONTENTcontent"


@pytest.mark.mounted
@pytest.mark.parametrize("options", [(), ("--write-through",)], ids=["write-back", "through"])
def test_what_was_written_through_a_map_is_there_after_a_remount(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    source, mountpoint = tmp_path / "source", tmp_path / "mnt"
    source.mkdir()
    content = random.Random(3).randbytes(300_000)
    with mounted(source, mountpoint, *options):
        file = mountpoint / "file"
        file.write_bytes(bytes(len(content)))
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory:
            memory[:200_000] = content[:200_000]
            memory.flush()
            assert (source / "file").read_bytes()[:200_000] == content[:200_000]
            # No msync for the rest: unmounting has to take it along.
            memory[200_000:] = content[200_000:]
    assert (source / "file").read_bytes() == content
    with mounted(source, mountpoint, *options):
        assert (mountpoint / "file").read_bytes() == content


# Locks


def test_flock_holds_between_processes(folder: Path) -> None:
    path = folder / "file"
    path.touch()
    with path.open("r+b") as file:
        with other_process("fcntl.flock(fd, fcntl.LOCK_EX)", path):
            with refused(errno.EAGAIN):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with refused(errno.EAGAIN):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(AssertionError), other_process("fcntl.flock(fd, 6)", path):
            pass
    with path.open("r+b") as file, other_process("fcntl.flock(fd, fcntl.LOCK_SH)", path):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_record_locks_hold_between_processes(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(bytes(100))
    with path.open("r+b") as file:
        with other_process("fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)", path):
            with refused(errno.EAGAIN):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50)
            answer = fcntl.fcntl(file, fcntl.F_GETLK, file_lock(fcntl.F_WRLCK, 0, 100))
            kind, _, start, length, pid = struct.unpack("@hhqqi4x", answer)
            assert (kind, start, length) == (fcntl.F_WRLCK, 0, 10)
            assert pid > 0
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 0)


def test_waiting_for_a_lock_ends_when_it_is_free(folder: Path) -> None:
    path = folder / "file"
    path.touch()
    code = "fcntl.flock(fd, fcntl.LOCK_EX); fcntl.lockf(fd, fcntl.LOCK_EX)\nos.write(fd, b'held')"
    with path.open("r+b", buffering=0) as file:
        with other_process(code, path):
            waiter = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "import fcntl, sys\n"
                    "with open(sys.argv[1], 'r+b') as file:\n"
                    "    fcntl.flock(file, fcntl.LOCK_EX); fcntl.lockf(file, fcntl.LOCK_EX)\n"
                    "    sys.exit(0 if file.read() == b'held' else 1)",
                    os.fspath(path),
                ]
            )
            # Whatever else it needs, it cannot be done while the other holds the locks.
            with pytest.raises(subprocess.TimeoutExpired):
                waiter.wait(0.5)
            assert os.pread(file.fileno(), 10, 0) == b"held"
        assert waiter.wait(TIMEOUT) == 0


# Processes side by side


def test_processes_that_append_lose_no_line(folder: Path) -> None:
    path = folder / "file"
    path.touch()
    code = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "for turn in range(200): os.write(fd, b'%s %d\\n' % (sys.argv[2].encode(), turn))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, os.fspath(path), who]) for who in "abc"
    ]
    assert [writer.wait(TIMEOUT) for writer in writers] == [0, 0, 0]
    lines = path.read_bytes().splitlines()
    assert sorted(lines) == sorted(
        b"%s %d" % (who, turn) for who in (b"a", b"b", b"c") for turn in range(200)
    )


def test_exclusive_creation_has_one_winner(folder: Path) -> None:
    code = (
        "import os, sys\n"
        "won = 0\n"
        "for turn in range(100):\n"
        "    try: os.close(os.open(f'{sys.argv[1]}/{turn}', os.O_CREAT | os.O_EXCL))\n"
        "    except FileExistsError: continue\n"
        "    won += 1\n"
        "print(won)\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, os.fspath(folder)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert sum(int(run.communicate(timeout=TIMEOUT)[0]) for run in runs) == 100
    assert len(list(folder.iterdir())) == 100


# What the kernel does with the answers


def test_links_are_followed_inside(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_bytes(b"content")
    (folder / "link").symlink_to("deep/file")
    (folder / "deep" / "up").symlink_to("../link")
    (folder / "dir").symlink_to("deep")
    assert (folder / "deep" / "up").read_bytes() == b"content"
    (folder / "dir" / "up").write_bytes(b"changed")
    assert (folder / "deep" / "file").read_bytes() == b"changed"
    (folder / "loop").symlink_to("loop")
    with refused(errno.ELOOP):
        (folder / "loop").read_bytes()
    with refused(errno.ENOENT):
        (folder / "dir" / "missing").read_bytes()


def test_owners_can_be_changed_by_root(folder: Path) -> None:
    path = folder / "file"
    path.touch(0o644)
    own = (os.geteuid(), os.getegid())
    wanted = (1234, 4321) if own[0] == 0 else own
    os.chown(path, *wanted)
    found = path.stat()
    assert (found.st_uid, found.st_gid) == wanted
    os.chown(path, -1, own[1])
    assert (path.stat().st_uid, path.stat().st_gid) == (wanted[0], own[1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_rights_are_checked_for_other_users(folder: Path) -> None:
    if os.geteuid() != 0:
        # Only root can become somebody else; as oneself, the own rights are checked.
        path = folder / "file"
        path.touch(0o400)
        with refused(errno.EACCES):
            path.write_bytes(b"x")
        return
    path = folder / "file"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    # By a descriptor, so that the folders above need not let everybody in.
    code = (
        "import os, sys\n"
        "os.setresgid(4321, 4321, 4321); os.setresuid(1234, 1234, 1234)\n"
        "try: os.open('file', os.O_RDONLY, dir_fd=int(sys.argv[1]))\n"
        "except PermissionError: sys.exit(7)\n"
    )
    folder.chmod(0o755)
    fd = os.open(folder, os.O_RDONLY)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(fd)], pass_fds=(fd,), timeout=TIMEOUT, check=False
        )
    finally:
        os.close(fd)
    assert done.returncode == 7
