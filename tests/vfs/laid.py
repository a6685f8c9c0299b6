"""A directory in memory laid over another one, in the plainest way that can tell where it came from."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing

from avccfs.format.filename import LOCK
from avccfs.vfs import rules
from avccfs.vfs.base import Attributes, Directory, Open, Stat, join
from avccfs.vfs.layered import Extent, Origin
from avccfs.vfs.memory import MemoryDirectory

Tree = dict[str, tuple[object, ...]]


class Laid(MemoryDirectory):
    """A full copy of `lower`. What is still the same file says that all of it may be altered."""

    def __init__(self, lower: Directory) -> None:
        super().__init__()
        self.lower = lower
        self.forgotten = False
        self._from = copy_all(lower, self)

    def origin(self, path: str) -> Origin | None:
        found = self.stat(path)
        if not stat.S_ISREG(found.mode):
            raise rules.error(errno.EINVAL, path)
        below = self._from.get(found.inode)
        return None if below is None else Origin(below, self.altered(path, found.size))

    def altered(self, path: str, size: int) -> tuple[Extent, ...]:
        return (Extent(0, size),) if size else ()

    def forget(self) -> None:
        """The changes are in the directory below."""
        self.forgotten = True


class Told(Laid):
    """One that is told which ranges are altered; of other files it says that nothing is."""

    def __init__(self, lower: Directory, ranges: Mapping[str, tuple[Extent, ...]]) -> None:
        super().__init__(lower)
        self.ranges = ranges

    def altered(self, path: str, size: int) -> tuple[Extent, ...]:
        return self.ranges.get(path, ())


def walk(directory: Directory, path: str = "") -> Iterator[tuple[str, Stat]]:
    """Everything below a path, parents first."""
    for name, found in sorted(directory.scan(path)):
        below = join(path, name)
        yield below, found
        if stat.S_ISDIR(found.mode):
            yield from walk(directory, below)


def copy_all(old: Directory, new: Directory) -> dict[int, str]:
    """Copy everything, hard links and attributes included; the new inode of each file, and a path
    that the file has in `old`."""
    first: dict[int, str] = {}
    came_from: dict[int, str] = {}
    entries = list(walk(old))
    for path, found in entries:
        if stat.S_ISDIR(found.mode):
            new.mkdir(path)
        elif stat.S_ISLNK(found.mode):
            new.symlink(path, old.readlink(path))
        elif found.inode in first:
            new.link(first[found.inode], path)
        else:
            write(new, path, read(old, path))
            first[found.inode] = path
            came_from[new.stat(path).inode] = path
    for path, found in (*reversed(entries), ("", old.stat())):
        mode = None if stat.S_ISLNK(found.mode) else stat.S_IMODE(found.mode)
        times = Attributes(mode, found.uid, found.gid, found.atime_ns, found.mtime_ns)
        new.set_attributes(path, times)
    return came_from


def write(directory: Directory, path: str, content: bytes, offset: int | None = None) -> None:
    """Write a file anew, or over what stands at `offset`."""
    flags = Open.WRITE | Open.CREATE
    with closing(
        directory.open(path, flags if offset is not None else flags | Open.TRUNCATE)
    ) as file:
        if content:
            file.write_at(content, offset or 0)
        file.sync()


def replace(directory: Directory, path: str, content: bytes) -> None:
    """Write a new file and put it over the old one."""
    write(directory, "~", content)
    directory.rename("~", path)


def read(directory: Directory, path: str) -> bytes:
    with closing(directory.open(path)) as file:
        return file.read_at(file.stat().size, 0)


def holding(files: Mapping[str, bytes]) -> MemoryDirectory:
    """A directory with these files, their folders, and a LOCK."""
    directory = MemoryDirectory()
    for path, content in {LOCK: b"", **files}.items():
        parts = path.split("/")[:-1]
        for depth in range(len(parts)):
            folder = "/".join(parts[: depth + 1])
            if folder not in [each for each, _ in walk(directory)]:
                directory.mkdir(folder)
        write(directory, path, content)
    return directory


def tree(directory: Directory, *, attributes: bool = True, root: bool = True) -> Tree:
    """What everything is and holds, by path; with `root` the directory itself too. Without LOCK."""
    found: Tree = {}
    for path, status in (("", directory.stat()), *walk(directory)):
        if path == LOCK or (not path and not root):
            continue
        held: object = None
        if stat.S_ISREG(status.mode):
            held = read(directory, path)
        elif stat.S_ISLNK(status.mode):
            held = directory.readlink(path)
        told = (status.mode, status.uid, status.gid, status.mtime_ns)
        found[path] = (held, *told) if attributes else (held, stat.S_IFMT(status.mode))
    return found
