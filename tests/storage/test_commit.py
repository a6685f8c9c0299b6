"""Carrying an overlay's changes into the directory below."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avccfs import errors
from avccfs.errors import CommitError, ReadOnlyError
from avccfs.storage.commit import commit, resume, unfinished
from avccfs.storage.commit import plan as plan_module
from avccfs.storage.commit.plan import (
    PLAN,
    Install,
    KeepPointers,
    MakeFolder,
    MoveAway,
    Plan,
    SetAttributes,
    SyncFolders,
    decode,
    encode,
)
from avccfs.vfs.base import Attributes, Directory, Rename, Space, Stat, exists
from avccfs.vfs.differences import differences
from avccfs.vfs.layered import COMMIT_FOLDER
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.overlay import Overlay
from tests.vfs.laid import Laid, copy_all, holding, read, replace, tree, walk, write
from tests.vfs.test_differences import STEPS, do
from tests.vfs.watched import Dies, FailsOnce, Killed, Refuses, Watched

OLD = {
    "CURRENT": b"MANIFEST-000001\n",
    "MANIFEST-000001": b"the manifest",
    "000003.log": b"a journal",
    "000005.ldb": b"a table",
    "000006.ldb": b"another table",
    "LOG": b"said\n",
    "lost/000002.ldb": b"an old table",
}


def killed_at(source: Directory, step: int, action: Callable[[Directory], None]) -> bool:
    """Whether the action was killed, after it had changed something `step` times."""
    try:
        action(Watched(source, Killed(step)))
    except Dies:
        return True
    return False


def carry(view: Laid, source: Directory) -> None:
    commit(view, source, differences(view), settled=view.forget)


def finish(view: Laid, source: Directory) -> None:
    """What a person does after a commit was stopped: the same again."""
    left = unfinished(source)
    if left is not None and left.durable:
        resume(source, settled=view.forget)
    else:
        # An overlay that has forgotten its changes shows what is below.
        carry(Laid(source) if view.forgotten else view, source)


def twin(directory: Directory) -> MemoryDirectory:
    """A copy to commit to, while the view keeps what it lies over."""
    copy = MemoryDirectory()
    copy_all(directory, copy)
    return copy


def an_engine_worked(view: Directory) -> None:
    """The shape of what an engine does when it opens a database and writes."""
    write(view, "MANIFEST-000008", b"a new manifest")
    write(view, "CURRENT.8", b"MANIFEST-000008\n")
    write(view, "CURRENT.bak", b"MANIFEST-000001\n")
    view.rename("CURRENT.8", "CURRENT")
    write(view, "000007.ldb", b"a new table")
    write(view, "000009.log", b"a new journal")
    for name in ("000003.log", "MANIFEST-000001", "000005.ldb"):
        view.remove(name)
    write(view, "LOG", b"more\n", 5)


def somebody_tried_everything(view: Directory) -> None:
    """One of each kind of change."""
    an_engine_worked(view)
    view.mkdir("new")
    view.mkdir("new/folder", 0o750)
    write(view, "new/folder/file", b"content")
    view.rename("000006.ldb", "new/000006.ldb")
    write(view, "twins", b"same")
    view.link("twins", "new/twins")
    view.symlink("link", "CURRENT")
    view.remove("lost/000002.ldb")
    view.rmdir("lost")
    write(view, "lost", b"no folder any more")
    write(view, "caf\udce9", b"no text")
    view.set_attributes("new/000006.ldb", Attributes(mode=0o400, mtime_ns=5))
    view.set_attributes("000009.log", Attributes(mode=0o600, mtime_ns=6))
    view.set_attributes("new", Attributes(mode=0o711, mtime_ns=9))
    view.set_attributes("", Attributes(mtime_ns=10))


WORK = [an_engine_worked, somebody_tried_everything]


@pytest.fixture
def lower() -> MemoryDirectory:
    return holding(OLD)


@pytest.fixture
def view(lower: MemoryDirectory) -> Laid:
    return Laid(lower)


class TestResult:
    @pytest.mark.parametrize("work", WORK)
    def test_it_equals_the_view(self, view: Laid, work: Callable[[Directory], None]) -> None:
        work(view)
        source = twin(view.lower)
        carry(view, source)
        assert tree(source) == tree(view)
        assert unfinished(source) is None

    @pytest.mark.parametrize("work", WORK)
    def test_on_a_disk(
        self, lower: MemoryDirectory, tmp_path: Path, work: Callable[[Directory], None]
    ) -> None:
        with closing(LocalDirectory(tmp_path / "db")) as source:
            copy_all(lower, source)
            view = Laid(source)
            work(view)
            # As it will be: the directory below is the one that is committed to.
            carry(view, source)
            assert tree(source) == tree(view)
            assert not (tmp_path / "db" / COMMIT_FOLDER).exists()

    def test_nothing_changed(self, view: Laid) -> None:
        before = tree(view.lower)
        carry(view, view.lower)
        assert tree(view.lower) == before

    def test_settled_is_told_when_everything_is_in_place(self, view: Laid) -> None:
        an_engine_worked(view)
        source = twin(view.lower)
        seen: list[bool] = []

        def settled() -> None:
            left = unfinished(source)
            seen.append(left is not None and left.durable)
            here = {path: held[0] for path, held in tree(source).items()}
            wanted = {path: held[0] for path, held in tree(view).items()}
            assert {path: here[path] for path in wanted} == wanted

        commit(view, source, differences(view), settled=settled)
        assert seen == [True]

    def test_lock_is_never_touched(self, view: Laid) -> None:
        view.remove("LOCK")
        write(view, "LOCK", b"not the one")
        source = twin(view.lower)
        inode = source.stat("LOCK").inode
        carry(view, source)
        assert source.stat("LOCK").inode == inode
        assert read(source, "LOCK") == b""

    def test_a_renamed_file_is_not_copied(self, view: Laid) -> None:
        view.rename("000006.ldb", "lost/000006.ldb")
        source = twin(view.lower)
        inode = source.stat("000006.ldb").inode
        carry(view, source)
        assert source.stat("lost/000006.ldb").inode == inode
        assert source.stat("lost/000006.ldb").nlink == 1

    def test_a_renamed_file_is_copied_if_its_old_name_goes_on_holding_the_same(
        self, view: Laid
    ) -> None:
        view.rename("000006.ldb", "kept")
        write(view, "000006.ldb", OLD["000006.ldb"])
        source = twin(view.lower)
        carry(view, source)
        assert tree(source, attributes=False) == tree(view, attributes=False)
        assert source.stat("kept").inode != source.stat("000006.ldb").inode

    def test_names_of_one_file_stay_names_of_one_file(self, view: Laid) -> None:
        write(view, "b", b"new")
        view.link("b", "a")
        view.link("000005.ldb", "c")
        view.rename("000006.ldb", "d")
        view.link("d", "e")
        source = twin(view.lower)
        carry(view, source)
        for one, other in (("a", "b"), ("c", "000005.ldb"), ("d", "e")):
            assert source.stat(one).inode == source.stat(other).inode

    def test_a_removed_folder_that_is_closed_to_us(self, view: Laid) -> None:
        class Closed(Watched):
            """Goes by the mode, as for anybody but root."""

            def scan(self, path: str = "") -> list[tuple[str, Stat]]:
                if not self.stat(path).mode & stat.S_IRUSR:
                    raise PermissionError(errno.EACCES, "closed", path)
                return super().scan(path)

        view.remove("lost/000002.ldb")
        view.rmdir("lost")
        source = twin(view.lower)
        source.set_attributes("lost", Attributes(mode=0))
        carry(view, Closed(source, Refuses(0)))
        assert tree(source) == tree(view)

    def test_two_names_exchanged(self, view: Laid) -> None:
        view.rename("000005.ldb", "000006.ldb", Rename.EXCHANGE)
        source = twin(view.lower)
        carry(view, source)
        assert tree(source, attributes=False) == tree(view, attributes=False)

    def test_a_snapshot_of_hard_links_keeps_the_old_content(self, view: Laid) -> None:
        source = twin(view.lower)
        source.link("000003.log", "lost/snapshot")
        write(view, "000003.log", b"other")
        view.link("000005.ldb", "lost/other")
        carry(view, source)
        assert read(source, "lost/snapshot") == OLD["000003.log"]

    def test_holes_stay_holes(self, view: Laid) -> None:
        write(view, "sparse", b"end", 64 << 20)
        source = twin(view.lower)
        carry(view, source)
        assert source.stat("sparse").size == (64 << 20) + 3
        assert source.stat("sparse").blocks * 512 <= 2 << 20

    def test_where_there_are_no_hard_links(self, view: Laid) -> None:
        somebody_tried_everything(view)
        source = twin(view.lower)
        no_links = Refuses(errno.EPERM, "link")
        carry(view, Watched(source, no_links))
        assert tree(source) == tree(view)
        assert no_links.count > 0

    def test_owners(self, view: Laid) -> None:
        write(view, "new", b"x")
        view.symlink("link", "there")
        for path in ("new", "link", "lost", "000005.ldb"):
            view.set_attributes(path, Attributes(uid=7, gid=8))
        source = twin(view.lower)
        carry(view, source)
        assert tree(source) == tree(view)
        assert source.stat("link").uid == 7

    def test_an_owner_whom_we_may_not_set_is_left(self, view: Laid) -> None:
        write(view, "x", b"x")
        view.set_attributes("x", Attributes(uid=4711))
        source = twin(view.lower)

        carry(view, Watched(source, Refuses(errno.EPERM, "owner")))
        assert source.stat("x").uid != 4711
        assert source.stat("x").mtime_ns == view.stat("x").mtime_ns

    def test_a_folder_whose_times_we_may_not_set_keeps_its_own(self, view: Laid) -> None:
        view.mkdir("new")
        write(view, "new/x", b"x")
        source = twin(view.lower)
        carry(view, Watched(source, Refuses(errno.EPERM, "attributes", path="")))
        assert tree(source, root=False) == tree(view, root=False)

    def test_a_mode_that_we_may_not_set_is_said(self, view: Laid) -> None:
        view.set_attributes("000005.ldb", Attributes(mode=0o600))
        source = twin(view.lower)
        with pytest.raises(CommitError, match=r"setting mode, .* of '000005.ldb'") as caught:
            carry(view, Watched(source, Refuses(errno.EPERM, "attributes", path="000005.ldb")))
        assert caught.value.begun
        finish(view, source)
        assert tree(source) == tree(view)

    def test_progress_counts_bytes_then_operations(self, view: Laid) -> None:
        an_engine_worked(view)
        steps: list[tuple[int, int, str]] = []
        source = twin(view.lower)
        told = differences(view)
        commit(view, source, told, settled=view.forget, progress=lambda *each: steps.append(each))
        copied = [each for each in steps if each[2] in dict(walk(view))]
        assert copied[-1][0] == copied[-1][1] > 0
        assert steps[-1][0] == steps[-1][1]

    @given(st.lists(STEPS, max_size=12))
    @settings(deadline=None)
    def test_whatever_was_done(self, steps: list[tuple[object, ...]]) -> None:
        view = Laid(
            holding({"a": b"aa", "b": b"bb", "d/a": b"da", "CURRENT": b"MANIFEST-000001\n"})
        )
        for step in steps:
            do(view, step)
        source = twin(view.lower)
        carry(view, source)
        assert tree(source) == tree(view)


MANIFESTS = {f"MANIFEST-{number:06d}": b"manifest %d" % number for number in (1, 3, 5, 7)}
FAMILY = st.dictionaries(
    st.sampled_from(["CURRENT", "CURRENT.bak", "CURRENT.2", "CURRENT.5", "CURRENT.9"]),
    st.sampled_from([b"MANIFEST-00000%d\n" % number for number in (1, 3, 5, 7)] + [b"", b"MANI"]),
)
SOME = st.sets(st.sampled_from(sorted(MANIFESTS)))


class TestFamily:
    @given(FAMILY, FAMILY, SOME, SOME)
    @settings(deadline=None, max_examples=150)
    def test_whatever_it_was_and_is_it_comes_out_as_in_the_view(
        self, old: dict[str, bytes], new: dict[str, bytes], had: set[str], has: set[str]
    ) -> None:
        view = self.view(old, new, had, has)
        source = twin(view.lower)
        carry(view, source)
        assert tree(source) == tree(view)

    @given(FAMILY, FAMILY, SOME, SOME, st.integers(0, 80))
    @settings(deadline=None, max_examples=150)
    def test_killed_in_the_middle_of_it(
        self,
        old: dict[str, bytes],
        new: dict[str, bytes],
        had: set[str],
        has: set[str],
        step: int,
    ) -> None:
        view = self.view(old, new, had, has)
        source = twin(view.lower)
        killed_at(source, step, lambda there: carry(view, there))
        finish(view, source)
        assert tree(source, root=False) == tree(view, root=False)

    @staticmethod
    def view(old: dict[str, bytes], new: dict[str, bytes], had: set[str], has: set[str]) -> Laid:
        view = Laid(holding({**old, **{name: MANIFESTS[name] for name in had}}))
        for name in sorted(set(old) | had):
            view.remove(name)
        for name, content in {**new, **{name: MANIFESTS[name] for name in has}}.items():
            write(view, name, content)
        return view

    @pytest.mark.parametrize("made", ["folder", "link"])
    @pytest.mark.parametrize("name", ["CURRENT", "CURRENT.bak", "CURRENT.5"])
    @pytest.mark.parametrize("where", ["above", "below"])
    def test_one_that_is_no_file(self, name: str, made: str, where: str) -> None:
        def make(directory: Directory) -> None:
            if exists(directory, name):
                directory.remove(name)
            if made == "folder":
                directory.mkdir(name)
            else:
                directory.symlink(name, "there")

        lower = holding({"CURRENT": b"MANIFEST-000001\n", **MANIFESTS})
        if where == "below":
            make(lower)
        view = Laid(lower)
        if where == "above":
            make(view)
        else:
            (view.rmdir if made == "folder" else view.remove)(name)
            write(view, name, b"MANIFEST-000003\n")
        write(view, "CURRENT.7", b"MANIFEST-000007\n")
        source = twin(lower)
        carry(view, source)
        assert tree(source) == tree(view)

    def test_one_that_cannot_be_read_stops_it_before_it_begins(self, view: Laid) -> None:
        an_engine_worked(view)
        source = twin(view.lower)
        before = tree(source)
        unreadable = Watched(source, Refuses(errno.EIO, "read", path="CURRENT"))
        with pytest.raises(CommitError, match="CURRENT cannot be read") as caught:
            carry(view, unreadable)
        assert not caught.value.begun
        assert tree(source) == before


class TestKilled:
    @pytest.mark.parametrize("work", WORK)
    def test_at_any_step_and_run_again(
        self, lower: MemoryDirectory, work: Callable[[Directory], None]
    ) -> None:
        view = Laid(lower)
        work(view)
        before, wanted = tree(lower, root=False), tree(view)
        step, begun = 0, set()
        while True:
            source, view.forgotten = twin(lower), False
            if not killed_at(source, step, partial(carry, view)):
                break
            left = unfinished(source)
            begun.add(left is not None and left.durable)
            if left is not None and not left.durable and not view.forgotten:
                here = tree(source, root=False)
                assert {path: here[path] for path in before} == before
                assert {path.partition("/")[0] for path in here.keys() - before} == {COMMIT_FOLDER}
            whole = not view.forgotten or (left is not None and left.durable)
            finish(view, source)
            assert tree(source, root=whole) == (wanted if whole else tree(view, root=False)), step
            step += 1
        assert step > 40
        assert begun == {True, False}

    def test_again_and_again(self, lower: MemoryDirectory) -> None:
        """Killed, run again, killed a little later, and so on to the end."""
        view = Laid(lower)
        somebody_tried_everything(view)
        source = twin(lower)
        step = 0
        while killed_at(source, step, partial(finish, view)):
            step += 1
        assert step > 40
        assert tree(source, root=False) == tree(view, root=False)

    def test_without_hard_links(self, lower: MemoryDirectory) -> None:
        view = Laid(lower)
        somebody_tried_everything(view)

        def without(there: Directory) -> Directory:
            return Watched(there, Refuses(errno.ENOTSUP, "link"))

        for step in range(0, 400, 3):
            source, view.forgotten = twin(lower), False
            if not killed_at(source, step, lambda there: carry(view, without(there))):
                break
            finish(view, without(source))
            assert tree(source, root=False) == tree(view, root=False), step

    def test_what_settled_raises_leaves_it_to_be_finished(self, view: Laid) -> None:
        an_engine_worked(view)
        source = twin(view.lower)

        def fails() -> None:
            raise OSError(errno.EIO, "the overlay's own folder")

        with pytest.raises(OSError, match="overlay's own"):
            commit(view, source, differences(view), settled=fails)
        calls: list[str] = []
        resume(source, settled=lambda: calls.append("settled"))
        assert calls == ["settled"]
        assert tree(source) == tree(view)


class TestFailures:
    def test_an_error_on_the_way_says_what_to_do_and_can_be_gone_on_from(
        self, lower: MemoryDirectory
    ) -> None:
        view = Laid(lower)
        somebody_tried_everything(view)
        told = differences(view)
        begun = set()
        for step in range(400):
            source, fails, view.forgotten = twin(lower), FailsOnce(step, errno.EIO), False
            try:
                commit(view, Watched(source, fails), told, settled=view.forget)
            except CommitError as error:
                stopped = error
                begun.add(stopped.begun)
                says = "run avccfs commit again" if stopped.begun else "nothing was changed"
                assert says in str(stopped), step
                if not stopped.begun:
                    assert tree(source, root=False) == tree(lower, root=False), step
                if not stopped.begun or unfinished(source) is not None:
                    finish(view, source)
            if fails.left >= 0:
                break
            assert tree(source, root=False) == tree(view, root=False), step
        assert begun == {True, False}
        assert fails.left >= 0

    def test_no_room_is_said_before_anything_is_written(self, view: Laid) -> None:
        write(view, "big", b"x" * 100_000)
        source = MemoryDirectory(capacity=80_000)
        copy_all(view.lower, source)
        before = tree(source)
        with pytest.raises(CommitError, match=r"need 102400 bytes .* are free") as caught:
            carry(view, source)
        assert not caught.value.begun
        assert tree(source) == before

    def test_no_room_that_nobody_could_foresee(self, view: Laid) -> None:
        write(view, "big", b"x" * 100_000)
        source = MemoryDirectory(capacity=80_000)
        copy_all(view.lower, source)

        class Silent(Watched):
            def space(self) -> Space:
                return Space()

        with pytest.raises(CommitError, match="No space left") as caught:
            carry(view, Silent(source, Refuses(0)))
        assert not caught.value.begun
        assert tree(source, attributes=False) == tree(view.lower, attributes=False)

    def test_what_was_shown_is_what_is_committed(self, view: Laid) -> None:
        an_engine_worked(view)
        shown = differences(view)
        write(view, "000007.ldb", b"A", 0)
        source = twin(view.lower)
        with pytest.raises(CommitError, match="changed since its changes were shown") as caught:
            commit(view, source, shown, settled=view.forget)
        assert not caught.value.begun
        assert tree(source, attributes=False) == tree(view.lower, attributes=False)

    def test_another_directory_is_refused(self, view: Laid) -> None:
        an_engine_worked(view)
        source = twin(view.lower)
        write(source, "000005.ldb", b"of another size")
        with pytest.raises(CommitError, match=r"'000005.ldb' expected a file of 7 bytes, found"):
            carry(view, source)

    def test_a_file_in_the_way_is_refused(self, view: Laid) -> None:
        an_engine_worked(view)
        source = twin(view.lower)
        write(source, "000007.ldb", b"somebody else's")
        with pytest.raises(CommitError, match=r"'000007.ldb' expected nothing, found a file of 15"):
            carry(view, source)

    def test_a_read_only_directory_is_refused(self, view: Laid, tmp_path: Path) -> None:
        with closing(LocalDirectory(tmp_path, read_only=True)) as source:
            with pytest.raises(ReadOnlyError, match="open it for writing"):
                carry(view, source)
            with pytest.raises(ReadOnlyError):
                resume(source, settled=view.forget)

    def test_a_pipe_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "db").mkdir()
        os.mkfifo(tmp_path / "db" / "pipe")
        with closing(LocalDirectory(tmp_path / "db")) as lower:

            class Moved(Laid):
                """Shows the pipe under another name."""

                def stat(self, path: str = "") -> Stat:
                    return lower.stat("pipe") if path == "moved" else super().stat(path)

                def scan(self, path: str = "") -> list[tuple[str, Stat]]:
                    return [*super().scan(path), ("moved", lower.stat("pipe"))]

            view = Moved(holding({}))
            with pytest.raises(CommitError, match="'moved' is a pipe, a socket or a device"):
                carry(view, twin(view.lower))


class TestOverlay:
    """The real thing, over the very directory that is committed to."""

    @pytest.fixture
    def source(self, lower: MemoryDirectory, tmp_path: Path) -> Iterator[LocalDirectory]:
        with closing(LocalDirectory(tmp_path / "db")) as directory:
            copy_all(lower, directory)
            yield directory

    @staticmethod
    def work(view: Directory) -> None:
        somebody_tried_everything(view)
        view.rename("LOG", "LOG.old")
        write(view, "LOG", b"a new log")

    def test_it_equals_the_view_which_has_nothing_to_tell_any_more(
        self, source: LocalDirectory
    ) -> None:
        with closing(Overlay(source, take_lock=False, close_inner=False)) as view:
            self.work(view)
            wanted = tree(view)
            commit(view, source, differences(view), settled=view.reset)
            assert tree(source) == wanted
            assert tree(view) == wanted
            assert differences(view).entries == ()

    def test_one_byte_of_a_big_file(self, source: LocalDirectory) -> None:
        write(source, "000010.ldb", bytes(range(256)) * 4096)
        with closing(Overlay(source, take_lock=False, close_inner=False)) as view:
            write(view, "000010.ldb", b"!", 700_000)
            changes = differences(view)
            (change,) = (each for each in changes.entries if not each.minor)
            assert [(each.offset, each.length) for each in change.bytes.ranges] == [(700_000, 1)]
            wanted = read(view, "000010.ldb")
            commit(view, source, changes, settled=view.reset)
        assert read(source, "000010.ldb") == wanted

    def test_killed_and_finished_with_a_kept_overlay(
        self, source: LocalDirectory, tmp_path: Path
    ) -> None:
        """Another process finds a commit under way, finishes it, and lets the overlay forget."""

        def overlay() -> Overlay:
            upper = LocalDirectory(tmp_path / "upper")
            # While a commit is under way the directory below is not what it was.
            return Overlay(source, upper, take_lock=False, close_inner=False, check=False)

        with closing(overlay()) as view:
            self.work(view)
            wanted = tree(view)
            changes = differences(view)

            def die(what: str, path: str) -> None:
                if (what, path) == ("rename", "CURRENT.8"):
                    raise Dies

            with pytest.raises(Dies):
                commit(view, Watched(source, die), changes, settled=view.reset)
        left = unfinished(source)
        assert left is not None
        assert left.durable
        assert left.digest == changes.digest
        with closing(overlay()) as view:
            resume(source, settled=view.reset)
            assert differences(view).entries == ()
        assert tree(source) == wanted


class TestUnfinished:
    def stopped(self, view: Laid, step: int) -> MemoryDirectory:
        source = twin(view.lower)
        assert killed_at(source, step, lambda there: carry(view, there))
        return source

    def begun(self, view: Laid) -> MemoryDirectory:
        """A commit that was stopped right after it had begun."""
        for step in range(200):
            source = self.stopped(view, step)
            left = unfinished(source)
            if left is not None and left.durable:
                return source
        raise AssertionError("it never begins")

    def test_nothing_is_left_of_none(self, lower: MemoryDirectory) -> None:
        assert unfinished(lower) is None
        with pytest.raises(CommitError, match="no commit to finish"):
            resume(lower, settled=Laid(lower).forget)

    def test_a_folder_without_a_plan_is_nothing_begun(self, view: Laid) -> None:
        an_engine_worked(view)
        source = self.stopped(view, 5)
        left = unfinished(source)
        assert left is not None
        assert (left.durable, left.operations, left.begun) == (False, 0, None)
        carry(view, source)
        assert tree(source) == tree(view)

    def test_one_that_has_begun_tells_of_itself(self, view: Laid) -> None:
        an_engine_worked(view)
        left = unfinished(self.begun(view))
        assert left is not None
        assert left.operations > 10
        assert left.begun is not None
        assert left.digest == differences(view).digest

    def test_it_has_to_be_finished_first(self, view: Laid) -> None:
        an_engine_worked(view)
        source = self.begun(view)
        with pytest.raises(CommitError, match="is not finished") as caught:
            carry(view, source)
        assert caught.value.begun

    def test_an_engine_that_worked_meanwhile_is_not_run_over(self, view: Laid) -> None:
        an_engine_worked(view)
        source = self.begun(view)
        write(source, "MANIFEST-000010", b"the engine's")
        replace(source, "CURRENT", b"MANIFEST-000010\n")
        before = tree(source)
        with pytest.raises(CommitError, match=r"somebody worked here .*CURRENT holds") as caught:
            resume(source, settled=view.forget)
        assert "remove that folder" in str(caught.value)
        assert tree(source) == before

    def test_a_changed_file_of_the_database_is_not_run_over(self, view: Laid) -> None:
        write(view, "000003.log", b"more of the journal")
        source = self.begun(view)
        write(source, "000003.log", b"what an engine wrote")
        before = tree(source)
        with pytest.raises(CommitError, match=r"000003.log has 20 bytes, expected 9"):
            resume(source, settled=view.forget)
        assert tree(source) == before

    def test_a_staged_file_that_is_gone(self, view: Laid) -> None:
        write(view, "new", b"new")
        source = self.begun(view)
        source.remove(f"{COMMIT_FOLDER}/staged-0")
        with pytest.raises(CommitError, match="are both gone"):
            resume(source, settled=view.forget)

    @pytest.mark.parametrize("what", ["file", "link"])
    def test_something_else_of_that_name(self, view: Laid, what: str) -> None:
        source = twin(view.lower)
        if what == "file":
            write(source, COMMIT_FOLDER, b"")
        else:
            source.symlink(COMMIT_FOLDER, "lost")
        with pytest.raises(CommitError, match="is not a folder"):
            unfinished(source)
        with pytest.raises(CommitError, match="is not a folder"):
            carry(view, source)
        with pytest.raises(CommitError, match="is not a folder"):
            resume(source, settled=view.forget)


class TestPlan:
    plan = Plan(
        (
            MakeFolder("new"),
            Install(0, "caf\udce9", 5, None),
            KeepPointers(("CURRENT.3",)),
            MoveAway(3, "000005.ldb", 7),
            SetAttributes("", 0o755, 0, 0, -5, 7),
            SyncFolders(("", "new")),
        ),
        1_700_000_000_123_456_789,
        "0" * 64,
        (b"MANIFEST-000001\n",),
    )

    def directory_with(self, content: bytes) -> MemoryDirectory:
        source = holding(OLD)
        source.mkdir(COMMIT_FOLDER)
        write(source, PLAN, content)
        return source

    def refused(self, content: bytes) -> str:
        source = self.directory_with(content)
        before = tree(source)
        with pytest.raises(CommitError) as caught:
            resume(source, settled=Laid(source).forget)
        with pytest.raises(CommitError):
            unfinished(source)
        with pytest.raises(CommitError):
            carry(Laid(source), source)
        assert tree(source) == before
        assert "nothing was touched" in str(caught.value)
        return str(caught.value)

    def test_it_comes_back_as_it_was(self) -> None:
        assert decode(encode(self.plan), "here") == self.plan

    @pytest.mark.parametrize("cut", [0, 1, 100, -2])
    def test_a_torn_one_is_refused(self, cut: int) -> None:
        self.refused(encode(self.plan)[:cut])

    def test_a_flipped_bit_is_refused(self) -> None:
        content = encode(self.plan)
        for place in range(0, len(content) - 1, 7):
            changed = bytearray(content)
            changed[place] ^= 1
            try:
                found = decode(bytes(changed), "here")
            except CommitError:
                continue
            assert found == self.plan, "another plan with a good checksum"

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "..", "../x", "a/../../x", "a//b", "./a", "LOCK", "", PLAN, "a\0b"]
    )
    def test_a_forged_path_is_refused(self, path: str) -> None:
        for forged in (Install(0, path, None, None), MoveAway(0, path, None), MakeFolder(path)):
            self.refused(encode(Plan((forged,), 0, "", ())))

    @pytest.mark.parametrize(
        "change",
        [
            {"do": "run a program"},
            {"number": -1},
            {"number": True},
            {"number": "0"},
            {"path": 7},
            {"path": None},
            {"size": -1},
            {"size": 1.5},
        ],
    )
    def test_a_forged_operation_is_refused(self, change: dict[str, object]) -> None:
        self.refused(self.forged(lambda body: body["operations"][1].update(change)))

    @pytest.mark.parametrize(
        "change",
        [
            {"format": "another"},
            {"version": 2},
            {"operations": {}},
            {"operations": [1]},
            {"current": ["zz"]},
            {"begun": None},
            {"begun": 10**30},
            {"digest": 5},
        ],
    )
    def test_a_plan_of_another_form_is_refused(self, change: dict[str, object]) -> None:
        self.refused(self.forged(lambda body: body.update(change)))

    @pytest.mark.parametrize("content", [b"[]", b"null", b"\xff", b"[" * 100_000, b"7"])
    def test_what_is_no_object_is_refused(self, content: bytes) -> None:
        self.refused(content)

    def forged(self, change: Callable[[dict[str, Any]], None]) -> bytes:
        """A plan with something else in it, and a checksum that fits."""
        body = json.loads(encode(self.plan))
        del body["checksum"]
        change(body)
        return json.dumps({**body, "checksum": plan_module._checksum(body)}).encode()

    def test_a_plan_that_is_no_file(self, view: Laid) -> None:
        source = holding(OLD)
        source.mkdir(COMMIT_FOLDER)
        source.mkdir(PLAN)
        with pytest.raises(CommitError, match="cannot be read"):
            unfinished(source)

    def test_a_folder_with_a_link_in_its_path_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "db").mkdir()
        with closing(LocalDirectory(tmp_path / "db")) as source:
            source.symlink("way", "../outside")
            source.mkdir(COMMIT_FOLDER)
            write(source, f"{COMMIT_FOLDER}/staged-0", b"x")
            write(source, PLAN, encode(Plan((Install(0, "way/out", 1, None),), 0, "", ())))
            with pytest.raises(CommitError) as caught:
                resume(source, settled=Laid(source).forget)
        assert caught.value.begun
        assert list((tmp_path / "outside").iterdir()) == []
        assert stat.S_ISLNK((tmp_path / "db" / "way").lstat().st_mode)


def test_the_error_is_one_of_the_storage() -> None:
    assert issubclass(CommitError, errors.StorageError)
