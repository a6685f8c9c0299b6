"""How a directory becomes a picture: manifest, tables and journals are read, boxes placed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from avccfs.errors import FormatError, MetaError, UsageError
from avccfs.format import filename, ikey
from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.format.ikey import Dialect
from avccfs.format.manifest import AddedTable
from avccfs.session.picture import history, lanes
from avccfs.session.picture.files import Files, TableOnDisk
from avccfs.session.picture.history import History
from avccfs.session.picture.scene import Box, End, Fate, Row, RowKind, Scene
from avccfs.storage.explain import explain_meta
from avccfs.vfs.base import Directory

USUAL_LEVELS: Final = 7
"""If all levels are below this, those without tables are shown too."""


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
