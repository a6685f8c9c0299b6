"""One suite for every directory: whatever holds here, callers may rely on.

Where implementations differ on purpose the test says so: a local directory obeys the process's
umask, its folders have a size, and it cannot be larger than its file system.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.vfs.base import Attributes, Directory, File, Open, Rename, join
from avccfs.vfs.fault import FaultDirectory, FaultPlan
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.overlay import Overlay
from avccfs.vfs.platform import files

WRITE = Open.WRITE
NEW = Open.WRITE | Open.CREATE
CHUNK = 64 * 1024


BACK_ENDS = [
    "local",
    "local-by-paths",
    "memory",
    "fault-local",
    "fault-memory",
    "overlay-memory",
    "overlay-local",
]


@pytest.fixture(params=BACK_ENDS)
def directory(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Directory]:
    """A new, empty directory of every sort; `local-by-paths` has no directory descriptors."""
    made: Directory
    match request.param:
        case "memory" | "fault-memory":
            made = MemoryDirectory()
        case "local-by-paths":
            monkeypatch.setattr(files, "HAS_DIR_FD", False)
            made = LocalDirectory(tmp_path / "db")
        case "overlay-memory":
            made = Overlay(MemoryDirectory())
        case "overlay-local":
            lower = LocalDirectory(tmp_path / "db")
            made = Overlay(lower, LocalDirectory(tmp_path / "changes"))
        case _:
            made = LocalDirectory(tmp_path / "db")
    if request.param.startswith("fault"):
        made = FaultDirectory(made, FaultPlan())
    yield made
    made.close()


def put(directory: Directory, path: str, content: bytes = b"") -> None:
    file = directory.open(path, NEW | Open.TRUNCATE)
    if content:
        assert file.write_at(content, 0) == len(content)
    file.close()


def get(directory: Directory, path: str) -> bytes:
    file = directory.open(path)
    try:
        return file.read_at(file.stat().size, 0)
    finally:
        file.close()


def fails_with(code: int, call: Callable[..., object], *args: object) -> OSError:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is checked
        call(*args)
    assert caught.value.errno == code, os.strerror(caught.value.errno or 0)
    return caught.value


class TestContent:
    def test_what_is_written_is_read_back(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        assert file.write_at(b"hello", 0) == 5
        assert file.write_at(memoryview(b"_HELLO_")[1:6], 2) == 5
        assert file.write_at(bytearray(b"!"), 7) == 1
        assert file.read_at(100, 0) == b"heHELLO!"
        assert file.read_at(3, 2) == b"HEL"
        file.close()
        assert get(directory, "a") == b"heHELLO!"

    def test_a_view_of_wide_items_is_written_as_bytes(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        wide = memoryview(b"12345678").cast("Q")
        assert file.write_at(wide, 0) == 8
        assert file.read_at(9, 0) == b"12345678"
        file.close()

    def test_reading_at_and_past_the_end_gives_less_and_nothing(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        file = directory.open("a")
        assert file.read_at(10, 1) == b"bc"
        assert file.read_at(10, 3) == b""
        assert file.read_at(10, 10**15) == b""
        assert file.read_at(0, 0) == b""
        file.close()

    def test_an_absurd_size_reads_what_is_there(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        file = directory.open("a")
        for size in (2**31, 2**62, 2**64):
            assert file.read_at(size, 1) == b"bc"
            assert file.read_at(size, 4) == b""
        file.close()

    def test_a_hole_reads_as_zeros(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        file.write_at(b"x", 3 * CHUNK + 5)
        assert file.stat().size == 3 * CHUNK + 6
        assert file.read_at(4 * CHUNK, 0) == bytes(3 * CHUNK + 5) + b"x"
        file.close()

    def test_writing_nothing_changes_nothing(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        assert file.write_at(b"", 100) == 0
        assert file.stat().size == 0
        file.close()

    def test_truncate_cuts_and_extends_with_zeros(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        file.write_at(b"x" * (CHUNK + 100), 0)
        file.truncate(3)
        assert file.read_at(10, 0) == b"xxx"
        file.truncate(CHUNK + 1)
        assert file.read_at(2 * CHUNK, 0) == b"xxx" + bytes(CHUNK - 2)
        file.truncate(0)
        assert file.stat().size == 0
        file.close()

    def test_negative_numbers_are_invalid(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        calls: list[Callable[[], object]] = [
            lambda: file.read_at(1, -1),
            lambda: file.read_at(-1, 0),
            lambda: file.write_at(b"x", -1),
            lambda: file.truncate(-1),
        ]
        for call in calls:
            assert fails_with(errno.EINVAL, call).filename == "a"
        file.close()

    def test_an_offset_no_file_can_have_is_refused(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        fails_with(errno.EINVAL, file.read_at, 1, 2**63)
        fails_with(errno.EFBIG, file.write_at, b"x", 2**63)
        fails_with(errno.EFBIG, file.truncate, 2**63)
        assert file.stat().size == 0
        file.close()

    def test_a_handle_for_reading_refuses_to_write(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        file = directory.open("a")
        fails_with(errno.EBADF, file.write_at, b"x", 0)
        fails_with(errno.EINVAL, file.truncate, 0)
        file.sync()
        file.close()
        assert get(directory, "a") == b"abc"

    def test_sync_of_file_and_names(self, directory: Directory) -> None:
        directory.mkdir("d")
        file = directory.open("d/a", NEW)
        file.write_at(b"x", 0)
        file.sync()
        file.sync(data_only=True)
        file.close()
        directory.sync()
        directory.sync("d")
        fails_with(errno.ENOTDIR, directory.sync, "d/a")
        fails_with(errno.ENOENT, directory.sync, "e")

    def test_threads_may_share_a_file(self, directory: Directory) -> None:
        file = directory.open("a", NEW)

        def work(worker: int) -> None:
            for block in range(worker, 64, 4):
                file.write_at(bytes([worker]) * 1000, block * 1000)
                assert file.read_at(1000, block * 1000) == bytes([worker]) * 1000

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        whole = b"".join(bytes([block % 4]) * 1000 for block in range(64))
        assert file.read_at(10**6, 0) == whole
        file.close()


class TestOpening:
    def test_missing(self, directory: Directory) -> None:
        for flags in (Open.READ, WRITE, WRITE | Open.TRUNCATE):
            error = fails_with(errno.ENOENT, directory.open, "a", flags)
            assert error.filename == "a"

    def test_create_keeps_what_exists_and_truncate_does_not(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        directory.open("a", NEW).close()
        assert get(directory, "a") == b"abc"
        directory.open("a", WRITE | Open.TRUNCATE).close()
        assert get(directory, "a") == b""

    def test_exclusive_refuses_whatever_exists(self, directory: Directory) -> None:
        directory.open("new", NEW | Open.EXCLUSIVE).close()
        directory.mkdir("folder")
        directory.symlink("link", "nowhere")
        for name in ("new", "folder", "link"):
            fails_with(errno.EEXIST, directory.open, name, NEW | Open.EXCLUSIVE)

    def test_folders_and_links_are_refused(self, directory: Directory) -> None:
        directory.mkdir("folder")
        put(directory, "file")
        directory.symlink("link", "file")
        directory.symlink("dangling", "nowhere")
        for flags in (Open.READ, WRITE, NEW, WRITE | Open.TRUNCATE):
            for name in ("folder", ""):
                fails_with(errno.EISDIR, directory.open, name, flags)
            for name in ("link", "dangling"):
                fails_with(errno.ELOOP, directory.open, name, flags)
        assert sorted(directory.names()) == ["dangling", "file", "folder", "link"]

    def test_changing_flags_need_write(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        for flags in (Open.CREATE, Open.TRUNCATE, WRITE | Open.EXCLUSIVE):
            fails_with(errno.EINVAL, directory.open, "a", flags)
        assert get(directory, "a") == b"abc"

    def test_mode_of_a_new_file(self, directory: Directory) -> None:
        # Modes that a usual umask leaves alone: only a local directory has one.
        directory.open("a", NEW, 0o600).close()
        directory.open("b", NEW).close()
        directory.open("a", NEW, 0o644).close()
        assert directory.stat("a").mode == stat.S_IFREG | 0o600
        assert directory.stat("b").mode == stat.S_IFREG | 0o644

    def test_a_removed_file_lives_on_in_its_handles(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        file.write_at(b"abc", 0)
        directory.remove("a")
        put(directory, "a", b"other")
        file.write_at(b"d", 3)
        assert file.read_at(10, 0) == b"abcd"
        assert file.stat().nlink == 0
        file.close()
        assert get(directory, "a") == b"other"

    def test_a_replaced_file_lives_on_in_its_handles(self, directory: Directory) -> None:
        put(directory, "a", b"old")
        put(directory, "b", b"new")
        file = directory.open("a")
        directory.rename("b", "a")
        assert file.read_at(10, 0) == b"old"
        file.close()
        assert get(directory, "a") == b"new"


class TestNames:
    def test_listing(self, directory: Directory) -> None:
        assert directory.names() == []
        put(directory, "000005.ldb", b"12345")
        directory.mkdir("lost")
        put(directory, "lost/000004.log")
        directory.symlink("link", "000005.ldb")
        assert sorted(directory.names()) == ["000005.ldb", "link", "lost"]
        assert directory.names("lost") == ["000004.log"]
        scanned = dict(directory.scan())
        assert sorted(scanned) == ["000005.ldb", "link", "lost"]
        assert scanned["000005.ldb"] == directory.stat("000005.ldb")
        assert stat.S_ISLNK(scanned["link"].mode)
        assert stat.S_ISDIR(scanned["lost"].mode)
        assert [name for name, _ in directory.scan("lost")] == ["000004.log"]

    def test_listing_what_is_no_directory(self, directory: Directory) -> None:
        put(directory, "file")
        directory.mkdir("folder")
        directory.symlink("link", "folder")
        for call in (directory.names, directory.scan):
            assert fails_with(errno.ENOTDIR, call, "file").filename == "file"
            fails_with(errno.ENOENT, call, "missing")
            fails_with(errno.ELOOP, call, "link")

    def test_names_that_are_not_text(self, directory: Directory) -> None:
        odd = os.fsdecode(b"\xff\xfe.ldb")
        put(directory, odd, b"abc")
        put(directory, "Ünï.ldb")
        assert sorted(directory.names()) == sorted([odd, "Ünï.ldb"])
        assert dict(directory.scan())[odd].size == 3
        directory.rename(odd, "new")
        directory.symlink("link", odd)
        assert directory.readlink("link") == odd
        assert directory.stat("link").size == len(os.fsencode(odd))
        fails_with(errno.EILSEQ, directory.stat, "\ud800")
        fails_with(errno.EILSEQ, directory.symlink, "x", "\ud800")

    def test_paths_that_mean_something_else_are_refused(self, directory: Directory) -> None:
        directory.mkdir("d")
        put(directory, "a")
        for path in ("..", ".", "/a", "d/", "d//x", "d/../a", "d/./x", "a\0b", "/"):
            calls: list[tuple[Callable[..., object], *tuple[object, ...]]] = [
                (directory.stat, path),
                (directory.open, path, NEW),
                (directory.rename, "a", path),
                (directory.remove, path),
                (directory.mkdir, path),
                (directory.names, path),
                (directory.link, "a", path),
            ]
            for call, *args in calls:
                fails_with(errno.EINVAL, call, *args)
        assert sorted(directory.names()) == ["a", "d"]

    def test_a_name_too_long(self, directory: Directory) -> None:
        name = "n" * 255
        put(directory, name)
        assert directory.names() == [name]
        fails_with(errno.ENAMETOOLONG, directory.stat, name + "n")
        fails_with(errno.ENAMETOOLONG, directory.rename, name, "é" * 128)

    def test_a_path_never_goes_through_a_link_or_a_file(self, directory: Directory) -> None:
        directory.mkdir("d")
        put(directory, "d/x", b"abc")
        directory.symlink("link", "d")
        put(directory, "file")
        for through, code in (("link", errno.ELOOP), ("file", errno.ENOTDIR), ("no", errno.ENOENT)):
            path = f"{through}/x"
            calls: list[tuple[Callable[..., object], *tuple[object, ...]]] = [
                (directory.stat, path),
                (directory.open, path),
                (directory.open, path, NEW),
                (directory.remove, path),
                (directory.mkdir, path),
                (directory.rename, path, "y"),
                (directory.rename, "file", path),
                (directory.set_attributes, path, Attributes(mode=0)),
            ]
            for call, *args in calls:
                fails_with(code, call, *args)
        assert get(directory, "d/x") == b"abc"

    def test_deep_folders(self, directory: Directory) -> None:
        path = ""
        for _ in range(20):
            path = join(path, "d")
            directory.mkdir(path)
        put(directory, join(path, "x"), b"deep")
        assert get(directory, join(path, "x")) == b"deep"
        assert directory.names(path) == ["x"]

    def test_making_and_removing_folders(self, directory: Directory) -> None:
        directory.mkdir("d", 0o700)
        assert directory.stat("d").mode == stat.S_IFDIR | 0o700
        put(directory, "d/x")
        fails_with(errno.EEXIST, directory.mkdir, "d")
        fails_with(errno.EEXIST, directory.mkdir, "d/x")
        fails_with(errno.EEXIST, directory.mkdir, "")
        fails_with(errno.ENOENT, directory.mkdir, "no/x")
        fails_with(errno.ENOTEMPTY, directory.rmdir, "d")
        fails_with(errno.ENOTDIR, directory.rmdir, "d/x")
        fails_with(errno.ENOENT, directory.rmdir, "no")
        fails_with(errno.EBUSY, directory.rmdir, "")
        fails_with(errno.EISDIR, directory.remove, "d")
        fails_with(errno.EISDIR, directory.remove, "")
        fails_with(errno.ENOENT, directory.remove, "no")
        directory.remove("d/x")
        directory.rmdir("d")
        assert directory.names() == []

    def test_symbolic_links(self, directory: Directory) -> None:
        directory.symlink("link", "../../etc/passwd")
        assert directory.readlink("link") == "../../etc/passwd"
        assert stat.S_ISLNK(directory.stat("link").mode)
        put(directory, "file")
        fails_with(errno.EINVAL, directory.readlink, "file")
        fails_with(errno.EINVAL, directory.readlink, "")
        fails_with(errno.ENOENT, directory.readlink, "no")
        fails_with(errno.EEXIST, directory.symlink, "file", "x")
        fails_with(errno.EEXIST, directory.symlink, "", "x")
        fails_with(errno.ENOENT, directory.symlink, "empty", "")
        fails_with(errno.EINVAL, directory.symlink, "nul", "a\0b")
        fails_with(errno.ENAMETOOLONG, directory.symlink, "long", "x" * 4096)
        directory.remove("link")
        assert directory.names() == ["file"]

    def test_hard_links(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        directory.mkdir("d")
        directory.link("a", "d/b")
        assert directory.stat("a").inode == directory.stat("d/b").inode
        assert directory.stat("a").nlink == 2
        put(directory, "d/b", b"changed")
        assert get(directory, "a") == b"changed"
        directory.remove("a")
        assert directory.stat("d/b").nlink == 1
        error = fails_with(errno.ENOENT, directory.link, "a", "c")
        assert (error.filename, error.filename2) == ("a", "c")
        fails_with(errno.EEXIST, directory.link, "d/b", "d")
        fails_with(errno.EEXIST, directory.link, "d", "d/b")
        fails_with(errno.EPERM, directory.link, "d", "c")
        fails_with(errno.EPERM, directory.link, "", "c")
        fails_with(errno.EEXIST, directory.link, "d/b", "")

    def test_a_link_to_a_link_is_a_second_name_of_the_link(self, directory: Directory) -> None:
        directory.symlink("link", "nowhere")
        directory.link("link", "other")
        assert directory.readlink("other") == "nowhere"
        assert directory.stat("link").nlink == 2


class TestRename:
    def test_to_a_free_name(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        directory.mkdir("d")
        directory.rename("a", "d/b")
        assert directory.names() == ["d"]
        assert get(directory, "d/b") == b"abc"

    def test_onto_a_file_replaces_it(self, directory: Directory) -> None:
        put(directory, "a", b"new")
        put(directory, "b", b"old")
        inode = directory.stat("a").inode
        directory.rename("a", "b")
        assert directory.names() == ["b"]
        assert get(directory, "b") == b"new"
        assert directory.stat("b").inode == inode

    def test_missing_source(self, directory: Directory) -> None:
        put(directory, "b")
        for how in Rename:
            error = fails_with(errno.ENOENT, directory.rename, "a", "b", how)
            assert (error.filename, error.filename2) == ("a", "b")

    def test_files_and_folders_do_not_replace_each_other(self, directory: Directory) -> None:
        put(directory, "file")
        directory.mkdir("folder")
        fails_with(errno.EISDIR, directory.rename, "file", "folder")
        fails_with(errno.ENOTDIR, directory.rename, "folder", "file")

    def test_a_folder_replaces_only_an_empty_one(self, directory: Directory) -> None:
        directory.mkdir("a")
        put(directory, "a/x")
        directory.mkdir("b")
        put(directory, "b/y")
        fails_with(errno.ENOTEMPTY, directory.rename, "a", "b")
        directory.remove("b/y")
        directory.rename("a", "b")
        assert directory.names() == ["b"]
        assert directory.names("b") == ["x"]

    def test_a_folder_does_not_go_into_itself(self, directory: Directory) -> None:
        directory.mkdir("a")
        directory.mkdir("a/b")
        for how in Rename:
            new = "a/b" if how is Rename.EXCHANGE else "a/b/c"
            fails_with(errno.EINVAL, directory.rename, "a", new, how)
        fails_with(errno.ENOTEMPTY, directory.rename, "a/b", "a")
        fails_with(errno.EINVAL, directory.rename, "a/b", "a", Rename.EXCHANGE)
        assert directory.names("a") == ["b"]

    def test_two_names_of_one_file_stay(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        directory.link("a", "b")
        directory.rename("a", "b")
        directory.rename("a", "a")
        directory.rename("a", "b", Rename.EXCHANGE)
        assert sorted(directory.names()) == ["a", "b"]
        assert directory.stat("a").nlink == 2

    def test_noreplace(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        put(directory, "b")
        directory.mkdir("d")
        directory.mkdir("e")
        for old, new in (("a", "b"), ("a", "a"), ("a", "d"), ("d", "a"), ("d", "e")):
            fails_with(
                errno.EEXIST,
                directory.rename,
                old,
                new,
                Rename.NOREPLACE,
            )
        directory.rename("a", "c", Rename.NOREPLACE)
        directory.rename("d", "e/d", Rename.NOREPLACE)
        assert sorted(directory.names()) == ["b", "c", "e"]
        assert get(directory, "c") == b"abc"

    def test_exchange(self, directory: Directory) -> None:
        put(directory, "file", b"abc")
        directory.mkdir("d")
        put(directory, "d/x")
        directory.mkdir("e")
        directory.rename("file", "d", Rename.EXCHANGE)
        assert get(directory, "d") == b"abc"
        assert directory.names("file") == ["x"]
        directory.rename("file/x", "e", Rename.EXCHANGE)
        assert directory.names("file/x") == []
        assert directory.stat("e").mode & stat.S_IFREG
        assert directory.stat("file").nlink == directory.stat("").nlink
        fails_with(errno.ENOENT, directory.rename, "d", "no", Rename.EXCHANGE)

    def test_a_link_is_renamed_itself(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        directory.symlink("link", "a")
        directory.rename("link", "other")
        assert directory.readlink("other") == "a"
        put(directory, "b", b"new")
        directory.rename("b", "other")
        assert get(directory, "a") == b"abc"
        assert get(directory, "other") == b"new"

    def test_the_directory_itself_stays(self, directory: Directory) -> None:
        put(directory, "a")
        for how in Rename:
            fails_with(errno.EBUSY, directory.rename, "", "b", how)
            fails_with(errno.EBUSY, directory.rename, "a", "", how)


class TestAttributes:
    def test_a_directory_tells_of_itself(self, directory: Directory) -> None:
        assert directory.stat().mode == stat.S_IFDIR | 0o755
        if directory.stat().nlink == 1:
            return  # Some file systems do not count the folders in a folder (btrfs).
        directory.mkdir("d")
        assert directory.stat().nlink == 3
        directory.rmdir("d")
        assert directory.stat().nlink == 2

    def test_size_and_space_taken(self, directory: Directory) -> None:
        # A size is a size everywhere; how much a file takes is up to the file system.
        put(directory, "a", b"x" * 10_000)
        told = directory.stat("a")
        assert told.size == 10_000
        assert told.blocks * 512 >= 8_192
        file = directory.open("hole", NEW)
        file.truncate(2**30)
        assert file.stat().size == 2**30
        assert file.stat().blocks * 512 < 2**20
        file.close()

    def test_changes_by_name_and_by_handle(self, directory: Directory) -> None:
        put(directory, "a")
        file = directory.open("a", WRITE)
        changes: list[Callable[[Attributes], None]] = [
            lambda change: directory.set_attributes("a", change),
            file.set_attributes,
        ]
        for step, change in enumerate(changes):
            base = 1_000_000_000_123_456_789 + step
            change(Attributes(mode=0o640 + step, atime_ns=base, mtime_ns=-base))
            told = directory.stat("a")
            assert told.mode == stat.S_IFREG | (0o640 + step)
            assert (told.atime_ns, told.mtime_ns) == (base, -base)
            change(Attributes(atime_ns=5))
            assert (directory.stat("a").atime_ns, directory.stat("a").mtime_ns) == (5, -base)
            change(Attributes(mtime_ns=7_000_000_001))
            assert (directory.stat("a").atime_ns, directory.stat("a").mtime_ns) == (
                5,
                7_000_000_001,
            )
            change(Attributes(uid=os.getuid(), gid=os.getgid()))
            assert (file.stat().uid, file.stat().gid) == (os.getuid(), os.getgid())
        file.close()

    def test_the_type_is_not_part_of_a_change(self, directory: Directory) -> None:
        put(directory, "a")
        directory.set_attributes("a", Attributes(mode=stat.S_IFDIR | 0o604))
        assert directory.stat("a").mode == stat.S_IFREG | 0o604

    def test_the_directory_itself_can_be_changed(self, directory: Directory) -> None:
        directory.set_attributes("", Attributes(mode=0o700, mtime_ns=1, atime_ns=2))
        told = directory.stat()
        assert (told.mode, told.mtime_ns) == (stat.S_IFDIR | 0o700, 1)

    def test_a_link_is_changed_itself(self, directory: Directory) -> None:
        put(directory, "a")
        before = directory.stat("a")
        directory.symlink("link", "a")
        directory.set_attributes("link", Attributes(mtime_ns=12))
        directory.set_attributes("link", Attributes(uid=os.getuid(), atime_ns=1, mtime_ns=13))
        assert directory.stat("link").mtime_ns == 13
        fails_with(errno.EOPNOTSUPP, directory.set_attributes, "link", Attributes(mode=0o600))
        assert directory.stat("a") == before

    def test_missing(self, directory: Directory) -> None:
        for change in (Attributes(mode=0o600), Attributes(mtime_ns=1), Attributes(uid=0)):
            fails_with(errno.ENOENT, directory.set_attributes, "a", change)
        assert fails_with(errno.ENOENT, directory.stat, "d/a").filename == "d/a"

    def test_times_move_with_changes(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        old = Attributes(atime_ns=1, mtime_ns=1)
        file = directory.open("a", WRITE)
        changes: list[tuple[Callable[..., object], object]] = [
            (lambda data: file.write_at(data, 0), b"x"),
            (file.truncate, 2),
        ]
        for change, argument in changes:
            directory.set_attributes("a", old)
            change(argument)
            assert directory.stat("a").mtime_ns > 1
        file.close()
        acts: list[Callable[[str], object]] = [lambda name: put(directory, name), directory.remove]
        for act in acts:
            directory.set_attributes("", old)
            act("b")
            assert directory.stat().mtime_ns > 1

    def test_reading_leaves_the_times_alone(self, directory: Directory) -> None:
        put(directory, "a", b"abc")
        directory.set_attributes("a", Attributes(atime_ns=1, mtime_ns=1))
        before = directory.stat("a")
        assert get(directory, "a") == b"abc"
        directory.scan()
        assert directory.stat("a") == before

    def test_space(self, directory: Directory) -> None:
        space = directory.space()
        assert space.frsize > 0
        assert space.blocks >= space.bfree >= space.bavail > 0
        assert space.namemax == 255


class TestLock:
    def test_the_lock_file_appears_and_is_left_alone(self, directory: Directory) -> None:
        lock = directory.lock(exclusive=True)
        assert lock is not None
        lock.release()
        assert directory.stat("LOCK").mode == stat.S_IFREG | 0o644
        put(directory, "LOCK", b"content")
        before = directory.stat("LOCK")
        again = directory.lock(exclusive=True)
        assert again is not None
        assert directory.stat("LOCK") == before
        again.release()

    def test_one_may_write(self, directory: Directory) -> None:
        lock = directory.lock(exclusive=True)
        assert lock is not None
        for exclusive in (True, False):
            with pytest.raises(errors.LockedError) as caught:
                directory.lock(exclusive=exclusive)
            assert [pid for pid, _ in caught.value.holders] == [os.getpid()]
            assert directory.label in str(caught.value)
        lock.release()
        lock.release()
        other = directory.lock(exclusive=True)
        lock.release()
        with pytest.raises(errors.LockedError):
            directory.lock(exclusive=True)
        assert other is not None
        other.release()

    def test_many_may_read(self, directory: Directory) -> None:
        first = directory.lock(exclusive=False)
        second = directory.lock(exclusive=False)
        assert first is not None
        assert second is not None
        with pytest.raises(errors.LockedError):
            directory.lock(exclusive=True)
        first.release()
        with pytest.raises(errors.LockedError):
            directory.lock(exclusive=True)
        second.release()
        third = directory.lock(exclusive=True)
        assert third is not None
        third.release()

    def test_opening_lock_elsewhere_does_not_lose_it(self, directory: Directory) -> None:
        lock = directory.lock(exclusive=True)
        directory.open("LOCK", WRITE).close()
        with pytest.raises(errors.LockedError):
            directory.lock(exclusive=False)
        assert lock is not None
        lock.release()


class TestClosing:
    def test_a_closed_file_says_so(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        file.close()
        file.close()
        calls: list[Callable[[], object]] = [
            lambda: file.read_at(1, 0),
            lambda: file.write_at(b"x", 0),
            lambda: file.truncate(0),
            lambda: file.sync(),
            lambda: file.stat(),
            lambda: file.set_attributes(Attributes(mode=0o600)),
        ]
        for call in calls:
            with pytest.raises(errors.ClosedError, match="a: "):
                call()

    def test_a_closed_directory_says_so(self, directory: Directory) -> None:
        put(directory, "a")
        directory.close()
        directory.close()
        calls: list[Callable[[], object]] = [
            lambda: directory.names(),
            lambda: directory.scan(),
            lambda: directory.stat("a"),
            lambda: directory.open("a"),
            lambda: directory.open("b", NEW),
            lambda: directory.rename("a", "b"),
            lambda: directory.remove("a"),
            lambda: directory.mkdir("d"),
            lambda: directory.rmdir("d"),
            lambda: directory.symlink("l", "a"),
            lambda: directory.readlink("l"),
            lambda: directory.link("a", "b"),
            lambda: directory.set_attributes("a", Attributes(mode=0)),
            lambda: directory.sync(),
            lambda: directory.space(),
            lambda: directory.lock(exclusive=True),
        ]
        for call in calls:
            with pytest.raises(errors.ClosedError):
                call()

    def test_open_files_outlive_the_directory(self, directory: Directory) -> None:
        file = directory.open("a", NEW)
        directory.close()
        assert file.write_at(b"abc", 0) == 3
        assert file.read_at(3, 0) == b"abc"
        file.sync()
        assert file.stat().size == 3
        file.close()


def test_what_is_not_closed_is_writable(directory: Directory) -> None:
    assert directory.read_only is False
    assert directory.label


def test_it_is_a_directory_by_the_protocol(directory: Directory) -> None:
    assert isinstance(directory, Directory)
    file = directory.open("a", NEW)
    assert isinstance(file, File)
    file.close()


def test_threads_may_share_a_directory(directory: Directory) -> None:
    """Names appear and vanish under the listings; nothing that stays is ever missed."""
    for number in range(50):
        put(directory, f"stays{number}")
    stop = threading.Event()

    def churn(worker: int) -> None:
        turn = 0
        while not stop.is_set():
            name = f"w{worker}-{turn % 20}"
            put(directory, name, b"x")
            directory.rename(name, f"{name}.new")
            directory.remove(f"{name}.new")
            turn += 1

    def look() -> None:
        for _ in range(40):
            assert sum(name.startswith("stays") for name in directory.names()) == 50
            assert sum(name.startswith("stays") for name, _ in directory.scan()) == 50

    with ThreadPoolExecutor(4) as pool:
        churners = [pool.submit(churn, worker) for worker in range(2)]
        lookers = [pool.submit(look) for _ in range(2)]
        try:
            for looker in lookers:
                looker.result()
        finally:
            stop.set()
        for churner in churners:
            churner.result()
    assert len(directory.names()) == 50
