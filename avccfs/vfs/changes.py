"""What happened to the files of a directory, as values: shown, asked about, known by a digest.

`vfs.differences` finds them out.
"""

from __future__ import annotations

import enum
import hashlib
import json
import stat as stat_bits
from dataclasses import dataclass
from typing import Final

from avccfs.vfs.base import Stat
from avccfs.vfs.layered import Extent


class EntryKind(enum.Enum):
    """What a name stands for."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "symbolic link"
    OTHER = "special file"

    @staticmethod
    def of(status: Stat) -> EntryKind:
        """What a `stat` is of."""
        if stat_bits.S_ISREG(status.mode):
            return EntryKind.FILE
        if stat_bits.S_ISDIR(status.mode):
            return EntryKind.FOLDER
        return EntryKind.LINK if stat_bits.S_ISLNK(status.mode) else EntryKind.OTHER


class What(enum.Enum):
    """What happened to a path."""

    ADDED = "added"
    REMOVED = "removed"
    RENAMED = "renamed"
    CHANGED = "changed"
    """Other bytes, or a symbolic link that points elsewhere."""
    RETYPED = "retyped"
    """Something of another kind stands there now."""
    ATTRIBUTES = "attributes"
    """Only mode, owner or time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry on one side. Sizes in bytes, times in nanoseconds since 1970."""

    kind: EntryKind
    size: int
    """Of a file; 0 for everything else."""
    mode: int
    """Permission bits."""
    uid: int
    gid: int
    mtime_ns: int
    target: str = ""
    """Where a symbolic link points."""

    @staticmethod
    def of(status: Stat, target: str = "") -> Entry:
        """What a `stat` tells."""
        kind = EntryKind.of(status)
        size = status.size if kind is EntryKind.FILE else 0
        mode = stat_bits.S_IMODE(status.mode)
        return Entry(kind, size, mode, status.uid, status.gid, status.mtime_ns, target)

    @property
    def attributes(self) -> tuple[int, int, int, int]:
        """Mode, owner, group, time: what can change without a change of content."""
        # The mode of a symbolic link means nothing and cannot be set.
        mode = 0 if self.kind is EntryKind.LINK else self.mode
        return mode, self.uid, self.gid, self.mtime_ns


@dataclass(frozen=True, slots=True)
class Bytes:
    """How the content of a file differs from what it is compared with."""

    ranges: tuple[Extent, ...] = ()
    """Where other bytes stand above, ascending. All of a grown tail is in them; what was cut off is
    told by the sizes alone."""
    more: int = 0
    """Ranges beyond `differences.MOST_RANGES`."""
    count: int = 0
    """Bytes above that are other bytes."""
    digest: str = ""
    """SHA-256, in hexadecimal, of these bytes and their offsets; empty if there are none."""


NOTHING: Final = Bytes()


@dataclass(frozen=True, slots=True)
class Pointer:
    """The content of a file of the CURRENT family (its first bytes); None where there is none."""

    before: bytes | None
    after: bytes | None


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one path."""

    what: What
    path: str
    """The empty path is the directory itself."""
    before: Entry | None
    """What was there: at `old_path` if it was renamed, else at `path`."""
    after: Entry | None
    """What is there now; None if it was removed."""
    bytes: Bytes = NOTHING
    """Of a file that is there now, compared with `before` if that was a file, else with nothing."""
    old_path: str | None = None
    """Where a renamed file was."""
    replaced: Entry | None = None
    """What stood where a renamed file came to stand."""
    link_of: str | None = None
    """Another name, above, of the same file."""
    pointer: Pointer | None = None
    """Only of CURRENT, CURRENT.bak and CURRENT.<number>."""

    @property
    def minor(self) -> bool:
        """Whether only the time of a folder changed, which says no more than its entries do."""
        before, after = self.before, self.after
        return (
            self.what is What.ATTRIBUTES
            and before is not None
            and after is not None
            and after.kind is EntryKind.FOLDER
            and before.attributes[:3] == after.attributes[:3]
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything that changed, sorted by path."""

    entries: tuple[Change, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to speak of."""
        return all(each.minor for each in self.entries)

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal: the same for the same changes, the new bytes included.

        Folder times are left out: they move when somebody works beside the database.
        """
        total = hashlib.sha256()
        for each in self.entries:
            if not each.minor:
                total.update(json.dumps(_canonical(each)).encode("ascii") + b"\n")
        return total.hexdigest()


def _canonical(change: Change) -> list[object]:
    def side(entry: Entry | None) -> list[object] | None:
        if entry is None:
            return None
        mode, uid, gid, mtime_ns = entry.attributes
        time = None if entry.kind is EntryKind.FOLDER else mtime_ns
        return [entry.kind.value, entry.size, mode, uid, gid, time, entry.target]

    return [
        change.what.value,
        change.path,
        change.old_path,
        side(change.before),
        side(change.after),
        side(change.replaced),
        change.link_of,
        change.bytes.count,
        change.bytes.digest,
    ]
