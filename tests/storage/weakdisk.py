"""A directory in memory that knows what the weakest disk may keep of it (SPEC section 10).

Written apart from the product's own recorder and crash model, and much smaller: it knows meta
files, names, and nothing else. `states` yields every directory that power loss may leave *now*, as
names to contents: every unsynced change of a name kept or lost by itself, in any order, and every
unsynced content whole, torn, or as it was before (zeros, in a new file).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator

from avccfs.format.filename import decode_meta, name_of, pending_name, pending_number
from avccfs.vfs.base import Attributes, Buffer, File, Open, Rename, Stat
from avccfs.vfs.memory import MemoryDirectory

State = dict[str, bytes]


class WeakDisk(MemoryDirectory):
    """What is in it when `settle` is called counts as durable."""

    def __init__(self) -> None:
        super().__init__()
        self.before_sync: Callable[[], None] = lambda: None
        self.directory_syncs = 0
        self._now: dict[int, bytes] = {}
        self._durable: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        self._maybe: dict[str, set[int | None]] = {}

    def put(self, name: str, content: bytes) -> None:
        """Write a file, without syncing anything."""
        file = self.open(name, Open.WRITE | Open.CREATE | Open.TRUNCATE)
        file.write_at(content, 0)
        file.close()

    def settle(self) -> None:
        """Everything so far is durable."""
        self._durable = dict(self._now)
        self._sync_names()

    def states(self) -> Iterator[State]:
        options = {}
        for name in self._names.keys() | self._maybe.keys():
            inodes = self._maybe.get(name, {self._names.get(name)})
            options[name] = sorted(
                {content for inode in inodes for content in self._contents(inode)}, key=repr
            )
        for contents in itertools.product(*options.values()):
            found = zip(options, contents, strict=True)
            yield {name: content for name, content in found if content is not None}

    def _contents(self, inode: int | None) -> set[bytes | None]:
        if inode is None:
            return {None}
        now, durable = self._now[inode], self._durable.get(inode)
        return {now} if now == durable else {now, durable or bytes(len(now)), now[: len(now) // 2]}

    def _sync_names(self) -> None:
        self._names = {name: self.stat(name).inode for name in self.names()}
        self._maybe = {}

    def _changed(self, name: str, *values: int | None) -> None:
        self._maybe.setdefault(name, {self._names.get(name)}).update(values)

    # What is watched

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> File:  # type: ignore[override]
        existed = path in self.names()
        file = super().open(path, flags, mode)
        inode = file.stat().inode
        if not existed:
            self._changed(path, inode)
        if not existed or Open.TRUNCATE in flags:
            self._now[inode] = b""
        return _Watched(self, file, inode)

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        moved = self.stat(old).inode
        replaced = self.stat(new).inode if new in self.names() else None
        super().rename(old, new, how)
        self._changed(new, None, moved)
        self._changed(old, None, *([replaced] if how is Rename.EXCHANGE else []))

    def remove(self, path: str) -> None:
        super().remove(path)
        self._changed(path, None)

    def sync(self, path: str = "") -> None:
        self.before_sync()
        super().sync(path)
        self._sync_names()
        self.directory_syncs += 1

    def wrote(self, inode: int, file: File) -> None:
        self._now[inode] = file.read_at(1 << 20, 0)

    def synced(self, inode: int) -> None:
        self._durable[inode] = self._now[inode]


class _Watched:
    def __init__(self, disk: WeakDisk, inner: File, inode: int) -> None:
        self._disk = disk
        self._inner = inner
        self._inode = inode

    def read_at(self, size: int, offset: int) -> bytes:
        return self._inner.read_at(size, offset)

    def write_at(self, data: Buffer, offset: int) -> int:
        written = self._inner.write_at(data, offset)
        self._disk.wrote(self._inode, self._inner)
        return written

    def truncate(self, size: int) -> None:
        self._inner.truncate(size)
        self._disk.wrote(self._inode, self._inner)

    def sync(self, *, data_only: bool = False) -> None:
        self._disk.before_sync()
        self._inner.sync(data_only=data_only)
        self._disk.synced(self._inode)

    def stat(self) -> Stat:
        return self._inner.stat()

    def set_attributes(self, change: Attributes) -> None:
        self._inner.set_attributes(change)

    def close(self) -> None:
        self._inner.close()


_target = functools.cache(decode_meta)


def answer(state: State) -> int | None:
    """The number that get_meta answers with in a state; None for either of its errors.

    A second, independent wording of SPEC section 3.
    """

    def good(name: str) -> int | None:
        target = _target(state.get(name, b""))
        return None if target is None or name_of(target) not in state else target.number

    numbers = sorted((n for n in map(pending_number, state) if n is not None), reverse=True)
    pending = next((g for n in numbers if (g := good(pending_name(n))) is not None), None)
    plain = good("CURRENT")
    if plain is None:
        plain = good("CURRENT.bak")
    if pending is not None and (plain is None or pending > plain):
        return pending
    return plain
