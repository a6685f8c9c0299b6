"""The files of a directory that is looked at: names taken once, files opened and read only.

The directory may be in use: a file may vanish between the listing and the reading. Then it is
simply not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from avccfs.errors import AvccfsError
from avccfs.format import filename, journal
from avccfs.format.batch import Evidence
from avccfs.format.filename import Kind
from avccfs.format.ikey import Dialect
from avccfs.format.table import Table
from avccfs.vfs.base import Directory, File

_RECORDS_LOOKED_AT: Final = 1000


@dataclass(frozen=True, slots=True)
class Opened:
    """A file, open for reading."""

    name: str
    file: File
    size: int

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; none at all from where no file can reach."""
        return b"" if offset >= 1 << 63 else self.file.read_at(size, offset)


class Folder:
    """A directory with its names as they were when this was made."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.label = directory.label
        self.names: tuple[str, ...] = tuple(sorted(directory.names()))

    @contextlib.contextmanager
    def opened(self, names: Iterable[str]) -> Iterator[Opened]:
        """The first of these that exists, for the length of a `with` block.

        Raises the system's error for the first name.
        """
        opened = self._first(names)
        try:
            yield opened
        finally:
            opened.file.close()

    def of_kind(self, kind: Kind) -> list[str]:
        """The files of a kind by the names that engines write, in order of their numbers."""
        found = ((filename.parse(name), name) for name in self.names)
        chosen = [(desc, name) for desc, name in found if desc is not None and desc.kind is kind]
        return [name for _, name in sorted(chosen)]

    def dialect(self) -> Dialect:
        """Which form the internal keys have.

        Tables tell for certain; if there is none that can be read, the journals.
        """
        for name in self.of_kind(Kind.TABLE):
            shown = self._look(name, lambda opened: Table(opened.read_at, opened.size).dialect)
            if shown is not None:
                return shown
        for name in self.of_kind(Kind.JOURNAL):
            if self._look(name, _journal_dialect) is Dialect.AVCCDB:
                return Dialect.AVCCDB
        return Dialect.STANDARD

    def _first(self, names: Iterable[str]) -> Opened:
        missing: FileNotFoundError | None = None
        for name in names:
            try:
                file = self.directory.open(name)
            except FileNotFoundError as error:
                missing = missing or error
                continue
            try:
                return Opened(name, file, file.stat().size)
            except BaseException:
                file.close()
                raise
        raise missing or FileNotFoundError(2, "No such file or directory")

    def _look(self, name: str, look: Callable[[Opened], Dialect | None]) -> Dialect | None:
        try:
            with self.opened([name]) as opened:
                return look(opened)
        except (OSError, AvccfsError):
            return None


def _journal_dialect(opened: Opened) -> Dialect | None:
    evidence = Evidence()
    looked_at = 0
    for item in journal.read(opened.read_at, journal.Policy.LEVELDB):
        if isinstance(item, journal.Record):
            evidence.add(item.payload)
            looked_at += 1
            if evidence.versioned_only or looked_at == _RECORDS_LOOKED_AT:
                break
    return evidence.dialect
