"""`scripts/bench`: what a mount costs beside the native directory and bindfs, and how fast avccfs
looks inside beside other tools, in one run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import click
from bench_inside import MEASURES, Inside, Measure, steps
from bench_inside_report import InsideReport
from bench_peers import Peer, Tool, prepare
from bench_places import BenchError, Place, check_tools, drop_caches, interrupts, room, shown
from bench_processes import work
from bench_report import Report, Result, Sample, machine
from bench_workloads import MOUNT, OVERLAY, WORKLOADS, Cache, Task, Workload
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

QUICK = 0.1
PIPE_WIDTH = 180
"""Columns of the table where there is no terminal that says."""
GROUPS: dict[str, Sequence[Workload | Measure]] = {
    **{
        comparison.name: [one for one in WORKLOADS if one.comparison is comparison]
        for comparison in (MOUNT, OVERLAY)
    },
    "inside": MEASURES,
}


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
                return work(workload.timed, directory)

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
            work(task, path)
            self._shared[task] = path
        yield self._shared[task]

    def _new(self, what: str) -> Path:
        return self._folder / f"{what}-{next(self._numbers)}"


def _work_all(tasks: Sequence[Task], directory: Path) -> None:
    for task in tasks:
        work(task, directory)


def run(
    workloads: Sequence[Workload], report: Report, folder: Path, tell: Callable[[str], None]
) -> None:
    """Measure into the report, workload by workload; the places take turns within each round."""
    bench = Bench(folder)
    for workload in workloads:
        places = workload.places
        seconds: dict[Place, list[float]] = {place: [] for place in places}
        for number in range(1, report.rounds + 1):
            # To and fro, so that none is always the first.
            for place in places if number % 2 else reversed(places):
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


def tools_ready(measures: Sequence[Measure], *, peers: bool) -> dict[Tool, Peer]:
    """The tools that the measures need, those that are not of Debian only if asked for."""
    needed = {tool for measure in measures for tool in measure.tools}
    if not peers:
        needed.discard(Tool.DFLEVELDB)
    ready = {}
    with progress(len(needed)) as tell:
        for tool in (one for one in Tool if one in needed):
            tell(f"making {tool.value} ready")
            ready[tool] = prepare(tool)
    return ready


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
    type=click.Choice([*GROUPS, *(one.name for group in GROUPS.values() for one in group)]),
    help="Only this workload or measure, or all of mount, overlay or inside; may be given again.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--write-through", is_flag=True, help="Measure avccfs --write-through as well.")
@click.option("--peers", is_flag=True, help="Measure dfleveldb as well; pip fetches it.")
@click.option("--json", "json_file", type=click.File("w"), help="Write a report; - is stdout.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Work below this directory, that is on its file system.  [default: the temporary folder]",
)
@click.option("--list", "list_only", is_flag=True, help="Print what --only takes and stop.")
def command(
    quick: bool,
    scale: float | None,
    names: tuple[str, ...],
    rounds: int,
    write_through: bool,
    peers: bool,
    json_file: TextIO | None,
    directory: Path | None,
    list_only: bool,
) -> int:
    """Do the same work in a native directory, through bindfs and through avccfs (mount), on plain
    mounts of avccfs and on overlays (overlay), and look into databases with avccfs and with other
    tools (inside).

    Prints tables of medians, and where avccfs misses what is expected of it (that is no failure:
    the exit status is 0). The rounds of what is compared alternate, so that what else the machine
    does hurts all alike. As root the page cache is emptied before cold reads.
    """
    if list_only:
        for workload in WORKLOADS:
            click.echo(f"{workload.name:24} {workload.timed.count:,} {workload.title}")
        for measure in MEASURES:
            click.echo(f"{measure.name:24} {measure.title}, {measure.unit.value}")
        return 0
    factor = scale if scale is not None else QUICK if quick else 1.0
    workloads = [
        one.scaled(factor) for one in WORKLOADS if _wanted(one, one.comparison.name, names)
    ]
    if write_through:
        also = (Place.WRITE_THROUGH,)
        workloads = [
            replace(one, also=also) if one.comparison is MOUNT else one for one in workloads
        ]
    measures = [one.scaled(factor) for one in MEASURES if _wanted(one, "inside", names)]
    if workloads:
        check_tools({place for one in workloads for place in one.places})
    tools = tools_ready(measures, peers=peers)
    interrupted = False
    with room(directory) as folder:
        report = Report(rounds, factor, machine(folder))
        inside = InsideReport(tools)
        total = rounds * sum(len(one.places) for one in workloads)
        total += steps(measures, tools, rounds)
        try:
            with progress(total) as tell:
                run(workloads, report, folder, tell)
                looking = Inside(folder, tools)
                for measure in measures:
                    inside.found.append(looking.measure(measure, rounds, tell))
        except KeyboardInterrupt:
            interrupted = True
        finally:
            # What was measured so far is worth showing, however it ended.
            if report.results or inside.found:
                _show(report, inside, json_file)
    if interrupted:
        click.echo("bench: interrupted", err=True)
    return 130 if interrupted else 0


def _wanted(one: Workload | Measure, group: str, names: Sequence[str]) -> bool:
    return not names or one.name in names or group in names


def _show(report: Report, inside: InsideReport, json_file: TextIO | None) -> None:
    # One of the two gets stdout, the other must not end up in its midst.
    json_on_stdout = json_file is sys.stdout or getattr(json_file, "name", None) == "<stdout>"
    console = Console(stderr=json_on_stdout)
    if not console.is_terminal:
        console = Console(stderr=json_on_stdout, width=PIPE_WIDTH)
    missed = report.missed() + inside.missed()
    if report.results:
        report.show(console)
    if inside.found:
        inside.show(console)
    report.show_circumstances(console)
    for name, text, measured in missed:
        console.print(Text(f"Missed: {name}, {text}: {measured}", style="red"))
    if json_file is not None:
        everything = {
            **report.as_json(),
            "inside": inside.as_json(),
            "missed": [f"{name}: {text}" for name, text, _ in missed],
        }
        json_file.write(json.dumps(everything, indent=1) + "\n")


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
