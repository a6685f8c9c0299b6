"""Places and the files in them: held, opened, read and synced.

A directory is held as a `Place`: a descriptor (`Fd`) where system calls can work relative to one, so
that neither a rename above it nor a symbolic link slipped into a path leads elsewhere; otherwise its
absolute path. An `Entry` is a name in a place; `.` is the place itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from avccfs.vfs.base import Open, Space

try:
    import fcntl
except ImportError:  # pragma: no cover - not on POSIX
    fcntl = None  # type: ignore[assignment]


def _flag(name: str) -> int:
    """An `os.O_...` flag, or 0 where the platform does not know it."""
    value: int = getattr(os, name, 0)
    return value


HAS_DIR_FD = {os.open, os.stat, os.rename, os.unlink, os.mkdir, os.rmdir} <= os.supports_dir_fd
"""Whether places are descriptors; without them they are paths, checked before each use."""

_O_NOATIME = _flag("O_NOATIME")
_OPEN_FILE = (
    _flag("O_CLOEXEC")
    | _flag("O_NOFOLLOW")
    | _flag("O_NONBLOCK")
    | _flag("O_NOCTTY")
    | _flag("O_BINARY")
)
_OPEN_FOLDER = os.O_RDONLY | _flag("O_DIRECTORY") | _flag("O_CLOEXEC")
# Passing through a folder needs the right to search it, not the right to list it.
_OPEN_STEP = _OPEN_FOLDER | _flag("O_PATH") | _flag("O_NOFOLLOW")


class Fd(int):
    """A file descriptor that is closed when the last reference to it goes.

    Whoever uses it holds a reference for as long as the call lasts, so a close in another thread
    cannot make the number mean another file halfway through, and that costs no lock.
    """

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self)


Place = Fd | str
Entry = tuple[Place, str]


def failure(code: int) -> OSError:
    """The `OSError` (of the fitting subclass) for an errno."""
    return OSError(code, os.strerror(code))


def open_place(path: str) -> Place:
    """Hold the directory `path`. Links in it are followed: the user named it."""
    if HAS_DIR_FD:
        return Fd(os.open(path, _OPEN_FOLDER))
    _refuse_unless_folder(Path(path).stat().st_mode)
    return str(Path(path).resolve())


def at(entry: Entry) -> tuple[int | None, str]:
    """The `dir_fd` and the path by which a system call reaches an entry."""
    place, name = entry
    if isinstance(place, str):
        return None, place if name == "." else str(Path(place, name))
    return place, name


def lstat(entry: Entry) -> os.stat_result:
    """Attributes of the entry itself."""
    dir_fd, name = at(entry)
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def enter(entry: Entry) -> Place:
    """Hold a folder. A symbolic link is refused with `OSError(ELOOP)`, a file with ENOTDIR."""
    dir_fd, name = at(entry)
    if dir_fd is None:
        _refuse_unless_folder(lstat(entry).st_mode)
        return name
    try:
        return Fd(os.open(name, _OPEN_STEP, dir_fd=dir_fd))
    except NotADirectoryError:
        _refuse_unless_folder(lstat(entry).st_mode)
        raise


def open_listing(place: Place) -> Place:
    """Something for `os.listdir` and `os.scandir` to read a place through.

    It has a position of its own: duplicates of one descriptor share theirs, and two threads would
    each see a part of the names. Listing leaves the access time alone where that is permitted.
    """
    return place if isinstance(place, str) else _open_quietly(".", _OPEN_FOLDER, 0, place)


def sync_place(place: Place) -> None:
    """Make the names in a place durable. Does nothing where directories cannot be synced."""
    folder = open_listing(place)
    if isinstance(folder, str):
        return
    try:
        sync_file(folder)
    except OSError as exc:
        # What a file system says that has no such thing.
        if exc.errno != errno.EINVAL:
            raise


def space(place: Place) -> Space:
    """Room on the file system that holds a place."""
    if not hasattr(os, "statvfs"):  # pragma: no cover - not on POSIX
        return Space()
    told = os.statvfs(place)
    return Space(
        bsize=told.f_bsize,
        frsize=told.f_frsize,
        blocks=told.f_blocks,
        bfree=told.f_bfree,
        bavail=told.f_bavail,
        files=told.f_files,
        ffree=told.f_ffree,
        favail=told.f_favail,
        namemax=told.f_namemax,
    )


def _refuse_unless_folder(mode: int) -> None:
    if not stat.S_ISDIR(mode):
        raise failure(errno.ELOOP if stat.S_ISLNK(mode) else errno.ENOTDIR)


def open_regular(entry: Entry, flags: Open, mode: int) -> Fd:
    """Open a regular file, without waiting and without an effect on what is not one.

    Raises `OSError`: ELOOP for a symbolic link, EISDIR for a directory, ENXIO for a FIFO, a socket
    or a device. Reading leaves the access time alone where the system permits.
    """
    reads = flags is Open.READ
    if reads or Open.EXCLUSIVE not in flags:
        # Looked at first because opening alone has effects: it wakes whoever waits at the other
        # end of a FIFO, it rewinds a tape.
        try:
            _refuse_unless_regular(lstat(entry).st_mode)
        except FileNotFoundError:
            if Open.CREATE not in flags:
                raise
    bits = _OPEN_FILE | (os.O_RDONLY if reads else os.O_RDWR)
    if not reads:
        for flag, bit in _OPEN_BITS:
            if flag in flags:
                bits |= bit
    dir_fd, name = at(entry)
    fd = _open_quietly(name, bits, mode, dir_fd)
    # Looked at again because the name may have come to mean something else in between.
    _refuse_unless_regular(os.fstat(fd).st_mode)
    return fd


_OPEN_BITS = (
    (Open.CREATE, os.O_CREAT),
    (Open.EXCLUSIVE, os.O_EXCL),
    (Open.TRUNCATE, os.O_TRUNC),
)


def _open_quietly(name: str, bits: int, mode: int, dir_fd: int | None) -> Fd:
    if _O_NOATIME and not bits & os.O_RDWR:
        try:
            return Fd(os.open(name, bits | _O_NOATIME, mode, dir_fd=dir_fd))
        except OSError as exc:
            # Only the owner of a file may ask for this.
            if exc.errno != errno.EPERM:
                raise
    return Fd(os.open(name, bits, mode, dir_fd=dir_fd))


def _refuse_unless_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise failure(errno.EISDIR)
    raise failure(errno.ELOOP if stat.S_ISLNK(mode) else errno.ENXIO)


_seek_lock = threading.Lock()


def seek_and_read(fd: int, size: int, offset: int) -> bytes:
    """`os.pread` for platforms without one."""
    with _seek_lock:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size)


def seek_and_write(fd: int, data: bytes | bytearray | memoryview, offset: int) -> int:
    """`os.pwrite` for platforms without one."""
    with _seek_lock:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.write(fd, data)


pread: Callable[[int, int, int], bytes] = getattr(os, "pread", seek_and_read)
pwrite: Callable[[int, bytes | bytearray | memoryview, int], int] = getattr(
    os, "pwrite", seek_and_write
)


def sync_file(fd: int, *, data_only: bool = False) -> None:
    """Make what was written to `fd` durable, past the disk's own cache."""
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # pragma: no cover - macOS, whose fsync stops at the disk's cache
        fcntl.fcntl(fd, full)
    elif data_only and hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def flush(fd: int) -> None:
    """Raise what a close of `fd` would raise: late write errors of a network file system."""
    try:
        copy = os.dup(fd)
    except OSError:
        return  # Out of descriptors: no reason to fail a close.
    os.close(copy)
