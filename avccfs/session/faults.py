"""What can be wrong with a database directory: one vocabulary, for people and for programs.

A code, once it is here, keeps its name and its meaning: scripts look for it in `--format json`. How
much a finding matters is its severity, and that depends on the case: a bad checksum in a table that
the database needs is damage, in one that an engine would delete anyway it is an oddity.

    damage     bytes are wrong or gone: something that was stored cannot be read, or not be found
    loss-risk  what is there can be read, but not all of it may be what was written, or opening the
               database may destroy some of it: a journal that ends inside a record, keys that only
               a file has which engines delete
    oddity     not as an engine at rest leaves it, and nothing is lost by it: a switch of CURRENT
               that was interrupted, damage in a file that nobody needs
    info       worth knowing

A database is *sound* if nothing was found that is damage or loss-risk.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Severity(enum.Enum):
    """How much a finding matters (the module's text says what each means). Worst first."""

    DAMAGE = "damage"
    LOSS_RISK = "loss-risk"
    ODDITY = "oddity"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return _RANKS[self]

    @property
    def sound(self) -> bool:
        """Whether a database with such a finding is still sound."""
        return self in (Severity.ODDITY, Severity.INFO)


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


class Code(enum.Enum):
    """What is wrong. The values are stable."""

    # Any file
    UNREADABLE = "unreadable"
    """The system refuses to read it, or what has the name is no regular file."""
    IN_USE = "in-use"
    """A process holds the lock: files may change while they are checked."""
    NUMBER_COLLISION = "number-collision"
    """A file with a number that the database has not handed out yet, and soon will."""
    DUPLICATE_FILE = "duplicate-file"
    """A table under both of its names, of which engines read the first."""
    TEMP_FILE = "temp-file"
    FOREIGN_FILE = "foreign-file"

    # CURRENT and its family
    CURRENT_MISSING = "current-missing"
    CURRENT_CORRUPTED = "current-corrupted"
    """It does not hold the name of a manifest and one newline."""
    CURRENT_DANGLING = "current-dangling"
    """It names a manifest that does not exist."""
    CURRENT_PENDING = "current-pending"
    """A switch to another manifest that was begun and not ended."""
    CURRENT_BACKUP_STALE = "current-backup-stale"
    """CURRENT.bak names a manifest that is gone, as after every switch that ended well."""
    CURRENT_OVERRULED = "current-overruled"
    """goleveldb and avccDB go by another file than CURRENT; LevelDB knows CURRENT alone."""

    # Framing of journals and manifests
    CHUNK_CHECKSUM = "chunk-checksum"
    CHUNK_LENGTH = "chunk-length"
    CHUNK_TYPE = "chunk-type"
    CHUNK_ORPHAN = "chunk-orphan"
    """The middle or end of a record whose beginning is missing."""
    RECORD_BROKEN = "record-broken"
    """A record whose end is missing, though the file goes on."""
    RECORDS_JOINED = "records-joined"
    ZEROED_RANGE = "zeroed-range"
    """Zeros where a chunk should be, and more data behind them in the file."""
    TORN_TAIL = "torn-tail"
    """The file ends inside a record, or in zeros: an append that was cut off."""
    BLOCK_PADDING = "block-padding"
    """Bytes that should be zero: the end of a block, which no chunk fits into."""

    # Manifests
    RECORD_UNDECODABLE = "record-undecodable"
    """The checksum is right, but it is no session record."""
    MANIFEST_FIELD_MISSING = "manifest-field-missing"
    MANIFEST_MALFORMED_KEY = "manifest-malformed-key"
    MANIFEST_OBSOLETE = "manifest-obsolete"
    MANIFEST_NEWER = "manifest-newer"
    """A manifest with a higher number than the live one: a switch to it did not happen."""
    MANIFEST_ASSUMED = "manifest-assumed"
    """No manifest is live; the files were compared with this one."""
    DELETION_UNMATCHED = "deletion-unmatched"
    """A record deletes a table that the level does not have."""
    LEVEL_UNKNOWN = "level-unknown"
    """A level that LevelDB does not have."""
    LEVEL_OVERLAP = "level-overlap"
    """Two tables of one level above 0 with the same keys: an engine looks into one of them."""
    COMPARER_UNKNOWN = "comparer-unknown"
    """Keys are in an order that is not known here, so no order was checked."""

    # Tables
    TABLE_MISSING = "table-missing"
    TABLE_SIZE = "table-size"
    TABLE_FOOTER = "table-footer"
    TABLE_GAP = "table-gap"
    """Bytes of a table that nothing leads to."""
    TABLE_SALVAGEABLE = "table-salvageable"
    """What can be found in a table whose index is lost."""
    TABLE_EMPTY = "table-empty"
    TABLE_RANGE = "table-range"
    """Its smallest or largest key is another than the manifest says."""
    TABLE_CHANGED = "table-changed"
    """It read differently the second time: it changed meanwhile, or the hardware is not sound."""
    TABLE_IN_TWO_LEVELS = "table-in-two-levels"
    TABLE_OLD_NAME = "table-old-name"
    BLOCK_CHECKSUM = "block-checksum"
    BLOCK_COMPRESSION = "block-compression"
    BLOCK_HANDLE = "block-handle"
    """What leads to a block does not, or leads out of the file."""
    BLOCK_OVERLAP = "block-overlap"
    BLOCK_TRUNCATED = "block-truncated"
    BLOCK_TOO_LARGE = "block-too-large"
    """Its checksum is right, but it is larger than what is ever held in memory."""
    BLOCK_RESTARTS = "block-restarts"
    BLOCK_ENTRY = "block-entry"
    INDEX_SEPARATOR = "index-separator"
    """A key of the index that does not lie between the two blocks that it separates."""
    KEY_MALFORMED = "key-malformed"
    """Too short for an internal key, or of no kind."""
    KEY_ORDER = "key-order"
    FILTER_MALFORMED = "filter-malformed"
    FILTER_MISSES_KEY = "filter-misses-key"
    """The filter denies a key that is there: an engine does not find it."""
    BLOCK_UNKNOWN = "block-unknown"
    """A filter, or another block, of a kind not known here: only its checksum was verified."""
    MERKLE_MALFORMED = "merkle-malformed"
    MERKLE_MISMATCH = "merkle-mismatch"
    SEQUENCE_BEYOND_SESSION = "sequence-beyond-session"
    """Entries that are newer than the last change the manifest knows of."""

    # Batches
    BATCH_UNDECODABLE = "batch-undecodable"
    """The checksum is right, but it is no batch."""
    BATCH_AMBIGUOUS = "batch-ambiguous"
    """It can be read in more than one way, and nothing in it says which was meant."""
    BATCH_VERSIONED = "batch-versioned"
    """Entries with versions, which avccDB writes to its journals and cannot read back."""
    BATCH_SEQUENCE = "batch-sequence"
    """A batch that does not come after the one before it."""
    BATCH_BEHIND_SESSION = "batch-behind-session"
    """Batches that LevelDB replays and goleveldb and avccDB skip."""

    # Files that no engine would read
    ORPHAN_OBSOLETE = "orphan-obsolete"
    """Everything in it is in other files, or was given up by the manifest."""
    ORPHAN_HALF_MADE = "orphan-half-made"
    """A table that was being made when the engine stopped; what it was made of is still there."""
    ORPHAN_UNIQUE_KEYS = "orphan-unique-keys"
    """It has keys, or newer changes of keys, that no live file has."""
    DIALECT_MIXED = "dialect-mixed"
    """Files of both dialects, or of another than was asked for."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with one file, as whoever reads that file sees it. Offset and length are in
    bytes of the file; None where it is about the file as a whole."""

    code: Code
    offset: int | None
    length: int | None
    expected: str
    found: str


Report = Callable[[Flaw], None]
"""Gets the flaws one by one, when the reading comes upon them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. Offset and length are in bytes of the file."""

    code: Code
    severity: Severity
    file: str
    """A name in the directory."""
    offset: int | None
    """None where it is about the file as a whole."""
    length: int | None
    expected: str
    found: str
    advice: str
    """What to do next."""

    @property
    def place(self) -> str:
        """`file:offset`, or the file alone."""
        return self.file if self.offset is None else f"{self.file}:{self.offset}"
