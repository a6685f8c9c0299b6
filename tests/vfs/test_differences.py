"""What is told of a directory and the one it lies over."""

from __future__ import annotations

import itertools
import stat
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avccfs.vfs import differences as module
from avccfs.vfs.base import Attributes, Open, Rename
from avccfs.vfs.changes import Bytes, Change, Changes, EntryKind, What
from avccfs.vfs.differences import MOST_RANGES, NEAR, differences
from avccfs.vfs.layered import Extent, Layered
from tests.vfs.laid import Laid, Told, holding, read, replace, tree, walk, write

OLD = {
    "CURRENT": b"MANIFEST-000001\n",
    "MANIFEST-000001": b"the manifest",
    "000003.log": b"a journal, rather longer than short",
    "000005.ldb": b"a table",
    "lost/000002.ldb": b"an old table",
}


@pytest.fixture
def view() -> Laid:
    return Laid(holding(OLD))


def told(view: Layered) -> dict[str, What]:
    """What is told of each path, folder times aside."""
    return {each.path: each.what for each in differences(view).entries if not each.minor}


def the(view: Layered, path: str) -> Change:
    (change,) = (each for each in differences(view).entries if each.path == path)
    return change


def ranges(view: Layered, path: str) -> list[tuple[int, int]]:
    return [(each.offset, each.length) for each in the(view, path).bytes.ranges]


class TestNames:
    def test_nothing_changed(self, view: Laid) -> None:
        changes = differences(view)
        assert changes.entries == ()
        assert changes.empty

    def test_added_and_removed(self, view: Laid) -> None:
        write(view, "000007.ldb", b"a new table")
        view.remove("000005.ldb")
        assert told(view) == {"000007.ldb": What.ADDED, "000005.ldb": What.REMOVED}
        added, removed = the(view, "000007.ldb"), the(view, "000005.ldb")
        assert (added.before, added.bytes.ranges) == (None, (Extent(0, 11),))
        assert removed.before is not None
        assert (removed.before.size, removed.after) == (7, None)

    def test_entries_are_sorted_by_path(self, view: Laid) -> None:
        for path in ("z", "a", "lost/z", "000009.log"):
            write(view, path, b"x")
        view.remove("CURRENT")
        paths = [each.path for each in differences(view).entries]
        assert paths == sorted(paths)
        assert len(paths) >= 5

    def test_a_folder_with_all_that_is_in_it(self, view: Laid) -> None:
        view.mkdir("new")
        view.mkdir("new/er")
        write(view, "new/er/file", b"x")
        view.remove("lost/000002.ldb")
        view.rmdir("lost")
        assert told(view) == {
            "new": What.ADDED,
            "new/er": What.ADDED,
            "new/er/file": What.ADDED,
            "lost": What.REMOVED,
            "lost/000002.ldb": What.REMOVED,
        }

    def test_renamed(self, view: Laid) -> None:
        view.rename("000005.ldb", "lost/000005.ldb")
        assert told(view) == {"lost/000005.ldb": What.RENAMED}
        change = the(view, "lost/000005.ldb")
        assert change.old_path == "000005.ldb"
        assert change.before is not None
        assert change.before == change.after
        assert change.bytes == Bytes()

    def test_renamed_and_written_to(self, view: Laid) -> None:
        view.rename("000003.log", "000004.log")
        write(view, "000004.log", b"A", 0)
        assert told(view) == {"000004.log": What.RENAMED}
        assert ranges(view, "000004.log") == [(0, 1)]

    def test_renamed_while_something_else_takes_the_old_name(self, view: Laid) -> None:
        view.rename("000003.log", "000004.log")
        write(view, "000003.log", b"another journal")
        assert told(view) == {"000004.log": What.RENAMED, "000003.log": What.CHANGED}

    def test_renamed_over_another(self, view: Laid) -> None:
        view.rename("000003.log", "000005.ldb")
        assert told(view) == {"000005.ldb": What.RENAMED}
        change = the(view, "000005.ldb")
        assert change.old_path == "000003.log"
        assert change.replaced is not None
        assert change.replaced.size == len(OLD["000005.ldb"])

    def test_two_names_exchanged(self, view: Laid) -> None:
        view.rename("000003.log", "000005.ldb", Rename.EXCHANGE)
        assert told(view) == {"000003.log": What.RENAMED, "000005.ldb": What.RENAMED}
        assert the(view, "000003.log").old_path == "000005.ldb"

    def test_a_folder_renamed_takes_its_files_along(self, view: Laid) -> None:
        view.rename("lost", "found")
        assert told(view) == {
            "found": What.ADDED,
            "found/000002.ldb": What.RENAMED,
            "lost": What.REMOVED,
        }

    def test_one_more_name_of_an_old_file(self, view: Laid) -> None:
        view.link("000005.ldb", "kept.ldb")
        assert told(view) == {"kept.ldb": What.ADDED}
        assert the(view, "kept.ldb").link_of == "000005.ldb"

    def test_two_names_of_a_new_file(self, view: Laid) -> None:
        write(view, "b", b"x")
        view.link("b", "a")
        assert [the(view, path).link_of for path in ("a", "b")] == [None, "a"]

    def test_two_new_names_of_a_file_that_was_moved_away(self, view: Laid) -> None:
        view.rename("000005.ldb", "b")
        view.link("b", "a")
        assert told(view) == {"a": What.RENAMED, "b": What.RENAMED}
        assert [the(view, path).link_of for path in ("a", "b")] == [None, "a"]

    @pytest.mark.parametrize("lower_has_it", [False, True])
    def test_lock_and_the_folder_of_a_commit_are_left_out(self, lower_has_it: bool) -> None:
        lower = holding(OLD)
        if lower_has_it:
            lower.mkdir(".avccfs-commit")
            write(lower, ".avccfs-commit/plan.json", b"{}")
        view = Laid(lower)
        view.remove("LOCK")
        if not lower_has_it:
            view.mkdir(".avccfs-commit")
        view.mkdir("below")
        write(view, "below/LOCK", b"")
        assert told(view) == {"below": What.ADDED, "below/LOCK": What.ADDED}


class TestKinds:
    def test_a_file_becomes_a_folder(self, view: Laid) -> None:
        view.remove("000005.ldb")
        view.mkdir("000005.ldb")
        write(view, "000005.ldb/x", b"x")
        assert told(view) == {"000005.ldb": What.RETYPED, "000005.ldb/x": What.ADDED}

    def test_a_folder_becomes_a_file(self, view: Laid) -> None:
        view.remove("lost/000002.ldb")
        view.rmdir("lost")
        write(view, "lost", b"and found")
        assert told(view) == {"lost": What.RETYPED, "lost/000002.ldb": What.REMOVED}
        assert the(view, "lost").bytes.count == 9

    def test_an_old_file_moved_to_where_a_folder_was(self, view: Laid) -> None:
        view.remove("lost/000002.ldb")
        view.rmdir("lost")
        view.rename("000005.ldb", "lost")
        change = the(view, "lost")
        assert (change.what, change.old_path) == (What.RENAMED, "000005.ldb")
        assert change.replaced is not None
        assert change.replaced.kind is EntryKind.FOLDER

    def test_symbolic_links(self) -> None:
        lower = holding({})
        for name in ("same", "other", "gone"):
            lower.symlink(name, "there")
        view = Laid(lower)
        view.remove("other")
        view.symlink("other", "elsewhere")
        view.remove("gone")
        view.symlink("new", "there")
        assert told(view) == {
            "other": What.CHANGED,
            "gone": What.REMOVED,
            "new": What.ADDED,
        }
        change = the(view, "other")
        assert change.before is not None
        assert change.after is not None
        assert (change.before.target, change.after.target) == ("there", "elsewhere")


class TestAttributes:
    @pytest.mark.parametrize(
        "attributes",
        [
            Attributes(mode=0o600),
            Attributes(uid=4711),
            Attributes(gid=4711),
            Attributes(mtime_ns=7),
        ],
    )
    def test_of_a_file(self, view: Laid, attributes: Attributes) -> None:
        view.set_attributes("000005.ldb", attributes)
        assert told(view) == {"000005.ldb": What.ATTRIBUTES}

    def test_of_a_folder_and_of_the_directory_itself(self, view: Laid) -> None:
        view.set_attributes("lost", Attributes(mode=0o700))
        view.set_attributes("", Attributes(mode=0o700))
        assert told(view) == {"": What.ATTRIBUTES, "lost": What.ATTRIBUTES}

    def test_the_time_of_a_folder_is_told_and_counts_for_nothing(self, view: Laid) -> None:
        view.set_attributes("lost", Attributes(mtime_ns=7))
        changes = differences(view)
        assert [(each.path, each.what, each.minor) for each in changes.entries] == [
            ("lost", What.ATTRIBUTES, True)
        ]
        assert changes.empty
        assert changes.digest == Changes(()).digest

    def test_reading_is_no_change(self, view: Laid) -> None:
        view.set_attributes("000005.ldb", Attributes(atime_ns=7))
        assert told(view) == {}


class TestBytes:
    def test_the_same_bytes_written_again_are_no_change(self, view: Laid) -> None:
        times = view.stat("000003.log")
        write(view, "000003.log", OLD["000003.log"])
        view.set_attributes("000003.log", Attributes(mtime_ns=times.mtime_ns))
        assert told(view) == {}

    def test_another_file_with_the_same_bytes_is_no_change(self, view: Laid) -> None:
        times = view.stat("000003.log")
        replace(view, "000003.log", OLD["000003.log"])
        view.set_attributes("000003.log", Attributes(mtime_ns=times.mtime_ns))
        assert told(view) == {}

    def test_another_file_with_other_bytes_is_compared_with_the_old_one(self, view: Laid) -> None:
        content = OLD["000003.log"]
        replace(view, "000003.log", content[:4] + b"?" + content[5:])
        assert told(view) == {"000003.log": What.CHANGED}
        assert ranges(view, "000003.log") == [(4, 1)]

    def test_ranges_are_exact(self, view: Laid) -> None:
        write(view, "000003.log", b"A", 0)
        write(view, "000003.log", b"XY", 20)
        assert ranges(view, "000003.log") == [(0, 1), (20, 2)]
        assert the(view, "000003.log").bytes.count == 3

    def test_a_grown_tail_is_a_range(self, view: Laid) -> None:
        size = len(OLD["000005.ldb"])
        write(view, "000005.ldb", b"and more", size)
        assert ranges(view, "000005.ldb") == [(size, 8)]

    def test_a_tail_of_zeros_too(self, view: Laid) -> None:
        with closing(view.open("000005.ldb", Open.WRITE)) as file:
            file.truncate(100)
        assert ranges(view, "000005.ldb") == [(7, 93)]

    def test_a_tail_that_nobody_told_of_too(self) -> None:
        view = Told(holding(OLD), {})
        with closing(view.open("000005.ldb", Open.WRITE)) as file:
            file.truncate(9)
        assert ranges(view, "000005.ldb") == [(7, 2)]

    def test_what_was_cut_off_is_told_by_the_sizes(self, view: Laid) -> None:
        with closing(view.open("000005.ldb", Open.WRITE)) as file:
            file.truncate(3)
        change = the(view, "000005.ldb")
        assert (change.what, change.bytes.ranges) == (What.CHANGED, ())
        assert change.before is not None
        assert change.after is not None
        assert (change.before.size, change.after.size) == (7, 3)

    @pytest.mark.parametrize(("gap", "found"), [(NEAR - 1, 1), (NEAR, 2)])
    def test_neighbours_are_one_range(self, gap: int, found: int) -> None:
        view = Laid(holding({"x": bytes(64)}))
        write(view, "x", b"1", 10)
        write(view, "x", b"1", 11 + gap)
        assert len(ranges(view, "x")) == found

    def test_more_ranges_than_are_kept_are_counted(self) -> None:
        view = Laid(holding({"x": bytes(20 * MOST_RANGES)}))
        for place in range(MOST_RANGES + 7):
            write(view, "x", b"1", 16 * place)
        change = the(view, "x")
        assert (len(change.bytes.ranges), change.bytes.more) == (MOST_RANGES, 7)
        assert change.bytes.count == MOST_RANGES + 7

    def test_only_what_may_be_altered_is_read(self) -> None:
        lower = holding({"x": bytes(100), "y": bytes(100)})
        view = Told(lower, {"x": (Extent(50, 10),)})
        for place in (20, 55):
            write(view, "x", b"1", place)
        write(view, "y", b"1", 0)
        assert ranges(view, "x") == [(55, 1)]
        assert the(view, "y").what is What.ATTRIBUTES

    @given(st.data())
    @settings(deadline=None, max_examples=60)
    def test_every_byte_that_differs_is_in_a_range_and_ranges_hold_little_else(
        self, data: st.DataObject
    ) -> None:
        old = data.draw(st.binary(max_size=80))
        new = bytearray(data.draw(st.one_of(st.just(old), st.binary(max_size=80))))
        spots = data.draw(st.lists(st.integers(0, len(new) - 1), max_size=4)) if new else []
        for spot in spots:
            new[spot] ^= 0x55
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_PIECE", data.draw(st.sampled_from([1, 7, 64, 1 << 18])))
            view = Laid(holding({"x": old}))
            write(view, "x", bytes(new))
            told_of = differences(view).entries
        found = next((each.bytes for each in told_of if each.path == "x"), Bytes())
        differ = [i for i, byte in enumerate(new) if i >= len(old) or byte != old[i]]
        covered = [i for each in found.ranges for i in range(each.offset, each.end)]
        assert set(differ) <= set(covered)
        assert found.count == len(differ)
        assert covered == sorted(set(covered))
        for each in found.ranges:
            assert {each.offset, each.end - 1} <= set(differ)
            inside = [i for i in differ if each.offset <= i < each.end]
            assert all(b - a <= NEAR for a, b in itertools.pairwise(inside))
        for one, two in itertools.pairwise(found.ranges):
            assert two.offset - one.end >= NEAR


class TestPointers:
    def test_what_current_named_and_names(self, view: Laid) -> None:
        write(view, "MANIFEST-000009", b"x")
        write(view, "CURRENT.9", b"MANIFEST-000009\n")
        view.rename("CURRENT.9", "CURRENT")
        change = the(view, "CURRENT")
        assert change.pointer is not None
        assert change.pointer.before == b"MANIFEST-000001\n"
        assert change.pointer.after == b"MANIFEST-000009\n"

    def test_an_old_pending_file_renamed_onto_current(self) -> None:
        lower = holding({**OLD, "CURRENT.9": b"MANIFEST-000009\n"})
        view = Laid(lower)
        view.rename("CURRENT.9", "CURRENT")
        assert told(view) == {"CURRENT": What.RENAMED}
        pointer = the(view, "CURRENT").pointer
        assert pointer is not None
        assert (pointer.before, pointer.after) == (b"MANIFEST-000001\n", b"MANIFEST-000009\n")

    def test_other_files_have_none(self, view: Laid) -> None:
        write(view, "lost/CURRENT", b"MANIFEST-000001\n")
        assert the(view, "lost/CURRENT").pointer is None


class TestDigest:
    def test_it_is_the_same_for_the_same_changes(self) -> None:
        digests = set()
        for _ in range(2):
            lower = holding({})
            view = Laid(lower)
            write(view, "x", b"content")
            view.set_attributes("x", Attributes(mtime_ns=1))
            digests.add(differences(view).digest)
        assert len(digests) == 1

    def test_it_knows_every_byte(self) -> None:
        digests = set()
        for content in (b"a table", b"A table", b"a tabl3", b"a tabl", b"a table+", b"a tables"):
            lower = holding({"x": b"a table"})
            view = Laid(lower)
            write(view, "x", content)
            view.set_attributes("x", Attributes(mtime_ns=lower.stat("x").mtime_ns + 1))
            digests.add(differences(view).digest)
        assert len(digests) == 6

    def test_it_does_not_depend_on_how_altered_ranges_are_told(self) -> None:
        size = (1 << 18) + 1000
        found = set()
        for altered in (
            (Extent(0, size),),
            (Extent((1 << 18) - 50, 100),),
            (Extent(0, 5), Extent((1 << 18) - 20, 500)),
        ):
            view = Told(holding({"x": bytes(size)}), {"x": altered})
            write(view, "x", b"1" * 40, (1 << 18) - 20)
            change = the(view, "x")
            found.add((change.bytes.digest, change.bytes.ranges))
        assert len(found) == 1
        assert next(iter(found))[1] == (Extent((1 << 18) - 20, 40),)


def test_progress_comes_to_its_end(view: Laid) -> None:
    write(view, "big", bytes(3 << 18))
    write(view, "000003.log", b"other bytes")
    steps: list[tuple[int, int, str]] = []
    differences(view, progress=lambda *each: steps.append(each))
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    assert {"big", "000003.log"} <= {path for _, _, path in steps}
    assert len({total for _, total, _ in steps}) == 1


def test_names_that_are_not_text(view: Laid) -> None:
    write(view, "caf\udce9", b"x")
    assert told(view) == {"caf\udce9": What.ADDED}
    assert len(differences(view).digest) == 64


PATHS = st.sampled_from(["a", "b", "c", "d", "d/a", "d/b", "CURRENT"])
STEPS = st.one_of(
    st.tuples(st.just("write"), PATHS, st.binary(max_size=4)),
    st.tuples(st.sampled_from(["rename", "link", "exchange"]), PATHS, PATHS),
    st.tuples(st.sampled_from(["remove", "mkdir", "rmdir", "symlink"]), PATHS),
)


def do(view: Laid, step: tuple[object, ...]) -> None:
    """Do it, or let it fail."""
    try:
        match step:
            case ("write", str(path), bytes(content)):
                write(view, path, content)
            case ("rename", str(old), str(new)):
                view.rename(old, new)
            case ("exchange", str(old), str(new)):
                view.rename(old, new, Rename.EXCHANGE)
            case ("link", str(old), str(new)):
                view.link(old, new)
            case ("symlink", str(path)):
                view.symlink(path, "there")
            case (str(what), str(path)):
                getattr(view, what)(path)
    except OSError:
        pass


@given(st.lists(STEPS, max_size=12))
@settings(deadline=None)
def test_what_is_told_leads_from_the_one_to_the_other(steps: list[tuple[object, ...]]) -> None:
    """Carried out on a list of what is below, the changes give the list of what is above."""
    lower = holding({"a": b"aa", "b": b"bb", "d/a": b"da"})
    view = Laid(lower)
    for step in steps:
        do(view, step)
    changes = differences(view).entries
    result = tree(lower)
    below = dict(result)
    for change in changes:
        if change.old_path is not None and change.old_path not in dict(walk(view)):
            # Two names of one file may both have come from there.
            result.pop(change.old_path, None)
        if change.after is None:
            del result[change.path]
    for change in changes:
        if change.after is not None:
            found = view.stat(change.path)
            held: object = change.after.target or None
            if change.after.kind is EntryKind.FILE:
                began_as = below.get(change.old_path or change.path, (b"",))[0]
                was = began_as if isinstance(began_as, bytes) else b""
                if change.what is What.ADDED and change.link_of is None:
                    was = b""
                content = bytearray(was[: change.after.size].ljust(change.after.size, b"\0"))
                for each in change.bytes.ranges:
                    content[each.offset : each.end] = read(view, change.path)[
                        each.offset : each.end
                    ]
                if change.link_of is not None:
                    content = bytearray(read(view, change.link_of))
                held = bytes(content)
            assert stat.S_IMODE(found.mode) == change.after.mode
            result[change.path] = (held, found.mode, found.uid, found.gid, change.after.mtime_ns)
    assert result == tree(view)
