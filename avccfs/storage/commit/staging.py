"""The first phase of a commit: every new or changed file is built beside, complete and synced.

Nothing of the directory itself is changed, so this can fail or be killed at any moment; what is
left of it is one folder, which the next commit removes.
"""

from __future__ import annotations

import errno
import stat as stat_bits
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final

from avccfs.storage.commit.draft import Stage
from avccfs.storage.commit.entries import give
from avccfs.storage.commit.plan import PLAN, PLAN_DRAFT, Plan, encode, staged
from avccfs.storage.handles import write_all
from avccfs.vfs.base import Attributes, Directory, File, Open, Stat, join
from avccfs.vfs.layered import COMMIT_FOLDER

NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
)
"""What says that a hard link cannot be made here, or not of this file."""
PIECE: Final = 1 << 20
"""Bytes that are copied at a time."""

_NEW = Open.WRITE | Open.CREATE | Open.EXCLUSIVE

Told = Callable[[int, str], None]
"""Told of bytes that were copied, and the path that they are of."""


def build(view: Directory, source: Directory, stages: tuple[Stage, ...], told: Told) -> None:
    """Build all of these in the commit's folder of `source`, and make them durable.

    Raises `OSError(ENOSPC)` before anything is written if there is no room for them.
    """
    _demand_room(view, source, stages)
    source.mkdir(COMMIT_FOLDER, 0o700)
    for stage in stages:
        _Builder(view, source, told).build(stage)
    source.sync(COMMIT_FOLDER)
    source.sync()


def write_plan(source: Directory, plan: Plan) -> None:
    """Make the plan durable: from then on the commit has begun."""
    with closing(source.open(PLAN_DRAFT, _NEW, 0o600)) as file:
        write_all(file, encode(plan), 0)
        file.sync()
    source.rename(PLAN_DRAFT, PLAN)
    source.sync(COMMIT_FOLDER)


def sweep(source: Directory) -> None:
    """Remove the commit's folder: the plan first, so that the rest is never taken for a commit."""
    for name in (PLAN, PLAN_DRAFT):
        with suppress(FileNotFoundError):
            source.remove(name)
    source.sync(COMMIT_FOLDER)
    _remove_folder(source, COMMIT_FOLDER)
    source.sync()


def size_of_copies(view: Directory, stages: tuple[Stage, ...]) -> int:
    """Bytes that building these is going to copy."""
    return sum(view.stat(each.path).size for each in stages if _is_copied(each))


def _is_copied(stage: Stage) -> bool:
    return not stage.link and stage.same_as is None and stage.same_stage is None


def _demand_room(view: Directory, source: Directory, stages: tuple[Stage, ...]) -> None:
    space = source.space()
    if not space.blocks:
        return  # It does not tell.
    needed = sum(_room(view.stat(each.path), space.frsize) for each in stages if _is_copied(each))
    there = space.bavail * space.frsize
    if needed > there:
        raise OSError(
            errno.ENOSPC,
            f"the changed files need {needed} bytes beside the old ones, and {there} are free. "
            f"Make room for {needed - there} bytes more",
            COMMIT_FOLDER,
        )


def _room(file: Stat, unit: int) -> int:
    """What a copy takes, holes left out."""
    size = min(file.size, file.blocks * 512) if file.blocks else file.size
    return -(-size // unit) * unit


class _Builder:
    def __init__(self, view: Directory, source: Directory, told: Told) -> None:
        self._view = view
        self._source = source
        self._told = told

    def build(self, stage: Stage) -> None:
        if stage.link:
            self._make_symlink(stage)
        elif stage.same_stage is not None:
            self._link_or_copy(staged(stage.same_stage), stage)
        elif stage.same_as is not None:
            self._link_or_copy(stage.same_as, stage)
        else:
            self._copy(stage)

    def _make_symlink(self, stage: Stage) -> None:
        place = staged(stage.number)
        self._source.symlink(place, self._view.readlink(stage.path))
        wanted = self._view.stat(stage.path)
        give(
            self._source.stat(place),
            wanted,
            lambda change: self._source.set_attributes(place, change),
        )

    def _link_or_copy(self, existing: str, stage: Stage) -> None:
        try:
            self._source.link(existing, staged(stage.number))
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self._copy(stage)
        else:
            # A name of a file that somebody else wrote is no promise that its bytes are on disk.
            with closing(self._source.open(staged(stage.number))) as file:
                file.sync()

    def _copy(self, stage: Stage) -> None:
        with closing(self._view.open(stage.path)) as old:
            wanted = old.stat()
            with closing(self._source.open(staged(stage.number), _NEW, 0o600)) as new:
                self._pour(old, new, wanted.size, stage.path)
                give(new.stat(), wanted, new.set_attributes)
                new.sync()

    def _pour(self, old: File, new: File, size: int, path: str) -> None:
        """Copy the content; pieces of zeros become holes."""
        end = 0
        for offset in range(0, size, PIECE):
            data = old.read_at(min(PIECE, size - offset), offset)
            if data != bytes(len(data)):
                write_all(new, data, offset)
                end = offset + len(data)
            self._told(len(data), path)
        if end < size:
            new.truncate(size)


def _remove_folder(directory: Directory, path: str) -> None:
    # What was taken away may have a mode that shuts us out. (If it is not ours, scan will say so.)
    with suppress(OSError):
        directory.set_attributes(path, Attributes(mode=0o700))
    for name, found in directory.scan(path):
        below = join(path, name)
        if stat_bits.S_ISDIR(found.mode):
            _remove_folder(directory, below)
        else:
            directory.remove(below)
    directory.rmdir(path)
