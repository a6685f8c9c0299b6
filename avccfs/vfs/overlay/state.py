"""What is remembered of a node that differs from the directory below: one value, and its JSON.

A node is a file, a folder, or anything else that has a name. What is not said of it here is as the
lower one has it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from avccfs.vfs.base import Attributes

UNRECORDED = 0
"""The number of a node of which nothing has to be remembered yet."""
ROOT = 1
"""The number of the directory itself."""
NEW_INODES = 2**62
"""Inodes of what is new count from here: no file system below gives out such numbers."""

NOTHING = Attributes()
"""No attribute."""

Json = dict[str, Any]


class Kind(enum.Enum):
    """What sort of node it is."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"
    """A symbolic link, or a device, FIFO or socket from below."""


@dataclass(frozen=True, slots=True)
class State:
    """A node, as the ledger keeps it."""

    kind: Kind
    inode: int
    nlink: int
    id: int = UNRECORDED
    ctime_ns: int = 0
    """Its ctime if that is later than the one of the file that holds its bytes."""
    origin: str | None = None
    """The path in the lower directory that it began as. A folder still shows the names of it."""
    linked: bool = False
    """Whether the lower file has several names: it is then known by its inode, not by `origin`."""
    data: int | None = None
    """The number of the file with our bytes and attributes; only of a file."""
    limit: int = 0
    """Below this offset bytes come from the lower file, except blocks of ours; only of a file."""
    mode: int | None = None
    """Permission bits that a new file began with, should a crash take the file of our bytes."""
    target: str = ""
    """Where a symbolic link points."""
    own: Attributes = NOTHING
    """Attributes that are not those of the lower node, or of the file with our bytes."""

    def to_json(self) -> Json:
        """All that differs from the defaults."""
        told: Json = {"kind": self.kind.value, "own": _without_none(self.own)}
        for name in _PLAIN:
            value = getattr(self, name)
            if value != _DEFAULTS.get(name):
                told[name] = value
        return told

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> State:
        """The value again. Raises `KeyError`, `TypeError` or `ValueError` for what is none."""
        plain = {name: told[name] for name in _PLAIN if name in told}
        return State(kind=Kind(told["kind"]), own=Attributes(**told["own"]), **plain)


_DEFAULTS: Json = {
    "id": UNRECORDED,
    "ctime_ns": 0,
    "origin": None,
    "linked": False,
    "data": None,
    "limit": 0,
    "mode": None,
    "target": "",
}
_PLAIN = ("inode", "nlink", *_DEFAULTS)


def _without_none(own: Attributes) -> Json:
    told = {each.name: getattr(own, each.name) for each in fields(own)}
    return {name: value for name, value in told.items() if value is not None}


def merged(own: Attributes, change: Attributes) -> Attributes:
    """`own` with every attribute of `change` that is given."""
    return Attributes(
        mode=own.mode if change.mode is None else change.mode,
        uid=own.uid if change.uid is None else change.uid,
        gid=own.gid if change.gid is None else change.gid,
        atime_ns=own.atime_ns if change.atime_ns is None else change.atime_ns,
        mtime_ns=own.mtime_ns if change.mtime_ns is None else change.mtime_ns,
    )
