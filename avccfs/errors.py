"""The exception tree.

    AvccfsError
    ├── StorageError             something the storage contract says no to
    │   ├── ClosedError          the storage, or this handle of it, is closed
    │   ├── LockedError          somebody else holds the lock (says who, where known)
    │   ├── InvalidFileError     a descriptor of unknown kind or negative number
    │   ├── ReadOnlyError        a change asked of a read-only storage
    │   ├── FileOpenError        the file is still open (memory storage)
    │   ├── SessionError         a commit, or a step of one, failed; `causes` says at what
    │   ├── CommitError          changes could not be carried into a directory; `begun` or not
    │   └── CorruptedError       what is there cannot be trusted; carries the descriptor
    │       ├── MetaError        CURRENT or one of its kin
    │       └── ManifestError    a manifest record, or what a manifest as a whole lacks
    ├── FormatError              bytes that do not decode; carries the offset
    └── UsageError               the command was called wrongly (exit code 2)

"Not found", "no space" and the rest of what an operating system says stay what Python makes of
them: `FileNotFoundError`, `OSError(ENOSPC)` and so on. Nothing here imports anything of avccfs.
"""

from __future__ import annotations


class AvccfsError(Exception):
    """Root of everything that avccfs raises on purpose."""


class UsageError(AvccfsError):
    """The command line, or a mount option, makes no sense. Exit code 2."""


class StorageError(AvccfsError):
    """The storage contract says no."""


class ClosedError(StorageError):
    """The storage or the handle was closed before this call."""


class ReadOnlyError(StorageError):
    """A change was asked of something opened for reading only."""


class InvalidFileError(StorageError):
    """A descriptor of unknown kind or with a negative number."""


class FileOpenError(StorageError):
    """The file has an open handle, which this storage does not allow here."""


class SessionError(StorageError):
    """A commit, a new manifest or a new journal that failed, after clearing up.

    `causes` are the failures in the order in which they came: the step itself first, then what
    failed while clearing up; the message names them all, and the first is also `__cause__`.
    `settled` is whether the change is certainly not on disk. If it is not settled the change may
    be there when the database is recovered: keep every file that it names until a later commit has
    succeeded.
    """

    def __init__(self, message: str, *, causes: tuple[Exception, ...], settled: bool) -> None:
        super().__init__(message)
        self.causes = causes
        self.settled = settled


class CommitError(StorageError):
    """Changes were not carried into a directory, or not to the end.

    `begun` is whether the directory may have been changed: then running the commit again finishes
    it, and until then the directory may be neither as it was nor as it is to be.
    """

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


class LockedError(StorageError):
    """The lock is held, by this process or another.

    `holders` lists `(pid, command name)` of the processes the system names; empty where it names
    none.
    """

    def __init__(self, message: str, *, holders: tuple[tuple[int, str], ...] = ()) -> None:
        super().__init__(message)
        self.holders = holders


class CorruptedError(StorageError):
    """What is stored cannot be trusted.

    `file` is the name of the file; `offset` the byte at which it was noticed, where that means
    something.
    """

    def __init__(self, message: str, *, file: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.file = file
        self.offset = offset


class MetaError(CorruptedError):
    """CURRENT, or a file of its family, does not hold the name of a manifest."""


class ManifestError(CorruptedError):
    """A manifest that cannot carry a session: `field` names what is missing or mismatched."""

    def __init__(
        self, message: str, *, file: str, offset: int | None = None, field: str | None = None
    ) -> None:
        super().__init__(message, file=file, offset=offset)
        self.field = field


class FormatError(AvccfsError):
    """Bytes that do not decode. `offset` counts from the start of the buffer that was decoded."""

    def __init__(self, message: str, *, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset
