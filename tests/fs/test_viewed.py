"""The hidden folder of views over databases, in process: everything, of this moment, read-only."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avccfs.errors import UsageError
from avccfs.format import batch, journal
from avccfs.format.manifest import AddedTable, DeletedTable, SessionRecord
from avccfs.fs.inodes import ROOT
from avccfs.fs.viewed import ViewedCore
from avccfs.fs.views import FIRST
from avccfs.fuse.options import MountOptions
from avccfs.session.engines import Engine
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Directory, Rename
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from tests.cli.running import run
from tests.fs.databases import tree_below
from tests.fs.places import CorePlace, Place, names_in, opening, read_all, refused, write_all
from tests.session.handmade import fixture_files, in_memory
from tests.session.made import Made, directory_of, put

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
HIDDEN = ".avccfs"
ALWAYS = ["status.json", "session.json", "explain", "check.txt", "edits", "live", "log"]


@contextmanager
def viewed(
    directory: Directory, name: str = HIDDEN, *, read_only: bool = False, locked: bool = True
) -> Iterator[CorePlace]:
    """The mount's file system in process; at the end nothing of it is in use."""
    storage = DirectoryStorage(directory, read_only=read_only, take_lock=locked)
    with closing(ViewedCore(storage, name)) as core:
        yield CorePlace(core, "views")
        assert core.counts() == (1, 0)
        numbers, contents = core.views.counts()
        # Only what is kept for the next look.
        assert numbers == contents + 1


def copied(fixture: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / fixture / "db", tmp_path / "source"))


def files_in(place: CorePlace, folder: str = HIDDEN) -> Iterator[str]:
    """Every view, by path; links are not followed."""
    for name in names_in(place, folder):
        path = f"{folder}/{name}"
        mode = place.facts(path).mode
        if stat.S_ISDIR(mode):
            yield from files_in(place, path)
        elif stat.S_ISREG(mode):
            yield path


def text(place: CorePlace, view: str) -> str:
    return exact(place, f"{HIDDEN}/{view}").decode()


def exact(place: CorePlace, path: str) -> bytes:
    """The content of a view, which is as long as was said before anybody read it."""
    size = place.facts(path).size
    content = read_all(place, path)
    assert len(content) == size
    return content


def objects(content: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


def all_views(place: CorePlace) -> dict[str, bytes]:
    return {path.removeprefix(f"{HIDDEN}/"): exact(place, path) for path in files_in(place)}


def expected_names(files: Iterable[str]) -> set[str]:
    names = {"status.json", "session.json", "check.txt", "log"}
    names |= {f"explain/{engine.value}.txt" for engine in Engine}
    names |= {f"live/{engine.value}.jsonl" for engine in Engine}
    for name in files:
        if name.startswith("MANIFEST-"):
            names.add(f"manifest/{name}.jsonl")
        elif name.endswith((".ldb", ".sst")):
            names.add(f"table/{name}.jsonl")
        elif name.endswith(".log"):
            names.add(f"journal/{name}.jsonl")
    return names


@pytest.mark.parametrize("name", NAMES)
def test_every_fixture_has_all_views(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copied(name, tmp_path)
    files = fixture_files(name)
    with viewed(LocalDirectory(source, read_only=True), read_only=True, locked=False) as place:
        found = all_views(place)
    with viewed(in_memory(files)) as place:
        in_mem = all_views(place)
    assert set(found) == set(in_mem) == expected_names(files)
    # The same whatever holds the files, but for what that is called.
    for path in set(found) - {"status.json", "log"}:
        here, there = str(source).encode(), b"mem:"
        assert found[path].replace(here, there) == in_mem[path], path

    # The same as the commands say.
    assert found["check.txt"].decode() == run("check", source).text
    monkeypatch.chdir(source)
    for path, content in found.items():
        if path.startswith(("manifest/", "journal/", "table/")):
            file = path.partition("/")[2].removesuffix(".jsonl")
            assert content == run("dump", file, "--format", "jsonl").out, path
    assert objects(found["session.json"].replace(b"\n", b" "))
    for engine in Engine:
        said = run("explain", source, "--engine", engine.value).text
        assert found[f"explain/{engine.value}.txt"].decode().rstrip() in said

    # The same as the engines do.
    expected = json.loads((FIXTURES / name / "expect.json").read_text())
    for real in ("leveldb", "goleveldb"):
        lines = objects(found[f"live/{real}.jsonl"])
        opened = expected.get(f"{real}.open")
        if opened is not None:
            ended = "error" in opened or bool(opened.get("iter_error"))
            assert sum(line["type"] == "live" for line in lines) == opened.get("keys", 0)
            assert any(line["type"] in ("refusal", "stop") for line in lines) == ended


def test_views_of_a_directory_without_any_database() -> None:
    with viewed(MemoryDirectory()) as place:
        found = all_views(place)
        assert set(found) == expected_names(())
        assert names_in(place, f"{HIDDEN}/edits") == names_in(place, f"{HIDDEN}/table") == []
        # LevelDB makes a database of what is none, if it is allowed to.
        assert all(found[f"live/{engine.value}.jsonl"] for engine in Engine)


def test_what_is_no_regular_file_has_no_view() -> None:
    directory = in_memory(fixture_files("leveldb-closed"))
    directory.mkdir("000091.ldb")
    directory.symlink("000092.log", "CURRENT")
    directory.symlink("MANIFEST-000093", "MANIFEST-000093")
    with viewed(directory) as place:
        views = set(all_views(place))
        assert views == expected_names(fixture_files("leveldb-closed"))
        for path in ("table/000091.ldb", "journal/000092.log", "manifest/MANIFEST-000093"):
            with refused(errno.ENOENT):
                place.facts(f"{HIDDEN}/{path}.jsonl")


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "table/000005.ldb",
        "table/000099.ldb.jsonl",
        "table/CURRENT.jsonl",
        "table/000008.log.jsonl",
        "journal/000003.ldb.jsonl",
        "table/..jsonl",
        "edits/0",
        "edits/01",
        "edits/6",
        "edits/-1",
        "edits/1²",
        "edits/" + "9" * 250,
        "edits/5/000004.ldb",
        "edits/5/000005.sst",
        "edits/5/CURRENT",
        "edits/1/000003.ldb",
        "explain/rocksdb.txt",
    ],
)
def test_what_is_not_there_is_not_there(path: str) -> None:
    with viewed(in_memory(fixture_files("goleveldb-closed"))) as place:
        assert names_in(place, f"{HIDDEN}/edits") == ["1", "2", "3", "4", "5"]
        with refused(errno.ENOENT):
            place.facts(f"{HIDDEN}/{path}")


def test_edits_lead_to_the_tables_that_were_live() -> None:
    files = fixture_files("goleveldb-closed")
    with viewed(in_memory(files)) as place:
        for edit, tables in {2: "", 3: "3", 4: "35", 5: "357"}.items():
            folder = f"{HIDDEN}/edits/{edit}"
            names = [f"00000{number}.ldb" for number in tables]
            assert names_in(place, folder) == names
            for name in names:
                target = place.readlink(f"{folder}/{name}")
                assert place.facts(f"{folder}/{name}").size == len(target)
                path = os.path.normpath(f"{folder}/{target}")
                assert read_all(place, path) == files[name]


def with_edits() -> Made:
    """Three edits: tables 5 and 6; 6 goes and 7 comes; 5 moves down a level."""
    made = Made()
    for number in (5, 6, 7):
        made.add_table(number, [[put(f"key {number}", number)]])
    five, six, seven = made.state.added_tables
    made.say(added_tables=(five, six))
    made.later = [
        SessionRecord(deleted_tables=(DeletedTable(0, 6),), added_tables=(seven,)),
        SessionRecord(deleted_tables=(DeletedTable(0, 5),), added_tables=(replace(five, level=1),)),
    ]
    return made


def edits(place: CorePlace) -> list[list[str]]:
    numbers = sorted(names_in(place, f"{HIDDEN}/edits"), key=int)
    assert numbers == [str(number + 1) for number in range(len(numbers))]
    return [names_in(place, f"{HIDDEN}/edits/{number}") for number in numbers]


def test_each_edit_has_the_tables_after_it() -> None:
    with viewed(with_edits().directory()) as place:
        assert edits(place) == [
            ["000005.ldb", "000006.ldb"],
            ["000005.ldb", "000007.ldb"],
            ["000005.ldb", "000007.ldb"],
        ]


def test_edit_names_tables_as_they_are_called_and_those_that_are_gone() -> None:
    made = with_edits()
    files = made.all_files()
    files["000005.sst"] = files.pop("000005.ldb")
    del files["000006.ldb"]
    files["000007.sst"] = b"not the one that engines look at first"
    with viewed(directory_of(files)) as place:
        assert edits(place)[:2] == [["000005.sst", "000006.ldb"], ["000005.sst", "000007.ldb"]]
        assert place.readlink(f"{HIDDEN}/edits/1/000006.ldb") == "../../../000006.ldb"


def test_tables_that_never_were_are_links_into_nothing() -> None:
    made = Made()
    added = AddedTable(0, (1 << 63) - 1, 1, b"a" * 8, b"b" * 8)
    made.later = [SessionRecord(added_tables=(added,))]
    with viewed(made.directory()) as place:
        assert edits(place) == [[], ["9223372036854775807.ldb"]]


def test_edits_behind_damage_count_for_nothing() -> None:
    made = with_edits()
    for number in range(20, 60):
        added = AddedTable(0, number, 1, put("a" * 2000, 1)[0], put("b", 1)[0])
        made.later.append(SessionRecord(added_tables=(added,)))
    sound = made.all_files()
    broken = bytearray(sound["MANIFEST-000002"])
    broken[40_000] ^= 1
    with viewed(directory_of({**sound, "MANIFEST-000002": bytes(broken)})) as place:
        lines = objects(text(place, "manifest/MANIFEST-000002.jsonl"))
        assert any(line.get("salvaged") for line in lines)
        read = [line["edit"] for line in lines if line.get("edit")]
        assert [str(number) for number in read] == sorted(
            names_in(place, f"{HIDDEN}/edits"), key=int
        )
        assert len(edits(place)[-1]) == len(read) - 1


# -- of this moment


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CorePlace]:
    """A closed database of goleveldb, writable."""
    directory: Directory
    if request.param == "local":
        directory = LocalDirectory(copied("goleveldb-closed", tmp_path))
    else:
        directory = in_memory(fixture_files("goleveldb-closed"))
    with viewed(directory) as one:
        yield one


def more_of_a_journal(sequence: int, key: bytes) -> bytes:
    changes = [batch.Change(key, b"value")]
    return journal.Writer().append(batch.encode(sequence, changes))


def test_what_is_written_shows_at_once(place: CorePlace) -> None:
    before = text(place, "session.json")
    for turn in range(3):
        with opening(place, "000009.log", os.O_RDWR | os.O_CREAT) as file:
            file.append(more_of_a_journal(500 + turn, b"later %d" % turn))
            # Not closed, not synced.
            lines = objects(text(place, "journal/000009.log.jsonl"))
            assert [line["key"] for line in lines if line["type"] == "entry"][-1] == (
                f"later {turn}"
            )
            assert f'"later {turn}"' in text(place, "live/goleveldb.jsonl")
    assert text(place, "session.json") != before
    place.unlink("000009.log")
    with refused(errno.ENOENT):
        place.facts(f"{HIDDEN}/journal/000009.log.jsonl")
    assert "later" not in text(place, "live/goleveldb.jsonl")
    assert text(place, "session.json") == before


def test_open_view_keeps_its_bytes_while_the_file_changes(place: CorePlace) -> None:
    path = f"{HIDDEN}/journal/000008.log.jsonl"
    before = exact(place, path)
    with opening(place, path) as view, opening(place, "000008.log", os.O_RDWR) as file:
        file.truncate(0)
        assert len(exact(place, path)) < len(before)
        assert view.read(1 << 20, 0) == before
        assert view.facts().size == len(before)


def test_switch_of_current_shows_in_session_and_edits(place: CorePlace) -> None:
    before = text(place, "session.json")
    made = with_edits()
    made.manifest = 20
    write_all(place, "MANIFEST-000020", made.all_files()["MANIFEST-000020"])
    assert len(edits(place)) == 5
    write_all(place, "CURRENT", b"MANIFEST-000020\n")
    assert edits(place)[0] == ["000005.ldb", "000006.ldb"]
    assert len(edits(place)) == 3
    assert "MANIFEST-000020" in text(place, "session.json") != before
    assert "CURRENT names 'MANIFEST-000020'" in text(place, "explain/leveldb.txt")
    # And what LevelDB does: it renames.
    write_all(place, "000021.dbtmp", b"MANIFEST-000000\n")
    place.rename("000021.dbtmp", "CURRENT")
    assert len(edits(place)) == 5


def test_log_tells_what_was_refused_and_what_was_changed(place: CorePlace) -> None:
    assert text(place, "log") == ""
    with refused(errno.ENOENT):
        write_all(place, "CURRENT", b"MANIFEST-000042\n", flags=0)
    place.unlink("CURRENT")
    refusal, change = text(place, "log").splitlines()
    assert " refused: " in refusal
    assert "MANIFEST-000042" in refusal
    assert " changed: CURRENT was removed" in change


def test_status_tells_what_is_mounted(place: CorePlace) -> None:
    status = json.loads(text(place, "status.json"))
    assert status["pid"] == os.getpid()
    assert status["source"] == place.core.directory.label
    assert (status["read_only"], status["write_back"]) == (False, False)
    assert status["next_file_number"] == 9
    write_all(place, "000041.ldb", b"")
    assert json.loads(text(place, "status.json"))["next_file_number"] == 42


def test_dialect_that_only_another_file_tells_is_looked_up_again(place: CorePlace) -> None:
    manifest = "manifest/MANIFEST-000000.jsonl"
    tables = {name: read_all(place, name) for name in ("000003.ldb", "000005.ldb", "000007.ldb")}
    for name in tables:
        place.unlink(name)
    assert objects(text(place, manifest))[0]["evidence"].startswith("assumed")
    write_all(place, "000007.ldb", tables["000007.ldb"])
    assert objects(text(place, manifest))[0]["evidence"] == "000007.ldb has no Merkle tree"


class Kernel:
    """Holds what was written until it is asked for it, as a write-back cache does."""

    def __init__(self, place: CorePlace) -> None:
        self.core = place.core
        self.core.write_back = self.hand_over
        self.held: dict[int, tuple[int, bytes, int]] = {}
        self.asked: list[int] = []

    def hand_over(self, inode: int) -> None:
        self.asked.append(inode)
        if inode in self.held:
            self.core.write(*self.held.pop(inode))


def test_what_the_kernel_still_holds_is_fetched_and_nothing_else(place: CorePlace) -> None:
    kernel = Kernel(place)
    entry, opened = place.core.create(ROOT, "000009.log", 0o644, os.O_RDWR, None)
    other, read_only = place.core.create(ROOT, "notes.txt", 0o644, os.O_RDWR, None)
    place.core.release(read_only.handle)
    record = more_of_a_journal(500, b"held")
    for view in ("journal/000009.log.jsonl", "session.json", "live/leveldb.jsonl", "check.txt"):
        size = place.core.getattr(entry.number).stat.size
        kernel.held[entry.number] = (opened.handle, record, size)
        before = text(place, "journal/000008.log.jsonl")
        assert kernel.held, "a file was fetched that was not asked for"
        assert kernel.asked == []
        found = text(place, view)
        assert not kernel.held
        assert set(kernel.asked) == {entry.number}
        assert place.core.getattr(entry.number).stat.size == size + len(record)
        assert found
        assert before == text(place, "journal/000008.log.jsonl")
        kernel.asked.clear()
    place.core.release(opened.handle)
    place.core.forget([(entry.number, 1), (other.number, 1)])


def test_listings_and_links_of_edits_fetch_the_manifest(place: CorePlace) -> None:
    kernel = Kernel(place)
    with opening(place, "MANIFEST-000000", os.O_RDWR) as file:
        inode = file.facts().inode
        assert place.core.is_slow(place.core.lookup(ROOT, HIDDEN).number)
        assert len(edits(place)) == 5
        assert kernel.asked
        assert set(kernel.asked) == {inode}
        kernel.asked.clear()
        place.readlink(f"{HIDDEN}/edits/3/000003.ldb")
        assert set(kernel.asked) == {inode}


# -- hidden


def test_hidden_folder_is_found_by_name_and_never_listed(place: CorePlace) -> None:
    names = names_in(place)
    assert HIDDEN not in names
    found = place.facts(HIDDEN)
    assert (stat.S_ISDIR(found.mode), found.permissions) == (True, 0o555)
    assert set(names_in(place, HIDDEN)) == {*ALWAYS, "manifest", "journal", "table"}
    assert names_in(place) == names
    assert HIDDEN not in tree_below(place.core.directory)
    with refused(errno.ENOENT):
        place.facts(f"{HIDDEN}/{HIDDEN}")
    place.mkdir("folder")
    with refused(errno.ENOENT):
        place.facts(f"folder/{HIDDEN}")


def test_another_name_hides_it_there() -> None:
    with viewed(in_memory(fixture_files("leveldb-closed")), "inside me") as place:
        assert set(ALWAYS) <= set(names_in(place, "inside me"))
        with refused(errno.ENOENT):
            place.facts(HIDDEN)


def test_real_one_of_that_name_wins_until_it_is_removed(place: CorePlace) -> None:
    def is_hidden() -> bool:
        return HIDDEN not in names_in(place) and place.facts(f"{HIDDEN}/log").inode > FIRST

    def make(number: int) -> None:
        place.core.forget([(number, 1)])

    assert is_hidden()
    # As a caller could that never looked the name up.
    entry, opened = place.core.create(ROOT, HIDDEN, 0o644, os.O_RDWR, None)
    place.core.write(opened.handle, b"mine", 0)
    place.core.release(opened.handle)
    make(entry.number)
    assert read_all(place, HIDDEN) == b"mine"
    assert HIDDEN in names_in(place)
    place.rename(HIDDEN, "elsewhere")
    assert is_hidden()
    place.rename("elsewhere", HIDDEN)
    assert read_all(place, HIDDEN) == b"mine"
    place.chmod(HIDDEN, 0o600)
    place.unlink(HIDDEN)
    assert is_hidden()

    make(place.core.mkdir(ROOT, HIDDEN, 0o755, None).number)
    write_all(place, f"{HIDDEN}/status.json", b"mine")
    assert names_in(place, HIDDEN) == ["status.json"]
    place.unlink(f"{HIDDEN}/status.json")
    place.rmdir(HIDDEN)
    assert is_hidden()

    make(place.core.symlink(ROOT, HIDDEN, "CURRENT", None).number)
    assert place.readlink(HIDDEN) == "CURRENT"
    place.unlink(HIDDEN)
    place.mkdir("folder")
    place.rename("folder", HIDDEN)
    assert names_in(place, HIDDEN) == []
    place.rmdir(HIDDEN)
    assert is_hidden()


@pytest.mark.parametrize(
    "name",
    [
        *("CURRENT", "CURRENT.bak", "CURRENT.7", "LOCK", "LOG", "LOG.old", "MANIFEST-000001"),
        *("000001.log", "000001.ldb", "000001.sst", "000001.tmp", "000001.dbtmp", "lost"),
        *(".", "..", "a/b", "/", "x" * 256),
    ],
)
def test_names_that_the_folder_cannot_have(name: str) -> None:
    with pytest.raises(UsageError, match="views cannot be called"):
        MountOptions().with_views(name)
    with pytest.raises(UsageError, match="views cannot be called"):
        MountOptions().with_words(f"views_name={name}")


@pytest.mark.parametrize("name", ["", "x", ".hidden", "LOGS", "Lost", "x" * 255, "a b"])
def test_names_that_the_folder_can_have(name: str) -> None:
    assert MountOptions().with_views(name).views_name == name


# -- read-only

VIEW = f"{HIDDEN}/status.json"
CHANGES: dict[str, Callable[[Place], None]] = {
    "open to write": lambda place: place.open(VIEW, os.O_WRONLY).close(),
    "open to read and write": lambda place: place.open(VIEW, os.O_RDWR).close(),
    "open and truncate": lambda place: place.open(VIEW, os.O_RDONLY | os.O_TRUNC).close(),
    "open to append": lambda place: place.open(VIEW, os.O_WRONLY | os.O_APPEND).close(),
    "create": lambda place: place.open(f"{HIDDEN}/new", os.O_WRONLY | os.O_CREAT).close(),
    "create below": lambda place: place.open(f"{HIDDEN}/table/x", os.O_RDWR | os.O_CREAT).close(),
    "truncate": lambda place: place.truncate(VIEW, 0),
    "chmod": lambda place: place.chmod(VIEW, 0o777),
    "chmod of the folder": lambda place: place.chmod(HIDDEN, 0o777),
    "touch": lambda place: place.utime(VIEW, 1, 1),
    "unlink": lambda place: place.unlink(VIEW),
    "unlink of a link": lambda place: place.unlink(f"{HIDDEN}/edits/3/000003.ldb"),
    "rmdir": lambda place: place.rmdir(f"{HIDDEN}/table"),
    "rmdir of the folder": lambda place: place.rmdir(HIDDEN),
    "unlink of the folder": lambda place: place.unlink(HIDDEN),
    "mkdir": lambda place: place.mkdir(f"{HIDDEN}/new"),
    "symlink": lambda place: place.symlink(f"{HIDDEN}/new", "CURRENT"),
    "mknod": lambda place: place.mknod(f"{HIDDEN}/new"),
    "mkfifo": lambda place: place.mknod(f"{HIDDEN}/new", stat.S_IFIFO),
    "link out": lambda place: place.link(VIEW, "new"),
    "link in": lambda place: place.link("000003.ldb", f"{HIDDEN}/new"),
    "rename": lambda place: place.rename(VIEW, f"{HIDDEN}/new"),
    "rename out": lambda place: place.rename(VIEW, "new"),
    "rename onto CURRENT": lambda place: place.rename(VIEW, "CURRENT"),
    "rename in": lambda place: place.rename("000003.ldb", f"{HIDDEN}/new"),
    "rename onto a view": lambda place: place.rename("000003.ldb", VIEW),
    "rename CURRENT in": lambda place: place.rename("CURRENT", f"{HIDDEN}/new"),
    "rename of the folder": lambda place: place.rename(HIDDEN, "new"),
    "exchange": lambda place: place.rename("000003.ldb", VIEW, Rename.EXCHANGE),
    "exchange with the folder": lambda place: place.rename("000003.ldb", HIDDEN, Rename.EXCHANGE),
    "exchange of the folder": lambda place: place.rename(HIDDEN, "000003.ldb", Rename.EXCHANGE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_in_the_hidden_folder_can_be_changed(change: str, place: CorePlace) -> None:
    before, views = tree_below(place.core.directory), sorted(files_in(place))
    facts = place.facts(VIEW)
    with refused(errno.EROFS):
        CHANGES[change](place)
    assert tree_below(place.core.directory) == before
    assert sorted(files_in(place)) == views
    assert place.facts(VIEW) == facts


def test_handle_of_a_view_refuses_changes_too(place: CorePlace) -> None:
    with opening(place, VIEW) as view:
        changes: list[Callable[[], None]] = [
            lambda: view.truncate(0),
            lambda: view.chmod(0o777),
            lambda: view.utime(1, 1),
        ]
        for change in changes:
            with refused(errno.EROFS):
                change()
        view.sync()
        assert view.facts() == place.facts(VIEW)
    place.sync(HIDDEN)
    assert place.core.space() == place.core.directory.space()


# -- lightness


def test_mount_that_nobody_looks_into_loads_no_decoders(tmp_path: Path) -> None:
    source = copied("leveldb-closed", tmp_path)
    script = f"""
import sys
from avccfs.cli.mount import _run
from avccfs.fs.viewed import ViewedCore
from avccfs.fuse.server import serve
from avccfs.fs.inodes import ROOT
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.local import LocalDirectory
core = ViewedCore(DirectoryStorage(LocalDirectory({str(source)!r})), ".avccfs")
handle = core.open_folder(ROOT)
for name, found, _ in core.list_folder(handle, 0):
    entry = core.lookup(ROOT, name)
    opened = core.open(entry.number, 0)
    core.read(opened.handle, 100, 0)
    core.release(opened.handle)
try:
    core.lookup(ROOT, "missing")
except FileNotFoundError:
    pass
def loaded():
    return [
        name for name in sys.modules
        if name in ("avccfs.fs.tree", "avccfs.format.table", "avccfs.format.journal")
        or name.startswith(("avccfs.session.recovery", "avccfs.session.check", "cramjam", "zstandard"))
    ]
before = loaded()
core.lookup(ROOT, ".avccfs")
print(len(before), before, "avccfs.fs.tree" in loaded())
core.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "0 [] True\n"
