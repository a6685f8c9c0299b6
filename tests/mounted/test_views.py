"""The hidden folder of views on a real mount: for every tool a folder of plain, read-only files."""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import plyvel
import pytest

from tests.engines import ENGINES, EXISTING, GOLEVELDB, LEVELDB, Content, Engine, Options
from tests.fs.places import OsPlace, read_all, refused
from tests.fs.serving import served
from tests.fs.test_viewed import CHANGES, HIDDEN, expected_names
from tests.fs.waiting import wait_for
from tests.mounting import MountedAt, avccfs, descriptors_of, mounted, tree
from tests.workload import Fill, key_of, value_of

pytestmark = pytest.mark.mounted

FIXTURES = Path(__file__).parents[1] / "fixtures"
MIB = 1 << 20
SMALL = Options(create=True, write_buffer=64 << 10, table_size=32 << 10)
USAGE = 2

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)
each_way = pytest.mark.parametrize(
    "ways", [(), ("--write-through",), ("--read-only",), ("--unlocked",)], ids=" ".join
)


def fixture(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / name / "db", tmp_path / "behind"))


def sh(script: str, place: Path) -> str:
    """What a script prints; it fails if anything in it does, or complains."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=place,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


SAYS_NOTHING = {"log", "faults"}
"""Views that are empty as long as nothing was refused and nothing is to fail."""


def all_names(files: Iterable[str]) -> set[str]:
    """A mount has those of a core, and two more that tell of faults."""
    return expected_names(files) | {"faults", "stats.json"}


def views_in(mount: Path) -> list[str]:
    hidden = mount / HIDDEN
    return sorted(
        os.path.join(os.path.relpath(folder, hidden), name).removeprefix("./")
        for folder, _, names in os.walk(hidden)
        for name in names
        if not os.path.islink(os.path.join(folder, name))
    )


# -- tools


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with several tables, edits and a journal."""
    folder = tmp_path_factory.mktemp("views") / "sample"
    GOLEVELDB.fill(folder, Fill(1500, value_size=120), SMALL)
    GOLEVELDB.open(folder)
    return folder


@pytest.fixture(scope="module")
def quiet(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedAt]:
    """A mount where nobody changes anything."""
    root = tmp_path_factory.mktemp("quiet")
    shutil.copytree(sample, root / "behind")
    with mounted(root / "behind", root / "mnt") as at:
        yield at
        names = {*os.listdir(root / "behind")}
        assert set(tree(at.path)) == names


NEVER_LISTED = [
    "ls -a",
    "ls -aR",
    "find .",
    "du -a",
    "echo * .*",
    "tar c . | tar t",
    "rsync -an --out-format=%n . /nowhere/",
    "cp -av . $(mktemp -d)/copy",
    "grep -rl .",
]


@pytest.mark.parametrize("script", NEVER_LISTED)
def test_nobody_sees_the_hidden_folder_who_does_not_ask(script: str, quiet: MountedAt) -> None:
    (quiet.path / HIDDEN / "status.json").stat()
    listed = sh(f"{script} | grep -v '^$'", quiet.path)
    assert "MANIFEST" in listed
    assert "avccfs" not in listed


AS_PLAIN_FILES = [
    "find . -type f -o -type l -o -type d | sort",
    "find . -type f -printf '%p %s\\n' | sort",
    "find . -type f -size 0",
    "grep -rc key00000001 . | sort",
    "find . -type f -print0 | sort -z | xargs -0 sha256sum",
    "find . -type f -print0 | sort -z | xargs -0 wc",
    "find . -type f -print0 | sort -z | xargs -0 cat | md5sum",
    "find . -name '*.jsonl' -print0 | sort -z | xargs -0 jq -c '[.type, .key]' | md5sum",
    "jq -S 'del(.nothing)' session.json status.json",
    "tar c --mtime=@0 --owner=0 --group=0 --sort=name --mode=a=r . | md5sum",
    "tar c . | tar x -C $(mktemp -d)",
    "for file in table/*; do less $file | md5sum; tail -c 1000 $file | md5sum; done",
    "for file in table/*; do dd if=$file bs=777 skip=3 count=5 status=none | md5sum; done",
    "for file in table/*; do split -b 10000 --filter=md5sum $file; done",
    "for file in live/* table/*; do awk 'END { print NR }' $file; tac $file | md5sum; done",
    "readlink edits/*/*",
    "stat -c '%F %s %n' edits/*/*",
    "sort -m live/*.jsonl | uniq -c | sort -rn | sed -n 1,3p",
    "diff -u explain/leveldb.txt explain/goleveldb.txt | tail -n +3 | md5sum || true",
    "file=$(ls table/* | head -1); cmp $file <(cat $file); head -1 $file | wc -c",
    "cat < check.txt; [ -r check.txt ]; [ ! -s log ]; [ -s status.json ]; test -d edits/1",
]


@pytest.mark.parametrize("script", AS_PLAIN_FILES)
def test_tools_do_what_they_do_with_a_copy(
    script: str, quiet: MountedAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mktemp").mkdir()
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path / "mktemp"))
    hidden = quiet.path / HIDDEN
    shutil.copytree(quiet.path, tmp_path / "copy")
    shutil.copytree(hidden, tmp_path / "copy" / HIDDEN, symlinks=True)
    assert sh(script, hidden) == sh(script, tmp_path / "copy" / HIDDEN)


@pytest.mark.parametrize("copy", ["cp -r", "cp -a", "rsync -a", "cp -rL"])
def test_copies_are_whole(copy: str, quiet: MountedAt, tmp_path: Path) -> None:
    sh(f"{copy} {HIDDEN}/ {tmp_path}/copy", quiet.path)
    if copy == "cp -rL":
        # The tables were read for it, and that is counted.
        sh(f"diff -r --exclude=stats.json {HIDDEN} {tmp_path}/copy", quiet.path)
        [table, *_] = sorted((tmp_path / "copy/edits").glob("*/*"))
        assert table.read_bytes() == (quiet.path / table.name).read_bytes()
    else:
        sh(f"diff -r --no-dereference {HIDDEN} {tmp_path}/copy", quiet.path)
    sh(f"chmod -R u+w {tmp_path}/copy", quiet.path)


def read_by_sendfile(path: Path) -> bytes:
    with path.open("rb", buffering=0) as source, os.fdopen(os.memfd_create("to"), "w+b", 0) as to:
        size = os.fstat(source.fileno()).st_size
        done = 0
        while sent := os.sendfile(to.fileno(), source.fileno(), done, 1 << 20):
            done += sent
        assert done == size
        return os.pread(to.fileno(), size + 1, 0)


def read_by_mmap(path: Path, flags: int = mmap.MAP_PRIVATE) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""
        with mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as mapped:
            return mapped[:]


@each_way
def test_every_view_is_as_long_as_it_says_however_it_is_read(
    ways: tuple[str, ...], sample: Path, mnt: Path, tmp_path: Path
) -> None:
    behind = Path(shutil.copytree(sample, tmp_path / "behind"))
    with mounted(behind, mnt, *ways):
        views = views_in(mnt)
        assert set(views) == all_names(os.listdir(behind))
        for name in views:
            view = mnt / HIDDEN / name
            size = view.stat().st_size
            content = view.read_bytes()
            assert len(content) == size, name
            assert (size == 0) == (name in SAYS_NOTHING), name
            assert read_by_sendfile(view) == read_by_mmap(view) == content, name
            if "--unlocked" not in ways:
                assert read_by_mmap(view, mmap.MAP_SHARED) == content, name
    assert tree(behind) == tree(sample)


@each_way
@pytest.mark.parametrize(
    "name", ["current-empty", "flipped-manifest-byte", "truncated-table-footer", "avccdb-compacted"]
)
def test_views_of_damaged_databases(
    name: str, ways: tuple[str, ...], mnt: Path, tmp_path: Path
) -> None:
    behind = fixture(name, tmp_path)
    with mounted(behind, mnt, *ways) as at:
        views = views_in(mnt)
        assert set(views) == all_names(os.listdir(behind))
        assert all((mnt / HIDDEN / view).read_bytes() for view in views if view not in SAYS_NOTHING)
        assert "ERROR" not in at.log()


def test_directory_in_memory_has_views(mnt: Path) -> None:
    with mounted("mem:", mnt):
        assert set(views_in(mnt)) == all_names(())
        GOLEVELDB.fill(mnt, Fill(500), SMALL)
        assert set(views_in(mnt)) == all_names(os.listdir(mnt))
        lines = (mnt / HIDDEN / "live/goleveldb.jsonl").read_text().splitlines()
        assert sum(json.loads(line)["type"] == "live" for line in lines) == 500


# -- hidden, and named


def test_views_may_have_another_name_or_none(sample: Path, mnt: Path, tmp_path: Path) -> None:
    behind = Path(shutil.copytree(sample, tmp_path / "behind"))
    with mounted(behind, mnt, "--views-name", "look inside"):
        assert (mnt / "look inside/status.json").exists()
        assert not (mnt / HIDDEN).exists()
        assert "look inside" not in os.listdir(mnt)
    for options in (("--views-name", ""), ("-o", "views_name=")):
        with mounted(behind, mnt, *options):
            assert not (mnt / HIDDEN).exists()
            # Then the name is one like any other.
            (mnt / HIDDEN).mkdir()
            (mnt / HIDDEN).rmdir()


@pytest.mark.parametrize("name", ["CURRENT", "000005.ldb", "LOCK", "lost", "a/b", ".."])
def test_views_cannot_have_the_name_of_a_database_file(name: str, db: Path, mnt: Path) -> None:
    done = avccfs("mount", "--views-name", name, db, mnt, check=False)
    assert done.returncode == USAGE
    assert "cannot be called" in done.stderr


def test_real_one_of_that_name_wins_until_it_is_gone(
    sample: Path, mnt: Path, tmp_path: Path
) -> None:
    behind = Path(shutil.copytree(sample, tmp_path / "behind"))
    (behind / HIDDEN).write_text("mine")
    hidden = mnt / HIDDEN
    with mounted(behind, mnt):
        assert hidden.read_text() == "mine"
        assert HIDDEN in os.listdir(mnt)
        hidden.write_text("still mine")
        hidden.rename(mnt / "elsewhere")
        assert (hidden / "status.json").exists()
        with pytest.raises(FileExistsError):
            hidden.mkdir()
        # A folder can take the place of a folder.
        (mnt / "folder").mkdir()
        (mnt / "folder/inside").write_text("mine too")
        (mnt / "folder").rename(hidden)
        assert os.listdir(hidden) == ["inside"]
        assert (behind / HIDDEN / "inside").read_text() == "mine too"
        shutil.rmtree(hidden)
        assert (hidden / "status.json").exists()
        assert sorted(os.listdir(mnt)) == sorted([*os.listdir(sample), "elsewhere"])


# -- read-only

BY_THE_KERNEL = {"unlink of the folder": errno.EISDIR}


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedAt]:
    root = tmp_path_factory.mktemp("unchanged")
    behind = root / "behind"
    shutil.copytree(FIXTURES / "goleveldb-closed/db", behind)
    with mounted(behind, root / "mnt") as at:
        before = tree(behind)
        yield at
        assert tree(behind) == before


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_in_the_hidden_folder_can_be_changed(change: str, unchanged: MountedAt) -> None:
    place = OsPlace(unchanged.path, "mount")
    before, views = tree(unchanged.path), views_in(unchanged.path)
    status = read_all(place, f"{HIDDEN}/status.json")
    with refused(BY_THE_KERNEL.get(change, errno.EROFS)):
        CHANGES[change](place)
    assert tree(unchanged.path) == before
    assert views_in(unchanged.path) == views
    assert read_all(place, f"{HIDDEN}/status.json") == status


def test_room_is_that_of_the_mount(unchanged: MountedAt) -> None:
    assert os.statvfs(unchanged.path / HIDDEN / "log") == os.statvfs(unchanged.path)


# -- of this moment


@pytest.mark.parametrize("ways", [(), ("--write-through",)], ids=["write-back", "write-through"])
@each_engine
def test_what_an_engine_has_just_written_shows(
    engine: Engine, ways: tuple[str, ...], db: Path, mnt: Path
) -> None:
    hidden = mnt / HIDDEN
    with mounted(db, mnt, *ways):
        with engine.session(mnt) as session:
            [name] = [name for name in os.listdir(mnt) if name.endswith(".log")]
            kept = None
            for turn in range(5):
                # Not synced: it may not have left the kernel yet.
                session.put(b"key %d" % turn, b"value %d" % turn)
                view = hidden / f"journal/{name}.jsonl"
                lines = [json.loads(line) for line in view.read_text().splitlines()]
                entries = [line for line in lines if line["type"] == "entry"]
                assert [line["key"] for line in entries] == [f"key {n}" for n in range(turn + 1)]
                assert f'"key {turn}"' in (hidden / f"live/{engine}.jsonl").read_text()
                if kept is None:
                    kept = view.open("rb"), view.read_bytes()
            assert kept is not None
            with kept[0] as first:
                assert first.read() == kept[1]
            manifest = json.loads((hidden / "session.json").read_text())["manifest"]
            session.reopen()
            later = json.loads((hidden / "session.json").read_text())["manifest"]
            assert later != manifest
            assert os.listdir(hidden / "manifest") == [
                f"{(mnt / 'CURRENT').read_text()[:-1]}.jsonl"
            ]
            assert os.listdir(hidden / "edits")
            session.release()
        assert engine.items(mnt) == session.model
    assert engine.items(db) == session.model


def test_switch_by_hand_shows_in_edits_and_log(mnt: Path, tmp_path: Path) -> None:
    behind = fixture("goleveldb-closed", tmp_path)
    hidden = mnt / HIDDEN
    with mounted(behind, mnt):
        assert len(os.listdir(hidden / "edits")) == 5
        for name in ("000003.ldb", "000005.ldb"):
            assert (hidden / "edits/4" / name).read_bytes() == (mnt / name).read_bytes()
        shutil.copyfile(mnt / "MANIFEST-000000", mnt / "MANIFEST-000020")
        os.truncate(mnt / "MANIFEST-000020", 100)
        (mnt / "CURRENT").write_text("MANIFEST-000020\n")
        assert 0 < len(os.listdir(hidden / "edits")) < 5
        # Python tells of the close, which is refused as well.
        with pytest.raises(OSError, match="Invalid argument"):
            (mnt / "CURRENT").write_text("000005.ldb\n")
        log = (hidden / "log").read_text()
        assert "changed: CURRENT now names MANIFEST-000020" in log
        assert "refused: " in log
        assert "000005.ldb" in log


@contextmanager
def reading_all_the_time(mount: Path) -> Iterator[list[int]]:
    """Views are read in a loop, by two readers; yields how often each got through."""
    enough = threading.Event()
    turns = [0, 0]

    def read(reader: int) -> None:
        while not enough.is_set():
            for folder, _, names in os.walk(mount / HIDDEN):
                for name in names:
                    path = os.path.join(folder, name)
                    try:
                        with open(path, "rb") as file:
                            size = os.fstat(file.fileno()).st_size
                            assert len(file.read()) == size, path
                    except OSError as error:
                        # A file that went meanwhile.
                        if error.errno != errno.ENOENT:
                            raise
            turns[reader] += 1

    with ThreadPoolExecutor(2) as readers:
        pending = [readers.submit(read, reader) for reader in range(2)]
        try:
            yield turns
            wait_for(lambda: all(turns) or any(one.done() for one in pending))
        finally:
            enough.set()
        for one in pending:
            one.result(60)


@each_engine
def test_engine_at_full_speed_does_not_mind_readers_of_views(
    engine: Engine, db: Path, mnt: Path
) -> None:
    with mounted(db, mnt) as at:
        with engine.session(mnt, SMALL) as session:
            session.put(b"first", b"")
            with reading_all_the_time(mnt) as turns:
                for turn in range(400):
                    changes = [
                        (key_of(number), value_of(str(turn), number, 500))
                        for number in range(turn, turn + 20)
                    ]
                    session.batch(changes, sync=turn % 50 == 0)
                    if turn % 150 == 99:
                        session.reopen()
                        session.compact()
                    if turn >= 200 and all(turns):
                        break
            assert session.content() == session.expected()
            session.release()
        assert engine.items(mnt) == session.model
        assert "ERROR" not in at.log()
    assert engine.items(db) == session.model


def test_repair_and_destroy_do_not_notice_the_folder(db: Path, mnt: Path) -> None:
    fill = Fill(3000, value_size=200)
    with mounted(db, mnt):
        LEVELDB.fill(mnt, fill, SMALL)
        with reading_all_the_time(mnt):
            (mnt / "CURRENT").unlink()
            LEVELDB.repair(mnt)
            assert LEVELDB.open(mnt, EXISTING) == Content.of(fill.items())
            assert GOLEVELDB.recover(mnt) == Content.of(fill.items())
            assert GOLEVELDB.open(mnt) == Content.of(fill.items())
        shutil.rmtree(mnt / "lost")
        LEVELDB.destroy(mnt)
        # goleveldb's own words about its opening; and the mount keeps the lock.
        assert set(os.listdir(mnt)) <= {"LOCK", "LOG.old", "CURRENT.bak", "LOG"}
        assert set(views_in(mnt)) == all_names(())


# -- what it costs


def large_table(folder: Path, size: int) -> str:
    """A database with one table whose view has about `size` bytes; the table's name."""
    value = (b"0123456789abcdefghijklmnopqrstuvwxyz" * 2_000)[:50_000]
    with closing(
        plyvel.DB(
            os.fspath(folder),
            create_if_missing=True,
            write_buffer_size=2 * size,
            max_file_size=1 << 30,
        )
    ) as database:
        for number in range(size // len(value) + 1):
            database.put(key_of(number), value)
        database.compact_range()
    [table] = folder.glob("*.ldb")
    return table.name


def memory_of(pid: int, what: str = "VmHWM") -> int:
    """Bytes of memory that a process has, or had at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == what:
            return int(rest.split()[0]) * 1024
    raise AssertionError(f"there is no {what}")


def temporary_files_of(pid: int) -> list[str]:
    return [path for path in descriptors_of(pid) if path.endswith(" (deleted)")]


def test_view_of_a_large_table_takes_no_memory_and_leaves_no_file(
    db: Path, mnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 200 * MIB
    name = large_table(db, size)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", os.fspath(temporary))
    with mounted(db, mnt) as at:
        view = mnt / HIDDEN / f"table/{name}.jsonl"
        (mnt / HIDDEN / "session.json").read_bytes()
        before = memory_of(at.pid)
        with view.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            assert length > size
            [held] = temporary_files_of(at.pid)
            assert held.startswith(f"{temporary}/")
            assert os.listdir(temporary) == []
            seen = 0
            last = b""
            while piece := file.read(MIB):
                seen, last = seen + len(piece), piece
            assert seen == length
            assert last.endswith(b"}\n")
        # It is kept for the next look, and goes when another one needs the room.
        view.stat()
        assert temporary_files_of(at.pid) == [held]
        for engine in ("leveldb", "goleveldb"):
            with (mnt / HIDDEN / f"live/{engine}.jsonl").open("rb") as file:
                assert os.fstat(file.fileno()).st_size > size
        wait_for(lambda: len(temporary_files_of(at.pid)) <= 1)
        assert memory_of(at.pid) - before < 60 * MIB
    assert os.listdir(temporary) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_full_disk_for_temporary_files_fails_the_large_view_only(
    db: Path, mnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = large_table(db, 8 * MIB)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], timeout=30, check=True)
    try:
        monkeypatch.setenv("TMPDIR", os.fspath(small))
        with mounted(db, mnt, provoked="No space left on device") as at:
            hidden = mnt / HIDDEN
            for _ in range(5):
                with refused(errno.ENOSPC):
                    (hidden / f"table/{name}.jsonl").stat()
                assert json.loads((hidden / "status.json").read_text())["pid"] == at.pid
                assert (hidden / "check.txt").read_text()
            assert temporary_files_of(at.pid) == []
            assert f"{name}.jsonl" in os.listdir(hidden / "table")
            subprocess.run(["mount", "-o", "remount,size=64m", small], timeout=30, check=True)
            assert (hidden / f"table/{name}.jsonl").stat().st_size > 8 * MIB
            assert LEVELDB.open(mnt).keys > 100
    finally:
        subprocess.run(["umount", small], timeout=30, check=True)


def test_thousands_of_looks_leave_nothing_behind(mnt: Path, tmp_path: Path) -> None:
    behind = fixture("goleveldb-closed", tmp_path)
    with mounted(behind, mnt) as at:
        place = OsPlace(mnt, "mount")
        journal = mnt / "000009.log"

        def look(turn: int) -> None:
            journal.write_bytes(b"x" * turn)
            for name in ("journal/000009.log.jsonl", "edits/5/000003.ldb", "log", "status.json"):
                place.facts(f"{HIDDEN}/{name}")
            (mnt / HIDDEN / "journal/000009.log.jsonl").read_bytes()
            os.listdir(mnt / HIDDEN / "journal")
            os.readlink(mnt / HIDDEN / "edits/5/000003.ldb")

        for turn in range(20):
            look(turn)
        held, memory = len(descriptors_of(at.pid)), memory_of(at.pid, "VmRSS")
        for turn in range(300):
            look(turn)
        wait_for(lambda: len(descriptors_of(at.pid)) <= held)
        assert memory_of(at.pid, "VmRSS") - memory < 16 * MIB


# -- slow and broken views


def test_while_a_view_is_rendered_the_mount_answers(tmp_path: Path) -> None:
    # Fewer than there are threads for slow questions: each reader of a view that is not ready has one.
    readers = 20
    with served("views", tmp_path / "mnt") as at, ThreadPoolExecutor(readers) as threads:
        hidden = at.path / HIDDEN
        slow = hidden / "deep/slow"
        # Of a name that it knows the kernel asks for each reader at the same time.
        (at.path / "go").touch()
        assert slow.read_bytes() == b"slow\n"
        (at.path / "go").unlink()
        pending = [threads.submit(slow.read_bytes) for _ in range(readers)]
        try:
            assert (hidden / "quick").read_bytes() == b"quick\n"
            for turn in range(20):
                with (at.path / "file").open("wb") as file:
                    file.write(b"%d" % turn)
                    os.fsync(file.fileno())
                assert (at.path / "file").read_bytes() == b"%d" % turn
                assert os.listdir(at.path) == ["LOCK", "file"]
                assert sorted(os.listdir(hidden)) == ["deep", "fails", "quick"]
            assert not any(one.done() for one in pending)
        finally:
            (at.path / "go").touch()
        assert {one.result(60) for one in pending} == {b"slow\n"}


def test_bug_in_a_view_is_an_error_of_that_view(tmp_path: Path) -> None:
    with served("views", tmp_path / "mnt") as at:
        for _ in range(3):
            with refused(errno.EIO):
                os.stat(at.path / HIDDEN / "fails")
            assert (at.path / HIDDEN / "quick").read_bytes() == b"quick\n"
        assert stat.S_ISDIR(os.stat(at.path / HIDDEN).st_mode)
        assert at.log().count("RuntimeError: a bug in a view") == 3
        assert "lookup failed unexpectedly" in at.log()


def test_mount_can_be_ended_while_a_view_is_rendered(tmp_path: Path) -> None:
    with served("views", tmp_path / "mnt") as at, ThreadPoolExecutor(1) as threads:
        pending = threads.submit(os.stat, at.path / HIDDEN / "deep" / "slow")
        assert (at.path / HIDDEN / "quick").read_bytes() == b"quick\n"
        at.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "has left the tree" in at.log())
        at.process.send_signal(signal.SIGTERM)
        assert at.process.wait(30) == 0
        with pytest.raises(OSError, match="Errno"):
            pending.result(30)
