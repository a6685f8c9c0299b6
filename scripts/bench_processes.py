"""Programs that are run and timed, none of which outlives an interruption."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_places import BenchError
from bench_workloads import Task

PATIENCE = 900.0
"""Seconds that one piece of work may take."""
_WORKER = Path(__file__).with_name("bench_worker.py")


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended well."""

    seconds: float
    """From before it was started until it was gone."""
    said: str
    """On standard output, if that went to no file."""


def finish(command: Sequence[str], what: str, *, output: Path | None = None) -> Done:
    """Run a command to its end. Raises `BenchError`, which speaks of `what`, if it fails.

    Standard output goes to the file `output`, if there is one.
    """
    with contextlib.ExitStack() as stack:
        out = subprocess.PIPE if output is None else stack.enter_context(output.open("wb"))
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            # A pipe, because its end is seen at once; the end of a process is only polled for.
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            said, complaints = process.communicate(timeout=PATIENCE)
        except BaseException as error:
            # It and what it has started: whoever lives on would keep a mount busy.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise BenchError(f"{what}: not done in {PATIENCE:.0f} s") from None
            raise
        seconds = time.perf_counter() - start
    if process.returncode:
        words = complaints.decode(errors="replace").strip()
        raise BenchError(f"{what}: exit status {process.returncode}: {words}")
    return Done(seconds, (said or b"").decode(errors="replace"))


def work(task: Task, directory: Path) -> float:
    """Do a task of `bench_worker` in a new process; returns the seconds by its own clock."""
    command = [sys.executable, str(_WORKER), task.name, str(directory), str(task.count)]
    return float(finish(command, f"{task.name} on {directory}").said)
