"""Which database files a directory has, under which names, and how to read them."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from avccfs.format.filename import FileDesc, Kind, kind_of, name_of, parse
from avccfs.format.journal import ReadAt
from avccfs.vfs.base import Directory, Stat

_LISTED: Final = (Kind.TABLE, Kind.JOURNAL, Kind.MANIFEST)


@dataclass(frozen=True, slots=True)
class Other:
    """An entry that is none of the files which hold the database."""

    name: str
    kind: Kind
    size: int
    folder: bool


class Inventory:
    """A listing of a directory, made once. Raises what the system says if it cannot be made."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.sizes: dict[str, int] = {}
        """In bytes, by name of a table, journal or manifest."""
        self.duplicates: list[str] = []
        """Tables that engines do not read, because there is one of the same number."""
        self.others: list[Other] = []
        self._names: dict[Kind, dict[int, str]] = {kind: {} for kind in _LISTED}
        for name, told in sorted(directory.scan()):
            self._add(name, told)

    def names(self, kind: Kind) -> dict[int, str]:
        """The names of tables, journals or manifests by number, which ascends."""
        return dict(sorted(self._names[kind].items()))

    def name(self, number: int, kind: Kind) -> str:
        """The name of a file; if there is none, the one that it would have."""
        return self._names[kind].get(number) or name_of(FileDesc(number, kind))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[ReadAt, int]]:
        """A file to read, and its size now. `OSError` if the system refuses."""
        file = self._directory.open(name)
        try:
            yield file.read_at, file.stat().size
        finally:
            file.close()

    def _add(self, name: str, told: Stat) -> None:
        desc = parse(name)
        if desc is None or desc.kind not in _LISTED:
            folder = stat.S_ISDIR(told.mode)
            self.others.append(Other(name, kind_of(name), told.size, folder))
            return
        self.sizes[name] = told.size
        names = self._names[desc.kind]
        if desc.number in names:
            # The old name comes second in the alphabet, and engines look for it second.
            self.duplicates.append(name)
        else:
            names[desc.number] = name
