"""Open files of a storage: the reader, the writer, and a manifest as the mount opens it.

A handle belongs to a storage. It fails `ClosedError` once it, or the storage, is closed; closing it
releases the file below in either case, the first time.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Protocol

from avccfs import errors
from avccfs.vfs.base import Attributes, Buffer, File, Stat


def write_all(file: File, data: Buffer, offset: int) -> int:
    """Write all of `data` at `offset`; returns its length in bytes.

    Raises what stopped the write; what was written until then stays.
    """
    rest = memoryview(data).cast("B")
    length = len(rest)
    while rest:
        done = file.write_at(rest, offset)
        if done <= 0:
            raise OSError(errno.EIO, f"nothing of {len(rest)} bytes was written at {offset}")
        rest = rest[done:]
        offset += done
    return length


class Owner(Protocol):
    """What a handle needs of its storage."""

    @property
    def closed(self) -> bool:
        """Whether the storage was closed."""

    def forget(self, handle: Handle) -> None:
        """The handle was closed."""

    def sync_directory(self) -> None:
        """Make the names in the directory durable."""


class Handle:
    """An open file that its storage knows of."""

    def __init__(self, owner: Owner, name: str, file: File, *, manifest: bool) -> None:
        self.name = name
        self._owner = owner
        self._file = file
        self._manifest = manifest
        self._closed = False
        self._mutex = threading.Lock()

    def _open_file(self) -> File:
        """The file below. Raises `ClosedError`."""
        if self._closed:
            raise errors.ClosedError(f"{self.name}: this handle was closed; open the file again")
        if self._owner.closed:
            raise errors.ClosedError(f"{self.name}: the storage was closed")
        return self._file

    def _release(self) -> bool:
        """Close the file below; False if that was done before."""
        with self._mutex:
            if self._closed:
                return False
            self._closed = True
        try:
            self._file.close()
        finally:
            self._owner.forget(self)
        return True

    def close(self) -> None:
        """Release the handle. A second close fails `ClosedError`."""
        if not self._release():
            raise errors.ClosedError(f"{self.name}: this handle was closed before")


class FileReader(Handle):
    """A `contract.Reader` over a file."""

    def __init__(self, owner: Owner, name: str, file: File) -> None:
        super().__init__(owner, name, file, manifest=False)
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (all of the rest if negative) from the handle's own position."""
        with self._mutex:
            file = self._open_file()
            if size < 0:
                size = max(0, file.stat().size - self._position)
            data = file.read_at(size, self._position)
            self._position += len(data)
            return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position (0 from the start, 1 from here, 2 from the end); returns it.

        Beyond the end is allowed. Raises `ValueError` for a negative position or another `whence`.
        """
        with self._mutex:
            file = self._open_file()
            match whence:
                case os.SEEK_SET:
                    position = offset
                case os.SEEK_CUR:
                    position = self._position + offset
                case os.SEEK_END:
                    position = file.stat().size + offset
                case _:
                    raise ValueError(f"{self.name}: whence is 0, 1 or 2, not {whence}")
            if position < 0:
                raise ValueError(f"{self.name}: position {position} lies before the start")
            self._position = position
            return position

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; the position stays."""
        return self._open_file().read_at(size, offset)

    def size(self) -> int:
        """The file's size in bytes now."""
        return self._open_file().stat().size


class FileWriter(Handle):
    """A `contract.Writer` over an empty file."""

    def __init__(self, owner: Owner, name: str, file: File, *, manifest: bool) -> None:
        super().__init__(owner, name, file, manifest=manifest)
        self._end = 0

    def write(self, data: Buffer) -> int:
        """Append all of `data`; returns its length.

        After an error (a full disk) the next write starts where this one did.
        """
        with self._mutex:
            length = write_all(self._open_file(), data, self._end)
            self._end += length
            return length

    def sync(self) -> None:
        """Make what was written durable. For a manifest this also syncs the directory."""
        self._open_file().sync()
        if self._manifest:
            self._owner.sync_directory()


class ManifestFile(Handle):
    """A `vfs.File` whose sync also makes the file's name durable."""

    def __init__(self, owner: Owner, name: str, file: File) -> None:
        super().__init__(owner, name, file, manifest=True)

    def read_at(self, size: int, offset: int) -> bytes:
        """As `vfs.File.read_at`."""
        return self._open_file().read_at(size, offset)

    def write_at(self, data: Buffer, offset: int) -> int:
        """As `vfs.File.write_at`."""
        return self._open_file().write_at(data, offset)

    def truncate(self, size: int) -> None:
        """As `vfs.File.truncate`."""
        self._open_file().truncate(size)

    def sync(self, *, data_only: bool = False) -> None:
        """Make the content durable, then the names in the directory."""
        self._open_file().sync(data_only=data_only)
        self._owner.sync_directory()

    def stat(self) -> Stat:
        """As `vfs.File.stat`."""
        return self._open_file().stat()

    def set_attributes(self, change: Attributes) -> None:
        """As `vfs.File.set_attributes`."""
        self._open_file().set_attributes(change)

    def close(self) -> None:
        """Release the handle; may be called again, as for every `vfs.File`."""
        self._release()
