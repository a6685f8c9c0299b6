"""CURRENT through the core and through real mounts: every way to change it is one switch or nothing.

What is on disk below is compared as a whole: after a switch it is what it was, but for CURRENT, the
old pointer in CURRENT.bak and the source of a rename; after a refusal it is what it was.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field

import pytest

from avccfs.vfs.base import Rename
from tests.fs.databases import LONG, MISSING, NEW, OLD, Database
from tests.fs.places import Place, names_in, opening, read_all, refused, write_all
from tests.fs.waiting import wait_for

W = os.O_WRONLY


def write_pieces(place: Place, *pieces: bytes, flags: int = W | os.O_TRUNC) -> None:
    with opening(place, "CURRENT", flags) as opened:
        offset = 0
        for piece in pieces:
            opened.write(piece, offset)
            offset += len(piece)


def empty_then_write(place: Place) -> None:
    with opening(place, "CURRENT", os.O_RDWR) as opened:
        assert opened.read(100, 0) == OLD
        opened.truncate(0)
        assert opened.read(100, 0) == b""
        assert opened.facts().size == 0
        opened.write(NEW, 0)
        opened.truncate(len(NEW))
        opened.sync()
        assert opened.read(100, 0) == NEW


def remove_then_create(place: Place) -> None:
    place.unlink("CURRENT")
    write_all(place, "CURRENT", NEW, flags=os.O_EXCL)


def rename_from(source: str, how: Rename = Rename.REPLACE) -> Callable[[Place], None]:
    def switch(place: Place) -> None:
        if "/" in source:
            place.mkdir(source.rpartition("/")[0])
        write_all(place, source, NEW)
        place.rename(source, "CURRENT", how)

    return switch


def rename_while_written(source: str) -> Callable[[Place], None]:
    def switch(place: Place) -> None:
        # What was written last may still be in the page cache, and nobody asks for it to be synced.
        with opening(place, source, W | os.O_CREAT) as opened:
            opened.write(NEW, 0)
            place.rename(source, "CURRENT")
            assert read_all(place, "CURRENT") == NEW

    return switch


def exchange(one: str, other: str) -> Callable[[Place], None]:
    def switch(place: Place) -> None:
        write_all(place, "mine", NEW)
        place.rename(one, other, Rename.EXCHANGE)

    return switch


def save_as_editors_do(place: Place) -> None:
    place.rename("CURRENT", "CURRENT~")
    with opening(place, "CURRENT", W | os.O_CREAT | os.O_TRUNC) as opened:
        opened.write(NEW, 0)
        opened.sync()
        opened.chmod(0o644)
    place.unlink("CURRENT~")


BAK = {"CURRENT.bak": OLD}


@dataclass(frozen=True)
class Switch:
    """A way to make CURRENT name `NEW`, and what else is new below afterwards."""

    what: str
    do: Callable[[Place], None]
    left: dict[str, bytes] = field(default_factory=lambda: BAK)


SWITCHES = [
    Switch("truncated when opened, written at once", lambda place: write_pieces(place, NEW)),
    Switch("written over, from the start", lambda place: write_pieces(place, NEW, flags=W)),
    Switch("created though it is there", lambda place: write_all(place, "CURRENT", NEW)),
    Switch("emptied through the handle, then written", empty_then_write),
    Switch("in two pieces", lambda place: write_pieces(place, b"MANIFEST-0000", b"07\n")),
    Switch(
        "in many pieces", lambda place: write_pieces(place, b"M", b"ANIFEST", b"-", b"000007\n")
    ),
    Switch("removed, then created", remove_then_create, {}),
    Switch("saved as editors do", save_as_editors_do, {}),
    Switch("renamed from goleveldb's name", rename_from("CURRENT.7")),
    Switch("renamed from LevelDB's name", rename_from("000007.dbtmp")),
    Switch("renamed from a name of sed", rename_from("sedXq3f")),
    Switch("renamed from a name of rsync", rename_from(".CURRENT.Ab3dE6")),
    Switch("renamed from a folder", rename_from("folder/file")),
    Switch("renamed from CURRENT.bak", rename_from("CURRENT.bak"), {}),
    Switch("renamed while written, goleveldb", rename_while_written("CURRENT.7")),
    Switch("renamed while written, LevelDB", rename_while_written("000007.dbtmp")),
    Switch("renamed while written, sed", rename_while_written("sedXq3f")),
    Switch("exchanged", exchange("mine", "CURRENT"), {**BAK, "mine": OLD}),
    Switch("exchanged the other way", exchange("CURRENT", "mine"), {**BAK, "mine": OLD}),
]


def with_name(one: Switch | Refusal) -> str:
    return one.what.replace(" ", "-")


def switches(database: Database) -> list[str]:
    """What LOG says of switches."""
    return [line for line in database.log().splitlines() if "CURRENT now names" in line]


@pytest.mark.parametrize("one", SWITCHES, ids=lambda one: with_name(one))
def test_a_change_is_one_switch(one: Switch, database: Database) -> None:
    before = database.tree()
    one.do(database.place)
    assert database.tree() == {**before, "CURRENT": NEW, **one.left}
    assert len(switches(database)) == 1
    assert "MANIFEST-000007" in switches(database)[0]
    place = database.place
    assert read_all(place, "CURRENT") == NEW
    assert place.facts("CURRENT").size == len(NEW)
    # And once more the plain way, on top of it.
    write_all(place, "CURRENT", LONG)
    assert read_all(place, "CURRENT") == LONG
    assert place.facts("CURRENT").size == len(LONG)
    assert database.tree()["CURRENT.bak"] == NEW


@dataclass(frozen=True)
class Refusal:
    """A way to change CURRENT that is refused, and how."""

    what: str
    do: Callable[[Place], None]
    errno: int


def one_write(
    content: bytes, offset: int = 0, flags: int = W | os.O_TRUNC
) -> Callable[[Place], None]:
    """The *write* has to fail: shells do not look at what close says."""

    def change(place: Place) -> None:
        opened = place.open("CURRENT", flags)
        try:
            opened.write(content, offset)
        finally:
            with suppress(OSError):
                opened.close()
        raise AssertionError("the write was taken")

    return change


def only_close(*pieces: bytes) -> Callable[[Place], None]:
    """Every write is taken, and closing has to fail."""

    def change(place: Place) -> None:
        opened = place.open("CURRENT", W | os.O_TRUNC)
        offset = 0
        for piece in pieces:
            assert opened.write(piece, offset) == len(piece)
            offset += len(piece)
        with refused(errno.EINVAL):
            opened.sync()
        opened.close()

    return change


def appended(content: bytes) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        opened = place.open("CURRENT", W | os.O_APPEND)
        try:
            opened.append(content)
        finally:
            opened.close()

    return change


def cut(size: int) -> Callable[[Place], None]:
    return lambda place: place.truncate("CURRENT", size)


def cut_open(size: int) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        with closing(place.open("CURRENT", W)) as opened:
            opened.truncate(size)

    return change


REFUSALS = [
    *(
        Refusal(f"a write of {content!r}", one_write(content), errno.EINVAL)
        for content in (
            b"rubbish\n",
            b"\n",
            b"\0" * 16,
            b"MANIFEST-000007",
            b"MANIFEST-000007\nMANIFEST-000001\n",
            b"MANIFEST-000007\r\n",
            b" MANIFEST-000007\n",
            b"./MANIFEST-000007\n",
            b"MANIFEST-7\n",
            b"MANIFEST-0000007\n",
            b"manifest-000007\n",
            b"000005.ldb\n",
            b"CURRENT\n",
            b"M" * 100_000,
        )
    ),
    Refusal("a manifest that is missing", one_write(MISSING), errno.ENOENT),
    Refusal("a huge number", one_write(b"MANIFEST-9999999999999999999\n"), errno.EINVAL),
    Refusal("an unfinished name", only_close(b"MANIFEST-00"), errno.EINVAL),
    Refusal("an unfinished name in pieces", only_close(b"MANI", b"FEST-"), errno.EINVAL),
    Refusal("nothing after emptying", only_close(), errno.EINVAL),
    Refusal("a second line", appended(NEW), errno.EINVAL),
    Refusal("the end of a line, appended", appended(b"7\n"), errno.EINVAL),
    Refusal("a write further on", one_write(NEW, 16, flags=W), errno.EINVAL),
    Refusal("a write beyond the end", one_write(NEW, 5000, flags=W), errno.EINVAL),
    Refusal("a change in the middle", one_write(b"000007", 9, flags=W), errno.EINVAL),
    Refusal("emptied by path", cut(0), errno.EINVAL),
    Refusal("cut by path", cut(3), errno.EINVAL),
    Refusal("grown by path", cut(100), errno.EINVAL),
    Refusal("cut through a handle", cut_open(3), errno.EINVAL),
    Refusal("grown through a handle", cut_open(100), errno.EINVAL),
    Refusal("emptied through a handle", cut_open(0), errno.EINVAL),
]


@pytest.mark.parametrize("one", REFUSALS, ids=lambda one: with_name(one))
def test_a_refusal_changes_nothing(one: Refusal, database: Database) -> None:
    before = database.tree()
    with refused(one.errno):
        one.do(database.place)
    assert database.tree() == before
    assert database.log() == ""
    assert read_all(database.place, "CURRENT") == OLD
    assert database.place.facts("CURRENT").size == len(OLD)
    write_pieces(database.place, NEW)
    assert database.tree() == {**before, "CURRENT": NEW, **BAK}


def test_writing_what_it_holds_already_changes_nothing(database: Database) -> None:
    before = database.tree()
    write_pieces(database.place, OLD)
    database.place.truncate("CURRENT", len(OLD))
    assert database.tree() == before


def test_a_shorter_line_over_a_longer_one(database: Database) -> None:
    write_pieces(database.place, LONG)
    write_pieces(database.place, NEW, flags=W)
    assert read_all(database.place, "CURRENT") == NEW
    assert database.place.facts("CURRENT").size == len(NEW)
    assert database.tree()["CURRENT.bak"] == LONG


def test_a_refused_write_can_be_mended_through_the_same_handle(database: Database) -> None:
    with opening(database.place, "CURRENT", W | os.O_TRUNC) as opened:
        with refused(errno.ENOENT):
            opened.write(MISSING, 0)
        opened.write(NEW, 0)
    assert database.tree()["CURRENT"] == NEW


# Who sees what


@pytest.mark.parametrize("flags", [W, W | os.O_TRUNC, os.O_RDWR], ids=["w", "trunc", "rw"])
def test_everybody_sees_the_old_content_until_the_switch(database: Database, flags: int) -> None:
    place = database.place
    with closing(place.open("CURRENT")) as early, opening(place, "CURRENT", flags) as writer:
        for piece in (b"", b"MANIFEST-", b"0000"):
            if piece:
                writer.write(piece, 9 if piece == b"0000" else 0)
            with closing(place.open("CURRENT")) as late:
                for reader in (early, late):
                    assert reader.read(100, 0) == OLD
                    assert reader.facts().size == len(OLD)
            assert place.facts("CURRENT").size == len(OLD)
            assert read_all(place, "CURRENT") == OLD
            assert database.tree()["CURRENT"] == OLD
        writer.write(b"07\n", 13)
        assert read_all(place, "CURRENT") == NEW
        assert place.facts("CURRENT").size == len(NEW)
        # As after any replacing rename: who has the old file open has the old file.
        assert early.read(100, 0) == OLD


def test_a_writer_sees_its_own_draft(database: Database) -> None:
    with opening(database.place, "CURRENT", os.O_RDWR | os.O_TRUNC) as opened:
        assert (opened.read(100, 0), opened.facts().size) == (b"", 0)
        opened.write(b"MANIFEST-", 0)
        assert (opened.read(100, 0), opened.facts().size) == (b"MANIFEST-", 9)
        opened.write(b"000007\n", 9)
        assert (opened.read(100, 0), opened.facts().size) == (NEW, 16)


def test_readers_only_ever_see_a_whole_line(database: Database) -> None:
    place = database.place
    seen: set[bytes] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.add(read_all(place, "CURRENT"))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(10):
            write_pieces(place, LONG)
            write_all(place, "sedXq3f", NEW)
            place.rename("sedXq3f", "CURRENT")
            with refused(errno.EINVAL):
                one_write(b"rubbish\n")(place)
    finally:
        stop.set()
        reader.join()
    assert seen <= {OLD, NEW, LONG}


def test_the_last_of_two_writers_wins(database: Database) -> None:
    place = database.place
    with (
        opening(place, "CURRENT", W | os.O_TRUNC) as one,
        opening(place, "CURRENT", W | os.O_TRUNC) as other,
    ):
        one.write(b"MANIFEST-", 0)
        other.write(LONG, 0)
        assert read_all(place, "CURRENT") == LONG
        one.write(b"000007\n", 9)
        assert read_all(place, "CURRENT") == NEW
    assert database.tree()["CURRENT.bak"] == LONG
    assert len(switches(database)) == 2


# Renames onto it


@pytest.mark.parametrize("source", ["CURRENT.7", "000007.dbtmp", "sedXq3f", "folder/file"])
@pytest.mark.parametrize(
    ("content", "number"),
    [(b"rubbish\n", errno.EINVAL), (b"", errno.EINVAL), (MISSING, errno.ENOENT)],
    ids=["rubbish", "empty", "missing"],
)
def test_a_bad_file_does_not_become_current(
    database: Database, source: str, content: bytes, number: int
) -> None:
    place = database.place
    place.mkdir("folder")
    write_all(place, source, content)
    before = database.tree()
    for how in (Rename.REPLACE, Rename.EXCHANGE):
        with refused(number):
            place.rename(source, "CURRENT", how)
        assert database.tree() == before
        assert read_all(place, source) == content
        assert read_all(place, "CURRENT") == OLD
    assert database.log() == ""


def test_a_manifest_that_names_itself_does_not_become_current(database: Database) -> None:
    write_all(database.place, "MANIFEST-000007", NEW)
    before = database.tree()
    with refused(errno.EINVAL):
        database.place.rename("MANIFEST-000007", "CURRENT")
    assert database.tree() == before


def test_what_is_no_regular_file_does_not_become_current(database: Database) -> None:
    place = database.place
    place.symlink("link", "CURRENT")
    with refused(errno.EINVAL):
        place.rename("link", "CURRENT")
    place.unlink("CURRENT")
    place.mkdir("folder")
    with refused(errno.EINVAL):
        place.rename("folder", "CURRENT")
    assert names_in(place) == sorted({*names_in(place), "folder", "link"})


def test_a_rename_that_must_not_replace(database: Database) -> None:
    place = database.place
    write_all(place, "mine", NEW)
    before = database.tree()
    with refused(errno.EEXIST):
        place.rename("mine", "CURRENT", Rename.NOREPLACE)
    assert database.tree() == before
    place.unlink("CURRENT")
    place.rename("mine", "CURRENT", Rename.NOREPLACE)
    expected = {**before, "CURRENT": NEW}
    del expected["mine"]
    assert database.tree() == expected


def test_the_last_bytes_count_when_the_source_is_still_being_written(database: Database) -> None:
    place = database.place
    write_all(place, "sedXq3f", NEW)
    with opening(place, "sedXq3f", W) as opened:
        opened.write(b"RUBBISH-", 0)
        with refused(errno.EINVAL):
            place.rename("sedXq3f", "CURRENT")
        assert read_all(place, "CURRENT") == OLD
        opened.write(b"MANIFEST", 0)
        place.rename("sedXq3f", "CURRENT")
    assert database.tree()["CURRENT"] == NEW


@pytest.mark.parametrize("source", ["CURRENT.7", "000007.dbtmp", "sedXq3f"])
@pytest.mark.parametrize("bad", [b"rubbish\n" * 5, MISSING * 2, b"no"], ids=["long", "two", "no"])
def test_a_handle_that_came_along_cannot_spoil_it(
    database: Database, source: str, bad: bytes
) -> None:
    place = database.place
    with opening(place, source, os.O_RDWR | os.O_CREAT) as opened:
        opened.write(NEW, 0)
        place.rename(source, "CURRENT")
        # With a write-back cache the refusal may come with the sync only, but come it must.
        with refused(errno.EINVAL):
            opened.write(bad, 0)
            opened.sync()
        assert read_all(place, "CURRENT") == NEW
        # The kernel is told, but not before the rename is done, that it moved a name with too long
        # a life; until then it may believe the size it made up itself.
        wait_for(lambda: place.facts("CURRENT").size == len(NEW))
        assert database.tree()["CURRENT"] == NEW
        with suppress(OSError):
            opened.sync()
    assert read_all(place, "CURRENT") == NEW
    assert place.facts("CURRENT").size == len(NEW)


@pytest.mark.parametrize("source", ["CURRENT.7", "000007.dbtmp", "sedXq3f"])
def test_a_handle_that_came_along_writes_by_the_protocol(database: Database, source: str) -> None:
    place = database.place
    with opening(place, source, os.O_RDWR | os.O_CREAT) as opened:
        opened.write(NEW, 0)
        place.rename(source, "CURRENT")
        opened.write(LONG, 0)
        opened.sync()
        assert database.tree()["CURRENT"] == LONG
        assert database.tree()["CURRENT.bak"] == NEW
        assert read_all(place, "CURRENT") == LONG
        assert place.facts("CURRENT").size == len(LONG)
    assert len(switches(database)) == 2


# Without it


def test_a_file_with_another_name_gives_its_content_and_keeps_the_other_name(
    database: Database,
) -> None:
    place = database.place
    write_all(place, "mine", NEW)
    place.link("mine", "again")
    place.rename("mine", "CURRENT")
    assert "mine" not in names_in(place)
    assert read_all(place, "CURRENT") == NEW
    # A write to the other name is not a write to CURRENT.
    write_all(place, "again", b"something else")
    wait_for(lambda: read_all(place, "CURRENT") == NEW)
    assert read_all(place, "again") == b"something else"
    assert database.tree()["CURRENT"] == NEW


def test_removing_it_works_and_is_told(database: Database) -> None:
    place, before = database.place, database.tree()
    place.unlink("CURRENT")
    assert "CURRENT" not in names_in(place)
    with refused(errno.ENOENT):
        place.open("CURRENT")
    expected = dict(before)
    del expected["CURRENT"]
    assert database.tree() == expected
    assert "CURRENT was removed" in database.log()
    write_all(place, "CURRENT", NEW)
    assert database.tree() == {**before, "CURRENT": NEW}


def test_renaming_it_away_works_and_is_told(database: Database) -> None:
    place, before = database.place, database.tree()
    place.rename("CURRENT", "rehearsal")
    assert "CURRENT" not in names_in(place)
    assert read_all(place, "rehearsal") == OLD
    # Only a name now: anything may be written to it.
    write_all(place, "rehearsal", b"anything")
    assert "CURRENT was renamed to rehearsal" in database.log()
    write_all(place, "rehearsal", OLD)
    place.rename("rehearsal", "CURRENT")
    assert database.tree() == before


def test_creating_it_fails_as_writing_it_does(database: Database) -> None:
    place = database.place
    place.unlink("CURRENT")
    before = database.tree()
    with refused(errno.EINVAL):
        write_all(place, "CURRENT", b"rubbish\n")
    with refused(errno.EINVAL):
        write_all(place, "CURRENT", b"")
    with refused(errno.ENOENT):
        write_all(place, "CURRENT", MISSING)
    assert database.tree() == before
    assert "CURRENT" not in names_in(place)


def test_it_is_not_there_before_its_first_line(database: Database) -> None:
    place = database.place
    place.unlink("CURRENT")
    with opening(place, "CURRENT", W | os.O_CREAT | os.O_EXCL) as opened:
        with refused(errno.ENOENT):
            place.open("CURRENT")
        opened.write(b"MANIFEST-", 0)
        assert "CURRENT" not in names_in(place)
        opened.write(b"000007\n", 9)
        assert read_all(place, "CURRENT") == NEW
    with refused(errno.EEXIST):
        place.open("CURRENT", W | os.O_CREAT | os.O_EXCL)


def test_a_reader_keeps_it_when_it_is_removed(database: Database) -> None:
    place = database.place
    with closing(place.open("CURRENT")) as reader:
        place.unlink("CURRENT")
        assert reader.read(100, 0) == OLD
        assert reader.facts().nlink == 0


# Its attributes are its own


def test_modes_and_times_change_as_those_of_any_file(database: Database) -> None:
    place = database.place
    place.chmod("CURRENT", 0o600)
    place.utime("CURRENT", 10**9, 2 * 10**9)
    found = place.facts("CURRENT")
    assert (found.permissions, found.mtime_ns) == (0o600, 2 * 10**9)
    with opening(place, "CURRENT", W | os.O_TRUNC) as opened:
        opened.chmod(0o640)
        opened.write(NEW, 0)
    assert place.facts("CURRENT").size == len(NEW)
    with closing(place.open("CURRENT")) as opened:
        opened.utime(10**9, 3 * 10**9)
    assert place.facts("CURRENT").mtime_ns == 3 * 10**9
    assert database.tree()["CURRENT"] == NEW
