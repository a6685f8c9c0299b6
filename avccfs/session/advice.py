"""How much each fault matters, and what to do next."""

from __future__ import annotations

from typing import Final

from avccfs.session.faults import Code, Severity

_COPY: Final = "copy the directory before anything opens it"
_EXPLAIN: Final = "see what each engine would keep (avccfs explain)"

ADVICE: Final[dict[Code, tuple[Severity, str]]] = {
    Code.UNREADABLE: (
        Severity.DAMAGE,
        "look at the system's log for the disk; copy what can be read, with ddrescue if need be",
    ),
    Code.IN_USE: (
        Severity.INFO,
        "what was found may be gone a moment later: check again once the process has ended",
    ),
    Code.NUMBER_COLLISION: (
        Severity.ODDITY,
        "an engine will write over it: keep a copy if it has anything that is needed",
    ),
    Code.DUPLICATE_FILE: (Severity.ODDITY, "compare the two; engines read the .ldb"),
    Code.TEMP_FILE: (Severity.INFO, "left behind by an interrupted switch; nobody reads it"),
    Code.FOREIGN_FILE: (Severity.INFO, "no engine wrote this under this name; it is left alone"),
    Code.CURRENT_MISSING: (
        Severity.DAMAGE,
        "do not open it with create-if-missing; point CURRENT at the right manifest on a copy",
    ),
    Code.CURRENT_CORRUPTED: (
        Severity.DAMAGE,
        "do not open it with an engine; point CURRENT at the right manifest on a copy",
    ),
    Code.CURRENT_DANGLING: (
        Severity.DAMAGE,
        "look for the manifest elsewhere, or point CURRENT at one that is here, on a copy",
    ),
    Code.CURRENT_PENDING: (
        Severity.ODDITY,
        f"a switch was interrupted: {_EXPLAIN} before one of them tidies up",
    ),
    Code.CURRENT_BACKUP_STALE: (Severity.INFO, "nothing: engines look at it only without CURRENT"),
    Code.CURRENT_OVERRULED: (
        Severity.ODDITY,
        f"engines do not agree on the live manifest: {_EXPLAIN} and choose on a copy",
    ),
    Code.CHUNK_CHECKSUM: (
        Severity.DAMAGE,
        f"engines drop the rest of this block of 32 KiB, or refuse: {_COPY}, then {_EXPLAIN}",
    ),
    Code.CHUNK_LENGTH: (
        Severity.DAMAGE,
        f"engines drop the rest of this block of 32 KiB, LevelDB perhaps silently: {_COPY}, then "
        f"{_EXPLAIN}",
    ),
    Code.CHUNK_TYPE: (Severity.DAMAGE, f"{_COPY}, then {_EXPLAIN}"),
    Code.CHUNK_ORPHAN: (Severity.DAMAGE, f"a record lost its beginning: {_COPY}, then {_EXPLAIN}"),
    Code.RECORD_BROKEN: (Severity.DAMAGE, f"a record lost its end: {_COPY}, then {_EXPLAIN}"),
    Code.RECORDS_JOINED: (
        Severity.DAMAGE,
        f"goleveldb takes two records for one, LevelDB does not: {_COPY}, then {_EXPLAIN}",
    ),
    Code.ZEROED_RANGE: (
        Severity.DAMAGE,
        f"a stretch that never reached the disk: {_COPY}, then {_EXPLAIN}",
    ),
    Code.TORN_TAIL: (
        Severity.LOSS_RISK,
        "engines drop this silently; it is lost data only if its write had been acknowledged: "
        f"{_COPY}, then {_EXPLAIN}",
    ),
    Code.BLOCK_PADDING: (
        Severity.DAMAGE,
        "engines do not read these bytes, but they changed: distrust the disk and copy the files",
    ),
    Code.RECORD_UNDECODABLE: (
        Severity.DAMAGE,
        f"engines differ on what to make of it: {_COPY}, then {_EXPLAIN}",
    ),
    Code.MANIFEST_FIELD_MISSING: (
        Severity.DAMAGE,
        "every engine refuses to open this: use another manifest, or rebuild it, on a copy",
    ),
    Code.MANIFEST_MALFORMED_KEY: (
        Severity.DAMAGE,
        "the range of this table cannot be trusted: rebuild the manifest on a copy",
    ),
    Code.MANIFEST_OBSOLETE: (Severity.INFO, "engines delete it when they open the database"),
    Code.MANIFEST_NEWER: (
        Severity.ODDITY,
        f"a switch to it did not happen, or was lost: {_EXPLAIN}; engines delete or ignore it",
    ),
    Code.MANIFEST_ASSUMED: (
        Severity.INFO,
        "no engine would choose it by itself: make sure that it is the right one",
    ),
    Code.DELETION_UNMATCHED: (
        Severity.ODDITY,
        "engines pass over it; a record before it may have been lost",
    ),
    Code.LEVEL_UNKNOWN: (Severity.ODDITY, "LevelDB refuses this manifest, goleveldb does not"),
    Code.LEVEL_OVERLAP: (
        Severity.DAMAGE,
        "lookups miss keys that scans show: export what a scan shows, or rebuild on a copy",
    ),
    Code.COMPARER_UNKNOWN: (
        Severity.INFO,
        "no order was checked; open it with the program that has this comparer",
    ),
    Code.TABLE_MISSING: (
        Severity.DAMAGE,
        "every engine refuses to open this: look for the file (backup, lost+found), or rebuild "
        "without it on a copy",
    ),
    Code.TABLE_SIZE: (
        Severity.DAMAGE,
        "the file was cut off or written over: restore it from a backup if there is one",
    ),
    Code.TABLE_FOOTER: (
        Severity.DAMAGE,
        "engines cannot open this table; its blocks can still be read (avccfs dump)",
    ),
    Code.TABLE_GAP: (Severity.DAMAGE, "engines do not see what lies there: avccfs dump shows it"),
    Code.TABLE_SALVAGEABLE: (Severity.INFO, "avccfs dump finds them by the blocks' checksums"),
    Code.TABLE_EMPTY: (Severity.DAMAGE, "no engine writes this: look at it with avccfs dump"),
    Code.TABLE_RANGE: (
        Severity.DAMAGE,
        "keys outside of the manifest's range are not found: rebuild the manifest on a copy",
    ),
    Code.TABLE_CHANGED: (
        Severity.DAMAGE,
        "check again; if nothing had it open, distrust the memory and the disk",
    ),
    Code.TABLE_IN_TWO_LEVELS: (
        Severity.ODDITY,
        "engines show its entries all the same; a compaction of one level deletes it for both",
    ),
    Code.TABLE_OLD_NAME: (Severity.INFO, "nothing: engines read tables under their old name too"),
    Code.BLOCK_CHECKSUM: (
        Severity.DAMAGE,
        "the entries of this block are gone, and engines may return wrong values from it; "
        "restore the file from a backup, or salvage the other blocks (avccfs dump)",
    ),
    Code.BLOCK_COMPRESSION: (
        Severity.DAMAGE,
        "the block cannot be read: restore the file from a backup, or salvage the other blocks",
    ),
    Code.BLOCK_HANDLE: (
        Severity.DAMAGE,
        "engines do not get to this block: avccfs dump finds blocks without the index",
    ),
    Code.BLOCK_OVERLAP: (Severity.DAMAGE, "avccfs dump finds blocks without the index"),
    Code.BLOCK_TRUNCATED: (Severity.DAMAGE, "the file got shorter while it was read: check again"),
    Code.BLOCK_TOO_LARGE: (Severity.INFO, "nothing: its checksum is right"),
    Code.BLOCK_RESTARTS: (
        Severity.DAMAGE,
        "lookups in this block may miss keys that scans show: export what a scan shows",
    ),
    Code.BLOCK_ENTRY: (
        Severity.DAMAGE,
        "the checksum is right, so it was written like this: entries before it can be read",
    ),
    Code.BLOCK_UNKNOWN: (Severity.INFO, "nothing: its checksum is right"),
    Code.INDEX_SEPARATOR: (
        Severity.DAMAGE,
        "lookups miss keys that scans show: export what a scan shows, or rebuild on a copy",
    ),
    Code.KEY_MALFORMED: (
        Severity.DAMAGE,
        "the checksum is right, so it was written like this; perhaps it is of the other dialect "
        "(--dialect)",
    ),
    Code.KEY_ORDER: (
        Severity.DAMAGE,
        "lookups miss keys that scans show: export what a scan shows, or rebuild on a copy",
    ),
    Code.FILTER_MALFORMED: (Severity.DAMAGE, "engines do without it, slower: compact the table"),
    Code.FILTER_MISSES_KEY: (
        Severity.DAMAGE,
        "lookups miss this key: open the database without a filter policy and compact it",
    ),
    Code.MERKLE_MALFORMED: (Severity.DAMAGE, "proofs of this table fail: compact it with avccDB"),
    Code.MERKLE_MISMATCH: (
        Severity.DAMAGE,
        "entries or tree were changed after they were written: compare with another copy",
    ),
    Code.SEQUENCE_BEYOND_SESSION: (
        Severity.LOSS_RISK,
        "the manifest is older than this table: look for a newer one, and let nothing be written",
    ),
    Code.BATCH_UNDECODABLE: (
        Severity.DAMAGE,
        f"engines skip the batch, or refuse: {_COPY}, then {_EXPLAIN}",
    ),
    Code.BATCH_AMBIGUOUS: (Severity.ODDITY, "all readings are in avccfs dump: choose by hand"),
    Code.BATCH_VERSIONED: (
        Severity.ODDITY,
        "do not open this with avccDB, which misreads or drops them and then deletes the journal: "
        f"{_COPY}, then export with avccfs dump",
    ),
    Code.BATCH_SEQUENCE: (
        Severity.LOSS_RISK,
        f"goleveldb skips what comes too late: {_COPY}, then {_EXPLAIN}",
    ),
    Code.BATCH_BEHIND_SESSION: (
        Severity.ODDITY,
        "open it with LevelDB, not with goleveldb or avccDB, which skip these and then delete the "
        "journal",
    ),
    Code.ORPHAN_OBSOLETE: (Severity.INFO, "engines delete it when they open the database"),
    Code.ORPHAN_HALF_MADE: (Severity.INFO, "engines delete it or write over it"),
    Code.ORPHAN_UNIQUE_KEYS: (
        Severity.LOSS_RISK,
        f"engines delete this file when they open the database: {_COPY}; avccfs dump shows it",
    ),
    Code.DIALECT_MIXED: (Severity.ODDITY, "name the dialect (--dialect)"),
}
"""By code: the severity in a file that the database needs, and what to do next."""
