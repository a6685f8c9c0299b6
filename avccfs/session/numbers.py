"""File numbers: who gets which, and how none is given out twice (SPEC section 9).

One counter numbers manifests, journals and tables alike; what it holds is the first *unused*
number, and that is also what every manifest record writes down. Temp files have a counter of
their own, which nothing on disk remembers.
"""

from __future__ import annotations

import threading

from avccfs.errors import StorageError
from avccfs.format.filename import MAX_NUMBER


class FileNumbers:
    """The two counters of one database. Every method is atomic under threads.

    Numbers are 0 to 2**63 - 2. The very last number that a file name could carry is never handed
    out: after it the counter would have to be written as 2**63, which readers of a manifest call
    corrupt.
    """

    def __init__(self, first_unused: int = 0) -> None:
        self._lock = threading.Lock()
        self._next = _checked(first_unused)
        self._next_temp = 0

    @property
    def next(self) -> int:
        """The first unused number."""
        return self._next

    def set_next(self, number: int) -> None:
        """Make `number` the first unused one, whatever it was: for recovery, before any use."""
        with self._lock:
            self._next = _checked(number)

    def allocate(self) -> int:
        """Hand out the first unused number. Raises `StorageError` when there is none left."""
        with self._lock:
            if self._next == MAX_NUMBER:
                raise StorageError(
                    f"no file numbers left: the next one would be {self._next}, and the last that "
                    f"may be handed out is {MAX_NUMBER - 1}. A file with a huge number is probably "
                    "in the directory by mistake: move it away and open the database again"
                )
            number = self._next
            self._next = number + 1
            return number

    def mark(self, number: int) -> None:
        """Count `number` as used: the next one is at least `number + 1`. Never goes down."""
        _checked(number)
        with self._lock:
            # A file on disk may carry the last number of all; nothing can follow it.
            self._next = max(self._next, min(number + 1, MAX_NUMBER))

    def reuse(self, number: int) -> bool:
        """Take back `number` if it was the last one handed out; else do nothing and return False.

        Only for a number that no file bears: whoever calls this says that the file is gone.
        """
        _checked(number)
        with self._lock:
            if self._next != number + 1:
                return False
            self._next = number
            return True

    def allocate_temp(self) -> int:
        """Hand out a number for a temp file. Raises `StorageError` when there is none left."""
        with self._lock:
            if self._next_temp > MAX_NUMBER:
                raise StorageError(
                    f"no numbers left for temp files: the last, {MAX_NUMBER}, is taken. Remove "
                    "the temp files of earlier runs and open the database again"
                )
            number = self._next_temp
            self._next_temp = number + 1
            return number

    def mark_temp(self, number: int) -> None:
        """Count a temp file's `number` as used."""
        _checked(number)
        with self._lock:
            self._next_temp = max(self._next_temp, number + 1)

    def __repr__(self) -> str:
        return f"FileNumbers(next={self._next}, next_temp={self._next_temp})"


def _checked(number: int) -> int:
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"a file number is 0 to {MAX_NUMBER}, not {number}")
    return number
