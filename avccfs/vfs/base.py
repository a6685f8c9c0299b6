"""Directories of bytes: the one interface below the storage.

A `Directory` is a tree of files in which everything a database engine or a unix tool does can be
said: names, open, read at, write at, truncate, sync, rename, remove, sync of the directory, lock.
The local directory, memory, and every wrapper (fault injection, recording) implement it, and
wrappers hold an inner one, so they compose.

Paths are relative, with `/` between parts and never a leading one; the empty path is the directory
itself. No implementation ever follows a symbolic link, in any part of a path.

Everything here is synchronous and may be called from several threads at once. Errors are the
operating system's own (`FileNotFoundError`, `OSError(ENOSPC)` ...), with the path as `filename`;
after `close` every call raises `errors.ClosedError`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

Buffer = bytes | bytearray | memoryview


class Open(enum.Flag):
    """How a file is opened. Reading is always possible."""

    READ = 0
    WRITE = enum.auto()
    CREATE = enum.auto()
    """Create the file if it is missing. Needs WRITE."""
    EXCLUSIVE = enum.auto()
    """With CREATE: fail if the file exists."""
    TRUNCATE = enum.auto()
    """Cut an existing file to nothing. Needs WRITE."""


class Rename(enum.Enum):
    """What `Directory.rename` does when the new name exists."""

    REPLACE = "replace"
    NOREPLACE = "noreplace"
    EXCHANGE = "exchange"


@dataclass(frozen=True, slots=True)
class Stat:
    """What `stat` tells of a file. Sizes in bytes, times in nanoseconds since 1970."""

    mode: int
    """Type and permission bits, as `os.stat_result.st_mode`."""
    size: int
    inode: int
    """Identity: two names with the same inode are the same file."""
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    blocks: int = 0
    """Allocated space in units of 512 bytes."""
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    rdev: int = 0
    blksize: int = 4096


@dataclass(frozen=True, slots=True)
class Attributes:
    """A change of attributes; None leaves a thing as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """Room on the file system below: sizes in units of `frsize` bytes."""

    bsize: int = 4096
    frsize: int = 4096
    blocks: int = 0
    bfree: int = 0
    bavail: int = 0
    files: int = 0
    ffree: int = 0
    favail: int = 0
    namemax: int = 255


@runtime_checkable
class File(Protocol):
    """An open file. It stays usable when its name is removed or replaced."""

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""

    def write_at(self, data: Buffer, offset: int) -> int:
        """Write all of `data` at `offset` and return its length; a hole before it reads as zeros.

        A short count is returned only together with a condition that the next call will raise
        (a full disk), never silently.
        """

    def truncate(self, size: int) -> None:
        """Cut or extend (with zeros) to `size` bytes."""

    def sync(self, *, data_only: bool = False) -> None:
        """Make the content durable; not the name. `data_only` leaves times aside (fdatasync)."""

    def stat(self) -> Stat:
        """The file's attributes, also after its name is gone."""

    def set_attributes(self, change: Attributes) -> None:
        """Change mode, owner or times."""

    def close(self) -> None:
        """Release the handle; may be called again."""


class DirectoryLock(Protocol):
    """A held lock. It sits on the file that is called LOCK, not on the name."""

    def also(self, path: str) -> DirectoryLock:
        """The same lock on another file, one that is about to be renamed to LOCK.

        Holding both, rename, then release the old one: at no moment is the file called LOCK free.
        Raises `errors.LockedError` if somebody holds that file.
        """

    def release(self) -> None:
        """Let go; may be called again."""


@runtime_checkable
class Directory(Protocol):
    """A tree of files. See the module's text for paths, errors and threads."""

    @property
    def read_only(self) -> bool:
        """Whether every change is refused with `errors.ReadOnlyError`."""

    @property
    def label(self) -> str:
        """What to call this directory in a message: its path, `mem:` ..."""

    def names(self, path: str = "") -> list[str]:
        """The names in a directory, without `.` and `..`, in no particular order."""

    def scan(self, path: str = "") -> list[tuple[str, Stat]]:
        """Names with their `lstat`, for a listing. An entry that vanished meanwhile is left out."""

    def stat(self, path: str = "") -> Stat:
        """Attributes of an entry itself (never of what a symbolic link points to)."""

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> File:
        """Open, or create, a regular file. `mode` is the permission of a file that is created.

        A symbolic link is refused (`OSError(ELOOP)`), a directory too (`IsADirectoryError`).
        """

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        """Rename, atomically. Replacing a file is allowed; the rules are those of rename(2)."""

    def remove(self, path: str) -> None:
        """Remove the name of anything that is not a directory."""

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make a directory."""

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link at `path`. What it points to is not looked at."""

    def readlink(self, path: str) -> str:
        """Where a symbolic link points."""

    def link(self, existing: str, new: str) -> None:
        """Make a second name (a hard link) for a file."""

    def set_attributes(self, path: str, change: Attributes) -> None:
        """Change mode, owner or times of an entry itself."""

    def sync(self, path: str = "") -> None:
        """Make the names in a directory durable: creations, removals and renames so far."""

    def space(self) -> Space:
        """Room left on the file system below."""

    def lock(self, *, exclusive: bool) -> DirectoryLock | None:
        """Take the lock of the whole directory, without waiting.

        None where a shared lock cannot be taken because the place cannot hold one (a read-only
        medium without a LOCK file): nobody could write there either. Raises `errors.LockedError`,
        which names the holder where the system tells it.
        """

    def close(self) -> None:
        """Release everything; may be called again."""


def join(parent: str, name: str) -> str:
    """Path of `name` in the directory `parent`."""
    return f"{parent}/{name}" if parent else name


def split(path: str) -> tuple[str, str]:
    """Parent directory and last name of a path."""
    parent, _, name = path.rpartition("/")
    return parent, name


def exists(directory: Directory, path: str) -> bool:
    """Whether there is anything of that name."""
    try:
        directory.stat(path)
    except FileNotFoundError:
        return False
    return True
