"""Looking inside: what is measured, with which tools, and what is expected of avccfs.

A measure has a database, made once, and for each tool a command that reads it; or a task of
`bench_worker`, for what is measured in process. Files are in the page cache, and what a command
prints goes to a file. A command counts from its start to its end, start-up and all.
"""

from __future__ import annotations

import enum
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench_peers import Peer, Ready, Tool
from bench_places import BenchError
from bench_processes import finish, work
from bench_report import Sample
from bench_workloads import NOISE, Task

from avccfs.cli.main import command as avccfs


class Unit(enum.Enum):
    """What a measure is told in; the value is its symbol."""

    ENTRIES = "entries/s"
    MEGABYTES = "MB/s"
    MILLISECONDS = "ms"


@dataclass(frozen=True, slots=True)
class Bound:
    """What is expected of avccfs.

    Against another tool: to be at least `limit` times as fast. Else `limit` is in the measure's
    unit: no less of a rate, or less of a time.
    """

    limit: float
    text: str
    against: Tool | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table."""

    name: str
    title: str
    """Of a rate, what the amount is an amount of."""
    unit: Unit
    database: Task
    commands: Mapping[Tool, tuple[str, ...]] = field(default_factory=dict)
    """Arguments; `{directory}` and `{table}` stand for the database and its only table."""
    task: str | None = None
    """Measured in process, by this task, instead."""
    expected: tuple[Bound, ...] = ()
    runs: int = 1
    """In each round."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Those that there is something to measure of."""
        return tuple(self.commands) or (Tool.AVCCFS,)

    def scaled(self, factor: float) -> Measure:
        """The same with more or less to do."""
        return replace(self, database=self.database.scaled(factor))


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one measure."""

    measure: Measure
    amount: int
    """Entries or bytes that a run went through."""
    samples: Mapping[Tool, Sample]

    def value(self, seconds: float) -> float:
        """Seconds of a run in the measure's unit."""
        match self.measure.unit:
            case Unit.ENTRIES:
                return self.amount / seconds
            case Unit.MEGABYTES:
                return self.amount / 1e6 / seconds
            case Unit.MILLISECONDS:
                return seconds * 1e3

    def times_as_fast_as(self, tool: Tool) -> float:
        """How many runs avccfs does in the time of one of the other tool."""
        return self.samples[tool].median / self.samples[Tool.AVCCFS].median


_ENTRIES = 100_000
_JOURNAL = Task("make_journal", _ENTRIES, least=100)
_TABLE = Task("make_sorted_table", _ENTRIES, least=100)
_INCOMPRESSIBLE = Task("make_incompressible", 40_000, least=10)
_TINY = Task("make_tiny", 100, least=100)

_AS_FAST = Bound(1 / NOISE, "at least as fast as leveldbutil", Tool.LEVELDBUTIL)
_SEVERAL = Bound(3, "at least 3 times as fast as dfleveldb", Tool.DFLEVELDB)
_PROMPT = Bound(150, "under 150 ms")
_STARTS = 3
"""Runs of what only starts, in each round."""


def _starts() -> list[Measure]:
    names = avccfs.list_commands(avccfs.context_class(avccfs))
    helps = {"help": ("--help",)} | {f"help-{name}": (name, "--help") for name in names}
    tiny = {f"tiny-{name}": (name, "{directory}") for name in ("explain", "check", "inspect")}
    tiny["tiny-dump"] = ("dump", "{table}")
    return [
        Measure(
            name,
            "avccfs " + " ".join(words).format(directory="DIR", table="FILE"),
            Unit.MILLISECONDS,
            _TINY,
            {Tool.AVCCFS: words},
            expected=(_PROMPT,),
            runs=_STARTS,
        )
        for name, words in (helps | tiny).items()
    ]


MEASURES: tuple[Measure, ...] = (
    Measure(
        "decode-table",
        "entries of a table, in process",
        Unit.ENTRIES,
        _TABLE,
        task="decode_table",
        expected=(Bound(600_000, "at least 600,000 entries/s"),),
    ),
    Measure(
        "decode-journal",
        "entries of a journal, in process",
        Unit.ENTRIES,
        _JOURNAL,
        task="decode_journal",
        expected=(Bound(400_000, "at least 400,000 entries/s"),),
    ),
    Measure(
        "dump-text",
        "entries of a table, as text",
        Unit.ENTRIES,
        _TABLE,
        {
            Tool.AVCCFS: ("dump", "{table}"),
            Tool.LEVELDBUTIL: ("{table}",),
            Tool.DFLEVELDB: ("ldb", "--output=repr", "--source", "{table}"),
        },
        expected=(_AS_FAST, _SEVERAL),
    ),
    Measure(
        "dump-jsonl",
        "entries of a table, as JSON lines",
        Unit.ENTRIES,
        _TABLE,
        {
            Tool.AVCCFS: ("dump", "--format=jsonl", "{table}"),
            # It has text only.
            Tool.LEVELDBUTIL: ("{table}",),
            Tool.DFLEVELDB: ("ldb", "--output=jsonl", "--source", "{table}"),
        },
        expected=(_AS_FAST, _SEVERAL),
    ),
    Measure(
        "check",
        "MB that nothing can compress",
        Unit.MEGABYTES,
        _INCOMPRESSIBLE,
        {Tool.AVCCFS: ("check", "{directory}")},
        expected=(Bound(500, "at least 500 MB/s"),),
    ),
    Measure(
        "check-small",
        "MB with values of 100 bytes",
        Unit.MEGABYTES,
        _TABLE,
        {Tool.AVCCFS: ("check", "{directory}")},
    ),
    *_starts(),
)


class Inside:
    """Measures in a temporary folder, where each database is made once."""

    def __init__(self, folder: Path, peers: Mapping[Tool, Peer]) -> None:
        self._folder = folder
        self._ready = {tool: one for tool, one in peers.items() if isinstance(one, Ready)}
        self._databases: dict[Task, Path] = {}
        self._numbers = itertools.count(1)

    def tools(self, measure: Measure) -> tuple[Tool, ...]:
        """Those of the measure's tools that are there."""
        return tuple(tool for tool in measure.tools if tool in self._ready)

    def measure(self, measure: Measure, rounds: int, tell: Callable[[str], None]) -> Found:
        """All rounds; the tools take turns within each."""
        directory = self._database(measure.database)
        tools = self.tools(measure)
        for tool in tools:
            # The first run of a program finds what the later ones will have cached.
            self._run(measure, tool, directory)
        seconds: dict[Tool, list[float]] = {tool: [] for tool in tools}
        for number in range(1, rounds + 1):
            for tool in tools:
                tell(f"{measure.name}, round {number} of {rounds}: {tool.value}")
                for _ in range(measure.runs):
                    seconds[tool].append(self._run(measure, tool, directory))
        amount = measure.database.count
        if measure.unit is Unit.MEGABYTES:
            amount = sum(one.stat().st_size for one in directory.iterdir())
        return Found(measure, amount, {tool: Sample(tuple(each)) for tool, each in seconds.items()})

    def _run(self, measure: Measure, tool: Tool, directory: Path) -> float:
        if measure.task is not None:
            return work(Task(measure.task, measure.database.count), directory)
        output = self._folder / "output"
        words = _filled_in(measure.commands[tool], directory)
        if measure.unit is not Unit.MILLISECONDS:
            # What earlier runs left to be written is not this one's to wait for.
            os.sync()
        what = f"{measure.name}: {tool.value}"
        done = finish((*self._ready[tool].command, *words), what, output=output)
        if measure.unit is Unit.ENTRIES:
            _check_lines(output, measure.database.count, what)
        return done.seconds

    def _database(self, task: Task) -> Path:
        if task not in self._databases:
            path = self._folder / f"database-{next(self._numbers)}"
            path.mkdir()
            work(task, path)
            self._databases[task] = path
        return self._databases[task]


def steps(measures: Sequence[Measure], peers: Mapping[Tool, Peer], rounds: int) -> int:
    """How often `Inside.measure` tells of something, all in all."""
    ready = [tool for tool, one in peers.items() if isinstance(one, Ready)]
    return rounds * sum(tool in ready for one in measures for tool in one.tools)


def _filled_in(words: Sequence[str], directory: Path) -> list[str]:
    places = {"{directory}": str(directory)}
    if "{table}" in words:
        (table,) = directory.glob("*.ldb")
        places["{table}"] = str(table)
    return [places.get(word, word) for word in words]


def _check_lines(output: Path, least: int, what: str) -> None:
    """Raises `BenchError` if not every entry has its line: speed counts only for whole work."""
    with output.open("rb") as file:
        lines = sum(1 for _ in file)
    if lines < least:
        raise BenchError(f"{what}: {lines} lines for {least} entries")
