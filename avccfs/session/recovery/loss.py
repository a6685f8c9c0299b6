"""How many keys an opening would lose for good: `prediction.Loss` says what counts.

What is at stake is only what the engine deletes. Its entries are sorted aside and merged with all
others, one key after the other; the newest entry of each key decides.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator
from typing import Final

from avccfs.errors import AvccfsError
from avccfs.format import batch, filename, journal
from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.format.ikey import Dialect, KeyKind
from avccfs.format.table import Fault, Table
from avccfs.session.folder import Folder, Opened
from avccfs.session.recovery.findings import Findings
from avccfs.session.recovery.prediction import Loss
from avccfs.session.recovery.runs import Runs

_EXAMPLES: Final = 10
_RUN: Final = 16 * 1024 * 1024
_TRAILER: Final = struct.Struct("<Q")
_VERSION_AND_TRAILER: Final = struct.Struct("<QQ")

Entry = tuple[bytes, int, int]
"""User key, version and trailer, both negated: the newest of a key comes first."""


def count(folder: Folder, found: Findings) -> Loss:
    """The keys that are lost by what `found` says. Damage is passed over."""
    # A table that a rebuild writes anew has all that was sound in the old one.
    copied = {name_of(FileDesc(number, Kind.TABLE)) for number in found.rewritten}
    gone = {*found.aftermath.deleted, *found.aftermath.overwritten} - copied
    at_stake = _Gatherer(folder, found, gone)
    try:
        at_stake.gather()
        if at_stake.nothing:
            return Loss()
        return _compare(at_stake, folder, found.dialect, gone)
    finally:
        at_stake.close()


class _Gatherer:
    """Entries of journals and of tables that go, sorted: those that stay and those that do not."""

    def __init__(self, folder: Folder, found: Findings, gone: set[str]) -> None:
        self.staying: Runs[Entry, int] = Runs(_RUN)
        self.going: Runs[Entry, int] = Runs(_RUN)
        self._folder = folder
        self._found = found
        self._gone = gone
        self._spent = _spent(folder, found)

    @property
    def nothing(self) -> bool:
        """Whether there is nothing that could be lost."""
        return not len(self.going)

    def close(self) -> None:
        """Give the room back."""
        self.staying.close()
        self.going.close()

    def gather(self) -> None:
        """Read what goes, and all journals."""
        for name in self._folder.of_kind(Kind.TABLE):
            if name in self._gone and name not in self._spent:
                for entry in _table_entries(self._folder, name, self._found.dialect, deep=True):
                    self._put(self.going, entry)
        for name in self._folder.of_kind(Kind.JOURNAL):
            if name not in self._spent:
                self._journal(name)

    def _journal(self, name: str) -> None:
        kept = self._found.kept.get(name)
        stays = name not in self._gone
        # The replay makes internal keys without a version, which no reader of such keys finds.
        faithful = self._found.dialect is Dialect.STANDARD is self._found.profile.reads_as
        for offset, entries in _journal_entries(self._folder, name, self._found.dialect):
            applied: int | None = 0
            if stays:
                applied = None
            elif kept is not None and faithful:
                applied = kept.entries(offset)
            for index, entry in enumerate(entries):
                reached = applied is None or index < applied
                self._put(self.staying if reached else self.going, entry)

    def _put(self, runs: Runs[Entry, int], entry: Entry) -> None:
        if runs.put(entry, 0, len(entry[0]) + 32):
            runs.end_run()


def _spent(folder: Folder, found: Findings) -> set[str]:
    """Files that a sound manifest has replaced by others."""
    state = found.state
    if state is None or state.manifest is None or not found.manifest_sound:
        return set()
    spent: set[str] = set()
    for name in folder.names:
        desc = filename.parse(name)
        if desc is None:
            continue
        if desc.kind is Kind.MANIFEST and desc.number > state.manifest.number:
            # There is a newer one: what this one does not know may be worth something.
            return set()
        if desc.kind is Kind.JOURNAL:
            old = desc.number < (state.journal_number or 0)
            if old and desc.number != state.previous_journal_number:
                spent.add(name)
        elif desc.kind is Kind.TABLE and desc.number < (state.next_file_number or 0):
            spent.add(name)
    return spent


def _compare(at_stake: _Gatherer, folder: Folder, dialect: Dialect, gone: set[str]) -> Loss:
    streams: list[Iterator[tuple[Entry, bool]]] = []
    for runs, reached in ((at_stake.staying, True), (at_stake.going, False)):
        streams += [_flagged((entry for entry, _ in s), reached) for s in runs.streams()]
    for name in folder.of_kind(Kind.TABLE):
        if name not in gone:
            entries = _table_entries(folder, name, dialect, deep=False)
            streams.append(_flagged(entries, True))
    tally = _Tally()
    for entry, reached in heapq.merge(*streams):
        tally.add(entry, reached=reached)
    return tally.result()


class _Tally:
    """Goes over all entries, one key after the other, the newest entry of each key first."""

    def __init__(self) -> None:
        self._keys = 0
        self._outdated = 0
        self._returned = 0
        self._examples: list[bytes] = []
        self._newest: Entry | None = None
        self._reached = True
        self._left: Entry | None = None
        """The newest entry of the key that stays."""

    def add(self, entry: Entry, *, reached: bool) -> None:
        if self._newest is None or entry[0] != self._newest[0]:
            self._settle()
            self._newest, self._reached, self._left = entry, reached, None
        elif entry == self._newest:
            self._reached = self._reached or reached
        if reached and self._left is None:
            self._left = entry

    def result(self) -> Loss:
        self._settle()
        return Loss(self._keys, self._outdated, self._returned, tuple(self._examples))

    def _settle(self) -> None:
        if self._newest is None or self._reached:
            return
        older = self._left is not None and _puts(self._left)
        if not _puts(self._newest):
            self._returned += older
            return
        self._keys += 1
        self._outdated += older
        if len(self._examples) < _EXAMPLES:
            self._examples.append(self._newest[0])


def _puts(entry: Entry) -> bool:
    return -entry[2] & 0xFF == KeyKind.PUT


def _flagged(entries: Iterator[Entry], reached: bool) -> Iterator[tuple[Entry, bool]]:
    return ((entry, reached) for entry in entries)


def _table_entries(folder: Folder, name: str, dialect: Dialect, *, deep: bool) -> Iterator[Entry]:
    """The entries of sound blocks; with `deep` also of those that no index leads to."""
    try:
        with folder.opened([name]) as opened:
            table = Table(opened.read_at, opened.size)
            for raw, _, _ in table.entries(_ignore, beyond_index=deep):
                entry = _entry_of(raw, dialect)
                if entry is not None:
                    yield entry
    except (OSError, AvccfsError):
        return


def _entry_of(raw: bytes, dialect: Dialect) -> Entry | None:
    if dialect is Dialect.AVCCDB:
        if len(raw) < 16:
            return None
        version, trailer = _VERSION_AND_TRAILER.unpack_from(raw, len(raw) - 16)
        return raw[:-16], -version, -trailer
    if len(raw) < 8:
        return None
    (trailer,) = _TRAILER.unpack_from(raw, len(raw) - 8)
    return raw[:-8], 0, -trailer


def _journal_entries(
    folder: Folder, name: str, dialect: Dialect
) -> Iterator[tuple[int, list[Entry]]]:
    """By offset of its record, the entries of every sound batch.

    Framed as LevelDB does, which gets at more behind damage.
    """
    try:
        with folder.opened([name]) as opened:
            yield from _records(opened, dialect)
    except (OSError, AvccfsError):
        return


def _records(opened: Opened, dialect: Dialect) -> Iterator[tuple[int, list[Entry]]]:
    for item in journal.read(opened.read_at, journal.Policy.LEVELDB):
        if not isinstance(item, journal.Record):
            continue
        decoded = batch.decode(item.payload, dialect)
        entries = decoded.entries
        if decoded.fault is not None and decoded.readings:
            # More than one reading: their keys are much alike, so the first one is good enough.
            entries = decoded.readings[0]
        yield (
            item.offset,
            [
                (entry.key, -(entry.version or 0), -(entry.sequence << 8 | entry.kind))
                for entry in entries
            ],
        )


def _ignore(_: Fault) -> None:
    return
