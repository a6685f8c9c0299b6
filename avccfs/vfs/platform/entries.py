"""Names and attributes: what Python's `os` cannot say without following links, or at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable

from avccfs.vfs.base import Attributes, Rename
from avccfs.vfs.platform.files import Entry, Fd, at, failure, lstat

try:
    import ctypes

    _LIBC: ctypes.CDLL | None = ctypes.CDLL(None, use_errno=True)
except (ImportError, OSError, TypeError):  # pragma: no cover - no C library to load
    _LIBC = None

_AT_FDCWD = -100
_RENAME_FLAGS = {Rename.NOREPLACE: 1, Rename.EXCHANGE: 2}


def rename(old: Entry, new: Entry, how: Rename) -> None:
    """Rename, atomically where the system can say it in one call.

    Without renameat2(2), NOREPLACE is a link and an unlink (a crash between the two leaves both
    names), or a look and a rename for what cannot be linked; EXCHANGE is `OSError(EINVAL)`.
    """
    if how is Rename.REPLACE:
        (old_fd, old_name), (new_fd, new_name) = at(old), at(new)
        os.replace(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)
        return
    code = _renameat2(old, new, _RENAME_FLAGS[how])
    # EINVAL is also what a file system says that does not know the flag.
    if how is Rename.NOREPLACE and code in (errno.ENOSYS, errno.EINVAL):
        _rename_to_free_name(old, new)
    elif code:
        raise failure(errno.EINVAL if code == errno.ENOSYS else code)


def _renameat2(old: Entry, new: Entry, flags: int) -> int:
    """The errno of renameat2(2): 0 when done, ENOSYS where there is none."""
    call = getattr(_LIBC, "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return errno.ENOSYS
    call.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    (old_fd, old_name), (new_fd, new_name) = at(old), at(new)
    failed = call(
        _AT_FDCWD if old_fd is None else old_fd,
        os.fsencode(old_name),
        _AT_FDCWD if new_fd is None else new_fd,
        os.fsencode(new_name),
        flags,
    )
    return ctypes.get_errno() if failed else 0


def _rename_to_free_name(old: Entry, new: Entry) -> None:
    lstat(old)
    (old_fd, old_name), (new_fd, new_name) = at(old), at(new)
    try:
        os.link(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        # A folder, or a file system without hard links.
        with contextlib.suppress(FileNotFoundError):
            lstat(new)
            raise failure(errno.EEXIST) from None
        os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)
    else:
        os.unlink(old_name, dir_fd=old_fd)


def set_attributes(target: Fd | Entry, change: Attributes) -> None:
    """Change mode, owner and times of an open file, or of an entry itself.

    The mode of a symbolic link cannot be changed: `OSError(EOPNOTSUPP)`.
    """
    # The owner first: a change of owner takes away setuid bits that the mode may ask for.
    if change.uid is not None or change.gid is not None:
        _chown(
            target,
            -1 if change.uid is None else change.uid,
            -1 if change.gid is None else change.gid,
        )
    if change.mode is not None:
        mode = stat.S_IMODE(change.mode)
        _apply(target, lambda path, **where: os.chmod(path, mode, **where))
    if change.atime_ns is not None or change.mtime_ns is not None:
        _set_times(target, change.atime_ns, change.mtime_ns)


def _chown(target: Fd | Entry, uid: int, gid: int) -> None:
    if not hasattr(os, "chown"):  # pragma: no cover - not on POSIX
        raise failure(errno.EPERM)
    if isinstance(target, int):
        os.chown(target, uid, gid)
    else:
        dir_fd, name = at(target)
        os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)


def _apply(target: Fd | Entry, call: Callable[..., None]) -> None:
    if isinstance(target, int):
        call(target)
        return
    dir_fd, name = at(target)
    try:
        call(name, dir_fd=dir_fd, follow_symlinks=False)
    except (NotImplementedError, ValueError):
        # Python's words for "this call always follows", and for "this is a link".
        if stat.S_ISLNK(lstat(target).st_mode):
            raise failure(errno.EOPNOTSUPP) from None
        call(name, dir_fd=dir_fd)


_AT_SYMLINK_NOFOLLOW = 0x100
_UTIME_OMIT = (1 << 30) - 2


def _set_times(target: Fd | Entry, atime_ns: int | None, mtime_ns: int | None) -> None:
    if atime_ns is None or mtime_ns is None:
        code = _utimensat(target, atime_ns, mtime_ns)
        if code == 0:
            return
        if code != errno.ENOSYS:
            raise failure(code)
        # os.utime cannot leave one out, so the other is written back as it was a moment ago.
        now = os.stat(target) if isinstance(target, int) else lstat(target)
        atime_ns = now.st_atime_ns if atime_ns is None else atime_ns
        mtime_ns = now.st_mtime_ns if mtime_ns is None else mtime_ns
    both = (atime_ns, mtime_ns)
    _apply(target, lambda path, **where: os.utime(path, ns=both, **where))


def _utimensat(target: Fd | Entry, atime_ns: int | None, mtime_ns: int | None) -> int:
    """The errno of utimensat(2), None leaving a time alone; ENOSYS where it cannot be called."""
    name = "futimens" if isinstance(target, int) else "utimensat"
    call = getattr(_LIBC, name, None) if sys.platform == "linux" else None
    if call is None:
        return errno.ENOSYS
    times = (ctypes.c_long * 4)()
    for index, value in enumerate((atime_ns, mtime_ns)):
        seconds, rest = (0, _UTIME_OMIT) if value is None else divmod(value, 10**9)
        times[2 * index], times[2 * index + 1] = seconds, rest
    if isinstance(target, int):
        call.argtypes = (ctypes.c_int, ctypes.c_void_p)
        failed = call(target, times)
    else:
        dir_fd, name = at(target)
        call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)
        failed = call(
            _AT_FDCWD if dir_fd is None else dir_fd,
            os.fsencode(name),
            times,
            _AT_SYMLINK_NOFOLLOW,
        )
    return ctypes.get_errno() if failed else 0
