"""The key space that an engine would show after opening a directory, key by key.

The opening is gone through as `recovery` predicts it, and what it ends with, the reading of every
key, gives the keys away. Nothing is locked and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from avccfs.format.batch import Entry
from avccfs.format.ikey import Dialect, KeyKind
from avccfs.session.engines import BadBlock, Profile
from avccfs.session.folder import Folder
from avccfs.session.recovery import Call, goleveldb, leveldb
from avccfs.session.recovery.findings import Findings
from avccfs.session.recovery.keyspace import ReadError, Source, Status, UndefinedError, merge
from avccfs.vfs.base import Directory

AT_ONCE: Final = 100
"""Keys that are given at once."""

Take = Callable[[list[Entry]], None]
"""Gets some keys, each with its newest value, as entries of a batch have them. The version is None
unless the engine reads versions."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How it went."""

    dialect: Dialect
    """Of the database; the engine may read another one."""
    refusal: str | None
    """Why the engine does not open the database, in its words; None if it does."""
    stopped: str | None
    """Why reading stops before the last key; None if it does not."""


def read(
    directory: Directory, profile: Profile, take: Take, *, dialect: Dialect | None = None
) -> Ending:
    """Give every key that the engine would show to `take`, in order.

    If the engine opens the database, `take` is called at least once. What it raises passes through,
    and so does an error of listing the directory.
    """
    folder = Folder(directory)
    found = _Reader(folder, profile, dialect or folder.dialect(), take)
    if profile.like_goleveldb:
        goleveldb.predict_open(folder, found)
    else:
        leveldb.predict_open(folder, found)
    refusal = found.error
    if refusal is None and not found.was_read:
        refusal = found.uncertain or "nobody can say what comes out"
    return Ending(found.dialect, refusal, found.stopped)


class _Reader(Findings):
    """Gives the keys away, where a prediction counts them."""

    def __init__(self, folder: Folder, profile: Profile, dialect: Dialect, take: Take) -> None:
        super().__init__(folder, profile, Call.OPEN, dialect)
        self.was_read = False
        self.stopped: str | None = None
        self._take = take

    def read(self, sources: list[Source], status: Status) -> None:
        """Go over every key."""
        self.was_read = True
        some: list[Entry] = []
        try:
            for entry in self._visible(merge(sources, self.profile), status):
                some.append(entry)
                if len(some) == AT_ONCE:
                    self._take(some)
                    some = []
        except (ReadError, UndefinedError) as error:
            self.stopped = str(error)
        self._take(some)

    def _visible(self, merged: Source, status: Status) -> Iterator[Entry]:
        """By the rules by which `recovery.keyspace.read_all` counts."""
        versioned = self.profile.reads_as is Dialect.AVCCDB
        newest = self.sequence or 0
        last: bytes | None = None
        for (user, minus_version, _), trailer, value in merged:
            if trailer is None:
                if self.profile.bad_block is BadBlock.STOPS:
                    raise ReadError("an internal key does not decode")
                status.add("an internal key does not decode")
                continue
            if trailer >> 8 > newest:
                continue
            if not trailer & 0xFF:
                last = user
            elif last is None or user > last:
                if status.error is not None:
                    break
                last = user
                version = -minus_version if versioned else None
                yield Entry(KeyKind.PUT, user, value, trailer >> 8, version, 0, 0)
        self.stopped = status.error
