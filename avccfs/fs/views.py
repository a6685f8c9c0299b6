"""The hidden folder of decoded views: folders, files and links that exist only when looked at.

A view is rendered when its name is looked up, from the state at that moment, so that its size is
exact before anybody opens it (tar, sendfile and mmap need that). As long as what it was made from
has not changed, the rendering is kept and so is its inode number; when it has, the name gets a new
number, because a kernel with a write-back cache believes the size it was told for a number for as
long as it knows that number.

In a listing files have a provisional number and the size 0: nothing is rendered for `ls`, and since
no answer here may be cached, whoever wants to know more looks the name up.
"""

from __future__ import annotations

import errno
import stat as stat_module
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from avccfs.fs.inodes import StaleInodeError
from avccfs.fs.rendered import Rendered, Write
from avccfs.vfs.base import Stat

FIRST = 1 << 48
"""Inode numbers of views begin here, far above those of files."""

KEPT_BYTES = 256 * 1024 * 1024
"""Renderings that nobody uses are kept up to this much in sum, the ones used last."""


@dataclass(frozen=True)
class ViewFile:
    """A file that is made by `render`; `state` tells whether a rendering is still true."""

    render: Callable[[Write], None]
    state: Callable[[], Hashable] = field(default=lambda: time.monotonic_ns())
    """What the content depends on. The default says: it may always have changed."""


@dataclass(frozen=True)
class ViewLink:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class ViewFolder:
    """A folder; `entries` is asked each time, so that it may follow what the directory holds."""

    entries: Callable[[], Mapping[str, ViewNode]]


ViewNode = ViewFile | ViewLink | ViewFolder


@dataclass
class _Known:
    """One inode number."""

    path: tuple[str, ...]
    kind: int
    content: Rendered | None = None
    state: Hashable = None
    made_ns: int = 0
    lookups: int = 0
    opened: int = 0


class Views:
    """The tree below the hidden folder. May be called from any thread; rendering may take long."""

    def __init__(self, root: ViewFolder, *, owner: tuple[int, int]) -> None:
        """`owner` is the (uid, gid) of everything in it."""
        self._root = root
        self._owner = owner
        self._lock = threading.RLock()
        self._rendering: dict[tuple[str, ...], threading.Lock] = {}
        self._next = FIRST + 1
        self._by_number: dict[int, _Known] = {FIRST: _Known((), stat_module.S_IFDIR, lookups=1)}
        self._by_path: OrderedDict[tuple[str, ...], int] = OrderedDict({(): FIRST})
        self._born_ns = time.time_ns()

    @staticmethod
    def owns(number: int) -> bool:
        """Whether an inode number is one of a view."""
        return number >= FIRST

    def lookup_root(self) -> tuple[int, Stat]:
        """The hidden folder itself; counts as a lookup."""
        with self._lock:
            self._by_number[FIRST].lookups += 1
            return FIRST, self._stat(FIRST)

    def lookup(self, parent: int, name: str) -> tuple[int, Stat]:
        """Find a view, rendering it if need be; counts as a lookup."""
        path = (*self._get(parent).path, name)
        node = self._node(path)
        with self._lock:
            gate = self._rendering.setdefault(path, threading.Lock())
        with gate:
            number = self._number_of(path, node)
        with self._lock:
            self._by_number[number].lookups += 1
            self._trim()
            return number, self._stat(number)

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

    def names(self, number: int) -> list[tuple[str, int]]:
        """Names in a folder with their type bits."""
        node = self._node(self._get(number).path)
        if not isinstance(node, ViewFolder):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        return [(name, _KINDS[type(child)]) for name, child in node.entries().items()]

    def provisional(self, parent: int, name: str, kind: int) -> tuple[int, Stat]:
        """A number for an entry of a listing, without rendering anything; counts as a lookup."""
        with self._lock:
            path = (*self._get(parent).path, name)
            number = self._by_path.get(path)
            if number is None or self._by_number[number].content is None:
                number = self._new(_Known(path, kind), current=kind != stat_module.S_IFREG)
            self._by_number[number].lookups += 1
            return number, self._stat(number)

    def open(self, number: int) -> Rendered:
        """The content of a view; `release` gives it back."""
        with self._lock:
            known = self._get(number)
            if known.content is None:
                # A provisional number: the caller is to look the name up, which renders it.
                raise StaleInodeError(number)
            known.opened += 1
            return known.content

    def release(self, number: int) -> None:
        """A view was closed."""
        with self._lock:
            self._by_number[number].opened -= 1
            self._drop_if_unused(number)

    def forget(self, number: int, count: int) -> None:
        """The kernel gives lookups back."""
        with self._lock:
            known = self._by_number.get(number)
            if known is not None and number != FIRST:
                known.lookups = max(0, known.lookups - count)
                self._drop_if_unused(number)

    def close(self) -> None:
        """Let every rendering go."""
        with self._lock:
            for known in self._by_number.values():
                if known.content is not None:
                    known.content.close()
            self._by_number.clear()
            self._by_path.clear()

    # -- helpers; those that touch the tables are called with the lock held

    def _get(self, number: int) -> _Known:
        try:
            return self._by_number[number]
        except KeyError:
            raise StaleInodeError(number) from None

    def _node(self, path: tuple[str, ...]) -> ViewNode:
        node: ViewNode = self._root
        for name in path:
            child = node.entries().get(name) if isinstance(node, ViewFolder) else None
            if child is None:
                raise FileNotFoundError(errno.ENOENT, "No such view", "/".join(path))
            node = child
        return node

    def _number_of(self, path: tuple[str, ...], node: ViewNode) -> int:
        with self._lock:
            number = self._by_path.get(path)
            known = self._by_number[number] if number is not None else None
        if not isinstance(node, ViewFile):
            if number is not None and known is not None and known.kind == _KINDS[type(node)]:
                return number
            with self._lock:
                return self._new(_Known(path, _KINDS[type(node)]), current=True)
        state = node.state()
        if number is not None and known is not None and known.content is not None:
            if known.state == state:
                return number
            content = Rendered(node.render)
            if content.same_as(known.content):
                content.close()
                known.state = state
                return number
        else:
            content = Rendered(node.render)
        with self._lock:
            fresh = _Known(path, stat_module.S_IFREG, content, state, time.time_ns())
            return self._new(fresh, current=True)

    def _new(self, known: _Known, *, current: bool) -> int:
        number = self._next
        self._next += 1
        self._by_number[number] = known
        if current:
            before = self._by_path.pop(known.path, None)
            self._by_path[known.path] = number
            if before is not None:
                self._drop_if_unused(before)
        return number

    def _drop_if_unused(self, number: int) -> None:
        known = self._by_number[number]
        if known.lookups or known.opened or number == FIRST:
            return
        if self._by_path.get(known.path) == number:
            if known.content is not None:
                return  # Kept for the next look, within the limits of _trim.
            del self._by_path[known.path]
        if known.content is not None:
            known.content.close()
        del self._by_number[number]

    def _trim(self) -> None:
        idle = [
            number
            for number in self._by_path.values()
            if (known := self._by_number[number]).content is not None
            and not known.lookups
            and not known.opened
        ]
        total = sum(self._size(number) for number in idle)
        for number in idle:
            if total <= KEPT_BYTES:
                return
            total -= self._size(number)
            del self._by_path[self._by_number[number].path]
            self._drop_if_unused(number)

    def _size(self, number: int) -> int:
        content = self._by_number[number].content
        return content.size if content is not None else 0

    def _stat(self, number: int) -> Stat:
        known = self._get(number)
        is_file = known.kind == stat_module.S_IFREG
        when = known.made_ns or self._born_ns
        size = self._size(number)
        return Stat(
            mode=known.kind | (0o444 if is_file else 0o555),
            size=size,
            inode=number,
            nlink=2 if known.kind == stat_module.S_IFDIR else 1,
            uid=self._owner[0],
            gid=self._owner[1],
            blocks=-(-size // 512),
            atime_ns=when,
            mtime_ns=when,
            ctime_ns=when,
        )


_KINDS: dict[type[ViewNode], int] = {
    ViewFile: stat_module.S_IFREG,
    ViewLink: stat_module.S_IFLNK,
    ViewFolder: stat_module.S_IFDIR,
}
