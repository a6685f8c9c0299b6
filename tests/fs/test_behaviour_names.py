"""What must be as on a local disk: names, folders, renames, links, listings."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from contextlib import closing

import pytest

from avccfs.vfs.base import Rename
from tests.fs.places import Place, names_in, read_all, refused, write_all

# Folders


def test_folders_are_made_and_removed(place: Place) -> None:
    place.mkdir("folder")
    assert stat.S_ISDIR(place.facts("folder").mode)
    with refused(errno.EEXIST):
        place.mkdir("folder")
    place.rmdir("folder")
    with refused(errno.ENOENT):
        place.rmdir("folder")
    assert names_in(place) == []


def test_a_folder_with_something_in_it_is_not_removed(place: Place) -> None:
    place.mkdir("folder")
    write_all(place, "folder/file", b"content")
    with refused(errno.ENOTEMPTY):
        place.rmdir("folder")
    assert read_all(place, "folder/file") == b"content"
    place.unlink("folder/file")
    place.rmdir("folder")


def test_removing_asks_for_the_right_kind(place: Place) -> None:
    place.mkdir("folder")
    with refused(errno.EISDIR):
        place.unlink("folder")
    with refused(errno.ENOENT):
        place.unlink("missing")
    assert names_in(place) == ["folder"]


def test_folders_may_lie_deep(place: Place) -> None:
    path = ""
    for depth in range(100):
        path = f"{path}/{depth}" if path else "0"
        place.mkdir(path)
    write_all(place, f"{path}/file", b"at the bottom")
    place.rename("0", "top")
    bottom = "top" + path[1:] + "/file"
    assert read_all(place, bottom) == b"at the bottom"
    place.rename(bottom, "file")
    assert names_in(place) == ["file", "top"]


def test_a_folder_that_a_repair_leaves_is_a_folder(place: Place) -> None:
    place.mkdir("lost")
    write_all(place, "lost/000005.ldb", b"a table")
    write_all(place, "lost/CURRENT", b"not a pointer here")
    write_all(place, "lost/LOCK", b"")
    assert names_in(place, "lost") == ["000005.ldb", "CURRENT", "LOCK"]
    assert read_all(place, "lost/CURRENT") == b"not a pointer here"
    place.rename("lost/CURRENT", "lost/LOCK")
    place.unlink("lost/LOCK")
    assert names_in(place, "lost") == ["000005.ldb"]


# Names


NAMES = [
    "name with spaces",
    "new\nline",
    " ",
    "-rf",
    "日本語",
    "e\u0301",
    # Bytes that are no UTF-8.
    os.fsdecode(b"\xff\xfe latin \xe9"),
    os.fsdecode(b"cut short \xe2\x82"),
    "5.ldb",
    "MANIFEST-1",
    "000005.ldb~",
    ".hidden",
    "n" * 255,
    "ü" * 127,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_will_do(place: Place, name: str) -> None:
    write_all(place, name, b"content")
    assert names_in(place) == [name]
    assert read_all(place, name) == b"content"
    place.mkdir("folder")
    place.rename(name, f"folder/{name}")
    assert names_in(place, "folder") == [name]
    place.unlink(f"folder/{name}")
    place.mkdir(name)
    place.rmdir(name)
    place.symlink(name, "folder")
    assert place.readlink(name) == "folder"


@pytest.mark.parametrize("name", ["n" * 256, "ü" * 128], ids=["ascii", "utf-8"])
def test_a_name_of_256_bytes_is_too_long(place: Place, name: str) -> None:
    write_all(place, "file", b"content")
    for ask in (
        lambda: place.facts(name),
        lambda: place.open(name, os.O_WRONLY | os.O_CREAT).close(),
        lambda: place.mkdir(name),
        lambda: place.symlink(name, "file"),
        lambda: place.link("file", name),
        lambda: place.rename("file", name),
    ):
        with refused(errno.ENAMETOOLONG):
            ask()
    assert names_in(place) == ["file"]


def test_names_that_differ_in_case_are_two(place: Place) -> None:
    write_all(place, "name", b"1")
    write_all(place, "NAME", b"2")
    assert (read_all(place, "name"), read_all(place, "NAME")) == (b"1", b"2")


# Renaming


def test_a_rename_replaces(place: Place) -> None:
    write_all(place, "one", b"1")
    write_all(place, "two", b"2")
    place.rename("one", "two")
    assert names_in(place) == ["two"]
    assert read_all(place, "two") == b"1"
    with refused(errno.ENOENT):
        place.rename("one", "two")


def test_a_rename_onto_itself_changes_nothing(place: Place) -> None:
    write_all(place, "one", b"1")
    place.rename("one", "one")
    place.link("one", "same")
    # Two names of one file: rename(2) leaves both.
    place.rename("one", "same")
    assert names_in(place) == ["one", "same"]
    assert read_all(place, "one") == read_all(place, "same") == b"1"
    assert place.same_file("one", "same")


def test_a_folder_replaces_an_empty_folder_only(place: Place) -> None:
    for path in ("from", "empty", "full"):
        place.mkdir(path)
    write_all(place, "from/file", b"content")
    write_all(place, "full/file", b"other")
    write_all(place, "plain", b"")
    with refused(errno.ENOTEMPTY):
        place.rename("from", "full")
    with refused(errno.ENOTDIR):
        place.rename("from", "plain")
    with refused(errno.EISDIR):
        place.rename("plain", "empty")
    place.rename("from", "empty")
    assert names_in(place) == ["empty", "full", "plain"]
    assert read_all(place, "empty/file") == b"content"


def test_a_folder_does_not_move_into_itself(place: Place) -> None:
    place.mkdir("folder")
    place.mkdir("folder/inner")
    for how in (Rename.REPLACE, Rename.NOREPLACE):
        with refused(errno.EINVAL):
            place.rename("folder", "folder/inner/folder", how)
    with refused(errno.ENOTEMPTY):
        place.rename("folder/inner", "folder")
    assert names_in(place, "folder") == ["inner"]


def test_a_rename_may_refuse_to_replace(place: Place) -> None:
    write_all(place, "one", b"1")
    write_all(place, "two", b"2")
    with refused(errno.EEXIST):
        place.rename("one", "two", Rename.NOREPLACE)
    place.rename("one", "three", Rename.NOREPLACE)
    assert names_in(place) == ["three", "two"]
    assert (read_all(place, "three"), read_all(place, "two")) == (b"1", b"2")


def test_two_names_can_be_exchanged(place: Place) -> None:
    place.mkdir("folder")
    write_all(place, "folder/inner", b"inner")
    write_all(place, "one", b"1")
    write_all(place, "two", b"2")
    place.rename("one", "two", Rename.EXCHANGE)
    assert (read_all(place, "one"), read_all(place, "two")) == (b"2", b"1")
    place.rename("one", "folder", Rename.EXCHANGE)
    assert read_all(place, "one/inner") == b"inner"
    assert read_all(place, "folder") == b"2"
    with refused(errno.ENOENT):
        place.rename("one", "missing", Rename.EXCHANGE)
    with refused(errno.EINVAL):
        place.rename("one", "one/inner", Rename.EXCHANGE)
    assert names_in(place) == ["folder", "one", "two"]


def test_open_files_follow_an_exchange(place: Place) -> None:
    write_all(place, "one", b"1")
    write_all(place, "two", b"2")
    with closing(place.open("one", os.O_RDWR)) as one, closing(place.open("two")) as two:
        place.rename("one", "two", Rename.EXCHANGE)
        one.write(b"one", 0)
        assert two.read(10, 0) == b"2"
        assert one.facts().size == place.facts("two").size == 3
    assert (read_all(place, "one"), read_all(place, "two")) == (b"2", b"one")


# Links


def test_two_names_of_one_file(place: Place) -> None:
    write_all(place, "one", b"content")
    place.link("one", "two")
    assert place.same_file("one", "two")
    assert place.facts("one").nlink == place.facts("two").nlink == 2
    write_all(place, "two", b"Changed", flags=0)
    assert read_all(place, "one") == b"Changed"
    place.truncate("one", 2)
    assert place.facts("two").size == 2
    place.chmod("one", 0o600)
    assert place.facts("two").permissions == 0o600
    place.unlink("one")
    assert place.facts("two").nlink == 1
    assert read_all(place, "two") == b"Ch"


def test_a_file_gets_a_second_name_while_it_is_open(place: Place) -> None:
    place.mkdir("folder")
    with closing(place.open("one", os.O_RDWR | os.O_CREAT)) as opened:
        opened.write(b"content", 0)
        place.link("one", "folder/two")
        place.unlink("one")
        assert opened.facts().nlink == 1
        opened.write(b"C", 0)
        assert read_all(place, "folder/two") == b"Content"
        place.unlink("folder/two")
        assert opened.facts().nlink == 0
        assert opened.read(10, 0) == b"Content"


def test_what_cannot_get_a_second_name(place: Place) -> None:
    place.mkdir("folder")
    write_all(place, "file", b"")
    with refused(errno.EPERM):
        place.link("folder", "again")
    with refused(errno.EEXIST):
        place.link("file", "folder")
    with refused(errno.ENOENT):
        place.link("missing", "again")


def test_symbolic_links_keep_what_they_are_given(place: Place) -> None:
    place.mkdir("folder")
    for path, target in [
        ("link", "file"),
        ("to nothing", "missing/there"),
        ("folder/up", "../file"),
        ("odd", os.fsdecode(b"\xff not utf-8")),
        ("itself", "itself"),
    ]:
        place.symlink(path, target)
        assert place.readlink(path) == target
        found = place.facts(path)
        assert stat.S_ISLNK(found.mode)
        assert found.size == len(os.fsencode(target))
    with refused(errno.EEXIST):
        place.symlink("link", "other")
    write_all(place, "file", b"")
    with refused(errno.EINVAL):
        place.readlink("file")


def test_a_symbolic_link_is_renamed_and_removed_itself(place: Place) -> None:
    write_all(place, "file", b"content")
    place.symlink("link", "file")
    place.rename("link", "moved")
    assert place.readlink("moved") == "file"
    place.link("moved", "same")
    assert place.readlink("same") == "file"
    place.unlink("moved")
    place.unlink("same")
    assert read_all(place, "file") == b"content"


# Listing


def test_five_thousand_entries_are_all_listed_once(place: Place) -> None:
    place.mkdir("folder")
    names = [f"{number:06}.ldb" for number in range(5_000)]
    for name in names:
        place.open(f"folder/{name}", os.O_WRONLY | os.O_CREAT).close()
    assert names_in(place, "folder") == names
    assert names_in(place, "folder") == names


def test_a_listing_survives_changes_while_it_is_read(place: Place) -> None:
    place.mkdir("folder")
    before = [f"{number:04}-{'x' * 40}" for number in range(1_000)]
    for name in before:
        place.open(f"folder/{name}", os.O_WRONLY | os.O_CREAT).close()
    listing = place.iterate("folder")
    with closing(listing):
        seen = [next(listing) for _ in range(100)]
        # Half of what was seen goes, and half of what was not; others come.
        removed = {*seen[::2], *sorted({*before} - {*seen})[::2]}
        for name in removed:
            place.unlink(f"folder/{name}")
        for number in range(300):
            place.open(f"folder/new-{number}", os.O_WRONLY | os.O_CREAT).close()
        seen += listing
    counted = Counter(seen)
    assert max(counted.values()) == 1, "a name was listed twice"
    assert {*before} - removed <= counted.keys(), "a name that was always there was skipped"
    assert len(names_in(place, "folder")) == len(before) - len(removed) + 300


def test_a_folder_that_is_removed_while_it_is_listed_ends(place: Place) -> None:
    place.mkdir("folder")
    write_all(place, "folder/a", b"")
    listing = place.iterate("folder")
    with closing(listing):
        assert next(listing) == "a"
        place.unlink("folder/a")
        place.rmdir("folder")
        assert list(listing) == []
    assert names_in(place) == []
