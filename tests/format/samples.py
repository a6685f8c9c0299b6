"""The files of the fixtures that hold records, and what the engines made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

FIXTURES = Path(__file__).parent.parent / "fixtures"

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Hypothesis without its clocks: a busy machine fails no test."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A journal or manifest of a fixture."""

    fixture: str
    name: str
    expected: dict[str, Any]
    """What goleveldb's reader makes of it: records, digest, dropped."""
    leveldb_dump: Any
    """What leveldbutil prints of it: for journals lines and digest, for manifests the lines."""

    @property
    def data(self) -> bytes:
        return (FIXTURES / self.fixture / "db" / self.name).read_bytes()

    def __str__(self) -> str:
        return f"{self.fixture}/{self.name}"


@cache
def expectations() -> dict[str, dict[str, Any]]:
    """The content of every expect.json, by name of the fixture."""
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(FIXTURES.glob("*/expect.json"))
    }


def _samples(kind: str, dump: str) -> list[Sample]:
    return [
        Sample(fixture, name, expected, expectation.get(dump, {}).get(name))
        for fixture, expectation in expectations().items()
        for name, expected in expectation.get(kind, {}).items()
    ]


JOURNALS = _samples("journals", "leveldbutil_dump")
MANIFESTS = _samples("manifests", "leveldbutil_manifest_dump")
