from __future__ import annotations

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.errors import FormatError
from avccfs.format import ikey, journal, manifest
from avccfs.format.coding import encode_varint
from avccfs.format.ikey import Dialect
from avccfs.format.manifest import AddedTable, CompactionPointer, DeletedTable, SessionRecord
from tests.format.samples import MANIFESTS, Sample, unhurried

NUMBERS = st.integers(0, 2**63 - 1)
RAW_KEYS = st.binary(max_size=20)
RECORDS = st.builds(
    SessionRecord,
    comparer=st.none() | st.binary(max_size=30),
    journal_number=st.none() | NUMBERS,
    next_file_number=st.none() | NUMBERS,
    sequence=st.none() | st.integers(0, 2**64 - 1),
    previous_journal_number=st.none() | NUMBERS,
    compaction_pointers=st.lists(st.builds(CompactionPointer, NUMBERS, RAW_KEYS), max_size=3).map(
        tuple
    ),
    deleted_tables=st.lists(st.builds(DeletedTable, NUMBERS, NUMBERS), max_size=3).map(tuple),
    added_tables=st.lists(
        st.builds(AddedTable, NUMBERS, NUMBERS, NUMBERS, RAW_KEYS, RAW_KEYS), max_size=3
    ).map(tuple),
)
NEGATIVE = encode_varint(2**63)


def records_of(data: bytes) -> list[journal.Record]:
    items = journal.read(data, journal.Policy.LEVELDB)
    return [item for item in items if isinstance(item, journal.Record)]


def dump(offset: int, record: SessionRecord) -> list[str]:
    """A record as leveldbutil prints it."""

    def key(raw: bytes) -> str:
        decoded = ikey.decode(raw, Dialect.STANDARD)
        return f"'{decoded.user_key.decode()}' @ {decoded.sequence} : {decoded.kind.value}"

    lines = [f"--- offset {offset}; VersionEdit {{"]
    if record.comparer is not None:
        lines.append(f"  Comparator: {record.comparer.decode()}")
    for title, number in (
        ("LogNumber", record.journal_number),
        ("PrevLogNumber", record.previous_journal_number),
        ("NextFile", record.next_file_number),
        ("LastSeq", record.sequence),
    ):
        if number is not None:
            lines.append(f"  {title}: {number}")
    lines += [f"  CompactPointer: {p.level} {key(p.key)}" for p in record.compaction_pointers]
    lines += [f"  RemoveFile: {t.level} {t.number}" for t in record.deleted_tables]
    lines += [
        f"  AddFile: {t.level} {t.number} {t.size} {key(t.smallest)} .. {key(t.largest)}"
        for t in record.added_tables
    ]
    return [*lines, "}"]


@pytest.mark.parametrize("sample", MANIFESTS, ids=str)
def test_records_of_real_manifests_encode_to_the_same_bytes(sample: Sample) -> None:
    records = records_of(sample.data)
    assert records
    for record in records:
        assert manifest.encode(manifest.decode(record.payload)) == record.payload


@pytest.mark.parametrize(
    "sample", [sample for sample in MANIFESTS if sample.leveldb_dump is not None], ids=str
)
def test_fields_and_offsets_are_those_that_leveldb_prints(sample: Sample) -> None:
    lines: list[str] = []
    for item in journal.read(sample.data, journal.Policy.LEVELDB):
        if isinstance(item, journal.Record):
            lines += dump(item.offset, manifest.decode(item.payload))
        elif (wording := journal.leveldb_wording(item)) is not None:
            lines.append(wording)
    assert lines == sample.leveldb_dump


def test_one_record_may_add_the_same_table_twice() -> None:
    (sample,) = (s for s in MANIFESTS if str(s) == "goleveldb-killed-at-fsync-5/MANIFEST-000010")
    (record,) = records_of(sample.data)
    numbers = [table.number for table in manifest.decode(record.payload).added_tables]
    assert numbers == [9, 9, 7, 5, 3]


def test_every_field_stands_where_the_engines_write_it() -> None:
    record = SessionRecord(
        comparer=b"cmp",
        journal_number=300,
        next_file_number=12,
        sequence=2**64 - 1,
        previous_journal_number=0,
        compaction_pointers=(CompactionPointer(1, b"ptr"),),
        deleted_tables=(DeletedTable(2, 5), DeletedTable(0, 4)),
        added_tables=(AddedTable(3, 6, 128, b"min", b"max"),),
    )
    raw = (
        b"\x01\x03cmp"
        b"\x02\xac\x02"
        b"\x09\x00"
        b"\x03\x0c"
        b"\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        b"\x05\x01\x03ptr"
        b"\x06\x02\x05\x06\x00\x04"
        b"\x07\x03\x06\x80\x01\x03min\x03max"
    )
    assert manifest.encode(record) == raw
    assert manifest.decode(raw) == record
    assert manifest.decode(memoryview(raw)) == record


def test_empty_record_says_nothing() -> None:
    assert manifest.decode(b"") == SessionRecord()
    assert manifest.encode(SessionRecord()) == b""


def test_fields_may_come_in_any_order_and_the_last_one_counts() -> None:
    record = manifest.decode(b"\x04\x07\x02\x05\x01\x01a\x02\x06\x01\x01b")
    assert record == SessionRecord(comparer=b"b", journal_number=6, sequence=7)


@unhurried
@given(RECORDS)
def test_records_come_back(record: SessionRecord) -> None:
    assert manifest.decode(manifest.encode(record)) == record


@pytest.mark.parametrize("tag", [0, 8, 10, 127, 2**32 + 1, 2**64 - 1])
def test_unknown_tag_ends_the_record_and_keeps_what_came_before(tag: int) -> None:
    raw = b"\x02\x05" + encode_varint(tag) + b"\x03\x09"
    with pytest.raises(FormatError, match=rf"expected 1 to 7 or 9 at offset 2, found {tag}$"):
        manifest.decode(raw)
    record, error = manifest.decode_partial(raw)
    assert record == SessionRecord(journal_number=5)
    assert error is not None
    assert error.offset == 2


@pytest.mark.parametrize(
    ("raw", "field", "offset"),
    [
        (b"\x02" + NEGATIVE, "journal number (tag 2)", 1),
        (b"\x03" + NEGATIVE, "next file number (tag 3)", 1),
        (b"\x09" + NEGATIVE, "previous journal number (tag 9)", 1),
        (b"\x05" + NEGATIVE + b"\x01k", "level of a compaction pointer (tag 5)", 1),
        (b"\x06" + NEGATIVE + b"\x01", "level of a deleted table (tag 6)", 1),
        (b"\x06\x00" + NEGATIVE, "number of a deleted table (tag 6)", 2),
        (b"\x07\x00" + NEGATIVE + b"\x01\x00\x00", "number of an added table (tag 7)", 2),
        (b"\x07\x00\x01" + NEGATIVE + b"\x00\x00", "size of an added table (tag 7)", 3),
    ],
)
def test_negative_number_is_refused_by_name_and_offset(raw: bytes, field: str, offset: int) -> None:
    with pytest.raises(FormatError, match=re.escape(field)) as caught:
        manifest.decode(raw)
    assert "found 9223372036854775808, which engines read as negative" in str(caught.value)
    assert caught.value.offset == offset


def test_sequence_number_may_use_all_64_bits() -> None:
    assert manifest.decode(b"\x04" + NEGATIVE).sequence == 2**63


def test_record_cut_anywhere_keeps_the_whole_fields_before_the_cut() -> None:
    raw = b"\x01\x03cmp\x02\xac\x02\x07\x03\x06\x80\x01\x03min\x03max"
    whole_at = {
        0: SessionRecord(),
        5: SessionRecord(comparer=b"cmp"),
        8: SessionRecord(comparer=b"cmp", journal_number=300),
    }
    for length in range(len(raw)):
        record, error = manifest.decode_partial(raw[:length])
        expected = whole_at[max(end for end in whole_at if end <= length)]
        assert record == expected
        assert (error is None) == (length in whole_at)
        if error is not None:
            assert error.offset <= length
            with pytest.raises(FormatError, match=re.escape(str(error))):
                manifest.decode(raw[:length])


def test_message_says_field_offset_expected_and_found() -> None:
    with pytest.raises(FormatError) as caught:
        manifest.decode(b"\x02\x05\x07\x00\x01\x01\x09ab")
    assert str(caught.value) == (
        "smallest key of an added table (tag 7), in a session record: "
        "expected 9 bytes at offset 7, found 2"
    )
    assert caught.value.offset == 6


@pytest.mark.parametrize(
    "raw",
    [
        b"\x01" + encode_varint(2**64 - 1) + b"abc",
        b"\x05\x00" + encode_varint(2**40) + b"abc",
        b"\x07\x00\x01\x01" + encode_varint(2**63) + b"abc",
    ],
)
def test_forged_length_costs_no_memory(raw: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            manifest.decode(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    "record",
    [
        SessionRecord(journal_number=-1),
        SessionRecord(next_file_number=2**63),
        SessionRecord(previous_journal_number=-1),
        SessionRecord(sequence=2**64),
        SessionRecord(compaction_pointers=(CompactionPointer(-1, b""),)),
        SessionRecord(deleted_tables=(DeletedTable(0, 2**63),)),
        SessionRecord(added_tables=(AddedTable(0, 1, -1, b"", b""),)),
    ],
)
def test_numbers_out_of_range_are_not_encoded(record: SessionRecord) -> None:
    with pytest.raises(ValueError, match=r"0 to 2\*\*6"):
        manifest.encode(record)


@unhurried
@given(
    st.one_of(
        st.binary(max_size=60),
        # Mostly real tags and small lengths, to get deeper.
        st.lists(st.integers(0, 12), max_size=60).map(bytes),
        st.builds(
            lambda record, at, byte: record[: at % (len(record) + 1)] + byte + record[at:],
            RECORDS.map(manifest.encode),
            st.integers(0, 100),
            st.binary(max_size=2),
        ),
    )
)
def test_any_bytes_decode_or_fail_as_a_format_error(raw: bytes) -> None:
    record, error = manifest.decode_partial(raw)
    assert manifest.decode(manifest.encode(record)) == record
    if error is not None:
        assert 0 <= error.offset <= len(raw)
