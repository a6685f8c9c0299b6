"""The quick answer about a table and the slow one are the same."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avccfs.format import ikey, merkle
from avccfs.format.filter import METAINDEX_PREFIX, FilterBlock
from avccfs.format.ikey import Dialect, InternalKey, KeyKind
from avccfs.format.table import ReadAt, encode_handle
from avccfs.session import tableproof
from avccfs.session.bloom import BulkFilter
from avccfs.session.faults import Code, Flaw
from avccfs.session.tablecheck import TableCheck, Terms, check_table
from avccfs.session.tableproof import Window, prove
from tests.format.tables import Layout, Pair, content_of, entry, with_restarts
from tests.session.dump import FIXTURES, expectations, fixtures
from tests.session.made import POLICY, bloom_of, filter_block, put, table_of

TABLES = sorted(FIXTURES.glob("*/db/*.ldb"))
DAMAGED = {("flipped-table-block", "000005.ldb"), ("truncated-table-footer", "000005.ldb")}


def reader(data: bytes) -> ReadAt:
    return lambda size, offset: data[offset : offset + size]


def diagnose(data: bytes, dialect: Dialect | None = None) -> tuple[TableCheck, list[Flaw]]:
    """The slow answer alone, whatever the quick one is."""
    flaws: list[Flaw] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tableproof, "prove", lambda *_: None)
        terms = Terms(dialect, Dialect.STANDARD)
        checked = check_table(reader(data), len(data), terms, flaws.append)
    return checked, [flaw for flaw in flaws if flaw.code is not Code.TABLE_CHANGED]


def agree(data: bytes, dialect: Dialect | None = None) -> bool:
    """Whether the table is sound, which both must say, and then the same of it."""
    proven = prove(reader(data), len(data), dialect)
    checked, flaws = diagnose(data, dialect)
    assert (proven is None) == bool(flaws), flaws
    if proven is not None:
        assert checked == TableCheck(
            len(data),
            proven.dialect,
            proven.blocks,
            proven.entries,
            proven.smallest,
            proven.largest,
            proven.highest_sequence,
        )
    return proven is not None


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_both_say_the_same_of_real_tables(path: Path) -> None:
    fixture = path.parts[-3]
    sound = agree(path.read_bytes())
    assert sound == ((fixture, path.name) not in DAMAGED)
    if sound:
        proven = prove(reader(path.read_bytes()), path.stat().st_size)
        expected = expectations(fixture)["tables"][path.name]
        assert proven is not None
        assert proven.entries == expected["entries"]
        assert proven.smallest.hex() == expected["first_internal_key_hex"]
        assert proven.largest.hex() == expected["last_internal_key_hex"]


def test_there_are_real_tables_of_each_kind() -> None:
    assert len(TABLES) > 50
    assert {name.partition("-")[0] for name in fixtures()} >= {"avccdb", "goleveldb", "leveldb"}


user_keys = st.binary(max_size=4) | st.sampled_from([b"a", b"ab", b"a\x01", b"", bytes(130)])
internal_keys = st.builds(
    lambda user_key, sequence, kind: user_key + struct.pack("<Q", sequence << 8 | kind),
    user_keys,
    st.integers(0, 4) | st.just(2**56 - 1),
    st.sampled_from([0, 1, 1, 1, 1, 1, 1, 2]),
)
keys = internal_keys | internal_keys | internal_keys | st.binary(max_size=9)
values = st.binary(max_size=3) | st.integers(120, 140).map(bytes) | st.just(bytes(20_000))


@st.composite
def blocks(draw: st.DrawFn) -> list[list[Pair]]:
    """Blocks of entries, as a rule in order."""
    pairs = draw(st.lists(st.tuples(keys, values), min_size=1, max_size=12))
    if draw(st.integers(0, 5)):
        unique = {key: value for key, value in pairs if len(key) >= 8}
        pairs = sorted(
            unique.items(), key=lambda pair: ikey.sort_key(pair[0], Dialect.STANDARD)
        ) or [put("a", 1)]
    cut = draw(st.integers(0, len(pairs)))
    return [part for part in (pairs[:cut], pairs[cut:]) if part]


@settings(max_examples=300, deadline=None)
@given(
    data=blocks(),
    interval=st.sampled_from([1, 2, 16]),
    restarts=st.none() | st.lists(st.integers(0, 40), min_size=1, max_size=3),
    separator=st.none() | internal_keys,
    with_filter=st.sampled_from([None, "right", "wrong"]),
    with_tree=st.sampled_from([None, None, "right", "wrong"]),
    dialect=st.sampled_from([None, None, *Dialect]),
)
def test_both_say_the_same_of_any_table_with_sound_checksums(
    data: list[list[Pair]],
    interval: int,
    restarts: list[int] | None,
    separator: bytes | None,
    with_filter: str | None,
    with_tree: str | None,
    dialect: Dialect | None,
) -> None:
    layout = Layout()
    for number, pairs in enumerate(data):
        content = content_of(pairs, interval)
        if restarts is not None and number == 0:
            (count,) = struct.unpack("<I", content[-4:])
            content = with_restarts(content[: -4 * (count + 1)], restarts)
        handle = layout.put(content)
        layout.index.append((pairs[-1][0], encode_handle(handle)))
    if separator is not None:
        layout.index[0] = (separator, layout.index[0][1])
    pairs = [pair for each in data for pair in each]
    if with_filter:
        kept = pairs if with_filter == "right" else pairs[1:]
        bits = bloom_of([key[:-8] for key, _ in kept], size=64)
        layout.name(METAINDEX_PREFIX + POLICY, filter_block([bits] * 30))
    if with_tree:
        kept = pairs if with_tree == "right" else pairs[::-1]
        tree = merkle.build(merkle.leaf_hash(*pair) for pair in kept)
        layout.name(merkle.METAINDEX_KEY, merkle.encode(tree))
    agree(layout.finish(), dialect)


def test_tables_that_are_sound_are_among_those() -> None:
    """Each way through the proof: plain entries, equal user keys, filters, trees."""
    older = [put("a", 3), put("a", 2), put("ab", 5)]
    assert agree(table_of([[put("a", 1), put("b", 2)], [put("c", 1)]]))
    assert agree(table_of([older]))
    assert agree(table_of([older], with_filter=True))
    assert agree(table_of([[put("a", 1), put("b", 2)]], with_filter=True))
    avccdb = [put("a", 1, 9), put("a", 2, 3), put("b", 1, 1)]
    assert agree(table_of([avccdb], with_tree=True))
    assert agree(table_of([avccdb], with_tree=True, with_filter=True))
    assert not agree(table_of([avccdb], with_tree=True), Dialect.STANDARD)


def test_entries_with_lengths_in_more_bytes_than_needed_are_read() -> None:
    content = with_restarts(b"\x80\x00" + entry(0, put("a", 1)[0], b"x")[1:], [0])
    layout = Layout()
    layout.index.append((put("a", 1)[0], encode_handle(layout.put(content))))
    assert agree(layout.finish())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=20), min_size=1, max_size=20),
    st.lists(st.binary(max_size=20), max_size=20),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 5000),
)
def test_asking_for_many_keys_is_asking_for_each(
    inside: list[bytes], others: list[bytes], size: int, probes: int, offset: int
) -> None:
    bits = bloom_of(inside, size, probes) if size else bytes([probes])
    block = filter_block([bits, b"", bits])
    asked = inside + others
    one_by_one = FilterBlock(block)
    denied = [key for key in asked if not one_by_one.may_contain(offset, key)]
    assert BulkFilter(block).first_denied(offset, asked) == (denied[0] if denied else None)


def test_window_reads_what_the_file_has() -> None:
    data = random.Random(7).randbytes(2_000_000)
    asked: list[tuple[int, int]] = []

    def read_at(size: int, offset: int) -> bytes:
        asked.append((size, offset))
        return data[offset : offset + size]

    window = Window(read_at, len(data))
    for offset in range(0, len(data), 1000):
        assert window.read(1000, offset) == data[offset : offset + 1000]
    assert len(asked) < 10
    for size, offset in ((10, 5), (700_000, 3), (100, 1_999_950), (10, 2_000_000), (0, 9)):
        assert window.read(size, offset) == data[offset : offset + size]


def test_large_table_is_read_once_from_front_to_back() -> None:
    numbers = random.Random(3)
    data = table_of(
        [[(ikey.encode(InternalKey(b"%06d" % at, 1, KeyKind.PUT)), numbers.randbytes(4000))]
         for at in range(500)]
    )  # fmt: skip
    read = 0

    def read_at(size: int, offset: int) -> bytes:
        nonlocal read
        read += size
        return data[offset : offset + size]

    assert prove(read_at, len(data)) is not None
    assert read < len(data) * 1.1
