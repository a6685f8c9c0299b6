"""What goes wrong: bugs of ours, errors from below, a full disk. It costs one call and no more."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio

from avccfs import errors
from avccfs.format.filename import CURRENT, Kind
from avccfs.fs.core import Core
from avccfs.fs.inodes import StaleInodeError
from avccfs.fuse.errno_map import errno_of, translate
from avccfs.fuse.operations import Operations
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.fault import Always, FaultDirectory, FaultPlan, Op
from avccfs.vfs.memory import MemoryDirectory
from tests.fs.databases import FILES, NEW, OLD, fill, read_below, tree_below
from tests.fs.places import CorePlace, OsPlace, names_in, opening, read_all, refused, write_all
from tests.fs.serving import ROOM, served

W = os.O_WRONLY | os.O_CREAT

# From errors to errno

ERRNOS: list[tuple[Exception, int | None]] = [
    (errors.MetaError("bad line", file=CURRENT), errno.EINVAL),
    (errors.CorruptedError("bad bytes", file="000005.ldb"), errno.EIO),
    (errors.ManifestError("no comparer", file="MANIFEST-000001"), errno.EIO),
    (errors.ReadOnlyError("read-only"), errno.EROFS),
    (errors.InvalidFileError("no such kind"), errno.EINVAL),
    (errors.FileOpenError("open"), errno.EBUSY),
    (errors.LockedError("locked"), errno.EAGAIN),
    (errors.ClosedError("closed"), errno.EIO),
    (errors.UsageError("no"), errno.EINVAL),
    (StaleInodeError(7), errno.ESTALE),
    (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
    (OSError(errno.EDQUOT, "full"), errno.EDQUOT),
    (OSError(errno.EXDEV, "out"), errno.EXDEV),
    (FileNotFoundError(errno.ENOENT, "gone"), errno.ENOENT),
    (FileNotFoundError("without a number"), errno.ENOENT),
    (NotADirectoryError(errno.ENOTDIR, "file"), errno.ENOTDIR),
    (OSError("without a number"), None),
    (errors.StorageError("of no kind"), None),
    (KeyError(7), None),
    (RuntimeError("a bug"), None),
    (RecursionError(), None),
    (MemoryError(), None),
]


@pytest.mark.parametrize(("error", "number"), ERRNOS, ids=repr)
def test_every_error_has_its_number(
    error: Exception, number: int | None, errors_logged: list[logging.LogRecord]
) -> None:
    assert errno_of(error) == number
    assert translate(error, "write") == (number or errno.EIO)
    # What nobody expected is told with its traceback, and so are failing disks.
    serious = number in (None, errno.EIO, errno.ENOSPC, errno.EDQUOT)
    assert len(errors_logged) == serious
    if number is None:
        assert errors_logged[0].exc_info is not None
        assert errors_logged[0].exc_info[1] is error
    errors_logged.clear()


# A bug of ours


class Buggy:
    """A core in which everything fails as nobody expected."""

    def __init__(self) -> None:
        def file(number: int) -> None:
            raise RuntimeError("a bug")

        self.handles = SimpleNamespace(file=file)
        self.faults = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*args: object, **kwargs: object) -> None:
            raise RuntimeError(f"a bug in {name}")

        return fail


FIELDS = SimpleNamespace(
    update_mode=True,
    update_uid=False,
    update_gid=False,
    update_atime=False,
    update_mtime=False,
    update_size=False,
)
CONTEXT = SimpleNamespace(uid=0, gid=0, pid=1, umask=0)

HANDLERS: dict[str, tuple[object, ...]] = {
    "lookup": (1, b"a", CONTEXT),
    "getattr": (1, CONTEXT),
    "setattr": (1, pyfuse3.EntryAttributes(), FIELDS, None, CONTEXT),
    "readlink": (1, CONTEXT),
    "mkdir": (1, b"a", 0o755, CONTEXT),
    "mknod": (1, b"a", 0o644, 0, CONTEXT),
    "symlink": (1, b"a", b"b", CONTEXT),
    "link": (2, 1, b"a", CONTEXT),
    "unlink": (1, b"a", CONTEXT),
    "rmdir": (1, b"a", CONTEXT),
    "rename": (1, b"a", 1, b"b", 0, CONTEXT),
    "create": (1, b"a", 0o644, os.O_RDWR, CONTEXT),
    "open": (1, os.O_RDONLY, CONTEXT),
    "read": (1, 0, 4096),
    "write": (1, 0, b"bytes"),
    "flush": (1,),
    "release": (1,),
    "fsync": (1, False),
    "opendir": (1, CONTEXT),
    "readdir": (1, 0, None),
    "releasedir": (1,),
    "fsyncdir": (1, False),
    "statfs": (CONTEXT,),
}


def test_every_handler_is_asked() -> None:
    handlers = {name for name in vars(Operations) if hasattr(pyfuse3.Operations, name)}
    assert {name for name in handlers if not name.startswith("__")} - {
        "forget",
        "supports_dot_lookup",
        "enable_acl",
    } == set(HANDLERS)


def ask(operations: Operations, handler: str) -> None:
    method: Callable[..., Awaitable[Any]] = getattr(operations, handler)

    async def main() -> None:
        await method(*HANDLERS[handler])

    trio.run(main)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_bug_costs_one_call_and_is_told(
    handler: str, errors_logged: list[logging.LogRecord]
) -> None:
    core: Any = Buggy()
    operations = Operations(core, write_back=True, cache=True)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        ask(operations, handler)
    assert caught.value.errno == errno.EIO
    (record,) = errors_logged
    assert handler in record.getMessage()
    assert "a bug" in logging.Formatter().format(record)
    assert "Traceback" in logging.Formatter().format(record)
    errors_logged.clear()


def test_a_bug_in_forgetting_is_told_to_nobody_but_the_log(
    errors_logged: list[logging.LogRecord],
) -> None:
    core: Any = Buggy()
    operations = Operations(core, write_back=True, cache=True)

    async def main() -> None:
        await operations.forget([(pyfuse3.InodeT(2), 1)])

    trio.run(main)
    assert [record.exc_info is not None for record in errors_logged] == [True]
    errors_logged.clear()


def test_unknown_rename_flags_are_refused() -> None:
    core: Any = Buggy()
    operations = Operations(core, write_back=True, cache=True)

    async def main() -> None:
        root = pyfuse3.InodeT(1)
        await operations.rename(root, b"a", root, b"b", pyfuse3.FlagT(4), core)

    with pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(main)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.mounted
def test_a_mount_outlives_a_bug(tmp_path: Path) -> None:
    with served("broken", tmp_path / "mnt") as mount:
        place = OsPlace(mount.path, "mount")
        write_all(place, "file", b"content")
        for _ in range(3):
            with refused(errno.EIO):
                place.facts("boom")
            with refused(errno.EIO):
                write_all(place, "boom", b"")
            assert read_all(place, "file") == b"content"
        assert names_in(place) == ["LOCK", "file"]
    assert "a bug that nobody expected" in mount.log()
    assert "Traceback" in mount.log()


# A full disk


def fill_up(place: CorePlace | OsPlace, path: str) -> int:
    """Write until there is no room; returns how much there was."""
    with opening(place, path, W) as opened:
        offset = 0
        with refused(errno.ENOSPC):
            while offset < 4 * ROOM:
                offset += opened.write(b"x" * 10_000, offset)
                opened.sync()
        return opened.facts().size


@pytest.fixture
def small() -> Iterator[CorePlace]:
    """A database on a disk with room for 256 KiB."""
    core = Core(DirectoryStorage(MemoryDirectory(capacity=ROOM)))
    place = CorePlace(core, "core-memory")
    fill(place)
    yield place
    core.close()


def test_a_full_disk_is_told_to_the_writer_and_harms_nothing(small: CorePlace) -> None:
    before = tree_below(small.core.directory)
    size = fill_up(small, "big")
    assert read_all(small, "big") == b"x" * size
    after = tree_below(small.core.directory)
    assert {name: after[name] for name in before} == before
    # Names cost no room here, but content does.
    with refused(errno.ENOSPC):
        write_all(small, "another", b"content")
    # A switch needs room for the new pointer; without, it is refused as a whole.
    with refused(errno.ENOSPC):
        write_all(small, CURRENT, NEW)
    assert read_all(small, CURRENT) == OLD
    assert names_in(small) == sorted([*before, "another", "big"])
    small.unlink("big")
    write_all(small, CURRENT, NEW)
    write_all(small, "another", b"content")
    assert read_all(small, CURRENT) == NEW
    assert read_all(small, "another") == b"content"


@pytest.mark.mounted
@pytest.mark.parametrize("options", [(), ("--write-through",)], ids=["write-back", "through"])
def test_a_full_disk_below_a_mount(tmp_path: Path, options: tuple[str, ...]) -> None:
    with served("full", tmp_path / "mnt", *options) as mount:
        place = OsPlace(mount.path, "mount")
        fill(place)
        before = {name: read_all(place, name) for name in names_in(place)}
        with opening(place, "big", W) as opened:
            # The kernel may take it all at first; then it is the sync that tells.
            with refused(errno.ENOSPC):
                for offset in range(0, 4 * ROOM, 65_536):
                    opened.write(b"x" * 65_536, offset)
                opened.sync()
            place.unlink("big")
        assert {name: read_all(place, name) for name in names_in(place)} == before
        write_all(place, CURRENT, NEW)
        with opening(place, "small", W) as opened:
            opened.write(b"content" * 1_000, 0)
            opened.sync()
        assert read_all(place, "small") == b"content" * 1_000
        assert read_all(place, CURRENT) == NEW


# Errors from below


SWITCHES: dict[str, Callable[[CorePlace], None]] = {
    "write": lambda place: write_all(place, CURRENT, NEW),
    "rename": lambda place: place.rename("mine", CURRENT),
}
STEPS = [
    (Op.CREATE, Kind.META),
    (Op.WRITE, Kind.META),
    (Op.SYNC, Kind.META),
    (Op.RENAME, Kind.META),
    (Op.SYNC, Kind.MANIFEST),
    (Op.OPEN, Kind.MANIFEST),
]


@pytest.mark.parametrize("how", SWITCHES)
@pytest.mark.parametrize(("op", "kind"), STEPS, ids=str)
def test_a_switch_that_fails_below_leaves_the_old_pointer(op: Op, kind: Kind, how: str) -> None:
    memory = MemoryDirectory()
    with FaultPlan() as plan, closing(_core_over(FaultDirectory(memory, plan))) as core:
        place = CorePlace(core, "core-faulty")
        fill(place)
        write_all(place, "mine", NEW)
        before = tree_below(memory)
        with plan.fail(op, kind, Always(), error=errno.ENOSPC):
            if (how, op) == ("rename", Op.RENAME):
                # That rename is of a file of no kind of the database's: it passes.
                SWITCHES[how](place)
                assert read_below(memory, CURRENT) == NEW
                return
            with refused(errno.ENOSPC):
                SWITCHES[how](place)
        left = tree_below(memory)
        assert left.pop("CURRENT.bak", OLD) == OLD
        assert left == before
        write_all(place, CURRENT, NEW)
        assert read_all(place, CURRENT) == NEW
        assert {name: read_below(memory, name) for name in FILES} == FILES


def _core_over(directory: FaultDirectory) -> Core:
    return Core(DirectoryStorage(directory))


def test_an_error_from_below_reaches_the_caller_as_it_is() -> None:
    memory = MemoryDirectory()
    with FaultPlan() as plan, closing(_core_over(FaultDirectory(memory, plan))) as core:
        place = CorePlace(core, "core-faulty")
        write_all(place, "000003.log", b"content")
        asked: list[tuple[Op, Callable[[], object]]] = [
            (Op.READ, lambda: read_all(place, "000003.log")),
            (Op.OPEN, lambda: place.open("000003.log")),
            (Op.WRITE, lambda: write_all(place, "000003.log", b"C", flags=0)),
            (Op.TRUNCATE, lambda: place.truncate("000003.log", 1)),
            (Op.REMOVE, lambda: place.unlink("000003.log")),
            (Op.RENAME, lambda: place.rename("000003.log", "000004.log")),
            (Op.STAT, lambda: place.facts("000003.log")),
        ]
        for op, question in asked:
            with plan.fail(op, Kind.JOURNAL, Always(), error=errno.EIO), refused(errno.EIO):
                question()
        assert read_all(place, "000003.log") == b"content"
        assert core.counts() == (1, 0)
