"""Work in several processes, for what keeps the interpreter itself busy.

The processes are forks of this one, so the work may be any callable and hold any open file; only
results are sent from one to the other. They take pieces from one common counter. A process that
ends before its time costs nothing but time: the pieces that nobody has answered are done here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

from avccfs.session.check import Runner

_T = TypeVar("_T")
_R = TypeVar("_R")


class ForkRunner(Runner):
    """Pieces of work in `jobs` processes. The caller must have no other threads."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs

    def run(self, work: Callable[[_T], _R], pieces: list[_T]) -> Iterator[_R]:
        """The results, in the order of the pieces.

        What a piece raises is raised here. When the iteration is given up the processes are ended.
        """
        workers: list[ForkProcess] = []
        answers: list[Connection] = []
        context = multiprocessing.get_context("fork")
        counter = context.Value("l", 0)
        try:
            for _ in range(min(self._jobs, len(pieces))):
                answer, send = context.Pipe(duplex=False)
                worker = context.Process(target=_serve, args=(work, pieces, counter, send))
                worker.start()
                send.close()
                workers.append(worker)
                answers.append(answer)
            done: dict[int, _R] = {}
            for index, piece in enumerate(pieces):
                while index not in done and answers:
                    _receive(answers, done)
                yield done.pop(index) if index in done else work(piece)
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
            for answer in answers:
                answer.close()


def _receive(answers: list[Connection], done: dict[int, _R]) -> None:
    for ready in connection.wait(answers):
        assert isinstance(ready, Connection)
        try:
            index, result = ready.recv()
        except (EOFError, OSError):
            answers.remove(ready)
            ready.close()
        else:
            done[index] = result


def _serve(
    work: Callable[[_T], _R],
    pieces: list[_T],
    counter: Synchronized[int],
    send: Connection,
) -> None:
    """A process's life. Nothing is said here about failures: the parent does such a piece again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(Exception):
        while True:
            with counter.get_lock():
                index = counter.value
                counter.value = index + 1
            if index >= len(pieces):
                break
            send.send((index, work(pieces[index])))
    # Not by way of the interpreter's end: what is registered for that belongs to the parent.
    os._exit(0)
