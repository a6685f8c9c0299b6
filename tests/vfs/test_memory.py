"""What only a directory in memory can show: its size."""

from __future__ import annotations

import errno
import os

import pytest

from avccfs.vfs.base import Open
from avccfs.vfs.memory import MemoryDirectory, MemoryFile

NEW = Open.WRITE | Open.CREATE
PAGE = 4096


@pytest.fixture
def small() -> MemoryDirectory:
    """Room for ten pages."""
    return MemoryDirectory(capacity=10 * PAGE)


def free(directory: MemoryDirectory) -> int:
    space = directory.space()
    assert space.bfree == space.bavail
    return space.bfree * space.frsize


def full(file: MemoryFile, offset: int) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        file.write_at(b"x", offset)
    assert caught.value.errno == errno.ENOSPC


def test_unlimited_says_so() -> None:
    space = MemoryDirectory().space()
    assert space.blocks * space.frsize == 2**60
    assert space.bavail == space.blocks


def test_capacity_shows(small: MemoryDirectory) -> None:
    assert small.space().blocks == 10
    file = small.open("a", NEW)
    file.write_at(b"x", 0)
    assert free(small) == 9 * PAGE
    assert file.stat().blocks == PAGE // 512


def test_a_write_past_the_end_is_short_and_the_next_fails(small: MemoryDirectory) -> None:
    file = small.open("a", NEW)
    assert file.write_at(b"x" * (12 * PAGE), 0) == 10 * PAGE
    full(file, 10 * PAGE)
    assert file.stat().size == 10 * PAGE
    assert free(small) == 0
    # What has its room already can be written again, and empty files need none.
    assert file.write_at(b"y" * PAGE, PAGE) == PAGE
    small.open("empty", NEW).close()


def test_what_fails_changes_nothing(small: MemoryDirectory) -> None:
    file = small.open("a", NEW)
    file.write_at(b"x" * (10 * PAGE), 0)
    before = file.stat()
    full(file, 20 * PAGE)
    assert file.stat() == before


def test_a_hole_takes_no_room(small: MemoryDirectory) -> None:
    file = small.open("a", NEW)
    file.truncate(2**40)
    assert free(small) == 10 * PAGE
    assert file.read_at(3, 2**39) == bytes(3)


def test_room_comes_back(small: MemoryDirectory) -> None:
    data = b"x" * (5 * PAGE)
    for name in ("removed", "replaced"):
        file = small.open(name, NEW)
        file.write_at(data, 0)
        file.close()
    assert free(small) == 0
    small.remove("removed")
    small.open("new", NEW).close()
    small.rename("new", "replaced")
    assert free(small) == 10 * PAGE
    file = small.open("cut", NEW)
    file.write_at(data, 0)
    file.truncate(1)
    assert free(small) == 9 * PAGE
    small.open("cut", Open.WRITE | Open.TRUNCATE).close()
    assert free(small) == 10 * PAGE


def test_room_comes_back_with_the_last_handle_or_name(small: MemoryDirectory) -> None:
    first = small.open("a", NEW)
    first.write_at(b"x" * (5 * PAGE), 0)
    second = small.open("a")
    small.link("a", "b")
    small.remove("a")
    first.close()
    small.remove("b")
    assert second.read_at(1, 0) == b"x"
    assert free(small) == 5 * PAGE
    second.close()
    second.close()
    assert free(small) == 10 * PAGE


def test_a_forged_offset_does_not_take_memory() -> None:
    directory = MemoryDirectory()
    file = directory.open("a", NEW)
    for offset in (2**40, 2**50, 2**62):
        assert file.write_at(b"x", offset) == 1
    assert directory.stat("a").blocks * 512 <= 3 * 64 * 1024
    assert file.read_at(2, 2**62 - 1) == b"\0x"


def test_it_belongs_to_who_made_it() -> None:
    directory = MemoryDirectory()
    assert (directory.stat().uid, directory.stat().gid) == (os.getuid(), os.getgid())
    assert directory.label == "mem:"
