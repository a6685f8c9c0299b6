"""What was written and not synced yet, so that `drop` can take it back.

Kept per file, whichever handles and names it has: the ranges written since its last successful
sync, and for those that lay within the file the bytes that they replaced. Appended ranges cost
nothing: they turn into zeros.

The old bytes of a directory are limited (64 MiB unless told otherwise). An overwrite that would go
beyond counts as if the system had written it back early, as one short of memory does: it is not
taken back. So does all that is unsynced in the file closed longest ago, when more than
four thousand are. A truncation is not taken back: it is a matter of the file system's journal. Changes made
past this directory are not seen.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from avccfs.vfs.base import Buffer, File

LIMIT = 64 * 2**20
"""Old bytes kept for one directory."""
_CLOSED_FILES = 4096
"""Files that are kept in mind though nobody has them open."""
_PIECE = 2**16


@dataclass(slots=True)
class Range:
    """Bytes of a file that were written since its last sync."""

    start: int
    end: int
    old: bytes | None
    """What was there before; None where the file had not reached yet, which reads as zeros."""


class Ranges:
    """Ranges in order and apart. What is there first stays: it has the oldest bytes."""

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: list[Range] = []

    @property
    def old_bytes(self) -> int:
        """How many bytes are kept for them."""
        return sum(len(one.old) for one in self.all if one.old is not None)

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of start to end is in no range."""
        found = []
        index = bisect_right(self.all, start, key=lambda one: one.end)
        while index < len(self.all) and self.all[index].start < end:
            if start < self.all[index].start:
                found.append((start, self.all[index].start))
            start = self.all[index].end
            index += 1
        if start < end:
            found.append((start, end))
        return found

    def put(self, new: Range) -> None:
        """Add a range that lies in a gap."""
        index = bisect_right(self.all, new.start, key=lambda one: one.start)
        before = self.all[index - 1] if index else None
        if new.old is None and before and before.old is None and before.end == new.start:
            before.end = new.end
        else:
            self.all.insert(index, new)

    def cut(self, size: int) -> None:
        """Forget what lies beyond."""
        self.all = [one for one in self.all if one.start < size]
        if self.all and self.all[-1].end > size:
            last = self.all[-1]
            last.end = size
            last.old = None if last.old is None else last.old[: size - last.start]


class Unsynced:
    """The unsynced ranges of every file of one directory. Safe between threads."""

    def __init__(self, limit: int = LIMIT) -> None:
        """Keep at most `limit` old bytes."""
        self._mutex = threading.RLock()
        self._tracks: dict[int, Track] = {}
        self._room = limit

    def join(self, inode: int, file: File, *, writable: bool) -> Track:
        """A handle of the file was opened."""
        with self._mutex:
            track = self._tracks.get(inode)
            if track is None:
                track = self._tracks[inode] = Track(self, inode)
            track.handles += 1
            if writable:
                track.writers.append(file)
            return track

    def leave(self, track: Track, file: File) -> None:
        """A handle is about to be closed: nothing is written through it any more."""
        with track.mutex:
            if file in track.writers:
                track.writers.remove(file)
        with self._mutex:
            track.handles -= 1
            if not track.handles and (track.nameless or not track.ranges.all):
                self._forget(track)
            elif not track.handles:
                self._tracks[track.inode] = self._tracks.pop(track.inode)
                if len(self._tracks) > _CLOSED_FILES:
                    self._forget(next(one for one in self._tracks.values() if not one.handles))

    def removed(self, inode: int) -> None:
        """A file has lost its last name; its inode number may soon be another's."""
        with self._mutex:
            track = self._tracks.get(inode)
            if track is not None:
                track.nameless = True
                if not track.handles:
                    self._forget(track)

    def take(self, size: int) -> bool:
        """Ask for room for old bytes."""
        with self._mutex:
            granted = size <= self._room
            self._room -= size if granted else 0
            return granted

    def give(self, size: int) -> None:
        """Give room back."""
        with self._mutex:
            self._room += size

    def _forget(self, track: Track) -> None:
        self._room += track.ranges.old_bytes
        track.ranges = Ranges()
        if self._tracks.get(track.inode) is track:
            del self._tracks[track.inode]


class Track:
    """One file's unsynced ranges. Every change of its content goes through here."""

    def __init__(self, owner: Unsynced, inode: int) -> None:
        self.inode = inode
        self.mutex = threading.RLock()
        self.ranges = Ranges()
        self.writers: list[File] = []
        """Inner handles that can write, for taking back."""
        self.handles = 0
        self.nameless = False
        self._owner = owner

    def write(self, file: File, data: Buffer, offset: int) -> int:
        """Write through an inner handle; returns as it does."""
        length = data.nbytes if isinstance(data, memoryview) else len(data)
        with self.mutex:
            if length and offset >= 0:
                self._remember(file, offset, offset + length)
            return file.write_at(data, offset)

    def _remember(self, file: File, start: int, end: int) -> None:
        size = file.stat().size
        for first, last in self.ranges.gaps(start, end):
            inside = min(last, size)
            if first < inside and self._owner.take(inside - first):
                old = file.read_at(inside - first, first)
                self.ranges.put(Range(first, inside, old.ljust(inside - first, b"\0")))
            if last > size:
                self.ranges.put(Range(max(first, size), last, None))

    def truncate(self, file: File, size: int) -> None:
        """Cut or extend through an inner handle."""
        with self.mutex:
            file.truncate(size)
            self.cut(size)

    def cut(self, size: int) -> None:
        """The file was cut to that size: what was written beyond is gone, for good."""
        with self.mutex:
            before = self.ranges.old_bytes
            self.ranges.cut(size)
            self._owner.give(before - self.ranges.old_bytes)

    def sync(self, action: Callable[[], None]) -> None:
        """Carry out a sync; when it succeeds, what was written before it began is safe."""
        with self.mutex:
            under_way, self.ranges = self.ranges, Ranges()
        try:
            action()
        except BaseException:
            with self.mutex:
                self._put_back(under_way)
            raise
        self._owner.give(under_way.old_bytes)

    def _put_back(self, older: Ranges) -> None:
        """What a failed sync had taken in hand is as unsynced as before."""
        newer, self.ranges = self.ranges, older
        before = newer.old_bytes + older.old_bytes
        for one in newer.all:
            for start, end in older.gaps(one.start, one.end):
                old = one.old
                part = None if old is None else old[start - one.start : end - one.start]
                older.put(Range(start, end, part))
        self._owner.give(before - older.old_bytes)

    def drop(self, reopen: Callable[[], File | None]) -> tuple[int, int] | None:
        """Take everything unsynced back: old bytes where there were some, zeros elsewhere.

        Returns how many bytes in how many ranges that were; None if the file can no longer be
        written. `reopen` opens it for writing where no handle of it can.
        """
        with self.mutex:
            ranges = self.ranges.all
            if not ranges:
                return 0, 0
            borrowed = None if self.writers else reopen()
            if not self.writers and borrowed is None:
                return None
            try:
                count = _take_back(borrowed or self.writers[-1], ranges)
            finally:
                if borrowed is not None:
                    borrowed.close()
            self._owner.give(self.ranges.old_bytes)
            self.ranges = Ranges()
            return count, len(ranges)


def _take_back(file: File, ranges: list[Range]) -> int:
    """Write what was there before; returns how many bytes."""
    size = file.stat().size
    count = 0
    for one in ranges:
        end = min(one.end, size)
        for start in range(one.start, end, _PIECE):
            stop = min(start + _PIECE, end)
            old = one.old
            piece = (
                bytes(stop - start) if old is None else old[start - one.start : stop - one.start]
            )
            file.write_at(piece, start)
        count += max(0, end - one.start)
    return count
