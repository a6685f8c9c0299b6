"""Is a database sound? Every byte of every file of it, and how the files fit together.

`check` reads a directory and changes nothing, not even a lock. It goes on whatever it meets: what
cannot be read is a finding, and what depends on it is left out. The vocabulary is in `faults`.

A file is *live* if the database needs it: the live manifest, the tables that it names, the journals
that would be replayed. Damage elsewhere is an oddity. Where no manifest can be read every table and
journal counts as live, because nobody knows better.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from avccfs.errors import FormatError
from avccfs.format import batch, ikey, journal
from avccfs.format.filename import LOCK, FileDesc, Kind, name_of, other_name_of
from avccfs.format.ikey import Dialect
from avccfs.format.manifest import BYTEWISE_COMPARER, AddedTable
from avccfs.format.table import Table
from avccfs.session import manifestcheck
from avccfs.session.checkreport import MOST_ALIKE, Counts, Findings, Report
from avccfs.session.faults import Code, Flaw, Severity
from avccfs.session.inventory import Inventory
from avccfs.session.journalcheck import check_journal
from avccfs.session.manifestcheck import ManifestCheck
from avccfs.session.orphans import Orphans
from avccfs.session.state import EMPTY
from avccfs.session.tablecheck import TableCheck, Terms, check_table
from avccfs.storage.explain import explain_meta
from avccfs.vfs.base import Directory

_EVIDENCE_ENOUGH: Final = 1000
"""Records of journals that are looked at to find out the dialect."""
_SHOWN: Final = 40
_NAMED: Final = "a table that the live manifest names"
_REPLAYED: Final = "a journal that is replayed"

Progress = Callable[[int, int, str], None]
"""Gets bytes done, bytes in all, and the name of the file that was read last."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class Runner:
    """Does pieces of work that do not depend on each other: here, one after another."""

    def run(self, work: Callable[[_T], _R], pieces: list[_T]) -> Iterator[_R]:
        """The results, in the order of the pieces."""
        return map(work, pieces)


def check(
    directory: Directory,
    *,
    dialect: Dialect | None = None,
    progress: Progress | None = None,
    holders: Iterable[tuple[int, str]] = (),
    runner: Runner | None = None,
) -> Report:
    """Check the database in a directory. Changes nothing and takes no lock.

    `dialect` is how to read internal keys; None finds it out. `holders` are processes, `(pid,
    command name)`, that have the database open, if the caller knows. `runner` may check tables side
    by side.

    Raises what the system says if the directory itself cannot be listed; nothing for its files.
    """
    work = _Check(directory, dialect, progress or _no_progress, runner or Runner())
    return work.run(tuple(holders))


@dataclass(frozen=True, slots=True)
class _TableResult:
    """What the check of one table came to."""

    check: TableCheck | None
    """None if it could not be read at all."""
    flaws: tuple[Flaw, ...]
    omitted: Mapping[Code, int]


class _Check:
    """One check of one directory."""

    def __init__(
        self, directory: Directory, dialect: Dialect | None, progress: Progress, runner: Runner
    ) -> None:
        self._directory = directory
        self._asked = dialect
        self._dialect = Dialect.STANDARD
        self._known_dialect: Dialect | None = None
        self._progress = progress
        self._runner = runner
        self._findings = Findings()
        self._files = Inventory(directory)
        self._tables = self._files.names(Kind.TABLE)
        self._journals = self._files.names(Kind.JOURNAL)
        self._manifests = self._files.names(Kind.MANIFEST)
        self._done = 0
        self._total = sum(self._files.sizes.values())
        self._counts = Counts(
            tables=len(self._tables) + len(self._files.duplicates),
            journals=len(self._journals),
            manifests=len(self._manifests),
            other_files=len(self._files.others),
            bytes=self._total,
        )
        self._live: ManifestCheck | None = None
        """The live manifest, or what stands in for it."""
        self._trusted = False
        """Whether the live manifest is one, and nothing is wrong with it."""
        self._state = EMPTY
        self._named: dict[int, AddedTable] = {}
        """The tables that the live manifest names."""
        self._replayed: dict[int, str] = {}
        """The journals that would be replayed, in that order."""

    def run(self, holders: tuple[tuple[int, str], ...]) -> Report:
        if holders:
            found = " and ".join(f"{name} (pid {pid})" for pid, name in holders)
            self._findings.tell(Code.IN_USE, LOCK, "nobody with the database open", found)
        self._tell_others()
        self._check_manifests()
        self._named = {table.number: table for table in self._state.tables()}
        self._replayed = self._live_journals()
        self._known_dialect = self._asked or self._find_dialect()
        self._dialect = self._known_dialect or Dialect.STANDARD
        self._check_levels()
        self._check_tables()
        self._check_journals()
        self._check_collisions()
        self._check_orphans()
        return Report(
            self._directory.label,
            None if self._live is None else name_of(self._live.desc),
            self._dialect,
            self._findings.sorted(),
            self._findings.omitted(),
            self._counts,
        )

    def _tell_others(self) -> None:
        tell = self._findings.tell
        for name in self._files.duplicates:
            tell(Code.DUPLICATE_FILE, name, "one table of a number", "one of each name")
        for other in self._files.others:
            if other.kind is Kind.TEMP:
                found = f"a temporary file of {other.size} bytes"
                tell(Code.TEMP_FILE, other.name, "none at rest", found)
            elif other.kind is Kind.FOREIGN:
                found = "a folder" if other.folder else f"a file of {other.size} bytes"
                tell(Code.FOREIGN_FILE, other.name, "only names that engines use", found)

    # CURRENT and manifests

    def _check_manifests(self) -> None:
        meta = explain_meta(self._directory)
        for each in manifestcheck.check_meta(meta):
            self._findings.add(each.file, each.flaw, severity=each.severity)
        winner = meta.winner.target if meta.winner is not None else None
        live = winner.number if winner is not None and winner.kind is Kind.MANIFEST else None
        checks: dict[int, ManifestCheck] = {}
        for number, name in self._manifests.items():
            needed = live is None or number == live
            with self._noting(name, live=needed), self._files.open(name) as (read_at, _):
                checks[number] = manifestcheck.check_manifest(
                    read_at,
                    FileDesc(number, Kind.MANIFEST),
                    partial(self._findings.add, name, live=needed),
                )
            if live is not None and number != live:
                code = Code.MANIFEST_OBSOLETE if number < live else Code.MANIFEST_NEWER
                found = f"one beside {self._manifests.get(live, live)}"
                self._findings.tell(code, name, "only the live manifest", found)
            self._advance(name)
        if live is not None:
            self._live = checks.get(live)
            self._trusted = self._live is not None and not self._live.flawed
        else:
            self._live = self._stand_in(checks)
        if self._live is not None:
            self._state = self._live.state

    def _stand_in(self, checks: Mapping[int, ManifestCheck]) -> ManifestCheck | None:
        """The newest manifest that is whole."""
        whole = [number for number, each in checks.items() if each.complete]
        if not whole:
            return None
        number = max(whole)
        expected = "a live manifest, named by CURRENT"
        found = "none; the files are compared with this one, the newest that is whole"
        self._findings.tell(Code.MANIFEST_ASSUMED, self._manifests[number], expected, found)
        return checks[number]

    def _check_levels(self) -> None:
        if self._live is None:
            return
        report = partial(self._findings.add, name_of(self._live.desc))
        for number, flaw in manifestcheck.check_levels(self._state, self._dialect, report):
            self._findings.add(self._files.name(number, Kind.TABLE), flaw)

    def _live_journals(self) -> dict[int, str]:
        first = self._state.journal_number or 0
        previous = self._state.previous_journal_number
        return {
            number: name
            for number, name in self._journals.items()
            if number >= first or number == previous
        }

    def _find_dialect(self) -> Dialect | None:
        """What the first table shows that shows anything; without one, what journals do."""
        for number in sorted(self._tables, key=lambda each: (each not in self._named, each)):
            with (
                contextlib.suppress(OSError),
                self._files.open(self._tables[number]) as (read_at, size),
            ):
                shown = Table(read_at, size).dialect
                if shown is not None:
                    return shown
        evidence = batch.Evidence()
        looked_at = 0
        for name in self._replayed.values():
            with contextlib.suppress(OSError), self._files.open(name) as (read_at, _):
                for item in journal.read(read_at, journal.Policy.GOLEVELDB):
                    if looked_at == _EVIDENCE_ENOUGH:
                        break
                    if isinstance(item, journal.Record):
                        evidence.add(item.payload)
                        looked_at += 1
        return evidence.dialect

    # Tables

    def _check_tables(self) -> None:
        for number, table in sorted(self._named.items()):
            if number not in self._tables:
                expected = f"a table of {table.size} bytes, with keys from "
                expected += f"{_shown(table.smallest)} to {_shown(table.largest)}"
                name = self._files.name(number, Kind.TABLE)
                self._findings.tell(Code.TABLE_MISSING, name, expected, "no such file")
        numbers: list[int | None] = [*self._tables, *([None] * len(self._files.duplicates))]
        names = [*self._tables.values(), *self._files.duplicates]
        results = self._runner.run(self._read_table, names)
        for own, name, result in zip(numbers, names, results, strict=True):
            told = None if own is None else self._named.get(own)
            live = told is not None or (self._live is None and own is not None)
            self._counts.live_tables += live
            for flaw in result.flaws:
                self._findings.add(name, flaw, live=live)
            for code, count in result.omitted.items():
                self._findings.more(name, code, count)
            if told is not None:
                self._compare_size(name, told, result.check)
            if result.check is not None:
                self._take_in(name, result.check)
                if told is not None:
                    self._compare_content(name, told, result.check)
            self._advance(name)

    def _read_table(self, name: str) -> _TableResult:
        """The work on one table: it may be done in another process."""
        flaws: list[Flaw] = []
        counts: Counter[Code] = Counter()

        def report(flaw: Flaw) -> None:
            counts[flaw.code] += 1
            if counts[flaw.code] <= MOST_ALIKE:
                flaws.append(flaw)

        ordered = self._state.comparer in (None, BYTEWISE_COMPARER)
        terms = Terms(self._asked, self._known_dialect, ordered)
        checked = None
        try:
            with self._files.open(name) as (read_at, size):
                checked = check_table(read_at, size, terms, report)
        except OSError as error:
            report(_unreadable(error))
        omitted = {code: n - MOST_ALIKE for code, n in counts.items() if n > MOST_ALIKE}
        return _TableResult(checked, tuple(flaws), omitted)

    def _take_in(self, name: str, checked: TableCheck) -> None:
        self._counts.blocks += checked.blocks
        self._counts.table_entries += checked.entries
        if checked.dialect not in (None, self._dialect):
            expected = f"a table of the {self._dialect.value} dialect"
            self._findings.tell(Code.DIALECT_MIXED, name, expected, "one of the other")

    def _compare_size(self, name: str, told: AddedTable, checked: TableCheck | None) -> None:
        desc = FileDesc(told.number, Kind.TABLE)
        if other_name_of(desc) == name:
            self._findings.tell(Code.TABLE_OLD_NAME, name, name_of(desc), "the old name")
        size = self._files.sizes[name] if checked is None else checked.size
        if size != told.size:
            expected = f"{told.size} bytes, as the manifest says"
            self._findings.tell(Code.TABLE_SIZE, name, expected, str(size))

    def _compare_content(self, name: str, told: AddedTable, checked: TableCheck) -> None:
        self._compare_ends(name, "smallest", told.smallest, checked.smallest)
        self._compare_ends(name, "largest", told.largest, checked.largest)
        session = self._state.sequence
        if session is not None and checked.highest_sequence > session:
            expected = f"sequences up to {session}, where the manifest's session is"
            found = str(checked.highest_sequence)
            self._findings.tell(Code.SEQUENCE_BEYOND_SESSION, name, expected, found)

    def _compare_ends(self, name: str, end: str, told: bytes, found: bytes | None) -> None:
        if found is None or found == told:
            return
        severity = None
        with contextlib.suppress(FormatError):
            actual = ikey.sort_key(found, self._dialect)
            limit = ikey.sort_key(told, self._dialect)
            if actual > limit if end == "smallest" else actual < limit:
                # The table has less than the manifest says: nothing in it is overlooked.
                severity = Severity.ODDITY
        expected = f"{_shown(told)} as the {end} key, as the manifest says"
        self._findings.tell(Code.TABLE_RANGE, name, expected, _shown(found), severity=severity)

    # Journals

    def _check_journals(self) -> None:
        self._counts.live_journals = len(self._replayed)
        last = -1
        for number, name in self._journals.items():
            live = number in self._replayed
            with self._noting(name, live=live), self._files.open(name) as (read_at, _):
                checked = check_journal(
                    read_at,
                    self._dialect,
                    partial(self._findings.add, name, live=live),
                    after=last if live else -1,
                    session_sequence=self._state.sequence if live else None,
                )
                self._counts.journal_records += checked.records
                self._counts.journal_entries += checked.entries
                last = checked.last_sequence if live else last
            self._advance(name)

    # How the files fit together

    def _check_collisions(self) -> None:
        """Files that the engine's next files would be written over."""
        following = self._state.next_file_number
        if self._live is None or following is None:
            return
        # Journals that are replayed count as used, whatever the manifest says.
        following = max([following, *(number + 1 for number in self._replayed)])
        expected = f"numbers below {following}, the next that engines hand out"
        for number, name in [*self._tables.items(), *self._manifests.items()]:
            if number >= following:
                live = self._tables.get(number) == name and number in self._named
                found = f"{number}, of a table that is live" if live else str(number)
                severity = Severity.LOSS_RISK if live else None
                code = Code.NUMBER_COLLISION
                self._findings.tell(code, name, expected, found, severity=severity)

    def _check_orphans(self) -> None:
        """Tables that no level names, and journals that are not replayed."""
        live = self._live
        if live is None:
            return
        orphans = Orphans(self._files, self._dialect, list(self._named.values()), self._replayed)
        for number, name in self._tables.items():
            if number in live.dropped and number not in self._named:
                found = "one that a record of the manifest deletes"
                self._findings.tell(Code.ORPHAN_OBSOLETE, name, _NAMED, found)
            elif number not in self._named:
                fresh = number > live.highest_table or number >= (self._state.next_file_number or 0)
                usual = Code.ORPHAN_HALF_MADE if fresh else Code.ORPHAN_OBSOLETE
                self._progress(self._done, self._total, name)
                self._tell_orphan(name, _NAMED, orphans.unique_in_table(name), usual)
        for number, name in self._journals.items():
            if number not in self._replayed:
                self._progress(self._done, self._total, name)
                usual = Code.ORPHAN_OBSOLETE
                self._tell_orphan(name, _REPLAYED, orphans.unique_in_journal(name), usual)

    def _tell_orphan(self, name: str, expected: str, unique: tuple[int, int], usual: Code) -> None:
        number, newest = unique
        if not number:
            found = "one that has nothing which live files lack"
            self._findings.tell(usual, name, expected, found)
            return
        keys = "1 key" if number == 1 else f"{number} keys"
        found = f"one with {keys} that no live file has, or has only in an older state"
        # What was deleted is gone from live files, and so is in time the deletion. That is what
        # this is, as long as the manifest is sound and not older than the file.
        severity = None
        if self._trusted and newest <= (self._state.sequence or 0):
            severity = Severity.ODDITY
            found += "; as far as the manifest tells they were deleted"
        self._findings.tell(Code.ORPHAN_UNIQUE_KEYS, name, expected, found, severity=severity)

    @contextlib.contextmanager
    def _noting(self, name: str, *, live: bool) -> Iterator[None]:
        """What the system refuses is a finding, and the rest of the block is left out."""
        try:
            yield
        except OSError as error:
            self._findings.add(name, _unreadable(error), live=live)

    def _advance(self, name: str) -> None:
        self._done += self._files.sizes.get(name, 0)
        self._progress(self._done, self._total, name)


def _unreadable(error: OSError) -> Flaw:
    found = error.strerror or str(error)
    return Flaw(Code.UNREADABLE, None, None, "a file that can be read", found)


def _shown(key: bytes) -> str:
    shown = repr(key[:_SHOWN])[1:]
    return shown if len(key) <= _SHOWN else f"{shown}... ({len(key)} bytes)"


def _no_progress(_done: int, _total: int, _name: str) -> None:
    """For those who do not want to know."""
