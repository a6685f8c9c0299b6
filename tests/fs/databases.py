"""A small database directory to change through the core or a mount, and to look at from below."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from avccfs.format.filename import CURRENT, LOCK, LOG
from avccfs.vfs.base import Directory, join
from tests.fs.places import Place, names_in, write_all

OLD = b"MANIFEST-000001\n"
NEW = b"MANIFEST-000007\n"
LONG = b"MANIFEST-1000000\n"
MISSING = b"MANIFEST-000042\n"

FILES = {
    "MANIFEST-000001": b"the first",
    "MANIFEST-000007": b"the second",
    "MANIFEST-1000000": b"the one with a long name",
    "000003.log": b"a journal",
    "000005.ldb": b"a table",
    "notes.txt": b"foreign",
}
"""What is in the database besides CURRENT (which holds `OLD`) and LOCK."""


@dataclass(frozen=True)
class Database:
    """A database directory and both views of it."""

    place: Place
    """Through the core, or a mount."""
    tree: Callable[[], dict[str, bytes]]
    """Every file as it lies below, by path; LOG aside, for it says what happened."""
    below: Directory
    path: Path | None
    """Where the mount is."""

    @property
    def at(self) -> Path:
        assert self.path is not None, "this database is not mounted"
        return self.path

    def log(self) -> str:
        """LOG as it lies below; empty if there is none."""
        try:
            return read_below(self.below, LOG).decode()
        except FileNotFoundError:
            return ""


def fill(place: Place) -> None:
    """Make the database in an empty place."""
    for name, content in FILES.items():
        write_all(place, name, content)
    write_all(place, LOCK, b"")
    write_all(place, CURRENT, OLD)
    with suppress(FileNotFoundError):
        place.unlink(LOG)


def clear(place: Place) -> None:
    """Remove everything but LOCK, whose name cannot be made anew by everybody."""
    for name in names_in(place):
        if stat.S_ISDIR(place.facts(name).mode):
            clear(place.within(name))
            place.rmdir(name)
        elif name != LOCK:
            place.unlink(name)
    # The removal of CURRENT was told there.
    with suppress(FileNotFoundError):
        place.unlink(LOG)


def read_below(directory: Directory, path: str) -> bytes:
    """The content of a file as it lies below."""
    with closing(directory.open(path)) as file:
        return file.read_at(1 << 20, 0)


def tree_below(directory: Directory) -> dict[str, bytes]:
    """Every regular file below, by path, without LOG."""
    return {path: read_below(directory, path) for path in _files(directory) if path != LOG}


def _files(directory: Directory, folder: str = "") -> Iterator[str]:
    for name, found in sorted(directory.scan(folder)):
        path = join(folder, name)
        if stat.S_ISDIR(found.mode):
            yield from _files(directory, path)
        elif stat.S_ISREG(found.mode):
            yield path


def pending_left(tree: dict[str, bytes]) -> list[str]:
    """Pending files, and new pointers of LevelDB's naming, that a switch must not leave behind."""
    return [
        name
        for name in tree
        if (name.startswith("CURRENT.") and name != "CURRENT.bak") or name.endswith(".dbtmp")
    ]
