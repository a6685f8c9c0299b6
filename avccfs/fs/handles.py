"""What the kernel has open. A handle number only ever grows and maps to one typed object."""

from __future__ import annotations

import threading
from typing import Protocol

from avccfs.fs.inodes import Inode
from avccfs.vfs.base import Attributes, Buffer, File, Stat


class Handle(Protocol):
    """An open file on the mount, whatever stands behind it."""

    inode: Inode
    writable: bool
    slow: bool
    """Whether writing may wait for the disk, so that a caller with other work uses a thread."""
    immediate: bool
    """Whether a write is a word to the mount itself: never waits, and comes between two requests."""

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes at `offset`."""

    def write(self, data: Buffer, offset: int) -> int:
        """Write at `offset`; returns how much was taken."""

    def truncate(self, size: int) -> None:
        """Cut or extend to `size` bytes."""

    def sync(self, *, data_only: bool) -> None:
        """Make what was written durable."""

    def flush(self) -> None:
        """One of the file's descriptors is being closed: the last chance to report a failure."""

    def stat(self) -> Stat:
        """The attributes of what is open, also when its name is gone."""

    def set_attributes(self, change: Attributes) -> None:
        """Change the attributes of what is open."""

    def close(self) -> None:
        """The last descriptor is gone."""


class FileHandle:
    """A handle straight onto a file below."""

    __slots__ = ("_file", "inode", "read", "slow", "writable", "write")

    immediate = False

    def __init__(self, inode: Inode, file: File, *, writable: bool) -> None:
        self.inode = inode
        self.writable = writable
        self.slow = False
        self._file = file
        # The hot path of the mount: no call in between.
        self.read = file.read_at
        self.write = file.write_at

    def truncate(self, size: int) -> None:
        """See `Handle`."""
        self._file.truncate(size)

    def sync(self, *, data_only: bool) -> None:
        """See `Handle`."""
        self._file.sync(data_only=data_only)

    def flush(self) -> None:
        """Nothing waits here: what was written is already below."""

    def stat(self) -> Stat:
        """See `Handle`."""
        return self._file.stat()

    def set_attributes(self, change: Attributes) -> None:
        """See `Handle`."""
        self._file.set_attributes(change)

    def close(self) -> None:
        """See `Handle`."""
        self._file.close()


class FolderHandle:
    """An open folder: the names as they were when reading began.

    A stable list is what makes positions in it mean the same on every call, whatever is created or
    removed meanwhile.
    """

    __slots__ = ("inode", "names")

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.names: list[str] | None = None


class HandleTable:
    """Handle numbers, growing, never used twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 1
        self._files: dict[int, Handle] = {}
        self._folders: dict[int, FolderHandle] = {}

    def add(self, handle: Handle) -> int:
        """Register an open file."""
        with self._lock:
            number = self._next
            self._next += 1
            self._files[number] = handle
            handle.inode.handles.append(handle)
            return number

    def file(self, number: int) -> Handle:
        """The open file of a number. `KeyError` if there is none."""
        return self._files[number]

    def replace(self, old: Handle, new: Handle) -> None:
        """From now on every number that stood for `old` stands for `new`, on the same inode."""
        with self._lock:
            for number, handle in self._files.items():
                if handle is old:
                    self._files[number] = new
            old.inode.handles[:] = [new if h is old else h for h in old.inode.handles]

    def remove(self, number: int) -> Handle:
        """Forget an open file; returns it so that it can be closed."""
        with self._lock:
            handle = self._files.pop(number)
            handle.inode.handles.remove(handle)
            return handle

    def add_folder(self, handle: FolderHandle) -> int:
        """Register an open folder."""
        with self._lock:
            number = self._next
            self._next += 1
            self._folders[number] = handle
            return number

    def folder(self, number: int) -> FolderHandle:
        """The open folder of a number. `KeyError` if there is none."""
        return self._folders[number]

    def remove_folder(self, number: int) -> FolderHandle:
        """Forget an open folder."""
        with self._lock:
            return self._folders.pop(number)

    def __len__(self) -> int:
        return len(self._files) + len(self._folders)

    def numbers(self) -> list[int]:
        """The numbers of all open files."""
        with self._lock:
            return list(self._files)
