"""What every storage over a directory shares: life cycle, lock, and the files themselves.

`DirectoryStorage` and `MemoryStorage` add where the meta value is kept and what their handles may
do; names, fallbacks, the order of checks and the counting of open handles are here, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TypeVar

from avccfs import errors
from avccfs.format.filename import FileDesc, Kind, name_of, other_name_of, parse
from avccfs.storage.contract import Locker, Reader, Writer
from avccfs.storage.handles import FileReader, FileWriter, Handle
from avccfs.vfs.base import Directory, Open

R = TypeVar("R")


class BaseStorage:
    """A storage over a directory, but for the meta value. `directory` stays the caller's."""

    def __init__(self, directory: Directory, *, read_only: bool | None = None) -> None:
        if read_only is False and directory.read_only:
            raise errors.ReadOnlyError(
                f"{directory.label}: the directory is read-only, so the storage has to be as well"
            )
        self._directory = directory
        self._read_only = directory.read_only if read_only is None else read_only
        self._state = threading.Condition()
        self._closed = False
        self._is_shut = False
        self._running = 0
        self._handles: set[Handle] = set()
        self._locker: StorageLock | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def directory(self) -> Directory:
        """The directory that the files are in."""
        return self._directory

    @property
    def read_only(self) -> bool:
        """Whether changes are refused."""
        return self._read_only

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def open_handles(self) -> tuple[str, ...]:
        """The names of the files that are open, sorted; one with two handles twice."""
        with self._state:
            return tuple(sorted(handle.name for handle in self._handles))

    def log(self, text: str) -> None:
        """Dropped."""

    def lock(self) -> Locker:
        """The one lock of this storage, for one holder at a time within this process.

        Raises `LockedError` while somebody holds it. A read-only storage hands out an empty lock.
        """
        with self._state:
            self._check_open()
            if self._read_only:
                return StorageLock(lambda _: None)
            if self._locker is not None:
                raise errors.LockedError(
                    f"{self._directory.label}: already locked; unlock the lock that was handed out"
                )
            self._locker = StorageLock(self._unlock)
            return self._locker

    def list(self, kinds: Kind) -> list[FileDesc]:
        """Descriptors of all files of these kinds, sorted; other names are skipped."""
        with self._operation():
            found = {parse(name) for name in self._directory.names()}
        return sorted(desc for desc in found if desc is not None and desc.kind in kinds)

    def open(self, desc: FileDesc) -> Reader:
        """Open for reading, under either name of the kind."""
        with self._operation(desc), self._claimed(desc) as claim:
            name, file = _under_either_name(desc, self._directory.open)
            reader = FileReader(self, name, file)
            self._remember(reader, claim)
            return reader

    def create(self, desc: FileDesc) -> Writer:
        """Create, or truncate what exists."""
        with self._operation(desc, change=True), self._claimed(desc) as claim:
            name = name_of(desc)
            file = self._directory.open(name, Open.WRITE | Open.CREATE | Open.TRUNCATE)
            writer = FileWriter(self, name, file, manifest=desc.kind is Kind.MANIFEST)
            self._remember(writer, claim)
            return writer

    def remove(self, desc: FileDesc) -> None:
        """Remove, under either name of the kind."""
        with self._operation(desc, change=True):
            _under_either_name(desc, self._directory.remove)
            self._detach(desc)

    def rename(self, old: FileDesc, new: FileDesc) -> None:
        """Rename, atomically, under either name of the kind."""
        with self._operation(old, new, change=True):
            if old == new:
                return
            with self._claimed(old, new):
                target = name_of(new)
                _under_either_name(old, lambda name: self._directory.rename(name, target))

    def close(self) -> None:
        """Close; may be called again. Waits for what is running, then nothing else starts."""
        with self._state:
            if self._closed:
                self._state.wait_for(lambda: self._is_shut)
                return
            self._closed = True
            self._state.wait_for(lambda: self._running == 0)
            self._locker = None
        try:
            self._shut(self.open_handles)
        finally:
            with self._state:
                self._is_shut = True
                self._state.notify_all()

    # For handles.

    def forget(self, handle: Handle) -> None:
        """A handle was closed."""
        with self._state:
            self._handles.discard(handle)

    def sync_directory(self) -> None:
        """Make the names in the directory durable."""
        self._directory.sync()

    # For subclasses.

    def _shut(self, left_open: tuple[str, ...]) -> None:
        """Called once, when the storage is closed and nothing runs any more."""

    @contextmanager
    def _claimed(self, *descs: FileDesc) -> Iterator[object]:
        """Around the opening or renaming of files; yields what `_remember` is to be given."""
        yield None

    def _remember(self, handle: Handle, claim: object = None) -> None:
        """A handle was opened."""
        with self._state:
            self._handles.add(handle)

    def _detach(self, desc: FileDesc) -> None:
        """A file was removed; handles of it go on without a name."""

    @contextmanager
    def _operation(self, *descs: FileDesc, change: bool = False) -> Iterator[None]:
        """The checks every method begins with, and the guarantee that `close` waits for its end."""
        for desc in descs:
            if not desc.valid:
                raise errors.InvalidFileError(
                    f"{desc}: not a file of a database: expected a manifest, journal, table or "
                    f"temp file and a number from 0 to 2**63 - 1"
                )
        with self._state:
            self._check_open()
            if change and self._read_only:
                raise errors.ReadOnlyError(f"{self._directory.label}: opened read-only")
            self._running += 1
        try:
            yield
        finally:
            with self._state:
                self._running -= 1
                if self._closed:
                    self._state.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise errors.ClosedError(f"{self._directory.label}: the storage was closed")

    def _unlock(self, locker: StorageLock) -> None:
        with self._state:
            if self._locker is locker:
                self._locker = None


class StorageLock:
    """A `contract.Locker`."""

    def __init__(self, release: Callable[[StorageLock], None]) -> None:
        self._release = release

    def unlock(self) -> None:
        """Let go. Unlocking twice, or after the storage is closed, does nothing."""
        self._release(self)


def _under_either_name(desc: FileDesc, act: Callable[[str], R]) -> tuple[str, R]:
    """Do something to a file under its name or, if there is none, under its other name.

    Returns the name that was there. The error for a missing file speaks of the first name.
    """
    name = name_of(desc)
    try:
        return name, act(name)
    except FileNotFoundError as missing:
        other = other_name_of(desc)
        if other is None:
            raise
        try:
            return other, act(other)
        except FileNotFoundError:
            raise missing from None
