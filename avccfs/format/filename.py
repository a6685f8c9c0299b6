"""Names of database files, and the descriptors they stand for (SPEC section 2).

The name of a file is the only place where its kind and number are written down, and engines find
their files by these names alone. A name counts as a database file only if generating it again from
its parts gives exactly the same name; everything else is *foreign*: `parse` returns None.

    MANIFEST-%06d   manifest          %06d.log   journal
    %06d.ldb        table             %06d.sst   table, old name
    %06d.tmp        temp (goleveldb)  %06d.dbtmp temp (LevelDB)
    CURRENT, CURRENT.bak, CURRENT.<decimal>      meta: which manifest is live
    LOCK, LOG, LOG.old
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

MAX_NUMBER = 2**63 - 1

CURRENT = "CURRENT"
CURRENT_BAK = "CURRENT.bak"
LOCK = "LOCK"
LOG = "LOG"
LOG_OLD = "LOG.old"


class Kind(enum.Flag):
    """What a database file is. A flag, so that `list` and fault rules can name several at once."""

    MANIFEST = enum.auto()
    JOURNAL = enum.auto()
    TABLE = enum.auto()
    TEMP = enum.auto()
    META = enum.auto()
    """CURRENT and its family. Never a descriptor: the contract reaches it through set_meta."""
    LOCK = enum.auto()
    LOG = enum.auto()
    FOREIGN = enum.auto()

    NUMBERED = MANIFEST | JOURNAL | TABLE | TEMP
    """The kinds that a descriptor may have."""


@dataclass(frozen=True, slots=True)
class FileDesc:
    """A numbered database file: its kind and its number, 0 to 2**63 - 1."""

    number: int
    kind: Kind

    @property
    def valid(self) -> bool:
        """Whether a storage may be asked for this file at all."""
        return self.kind in _FORMATS and 0 <= self.number <= MAX_NUMBER

    def __str__(self) -> str:
        return name_of(self) if self.valid else f"{self.kind.name}:{self.number}"

    def __lt__(self, other: FileDesc) -> bool:
        return (self.number, self.kind.value) < (other.number, other.kind.value)


_FORMATS: dict[Kind, str] = {
    Kind.MANIFEST: "MANIFEST-{:06d}",
    Kind.JOURNAL: "{:06d}.log",
    Kind.TABLE: "{:06d}.ldb",
    Kind.TEMP: "{:06d}.tmp",
}

_SUFFIXES: dict[str, Kind] = {
    "log": Kind.JOURNAL,
    "ldb": Kind.TABLE,
    "sst": Kind.TABLE,
    "tmp": Kind.TEMP,
    "dbtmp": Kind.TEMP,
}

# At most 19 digits: 2**63 - 1 has 19, and a longer run could never be in range.
_NUMBERED = re.compile(r"(?:MANIFEST-(\d{6,19})|(\d{6,19})\.(log|ldb|sst|tmp|dbtmp))", re.ASCII)
_PENDING = re.compile(r"CURRENT\.(0|[1-9]\d{0,18})", re.ASCII)


def name_of(desc: FileDesc) -> str:
    """The name under which a file is created. `desc` must be valid."""
    return _FORMATS[desc.kind].format(desc.number)


def other_name_of(desc: FileDesc) -> str | None:
    """The second name under which such a file may be found; None if the kind has only one.

    Tables were once called `.sst`; a temp file is `.tmp` to goleveldb and `.dbtmp` to LevelDB.
    """
    match desc.kind:
        case Kind.TABLE:
            return f"{desc.number:06d}.sst"
        case Kind.TEMP:
            return f"{desc.number:06d}.dbtmp"
        case _:
            return None


def parse(name: str) -> FileDesc | None:
    """The descriptor of a numbered database file, or None for every other name."""
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return None
    manifest, digits, suffix = match.groups()
    number = int(manifest or digits)
    # Seven digits and more never carry leading zeros: "0000005.ldb" is not a name anybody wrote.
    if number > MAX_NUMBER or len(manifest or digits) != max(6, len(str(number))):
        return None
    return FileDesc(number, Kind.MANIFEST if manifest else _SUFFIXES[suffix])


def pending_name(number: int) -> str:
    """The pending meta file that goleveldb writes on the way to `CURRENT`."""
    return f"CURRENT.{number}"


def pending_number(name: str) -> int | None:
    """The number of a pending meta file `CURRENT.<decimal>`, or None if it is not one."""
    match = _PENDING.fullmatch(name)
    if match is None:
        return None
    number = int(match[1])
    return number if number <= MAX_NUMBER else None


def kind_of(name: str) -> Kind:
    """The kind of any name in a database directory; FOREIGN for what no engine would write."""
    if name[6:7] == "." and name[:6].isdecimal() and name.isascii():
        # As `parse`, without its cost: six digits are a number as it would be written.
        return _SUFFIXES.get(name[7:], Kind.FOREIGN)
    desc = parse(name)
    if desc is not None:
        return desc.kind
    if name in (CURRENT, CURRENT_BAK) or pending_number(name) is not None:
        return Kind.META
    if name == LOCK:
        return Kind.LOCK
    if name in (LOG, LOG_OLD):
        return Kind.LOG
    return Kind.FOREIGN


def encode_meta(desc: FileDesc) -> bytes:
    """What CURRENT holds when `desc` is the live manifest: its name and one newline."""
    return name_of(desc).encode("ascii") + b"\n"


def decode_meta(content: bytes) -> FileDesc | None:
    """The file that the content of a meta file names; None if the content is not good.

    Good content ends in a newline and the rest is the name of a database file. Like the engines,
    this accepts a name of any numbered kind; only a manifest can carry a session.
    """
    if not content.endswith(b"\n"):
        return None
    try:
        return parse(content[:-1].decode("ascii"))
    except UnicodeDecodeError:
        return None
