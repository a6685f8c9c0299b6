"""Fixtures: the same questions to a plain directory, the core in process, and real mounts.

A mount is made once for all tests that ask it anything; each test gets a folder of its own on it
(`place`), or its root, emptied and with a small database in it (`database`). After each test the
core, or the process behind the mount, must hold what it held before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path

import pytest

from avccfs.fs.core import Core
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Directory
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from tests.fs.databases import Database, clear, fill, tree_below
from tests.fs.places import CorePlace, OsPlace, Place
from tests.fs.waiting import wait_for
from tests.mounting import MountedAt, descriptors_of, mounted

PLAIN = ("local",)
IN_PROCESS = ("core-local", "core-memory")
MOUNTED = {"mount": (), "mount-write-through": ("--write-through",)}

_fresh = count(1)
OpenMount = Callable[[str], MountedAt]


def _params(*names: str) -> list[object]:
    return [
        pytest.param(name, id=name, marks=[pytest.mark.mounted] if name in MOUNTED else [])
        for name in names
    ]


@pytest.fixture(scope="session")
def open_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenMount]:
    """Mounts by name, each made when it is first asked for."""
    open_now: dict[str, MountedAt] = {}
    with ExitStack() as stack:

        def open_one(name: str) -> MountedAt:
            if name not in open_now:
                root = tmp_path_factory.mktemp(name)
                (root / "source").mkdir()
                one = mounted(root / "source", root / "mnt", *MOUNTED[name])
                open_now[name] = stack.enter_context(one)
            return open_now[name]

        yield open_one


@pytest.fixture(params=_params(*PLAIN, *IN_PROCESS, *MOUNTED))
def place(request: pytest.FixtureRequest, tmp_path: Path, open_mount: OpenMount) -> Iterator[Place]:
    """An empty folder in each kind of place."""
    with ExitStack() as stack:
        root: Place
        if request.param in MOUNTED:
            root = stack.enter_context(_on_mount(open_mount(request.param), request.param))
        elif request.param in IN_PROCESS:
            root = stack.enter_context(in_process(request.param, tmp_path / "source"))
        else:
            root = OsPlace(tmp_path, request.param)
        folder = f"test-{next(_fresh)}"
        root.mkdir(folder)
        yield root.within(folder)


@pytest.fixture(params=_params(*PLAIN, *MOUNTED))
def folder(request: pytest.FixtureRequest, tmp_path: Path, open_mount: OpenMount) -> Iterator[Path]:
    """An empty folder that the operating system shows: plain, and on the mounts."""
    if request.param not in MOUNTED:
        yield tmp_path
        return
    at = open_mount(request.param)
    with _on_mount(at, request.param):
        path = at.path / f"test-{next(_fresh)}"
        path.mkdir()
        yield path


@pytest.fixture(params=_params(*IN_PROCESS, *MOUNTED))
def database(
    request: pytest.FixtureRequest, tmp_path: Path, open_mount: OpenMount
) -> Iterator[Database]:
    """A small database, seen through the core or a mount."""
    yield from _database(request.param, tmp_path, open_mount)


@pytest.fixture(params=_params(*MOUNTED))
def mounted_database(
    request: pytest.FixtureRequest, tmp_path: Path, open_mount: OpenMount
) -> Iterator[Database]:
    """The same, only where programs can get at it."""
    yield from _database(request.param, tmp_path, open_mount)


@pytest.fixture(params=_params(*PLAIN, *IN_PROCESS, *MOUNTED))
def database_anywhere(
    request: pytest.FixtureRequest, tmp_path: Path, open_mount: OpenMount
) -> Iterator[Place]:
    """The same files, also in a plain directory."""
    if request.param in PLAIN:
        place = OsPlace(tmp_path, request.param)
        fill(place)
        yield place
    else:
        for database in _database(request.param, tmp_path, open_mount):
            yield database.place


def _database(kind: str, tmp_path: Path, open_mount: OpenMount) -> Iterator[Database]:
    if kind in MOUNTED:
        at = open_mount(kind)
        with (
            _on_mount(at, kind) as place,
            closing(LocalDirectory(at.source, read_only=True)) as below,
        ):
            clear(place)
            fill(place)
            yield Database(place, lambda: tree_below(below), below, at.path)
            clear(place)
        return
    with in_process(kind, tmp_path / "source") as core_place:
        fill(core_place)
        inside = core_place.core.directory
        yield Database(core_place, lambda: tree_below(inside), inside, None)


@contextmanager
def in_process(kind: str, source: Path) -> Iterator[CorePlace]:
    """A core over an empty directory of either kind."""
    directory: Directory = LocalDirectory(source) if kind == "core-local" else MemoryDirectory()
    core = Core(DirectoryStorage(directory), source=os.fspath(source))
    try:
        before = core.counts()
        yield CorePlace(core, kind)
        assert core.counts() == before, "identities or handles were left behind"
    finally:
        core.close()


@contextmanager
def _on_mount(at: MountedAt, name: str) -> Iterator[OsPlace]:
    before = _held_by(at)
    yield OsPlace(at.path, name)
    # The last close of a file is told to the mount after close(2) has returned.
    wait_for(lambda: _held_by(at) == before)


def _held_by(at: MountedAt) -> list[str]:
    return [path for path in descriptors_of(at.pid) if path.startswith(at.source)]
