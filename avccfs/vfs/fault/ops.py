"""What can be asked of a directory, and the words that rules and reports have for it."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass

from avccfs.format import filename
from avccfs.format.filename import Kind


class Op(enum.Flag):
    """What can be asked of a directory or a file. A flag, so that a rule can name several."""

    OPEN = enum.auto()
    """Opening without `Open.CREATE`, also where `Open.TRUNCATE` then cuts the file."""
    CREATE = enum.auto()
    """Opening with `Open.CREATE`, whether or not the file existed."""
    READ = enum.auto()
    WRITE = enum.auto()
    TRUNCATE = enum.auto()
    """`File.truncate`; the flag `Open.TRUNCATE` belongs to the opening."""
    SYNC = enum.auto()
    """Sync of a file's content."""
    CLOSE = enum.auto()
    """Close of a file. Even when it fails the handle is released, as with close(2)."""
    REMOVE = enum.auto()
    RENAME = enum.auto()
    LINK = enum.auto()
    SYMLINK = enum.auto()
    READLINK = enum.auto()
    MKDIR = enum.auto()
    RMDIR = enum.auto()
    LIST = enum.auto()
    """`names` and `scan`."""
    STAT = enum.auto()
    """`stat` of a name or of an open file."""
    SET_ATTRIBUTES = enum.auto()
    """`set_attributes` of a name or of an open file."""
    SYNC_DIR = enum.auto()
    """Sync of the names in a directory."""
    SPACE = enum.auto()
    LOCK = enum.auto()

    # Members are unique objects; an enum's own hash is a call of Python, in every count.
    __hash__ = object.__hash__


ALL_OPS = ~Op(0)
ALL_KINDS = ~Kind(0)

Pair = tuple[Op, Kind]


def op_word(op: Op) -> str:
    """The word for one operation: `sync-dir`."""
    return (op.name or "?").lower().replace("_", "-")


def kind_word(kind: Kind) -> str:
    """The word for one kind: `journal`."""
    return (kind.name or "?").lower()


OP_WORDS: dict[str, Op] = {
    op_word(op): op
    for op in (
        Op.OPEN,
        Op.CREATE,
        Op.READ,
        Op.WRITE,
        Op.SYNC,
        Op.SYNC_DIR,
        Op.RENAME,
        Op.REMOVE,
        Op.TRUNCATE,
        Op.CLOSE,
    )
}
"""The ten operations that a rule can name, in the order in which its text names them."""

KIND_WORDS: dict[str, Kind] = {
    kind_word(kind): kind
    for kind in (
        Kind.MANIFEST,
        Kind.JOURNAL,
        Kind.TABLE,
        Kind.TEMP,
        Kind.META,
        Kind.FOREIGN,
        Kind.LOG,
        Kind.LOCK,
    )
}
"""The kinds of files that a rule can name, in that order."""

RULE_OPS = functools.reduce(Op.__or__, OP_WORDS.values())
"""The ten as one mask."""


@functools.lru_cache(1 << 16)
def kind_of_path(path: str) -> Kind:
    """The kind that rules and counters go by.

    Only names in the directory itself are database files: a folder's content, the folder and the
    directory itself (as in `Op.SYNC_DIR`) are FOREIGN.
    """
    return Kind.FOREIGN if "/" in path else filename.kind_of(path)


@dataclass(frozen=True, slots=True)
class Call:
    """One operation that is about to happen."""

    op: Op
    kind: Kind
    path: str
    other: str | None = None
    """The new name of a rename."""
    offset: int | None = None
    """Of a read or a write, as `length`: in bytes."""
    length: int | None = None
