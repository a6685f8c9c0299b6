"""Turns what was measured inside into rates, judgements, a table and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench_inside import Bound, Found, Unit
from bench_peers import Missing, Peer, Ready, Tool
from bench_report import WIDE, Sample, verdict
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Judgement:
    """An expectation and what came of it."""

    bound: Bound
    measured: float
    """How many times as fast, or in the measure's unit."""
    met: bool

    def as_json(self) -> dict[str, object]:
        """For the report."""
        return {
            "text": self.bound.text,
            "against": self.bound.against.value if self.bound.against else None,
            "limit": self.bound.limit,
            "measured": self.measured,
            "met": self.met,
        }


def judgements(found: Found) -> list[Judgement]:
    """Every expectation, judged by the medians; none against a tool that was not measured."""
    judged = []
    for bound in found.measure.expected:
        if bound.against is None:
            measured = found.value(found.samples[Tool.AVCCFS].median)
        elif bound.against in found.samples:
            measured = found.times_as_fast_as(bound.against)
        else:
            continue
        short = found.measure.unit is Unit.MILLISECONDS and bound.against is None
        met = measured < bound.limit if short else measured >= bound.limit
        judged.append(Judgement(bound, measured, met))
    return judged


@dataclass(slots=True)
class InsideReport:
    """What was found inside."""

    peers: Mapping[Tool, Peer]
    found: list[Found] = field(default_factory=list)

    def missed(self) -> list[tuple[str, str, str]]:
        """Every expectation that was not met: the measure's name, its text, what was measured."""
        return [
            (found.measure.name, one.bound.text, _measured(found, one))
            for found in self.found
            for one in judgements(found)
            if not one.met
        ]

    def as_json(self) -> dict[str, Any]:
        """For a program; `seconds` are in the order they were measured in."""
        return {
            "tools": {
                tool.value: {"version": one.version}
                if isinstance(one, Ready)
                else {"missing": one.why}
                for tool, one in self.peers.items()
            },
            "measures": [
                {
                    "name": found.measure.name,
                    "title": found.measure.title,
                    "unit": found.measure.unit.value,
                    "amount": found.amount,
                    "tools": {
                        tool.value: {**sample.as_json(), "value": found.value(sample.median)}
                        for tool, sample in found.samples.items()
                    },
                    "expectations": [one.as_json() for one in judgements(found)],
                }
                for found in self.found
            ],
        }

    def show(self, console: Console) -> None:
        """The table, and a line on every tool that is missing."""
        wide = console.width >= WIDE
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("inside", no_wrap=True)
        if wide:
            table.add_column("what", style="dim")
        table.add_column("unit", no_wrap=True)
        for tool in self.peers:
            table.add_column(tool.value, justify="right", no_wrap=True)
        table.add_column("expected", no_wrap=True)
        for found in self.found:
            table.add_row(
                found.measure.name,
                *([_title(found)] if wide else []),
                found.measure.unit.value,
                *(_cell(found, found.samples.get(tool), spread=wide) for tool in self.peers),
                verdict([one.met for one in judgements(found)]),
            )
        console.print(table)
        for tool, one in self.peers.items():
            if isinstance(one, Missing):
                console.print(Text(f"{tool.value} was not measured: {one.why}"))


def _title(found: Found) -> str:
    title = found.measure.title
    match found.measure.unit:
        case Unit.ENTRIES:
            return f"{found.amount:,} {title}"
        case Unit.MEGABYTES:
            return f"{_number(found.amount / 1e6)} {title}"
        case Unit.MILLISECONDS:
            return title


def _cell(found: Found, sample: Sample | None, *, spread: bool) -> Text:
    if sample is None:
        return Text()
    text = Text(_number(found.value(sample.median)))
    if not spread:
        return text
    ends = sorted(found.value(seconds) for seconds in (sample.least, max(sample.seconds)))
    return text.append(f" {_number(ends[0])}-{_number(ends[1])}", style="dim")


def _number(value: float) -> str:
    """With three digits that mean something."""
    short = float(f"{value:.3g}")
    return f"{short:,.0f}" if short >= 100 else f"{short:g}"


def _measured(found: Found, one: Judgement) -> str:
    if one.bound.against is not None:
        return f"measured {one.measured:.2f} times"
    return f"measured {_number(one.measured)} {found.measure.unit.value}"
