from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.errors import FormatError
from avccfs.format import ikey, journal, manifest
from avccfs.format.ikey import Dialect, InternalKey, KeyKind
from tests.format.samples import MANIFESTS, Sample, expectations, unhurried

KEYS = {
    Dialect.STANDARD: st.builds(
        InternalKey,
        user_key=st.binary(max_size=12),
        sequence=st.integers(0, ikey.MAX_SEQUENCE),
        kind=st.sampled_from(KeyKind),
    ),
    Dialect.AVCCDB: st.builds(
        InternalKey,
        user_key=st.binary(max_size=12),
        sequence=st.integers(0, ikey.MAX_SEQUENCE),
        kind=st.sampled_from(KeyKind),
        version=st.integers(0, ikey.LATEST_VERSION),
    ),
}
ANY_KEY = st.one_of(*KEYS.values())
DIALECTS = st.sampled_from(Dialect)

# Keys as they follow one another in tables, with what they say.
LEVELDB_RUN = [  # leveldb-killed, 000007.ldb
    ("6b303030303031330189050000000000", InternalKey(b"k0000013", 1417, KeyKind.PUT)),
    ("6b303030303031330194040000000000", InternalKey(b"k0000013", 1172, KeyKind.PUT)),
    ("6b3030303030313601e4060000000000", InternalKey(b"k0000016", 1764, KeyKind.PUT)),
]
AVCCDB_RUN = [  # avccdb-compacted, 000004.ldb
    (
        "6b6579303030303030303004000000000000000104000000000000",
        InternalKey(b"key00000000", 4, KeyKind.PUT, 4),
    ),
    (
        "6b6579303030303030303003000000000000000103000000000000",
        InternalKey(b"key00000000", 3, KeyKind.PUT, 3),
    ),
    (
        "6b6579303030303030303104000000000000000108000000000000",
        InternalKey(b"key00000001", 8, KeyKind.PUT, 4),
    ),
]


@pytest.mark.parametrize(
    ("dialect", "run"), [(Dialect.STANDARD, LEVELDB_RUN), (Dialect.AVCCDB, AVCCDB_RUN)]
)
def test_keys_of_real_tables_decode_encode_and_sort(
    dialect: Dialect, run: list[tuple[str, InternalKey]]
) -> None:
    raws = [bytes.fromhex(text) for text, _ in run]
    keys = [key for _, key in run]
    assert [ikey.decode(raw, dialect) for raw in raws] == keys
    assert [ikey.encode(key) for key in keys] == raws
    shuffled = raws.copy()
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=lambda raw: ikey.sort_key(raw, dialect)) == raws


@unhurried
@given(ANY_KEY)
def test_keys_come_back_in_their_dialect(key: InternalKey) -> None:
    raw = ikey.encode(key)
    assert len(raw) == len(key.user_key) + key.dialect.suffix_length
    assert ikey.decode(raw, key.dialect) == key
    assert ikey.decode(memoryview(raw), key.dialect) == key
    assert ikey.sort_key(raw, key.dialect) == key.sort_key


@unhurried
@given(st.data(), DIALECTS)
def test_order_is_user_key_up_then_the_newest_first(data: st.DataObject, dialect: Dialect) -> None:
    one, other = data.draw(KEYS[dialect]), data.draw(KEYS[dialect])
    if one.user_key != other.user_key:
        expected = one.user_key < other.user_key
    elif one.version is not None and other.version is not None and one.version != other.version:
        expected = one.version > other.version
    elif one.sequence != other.sequence:
        expected = one.sequence > other.sequence
    else:
        expected = one.kind > other.kind
    raws = ikey.encode(one), ikey.encode(other)
    assert (ikey.sort_key(raws[0], dialect) < ikey.sort_key(raws[1], dialect)) is expected


def test_user_key_that_begins_another_comes_first() -> None:
    short = ikey.encode(InternalKey(b"a", 1, KeyKind.PUT))
    long = ikey.encode(InternalKey(b"a\x00", 9, KeyKind.PUT))
    assert ikey.sort_key(short, Dialect.STANDARD) < ikey.sort_key(long, Dialect.STANDARD)


@pytest.mark.parametrize("sample", MANIFESTS, ids=str)
def test_table_ranges_of_real_manifests_are_in_order(sample: Sample) -> None:
    dialect = Dialect.AVCCDB if sample.fixture.startswith("avccdb") else Dialect.STANDARD
    for item in journal.read(sample.data, journal.Policy.GOLEVELDB):
        if not isinstance(item, journal.Record):
            continue
        for table in manifest.decode(item.payload).added_tables:
            smallest = ikey.sort_key(table.smallest, dialect)
            assert smallest <= ikey.sort_key(table.largest, dialect)
            assert ikey.decode(table.smallest, dialect).sort_key == smallest


def test_first_and_last_keys_of_real_tables_are_in_order() -> None:
    seen = 0
    for fixture, expectation in expectations().items():
        dialect = Dialect.AVCCDB if fixture.startswith("avccdb") else Dialect.STANDARD
        for table in expectation["tables"].values():
            if table["error"]:
                continue
            first = bytes.fromhex(table["first_internal_key_hex"])
            last = bytes.fromhex(table["last_internal_key_hex"])
            assert ikey.encode(ikey.decode(first, dialect)) == first
            assert ikey.sort_key(first, dialect) < ikey.sort_key(last, dialect)
            seen += 1
    assert seen > 50


@pytest.mark.parametrize(
    "key",
    [
        InternalKey(b"k", -1, KeyKind.PUT),
        InternalKey(b"k", 2**56, KeyKind.PUT),
        InternalKey(b"k", 1, KeyKind.PUT, -1),
        InternalKey(b"k", 1, KeyKind.PUT, 2**64),
    ],
)
def test_numbers_out_of_range_are_not_encoded(key: InternalKey) -> None:
    with pytest.raises(ValueError, match="is 0 to"):
        ikey.encode(key)


@pytest.mark.parametrize("dialect", Dialect)
def test_key_shorter_than_its_suffix_is_refused(dialect: Dialect) -> None:
    for read in (ikey.decode, ikey.sort_key):
        with pytest.raises(FormatError, match=rf"at least {dialect.suffix_length} bytes"):
            read(bytes(dialect.suffix_length - 1), dialect)


@pytest.mark.parametrize("dialect", Dialect)
def test_unknown_kind_is_refused_but_has_a_place_in_the_order(dialect: Dialect) -> None:
    raw = b"k" + bytes(dialect.suffix_length - 8) + b"\x02" + bytes(7)
    with pytest.raises(FormatError, match="found 2") as caught:
        ikey.decode(raw, dialect)
    assert caught.value.offset == len(raw) - 8
    assert ikey.sort_key(raw, dialect) == (b"k", 0, -2)


@unhurried
@given(st.binary(max_size=40), DIALECTS)
def test_any_bytes_decode_or_fail_as_a_format_error(raw: bytes, dialect: Dialect) -> None:
    try:
        key = ikey.decode(raw, dialect)
    except FormatError:
        return
    assert ikey.encode(key) == raw
