"""An overlay that keeps its changes in a directory: shown again, and refused where it must be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.format import journal
from avccfs.vfs import snapshot
from avccfs.vfs.base import Attributes, Directory, Open, Rename
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.overlay import LowerChangedError, Overlay, UpperError
from avccfs.vfs.overlay.ledger import FileLedger
from tests.vfs.test_overlay import BLOCK, TABLE, WRITE, copied, fill, get, put


@pytest.fixture
def lower() -> MemoryDirectory:
    directory = MemoryDirectory()
    fill(directory)
    return directory


@pytest.fixture
def upper() -> MemoryDirectory:
    return MemoryDirectory()


def over(lower: Directory, upper: Directory) -> Overlay:
    return Overlay(lower, upper, close_inner=False)


def ledger_in(upper: Directory) -> str:
    (name,) = (name for name in upper.names() if name.startswith("ledger-"))
    return name


def work(overlay: Overlay) -> None:
    """One of everything."""
    put(overlay, "table", b"X", 3 * BLOCK + 1)
    put(overlay, "d/log", b"tail", 3)
    put(overlay, "new", b"new content")
    overlay.mkdir("made", 0o700)
    overlay.rename("d", "made/d")
    overlay.rename("new", "made/d", Rename.EXCHANGE)
    overlay.symlink("made/link", "../table")
    overlay.link("table", "hard")
    overlay.set_attributes("made", Attributes(mode=0o711, mtime_ns=5))
    overlay.set_attributes("hard", Attributes(mode=0o640, uid=77))
    overlay.set_attributes("made/link", Attributes(mtime_ns=6))
    overlay.remove("log")


class TestShownAgain:
    def test_everything_is(self, lower: MemoryDirectory, upper: MemoryDirectory) -> None:
        overlay = over(lower, upper)
        work(overlay)
        shown = snapshot.take(overlay)
        paths = [path for path, _ in snapshot.walk(shown)]
        told = {path: overlay.stat(path) for path in ["", *paths]}
        origins = {name: overlay.origin(name) for name in ("table", "made/d", "new/log")}
        overlay.close()
        for _ in range(2):
            overlay = over(lower, upper)
            assert snapshot.take(overlay) == shown
            assert {path: overlay.stat(path) for path in ["", *paths]} == told
            assert {name: overlay.origin(name) for name in origins} == origins
            overlay.close()

    def test_the_ledger_begins_anew_when_it_has_grown(
        self, lower: MemoryDirectory, upper: MemoryDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FileLedger, "GROWTH", 3000)
        overlay = over(lower, upper)
        first = ledger_in(upper)
        for number in range(50):
            put(overlay, f"{number}", b"x")
            overlay.rename(f"{number}", "last")
        work(overlay)
        assert ledger_in(upper) > first
        assert upper.stat(ledger_in(upper)).size < 12_000
        shown = snapshot.take(overlay)
        overlay.close()
        assert snapshot.take(over(lower, upper)) == shown

    def test_names_that_are_not_text(self, lower: MemoryDirectory, upper: MemoryDirectory) -> None:
        overlay = over(lower, upper)
        put(overlay, "\udcff", b"odd")
        overlay.close()
        assert get(over(lower, upper), "\udcff") == b"odd"

    def test_a_killed_process_loses_only_what_was_written_over(
        self, lower: MemoryDirectory, upper: MemoryDirectory
    ) -> None:
        overlay = over(lower, upper)
        synced = overlay.open("table", WRITE)
        synced.write_at(b"S", 0)
        synced.sync()
        closed = overlay.open("d/deep", WRITE)
        closed.write_at(b"C", 0)
        closed.close()
        synced.write_at(b"lost", 5 * BLOCK)
        synced.write_at(b"appended", len(TABLE))
        new = overlay.open("new", WRITE | Open.CREATE)
        new.write_at(b"never synced", 0)
        overlay.rename("log", "renamed")
        anew = over(lower, copied(upper))
        table = get(anew, "table")
        assert table == b"S" + TABLE[1:] + b"appended"
        assert get(anew, "d/deep") == b"Ceep"
        assert get(anew, "new") == b"never synced"
        assert sorted(anew.names()) == ["d", "new", "renamed", "table"]

    def test_a_torn_end_of_the_ledger_is_dropped(
        self, lower: MemoryDirectory, upper: MemoryDirectory
    ) -> None:
        overlay = over(lower, upper)
        put(overlay, "kept", b"kept")
        sizes = [upper.stat(ledger_in(upper)).size]
        overlay.rename("kept", "renamed")
        sizes.append(upper.stat(ledger_in(upper)).size)
        for size in range(sizes[0], sizes[1] + 1, 7):
            torn = copied(upper)
            file = torn.open(ledger_in(torn), WRITE)
            file.truncate(size)
            file.close()
            assert get(over(lower, torn), "kept") == b"kept"

    def test_only_a_one_marks_a_block(self, lower: MemoryDirectory, upper: MemoryDirectory) -> None:
        overlay = over(lower, upper)
        put(overlay, "table", b"X", 5)
        overlay.close()
        (marks,) = (name for name in upper.names("data") if name.endswith(".blocks"))
        put(upper, f"data/{marks}", b"\1\2\xff\0")
        assert get(over(lower, upper), "table") == TABLE[:5] + b"X" + TABLE[6:]

    def test_a_read_only_upper_directory_is_shown_and_left_alone(
        self, lower: MemoryDirectory, tmp_path: Path
    ) -> None:
        with_changes = over(lower, LocalDirectory(tmp_path / "dir"))
        work(with_changes)
        shown = snapshot.take(with_changes)
        with_changes.close()
        place = tmp_path / "dir"
        lost = next(path for path in (place / "data").iterdir() if path.suffix == "")
        LocalDirectory(place).close()
        before = {path: path.lstat() for path in place.rglob("*")}
        overlay = over(lower, LocalDirectory(place, read_only=True))
        assert overlay.read_only
        assert snapshot.take(overlay) == shown
        with pytest.raises(errors.ReadOnlyError):
            overlay.remove("table")
        with pytest.raises(errors.ReadOnlyError):
            overlay.open("table", WRITE)
        assert {path: path.lstat() for path in place.rglob("*")} == before
        overlay.close()
        lost.unlink()
        snapshot.take(over(lower, LocalDirectory(place, read_only=True)))
        assert not lost.exists()


class TestRefused:
    def test_while_it_is_open_elsewhere(self, lower: MemoryDirectory, tmp_path: Path) -> None:
        first = Overlay(lower, LocalDirectory(tmp_path / "dir"), close_inner=False)
        with pytest.raises(errors.LockedError):
            Overlay(lower, LocalDirectory(tmp_path / "dir"))
        first.close()
        Overlay(lower, LocalDirectory(tmp_path / "dir")).close()

    def test_a_directory_with_something_else_in_it(
        self, lower: MemoryDirectory, upper: MemoryDirectory
    ) -> None:
        put(upper, "precious", b"data")
        before = snapshot.take(upper, leave_out=["LOCK"])
        with pytest.raises(UpperError, match="precious"):
            over(lower, upper)
        assert snapshot.take(upper, leave_out=["LOCK"]) == before

    def test_a_folder_data_that_is_not_ours(
        self, lower: MemoryDirectory, upper: MemoryDirectory
    ) -> None:
        upper.mkdir("data")
        put(upper, "data/1", b"precious")
        with pytest.raises(UpperError, match="data/1"):
            over(lower, upper)

    def test_a_ledger_of_something_else(
        self, lower: MemoryDirectory, upper: MemoryDirectory
    ) -> None:
        for payload in (b"not json", b'{"other": 1}', b"[]"):
            directory = MemoryDirectory()
            put(directory, "ledger-000001", journal.frame(payload, 0))
            with pytest.raises(UpperError, match="ledger-000001"):
                over(lower, directory)

    def test_another_version(self, lower: MemoryDirectory, upper: MemoryDirectory) -> None:
        header = {"avccfs overlay": 99, "source": "mem:", "lower": {}, "next": 2}
        put(upper, "ledger-000001", journal.frame(json.dumps(header).encode(), 0))
        with pytest.raises(UpperError, match="99"):
            over(lower, upper)

    def test_a_record_that_makes_no_sense(
        self, lower: MemoryDirectory, upper: MemoryDirectory
    ) -> None:
        over(lower, upper).close()
        name = ledger_in(upper)
        size = upper.stat(name).size
        record = {"now": 1, "next": 9, "nodes": [], "names": [[77, "x", 0]]}
        put(upper, name, journal.frame(json.dumps(record).encode(), size), size)
        with pytest.raises(UpperError, match="record 1"):
            over(lower, upper)

    def test_the_changes_of_another_source(
        self, lower: MemoryDirectory, upper: MemoryDirectory
    ) -> None:
        Overlay(lower, upper, source="/var/one", close_inner=False).close()
        with pytest.raises(UpperError, match=r"/var/one.*/var/two"):
            Overlay(lower, upper, source="/var/two", close_inner=False)
        Overlay(lower, upper, source="/var/two", any_source=True, close_inner=False).close()

    def test_a_source_that_changed(self, lower: MemoryDirectory, upper: MemoryDirectory) -> None:
        over(lower, upper).close()
        put(lower, "table", b"X")
        put(lower, "d/added", b"")
        lower.remove("log")
        with pytest.raises(LowerChangedError) as caught:
            over(lower, upper)
        text = str(caught.value)
        assert "added d/added" in text
        assert "removed log" in text
        assert "changed table" in text
        assert "avccfs discard mem:" in text
        Overlay(lower, upper, check=False, close_inner=False).close()
        with pytest.raises(LowerChangedError):
            over(lower, upper)

    def test_a_refusal_holds_no_lock(self, lower: MemoryDirectory, upper: MemoryDirectory) -> None:
        put(upper, "precious", b"data")
        with pytest.raises(UpperError):
            over(lower, upper)
        upper.remove("precious")
        over(lower, upper).close()


class TestSource:
    def test_what_is_no_part_of_it_may_change(
        self, lower: MemoryDirectory, upper: MemoryDirectory
    ) -> None:
        over(lower, upper).close()
        put(lower, "LOCK", b"")
        lower.mkdir(".avccfs-commit")
        put(lower, ".avccfs-commit/list", b"")
        over(lower, upper).close()

    def test_it_can_be_asked_at_any_time(self, lower: MemoryDirectory) -> None:
        for changes in (None, MemoryDirectory()):
            overlay = Overlay(lower, changes, close_inner=False)
            put(overlay, "table", b"X")
            overlay.check_lower()
            put(lower, f"added{changes}", b"")
            with pytest.raises(LowerChangedError, match="added"):
                overlay.check_lower()
            overlay.reset()
            overlay.check_lower()

    def test_a_reset_is_over_what_the_source_is_then(
        self, lower: MemoryDirectory, upper: MemoryDirectory
    ) -> None:
        overlay = over(lower, upper)
        work(overlay)
        put(lower, "table", b"X")
        overlay.reset()
        assert [name for name in upper.names("data") if name] == []
        overlay.close()
        anew = over(lower, upper)
        assert not anew.changed
        assert snapshot.take(anew) == snapshot.take(lower)
