"""The live manifest as an engine reads it: each record kept or dropped, and what comes of it.

LevelDB refuses at the first damage that it notices. goleveldb and avccDB go on: of a record that
does not decode, or that breaks off in the middle of its chunks, they keep the numbers that stand
before the break, and drop the tables. They also read on behind a tag that they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

from avccfs.errors import FormatError
from avccfs.format import journal, manifest
from avccfs.format.coding import read_varint
from avccfs.format.filename import FileDesc
from avccfs.format.manifest import BYTEWISE_COMPARER, AddedTable, SessionRecord, Tag
from avccfs.session.engines import ManifestDamage, Profile
from avccfs.session.recovery.keyspace import UndefinedError
from avccfs.session.recovery.prediction import Fate, ManifestStep
from avccfs.session.state import EMPTY, SessionState, StateBuilder

_LEVELDB_FIELDS: Final = {
    Tag.COMPARER: "comparator name",
    Tag.JOURNAL_NUMBER: "log number",
    Tag.NEXT_FILE_NUMBER: "next file number",
    Tag.SEQUENCE: "last sequence number",
    Tag.COMPACTION_POINTER: "compaction pointer",
    Tag.DELETED_TABLE: "deleted file",
    Tag.ADDED_TABLE: "new-file entry",
    Tag.PREVIOUS_JOURNAL_NUMBER: "previous log number",
}
_GO_END: Final = "EOF"
"""What goleveldb calls a record that ends right before the bytes of a field: not a corruption to
it, and so no reason to go on."""

ReadAt = Callable[[int, int], bytes]

_LEVELS: Final = 7
"""How many LevelDB has."""
_MEMORY: Final = 1 << 30
"""Bytes that goleveldb gets for sure. It asks for as many as a record claims, unchecked: for what
is in a field, and 16 for every level up to the one that is named."""


@dataclass(frozen=True, slots=True)
class ManifestReading:
    """A manifest, read as an engine does."""

    steps: tuple[ManifestStep, ...]
    state: SessionState
    error: str | None
    """Why the engine refuses, in its words."""
    doubt: str | None
    """Why it is not certain what the engine makes of it."""

    @property
    def sound(self) -> bool:
        """Whether every byte of it was a record that was kept."""
        return all(step.fate is Fate.KEPT for step in self.steps)


def read(read_at: ReadAt, desc: FileDesc | None, name: str, profile: Profile) -> ManifestReading:
    """Read a manifest to its end, or to where the engine gives up. Errors of reading pass through.

    `name` is as the engine would write it in an error. Raises `UndefinedError`.
    """
    reading = _ManifestReader(read_at, profile)
    error = reading.read()
    state = reading.builder.state(manifest=desc)
    if error is None:
        error = _lacking(state, name, profile)
    return ManifestReading(tuple(reading.steps), state, error, reading.doubt)


class _ManifestReader:
    def __init__(self, read_at: ReadAt, profile: Profile) -> None:
        self.steps: list[ManifestStep] = []
        self.builder = StateBuilder(EMPTY)
        self.doubt: str | None = None
        self._added: dict[tuple[int, int], AddedTable] = {}
        self._read_at = read_at
        self._profile = profile

    def read(self) -> str | None:
        """Returns why the engine gives up."""
        refuses = self._profile.manifest_damage is ManifestDamage.REFUSES
        refusal: str | None = None
        for item in journal.read(self._read_at, self._profile.framing):
            if isinstance(item, journal.Fault):
                self._fault(item)
                if refuses and item.report is not None:
                    said = f"Corruption: {item.report.text}"
                    # It tells of the damage first, and only then of the record that it broke.
                    if item.reason is not journal.Reason.BROKEN_RECORD or refusal is None:
                        refusal = said
                    if item.report.text != "error in middle of record":
                        return refusal
            elif refusal is not None:
                return refusal
            elif (error := self._record(item)) is not None and (refuses or error == _GO_END):
                return error
        return refusal

    def _fault(self, fault: journal.Fault) -> None:
        said = "" if fault.report is None else f" ({fault.report.text})"
        fate, why = Fate.DROPPED, f"{fault.reason.value}: {fault.detail}{said}"
        broken = fault.reason in (journal.Reason.BROKEN_RECORD, journal.Reason.TORN_RECORD)
        if broken and self._profile.manifest_damage is ManifestDamage.SKIPS:
            record, _ = _go_decode(b"".join(_sound_chunks(self._read_at, fault)))
            if self._apply_numbers(record):
                fate, why = Fate.PARTLY, f"{why}; kept: {_numbers(record)}"
        self.steps.append(ManifestStep(fault.offset, fault.length, fate, why))

    def _record(self, item: journal.Record) -> str | None:
        if self._profile.manifest_damage is ManifestDamage.SKIPS:
            record, error = _go_decode(item.payload)
            said = error
        else:
            record, error = _leveldb_decode(item.payload)
            said = None if error is None else f"Corruption: VersionEdit: {error}"
            if error is None and record.comparer not in (None, BYTEWISE_COMPARER):
                error = "another comparer"
                said = (
                    f"Invalid argument: {_shown(record.comparer)} does not match existing "
                    f"comparator : {_shown(BYTEWISE_COMPARER)}"
                )
        length = item.end - item.offset
        if error is None:
            self.builder.apply(record)
            if self._profile.manifest_damage is ManifestDamage.REFUSES:
                self._note_twins(record)
            self.steps.append(ManifestStep(item.offset, length, Fate.KEPT, describe(record)))
            return None
        fate, why = Fate.DROPPED, error
        if self._profile.manifest_damage is ManifestDamage.SKIPS and self._apply_numbers(record):
            fate, why = Fate.PARTLY, f"{error}; kept: {_numbers(record)}"
        self.steps.append(ManifestStep(item.offset, length, fate, why))
        return said

    def _note_twins(self, record: SessionRecord) -> None:
        """LevelDB takes a table that is added twice, with other keys, for two tables."""
        for gone in record.deleted_tables:
            self._added.pop((gone.level, gone.number), None)
        for table in record.added_tables:
            twin = self._added.setdefault((table.level, table.number), table)
            if twin != table:
                self.doubt = (
                    f"table {table.number} is added to level {table.level} twice, with other keys or "
                    "another size: compactions go by one of the two"
                )

    def _apply_numbers(self, record: SessionRecord) -> bool:
        numbers = replace(record, compaction_pointers=(), deleted_tables=(), added_tables=())
        self.builder.apply(numbers)
        return numbers != SessionRecord()


def _lacking(state: SessionState, name: str, profile: Profile) -> str | None:
    if profile.manifest_damage is ManifestDamage.REFUSES:
        for missing, what in (
            (state.next_file_number is None, "no meta-nextfile entry"),
            (state.journal_number is None, "no meta-lognumber entry"),
            (state.sequence is None, "no last-sequence-number entry"),
        ):
            if missing:
                return f"Corruption: {what} in descriptor"
        return None
    for value, field in (
        (state.comparer, "comparer"),
        (state.next_file_number, "next-file-num"),
        (state.journal_number, "journal-file-num"),
        (state.sequence, "seq-num"),
    ):
        if field == "next-file-num" and state.comparer != BYTEWISE_COMPARER:
            want, got = _shown(BYTEWISE_COMPARER), _shown(state.comparer)
            reason = f"mismatch: want '{want}', got '{got}'"
            return f"leveldb: manifest corrupted (field 'comparer'): {reason} [file={name}]"
        if value is None:
            return f"leveldb: manifest corrupted (field '{field}'): missing [file={name}]"
    return None


def _leveldb_decode(payload: bytes) -> tuple[SessionRecord, str | None]:
    record, error = manifest.decode_partial(payload)
    if error is not None:
        return record, _leveldb_words(payload, error)
    wrong = (
        (Tag.COMPACTION_POINTER, [(p.level, p.key) for p in record.compaction_pointers]),
        (Tag.DELETED_TABLE, [(gone.level, b"-") for gone in record.deleted_tables]),
        (Tag.ADDED_TABLE, [(t.level, t.smallest and t.largest) for t in record.added_tables]),
    )
    for tag, placed in wrong:
        if any(level >= _LEVELS or not key for level, key in placed):
            return record, _LEVELDB_FIELDS[tag]
    return record, None


def _leveldb_words(payload: bytes, error: FormatError) -> str:
    tag = re.search(r"\(tag (\d+)\)", str(error))
    if tag is not None:
        return _LEVELDB_FIELDS[Tag(int(tag[1]))]
    try:
        read_varint(payload, error.offset)
    except FormatError:
        return "invalid tag"
    return "unknown tag"


def _go_decode(payload: bytes) -> tuple[SessionRecord, str | None]:
    record, error = manifest.decode_partial(payload)
    start = 0
    while error is not None:
        at = start + error.offset
        try:
            tag, behind = read_varint(payload, at)
        except FormatError:
            return record, str(error)
        if "bytes at offset" in str(error):
            # It is not a tag but the length of bytes that are not all there.
            if tag > _MEMORY:
                raise UndefinedError(f"a manifest record makes it ask for {tag} bytes of memory")
            return record, _GO_END if behind == len(payload) else str(error)
        if not str(error).startswith("tag of a field") or tag in Tag._value2member_map_:
            return record, str(error)
        start = behind
        more, error = manifest.decode_partial(payload[start:])
        record = _joined(record, more)
    highest = max(_levels(record), default=0)
    if highest * 16 > _MEMORY:
        raise UndefinedError(f"a manifest record makes it ask for memory for {highest} levels")
    return record, None


def _levels(record: SessionRecord) -> list[int]:
    levels = [pointer.level for pointer in record.compaction_pointers]
    levels += [table.level for table in record.deleted_tables]
    return levels + [table.level for table in record.added_tables]


def _joined(first: SessionRecord, second: SessionRecord) -> SessionRecord:
    changes: dict[str, object] = {}
    for field in fields(SessionRecord):
        before, after = getattr(first, field.name), getattr(second, field.name)
        if isinstance(before, tuple):
            changes[field.name] = before + after
        elif after is not None:
            changes[field.name] = after
    return replace(first, **changes)  # type: ignore[arg-type]


def _sound_chunks(read_at: ReadAt, fault: journal.Fault) -> Iterator[bytes]:
    """The payloads of the sound chunks that a broken record has."""
    position = fault.offset
    while position < fault.end:
        room = journal.BLOCK_SIZE - position % journal.BLOCK_SIZE
        if room < journal.HEADER_SIZE:
            position += room
            continue
        header = read_at(journal.HEADER_SIZE, position)
        if len(header) < journal.HEADER_SIZE:
            return
        length = int.from_bytes(header[4:6], "little")
        yield read_at(length, position + journal.HEADER_SIZE)
        position += journal.HEADER_SIZE + length


def describe(record: SessionRecord) -> str:
    """What a record changes, in a few words."""
    parts = [_numbers(record)] if _numbers(record) else []
    if record.compaction_pointers:
        parts.append(f"{len(record.compaction_pointers)} compaction pointers")
    if record.deleted_tables:
        gone = ", ".join(f"{t.number} from level {t.level}" for t in record.deleted_tables[:8])
        parts.append(f"removes {gone}{' ...' if len(record.deleted_tables) > 8 else ''}")
    if record.added_tables:
        new = ", ".join(f"{t.number} to level {t.level}" for t in record.added_tables[:8])
        parts.append(f"adds {new}{' ...' if len(record.added_tables) > 8 else ''}")
    return "; ".join(parts) or "nothing"


def _numbers(record: SessionRecord) -> str:
    named = (
        ("comparer", None if record.comparer is None else _shown(record.comparer)),
        ("journal", record.journal_number),
        ("previous journal", record.previous_journal_number),
        ("next file", record.next_file_number),
        ("sequence", record.sequence),
    )
    return ", ".join(f"{name} {value}" for name, value in named if value is not None)


def _shown(comparer: bytes | None) -> str:
    return "" if comparer is None else comparer.decode("utf-8", "surrogateescape")
