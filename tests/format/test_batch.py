from __future__ import annotations

import hashlib
import itertools
import random
import struct
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.errors import FormatError
from avccfs.format import batch, journal
from avccfs.format.batch import Batch, Change, Entry, Evidence, Reason
from avccfs.format.coding import encode_varint
from avccfs.format.ikey import Dialect, KeyKind
from avccfs.format.journal import Policy
from avccfs.format.paths import MAX_WAYS
from tests.format.samples import JOURNALS, Sample, unhurried

AVCCDB = [sample for sample in JOURNALS if sample.fixture.startswith("avccdb-")]
STANDARD = [sample for sample in JOURNALS if sample not in AVCCDB]
GOLDEN = bytes.fromhex("0a00000000000000 02000000 01 03 6b6579 02 7631 00 02 6b32")


def payloads(sample: Sample) -> Iterator[bytes]:
    for item in journal.read(sample.data, Policy.LEVELDB):
        if isinstance(item, journal.Record):
            yield item.payload


def record(*entries: bytes, count: int | None = None) -> bytes:
    """A record with these entries, and a count that may be forged."""
    return struct.pack("<QI", 7, len(entries) if count is None else count) + b"".join(entries)


def changes_of(entries: tuple[Entry, ...]) -> list[Change]:
    return [Change(entry.key, entry.value, entry.version or 0) for entry in entries]


def all_readings(payload: bytes) -> list[list[tuple[int, bytes, bytes | None]]]:
    """Version, key and value of every reading, found by trying out everything."""
    _, count = struct.unpack_from("<QI", payload)

    def number(at: int) -> tuple[int, int] | None:
        value = 0
        for shift, byte in enumerate(payload[at : at + 10]):
            value |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:
                return (value, at + shift + 1) if value < 2**64 else None
        return None

    def part(at: int) -> tuple[bytes, int] | None:
        length = number(at)
        if length is None or length[0] + length[1] > len(payload):
            return None
        return payload[length[1] : sum(length)], sum(length)

    def read(at: int, left: int) -> Iterator[list[tuple[int, bytes, bytes | None]]]:
        if at == len(payload) or left == 0:
            if at == len(payload) and left == 0:
                yield []
            return
        kind = payload[at]
        starts = [(0, at + 1)]
        version = number(at + 1)
        if version and encode_varint(version[0]) == payload[at + 1 : version[1]] and version[0]:
            starts.append(version)
        for chosen, start in starts:
            key = part(start)
            if kind > 1 or key is None:
                continue
            value = part(key[1]) if kind else None
            if kind and value is None:
                continue
            end = value[1] if value else key[1]
            for rest in read(end, left - 1):
                yield [(chosen, key[0], value[0] if value else None), *rest]

    return list(read(12, count))


# What real engines left behind


def leveldb_dump(sample: Sample) -> Iterator[str]:
    """A journal as leveldbutil prints it."""
    for item in journal.read(sample.data, Policy.LEVELDB):
        if isinstance(item, journal.Fault):
            if (wording := journal.leveldb_wording(item)) is not None:
                yield wording
            continue
        decoded = batch.decode(item.payload, Dialect.STANDARD)
        assert decoded.fault is None
        yield f"--- offset {item.offset}; sequence {decoded.sequence}"
        for entry in decoded.entries:
            if entry.value is None:
                yield f"  del '{entry.key.decode()}'"
            else:
                yield f"  put '{entry.key.decode()}' '{entry.value.decode()}'"


@pytest.mark.parametrize(
    "sample", [sample for sample in JOURNALS if sample.leveldb_dump is not None], ids=str
)
def test_leveldb_prints_every_entry_that_we_decode(sample: Sample) -> None:
    lines = list(leveldb_dump(sample))
    assert len(lines) == sample.leveldb_dump["lines"]
    digest = hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
    assert digest == sample.leveldb_dump["sha256"]


@pytest.mark.parametrize("sample", STANDARD, ids=str)
def test_real_standard_batches_survive_a_round_trip(sample: Sample) -> None:
    for payload in payloads(sample):
        decoded = batch.decode(payload, Dialect.STANDARD)
        assert decoded.readings == (decoded.entries,)
        assert list(decoded.entries) == batch.entries(payload)
        assert batch.encode(decoded.sequence, changes_of(decoded.entries)) == payload


def test_versions_that_avccdb_cannot_replay_are_read() -> None:
    (sample,) = (s for s in AVCCDB if str(s) == "avccdb-versioned-journal/000001.log")
    found: list[tuple[bytes, int | None, int]] = []
    for payload in payloads(sample):
        decoded = batch.decode(payload, Dialect.AVCCDB)
        assert decoded.fault is None
        assert batch.encode(decoded.sequence, changes_of(decoded.entries)) == payload
        found += [(entry.key, entry.version, entry.sequence) for entry in decoded.entries]
    # The writer put versions 1 to 4 of one key after the other, with the sequence numbers 1, 2 ...
    expected = [(b"key%08d" % (n // 4), n % 4 + 1, n + 1) for n in range(len(found))]
    assert len(found) == 131
    assert found == expected


@pytest.mark.parametrize("sample", [s for s in AVCCDB if s.data], ids=str)
def test_real_versioned_batches_have_one_reading(sample: Sample) -> None:
    evidence = Evidence()
    for payload in payloads(sample):
        decoded = batch.decode(payload, Dialect.AVCCDB)
        assert (decoded.total, decoded.fits_standard, decoded.fits_versioned) == (1, False, True)
        assert batch.encode(decoded.sequence, changes_of(decoded.entries)) == payload
        evidence.add(payload)
    assert evidence.dialect is Dialect.AVCCDB
    assert evidence.versioned_only == sample.expected["records"]


def test_real_standard_journals_show_their_dialect() -> None:
    evidence = Evidence()
    for sample in STANDARD:
        if sample.fixture in ("goleveldb-closed", "leveldb-killed"):
            for payload in payloads(sample):
                evidence.add(payload)
    assert evidence.dialect is Dialect.STANDARD
    assert (evidence.versioned_only, evidence.neither) == (0, 0)
    assert evidence.standard_only > 100


def test_no_records_show_no_dialect() -> None:
    evidence = Evidence()
    evidence.add(record())
    assert evidence.dialect is None
    evidence.add(b"junk")
    assert (evidence.dialect, evidence.neither) == (None, 1)


# The standard dialect


def test_golden_batch() -> None:
    assert batch.decode(GOLDEN, Dialect.STANDARD) == Batch(
        sequence=10,
        count=2,
        entries=(
            Entry(KeyKind.PUT, b"key", b"v1", 10, None, 12, 8),
            Entry(KeyKind.DELETE, b"k2", None, 11, None, 20, 4),
        ),
        readings=(tuple(batch.entries(GOLDEN)),),
        total=1,
        fits_standard=True,
        fault=None,
    )
    assert batch.encode(10, [Change(b"key", b"v1"), Change(b"k2")]) == GOLDEN


@pytest.mark.parametrize(
    ("payload", "reason", "offset", "whole"),
    [
        (b"", Reason.SHORT_HEADER, 0, 0),
        (GOLDEN[:11], Reason.SHORT_HEADER, 0, 0),
        (GOLDEN[:12], Reason.WRONG_COUNT, 8, 0),
        (GOLDEN[:20], Reason.WRONG_COUNT, 8, 1),
        (GOLDEN + GOLDEN[20:], Reason.WRONG_COUNT, 8, 3),
        (GOLDEN[:13], Reason.BAD_KEY, 13, 0),
        (GOLDEN[:16], Reason.BAD_KEY, 13, 0),
        (GOLDEN[:17], Reason.BAD_VALUE, 17, 0),
        (GOLDEN[:19], Reason.BAD_VALUE, 17, 0),
        (GOLDEN[:23], Reason.BAD_KEY, 21, 1),
        (GOLDEN[:20] + b"\x02" + GOLDEN[21:], Reason.BAD_KIND, 20, 1),
        (GOLDEN[:21] + b"\xff" * 10, Reason.BAD_KEY, 21, 1),
        (GOLDEN[:21] + encode_varint(2**64 - 1), Reason.BAD_KEY, 21, 1),
    ],
)
def test_entries_before_the_damage_are_kept(
    payload: bytes, reason: Reason, offset: int, whole: int
) -> None:
    decoded = batch.decode(payload, Dialect.STANDARD)
    assert decoded.fault is not None
    assert (decoded.fault.reason, decoded.fault.offset) == (reason, offset)
    assert len(decoded.entries) == whole
    assert decoded.entries[:2] == tuple(batch.entries(GOLDEN))[:whole]
    assert (decoded.readings, decoded.total, decoded.fits_standard) == ((), 0, False)
    with pytest.raises(FormatError) as caught:
        batch.entries(payload)
    assert (str(caught.value), caught.value.offset) == (decoded.fault.detail, offset)


def test_fault_says_what_was_expected_and_found() -> None:
    decoded = batch.decode(GOLDEN[:19], Dialect.STANDARD)
    assert decoded.fault is not None
    assert decoded.fault.detail == ("batch, at offset 17: expected 2 bytes of value, found 1")


CHANGES = st.lists(
    st.builds(
        Change,
        st.binary(max_size=200),
        st.none() | st.binary(max_size=300),
        st.just(0) | st.integers(1, 300) | st.integers(1, 2**64 - 1),
    ),
    max_size=8,
)


@given(st.integers(0, 2**64 - 1), CHANGES)
@unhurried
def test_standard_batches_survive_a_round_trip(sequence: int, listed: list[Change]) -> None:
    plain = [Change(change.key, change.value) for change in listed]
    payload = batch.encode(sequence, plain)
    decoded = batch.decode(payload, Dialect.STANDARD)
    assert decoded.fault is None
    assert changes_of(decoded.entries) == plain
    assert [entry.sequence for entry in decoded.entries] == [
        sequence + n for n in range(len(plain))
    ]
    ends = [entry.offset + entry.length for entry in decoded.entries]
    assert [12, *ends] == [*(entry.offset for entry in decoded.entries), len(payload)]


@pytest.mark.parametrize(
    ("sequence", "changes"),
    [(-1, []), (2**64, []), (0, [Change(b"k", b"v", -1)]), (0, [Change(b"k", b"v", 2**64)])],
)
def test_numbers_out_of_range_are_not_encoded(sequence: int, changes: list[Change]) -> None:
    with pytest.raises(ValueError, match=r"batch|varint"):
        batch.encode(sequence, changes)


# avccDB: forms that nothing marks


def test_one_batch_may_mix_both_forms() -> None:
    listed = [
        Change(b"plain", b"value"),
        Change(b"versioned", b"value", 300),
        Change(b"gone", None, 9),
        Change(b"gone too"),
        Change(b"most", b"", 2**64 - 1),
    ]
    decoded = batch.decode(batch.encode(3, listed), Dialect.AVCCDB)
    assert (decoded.fault, decoded.total) == (None, 1)
    assert changes_of(decoded.entries) == listed
    assert [entry.version for entry in decoded.entries] == [0, 300, 9, 0, 2**64 - 1]
    assert [entry.sequence for entry in decoded.entries] == [3, 4, 5, 6, 7]


AMBIGUOUS = b"\x00\x01\x00"
"""Deletes the key 00, or, of version 1, the empty key."""


def test_record_with_two_readings_is_ambiguous() -> None:
    decoded = batch.decode(record(b"\x00\x03abc", AMBIGUOUS, b"\x00\x01x"), Dialect.AVCCDB)
    assert decoded.total == 2
    assert (decoded.fits_standard, decoded.fits_versioned) == (True, True)
    keys = [[(entry.version, entry.key) for entry in reading] for reading in decoded.readings]
    assert keys == [
        [(0, b"abc"), (0, b"\x00"), (0, b"x")],
        [(0, b"abc"), (1, b""), (0, b"x")],
    ]
    assert [entry.key for entry in decoded.entries] == [b"abc"], "what all readings share"
    assert decoded.fault is not None
    assert (decoded.fault.reason, decoded.fault.offset) == (Reason.AMBIGUOUS, 17)
    assert decoded.fault.found == "2"


def test_number_of_entries_settles_what_bytes_alone_do_not() -> None:
    body = b"\x00\x03\x00\x00\x00"
    one = batch.decode(record(body, count=1), Dialect.AVCCDB)
    two = batch.decode(record(body, count=2), Dialect.AVCCDB)
    assert changes_of(one.entries) == [Change(b"\x00\x00\x00")]
    assert changes_of(two.entries) == [Change(b"", None, 3), Change(b"")]
    assert (one.fault, two.fault) == (None, None)


def test_delete_of_a_version_that_is_the_length_of_the_key_and_one_is_ambiguous() -> None:
    payload = batch.encode(1, [Change(b"gone", None, 5)])
    readings = [changes_of(reading) for reading in batch.decode(payload, Dialect.AVCCDB).readings]
    assert readings == [[Change(b"\x04gone")], [Change(b"gone", None, 5)]]


def test_version_is_never_zero_nor_longer_than_needed() -> None:
    for version in (b"\x00", b"\x81\x00", b"\x80\x00"):
        decoded = batch.decode(record(b"\x00" + version + b"\x03abc"), Dialect.AVCCDB)
        assert not decoded.fits_versioned


@pytest.mark.parametrize("count", [10, 300, 20_000])
def test_ambiguous_entries_in_great_number_are_counted_not_followed(count: int) -> None:
    decoded = batch.decode(record(*[AMBIGUOUS] * count), Dialect.AVCCDB)
    assert decoded.total == min(2**count, MAX_WAYS)
    assert len(decoded.readings) == 4
    assert [len(reading) for reading in decoded.readings] == [count] * 4
    assert decoded.fits_standard
    assert decoded.fault is not None
    assert decoded.fault.reason is Reason.AMBIGUOUS


def bombs(size: int) -> list[bytes]:
    generator = random.Random(1)
    return [
        # Any place may begin an entry, and paths of all lengths lead to most of them.
        struct.pack("<QI", 1, size // 3) + bytes(generator.choices((0, 1), k=size)),
        struct.pack("<QI", 1, size // 6) + bytes(generator.choices((0, 1, 2, 3), k=size)),
        struct.pack("<QI", 1, 2**32 - 1) + bytes(size),
        struct.pack("<QI", 1, size // 2) + b"\x00\x01\x00\x00" * (size // 4),
        struct.pack("<QI", 1, 5) + b"\x01" * size,
    ]


@pytest.mark.parametrize("number", range(5))
def test_search_is_bounded(number: int) -> None:
    payload = bombs(4000)[number]
    tracemalloc.start()
    try:
        decoded = batch.decode(payload, Dialect.AVCCDB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000
    assert decoded.fault is not None


def test_search_that_is_given_up_says_so() -> None:
    decoded = batch.decode(bombs(20_000)[0], Dialect.AVCCDB)
    assert decoded.fault is not None
    assert decoded.fault.reason is Reason.UNDECIDED
    assert (decoded.total, decoded.entries) == (0, ())


def test_reading_that_gets_furthest_is_kept() -> None:
    good = [b"\x01\x05\x03key\x01v", b"\x00\x02k2"]
    decoded = batch.decode(record(*good, b"\x01\x07\x03ab", count=3), Dialect.AVCCDB)
    assert [(entry.version, entry.key) for entry in decoded.entries] == [(5, b"key"), (0, b"k2")]
    assert decoded.fault is not None
    assert decoded.fault.reason is Reason.NO_READING
    assert decoded.fault.offset == 12 + len(b"".join(good))
    assert decoded.fault.detail == (
        "batch, at offset 24: expected an entry, found none: without a version expected 7 bytes "
        "of key at offset 25, found 3; with a version expected 3 bytes of key at offset 26, found 2"
    )


def test_wrong_count_keeps_all_entries() -> None:
    decoded = batch.decode(record(b"\x01\x05\x03key\x01v", b"\x00\x02k2", count=3), Dialect.AVCCDB)
    assert [entry.key for entry in decoded.entries] == [b"key", b"k2"]
    assert decoded.fault is not None
    assert decoded.fault.detail == (
        "batch, at offset 8: expected 3 entries, as the header says, found 2"
    )


@given(CHANGES)
@unhurried
def test_what_was_written_is_among_the_readings(listed: list[Change]) -> None:
    decoded = batch.decode(batch.encode(1, listed), Dialect.AVCCDB)
    if decoded.total <= len(decoded.readings):
        assert listed in [changes_of(reading) for reading in decoded.readings]
    assert decoded.total >= 1


SMALL = st.lists(st.sampled_from([0, 1, 1, 2, 3, 4, 0x80, 0xFF]), max_size=14).map(bytes)


@given(SMALL, st.integers(0, 6))
@unhurried
def test_readings_are_those_that_trying_out_everything_finds(body: bytes, count: int) -> None:
    payload = record(body, count=count)
    decoded = batch.decode(payload, Dialect.AVCCDB)
    expected = all_readings(payload)
    assert decoded.total == len(expected)
    found = [
        [(entry.version, entry.key, entry.value) for entry in reading]
        for reading in decoded.readings
    ]
    assert found == expected[: len(found)]
    assert len(found) == min(len(expected), 4)
    assert decoded.fits_standard == any(all(e[0] == 0 for e in r) for r in expected)
    if len(expected) > 1:
        shared = itertools.takewhile(lambda step: len(set(step)) == 1, zip(*expected, strict=False))
        assert len(decoded.entries) == len(list(shared))


@given(st.binary(max_size=300), st.sampled_from(Dialect))
@unhurried
def test_any_bytes_are_read_somehow(payload: bytes, dialect: Dialect) -> None:
    decoded = batch.decode(payload, dialect)
    end = 12
    for entry in decoded.entries:
        assert entry.offset == end
        end += entry.length
    assert (decoded.fault is None) == (decoded.total == 1)
