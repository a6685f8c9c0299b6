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

    An owner or a time that we may not set is left as it is: only root may give files away, and a
    folder may be somebody else's. The mode of a symbolic link means nothing and cannot be set.
    """
    given_away = (now.uid, now.gid) != (wanted.uid, wanted.gid)
    if given_away:
        _try(change, Attributes(uid=wanted.uid, gid=wanted.gid))
    mode = stat_bits.S_IMODE(wanted.mode)
    # A change of owner takes setuid bits away.
    differs = given_away or mode != stat_bits.S_IMODE(now.mode)
    if differs and not stat_bits.S_ISLNK(now.mode):
        change(Attributes(mode=mode))
    if (now.atime_ns, now.mtime_ns) != (wanted.atime_ns, wanted.mtime_ns):
        _try(change, Attributes(atime_ns=wanted.atime_ns, mtime_ns=wanted.mtime_ns))


def _try(change: Callable[[Attributes], None], what: Attributes) -> None:
    try:
        change(what)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
