"""A directory at a glance: which engine wrote it, what its live manifest says, what lies about.

The live manifest is the one that get_meta of goleveldb's file storage chooses (SPEC section 3);
where LevelDB, which knows CURRENT alone, would read another one, that is one of the problems. What
is read: the family of CURRENT, the live manifest, every journal; of tables their ends, not their
data. So a glance takes no longer for gigabytes; what it cannot see is for a check to find.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from avccfs.errors import AvccfsError
from avccfs.format import filename
from avccfs.format.filename import CURRENT, FileDesc, Kind, kind_of, name_of, parse
from avccfs.format.ikey import Dialect
from avccfs.format.manifest import AddedTable
from avccfs.format.table import Table
from avccfs.session import decoded, recognition
from avccfs.session.decoded import Edit, Fault
from avccfs.session.engines import PROFILES, Engine
from avccfs.session.folder import Folder
from avccfs.session.recognition import Shown
from avccfs.session.state import EMPTY, SessionState, StateBuilder
from avccfs.storage.explain import MetaReport, Verdict, explain_meta
from avccfs.vfs.base import Directory
from avccfs.vfs.layered import COMMIT_FOLDER

_LOG_READ: Final = 256
_GO_BANNER: Final = re.compile(rb"=+ [A-Z][a-z]{2} \d+, \d{4} \(\w+\) =+")
_LEVELDB_LINE: Final = re.compile(rb"\d{4}/\d\d/\d\d-\d\d:\d\d:\d\d\.\d+ ")


class Use(enum.Enum):
    """What a file is to the session that the live manifest tells of."""

    LIVE = "live"
    REPLAYED = "replayed"
    """A journal that is read when the database is opened."""
    OBSOLETE = "obsolete"
    """A journal that is not read any more, or a manifest before the live one."""
    ORPHAN = "orphan"
    """A table that no level names."""
    NEWER = "newer"
    """A manifest with a higher number than the live one."""
    TEMP = "temp"
    FOREIGN = "foreign"
    """A name that no engine writes."""
    UNKNOWN = "unknown"
    """There is no live manifest to go by."""


@dataclass(frozen=True, slots=True)
class Level:
    """The tables of a level together."""

    number: int
    tables: int
    size: int
    """In bytes, as the manifest has it."""
    smallest: bytes | None
    """User key; None if the manifest's key does not decode."""
    largest: bytes | None
    missing: int
    """Tables that are not there."""


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal."""

    file: str
    use: Use
    size: int
    batches: int
    entries: int
    faults: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that is not a part of the database as the live manifest tells it."""

    file: str
    kind: Kind
    use: Use
    size: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be."""

    file: str
    offset: int | None
    """In bytes; None where it is about the file as a whole."""
    what: str
    advice: str
    damage: bool
    """Whether something is wrong or gone. False for what is merely unusual."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What can be told at a glance."""

    directory: str
    engine: Engine | None
    """None if nothing shows it."""
    engine_evidence: tuple[str, ...]
    dialect: Shown
    manifest: FileDesc | None
    """The live one."""
    manifest_why: str
    """Why this one, or why none."""
    edits: int
    state: SessionState
    """As far as the manifest can be read; empty without one."""
    levels: tuple[Level, ...]
    journals: tuple[Journal, ...]
    leftovers: tuple[Leftover, ...]
    problems: tuple[Problem, ...]

    @property
    def damaged(self) -> bool:
        """Whether a problem is damage."""
        return any(problem.damage for problem in self.problems)


def look(directory: Directory) -> Overview:
    """Look at a database directory. Locks nothing and changes nothing.

    Raises nothing for what files hold; an error of listing the directory passes through.
    """
    return _Look(Folder(directory)).overview()


class _Look:
    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._sizes = {name: stat.size for name, stat in folder.directory.scan()}
        self._problems: list[Problem] = []
        self._state = EMPTY
        self._edits = 0
        self._wrote_previous_journal = False

    def overview(self) -> Overview:
        if COMMIT_FOLDER in self._sizes:
            self._stopped_commit()
        report = explain_meta(self._folder.directory)
        manifest = self._live(report)
        if manifest is not None:
            self._read_manifest(manifest)
        dialect = recognition.of_folder(self._folder)
        levels = tuple(self._levels(dialect.dialect))
        self._look_at_tables()
        journals = tuple(self._journals(manifest is not None, dialect.dialect))
        leftovers = tuple(self._leftovers(manifest))
        engine, evidence = self._engine(dialect.dialect)
        return Overview(
            directory=self._folder.label,
            engine=engine,
            engine_evidence=evidence,
            dialect=dialect,
            manifest=manifest,
            manifest_why=_why(report, manifest),
            edits=self._edits,
            state=self._state,
            levels=levels,
            journals=journals,
            leftovers=leftovers,
            problems=tuple(self._problems),
        )

    def _tell(self, file: str, what: str, advice: str, *, damage: bool = True) -> None:
        self._problems.append(Problem(file, None, what, advice, damage))

    def _fault(self, file: str, fault: Fault, advice: str) -> None:
        self._problems.append(Problem(file, fault.offset, fault.detail, advice, True))

    def _stopped_commit(self) -> None:
        # Late: hardly any directory has one.
        from avccfs.storage.commit import unfinished

        finish = f"avccfs commit {self._folder.label}"
        try:
            left = unfinished(self._folder.directory)
        except (OSError, AvccfsError) as error:
            self._tell(COMMIT_FOLDER, f"it cannot be read: {error}", "copy the directory first")
            return
        if left is not None and left.durable:
            self._tell(
                COMMIT_FOLDER,
                f"a commit of an overlay's changes, begun at {left.begun:%Y-%m-%d %H:%M:%S} UTC, was "
                "stopped halfway: this may be neither the old database nor the new",
                f"finish it before anything opens this: {finish}",
            )
        elif left is not None:
            self._tell(
                COMMIT_FOLDER,
                "a commit of an overlay's changes was stopped before it had begun: nothing was changed",
                f"clear it away: {finish}",
                damage=False,
            )

    def _live(self, report: MetaReport) -> FileDesc | None:
        winner = report.winner
        for candidate in report.candidates:
            if candidate.verdict is Verdict.GOOD or candidate.name == filename.CURRENT_BAK:
                continue
            self._tell(
                candidate.name,
                candidate.finding,
                "do not let an engine create a database here; find the right manifest on a copy",
                damage=candidate.pending is None,
            )
        if report.pending and winner is not None:
            names = ", ".join(candidate.name for candidate in report.pending)
            self._tell(
                report.pending[0].name,
                f"a switch of CURRENT was interrupted: {names} still there",
                "see what each engine would make of it (avccfs explain) before one of them opens it",
                damage=False,
            )
        if winner is None:
            if any(kind_of(name) in Kind.NUMBERED for name in self._folder.names):
                self._tell(
                    CURRENT,
                    "there is no live manifest, but there are files of a database",
                    "do not open it with create-if-missing; point CURRENT at the newest whole "
                    "manifest (avccfs dump shows what is in each), on a copy",
                )
            return None
        target = winner.target
        if target is None or target.kind is not Kind.MANIFEST:
            self._tell(winner.name, f"it names {target}, which is no manifest", "see CURRENT.bak")
            return None
        current = report.candidate(CURRENT)
        if current is None or current.target != target:
            said = "which is not there" if current is None else f"which names {current.target}"
            self._tell(
                winner.name,
                f"goleveldb and avccDB go by {winner.name}; LevelDB goes by CURRENT, {said}",
                "see what each engine would make of it (avccfs explain) before one of them opens it",
                damage=False,
            )
        return target

    def _read_manifest(self, desc: FileDesc) -> None:
        name = name_of(desc)
        builder = StateBuilder(EMPTY)
        try:
            with self._folder.opened([name]) as opened:
                for item in decoded.read_manifest(opened.read_at):
                    if isinstance(item, Fault):
                        self._fault(
                            name,
                            item,
                            "copy the directory, then see what each engine would keep "
                            "(avccfs explain)",
                        )
                    elif isinstance(item, Edit) and item.number is not None:
                        self._edits = item.number
                        if item.record.previous_journal_number is not None:
                            self._wrote_previous_journal = True
                        builder.apply(item.record)
        except (OSError, AvccfsError) as error:
            self._tell(name, f"it cannot be read: {error}", "copy what can be read")
        self._state = builder.state(manifest=desc)
        for what, value in (
            ("comparer", self._state.comparer),
            ("next file number", self._state.next_file_number),
            ("journal number", self._state.journal_number),
            ("sequence number", self._state.sequence),
        ):
            if value is None:
                self._tell(
                    name,
                    f"expected a record with the {what}, found none",
                    "engines refuse this manifest: look for another one, or rebuild it, on a copy",
                )

    def _levels(self, dialect: Dialect) -> Iterator[Level]:
        for number, tables in self._state.levels.items():
            ranges = [_range(table, dialect) for table in tables]
            smallest = [low for low, _ in ranges if low is not None]
            largest = [high for _, high in ranges if high is not None]
            yield Level(
                number,
                len(tables),
                sum(table.size for table in tables),
                min(smallest, default=None),
                max(largest, default=None),
                sum(self._file_of(table) is None for table in tables),
            )

    def _look_at_tables(self) -> None:
        for table in self._state.tables():
            name = self._file_of(table)
            expected = name_of(FileDesc(table.number, Kind.TABLE))
            if name is None:
                self._tell(
                    expected,
                    f"it is missing: the manifest has it in level {table.level}",
                    "engines refuse to open this: look for the file (backup, lost+found), or "
                    "rebuild without it on a copy",
                )
                continue
            try:
                with self._folder.opened([name]) as opened:
                    if opened.size != table.size:
                        self._tell(
                            name,
                            f"expected {table.size} bytes, as the manifest says, "
                            f"found {opened.size}",
                            "it was cut off or written over: restore it from a backup",
                        )
                    for fault in Table(opened.read_at, opened.size).faults:
                        self._fault(
                            name,
                            decoded.of_table(fault),
                            f"see what can be read of it: avccfs dump {name}",
                        )
            except (OSError, AvccfsError) as error:
                self._tell(name, f"it cannot be read: {error}", "copy what can be read")

    def _file_of(self, table: AddedTable) -> str | None:
        desc = FileDesc(table.number, Kind.TABLE)
        names = (name_of(desc), filename.other_name_of(desc))
        return next((name for name in names if name is not None and name in self._sizes), None)

    def _journals(self, manifest: bool, dialect: Dialect) -> Iterator[Journal]:
        state = self._state
        for name in self._folder.of_kind(Kind.JOURNAL):
            desc = parse(name)
            assert desc is not None
            replayed = (
                desc.number >= (state.journal_number or 0)
                or desc.number == state.previous_journal_number
            )
            use = Use.UNKNOWN if not manifest else Use.REPLAYED if replayed else Use.OBSOLETE
            batches = entries = faults = behind = versioned = 0
            try:
                with self._folder.opened([name]) as opened:
                    for item in decoded.read_journal(opened.read_at, dialect):
                        if isinstance(item, Fault):
                            faults += 1
                            if use is not Use.OBSOLETE:
                                self._fault(
                                    name,
                                    item,
                                    "copy the directory, then see what each engine would keep "
                                    "(avccfs explain)",
                                )
                        elif not item.salvaged:
                            batches += 1
                            entries += item.count
                            behind += item.sequence < (state.sequence or 0)
                            versioned += any(entry.version for entry in item.entries)
            except FileNotFoundError:
                continue
            except (OSError, AvccfsError) as error:
                self._tell(name, f"it cannot be read: {error}", "copy what can be read")
            if use is Use.REPLAYED and behind:
                self._tell(
                    name,
                    f"{behind} of {batches} batches begin below the manifest's sequence number "
                    f"{state.sequence}: LevelDB replays them, goleveldb and avccDB skip them",
                    "open it with LevelDB, or see what each engine would keep (avccfs explain): "
                    "afterwards the journal is deleted",
                    damage=False,
                )
            if use is Use.REPLAYED and versioned:
                self._tell(
                    name,
                    f"{versioned} of {batches} batches have entries with versions, which avccDB "
                    "writes and its own replay misreads",
                    "do not open it with avccDB before the journals are exported (avccfs dump): it "
                    "loses them, and deletes them afterwards",
                    damage=False,
                )
            yield Journal(name, use, self._sizes.get(name, 0), batches, entries, faults)

    def _leftovers(self, manifest: FileDesc | None) -> Iterator[Leftover]:
        live = {table.number for table in self._state.tables()}
        for name in self._folder.names:
            kind = kind_of(name)
            desc = parse(name)
            use: Use | None = None
            if kind is Kind.FOREIGN:
                use = Use.FOREIGN
            elif kind is Kind.TEMP:
                use = Use.TEMP
            elif desc is not None and kind in (Kind.TABLE, Kind.MANIFEST):
                if manifest is None:
                    use = Use.UNKNOWN
                elif kind is Kind.TABLE:
                    use = None if desc.number in live else Use.ORPHAN
                elif desc != manifest:
                    use = Use.NEWER if desc.number > manifest.number else Use.OBSOLETE
            if use is not None:
                yield Leftover(name, kind, use, self._sizes.get(name, 0))

    def _engine(self, dialect: Dialect) -> tuple[Engine | None, tuple[str, ...]]:
        names = self._folder.names
        log = self._head(filename.LOG)
        go: list[str] = []
        leveldb: list[str] = []
        if _GO_BANNER.match(log):
            go.append("LOG begins with a banner")
        if _LEVELDB_LINE.match(log):
            leveldb.append("LOG has LevelDB's lines")
        if filename.CURRENT_BAK in names:
            go.append("there is a CURRENT.bak")
        if any(filename.pending_number(name) is not None for name in names):
            go.append("there is a CURRENT.<number>")
        if self._wrote_previous_journal:
            leveldb.append("its manifest has a previous journal number")
        if any(name.endswith(".dbtmp") and kind_of(name) is Kind.TEMP for name in names):
            leveldb.append("there is a .dbtmp")
        if dialect is Dialect.AVCCDB:
            return Engine.AVCCDB, ("its keys have versions", *go, *leveldb)
        if not go and not leveldb:
            return None, ()
        if go and leveldb:
            # Both were here; who wrote the live manifest was here last.
            last = Engine.LEVELDB if self._wrote_previous_journal else Engine.GOLEVELDB
            return last, (*go, *leveldb)
        return (Engine.GOLEVELDB, tuple(go)) if go else (Engine.LEVELDB, tuple(leveldb))

    def _head(self, name: str) -> bytes:
        if name not in self._folder.names:
            return b""
        try:
            with self._folder.opened([name]) as opened:
                return opened.read_at(_LOG_READ, 0)
        except (OSError, AvccfsError):
            return b""


def title_of(engine: Engine) -> str:
    """As the engine writes its own name."""
    return PROFILES[engine].title


def _why(report: MetaReport, manifest: FileDesc | None) -> str:
    winner = report.winner
    if manifest is not None and winner is not None:
        return f"{winner.name} names it"
    return "; ".join(c.finding for c in report.candidates) or "there is no CURRENT file"


def _range(table: AddedTable, dialect: Dialect) -> tuple[bytes | None, bytes | None]:
    low = decoded.internal_key(table.smallest, dialect)
    high = decoded.internal_key(table.largest, dialect)
    return None if low is None else low.user_key, None if high is None else high.user_key
