"""What only a directory of a real file system can show."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.vfs import local
from avccfs.vfs.base import Attributes, Open, Rename
from avccfs.vfs.local import LocalDirectory

NEW = Open.WRITE | Open.CREATE


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[LocalDirectory]:
    made = LocalDirectory(tmp_path / "db")
    yield made
    made.close()


@pytest.fixture
def odd(directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch) -> LocalDirectory:
    """A directory with one of everything that is not a regular file."""
    monkeypatch.chdir(directory.label)
    os.mkfifo("fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        # A short relative path: those of sockets have a small limit.
        listener.bind("socket")
    Path("dangling").symlink_to("nowhere")
    Path("folder").mkdir()
    return directory


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class TestMaking:
    def test_it_is_made_with_mode_0755(self, tmp_path: Path) -> None:
        LocalDirectory(tmp_path / "db").close()
        assert stat.S_IMODE((tmp_path / "db").stat().st_mode) == 0o755

    def test_its_parents_are_not(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            LocalDirectory(tmp_path / "no" / "db")

    @pytest.mark.parametrize("how", [{"read_only": True}, {"create": False}])
    def test_it_is_not_made_when_only_looking(self, tmp_path: Path, how: dict[str, bool]) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            LocalDirectory(tmp_path / "db", **how)
        assert caught.value.filename == str(tmp_path / "db")
        assert os.listdir(tmp_path) == []

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "db").write_text("not a directory")
        with pytest.raises(NotADirectoryError):
            LocalDirectory(tmp_path / "db")

    def test_the_directory_may_be_named_by_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        directory = LocalDirectory(tmp_path / "link")
        directory.open("a", NEW).close()
        directory.close()
        assert os.listdir(tmp_path / "real") == ["a"]

    def test_it_stays_the_same_directory_when_it_is_moved(self, tmp_path: Path) -> None:
        directory = LocalDirectory(tmp_path / "db")
        (tmp_path / "db").rename(tmp_path / "moved")
        (tmp_path / "db").mkdir()
        directory.open("a", NEW).close()
        directory.close()
        assert os.listdir(tmp_path / "moved") == ["a"]
        assert os.listdir(tmp_path / "db") == []


class TestReadOnly:
    def test_every_change_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        directory = LocalDirectory(tmp_path, read_only=True)
        before = directory.scan()
        file = directory.open("a")
        assert directory.read_only
        assert file.read_at(3, 0) == b"abc"
        calls: list[Callable[[], object]] = [
            lambda: directory.open("a", Open.WRITE),
            lambda: directory.open("b", NEW),
            lambda: directory.rename("a", "b"),
            lambda: directory.remove("a"),
            lambda: directory.mkdir("d"),
            lambda: directory.rmdir("d"),
            lambda: directory.symlink("l", "a"),
            lambda: directory.link("a", "b"),
            lambda: directory.set_attributes("a", Attributes(mode=0o600)),
            lambda: file.set_attributes(Attributes(mode=0o600)),
            lambda: directory.lock(exclusive=True),
        ]
        for call in calls:
            with pytest.raises(errors.ReadOnlyError, match=str(tmp_path)):
                call()
        assert directory.scan() == before
        directory.sync()
        file.close()
        directory.close()
        with pytest.raises(errors.ClosedError):
            directory.remove("a")


class TestOddEntries:
    def test_they_are_listed_as_what_they_are(self, odd: LocalDirectory) -> None:
        kinds = {name: stat.S_IFMT(told.mode) for name, told in odd.scan()}
        assert kinds == {
            "fifo": stat.S_IFIFO,
            "socket": stat.S_IFSOCK,
            "dangling": stat.S_IFLNK,
            "folder": stat.S_IFDIR,
        }
        assert sorted(odd.names()) == sorted(kinds)
        assert {name: stat.S_IFMT(odd.stat(name).mode) for name in kinds} == kinds
        assert odd.stat("fifo").mode == stat.S_IFIFO | 0o640
        assert odd.stat("fifo").inode == Path("fifo").stat().st_ino

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("flags", [Open.READ, Open.WRITE, NEW, Open.WRITE | Open.TRUNCATE])
    def test_opening_one_is_refused_at_once(self, odd: LocalDirectory, flags: Open) -> None:
        for name in ("fifo", "socket"):
            with pytest.raises(OSError, match=name) as caught:
                odd.open(name, flags)
            assert caught.value.errno == errno.ENXIO
        assert len(odd.names()) == 4

    @pytest.mark.timeout(20)
    def test_opening_a_fifo_does_not_wake_its_other_end(self, odd: LocalDirectory) -> None:
        woken = threading.Event()

        def other_end() -> None:
            os.close(os.open("fifo", os.O_WRONLY))
            woken.set()

        thread = threading.Thread(target=other_end)
        thread.start()
        for _ in range(20):
            with pytest.raises(OSError, match="fifo"):
                odd.open("fifo")
        assert not woken.is_set()
        os.close(os.open("fifo", os.O_RDONLY))
        thread.join()

    def test_they_can_be_renamed_changed_and_removed(self, odd: LocalDirectory) -> None:
        odd.rename("fifo", "pipe")
        odd.rename("pipe", "socket", Rename.EXCHANGE)
        odd.set_attributes("socket", Attributes(mode=0o600, mtime_ns=1))
        odd.set_attributes("dangling", Attributes(mtime_ns=1))
        assert odd.stat("socket").mode == stat.S_IFIFO | 0o600
        assert odd.stat("dangling").mtime_ns == 1
        for name in ("socket", "pipe", "dangling"):
            odd.remove(name)
        assert odd.names() == ["folder"]

    def test_a_file_swapped_for_a_fifo_while_it_is_opened(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory.open("a", NEW).close()
        path = Path(directory.label, "a")
        really_open = os.open

        def swap_and_open(
            name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
        ) -> int:
            if name == "a" and path.is_file():
                path.unlink()
                os.mkfifo(path)
            return really_open(name, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", swap_and_open)
        before = open_descriptors()
        with pytest.raises(OSError, match="a") as caught:
            directory.open("a")
        assert caught.value.errno == errno.ENXIO
        del caught
        assert open_descriptors() == before


class TestDescriptors:
    def test_none_is_left_behind(self, tmp_path: Path) -> None:
        before = open_descriptors()
        directory = LocalDirectory(tmp_path / "db")
        directory.mkdir("d")
        directory.symlink("link", "d")
        for _ in range(10):
            file = directory.open("d/a", NEW)
            file.write_at(b"x", 0)
            file.close()
            directory.scan("d")
            directory.sync("d")
            directory.rename("d/a", "d/b")
            for path in ("d", "link", "link/x", "no", "d/b/c"):
                with pytest.raises(OSError, match=path):
                    directory.open(path)
        lock = directory.lock(exclusive=True)
        with pytest.raises(errors.LockedError):
            directory.lock(exclusive=False)
        assert open_descriptors() == before + 2
        directory.close()
        assert open_descriptors() == before
        assert lock is not None
        lock.release()

    def test_none_is_inherited(self, directory: LocalDirectory) -> None:
        file = directory.open("a", NEW)
        lock = directory.lock(exclusive=True)
        assert lock is not None
        child = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, check=True
        )
        assert os.fsencode(directory.label) not in child.stdout
        file.close()

    def test_a_close_in_mid_read_does_not_redirect_the_read(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The descriptor's number must not be given to another file before the read is done."""
        file = directory.open("a", NEW)
        file.write_at(b"mine", 0)
        directory.open("b", NEW).write_at(b"theirs", 0)
        others = []

        def close_and_read(fd: int, size: int, offset: int) -> bytes:
            file.close()
            others.append(directory.open("b"))
            return os.pread(fd, size, offset)

        monkeypatch.setattr(local, "pread", close_and_read)
        assert file.read_at(4, 0) == b"mine"
        monkeypatch.undo()
        with pytest.raises(errors.ClosedError):
            file.read_at(4, 0)
        assert others[0].read_at(6, 0) == b"theirs"


class TestTransfers:
    def test_short_reads_go_on(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = directory.open("a", NEW)
        file.write_at(b"0123456789", 0)
        monkeypatch.setattr(local, "pread", lambda fd, size, at: os.pread(fd, min(size, 3), at))
        assert file.read_at(8, 1) == b"12345678"
        assert file.read_at(100, 1) == b"123456789"
        file.close()

    def test_short_writes_go_on(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = directory.open("a", NEW)
        monkeypatch.setattr(local, "pwrite", lambda fd, data, at: os.pwrite(fd, data[:3], at))
        assert file.write_at(b"0123456789", 5) == 10
        assert file.write_at(memoryview(b"abcdefgh").cast("H"), 15) == 8
        assert file.read_at(100, 5) == b"0123456789abcdefgh"
        file.close()

    def test_a_full_disk_ends_a_write_short_and_then_says_so(
        self, directory: LocalDirectory
    ) -> None:
        """The limit on file sizes stands in for a full disk: it too allows a part of a write."""
        file = directory.open("a", NEW)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            assert file.write_at(b"x" * 8_000, 0) == 8_000
            assert file.write_at(b"y" * 8_000, 8_000) == 2_000
            with pytest.raises(OSError, match="a") as caught:
                file.write_at(b"y" * 6_000, 10_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)
        assert caught.value.errno == errno.EFBIG
        assert file.stat().size == 10_000
        file.close()

    def test_an_error_after_a_part_that_will_not_come_back_is_raised(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = directory.open("a", NEW)

        def break_down(fd: int, data: bytes, offset: int) -> int:
            if offset:
                raise OSError(errno.EIO, "broken")
            return os.pwrite(fd, data[:3], offset)

        monkeypatch.setattr(local, "pwrite", break_down)
        with pytest.raises(OSError, match="broken: 'a'"):
            file.write_at(b"0123456789", 0)
        file.close()

    def test_a_late_error_of_a_write_comes_out_of_close(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on a network file system; the handle is gone all the same."""
        file = directory.open("a", NEW)
        before = open_descriptors()

        def failing_close(fd: int) -> None:
            really_close(fd)
            raise OSError(errno.EIO, "late")

        really_close = os.close
        monkeypatch.setattr(os, "close", failing_close)
        with pytest.raises(OSError, match="late: 'a'") as caught:
            file.close()
        monkeypatch.undo()
        del caught
        assert open_descriptors() == before - 1
        file.close()


def test_attributes_are_those_of_the_system(directory: LocalDirectory) -> None:
    directory.open("a", NEW).close()
    mine = directory.stat("a")
    told = Path(directory.label, "a").stat()
    assert (mine.inode, mine.uid, mine.gid) == (told.st_ino, told.st_uid, told.st_gid)
    assert (mine.blocks, mine.blksize) == (told.st_blocks, told.st_blksize)
    assert (mine.mtime_ns, mine.ctime_ns) == (told.st_mtime_ns, told.st_ctime_ns)


def test_an_entry_that_vanishes_during_a_scan_is_left_out(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        directory.open(name, NEW).close()
    really_stat_of = local.stat_of
    seen = 0

    def stat_and_remove(told: os.stat_result) -> object:
        nonlocal seen
        seen += 1
        if seen == 1:
            for name in "abc":
                directory.remove(name)
        return really_stat_of(told)

    monkeypatch.setattr(local, "stat_of", stat_and_remove)
    assert len(directory.scan()) == 1


def test_another_users_file_can_be_read(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the owner may leave the access time alone: the others read without."""
    directory.open("a", NEW).close()
    really_open = os.open
    tried = []

    def as_somebody_else(
        name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        tried.append(bool(flags & os.O_NOATIME))
        if flags & os.O_NOATIME:
            raise PermissionError(errno.EPERM, "not the owner")
        return really_open(name, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", as_somebody_else)
    directory.open("a").close()
    assert tried == [True, False]
