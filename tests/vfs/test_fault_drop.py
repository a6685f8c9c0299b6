"""Syncs that fail and lose what they should have kept."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avccfs.vfs.base import Directory, File, Open, Rename
from avccfs.vfs.fault import FaultDirectory, FaultPlan, Op
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory

NEW = Open.WRITE | Open.CREATE
LOG = "000001.log"


@pytest.fixture(params=["memory", "local"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Directory]:
    made: Directory = (
        MemoryDirectory() if request.param == "memory" else LocalDirectory(tmp_path / "db")
    )
    yield made
    made.close()


@pytest.fixture
def plan() -> Iterator[FaultPlan]:
    with FaultPlan() as made:
        yield made


@pytest.fixture
def directory(inner: Directory, plan: FaultPlan) -> FaultDirectory:
    return FaultDirectory(inner, plan, track=True)


def content(directory: Directory, name: str = LOG) -> bytes:
    file = directory.open(name)
    try:
        return file.read_at(10**6, 0)
    finally:
        file.close()


def written(directory: FaultDirectory, data: bytes, name: str = LOG) -> File:
    """A file that holds this, safely."""
    file = directory.open(name, NEW)
    file.write_at(data, 0)
    file.sync()
    return file


def drop(plan: FaultPlan, file: File, code: int = errno.EIO) -> str:
    """Sync it, and have that drop what it should keep; returns what was done."""
    number = plan.add(f"sync times 1: drop {errno.errorcode[code]}").id
    with pytest.raises(OSError, match=r"\.log|\.ldb") as caught:
        file.sync()
    assert caught.value.errno == code
    plan.remove(number)
    faults = plan.stats()["faults"]
    assert isinstance(faults, list)
    return str(faults[-1]["did"])


class TestWhatIsLost:
    def test_appended_bytes_are_zeros_and_the_size_stays(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"safe")
        file.write_at(b"lost", 4)
        file.write_at(b"too", 8)
        assert drop(plan, file) == "7 bytes in 1 ranges dropped, then EIO"
        assert content(directory) == b"safe" + bytes(7)
        file.close()

    def test_overwritten_bytes_are_the_old_ones_again(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123456789")
        file.write_at(b"ab", 2)
        file.write_at(b"XYZ", 1)
        file.write_at(b"----", 3)
        file.write_at(b"##", 8)
        assert file.read_at(20, 0) == b"0XY----7##"
        assert drop(plan, file, errno.ENOSPC) == "8 bytes in 4 ranges dropped, then ENOSPC"
        assert content(directory) == b"0123456789"
        file.close()

    def test_a_write_across_the_end_is_both(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"01234")
        file.write_at(b"abcd", 3)
        file.write_at(b"beyond", 10)
        drop(plan, file)
        assert content(directory) == b"01234" + bytes(11)
        file.close()

    def test_the_next_sync_succeeds_and_keeps_what_came_since(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123")
        file.write_at(b"ab", 0)
        drop(plan, file)
        file.write_at(b"xy", 1)
        file.sync()
        assert drop(plan, file) == "0 bytes in 0 ranges dropped, then EIO"
        assert content(directory) == b"0xy3"
        file.close()

    def test_a_sync_that_failed_otherwise_has_kept_nothing(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        with FaultPlan() as below:
            file = written(
                FaultDirectory(FaultDirectory(directory.inner, below), plan, track=True), b"0123"
            )
            file.write_at(b"ab", 0)
            below.fail(Op.SYNC)
            with pytest.raises(OSError, match=LOG):
                file.sync()
            file.write_at(b"XY", 1)
            file.write_at(b"tail", 4)
            drop(plan, file)
            assert content(directory) == b"0123" + bytes(4)
            file.close()

    def test_what_is_written_during_a_sync_waits_for_the_next(
        self, plan: FaultPlan, directory: FaultDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = directory.open(LOG, NEW)
        file.write_at(b"0123", 0)

        def during(_: File, *, data_only: bool) -> None:
            file.write_at(b"ab", 1)

        with monkeypatch.context() as patch:
            patch.setattr(type(file.inner), "sync", during)
            file.sync()
        assert content(directory) == b"0ab3"
        drop(plan, file)
        assert content(directory) == b"0123"
        file.close()

    def test_what_is_written_during_a_sync_that_fails_adds_to_what_was_before(
        self, plan: FaultPlan, directory: FaultDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = directory.open(LOG, NEW)
        file.write_at(b"01234567", 0)
        file.sync()
        file.write_at(b"bcd", 2)

        def during(_: File, *, data_only: bool) -> None:
            file.write_at(b"WXYZ", 0)
            file.write_at(b"UV", 4)
            raise OSError(errno.EDQUOT, "", LOG)

        with monkeypatch.context() as patch:
            patch.setattr(type(file.inner), "sync", during)
            with pytest.raises(OSError, match=LOG):
                file.sync()
        assert content(directory) == b"WXYZUV67"
        assert drop(plan, file).startswith("6 bytes")
        assert content(directory) == b"01234567"
        file.close()

    def test_a_failed_sync_of_another_kind_loses_nothing(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123")
        file.write_at(b"ab", 0)
        plan.add("sync #1: EIO")
        with pytest.raises(OSError, match=LOG):
            file.sync()
        assert content(directory) == b"ab23"
        drop(plan, file)
        assert content(directory) == b"0123"
        file.close()

    def test_the_torn_part_of_a_write_is_lost_too(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123456789")
        plan.add("write #1: torn at 2,4 keep 1,3")
        with pytest.raises(OSError, match=LOG):
            file.write_at(b"abcdef", 0)
        assert content(directory) == b"ab23ef6789"
        drop(plan, file)
        assert content(directory) == b"0123456789"
        file.close()

    def test_without_tracking_it_only_fails(self, inner: Directory, plan: FaultPlan) -> None:
        file = written(FaultDirectory(inner, plan), b"0123")
        file.write_at(b"ab", 0)
        assert drop(plan, file) == "0 bytes in 0 ranges dropped, then EIO"
        assert content(inner) == b"ab23"
        file.close()


class TestTruncation:
    def test_what_was_cut_off_does_not_come_back(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123456789")
        file.write_at(b"abcd", 4)
        file.truncate(6)
        drop(plan, file)
        assert content(directory) == b"012345"
        file.close()

    def test_what_is_written_again_behind_a_cut_is_an_append(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123456789")
        file.write_at(b"ab", 7)
        file.truncate(4)
        file.write_at(b"wxyz", 4)
        drop(plan, file)
        assert content(directory) == b"0123" + bytes(4)
        file.close()

    def test_opening_may_cut_too(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        file = written(directory, b"0123456789")
        file.write_at(b"ab", 0)
        again = directory.open(LOG, NEW | Open.TRUNCATE)
        again.write_at(b"new", 0)
        drop(plan, file)
        assert content(directory) == bytes(3)
        file.close()
        again.close()

    def test_an_extension_stays(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        file = written(directory, b"01")
        file.truncate(5)
        file.write_at(b"x", 3)
        drop(plan, file)
        assert content(directory) == b"01" + bytes(3)
        file.close()


class TestIdentity:
    def test_two_handles_are_one_file(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        one = written(directory, b"0123456789")
        other = directory.open(LOG, Open.WRITE)
        one.write_at(b"ab", 0)
        other.write_at(b"cd", 1)
        drop(plan, other)
        assert content(directory) == b"0123456789"
        one.write_at(b"x", 0)
        other.sync()
        drop(plan, one)
        assert content(directory) == b"x123456789"
        one.close()
        other.close()

    def test_it_is_remembered_over_close_and_open(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123")
        file.write_at(b"ab", 0)
        file.close()
        again = directory.open(LOG, Open.WRITE)
        again.write_at(b"c", 1)
        drop(plan, again)
        assert content(directory) == b"0123"
        again.close()

    def test_a_handle_for_reading_can_sync_what_others_wrote(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123")
        file.write_at(b"ab", 0)
        file.close()
        reader = directory.open(LOG)
        directory.rename(LOG, "000002.log")
        assert drop(plan, reader).startswith("2 bytes")
        assert content(directory, "000002.log") == b"0123"
        reader.close()

    def test_the_file_counts_and_not_its_name(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123")
        other = written(directory, b"abcd", "000002.log")
        file.write_at(b"xx", 0)
        directory.rename(LOG, "000002.log", Rename.EXCHANGE)
        other.write_at(b"yy", 2)
        drop(plan, file)
        assert content(directory, "000002.log") == b"0123"
        assert content(directory, LOG) == b"abyy"
        file.close()
        other.close()

    def test_one_that_was_replaced_goes_its_own_way(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123")
        file.write_at(b"xx", 0)
        other = written(directory, b"abcd", "000002.log")
        directory.rename("000002.log", LOG)
        drop(plan, file)
        assert file.read_at(9, 0) == b"0123"
        assert content(directory) == b"abcd"
        file.close()
        other.close()

    def test_a_removed_file_that_nobody_can_write_stays_as_it_is(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123")
        file.write_at(b"xx", 0)
        reader = directory.open(LOG)
        file.close()
        directory.remove(LOG)
        written(directory, b"another", LOG).close()
        assert drop(plan, reader).startswith("nothing dropped")
        assert reader.read_at(9, 0) == b"xx23"
        assert content(directory) == b"another"
        reader.close()

    @pytest.mark.parametrize("how", ["remove", "rename", "open"])
    def test_nothing_is_remembered_of_a_file_that_is_gone(
        self, plan: FaultPlan, directory: FaultDirectory, how: str
    ) -> None:
        """Its inode number is free for the next one."""
        for _ in range(3):
            file = written(directory, b"0123")
            file.write_at(b"lost", 0)
            if how == "open":
                directory.remove(LOG)
            file.close()
            if how == "remove":
                directory.remove(LOG)
            elif how == "rename":
                written(directory, b"new", "000002.log").close()
                directory.rename("000002.log", LOG)
                directory.remove(LOG)
            new = directory.open(LOG, NEW)
            assert drop(plan, new) == "0 bytes in 0 ranges dropped, then EIO"
            new.close()
            directory.remove(LOG)

    def test_the_last_of_several_names_counts(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123")
        directory.link(LOG, "000002.log")
        file.write_at(b"xx", 0)
        file.close()
        directory.remove(LOG)
        again = directory.open("000002.log", Open.WRITE)
        drop(plan, again)
        assert content(directory, "000002.log") == b"0123"
        again.close()


class TestMemory:
    @pytest.fixture
    def directory(self, inner: Directory, plan: FaultPlan) -> FaultDirectory:
        return FaultDirectory(inner, plan, track=True, track_limit=4)

    def test_what_is_too_much_to_remember_counts_as_written_back(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = written(directory, b"0123456789")
        file.write_at(b"abc", 0)
        file.write_at(b"xyz", 5)
        file.write_at(b"tail", 10)
        drop(plan, file)
        assert content(directory) == b"01234xyz89" + bytes(4)
        file.close()

    @pytest.mark.parametrize("how", ["sync", "drop", "truncate", "remove"])
    def test_the_room_is_given_back(
        self, plan: FaultPlan, directory: FaultDirectory, how: str
    ) -> None:
        for _ in range(3):
            file = written(directory, b"0123456789")
            file.write_at(b"abcd", 4)
            match how:
                case "sync":
                    file.sync()
                case "drop":
                    drop(plan, file)
                case "truncate":
                    file.truncate(4)
                case _:
                    file.close()
                    directory.remove(LOG)
                    file = written(directory, b"0123456789")
            file.write_at(b"wxyz", 0)
            drop(plan, file)
            assert content(directory)[:4] == b"0123"
            file.close()


def test_a_disk_that_was_full_keeps_its_size(plan: FaultPlan) -> None:
    directory = FaultDirectory(MemoryDirectory(capacity=4096), plan, track=True)
    file = written(directory, b"x" * 4000)
    assert file.write_at(b"y" * 1000, 4000) == 96
    assert drop(plan, file).startswith("96 bytes")
    assert content(directory) == b"x" * 4000 + bytes(96)
    file.close()


def test_caches_above_are_told(plan: FaultPlan, directory: FaultDirectory) -> None:
    told: list[str] = []
    directory.on_spoiled = told.append
    file = written(directory, b"0123")
    file.write_at(b"x", 0)
    file.sync()
    assert told == []
    drop(plan, file)
    assert told == [LOG]
    assert plan.failures() == 1
    file.close()


# --- against a model --------------------------------------------------------------------------

offsets = st.integers(0, 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), offsets, st.binary(max_size=12)),
        st.tuples(st.just("truncate"), offsets, st.just(b"")),
        st.tuples(st.just("reopen"), st.just(0), st.just(b"")),
        st.tuples(st.just("rename"), st.just(0), st.just(b"")),
        st.tuples(st.just("sync"), st.just(0), st.just(b"")),
        st.tuples(st.just("drop"), st.just(0), st.just(b"")),
    ),
    max_size=20,
)


class Model:
    """The file, byte by byte: what is there now, and what a drop would leave of it."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.kept = bytearray()

    def write(self, offset: int, data: bytes) -> None:
        if data:
            end = offset + len(data)
            for content in (self.now, self.kept):
                content.extend(bytes(max(0, end - len(content))))
            self.now[offset:end] = data

    def truncate(self, size: int) -> None:
        for content in (self.now, self.kept):
            del content[size:]
            content.extend(bytes(size - len(content)))

    def sync(self) -> None:
        self.kept = bytearray(self.now)

    def drop(self) -> None:
        self.now = bytearray(self.kept)


@settings(max_examples=150)
@given(steps)
def test_any_history_ends_as_the_model_says(history: list[tuple[str, int, bytes]]) -> None:
    with FaultPlan() as plan:
        directory = FaultDirectory(MemoryDirectory(), plan, track=True)
        model, name = Model(), LOG
        file = directory.open(name, NEW)
        for action, offset, data in history:
            match action:
                case "write":
                    file.write_at(data, offset)
                    model.write(offset, data)
                case "truncate":
                    file.truncate(offset)
                    model.truncate(offset)
                case "reopen":
                    file.close()
                    file = directory.open(name, Open.WRITE)
                case "rename":
                    old, name = name, "000002.log" if name == LOG else LOG
                    directory.rename(old, name)
                case "sync":
                    file.sync()
                    model.sync()
                case _:
                    drop(plan, file)
                    model.drop()
            assert content(directory, name) == bytes(model.now)
        file.close()
