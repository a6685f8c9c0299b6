"""What was done to a directory, in order, and what was promised on the way.

A trace is where a crash is looked for: `base` is durable, and the power may go after any number of
operations. Marks say what was promised at which point ("acknowledged: key 7"), so that a check can
ask in every state what had been promised by then.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from avccfs.vfs.base import Directory
from avccfs.vfs.recorder import Operation, Recorder
from avccfs.vfs.snapshot import Snapshot, take


@dataclass(frozen=True, slots=True)
class Mark:
    """Something said after `position` operations had been carried out."""

    position: int
    text: str


class Trace:
    """The operations of a recording. A *position* is a number of operations that were done.

    A crash *during* an operation is nothing of its own: what it may have left is among the states
    before it or among those after it.
    """

    def __init__(self, base: Snapshot, operations: Iterable[Operation] = ()) -> None:
        self.base = base
        self._operations: list[Operation] = list(operations)
        self._marks: list[Mark] = []
        self._lock = threading.Lock()

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What was done so far."""
        return tuple(self._operations)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What was said so far."""
        return tuple(self._marks)

    def __len__(self) -> int:
        return len(self._operations)

    def append(self, operation: Operation) -> None:
        """Take an operation that was carried out."""
        with self._lock:
            self._operations.append(operation)

    def mark(self, text: str) -> int:
        """Say something at the present position, and return the position."""
        with self._lock:
            self._marks.append(Mark(len(self._operations), text))
            return len(self._operations)

    def promised(self, position: int) -> tuple[str, ...]:
        """The marks that a crash at this position must honour."""
        return tuple(mark.text for mark in self._marks if mark.position <= position)

    def describe(self, position: int | None = None) -> str:
        """The operations and marks as numbered lines, with the crash drawn in at `position`."""
        lines: list[str] = []
        for done in range(len(self._operations) + 1):
            if done:
                lines.append(f"{done:4d}  {self._operations[done - 1]}")
            lines += [f"      -- {mark.text}" for mark in self._marks if mark.position == done]
            if done == position:
                lines.append("      ** the power fails here **")
        return "\n".join(lines)


def record(directory: Directory, *, leave_out: Collection[str] = ()) -> tuple[Recorder, Trace]:
    """Begin a recording: the directory to work on from now on, and the trace it fills.

    What is in `directory` now counts as durable. `leave_out`: see `Recorder`.
    """
    trace = Trace(take(directory, leave_out=leave_out))
    return Recorder(directory, trace.base, trace, leave_out=leave_out), trace
