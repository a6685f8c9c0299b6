"""LevelDB's opening, step by step (SPEC section 9): what `DB::Open` does with create_if_missing off.

CURRENT, the manifest, a look for tables that are missing, the journals from the lowest number up,
each of which becomes a table; a new journal, a new manifest; then every file goes that is not needed.
"""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import closing
from dataclasses import dataclass

from avccfs.format import filename
from avccfs.format.filename import CURRENT, FileDesc, Kind, name_of
from avccfs.format.ikey import MAX_SEQUENCE
from avccfs.session.engines import LEVELDB, understand_all
from avccfs.session.folder import Folder
from avccfs.session.recovery import edits
from avccfs.session.recovery.aftermath import Aftermath
from avccfs.session.recovery.findings import Findings
from avccfs.session.recovery.keyspace import Order, Source, Status
from avccfs.session.recovery.levels import by_level, smallest, source_of
from avccfs.session.recovery.prediction import IgnoredJournal, MetaFile
from avccfs.session.recovery.replay import Replay
from avccfs.session.state import SessionState
from avccfs.storage.explain import explain_meta, read_meta


def predict_open(folder: Folder, found: Findings) -> None:
    """Fill in what happens. Errors of listing the directory pass through."""
    opening = _Opening(folder, found)
    found.error = opening.run()


class _Opening:
    def __init__(self, folder: Folder, found: Findings) -> None:
        self._folder = folder
        self._found = found
        self._label = folder.label

    def run(self) -> str | None:
        target = self._current()
        if isinstance(target, _Refusal):
            return target.error
        error = self._manifest(target)
        state = self._found.state
        if error is not None or state is None:
            return error
        after = self._found.aftermath = Aftermath(self._folder.names, 0)
        error = self._missing_tables(state)
        if error is not None:
            return error
        # The number of the new manifest is the one that the old one says comes next.
        after.next_number = state.next_file_number or 0
        manifest = after.create(Kind.MANIFEST)
        with closing(Replay(LEVELDB, 0)) as replay:
            new_tables = self._journals(state, replay, after)
            self._clean(state, manifest, new_tables, after)
            self._read(state, replay, new_tables)
        return None

    def _current(self) -> str | _Refusal:
        """The name of the manifest, without a look at whether it is one."""
        report = explain_meta(self._folder.directory)
        others = [
            MetaFile(c.name, False, f"{c.name} is never looked at by LevelDB")
            for c in report.candidates
            if c.name != CURRENT
        ]
        target, why = self._read_current()
        wins = isinstance(target, str)
        if CURRENT in self._folder.names:
            self._found.meta = (MetaFile(CURRENT, wins, why), *others)
        else:
            self._found.meta = tuple(others)
        return target

    def _read_current(self) -> tuple[str | _Refusal, str]:
        try:
            content = read_meta(self._folder.directory, CURRENT)
        except FileNotFoundError:
            error = f"Invalid argument: {self._label}: does not exist (create_if_missing is false)"
            return _Refusal(error), "CURRENT does not exist"
        except OSError as failure:
            error = _io_error(f"{self._label}/{CURRENT}", failure)
            return _Refusal(error), f"CURRENT cannot be read: {failure.strerror}"
        if not content.endswith(b"\n"):
            error = "Corruption: CURRENT file does not end with newline"
            return _Refusal(error), f"CURRENT does not end with a newline: {content[:80]!r}"
        name = os.fsdecode(content[:-1])
        return name, f"CURRENT names {name!r}: the only file that LevelDB looks at"

    def _manifest(self, written: str) -> str | None:
        path = f"{self._label}/{written}"
        # To the system the name ends at the first NUL, and slashes before it mean nothing.
        name = written.split("\0")[0].lstrip("/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            self._found.uncertain = "CURRENT leads out of the directory, where nothing is looked at"
        elif not parts:
            return f"IO error: {path}: Is a directory"
        desc = filename.parse(name)
        try:
            with self._folder.opened([name]) as opened:
                self._found.manifest = name
                reading = edits.read(opened.read_at, desc, name, LEVELDB)
        except FileNotFoundError:
            return (
                "Corruption: CURRENT points to a non-existent file: "
                f"NotFound: {path}: No such file or directory"
            )
        except OSError as failure:
            return _io_error(path, failure)
        self._found.take_manifest(reading)
        return reading.error

    def _missing_tables(self, state: SessionState) -> str | None:
        named = understand_all(self._folder.names, LEVELDB)
        numbers = {file.number for file in named}
        live = {table.number for table in state.tables()}
        missing = sorted(live - numbers)
        hidden = [n for n in sorted(live & numbers) if self._found.aftermath.missing(n)]
        for number in hidden:
            self._found.notes.append(
                f"table {number} is missing, but LevelDB does not notice at once, because there is "
                "another file of that number"
            )
        if not missing:
            return None
        example = name_of(FileDesc(missing[0], Kind.TABLE))
        return f"Corruption: {len(missing)} missing files; e.g.: {self._label}/{example}"

    def _journals(self, state: SessionState, replay: Replay, after: Aftermath) -> list[int]:
        """Replays them; returns the numbers of the tables that they become."""
        least, previous = state.journal_number or 0, state.previous_journal_number or 0
        new_tables: list[int] = []
        for number, kind, name in understand_all(self._folder.names, LEVELDB):
            if kind is not Kind.JOURNAL:
                continue
            if number < least and number != previous:
                why = f"its number is below the manifest's journal number {least}"
                self._found.ignored_journals.append(IgnoredJournal(name, why))
                continue
            tables = 0
            written = f"{number:06d}.log"
            try:
                with self._folder.opened([written]) as opened:
                    tables = replay.journal(opened.name, opened.read_at)
            except OSError as failure:
                # What cannot be read is passed over without a word.
                self._found.ignored_journals.append(
                    IgnoredJournal(name, f"LevelDB cannot read {written}: {failure.strerror}")
                )
            if replay.pending:
                replay.end_table()
                tables += 1
            new_tables += [after.create(Kind.TABLE) for _ in range(tables)]
            self._found.note_collision(new_tables, state)
            after.mark(number)
        self._found.take_replay(replay)
        sequence = self._found.sequence = max(state.sequence or 0, replay.sequence)
        if sequence >= MAX_SEQUENCE:
            self._found.uncertain = (
                f"the sequence number becomes {sequence}, more than an internal key can hold: the "
                "next compaction takes every entry for outdated and drops it"
            )
        return new_tables

    def _clean(
        self, state: SessionState, manifest: int, new_tables: list[int], after: Aftermath
    ) -> None:
        new_journal = after.create(Kind.JOURNAL)
        live = {table.number for table in state.tables()} | set(new_tables)
        for number, kind, name in understand_all(after.present, LEVELDB):
            keep = {
                Kind.MANIFEST: number >= manifest,
                Kind.JOURNAL: number >= new_journal or number == 0,
                Kind.TABLE: number in live,
                Kind.TEMP: number in live,
            }
            if not keep[kind]:
                after.remove_name(name)

    def _read(self, state: SessionState, replay: Replay, new_tables: list[int]) -> None:
        status = Status()
        level_0, deeper = by_level(state, LEVELDB)
        sources: list[tuple[Order, int, Source]] = [
            (
                smallest(table, LEVELDB),
                table.number,
                source_of(self._folder, [table], self._found, status),
            )
            for table in level_0
        ]
        for number, source in zip(new_tables, replay.sources(), strict=True):
            first = next(source)
            sources.append((first[0], number, itertools.chain([first], source)))
        sources.sort(key=lambda entry: entry[:2])
        in_order = [source for _, _, source in sources]
        in_order += [source_of(self._folder, tables, self._found, status) for tables in deeper]
        self._found.read(in_order, status)


def _io_error(path: str, failure: OSError) -> str:
    return f"IO error: {path}: {failure.strerror or os.strerror(failure.errno or errno.EIO)}"


@dataclass(frozen=True, slots=True)
class _Refusal:
    error: str
