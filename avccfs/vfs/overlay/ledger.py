"""The ledger of an overlay: every change of names and nodes, in order, in one file.

A ledger is a file of journal records (`format.journal`) with JSON in them. The first record holds
everything that was true when the file was begun, each further one a change. A file is never
replaced: a new one with the next higher number is made durable first, then the old one goes. So at
every moment one of them is complete, even where a crash may tear a rename into its halves.
"""

from __future__ import annotations

import contextlib
import re
import threading
from typing import Protocol

from avccfs.format import journal
from avccfs.vfs import rules
from avccfs.vfs.base import Directory, File, Open

_NAME = re.compile(r"ledger-([0-9]{6,})")


def name_of(number: int) -> str:
    """The name of a ledger's file."""
    return f"ledger-{number:06d}"


def numbers_in(names: list[str]) -> list[int]:
    """The numbers of the ledgers among these names, the newest first."""
    found = (_NAME.fullmatch(name) for name in names)
    return sorted((int(match[1]) for match in found if match), reverse=True)


def read(upper: Directory, number: int) -> list[bytes]:
    """The records of a ledger up to the first damage: what was being appended in a crash is torn.

    No record at all: this ledger was never complete.
    """
    file = upper.open(name_of(number))
    try:
        content = file.read_at(file.stat().size, 0)
    finally:
        file.close()
    records = []
    for item in journal.read(content, journal.Policy.GOLEVELDB):
        if isinstance(item, journal.Fault):
            break
        records.append(item.payload)
    return records


class Ledger(Protocol):
    """Where changes are written down. `append` is called by one thread at a time."""

    def append(self, payload: bytes) -> int:
        """Write a change down; returns a ticket for `sync`. What fails leaves nothing behind."""

    def sync(self, ticket: int) -> int:
        """Make everything up to a ticket durable; returns up to which ticket all is."""

    @property
    def reached(self) -> int:
        """Up to which ticket all is durable."""

    def overgrown(self) -> bool:
        """Whether it is time to `restart`: it has grown, or a sync of it failed."""

    def restart(self, payload: bytes) -> None:
        """Begin anew with this as the first record, durably."""

    def close(self) -> None:
        """Release the file; may be called again."""


class NullLedger:
    """Nothing is written down: the overlay lives in memory."""

    def append(self, payload: bytes) -> int:
        """Nothing to do."""
        return 0

    def sync(self, ticket: int) -> int:
        """Nothing to do."""
        return ticket

    @property
    def reached(self) -> int:
        """No ticket was given."""
        return 0

    def overgrown(self) -> bool:
        """Never."""
        return False

    def restart(self, payload: bytes) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class FileLedger:
    """A ledger in the upper directory."""

    GROWTH = 4 * 2**20
    """Bytes past which a ledger is overgrown if it also is several times its first record."""
    TIMES = 4

    def __init__(self, upper: Directory, number: int) -> None:
        """`number` is the highest in use, 0 for none. Nothing is there before `restart`."""
        self._upper = upper
        self._number = number
        self._file: File | None = None
        self._writer = journal.Writer()
        self._first = 0
        self._ticket = 0
        self._synced = 0
        self._torn = False
        self._doubtful = False
        """A sync failed: a later one that succeeds says nothing of what was appended before."""
        self._stillborn: str | None = None
        """A newer ledger that must not be found: to be removed before anything else is promised."""
        self._mutex = threading.Lock()
        """Held by whoever replaces the file, or makes it durable."""

    def append(self, payload: bytes) -> int:
        """See `Ledger`. Raises what writing raises."""
        file = self._held()
        self._bury()
        good = self._writer.offset
        if self._torn:
            file.truncate(good)
            self._torn = False
        data = self._writer.append(payload)
        try:
            self._write(file, data, good)
        except BaseException:
            # Nothing may follow a torn record: it would never be read.
            self._writer = journal.Writer(good)
            self._torn = True
            with contextlib.suppress(OSError):
                file.truncate(good)
                self._torn = False
            raise
        self._ticket += 1
        return self._ticket

    @staticmethod
    def _write(file: File, data: bytes, offset: int) -> None:
        done = 0
        while done < len(data):
            done += file.write_at(data[done:], offset + done)

    def sync(self, ticket: int) -> int:
        """See `Ledger`. Raises what syncing raises."""
        if ticket > self._synced:
            with self._mutex:
                if ticket > self._synced:
                    reached = self._ticket
                    self._bury()
                    try:
                        self._held().sync(data_only=True)
                    except OSError:
                        self._doubtful = True
                        raise
                    self._synced = reached
        return self._synced

    @property
    def reached(self) -> int:
        """See `Ledger`."""
        return self._synced

    def overgrown(self) -> bool:
        """See `Ledger`."""
        return self._doubtful or self._writer.offset > max(self.GROWTH, self.TIMES * self._first)

    def restart(self, payload: bytes) -> None:
        """See `Ledger`. If it fails the old ledger goes on."""
        with self._mutex:
            self._bury()
            name = name_of(self._number + 1)
            writer = journal.Writer()
            data = writer.append(payload)
            file = self._upper.open(name, Open.WRITE | Open.CREATE | Open.TRUNCATE, 0o600)
            try:
                self._write(file, data, 0)
                file.sync()
                self._upper.sync()
            except BaseException:
                file.close()
                self._stillborn = name
                with contextlib.suppress(OSError):
                    self._bury()
                raise
            old, self._file, self._writer = self._file, file, writer
            self._number += 1
            self._first = len(data)
            self._torn = self._doubtful = False
            self._synced = self._ticket
        if old is not None:
            old.close()
        for number in numbers_in(self._upper.names()):
            if number < self._number:
                self._upper.remove(name_of(number))

    def close(self) -> None:
        """See `Ledger`."""
        with self._mutex:
            file, self._file = self._file, None
        if file is not None:
            file.close()

    def _bury(self) -> None:
        """See that a ledger that failed to begin is gone for good."""
        if self._stillborn is not None:
            with contextlib.suppress(FileNotFoundError):
                self._upper.remove(self._stillborn)
            self._upper.sync()
            self._stillborn = None

    def _held(self) -> File:
        if self._file is None:
            raise rules.closed_directory(self._upper.label)
        return self._file
