"""What the recorder notes of each change, and what it passes by."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from avccfs.vfs.base import Attributes, Directory, File, Open, Rename
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.recorder import (
    Create,
    Exchange,
    Link,
    Move,
    Operation,
    Recorder,
    Remove,
    Slot,
    SyncDirectory,
    SyncFile,
    Truncate,
    Write,
)
from avccfs.vfs.snapshot import ROOT, NodeKind, contents, put, take, walk

NEW = Open.WRITE | Open.CREATE


@pytest.fixture
def inner(tmp_path: Path) -> LocalDirectory:
    return LocalDirectory(tmp_path / "db")


def recorded(
    inner: Directory, *, leave_out: tuple[str, ...] = ()
) -> tuple[Recorder, list[Operation]]:
    noted: list[Operation] = []
    return Recorder(inner, take(inner, leave_out=leave_out), noted, leave_out=leave_out), noted


def make(directory: Directory, path: str, content: bytes = b"") -> None:
    handle = directory.open(path, NEW)
    if content:
        handle.write_at(content, 0)
    handle.close()


def slot(name: str, directory: int = ROOT, path: str = "") -> Slot:
    return Slot(directory, name, path or name)


def test_the_life_of_a_file(inner: LocalDirectory) -> None:
    directory, noted = recorded(inner)
    handle = directory.open("a", NEW, 0o600)
    handle.write_at(b"hello", 0)
    handle.write_at(b"J", 0)
    handle.truncate(4)
    handle.sync()
    handle.sync(data_only=True)
    directory.sync()
    directory.rename("a", "b")
    handle.write_at(b"!", 4)
    handle.close()
    directory.remove("b")
    assert noted == [
        Create(slot("a"), 1, mode=0o600),
        Write(1, "a", 0, b"hello"),
        Write(1, "a", 0, b"J"),
        Truncate(1, "a", 4),
        SyncFile(1, "a"),
        SyncFile(1, "a"),
        SyncDirectory(ROOT, ""),
        Move(slot("a"), slot("b"), 1),
        Write(1, "a", 4, b"!"),
        Remove(slot("b"), 1),
    ]


def test_files_that_were_there_are_known(inner: LocalDirectory) -> None:
    make(inner, "a", b"1")
    make(inner, "b", b"2")
    directory, noted = recorded(inner)
    directory.rename("a", "b")
    assert noted == [Move(slot("a"), slot("b"), 1, replaced=2)]


def test_opening_to_read_or_write_notes_nothing(inner: LocalDirectory) -> None:
    make(inner, "a", b"1")
    directory, noted = recorded(inner)
    for flags in (Open.READ, Open.WRITE, NEW):
        handle = directory.open("a", flags)
        assert handle.read_at(9, 0) == b"1"
        assert handle.stat().size == 1
        handle.set_attributes(Attributes(mode=0o600))
        handle.close()
    assert noted == []


def test_opening_to_truncate_is_a_truncation(inner: LocalDirectory) -> None:
    make(inner, "a", b"1")
    directory, noted = recorded(inner)
    directory.open("a", NEW | Open.TRUNCATE).close()
    directory.open("b", NEW | Open.TRUNCATE).close()
    assert noted == [Truncate(1, "a", 0), Create(slot("b"), 2)]


def test_a_name_used_again_is_another_file(inner: LocalDirectory) -> None:
    directory, noted = recorded(inner)
    make(directory, "a")
    old = directory.open("a", Open.WRITE)
    directory.remove("a")
    make(directory, "a")
    old.write_at(b"x", 0)
    old.close()
    assert noted == [
        Create(slot("a"), 1),
        Remove(slot("a"), 1),
        Create(slot("a"), 2),
        Write(1, "a", 0, b"x"),
    ]


def test_folders_links_and_exchange(inner: LocalDirectory) -> None:
    directory, noted = recorded(inner)
    directory.mkdir("d", 0o700)
    make(directory, "d/x")
    directory.link("d/x", "y")
    directory.symlink("s", "d/x")
    directory.mkdir("e")
    directory.rename("d", "f")
    make(directory, "f/z")
    directory.rename("f/z", "y", Rename.EXCHANGE)
    directory.sync("f")
    directory.rmdir("e")
    assert noted == [
        Create(slot("d"), 1, NodeKind.DIRECTORY, 0o700),
        Create(slot("x", 1, "d/x"), 2),
        Link(slot("y"), 2),
        Create(slot("s"), 3, NodeKind.SYMLINK, 0o777, "d/x"),
        Create(slot("e"), 4, NodeKind.DIRECTORY, 0o755),
        Move(slot("d"), slot("f"), 1),
        Create(slot("z", 1, "f/z"), 5),
        Exchange(slot("z", 1, "f/z"), slot("y"), 5, 2),
        SyncDirectory(1, "f"),
        Remove(slot("e"), 4),
    ]


def test_renaming_one_name_of_a_file_onto_another_does_nothing(inner: LocalDirectory) -> None:
    make(inner, "a", b"1")
    inner.link("a", "b")
    directory, noted = recorded(inner)
    directory.rename("a", "b")
    directory.rename("a", "a")
    assert sorted(directory.names()) == ["a", "b"]
    assert noted == []


def test_what_fails_is_not_noted(inner: LocalDirectory) -> None:
    make(inner, "a")
    directory, noted = recorded(inner)
    with pytest.raises(FileNotFoundError):
        directory.open("missing")
    with pytest.raises(FileNotFoundError):
        directory.remove("missing")
    with pytest.raises(FileExistsError):
        directory.mkdir("a")
    with pytest.raises(FileExistsError):
        directory.open("a", NEW | Open.EXCLUSIVE)
    assert noted == []


def test_of_a_short_write_only_what_was_written_is_noted(inner: LocalDirectory) -> None:
    class Full:
        """A disk with room for two bytes, then none."""

        def __init__(self, file: File) -> None:
            self._file = file
            self._room = 2

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

        def write_at(self, data: bytes, offset: int) -> int:
            if not self._room:
                raise OSError(errno.ENOSPC, "full")
            self._room -= 2
            return self._file.write_at(data[:2], offset)

    class FullDirectory(LocalDirectory):
        def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> File:  # type: ignore[override]
            return Full(super().open(path, flags, mode))  # type: ignore[return-value]

    directory, noted = recorded(FullDirectory(inner.label))
    handle = directory.open("a", NEW)
    assert handle.write_at(b"hello", 0) == 2
    with pytest.raises(OSError, match="full"):
        handle.write_at(b"llo", 2)
    handle.close()
    assert noted[1:] == [Write(1, "a", 0, b"he")]


def test_a_file_that_turns_up_by_itself_is_noted_when_it_is_met(inner: LocalDirectory) -> None:
    directory, noted = recorded(inner)
    make(inner, "LOCK", b"me")
    directory.open("LOCK", NEW).close()
    assert noted == [Create(slot("LOCK"), 1), Write(1, "LOCK", 0, b"me")]


def test_what_is_left_out_is_handed_on_and_never_noted(inner: LocalDirectory) -> None:
    make(inner, "LOG", b"old")
    directory, noted = recorded(inner, leave_out=("LOG", "LOG.old"))
    assert list(walk(take(inner, leave_out=("LOG",)))) == []
    make(directory, "LOG", b"new")
    directory.rename("LOG", "LOG.old")
    make(directory, "LOG", b"next")
    directory.remove("LOG.old")
    assert noted == []
    assert contents(take(inner)) == {"LOG": b"next"}


def test_a_rename_across_the_edge_of_what_is_left_out(inner: LocalDirectory) -> None:
    make(inner, "LOG", b"text")
    directory, noted = recorded(inner, leave_out=("LOG",))
    directory.rename("LOG", "a")
    directory.rename("a", "LOG")
    assert noted == [Create(slot("a"), 1), Write(1, "a", 0, b"text"), Remove(slot("a"), 1)]


def test_several_threads_are_noted_in_the_order_of_their_changes(inner: LocalDirectory) -> None:
    directory, noted = recorded(inner)
    handle = directory.open("a", NEW)

    def work(letter: bytes) -> None:
        for _ in range(200):
            handle.write_at(letter * 50, 0)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in (b"x", b"y")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = noted[-1]
    assert isinstance(last, Write)
    assert handle.read_at(50, 0) == last.data
    assert len(noted) == 401
    handle.close()


def test_every_operation_reads_as_a_sentence(inner: LocalDirectory) -> None:
    directory, noted = recorded(inner)
    make(directory, "a", b"12")
    directory.mkdir("d")
    directory.open("a", Open.WRITE | Open.TRUNCATE).close()
    directory.link("a", "b")
    directory.rename("b", "c")
    directory.sync()
    directory.sync("d")
    assert [str(each) for each in noted] == [
        "create a",
        "write 2 bytes at 0 of a",
        "make the directory d",
        "truncate a to 0 bytes",
        "link b",
        "rename b to c",
        "sync the directory",
        "sync the directory d",
    ]


def test_a_snapshot_put_down_again_is_the_same_directory(
    inner: LocalDirectory, tmp_path: Path
) -> None:
    make(inner, "a", b"1")
    inner.link("a", "b")
    inner.mkdir("d")
    make(inner, "d/x", b"deep")
    inner.symlink("s", "nowhere")
    taken = take(inner)
    copy = LocalDirectory(tmp_path / "copy")
    put(taken, copy)
    assert take(copy) == taken
    assert copy.stat("a").inode == copy.stat("b").inode


def test_a_snapshot_is_put_only_where_nothing_is_in_the_way(
    inner: LocalDirectory, tmp_path: Path
) -> None:
    make(inner, "a", b"1")
    with pytest.raises(FileExistsError):
        put(take(inner), inner)
