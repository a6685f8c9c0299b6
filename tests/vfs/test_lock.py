"""The lock of a directory against real other processes, which lock as the engines do."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import portalocker
import pytest

from avccfs import errors
from avccfs.vfs.base import Open
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.platform import holders
from avccfs.vfs.platform import lock as locking
from avccfs.vfs.platform.files import Fd

LEVELDB = "import plyvel; db = plyvel.DB(sys.argv[1], create_if_missing=True)"
# As goleveldb does it, and as a program that only reads along would.
FLOCK = "f = open(path, 'w'); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
FLOCK_SHARED = "f = open(path); fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)"
RECORD = "f = open(path, 'w'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
RECORD_SHARED = "f = open(path); fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB)"
OURS = (
    "from avccfs.vfs.local import LocalDirectory as D; d = D(sys.argv[1]); d.lock(exclusive=True)"
)
ORPHANED = FLOCK + "\nif os.fork(): os._exit(0)"

PREAMBLE = "import fcntl, os, sys\npath = sys.argv[1] + '/LOCK'\n"
HOLD = "\nprint(os.getpid(), flush=True); sys.stdin.read()"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[LocalDirectory]:
    made = LocalDirectory(tmp_path / "db")
    made.open("LOCK", Open.WRITE | Open.CREATE).close()
    yield made
    made.close()


@contextmanager
def holding(script: str, directory: LocalDirectory) -> Iterator[int]:
    """Another process that runs `script` and then stays; gives its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script + HOLD, directory.label],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        # It need not be our child: a daemon is waited for by its descriptor.
        ended = os.pidfd_open(pid)
        try:
            yield pid
        finally:
            process.stdin.close()
            select.select([ended], [], [])
            os.close(ended)


def can(script: str, directory: LocalDirectory) -> bool:
    """Whether another process gets the lock that `script` asks for."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script, directory.label],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        assert "Resource temporarily unavailable" in done.stderr or "LockedError" in done.stderr
    return done.returncode == 0


class TestHeldByOthers:
    @pytest.mark.parametrize(
        "script",
        [LEVELDB, FLOCK, RECORD, OURS, ORPHANED],
        ids=["leveldb", "flock", "record", "avccfs", "flock of a daemon"],
    )
    def test_a_directory_in_use_is_refused_and_the_holder_named(
        self, directory: LocalDirectory, script: str
    ) -> None:
        with holding(script, directory) as pid:
            for exclusive in (True, False):
                with pytest.raises(errors.LockedError) as caught:
                    directory.lock(exclusive=exclusive)
                ((found, name),) = caught.value.holders
                assert found == pid
                assert name == Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
                message = str(caught.value)
                assert directory.label in message
                assert f"{name} (pid {pid})" in message
                assert "--read-only" in message
            assert can("pass", directory)
        lock = directory.lock(exclusive=True)
        assert lock is not None

    @pytest.mark.parametrize("script", [FLOCK_SHARED, RECORD_SHARED])
    def test_beside_a_reader_one_may_read_but_not_write(
        self, directory: LocalDirectory, script: str
    ) -> None:
        with holding(script, directory) as pid:
            lock = directory.lock(exclusive=False)
            assert lock is not None
            lock.release()
            with pytest.raises(errors.LockedError) as caught:
                directory.lock(exclusive=True)
            assert [found for found, _ in caught.value.holders] == [pid]

    def test_a_refusal_leaves_half_of_the_lock_to_nobody(self, directory: LocalDirectory) -> None:
        with holding(RECORD, directory):
            with pytest.raises(errors.LockedError):
                directory.lock(exclusive=True)
            # flock was free, was taken first, and is free again.
            assert can(FLOCK, directory)

    def test_a_holder_the_system_does_not_name(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(holders, "find", lambda _fd: ())
        with holding(FLOCK, directory), pytest.raises(errors.LockedError) as caught:
            directory.lock(exclusive=True)
        assert caught.value.holders == ()
        assert "a process that the system does not name" in str(caught.value)

    def test_this_process_is_named_too(self, directory: LocalDirectory) -> None:
        lock = directory.lock(exclusive=True)
        with pytest.raises(errors.LockedError, match=f"pid {os.getpid()}, this process"):
            LocalDirectory(directory.label).lock(exclusive=True)
        assert lock is not None


class TestHeldByUs:
    @pytest.mark.parametrize("script", [LEVELDB, FLOCK, RECORD, OURS])
    def test_nobody_else_gets_in(self, directory: LocalDirectory, script: str) -> None:
        lock = directory.lock(exclusive=True)
        assert lock is not None
        assert not can(script, directory)
        # What the process does with LOCK on behalf of others must not lose the lock.
        directory.open("LOCK", Open.WRITE).close()
        directory.open("LOCK").close()
        os.close(os.open(f"{directory.label}/LOCK", os.O_RDWR))
        assert not can(script, directory)
        lock.release()
        assert can(script, directory)

    def test_while_we_read_others_may_read_but_not_write(self, directory: LocalDirectory) -> None:
        lock = directory.lock(exclusive=False)
        assert lock is not None
        assert can(FLOCK_SHARED, directory)
        assert can(RECORD_SHARED, directory)
        assert not can(FLOCK, directory)
        assert not can(RECORD, directory)
        assert not can(LEVELDB, directory)

    def test_closing_the_directory_lets_go(self, directory: LocalDirectory) -> None:
        directory.lock(exclusive=True)
        directory.close()
        assert can(FLOCK, directory)
        assert can(RECORD, directory)

    def test_a_child_that_keeps_the_descriptor_does_not_keep_the_lock(
        self, directory: LocalDirectory
    ) -> None:
        lock = directory.lock(exclusive=True)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.close(reading)
        assert lock is not None
        lock.release()
        assert can(FLOCK, directory)
        assert can(RECORD, directory)
        os.close(writing)
        os.waitpid(child, 0)


class TestReplacingLock:
    def test_a_new_lock_file_is_held_before_it_takes_the_name(
        self, directory: LocalDirectory
    ) -> None:
        lock = directory.lock(exclusive=True)
        assert lock is not None
        directory.open("next", Open.WRITE | Open.CREATE).close()
        other = lock.also("next")
        directory.rename("next", "LOCK")
        lock.release()
        assert not can(FLOCK, directory)
        assert not can(RECORD, directory)
        other.release()
        assert can(FLOCK, directory)
        assert can(RECORD, directory)

    def test_a_file_that_somebody_holds_is_refused(self, directory: LocalDirectory) -> None:
        lock = directory.lock(exclusive=True)
        assert lock is not None
        directory.open("next", Open.WRITE | Open.CREATE).close()
        with holding(FLOCK.replace("path", "sys.argv[1] + '/next'"), directory) as pid:
            with pytest.raises(errors.LockedError) as caught:
                lock.also("next")
            assert [found for found, _ in caught.value.holders] == [pid]
        with pytest.raises(FileNotFoundError) as missing:
            lock.also("folder/missing")
        assert missing.value.filename == "folder/missing"

    def test_closing_the_directory_lets_go_of_it_too(self, directory: LocalDirectory) -> None:
        lock = directory.lock(exclusive=True)
        assert lock is not None
        directory.open("LOCK.next", Open.WRITE | Open.CREATE).close()
        other = lock.also("LOCK.next")
        directory.rename("LOCK.next", "LOCK")
        directory.close()
        assert can(FLOCK, directory)
        with pytest.raises(errors.ClosedError):
            lock.also("LOCK")
        other.release()


class TestTheLockFile:
    def test_it_is_not_touched(self, directory: LocalDirectory) -> None:
        path = Path(directory.label, "LOCK")
        path.write_bytes(b"content")
        path.chmod(0o640)
        os.utime(path, ns=(1, 2))
        before = path.stat()
        for exclusive in (True, False):
            lock = directory.lock(exclusive=exclusive)
            assert lock is not None
            lock.release()
        assert path.stat() == before
        assert path.read_bytes() == b"content"

    def test_a_link_or_a_fifo_in_its_place_is_refused(self, directory: LocalDirectory) -> None:
        path = Path(directory.label, "LOCK")
        path.unlink()
        path.symlink_to("elsewhere")
        for exclusive in (True, False):
            with pytest.raises(OSError, match="LOCK") as caught:
                directory.lock(exclusive=exclusive)
            assert caught.value.errno == errno.ELOOP
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(OSError, match="LOCK") as caught:
            directory.lock(exclusive=True)
        assert caught.value.errno == errno.ENXIO
        assert directory.names() == ["LOCK"]

    def test_a_read_only_directory_can_be_locked_to_read(self, directory: LocalDirectory) -> None:
        looking = LocalDirectory(directory.label, read_only=True)
        lock = looking.lock(exclusive=False)
        assert lock is not None
        assert not can(FLOCK, directory)
        with pytest.raises(errors.ReadOnlyError):
            looking.lock(exclusive=True)
        looking.close()

    @pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
    def test_where_it_cannot_be_made_there_is_no_shared_lock(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        directory.remove("LOCK")
        really_open = os.open

        def medium(name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if flags & os.O_CREAT:
                raise OSError(code, os.strerror(code))
            return really_open(name, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", medium)
        assert directory.lock(exclusive=False) is None
        with pytest.raises(OSError, match="LOCK") as caught:
            directory.lock(exclusive=True)
        assert caught.value.errno == code

    def test_it_is_made_for_a_shared_lock_too(self, directory: LocalDirectory) -> None:
        directory.remove("LOCK")
        assert directory.lock(exclusive=False) is not None
        assert directory.stat("LOCK").size == 0

    def test_a_lock_on_a_file_that_was_replaced_meanwhile_is_taken_again(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`destroy` of another program removes LOCK: a lock on the removed one guards nothing."""
        really_take = locking._take
        replaced: list[bool] = []

        def replace_and_take(
            fd: Fd, label: str, again: Callable[[str], locking.FileLock], *, exclusive: bool
        ) -> locking.FileLock:
            if not replaced:
                directory.remove("LOCK")
                replaced.append(True)
            return really_take(fd, label, again, exclusive=exclusive)

        monkeypatch.setattr(locking, "_take", replace_and_take)
        lock = directory.lock(exclusive=True)
        assert lock is not None
        assert not can(FLOCK, directory)

    def test_a_file_that_never_stays_is_given_up(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locking, "_is_named", lambda _place, _fd: False)
        with pytest.raises(errors.LockedError, match="keeps replacing LOCK"):
            directory.lock(exclusive=True)
        assert can(FLOCK, directory)

    def test_a_file_system_without_locks(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_fd: int, _operation: int, _argument: bytes = b"") -> bytes:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "fcntl", refuse)
        with pytest.raises(OSError, match="--unlocked") as caught:
            directory.lock(exclusive=True)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOLCK, "LOCK")
        monkeypatch.undo()
        # And flock, which had been taken, was given back.
        assert can(FLOCK, directory)


class TestLockers:
    def test_the_record_lock_is_a_locker_of_portalocker(self, directory: LocalDirectory) -> None:
        locker = locking.OfdLocker()
        with (
            Path(directory.label, "LOCK").open("r+") as first,
            Path(directory.label, "LOCK").open("r+") as second,
        ):
            locker.lock(first, portalocker.LockFlags.EXCLUSIVE)
            with pytest.raises(portalocker.AlreadyLocked):
                locker.lock(
                    second, portalocker.LockFlags.SHARED | portalocker.LockFlags.NON_BLOCKING
                )
            locker.unlock(first)
            locker.lock(second, portalocker.LockFlags.SHARED)
            with pytest.raises(portalocker.LockException):
                locker.lock(first.fileno() + 1000, portalocker.LockFlags.SHARED)

    def test_without_fcntl_portalocker_chooses(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locking, "HAS_FLOCK", False)
        lock = directory.lock(exclusive=True)
        assert lock is not None
        with pytest.raises(errors.LockedError):
            directory.lock(exclusive=False)
        lock.release()
        assert directory.lock(exclusive=False) is not None

    def test_without_descriptor_locks_flock_is_enough(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locking, "HAS_OFD_LOCKS", False)
        assert directory.lock(exclusive=True) is not None
        assert not can(FLOCK, directory)
