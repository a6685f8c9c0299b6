"""What stands at a path, and giving it the mode, owner and times that it has elsewhere."""

from __future__ import annotations

import errno
import stat as stat_bits
from collections.abc import Callable

from avccfs.vfs.base import Attributes, Directory, Stat

# Nothing of that name, or a file or a symbolic link where a folder would have to be.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
# Not our right, and (in a container) not an owner that exists here.
_NOT_OURS = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL})


def status(directory: Directory, path: str) -> Stat | None:
    """What stands at a path; None if nothing can."""
    try:
        return directory.stat(path)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def give(now: Stat, wanted: Stat, change: Callable[[Attributes], None]) -> None:
    """Call `change` with what differs between `now` and `wanted`; sizes are not looked at.

    An owner whom we may not set is left as it is: only root may give files away. The mode of a
    symbolic link cannot be set and means nothing.
    """
    if (now.uid, now.gid) != (wanted.uid, wanted.gid):
        try:
            change(Attributes(uid=wanted.uid, gid=wanted.gid))
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
    if not stat_bits.S_ISLNK(now.mode):
        # Also where it is the same: a change of owner takes setuid bits away.
        change(Attributes(mode=stat_bits.S_IMODE(wanted.mode)))
    change(Attributes(atime_ns=wanted.atime_ns, mtime_ns=wanted.mtime_ns))
