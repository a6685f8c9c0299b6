"""What a database is at one moment, as its manifest tells it: an immutable value (SPEC section 9).

A session record is a change; applying it to a state gives the next state and leaves the first as
it was. The whole of recovery is the records of a manifest applied one after another to `EMPTY`.

Where records are odd the engines agree, and so does `apply`:

- In one record deletions come before additions, whatever their order in the bytes.
- A table that a level has already, or that one record adds twice, is in the level once: the last
  addition counts.
- A deletion goes by level and number. If that level has no such table, nothing happens: LevelDB
  and goleveldb both keep silent. It hints at a record lost before it, so `unmatched_deletions`
  tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

from avccfs.format.filename import FileDesc
from avccfs.format.manifest import AddedTable, CompactionPointer, DeletedTable, SessionRecord

Levels = Mapping[int, tuple[AddedTable, ...]]

_T = TypeVar("_T")


def _nothing() -> Mapping[int, _T]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SessionState:
    """One version of a session. None is what no record has said yet.

    The maps are read-only views in ascending order of level. Levels are whatever the records
    claimed, up to 2**63 - 1, and one without tables is not there at all.
    """

    comparer: bytes | None = None
    next_file_number: int | None = None
    """As last written down; the counter of a running session may have moved on."""
    journal_number: int | None = None
    previous_journal_number: int | None = None
    """The journal before that one, where it is still needed. 0, which LevelDB writes when there
    is none, reads as None."""
    sequence: int | None = None
    compaction_pointers: Mapping[int, bytes] = field(default_factory=_nothing)
    """Level to encoded internal key."""
    levels: Levels = field(default_factory=_nothing)
    """Level to its tables in ascending number. Their order by key needs the dialect, which no
    manifest names."""
    manifest: FileDesc | None = None
    """The live manifest; None before there is one."""

    def apply(self, record: SessionRecord) -> SessionState:
        """The state after one more record. Changes nothing; raises nothing."""
        return self.apply_all((record,))

    def apply_all(self, records: Iterable[SessionRecord]) -> SessionState:
        """The state after these records in order, in time proportional to what they hold."""
        builder = StateBuilder(self)
        for record in records:
            builder.apply(record)
        return builder.state()

    def tables(self) -> Iterator[AddedTable]:
        """Every table, by level and number."""
        for tables in self.levels.values():
            yield from tables

    def unmatched_deletions(self, record: SessionRecord) -> tuple[DeletedTable, ...]:
        """The deletions of `record` that find no table here."""
        return StateBuilder(self).apply(record)


EMPTY: Final = SessionState()


def snapshot(state: SessionState) -> SessionRecord:
    """The one record that makes `state` (but for `manifest`) out of nothing.

    The fields are those of SPEC section 9 and, other than in goleveldb, a previous journal that
    is still needed: without it the journal would never be replayed again.
    """
    return SessionRecord(
        comparer=state.comparer,
        journal_number=state.journal_number,
        previous_journal_number=state.previous_journal_number,
        next_file_number=state.next_file_number,
        sequence=state.sequence,
        compaction_pointers=tuple(
            CompactionPointer(level, key) for level, key in state.compaction_pointers.items()
        ),
        added_tables=tuple(state.tables()),
    )


class StateBuilder:
    """A state being changed, record by record. Levels are copied when they are first touched."""

    def __init__(self, base: SessionState) -> None:
        self._base = base
        self._comparer = base.comparer
        self._next_file_number = base.next_file_number
        self._journal_number = base.journal_number
        self._previous_journal_number = base.previous_journal_number
        self._sequence = base.sequence
        self._pointers = dict(base.compaction_pointers)
        self._touched: dict[int, dict[int, AddedTable]] = {}

    def apply(self, record: SessionRecord) -> tuple[DeletedTable, ...]:
        """Apply one more record; returns its deletions that found no table."""
        if record.comparer is not None:
            self._comparer = record.comparer
        if record.next_file_number is not None:
            self._next_file_number = record.next_file_number
        if record.journal_number is not None:
            self._journal_number = record.journal_number
        if record.previous_journal_number is not None:
            self._previous_journal_number = record.previous_journal_number or None
        if record.sequence is not None:
            self._sequence = record.sequence
        for pointer in record.compaction_pointers:
            self._pointers[pointer.level] = pointer.key
        unmatched = tuple(
            gone
            for gone in record.deleted_tables
            if self._level(gone.level).pop(gone.number, None) is None
        )
        for table in record.added_tables:
            self._level(table.level)[table.number] = table
        return unmatched

    def state(self, *, manifest: FileDesc | None = None) -> SessionState:
        """The state as it is now, in `manifest`; without one it stays in the base's."""
        levels = dict(self._base.levels)
        for level, tables in self._touched.items():
            levels[level] = tuple(tables[number] for number in sorted(tables))
        return SessionState(
            comparer=self._comparer,
            next_file_number=self._next_file_number,
            journal_number=self._journal_number,
            previous_journal_number=self._previous_journal_number,
            sequence=self._sequence,
            compaction_pointers=MappingProxyType(dict(sorted(self._pointers.items()))),
            levels=MappingProxyType(
                {level: levels[level] for level in sorted(levels) if levels[level]}
            ),
            manifest=manifest or self._base.manifest,
        )

    def _level(self, level: int) -> dict[int, AddedTable]:
        tables = self._touched.get(level)
        if tables is None:
            tables = {table.number: table for table in self._base.levels.get(level, ())}
            self._touched[level] = tables
        return tables
