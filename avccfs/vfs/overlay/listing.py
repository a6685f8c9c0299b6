"""What the lower directory was when an overlay began, to notice that it changed underneath.

An overlay holds blocks and names that mean something only over exactly that directory. Compared are
names, types, sizes, modification times and inodes; not contents, which would have to be read.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping

from avccfs.errors import AvccfsError
from avccfs.vfs.base import Directory, join
from avccfs.vfs.layered import LEFT_OUT

Entry = tuple[int, int, int, int]
"""Type bits, size in bytes, mtime in nanoseconds, inode. Of a folder size and mtime are zeros."""
Listing = dict[str, Entry]
"""Path to entry, of everything below a directory."""

_SHOWN = 5


class LowerChangedError(AvccfsError):
    """The directory below is not the one that the overlay's changes were made over."""


def take(directory: Directory) -> Listing:
    """The listing of a directory. Raises what listing raises (`OSError`)."""
    found: Listing = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        for name, told in directory.scan(folder):
            if not folder and name in LEFT_OUT:
                continue
            path = join(folder, name)
            kind = stat.S_IFMT(told.mode)
            if stat.S_ISDIR(told.mode):
                folders.append(path)
                found[path] = (kind, 0, 0, told.inode)
            else:
                found[path] = (kind, told.size, told.mtime_ns, told.inode)
    return found


def demand_same(
    before: Mapping[str, Entry], now: Mapping[str, Entry], lower: str, ours: str
) -> None:
    """Raise `LowerChangedError` if the listings differ, naming a few of the paths that do."""
    if before == now:
        return
    both = before.keys() & now.keys()
    parts = [
        f"{word} {_some(sorted(paths))}"
        for word, paths in (
            ("added", now.keys() - before.keys()),
            ("removed", before.keys() - now.keys()),
            ("changed", {path for path in both if before[path] != now[path]}),
        )
        if paths
    ]
    raise LowerChangedError(
        f"{lower}: expected what was there when the overlay {ours} began, found {'; '.join(parts)}; "
        f"restore the source as it was, or drop the overlay's changes with `avccfs discard {ours}`"
    )


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
