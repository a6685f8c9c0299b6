"""What must be as on a local disk: files and their content.

Every test runs on a plain directory first: what that does is what the core in process and the real
mounts have to do. Folders and names are in `test_behaviour_names`, what takes a second process or a
memory map in `test_behaviour_processes`, and what is *not* as on a local disk in `test_differences`.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from contextlib import closing

from tests.fs.places import Opened, Place, names_in, read_all, refused, write_all

SECOND = 10**9


def new(place: Place, path: str = "file", content: bytes = b"") -> Opened:
    """A new file, open for reading and writing, with some content."""
    opened = place.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    if content:
        assert opened.write(content, 0) == len(content)
    return opened


# Creating and opening


def test_a_file_that_was_created_is_there(place: Place) -> None:
    write_all(place, "file", b"content")
    assert names_in(place) == ["file"]
    assert read_all(place, "file") == b"content"
    assert place.facts("file").size == 7
    assert stat.S_ISREG(place.facts("file").mode)


def test_a_missing_file_cannot_be_opened(place: Place) -> None:
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        with refused(errno.ENOENT):
            place.open("file", flags)
    with refused(errno.ENOENT):
        place.open("folder/file", os.O_WRONLY | os.O_CREAT)
    assert names_in(place) == []


def test_exclusive_creation_refuses_a_file_that_exists(place: Place) -> None:
    write_all(place, "file", b"content")
    with refused(errno.EEXIST):
        place.open("file", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert read_all(place, "file") == b"content"


def test_creation_without_exclusive_opens_what_is_there(place: Place) -> None:
    write_all(place, "file", b"content")
    write_all(place, "file", b"C", flags=0)
    assert read_all(place, "file") == b"Content"


def test_a_file_can_be_made_without_being_opened(place: Place) -> None:
    place.mknod("file")
    assert place.facts("file").size == 0
    with refused(errno.EEXIST):
        place.mknod("file")
    write_all(place, "file", b"content")
    assert read_all(place, "file") == b"content"


def test_opening_with_truncation_empties_at_once(place: Place) -> None:
    write_all(place, "file", b"content")
    with closing(place.open("file", os.O_WRONLY | os.O_TRUNC)) as opened:
        assert opened.facts().size == 0
        assert place.facts("file").size == 0
        assert read_all(place, "file") == b""


def test_a_folder_cannot_be_opened_for_writing(place: Place) -> None:
    place.mkdir("folder")
    with refused(errno.EISDIR):
        place.open("folder", os.O_WRONLY)


def test_a_file_is_no_folder(place: Place) -> None:
    write_all(place, "file", b"")
    asked: tuple[Callable[[], object], ...] = (
        lambda: place.open("file/x"),
        lambda: place.mkdir("file/x"),
        lambda: place.facts("file/x"),
        lambda: place.rmdir("file"),
    )
    for ask in asked:
        with refused(errno.ENOTDIR):
            ask()


def test_a_file_gets_the_mode_it_was_created_with(place: Place) -> None:
    place.open("file", os.O_WRONLY | os.O_CREAT, 0o600).close()
    place.mkdir("folder", 0o700)
    assert place.facts("file").permissions == 0o600
    assert place.facts("folder").permissions == 0o700


# Reading and writing


def test_what_one_handle_writes_another_reads(place: Place) -> None:
    with closing(new(place)) as writer, closing(place.open("file")) as reader:
        writer.write(b"one", 0)
        assert reader.read(10, 0) == b"one"
        writer.write(b"two", 3)
        assert reader.read(10, 0) == b"onetwo"
        assert reader.facts().size == 6
        assert place.facts("file").size == 6


def test_reading_stops_at_the_end(place: Place) -> None:
    with closing(new(place, content=b"0123456789")) as opened:
        assert opened.read(100, 7) == b"789"
        assert opened.read(100, 10) == b""
        assert opened.read(100, 5000) == b""


def test_a_handle_for_reading_does_not_write_and_the_other_way_round(place: Place) -> None:
    write_all(place, "file", b"content")
    with closing(place.open("file")) as reader, refused(errno.EBADF):
        reader.write(b"x", 0)
    with closing(place.open("file", os.O_WRONLY)) as writer, refused(errno.EBADF):
        writer.read(1, 0)
    assert read_all(place, "file") == b"content"


def test_a_hole_reads_as_zeros(place: Place) -> None:
    with closing(new(place, content=b"start")) as opened:
        opened.write(b"end", 100_000)
        assert opened.read(200_000, 0) == b"start" + bytes(99_995) + b"end"
    assert read_all(place, "file") == b"start" + bytes(99_995) + b"end"


def test_far_offsets_work_and_take_no_room(place: Place) -> None:
    far = 2**40 + 12_345
    with closing(new(place)) as opened:
        opened.write(b"far", far)
        opened.sync()
        assert opened.facts().size == far + 3
        assert opened.read(10, far - 3) == b"\0\0\0far"
        assert opened.read(4096, 2**32) == bytes(4096)
        assert opened.facts().blocks * 512 < 1 << 20


def test_a_file_can_be_larger_than_many_requests(place: Place) -> None:
    content = random.Random(1).randbytes(3 * 1024 * 1024 + 17)
    write_all(place, "file", content)
    assert read_all(place, "file") == content


def test_writes_and_cuts_in_any_order_leave_what_they_should(place: Place) -> None:
    dice = random.Random(7)
    model = bytearray()
    with closing(new(place)) as one, closing(place.open("file", os.O_RDWR)) as two:
        for turn in range(300):
            handle = dice.choice((one, two))
            offset, size = dice.randrange(20_000), dice.randrange(1, 6_000)
            match dice.randrange(4):
                case 0 | 1:
                    data = dice.randbytes(size)
                    model.extend(bytes(max(0, offset - len(model))))
                    model[offset : offset + size] = data
                    assert handle.write(data, offset) == size
                case 2:
                    model[offset:] = bytes(max(0, offset - len(model)))
                    if dice.random() < 0.5:
                        handle.truncate(offset)
                    else:
                        place.truncate("file", offset)
                case _:
                    assert handle.read(size, offset) == bytes(model[offset : offset + size]), turn
            assert handle.facts().size == len(model), turn
        assert one.read(1 << 20, 0) == bytes(model)
    assert read_all(place, "file") == bytes(model)


def test_two_appenders_never_overwrite_each_other(place: Place) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with closing(place.open("file", flags)) as one, closing(place.open("file", flags)) as two:
        for turn in range(50):
            one.append(b"one %d\n" % turn)
            two.append(b"two %d\n" % turn)
    lines = [b"%s %d" % (who, turn) for turn in range(50) for who in (b"one", b"two")]
    assert read_all(place, "file").splitlines() == lines


def test_appending_follows_a_file_that_was_cut(place: Place) -> None:
    with closing(place.open("file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)) as opened:
        opened.append(b"a long line\n")
        place.truncate("file", 2)
        opened.append(b"end")
    assert read_all(place, "file") == b"a end"


# Cutting and growing


def test_a_file_grows_with_zeros(place: Place) -> None:
    with closing(new(place, content=b"content")) as opened:
        opened.truncate(10_000)
        assert opened.facts().size == 10_000
        assert opened.read(20_000, 0) == b"content" + bytes(9_993)


def test_what_was_cut_off_does_not_come_back(place: Place) -> None:
    with closing(new(place, content=b"secret" * 2_000)) as opened:
        opened.truncate(3)
        opened.truncate(12_000)
        assert opened.read(20_000, 0) == b"sec" + bytes(11_997)


def test_cutting_by_path_is_seen_through_open_handles(place: Place) -> None:
    with closing(new(place, content=b"0123456789")) as opened:
        place.truncate("file", 4)
        assert opened.facts().size == 4
        assert opened.read(100, 0) == b"0123"
        place.truncate("file", 6)
        assert opened.read(100, 0) == b"0123\0\0"


def test_what_cannot_be_cut(place: Place) -> None:
    place.mkdir("folder")
    with refused(errno.EISDIR):
        place.truncate("folder", 0)
    with refused(errno.ENOENT):
        place.truncate("missing", 0)


# Attributes


def test_modes_change_by_path_and_by_handle(place: Place) -> None:
    with closing(new(place)) as opened:
        place.chmod("file", 0o640)
        assert opened.facts().permissions == 0o640
        opened.chmod(0o400)
        assert place.facts("file").permissions == 0o400
        assert stat.S_ISREG(place.facts("file").mode)
        # The rights were checked when it was opened.
        opened.write(b"still", 0)
    assert place.facts("file").size == 5


def test_times_are_kept_to_the_nanosecond(place: Place) -> None:
    write_all(place, "file", b"content")
    place.mkdir("folder")
    for path in ("file", "folder"):
        place.utime(path, 1_000_000_000_123_456_789, 1_111_111_111_987_654_321)
        found = place.facts(path)
        assert found.atime_ns == 1_000_000_000_123_456_789
        assert found.mtime_ns == 1_111_111_111_987_654_321


def test_a_time_set_after_writing_stays(place: Place) -> None:
    # What cp -p, rsync and tar do; bytes that are still on their way must not undo it.
    with closing(new(place, content=b"content" * 10_000)) as opened:
        opened.utime(3 * SECOND, 5 * SECOND + 1)
        assert opened.facts().mtime_ns == 5 * SECOND + 1
    assert place.facts("file").mtime_ns == 5 * SECOND + 1
    place.sync()
    assert place.facts("file").mtime_ns == 5 * SECOND + 1
    assert read_all(place, "file") == b"content" * 10_000
    assert place.facts("file").mtime_ns == 5 * SECOND + 1


def test_writing_and_cutting_move_the_time_of_a_file(place: Place) -> None:
    with closing(new(place, content=b"content")) as opened:
        opened.utime(SECOND, SECOND)
        opened.write(b"C", 0)
        opened.sync()
        assert opened.facts().mtime_ns > SECOND
        opened.utime(SECOND, SECOND)
        opened.truncate(3)
        assert opened.facts().mtime_ns > SECOND


def test_reading_leaves_the_time_of_a_file_alone(place: Place) -> None:
    write_all(place, "file", b"content")
    place.utime("file", SECOND, SECOND)
    assert read_all(place, "file") == b"content"
    assert place.facts("file").mtime_ns == SECOND


def test_changing_names_moves_the_time_of_the_folder(place: Place) -> None:
    place.mkdir("folder")
    changes: tuple[Callable[[], None], ...] = (
        lambda: write_all(place, "folder/a", b""),
        lambda: place.rename("folder/a", "folder/b"),
        lambda: place.link("folder/b", "folder/c"),
        lambda: place.unlink("folder/c"),
        lambda: place.mkdir("folder/d"),
        lambda: place.rmdir("folder/d"),
        lambda: place.symlink("folder/e", "b"),
    )
    for change in changes:
        place.utime("folder", SECOND, SECOND)
        change()
        assert place.facts("folder").mtime_ns > SECOND


# Removed while open


def test_a_removed_file_stays_usable_through_its_handles(place: Place) -> None:
    with closing(new(place, content=b"content")) as opened:
        place.unlink("file")
        assert names_in(place) == []
        assert opened.facts().nlink == 0
        assert opened.read(10, 0) == b"content"
        opened.write(b"more", 7)
        assert opened.facts().size == 11
        opened.truncate(4)
        opened.chmod(0o600)
        opened.utime(SECOND, 2 * SECOND)
        opened.sync()
        found = opened.facts()
        assert (found.size, found.permissions, found.mtime_ns) == (4, 0o600, 2 * SECOND)
        assert opened.read(10, 0) == b"cont"


def test_a_removed_file_and_a_new_one_of_its_name_are_two(place: Place) -> None:
    with closing(new(place, content=b"old")) as old:
        place.unlink("file")
        with closing(new(place, content=b"the new one")) as fresh:
            old.write(b"OLD", 0)
            assert fresh.read(100, 0) == b"the new one"
            assert old.read(100, 0) == b"OLD"
            assert (old.facts().size, fresh.facts().size) == (3, 11)
            assert place.facts("file").size == 11
    assert read_all(place, "file") == b"the new one"


def test_a_replaced_file_stays_usable_through_its_handles(place: Place) -> None:
    with closing(new(place, "old", b"old")) as old, closing(new(place, "new", b"new!")) as fresh:
        place.rename("new", "old")
        assert old.facts().nlink == 0
        assert old.read(10, 0) == b"old"
        old.write(b"older", 0)
        old.truncate(4)
        assert old.read(10, 0) == b"olde"
        # And the handle that came along writes to the file under its new name.
        fresh.write(b"NEW", 0)
        assert fresh.facts().nlink == 1
    assert read_all(place, "old") == b"NEW!"


def test_a_file_can_be_written_while_it_is_renamed(place: Place) -> None:
    place.mkdir("folder")
    with closing(new(place, content=b"content")) as opened:
        place.rename("file", "folder/moved")
        opened.write(b" and more", 7)
        opened.sync()
        assert place.facts("folder/moved").size == 16
        place.rename("folder", "elsewhere")
        opened.truncate(3)
        assert place.facts("elsewhere/moved").size == 3
    assert read_all(place, "elsewhere/moved") == b"con"


# Making durable


def test_syncing_succeeds_for_files_and_folders(place: Place) -> None:
    place.mkdir("folder")
    with closing(new(place, "folder/file", b"content")) as opened:
        opened.sync()
        opened.write(b"C", 0)
        opened.sync(data_only=True)
        place.sync("folder")
        place.unlink("folder/file")
        opened.sync()
    place.sync()
    assert names_in(place) == ["folder"]


def test_room_is_told(place: Place) -> None:
    space = place.space()
    assert space.frsize > 0
    assert 0 < space.bavail <= space.bfree <= space.blocks
    assert space.namemax == 255
