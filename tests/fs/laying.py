"""A place on an overlay in which what a test makes to begin with lies in the directory below.

The behaviour suite makes its own files, and on a new overlay all of them would be the overlay's own.
Here files, folders and links are made in the lower directory for as long as a test does nothing but
make and open them; with its first other question the overlay is laid over them, and what is open is
opened anew there.
"""

from __future__ import annotations

import dataclasses
import os
import stat as stat_bits
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from avccfs.fs.core import Core
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Directory, Rename, Space, Stat, join, split
from avccfs.vfs.overlay import Overlay
from tests.fs.places import CoreOpened, CorePlace, Facts, Opened
from tests.vfs.laid import read, walk

MOST = 1 << 24
"""Bytes of a file in the lower directory, or somewhat more."""
_CREATING = os.O_CREAT | os.O_EXCL | os.O_TRUNC

Proof = dict[str, tuple[Stat, bytes | str | None]]


def proof_of(directory: Directory) -> Proof:
    """All that is in a directory: attributes (times of reading aside), content, where links point."""
    found: Proof = {}
    for path, status in (("", directory.stat()), *walk(directory)):
        held: bytes | str | None = None
        if stat_bits.S_ISREG(status.mode):
            held = read(directory, path)
        elif stat_bits.S_ISLNK(status.mode):
            held = directory.readlink(path)
        found[path] = dataclasses.replace(status, atime_ns=0), held
    return found


@dataclass
class Ground:
    """The lower directory, and the overlay from the moment there is one."""

    name: str
    writable: Directory
    """The lower directory, to make things in."""
    lay_over: Callable[[], Overlay]
    """Makes the overlay. It may open the lower directory anew, read-only."""

    def __post_init__(self) -> None:
        storage = DirectoryStorage(self.writable, take_lock=False, write_log=False)
        self._laid = CorePlace(Core(storage), self.name)
        self._above: CorePlace | None = None
        self._proof: Proof = {}
        self._counts = (0, 0)
        self.open: list[LaidOpened] = []

    @property
    def below(self) -> CorePlace | None:
        """Where things are made; None once the overlay lies over them."""
        return self._laid if self._above is None else None

    def above(self) -> CorePlace:
        """The overlay, laid now if it was not yet."""
        if self._above is None:
            for one in self.open:
                one.let_go()
            self._proof = proof_of(self.writable)
            self._above = CorePlace(Core(DirectoryStorage(self.lay_over())), self.name)
            self._counts = self._above.core.counts()
            for one in self.open:
                one.open_above(self._above)
            self.open.clear()
        return self._above

    @contextmanager
    def standing(self) -> Iterator[LaidPlace]:
        """The place; at the end nothing may be held, and nothing may have changed below."""
        try:
            yield LaidPlace(self)
            if self._above is not None:
                counts = self._above.core.counts()
                assert counts == self._counts, "identities or handles were left behind"
                assert proof_of(self.writable) == self._proof, "the lower directory was changed"
        finally:
            if self._above is not None:
                self._above.core.close()
            self._laid.core.close()


class LaidOpened:
    """An open file, first below and then above."""

    def __init__(self, ground: Ground, path: str, flags: int, opened: CoreOpened) -> None:
        self._ground = ground
        self._path = path
        self._flags = flags
        self._opened = opened
        ground.open.append(self)

    def let_go(self) -> None:
        self._opened.close()

    def open_above(self, place: CorePlace) -> None:
        self._opened = place.open(self._path, self._flags & ~_CREATING)

    def _above(self) -> CoreOpened:
        self._ground.above()
        return self._opened

    def read(self, size: int, offset: int) -> bytes:
        return self._above().read(size, offset)

    def write(self, data: bytes, offset: int) -> int:
        # What a new file begins with. (A hole of a terabyte would have to be read for the proof.)
        laying = self._flags & os.O_CREAT and offset < MOST
        opened = self._opened if laying else self._above()
        return opened.write(data, offset)

    def append(self, data: bytes) -> int:
        return self._above().append(data)

    def truncate(self, size: int) -> None:
        self._above().truncate(size)

    def chmod(self, mode: int) -> None:
        self._above().chmod(mode)

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        self._above().utime(atime_ns, mtime_ns)

    def sync(self, *, data_only: bool = False) -> None:
        self._above().sync(data_only=data_only)

    def facts(self) -> Facts:
        return self._above().facts()

    def close(self) -> None:
        if self in self._ground.open:
            self._ground.open.remove(self)
        self._opened.close()


class LaidPlace:
    """See the module's text."""

    def __init__(self, ground: Ground, below: str = "") -> None:
        self.name = ground.name
        self._ground = ground
        self._below = below

    def within(self, folder: str) -> LaidPlace:
        return LaidPlace(self._ground, join(self._below, folder))

    def _above(self) -> CorePlace:
        return CorePlace(self._ground.above().core, self.name, self._below)

    def _to_make(self, path: str) -> CorePlace:
        """Where something of this name is to be made: above, if it is there or has no folder."""
        laid = self._ground.below
        if laid is None or not path:
            return self._above()
        place = CorePlace(laid.core, self.name, self._below)
        is_free = _is_folder(place, split(path)[0]) and not _is_there(place, path)
        return place if is_free else self._above()

    def _to_look_at(self, path: str) -> CorePlace:
        """Where a file is to be opened: above, if it is not there."""
        laid = self._ground.below
        if laid is None:
            return self._above()
        place = CorePlace(laid.core, self.name, self._below)
        return place if _is_file(place, path) else self._above()

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> Opened:
        if not flags & os.O_CREAT:
            place = self._to_look_at(path) if not flags & os.O_TRUNC else self._above()
        else:
            place = self._to_make(path)
        opened = place.open(path, flags, mode)
        if self._ground.below is None:
            return opened
        return LaidOpened(self._ground, join(self._below, path), flags, opened)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._to_make(path).mkdir(path, mode)

    def symlink(self, path: str, target: str) -> None:
        self._to_make(path).symlink(path, target)

    def link(self, existing: str, new: str) -> None:
        self._to_make(new).link(existing, new)

    def mknod(self, path: str, kind: int = stat_bits.S_IFREG) -> None:
        self._to_make(path).mknod(path, kind)

    def facts(self, path: str = "") -> Facts:
        return self._above().facts(path)

    def iterate(self, path: str = "") -> Generator[str, None, None]:
        return self._above().iterate(path)

    def same_file(self, one: str, other: str) -> bool:
        return self._above().same_file(one, other)

    def space(self) -> Space:
        return self._above().space()

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        self._above().rename(old, new, how)

    def unlink(self, path: str) -> None:
        self._above().unlink(path)

    def rmdir(self, path: str) -> None:
        self._above().rmdir(path)

    def readlink(self, path: str) -> str:
        return self._above().readlink(path)

    def truncate(self, path: str, size: int) -> None:
        self._above().truncate(path, size)

    def chmod(self, path: str, mode: int) -> None:
        self._above().chmod(path, mode)

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        self._above().utime(path, atime_ns, mtime_ns)

    def sync(self, path: str = "") -> None:
        self._above().sync(path)


def _is_folder(place: CorePlace, path: str) -> bool:
    try:
        return stat_bits.S_ISDIR(place.facts(path).mode)
    except OSError:
        return False


def _is_file(place: CorePlace, path: str) -> bool:
    try:
        return stat_bits.S_ISREG(place.facts(path).mode)
    except OSError:
        return False


def _is_there(place: CorePlace, path: str) -> bool:
    try:
        place.facts(path)
    except FileNotFoundError:
        return False
    except OSError:
        # A name that cannot be: let the overlay say so.
        return True
    return True
