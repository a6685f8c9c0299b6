"""A crash state as a directory: read-only as an image, and written out."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from avccfs.crash.image import CrashImage, materialise
from avccfs.crash.states import State, reachable
from avccfs.crash.trace import record
from avccfs.errors import ClosedError, ReadOnlyError
from avccfs.vfs.base import Attributes, Directory, Open
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.snapshot import take, walk
from tests.crash.matrix import write_file


def filled() -> MemoryDirectory:
    directory = MemoryDirectory()
    write_file(directory, "a", b"one")
    directory.link("a", "b")
    directory.mkdir("d")
    write_file(directory, "d/x", b"deep")
    directory.symlink("s", "d/x")
    return directory


@pytest.fixture
def image() -> CrashImage:
    return CrashImage(take(filled()), label="crash:1")


def test_it_shows_what_was_there(image: CrashImage) -> None:
    directory = filled()
    assert sorted(image.names()) == sorted(directory.names())
    assert image.names("d") == ["x"]
    for path in ("", "a", "b", "d", "d/x", "s"):
        mine, theirs = image.stat(path), directory.stat(path)
        assert mine.mode == theirs.mode
        assert path in ("", "d") or (mine.size, mine.nlink) == (theirs.size, theirs.nlink)
    assert image.stat("a").inode == image.stat("b").inode != image.stat("d/x").inode
    assert image.readlink("s") == "d/x"
    assert {name for name, _ in image.scan()} == {"a", "b", "d", "s"}
    handle = image.open("d/x")
    assert handle.read_at(2, 1) == b"ee"
    handle.close()
    with pytest.raises(ClosedError):
        handle.read_at(1, 0)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("missing", errno.ENOENT),
        ("a/x", errno.ENOTDIR),
        ("s/x", errno.ENOTDIR),
        ("d", errno.EISDIR),
        ("s", errno.ELOOP),
        ("../x", errno.EINVAL),
    ],
)
def test_what_cannot_be_opened_fails_as_elsewhere(image: CrashImage, path: str, code: int) -> None:
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        image.open(path)
    assert caught.value.errno == code


CHANGES: list[Callable[[Directory], object]] = [
    lambda image: image.open("a", Open.WRITE),
    lambda image: image.open("n", Open.WRITE | Open.CREATE),
    lambda image: image.rename("a", "c"),
    lambda image: image.remove("a"),
    lambda image: image.mkdir("e"),
    lambda image: image.rmdir("d"),
    lambda image: image.symlink("t", "a"),
    lambda image: image.link("a", "c"),
    lambda image: image.set_attributes("a", Attributes(mode=0)),
    lambda image: image.sync(),
    lambda image: image.lock(exclusive=True),
]


@pytest.mark.parametrize("change", CHANGES)
def test_it_refuses_every_change(image: CrashImage, change: Callable[[Directory], object]) -> None:
    with pytest.raises(ReadOnlyError, match="crash:1"):
        change(image)


def test_an_open_file_refuses_every_change(image: CrashImage) -> None:
    handle = image.open("a")
    with pytest.raises(ReadOnlyError):
        handle.write_at(b"x", 0)
    with pytest.raises(ReadOnlyError):
        handle.truncate(0)
    with pytest.raises(ReadOnlyError):
        handle.set_attributes(Attributes(mode=0))
    handle.close()


def test_a_shared_lock_is_not_needed(image: CrashImage) -> None:
    assert image.lock(exclusive=False) is None


def test_after_close_every_call_fails(image: CrashImage) -> None:
    image.close()
    image.close()
    for call in (image.names, image.scan, image.stat, image.space, image.sync):
        with pytest.raises(ClosedError):
            call()


def some_state() -> State:
    """A state in which a rename has left two names for a torn file."""
    directory, trace = record(filled())
    write_file(directory, "d/y", b"tornado", sync=False)
    directory.rename("d/y", "a")
    *_, last = reachable(trace)
    return next(
        state
        for state in last
        if any("operation 2" in line for line in state.faults)
        and {"a", "d/y"} <= {path for path, _ in walk(state.snapshot())}
    )


def test_a_state_written_out_reads_back_the_same(tmp_path: Path) -> None:
    state = some_state()
    for directory in (MemoryDirectory(), LocalDirectory(tmp_path / "db")):
        materialise(state, directory)
        assert directory.stat("a").inode == directory.stat("d/y").inode
        image = CrashImage(state.snapshot())
        assert take(directory) == take(image)
