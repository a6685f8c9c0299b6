"""What a directory that lies over another one can tell about itself.

Comparing the two, and carrying the changes over, would otherwise have to read every byte of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from avccfs.format.filename import LOCK
from avccfs.vfs.base import Directory

COMMIT_FOLDER: Final = ".avccfs-commit"
"""What a commit keeps in the lower directory while it is under way: no part of the database."""
LEFT_OUT: Final = frozenset({LOCK, COMMIT_FOLDER})
"""Names in the directory itself that are never compared."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of a file, in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Origin:
    """The file below that a file above began as."""

    path: str
    """One of its paths in the lower directory."""
    altered: tuple[Extent, ...]
    """Ranges of the file above, ascending and apart, whose bytes may differ from those at the same
    offsets below. Outside of them, up to the size of the file above, both are the same."""


class Layered(Directory, Protocol):
    """A directory that shows another one, and changes to it."""

    @property
    def lower(self) -> Directory:
        """The directory below."""

    def origin(self, path: str) -> Origin | None:
        """Where the file at this path takes its bytes from; None if all of it is new.

        Raises as `stat`, and `OSError(EINVAL)` for what is no regular file.
        """
