"""The opening of goleveldb and of its fork avccDB, step by step (SPEC section 9).

The meta files, which it puts in order; the manifest; the journals from the lowest number up, each of
which becomes a table and is removed when the next one has begun. A new manifest replaces the old one
on the way. Only then it looks whether all tables are there, and removes what it does not need: an
opening that fails there has changed the directory already.
"""

from __future__ import annotations

from contextlib import closing

from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.session.engines import Named, meta_target, names_of, understand_all
from avccfs.session.folder import Folder
from avccfs.session.recovery import edits
from avccfs.session.recovery.batches import PanicError
from avccfs.session.recovery.findings import Findings
from avccfs.session.recovery.keyspace import Status, UndefinedError
from avccfs.session.recovery.levels import by_level, source_of
from avccfs.session.recovery.prediction import IgnoredJournal, MetaFile
from avccfs.session.recovery.replay import Replay
from avccfs.session.state import SessionState
from avccfs.storage.explain import MetaReport, Verdict, explain_meta

_ENTRY_POINT = "database entry point either missing or corrupted"
_CORRUPTED_META = "leveldb/storage: corrupted or incomplete CURRENT file"


def predict_open(folder: Folder, found: Findings) -> None:
    """Fill in what happens. Errors of listing the directory pass through."""
    found.error = _open(folder, found)


def _open(folder: Folder, found: Findings) -> str | None:
    report = explain_meta(folder.directory, meta_target)
    found.meta = meta_files(report)
    winner = report.winner
    if winner is None or winner.target is None:
        return _no_meta(folder, found, report)
    if report.untidy:
        for candidate in report.pending:
            found.aftermath.remove_name(candidate.name)
    target = winner.target
    found.manifest = str(target)
    try:
        with folder.opened(names_of(target)) as opened:
            reading = edits.read(opened.read_at, target, str(target), found.profile)
    except FileNotFoundError:
        return _ENTRY_POINT
    except OSError as failure:
        return f"open {folder.label}/{target}: {failure.strerror}"
    except UndefinedError as problem:
        found.uncertain = str(problem)
        return f"fatal error: out of memory: {problem}"
    found.take_manifest(reading)
    if reading.error is not None:
        return reading.error
    found.aftermath.next_number = reading.state.next_file_number or 0
    return replay_and_read(folder, found, reading.state, target)


def meta_files(report: MetaReport) -> tuple[MetaFile, ...]:
    """Each file of the CURRENT family as this engine sees it."""
    winner = report.winner
    return tuple(MetaFile(c.name, c is winner, c.finding) for c in report.candidates)


def _no_meta(folder: Folder, found: Findings, report: MetaReport) -> str:
    blocked = report.blocked_by
    if blocked is not None and blocked.error is not None:
        return f"open {folder.label}/{blocked.name}: {blocked.error.strerror}"
    if any(c.verdict is Verdict.CORRUPTED for c in report.candidates):
        return _CORRUPTED_META
    if understand_all(folder.names, found.profile):
        return _ENTRY_POINT
    return "file does not exist"


def replay_and_read(
    folder: Folder,
    found: Findings,
    state: SessionState,
    old_manifest: FileDesc | None,
    new_manifest: int | None = None,
) -> str | None:
    """What comes behind the manifest; returns why it refuses.

    A new manifest replaces `old_manifest`, unless `new_manifest` has been written already.
    """
    with closing(Replay(found.profile, state.sequence or 0)) as replay:
        try:
            opening = _Replaying(folder, found, state, old_manifest, new_manifest, replay)
            error = opening.journals()
        except PanicError as panic:
            replay.note("the engine's process ends here, and nothing of this journal is kept")
            error = str(panic)
        finally:
            found.take_replay(replay)
        if error is None:
            error = opening.clean()
        if error is None:
            _read(folder, found, state, replay)
    return error


class _Replaying:
    def __init__(
        self,
        folder: Folder,
        found: Findings,
        state: SessionState,
        old_manifest: FileDesc | None,
        new_manifest: int | None,
        replay: Replay,
    ) -> None:
        self._folder = folder
        self._found = found
        self._after = found.aftermath
        self._old_manifest = old_manifest
        self._replay = replay
        self._least = state.journal_number or 0
        self._previous = state.previous_journal_number or 0
        self._state = state
        self._live = {table.number for table in state.tables()}
        self._new_manifest = new_manifest
        self._new_journal = 0

    def journals(self) -> str | None:
        """Replay all; returns why that fails."""
        chosen = self._chosen()
        if chosen:
            self._after.mark(chosen[-1].number)
        done: FileDesc | None = None
        for number, _, _ in chosen:
            desc = FileDesc(number, Kind.JOURNAL)
            try:
                with self._folder.opened(names_of(desc)) as opened:
                    if done is not None:
                        self._end_table()
                        self._commit()
                        self._after.remove(done)
                    tables = self._replay.journal(opened.name, opened.read_at)
            except OSError as failure:
                problem = (failure.strerror or str(failure)).lower()
                return f"open {self._folder.label}/{number:06d}.log: {problem}"
            for _ in range(tables):
                self._create_table()
            done = desc
        self._end_table()
        self._new_journal = self._after.create(Kind.JOURNAL)
        self._commit()
        if done is not None:
            self._after.remove(done)
        return None

    def clean(self) -> str | None:
        """Look for missing tables, and remove what is not needed; returns why that fails."""
        profile = self._found.profile
        if self._after.tables_listed(self._live, profile) != len(self._live):
            return "file missing"
        assert self._new_manifest is not None
        refusal: str | None = None
        for number, kind, name in understand_all(self._after.present, profile):
            keep = {
                Kind.MANIFEST: number >= self._new_manifest,
                Kind.JOURNAL: number >= self._new_journal,
                Kind.TABLE: number in self._live,
                Kind.TEMP: True,
            }
            if keep[kind]:
                continue
            desc = FileDesc(number, kind)
            error: str | None = None
            if not desc.valid:
                error = "leveldb/storage: invalid file for argument"
            elif not self._after.remove(desc):
                shown = f"{self._folder.label}/{name_of(desc)}"
                error = f"remove {shown}: no such file or directory"
            if error is not None:
                refusal = refusal or error
                self._found.notes.append(
                    f"{name} is a file of its own to the engine, which it then cannot remove: move "
                    "it out of the directory. Which other files are removed before it gives up "
                    "depends on the order of the directory; all that may be are listed"
                )
        return refusal

    def _chosen(self) -> list[Named]:
        chosen: list[Named] = []
        for named in understand_all(self._folder.names, self._found.profile):
            if named.kind is not Kind.JOURNAL:
                continue
            if named.number >= self._least or named.number == self._previous:
                chosen.append(named)
            else:
                why = f"its number is below the manifest's journal number {self._least}"
                self._found.ignored_journals.append(IgnoredJournal(named.name, why))
        return chosen

    def _end_table(self) -> None:
        if self._replay.pending:
            self._replay.end_table()
            self._create_table()

    def _create_table(self) -> None:
        number = self._after.create(Kind.TABLE)
        self._found.note_collision([number], self._state)
        self._live.add(number)

    def _commit(self) -> None:
        if self._new_manifest is None:
            self._new_manifest = self._after.create(Kind.MANIFEST)
            if self._old_manifest is not None:
                self._after.remove(self._old_manifest)


def _read(folder: Folder, found: Findings, state: SessionState, replay: Replay) -> None:
    profile = found.profile
    status = Status()
    level_0, deeper = by_level(state, profile)
    # What was replayed last has the highest numbers, and comes first.
    sources = replay.sources()[::-1]
    sources += [source_of(folder, [table], found, status) for table in level_0]
    sources += [source_of(folder, tables, found, status) for tables in deeper]
    found.read(sources, status)
