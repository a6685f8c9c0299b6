"""A directory of the local file system.

Everything is done relative to one descriptor of the directory, folder by folder, so that no
symbolic link in a path is ever followed. What platforms do differently is in `vfs.platform`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from avccfs.format import filename
from avccfs.vfs import platform, rules
from avccfs.vfs.base import (
    Attributes,
    Buffer,
    DirectoryLock,
    Open,
    Rename,
    Space,
    Stat,
)
from avccfs.vfs.platform import Entry, Fd, Place, pread, pwrite
from avccfs.vfs.rules import Naming

if TYPE_CHECKING:
    from avccfs.vfs.platform.lock import FileLock

# What a short write may end with: the next call meets the same limit at its very start.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def stat_of(told: os.stat_result) -> Stat:
    """What `os.stat` says, in the words of the interface. `inode` is `st_ino`."""
    return Stat(
        told.st_mode,
        told.st_size,
        told.st_ino,
        told.st_nlink,
        told.st_uid,
        told.st_gid,
        getattr(told, "st_blocks", -(-told.st_size // 512)),
        told.st_atime_ns,
        told.st_mtime_ns,
        told.st_ctime_ns,
        getattr(told, "st_rdev", 0),
        getattr(told, "st_blksize", 4096),
    )


class LocalFile:
    """An open regular file. See `vfs.base.File`."""

    __slots__ = ("_fd", "_path", "_refusal", "_writable")

    def __init__(self, fd: Fd, path: str, *, writable: bool, refusal: str | None) -> None:
        """Take over `fd`. `refusal` is the label of a directory in which nothing may change."""
        self._fd: Fd | None = fd
        self._path = path
        self._writable = writable
        self._refusal = refusal

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`."""
        fd = self._fd
        if fd is None:
            raise rules.closed_file(self._path)
        try:
            data = pread(fd, size, offset)
        except (OSError, OverflowError, MemoryError) as exc:
            return self._read_failed(fd, size, offset, exc)
        if len(data) == size or not data:
            return data
        return self._read_rest(fd, data, size, offset)

    def _read_rest(self, fd: Fd, data: bytes, size: int, offset: int) -> bytes:
        """Go on after a short read, which is not always the end of the file."""
        parts = [data]
        done = len(data)
        with Naming(self._path):
            while done < size and (data := pread(fd, size - done, offset + done)):
                parts.append(data)
                done += len(data)
        return b"".join(parts)

    def _read_failed(self, fd: Fd, size: int, offset: int, exc: Exception) -> bytes:
        """Read again if only the size was absurd: a forged length reads what is there."""
        with Naming(self._path):
            if isinstance(exc, OSError):
                raise exc
            if not 0 <= offset <= rules.MAX_OFFSET or size < 0:
                raise platform.failure(errno.EINVAL) from None
            there = max(0, os.fstat(fd).st_size - offset)
            if there >= size:
                raise exc
        return self.read_at(there, offset)

    def write_at(self, data: Buffer, offset: int) -> int:
        """Write all of `data` at `offset`; less only when the next call will say why."""
        fd = self._fd
        if fd is None:
            raise rules.closed_file(self._path)
        try:
            done = pwrite(fd, data, offset)
        except OverflowError:
            raise rules.error(errno.EFBIG, self._path) from None
        except OSError as exc:
            exc.filename = self._path
            raise
        total = data.nbytes if isinstance(data, memoryview) else len(data)
        return done if done == total else self._write_rest(fd, data, done, offset)

    def _write_rest(self, fd: Fd, data: Buffer, done: int, offset: int) -> int:
        """Go on after a short write, until all is written or the disk is full."""
        with memoryview(data) as view, view.cast("B") as rest, Naming(self._path):
            while done < len(rest):
                try:
                    wrote = pwrite(fd, rest[done:], offset + done)
                except OSError as exc:
                    if done and exc.errno in _FULL:
                        break
                    raise
                if not wrote:
                    raise platform.failure(errno.EIO)
                done += wrote
        return done

    def truncate(self, size: int) -> None:
        """Cut or extend to `size` bytes."""
        fd = self._held()
        with Naming(self._path):
            if size > rules.MAX_OFFSET:
                raise platform.failure(errno.EFBIG)
            os.ftruncate(fd, size)

    def sync(self, *, data_only: bool = False) -> None:
        """Make the content durable."""
        fd = self._held()
        with Naming(self._path):
            platform.sync_file(fd, data_only=data_only)

    def stat(self) -> Stat:
        """The file's attributes."""
        fd = self._held()
        with Naming(self._path):
            return stat_of(os.fstat(fd))

    def set_attributes(self, change: Attributes) -> None:
        """Change mode, owner or times."""
        fd = self._held()
        if self._refusal is not None:
            raise rules.read_only(self._refusal, self._path)
        with Naming(self._path):
            platform.set_attributes(fd, change)

    def close(self) -> None:
        """Release the handle; late errors of writing come out here, and it is released anyway."""
        fd, self._fd = self._fd, None
        if fd is not None and self._writable:
            with Naming(self._path):
                platform.flush(fd)

    def _held(self) -> Fd:
        fd = self._fd
        if fd is None:
            raise rules.closed_file(self._path)
        return fd


class LocalDirectory:
    """A directory of the local file system. See `vfs.base.Directory`.

    The process's umask applies to what is created. Names that are not UTF-8 come and go as
    `os.fsdecode` writes them. Opening anything but a regular file is refused, without waiting and
    without touching it: a symbolic link with `OSError(ELOOP)`, a directory with EISDIR, a FIFO,
    socket or device with ENXIO. Reading does not change access times where that is permitted.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, read_only: bool = False, create: bool = True
    ) -> None:
        """Hold the directory `path`, a link to one included.

        It is created (mode 0755, not its parents) if it is missing, unless `read_only`. Raises what
        the system says if it is not there or not a directory.
        """
        self._label = os.fspath(path)
        self._read_only = read_only
        if create and not read_only:
            with contextlib.suppress(FileExistsError):
                Path(path).mkdir(mode=0o755)
        self._root: Place | None = platform.open_place(self._label)
        self._locks: list[FileLock] = []
        self._mutex = threading.Lock()

    @property
    def read_only(self) -> bool:
        """Whether every change is refused."""
        return self._read_only

    @property
    def label(self) -> str:
        """The path, as it was given."""
        return self._label

    # Looking

    def names(self, path: str = "") -> list[str]:
        """The names in a directory."""
        with Naming(path):
            return os.listdir(platform.open_listing(self._folder(path)))

    def scan(self, path: str = "") -> list[tuple[str, Stat]]:
        """Names with their attributes."""
        found = []
        with Naming(path):
            # Named, so that it stays open for as long as the entries are looked at.
            folder = platform.open_listing(self._folder(path))
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.name, stat_of(entry.stat(follow_symlinks=False))))
        return found

    def stat(self, path: str = "") -> Stat:
        """Attributes of an entry itself."""
        with Naming(path):
            return stat_of(platform.lstat(self._entry(path)))

    def readlink(self, path: str) -> str:
        """Where a symbolic link points."""
        with Naming(path):
            dir_fd, name = platform.at(self._entry(path, root=errno.EINVAL))
            return os.readlink(name, dir_fd=dir_fd)

    def space(self) -> Space:
        """Room on the file system below."""
        with Naming(""):
            return platform.space(self._folder(""))

    # Opening

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> LocalFile:
        """Open, or create, a regular file."""
        with Naming(path):
            entry = self._entry(path, root=errno.EISDIR, changes=bool(flags))
            rules.check_open(flags, path)
            fd = platform.open_regular(entry, flags, mode)
        return LocalFile(
            fd,
            path,
            writable=Open.WRITE in flags,
            refusal=self._label if self._read_only else None,
        )

    # Changing

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        """Rename, atomically."""
        with Naming(old, new):
            platform.rename(
                self._entry(old, root=errno.EBUSY, changes=True),
                self._entry(new, root=errno.EBUSY, changes=True),
                how,
            )

    def remove(self, path: str) -> None:
        """Remove the name of anything that is not a directory."""
        with Naming(path):
            dir_fd, name = platform.at(self._entry(path, root=errno.EISDIR, changes=True))
            os.unlink(name, dir_fd=dir_fd)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make a directory."""
        with Naming(path):
            dir_fd, name = platform.at(self._entry(path, root=errno.EEXIST, changes=True))
            os.mkdir(name, mode, dir_fd=dir_fd)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        with Naming(path):
            dir_fd, name = platform.at(self._entry(path, root=errno.EBUSY, changes=True))
            os.rmdir(name, dir_fd=dir_fd)

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link at `path`."""
        with Naming(path):
            dir_fd, name = platform.at(self._entry(path, root=errno.EEXIST, changes=True))
            rules.check_target(target, path)
            os.symlink(target, name, dir_fd=dir_fd)

    def link(self, existing: str, new: str) -> None:
        """Make a second name for a file."""
        with Naming(existing, new):
            old_fd, old = platform.at(self._entry(existing, changes=True))
            new_fd, name = platform.at(self._entry(new, root=errno.EEXIST, changes=True))
            os.link(old, name, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)

    def set_attributes(self, path: str, change: Attributes) -> None:
        """Change mode, owner or times of an entry itself."""
        with Naming(path):
            platform.set_attributes(self._entry(path, changes=True), change)

    # Keeping

    def sync(self, path: str = "") -> None:
        """Make the names in a directory durable."""
        with Naming(path):
            platform.sync_place(self._folder(path))

    def lock(self, *, exclusive: bool) -> DirectoryLock | None:
        """Take flock and record lock of the file `LOCK`, which is created if it is missing.

        Raises `LockedError` with the holders' names; `ReadOnlyError` for an exclusive lock of a
        read-only directory.
        """
        # Late: portalocker comes with it, and whoever only looks takes no lock.
        from avccfs.vfs.platform.lock import lock_directory

        place = self._folder("")
        if exclusive and self._read_only:
            raise rules.read_only(self._label, "")
        with Naming(filename.LOCK):
            return lock_directory(place, self._label, self._entry, self._keep, exclusive=exclusive)

    def _keep(self, lock: FileLock) -> None:
        """Remember a lock, to release it when the directory is closed."""
        with self._mutex:
            if self._root is not None:
                self._locks = [held for held in self._locks if held.held] + [lock]
                return
        lock.release()
        raise rules.closed_directory(self._label)

    def close(self) -> None:
        """Release the directory and its locks. Open files stay usable until they are closed."""
        with self._mutex:
            self._root = None
            locks, self._locks = self._locks, []
        for lock in locks:
            lock.release()

    # Paths

    def _entry(self, path: str, *, root: int | None = None, changes: bool = False) -> Entry:
        """The entry a path leads to. `root`: the errno of the empty path where it makes no sense."""
        place = self._root
        if place is None:
            raise rules.closed_directory(self._label)
        if changes and self._read_only:
            raise rules.read_only(self._label, path)
        parts = rules.components(path)
        if not parts:
            if root is not None:
                raise platform.failure(root)
            return place, "."
        for name in parts[:-1]:
            place = platform.enter((place, name))
        return place, parts[-1]

    def _folder(self, path: str) -> Place:
        entry = self._entry(path)
        return platform.enter(entry) if path else entry[0]
