"""A picture as data: rows of boxes over an axis of keys, from step to step of a manifest.

The axis has a place for each user key at which a table of the history begins or ends, in order.
Keys of any form and density spread evenly on it, and a box from place `low` to place `high` covers
both. What a picture shows of the manifest is the history; what it shows of files is how they are
now, whatever step is looked at.

Speaks of no engine's recovery: it is what the records say, read past all damage.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from avccfs.errors import FormatError, MetaError, UsageError
from avccfs.format import filename, ikey
from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.format.ikey import Dialect
from avccfs.format.manifest import AddedTable
from avccfs.session.picture import history, lanes
from avccfs.session.picture.files import Files, TableOnDisk
from avccfs.session.picture.history import History, Step
from avccfs.storage.explain import explain_meta
from avccfs.vfs.base import Directory

USUAL_LEVELS: Final = 7
"""Up to so many levels rows without tables are shown too."""


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


def survey(
    directory: Directory,
    *,
    manifest: str | None = None,
    dialect: Dialect | None = None,
    checksums: bool = False,
) -> Scene:
    """The picture of a directory. Changes nothing and takes no lock.

    `manifest` is the name of the one to read; None takes the live one, or the newest there is if
    none is live. `dialect` None goes by what the files show. With `checksums` every block of every
    table is read.

    Raises `UsageError` for a manifest that is not there, or a directory without any file of a
    database; errors of listing the directory and of reading the manifest pass through.
    """
    files = Files(directory)
    notes: list[str] = []
    chosen = _named(manifest, files) if manifest else _live(directory, files, notes)
    damaged = manifest is None and bool(notes)
    if chosen is None and not files.tables and not files.journals:
        raise UsageError(
            f"{directory.label} holds no manifest, no table and no journal: "
            "name the directory of a database"
        )
    told = History()
    if chosen is not None:
        with files.opened(chosen) as (read_at, _):
            told = history.read(read_at)
        if told.damaged:
            notes.append(
                f"{chosen} is damaged. Shown is what the records say that decode, past all damage; "
                "avccfs explain tells what each engine would make of it"
            )
    painter = _Painter(files, told, dialect or files.dialect(), checksums=checksums)
    painter.paint()
    return Scene(
        directory.label,
        chosen,
        painter.dialect,
        tuple(notes),
        painter.keys,
        tuple(painter.rows),
        tuple(painter.boxes),
        tuple(told.steps),
        damaged or told.damaged or painter.damaged,
    )


def _named(name: str, files: Files) -> str:
    desc = filename.parse(name)
    if desc is None or desc.kind is not Kind.MANIFEST:
        raise UsageError(f"{name} is not the name of a manifest, such as MANIFEST-000007")
    if desc not in files.manifests:
        listed = ", ".join(map(name_of, files.manifests)) or "none"
        raise UsageError(f"there is no {name} here; the manifests are: {listed}")
    return name


def _live(directory: Directory, files: Files, notes: list[str]) -> str | None:
    """The live manifest; another one, and a note, if there is none."""
    try:
        live: FileDesc = explain_meta(directory).result()
    except (MetaError, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        notes.append(f"No manifest is live. {said}")
    else:
        if live.kind is Kind.MANIFEST:
            return name_of(live)
        notes.append(f"No manifest is live: CURRENT names {live}, which is none")
    if not files.manifests:
        return None
    newest = name_of(files.manifests[-1])
    notes.append(f"Shown is {newest}, the newest there is")
    return newest


@dataclass(slots=True)
class _Sketch:
    """A box that has no place yet."""

    row: tuple[int, int]
    """Sorts as the rows do."""
    number: int
    size: int
    ends: tuple[End, End] | None
    since: int
    until: int | None
    fate: Fate
    name: str | None = None
    note: str | None = None


@dataclass(slots=True)
class _Presence:
    """In how many levels a number is, and since when in none."""

    levels: int = 0
    table: AddedTable | None = None
    left: int | None = None
    gaps: list[tuple[int, int | None, AddedTable]] = field(default_factory=list)


_JOURNALS: Final = (0, 0)
_LOOSE: Final = (2, 0)


class _Painter:
    """A picture that is being made."""

    def __init__(self, files: Files, told: History, dialect: Dialect, *, checksums: bool) -> None:
        self.dialect = dialect
        self.damaged = False
        self.keys: tuple[bytes, ...] = ()
        self.rows: list[Row] = []
        self.boxes: list[Box] = []
        self._files = files
        self._told = told
        self._checksums = checksums
        self._sketches: list[_Sketch] = []

    def paint(self) -> None:
        self._levels()
        self._orphans()
        self._journals()
        self._place()

    def _levels(self) -> None:
        presences = self._presences()
        live = {stay.table.number for stay in self._told.stays if stay.until is None}
        looks: dict[int, tuple[Fate, TableOnDisk | None, str | None]] = {}
        for number, presence in presences.items():
            table = presence.table
            assert table is not None
            looks[number] = self._look(table, in_level=number in live)
        for stay in self._told.stays:
            table = stay.table
            fate, found, note = looks[table.number]
            ends = self._end(table.smallest), self._end(table.largest)
            if ends[0].key > ends[1].key:
                note = _joined("its smallest key is behind its largest", note)
            self._sketches.append(
                _Sketch(
                    (1, table.level),
                    table.number,
                    table.size,
                    ends,
                    stay.since,
                    stay.until,
                    fate,
                    found.name if found else None,
                    note,
                )
            )
        for number, presence in presences.items():
            fate, found, note = looks[number]
            for since, until, table in presence.gaps:
                if found is not None:
                    ends = self._end(table.smallest), self._end(table.largest)
                    self._sketches.append(
                        _Sketch(
                            _LOOSE, number, found.size, ends, since, until, fate, found.name, note
                        )
                    )

    def _presences(self) -> dict[int, _Presence]:
        """Of each number in the history, from when to when it was in no level."""
        events: list[tuple[int, int, AddedTable]] = []
        for stay in self._told.stays:
            events.append((stay.since, 1, stay.table))
            if stay.until is not None:
                events.append((stay.until, -1, stay.table))
        # Of one step, arrivals first: a table that moves to another level is never in none.
        events.sort(key=lambda event: (event[0], -event[1]))
        presences: dict[int, _Presence] = {}
        for step, change, table in events:
            presence = presences.setdefault(table.number, _Presence())
            presence.levels += change
            if change > 0:
                if presence.left is not None and presence.table is not None:
                    presence.gaps.append((presence.left, step, presence.table))
                presence.left = None
                presence.table = table
            elif presence.levels == 0:
                presence.left = step
        for presence in presences.values():
            if presence.left is not None and presence.table is not None:
                presence.gaps.append((presence.left, None, presence.table))
        return presences

    def _look(
        self, table: AddedTable, *, in_level: bool
    ) -> tuple[Fate, TableOnDisk | None, str | None]:
        found = self._files.look(table.number, table.size, checksums=self._checksums)
        if found is None:
            if not in_level:
                return Fate.PAST, None, None
            self.damaged = True
            name = name_of(FileDesc(table.number, Kind.TABLE))
            return Fate.MISSING, None, f"{name} is missing: the levels need it"
        if found.fault is not None:
            self.damaged = self.damaged or in_level
            return Fate.DAMAGED, found, f"{found.name}: {found.fault}"
        return (Fate.LIVE if in_level else Fate.OBSOLETE), found, None

    def _orphans(self) -> None:
        known = {stay.table.number for stay in self._told.stays}
        for number in sorted(self._files.tables.keys() - known):
            found = self._files.look(number, None, checksums=self._checksums)
            if found is None:
                continue
            bounds = self._files.bounds(number)
            ends = bounds and (self._end(bounds[0]), self._end(bounds[1]))
            fault = found.fault
            if ends is None and fault is None:
                fault = "no key in it can be read"
            fate = Fate.ORPHAN if fault is None else Fate.DAMAGED
            note = None if fault is None else f"{found.name}: {fault}"
            self._sketches.append(
                _Sketch(_LOOSE, number, found.size, ends, 0, None, fate, found.name, note)
            )

    def _journals(self) -> None:
        last = self._told.steps[-1] if self._told.steps else None
        first = last.journal_number if last else None
        previous = last.previous_journal_number if last else None
        for number in sorted(self._files.journals):
            held = self._files.journal(number, self.dialect)
            if held is None:
                continue
            ends = held.bounds and (End(held.bounds[0], None), End(held.bounds[1], None))
            note = f"{held.entries} entries"
            fate = Fate.JOURNAL
            if held.fault is not None:
                note = f"{note}; {held.name}: {held.fault}"
                fate = Fate.DAMAGED
                if first is None or number >= first or number == previous:
                    self.damaged = True
            self._sketches.append(
                _Sketch(_JOURNALS, number, held.size, ends, 0, None, fate, held.name, note)
            )

    def _place(self) -> None:
        ends = (end.key for each in self._sketches if each.ends for end in each.ends)
        self.keys = tuple(sorted(set(ends)))
        places = {key: place for place, key in enumerate(self.keys)}
        by_row: dict[tuple[int, int], list[_Sketch]] = {
            (1, level): [] for level in self._shown_levels()
        }
        for sketch in self._sketches:
            by_row.setdefault(sketch.row, []).append(sketch)
        for place in sorted(by_row):
            sketches = by_row[place]
            extents = [self._extent(sketch, places) for sketch in sketches]
            assigned, count = lanes.assign(extents)
            kind = (RowKind.JOURNALS, RowKind.LEVEL, RowKind.LOOSE)[place[0]]
            level = place[1] if kind is RowKind.LEVEL else None
            row = len(self.rows)
            self.rows.append(Row(kind, level, max(1, count)))
            boxes = [
                Box(
                    row,
                    lane,
                    sketch.number,
                    sketch.size,
                    extent.low,
                    extent.high,
                    sketch.ends,
                    sketch.since,
                    sketch.until,
                    sketch.fate,
                    sketch.name,
                    sketch.note,
                )
                for sketch, extent, lane in zip(sketches, extents, assigned, strict=True)
            ]
            self.boxes += sorted(boxes, key=lambda box: (box.lane, box.low, box.since, box.number))

    def _shown_levels(self) -> Iterable[int]:
        levels = {stay.table.level for stay in self._told.stays} | {0}
        highest = max(levels)
        return range(highest + 1) if highest < USUAL_LEVELS else levels

    def _extent(self, sketch: _Sketch, places: dict[bytes, int]) -> lanes.Extent:
        if sketch.ends is None:
            return lanes.Extent(0, max(0, len(places) - 1), sketch.since, sketch.until)
        low, high = sorted(places[end.key] for end in sketch.ends)
        return lanes.Extent(low, high, sketch.since, sketch.until)

    def _end(self, raw: bytes) -> End:
        try:
            key = ikey.decode(raw, self.dialect)
        except FormatError:
            cut = self.dialect.suffix_length
            return End(raw[:-cut] if len(raw) >= cut else raw, None)
        return End(key.user_key, key.sequence)


def _joined(one: str, other: str | None) -> str:
    return one if other is None else f"{one}; {other}"
