"""What torn, short and corrupted reads and writes leave behind, byte by byte."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.vfs.base import Directory, Open, Rename
from avccfs.vfs.fault import (
    Amount,
    CorruptBit,
    CorruptBlock,
    FaultDirectory,
    FaultFile,
    FaultPlan,
    TornAt,
    TornPrefix,
    TornSectors,
)
from avccfs.vfs.fault.effects import merged
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory

NEW = Open.WRITE | Open.CREATE
LOG = "000001.log"
OLD = bytes(range(1, 251)) * 8
"""2000 bytes, none of them zero."""
DATA = bytes(range(250, 0, -1)) * 8


@pytest.fixture(params=["memory", "local"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Directory]:
    made: Directory = (
        MemoryDirectory() if request.param == "memory" else LocalDirectory(tmp_path / "db")
    )
    yield made
    made.close()


@pytest.fixture
def plan() -> Iterator[FaultPlan]:
    with FaultPlan() as made:
        yield made


@pytest.fixture(params=[False, True], ids=["untracked", "tracked"])
def directory(request: pytest.FixtureRequest, inner: Directory, plan: FaultPlan) -> FaultDirectory:
    file = inner.open(LOG, NEW)
    file.write_at(OLD, 0)
    file.close()
    return FaultDirectory(inner, plan, track=request.param)


@pytest.fixture
def file(directory: FaultDirectory) -> Iterator[FaultFile]:
    opened = directory.open(LOG, Open.WRITE)
    yield opened
    opened.close()


def content(directory: Directory) -> bytes:
    file = directory.open(LOG)
    try:
        return file.read_at(10**6, 0)
    finally:
        file.close()


def fails(call: Callable[..., object], *args: object, code: int = errno.EIO) -> None:
    with pytest.raises(OSError, match=LOG) as caught:
        call(*args)
    assert caught.value.errno == code


def last_fault(plan: FaultPlan) -> dict[str, object]:
    faults = plan.stats()["faults"]
    assert isinstance(faults, list)
    return dict(faults[-1])


def over(old: bytes, data: bytes, offset: int, *parts: tuple[int, int]) -> bytes:
    """The old content, with these parts of the data written at `offset`."""
    result = bytearray(old)
    for start, stop in parts:
        result.extend(bytes(max(0, offset + stop - len(result))))
        result[offset + start : offset + stop] = data[start:stop]
    return bytes(result)


TORN: list[tuple[str, int, list[tuple[int, int]], str]] = [
    ("prefix 100", 50, [(0, 100)], "first 100 of 2000 bytes written, then EIO"),
    ("prefix 0", 50, [], "none of 2000 bytes written, then EIO"),
    ("prefix 50%", 0, [(0, 1000)], "first 1000 of 2000 bytes written, then EIO"),
    ("prefix 5000", 7, [(0, 2000)], "first 2000 of 2000 bytes written, then EIO"),
    (
        "at 100,200 keep 1,3",
        0,
        [(0, 100), (200, 2000)],
        "bytes 0 to 99, 200 to 1999 of 2000 written",
    ),
    ("at 100,200 keep 2", 1900, [(100, 200)], "bytes 100 to 199 of 2000 written, then EIO"),
    ("at 100,9000 keep 2,3", 0, [(100, 2000)], "bytes 100 to 1999 of 2000 written, then EIO"),
    ("sectors 0", 0, [(0, 512)], "first 512 of 2000 bytes written, then EIO"),
    ("sectors 0", 500, [(0, 12)], "first 12 of 2000 bytes written, then EIO"),
    ("sectors 1-2", 500, [(12, 1036)], "bytes 12 to 1035 of 2000 written, then EIO"),
    (
        "sectors 0,3-9",
        512,
        [(0, 512), (1536, 2000)],
        "bytes 0 to 511, 1536 to 1999 of 2000 written",
    ),
    ("sectors 9", 0, [], "none of 2000 bytes written, then EIO"),
]


@pytest.mark.parametrize(("how", "offset", "parts", "did"), TORN)
def test_a_torn_write_leaves_what_was_named_and_fails(
    plan: FaultPlan,
    directory: FaultDirectory,
    file: FaultFile,
    how: str,
    offset: int,
    parts: list[tuple[int, int]],
    did: str,
) -> None:
    plan.add(f"write #2: torn {how}")
    assert file.write_at(b"", 0) == 0
    fails(file.write_at, memoryview(DATA), offset)
    expected = over(OLD, DATA, offset, *parts)
    assert content(directory.inner) == expected
    assert file.write_at(b"after", len(expected)) == 5
    assert content(directory.inner) == expected + b"after"
    fault = last_fault(plan)
    assert str(fault["did"]).startswith(did)
    assert (fault["offset"], fault["length"], fault["call"]) == (offset, 2000, 2)
    assert plan.bytes() == sum(stop - start for start, stop in parts) + 5
    assert plan.failures() == 1


def test_a_torn_write_fails_with_the_errno_it_was_given(plan: FaultPlan, file: FaultFile) -> None:
    plan.add("write: torn prefix 3 ENOSPC")
    fails(file.write_at, b"12345", 0, code=errno.ENOSPC)
    assert str(last_fault(plan)["did"]) == "first 3 of 5 bytes written, then ENOSPC"


@pytest.mark.parametrize(
    ("amount", "length", "count"),
    [
        ("100", 2000, 100),
        ("50%", 2001, 1000),
        ("0", 10, 0),
        ("9999", 10, 10),
        ("50%", 1, 1),
        ("0%", 9, 0),
    ],
)
def test_short_reads_and_writes_succeed_with_less(
    plan: FaultPlan,
    directory: FaultDirectory,
    file: FaultFile,
    amount: str,
    length: int,
    count: int,
) -> None:
    plan.add(f"write|read #1-2: short {amount}")
    data = (DATA * 2)[:length]
    assert file.write_at(data, 5) == count
    assert content(directory.inner) == over(OLD, data, 5, (0, count))
    there = min(length, len(content(directory.inner)))
    read = file.read_at(length, 0)
    assert len(read) == (count if length <= 2000 else there // 2)
    assert read == content(directory.inner)[: len(read)]
    assert file.write_at(data, 5) == length
    assert plan.failures() == 0


def flipped(before: bytes, after: bytes) -> list[int]:
    """The numbers of the bits that differ."""
    assert len(before) == len(after)
    return [
        8 * at + bit
        for at, (one, other) in enumerate(zip(before, after, strict=True))
        for bit in range(8)
        if (one ^ other) >> bit & 1
    ]


def test_a_chosen_bit_is_flipped_on_its_way_in(
    plan: FaultPlan, directory: FaultDirectory, file: FaultFile
) -> None:
    plan.add("write #1: corrupt bit 4711")
    assert file.write_at(DATA, 10) == 2000
    written = content(directory.inner)
    assert flipped(over(OLD, DATA, 10, (0, 2000)), written) == [8 * 10 + 4711]
    assert last_fault(plan)["did"] == "bit 4711 flipped"
    file.write_at(DATA, 10)
    assert content(directory.inner) == over(OLD, DATA, 10, (0, 2000))


def test_a_chosen_bit_is_flipped_on_its_way_out_and_only_there(
    plan: FaultPlan, directory: FaultDirectory, file: FaultFile
) -> None:
    plan.add("read: corrupt bit 9")
    assert flipped(OLD[100:200], file.read_at(100, 100)) == [9]
    assert content(directory.inner) == OLD
    assert file.read_at(1, 0) == OLD[:1]
    assert last_fault(plan)["did"] == "no such bit in 1 bytes, nothing changed"
    assert file.read_at(10, 5000) == b""


def test_a_chosen_block_lies_at_its_place_in_the_file(plan: FaultPlan, file: FaultFile) -> None:
    plan.add("read: corrupt block 1 size=64")
    read = file.read_at(200, 100)
    differing = [at for at in range(200) if read[at] != OLD[100 + at]]
    assert differing == list(range(28, 92))
    assert last_fault(plan)["did"] == "bytes 28 to 91 of 200 changed"


def test_what_is_left_open_is_chosen_by_the_seed(
    file: FaultFile, directory: FaultDirectory
) -> None:
    runs = []
    for seed in (1, 1, 2):
        directory.plan.clear()
        directory.plan.add(f"read seed={seed}: corrupt bit")
        directory.plan.add(f"read seed={seed}: corrupt block size=16")
        runs.append([file.read_at(500, 0) for _ in range(5)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert len(set(runs[0])) == 5


def test_several_faults_of_one_write_act_in_their_order(
    plan: FaultPlan, directory: FaultDirectory, file: FaultFile
) -> None:
    plan.add("write: short 1000")
    plan.add("write: corrupt bit 0")
    plan.add("write: torn prefix 50%")
    plan.add("write: torn prefix 1")
    fails(file.write_at, DATA, 0)
    spoiled = bytes([DATA[0] ^ 1]) + DATA[1:]
    assert content(directory.inner) == over(OLD, spoiled, 0, (0, 500))
    assert [status.fired for status in plan.rules()] == [1, 1, 1, 0]


def test_an_error_comes_before_any_byte(
    plan: FaultPlan, directory: FaultDirectory, file: FaultFile
) -> None:
    plan.add("write: torn prefix 50%")
    plan.add("write #1: ENOSPC")
    fails(file.write_at, DATA, 0, code=errno.ENOSPC)
    assert content(directory.inner) == OLD
    assert [status.fired for status in plan.rules()] == [0, 1]


class TestWhoMustKnow:
    @pytest.fixture
    def spoiled(self, directory: FaultDirectory) -> list[str]:
        told: list[str] = []
        directory.on_spoiled = told.append
        return told

    @pytest.mark.parametrize("what", ["torn prefix 1", "corrupt bit 3", "corrupt block"])
    def test_caches_above_are_told_of_content_that_nobody_wrote(
        self, plan: FaultPlan, file: FaultFile, spoiled: list[str], what: str
    ) -> None:
        plan.add(f"write #1: {what}")
        try:
            file.write_at(DATA, 0)
        except OSError:
            assert what == "torn prefix 1"
        assert spoiled == [LOG]
        file.write_at(DATA, 0)
        assert spoiled == [LOG]

    @pytest.mark.parametrize("line", ["write: EIO", "write: short 1", "read: corrupt bit"])
    def test_they_are_not_told_of_anything_else(
        self, plan: FaultPlan, file: FaultFile, spoiled: list[str], line: str
    ) -> None:
        plan.add(line)
        try:
            file.write_at(DATA, 0)
        except OSError:
            assert line == "write: EIO"
        file.read_at(10, 0)
        assert spoiled == []

    def test_the_path_is_where_the_file_is_now(
        self, plan: FaultPlan, directory: FaultDirectory, file: FaultFile, spoiled: list[str]
    ) -> None:
        plan.add("write: torn prefix 1")
        directory.rename(LOG, "000002.log")
        fails(file.write_at, DATA, 0)
        directory.mkdir("folder")
        directory.rename("000002.log", "folder/a")
        directory.rename("folder", "lost")
        fails(file.write_at, DATA, 0)
        directory.inner.open("other", NEW).close()
        directory.rename("lost/a", "other", Rename.EXCHANGE)
        fails(file.write_at, DATA, 0)
        assert spoiled == ["000002.log", "lost/a", "other"]


# --- the arithmetic ---------------------------------------------------------------------------

places = st.integers(0, 5000)


def check_parts(parts: list[tuple[int, int]], length: int) -> None:
    edges = [edge for part in parts for edge in part]
    assert edges == sorted(set(edges)), "ascending, apart, none empty"
    assert all(0 <= edge <= length for edge in edges)


ranges = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: (min(pair), max(pair)))


@given(places, places, st.lists(ranges, min_size=1))
def test_sectors_are_those_of_the_file(
    offset: int, length: int, pairs: list[tuple[int, int]]
) -> None:
    torn = TornSectors(merged(tuple(pairs)))
    parts = torn.parts(offset, length)
    check_parts(parts, length)
    kept = {at for start, stop in parts for at in range(start, stop)}
    first = offset // 512
    assert kept == {
        at
        for at in range(length)
        if any(low <= (offset + at) // 512 - first <= high for low, high in pairs)
    }


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=5, unique=True), st.integers(0, 60), st.data()
)
def test_every_part_between_cuts_is_kept_or_not(
    cuts: list[int], length: int, data: st.DataObject
) -> None:
    cuts = sorted(cuts)
    keep = sorted(data.draw(st.sets(st.integers(1, len(cuts) + 1), min_size=1)))
    parts = TornAt(tuple(cuts), tuple(keep)).parts(123, length)
    check_parts(parts, length)
    kept = {at for start, stop in parts for at in range(start, stop)}
    assert kept == {at for at in range(length) if 1 + sum(at >= cut for cut in cuts) in keep}


@given(st.integers(0, 100), st.integers(0, 300))
def test_a_prefix_in_per_cent_rounds_down(percent: int, length: int) -> None:
    parts = TornPrefix(Amount(percent, True)).parts(0, length)
    count = length * percent // 100
    assert parts == ([(0, count)] if count else [])


@given(st.binary(min_size=1, max_size=300), places, st.integers(1, 100), st.randoms())
def test_a_block_is_changed_in_every_byte_and_nothing_else_is(
    data: bytes, offset: int, size: int, chance: random.Random
) -> None:
    after, _ = CorruptBlock(None, size).spoil(data, offset, chance)
    differing = [at for at in range(len(data)) if after[at] != data[at]]
    block = (offset + differing[0]) // size
    assert differing == [at for at in range(len(data)) if (offset + at) // size == block]


@given(st.binary(min_size=1, max_size=50), st.randoms())
def test_a_bit_is_one_bit(data: bytes, chance: random.Random) -> None:
    after, did = CorruptBit().spoil(data, 0, chance)
    (bit,) = flipped(data, after)
    assert did == f"bit {bit} flipped"
