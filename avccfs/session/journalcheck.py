"""What is wrong with the batches of a journal (SPEC section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from avccfs.errors import FormatError
from avccfs.format import batch
from avccfs.format.batch import Batch, Reason
from avccfs.format.ikey import MAX_SEQUENCE, Dialect
from avccfs.format.journal import ReadAt, Record
from avccfs.session.faults import Code, Flaw, Report
from avccfs.session.recordcheck import read_records

_UNDECIDED: Final = (Reason.AMBIGUOUS, Reason.UNDECIDED)


@dataclass(frozen=True, slots=True)
class JournalCheck:
    """What is in a journal."""

    records: int
    entries: int
    """In batches that could be read."""
    last_sequence: int
    """Of the last entry, or what was given for the journal before; -1 if there is neither."""


def check_journal(
    read_at: ReadAt,
    dialect: Dialect,
    report: Report,
    *,
    after: int = -1,
    session_sequence: int | None = None,
) -> JournalCheck:
    """Read a journal from beginning to end. Errors of `read_at` pass through, nothing else.

    `after` is the last sequence number of the journal before; `session_sequence` what the manifest
    says of the last change that is in the tables, None if it says nothing.
    """
    check = _JournalCheck(dialect, report, after, session_sequence)
    for record in read_records(read_at, report):
        check.add(record)
    check.finish()
    return JournalCheck(check.records, check.entries, check.last)


class _JournalCheck:
    """The batches of one journal, one after another."""

    def __init__(
        self, dialect: Dialect, report: Report, after: int, session_sequence: int | None
    ) -> None:
        self.records = 0
        self.entries = 0
        self.last = after
        self._dialect = dialect
        self._report = report
        self._session = session_sequence
        self._behind: Record | None = None
        """The first record that is behind the session."""
        self._batches_behind = 0
        self._entries_behind = 0
        self._versioned: Record | None = None
        self._entries_versioned = 0

    def add(self, record: Record) -> None:
        """One more record."""
        self.records += 1
        payload = record.payload
        sequence = int.from_bytes(payload[:8], "little")
        if self._dialect is Dialect.STANDARD:
            try:
                count = len(batch.entries(payload))
            except FormatError:
                self._add_flawed(record, batch.decode(payload, self._dialect))
                return
        else:
            decoded = batch.decode(payload, self._dialect)
            if decoded.fault is not None:
                self._add_flawed(record, decoded)
                return
            count = decoded.count
            versioned = sum(1 for entry in decoded.entries if entry.version)
            if versioned:
                self._versioned = self._versioned or record
                self._entries_versioned += versioned
        self._count(record, sequence, count)

    def finish(self) -> None:
        """After the last record."""
        if self._behind is not None:
            expected = f"batches of sequence {self._session} and above, where the session is"
            found = f"{_several(self._batches_behind, 'batch', 'batches')} below it"
            found += f", with {_several(self._entries_behind, 'entry', 'entries')}"
            self._tell(Code.BATCH_BEHIND_SESSION, self._behind, expected, found)
        if self._versioned is not None:
            expected = "entries that the engine which writes them can read back"
            number = _several(self._entries_versioned, "entry", "entries")
            self._tell(Code.BATCH_VERSIONED, self._versioned, expected, f"{number} with a version")

    def _add_flawed(self, record: Record, decoded: Batch) -> None:
        fault = decoded.fault
        if fault is None:
            return
        undecided = fault.reason in _UNDECIDED
        code = Code.BATCH_AMBIGUOUS if undecided else Code.BATCH_UNDECODABLE
        expected = f"at byte {fault.offset} of the batch {fault.expected}"
        self._tell(code, record, expected, fault.found)
        if undecided:
            self._count(record, decoded.sequence, decoded.count)
        else:
            self.entries += len(decoded.entries)

    def _count(self, record: Record, sequence: int, count: int) -> None:
        self.entries += count
        if sequence <= self.last:
            expected = f"a sequence above {self.last}, which the entry before has"
            self._tell(Code.BATCH_SEQUENCE, record, expected, str(sequence))
        if sequence + count > MAX_SEQUENCE + 1:
            expected = f"sequences up to {MAX_SEQUENCE}"
            self._tell(Code.BATCH_SEQUENCE, record, expected, f"{count} from {sequence} on")
        elif count:
            self.last = sequence + count - 1
        if self._session is not None and sequence < self._session:
            self._behind = self._behind or record
            self._batches_behind += 1
            self._entries_behind += count

    def _tell(self, code: Code, record: Record, expected: str, found: str) -> None:
        length = record.end - record.offset
        self._report(Flaw(code, record.offset, length, expected, found))


def _several(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
