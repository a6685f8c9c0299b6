"""A plan as it is being made: what is to be staged, and the operations so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from avccfs.storage.commit.plan import MakeFolder, MoveAway, Operation, SyncFolders
from avccfs.vfs.base import split


@dataclass(frozen=True, slots=True)
class Stage:
    """Something to be built before the commit begins."""

    number: int
    path: str
    """Where it is in the view."""
    link: bool = False
    """Whether it is a symbolic link."""
    same_as: str | None = None
    """A file of the source that it is, unchanged: a hard link will do."""
    same_stage: int | None = None
    """An earlier one of these that is the same file."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan before anything was staged."""

    stages: tuple[Stage, ...]
    operations: tuple[Operation, ...]
    current: tuple[bytes, ...]
    """What CURRENT may hold before, meanwhile and afterwards."""


@dataclass(slots=True)
class Sheet:
    """The operations so far. It remembers which folders they touch, to sync them in time."""

    operations: list[Operation] = field(default_factory=list)
    touched: set[str] = field(default_factory=lambda: {""})
    """Folders whose names change; in the directory itself, the commit's own folder."""
    restored: set[str] = field(default_factory=set)
    """Files that get their attributes in place."""
    _unsynced: set[str] = field(default_factory=set)
    _trash: int = 0

    def add(self, operation: Operation, path: str) -> None:
        """An operation on the name `path`."""
        self.operations.append(operation)
        folder = split(path)[0]
        self.touched.add(folder)
        self._unsynced.add(folder)

    def make_folders(self, paths: Iterable[str]) -> None:
        """Make folders, parents first."""
        for path in sorted(paths):
            self.add(MakeFolder(path), path)
            self.touched.add(path)
        self.sync()

    def move_away(self, path: str, was: int | None) -> None:
        """Take something away; `was` as in `plan.MoveAway`."""
        self.add(MoveAway(self._trash, path, was), path)
        self._trash += 1

    def sync(self) -> None:
        """Make all names so far durable before anything else is done."""
        if self._unsynced:
            self.operations.append(SyncFolders(tuple(sorted(self._unsynced))))
            self._unsynced.clear()
