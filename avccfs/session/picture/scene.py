"""A picture as data: rows of boxes over an axis of keys, from step to step of a manifest.

The axis has a place for each user key at which a table of the history begins or ends, in order.
Keys of any form and density spread evenly on it, and a box from place `low` to place `high` covers
both. What a picture shows of the manifest is the history; what it shows of files is how they are
now, whatever step is looked at.

Speaks of no engine's recovery: it is what the records say, read past all damage.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from avccfs.errors import UsageError
from avccfs.format.ikey import Dialect
from avccfs.session.picture.history import Step


class Fate(enum.Enum):
    """How the file of a box stands at the end of the history. The values are CSS classes."""

    LIVE = "live"
    """In a level, and there."""
    MISSING = "missing"
    """In a level, and not there."""
    DAMAGED = "damaged"
    """There, but not sound."""
    PAST = "past"
    """In no level any more, and gone, as it should be."""
    OBSOLETE = "obsolete"
    """In no level any more, but there."""
    ORPHAN = "orphan"
    """There, but the manifest never had it."""
    JOURNAL = "journal"


class RowKind(enum.Enum):
    """What is in a row."""

    JOURNALS = "journals"
    LEVEL = "level"
    LOOSE = "loose"
    """Files of tables that are in no level."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the picture, from top to bottom."""

    kind: RowKind
    level: int | None
    """None but for levels."""
    lanes: int
    """Boxes lie over each other in so many; at least 1."""

    @property
    def title(self) -> str:
        """For people."""
        match self.kind:
            case RowKind.JOURNALS:
                return "Journals"
            case RowKind.LEVEL:
                return f"L{self.level}"
            case RowKind.LOOSE:
                return "In no level"


@dataclass(frozen=True, slots=True)
class End:
    """A key at which a table begins or ends."""

    key: bytes
    """The user key."""
    sequence: int | None
    """None in a journal, and of an internal key that does not decode."""


@dataclass(frozen=True, slots=True)
class Box:
    """A table in a level, a loose table, or a journal; there from step to step."""

    row: int
    lane: int
    number: int
    size: int
    """In bytes, as the manifest says; of loose tables and journals, as they are."""
    low: int
    """The first place on the axis, as `high` the last."""
    high: int
    ends: tuple[End, End] | None
    """Smallest and largest key, in the order in which they are written down; None if unknown.
    Then the box covers the whole axis."""
    since: int
    """The first step at which it is there; 0: before all."""
    until: int | None
    """The first step at which it is not any more; None: it stays."""
    fate: Fate
    name: str | None
    """The file's; None if there is none."""
    note: str | None
    """What is wrong with it, for people."""

    def there_at(self, step: int) -> bool:
        """Whether it is in the picture after this step."""
        return self.since <= step and (self.until is None or step < self.until)


@dataclass(frozen=True, slots=True)
class Scene:
    """All of a picture."""

    label: str
    """The directory."""
    manifest: str | None
    """None if there is none to read: then there are no steps."""
    dialect: Dialect
    notes: tuple[str, ...]
    """What one should know of it as a whole, for people."""
    keys: tuple[bytes, ...]
    """The axis."""
    rows: tuple[Row, ...]
    boxes: tuple[Box, ...]
    steps: tuple[Step, ...]
    damaged: bool
    """Whether there is no live manifest, damage in the manifest, or a table of the levels is
    missing or damaged, or a journal is."""

    def step_of(self, edit: int) -> int:
        """The step that is the edit of this number, from 1. Raises `UsageError` if there is none."""
        for number, step in enumerate(self.steps, start=1):
            if step.edit == edit:
                return number
        edits = sum(step.edit is not None for step in self.steps)
        raise UsageError(
            f"there is no edit {edit}: {self.manifest or 'the directory'} has "
            + (f"edits 1 to {edits}" if edits else "none that can be read")
        )

    def is_needed(self, box: Box, step: int) -> bool:
        """Whether a journal would be replayed after this step; True for every table."""
        if step == 0 or self.rows[box.row].kind is not RowKind.JOURNALS:
            return True
        now = self.steps[step - 1]
        first = now.journal_number
        return first is None or box.number >= first or box.number == now.previous_journal_number

    def boxes_at(self, step: int) -> Iterator[Box]:
        """The boxes after this step."""
        return (box for box in self.boxes if box.there_at(step))
