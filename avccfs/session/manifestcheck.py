"""What is wrong with CURRENT, its family, and the manifests; and what the live one says.

The live manifest is the one that get_meta of goleveldb's file storage chooses (SPEC section 3). If
none is, the newest that is whole stands in for it, so that the rest can be compared with something.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from avccfs.errors import FormatError
from avccfs.format import ikey, manifest
from avccfs.format.filename import CURRENT, CURRENT_BAK, FileDesc, Kind, name_of
from avccfs.format.ikey import Dialect
from avccfs.format.journal import ReadAt
from avccfs.format.manifest import AddedTable
from avccfs.session.faults import Code, Flaw, Report, Severity
from avccfs.session.recordcheck import read_records, split_detail
from avccfs.session.state import EMPTY, SessionState, StateBuilder
from avccfs.storage.explain import MetaCandidate, MetaReport, Verdict

LEVELDB_LEVELS: Final = 7

_DEMANDED: Final = (
    ("comparer", "comparer"),
    ("next file number", "next_file_number"),
    ("journal number", "journal_number"),
    ("sequence number", "sequence"),
)
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class MetaFlaw:
    """What is wrong with one file of the CURRENT family, and how much it matters there."""

    file: str
    flaw: Flaw
    severity: Severity | None
    """None for what its code says."""


@dataclass(frozen=True, slots=True)
class ManifestCheck:
    """What a manifest says, read as far as it is sound."""

    desc: FileDesc
    state: SessionState
    records: int
    flawed: bool
    """Whether something in it could not be read."""
    dropped: frozenset[int]
    """Numbers of the tables that some record deleted."""
    highest_table: int
    """The highest number of a table that any record named; -1 if none did."""

    @property
    def complete(self) -> bool:
        """Whether it can carry a session."""
        return all(getattr(self.state, attribute) is not None for _, attribute in _DEMANDED)


def check_meta(meta: MetaReport) -> list[MetaFlaw]:
    """What is wrong with CURRENT, CURRENT.bak and pending files."""
    flaws = [each for candidate in meta.candidates for each in _check_candidate(candidate)]
    current = meta.candidate(CURRENT)
    if current is None:
        instead = meta.winner
        found = "no such file"
        if instead is not None:
            found += f"; goleveldb goes by {instead.name}, which names {instead.target}"
        flaw = Flaw(Code.CURRENT_MISSING, None, None, "the name of the live manifest", found)
        flaws.append(MetaFlaw(CURRENT, flaw, None))
    elif (winner := meta.winner) is not None and current.good and winner is not current:
        expected = "the live manifest to be the one that CURRENT names"
        found = f"that goleveldb and avccDB go by {winner.name}, which names {winner.target}"
        flaw = Flaw(Code.CURRENT_OVERRULED, None, None, expected, found)
        flaws.append(MetaFlaw(CURRENT, flaw, None))
    return flaws


def check_manifest(read_at: ReadAt, desc: FileDesc, report: Report) -> ManifestCheck:
    """Read a manifest from beginning to end. Errors of `read_at` pass through, nothing else."""
    builder = StateBuilder(EMPTY)
    records = flaws = 0
    dropped: set[int] = set()
    highest = -1

    def count(flaw: Flaw) -> None:
        nonlocal flaws
        flaws += 1
        report(flaw)

    for item in read_records(read_at, count):
        length = item.end - item.offset
        try:
            record = manifest.decode(item.payload)
        except FormatError as error:
            expected, found = split_detail(str(error))
            expected = expected or "a session record"
            count(Flaw(Code.RECORD_UNDECODABLE, item.offset, length, expected, found))
            continue
        records += 1
        for gone in builder.apply(record):
            expected = f"{name_of(FileDesc(gone.number, Kind.TABLE))} in level {gone.level}"
            found = "a deletion of it, and no such table"
            report(Flaw(Code.DELETION_UNMATCHED, item.offset, length, expected, found))
        dropped.update(gone.number for gone in record.deleted_tables)
        highest = max([highest, *(table.number for table in record.added_tables)])
    state = builder.state(manifest=desc)
    for name, attribute in _DEMANDED:
        if getattr(state, attribute) is None:
            found = f"none in {records} records"
            report(Flaw(Code.MANIFEST_FIELD_MISSING, None, None, f"a {name}", found))
    if state.comparer not in (None, manifest.BYTEWISE_COMPARER):
        expected = manifest.BYTEWISE_COMPARER.decode()
        found = _shown(state.comparer or b"")
        report(Flaw(Code.COMPARER_UNKNOWN, None, None, expected, found))
    return ManifestCheck(desc, state, records, flaws > 0, frozenset(dropped), highest)


def check_levels(state: SessionState, dialect: Dialect, report: Report) -> list[tuple[int, Flaw]]:
    """What is wrong with how tables are arranged: by number of the table. `report` gets what is
    wrong with the manifest itself."""
    flaws: list[tuple[int, Flaw]] = []
    level_of: dict[int, int] = {}
    ordered = state.comparer in (None, manifest.BYTEWISE_COMPARER)
    for level, tables in state.levels.items():
        if level >= LEVELDB_LEVELS:
            expected = f"levels 0 to {LEVELDB_LEVELS - 1}"
            report(Flaw(Code.LEVEL_UNKNOWN, None, None, expected, f"level {level}"))
        for table in tables:
            if (other := level_of.setdefault(table.number, level)) != level:
                expected, found = "the table in one level", f"it in levels {other} and {level}"
                code = Code.TABLE_IN_TWO_LEVELS
                flaws.append((table.number, Flaw(code, None, None, expected, found)))
        sound = [table for table in tables if _check_range(table, dialect, report, ordered=ordered)]
        if level > 0 and ordered:
            flaws += _overlaps(level, sound, dialect)
    return flaws


def _check_candidate(candidate: MetaCandidate) -> Iterable[MetaFlaw]:
    name, content = candidate.name, candidate.content
    pending = candidate.pending is not None
    spare = Severity.ODDITY if name != CURRENT else None
    code = None
    expected, found = "the name of a manifest and one newline", ""
    if candidate.verdict is Verdict.UNREADABLE:
        code, spare = Code.UNREADABLE, None
        expected, found = "a file that can be read", str(candidate.error)
    elif candidate.target is None or candidate.target.kind is not Kind.MANIFEST:
        code, found = Code.CURRENT_CORRUPTED, _shown(content) if content else "nothing"
    elif candidate.verdict is Verdict.TARGET_MISSING:
        code = Code.CURRENT_DANGLING
        expected, found = "the name of a manifest that exists", str(candidate.target)
        if name == CURRENT_BAK:
            code, spare = Code.CURRENT_BACKUP_STALE, None
    elif pending:
        code = Code.CURRENT_PENDING
        expected, found = "no switch under way", f"one to {candidate.target}"
    if code is not None:
        offset, length = (None, None) if content is None else (0, len(content))
        yield MetaFlaw(name, Flaw(code, offset, length, expected, found), spare)


def _check_range(table: AddedTable, dialect: Dialect, report: Report, *, ordered: bool) -> bool:
    """Whether the range that the manifest gives a table is one."""
    name = name_of(FileDesc(table.number, Kind.TABLE))
    code = Code.MANIFEST_MALFORMED_KEY
    try:
        low = ikey.sort_key(table.smallest, dialect)
        high = ikey.sort_key(table.largest, dialect)
        ikey.decode(table.smallest, dialect)
        ikey.decode(table.largest, dialect)
    except FormatError as error:
        expected = f"internal keys of the {dialect.value} dialect for {name}"
        report(Flaw(code, None, None, expected, str(error)))
        return False
    if ordered and low > high:
        expected = f"the smallest key of {name} not behind its largest"
        found = f"{_shown(table.smallest)} to {_shown(table.largest)}"
        report(Flaw(code, None, None, expected, found))
        return False
    return True


def _overlaps(level: int, tables: list[AddedTable], dialect: Dialect) -> Iterable[tuple[int, Flaw]]:
    tables.sort(key=lambda table: ikey.sort_key(table.smallest, dialect))
    before: AddedTable | None = None
    for table in tables:
        if before is not None:
            largest = ikey.sort_key(before.largest, dialect)
            if ikey.sort_key(table.smallest, dialect) <= largest:
                other = name_of(FileDesc(before.number, Kind.TABLE))
                expected = f"only keys behind {_shown(before.largest)}, the largest of {other}"
                found = f"keys from {_shown(table.smallest)} on, both in level {level}"
                yield table.number, Flaw(Code.LEVEL_OVERLAP, None, None, expected, found)
            if ikey.sort_key(table.largest, dialect) <= largest:
                continue
        before = table


def _shown(data: bytes) -> str:
    shown = repr(data[:_SHOWN])[1:]
    return shown if len(data) <= _SHOWN else f"{shown}... ({len(data)} bytes)"
