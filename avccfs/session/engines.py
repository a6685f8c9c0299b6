"""What each engine does when it opens a directory: one profile for each (SPEC section 9).

A profile is data. The modules that predict an opening ask it, and nothing else in the product knows
that engines differ in this. What it says was read off LevelDB 1.23, goleveldb 126854a and avccDB
8f4b94a with their default options, and is checked against the first two as they run.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from avccfs.format import journal
from avccfs.format.filename import MAX_NUMBER, FileDesc, Kind, name_of, other_name_of
from avccfs.format.ikey import Dialect


class Engine(enum.Enum):
    """The engines whose openings can be predicted. The values are their names on the command line."""

    LEVELDB = "leveldb"
    GOLEVELDB = "goleveldb"
    AVCCDB = "avccdb"


class MetaRule(enum.Enum):
    """Which meta files are looked at."""

    CURRENT_ONLY = "CURRENT and nothing else"
    NEWEST_OF_FAMILY = "pending files, CURRENT and CURRENT.bak, as SPEC section 3 says"


class ManifestDamage(enum.Enum):
    """What a damaged manifest does to an opening."""

    REFUSES = "refuses to open at the first damage that the engine itself notices"
    SKIPS = "skips what is damaged, and of a damaged record keeps the numbers that came before"


class TablePresence(enum.Enum):
    """How live tables that are not there are found."""

    ANY_FILE_OF_THE_NUMBER = "before the replay; any file of the same number hides that it is gone"
    LISTED_TABLES = "after the replay; as many table files of live numbers as there are live tables"


class SequenceRule(enum.Enum):
    """Which batches of a journal are replayed."""

    ALL = "every batch"
    NOT_BELOW_SESSION = "batches that begin at the session's sequence number or above"


class BadBlock(enum.Enum):
    """What a block that does not decode does to somebody who reads every key."""

    SKIPPED = "reading goes on at the next block; the error is kept"
    STOPS = "reading stops there with an error"


@dataclass(frozen=True, slots=True)
class Profile:
    """What an engine does on opening, with its default options."""

    engine: Engine
    title: str
    """As the engine writes its own name."""
    meta: MetaRule
    framing: journal.Policy
    """How it reads on after damage in a journal or a manifest."""
    manifest_damage: ManifestDamage
    demands_comparer: bool
    """Whether a manifest that names no comparer is refused."""
    table_presence: TablePresence
    sequence_rule: SequenceRule
    partial_batch_counts: bool
    """Whether a batch of which only the first entries decode still moves the sequence number on.
    Those entries are put into the memtable by all engines."""
    checks_blocks: bool
    """Whether the checksum of a table's block is compared when it is read."""
    bad_block: BadBlock
    replays_as: Dialect
    """The form in which the replay of a journal makes internal keys."""
    reads_as: Dialect
    """The form in which internal keys are taken apart and compared."""
    removes_temp: bool
    """Whether temp files are removed after opening."""
    rebuilds: bool
    """Whether `predict_rebuild` knows its rebuild."""
    write_buffer: int = 4 * 1024 * 1024
    """Bytes of entries after which a replay begins another table."""

    @property
    def like_goleveldb(self) -> bool:
        """goleveldb itself, or its fork."""
        return self.engine is not Engine.LEVELDB


LEVELDB: Final = Profile(
    engine=Engine.LEVELDB,
    title="LevelDB",
    meta=MetaRule.CURRENT_ONLY,
    framing=journal.Policy.LEVELDB,
    manifest_damage=ManifestDamage.REFUSES,
    demands_comparer=False,
    table_presence=TablePresence.ANY_FILE_OF_THE_NUMBER,
    sequence_rule=SequenceRule.ALL,
    partial_batch_counts=True,
    checks_blocks=False,
    bad_block=BadBlock.SKIPPED,
    replays_as=Dialect.STANDARD,
    reads_as=Dialect.STANDARD,
    removes_temp=True,
    rebuilds=False,
)

GOLEVELDB: Final = Profile(
    engine=Engine.GOLEVELDB,
    title="goleveldb",
    meta=MetaRule.NEWEST_OF_FAMILY,
    framing=journal.Policy.GOLEVELDB,
    manifest_damage=ManifestDamage.SKIPS,
    demands_comparer=True,
    table_presence=TablePresence.LISTED_TABLES,
    sequence_rule=SequenceRule.NOT_BELOW_SESSION,
    partial_batch_counts=False,
    checks_blocks=True,
    bad_block=BadBlock.STOPS,
    replays_as=Dialect.STANDARD,
    reads_as=Dialect.STANDARD,
    removes_temp=False,
    rebuilds=True,
)

AVCCDB: Final = Profile(
    engine=Engine.AVCCDB,
    title="avccDB",
    meta=MetaRule.NEWEST_OF_FAMILY,
    framing=journal.Policy.GOLEVELDB,
    manifest_damage=ManifestDamage.SKIPS,
    demands_comparer=True,
    table_presence=TablePresence.LISTED_TABLES,
    sequence_rule=SequenceRule.NOT_BELOW_SESSION,
    partial_batch_counts=False,
    checks_blocks=True,
    bad_block=BadBlock.STOPS,
    replays_as=Dialect.STANDARD,
    reads_as=Dialect.AVCCDB,
    removes_temp=False,
    rebuilds=True,
)

PROFILES: Final = {profile.engine: profile for profile in (LEVELDB, GOLEVELDB, AVCCDB)}


class Named(NamedTuple):
    """A name in the directory as an engine understands it."""

    number: int
    """May be negative for goleveldb, and above 2**63 - 1 for LevelDB."""
    kind: Kind
    name: str


# LevelDB takes any run of digits up to 2**64 - 1; goleveldb scans with Go's Sscanf, which skips
# blanks before a number or a word, takes a sign, and does not look at what follows a word.
_LEVELDB_NAME: Final = re.compile(r"(?:MANIFEST-([0-9]+)|([0-9]+)\.(log|ldb|sst|dbtmp))")
_GO_NUMBERED: Final = re.compile(r"[ \t\r\v\f]*([+-]?[0-9]+)\.[ \t\r\v\f]*([^\s]+)")
_GO_MANIFEST: Final = re.compile(r"MANIFEST-[ \t\r\v\f]*([+-]?[0-9]+)(?:[ \t\r\v\f]*|\n.*)")
_KINDS: Final = {"log": Kind.JOURNAL, "ldb": Kind.TABLE, "sst": Kind.TABLE}


def understand(name: str, profile: Profile) -> Named | None:
    """The database file that an engine takes `name` for; None if it takes it for none.

    Engines accept more names than they write: "5.ldb" is a table to each of them.
    """
    return _as_goleveldb(name) if profile.like_goleveldb else _as_leveldb(name)


def understand_all(names: Iterable[str], profile: Profile) -> list[Named]:
    """The database files among `names`, by number."""
    found = (understand(name, profile) for name in names)
    return sorted((n for n in found if n is not None), key=lambda n: (n.number, n.name))


def meta_target(content: bytes) -> FileDesc | None:
    """The file that goleveldb and avccDB find named in a meta file; None if they call it corrupted."""
    if not content.endswith(b"\n"):
        return None
    named = _as_goleveldb(content[:-1].decode("utf-8", "surrogateescape"))
    if named is None or not 0 <= named.number <= MAX_NUMBER:
        return None
    return FileDesc(named.number, named.kind)


def names_of(desc: FileDesc) -> tuple[str, ...]:
    """The names under which an engine looks for a file, in order; none for an impossible number."""
    if not desc.valid:
        return ()
    other = other_name_of(desc) if desc.kind is Kind.TABLE else None
    return (name_of(desc),) if other is None else (name_of(desc), other)


def _as_leveldb(name: str) -> Named | None:
    match = _LEVELDB_NAME.fullmatch(name)
    if match is None:
        return None
    manifest, digits, suffix = match.groups()
    number = int(manifest or digits)
    if number >= 1 << 64:
        return None
    return Named(number, Kind.MANIFEST if manifest else _KINDS.get(suffix, Kind.TEMP), name)


def _as_goleveldb(name: str) -> Named | None:
    match = _GO_NUMBERED.match(name)
    if match is not None and _in_int64(number := int(match[1])):
        kind = Kind.TEMP if match[2] == "tmp" else _KINDS.get(match[2])
        return None if kind is None else Named(number, kind, name)
    match = _GO_MANIFEST.fullmatch(name)
    if match is not None and _in_int64(number := int(match[1])):
        return Named(number, Kind.MANIFEST, name)
    return None


def _in_int64(number: int) -> bool:
    return -MAX_NUMBER - 1 <= number <= MAX_NUMBER
