"""Identities: which file a number stands for, and for how long."""

from __future__ import annotations

import stat

import pytest

from avccfs.fs.inodes import ROOT, InodeTable, StaleInodeError
from avccfs.vfs.base import Stat

FOLDER = stat.S_IFDIR | 0o755
FILE = stat.S_IFREG | 0o644


@pytest.fixture
def table() -> InodeTable:
    return InodeTable(Stat(mode=FOLDER, size=0, inode=1))


def a_file(identity: int, nlink: int = 1) -> Stat:
    return Stat(mode=FILE, size=0, inode=identity, nlink=nlink)


def test_a_name_keeps_its_number_while_it_is_the_same_file(table: InodeTable) -> None:
    first = table.bind(table.root, "a", a_file(10))
    assert table.bind(table.root, "a", a_file(10)) is first
    assert first.path == "a"


def test_a_name_that_came_to_mean_another_file_gets_a_new_number(table: InodeTable) -> None:
    first = table.bind(table.root, "a", a_file(10))
    first.lookups = 1
    second = table.bind(table.root, "a", a_file(11))
    assert second.number != first.number
    with pytest.raises(StaleInodeError):
        _ = first.path


def test_numbers_are_never_used_twice(table: InodeTable) -> None:
    seen = set()
    for turn in range(50):
        inode = table.bind(table.root, "a", a_file(10))
        inode.lookups += 1
        assert inode.number not in seen, turn
        seen.add(inode.number)
        table.forget(inode.number, 1)
    assert len(table) == 1


def test_two_names_of_one_file_share_its_number(table: InodeTable) -> None:
    one = table.bind(table.root, "a", a_file(10, nlink=2))
    two = table.bind(table.root, "b", a_file(10, nlink=2))
    assert one is two
    table.detach(table.root, "a")
    assert one.path == "b"


def test_folders_are_never_taken_for_hard_links(table: InodeTable) -> None:
    # A folder's link count says how many folders it holds.
    one = table.bind(table.root, "a", Stat(mode=FOLDER, size=0, inode=10, nlink=3))
    two = table.bind(table.root, "b", Stat(mode=FOLDER, size=0, inode=10, nlink=3))
    assert one is not two


def test_a_rename_of_a_folder_moves_what_is_in_it(table: InodeTable) -> None:
    folder = table.bind(table.root, "lost", Stat(mode=FOLDER, size=0, inode=20))
    inside = table.bind(folder, "000005.ldb", a_file(21))
    assert inside.path == "lost/000005.ldb"
    assert inside.depth == 2
    table.move(table.root, "lost", table.root, "found")
    assert inside.path == "found/000005.ldb"


def test_a_replaced_file_loses_its_name_but_not_its_number(table: InodeTable) -> None:
    old = table.bind(table.root, "target", a_file(10))
    old.lookups = 1
    new = table.bind(table.root, "source", a_file(11))
    table.move(table.root, "source", table.root, "target")
    assert table.at(table.root, "target") is new
    assert table.get(old.number) is old
    assert not old.names


def test_an_exchange_swaps_both_names(table: InodeTable) -> None:
    one = table.bind(table.root, "a", a_file(10))
    two = table.bind(table.root, "b", a_file(11))
    table.swap(table.root, "a", table.root, "b")
    assert (one.path, two.path) == ("b", "a")


def test_a_number_lives_until_every_lookup_is_given_back(table: InodeTable) -> None:
    inode = table.bind(table.root, "a", a_file(10))
    inode.lookups = 3
    table.forget(inode.number, 2)
    assert table.get(inode.number) is inode
    table.forget(inode.number, 1)
    with pytest.raises(StaleInodeError):
        table.get(inode.number)
    assert table.at(table.root, "a") is None


def test_the_root_is_never_forgotten(table: InodeTable) -> None:
    table.forget(ROOT, 1_000_000)
    assert table.get(ROOT).path == ""


def test_forgetting_an_unknown_number_does_nothing(table: InodeTable) -> None:
    table.forget(99, 1)
    assert len(table) == 1


def test_a_folder_is_kept_for_the_paths_of_what_is_in_it(table: InodeTable) -> None:
    folder = table.bind(table.root, "folder", Stat(mode=FOLDER, size=0, inode=20))
    inner = table.bind(folder, "inner", Stat(mode=FOLDER, size=0, inode=21))
    file = table.bind(inner, "file", a_file(22))
    for inode in (folder, inner, file):
        inode.lookups = 1
    table.forget(folder.number, 1)
    table.forget(inner.number, 1)
    assert file.path == "folder/inner/file"
    table.move(inner, "file", table.root, "moved")
    # The way to it leads elsewhere now, and the folders go.
    assert file.path == "moved"
    assert len(table) == 2


def test_the_last_to_be_forgotten_takes_the_folders_above_along(table: InodeTable) -> None:
    folder = table.root
    for depth in range(3_000):
        folder = table.bind(folder, "d", Stat(mode=FOLDER, size=0, inode=100 + depth))
    folder.lookups = 1
    assert folder.path == "/".join(["d"] * 3_000)
    table.forget(folder.number, 1)
    assert len(table) == 1


def test_what_took_the_place_of_a_superseded_file_can_be_found(table: InodeTable) -> None:
    old = table.bind(table.root, "CURRENT", a_file(10))
    old.lookups = 1
    table.supersede(table.root, "CURRENT")
    with pytest.raises(StaleInodeError):
        _ = old.path
    assert old.former == "CURRENT"
    assert table.bind(table.root, "CURRENT", a_file(11)) is not old
