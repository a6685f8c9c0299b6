"""What is said of an opening that has not happened: the records that a prediction is made of.

A prediction is about one directory, one engine, and one of two calls: opening, or the engine's own
rebuild. Every `why` is in the terms of that engine.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from avccfs.format.ikey import Dialect
from avccfs.session.engines import Engine
from avccfs.session.state import SessionState


class Call(enum.Enum):
    """What the engine is asked to do."""

    OPEN = "open"
    REBUILD = "rebuild"


class Fate(enum.Enum):
    """What becomes of a record or a batch."""

    KEPT = "kept"
    PARTLY = "partly kept"
    """Of a manifest record the numbers, of a batch the entries, that come before what is wrong."""
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class MetaFile:
    """A file of the CURRENT family."""

    name: str
    wins: bool
    why: str
    """Why it wins or loses, or why it is not looked at."""


@dataclass(frozen=True, slots=True)
class ManifestStep:
    """A record of the manifest, or a stretch of it that carries none. In bytes of the file."""

    offset: int
    length: int
    fate: Fate
    why: str
    """What the record changes if it is kept; otherwise what is wrong."""


@dataclass(frozen=True, slots=True)
class JournalStep:
    """Batches that lie one behind the other and share their fate, or a stretch without batches.

    Kept batches come in runs; every other batch is a step of its own. Offsets are of the first
    chunk of the first and of the last record.
    """

    offset: int
    last_offset: int
    fate: Fate
    batches: int
    """How many; 0 for a stretch of damage."""
    entries: int
    """What the headers of the batches say, together."""
    sequence: int | None
    """Of the first batch; None for damage, and for a record too short to have one."""
    last_sequence: int | None
    """Of the last entry."""
    why: str
    """Empty for what is kept."""
    applied: int = 0
    """Entries that get into the database."""
    length: int = 0
    """Bytes of a stretch of damage."""


@dataclass(frozen=True, slots=True)
class JournalReplay:
    """A journal that is replayed."""

    file: str
    steps: tuple[JournalStep, ...]
    note: str = ""
    """Why its replay comes to nothing, if it does."""

    def batches(self, fate: Fate) -> int:
        """How many batches of it have a fate."""
        return sum(step.batches for step in self.steps if step.fate is fate)


@dataclass(frozen=True, slots=True)
class IgnoredJournal:
    """A journal that is not replayed."""

    file: str
    why: str


@dataclass(frozen=True, slots=True)
class TableRebuild:
    """What a rebuild makes of a table."""

    file: str
    fate: Fate
    keys: int
    """Entries that are taken over."""
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What somebody reads who goes over every key after opening and stops at the first error."""

    keys: int
    sha256: str
    """Over lines `hex(key) SPACE hex(value) NEWLINE` in the order read."""
    error: str | None = None
    """Why reading stops early. LevelDB itself would go on behind it; plyvel stops."""
    unseen_error: str | None = None
    """An error that comes with no key behind it. LevelDB tells it to those who ask for the status
    at the end; plyvel does not ask."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Keys that are readable now and would be gone for good.

    A key counts if its newest entry in all files is a put, and after the call no file that stays
    in use holds that entry: the batch was not replayed, or not as what it is, or the table is
    deleted. Every block and batch with sound checksums is read, also of tables that no manifest
    names and of journals that are not replayed. Files that a sound manifest has replaced do not
    count: what they hold and its tables lack was deleted on purpose.
    """

    keys: int = 0
    outdated: int = 0
    """How many of them would show an older value instead of none."""
    returned: int = 0
    """Keys that were deleted and would be there again, because it is the deletion that is lost.
    They are not among `keys`."""
    examples: tuple[bytes, ...] = ()
    """The first few of them, in key order."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an engine does with a directory, and what somebody reads afterwards."""

    engine: Engine
    call: Call
    directory: str
    dialect: Dialect
    """Of the database, as far as its tables and journals show it."""
    foreign: bool
    """Whether the engine makes internal keys of another form than the database has."""
    meta: tuple[MetaFile, ...]
    manifest: str | None
    """The live manifest."""
    records: tuple[ManifestStep, ...]
    state: SessionState | None
    """As the manifest tells it, before the replay. None if it cannot be had."""
    tables: tuple[TableRebuild, ...]
    """What a rebuild makes of each; empty for an opening."""
    journals: tuple[JournalReplay, ...]
    """In the order of the replay."""
    ignored_journals: tuple[IgnoredJournal, ...]
    sequence: int | None
    """The session's sequence number after the replay."""
    error: str | None
    """Why it refuses, in the engine's words; None if it opens."""
    reading: Reading | None
    """None if it does not open."""
    deleted_files: tuple[str, ...]
    """Names that are gone afterwards. LOG and LOG.old are left aside."""
    overwritten_files: tuple[str, ...]
    """Files whose content is replaced by something new of the same name."""
    loss: Loss
    notes: tuple[str, ...]
    """What else a person should know."""
    uncertain: str | None
    """Where the engine's behaviour is undefined (memory that it reads outside of its buffers, say)
    and what is predicted is only likely; None almost always."""

    @property
    def opens(self) -> bool:
        """Whether the call succeeds. Reading may stop with an error all the same."""
        return self.error is None

    @property
    def keys(self) -> int | None:
        """How many keys can be read, up to the first error."""
        return None if self.reading is None else self.reading.keys

    @property
    def sha256(self) -> str | None:
        """The digest of what can be read."""
        return None if self.reading is None else self.reading.sha256

    @property
    def harmless(self) -> bool:
        """Whether it opens, every key can be read, and nothing is lost."""
        return (
            self.reading is not None
            and self.reading.error is None
            and self.reading.unseen_error is None
            and self.loss.keys == 0
            and self.loss.returned == 0
        )
