"""Everything that depends on the operating system, in one place.

Opening without effects, syncing, renaming with a condition, attributes without following links, and
the lock of a directory. What a platform lacks is replaced by the nearest thing it has: this package
imports, and the local directory works, where there is no `fcntl`, no `ctypes`, no renameat2(2) and
no directory descriptors.
"""

from __future__ import annotations

from avccfs.vfs.platform.entries import rename, set_attributes
from avccfs.vfs.platform.files import (
    Entry,
    Fd,
    Place,
    at,
    enter,
    failure,
    flush,
    lstat,
    open_listing,
    open_place,
    open_regular,
    pread,
    pwrite,
    space,
    sync_file,
    sync_place,
)
from avccfs.vfs.platform.holders import explain_lock, process_name

__all__ = [
    "Entry",
    "Fd",
    "Place",
    "at",
    "enter",
    "explain_lock",
    "failure",
    "flush",
    "lstat",
    "open_listing",
    "open_place",
    "open_regular",
    "pread",
    "process_name",
    "pwrite",
    "rename",
    "set_attributes",
    "space",
    "sync_file",
    "sync_place",
]
