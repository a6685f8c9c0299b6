"""What a file is, and which form its keys have, by what shows it.

No manifest and no journal says which engine wrote it (SPEC section 1). Tables do: avccDB's name a
Merkle tree. So the dialect of a directory is that of its tables. Without any, a batch that reads
only with versions gives avccDB away; a directory that shows nothing is taken to be of the standard
dialect, and the evidence says that this was assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from avccfs.errors import AvccfsError, FormatError
from avccfs.format import batch, journal, manifest
from avccfs.format.filename import Kind, parse
from avccfs.format.ikey import Dialect
from avccfs.format.table import FOOTER_SIZE, MAGIC, Table
from avccfs.session import keys
from avccfs.session.folder import Folder, Opened

ReadAt = Callable[[int, int], bytes]

RECORDS_LOOKED_AT: Final = 1000
"""Records of a journal that are searched for versions."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A dialect, and what shows it."""

    dialect: Dialect
    evidence: str
    """For people."""
    certain: bool
    """False where nothing shows it, and it was assumed."""


GIVEN: Final = "as was asked for"
_ASSUMED: Final = Shown(Dialect.STANDARD, "assumed: no table and no journal shows it", False)


def of_table(table: Table) -> Shown | None:
    """What a table itself shows; None if its metaindex cannot be read."""
    match table.dialect:
        case Dialect.AVCCDB:
            return Shown(Dialect.AVCCDB, "it has a Merkle tree", True)
        case Dialect.STANDARD:
            return Shown(Dialect.STANDARD, "it has no Merkle tree", True)
    return None


def of_folder(folder: Folder) -> Shown:
    """What the files of a directory show."""
    for name in folder.of_kind(Kind.TABLE):
        shown = _look(folder, name, lambda opened: of_table(Table(opened.read_at, opened.size)))
        if shown is not None:
            evidence = shown.evidence.replace("it has", f"{keys.safe_name(name)} has")
            return Shown(shown.dialect, evidence, True)
    for name in folder.of_kind(Kind.JOURNAL):
        shown = _look(folder, name, lambda opened: of_journal(opened.read_at))
        if shown is not None:
            evidence = shown.evidence.replace("its batch", f"the batch of {keys.safe_name(name)}")
            return Shown(shown.dialect, evidence, True)
    return _ASSUMED


def of_journal(read_at: ReadAt) -> Shown | None:
    """avccDB, if one of the first records reads only with versions; None if none does."""
    evidence = batch.Evidence()
    looked_at = 0
    for item in journal.read(read_at, journal.Policy.LEVELDB):
        if isinstance(item, journal.Record):
            evidence.add(item.payload)
            if evidence.versioned_only:
                said = f"its batch at offset {item.offset} reads only with versions"
                return Shown(Dialect.AVCCDB, said, True)
            looked_at += 1
            if looked_at == RECORDS_LOOKED_AT:
                break
    return None


def kind_of(name: str, read_at: ReadAt, size: int) -> Kind | None:
    """Manifest, journal or table: by the name, or by the content where the name does not say."""
    desc = parse(name)
    if desc is not None and desc.kind is not Kind.TEMP:
        return desc.kind
    return kind_of_content(read_at, size)


def kind_of_content(read_at: ReadAt, size: int) -> Kind | None:
    """What the content shows; None if it shows nothing."""
    if size >= FOOTER_SIZE and read_at(len(MAGIC), size - len(MAGIC)) == MAGIC:
        return Kind.TABLE
    for item in journal.read(read_at, journal.Policy.LEVELDB):
        if not isinstance(item, journal.Record):
            continue
        try:
            manifest.decode(item.payload)
        except FormatError:
            whole = batch.decode(item.payload, Dialect.AVCCDB)
            return Kind.JOURNAL if whole.fault is None or whole.total else None
        return Kind.MANIFEST
    return None


def _look(folder: Folder, name: str, look: Callable[[Opened], Shown | None]) -> Shown | None:
    try:
        with folder.opened([name]) as opened:
            return look(opened)
    except (OSError, AvccfsError):
        return None
