"""One manifest as a file: read as a whole, or written record by record (SPEC sections 4, 6 and 9).

Reading goes on after damage as the chosen engine's framing does, and tells what it passed over. A
record that does not decode to its end counts for nothing: half a change is no change. (goleveldb
keeps the numbers that stand before the bad field, and drops the tables.)
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final

from avccfs.errors import FormatError, ManifestError
from avccfs.format import journal, manifest
from avccfs.format.filename import FileDesc, name_of
from avccfs.format.manifest import DeletedTable, SessionRecord
from avccfs.session.state import EMPTY, SessionState, StateBuilder
from avccfs.storage.contract import Storage, Writer

_DEMANDED: Final = (
    ("next file number", "next_file_number"),
    ("journal number", "journal_number"),
    ("sequence number", "sequence"),
)


@dataclass(frozen=True, slots=True)
class ManifestFault:
    """A stretch of a manifest that was passed over. Offsets and lengths in bytes of the file."""

    file: str
    offset: int
    length: int
    detail: str
    """For people: what was expected and what was found."""
    framing: journal.Fault | None = None
    """The damage, where it is one of framing; None for a sound record that does not decode."""

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}"


@dataclass(frozen=True, slots=True)
class UnmatchedDeletion:
    """A deletion of a table that was not in its level, and the offset of the record with it."""

    offset: int
    table: DeletedTable


@dataclass(frozen=True, slots=True)
class Reading:
    """What a manifest says when it is read from beginning to end."""

    state: SessionState
    faults: tuple[ManifestFault, ...]
    unmatched_deletions: tuple[UnmatchedDeletion, ...]
    records: int
    """How many were applied."""
    comparer_offset: int | None
    """Of the record that named the comparer last."""


def read(storage: Storage, desc: FileDesc, policy: journal.Policy, *, strict: bool) -> Reading:
    """Apply every record of the manifest in order, whatever it lacks in the end.

    With `strict` the first fault raises `ManifestError`. `FileNotFoundError` and other errors of
    the storage pass through.
    """
    file = name_of(desc)
    builder = StateBuilder(EMPTY)
    faults: list[ManifestFault] = []
    unmatched: list[UnmatchedDeletion] = []
    records = 0
    comparer_offset: int | None = None
    with contextlib.closing(storage.open(desc)) as reader:
        for item in journal.read(reader.read_at, policy):
            decoded = _decode(file, item)
            if isinstance(decoded, ManifestFault):
                if strict:
                    raise _refusal(decoded)
                faults.append(decoded)
                continue
            records += 1
            if decoded.comparer is not None:
                comparer_offset = item.offset
            lost = builder.apply(decoded)
            unmatched += (UnmatchedDeletion(item.offset, table) for table in lost)
    state = builder.state(manifest=desc)
    return Reading(state, tuple(faults), tuple(unmatched), records, comparer_offset)


def demand_complete(reading: Reading, file: str, comparer: bytes) -> None:
    """Raise `ManifestError`, naming the field, unless the manifest can carry a session."""
    state = reading.state
    found = f"found none among {reading.records} records"
    if reading.faults:
        found += f" and {len(reading.faults)} damaged stretches, the first: {reading.faults[0]}"
    advice = (
        "The manifest is not whole. Do not create a new database here: look for an older manifest "
        "in the directory, or rebuild the manifest from the tables, on a copy first"
    )
    if state.comparer is None:
        raise ManifestError(
            f"{file}: the comparer is missing: expected a record that names "
            f"{_shown(comparer)}, {found}. {advice}",
            file=file,
            field="comparer",
        )
    if state.comparer != comparer:
        raise ManifestError(
            f"{file}: the comparer does not match: expected {_shown(comparer)}, found "
            f"{_shown(state.comparer)} in the record at offset {reading.comparer_offset}. The keys "
            "are in another order than asked for: open the database with the comparer it was "
            "written with",
            file=file,
            offset=reading.comparer_offset,
            field="comparer",
        )
    for field, attribute in _DEMANDED:
        if getattr(state, attribute) is None:
            raise ManifestError(
                f"{file}: the {field} is missing: expected a record that sets it, {found}. "
                f"{advice}",
                file=file,
                field=field,
            )


class ManifestWriter:
    """An open manifest at the end of which records are added."""

    def __init__(self, desc: FileDesc, writer: Writer) -> None:
        self.desc = desc
        self.trusted = True
        """False once the end of the file, or what of it is durable, is not known for certain."""
        self._writer = writer
        self._framing = journal.Writer()

    @property
    def size(self) -> int:
        """Bytes in the file, if all that was appended has been written."""
        return self._framing.offset

    def append(self, payload: bytes) -> None:
        """Write one record; durable only after `sync`."""
        self._writer.write(self._framing.append(payload))

    def sync(self) -> None:
        """Make the records durable, and with them every name in the directory."""
        self._writer.sync()

    def close(self) -> None:
        """Release the handle."""
        self._writer.close()


def _decode(file: str, item: journal.Item) -> SessionRecord | ManifestFault:
    if isinstance(item, journal.Fault):
        return ManifestFault(file, item.offset, item.length, item.detail, item)
    try:
        return manifest.decode(item.payload)
    except FormatError as error:
        detail = f"record at offset {item.offset} does not decode: {error}"
        return ManifestFault(file, item.offset, item.end - item.offset, detail)


def _refusal(fault: ManifestFault) -> ManifestError:
    return ManifestError(
        f"{fault}. {fault.length} bytes are lost with it. To go on with what the rest of the "
        "manifest says, open it without strict; keep a copy of the directory first",
        file=fault.file,
        offset=fault.offset,
    )


def _shown(comparer: bytes) -> str:
    return comparer.decode("ascii", "backslashreplace")
