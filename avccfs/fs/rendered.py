"""What a view holds: rendered once, of exact size, and in memory only while it is small."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import IO, Final

IN_MEMORY = 1024 * 1024
"""Bytes up to which a rendering stays in memory; a larger one goes to a nameless file."""

KEPT_BYTES = 256 * 1024 * 1024
"""Bytes of files that are kept for renderings that nobody has open."""

KEPT_IN_MEMORY = 16 * 1024 * 1024
"""The same for those in memory."""

WAITED_FOR: Final = 4
"""So many renderings that were asked for last are kept until they are opened, however large."""

_OVERHEAD: Final = 1024
"""What even an empty rendering takes in memory, in bytes, with all that is noted about it."""

Write = Callable[[bytes], object]
"""Takes a piece of what is rendered."""


class Rendered:
    """The bytes of a view, unchanging. May be read from any thread."""

    __slots__ = ("_bytes", "_file", "size")

    def __init__(self, render: Callable[[Write], None]) -> None:
        """Keep what `render` writes. At any moment `IN_MEMORY` of it is held, and one piece.

        Raises what `render` raises, and `OSError` if there is no place for a large one.
        """
        self._bytes = b""
        self._file: IO[bytes] | None = None
        self.size = 0
        waiting: list[bytes] = []
        held = 0

        def write(piece: bytes) -> None:
            nonlocal held
            waiting.append(piece)
            held += len(piece)
            self.size += len(piece)
            if held > IN_MEMORY:
                spill()

        def spill() -> None:
            nonlocal held
            if self._file is None:
                self._file = _nameless_file()
            for piece in waiting:
                _write_all(self._file.fileno(), piece)
            waiting.clear()
            held = 0

        try:
            render(write)
            if self.size > IN_MEMORY:
                spill()
            else:
                self._bytes = b"".join(waiting)
        except BaseException:
            self.close()
            raise

    @property
    def in_memory(self) -> int:
        """Bytes that it takes in memory."""
        return _OVERHEAD + len(self._bytes)

    @property
    def on_disk(self) -> int:
        """Bytes of the file behind it; 0 if there is none."""
        return self.size if self._file is not None else 0

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`."""
        if self._file is not None:
            return os.pread(self._file.fileno(), size, offset)
        return self._bytes[offset : offset + size]

    def same_as(self, other: Rendered) -> bool:
        """Whether both are small and equal: then one may stand for the other."""
        small = self._file is None and other._file is None
        return small and self._bytes == other._bytes

    def close(self) -> None:
        """Let the bytes go; nothing can be read any more."""
        self._bytes = b""
        if self._file is not None:
            self._file.close()


class Shelf:
    """Renderings that nobody has open, by number: those that were asked for last.

    A kernel never says that it does not need one any more, as long as it has room for the name. So
    how much is kept is decided here. Not locked: the owner calls it from one thread at a time.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Rendered] = OrderedDict()
        self._waited_for: deque[int] = deque(maxlen=WAITED_FOR)
        self._in_memory = 0
        self._on_disk = 0

    def put(self, number: int, content: Rendered, *, waited_for: bool) -> list[int]:
        """Keep this one; returns the numbers of those that must go for it.

        `waited_for` tells that somebody is about to open it. Otherwise it may be the one to go.
        """
        self.take(number)
        if waited_for:
            self._waited_for.append(number)
        self._kept[number] = content
        self._in_memory += content.in_memory
        self._on_disk += content.on_disk
        gone = []
        for old in list(self._oldest()):
            self.take(old)
            gone.append(old)
        return gone

    def take(self, number: int) -> None:
        """This one is in use, or not needed any more; it may be missing."""
        content = self._kept.pop(number, None)
        if content is not None:
            self._in_memory -= content.in_memory
            self._on_disk -= content.on_disk
        if number in self._waited_for:
            self._waited_for.remove(number)

    def __len__(self) -> int:
        return len(self._kept)

    def _oldest(self) -> list[int]:
        chosen: list[int] = []
        in_memory, on_disk = self._in_memory - KEPT_IN_MEMORY, self._on_disk - KEPT_BYTES
        if in_memory <= 0 and on_disk <= 0:
            return chosen
        for number, content in self._kept.items():
            if number in self._waited_for:
                continue
            helps = (in_memory > 0) or (on_disk > 0 and content.on_disk)
            if helps:
                chosen.append(number)
                in_memory -= content.in_memory
                on_disk -= content.on_disk
            if in_memory <= 0 and on_disk <= 0:
                break
        return chosen


def _nameless_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(prefix="avccfs-view-", buffering=0)
    except FileNotFoundError as error:
        # It is not the view that cannot be found.
        raise OSError(
            errno.EIO, f"no place for a large view: {error.strerror}; TMPDIR may name one"
        ) from error


def _write_all(descriptor: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
