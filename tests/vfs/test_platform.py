"""What stands in where a platform lacks something."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avccfs.vfs import local
from avccfs.vfs.base import Attributes, Open, Rename
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.platform import entries, files, process_name

NEW = Open.WRITE | Open.CREATE


@pytest.fixture
def directory(tmp_path: Path) -> LocalDirectory:
    """A directory with the files a and b, a folder d and a link to a."""
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"other")
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("a")
    return LocalDirectory(tmp_path)


@pytest.mark.parametrize("missing", ["no C library", "an old kernel", "an old file system"])
class TestWithoutRenameat2:
    @pytest.fixture(autouse=True)
    def without(self, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        match missing:
            case "no C library":
                monkeypatch.setattr(entries, "_LIBC", None)
            case "an old kernel":
                monkeypatch.setattr(entries, "_renameat2", lambda *_: errno.ENOSYS)
            case _:
                monkeypatch.setattr(entries, "_renameat2", lambda *_: errno.EINVAL)

    def test_noreplace_still_never_replaces(self, directory: LocalDirectory) -> None:
        for old, new in (("a", "b"), ("a", "a"), ("a", "d"), ("d", "a"), ("link", "a")):
            with pytest.raises(FileExistsError) as caught:
                directory.rename(old, new, Rename.NOREPLACE)
            assert (caught.value.filename, caught.value.filename2) == (old, new)
        with pytest.raises(FileNotFoundError):
            directory.rename("missing", "b", Rename.NOREPLACE)
        assert sorted(directory.names()) == ["a", "b", "d", "link"]

    def test_noreplace_still_renames(self, directory: LocalDirectory) -> None:
        inode = directory.stat("a").inode
        directory.rename("a", "d/a", Rename.NOREPLACE)
        directory.rename("d", "e", Rename.NOREPLACE)
        directory.rename("link", "l", Rename.NOREPLACE)
        assert sorted(directory.names()) == ["b", "e", "l"]
        assert directory.stat("e/a").inode == inode
        assert directory.stat("e/a").nlink == 1
        assert directory.readlink("l") == "a"
        with pytest.raises(OSError, match="e") as caught:
            directory.rename("e", "e/e", Rename.NOREPLACE)
        assert caught.value.errno == errno.EINVAL

    def test_noreplace_where_there_are_no_hard_links(
        self, directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_args: object, **_kwargs: object) -> None:
            raise PermissionError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", refuse)
        directory.rename("a", "c", Rename.NOREPLACE)
        with pytest.raises(FileExistsError):
            directory.rename("b", "c", Rename.NOREPLACE)
        assert sorted(directory.names()) == ["b", "c", "d", "link"]

    def test_exchange_is_invalid(self, directory: LocalDirectory) -> None:
        with pytest.raises(OSError, match="'a' -> 'b'") as caught:
            directory.rename("a", "b", Rename.EXCHANGE)
        assert caught.value.errno == errno.EINVAL
        assert directory.open("a").read_at(3, 0) == b"abc"


def test_without_utimensat_the_other_time_is_kept(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "_LIBC", None)
    directory.set_attributes("a", Attributes(atime_ns=1, mtime_ns=2))
    directory.set_attributes("a", Attributes(mtime_ns=3))
    file = directory.open("a", Open.WRITE)
    file.set_attributes(Attributes(atime_ns=4))
    assert (file.stat().atime_ns, file.stat().mtime_ns) == (4, 3)
    directory.set_attributes("link", Attributes(mtime_ns=5))
    assert directory.stat("link").mtime_ns == 5
    assert file.stat().mtime_ns == 3


def test_without_a_call_that_spares_links_a_link_is_refused(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_chmod = os.chmod

    def chmod(
        path: str, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> None:
        if not follow_symlinks:
            raise NotImplementedError("chmod: follow_symlinks unavailable on this platform")
        really_chmod(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "chmod", chmod)
    directory.set_attributes("a", Attributes(mode=0o604))
    assert directory.stat("a").mode & 0o777 == 0o604
    with pytest.raises(OSError, match="link") as caught:
        directory.set_attributes("link", Attributes(mode=0o600))
    assert caught.value.errno == errno.EOPNOTSUPP
    assert directory.stat("a").mode & 0o777 == 0o604


def test_without_pread_and_pwrite(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "pread", files.seek_and_read)
    monkeypatch.setattr(local, "pwrite", files.seek_and_write)
    file = directory.open("a", Open.WRITE)
    assert file.write_at(b"XY", 2) == 2
    assert file.read_at(3, 1) == b"bXY"
    assert file.read_at(3, 0) == b"abX"


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_what_a_sync_reports_is_raised(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    synced: list[int] = []

    def failing(fd: int) -> None:
        synced.append(fd)
        raise OSError(errno.EIO, "disk on fire")

    monkeypatch.setattr(os, call, failing)
    file = directory.open("a", Open.WRITE)
    with pytest.raises(OSError, match="disk on fire: 'a'"):
        file.sync(data_only=call == "fdatasync")
    assert len(synced) == 1


def test_a_file_system_that_cannot_sync_directories_is_put_up_with(
    directory: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [errno.EINVAL, errno.EIO]

    def failing(fd: int) -> None:
        raise OSError(codes[0], os.strerror(codes[0]))

    monkeypatch.setattr(os, "fsync", failing)
    directory.sync()
    codes.pop(0)
    with pytest.raises(OSError, match="d") as caught:
        directory.sync("d")
    assert caught.value.errno == errno.EIO


def test_a_path_swapped_for_a_link_does_not_lead_out(
    directory: LocalDirectory, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A folder that was entered once is looked at again on every call."""
    outside = tmp_path_factory.mktemp("outside")
    directory.open("d/x", NEW).close()
    directory.rename("d", "moved")
    (tmp_path / "d").symlink_to(outside)
    for name in ("x", "y"):
        with pytest.raises(OSError, match="d/") as caught:
            directory.open(f"d/{name}", NEW)
        assert caught.value.errno == errno.ELOOP
    assert os.listdir(outside) == []


def test_a_process_is_named_however_it_is_called(tmp_path: Path) -> None:
    program = tmp_path / "a) Z (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"], stdin=subprocess.DEVNULL) as process:
        try:
            while process_name(process.pid) == process_name(os.getpid()):
                os.sched_yield()
            assert process_name(process.pid) == "a) Z (b"
        finally:
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_name(process.pid) is None


BARE = """
import sys
import portalocker
sys.modules.update(dict.fromkeys({absent!r}))
from avccfs.vfs.base import Open, Rename
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
for directory in (LocalDirectory(sys.argv[1]), MemoryDirectory()):
    lock = directory.lock(exclusive=True)
    file = directory.open("a", Open.WRITE | Open.CREATE)
    file.write_at(b"abc", 0)
    file.sync()
    file.close()
    directory.rename("a", "b", Rename.NOREPLACE)
    directory.sync()
    assert sorted(directory.names()) == ["LOCK", "b"], directory.names()
    lock.release()
    directory.close()
print("fine")
"""


@pytest.mark.parametrize(
    "absent", [["fcntl"], ["ctypes"], ["fcntl", "ctypes"], ["pyfuse3", "trio"]]
)
def test_it_all_works_where_modules_are_missing(tmp_path: Path, absent: list[str]) -> None:
    script = BARE.format(absent=absent)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
