"""Journals replayed as an engine replays them: every batch kept or dropped, and why.

What is kept goes into sorted runs, as it would go into a memtable and from there into tables of
level 0. The bookkeeping that `loss` needs is one number for each record.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable
from dataclasses import replace

from avccfs.format import journal
from avccfs.session.engines import Profile
from avccfs.session.recovery import batches
from avccfs.session.recovery.keyspace import Order, Source, ordering
from avccfs.session.recovery.prediction import Fate, JournalReplay, JournalStep
from avccfs.session.recovery.runs import Runs

ReadAt = Callable[[int, int], bytes]


class KeptRecords:
    """Which records of a journal got into the database, by the offset of their first chunk."""

    def __init__(self) -> None:
        self._whole = array("Q")
        self._partly: dict[int, int] = {}

    def add(self, offset: int, entries: int | None) -> None:
        """Note a record, in file order: its first `entries` entries, or all of them (None)."""
        if entries is None:
            self._whole.append(offset)
        elif entries:
            self._partly[offset] = entries

    def entries(self, offset: int) -> int | None:
        """How many entries of a record got in; None means all."""
        place = bisect.bisect_left(self._whole, offset)
        if place < len(self._whole) and self._whole[place] == offset:
            return None
        return self._partly.get(offset, 0)


class Replay:
    """The journals of one opening, one after the other."""

    def __init__(self, profile: Profile, sequence: int) -> None:
        self.sequence = sequence
        """The session's sequence number so far."""
        self.journals: list[JournalReplay] = []
        self.kept: dict[str, KeptRecords] = {}
        """By file."""
        self._profile = profile
        self._order = ordering(profile)
        self._runs: Runs[Order, tuple[int | None, bytes]] = Runs(profile.write_buffer)

    def journal(self, file: str, read_at: ReadAt) -> int:
        """Replay one. Returns how many tables its entries fill before its end.

        Raises `batches.PanicError` where the engine's process ends; errors of reading pass through.
        What came before is noted in both cases.
        """
        steps = _Steps()
        kept = self.kept[file] = KeptRecords()
        tables = 0
        try:
            for item in journal.read(read_at, self._profile.framing):
                if isinstance(item, journal.Fault):
                    steps.damage(item)
                    continue
                outcome = batches.apply(item.payload, self._profile, self.sequence)
                full = self._put(outcome)
                moved = outcome.next_sequence
                if moved is not None and (self._profile.like_goleveldb or moved > self.sequence):
                    self.sequence = moved
                whole = outcome.error is None
                kept.add(item.offset, None if whole else len(outcome.applied))
                steps.batch(item.offset, outcome)
                if full:
                    self._runs.end_run()
                    tables += 1
        finally:
            self.journals.append(JournalReplay(file, steps.finished()))
        return tables

    @property
    def pending(self) -> bool:
        """Whether there are entries that fill no table yet."""
        return not self._runs.empty

    def end_table(self) -> None:
        """The entries so far become a table."""
        self._runs.end_run()

    def note(self, text: str) -> None:
        """Say of the last journal why its replay comes to nothing."""
        self.journals[-1] = replace(self.journals[-1], note=text)

    def sources(self) -> list[Source]:
        """What was kept, a source for each table; the first was filled first."""
        return [
            ((order, trailer, value) for order, (trailer, value) in stream)
            for stream in self._runs.streams()
        ]

    def close(self) -> None:
        """Give the room back."""
        self._runs.close()

    def _put(self, outcome: batches.Outcome) -> bool:
        full = False
        for key, trailer, value in outcome.applied:
            order, read_trailer = self._order(key + trailer.to_bytes(8, "little"))
            full |= self._runs.put(order, (read_trailer, value), len(key) + 8 + len(value))
        return full


class _Steps:
    """Puts kept batches together into runs."""

    def __init__(self) -> None:
        self._done: list[JournalStep] = []
        self._first: tuple[int, int | None] | None = None
        """Offset and sequence number of the first batch of the run."""
        self._last: tuple[int, int | None] = (0, None)
        """Offset of the last batch, and sequence number of its last entry."""
        self._batches = 0
        self._entries = 0

    def damage(self, fault: journal.Fault) -> None:
        self._end_run()
        said = "" if fault.report is None else f" ({fault.report.text})"
        why = f"{fault.reason.value}: {fault.detail}{said}"
        offset = fault.offset
        step = JournalStep(offset, offset, Fate.DROPPED, 0, 0, None, None, why, 0, fault.length)
        self._done.append(step)

    def batch(self, offset: int, outcome: batches.Outcome) -> None:
        first = outcome.sequence
        last = None if first is None else max(first, first + outcome.count - 1)
        if outcome.error is None:
            if self._first is None:
                self._first = offset, first
            self._last = offset, last
            self._batches += 1
            self._entries += outcome.count
            return
        self._end_run()
        applied = len(outcome.applied)
        fate, why = Fate.DROPPED, outcome.error
        if applied:
            fate = Fate.PARTLY
            why = f"{why}; what comes before that ({applied} of them) is kept all the same"
        self._done.append(
            JournalStep(offset, offset, fate, 1, outcome.count, first, last, why, applied)
        )

    def finished(self) -> tuple[JournalStep, ...]:
        self._end_run()
        return tuple(self._done)

    def _end_run(self) -> None:
        if self._first is None:
            return
        (offset, sequence), (last_offset, last_sequence) = self._first, self._last
        self._done.append(
            JournalStep(
                offset,
                last_offset,
                Fate.KEPT,
                self._batches,
                self._entries,
                sequence,
                last_sequence,
                "",
                self._entries,
            )
        )
        self._first = None
        self._batches = self._entries = 0
