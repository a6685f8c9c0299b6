"""A progress bar over bytes on the terminal, which is gone when the work is done."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE: Final = 0.4
"""Seconds of work before a bar is worth showing. Until then rich is not even imported."""

_PAUSE: Final = 0.1


class Bar:
    """A bar on standard error. No thread draws it: it moves when it is told to."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PATIENCE
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, done: int, total: int, name: str) -> None:
        """`done` of `total` bytes are done; `name` is the file they are in."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PAUSE
        if self._progress is None:
            self._progress = _start()
        for task in self._progress.task_ids:
            self._progress.update(task, completed=done, total=total, description=name)
        self._progress.refresh()


def _start() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    progress = Progress(
        TextColumn("{task.description:<16}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
    progress.add_task("", total=None)
    progress.start()
    return progress
