"""Standard output for commands that write much: large pieces, and a quiet end when nobody reads."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Final

from avccfs.errors import AvccfsError

PIECE: Final = 128 * 1024
"""Bytes that are written at once."""


class OutputError(AvccfsError):
    """Standard output cannot be written: the disk is full, for one."""


class Output:
    """Collects pieces of output."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write now or soon. Raises `BrokenPipeError` when nobody reads any more."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= PIECE:
            self.flush()

    def flush(self) -> None:
        """Write what was collected. Raises `OutputError`, or `BrokenPipeError`."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        try:
            self._stream.write(data)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from error


@contextlib.contextmanager
def standard_output() -> Iterator[Output]:
    """Standard output. If its reader goes away, as `head` does, the block just ends."""
    stream = sys.stdout.buffer
    out = Output(stream)
    try:
        yield out
        out.flush()
    except BrokenPipeError:
        # Python flushes its own buffer at exit, and would fail there once more.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()
