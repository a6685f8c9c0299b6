"""Sorted runs: items that come unsorted and may be more than fit into memory.

A run is what an engine's memtable would become: it is filled up to a limit, then sorted and put
aside in a temporary file without a name, outside of the database. Reading goes over it in order.
"""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Iterator
from typing import IO, Final, Generic, TypeVar

_K = TypeVar("_K", bound=tuple[object, ...])
_V = TypeVar("_V")

IN_MEMORY: Final = 32 * 1024 * 1024
"""Bytes of items, roughly, that all runs of one collection keep in memory."""
_CHUNK: Final = 512


class Runs(Generic[_K, _V]):
    """Items by key. Of items with the same key in one run the last one stays.

    Keys and values are made of tuples, numbers, bytes and None.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._filling: dict[_K, _V] = {}
        self._size = 0
        self._in_memory = 0
        self._sorted: list[list[tuple[_K, _V]] | IO[bytes]] = []
        self._files: list[IO[bytes]] = []

    def __len__(self) -> int:
        return len(self._sorted) + bool(self._filling)

    @property
    def empty(self) -> bool:
        """Whether nothing was put since the last run ended."""
        return not self._filling

    def put(self, key: _K, value: _V, size: int) -> bool:
        """Add an item of `size` bytes; returns whether the run is full."""
        self._filling[key] = value
        self._size += size
        return self._size >= self._limit

    def end_run(self) -> None:
        """End the run; nothing happens if it is empty."""
        if not self._filling:
            return
        items = sorted(self._filling.items(), key=lambda item: item[0])
        if self._in_memory + self._size > IN_MEMORY:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            self._files.append(file)
            for start in range(0, len(items), _CHUNK):
                marshal.dump(items[start : start + _CHUNK], file)
            self._sorted.append(file)
        else:
            self._in_memory += self._size
            self._sorted.append(items)
        self._filling = {}
        self._size = 0

    def streams(self) -> list[Iterator[tuple[_K, _V]]]:
        """Each run in order of keys; the run that was filled first is the first. May be read once
        at a time."""
        self.end_run()
        return [iter(run) if isinstance(run, list) else _read(run) for run in self._sorted]

    def close(self) -> None:
        """Give the room back."""
        for file in self._files:
            file.close()
        self._files.clear()
        self._sorted.clear()
        self._filling.clear()


def _read(file: IO[bytes]) -> Iterator[tuple[_K, _V]]:
    file.seek(0)
    while True:
        try:
            chunk: list[tuple[_K, _V]] = marshal.load(file)
        except EOFError:
            return
        yield from chunk
