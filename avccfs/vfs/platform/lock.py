"""The lock of a directory: the file `LOCK`, held against every engine (SPEC sections 1 and 3)."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
from collections.abc import Callable

import portalocker
from portalocker import portalocker as lockers

from avccfs import errors
from avccfs.format import filename
from avccfs.vfs.base import Open
from avccfs.vfs.platform import holders
from avccfs.vfs.platform.files import Entry, Fd, Place, lstat, open_regular
from avccfs.vfs.rules import Naming

try:
    import fcntl
except ImportError:  # pragma: no cover - not on POSIX
    fcntl = None  # type: ignore[assignment]

HAS_FLOCK = fcntl is not None
HAS_OFD_LOCKS = hasattr(fcntl, "F_OFD_SETLK")

_LOCK_TRIES = 16


class OfdLocker(lockers.BaseLocker):
    """The record lock of an open file description: it conflicts with POSIX record locks.

    A process loses its classic record locks as soon as it closes *any* descriptor of the file, and
    this one opens and closes LOCK on behalf of others. This lock goes only with its own descriptor.
    """

    def lock(self, file_obj: portalocker.types.FileArgument, flags: portalocker.LockFlags) -> None:
        """Lock the whole file. Raises `AlreadyLocked` or `LockException`, as portalocker asks."""
        exclusive = bool(flags & portalocker.LockFlags.EXCLUSIVE)
        waits = not flags & portalocker.LockFlags.NON_BLOCKING
        self._call(
            file_obj,
            fcntl.F_OFD_SETLKW if waits else fcntl.F_OFD_SETLK,
            fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK,
        )

    def unlock(self, file_obj: portalocker.types.FileArgument) -> None:
        """Unlock the whole file."""
        self._call(file_obj, fcntl.F_OFD_SETLK, fcntl.F_UNLCK)

    @staticmethod
    def _call(file_obj: portalocker.types.FileArgument, command: int, kind: int) -> None:
        fd = file_obj if isinstance(file_obj, int) else file_obj.fileno()
        try:
            fcntl.fcntl(fd, command, record_lock(kind))
        except OSError as exc:
            taken = exc.errno in (errno.EAGAIN, errno.EACCES)
            refusal = portalocker.AlreadyLocked if taken else portalocker.LockException
            raise refusal(exc, str(exc), fh=file_obj) from exc


class _AnyLocker(lockers.BaseLocker):
    """Whatever portalocker does on this platform."""

    def lock(self, file_obj: portalocker.types.FileArgument, flags: portalocker.LockFlags) -> None:
        portalocker.lock(file_obj, flags)

    def unlock(self, file_obj: portalocker.types.FileArgument) -> None:
        portalocker.unlock(file_obj)


def record_lock(kind: int) -> bytes:
    """A `struct flock` over the whole file in native layout, with the pid 0 that OFD locks need."""
    return struct.pack("@hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def _lockers() -> tuple[lockers.BaseLocker, ...]:
    """The locks that together are the lock of a directory, in the order of taking.

    goleveldb takes flock(2) on LOCK and LevelDB a POSIX record lock (SPEC section 1); on Linux
    neither sees the other, so both are taken. Where the record lock cannot be had without its trap
    (BSD, macOS) flock alone is seen by both.
    """
    if not HAS_FLOCK:
        return (_AnyLocker(),)
    return (lockers.FlockLocker(), OfdLocker()) if HAS_OFD_LOCKS else (lockers.FlockLocker(),)


class FileLock:
    """A held lock on LOCK."""

    def __init__(
        self, fd: Fd, taken: list[lockers.BaseLocker], again: Callable[[str], FileLock]
    ) -> None:
        """`again` takes the same lock on the file at a path."""
        self._fd: Fd | None = fd
        self._taken = taken
        self._mutex = threading.Lock()
        self.also = again

    @property
    def held(self) -> bool:
        """Whether it was not released yet."""
        return self._fd is not None

    def release(self) -> None:
        """Let go; may be called again."""
        with self._mutex:
            if self._fd is not None:
                # By name, and not by closing alone: a forked child may hold a copy of it.
                _unlock(self._fd, self._taken)
                self._fd = None


def lock_directory(
    place: Place,
    label: str,
    find: Callable[[str], Entry],
    keep: Callable[[FileLock], None],
    *,
    exclusive: bool,
) -> FileLock | None:
    """Take the lock of a directory, as `vfs.base.Directory.lock` says.

    `find` resolves a path; `keep` is told of every lock that is handed out, those of `also` too.
    `LOCK` is created (mode 0644) if it is missing; its content and times are never changed.
    """

    def again(path: str) -> FileLock:
        how = Open.WRITE if exclusive else Open.READ
        with Naming(path):
            fd = open_regular(find(path), how, 0o644)
            other = _take(fd, label, again, exclusive=exclusive)
        keep(other)
        return other

    for _ in range(_LOCK_TRIES):
        fd = _open_lock(place, exclusive=exclusive)
        if fd is None:
            return None
        lock = _take(fd, label, again, exclusive=exclusive)
        if _is_named(place, fd):
            keep(lock)
            return lock
        # Replaced between the opening and the locking: this lock would guard nothing.
        lock.release()
    raise errors.LockedError(
        f"{label}: some program keeps replacing {filename.LOCK}; stop it and try again"
    )


def _open_lock(place: Place, *, exclusive: bool) -> Fd | None:
    entry = (place, filename.LOCK)
    if not exclusive:
        with contextlib.suppress(FileNotFoundError):
            return open_regular(entry, Open.READ, 0o644)
    try:
        return open_regular(entry, Open.WRITE | Open.CREATE, 0o644)
    except OSError as exc:
        if not exclusive and exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return None
        raise


def _is_named(place: Place, fd: Fd) -> bool:
    try:
        return os.path.samestat(lstat((place, filename.LOCK)), os.fstat(fd))
    except FileNotFoundError:
        return False


def _take(fd: Fd, label: str, again: Callable[[str], FileLock], *, exclusive: bool) -> FileLock:
    kind = portalocker.LockFlags.EXCLUSIVE if exclusive else portalocker.LockFlags.SHARED
    taken: list[lockers.BaseLocker] = []
    try:
        for locker in _lockers():
            locker.lock(fd, kind | portalocker.LockFlags.NON_BLOCKING)
            taken.append(locker)
    except portalocker.AlreadyLocked:
        # Given back first, so that half a lock of ours is not found when looking for the holder.
        _unlock(fd, taken)
        found = holders.find(fd)
        raise errors.LockedError(holders.explain_lock(label, found), holders=found) from None
    except portalocker.LockException as exc:
        _unlock(fd, taken)
        cause = exc.args[0] if exc.args else None
        code = cause.errno if isinstance(cause, OSError) and cause.errno else errno.ENOLCK
        advice = (
            "this file system gives no locks, so nothing would keep an engine from writing here "
            "at the same time; copy the directory elsewhere, or look without a lock (--unlocked)"
        )
        raise OSError(code, f"{os.strerror(code)}: {advice}") from exc
    return FileLock(fd, taken, again)


def _unlock(fd: Fd, taken: list[lockers.BaseLocker]) -> None:
    for locker in reversed(taken):
        # What cannot be given back goes with the descriptor, a moment later.
        with contextlib.suppress(portalocker.LockException):
            locker.unlock(fd)
