from __future__ import annotations

import hashlib
import os
import random
import struct
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cramjam
import plyvel
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from avccfs.errors import FormatError
from avccfs.format import block, ikey, merkle, salvage
from avccfs.format.block import MAX_CONTENT, BlockError, Compression, Reason
from avccfs.format.coding import encode_varint, mask, unmask
from avccfs.format.filter import BLOOM_POLICIES, FilterBlock, bloom_hash, bloom_may_contain
from avccfs.format.ikey import Dialect, KeyKind
from avccfs.format.table import Fault, Handle, Part, Table, encode_handle, read_handle
from tests.format.samples import FIXTURES, expectations, unhurried
from tests.format.tables import (
    Layout,
    Pair,
    content_of,
    entry,
    footer,
    open_table,
    pairs,
    read,
    stored,
    with_restarts,
)

COMPRESSIONS = pytest.mark.parametrize("compression", Compression)


@dataclass(frozen=True, slots=True)
class TableSample:
    fixture: str
    name: str
    expected: dict[str, Any]
    leveldb_dump: Any

    @property
    def data(self) -> bytes:
        return (FIXTURES / self.fixture / "db" / self.name).read_bytes()

    def __str__(self) -> str:
        return f"{self.fixture}/{self.name}"


TABLES = [
    TableSample(fixture, name, expected, expectation.get("leveldbutil_dump", {}).get(name))
    for fixture, expectation in expectations().items()
    for name, expected in expectation["tables"].items()
]


def sample(name: str) -> bytes:
    (found,) = (table.data for table in TABLES if str(table) == name)
    return found


def up_to_first_fault(table: Table) -> tuple[list[Pair], list[Fault]]:
    faults: list[Fault] = []
    found: list[Pair] = []
    for key, value, _ in table.entries(faults.append, beyond_index=False):
        if faults:
            break
        found.append((key, value))
    return found, [*table.faults, *faults]


def a_table(compression: int = Compression.NONE, blocks: int = 5, size: int = 20) -> Layout:
    layout = Layout(compression)
    for number in range(blocks):
        layout.add(pairs(10 * number, 10 * number + 10, size))
    return layout


def whole(layout: Layout) -> bytes:
    return layout.finish()


# What real engines left behind


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_goleveldb_reads_what_we_read_up_to_the_first_fault(table: TableSample) -> None:
    found, faults = up_to_first_fault(open_table(table.data))
    lines = b"".join(b"%s %s\n" % (k.hex().encode(), v.hex().encode()) for k, v in found)
    assert bool(faults) == bool(table.expected["error"])
    assert len(found) == table.expected["entries"]
    assert (
        hashlib.sha256(lines).hexdigest()
        == (table.expected["sha256_of_hexkey_space_hexvalue_lines"])
    )
    if found:
        assert found[0][0].hex() == table.expected["first_internal_key_hex"]
        assert found[-1][0].hex() == table.expected["last_internal_key_hex"]


def escaped(raw: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)


@pytest.mark.parametrize("table", [t for t in TABLES if t.leveldb_dump is not None], ids=str)
def test_leveldb_prints_what_we_read_without_checking(table: TableSample) -> None:
    reader = open_table(table.data, verify=False)
    lines = []
    for fault in reader.faults:
        assert fault.reason is Reason.BAD_MAGIC
        lines.append("Corruption: not an sstable (bad magic number)")
    faults: list[Fault] = []
    for raw, value, _ in reader.entries(faults.append, beyond_index=False):
        key = ikey.decode(raw, Dialect.STANDARD)
        kind = "val" if key.kind is KeyKind.PUT else "del"
        lines.append(f"'{escaped(key.user_key)}' @ {key.sequence} : {kind} => '{escaped(value)}'")
    assert faults == []
    assert lines[: len(table.leveldb_dump["head"])] == table.leveldb_dump["head"]
    assert len(lines) == table.leveldb_dump["lines"]
    digest = hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
    assert digest == table.leveldb_dump["sha256"]


def test_only_avccdb_names_a_merkle_tree() -> None:
    dialects = {str(table): open_table(table.data).dialect for table in TABLES}
    assert dialects.pop("truncated-table-footer/000005.ldb") is None
    for name, dialect in dialects.items():
        assert dialect is (Dialect.AVCCDB if name.startswith("avccdb-") else Dialect.STANDARD)


def test_blocks_around_a_flipped_one_are_read() -> None:
    found, faults = read(sample("flipped-table-block/000005.ldb"))
    assert [(fault.offset, fault.length, fault.part) for fault in faults] == [(0, 926, Part.DATA)]
    assert faults[0].detail == (
        "data block at offset 0: expected the checksum 0xc2629863 of its bytes, "
        "found 0xe7c66043 in its trailer"
    )
    sound, _ = read(sample("goleveldb-closed/000005.ldb"))
    assert 0 < len(found) < len(sound)
    assert found == sound[-len(found) :]


def test_table_without_its_footer_gives_all_that_it_had() -> None:
    found, faults = read(sample("truncated-table-footer/000005.ldb"))
    assert found == read(sample("goleveldb-closed/000005.ldb"))[0]
    assert [(fault.part, fault.reason) for fault in faults] == [(Part.FOOTER, Reason.BAD_MAGIC)]


@pytest.mark.parametrize(
    "name",
    [
        "goleveldb-closed/000003.ldb",
        "leveldb-killed/000005.ldb",
        "avccdb-compacted/000004.ldb",
        "goleveldb-old-sst-names/000003.sst",
    ],
)
def test_footer_cut_off_at_any_byte_costs_no_entry(name: str) -> None:
    data = sample(name)
    sound, _ = read(data)
    for cut in range(1, 49):
        found, faults = read(data[:-cut])
        assert found == sound
        assert faults


def made_with_everything() -> bytes:
    layout = a_table(Compression.SNAPPY, blocks=4)
    layout.name(b"filter.leveldb.BuiltinBloomFilter2", bytes.fromhex("000000000b"))
    layout.name(merkle.METAINDEX_KEY, merkle.encode(merkle.build([bytes(32)])))
    return layout.finish()


@pytest.mark.parametrize(
    ("data", "block_size"),
    [(made_with_everything(), 10), (sample("goleveldb-closed/000003.ldb"), 37)],
    ids=["made", "goleveldb"],
)
def test_flipped_bit_is_found_wherever_it_is_and_costs_one_block(
    data: bytes, block_size: int
) -> None:
    sound, faults = read(data)
    assert faults == []
    for offset in range(len(data)):
        bad = bytearray(data)
        bad[offset] ^= 1 << (offset * 5 % 8)
        found, faults = read(bytes(bad))
        assert faults, offset
        assert len(found) >= len(sound) - block_size, offset
        lost = set(sound) - set(found)
        assert found == [pair for pair in sound if pair not in lost], offset


def test_plyvel_writes_filters_that_hold_every_key(tmp_path: Path) -> None:
    with plyvel.DB(str(tmp_path / "db"), create_if_missing=True, bloom_filter_bits=10) as database:
        for number in range(2000):
            database.put(b"key%d" % number, os.urandom(30))
        database.compact_range()
    (path,) = (tmp_path / "db").glob("*.ldb")
    table = open_table(path.read_bytes())
    faults: list[Fault] = []
    (policy,) = table.filters
    assert policy in BLOOM_POLICIES
    bloom = table.filter_block(policy, faults.append)
    assert bloom is not None
    entries = list(table.entries(faults.append))
    assert len(entries) == 2000
    assert all(bloom.may_contain(origin, key[:-8]) for key, _, origin in entries)
    wrong = sum(bloom.may_contain(origin, key[:-8] + b"?") for key, _, origin in entries)
    assert wrong < 100
    assert (table.faults, faults) == ((), [])


@pytest.mark.parametrize("compression", ["snappy", None])
def test_plyvel_tables_survive_the_loss_of_index_and_data(
    tmp_path: Path, compression: str | None
) -> None:
    generator = random.Random(5)
    path = str(tmp_path / "db")
    with plyvel.DB(path, create_if_missing=True, compression=compression) as database:
        for number in range(1500):
            database.put(b"key%06d" % number, generator.randbytes(100))
        database.compact_range()
    (table,) = Path(path).glob("*.ldb")
    data = bytearray(table.read_bytes())
    reader = open_table(bytes(data))
    handles = [handle for _, handle in reader.blocks()]
    faults: list[Fault] = []
    sound = {handle: list(reader.block_entries(handle, faults.append)) for handle in handles}
    assert faults == []
    lost = handles[7:9] + handles[20:21]
    for handle in lost:
        data[handle.offset + 100] ^= 0x10
    data[-100:] = bytes(100)
    broken = open_table(bytes(data))
    found = list(broken.entries(faults.append))
    assert found == [pair for handle in handles if handle not in lost for pair in sound[handle]]
    unreadable = [(fault.offset, fault.offset + fault.length) for fault in faults]
    assert unreadable[:2] == [
        (lost[0].offset, lost[1].end),
        (lost[2].offset, lost[2].end),
    ]
    assert {fault.reason for fault in faults} == {Reason.UNREADABLE}


# Blocks


@COMPRESSIONS
def test_every_compression_is_read(compression: Compression) -> None:
    layout = a_table(compression)
    found, faults = read(whole(layout))
    assert faults == []
    assert found == pairs(0, 50)


def test_compression_that_the_engine_does_not_know_is_a_fault() -> None:
    data = whole(a_table(Compression.ZSTD))
    known = frozenset((Compression.NONE, Compression.SNAPPY))
    table = Table(lambda size, at: data[at : at + size], len(data), compressions=known)
    assert {fault.reason for fault in table.faults} == {Reason.UNKNOWN_COMPRESSION}
    assert "expected compression 0 (none) or 1 (snappy), found 2" in table.faults[0].detail


def entries_of(content: bytes) -> tuple[list[Pair], BlockError | None]:
    found: list[Pair] = []
    try:
        for key, value, _ in block.entries(content, 0):
            found.append((key, value))
    except BlockError as error:
        return found, error
    return found, None


def test_golden_block() -> None:
    content = bytes.fromhex(
        "00 09 01 6b 01 00 00 00 00 00 00 00 76"
        "01 09 01 6c 01 01 00 00 00 00 00 00 77"
        "00 08 02 01 02 00 00 00 00 00 00 78 79"
        "00000000 1a000000 02000000"
    )
    assert list(block.entries(content, 7)) == [
        (b"k\x01" + bytes(7), b"v", 7),
        (b"kl\x01\x01" + bytes(6), b"w", 7),
        (b"\x01\x02" + bytes(6), b"xy", 7),
    ]


GOOD = entry(0, b"abcdefgh", b"1") + entry(3, b"xyz12345", b"2")


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (entry(12, b"", b""), "at most 11 bytes shared with the key before it"),
        (b"\x00\x32\x02", "50 bytes of key and 2 of value"),
        (b"\x80" * 11, "the lengths of an entry"),
        (b"\x00\x80" + b"\x80" * 10, "the lengths of an entry"),
        (encode_varint(2**63) + b"\x00\x00", "shared in the block"),
        (b"\x00\x00" + encode_varint(2**64 - 1), "0 bytes of key and 18446744073709551615 of"),
    ],
)
def test_entries_before_a_bad_one_are_given(bad: bytes, expected: str) -> None:
    found, error = entries_of(with_restarts(GOOD + bad, [0]))
    assert [key for key, _ in found] == [b"abcdefgh", b"abcxyz12345"]
    assert error is not None
    assert error.reason is Reason.BAD_ENTRY
    assert error.offset == len(GOOD)
    assert expected in str(error)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.BAD_RESTARTS),
        (b"abc", Reason.BAD_RESTARTS),
        (bytes(4), Reason.BAD_RESTARTS),
        (b"abcd\x02\x00\x00\x00", Reason.BAD_RESTARTS),
        (b"\xff" * 8, Reason.BAD_RESTARTS),
        (with_restarts(GOOD, [0, 4]), Reason.MISPLACED_RESTART),
        (with_restarts(GOOD, [0, 12]), Reason.MISPLACED_RESTART),
        (with_restarts(GOOD, [0, len(GOOD)]), Reason.MISPLACED_RESTART),
        (with_restarts(GOOD + GOOD, [len(GOOD), 0]), Reason.MISPLACED_RESTART),
        (with_restarts(GOOD, [0]), None),
        (with_restarts(GOOD + GOOD, [0, len(GOOD)]), None),
        (with_restarts(b"", [0]), None),
    ],
)
def test_restarts_lead_to_whole_keys(content: bytes, reason: Reason | None) -> None:
    _, error = entries_of(content)
    assert (error and error.reason) == reason


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), max_size=40),
    st.integers(1, 20),
)
@unhurried
def test_entries_survive_a_round_trip(listed: list[Pair], interval: int) -> None:
    assert entries_of(content_of(listed, interval)) == (listed, None)


# Bombs and forged lengths


def peak_of(data: bytes) -> tuple[int, list[Fault]]:
    """Most memory held while reading, entries dropped at once."""
    tracemalloc.start()
    try:
        table = open_table(data)
        faults = list(table.faults)
        for _ in table.entries(faults.append):
            pass
        return tracemalloc.get_traced_memory()[1], faults
    finally:
        tracemalloc.stop()


BOMB = bytes(MAX_CONTENT + 1)


@pytest.mark.parametrize(
    ("raw", "compression", "reason"),
    [
        (zstandard.ZstdCompressor().compress(BOMB), Compression.ZSTD, Reason.TOO_LARGE),
        (bytes(cramjam.snappy.compress_raw(BOMB)), Compression.SNAPPY, Reason.TOO_LARGE),
        (encode_varint(2**32 - 1) + b"\x00a", Compression.SNAPPY, Reason.TOO_LARGE),
        (encode_varint(MAX_CONTENT) + b"\x00a", Compression.SNAPPY, Reason.BAD_COMPRESSION),
        (b"\x80" * 12, Compression.SNAPPY, Reason.BAD_COMPRESSION),
        (b"\x05\x00", Compression.SNAPPY, Reason.BAD_COMPRESSION),
        (b"", Compression.SNAPPY, Reason.BAD_COMPRESSION),
        (b"", Compression.ZSTD, Reason.BAD_COMPRESSION),
        (b"not a frame", Compression.ZSTD, Reason.BAD_COMPRESSION),
        (
            zstandard.ZstdCompressor(write_content_size=False).compress(b"abc"),
            Compression.ZSTD,
            Reason.BAD_COMPRESSION,
        ),
        (
            zstandard.ZstdCompressor().compress(b"abc") + b"x",
            Compression.ZSTD,
            Reason.BAD_COMPRESSION,
        ),
        (b"abc", 7, Reason.UNKNOWN_COMPRESSION),
    ],
)
def test_content_that_cannot_be_had_is_a_fault(
    raw: bytes, compression: int, reason: Reason
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BlockError) as caught:
            block.unpack(raw, compression)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.reason is reason
    assert peak < 200_000


def test_blocks_around_a_bomb_are_read() -> None:
    layout = Layout()
    layout.add(pairs(0, 10))
    bomb = zstandard.ZstdCompressor().compress(BOMB)
    handle = Handle(len(layout.data), len(bomb))
    layout.data += stored(bomb, Compression.ZSTD)
    layout.index.append((pairs(10, 11)[0][0], encode_handle(handle)))
    layout.add(pairs(20, 30))
    found, faults = read(layout.finish())
    assert found == pairs(0, 10) + pairs(20, 30)
    assert [fault.reason for fault in faults] == [Reason.TOO_LARGE]


def test_keys_that_grow_out_of_nothing_are_cut_short() -> None:
    long = bytes(4 * 1024 * 1024)
    content = with_restarts(entry(0, long, b"") + entry(len(long), b"", b"") * 500, [0])
    layout = Layout(Compression.ZSTD)
    layout.index.append((b"z" * 8, encode_handle(layout.put(content))))
    data = layout.finish()
    assert len(data) < 3000
    peak, faults = peak_of(data)
    assert [fault.reason for fault in faults] == [Reason.BAD_ENTRY]
    assert peak < 10 * len(long)


def test_reading_holds_one_block_at_a_time() -> None:
    data = whole(a_table(blocks=300, size=1000))
    assert len(data) > 3_000_000
    peak, faults = peak_of(data)
    assert faults == []
    assert peak < 200_000


@pytest.mark.parametrize("which", ["index", "metaindex"])
def test_handles_that_are_wrong_by_the_million_are_given_up_on(which: str) -> None:
    layout = Layout(Compression.ZSTD)
    layout.add(pairs(0, 10))
    place = layout.put(with_restarts(bytes(3_000_000), [0]))
    other = layout.put(content_of([]))
    ends = (other, place) if which == "index" else (place, other)
    data = bytes(layout.data) + footer(*ends)
    assert len(data) < 3000
    found, faults = read(data)
    assert found == pairs(0, 10)
    assert len(faults) < 1100
    assert Reason.TOO_LARGE in {fault.reason for fault in faults}


# Handles


def with_index(layout: Layout, *handles: Handle) -> bytes:
    """The table with other handles in its index."""
    layout.index = [
        (pairs(10 * number + 9, 10 * number + 10)[0][0], encode_handle(handle))
        for number, handle in enumerate(handles)
    ]
    return layout.finish()


def handles_of(layout: Layout) -> list[Handle]:
    return [read_handle(value, 0)[0] for _, value in layout.index]


def test_handle_out_of_the_file_costs_nothing_but_a_fault() -> None:
    layout = a_table(blocks=3)
    first, second, third = handles_of(layout)
    forged = Handle(second.offset, 2**63)
    found, faults = read(with_index(layout, first, forged, third))
    assert found == pairs(0, 30)
    assert [fault.reason for fault in faults] == [Reason.BAD_HANDLE, Reason.GAP]
    assert (faults[1].offset, faults[1].length) == (second.offset, second.length + 5)


def test_handles_of_the_same_bytes_are_read_once() -> None:
    layout = a_table(blocks=3)
    first, second, third = handles_of(layout)
    found, faults = read(with_index(layout, first, second, second, first, third))
    assert found == pairs(0, 30)
    assert [fault.reason for fault in faults] == [Reason.OVERLAP] * 2


def test_index_that_leads_to_itself_is_a_fault() -> None:
    layout = a_table(blocks=2)
    first, second = handles_of(layout)
    after = second.end + 13
    data = with_index(layout, first, second, Handle(after, 64))
    assert layout.handles["index"].offset == after
    found, faults = read(data)
    assert found == pairs(0, 20)
    assert [(fault.part, fault.reason) for fault in faults] == [(Part.INDEX, Reason.OVERLAP)]


def test_metaindex_and_index_that_are_one_block_are_a_fault() -> None:
    layout = a_table(blocks=2)
    layout.finish()
    index = layout.handles["index"]
    data = bytes(layout.data[: index.end]) + footer(index, index)
    found, faults = read(data)
    assert found == pairs(0, 20)
    assert Reason.OVERLAP in {fault.reason for fault in faults}


def test_blocks_that_the_index_leaves_out_are_read_beyond_it_only() -> None:
    layout = a_table(blocks=4)
    first, _, third, _ = handles_of(layout)
    data = with_index(layout, first, third)
    found, faults = read(data)
    assert found == pairs(0, 40)
    assert [fault.reason for fault in faults] == [Reason.GAP] * 2
    found, _ = read(data, beyond_index=False)
    assert found == pairs(0, 10) + pairs(20, 30)


def test_damaged_index_costs_no_entry() -> None:
    layout = a_table(Compression.SNAPPY)
    data = bytearray(layout.finish())
    data[layout.handles["index"].offset] ^= 1
    found, faults = read(bytes(data))
    assert found == pairs(0, 50)
    assert [(fault.part, fault.reason) for fault in faults] == [(Part.INDEX, Reason.BAD_CHECKSUM)]
    assert read(bytes(data), beyond_index=False)[0] == []


def test_damaged_metaindex_costs_the_dialect_only() -> None:
    data = bytearray(sample("avccdb-compacted/000004.ldb"))
    sound, _ = read(bytes(data))
    data[19300] ^= 1
    table = open_table(bytes(data))
    assert (table.dialect, table.merkle, table.indexed) == (None, None, True)
    found, faults = read(bytes(data))
    assert found == sound
    assert [fault.part for fault in faults] == [Part.METAINDEX]


def test_handle_written_longer_than_needed_is_a_fault_and_used() -> None:
    layout = a_table(blocks=2)
    data = layout.finish()
    handles = layout.handles
    index = encode_varint(handles["index"].offset) + bytes([handles["index"].length | 0x80, 0])
    forged = (encode_handle(handles["metaindex"]) + index).ljust(40, b"\0") + data[-8:]
    found, faults = read(data[:-48] + forged)
    assert found == pairs(0, 20)
    assert [(fault.part, fault.reason) for fault in faults] == [(Part.FOOTER, Reason.BAD_HANDLE)]


def test_file_shorter_than_promised_gives_what_there_is() -> None:
    data = whole(a_table())
    for size in (len(data) + 100, 2**62):
        table = Table(lambda size, offset: data[offset : offset + size], size)
        faults = list(table.faults)
        found = [(key, value) for key, value, _ in table.entries(faults.append)]
        assert found == pairs(0, 50)
        assert faults[0].reason is Reason.TRUNCATED


@pytest.mark.parametrize("size", [0, 1, 47])
def test_file_too_small_for_a_footer(size: int) -> None:
    found, faults = read(bytes(size))
    assert found == []
    assert faults[0].detail == (f"file at offset 0: expected at least 48 bytes, found {size} bytes")


# Looking for blocks


def test_masked_checksums_are_unmasked() -> None:
    for crc in (0, 1, 0x12345678, 2**32 - 1, 0xA282EAD8):
        assert unmask(mask(crc)) == crc


@COMPRESSIONS
@pytest.mark.parametrize("seed", range(3))
def test_all_blocks_behind_garbage_are_found(compression: Compression, seed: int) -> None:
    generator = random.Random(seed)
    layout = Layout(compression)
    garbage = generator.randbytes(generator.randrange(1, 100_000))
    layout.data += garbage
    for number in range(20):
        layout.put(content_of(pairs(10 * number, 10 * number + 10)))
    data = bytes(layout.data)

    parts = list(salvage.find_blocks(lambda size, at: data[at : at + size], 0, len(data)))
    assert parts[0] == salvage.Found(0, len(garbage), sound=False)
    assert [part.sound for part in parts[1:]] == [True] * 20
    found, _ = read(data)
    assert found == pairs(0, 200)


def test_block_of_megabytes_is_found_where_it_should_begin() -> None:
    layout = Layout()
    layout.add([(pairs(0, 1)[0][0], random.Random(1).randbytes(3_000_000))])
    layout.add(pairs(1, 10))
    data = layout.finish()[:-1]
    found, faults = read(data)
    assert len(found) == 10
    assert len(faults) == 1


def test_zeroed_page_costs_the_blocks_that_it_touches() -> None:
    layout = a_table(blocks=120)
    data = bytearray(layout.finish())
    touched = [h for h in handles_of(layout) if h.offset < 24576 and h.end > 20480]
    data[20480:24576] = bytes(4096)
    data[-60:] = bytes(60)
    found, faults = read(bytes(data))
    assert len(found) == 1200 - 10 * len(touched)
    assert faults[1].reason is Reason.UNREADABLE
    assert (faults[1].offset, faults[1].offset + faults[1].length) == (
        touched[0].offset,
        touched[-1].end,
    )


def test_data_that_looks_like_handles_is_data() -> None:
    layout = Layout()
    first = layout.add(pairs(0, 10))
    listed = [(pairs(20, 21)[0][0], encode_handle(first) + b"!"), *pairs(21, 30)]
    layout.add(listed)
    found, _ = read(layout.finish()[:-20])
    assert found == pairs(0, 10) + listed


# Filters


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"", 0xBC9F1D34),
        (b"\x62", 0xEF1345C4),
        (b"\xc3\x97", 0x5B663814),
        (b"\xe2\x99\xa5", 0x323C078F),
        (b"\xe1\x80\xb9\x32", 0xED21633A),
    ],
)
def test_hash_is_that_of_leveldb(key: bytes, expected: int) -> None:
    assert bloom_hash(key) == expected


def test_bloom_edge_cases_are_those_of_the_engines() -> None:
    assert not bloom_may_contain(b"", b"k")
    assert not bloom_may_contain(b"\x06", b"k")
    assert not bloom_may_contain(bytes(8) + b"\x06", b"k")
    assert bloom_may_contain(b"\xff" * 8 + b"\x06", b"k")
    assert bloom_may_contain(bytes(8) + b"\x1f", b"k"), "a reserved encoding says perhaps"


def test_filter_block_chooses_by_offset_of_the_data_block() -> None:
    full, empty = b"\xff" * 8 + b"\x06", b""
    content = full + empty + full + struct.pack("<4IB", 0, 9, 9, 18, 11)
    filters = FilterBlock(content)
    assert filters.count == 3
    answers = [filters.may_contain(offset, b"k") for offset in (0, 2047, 2048, 4096, 6144, 2**40)]
    assert answers == [True, True, False, True, True, True]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\0\x0b",
        struct.pack("<IB", 1, 11),
        struct.pack("<2IB", 5, 9, 11),
        struct.pack("<2IB", 9, 0, 11),
        struct.pack("<2IB", 0, 0, 64),
        b"abc" + struct.pack("<3IB", 3, 1, 3, 11),
        b"abc" + struct.pack("<IIHB", 0, 3, 3, 11),
    ],
)
def test_filter_block_that_is_none(content: bytes) -> None:
    with pytest.raises(FormatError, match="filter block: expected"):
        FilterBlock(content)


def test_damaged_filter_is_a_fault_of_the_table() -> None:
    layout = a_table(blocks=1)
    layout.name(b"filter.leveldb.BuiltinBloomFilter2", b"\xff" * 9)
    table = open_table(layout.finish())
    faults: list[Fault] = []
    assert table.filter_block(b"leveldb.BuiltinBloomFilter2", faults.append) is None
    assert [fault.reason for fault in faults] == [Reason.BAD_FILTER]
    assert table.filter_block(b"another", faults.append) is None
    assert len(faults) == 1


# Anything at all


def read_everything(data: bytes, *, verify: bool) -> None:
    table = open_table(data, verify=verify)
    faults = list(table.faults)
    for _ in table.entries(faults.append):
        pass
    table.merkle_tree(faults.append)
    for policy in table.filters:
        table.filter_block(policy, faults.append)
    for fault in faults:
        assert fault.detail
        assert fault.offset >= 0


@given(st.binary(max_size=400), st.booleans())
@unhurried
def test_any_bytes_are_read_somehow(data: bytes, verify: bool) -> None:
    read_everything(data, verify=verify)


@given(
    st.sampled_from(["goleveldb-closed/000003.ldb", "avccdb-compacted/000004.ldb", "made"]),
    st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=12)), max_size=6),
    st.booleans(),
)
@unhurried
def test_mutated_tables_are_read_somehow(
    name: str, changes: list[tuple[int, bytes]], verify: bool
) -> None:
    data = bytearray(whole(a_table(Compression.ZSTD)) if name == "made" else sample(name))
    for place, patch in changes:
        # From the end: that is where the structure is.
        at = max(0, len(data) - 1 - place % len(data))
        data[at : at + len(patch)] = patch
    read_everything(bytes(data), verify=verify)


HANDLES = st.builds(
    Handle,
    st.one_of(st.integers(0, 1500), st.integers(0, 2**64 - 1)),
    st.one_of(st.integers(0, 1500), st.integers(0, 2**64 - 1)),
)


@given(st.lists(HANDLES, max_size=12), st.lists(HANDLES, max_size=4), HANDLES, st.booleans())
@unhurried
def test_forged_handles_are_read_somehow(
    index: list[Handle], meta: list[Handle], end: Handle, verify: bool
) -> None:
    layout = a_table(blocks=2)
    layout.named = [(b"filter.%d" % n, encode_handle(h)) for n, h in enumerate(meta)]
    data = with_index(layout, *index)
    read_everything(data, verify=verify)
    forged = data[:-48] + footer(end, layout.handles["index"])
    read_everything(forged, verify=verify)


@given(st.integers(0, 2), st.binary(max_size=200))
@unhurried
def test_any_content_of_a_block_is_unpacked_or_refused(compression: int, raw: bytes) -> None:
    try:
        content = block.unpack(raw, compression)
    except FormatError:
        return
    entries_of(content)
