"""What every directory says in the same words: which paths and flags make sense, and its errors.

Kept apart from the implementations so that a path refused by one is refused by all, with the same
errno.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType

from avccfs import errors
from avccfs.vfs.base import Open

MAX_OFFSET = 2**63 - 1
"""The last byte position a file can have; what a signed 64-bit offset holds."""

_TARGET_MAX = 4095
_NOT_NAMES = frozenset({"", ".", ".."})


def error(code: int, path: str, path2: str | None = None) -> OSError:
    """The `OSError` (of the fitting subclass) for an errno, with its path or two paths."""
    if path2 is None:
        return OSError(code, os.strerror(code), path)
    return OSError(code, os.strerror(code), path, None, path2)


def components(path: str) -> list[str]:
    """The names in a path; empty for the directory itself.

    Raises `OSError(EINVAL)` for what could leave the directory or name one thing in two ways: `.`,
    `..`, an empty part, a leading or trailing `/`, a NUL; and `OSError(EILSEQ)` for text that no
    file name can hold.
    """
    if not path:
        return []
    parts = path.split("/")
    if "\0" in path or not _NOT_NAMES.isdisjoint(parts):
        raise error(errno.EINVAL, path)
    if not path.isascii():
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise error(errno.EILSEQ, path) from None
    return parts


def check_open(flags: Open, path: str) -> None:
    """Raise `OSError(EINVAL)` for flags that ask for a change without `Open.WRITE`."""
    if flags is Open.READ:
        return  # Of most files, and to ask a set of flags for one of them is slow.
    if Open.WRITE not in flags:
        raise error(errno.EINVAL, path)
    if Open.EXCLUSIVE in flags and Open.CREATE not in flags:
        raise error(errno.EINVAL, path)


def check_target(target: str, path: str) -> None:
    """Raise `OSError` for what a symbolic link cannot point to.

    ENOENT for nothing, ENAMETOOLONG past 4095 bytes, and EINVAL and EILSEQ as for `components`.
    """
    if not target:
        raise error(errno.ENOENT, path)
    if "\0" in target:
        raise error(errno.EINVAL, path)
    try:
        length = len(os.fsencode(target))
    except UnicodeEncodeError:
        raise error(errno.EILSEQ, path) from None
    if length > _TARGET_MAX:
        raise error(errno.ENAMETOOLONG, path)


def closed_directory(label: str) -> errors.ClosedError:
    """What every call on a closed directory raises."""
    return errors.ClosedError(f"{label}: the directory was closed; open it again to go on")


def closed_file(path: str) -> errors.ClosedError:
    """What every call on a closed file raises."""
    return errors.ClosedError(f"{path}: this handle was closed; open the file again to go on")


def read_only(label: str, path: str) -> errors.ReadOnlyError:
    """What every change of a read-only directory raises."""
    where = f"{label}: {path}" if path else label
    return errors.ReadOnlyError(f"{where}: opened read-only; open for writing to change it")


class Naming:
    """A `with` block in which every `OSError` comes out naming the caller's path.

    The system's own errors name the last part of the path only, or nothing at all.
    """

    __slots__ = ("_path", "_path2")

    def __init__(self, path: str, path2: str | None = None) -> None:
        self._path = path
        self._path2 = path2

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(exc, OSError):
            exc.filename = self._path
            if self._path2 is not None:
                exc.filename2 = self._path2
            elif exc.filename2 is not None:
                # Python names the target of a symbolic link too. Set to None it would be shown.
                del exc.filename2
