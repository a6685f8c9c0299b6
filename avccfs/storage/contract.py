"""The storage contract: what an engine asks of the place where it keeps its files (SPEC section 3).

A storage holds files addressed by a descriptor (`format.filename.FileDesc`: kind and number) and one
meta value, the descriptor of the live manifest. Every method may be called from several threads at
once.

Order of checks, the same everywhere: an invalid descriptor fails `InvalidFileError` before anything
is touched; a closed storage fails `ClosedError`; a change asked of a read-only storage fails
`ReadOnlyError`. A missing file is an ordinary `FileNotFoundError`.
"""

from __future__ import annotations

from typing import Protocol

from avccfs.format.filename import FileDesc, Kind
from avccfs.vfs.base import Buffer


class Reader(Protocol):
    """A read-only handle. Closed handles fail `ClosedError`."""

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (all of the rest if negative) from the handle's own position."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position (0 from the start, 1 from here, 2 from the end); returns it."""

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; the position stays."""

    def size(self) -> int:
        """The file's size in bytes now."""

    def close(self) -> None:
        """Release the handle. A second close fails `ClosedError`."""


class Writer(Protocol):
    """A write-only handle that starts at the beginning of an empty file."""

    def write(self, data: Buffer) -> int:
        """Append all of `data`; returns its length."""

    def sync(self) -> None:
        """Make what was written durable. For a manifest this also syncs the directory."""

    def close(self) -> None:
        """Release the handle. A second close fails `ClosedError`."""


class Locker(Protocol):
    """The held lock of a storage."""

    def unlock(self) -> None:
        """Let go. Unlocking twice, or after the storage is closed, does nothing."""


class Storage(Protocol):
    """See the module's text for what holds for every method."""

    @property
    def read_only(self) -> bool:
        """Whether changes are refused."""

    def lock(self) -> Locker:
        """The one lock of this storage. Raises `LockedError` while somebody holds it.

        A read-only storage hands out an empty lock, to everybody.
        """

    def log(self, text: str) -> None:
        """A line for people. May be dropped; never raises."""

    def set_meta(self, desc: FileDesc) -> None:
        """Make `desc` the live manifest, atomically, whatever moment the machine dies."""

    def get_meta(self) -> FileDesc:
        """The newest valid meta. Raises `FileNotFoundError` or `MetaError` (corrupted)."""

    def list(self, kinds: Kind) -> list[FileDesc]:
        """Descriptors of all files of these kinds, sorted; other names are skipped."""

    def open(self, desc: FileDesc) -> Reader:
        """Open for reading. A table falls back to its old name."""

    def create(self, desc: FileDesc) -> Writer:
        """Create, or truncate what exists."""

    def remove(self, desc: FileDesc) -> None:
        """Remove. A table falls back to its old name."""

    def rename(self, old: FileDesc, new: FileDesc) -> None:
        """Rename, atomically; the same descriptor twice is nothing to do."""

    def close(self) -> None:
        """Close; may be called again. Warns in the log about handles still open."""
