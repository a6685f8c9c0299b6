"""Fixtures: the same questions to a plain directory, the core in process, and real mounts.

A mount is made once for all tests that ask it anything; each test gets a folder of its own on it
(`place`), or its root, emptied and with a small database in it (`database`). After each test the
core, or the process behind the mount, must hold what it held before.

Overlays are asked as well. There the folder, and the database, lie in the source; its changes are
discarded before the next test, and the source must be what it was. In process everything lies in the
source that a test makes to begin with (`laying`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from avccfs.fs.core import Core
from avccfs.fuse.asking import asking
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Directory
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.overlay import Overlay
from tests.fs.databases import Database, clear, fill, tree_below
from tests.fs.laying import Ground, Proof, proof_of
from tests.fs.places import CorePlace, OsPlace, Place
from tests.fs.waiting import wait_for
from tests.mounting import MountedAt, descriptors_of, mounted

PLAIN = ("local",)
IN_PROCESS = ("core-local", "core-memory")
LAID = ("core-overlay", "core-overlay-dir")
"""In process, over what the test makes first: in memory, and with directories on both sides."""
DIRECT = ("mount", "mount-write-through")
OVERLAID = ("mount-overlay", "mount-overlay-dir")
EXACT = ("mount-faulty",)
"""Ready for faults, of which none comes: each operation is that of the process."""
MOUNTED = (*DIRECT, *OVERLAID, *EXACT)

FOLDERS = 300
"""Made in the source of an overlay; tests beyond that many make their own."""

_fresh = count(1)


@dataclass
class Standing:
    """A mount that stands for many tests."""

    at: MountedAt
    upper: Path | None = None
    """Where an overlay keeps its changes, if in a directory."""
    proof: Proof | None = None
    """What is in the source, if it must not change."""
    folders: Iterator[str] = field(default_factory=lambda: iter(()))
    """Empty ones that lie in the source, each for one test."""

    def held(self) -> list[str]:
        """The files that the process has open in its directories."""
        roots = (self.at.source, os.fspath(self.upper or self.at.source))
        open_now = descriptors_of(self.at.pid)
        return [each for each in open_now if each.startswith(roots) and "/ledger-" not in each]

    def start_over(self) -> None:
        """Have an overlay show its source again, which must be as it was."""
        if self.proof is not None:
            with asking(os.fspath(self.at.path)) as mount:
                assert mount.ask("discard") == {"busy": []}
            self.check()

    def check(self) -> None:
        """The source of an overlay is as it was."""
        if self.proof is not None:
            with closing(LocalDirectory(self.at.source, read_only=True)) as source:
                assert proof_of(source) == self.proof, "the source was changed"


OpenMount = Callable[[str, bool], Standing]
"""By name, and whether it is for databases."""


def _params(*names: str) -> list[object]:
    return [
        pytest.param(name, id=name, marks=[pytest.mark.mounted] if name in MOUNTED else [])
        for name in names
    ]


@contextmanager
def _standing(name: str, root: Path, *, database: bool) -> Iterator[Standing]:
    source = root / "source"
    source.mkdir()
    words = {
        "mount": (),
        "mount-write-through": ("--write-through",),
        "mount-overlay": ("--overlay",),
        "mount-overlay-dir": ("--overlay", os.fspath(root / "upper")),
        "mount-faulty": ("--fault", "none"),
    }[name]
    if name not in OVERLAID:
        with mounted(source, root / "mnt", *words) as at:
            yield Standing(at)
        return
    folders = [] if database else [f"laid-{number}" for number in range(FOLDERS)]
    for folder in folders:
        (source / folder).mkdir()
    if database:
        fill(OsPlace(source, name))
    with closing(LocalDirectory(source, read_only=True)) as below:
        proof = proof_of(below)
    with mounted(source, root / "mnt", *words) as at:
        upper = root / "upper" if name == "mount-overlay-dir" else None
        one = Standing(at, upper, proof, iter(folders))
        yield one
        one.check()


@pytest.fixture(scope="session")
def open_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenMount]:
    """Mounts by name, each made when it is first asked for."""
    open_now: dict[tuple[str, bool], Standing] = {}
    with ExitStack() as stack:

        def open_one(name: str, database: bool) -> Standing:
            key = name, database and name in OVERLAID
            if key not in open_now:
                one = _standing(name, tmp_path_factory.mktemp(name), database=key[1])
                open_now[key] = stack.enter_context(one)
            return open_now[key]

        yield open_one


@pytest.fixture(params=_params(*PLAIN, *IN_PROCESS, *LAID, *MOUNTED))
def place(request: pytest.FixtureRequest, tmp_path: Path, open_mount: OpenMount) -> Iterator[Place]:
    """An empty folder in each kind of place."""
    with ExitStack() as stack:
        root: Place
        folder = f"test-{next(_fresh)}"
        if request.param in MOUNTED:
            one = open_mount(request.param, False)
            root = stack.enter_context(_on_mount(one, request.param))
            folder = next(one.folders, folder)
        elif request.param in LAID:
            root = stack.enter_context(_laid(request.param, tmp_path).standing())
        elif request.param in IN_PROCESS:
            root = stack.enter_context(in_process(request.param, tmp_path / "source"))
        else:
            root = OsPlace(tmp_path, request.param)
        if not folder.startswith("laid-"):
            root.mkdir(folder)
        yield root.within(folder)


@pytest.fixture(params=_params(*PLAIN, *MOUNTED))
def folder(request: pytest.FixtureRequest, tmp_path: Path, open_mount: OpenMount) -> Iterator[Path]:
    """An empty folder that the operating system shows: plain, and on the mounts."""
    if request.param not in MOUNTED:
        yield tmp_path
        return
    one = open_mount(request.param, False)
    with _on_mount(one, request.param):
        path = one.at.path / next(one.folders, f"test-{next(_fresh)}")
        path.mkdir(exist_ok=one.proof is not None)
        yield path


@pytest.fixture(params=_params(*IN_PROCESS, *LAID, *DIRECT, *OVERLAID))
def database(
    request: pytest.FixtureRequest, tmp_path: Path, open_mount: OpenMount
) -> Iterator[Database]:
    """A small database, seen through the core or a mount."""
    yield from _database(request.param, tmp_path, open_mount)


@pytest.fixture(params=_params(*DIRECT, *OVERLAID))
def mounted_database(
    request: pytest.FixtureRequest, tmp_path: Path, open_mount: OpenMount
) -> Iterator[Database]:
    """The same, only where programs can get at it."""
    yield from _database(request.param, tmp_path, open_mount)


@pytest.fixture(params=_params(*PLAIN, *IN_PROCESS, *LAID, *DIRECT, *OVERLAID))
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
    """On an overlay, what lies below is what it shows: the source does not change."""
    if kind in OVERLAID:
        one = open_mount(kind, True)
        one.start_over()
        with (
            _on_mount(one, kind) as place,
            closing(LocalDirectory(one.at.path, read_only=True)) as shown,
        ):
            yield Database(place, lambda: tree_below(shown), shown, one.at.path)
        return
    if kind in MOUNTED:
        one = open_mount(kind, True)
        with (
            _on_mount(one, kind) as place,
            closing(LocalDirectory(one.at.source, read_only=True)) as below,
        ):
            clear(place)
            fill(place)
            yield Database(place, lambda: tree_below(below), below, one.at.path)
            clear(place)
        return
    if kind in LAID:
        ground = _laid(kind, tmp_path)
        with ground.standing() as laid:
            fill(laid)
            above = ground.above()
            inside = above.core.directory
            yield Database(above, lambda: tree_below(inside), inside, None)
        return
    with in_process(kind, tmp_path / "source") as core_place:
        fill(core_place)
        inside = core_place.core.directory
        yield Database(core_place, lambda: tree_below(inside), inside, None)


def _laid(kind: str, root: Path) -> Ground:
    if kind == "core-overlay":
        lower = MemoryDirectory()
        return Ground(kind, lower, lambda: Overlay(lower, close_inner=False))
    return Ground(
        kind,
        LocalDirectory(root / "source"),
        lambda: Overlay(
            LocalDirectory(root / "source", read_only=True), LocalDirectory(root / "upper")
        ),
    )


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
def _on_mount(one: Standing, name: str) -> Iterator[OsPlace]:
    before = one.held()
    yield OsPlace(one.at.path, name)
    # The last close of a file is told to the mount after close(2) has returned.
    wait_for(lambda: one.held() == before)
