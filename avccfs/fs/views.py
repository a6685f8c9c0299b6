"""The hidden folder of decoded views: folders, files and links that exist only when looked at.

A view is rendered when its name is looked up, from the state at that moment, so that its size is
exact before anybody opens it (tar, sendfile and mmap need that). As long as what it was made from
has not changed, the rendering is kept and so is its inode number; when it has, the name gets a new
number, because a kernel with a write-back cache believes the size it was told for a number for as
long as it knows that number. The same goes for a rendering that was not kept: whoever comes with
its number is sent back to the name.

In a listing files have a provisional number and the size 0: nothing is rendered for `ls`, and since
no answer here may be cached, whoever wants to know more looks the name up.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from avccfs.fs.inodes import StaleInodeError
from avccfs.fs.rendered import Rendered, Shelf, Write
from avccfs.vfs.base import Stat

FIRST = 1 << 48
"""Inode numbers of views begin here, far above those of files."""

RENDERED_AT_ONCE = 8
"""Each takes some memory while it is rendered."""


@dataclass(frozen=True)
class ViewFile:
    """A file that is made by `render`; `state` tells whether a rendering is still true."""

    render: Callable[[Write], None]
    state: Callable[[], Hashable] | None = None
    """What the content depends on. None: it may always have changed."""
    take: Callable[[str], None] | None = None
    """Takes each line that is written to the file. None: it cannot be written."""


@dataclass(frozen=True)
class ViewLink:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class ViewFolder:
    """A folder; both are asked each time, so that it may follow what the directory holds."""

    entries: Callable[[], Mapping[str, ViewNode]]
    find: Callable[[str], ViewNode | None] | None = None
    """One of the entries, for folders that would have to make a thousand others for it."""

    def get(self, name: str) -> ViewNode | None:
        """The entry of this name."""
        return self.find(name) if self.find is not None else self.entries().get(name)


ViewNode = ViewFile | ViewLink | ViewFolder
_Path = tuple[str, ...]


@dataclass
class _Known:
    """One inode number."""

    path: _Path
    kind: int
    content: Rendered | None = None
    size: int = 0
    state: Hashable = None
    begun_ns: int = 0
    """When the rendering began, or was last seen to be still true; on the monotonic clock."""
    made_ns: int = 0
    lookups: int = 0
    opened: int = 0
    writable: bool = False


@dataclass
class _Gate:
    """Lets one at a time render a view."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class Views:
    """The tree below the hidden folder. May be called from any thread.

    `lookup`, `names` and `readlink` may take long, for they read the database. Nothing else does,
    and nothing else waits for them.
    """

    def __init__(self, root: ViewFolder, *, owner: tuple[int, int]) -> None:
        """`owner` is the (uid, gid) of everything in it."""
        self._root = root
        self._owner = owner
        # Never held while a view is rendered or the database is read.
        self._lock = threading.RLock()
        self._gates: dict[_Path, _Gate] = {}
        self._room = threading.BoundedSemaphore(RENDERED_AT_ONCE)
        self._shelf = Shelf()
        self._next = FIRST + 1
        self._by_number: dict[int, _Known] = {FIRST: _Known((), stat_module.S_IFDIR, lookups=1)}
        self._by_path: dict[_Path, int] = {(): FIRST}
        self._born_ns = time.time_ns()

    @staticmethod
    def owns(number: int) -> bool:
        """Whether an inode number is one of a view."""
        return number >= FIRST

    def lookup_root(self) -> tuple[int, Stat]:
        """The hidden folder itself; counts as a lookup."""
        with self._lock:
            return self._told(FIRST)

    def lookup(self, parent: int, name: str) -> tuple[int, Stat]:
        """Find a view, rendering it if need be; counts as a lookup."""
        arrived = time.monotonic_ns()
        path = (*self._get(parent).path, name)
        node = self._node(path)
        if not isinstance(node, ViewFile):
            with self._lock:
                return self._told(self._lasting(path, *_kind_and_size(node)))
        with self._gate(path):
            begun = time.monotonic_ns()
            with self._lock:
                number, known = self._rendered(path)
                if known is not None and known.begun_ns >= arrived:
                    # Somebody else began after we had come: that is as true as what we would make.
                    return self._told(number)
            state = node.state() if node.state is not None else None
            with self._lock:
                number, known = self._rendered(path)
                if known is not None and node.state is not None and known.state == state:
                    known.begun_ns = begun
                    return self._told(number)
            with self._room:
                content = Rendered(node.render)
            with self._lock:
                number = self._of_content(path, content, state, begun)
                self._by_number[number].writable = node.take is not None
                return self._told(number)

    def getattr(self, number: int) -> Stat:
        """Attributes; sizes are exact but for the provisional numbers of a listing."""
        with self._lock:
            return self._stat(number)

    def readlink(self, number: int) -> str:
        """Where a link leads."""
        node = self._node(self._get(number).path)
        if not isinstance(node, ViewLink):
            raise OSError(errno.EINVAL, "not a symbolic link")
        return node.target

    def names(self, number: int) -> dict[str, tuple[int, int]]:
        """Names in a folder with their type bits, and sizes as far as they are known."""
        node = self._node(self._get(number).path)
        if not isinstance(node, ViewFolder):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        return {name: _kind_and_size(child) for name, child in node.entries().items()}

    def provisional(self, parent: int, name: str, kind: int, size: int) -> tuple[int, Stat]:
        """A number for an entry of a listing, without rendering anything; counts as a lookup."""
        with self._lock:
            path = (*self._get(parent).path, name)
            if kind != stat_module.S_IFREG:
                return self._told(self._lasting(path, kind, size))
            number, known = self._rendered(path)
            if known is None:
                number = self._new(_Known(path, kind))
                node = self._node(path)
                self._by_number[number].writable = isinstance(node, ViewFile) and bool(node.take)
            self._by_number[number].lookups += 1
            return number, self._stat(number)

    def open(self, number: int) -> Rendered:
        """The content of a view; `release` gives it back."""
        with self._lock:
            known = self._get(number)
            if known.content is None:
                # Provisional, or not kept: the caller is to look the name up, which renders it.
                raise StaleInodeError(number)
            known.opened += 1
            self._shelf.take(number)
            return known.content

    def taker(self, number: int) -> Callable[[str], None] | None:
        """What takes lines that are written to a view; None if nothing does."""
        node = self._node(self._get(number).path)
        return node.take if isinstance(node, ViewFile) else None

    def release(self, number: int) -> None:
        """A view was closed."""
        with self._lock:
            known = self._by_number.get(number)
            if known is not None:
                known.opened -= 1
                self._settle(number, waited_for=False)

    def forget(self, number: int, count: int) -> None:
        """The kernel gives lookups back."""
        with self._lock:
            known = self._by_number.get(number)
            if known is not None and number != FIRST:
                known.lookups = max(0, known.lookups - count)
                self._drop_if_unused(number)

    def counts(self) -> tuple[int, int]:
        """How many numbers are known, and how many renderings are there."""
        with self._lock:
            contents = sum(known.content is not None for known in self._by_number.values())
            return len(self._by_number), contents

    def close(self) -> None:
        """Let every rendering go."""
        with self._lock:
            for known in self._by_number.values():
                if known.content is not None:
                    known.content.close()
            self._by_number.clear()
            self._by_path.clear()
            self._shelf = Shelf()

    # -- helpers; those below `_gate` are called with the lock held

    def _get(self, number: int) -> _Known:
        try:
            return self._by_number[number]
        except KeyError:
            raise StaleInodeError(number) from None

    def _node(self, path: _Path) -> ViewNode:
        node: ViewNode = self._root
        for name in path:
            child = node.get(name) if isinstance(node, ViewFolder) else None
            if child is None:
                raise FileNotFoundError(errno.ENOENT, "No such view", "/".join(path))
            node = child
        return node

    @contextmanager
    def _gate(self, path: _Path) -> Iterator[None]:
        with self._lock:
            gate = self._gates.setdefault(path, _Gate())
            gate.users += 1
        try:
            with gate.lock:
                yield
        finally:
            with self._lock:
                gate.users -= 1
                if not gate.users:
                    del self._gates[path]

    def _rendered(self, path: _Path) -> tuple[int, _Known | None]:
        number = self._by_path.get(path, 0)
        known = self._by_number.get(number)
        return number, known if known is not None and known.content is not None else None

    def _lasting(self, path: _Path, kind: int, size: int) -> int:
        """The number of a folder or link, which it keeps while it is known."""
        number = self._by_path.get(path)
        if number is not None and self._by_number[number].kind == kind:
            return number
        return self._new(_Known(path, kind, size=size), current=True)

    def _of_content(self, path: _Path, content: Rendered, state: Hashable, begun: int) -> int:
        number, known = self._rendered(path)
        if known is not None and known.content is not None and content.same_as(known.content):
            content.close()
            known.state, known.begun_ns = state, begun
            return number
        kind, now = stat_module.S_IFREG, time.time_ns()
        return self._new(_Known(path, kind, content, content.size, state, begun, now), current=True)

    def _new(self, known: _Known, *, current: bool = False) -> int:
        number = self._next
        self._next += 1
        self._by_number[number] = known
        if current:
            before = self._by_path.get(known.path)
            self._by_path[known.path] = number
            if before is not None:
                self._drop_if_unused(before)
        return number

    def _told(self, number: int) -> tuple[int, Stat]:
        """The answer of a lookup."""
        self._by_number[number].lookups += 1
        self._settle(number, waited_for=True)
        return number, self._stat(number)

    def _settle(self, number: int, *, waited_for: bool) -> None:
        known = self._by_number[number]
        if known.content is not None and not known.opened:
            for gone in self._shelf.put(number, known.content, waited_for=waited_for):
                self._let_go(gone)
        self._drop_if_unused(number)

    def _let_go(self, number: int) -> None:
        known = self._by_number[number]
        if known.content is not None:
            known.content.close()
            known.content = None
        if self._by_path.get(known.path) == number:
            del self._by_path[known.path]
        self._drop_if_unused(number)

    def _drop_if_unused(self, number: int) -> None:
        known = self._by_number.get(number)
        if known is None or known.lookups or known.opened or number == FIRST:
            return
        if known.content is not None and self._by_path.get(known.path) == number:
            return  # On the shelf, for the next look.
        del self._by_number[number]
        self._shelf.take(number)
        if known.content is not None:
            known.content.close()
        elif self._by_path.get(known.path) == number:
            del self._by_path[known.path]

    def _stat(self, number: int) -> Stat:
        known = self._get(number)
        when = known.made_ns or self._born_ns
        return Stat(
            mode=known.kind | (_WRITABLE if known.writable else _PERMISSIONS[known.kind]),
            size=known.size,
            inode=number,
            uid=self._owner[0],
            gid=self._owner[1],
            blocks=-(-known.size // 512),
            atime_ns=when,
            mtime_ns=when,
            ctime_ns=when,
        )


def _kind_and_size(node: ViewNode) -> tuple[int, int]:
    match node:
        case ViewFile():
            return stat_module.S_IFREG, 0
        case ViewLink():
            return stat_module.S_IFLNK, len(os.fsencode(node.target))
        case ViewFolder():
            return stat_module.S_IFDIR, 0


_WRITABLE = 0o644
_PERMISSIONS = {stat_module.S_IFREG: 0o444, stat_module.S_IFLNK: 0o777, stat_module.S_IFDIR: 0o555}
