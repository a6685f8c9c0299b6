"""What only the core knows: numbers, LOG and LOCK, stale numbers, read-only directories."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from avccfs.errors import LockedError
from avccfs.format.filename import CURRENT, LOCK, LOG
from avccfs.fs.core import Core
from avccfs.fs.inodes import ROOT, StaleInodeError
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Attributes, Directory, Rename
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from tests.fs.databases import FILES, NEW, OLD, Database, fill, tree_below
from tests.fs.places import CorePlace, names_in, opening, read_all, refused, write_all
from tests.fs.waiting import wait_for

W = os.O_WRONLY | os.O_CREAT


@pytest.fixture
def memory() -> Iterator[CorePlace]:
    """An empty core in memory; afterwards it holds what it held before."""
    core = Core(DirectoryStorage(MemoryDirectory()))
    before = core.counts()
    yield CorePlace(core, "core-memory")
    assert core.counts() == before, "identities or handles were left behind"
    core.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[CorePlace]:
    """The same over a local directory."""
    source = tmp_path / "source"
    core = Core(DirectoryStorage(LocalDirectory(source)), source=os.fspath(source))
    before = core.counts()
    yield CorePlace(core, "core-local")
    assert core.counts() == before, "identities or handles were left behind"
    core.close()


# File numbers


def test_numbers_that_are_there_count_as_used(tmp_path: Path) -> None:
    (tmp_path / "lost").mkdir()
    for name in ("000008.log", "MANIFEST-000012", "000005.ldb", "000099.tmp", "lost/000500.ldb"):
        (tmp_path / name).touch()
    with closing(Core(DirectoryStorage(LocalDirectory(tmp_path)))) as core:
        assert core.numbers.next == 13


USES: dict[str, tuple[Callable[[CorePlace], object], int]] = {
    "a journal is created": (lambda place: write_all(place, "000041.log", b""), 42),
    "a manifest is made": (lambda place: place.mknod("MANIFEST-000050"), 51),
    "a table is renamed": (lambda place: place.rename("foreign", "000060.ldb"), 61),
    "a table of the old name": (
        lambda place: place.rename("foreign", "000061.sst", Rename.NOREPLACE),
        62,
    ),
    "a journal is linked": (lambda place: place.link("foreign", "000070.log"), 71),
    "a symbolic link": (lambda place: place.symlink("000075.ldb", "foreign"), 76),
    "a folder": (lambda place: place.mkdir("000076.log"), 77),
    # These are not numbers of the one counter.
    "a temp file": (lambda place: write_all(place, "000041.dbtmp", b""), 4),
    "too few digits": (lambda place: write_all(place, "41.log", b""), 4),
    "another ending": (lambda place: write_all(place, "000041.log.txt", b""), 4),
    "a pending file": (lambda place: write_all(place, "CURRENT.41", b""), 4),
    "a table elsewhere": (lambda place: write_all(place, "lost/000041.ldb", b""), 4),
    # And nothing is given back by going away: an engine may remember it.
    "a journal is removed": (lambda place: place.unlink("000003.log"), 4),
    "a journal is renamed down": (lambda place: place.rename("000003.log", "000001.log"), 4),
}


@pytest.mark.parametrize("use", USES)
def test_new_names_of_the_database_use_up_their_numbers(memory: CorePlace, use: str) -> None:
    make, first_unused = USES[use]
    write_all(memory, "000003.log", b"")
    write_all(memory, "foreign", b"")
    memory.mkdir("lost")
    assert memory.core.numbers.next == 4
    make(memory)
    assert memory.core.numbers.next == first_unused
    assert memory.core.numbers.allocate() == first_unused


def test_the_last_number_of_all_is_a_name_like_any_other(memory: CorePlace) -> None:
    write_all(memory, f"{2**63 - 1}.log", b"content")
    assert read_all(memory, f"{2**63 - 1}.log") == b"content"
    write_all(memory, f"{2**63}.log", b"foreign")
    assert read_all(memory, f"{2**63}.log") == b"foreign"


# LOG


def lines_of(database: Database) -> list[str]:
    return database.log().splitlines()


def test_what_is_said_never_falls_between_the_lines_of_an_engine(database: Database) -> None:
    place = database.place
    engine = [f"12:00:00.{number:06} line {number}\n".encode() for number in range(40)]
    offset = 0
    with opening(place, LOG, W) as log:
        for number, line in enumerate(engine):
            # As engines write: at the offset they remember, whatever happened to the file.
            log.write(line, offset)
            offset += len(line)
            if number % 10 == 5:
                write_all(place, CURRENT, OLD if number % 20 == 15 else NEW)
                log.sync()
                assert b"".join(engine[: number + 1]).decode() == database.log()
        with closing(place.open(LOG)) as reader:
            assert reader.read(1 << 16, 0) == b"".join(engine)
    # They come one by one, after the last close, which the mount is told of late.
    wait_for(lambda: sum("now names" in line for line in lines_of(database)) == 4)
    lines = lines_of(database)
    assert "\n".join(lines[: len(engine)]) + "\n" == b"".join(engine).decode()
    assert [line.rpartition("now names ")[2] for line in lines if "now names" in line] == [
        "MANIFEST-000007",
        "MANIFEST-000001",
        "MANIFEST-000007",
        "MANIFEST-000001",
    ]
    assert read_all(place, LOG).decode() == database.log()
    assert place.facts(LOG).size == len(database.log())


def test_what_is_said_goes_behind_what_an_engine_wrote(database: Database) -> None:
    place = database.place
    write_all(place, LOG, b"an engine's line\n")
    wait_for(lambda: read_all(place, LOG) == b"an engine's line\n")
    write_all(place, CURRENT, NEW)
    wait_for(lambda: "now names" in database.log())
    assert database.log().startswith("an engine's line\n")
    # And an engine that opens it for appending goes behind that.
    with opening(place, LOG, os.O_WRONLY | os.O_APPEND) as log:
        log.append(b"another line\n")
    assert database.log().endswith("\nanother line\n")


def test_a_log_that_an_engine_has_renamed_is_left_to_it(database: Database) -> None:
    place = database.place
    with opening(place, LOG, W) as log:
        log.write(b"first\n", 0)
        place.rename(LOG, "LOG.old")
        write_all(place, CURRENT, NEW)
        log.write(b"second\n", 6)
    assert read_all(place, "LOG.old") == b"first\nsecond\n"
    assert "now names MANIFEST-000007" in read_all(place, LOG).decode()


# LOCK


def is_locked(directory: Path) -> bool:
    try:
        with closing(LocalDirectory(directory)) as other:
            other.lock(exclusive=True)
    except LockedError:
        return True
    return False


def source_of(place: CorePlace) -> Path:
    return Path(place.core.directory.label)


def test_a_directory_stays_locked_when_the_name_of_its_lock_goes(local: CorePlace) -> None:
    source = source_of(local)
    assert is_locked(source)
    local.unlink(LOCK)
    assert LOCK not in names_in(local)
    for ask in (
        lambda: local.facts(LOCK),
        lambda: local.open(LOCK),
        lambda: local.unlink(LOCK),
        lambda: local.rename(LOCK, "KEY"),
    ):
        with refused(errno.ENOENT):
            ask()
    assert is_locked(source)
    # An engine makes it anew, and finds it as new as it would be.
    with opening(local, LOCK, W | os.O_EXCL) as lock:
        assert lock.facts().size == 0
    assert LOCK in names_in(local)
    assert is_locked(source)
    local.unlink(LOCK)
    assert is_locked(source)


@pytest.mark.parametrize("made_again", [False, True])
def test_a_lock_that_was_removed_is_gone_after_the_end(tmp_path: Path, made_again: bool) -> None:
    core = Core(DirectoryStorage(LocalDirectory(tmp_path)))
    place = CorePlace(core, "core-local")
    place.unlink(LOCK)
    if made_again:
        place.mknod(LOCK)
    assert (tmp_path / LOCK).exists()
    core.close()
    assert (tmp_path / LOCK).exists() == made_again
    assert not is_locked(tmp_path)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("how", [Rename.REPLACE, Rename.NOREPLACE])
def test_a_file_that_is_moved_onto_the_lock_guards_the_directory(
    local: CorePlace, hidden: bool, how: Rename
) -> None:
    write_all(local, "newcomer", b"mine")
    if hidden:
        local.unlink(LOCK)
    if how is Rename.NOREPLACE and not hidden:
        with refused(errno.EEXIST):
            local.rename("newcomer", LOCK, how)
        assert read_all(local, LOCK) == b""
    else:
        local.rename("newcomer", LOCK, how)
        assert names_in(local) == [LOCK]
        assert read_all(local, LOCK) == b"mine"
    assert is_locked(source_of(local))


def test_a_file_that_somebody_else_has_locked_does_not_become_the_lock(local: CorePlace) -> None:
    write_all(local, "newcomer", b"mine")
    with (source_of(local) / "newcomer").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with refused(errno.EAGAIN):
            local.rename("newcomer", LOCK)
    assert names_in(local) == [LOCK, "newcomer"]
    assert is_locked(source_of(local))


# Numbers that the caller has forgotten


def everything_by_number(core: Core, number: int) -> dict[str, Callable[[], object]]:
    return {
        "lookup": lambda: core.lookup(number, "name"),
        "getattr": lambda: core.getattr(number),
        "setattr": lambda: core.setattr(number, Attributes(mode=0o600)),
        "truncate": lambda: core.setattr(number, Attributes(), 0),
        "readlink": lambda: core.readlink(number),
        "mkdir": lambda: core.mkdir(number, "name", 0o755, None),
        "symlink": lambda: core.symlink(number, "name", "target", None),
        "mknod": lambda: core.mknod(number, "name", stat.S_IFREG, None),
        "link": lambda: core.link(number, ROOT, "name"),
        "link into": lambda: core.link(ROOT, number, "name"),
        "unlink": lambda: core.unlink(number, "name"),
        "rmdir": lambda: core.rmdir(number, "name"),
        "rename from": lambda: core.rename(number, "name", ROOT, "other"),
        "rename to": lambda: core.rename(ROOT, "file", number, "other"),
        "create": lambda: core.create(number, "name", 0o644, os.O_RDWR, None),
        "open": lambda: core.open(number, os.O_RDONLY),
        "open_folder": lambda: core.open_folder(number),
    }


def test_a_number_that_was_forgotten_is_stale(memory: CorePlace) -> None:
    core = memory.core
    write_all(memory, "file", b"content")
    number = core.lookup(ROOT, "file").number
    assert core.getattr(number).stat.size == 7
    core.forget([(number, 1)])
    before = tree_below(core.directory)
    for what, ask in everything_by_number(core, number).items():
        with pytest.raises(StaleInodeError):
            ask()
        assert tree_below(core.directory) == before, what


def test_a_number_counts_its_lookups(memory: CorePlace) -> None:
    core = memory.core
    write_all(memory, "file", b"content")
    number = core.lookup(ROOT, "file").number
    assert core.lookup(ROOT, "file").number == number
    assert core.link(number, ROOT, "again").number == number
    core.forget([(number, 2)])
    assert core.getattr(number).stat.nlink == 2
    opened = core.open(number, os.O_RDONLY)
    core.forget([(number, 1)])
    # Unknown to the kernel, but still open.
    assert core.read(opened.handle, 100, 0) == b"content"
    core.release(opened.handle)
    with pytest.raises(StaleInodeError):
        core.getattr(number)


def test_a_folder_outlives_the_forgetting_of_its_number_while_things_in_it_are_known(
    memory: CorePlace,
) -> None:
    core = memory.core
    memory.mkdir("folder")
    write_all(memory, "folder/file", b"content")
    folder = core.lookup(ROOT, "folder").number
    file = core.lookup(folder, "file").number
    core.forget([(folder, 1)])
    assert core.getattr(file).stat.size == 7
    core.forget([(file, 1)])


def test_deep_folders_cost_no_stack(memory: CorePlace) -> None:
    # Deeper than Python's own stack: one number a folder, each known to the kernel.
    core = memory.core
    numbers = [ROOT]
    for _ in range(1_500):
        numbers.append(core.mkdir(numbers[-1], "d", 0o755, None).number)
    assert core.getattr(numbers[-1]).stat.nlink == 2
    core.forget([(number, 1) for number in reversed(numbers[1:])])


# Read-only


@pytest.fixture(params=["local", "memory"])
def read_only(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CorePlace]:
    """A database that may only be looked at."""
    directory: Directory
    if request.param == "local":
        with closing(Core(DirectoryStorage(LocalDirectory(tmp_path)))) as core:
            fill(CorePlace(core, "filling"))
        directory = LocalDirectory(tmp_path, read_only=True)
    else:
        directory = MemoryDirectory()
        with DirectoryStorage(directory) as storage:
            core = Core(storage)
            fill(CorePlace(core, "filling"))
    core = Core(DirectoryStorage(directory, read_only=True))
    before = core.counts()
    yield CorePlace(core, "read-only")
    assert core.counts() == before, "identities or handles were left behind"
    core.close()


CHANGES: dict[str, Callable[[CorePlace], object]] = {
    "create": lambda place: write_all(place, "new", b""),
    "open for writing": lambda place: place.open("notes.txt", os.O_WRONLY),
    "open for both": lambda place: place.open("notes.txt", os.O_RDWR),
    "empty by opening": lambda place: place.open("notes.txt", os.O_RDONLY | os.O_TRUNC),
    "write CURRENT": lambda place: write_all(place, CURRENT, NEW),
    "truncate": lambda place: place.truncate("notes.txt", 0),
    "truncate CURRENT": lambda place: place.truncate(CURRENT, 0),
    "chmod": lambda place: place.chmod("notes.txt", 0o600),
    "utime": lambda place: place.utime("notes.txt", 1, 1),
    "mkdir": lambda place: place.mkdir("folder"),
    "rmdir": lambda place: place.rmdir("folder"),
    "mknod": lambda place: place.mknod("new"),
    "symlink": lambda place: place.symlink("new", "notes.txt"),
    "link": lambda place: place.link("notes.txt", "new"),
    "unlink": lambda place: place.unlink("notes.txt"),
    "unlink LOCK": lambda place: place.unlink(LOCK),
    "unlink CURRENT": lambda place: place.unlink(CURRENT),
    "rename": lambda place: place.rename("notes.txt", "new"),
    "rename onto CURRENT": lambda place: place.rename("notes.txt", CURRENT),
    "rename onto LOCK": lambda place: place.rename("notes.txt", LOCK),
    "exchange": lambda place: place.rename("notes.txt", "000005.ldb", Rename.EXCHANGE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_changes_in_a_read_only_directory(read_only: CorePlace, change: str) -> None:
    before = tree_below(read_only.core.directory)
    with refused(errno.EROFS):
        CHANGES[change](read_only)
    assert tree_below(read_only.core.directory) == before
    assert LOG not in names_in(read_only)


def test_everything_in_a_read_only_directory_can_be_read(read_only: CorePlace) -> None:
    assert names_in(read_only) == sorted([*FILES, CURRENT, LOCK])
    for name, content in FILES.items():
        assert read_all(read_only, name) == content
    assert read_all(read_only, CURRENT) == OLD
    read_only.sync()
    assert read_only.space().frsize > 0
