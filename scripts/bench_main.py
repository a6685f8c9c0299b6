"""`scripts/bench`: the same work natively, through bindfs and through avccfs, in one run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import click
from bench_places import BenchError, Place, check_tools, drop_caches, interrupts, room, shown
from bench_report import Report, Result, Sample, machine
from bench_workloads import WORKLOADS, Cache, Task, Workload
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

QUICK = 0.1
PIPE_WIDTH = 180
"""Columns of the table where there is no terminal that says."""
PATIENCE = 900.0
"""Seconds that one piece of work may take."""
_WORKER = Path(__file__).with_name("bench_worker.py")


class Bench:
    """Measures in a temporary folder. What several measurements read is made once and kept in it."""

    def __init__(self, folder: Path) -> None:
        self.cold: str | None = None
        self._folder = folder
        self._shared: dict[Task, Path] = {}
        self._numbers = itertools.count(1)

    def measure(self, workload: Workload, place: Place) -> float:
        """Seconds that the workload takes in a place, this once."""
        with self._source(workload) as source:
            if workload.cache is not Cache.KEPT:
                _work_all(workload.before, source)
            with shown(place, source, self._new("mount")) as directory:
                if workload.cache is Cache.KEPT:
                    _work_all(workload.before, directory)
                if workload.cache is Cache.COLD:
                    self.cold = drop_caches([one for one in source.iterdir() if one.is_file()])
                else:
                    # What earlier work left to be written is not this one's to wait for.
                    os.sync()
                return _work(workload.timed, directory)

    @contextlib.contextmanager
    def _source(self, workload: Workload) -> Iterator[Path]:
        task = workload.shared
        if task is None:
            path = self._new("source")
            path.mkdir()
            yield path
            shutil.rmtree(path)
            return
        if task not in self._shared:
            path = self._new("shared")
            path.mkdir()
            _work(task, path)
            self._shared[task] = path
        yield self._shared[task]

    def _new(self, what: str) -> Path:
        return self._folder / f"{what}-{next(self._numbers)}"


def _work_all(tasks: Sequence[Task], directory: Path) -> None:
    for task in tasks:
        _work(task, directory)


def _work(task: Task, directory: Path) -> float:
    """Do a task in a new process; returns the seconds by its own clock."""
    process = subprocess.Popen(
        [sys.executable, str(_WORKER), task.name, str(directory), str(task.count)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, complaints = process.communicate(timeout=PATIENCE)
    except BaseException as error:
        # It and what it has started: whoever lives on would keep the mount busy.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise BenchError(f"{task.name} on {directory}: not done in {PATIENCE:.0f} s") from None
        raise
    if process.returncode:
        raise BenchError(
            f"{task.name} on {directory}: exit status {process.returncode}: {complaints.strip()}"
        )
    return float(said)


def run(
    workloads: Sequence[Workload], report: Report, folder: Path, tell: Callable[[str], None]
) -> None:
    """Measure into the report, workload by workload; the places take turns within each round."""
    bench = Bench(folder)
    for workload in workloads:
        seconds: dict[Place, list[float]] = {place: [] for place in report.places}
        for number in range(1, report.rounds + 1):
            for place in report.places:
                tell(f"{workload.name}, round {number} of {report.rounds}: {place.value}")
                seconds[place].append(bench.measure(workload, place))
        report.cold = bench.cold
        samples = {place: Sample(tuple(each)) for place, each in seconds.items()}
        report.results.append(Result(workload, samples))


@contextlib.contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """A bar on the terminal, nothing elsewhere; yields what is called at the start of each step."""
    console = Console(stderr=True)
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("starting", total=steps, completed=-1)

        def tell(text: str) -> None:
            bar.update(task, description=text, advance=1)

        yield tell


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--quick", is_flag=True, help=f"A {QUICK:.0%} measure of everything, for a first look."
)
@click.option(
    "--scale", type=click.FloatRange(min=0, min_open=True), help="How much of everything."
)
@click.option(
    "--only",
    "names",
    multiple=True,
    metavar="NAME",
    type=click.Choice([one.name for one in WORKLOADS]),
    help="Only this workload; may be given again.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--write-through", is_flag=True, help="Measure avccfs --write-through as well.")
@click.option("--json", "json_file", type=click.File("w"), help="Write a report; - is stdout.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Work below this directory, that is on its file system.  [default: the temporary folder]",
)
@click.option("--list", "list_only", is_flag=True, help="Print the workloads' names and stop.")
def command(
    quick: bool,
    scale: float | None,
    names: tuple[str, ...],
    rounds: int,
    write_through: bool,
    json_file: TextIO | None,
    directory: Path | None,
    list_only: bool,
) -> int:
    """Do the same work in a native directory, through bindfs and through avccfs.

    Prints a table of medians and ratios, and where avccfs misses what is expected of it (that is
    no failure: the exit status is 0). A place's rounds alternate with the others', so that what
    else the machine does hurts all alike. As root the page cache is emptied before cold reads.
    """
    if list_only:
        for one in WORKLOADS:
            click.echo(f"{one.name:17} {one.timed.count:,} {one.title}")
        return 0
    check_tools()
    factor = scale if scale is not None else QUICK if quick else 1.0
    workloads = [one.scaled(factor) for one in WORKLOADS if not names or one.name in names]
    places = tuple(Place) if write_through else (Place.NATIVE, Place.BINDFS, Place.AVCCFS)
    interrupted = False
    with room(directory) as folder:
        report = Report(places, rounds, factor, machine(folder))
        try:
            with progress(len(workloads) * rounds * len(places)) as tell:
                run(workloads, report, folder, tell)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            # What was measured so far is worth showing, however it ended.
            if report.results:
                _show(report, json_file)
    if interrupted:
        click.echo("bench: interrupted", err=True)
    return 130 if interrupted else 0


def _show(report: Report, json_file: TextIO | None) -> None:
    # One of the two gets stdout, the other must not end up in its midst.
    json_on_stdout = json_file is sys.stdout or getattr(json_file, "name", None) == "<stdout>"
    console = Console(stderr=json_on_stdout)
    if not console.is_terminal:
        console = Console(stderr=json_on_stdout, width=PIPE_WIDTH)
    report.show(console)
    if json_file is not None:
        json_file.write(json.dumps(report.as_json(), indent=1) + "\n")


def main() -> None:
    """Run the command and exit with its status."""
    interrupts.listen()
    try:
        sys.exit(command.main(prog_name="bench", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (BenchError, OSError) as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("bench: interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
