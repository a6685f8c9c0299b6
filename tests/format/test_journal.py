from __future__ import annotations

import hashlib
import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.format import journal
from avccfs.format.coding import masked_crc32c, read_bytes
from avccfs.format.journal import BLOCK_SIZE, Fault, Item, Policy, Reason, Record
from tests.format.samples import JOURNALS, MANIFESTS, Sample, unhurried

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
SAMPLES = JOURNALS + MANIFESTS
POLICIES = pytest.mark.parametrize("policy", Policy)


def chunk(kind: int, payload: bytes = b"", *, length: int | None = None, flip: int = 0) -> bytes:
    """A chunk, with a forged length or bits of its checksum flipped if asked for."""
    checksum = masked_crc32c(bytes([kind]) + payload) ^ flip
    return struct.pack("<IHB", checksum, len(payload) if length is None else length, kind) + payload


def records_of(items: list[Item]) -> list[Record]:
    return [item for item in items if isinstance(item, Record)]


def faults_of(items: list[Item]) -> list[Fault]:
    return [item for item in items if isinstance(item, Fault)]


def wordings(policy: Policy, items: list[Item]) -> list[str]:
    wording = {
        Policy.GOLEVELDB: journal.goleveldb_wording,
        Policy.LEVELDB: journal.leveldb_wording,
    }[policy]
    return [text for fault in faults_of(items) if (text := wording(fault)) is not None]


def framed(*payloads: bytes) -> bytes:
    writer = journal.Writer()
    return b"".join(writer.append(payload) for payload in payloads)


# What real engines left behind


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_goleveldb_reads_and_drops_what_we_say(sample: Sample) -> None:
    items = list(journal.read(sample.data, Policy.GOLEVELDB))
    records = records_of(items)
    lines = b"".join(record.payload.hex().encode() + b"\n" for record in records)
    assert {
        "records": len(records),
        "sha256_of_hexrecord_lines": hashlib.sha256(lines).hexdigest(),
        "dropped": wordings(Policy.GOLEVELDB, items) or None,
    } == sample.expected


def leveldb_dump(data: bytes) -> Iterator[str]:
    """A journal as leveldbutil prints it, entries and corruption together."""
    for item in journal.read(data, Policy.LEVELDB):
        if isinstance(item, Fault):
            wording = journal.leveldb_wording(item)
            if wording is not None:
                yield wording
            continue
        sequence, count = struct.unpack_from("<QI", item.payload)
        yield f"--- offset {item.offset}; sequence {sequence}"
        position = 12
        for _ in range(count):
            kind = item.payload[position]
            key, position = read_bytes(item.payload, position + 1)
            if kind == 1:
                value, position = read_bytes(item.payload, position)
                yield f"  put '{key.decode()}' '{value.decode()}'"
            else:
                yield f"  del '{key.decode()}'"


@pytest.mark.parametrize(
    "sample", [sample for sample in JOURNALS if sample.leveldb_dump is not None], ids=str
)
def test_leveldb_prints_every_entry_offset_and_corruption_that_we_find(sample: Sample) -> None:
    lines = list(leveldb_dump(sample.data))
    assert len(lines) == sample.leveldb_dump["lines"]
    assert lines[: len(sample.leveldb_dump["head"])] == sample.leveldb_dump["head"]
    digest = hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
    assert digest == sample.leveldb_dump["sha256"]


@pytest.mark.parametrize(
    "sample", [sample for sample in SAMPLES if not sample.expected["dropped"]], ids=str
)
def test_writing_the_records_of_a_sound_file_again_gives_its_bytes(sample: Sample) -> None:
    data = sample.data
    items = list(journal.read(data, Policy.GOLEVELDB))
    assert faults_of(items) == []
    assert list(journal.read(data, Policy.LEVELDB)) == items
    writer = journal.Writer()
    for record in records_of(items):
        piece = writer.append(record.payload)
        assert writer.offset == record.end
        assert data[writer.offset - len(piece) : writer.offset] == piece
    assert writer.offset == len(data)


def test_fixtures_show_every_way_of_damage_that_they_are_meant_to() -> None:
    damaged = {sample.fixture for sample in SAMPLES if sample.expected["dropped"]}
    assert damaged == {
        "flipped-journal-byte",
        "flipped-manifest-byte",
        "torn-journal-tail",
        "torn-manifest-tail",
        "zeroed-journal-range",
    }


def test_torn_tail_is_silent_in_leveldb_and_still_a_fault() -> None:
    (sample,) = (s for s in SAMPLES if str(s) == "torn-journal-tail/000008.log")
    for policy in Policy:
        (fault,) = faults_of(list(journal.read(sample.data, policy)))
        assert (fault.offset, fault.length) == (8512, 127)
        assert fault.reason is Reason.TORN_CHUNK
        assert "expected 126 bytes of payload, found the end of the file" in fault.detail
        assert (fault.report is None) is (policy is Policy.LEVELDB)


def test_checksum_fault_names_both_checksums() -> None:
    (sample,) = (s for s in SAMPLES if str(s) == "flipped-manifest-byte/MANIFEST-000000")
    (fault,) = faults_of(list(journal.read(sample.data, Policy.LEVELDB)))
    assert fault.reason is Reason.BAD_CHECKSUM
    assert fault.detail == (
        "chunk at offset 112: expected the checksum 0xb3bb935a of its bytes, "
        "found 0xf3bb935a in its header"
    )


# How each engine reads on after damage. The expectations are what goleveldb's journal reader and
# LevelDB's DumpFile print for these very bytes.


@dataclass(frozen=True, slots=True)
class Case:
    """A damaged file and what each engine makes of it."""

    name: str
    data: bytes
    goleveldb: tuple[list[bytes], list[tuple[str, int]]]
    """Payloads read, and reports of what was dropped."""
    leveldb: tuple[list[bytes], list[tuple[str, int]]]

    def __str__(self) -> str:
        return self.name


A, B, C = b"a" * 20, b"b" * 30, b"c" * 40
ZEROS = bytes(7)


def block(*chunks: bytes) -> bytes:
    """These chunks and a full one of zeros that fills the block."""
    start = b"".join(chunks)
    return start + chunk(FULL, bytes(BLOCK_SIZE - len(start) - 7))


def filler(*chunks: bytes) -> bytes:
    """The payload of the chunk with which `block` ends."""
    return bytes(BLOCK_SIZE - len(b"".join(chunks)) - 7)


CASES = [
    Case(
        "checksum wrong: the rest of the block goes, the next block is read",
        block(chunk(FULL, A), chunk(FULL, B, flip=1), chunk(FULL, B)) + chunk(FULL, C),
        ([A, C], [("checksum mismatch", BLOCK_SIZE - 27)]),
        ([A, C], [("checksum mismatch", BLOCK_SIZE - 27)]),
    ),
    Case(
        "length past the block, amid the file",
        block(chunk(FULL, A), chunk(FULL, B, length=40000)) + chunk(FULL, C),
        ([A, C], [("chunk length overflows block", BLOCK_SIZE - 27)]),
        ([A, C], [("bad record length", BLOCK_SIZE - 27)]),
    ),
    Case(
        "length past the block, in the last block",
        chunk(FULL, A) + chunk(FULL, B, length=40000),
        ([A], [("chunk length overflows block", 37)]),
        ([A], []),
    ),
    Case(
        "length past the block, in a last block that is whole",
        block(chunk(FULL, A), chunk(FULL, B, length=40000)),
        ([A], [("chunk length overflows block", BLOCK_SIZE - 27)]),
        ([A], [("bad record length", BLOCK_SIZE - 27)]),
    ),
    Case(
        "file ends inside a chunk",
        chunk(FULL, A) + chunk(FULL, B)[:-1],
        ([A], [("chunk length overflows block", 36)]),
        ([A], []),
    ),
    Case(
        "file ends inside a header",
        chunk(FULL, A) + chunk(FULL, B)[:6],
        ([A], []),
        ([A], []),
    ),
    Case(
        "header of zeros",
        block(chunk(FULL, A), ZEROS, chunk(FULL, B)) + chunk(FULL, C),
        ([A, C], [("zero header", BLOCK_SIZE - 27)]),
        ([A, C], []),
    ),
    Case(
        "type and length zero under a checksum that is not",
        block(chunk(FULL, A), chunk(0), chunk(FULL, B)) + chunk(FULL, C),
        ([A, C], [("invalid chunk type 0x0", BLOCK_SIZE - 27)]),
        ([A, C], []),
    ),
    Case(
        "sound chunk of type 0",
        block(chunk(FULL, A), chunk(0, B)) + chunk(FULL, C),
        ([A, C], [("invalid chunk type 0x0", BLOCK_SIZE - 27)]),
        ([A, filler(chunk(FULL, A), chunk(0, B)), C], [("unknown record type 0", 30)]),
    ),
    Case(
        "sound chunk of type 255",
        block(chunk(FULL, A), chunk(255, B)) + chunk(FULL, C),
        ([A, C], [("invalid chunk type 0xff", BLOCK_SIZE - 27)]),
        ([A, filler(chunk(FULL, A), chunk(255, B)), C], [("unknown record type 4294967295", 30)]),
    ),
    Case(
        "type 5, which ends LevelDB's reading",
        block(chunk(FULL, A), chunk(5, B)) + chunk(FULL, C),
        ([A, C], [("invalid chunk type 0x5", BLOCK_SIZE - 27)]),
        ([A], []),
    ),
    Case(
        "type 6, which LevelDB passes over",
        block(chunk(FULL, A), chunk(6, B)) + chunk(FULL, C),
        ([A, C], [("invalid chunk type 0x6", BLOCK_SIZE - 27)]),
        ([A, filler(chunk(FULL, A), chunk(6, B)), C], []),
    ),
    Case(
        "middle and last without a first",
        chunk(MIDDLE, A) + chunk(LAST, B) + chunk(FULL, C),
        ([C], [("orphan chunk", 27), ("orphan chunk", 37)]),
        (
            [C],
            [
                ("missing start of fragmented record(1)", 20),
                ("missing start of fragmented record(2)", 30),
            ],
        ),
    ),
    Case(
        "full inside a record",
        chunk(FIRST, A) + chunk(FULL, B) + chunk(FULL, C),
        ([A + B, C], []),
        ([B, C], [("partial record without end(1)", 20)]),
    ),
    Case(
        "first inside a record",
        chunk(FIRST, A) + chunk(FIRST, B) + chunk(LAST, C),
        ([A + B + C], []),
        ([B + C], [("partial record without end(2)", 20)]),
    ),
    Case(
        "empty first at the end of a block, then full: an old writer's way",
        chunk(FULL, bytes(BLOCK_SIZE - 14)) + chunk(FIRST) + chunk(FULL, A) + chunk(FULL, B),
        ([bytes(BLOCK_SIZE - 14), A, B], []),
        ([bytes(BLOCK_SIZE - 14), A, B], []),
    ),
    Case(
        "damage inside a record: reading goes on at the next chunk",
        chunk(FIRST, bytes(BLOCK_SIZE - 7))
        + chunk(MIDDLE, bytes(BLOCK_SIZE - 7), flip=1)
        + chunk(LAST, A)
        + chunk(FULL, B),
        ([B], [("checksum mismatch", BLOCK_SIZE), ("orphan chunk", 27)]),
        (
            [B],
            [
                ("error in middle of record", BLOCK_SIZE - 7),
                ("checksum mismatch", BLOCK_SIZE),
                ("missing start of fragmented record(2)", 20),
            ],
        ),
    ),
    Case(
        "zeros inside a record",
        block(chunk(FIRST, A), ZEROS) + chunk(LAST, B) + chunk(FULL, C),
        ([C], [("zero header", BLOCK_SIZE - 27), ("orphan chunk", 37)]),
        (
            [C],
            [("error in middle of record", 20), ("missing start of fragmented record(2)", 30)],
        ),
    ),
    Case(
        "unknown type inside a record: counted together by LevelDB",
        chunk(FIRST, A) + chunk(9, B) + chunk(LAST, C),
        ([], [("invalid chunk type 0x9", 84)]),
        ([], [("unknown record type 9", 50), ("missing start of fragmented record(2)", 40)]),
    ),
    Case(
        "file ends inside a record",
        chunk(FULL, A) + chunk(FIRST, bytes(BLOCK_SIZE - 34)) + chunk(MIDDLE, B),
        ([A], [("missing chunk part", 0)]),
        ([A], []),
    ),
    Case(
        "file ends inside a record at the end of a block",
        chunk(FULL, A) + chunk(FIRST, bytes(BLOCK_SIZE - 34)),
        ([A], [("missing chunk part", 0)]),
        ([A], []),
    ),
    Case(
        "file ends inside a record and a chunk",
        chunk(FIRST, bytes(BLOCK_SIZE - 7)) + chunk(LAST, B)[:-3],
        ([], [("chunk length overflows block", 34)]),
        ([], []),
    ),
]


@POLICIES
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reading_goes_on_after_damage_as_each_engine_does(case: Case, policy: Policy) -> None:
    items = list(journal.read(case.data, policy))
    payloads, reports = case.goleveldb if policy is Policy.GOLEVELDB else case.leveldb
    assert [record.payload for record in records_of(items)] == payloads
    found = [fault.report for fault in faults_of(items) if fault.report is not None]
    assert [(report.text, report.size) for report in found] == reports
    assert_covered(case.data, items)


def assert_covered(data: bytes, items: list[Item]) -> None:
    """Items are in order, overlap nowhere and leave out only zeros at the end of blocks."""
    inside_records = (Reason.PADDING, Reason.JOINED_RECORDS)
    end = 0
    covered = bytearray(len(data))
    for item in items:
        assert 0 <= item.offset <= item.end <= len(data)
        covered[item.offset : item.end] = b"\x01" * (item.end - item.offset)
        if isinstance(item, Fault) and item.reason in inside_records:
            continue
        assert item.offset >= end
        end = item.end
    for offset, seen in enumerate(covered):
        assert seen or (data[offset] == 0 and BLOCK_SIZE - offset % BLOCK_SIZE < 7)


def test_what_is_lost_silently_is_a_fault_all_the_same() -> None:
    reasons = {
        case.name: [
            fault.reason for fault in faults_of(list(journal.read(case.data, Policy.LEVELDB)))
        ]
        for case in CASES
    }
    assert reasons["file ends inside a header"] == [Reason.TORN_HEADER]
    assert reasons["header of zeros"] == [Reason.ZERO_HEADER]
    assert reasons["file ends inside a record"] == [Reason.TORN_RECORD]
    assert reasons["file ends inside a record and a chunk"] == [
        Reason.BROKEN_RECORD,
        Reason.TORN_CHUNK,
    ]
    assert reasons["type 5, which ends LevelDB's reading"] == [Reason.UNKNOWN_TYPE]


def test_two_records_that_goleveldb_takes_for_one_are_pointed_out() -> None:
    data = chunk(FIRST, A) + chunk(FULL, B)
    fault, record = journal.read(data, Policy.GOLEVELDB)
    assert isinstance(fault, Fault)
    assert (fault.reason, fault.offset, fault.length) == (Reason.JOINED_RECORDS, 27, 0)
    assert record == Record(A + B, 0, len(data))


@POLICIES
def test_padding_that_is_not_zeros_is_pointed_out(policy: Policy) -> None:
    first = chunk(FULL, bytes(BLOCK_SIZE - 7 - 5))
    clean, dirty = (
        list(journal.read(first + pad + chunk(FULL, A), policy))
        for pad in (bytes(5), b"\x00\x00\x07\x00\x00")
    )
    assert len(clean) == 2
    assert records_of(dirty) == records_of(clean)
    (fault,) = faults_of(dirty)
    assert (fault.reason, fault.offset, fault.length) == (Reason.PADDING, BLOCK_SIZE - 5, 5)
    assert fault.report is None


@POLICIES
def test_padding_cut_short_is_no_fault(policy: Policy) -> None:
    data = chunk(FULL, bytes(BLOCK_SIZE - 7 - 5)) + bytes(3)
    assert faults_of(list(journal.read(data, policy))) == []


def test_wordings_are_those_of_the_engines() -> None:
    data = chunk(FULL, A, flip=1)
    (go,) = wordings(Policy.GOLEVELDB, list(journal.read(data, Policy.GOLEVELDB)))
    assert go == "leveldb/journal: block/chunk corrupted: checksum mismatch (27 bytes)"
    (cpp,) = wordings(Policy.LEVELDB, list(journal.read(data, Policy.LEVELDB)))
    assert cpp == "corruption: 27 bytes; Corruption: checksum mismatch"


# Writing


@pytest.mark.parametrize(
    ("room", "payload", "pieces"),
    [
        (BLOCK_SIZE, b"", [(FULL, 0)]),
        (BLOCK_SIZE, bytes(BLOCK_SIZE - 7), [(FULL, BLOCK_SIZE - 7)]),
        (BLOCK_SIZE, bytes(BLOCK_SIZE - 6), [(FIRST, BLOCK_SIZE - 7), (LAST, 1)]),
        (8, b"ab", [(FIRST, 1), (LAST, 1)]),
        (7, b"", [(FULL, 0)]),
        (7, b"ab", [(FIRST, 0), (LAST, 2)]),
        (6, b"ab", [(None, 6), (FULL, 2)]),
        (1, b"", [(None, 1), (FULL, 0)]),
        (
            10,
            bytes(BLOCK_SIZE),
            [(FIRST, 3), (MIDDLE, BLOCK_SIZE - 7), (LAST, 4)],
        ),
    ],
)
def test_chunks_are_cut_where_blocks_end(
    room: int, payload: bytes, pieces: list[tuple[int | None, int]]
) -> None:
    expected = b""
    rest = payload
    for kind, length in pieces:
        expected += bytes(length) if kind is None else chunk(kind, rest[:length])
        rest = rest if kind is None else rest[length:]
    assert rest == b""
    assert journal.frame(payload, 5 * BLOCK_SIZE - room) == expected


SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from([BLOCK_SIZE + delta for delta in range(-16, 2)]),
    st.integers(0, 3 * BLOCK_SIZE),
)


@unhurried
@given(st.lists(SIZES, max_size=8), st.sampled_from(Policy), st.integers(0, 255))
def test_records_come_back_whatever_their_sizes(
    sizes: list[int], policy: Policy, seed: int
) -> None:
    payloads = [bytes([(seed + index) % 256]) * size for index, size in enumerate(sizes)]
    data = framed(*payloads)
    items = list(journal.read(data, policy))
    assert [record.payload for record in records_of(items)] == payloads
    assert len(items) == len(payloads)
    assert_covered(data, items)


@unhurried
@given(st.lists(SIZES, min_size=1, max_size=5), st.lists(SIZES, max_size=5))
def test_a_journal_is_continued_from_where_it_ends(before: list[int], after: list[int]) -> None:
    start = framed(*(bytes(size) for size in before))
    writer = journal.Writer(len(start))
    data = start + b"".join(writer.append(b"\x01" * size) for size in after)
    assert writer.offset == len(data)
    assert data == framed(*(bytes(size) for size in before), *(b"\x01" * size for size in after))


def test_payload_may_be_any_buffer() -> None:
    wide = memoryview(struct.pack("<4I", 1, 2, 3, 4)).cast("I")
    assert journal.frame(wide, 0) == journal.frame(wide.tobytes(), 0)
    assert journal.frame(bytearray(A), 0) == chunk(FULL, A)


def test_writer_refuses_a_negative_offset() -> None:
    with pytest.raises(ValueError, match="negative"):
        journal.Writer(-1)


# What reading costs


class Counted:
    """A source that keeps account of what is asked of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def __call__(self, size: int, offset: int) -> bytes:
        self.asked.append((size, offset))
        return self.data[offset : offset + size]


@POLICIES
def test_blocks_are_read_one_by_one_and_only_when_needed(policy: Policy) -> None:
    source = Counted(framed(*[bytes(BLOCK_SIZE - 7)] * 4))
    items = journal.read(source, policy)
    assert source.asked == []
    next(items)
    assert source.asked == [(BLOCK_SIZE, 0)]
    next(items)
    assert source.asked == [(BLOCK_SIZE, 0), (BLOCK_SIZE, BLOCK_SIZE)]
    assert len(list(items)) == 2
    assert source.asked == [(BLOCK_SIZE, number * BLOCK_SIZE) for number in range(5)]


@POLICIES
def test_short_block_is_the_last_one_asked_for(policy: Policy) -> None:
    source = Counted(chunk(FULL, A))
    assert len(list(journal.read(source, policy))) == 1
    assert source.asked == [(BLOCK_SIZE, 0)]


@POLICIES
@pytest.mark.parametrize("length", [40000, 65535])
def test_forged_length_costs_no_more_than_a_block(policy: Policy, length: int) -> None:
    data = chunk(FIRST, A, length=length)
    tracemalloc.start()
    try:
        assert records_of(list(journal.read(data, policy))) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


@POLICIES
def test_memory_stays_at_a_block_while_a_long_file_is_read(policy: Policy) -> None:
    sound, zeros = framed(bytes(BLOCK_SIZE - 7)), bytes(BLOCK_SIZE)

    def read_at(size: int, offset: int) -> bytes:
        number = offset // BLOCK_SIZE
        return b"" if number == 2000 else (sound, zeros)[number % 2][:size]

    tracemalloc.start()
    try:
        assert sum(1 for _ in journal.read(read_at, policy)) == 2000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * BLOCK_SIZE


def test_errors_of_the_source_pass_through() -> None:
    def read_at(size: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        list(journal.read(read_at, Policy.LEVELDB))


CHUNKS = st.builds(
    chunk,
    st.sampled_from([FULL, FIRST, MIDDLE, LAST, FULL, FIRST, MIDDLE, LAST, 0, 5, 6, 200]),
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([bytes(size) for size in (1000, 20000, BLOCK_SIZE - 40, BLOCK_SIZE - 7)]),
    ),
    length=st.one_of(st.none(), st.none(), st.none(), st.integers(0, 65535)),
    flip=st.sampled_from([0, 0, 0, 0, 1]),
)


@unhurried
@given(
    st.lists(st.one_of(CHUNKS, CHUNKS, st.binary(max_size=20), st.just(bytes(8))), max_size=20),
    st.sampled_from(Policy),
)
def test_any_bytes_are_covered_by_records_and_faults(pieces: list[bytes], policy: Policy) -> None:
    data = b"".join(pieces)
    items = list(journal.read(data, policy))
    assert_covered(data, items)
    assert list(journal.read(memoryview(data), policy)) == items
    assert list(journal.read(Counted(data), policy)) == items


@unhurried
@given(
    st.lists(SIZES, min_size=1, max_size=4),
    st.integers(0),
    st.integers(0, 7),
    st.sampled_from(Policy),
)
def test_no_flipped_bit_gets_a_wrong_record_through(
    sizes: list[int], position: int, bit: int, policy: Policy
) -> None:
    payloads = [bytes([index]) * size for index, size in enumerate(sizes)]
    data = bytearray(framed(*payloads))
    data[position % len(data)] ^= 1 << bit
    items = list(journal.read(data, policy))
    assert_covered(bytes(data), items)
    assert {record.payload for record in records_of(items)} <= set(payloads)
    assert faults_of(items)


@unhurried
@given(st.lists(SIZES, min_size=1, max_size=4), st.integers(0), st.sampled_from(Policy))
def test_a_cut_leaves_the_records_before_it(
    sizes: list[int], position: int, policy: Policy
) -> None:
    payloads = [bytes([index]) * size for index, size in enumerate(sizes)]
    data = framed(*payloads)
    whole = records_of(list(journal.read(data, policy)))
    cut = position % len(data)
    items = list(journal.read(data[:cut], policy))
    assert_covered(data[:cut], items)
    assert records_of(items) == [record for record in whole if record.end <= cut]
