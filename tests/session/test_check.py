"""Whether real databases are sound, and that no flipped bit goes unseen."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avccfs.format import batch, journal
from avccfs.format.batch import Change
from avccfs.format.filename import Kind
from avccfs.format.ikey import Dialect
from avccfs.session.check import check
from avccfs.session.checkreport import as_json, as_lines
from avccfs.session.faults import Code, Severity
from avccfs.vfs.base import Open
from avccfs.vfs.fault import Always, FaultDirectory, FaultPlan, Op
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from tests.session.dump import FIXTURES, expectations, fixtures
from tests.session.made import Made, directory_of, small, small_avccdb

Seen = tuple[str, str, str]
"""Severity, place and code."""

DAMAGED: dict[str, list[Seen]] = {
    "current-dangling": [("damage", "CURRENT:0", "current-dangling")],
    "current-dangling-with-bak": [("damage", "CURRENT:0", "current-dangling")],
    "current-empty": [("damage", "CURRENT:0", "current-corrupted")],
    "current-missing": [("damage", "CURRENT", "current-missing")],
    "current-missing-with-bak": [("damage", "CURRENT", "current-missing")],
    "current-no-newline": [("damage", "CURRENT:0", "current-corrupted")],
    "current-nul-bytes": [("damage", "CURRENT:0", "current-corrupted")],
    "flipped-journal-byte": [("damage", "000008.log:3458", "chunk-checksum")],
    "flipped-manifest-byte": [
        ("damage", "MANIFEST-000000:112", "chunk-checksum"),
        ("loss-risk", "000005.ldb", "orphan-unique-keys"),
        ("loss-risk", "000007.ldb", "orphan-unique-keys"),
    ],
    "flipped-table-block": [("damage", "000005.ldb:0", "block-checksum")],
    "missing-table": [("damage", "000005.ldb", "table-missing")],
    "torn-journal-tail": [("loss-risk", "000008.log:8512", "torn-tail")],
    "torn-manifest-tail": [
        ("loss-risk", "000007.ldb", "orphan-unique-keys"),
        ("loss-risk", "MANIFEST-000000:171", "torn-tail"),
    ],
    "truncated-table-footer": [
        ("damage", "000005.ldb", "table-size"),
        ("damage", "000005.ldb:1793", "table-footer"),
    ],
    "zeroed-journal-range": [("damage", "000008.log:2793", "chunk-checksum")],
}
"""All that is wrong with the fixtures that are not sound."""

ODD: dict[str, list[Seen]] = {
    "avccdb-tables-and-journal": [
        ("oddity", "000010.log:0", "batch-versioned"),
        ("oddity", "000012.log:0", "batch-versioned"),
    ],
    "avccdb-versioned-journal": [("oddity", "000001.log:0", "batch-versioned")],
    "goleveldb-killed-at-fsync-1": [("oddity", "000009.ldb", "number-collision")],
    "goleveldb-killed-at-fsync-2": [
        ("oddity", "000009.ldb", "number-collision"),
        ("oddity", "MANIFEST-000010", "number-collision"),
        ("oddity", "MANIFEST-000010", "manifest-newer"),
    ],
    "goleveldb-killed-at-fsync-4": [
        ("oddity", "000009.ldb", "number-collision"),
        ("oddity", "MANIFEST-000010", "number-collision"),
        ("oddity", "MANIFEST-000010", "manifest-newer"),
    ],
    "goleveldb-killed-at-fsync-5": [
        ("oddity", "CURRENT", "current-overruled"),
        ("oddity", "CURRENT.10:0", "current-pending"),
    ],
    "goleveldb-killed-at-fsync-7": [("oddity", "000011.ldb", "number-collision")],
    "leveldb-killed": [("oddity", "000008.log:0", "batch-behind-session")],
    "pending-current-dangling": [("oddity", "CURRENT.999:0", "current-dangling")],
    "pending-current-newer": [
        ("oddity", "CURRENT", "current-overruled"),
        ("oddity", "CURRENT.999:0", "current-pending"),
        ("oddity", "MANIFEST-000999", "number-collision"),
    ],
    "pending-current-torn": [("oddity", "CURRENT.9:0", "current-corrupted")],
}
"""What is odd about those that are; about the others nothing is."""


def database(fixture: str) -> Path:
    return FIXTURES / fixture / "db"


def in_memory(fixture: str) -> MemoryDirectory:
    return directory_of({path.name: path.read_bytes() for path in database(fixture).iterdir()})


@pytest.mark.parametrize("fixture", fixtures())
def test_fixture_has_what_it_is_about_and_nothing_else(fixture: str) -> None:
    report = check(LocalDirectory(database(fixture), read_only=True))
    seen = [
        (each.severity.value, each.place, each.code.value)
        for each in report.findings
        if each.severity is not Severity.INFO
    ]
    assert seen == DAMAGED.get(fixture, ODD.get(fixture, []))
    assert report.sound == (fixture not in DAMAGED)
    avccdb = fixture.startswith("avccdb")
    assert report.dialect is (Dialect.AVCCDB if avccdb else Dialect.STANDARD)


@pytest.mark.parametrize("fixture", sorted(set(fixtures()) - set(DAMAGED)))
def test_as_much_is_counted_as_the_engines_read(fixture: str) -> None:
    expected = expectations(fixture)
    counts = check(in_memory(fixture)).counts
    assert counts.tables == len(expected["tables"])
    assert counts.journals == len(expected["journals"])
    assert counts.manifests == len(expected["manifests"])
    assert counts.table_entries == sum(each["entries"] for each in expected["tables"].values())
    assert counts.journal_records == sum(each["records"] for each in expected["journals"].values())


def test_batches_that_goleveldb_skips_are_those_it_says_it_skips() -> None:
    log = expectations("leveldb-killed")["goleveldb.open"]["log"]
    more = int(log[-1].removeprefix("... ").removesuffix(" more"))
    assert all("invalid sequence number (skipped)" in line for line in log[:-1])
    (finding,) = (
        each
        for each in check(in_memory("leveldb-killed")).findings
        if each.code is Code.BATCH_BEHIND_SESSION
    )
    assert finding.found.startswith(f"{len(log) - 1 + more} batches below it")


# -- one flipped bit

HARMLESS_NAMES = ("LOCK", "LOG")
"""What these hold is for people, or nothing."""

EVERY_BIT = range(8)


def flips(
    directory: MemoryDirectory, name: str, bits: Callable[[int], range]
) -> Iterator[tuple[int, int]]:
    """The file with each bit of each byte flipped in turn; `bits` chooses them by offset."""
    file = directory.open(name, Open.WRITE)
    content = file.read_at(file.stat().size, 0)
    for offset, value in enumerate(content):
        for bit in bits(offset):
            file.write_at(bytes([value ^ 1 << bit]), offset)
            yield offset, bit
        file.write_at(bytes([value]), offset)


def unseen(
    directory: MemoryDirectory,
    bits: Callable[[int], range],
    leave_out: Sequence[str] = HARMLESS_NAMES,
) -> list[tuple[str, int, int]]:
    """Flipped bits after which `check` finds nothing wrong with the file that they are in."""
    missed = []
    for name in set(directory.names()).difference(leave_out):
        for offset, bit in flips(directory, name, bits):
            report = check(directory)
            if not any(each.file == name and not each.severity.sound for each in report.findings):
                missed.append((name, offset, bit))
    assert check(directory).sound
    return missed


@pytest.mark.parametrize("made", [small(), small_avccdb()], ids=["standard", "avccdb"])
def test_no_flipped_bit_of_a_small_database_goes_unseen(made: Made) -> None:
    assert unseen(made.directory(), lambda _: EVERY_BIT) == []


def test_no_flipped_bit_between_blocks_of_a_journal_goes_unseen() -> None:
    """Four bytes at the end of a block, into which no chunk fits and which no engine reads."""
    made = small()
    writer = journal.Writer()
    first = writer.append(batch.encode(101, [Change(b"k", bytes(32764 - 7 - 12 - 1 - 2 - 3))]))
    assert len(first) == 32764
    made.files["000004.log"] = first + writer.append(batch.encode(102, [Change(b"last")]))
    edges = {*range(30), *range(32750, 32800)}
    rest = [name for name in made.all_files() if name != "000004.log"]
    missed = unseen(
        made.directory(), lambda at: EVERY_BIT if at in edges else range(0), leave_out=rest
    )
    assert missed == []


def one_bit(offset: int) -> range:
    """Of neighbours another one each time."""
    return range(offset * 5 % 8, offset * 5 % 8 + 1)


REAL = ["goleveldb-closed", "avccdb-compacted", "leveldb-closed"]


@pytest.mark.parametrize("fixture", REAL)
def test_no_flipped_bit_of_what_all_else_hangs_on_goes_unseen(fixture: str) -> None:
    """One bit of each byte of CURRENT and the manifest of real databases."""
    directory = in_memory(fixture)
    rest = (*HARMLESS_NAMES, *(name for name in directory.names() if name[-4:] in (".ldb", ".log")))
    assert unseen(directory, one_bit, leave_out=rest) == []


@pytest.mark.slow
@pytest.mark.parametrize("fixture", ["goleveldb-closed", "avccdb-compacted"])
def test_no_flipped_bit_of_a_real_database_goes_unseen(fixture: str) -> None:
    """One bit of each byte of every live file."""
    assert unseen(in_memory(fixture), one_bit) == []


# -- whatever is there


FUZZED = {name: in_memory(name) for name in ("goleveldb-killed-at-fsync-5", "avccdb-compacted")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_there_is_an_answer_whatever_is_there(data: st.DataObject) -> None:
    source = FUZZED[data.draw(st.sampled_from(sorted(FUZZED)))]
    files: dict[str, bytes] = {}
    for name in sorted(source.names()):
        file = source.open(name)
        content = bytearray(file.read_at(1 << 20, 0))
        file.close()
        change = data.draw(st.sampled_from(["keep", "keep", "drop", "cut", "patch", "insert"]))
        at = data.draw(st.integers(0, len(content)))
        patch = data.draw(st.binary(max_size=12))
        if change == "drop":
            continue
        if change == "cut":
            del content[at:]
        elif change == "patch":
            content[at : at + len(patch)] = patch
        elif change == "insert":
            content[at:at] = patch
        files[name] = bytes(content)
    dialect = data.draw(st.sampled_from([None, *Dialect]))
    report = check(directory_of(files), dialect=dialect)
    assert json.loads(json.dumps(as_json(report)))["sound"] == report.sound
    assert list(as_lines(report))


def test_nothing_is_changed(tmp_path: Path) -> None:
    def state(root: Path) -> dict[str, tuple[str, int]]:
        return {
            path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in root.iterdir()
        }

    for name, content in small().all_files().items():
        if name != "LOCK":
            (tmp_path / name).write_bytes(content)
    before = state(tmp_path)
    # Not even with a directory that could be written to.
    assert check(LocalDirectory(tmp_path)).sound
    assert state(tmp_path) == before


@pytest.mark.parametrize("kind", [Kind.TABLE, Kind.JOURNAL, Kind.MANIFEST, Kind.META])
def test_what_the_disk_refuses_is_a_finding(kind: Kind) -> None:
    with FaultPlan() as plan:
        plan.fail(Op.READ, kind, Always(), error=errno.EIO)
        report = check(FaultDirectory(in_memory("goleveldb-closed"), plan))
    assert not report.sound
    refused = {each.file for each in report.findings if each.code is Code.UNREADABLE}
    names = {
        Kind.TABLE: {"000003.ldb", "000005.ldb", "000007.ldb"},
        Kind.JOURNAL: {"000006.log", "000008.log"},
        Kind.MANIFEST: {"MANIFEST-000000"},
        Kind.META: {"CURRENT"},
    }
    assert refused == names[kind]


def test_directory_that_cannot_be_listed_is_no_finding(tmp_path: Path) -> None:
    directory = LocalDirectory(tmp_path)
    directory.close()
    with pytest.raises(Exception, match="closed"):
        check(directory)


# -- what is told of it


def test_progress_ends_where_it_said_it_would() -> None:
    steps: list[tuple[int, int, str]] = []
    report = check(
        in_memory("goleveldb-killed-at-unlinkat-2"),
        progress=lambda done, total, name: steps.append((done, total, name)),
    )
    done = [step[0] for step in steps]
    assert done == sorted(done)
    assert {step[1] for step in steps} == {report.counts.bytes}
    assert done[-1] == report.counts.bytes > 0


def test_json_has_a_stable_form() -> None:
    said: dict[str, Any] = as_json(check(LocalDirectory(database("torn-journal-tail"))))
    assert said == {
        "directory": str(database("torn-journal-tail")),
        "sound": False,
        "manifest": "MANIFEST-000000",
        "dialect": "standard",
        "findings": [
            {
                "code": "torn-tail",
                "severity": "loss-risk",
                "file": "000008.log",
                "offset": 8512,
                "length": 127,
                "expected": "126 bytes of payload",
                "found": "the end of the file (120 bytes follow)",
                "advice": said["findings"][0]["advice"],
            }
        ],
        "omitted": [],
        "files": {
            "tables": 3,
            "live_tables": 3,
            "journals": 2,
            "live_journals": 2,
            "manifests": 1,
            "other_files": 3,
            "bytes": 23503,
            "blocks": 12,
            "table_entries": 204,
            "journal_records": 132,
            "journal_entries": 132,
        },
    }


def test_person_gets_the_verdict_first_and_the_worst_before_the_rest() -> None:
    lines = list(as_lines(check(in_memory("flipped-manifest-byte"))))
    assert (
        lines[0] == "mem:: NOT SOUND: 1 damage, 2 loss-risk (by MANIFEST-000000, standard dialect)"
    )
    assert lines[2] == "damage:"
    assert lines[3].startswith(
        "  MANIFEST-000000:112 chunk-checksum: expected the checksum 0xb3bb935a of its bytes, "
        "found 0xf3bb935a in its header; "
    )
    assert lines[5] == "loss-risk:"
    assert lines[-1].startswith("looked at 23509 bytes: tables: 3 (1 live), journals: 2 (2 live), ")
