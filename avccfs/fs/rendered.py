"""What a view holds: rendered once, of exact size, and in memory only while it is small."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import IO

IN_MEMORY = 1024 * 1024
"""Bytes up to which a rendering stays in memory; a larger one goes to a nameless file."""

Write = Callable[[bytes], object]
"""Takes a piece of what is rendered."""


class Rendered:
    """The bytes of a view, unchanging."""

    __slots__ = ("_bytes", "_file", "size")

    def __init__(self, render: Callable[[Write], None]) -> None:
        """Keep what `render` writes. At any moment `IN_MEMORY` of it is held, and one piece."""
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
                self._file = tempfile.TemporaryFile(prefix="avccfs-view-")  # noqa: SIM115
            self._file.write(b"".join(waiting))
            self._file.flush()
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
        """Let the file go, if there is one."""
        if self._file is not None:
            self._file.close()
