"""What a manifest says, record by record: which table was in which level, from when to when.

The state after each of ten thousand records with ten thousand tables does not fit into memory; the
stays of tables do. A table is in a level from the record that adds it to the one that takes it
away, and the levels after step `n` are the stays with `since <= n < until`. Applied is what
`session.state` applies: deletions before additions, of two additions the last, half a record not
at all. Damage is passed over as LevelDB's framing does, which never takes two records for one, and
is a step of its own in which nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from avccfs.errors import FormatError
from avccfs.format import journal, manifest
from avccfs.format.journal import ReadAt
from avccfs.format.manifest import AddedTable, DeletedTable, SessionRecord


@dataclass(frozen=True, slots=True)
class Step:
    """A record of a manifest, or a damaged stretch of it. Offsets in bytes of the file."""

    offset: int
    end: int
    edit: int | None
    """1 for the first record that decodes; None for damage."""
    record: SessionRecord | None
    """None for damage."""
    fault: str | None
    """For people: what is wrong here. None for a sound record."""
    unmatched: tuple[DeletedTable, ...]
    """Deletions of tables that were not in their level: a record before this one may be lost."""
    journal_number: int | None
    """As the records up to this one have it; so too `previous_journal_number`."""
    previous_journal_number: int | None


@dataclass(slots=True)
class Stay:
    """A table in a level. Steps count from 1."""

    table: AddedTable
    since: int
    """The step that added it."""
    until: int | None = None
    """The step that took it away; None if it is there in the end."""


@dataclass(slots=True)
class History:
    """A manifest from beginning to end."""

    steps: list[Step] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    """In the order of `since`."""

    @property
    def edits(self) -> int:
        """How many records decode."""
        return sum(step.edit is not None for step in self.steps)

    @property
    def damaged(self) -> bool:
        """Whether anything was passed over."""
        return any(step.fault is not None for step in self.steps)

    def at(self, step: int) -> Iterator[AddedTable]:
        """The tables of all levels after this step; before the first for 0."""
        for stay in self.stays:
            if stay.since <= step and (stay.until is None or step < stay.until):
                yield stay.table


def read(read_at: ReadAt) -> History:
    """The history that a manifest tells. Raises for nothing that the file holds."""
    reader = _Reader()
    for item in journal.read(read_at, journal.Policy.LEVELDB):
        if isinstance(item, journal.Fault):
            reader.damage(item.offset, item.end, item.detail)
            continue
        try:
            record = manifest.decode(item.payload)
        except FormatError as error:
            reason = f"the record at offset {item.offset} does not decode: {error}"
            reader.damage(item.offset, item.end, reason)
        else:
            reader.apply(item.offset, item.end, record)
    return reader.history


class _Reader:
    """A history that grows."""

    def __init__(self) -> None:
        self.history = History()
        self._edits = 0
        self._journal: int | None = None
        self._previous: int | None = None
        self._live: dict[tuple[int, int], Stay] = {}

    def damage(self, offset: int, end: int, reason: str) -> None:
        self.history.steps.append(
            Step(offset, end, None, None, reason, (), self._journal, self._previous)
        )

    def apply(self, offset: int, end: int, record: SessionRecord) -> None:
        self._edits += 1
        if record.journal_number is not None:
            self._journal = record.journal_number
        if record.previous_journal_number is not None:
            self._previous = record.previous_journal_number or None
        number = len(self.history.steps) + 1
        before: dict[tuple[int, int], Stay | None] = {}
        unmatched: list[DeletedTable] = []
        for gone in record.deleted_tables:
            place = gone.level, gone.number
            stay = self._live.pop(place, None)
            if stay is None:
                unmatched.append(gone)
            else:
                before[place] = stay
        added = {(table.level, table.number): table for table in record.added_tables}
        for place, table in added.items():
            stay = before.pop(place, None) or self._live.get(place)
            if stay is None or stay.table != table:
                if stay is not None:
                    stay.until = number
                stay = Stay(table, number)
                self.history.stays.append(stay)
            self._live[place] = stay
        for stay in before.values():
            if stay is not None:
                stay.until = number
        self.history.steps.append(
            Step(
                offset,
                end,
                self._edits,
                record,
                None,
                tuple(unmatched),
                self._journal,
                self._previous,
            )
        )
