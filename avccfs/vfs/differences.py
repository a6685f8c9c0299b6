"""What changed between a directory and the one it lies over (`vfs.layered`).

Names and attributes are compared by listing both. Bytes are read only where the layer above says
that they may differ, and in a file that took the place of another; in pieces, so that size does not
matter. What comes out is a value: it can be shown, asked about, and recognised by its digest.
"""

from __future__ import annotations

import hashlib
import re
import stat as stat_bits
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Final

from avccfs.format.filename import Kind, kind_of
from avccfs.vfs.base import Directory, Stat, join
from avccfs.vfs.changes import NOTHING, Bytes, Change, Changes, Entry, EntryKind, Pointer, What
from avccfs.vfs.layered import LEFT_OUT, Extent, Layered, Origin

MOST_RANGES: Final = 256
"""Ranges that are kept for one file; of more, only the number."""
NEAR: Final = 8
"""Differences with fewer equal bytes than this between them are one range."""

_PIECE: Final = 1 << 18
_POINTER: Final = 64
_DIFFERENT = re.compile(rb"[^\0]+")

Progress = Callable[[int, int, str], None]
"""Told as the reading goes on: bytes done, bytes in all, the path they are in."""


def differences(view: Layered, *, progress: Progress | None = None) -> Changes:
    """Compare `view` with the directory below it; nobody may change either meanwhile.

    A file that was moved away and is not where it was is *renamed*; one under an old name is
    compared with what had that name, and is unchanged if the bytes are the same. Raises what
    listing and reading raise (`OSError`).
    """
    return _Comparison(view, progress).run()


class _Comparison:
    def __init__(self, view: Layered, progress: Progress | None) -> None:
        self._view = view
        self._lower = view.lower
        self._progress = progress
        self._above = _listed(view)
        self._below = _listed(self._lower)
        self._origins = {
            path: self._origin(path)
            for path, found in self._above.items()
            if stat_bits.S_ISREG(found.mode)
        }
        self._main = self._main_names()
        self._done = 0
        self._total = sum(self._size_to_read(path) for path in self._origins)

    def run(self) -> Changes:
        """All of it."""
        found: dict[str, Change] = {}
        for path in sorted(self._above):
            change = self._look_at(path)
            if change is not None:
                found[path] = change
        moved = {each.old_path for each in found.values()}
        for path in self._below.keys() - self._above.keys() - moved:
            found[path] = self._change(What.REMOVED, path)
        return Changes(tuple(found[path] for path in sorted(found)))

    def _look_at(self, path: str) -> Change | None:
        after, before = self._above[path], self._below.get(path)
        kind = EntryKind.of(after)
        same_kind = before is not None and EntryKind.of(before) is kind
        origin = self._origins.get(path)
        if before is None or not same_kind:
            if origin is not None and self._vanished(origin, path):
                return self._renamed(path, origin)
            what = What.ADDED if before is None else What.RETYPED
            return self._change(what, path, self._bytes(path, None, ()))
        if kind is EntryKind.FILE:
            return self._file(path, before, after)
        if kind is EntryKind.LINK and self._lower.readlink(path) != self._view.readlink(path):
            return self._change(What.CHANGED, path)
        return self._attributes(path)

    def _file(self, path: str, before: Stat, after: Stat) -> Change | None:
        """A file where a file was."""
        origin = self._origins[path]
        same = origin is not None and self._below[origin.path].inode == before.inode
        if origin is not None and same:
            found = self._bytes(path, path, origin.altered)
        else:
            found = self._bytes(path, path, (Extent(0, after.size),))
        if not found.count and before.size == after.size:
            return self._attributes(path)
        if origin is not None and not same and self._vanished(origin, path):
            return self._renamed(path, origin)
        return self._change(What.CHANGED, path, found)

    def _renamed(self, path: str, origin: Origin) -> Change:
        found = self._bytes(path, origin.path, origin.altered)
        return self._change(What.RENAMED, path, found, old_path=origin.path)

    def _attributes(self, path: str) -> Change | None:
        change = self._change(What.ATTRIBUTES, path)
        before, after = change.before, change.after
        same = before is None or after is None or before.attributes == after.attributes
        return None if same else change

    def _change(
        self, what: What, path: str, found: Bytes = NOTHING, *, old_path: str | None = None
    ) -> Change:
        before = self._entry(self._lower, path, self._below)
        after = self._entry(self._view, path, self._above)
        replaced, link_of, pointer = None, None, None
        if after is not None and after.kind is EntryKind.FILE:
            main = self._main.get(self._above[path].inode, path)
            link_of = main if main != path and what is not What.ATTRIBUTES else None
        if kind_of(path) is Kind.META and what is not What.ATTRIBUTES:
            pointer = Pointer(
                _beginning(self._lower, before, path), _beginning(self._view, after, path)
            )
        if old_path is not None:
            replaced, before = before, self._entry(self._lower, old_path, self._below)
        return Change(what, path, before, after, found, old_path, replaced, link_of, pointer)

    @staticmethod
    def _entry(directory: Directory, path: str, listed: dict[str, Stat]) -> Entry | None:
        found = listed.get(path)
        if found is None:
            return None
        is_link = stat_bits.S_ISLNK(found.mode)
        return Entry.of(found, directory.readlink(path) if is_link else "")

    # Which file is which

    def _origin(self, path: str) -> Origin | None:
        origin = self._view.origin(path)
        # One of its names below may be among what is left out; then its content decides.
        return origin if origin is not None and origin.path in self._below else None

    def _vanished(self, origin: Origin, path: str) -> bool:
        """Whether the file below is not where it was. `path` is where it is now."""
        there = self._above.get(origin.path)
        return there is None or there.inode != self._above[path].inode

    def _main_names(self) -> dict[int, str]:
        """For each file above with several names the one that stands for it: an old one if any."""
        names: dict[int, list[str]] = {}
        for path in sorted(self._origins):
            names.setdefault(self._above[path].inode, []).append(path)
        found: dict[int, str] = {}
        for inode, paths in names.items():
            if len(paths) > 1:
                origin = self._origins[paths[0]]
                old = origin is not None and origin.path in paths
                found[inode] = origin.path if origin is not None and old else paths[0]
        return found

    # Bytes

    def _size_to_read(self, path: str) -> int:
        origin, size = self._origins[path], self._above[path].size
        before = self._below.get(path)
        if origin is None or (before and self._below[origin.path].inode != before.inode):
            return size
        return sum(each.length for each in self._regions(origin.path, size, origin.altered))

    def _regions(self, below: str | None, size: int, altered: Iterable[Extent]) -> list[Extent]:
        """What there is to compare: the altered ranges and the grown tail, ascending and apart."""
        start = 0 if below is None else min(size, self._below[below].size)
        regions: list[Extent] = []
        for each in sorted((*altered, Extent(start, size - start)), key=lambda e: e.offset):
            low, high = each.offset, min(each.end, size)
            if regions and low <= regions[-1].end:
                last = regions.pop()
                low, high = last.offset, max(last.end, high)
            if low < high:
                regions.append(Extent(low, high - low))
        return regions

    def _bytes(self, path: str, below: str | None, altered: Iterable[Extent]) -> Bytes:
        """Compare a file above with one below, or with nothing."""
        if path not in self._origins:
            return NOTHING
        regions = self._regions(below, self._above[path].size, altered)
        if not regions:
            return NOTHING
        found = _Ranges()
        with ExitStack() as files:
            new = files.enter_context(closing(self._view.open(path)))
            old = files.enter_context(closing(self._lower.open(below))) if below else None
            for offset, size in _pieces(regions):
                data = new.read_at(size, offset)
                former = old.read_at(size, offset) if old else b""
                if data != former:
                    found.compare(offset, data, former)
                self._done += size
                if self._progress is not None:
                    self._progress(self._done, max(self._total, self._done), path)
        return found.result()


class _Ranges:
    """Differences of one file, as they are found, in ascending order."""

    def __init__(self) -> None:
        self._ranges: list[Extent] = []
        self._number = 0
        self._end = -NEAR - 1
        self._count = 0
        self._hash = hashlib.sha256()

    def compare(self, offset: int, data: bytes, former: bytes) -> None:
        """Two pieces that stand at the same offset; the former may be shorter."""
        common = min(len(data), len(former))
        mixed = int.from_bytes(data[:common], "little") ^ int.from_bytes(former[:common], "little")
        for match in _DIFFERENT.finditer(mixed.to_bytes(common, "little")):
            self._add(offset + match.start(), data[match.start() : match.end()])
        if data[common:]:
            self._add(offset + common, data[common:])

    def _add(self, offset: int, data: bytes) -> None:
        self._count += len(data)
        self._hash.update(offset.to_bytes(8, "big") + len(data).to_bytes(8, "big"))
        self._hash.update(data)
        end = offset + len(data)
        if offset - self._end < NEAR and self._number:
            if self._number <= MOST_RANGES:
                first = self._ranges[-1].offset
                self._ranges[-1] = Extent(first, end - first)
        else:
            self._number += 1
            if self._number <= MOST_RANGES:
                self._ranges.append(Extent(offset, len(data)))
        self._end = end

    def result(self) -> Bytes:
        """What was found."""
        if not self._count:
            return NOTHING
        more = self._number - len(self._ranges)
        return Bytes(tuple(self._ranges), more, self._count, self._hash.hexdigest())


def _pieces(regions: Iterable[Extent]) -> Iterator[tuple[int, int]]:
    """Offset and size of pieces to read.

    They end at multiples of the piece's size, so that a file's digest does not depend on how its
    altered ranges happen to be told.
    """
    for region in regions:
        offset = region.offset
        while offset < region.end:
            end = min(region.end, (offset // _PIECE + 1) * _PIECE)
            yield offset, end - offset
            offset = end


def _listed(directory: Directory) -> dict[str, Stat]:
    """Every path with its `lstat`, the directory itself as the empty one."""
    found = {"": directory.stat()}
    folders = [""]
    while folders:
        folder = folders.pop()
        for name, status in directory.scan(folder):
            if not folder and name in LEFT_OUT:
                continue
            path = join(folder, name)
            found[path] = status
            if stat_bits.S_ISDIR(status.mode):
                folders.append(path)
    return found


def _beginning(directory: Directory, entry: Entry | None, path: str) -> bytes | None:
    if entry is None or entry.kind is not EntryKind.FILE:
        return None
    with closing(directory.open(path)) as file:
        return file.read_at(_POINTER, 0)
