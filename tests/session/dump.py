"""LevelDB's own text dump of a manifest, added up to what the manifest says in the end."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avccfs.format import ikey
from avccfs.format.ikey import InternalKey, KeyKind
from avccfs.format.manifest import AddedTable
from avccfs.session.state import SessionState

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"

_KEY = r"'(\w*)' @ (\d+) : (\d)"
_ADDED = re.compile(rf"  AddFile: (\d+) (\d+) (\d+) {_KEY} \.\. {_KEY}")
_REMOVED = re.compile(r"  RemoveFile: (\d+) (\d+)")
_POINTER = re.compile(rf"  CompactPointer: (\d+) {_KEY}")
_SCALAR = re.compile(r"  (\w+): (\S+)")


@dataclass
class Dumped:
    """What a dump adds up to."""

    scalars: dict[str, str] = field(default_factory=dict)
    pointers: dict[int, bytes] = field(default_factory=dict)
    tables: dict[tuple[int, int], AddedTable] = field(default_factory=dict)
    damaged: bool = False

    def number(self, name: str) -> int | None:
        """A numeric field, None if the dump never has it."""
        value = self.scalars.get(name)
        return None if value is None else int(value)


def expectations(fixture: str) -> dict[str, Any]:
    """`expect.json` of a fixture."""
    expected: dict[str, Any] = json.loads((FIXTURES / fixture / "expect.json").read_text())
    return expected


def fixtures() -> list[str]:
    """The names of all fixtures."""
    return sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())


def parse(lines: list[str]) -> Dumped:
    """Add up the lines of one manifest."""
    dumped = Dumped()
    for line in lines:
        if added := _ADDED.fullmatch(line):
            level, number, size = (int(text) for text in added.groups()[:3])
            keys = _key(*added.groups()[3:6]), _key(*added.groups()[6:9])
            dumped.tables[level, number] = AddedTable(level, number, size, *keys)
        elif removed := _REMOVED.fullmatch(line):
            del dumped.tables[int(removed[1]), int(removed[2])]
        elif pointer := _POINTER.fullmatch(line):
            dumped.pointers[int(pointer[1])] = _key(*pointer.groups()[1:4])
        elif line.startswith("corruption: "):
            dumped.damaged = True
        elif scalar := _SCALAR.fullmatch(line):
            dumped.scalars[scalar[1]] = scalar[2]
        elif line != "}" and not line.startswith("--- offset "):
            raise AssertionError(f"a line that this parser does not know: {line!r}")
    return dumped


def assert_same(state: SessionState, dumped: Dumped) -> None:
    """The state is exactly what the dump says."""
    comparer = dumped.scalars.get("Comparator")
    assert state.comparer == (None if comparer is None else comparer.encode())
    assert state.next_file_number == dumped.number("NextFile")
    assert state.journal_number == dumped.number("LogNumber")
    assert state.previous_journal_number == (dumped.number("PrevLogNumber") or None)
    assert state.sequence == dumped.number("LastSeq")
    assert dict(state.compaction_pointers) == dumped.pointers
    assert {(table.level, table.number): table for table in state.tables()} == dumped.tables


def _key(user_key: str, sequence: str, kind: str) -> bytes:
    return ikey.encode(InternalKey(user_key.encode(), int(sequence), KeyKind(int(kind))))
