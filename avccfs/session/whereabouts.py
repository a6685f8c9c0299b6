"""Every place that holds a key, and which engine would show it (SPEC sections 5, 7, 8 and 9).

All tables and all journals are searched, also those that no engine would read any more. Tables are
searched through index and filter if their structure is sound, and from end to end if it is not. Of
each engine that takes the keys as they are meant, the *view* says what a file is to it, and which
entry it would show after opening.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from avccfs.errors import AvccfsError
from avccfs.format import journal
from avccfs.format.filename import CURRENT, FileDesc, Kind, parse
from avccfs.format.filter import BLOOM_POLICIES
from avccfs.format.ikey import Dialect, KeyKind
from avccfs.format.table import Table
from avccfs.session import decoded, recognition
from avccfs.session.decoded import Bounds, Fault
from avccfs.session.engines import PROFILES, Engine, MetaRule, Profile, meta_target
from avccfs.session.folder import Folder, Opened
from avccfs.session.recognition import Shown
from avccfs.session.recovery import batches, edits
from avccfs.session.recovery.keyspace import UndefinedError
from avccfs.session.state import SessionState
from avccfs.storage.explain import explain_meta
from avccfs.vfs.base import Directory

PREVIEW: Final = 80
"""Bytes of a value that are kept: one key may be in a million places."""


class Role(enum.Enum):
    """What the place of an entry is to an engine."""

    LEVEL = "level"
    """In a table that a level names."""
    ORPHAN = "orphan"
    """In a table that no level names."""
    REPLAYED = "replayed"
    """In a batch that is replayed on opening."""
    DROPPED = "dropped"
    """In a journal that is replayed; but this batch, or this entry of it, is not."""
    OBSOLETE = "obsolete"
    """In a journal that is not replayed, because what it holds should be in tables."""
    UNREACHABLE = "unreachable"
    """The engine refuses to open the database."""


@dataclass(frozen=True, slots=True)
class Sight:
    """An entry, seen from an engine."""

    engine: Engine
    role: Role
    level: int | None
    """Of the table, if a level names it."""
    visible: bool
    """Whether a reader gets this entry: the value, or, of a deletion, that there is none."""


@dataclass(frozen=True, slots=True)
class Place:
    """An entry with the key."""

    file: str
    kind: Kind
    offset: int
    """Of its block or of its batch, in bytes of the file."""
    sequence: int
    version: int | None
    change: KeyKind
    size: int
    """Of the value, in bytes."""
    preview: bytes
    """The first `PREVIEW` bytes of it."""
    certain: bool
    """False if it is in one of several readings of an ambiguous batch."""


@dataclass(frozen=True, slots=True)
class View:
    """What an engine makes of the directory, as far as it matters for one key."""

    engine: Engine
    manifest: str | None
    error: str | None
    """Why it refuses to open; None if it opens."""


@dataclass(frozen=True, slots=True)
class FileFault:
    """What is wrong in a file that was searched: the key may have been there."""

    file: str
    fault: Fault | None
    """None if the file as a whole cannot be read."""
    detail: str


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """All that was found."""

    directory: str
    key: bytes
    dialect: Shown
    searched: int
    """Number of files."""
    places: tuple[tuple[Place, tuple[Sight, ...]], ...]
    """Newest first: by sequence number, then by file, the highest number first."""
    views: tuple[View, ...]
    faults: tuple[FileFault, ...]


def find(directory: Directory, key: bytes, *, dialect: Dialect | None = None) -> Whereabouts:
    """Search all tables and journals for a user key. Locks nothing and changes nothing.

    Raises nothing for what files hold; an error of listing the directory passes through.
    """
    folder = Folder(directory)
    shown = (
        recognition.of_folder(folder)
        if dialect is None
        else Shown(dialect, recognition.GIVEN, certain=True)
    )
    faults: list[FileFault] = []
    places: list[Place] = []
    searched = 0
    for kind, search in ((Kind.TABLE, _in_table), (Kind.JOURNAL, _in_journal)):
        for name in folder.of_kind(kind):
            searched += 1
            try:
                with folder.opened([name]) as opened:
                    for item in search(opened, key, shown.dialect):
                        if isinstance(item, Place):
                            places.append(item)
                        else:
                            faults.append(FileFault(name, item, item.detail))
            except FileNotFoundError:
                searched -= 1
            except (OSError, AvccfsError) as error:
                faults.append(FileFault(name, None, str(error)))
    places.sort(key=_newest_first)
    views = [_View(folder, profile) for profile in _profiles(shown.dialect)]
    sights = [view.sights(places, key) for view in views]
    return Whereabouts(
        directory=folder.label,
        key=key,
        dialect=shown,
        searched=searched,
        places=tuple(zip(places, zip(*sights, strict=True), strict=True)),
        views=tuple(view.told for view in views),
        faults=tuple(faults),
    )


Search = Callable[[Opened, bytes, Dialect], Iterator[Place | Fault]]


def _profiles(dialect: Dialect) -> list[Profile]:
    """The engines that take the keys of this dialect as they are meant."""
    return [profile for profile in PROFILES.values() if profile.reads_as is dialect]


def _newest_first(place: Place) -> tuple[int, int, int]:
    desc = parse(place.file)
    return -place.sequence, -(desc.number if desc else 0), place.offset


def _in_table(opened: Opened, key: bytes, dialect: Dialect) -> Iterator[Place | Fault]:
    table = Table(opened.read_at, opened.size)
    damage: list[Fault] = []
    if not table.faults and _denied(table, key, dialect, damage):
        return
    yield from damage
    own = recognition.of_table(table)
    form = dialect if own is None else own.dialect
    for item in decoded.read_table(table, form, Bounds(key, key + b"\0")):
        if isinstance(item, Fault):
            yield item
            continue
        for raw, value, offset in item.entries:
            found = decoded.internal_key(raw, form)
            assert found is not None
            yield Place(
                opened.name,
                Kind.TABLE,
                offset,
                found.sequence,
                found.version,
                found.kind,
                len(value),
                value[:PREVIEW],
                True,
            )


def _denied(table: Table, key: bytes, dialect: Dialect, damage: list[Fault]) -> bool:
    """Whether a sound filter says that no block which could hold the key does."""
    if dialect is not Dialect.STANDARD:
        # avccDB's filters are of keys with their versions, and any version may be there.
        return False
    policy = next((name for name in table.filters if name in BLOOM_POLICIES), None)
    if policy is None:
        return False
    filters = table.filter_block(policy, lambda fault: damage.append(decoded.of_table(fault)))
    if filters is None:
        return False
    cut = dialect.suffix_length
    for separator, handle in table.blocks():
        if separator[:-cut] < key:
            continue
        if filters.may_contain(handle.offset, key):
            return False
        if separator[:-cut] > key:
            break
    return True


def _in_journal(opened: Opened, key: bytes, dialect: Dialect) -> Iterator[Place | Fault]:
    for item in decoded.read_journal(opened.read_at, dialect, Bounds(key, key + b"\0")):
        if isinstance(item, Fault):
            yield item
            continue
        shared = set(item.entries)
        possible = {entry for reading in item.readings for entry in reading} - shared
        for entry in (*item.entries, *sorted(possible, key=lambda each: each.sequence)):
            value = entry.value or b""
            yield Place(
                opened.name,
                Kind.JOURNAL,
                item.offset,
                entry.sequence,
                entry.version,
                entry.kind,
                len(value),
                value[:PREVIEW],
                entry in shared,
            )


class _View:
    """What one engine makes of the directory."""

    def __init__(self, folder: Folder, profile: Profile) -> None:
        self._folder = folder
        self._profile = profile
        self._manifest: str | None = None
        self._state: SessionState | None = None
        self._error: str | None = None
        try:
            self._error = self._look()
        except UndefinedError as error:
            self._error = f"nobody can say what it does: {error}"
        except OSError as error:
            self._error = str(error)
        if self._error is not None:
            self._state = None

    @property
    def told(self) -> View:
        return View(self._profile.engine, self._manifest, self._error)

    def sights(self, places: Sequence[Place], key: bytes) -> list[Sight]:
        """What each place is to the engine. `told` may have another error afterwards."""
        state = self._state
        applied: set[tuple[str, int, int]] = set()
        if state is not None:
            sequence = state.sequence or 0
            levels = {table.number: table.level for table in state.tables()}
            roles = [self._role(place, levels, state) for place in places]
            if Role.REPLAYED in roles or any(place.sequence > sequence for place in places):
                try:
                    sequence = self._replay(key, state, applied)
                except (batches.PanicError, UndefinedError, OSError) as error:
                    self._error = str(error)
                    state = None
        if state is None:
            unreachable = Sight(self._profile.engine, Role.UNREACHABLE, None, visible=False)
            return [unreachable] * len(places)
        for index, place in enumerate(places):
            if roles[index] is Role.REPLAYED and not self._applied(place, applied):
                roles[index] = Role.DROPPED
        reached = [
            _rank(place)
            for place, role in zip(places, roles, strict=True)
            if role in (Role.LEVEL, Role.REPLAYED) and place.sequence <= sequence
        ]
        newest = max(reached, default=None)
        return [
            Sight(
                self._profile.engine,
                role,
                levels[_number(place)] if role is Role.LEVEL else None,
                role in (Role.LEVEL, Role.REPLAYED) and _rank(place) == newest,
            )
            for place, role in zip(places, roles, strict=True)
        ]

    def _look(self) -> str | None:
        """Find the manifest and read it; returns why the engine refuses."""
        directory = self._folder.directory
        if self._profile.meta is MetaRule.CURRENT_ONLY:
            candidate = explain_meta(directory).candidate(CURRENT)
            target = candidate.target if candidate is not None and candidate.good else None
        else:
            winner = explain_meta(directory, meta_target).winner
            target = None if winner is None else winner.target
        if target is None:
            return "it finds no live manifest"
        name = str(target)
        self._manifest = name
        with self._folder.opened([name]) as opened:
            reading = edits.read(opened.read_at, target, name, self._profile)
        if reading.error is not None:
            return reading.error
        self._state = reading.state
        present = {parse(each) for each in self._folder.names}
        missing = [
            str(FileDesc(table.number, Kind.TABLE))
            for table in reading.state.tables()
            if FileDesc(table.number, Kind.TABLE) not in present
        ]
        return f"missing: {', '.join(sorted(set(missing)))}" if missing else None

    def _role(self, place: Place, levels: dict[int, int], state: SessionState) -> Role:
        if place.kind is Kind.TABLE:
            return Role.LEVEL if _number(place) in levels else Role.ORPHAN
        return Role.REPLAYED if _replays(_number(place), state) else Role.OBSOLETE

    def _replay(self, key: bytes, state: SessionState, applied: set[tuple[str, int, int]]) -> int:
        """Replay the journals; notes the entries with the key, returns the sequence number then."""
        profile = self._profile
        sequence = state.sequence or 0
        # What a replay makes with keys of another form has other keys.
        misread = profile.replays_as is not profile.reads_as
        for name in self._folder.of_kind(Kind.JOURNAL):
            desc = parse(name)
            if desc is None or not _replays(desc.number, state):
                continue
            with self._folder.opened([name]) as opened:
                for record in _records(journal.read(opened.read_at, profile.framing)):
                    outcome = batches.apply(record.payload, profile, sequence)
                    moved = outcome.next_sequence
                    if moved is not None and (profile.like_goleveldb or moved > sequence):
                        sequence = moved
                    if not misread:
                        applied.update(
                            (name, record.offset, trailer)
                            for user_key, trailer, _ in outcome.applied
                            if user_key == key
                        )
        return sequence

    def _applied(self, place: Place, applied: set[tuple[str, int, int]]) -> bool:
        return (place.file, place.offset, place.sequence << 8 | place.change) in applied


def _records(items: Iterable[journal.Item]) -> Iterator[journal.Record]:
    return (item for item in items if isinstance(item, journal.Record))


def _replays(number: int, state: SessionState) -> bool:
    return number >= (state.journal_number or 0) or number == state.previous_journal_number


def _number(place: Place) -> int:
    desc = parse(place.file)
    assert desc is not None
    return desc.number


def _rank(place: Place) -> tuple[int, int, int]:
    """Of entries with one key the engine shows the one with the highest."""
    return place.version or 0, place.sequence, place.change
