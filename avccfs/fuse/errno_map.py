"""Domain errors to errno: the only place where the two meet."""

from __future__ import annotations

import errno
import logging

from avccfs import errors
from avccfs.fs.inodes import StaleInodeError

_log = logging.getLogger("avccfs.mount")

_TABLE: tuple[tuple[type[Exception], int], ...] = (
    (errors.MetaError, errno.EINVAL),
    (errors.CorruptedError, errno.EIO),
    (errors.ReadOnlyError, errno.EROFS),
    (errors.InvalidFileError, errno.EINVAL),
    (errors.FileOpenError, errno.EBUSY),
    (errors.LockedError, errno.EAGAIN),
    (errors.ClosedError, errno.EIO),
    (errors.UsageError, errno.EINVAL),
    (StaleInodeError, errno.ESTALE),
)


def errno_of(error: Exception) -> int | None:
    """The errno that stands for an error; None for one that nobody expected."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    for kind, number in _TABLE:
        if isinstance(error, kind):
            return number
    return None


def translate(error: Exception, what: str) -> int:
    """The errno for an error in the handler `what`; one that nobody expected is logged, and is EIO."""
    number = errno_of(error)
    if number is None:
        _log.error("%s failed unexpectedly; the call gets EIO", what, exc_info=error)
        return errno.EIO
    if number in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EUCLEAN):
        _log.error("%s: %s", what, error)
    return number
