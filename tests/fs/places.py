"""Three places with one face: a plain local directory, the core in process, a real mount.

The behaviour suite asks all three the same questions. `OsPlace` asks the operating system, below a
folder that is either plain or a mount; `CorePlace` does what the kernel would do: it walks paths by
lookup, counts the lookups, and gives them back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat as stat_module
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from avccfs.fs.core import Core
from avccfs.fs.inodes import ROOT
from avccfs.fuse.errno_map import errno_of
from avccfs.vfs.base import Attributes, Rename, Space, Stat, join

T = TypeVar("T")

AT_FDCWD = -100
_FLAGS = {Rename.REPLACE: 0, Rename.NOREPLACE: 1, Rename.EXCHANGE: 2}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Facts:
    """What a test may compare between places."""

    mode: int
    size: int
    nlink: int
    inode: int
    uid: int
    gid: int
    blocks: int
    mtime_ns: int
    atime_ns: int

    @property
    def permissions(self) -> int:
        return stat_module.S_IMODE(self.mode)


class Opened(Protocol):
    def read(self, size: int, offset: int) -> bytes: ...
    def write(self, data: bytes, offset: int) -> int: ...
    def append(self, data: bytes) -> int: ...
    def truncate(self, size: int) -> None: ...
    def chmod(self, mode: int) -> None: ...
    def utime(self, atime_ns: int, mtime_ns: int) -> None: ...
    def sync(self, *, data_only: bool = False) -> None: ...
    def facts(self) -> Facts: ...
    def close(self) -> None: ...


class Place(Protocol):
    name: str

    def within(self, folder: str) -> Place: ...
    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> Opened: ...
    def facts(self, path: str = "") -> Facts: ...
    def iterate(self, path: str = "") -> Generator[str, None, None]: ...
    def same_file(self, one: str, other: str) -> bool: ...
    def space(self) -> Space: ...
    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None: ...
    def unlink(self, path: str) -> None: ...
    def mkdir(self, path: str, mode: int = 0o755) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def symlink(self, path: str, target: str) -> None: ...
    def readlink(self, path: str) -> str: ...
    def link(self, existing: str, new: str) -> None: ...
    def truncate(self, path: str, size: int) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None: ...
    def sync(self, path: str = "") -> None: ...
    def mknod(self, path: str, kind: int = stat_module.S_IFREG) -> None: ...


@contextmanager
def refused(number: int) -> Iterator[None]:
    """The block fails with exactly this errno."""
    found: OSError | None = None
    try:
        yield
    except OSError as error:
        found = error
    assert found is not None, f"this should fail with {errno.errorcode[number]}"
    if found.errno != number:
        raise AssertionError(f"this should fail with {errno.errorcode[number]}") from found


@contextmanager
def opening(place: Place, path: str, flags: int = os.O_RDONLY) -> Iterator[Opened]:
    """Open, and close at the end; an error of close does not hide one of the block."""
    opened = place.open(path, flags)
    try:
        yield opened
    except BaseException:
        with suppress(OSError):
            opened.close()
        raise
    opened.close()


def names_in(place: Place, path: str = "") -> list[str]:
    """The names in a folder, sorted."""
    return sorted(place.iterate(path))


def read_all(place: Place, path: str) -> bytes:
    """The content of a file, read as `cat` reads: until nothing more comes."""
    with closing(place.open(path)) as opened:
        pieces = []
        offset = 0
        while piece := opened.read(1 << 16, offset):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)


def write_all(place: Place, path: str, content: bytes, flags: int = os.O_TRUNC) -> None:
    """What `>` does in a shell, with an error of close seen."""
    with opening(place, path, os.O_WRONLY | os.O_CREAT | flags) as opened:
        if content:
            opened.write(content, 0)


class OsOpened:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def write(self, data: bytes, offset: int) -> int:
        return os.pwrite(self._fd, data, offset)

    def append(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def chmod(self, mode: int) -> None:
        os.fchmod(self._fd, mode)

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self._fd, ns=(atime_ns, mtime_ns))

    def sync(self, *, data_only: bool = False) -> None:
        (os.fdatasync if data_only else os.fsync)(self._fd)

    def facts(self) -> Facts:
        return _facts_of_os(os.fstat(self._fd))

    def close(self) -> None:
        os.close(self._fd)


def _facts_of_os(found: os.stat_result) -> Facts:
    return Facts(
        mode=found.st_mode,
        size=found.st_size,
        nlink=found.st_nlink,
        inode=found.st_ino,
        uid=found.st_uid,
        gid=found.st_gid,
        blocks=found.st_blocks,
        mtime_ns=found.st_mtime_ns,
        atime_ns=found.st_atime_ns,
    )


def _facts_of_core(number: int, found: Stat) -> Facts:
    return Facts(
        mode=found.mode,
        size=found.size,
        nlink=found.nlink,
        inode=number,
        uid=found.uid,
        gid=found.gid,
        blocks=found.blocks,
        mtime_ns=found.mtime_ns,
        atime_ns=found.atime_ns,
    )


class OsPlace:
    """A folder of the operating system, plain or a mount."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name

    def within(self, folder: str) -> OsPlace:
        return OsPlace(self.root / folder, self.name)

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}" if path else os.fspath(self.root)

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> OsOpened:
        return OsOpened(os.open(self._at(path), flags | os.O_NOFOLLOW, mode))

    def facts(self, path: str = "") -> Facts:
        return _facts_of_os(os.lstat(self._at(path)))

    def iterate(self, path: str = "") -> Generator[str, None, None]:
        with os.scandir(self._at(path)) as entries:
            for entry in entries:
                yield entry.name

    def same_file(self, one: str, other: str) -> bool:
        return os.path.samestat(os.lstat(self._at(one)), os.lstat(self._at(other)))

    def space(self) -> Space:
        found = os.statvfs(self.root)
        return Space(
            bsize=found.f_bsize,
            frsize=found.f_frsize,
            blocks=found.f_blocks,
            bfree=found.f_bfree,
            bavail=found.f_bavail,
            files=found.f_files,
            ffree=found.f_ffree,
            favail=found.f_favail,
            namemax=found.f_namemax,
        )

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        one, two = (os.fsencode(self._at(path)) for path in (old, new))
        if _libc.renameat2(AT_FDCWD, one, AT_FDCWD, two, _FLAGS[how]) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), old)

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def symlink(self, path: str, target: str) -> None:
        os.symlink(target, self._at(path))

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def link(self, existing: str, new: str) -> None:
        os.link(self._at(existing), self._at(new), follow_symlinks=False)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self._at(path), size)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self._at(path), ns=(atime_ns, mtime_ns), follow_symlinks=False)

    def sync(self, path: str = "") -> None:
        fd = os.open(self._at(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def mknod(self, path: str, kind: int = stat_module.S_IFREG) -> None:
        os.mknod(self._at(path), kind | 0o644)


@contextmanager
def _as_errno() -> Iterator[None]:
    """Raise what the kernel would pass on to the caller of a system call."""
    try:
        yield
    except Exception as error:
        number = errno_of(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error


def _again_if_stale(ask: Callable[[], T]) -> T:
    """The kernel looks a name up once more when its number went stale meanwhile."""
    try:
        return ask()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    return ask()


class CoreOpened:
    def __init__(self, place: CorePlace, inode: int, handle: int, flags: int) -> None:
        self._place = place
        self._core = place.core
        self._inode = inode
        self._handle = handle
        self._flags = flags

    def read(self, size: int, offset: int) -> bytes:
        if self._flags & os.O_ACCMODE == os.O_WRONLY:
            raise OSError(errno.EBADF, "not open for reading")
        with _as_errno():
            return self._core.read(self._handle, size, offset)

    def write(self, data: bytes, offset: int) -> int:
        if self._flags & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "not open for writing")
        with _as_errno():
            return self._core.write(self._handle, data, offset)

    def append(self, data: bytes) -> int:
        # The kernel turns O_APPEND into an offset: the size it knows.
        return self.write(data, self.facts().size)

    def truncate(self, size: int) -> None:
        with _as_errno():
            self._core.setattr(self._inode, Attributes(), size, self._handle)

    def chmod(self, mode: int) -> None:
        with _as_errno():
            self._core.setattr(self._inode, Attributes(mode=mode))

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        with _as_errno():
            self._core.setattr(self._inode, Attributes(atime_ns=atime_ns, mtime_ns=mtime_ns))

    def sync(self, *, data_only: bool = False) -> None:
        with _as_errno():
            self._core.sync(self._handle, data_only=data_only)

    def facts(self) -> Facts:
        with _as_errno():
            return _facts_of_core(self._inode, self._core.getattr(self._inode).stat)

    def close(self) -> None:
        try:
            with _as_errno():
                self._core.flush(self._handle)
        finally:
            self._core.release(self._handle)
            self._core.forget([(self._inode, 1)])


class CorePlace:
    """The core, driven as the kernel drives it."""

    def __init__(self, core: Core, name: str, below: str = "") -> None:
        self.core = core
        self.name = name
        self._below = below

    def within(self, folder: str) -> CorePlace:
        return CorePlace(self.core, self.name, join(self._below, folder))

    def _at(self, path: str) -> str:
        return join(self._below, path) if path else self._below

    @contextmanager
    def _walk(self, path: str) -> Iterator[int]:
        """The inode number of a path; its lookups are given back at the end."""
        with self._lookups(self._at(path)) as number:
            yield number

    @contextmanager
    def _lookups(self, whole: str) -> Iterator[int]:
        number = ROOT
        seen: list[int] = []
        try:
            with _as_errno():
                for part in filter(None, whole.split("/")):
                    number = self.core.lookup(number, part).number
                    seen.append(number)
            yield number
        finally:
            self.core.forget([(one, 1) for one in seen])

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        folder, _, name = self._at(path).rpartition("/")
        with self._lookups(folder) as number, _as_errno():
            yield number, name

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> CoreOpened:
        return _again_if_stale(lambda: self._open(path, flags, mode))

    def _open(self, path: str, flags: int, mode: int) -> CoreOpened:
        with self._parent(path) as (parent, name):
            try:
                entry = self.core.lookup(parent, name)
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
                entry, opened = self.core.create(
                    parent, name, stat_module.S_IFREG | mode, flags, None
                )
                return CoreOpened(self, entry.number, opened.handle, flags)
            try:
                self._check_as_kernel(entry.stat.mode, path, flags)
                opened = self.core.open(entry.number, flags)
            except BaseException:
                self.core.forget([(entry.number, 1)])
                raise
            return CoreOpened(self, entry.number, opened.handle, flags)

    def _check_as_kernel(self, mode: int, path: str, flags: int) -> None:
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        if stat_module.S_ISLNK(mode):
            raise OSError(errno.ELOOP, "a symbolic link", path)

    def facts(self, path: str = "") -> Facts:
        return _again_if_stale(lambda: self._facts(path))

    def _facts(self, path: str) -> Facts:
        with self._walk(path) as number, _as_errno():
            return _facts_of_core(number, self.core.getattr(number).stat)

    def iterate(self, path: str = "") -> Generator[str, None, None]:
        """As getdents(2) comes: a few entries a call, each call from the last position on."""
        with self._walk(path) as number, _as_errno():
            handle = self.core.open_folder(number)
            try:
                position, some = 0, True
                while some:
                    some = False
                    batch = self.core.list_folder(handle, position)
                    for name, found, following in islice(batch, 7):
                        position, some = following, True
                        entry = self.core.list_entry(handle, name, found)
                        self.core.unlist_entry(entry)
                        yield name
            finally:
                self.core.release_folder(handle)

    def same_file(self, one: str, other: str) -> bool:
        # Both at once: a number means something only for as long as it is known.
        with self._walk(one) as first, self._walk(other) as second:
            return first == second

    def space(self) -> Space:
        with _as_errno():
            return self.core.space()

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        # The kernel looks both names up before it asks.
        with self._walk(old), self._maybe(new), self._parent(old) as one, self._parent(new) as two:
            self.core.rename(*one, *two, how)

    @contextmanager
    def _maybe(self, path: str) -> Iterator[None]:
        try:
            walk = self._walk(path)
            walk.__enter__()
        except FileNotFoundError:
            yield
            return
        try:
            yield
        finally:
            walk.__exit__(None, None, None)

    def unlink(self, path: str) -> None:
        with self._walk(path), self._parent(path) as (parent, name):
            self.core.unlink(parent, name)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        with self._parent(path) as (parent, name):
            self._give_back(self.core.mkdir(parent, name, mode, None).number)

    def rmdir(self, path: str) -> None:
        with self._parent(path) as (parent, name):
            self.core.rmdir(parent, name)

    def symlink(self, path: str, target: str) -> None:
        with self._parent(path) as (parent, name):
            self._give_back(self.core.symlink(parent, name, target, None).number)

    def readlink(self, path: str) -> str:
        with self._walk(path) as number, _as_errno():
            return self.core.readlink(number)

    def link(self, existing: str, new: str) -> None:
        with self._walk(existing) as number, self._parent(new) as (parent, name):
            self._give_back(self.core.link(number, parent, name).number)

    def truncate(self, path: str, size: int) -> None:
        self._change(path, Attributes(), size)

    def chmod(self, path: str, mode: int) -> None:
        self._change(path, Attributes(mode=mode))

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        self._change(path, Attributes(atime_ns=atime_ns, mtime_ns=mtime_ns))

    def sync(self, path: str = "") -> None:
        with self._walk(path) as number, _as_errno():
            handle = self.core.open_folder(number)
            self.core.sync_folder(handle)
            self.core.release_folder(handle)

    def mknod(self, path: str, kind: int = stat_module.S_IFREG) -> None:
        with self._parent(path) as (parent, name):
            self._give_back(self.core.mknod(parent, name, kind | 0o644, None).number)

    def _change(self, path: str, change: Attributes, size: int | None = None) -> None:
        with self._walk(path) as number, _as_errno():
            self.core.setattr(number, change, size)

    def _give_back(self, number: int) -> None:
        self.core.forget([(number, 1)])
