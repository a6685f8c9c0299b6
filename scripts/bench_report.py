"""Turns measured seconds into ratios, judgements, a table and JSON."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_places import Place
from bench_workloads import Comparison, Expectation, Workload
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 120
"""Columns of a terminal from which on the table shows everything."""
VERSION = 3
"""Of the JSON; grows when a reader of it would have to change.

2: `workloads` may be empty and `missed` speaks of `inside` as well.
3: each of the `workloads` has places of its own and says with what it was compared; an expectation
   says of what place it is.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """The rounds of one workload in one place, in seconds, in the order they were run."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        """The fastest round."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """How far the rounds lie apart, as a part of the median."""
        return (max(self.seconds) - self.least) / self.median

    def as_json(self) -> dict[str, object]:
        """For the report."""
        return {
            "seconds": list(self.seconds),
            "median": self.median,
            "min": self.least,
            "spread": self.spread,
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """An expectation and what came of it."""

    expectation: Expectation
    measured: float

    @property
    def met(self) -> bool:
        """Whether the place was as fast as expected."""
        return self.measured <= self.expectation.limit

    def as_json(self) -> dict[str, object]:
        """For the report."""
        return {
            "text": self.expectation.text,
            "of": self.expectation.of.value,
            "against": self.expectation.against.value,
            "limit": self.expectation.limit,
            "measured": self.measured,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """One workload in all places."""

    workload: Workload
    samples: dict[Place, Sample]

    def ratio(self, against: Place, of: Place = Place.AVCCFS) -> float:
        """The median of one place over that of another."""
        return self.samples[of].median / self.samples[against].median

    def ratios(self) -> dict[Place, dict[Place, float]]:
        """Place -> place it is compared with -> ratio."""
        against = self.workload.comparison.against
        return {
            of: {one: self.ratio(one, of) for one in against if one is not of}
            for of in self.samples
            if of is not against[0]
        }

    def judgements(self) -> list[Judgement]:
        """Every expectation, judged by the medians."""
        return [Judgement(one, self.ratio(one.against, one.of)) for one in self.workload.expected]

    def as_json(self) -> dict[str, object]:
        """For the report."""
        return {
            "name": self.workload.name,
            "title": self.workload.title,
            "count": self.workload.timed.count,
            "cache": self.workload.cache.value,
            "comparison": self.workload.comparison.name,
            "places": {place.value: sample.as_json() for place, sample in self.samples.items()},
            "ratios": {
                of.value: {against.value: ratio for against, ratio in ratios.items()}
                for of, ratios in self.ratios().items()
            },
            "expectations": [one.as_json() for one in self.judgements()],
        }


@dataclass(slots=True)
class Report:
    """A run."""

    rounds: int
    scale: float
    machine: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    cold: str | None = None
    """How caches were emptied, if they were."""

    def missed(self) -> list[tuple[str, str, str]]:
        """Every expectation that was not met: the workload's name, its text, what was measured."""
        return [
            (
                result.workload.name,
                one.expectation.text,
                f"measured {one.measured:.3g}, expected at most {one.expectation.limit:.3g}",
            )
            for result in self.results
            for one in result.judgements()
            if not one.met
        ]

    def as_json(self) -> dict[str, Any]:
        """For a program; `seconds` are in the order of the rounds."""
        return {
            "version": VERSION,
            "machine": self.machine,
            "rounds": self.rounds,
            "scale": self.scale,
            "cold": self.cold,
            "workloads": [result.as_json() for result in self.results],
        }

    def show(self, console: Console) -> None:
        """A table for each comparison that was made."""
        for comparison in dict.fromkeys(one.workload.comparison for one in self.results):
            self._show(
                comparison,
                [one for one in self.results if one.workload.comparison is comparison],
                console,
            )

    def _show(self, comparison: Comparison, results: list[Result], console: Console) -> None:
        # Where there is no room for everything, the ratios are what must be seen.
        wide = console.width >= WIDE
        found = {place for one in results for place in one.samples}
        places = [place for place in Place if place in found]
        compared = [place for place in places if place not in comparison.against]
        among_ours = comparison.against == (Place.AVCCFS,)
        columns = [
            (of, against)
            for of in compared
            for against in comparison.against
            # Beside native and bindfs the other ways of avccfs are for the eye.
            if of is Place.AVCCFS or among_ours
        ]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column(comparison.name, no_wrap=True)
        if wide:
            table.add_column("what", style="dim")
        for place in places:
            title = place.option if among_ours else place.value
            table.add_column(title, justify="right", min_width=6, no_wrap=among_ours)
        for of, against in columns:
            title = of.option if among_ours else against.value
            table.add_column(f"x {title}", justify="right", no_wrap=True)
        table.add_column("expected", no_wrap=True)
        for result in results:
            workload, samples = result.workload, result.samples
            table.add_row(
                workload.name,
                *([f"{workload.timed.count:,} {workload.title}"] if wide else []),
                *(_time(samples.get(place), spread=wide) for place in places),
                *(
                    f"{result.ratio(against, of):.2f}" if of in samples else ""
                    for of, against in columns
                ),
                verdict([one.met for one in result.judgements()]),
            )
        console.print(table)
        one, other = ("with that option", "plain") if among_ours else ("avccfs", "the other")
        over = f"{one} over {other}"
        console.print(f"Seconds. Ratios are of medians, {over}.", highlight=False)

    def show_circumstances(self, console: Console) -> None:
        """How all of it was measured."""
        spread = ", then least-most" if console.width >= WIDE else ""
        load = " ".join(str(one) for one in self.machine["load_at_start"])
        console.print(
            f"Medians of {self.rounds} rounds{spread}.\n"
            f"{self.machine['kernel']}, {self.machine['cores']} cores, "
            f"{self.machine['file_system']}, load average at start {load}.",
            highlight=False,
        )


def _time(sample: Sample | None, *, spread: bool) -> Text:
    if sample is None:
        return Text()
    text = Text(f"{sample.median:.3f}")
    if not spread:
        return text
    return text.append(f" {sample.least:.2g}-{max(sample.seconds):.2g}", style="dim")


def verdict(met: Sequence[bool]) -> Text:
    """What to say of a line whose expectations were met, or not."""
    if not met:
        return Text("-", style="dim")
    if all(met):
        return Text("met", style="green")
    return Text("MISSED", style="bold red")


def machine(directory: Path) -> dict[str, Any]:
    """What the numbers depend on; `directory` is where the work is done."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _line_of("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _line_of("/proc/meminfo", "MemTotal"),
        "load_at_start": [round(one, 2) for one in os.getloadavg()],
        "file_system": _said("findmnt", "-no", "FSTYPE", "-T", str(directory)),
        "python": platform.python_version(),
        "avccfs": version("avccfs"),
        "pyfuse3": version("pyfuse3"),
        "plyvel": version("plyvel"),
        "bindfs": _said("bindfs", "--version").removeprefix("bindfs "),
    }


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _line_of(table: str, label: str) -> str:
    for line in Path(table).read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == label:
            return value.strip()
    return "unknown"
