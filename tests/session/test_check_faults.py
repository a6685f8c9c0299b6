"""Every code of the vocabulary: what brings it about, and where it is found."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest

from avccfs.format import batch, journal, merkle, table
from avccfs.format.batch import Change
from avccfs.format.coding import masked_crc32c
from avccfs.format.filter import METAINDEX_PREFIX
from avccfs.format.ikey import Dialect
from avccfs.format.manifest import DeletedTable, SessionRecord
from avccfs.format.table import Handle, encode_handle
from avccfs.session import tablecheck, tableproof
from avccfs.session.advice import ADVICE
from avccfs.session.check import check
from avccfs.session.checkreport import Report, as_lines
from avccfs.session.faults import Code, Finding, Severity
from avccfs.vfs.base import Open
from avccfs.vfs.memory import MemoryDirectory, MemoryFile
from tests.format.tables import Layout, compressed, content_of, entry, stored, with_restarts
from tests.session.made import (
    POLICY,
    Made,
    directory_of,
    fill,
    filter_block,
    key,
    put,
    small,
    small_avccdb,
    table_of,
)

DAMAGE, RISK, ODDITY, INFO = Severity
TABLE, JOURNAL, MANIFEST = "000003.ldb", "000004.log", "MANIFEST-000002"

Scenario = Callable[[], Report]


@dataclass(frozen=True)
class Expected:
    """Where a code is found, and how bad that is. The report of `make` may have more."""

    make: Scenario
    file: str
    severity: Severity
    offset: int | None = None


def the_finding(report: Report, code: Code) -> Finding:
    """The only finding of a code."""
    (finding,) = (each for each in report.findings if each.code is code)
    return finding


# -- tables


def one_table(
    data: bytes, smallest: str = "a", largest: str = "d", made: Made | None = None
) -> Made:
    """A database of one table, with keys of sequence 1."""
    made = made or Made()
    made.put_table(3, data, key(smallest, 1), key(largest, 1))
    return made


def of_content(content: bytes, compression: int = 0, separator: bytes | None = None) -> bytes:
    """A table with one data block of this content."""
    layout = Layout()
    handle = layout.put(content, compression)
    layout.index.append((separator or key("d", 1), encode_handle(handle)))
    return layout.finish()


A_TO_D = [put(each, 1) for each in "abcd"]
SOUND = table_of([A_TO_D])


def with_bytes(data: bytes, offset: int, other: bytes) -> bytes:
    return data[:offset] + other + data[offset + len(other) :]


def table_size() -> Report:
    made = one_table(SOUND)
    made.files[TABLE] = SOUND[:-20]
    return made.check()


def table_footer() -> Report:
    return one_table(with_bytes(SOUND, len(SOUND) - 20, b"\x01")).check()


def table_footer_long_form() -> Report:
    """A handle whose last byte says "more", and more is the zero of the padding."""
    start = len(SOUND) - 48
    last = max(at for at in range(start, len(SOUND) - 8) if SOUND[at])
    return one_table(with_bytes(SOUND, last, bytes([SOUND[last] | 0x80]))).check()


def table_gap() -> Report:
    layout = Layout()
    layout.add(A_TO_D[:2])
    layout.data += bytes(7)
    layout.add(A_TO_D[2:])
    return one_table(layout.finish()).check()


def table_empty() -> Report:
    return one_table(Layout().finish()).check()


def empty_block() -> Report:
    return one_table(of_content(with_restarts(b"", [0]))).check()


def table_range() -> Report:
    return one_table(SOUND, smallest="b").check()


def narrower_range() -> Report:
    return one_table(SOUND, largest="x").check()


def block_checksum() -> Report:
    return one_table(with_bytes(SOUND, 5, b"!")).check()


def block_checksum_without_index() -> Report:
    data = SOUND
    footer = len(data) - 48
    return one_table(with_bytes(data, footer - 10, bytes([data[footer - 10] ^ 1]))).check()


def block_compression() -> Report:
    return one_table(of_content(content_of(A_TO_D), compression=9)).check()


def damaged_snappy() -> Report:
    layout = Layout()
    raw = compressed(content_of(A_TO_D), 1)[:-3]
    layout.data += stored(raw, 1)
    layout.index.append((key("d", 1), encode_handle(Handle(0, len(raw)))))
    return one_table(layout.finish()).check()


def block_handle() -> Report:
    layout = Layout()
    layout.add(A_TO_D)
    layout.index.append((key("e", 1), encode_handle(Handle(1 << 40, 9))))
    return one_table(layout.finish()).check()


def block_overlap() -> Report:
    layout = Layout()
    handle = layout.add(A_TO_D)
    layout.index.append((key("e", 1), encode_handle(handle)))
    return one_table(layout.finish()).check()


class ShortFile(MemoryFile):
    """A file whose beginning has fewer bytes, when it is read, than its size tells."""

    def read_at(self, size: int, offset: int) -> bytes:
        return super().read_at(size if offset else 10, offset)


class Shrinking(MemoryDirectory):
    """A directory with such a table."""

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> MemoryFile:
        file = super().open(path, flags, mode)
        if path == TABLE and flags is Open.READ:
            file.__class__ = ShortFile
        return file


def block_truncated() -> Report:
    return check(fill(Shrinking(), one_table(SOUND).all_files()))


def block_restarts() -> Report:
    return one_table(of_content(with_restarts(entry(0, key("d", 1), b""), [3]))).check()


def first_restart_is_not_the_first_entry() -> Report:
    entries = entry(0, key("c", 1), b"") + entry(0, key("d", 1), b"")
    return one_table(of_content(with_restarts(entries, [len(entries) // 2])), smallest="c").check()


def block_entry() -> Report:
    return one_table(of_content(with_restarts(entry(3, key("d", 1), b""), [0]))).check()


LARGE = table_of([[(key("a", 1), bytes(300_000))]])


def in_little_memory(data: bytes) -> Report:
    """The check of a table with a block that must not be held in memory."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tableproof, "_LONGEST", 100_000)
        limited = partial(table.Table, limit=100_000)
        patched.setattr(tablecheck, "Table", limited)
        return one_table(data, "a", "a").check()


def block_unknown() -> Report:
    layout = Layout()
    layout.add(A_TO_D)
    layout.name(b"properties", b"whatever")
    return one_table(layout.finish()).check()


def unknown_filter() -> Report:
    layout = Layout()
    layout.add(A_TO_D)
    layout.name(METAINDEX_PREFIX + b"rocket", b"whatever")
    return one_table(layout.finish()).check()


def index_separator() -> Report:
    layout = Layout()
    layout.add(A_TO_D[:2])
    layout.add(A_TO_D[2:])
    layout.index[0] = (key("c", 1), layout.index[0][1])
    return one_table(layout.finish()).check()


def separator_before_the_last_key() -> Report:
    return one_table(of_content(content_of(A_TO_D), separator=key("c", 1))).check()


def malformed_key() -> Report:
    return one_table(of_content(content_of([*A_TO_D[:3], (b"d", b"")]))).check()


def unknown_kind() -> Report:
    pairs = [*A_TO_D[:3], (b"d" + struct.pack("<Q", 1 << 8 | 7), b"")]
    return one_table(of_content(content_of(pairs))).check()


def key_order() -> Report:
    pairs = [A_TO_D[0], A_TO_D[2], A_TO_D[1], A_TO_D[3]]
    return one_table(of_content(content_of(pairs))).check()


def older_before_newer() -> Report:
    pairs = [*A_TO_D[:3], put("d", 1), put("d", 2)]
    return one_table(of_content(content_of(pairs))).check()


def order_of_blocks() -> Report:
    layout = Layout()
    layout.add(A_TO_D[2:])
    layout.add(A_TO_D[:2])
    return one_table(layout.finish()).check()


def filter_malformed() -> Report:
    layout = Layout()
    layout.add(A_TO_D)
    layout.name(METAINDEX_PREFIX + POLICY, b"\xff" * 9)
    return one_table(layout.finish()).check()


def filter_misses_key() -> Report:
    layout = Layout()
    layout.add(A_TO_D)
    layout.name(METAINDEX_PREFIX + POLICY, filter_block([bytes(16) + b"\x04"]))
    return one_table(layout.finish()).check()


def merkle_malformed() -> Report:
    layout = Layout()
    layout.add([put("a", 1, 1)])
    layout.name(merkle.METAINDEX_KEY, b"short")
    made = Made()
    made.put_table(3, layout.finish(), key("a", 1, 1), key("a", 1, 1))
    return made.check()


def merkle_mismatch() -> Report:
    layout = Layout()
    layout.add([put("a", 1, 1)])
    tree = merkle.build([merkle.leaf_hash(key("a", 1, 1), b"another value")])
    layout.name(merkle.METAINDEX_KEY, merkle.encode(tree))
    made = Made()
    made.put_table(3, layout.finish(), key("a", 1, 1), key("a", 1, 1))
    return made.check()


def sequence_beyond_session() -> Report:
    made = Made()
    made.add_table(3, [[put("a", 101)]])
    return made.check()


def table_missing() -> Report:
    return small().check(without=[TABLE])


def two_levels() -> Report:
    made = small()
    (added,) = made.state.added_tables
    made.say(added_tables=(added, replace(added, level=1)))
    return made.check()


def level_overlap() -> Report:
    made = Made()
    made.say(next_file_number=9)
    made.add_table(3, [[put("a", 1), put("f", 2)]], level=1)
    made.add_table(5, [[put("f", 1), put("k", 3)]], level=1)
    made.add_table(6, [[put("c", 4), put("d", 5)]], level=1)
    return made.check()


def level_unknown() -> Report:
    made = Made()
    made.add_table(3, [A_TO_D], level=7)
    return made.check()


def old_name() -> Report:
    made = small()
    made.files["000003.sst"] = made.files.pop(TABLE)
    return made.check()


def duplicate() -> Report:
    made = small()
    made.files["000003.sst"] = b"nothing of a table"
    return made.check()


# -- manifests and CURRENT


def journal_as(text: bytes, offset: int) -> Made:
    """A database whose journal holds other bytes from an offset on."""
    made = small()
    made.files[JOURNAL] = with_bytes(made.files[JOURNAL], offset, text)
    return made


def manifest_of(*records: bytes) -> Report:
    made = small()
    writer = journal.Writer()
    whole = made.all_files()[MANIFEST]
    writer.append(whole[7:])
    made.files[MANIFEST] = whole + b"".join(writer.append(each) for each in records)
    return made.check()


def unmatched_deletion() -> Report:
    made = small()
    made.later.append(SessionRecord(deleted_tables=(DeletedTable(0, 77),)))
    return made.check()


def missing_field() -> Report:
    made = small()
    made.say(sequence=None)
    return made.check()


def manifest_key() -> Report:
    made = small()
    (added,) = made.state.added_tables
    made.say(added_tables=(replace(added, smallest=b"a"),))
    return made.check()


def unknown_comparer() -> Report:
    made = small()
    made.say(comparer=b"idb_cmp1")
    return made.check()


def second_manifest(number: int, *, live: bool) -> Report:
    made = small()
    made.say(next_file_number=20)
    files = made.all_files()
    files[f"MANIFEST-{number:06d}"] = files[MANIFEST]
    if not live:
        files["CURRENT"] = b"MANIFEST-000002"
    return check(directory_of(files))


def current_of(content: bytes, name: str = "CURRENT") -> Report:
    made = small()
    made.files[name] = content
    return made.check()


def pending() -> Report:
    made = small()
    made.manifest = 3
    files = made.all_files()
    files["MANIFEST-000002"] = files["MANIFEST-000003"]
    files["CURRENT"] = b"MANIFEST-000002\n"
    files["CURRENT.3"] = b"MANIFEST-000003\n"
    return check(directory_of(files))


# -- journals


def torn_tail() -> Report:
    made = small()
    made.files[JOURNAL] = made.files[JOURNAL][:-1]
    return made.check()


def zero_tail() -> Report:
    made = small()
    made.files[JOURNAL] += bytes(40_000)
    return made.check()


def zeroed_range() -> Report:
    made = small()
    whole = made.files[JOURNAL]
    made.files[JOURNAL] = bytes(32768) + whole
    return made.check()


def second_chunk() -> int:
    """Where the second chunk of the journal begins."""
    return 7 + int.from_bytes(small().files[JOURNAL][4:6], "little")


def of_chunks(*kinds: int) -> Report:
    """A journal of chunks of these types, each with the checksum that it should have."""
    made = small()
    data = b""
    for kind in kinds:
        payload = bytes([kind]) + b"part of a record"
        data += struct.pack("<IH", masked_crc32c(payload), len(payload) - 1) + payload
    made.files[JOURNAL] = data
    return made.check()


def padding() -> Report:
    made = small()
    writer = journal.Writer()
    change = Change(b"k", bytes(32764 - 7 - 12 - 1 - 2 - 3))
    data = writer.append(batch.encode(101, [change]))
    assert len(data) == 32764
    made.files[JOURNAL] = data + b"\x00\x01\x00\x00" + writer.append(batch.encode(102, []))[4:]
    return made.check()


def batch_undecodable() -> Report:
    made = small()
    made.files[JOURNAL] = journal.frame(b"\x65" + bytes(7) + b"\x01\x00\x00\x00\x09junk", 0)
    return made.check()


def batch_ambiguous() -> Report:
    made = small_avccdb()
    made.files[JOURNAL] = journal.frame(ambiguous_record(), 0)
    return made.check()


def ambiguous_record() -> bytes:
    """Two deletions that can be read in two ways: found by trying."""
    for tail in itertools.product(range(4), repeat=6):
        record = struct.pack("<QI", 101, 2) + bytes(tail)
        if batch.decode(record, Dialect.AVCCDB).total > 1:
            return record
    raise AssertionError("there is no such record")


def batch_versioned() -> Report:
    return small_avccdb().check()


def batch_sequence() -> Report:
    made = small()
    made.add_journal(4, (101, [Change(b"a")]), (101, [Change(b"b")]))
    return made.check()


def batch_behind() -> Report:
    made = small()
    made.add_journal(4, (60, [Change(b"a"), Change(b"b")]), (62, [Change(b"c")]))
    return made.check()


# -- other files


def in_use() -> Report:
    return check(small().directory(), holders=[(4711, "engine")])


def other_file(name: str) -> Report:
    made = small()
    made.files[name] = b"text"
    return made.check()


def unreadable() -> Report:
    directory = small().directory()
    directory.remove(TABLE)
    directory.mkdir(TABLE)
    return check(directory)


def collision_of_live_table() -> Report:
    made = Made()
    made.add_table(9, [A_TO_D])
    return made.check()


def orphan(number: int, *, unique: bool, sequence: int = 9, next_number: int = 8) -> Report:
    made = small()
    made.say(next_file_number=next_number)
    made.files[f"{number:06d}.ldb"] = table_of(
        [[put("date", 9)] if not unique else [put("date", 9), put("zebra", sequence)]]
    )
    return made.check()


def dialect_mixed() -> Report:
    made = small_avccdb()
    made.say(next_file_number=9)
    made.add_table(5, [[put("x", 1, 1)]])
    return made.check()


def changed() -> Report:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tableproof, "prove", lambda *_: None)
        return small().check()


EXPECTED: dict[Code, list[Expected]] = {
    Code.UNREADABLE: [Expected(unreadable, TABLE, DAMAGE)],
    Code.IN_USE: [Expected(in_use, "LOCK", INFO)],
    Code.NUMBER_COLLISION: [
        Expected(collision_of_live_table, "000009.ldb", RISK),
        Expected(lambda: orphan(9, unique=False), "000009.ldb", ODDITY),
    ],
    Code.DUPLICATE_FILE: [Expected(duplicate, "000003.sst", ODDITY)],
    Code.TEMP_FILE: [Expected(lambda: other_file("000009.dbtmp"), "000009.dbtmp", INFO)],
    Code.FOREIGN_FILE: [Expected(lambda: other_file("notes.txt"), "notes.txt", INFO)],
    Code.CURRENT_MISSING: [Expected(lambda: small().check(without=["CURRENT"]), "CURRENT", DAMAGE)],
    Code.CURRENT_CORRUPTED: [
        Expected(lambda: current_of(b"MANIFEST-000002"), "CURRENT", DAMAGE, 0),
        Expected(lambda: current_of(b"000003.ldb\n"), "CURRENT", DAMAGE, 0),
        Expected(lambda: current_of(b"", "CURRENT.7"), "CURRENT.7", ODDITY, 0),
    ],
    Code.CURRENT_DANGLING: [
        Expected(lambda: current_of(b"MANIFEST-000009\n"), "CURRENT", DAMAGE, 0),
        Expected(lambda: current_of(b"MANIFEST-000009\n", "CURRENT.9"), "CURRENT.9", ODDITY, 0),
    ],
    Code.CURRENT_PENDING: [Expected(pending, "CURRENT.3", ODDITY, 0)],
    Code.CURRENT_BACKUP_STALE: [
        Expected(lambda: current_of(b"MANIFEST-000001\n", "CURRENT.bak"), "CURRENT.bak", INFO, 0)
    ],
    Code.CURRENT_OVERRULED: [Expected(pending, "CURRENT", ODDITY)],
    Code.CHUNK_CHECKSUM: [Expected(lambda: journal_as(b"!", 30).check(), JOURNAL, DAMAGE, 0)],
    Code.CHUNK_LENGTH: [
        # In the first chunk: it seems to be cut off by the end of the file, but others follow.
        Expected(lambda: journal_as(b"\x01", 5).check(), JOURNAL, DAMAGE, 0),
        Expected(lambda: journal_as(b"\xff", 5).check(), JOURNAL, DAMAGE, 0),
    ],
    Code.CHUNK_TYPE: [Expected(lambda: journal_as(b"\x09", 6).check(), JOURNAL, DAMAGE, 0)],
    Code.CHUNK_ORPHAN: [Expected(lambda: of_chunks(3), JOURNAL, DAMAGE, 0)],
    Code.RECORD_BROKEN: [Expected(lambda: of_chunks(2, 9), JOURNAL, DAMAGE, 0)],
    Code.RECORDS_JOINED: [Expected(lambda: of_chunks(2, 1), JOURNAL, DAMAGE, 23)],
    Code.ZEROED_RANGE: [Expected(zeroed_range, JOURNAL, DAMAGE, 0)],
    Code.TORN_TAIL: [
        Expected(torn_tail, JOURNAL, RISK, second_chunk()),
        Expected(zero_tail, JOURNAL, RISK, len(small().files[JOURNAL])),
        Expected(lambda: of_chunks(2), JOURNAL, RISK, 0),
    ],
    Code.BLOCK_PADDING: [Expected(padding, JOURNAL, DAMAGE, 32764)],
    Code.RECORD_UNDECODABLE: [
        Expected(lambda: manifest_of(b"\x63"), MANIFEST, DAMAGE, len(small().all_files()[MANIFEST]))
    ],
    Code.MANIFEST_FIELD_MISSING: [Expected(missing_field, MANIFEST, DAMAGE)],
    Code.MANIFEST_MALFORMED_KEY: [Expected(manifest_key, MANIFEST, DAMAGE)],
    Code.MANIFEST_OBSOLETE: [
        Expected(lambda: second_manifest(1, live=True), "MANIFEST-000001", INFO)
    ],
    Code.MANIFEST_NEWER: [
        Expected(lambda: second_manifest(7, live=True), "MANIFEST-000007", ODDITY)
    ],
    Code.MANIFEST_ASSUMED: [
        Expected(lambda: second_manifest(7, live=False), "MANIFEST-000007", INFO)
    ],
    Code.DELETION_UNMATCHED: [
        Expected(unmatched_deletion, MANIFEST, ODDITY, len(small().all_files()[MANIFEST]))
    ],
    Code.LEVEL_UNKNOWN: [Expected(level_unknown, MANIFEST, ODDITY)],
    Code.LEVEL_OVERLAP: [Expected(level_overlap, "000006.ldb", DAMAGE)],
    Code.COMPARER_UNKNOWN: [Expected(unknown_comparer, MANIFEST, INFO)],
    Code.TABLE_MISSING: [Expected(table_missing, TABLE, DAMAGE)],
    Code.TABLE_SIZE: [Expected(table_size, TABLE, DAMAGE)],
    Code.TABLE_FOOTER: [
        Expected(table_footer, TABLE, DAMAGE, len(SOUND) - 48 + 4),
        Expected(table_footer_long_form, TABLE, DAMAGE, len(SOUND) - 48),
        Expected(table_size, TABLE, DAMAGE, len(SOUND) - 68),
    ],
    Code.TABLE_GAP: [Expected(table_gap, TABLE, DAMAGE, len(content_of(A_TO_D[:2])) + 5)],
    Code.TABLE_SALVAGEABLE: [
        Expected(block_checksum_without_index, TABLE, INFO),
        Expected(table_size, TABLE, INFO),
    ],
    Code.TABLE_EMPTY: [
        Expected(table_empty, TABLE, DAMAGE),
        Expected(empty_block, TABLE, DAMAGE, 0),
    ],
    Code.TABLE_RANGE: [
        Expected(table_range, TABLE, DAMAGE),
        Expected(narrower_range, TABLE, ODDITY),
    ],
    Code.TABLE_IN_TWO_LEVELS: [Expected(two_levels, TABLE, ODDITY)],
    Code.TABLE_OLD_NAME: [Expected(old_name, "000003.sst", INFO)],
    Code.BLOCK_CHECKSUM: [
        Expected(block_checksum, TABLE, DAMAGE, 0),
        Expected(block_checksum_without_index, TABLE, DAMAGE, None),
        Expected(lambda: in_little_memory(with_bytes(LARGE, 200_000, b"!")), TABLE, DAMAGE, 0),
    ],
    Code.BLOCK_COMPRESSION: [
        Expected(block_compression, TABLE, DAMAGE, 0),
        Expected(damaged_snappy, TABLE, DAMAGE, 0),
    ],
    Code.BLOCK_HANDLE: [Expected(block_handle, TABLE, DAMAGE, None)],
    Code.BLOCK_OVERLAP: [Expected(block_overlap, TABLE, DAMAGE, None)],
    Code.BLOCK_TRUNCATED: [Expected(block_truncated, TABLE, DAMAGE, 0)],
    Code.BLOCK_TOO_LARGE: [Expected(lambda: in_little_memory(LARGE), TABLE, INFO, 0)],
    Code.BLOCK_RESTARTS: [
        Expected(block_restarts, TABLE, DAMAGE, 0),
        Expected(first_restart_is_not_the_first_entry, TABLE, DAMAGE, 0),
    ],
    Code.BLOCK_ENTRY: [Expected(block_entry, TABLE, DAMAGE, 0)],
    Code.BLOCK_UNKNOWN: [
        Expected(block_unknown, TABLE, INFO, len(content_of(A_TO_D)) + 5),
        Expected(unknown_filter, TABLE, INFO, len(content_of(A_TO_D)) + 5),
    ],
    Code.INDEX_SEPARATOR: [
        Expected(index_separator, TABLE, DAMAGE, len(content_of(A_TO_D[:2])) + 5),
        Expected(separator_before_the_last_key, TABLE, DAMAGE, 0),
    ],
    Code.KEY_MALFORMED: [
        Expected(malformed_key, TABLE, DAMAGE, 0),
        Expected(unknown_kind, TABLE, DAMAGE, 0),
    ],
    Code.KEY_ORDER: [
        Expected(key_order, TABLE, DAMAGE, 0),
        Expected(older_before_newer, TABLE, DAMAGE, 0),
        Expected(order_of_blocks, TABLE, DAMAGE, len(content_of(A_TO_D[2:])) + 5),
    ],
    Code.FILTER_MALFORMED: [Expected(filter_malformed, TABLE, DAMAGE, len(content_of(A_TO_D)) + 5)],
    Code.FILTER_MISSES_KEY: [Expected(filter_misses_key, TABLE, DAMAGE, 0)],
    Code.MERKLE_MALFORMED: [Expected(merkle_malformed, TABLE, DAMAGE, None)],
    Code.MERKLE_MISMATCH: [
        Expected(merkle_mismatch, TABLE, DAMAGE, len(content_of([put("a", 1, 1)])) + 5)
    ],
    Code.TABLE_CHANGED: [Expected(changed, TABLE, DAMAGE)],
    Code.SEQUENCE_BEYOND_SESSION: [Expected(sequence_beyond_session, TABLE, RISK)],
    Code.BATCH_UNDECODABLE: [Expected(batch_undecodable, JOURNAL, DAMAGE, 0)],
    Code.BATCH_AMBIGUOUS: [Expected(batch_ambiguous, JOURNAL, ODDITY, 0)],
    Code.BATCH_VERSIONED: [Expected(batch_versioned, JOURNAL, ODDITY, 0)],
    Code.BATCH_SEQUENCE: [Expected(batch_sequence, JOURNAL, RISK, 7 + 12 + 3)],
    Code.BATCH_BEHIND_SESSION: [Expected(batch_behind, JOURNAL, ODDITY, 0)],
    Code.ORPHAN_OBSOLETE: [
        Expected(lambda: orphan(2, unique=False), "000002.ldb", INFO),
    ],
    Code.ORPHAN_HALF_MADE: [Expected(lambda: orphan(6, unique=False), "000006.ldb", INFO)],
    Code.ORPHAN_UNIQUE_KEYS: [
        Expected(lambda: orphan(6, unique=True), "000006.ldb", ODDITY),
        Expected(lambda: orphan(6, unique=True, sequence=101), "000006.ldb", RISK),
    ],
    Code.DIALECT_MIXED: [Expected(dialect_mixed, "000005.ldb", ODDITY)],
}


CASES = [
    pytest.param(code, each, id=f"{code.value}-{number}")
    for code, listed in EXPECTED.items()
    for number, each in enumerate(listed)
]


def test_every_code_has_its_case() -> None:
    assert set(EXPECTED) == set(Code)
    assert set(ADVICE) == set(Code)


@pytest.mark.parametrize(("code", "expected"), CASES)
def test_code_is_found_where_its_cause_is(code: Code, expected: Expected) -> None:
    report = expected.make()
    found = [
        each
        for each in report.findings
        if each.code is code and each.file == expected.file and each.severity is expected.severity
    ]
    assert found, [(each.code.value, each.place, each.severity) for each in report.findings]
    if expected.offset is not None:
        assert found[0].offset == expected.offset
    assert report.sound == all(each.severity in (ODDITY, INFO) for each in report.findings)
    for each in report.findings:
        assert each.expected
        assert each.found
        assert each.advice


@pytest.mark.parametrize("made", [small(), small_avccdb()], ids=["standard", "avccdb"])
def test_what_nothing_was_done_to_is_sound(made: Made) -> None:
    report = made.check()
    assert report.sound
    assert [each.code for each in report.findings if each.code is not Code.BATCH_VERSIONED] == []


def test_damage_in_a_file_that_nobody_needs_is_an_oddity() -> None:
    made = small()
    made.say(next_file_number=8)
    made.files["000006.ldb"] = b"half of a table"
    made.files["000001.log"] = made.files[JOURNAL][:-1]
    report = made.check()
    assert report.sound
    codes = {(each.file, each.code, each.severity) for each in report.findings}
    assert ("000006.ldb", Code.TABLE_FOOTER, ODDITY) in codes
    assert ("000001.log", Code.TORN_TAIL, ODDITY) in codes


def test_unique_keys_are_counted() -> None:
    made = small()
    made.say(next_file_number=8)
    fresh = [put(f"key{number:05d}", 150 + number) for number in range(700)]
    made.files["000006.ldb"] = table_of([[put("cherry", 8), put("date", 9), *fresh]])
    finding = the_finding(made.check(), Code.ORPHAN_UNIQUE_KEYS)
    # 700 new ones, and a newer state of `cherry`; `date` is there as it is.
    assert finding.found.startswith("one with 701 keys ")


def test_table_that_the_manifest_deleted_is_obsolete_whatever_it_holds() -> None:
    made = small()
    made.say(next_file_number=8)
    made.add_table(6, [[put("zebra", 90)]])
    made.later.append(SessionRecord(deleted_tables=(DeletedTable(0, 6),)))
    report = made.check()
    assert [(each.code, each.file) for each in report.findings] == [
        (Code.ORPHAN_OBSOLETE, "000006.ldb")
    ]


def test_what_can_be_had_without_an_index_is_counted() -> None:
    finding = the_finding(table_size(), Code.TABLE_SALVAGEABLE)
    assert finding.found == f"{len(A_TO_D)} entries that can be read without it"


def test_names_that_do_not_print_harm_nobody() -> None:
    report = other_file("\x1b[31m\n\udcff")
    (line,) = (each for each in as_lines(report) if "foreign-file" in each)
    assert line.startswith("  '\\x1b[31m\\n\\udcff' foreign-file: ")
    assert line.isprintable()
    line.encode()


def test_order_is_left_alone_where_the_comparer_is_not_known() -> None:
    pairs = [A_TO_D[3], A_TO_D[0]]
    made = one_table(of_content(content_of(pairs), separator=key("a", 1)), "d", "a")
    assert not made.check().sound
    made.say(comparer=b"reverse")
    assert [each.code for each in made.check().findings] == [Code.COMPARER_UNKNOWN]


def test_dialect_that_is_asked_for_is_used() -> None:
    report = small_avccdb().check(dialect=Dialect.STANDARD)
    assert report.dialect is Dialect.STANDARD
    assert {each.code for each in report.findings} >= {Code.DIALECT_MIXED, Code.KEY_ORDER}
    # The keys of a table that shows nothing are not called disordered on a guess.
    made = small_avccdb()
    data = made.files[TABLE]
    made.files = {TABLE: with_bytes(data, len(data) - 48, b"\x00\x00")}
    assert Code.KEY_ORDER not in {each.code for each in made.check().findings}


def test_of_many_findings_alike_only_the_number_is_kept() -> None:
    made = small()
    made.add_journal(4, *[(101, [Change(b"%d" % number)]) for number in range(350)])
    report = made.check()
    assert len([each for each in report.findings if each.code is Code.BATCH_SEQUENCE]) == 100
    (omitted,) = report.omitted
    assert (omitted.file, omitted.code, omitted.count) == (JOURNAL, Code.BATCH_SEQUENCE, 249)
    lines = list(as_lines(report))
    assert f"  {JOURNAL} batch-sequence: 344 more like these" in lines
    assert sum(line.startswith(f"  {JOURNAL}:") for line in lines) == 5
