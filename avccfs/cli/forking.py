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
            with _ctrl_c_waiting():
                for _ in range(min(self._jobs, len(pieces))):
                    answer, send = context.Pipe(duplex=False)
                    arguments = (work, pieces, counter, send)
                    worker = context.Process(target=_serve, args=arguments, daemon=True)
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


@contextlib.contextmanager
def _ctrl_c_waiting() -> Iterator[None]:
    """Ctrl-C takes effect behind the block: no process is forgotten that has just been started.

    Processes that are started within it never see Ctrl-C at all. It is for this one to end them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
