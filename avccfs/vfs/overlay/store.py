"""Where an overlay's own bytes lie: sparse files in the upper directory, and the ledger beside them.

`data/<n>` holds our bytes of one file at the offsets where they are shown; it also carries the
file's size, mode, owner and times. `data/<n>.blocks` has one byte for each block below the limit: 1
where the block is ours. No number is used twice, so a name that a crash brings back misleads nobody.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable

from avccfs.vfs.base import Attributes, Directory, File, Open, Stat
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.overlay.ledger import Ledger, NullLedger
from avccfs.vfs.overlay.state import Json

DATA = "data"
_NAME = re.compile(r"([1-9][0-9]*)(\.blocks)?")
_NEW = Open.WRITE | Open.CREATE | Open.EXCLUSIVE
MOST_DOOMED = 64
"""Files waiting to be deleted, beyond which the ledger is synced to be rid of them."""


def data_name(number: int) -> str:
    """The path of the file with our bytes."""
    return f"{DATA}/{number}"


def blocks_name(number: int) -> str:
    """The path of the file that says which blocks are ours."""
    return f"{DATA}/{number}.blocks"


def number_of(name: str) -> int | None:
    """The number of a file in `data`; None for a name that is not of ours."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


class Store:
    """The upper directory. Methods may be called from several threads at once."""

    def __init__(self, upper: Directory, ledger: Ledger, *, durable: bool) -> None:
        """`durable` is whether anything of it is to be found again."""
        self.upper = upper
        self.ledger = ledger
        self.durable = durable
        self.missing = MemoryDirectory()
        """Stands in, read-only, for files that a crash took; the holes in them are all there is."""
        self.begin_anew: Callable[[], None] = lambda: None
        """Has the ledger begin anew, with all there is to remember."""
        self._doomed: list[tuple[int, int]] = []
        self._mutex = threading.Lock()

    @classmethod
    def in_memory(cls) -> Store:
        """One that is gone with the object."""
        upper = MemoryDirectory()
        upper.mkdir(DATA)
        return cls(upper, NullLedger(), durable=False)

    def create(self, number: int, mode: int = 0o600) -> File:
        """A new file for our bytes."""
        return self.upper.open(data_name(number), _NEW, mode)

    def open(self, number: int, *, writable: bool) -> File:
        """The file with our bytes."""
        name = data_name(number)
        if self.upper.read_only:
            try:
                return self.upper.open(name)
            except FileNotFoundError:
                return self.missing.open(str(number))
        return self.upper.open(name, Open.WRITE if writable else Open.READ)

    def stat(self, number: int) -> Stat:
        """Attributes of the file with our bytes."""
        try:
            return self.upper.stat(data_name(number))
        except FileNotFoundError:
            if not self.upper.read_only:
                raise
            return self.missing.stat(str(number))

    def set_attributes(self, number: int, change: Attributes) -> None:
        """Change attributes of the file with our bytes."""
        self.upper.set_attributes(data_name(number), change)

    def marks(self, number: int) -> bytearray:
        """Which blocks are ours: one byte each, not 0 where they are."""
        if not self.durable:
            return bytearray()
        try:
            file = self.upper.open(blocks_name(number))
        except FileNotFoundError:
            return bytearray()
        try:
            found = bytearray(file.read_at(file.stat().size, 0))
        finally:
            file.close()
        # Anything but 1 is no promise.
        return found.translate(_ONLY_ONES)

    def open_marks(self, number: int, blocks: int) -> File:
        """The file for marks, made with room for this many if there is none."""
        name = blocks_name(number)
        try:
            return self.upper.open(name, Open.WRITE)
        except FileNotFoundError:
            file = self.upper.open(name, _NEW, 0o600)
        try:
            # Its full size first: a file that grows may show anything where it has grown.
            file.truncate(blocks)
            file.sync()
        except BaseException:
            file.close()
            with contextlib.suppress(OSError):
                self.upper.remove(name)
            raise
        return file

    def sync_names(self) -> None:
        """Make the names in `data` durable."""
        if self.durable:
            self.upper.sync(DATA)

    def doom(self, number: int, ticket: int) -> None:
        """Delete a file of ours as soon as the change with this ticket cannot be lost any more."""
        if not self.durable:
            self.delete(number)
            return
        with self._mutex:
            self._doomed.append((ticket, number))

    @property
    def crowded(self) -> bool:
        """Whether so many files wait to be deleted that the ledger should be synced for them."""
        return len(self._doomed) > MOST_DOOMED

    def settle(self, ticket: int) -> None:
        """Make all changes up to a ticket durable, and delete what they leave over."""
        if not self.durable:
            return
        if ticket > self.ledger.reached and self.ledger.overgrown():
            self.begin_anew()
        reached = self.ledger.sync(ticket)
        if not self._doomed:
            return
        with self._mutex:
            free = [number for needed, number in self._doomed if needed <= reached]
            self._doomed = [each for each in self._doomed if each[0] > reached]
        for number in free:
            self.delete(number)

    def delete(self, number: int) -> None:
        """Delete a file of ours; one that resists is left for the next opening to clear away."""
        for name in (
            (blocks_name(number), data_name(number)) if self.durable else (data_name(number),)
        ):
            with contextlib.suppress(OSError):
                self.upper.remove(name)


def encode(record: Json) -> bytes:
    """A record's bytes. Names that are not text survive: they are escaped."""
    return json.dumps(record, separators=(",", ":")).encode("ascii")


_ONLY_ONES = bytes(1 if value == 1 else 0 for value in range(256))
