"""Bytes with holes: the content of a file in memory.

Kept in chunks, so that one byte written at an offset of petabytes (a forged number in a database is
enough for that) takes one chunk and not petabytes.
"""

from __future__ import annotations

PAGE = 4096
"""The unit in which space is taken, in bytes."""
CHUNK = 64 * 1024
"""How far apart two bytes can be and still share memory. A multiple of PAGE."""


class SparseBytes:
    """A byte string of any size, zeros where nothing was written. Not safe between threads."""

    __slots__ = ("_chunks", "allocated", "size")

    def __init__(self) -> None:
        # Every chunk starts at a multiple of CHUNK, is whole pages long and at most CHUNK; bytes
        # past `size` are zeros, so that extending needs nothing done.
        self._chunks: dict[int, bytearray] = {}
        self.size = 0
        """The length in bytes, holes included."""
        self.allocated = 0
        """The memory taken, in bytes; a multiple of PAGE."""

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end. Neither may be negative."""
        end = min(offset + size, self.size)
        parts = []
        while offset < end:
            index, start = divmod(offset, CHUNK)
            stop = min(CHUNK, start + end - offset)
            chunk = self._chunks.get(index)
            part = b"" if chunk is None else bytes(memoryview(chunk)[start:stop])
            parts.append(part.ljust(stop - start, b"\0"))
            offset += stop - start
        return b"".join(parts)

    def write(self, data: memoryview, offset: int, room: int | None = None) -> int:
        """Write bytes at `offset`, taking at most `room` more bytes of memory (None: no limit).

        Returns how many were written: fewer than given when the room ends.
        """
        done = 0
        while done < len(data):
            index, start = divmod(offset + done, CHUNK)
            stop = min(CHUNK, start + len(data) - done)
            chunk = self._chunks.get(index)
            length = 0 if chunk is None else len(chunk)
            grows = max(0, _pages(stop) - length)
            if room is not None and grows > room:
                grows = room // PAGE * PAGE
                stop = min(stop, length + grows)
                if stop <= start:
                    break
            if chunk is None:
                chunk = self._chunks[index] = bytearray()
            chunk.extend(bytes(grows))
            self.allocated += grows
            if room is not None:
                room -= grows
            chunk[start:stop] = data[done : done + stop - start]
            done += stop - start
        if done:
            self.size = max(self.size, offset + done)
        return done

    def truncate(self, size: int) -> None:
        """Cut to `size` bytes, or extend with a hole."""
        if size < self.size:
            last, cut = divmod(size, CHUNK)
            for index in [index for index in self._chunks if index > last]:
                self.allocated -= len(self._chunks.pop(index))
            chunk = self._chunks.get(last)
            if chunk is not None:
                kept = min(len(chunk), _pages(cut))
                self.allocated -= len(chunk) - kept
                del chunk[kept:]
                chunk[cut:] = bytes(max(0, kept - cut))
                if not chunk:
                    del self._chunks[last]
        self.size = size


def _pages(length: int) -> int:
    return -(-length // PAGE) * PAGE
