from __future__ import annotations

import dataclasses
import hashlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.errors import FormatError
from avccfs.format import merkle
from avccfs.format.block import Reason
from avccfs.format.merkle import MerkleTree, Part
from avccfs.format.table import Fault
from tests.format.samples import FIXTURES, unhurried
from tests.format.tables import Layout, open_table, pairs

TABLES = sorted(FIXTURES.glob("avccdb-*/db/*.ldb"))


def h(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def leaves(count: int) -> list[bytes]:
    return [h(bytes([number])) for number in range(count)]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_entries_of_real_tables_give_the_block_that_avccdb_wrote(path: Path) -> None:
    data = path.read_bytes()
    table = open_table(data)
    faults: list[Fault] = []
    stored = table.merkle_tree(faults.append)
    assert stored is not None
    entries = list(table.entries(faults.append))
    computed = merkle.build(merkle.leaf_hash(key, value) for key, value, _ in entries)
    assert merkle.compare(stored, computed) == ()
    assert stored == computed
    assert table.merkle is not None
    start = table.merkle.offset
    assert merkle.encode(computed) == data[start : start + table.merkle.length]
    assert faults == []


def test_leaf_has_user_key_and_version_but_no_trailer() -> None:
    key = b"key" + struct.pack("<QQ", 4, 1 << 8 | 1)
    assert merkle.leaf_hash(key, b"v") == h(b"\x00key", struct.pack("<Q", 4), b"v")


def test_odd_one_out_moves_up_as_it_is() -> None:
    a, b, c, d, e = leaves(5)
    ab, cd = h(b"\x01", a, b), h(b"\x01", c, d)
    abcd = h(b"\x01", ab, cd)
    root = h(b"\x01", abcd, e)
    assert merkle.build([a, b, c, d, e]) == MerkleTree(
        root, 3, 5, (a, b, c, d, e), (root, abcd, ab, cd)
    )


def test_what_moved_up_stands_where_it_arrived() -> None:
    a, b, c, d, e, f = leaves(6)
    ab, cd, ef = h(b"\x01", a, b), h(b"\x01", c, d), h(b"\x01", e, f)
    abcd = h(b"\x01", ab, cd)
    root = h(b"\x01", abcd, ef)
    assert merkle.build([a, b, c, d, e, f]).internal_hashes == (root, abcd, ef, ab, cd)


def test_small_trees() -> None:
    (one,) = leaves(1)
    assert merkle.build([one]) == MerkleTree(one, 0, 1, (one,), ())
    assert merkle.build([]) == MerkleTree(bytes(32), 0, 0, (), ())


@given(st.integers(0, 300))
@unhurried
def test_block_survives_a_round_trip(count: int) -> None:
    tree = merkle.build(h(struct.pack("<I", number)) for number in range(count))
    assert len(tree.internal_hashes) == max(0, count - 1)
    assert tree.internal_hashes[:1] in ((tree.root,), ())
    assert merkle.decode(merkle.encode(tree)) == tree


BAD = bytes(32)
TREE = merkle.build(leaves(5))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"root": BAD}, [(0, Part.ROOT, None)]),
        ({"height": 4}, [(32, Part.HEIGHT, None)]),
        ({"leaves": 6}, [(36, Part.LEAVES, None)]),
        (
            {"leaf_hashes": (*TREE.leaf_hashes[:3], BAD, BAD)},
            [(44 + 3 * 32, Part.LEAF_HASH, 3)],
        ),
        ({"leaf_hashes": TREE.leaf_hashes[:4]}, [(40, Part.LEAF_HASH_COUNT, None)]),
        (
            {"internal_hashes": (*TREE.internal_hashes[:2], BAD, TREE.internal_hashes[3])},
            [(44 + 5 * 32 + 4 + 2 * 32, Part.INTERNAL_HASH, 2)],
        ),
        (
            {"internal_hashes": (*TREE.internal_hashes, BAD)},
            [(44 + 5 * 32, Part.INTERNAL_HASH_COUNT, None)],
        ),
    ],
)
def test_faults_name_what_differs_and_where(
    changed: dict[str, object], expected: list[tuple[int, Part, int | None]]
) -> None:
    stored = dataclasses.replace(TREE, **changed)  # type: ignore[arg-type]
    faults = merkle.compare(stored, TREE)
    assert [(fault.offset, fault.part, fault.index) for fault in faults] == expected
    raw, sound = merkle.encode(stored), merkle.encode(TREE)
    differing = [
        at for at, (one, other) in enumerate(zip(raw, sound, strict=False)) if one != other
    ]
    assert faults[0].offset <= differing[0] < faults[0].offset + 32


def test_fault_says_what_was_expected_and_found() -> None:
    (fault,) = merkle.compare(dataclasses.replace(TREE, height=7), TREE)
    assert fault.detail == (
        "Merkle block, height at offset 32: expected 3 from the entries, found 7"
    )


def test_block_cut_anywhere_does_not_decode() -> None:
    raw = merkle.encode(TREE)
    for length in range(len(raw)):
        with pytest.raises(FormatError, match="Merkle block: expected"):
            merkle.decode(raw[:length])
    with pytest.raises(FormatError, match="found 1 more bytes"):
        merkle.decode(raw + b"x")


def test_forged_counts_are_refused_by_what_is_there() -> None:
    raw = bytes(40) + struct.pack(">I", 2**32 - 1)
    with pytest.raises(FormatError, match="expected 4294967295 leaf hashes at offset 44, found 0"):
        merkle.decode(raw)


def test_block_that_does_not_decode_is_a_fault_of_the_table() -> None:
    layout = Layout()
    layout.add(pairs(0, 3))
    layout.name(merkle.METAINDEX_KEY, b"not a tree")
    table = open_table(layout.finish())
    faults: list[Fault] = []
    assert table.merkle_tree(faults.append) is None
    assert [fault.reason for fault in faults] == [Reason.BAD_MERKLE]


@given(st.binary(max_size=200))
@unhurried
def test_any_bytes_decode_or_fail_as_a_format_error(raw: bytes) -> None:
    try:
        tree = merkle.decode(raw)
    except FormatError:
        return
    assert merkle.encode(tree) == raw
    merkle.compare(tree, TREE)
