"""The overlay: what a directory does is asked by the conformance suite, what is its own here."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.format.filename import FileDesc, Kind
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs import snapshot
from avccfs.vfs.base import Attributes, Buffer, Directory, File, Open, Rename, Stat, exists
from avccfs.vfs.layered import Extent, Layered, Origin
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory, MemoryFile
from avccfs.vfs.overlay import Overlay
from avccfs.vfs.recorder import Operation, Recorder, Write

WRITE = Open.WRITE
NEW = Open.WRITE | Open.CREATE
BLOCK = 4096
TABLE = bytes(range(256)) * 160
"""Ten blocks."""


def put(directory: Directory, path: str, content: bytes, offset: int = 0) -> None:
    file = directory.open(path, NEW)
    assert file.write_at(content, offset) == len(content)
    file.close()


def get(directory: Directory, path: str) -> bytes:
    file = directory.open(path)
    try:
        return file.read_at(file.stat().size, 0)
    finally:
        file.close()


def fill(directory: Directory) -> None:
    directory.mkdir("d")
    put(directory, "table", TABLE)
    put(directory, "log", b"log")
    put(directory, "d/deep", b"deep")
    directory.link("log", "d/log")


@pytest.fixture
def lower() -> MemoryDirectory:
    directory = MemoryDirectory()
    fill(directory)
    return directory


@pytest.fixture(params=["memory", "local"])
def overlay(
    request: pytest.FixtureRequest, lower: MemoryDirectory, tmp_path: Path
) -> Iterator[Overlay]:
    upper = None if request.param == "memory" else LocalDirectory(tmp_path / "changes")
    made = Overlay(lower, upper)
    yield made
    made.close()


def stats(directory: Directory) -> dict[str, Stat]:
    return {name: directory.stat(name) for name in ("", "table", "log", "d", "d/deep", "d/log")}


class TestContent:
    def test_one_byte_costs_one_block(self, lower: MemoryDirectory) -> None:
        done: list[Operation] = []
        inner = MemoryDirectory()
        overlay = Overlay(lower, Recorder(inner, snapshot.take(inner), done))
        put(overlay, "table", b"X", 5 * BLOCK + 17)
        written = [each for each in done if isinstance(each, Write) and "ledger" not in each.path]
        assert [(each.offset, len(each.data)) for each in written] == [(5 * BLOCK, BLOCK), (5, 1)]
        changed = bytearray(TABLE)
        changed[5 * BLOCK + 17] = ord("X")
        assert get(overlay, "table") == changed
        assert get(lower, "table") == TABLE
        overlay.close()

    def test_appending_copies_nothing(self, overlay: Overlay) -> None:
        put(overlay, "table", b"tail", len(TABLE))
        assert overlay.origin("table") == Origin("table", (Extent(len(TABLE), 4),))
        assert get(overlay, "table") == TABLE + b"tail"

    def test_a_handle_sees_what_is_written_through_another_later(self, overlay: Overlay) -> None:
        reader = overlay.open("table")
        assert reader.read_at(3, 0) == TABLE[:3]
        through_link = overlay.open("d/log")
        put(overlay, "table", b"new", 1)
        put(overlay, "log", b"LOG")
        assert reader.read_at(5, 0) == TABLE[:1] + b"new" + TABLE[4:5]
        assert through_link.read_at(3, 0) == b"LOG"
        overlay.remove("table")
        put(overlay, "table", b"another file")
        assert reader.read_at(5, 0) == TABLE[:1] + b"new" + TABLE[4:5]
        assert reader.stat().nlink == 0
        reader.close()
        through_link.close()

    def test_a_removed_file_can_still_be_changed_by_who_has_it_open(self, overlay: Overlay) -> None:
        file = overlay.open("table", WRITE)
        overlay.rename("log", "table")
        assert file.write_at(b"gone", BLOCK) == 4
        assert file.read_at(6, BLOCK - 1) == TABLE[BLOCK - 1 : BLOCK] + b"gone" + TABLE[4:5]
        file.set_attributes(Attributes(mode=0o640))
        assert stat.S_IMODE(file.stat().mode) == 0o640
        file.truncate(BLOCK + 2)
        file.sync()
        assert file.read_at(100, BLOCK) == b"go"
        file.close()
        assert get(overlay, "table") == b"log"

    def test_what_was_cut_off_reads_as_zeros_when_the_file_grows(self, overlay: Overlay) -> None:
        put(overlay, "table", b"X" * 10, BLOCK)
        file = overlay.open("table", WRITE)
        file.truncate(BLOCK + 5)
        file.truncate(3 * BLOCK)
        assert file.read_at(3 * BLOCK, 0) == TABLE[:BLOCK] + b"XXXXX" + bytes(2 * BLOCK - 5)
        file.close()

    def test_a_read_across_what_is_ours_and_what_is_not(self, overlay: Overlay) -> None:
        expected = bytearray(TABLE)
        for block in (1, 2, 5, 9):
            put(overlay, "table", b"Y" * 100, block * BLOCK + 50)
            expected[block * BLOCK + 50 : block * BLOCK + 150] = b"Y" * 100
        file = overlay.open("table")
        for offset in range(0, len(TABLE), 1111):
            for size in (1, BLOCK, 3 * BLOCK + 7, 2**62):
                assert file.read_at(size, offset) == expected[offset : offset + size]
        file.close()
        origin = overlay.origin("table")
        assert origin is not None
        starts = [(each.offset // BLOCK, each.length // BLOCK) for each in origin.altered]
        assert starts == [(1, 2), (5, 1), (9, 1)]

    def test_a_source_that_shrinks_underneath_is_an_error_that_says_so(
        self, overlay: Overlay, lower: MemoryDirectory
    ) -> None:
        put(overlay, "table", b"X")
        file = overlay.open("table", WRITE)
        cut = lower.open("table", WRITE)
        cut.truncate(BLOCK)
        cut.close()
        with pytest.raises(OSError, match="the source was changed") as caught:
            file.read_at(BLOCK, 2 * BLOCK)
        assert caught.value.errno == errno.EIO
        file.close()

    @pytest.mark.parametrize("room", range(1, 6))
    def test_a_full_disk_leaves_old_or_new_bytes(self, lower: MemoryDirectory, room: int) -> None:
        upper = MemoryDirectory(capacity=BLOCK * (room + 1))
        overlay = Overlay(lower, upper)
        file = overlay.open("table", WRITE)
        new = b"N" * (4 * BLOCK)
        offset = BLOCK + 100
        count, failed = 0, False
        while count < len(new) and not failed:
            try:
                count += file.write_at(new[count:], offset + count)
            except OSError as exc:
                failed = exc.errno == errno.ENOSPC
        assert failed
        expected = TABLE[:offset] + new[:count] + TABLE[offset + count :]
        assert file.read_at(len(TABLE), 0) == expected
        # There may be no room for the marks either: whoever closes is told, and keeps the old.
        with contextlib.suppress(OSError):
            file.close()
        kept = get(Overlay(lower, copied(upper)), "table")
        assert len(kept) == len(TABLE)
        for at in range(0, len(TABLE), BLOCK):
            block = kept[at : at + BLOCK]
            assert block in (TABLE[at : at + BLOCK], expected[at : at + BLOCK])

    def test_several_threads_write_one_file(self, overlay: Overlay) -> None:
        file = overlay.open("table", WRITE)

        def work(worker: int) -> None:
            for piece in range(worker, 160, 4):
                file.write_at(bytes([worker]) * 256, piece * 256)
                assert file.read_at(256, piece * 256) == bytes([worker]) * 256

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert file.read_at(10**6, 0) == b"".join(bytes([each % 4]) * 256 for each in range(160))
        file.close()

    def test_names_and_content_from_several_threads(self, overlay: Overlay) -> None:
        stop = threading.Event()

        def churn() -> None:
            while not stop.is_set():
                put(overlay, "table", b"Z", 7 * BLOCK)
                overlay.rename("table", "moved")
                overlay.rename("moved", "table")
                overlay.set_attributes("log", Attributes(mode=0o600))

        with ThreadPoolExecutor(2) as pool:
            churner = pool.submit(churn)
            for _ in range(100):
                names = {*overlay.names(), *(name for name, _ in overlay.scan())}
                assert names >= {"d", "log"}
                assert get(overlay, "d/log") == b"log"
            stop.set()
            churner.result()
        assert get(overlay, "table")[: 7 * BLOCK] == TABLE[: 7 * BLOCK]


class TestNames:
    def test_a_renamed_folder_keeps_what_is_in_it(self, overlay: Overlay) -> None:
        overlay.rename("d", "e")
        put(overlay, "e/deep", b"X")
        assert get(overlay, "e/deep") == b"Xeep"
        overlay.mkdir("d")
        assert overlay.names("d") == []
        assert sorted(overlay.names("e")) == ["deep", "log"]
        overlay.rename("e", "d", Rename.EXCHANGE)
        assert sorted(overlay.names("d")) == ["deep", "log"]
        assert overlay.origin("d/deep") == Origin("d/deep", (Extent(0, 4),))

    def test_a_renamed_file_copies_nothing(self, overlay: Overlay) -> None:
        overlay.rename("table", "d/moved")
        assert overlay.origin("d/moved") == Origin("table", ())
        assert get(overlay, "d/moved") == TABLE

    def test_identity_outlives_changes(self, overlay: Overlay, lower: MemoryDirectory) -> None:
        inode = lower.stat("table").inode
        put(overlay, "table", b"X")
        overlay.rename("table", "d/moved")
        assert overlay.stat("d/moved").inode == inode
        assert overlay.stat("d").inode == lower.stat("d").inode
        put(overlay, "new", b"")
        assert overlay.stat("new").inode > 2**62

    def test_names_of_one_lower_file_stay_one_file(self, overlay: Overlay) -> None:
        put(overlay, "log", b"changed")
        assert get(overlay, "d/log") == b"changed"
        overlay.remove("log")
        assert overlay.stat("d/log").nlink == 1
        overlay.link("d/log", "again")
        assert overlay.stat("again") == overlay.stat("d/log")
        assert dict(overlay.scan("d"))["log"] == overlay.stat("again")

    def test_a_removed_folder_does_not_shine_through(self, overlay: Overlay) -> None:
        for name in overlay.names("d"):
            overlay.remove(f"d/{name}")
        overlay.rmdir("d")
        assert not exists(overlay, "d")
        overlay.mkdir("d")
        assert overlay.names("d") == []
        put(overlay, "d/log", b"new")
        assert overlay.stat("d/log").nlink == 1

    def test_times_of_a_folder_move_with_its_names(
        self, overlay: Overlay, lower: MemoryDirectory
    ) -> None:
        before = lower.stat("d")
        overlay.remove("d/deep")
        assert overlay.stat("d").mtime_ns > before.mtime_ns
        assert lower.stat("d") == before


class TestLower:
    def test_it_is_never_changed(self, overlay: Overlay, lower: MemoryDirectory) -> None:
        content, before = snapshot.take(lower), stats(lower)
        lock = overlay.lock(exclusive=True)
        put(overlay, "table", b"X")
        overlay.set_attributes("log", Attributes(mode=0o600, mtime_ns=1))
        overlay.set_attributes("d", Attributes(mode=0o700))
        overlay.rename("d", "e")
        overlay.remove("log")
        overlay.open("table", WRITE | Open.TRUNCATE).close()
        lock.release()
        assert snapshot.take(lower) == content
        assert stats(lower) == before

    def test_nothing_of_a_local_one_is_changed_not_even_times(self, tmp_path: Path) -> None:
        place = tmp_path / "db"
        fill(LocalDirectory(place))
        before = {path: path.lstat() for path in (place, *place.rglob("*"))}
        overlay = Overlay(LocalDirectory(place, read_only=True), LocalDirectory(tmp_path / "dir"))
        storage = DirectoryStorage(overlay)
        put(overlay, "table", b"X", BLOCK)
        overlay.scan()
        overlay.rename("d", "e")
        overlay.sync()
        storage.close()
        overlay.close()
        after = {path: path.lstat() for path in (place, *place.rglob("*"))}
        assert after == before

    def test_it_is_locked_against_writers_if_it_can_be(self, tmp_path: Path) -> None:
        put(LocalDirectory(tmp_path / "db"), "LOCK", b"")
        overlay = Overlay(LocalDirectory(tmp_path / "db", read_only=True))
        writer = LocalDirectory(tmp_path / "db")
        with pytest.raises(errors.LockedError):
            writer.lock(exclusive=True)
        Overlay(LocalDirectory(tmp_path / "db", read_only=True)).close()
        overlay.close()
        lock = writer.lock(exclusive=True)
        assert lock is not None
        with pytest.raises(errors.LockedError):
            Overlay(LocalDirectory(tmp_path / "db", read_only=True))
        Overlay(LocalDirectory(tmp_path / "db", read_only=True), take_lock=False).close()
        writer.close()

    def test_an_overlay_may_lie_over_an_overlay(self, lower: MemoryDirectory) -> None:
        first = Overlay(lower)
        put(first, "table", b"1")
        second = Overlay(first)
        put(second, "table", b"2", 1)
        second.remove("log")
        assert get(second, "table")[:3] == b"12\x02"
        assert get(first, "table")[:3] == b"1\x01\x02"
        assert exists(first, "log")
        second.close()


class TestLayered:
    def test_it_is_one(self, overlay: Overlay, lower: MemoryDirectory) -> None:
        layered: Layered = overlay
        assert layered.lower is lower

    def test_origins(self, overlay: Overlay) -> None:
        put(overlay, "new", b"new")
        overlay.open("log", WRITE | Open.TRUNCATE).close()
        overlay.symlink("link", "table")
        assert overlay.origin("new") is None
        assert overlay.origin("log") is None
        assert overlay.origin("d/deep") == Origin("d/deep", ())
        for path, code in (("d", errno.EINVAL), ("link", errno.EINVAL), ("no", errno.ENOENT)):
            with pytest.raises(OSError, match=path) as caught:
                overlay.origin(path)
            assert caught.value.errno == code

    def test_changed(self, overlay: Overlay) -> None:
        acts: list[Callable[[], object]] = [
            lambda: put(overlay, "new", b"new"),
            lambda: put(overlay, "table", b"X"),
            lambda: overlay.remove("d/deep"),
            lambda: overlay.rename("d", "e"),
            lambda: overlay.set_attributes("log", Attributes(mode=0o600)),
            lambda: overlay.set_attributes("d", Attributes(mode=0o700)),
            lambda: overlay.link("table", "d/other"),
        ]
        told = []
        for act in acts:
            told.append(overlay.changed)
            act()
            told.append(overlay.changed)
            overlay.reset()
        assert told == [False, True] * len(acts)

    def test_what_leaves_no_trace_is_no_change(self, overlay: Overlay) -> None:
        lock = overlay.lock(exclusive=True)
        put(overlay, "LOCK", b"of an engine")
        put(overlay, "passing", b"")
        overlay.remove("passing")
        overlay.rename("d", "e")
        overlay.rename("e", "d")
        overlay.open("table", WRITE).close()
        assert not overlay.changed
        lock.release()

    def test_busy(self, overlay: Overlay) -> None:
        files = [overlay.open("table"), overlay.open("d/deep", WRITE), overlay.open("log")]
        assert overlay.busy() == ["d/deep"]
        put(overlay, "log", b"X")
        overlay.rename("d", "e")
        assert overlay.busy() in (["e/deep", "e/log"], ["e/deep", "log"])
        for file in files:
            file.close()
        assert overlay.busy() == []

    def test_reset_shows_the_lower_directory_as_it_is_now(
        self, overlay: Overlay, lower: MemoryDirectory
    ) -> None:
        put(overlay, "table", b"X")
        overlay.remove("log")
        overlay.rename("d", "e")
        unchanged = overlay.open("e/deep")
        put(lower, "fresh", b"from below")
        overlay.reset()
        assert snapshot.take(overlay) == snapshot.take(lower)
        assert unchanged.read_at(10, 0) == b"deep"
        put(overlay, "d/deep", b"X")
        assert unchanged.read_at(10, 0) == b"Xeep"
        unchanged.close()
        overlay.check_lower()

    def test_reset_is_refused_while_a_changed_file_is_open(self, overlay: Overlay) -> None:
        put(overlay, "table", b"X")
        overlay.rename("log", "renamed")
        for path in ("table", "renamed"):
            file = overlay.open(path)
            with pytest.raises(OSError, match=path) as caught:
                overlay.reset()
            assert caught.value.errno == errno.EBUSY
            file.close()
        removed = overlay.open("d/deep")
        overlay.remove("d/deep")
        with pytest.raises(OSError, match="deep"):
            overlay.reset()
        removed.close()
        told = overlay.changed
        overlay.reset()
        assert (told, overlay.changed) == (True, False)

    def test_a_reset_keeps_the_lock(self, overlay: Overlay) -> None:
        lock = overlay.lock(exclusive=True)
        overlay.reset()
        assert exists(overlay, "LOCK")
        with pytest.raises(errors.LockedError):
            overlay.lock(exclusive=False)
        lock.release()


class Grudging(MemoryDirectory):
    """Memory whose files fail when told so: `fails` maps a part of a path to an errno."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: dict[tuple[str, str], int] = {}
        self.room: int | None = None
        """How many bytes more files in `data` take, to the byte; None: any number."""

    def grudge(self, act: str, path: str) -> None:
        for (denied, part), code in self.fails.items():
            if denied == act and part in path:
                raise OSError(code, os.strerror(code), path)

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> MemoryFile:
        self.grudge("open", path)
        file = super().open(path, flags, mode)
        assert isinstance(file, MemoryFile)
        return GrudgingFile(self, file, path)  # type: ignore[return-value]

    def remove(self, path: str) -> None:
        self.grudge("remove", path)
        super().remove(path)


class GrudgingFile:
    def __init__(self, directory: Grudging, inner: File, path: str) -> None:
        self.directory = directory
        self.inner = inner
        self.path = path

    def read_at(self, size: int, offset: int) -> bytes:
        return self.inner.read_at(size, offset)

    def write_at(self, data: Buffer, offset: int) -> int:
        self.directory.grudge("write", self.path)
        room = self.directory.room
        if room is None or not self.path.startswith("data/"):
            return self.inner.write_at(data, offset)
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        done = self.inner.write_at(memoryview(data)[:room], offset)
        self.directory.room = room - done
        return done

    def truncate(self, size: int) -> None:
        self.inner.truncate(size)

    def sync(self, *, data_only: bool = False) -> None:
        self.directory.grudge("sync", self.path)
        self.inner.sync(data_only=data_only)

    def stat(self) -> Stat:
        return self.inner.stat()

    def set_attributes(self, change: Attributes) -> None:
        if change.uid is not None:
            self.directory.grudge("chown", self.path)
        self.inner.set_attributes(change)

    def close(self) -> None:
        self.inner.close()


class TestTrouble:
    @pytest.mark.parametrize("room", [0, 1, 99, 100, 101, BLOCK, BLOCK + 100, 2 * BLOCK, 9000])
    def test_a_block_of_which_a_part_came_through_stays_as_it_was(
        self, lower: MemoryDirectory, room: int
    ) -> None:
        upper = Grudging()
        overlay = Overlay(lower, upper)
        put(overlay, "table", b"X" * BLOCK, 2 * BLOCK)
        before = get(overlay, "table")
        upper.room = room
        file = overlay.open("table", WRITE)
        new, offset = b"N" * (2 * BLOCK), BLOCK + 100
        count = 0
        with contextlib.suppress(OSError):
            count = file.write_at(new, offset)
        assert count < len(new)
        expected = before[:offset] + new[:count] + before[offset + count :]
        assert file.read_at(len(TABLE), 0) == expected
        with pytest.raises(OSError, match="space"):
            file.write_at(new[count:], offset + count)
        assert file.read_at(len(TABLE), 0) == expected

    def test_a_change_that_cannot_be_written_down_did_not_happen(
        self, lower: MemoryDirectory
    ) -> None:
        upper = Grudging()
        overlay = Overlay(lower, upper, close_inner=False)
        put(overlay, "kept", b"kept")
        before = snapshot.take(overlay)
        upper.fails["write", "ledger"] = errno.ENOSPC
        acts: list[Callable[[], object]] = [
            lambda: put(overlay, "new", b"new"),
            lambda: put(overlay, "table", b"X"),
            lambda: overlay.remove("log"),
            lambda: overlay.rename("d", "e"),
            lambda: overlay.set_attributes("log", Attributes(mode=0o600)),
        ]
        for act in acts:
            with pytest.raises(OSError, match="space"):
                act()
            assert snapshot.take(overlay) == before
        upper.fails.clear()
        overlay.remove("log")
        overlay.close()
        anew = Overlay(lower, upper)
        assert sorted(anew.names()) == ["d", "kept", "table"]
        assert upper.names("data") == ["2"]

    def test_a_cut_that_cannot_be_written_down_stays_a_cut(self, lower: MemoryDirectory) -> None:
        upper = Grudging()
        overlay = Overlay(lower, upper, close_inner=False)
        put(overlay, "table", b"X", 5 * BLOCK)
        file = overlay.open("table", WRITE)
        upper.fails["write", "ledger"] = errno.ENOSPC
        with pytest.raises(OSError, match="space"):
            file.truncate(10)
        with pytest.raises(OSError, match="space"):
            file.truncate(BLOCK)
        assert file.stat().size == 10
        killed = copied(upper)
        anew = Overlay(lower, killed, close_inner=False)
        grown = anew.open("table", WRITE)
        grown.truncate(20)
        assert grown.read_at(99, 0) == TABLE[:10] + bytes(10)
        upper.fails.clear()
        file.truncate(20)
        assert file.read_at(99, 0) == TABLE[:10] + bytes(10)
        file.close()

    @pytest.mark.parametrize("of", ["names", "file"])
    def test_a_ledger_that_could_not_be_synced_is_not_trusted_again(
        self, lower: MemoryDirectory, of: str
    ) -> None:
        upper = Grudging()
        overlay = Overlay(lower, upper, close_inner=False)
        (before,) = (name for name in upper.names() if name.startswith("ledger"))
        overlay.remove("log")
        new = overlay.open("new", NEW)
        sync = new.sync if of == "file" else overlay.sync
        upper.fails["sync", "ledger"] = errno.EIO
        with pytest.raises(OSError, match="Input/output"):
            sync()
        with pytest.raises(OSError, match="Input/output"):
            sync()
        assert [name for name in upper.names() if name.startswith("ledger")] == [before]
        upper.fails.clear()
        sync()
        new.close()
        assert before not in upper.names()
        assert not exists(Overlay(lower, copied(upper)), "log")

    def test_an_owner_who_cannot_be_given_is_remembered(self, lower: MemoryDirectory) -> None:
        lower.set_attributes("table", Attributes(uid=12345, gid=54321))
        upper = Grudging()
        upper.fails["chown", "data"] = errno.EPERM
        overlay = Overlay(lower, upper, close_inner=False)
        put(overlay, "table", b"X")
        overlay.set_attributes("table", Attributes(uid=12345, mode=0o600))
        overlay.close()
        told = Overlay(lower, upper, close_inner=False).stat("table")
        assert (told.uid, told.gid, stat.S_IMODE(told.mode)) == (12345, 54321, 0o600)

    def test_files_that_resist_deletion_are_cleared_away_by_the_next_opening(
        self, lower: MemoryDirectory
    ) -> None:
        upper = Grudging()
        overlay = Overlay(lower, upper, close_inner=False)
        put(overlay, "new", b"new")
        upper.fails["remove", "data"] = errno.EIO
        overlay.remove("new")
        overlay.close()
        assert upper.names("data") != []
        upper.fails.clear()
        Overlay(lower, upper, close_inner=False).close()
        assert upper.names("data") == []

    def test_files_waiting_to_be_deleted_do_not_pile_up(self, lower: MemoryDirectory) -> None:
        upper = MemoryDirectory()
        overlay = Overlay(lower, upper)
        for number in range(300):
            put(overlay, f"{number}", b"passing")
            overlay.remove(f"{number}")
        assert len(upper.names("data")) < 100
        overlay.close()


def copied(directory: Directory) -> MemoryDirectory:
    """What a killed process leaves: everything that was written, no lock."""
    copy = MemoryDirectory()
    snapshot.put(snapshot.take(directory), copy)
    return copy


def test_an_engine_storage_works_on_it(overlay: Overlay) -> None:
    storage = DirectoryStorage(overlay)
    desc = FileDesc(7, Kind.MANIFEST)
    writer = storage.create(desc)
    writer.write(b"manifest")
    writer.sync()
    writer.close()
    storage.set_meta(desc)
    assert storage.get_meta() == desc
    put(overlay, "other", b"")
    storage.replace_lock("other")
    storage.close()
    assert get(overlay, "CURRENT") == b"MANIFEST-000007\n"
