"""What a view holds: rendered once, of exact size, and in memory only while it is small."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable

IN_MEMORY = 1024 * 1024
"""Bytes up to which a rendering stays in memory; a larger one goes to a nameless file."""


class Rendered:
    """The bytes of a view, unchanging."""

    __slots__ = ("_bytes", "_file", "size")

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Take all of `pieces`; what is held of them at any moment is `IN_MEMORY` at most."""
        self._bytes = b""
        self._file = None
        self.size = 0
        waiting: list[bytes] = []
        held = 0
        for piece in pieces:
            waiting.append(piece)
            held += len(piece)
            self.size += len(piece)
            if held > IN_MEMORY:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(prefix="avccfs-view-")  # noqa: SIM115
                self._file.write(b"".join(waiting))
                waiting, held = [], 0
        if self._file is None:
            self._bytes = b"".join(waiting)
        else:
            self._file.write(b"".join(waiting))
            self._file.flush()

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
