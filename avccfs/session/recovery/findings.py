"""What is found out while an opening is gone through, until it is a `Prediction`."""

from __future__ import annotations

from avccfs.format.ikey import Dialect
from avccfs.session.engines import Profile
from avccfs.session.folder import Folder
from avccfs.session.recovery.aftermath import Aftermath
from avccfs.session.recovery.edits import ManifestReading
from avccfs.session.recovery.keyspace import Source, Status, UndefinedError, merge, read_all
from avccfs.session.recovery.prediction import (
    Call,
    IgnoredJournal,
    JournalReplay,
    Loss,
    ManifestStep,
    MetaFile,
    Prediction,
    Reading,
    TableRebuild,
)
from avccfs.session.recovery.replay import KeptRecords, Replay
from avccfs.session.state import SessionState


class Findings:
    """Filled in step by step; `prediction` freezes it."""

    def __init__(self, folder: Folder, profile: Profile, call: Call, dialect: Dialect) -> None:
        self.profile = profile
        self.dialect = dialect
        self.meta: tuple[MetaFile, ...] = ()
        self.manifest: str | None = None
        self.records: tuple[ManifestStep, ...] = ()
        self.manifest_sound = False
        self.state: SessionState | None = None
        self.tables: list[TableRebuild] = []
        self.rewritten: set[int] = set()
        """Numbers of the tables that a rebuild writes anew."""
        self.journals: tuple[JournalReplay, ...] = ()
        self.kept: dict[str, KeptRecords] = {}
        self.ignored_journals: list[IgnoredJournal] = []
        self.sequence: int | None = None
        self.error: str | None = None
        self.reading: Reading | None = None
        self.aftermath = Aftermath(folder.names, 0)
        self.loss = Loss()
        self.notes: list[str] = []
        self.uncertain: str | None = None
        self._label = folder.label
        self._call = call

    def take_manifest(self, reading: ManifestReading) -> None:
        """Note what the manifest says; without an error also the state."""
        self.records = reading.steps
        self.manifest_sound = reading.sound
        self.uncertain = reading.doubt
        if reading.error is None:
            self.state = reading.state

    def take_replay(self, replay: Replay) -> None:
        """Note what became of the journals."""
        self.journals = tuple(replay.journals)
        self.kept = replay.kept
        self.sequence = replay.sequence

    def note_collision(self, new_tables: list[int], state: SessionState) -> None:
        """Note that a new table has the number of a live one, if that is so."""
        both = {table.number for table in state.tables()}.intersection(new_tables)
        for number in sorted(both):
            self.uncertain = (
                f"a new table gets the number {number}, which a live table has: the manifest's "
                "next file number is too low, and the live table is overwritten"
            )

    def read(self, sources: list[Source], status: Status) -> None:
        """Go over every key, or note why nobody can say what comes out."""
        try:
            merged = merge(sources, self.profile)
            self.reading = read_all(merged, self.sequence or 0, self.profile, status)
        except UndefinedError as error:
            self.uncertain = str(error)
        self.uncertain = self.uncertain or status.doubt

    def prediction(self) -> Prediction:
        """All of it, once nothing more is found out."""
        return Prediction(
            engine=self.profile.engine,
            call=self._call,
            directory=self._label,
            dialect=self.dialect,
            foreign=self.dialect is not self.profile.reads_as,
            meta=self.meta,
            manifest=self.manifest,
            records=self.records,
            state=self.state,
            tables=tuple(self.tables),
            journals=self.journals,
            ignored_journals=tuple(self.ignored_journals),
            sequence=self.sequence,
            error=self.error,
            reading=self.reading if self.error is None else None,
            deleted_files=tuple(sorted(self.aftermath.deleted)),
            overwritten_files=tuple(sorted(self.aftermath.overwritten)),
            loss=self.loss,
            notes=tuple(self.notes),
            uncertain=self.uncertain,
        )
