from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avccfs.format import batch, ikey, journal, manifest
from avccfs.format.filename import Kind, parse
from avccfs.format.ikey import Dialect, InternalKey, KeyKind
from avccfs.format.manifest import AddedTable, CompactionPointer, DeletedTable, SessionRecord
from avccfs.format.table import Table
from avccfs.session import decoded, keys, lines, recognition
from avccfs.session.decoded import Block, Bounds, Changes, Edit, Fault
from avccfs.session.folder import Folder
from avccfs.session.keys import Form
from avccfs.session.lines import State, Subject
from avccfs.vfs.local import LocalDirectory
from tests.format.tables import Layout, pairs
from tests.session.dump import FIXTURES, expectations, fixtures

_KINDS = {"delete": KeyKind.DELETE, "put": KeyKind.PUT}


class Bytes:
    """A file in memory that notes how far it was read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.furthest = 0

    def read_at(self, size: int, offset: int) -> bytes:
        self.furthest = max(self.furthest, min(len(self.data), offset + size))
        return self.data[offset : offset + size]


def objects(chunks: Iterator[bytes]) -> list[dict[str, Any]]:
    text = b"".join(chunks).decode()
    assert text.endswith("\n")
    return [json.loads(line) for line in text[:-1].split("\n")]


def subject(name: str, data: bytes, dialect: Dialect = Dialect.STANDARD) -> Subject:
    desc = parse(name)
    assert desc is not None
    assert desc.kind.name is not None
    return Subject(name, desc.kind.name.lower(), len(data), dialect, "for a test")


def read_fixture(fixture: str, name: str, form: Form = Form.HEX) -> list[dict[str, Any]]:
    """The lines of a file of a fixture, with the dialect that its directory shows."""
    directory = FIXTURES / fixture / "db"
    data = (directory / name).read_bytes()
    dialect = recognition.of_folder(Folder(LocalDirectory(directory, read_only=True))).dialect
    about = subject(name, data, dialect)
    file = Bytes(data)
    if about.kind == "table":
        return objects(lines.table_lines(Table(file.read_at, len(data)), about, form=form))
    read = lines.journal_lines if about.kind == "journal" else lines.manifest_lines
    return objects(read(file.read_at, about, form=form))


def names_of(fixture: str, kind: str) -> list[str]:
    return sorted(expectations(fixture).get(kind) or {})


def of_type(found: list[dict[str, Any]], *types: str) -> list[dict[str, Any]]:
    return [line for line in found if line["type"] in types]


def internal_key(fields: dict[str, Any]) -> bytes:
    key = bytes.fromhex(fields["key"])
    kind = _KINDS[fields["kind"]]
    return ikey.encode(InternalKey(key, fields["sequence"], kind, fields.get("version")))


class TestAgainstTheEngines:
    @pytest.mark.parametrize("fixture", fixtures())
    def test_tables_have_the_entries_that_goleveldb_reads(self, fixture: str) -> None:
        for name, expected in (expectations(fixture).get("tables") or {}).items():
            found = read_fixture(fixture, name)
            if expected["error"]:
                assert of_type(found, "fault")
                continue
            digest = hashlib.sha256()
            entries = of_type(found, "entry")
            for entry in entries:
                value = entry["value"] or ""
                digest.update(f"{internal_key(entry).hex()} {value}\n".encode())
            assert len(entries) == expected["entries"]
            assert digest.hexdigest() == expected["sha256_of_hexkey_space_hexvalue_lines"]
            assert not of_type(found, "fault")

    @pytest.mark.parametrize("fixture", fixtures())
    def test_journals_have_the_batches_that_goleveldb_reads(self, fixture: str) -> None:
        for name, expected in (expectations(fixture).get("journals") or {}).items():
            found = read_fixture(fixture, name)
            if expected["dropped"]:
                assert of_type(found, "fault")
                continue
            assert not of_type(found, "fault")
            digest = hashlib.sha256()
            batches = 0
            for record in batches_of(found):
                digest.update(f"{record.hex()}\n".encode())
                batches += 1
            assert batches == expected["records"]
            assert digest.hexdigest() == expected["sha256_of_hexrecord_lines"]

    @pytest.mark.parametrize("fixture", fixtures())
    def test_manifests_have_the_edits_that_goleveldb_reads(self, fixture: str) -> None:
        for name, expected in (expectations(fixture).get("manifests") or {}).items():
            found = read_fixture(fixture, name)
            edits = of_type(found, "edit")
            if expected["dropped"]:
                assert of_type(found, "fault")
                continue
            assert [edit["edit"] for edit in edits] == list(range(1, expected["records"] + 1))


def batches_of(found: list[dict[str, Any]]) -> Iterator[bytes]:
    """The records that the lines of a journal tell of."""
    starts = [index for index, line in enumerate(found) if line["type"] == "batch"]
    for start, end in zip(starts, [*starts[1:], len(found)], strict=False):
        head, *entries = found[start:end]
        assert head["count"] == len(entries)
        assert [each["sequence"] for each in entries] == [
            head["sequence"] + index for index in range(len(entries))
        ]
        yield batch.encode(
            head["sequence"],
            [
                batch.Change(
                    bytes.fromhex(each["key"]),
                    None if each["kind"] == "delete" else bytes.fromhex(each["value"]),
                    each.get("version", 0),
                )
                for each in entries
            ],
        )


def framed(*payloads: bytes) -> bytes:
    writer = journal.Writer()
    return b"".join(map(writer.append, payloads))


def manifest_objects(data: bytes) -> list[dict[str, Any]]:
    about = subject("MANIFEST-000001", data)
    return objects(lines.manifest_lines(Bytes(data).read_at, about))


def journal_objects(data: bytes, dialect: Dialect = Dialect.STANDARD) -> list[dict[str, Any]]:
    about = subject("000001.log", data, dialect)
    return objects(lines.journal_lines(Bytes(data).read_at, about))


def table_objects(data: bytes, dialect: Dialect = Dialect.STANDARD) -> list[dict[str, Any]]:
    about = subject("000001.ldb", data, dialect)
    return objects(lines.table_lines(Table(Bytes(data).read_at, len(data)), about))


KEY = ikey.encode(InternalKey(b"k\0", 7, KeyKind.PUT))


class TestManifests:
    def test_every_field_has_its_place(self) -> None:
        record = SessionRecord(
            comparer=b"cmp",
            journal_number=1,
            next_file_number=2,
            sequence=3,
            previous_journal_number=4,
            compaction_pointers=(CompactionPointer(1, KEY),),
            deleted_tables=(DeletedTable(2, 5),),
            added_tables=(AddedTable(3, 6, 700, KEY, b"short"),),
        )
        data = framed(manifest.encode(record))
        key = {"key": "k\\x00", "sequence": 7, "kind": "put"}
        assert manifest_objects(data)[1:] == [
            {
                "file": "MANIFEST-000001",
                "type": "edit",
                "offset": 0,
                "end": len(data),
                "edit": 1,
                "comparer": "cmp",
                "journal_number": 1,
                "previous_journal_number": 4,
                "next_file_number": 2,
                "sequence": 3,
                "compaction_pointers": [{"level": 1, **key}],
                "deleted": [{"level": 2, "number": 5}],
                "added": [
                    {
                        "level": 3,
                        "number": 6,
                        "size": 700,
                        "smallest": key,
                        "largest": {"raw": b"short".hex()},
                    }
                ],
            }
        ]

    def test_a_record_that_does_not_decode_is_shown_up_to_there(self) -> None:
        good = manifest.encode(SessionRecord(sequence=1))
        bad = manifest.encode(SessionRecord(journal_number=9)) + b"\x08"
        found = manifest_objects(framed(good, bad, good))
        assert [line["type"] for line in found[1:]] == ["edit", "fault", "partial edit", "edit"]
        assert found[2]["offset"] == len(framed(good))
        assert found[2]["reason"] == "bad record"
        assert (found[2]["expected"], found[2]["found"]) == ("1 to 7 or 9 at offset 2", "8")
        assert found[3]["journal_number"] == 9
        assert "edit" not in found[3]
        assert found[4]["edit"] == 2

    def test_the_state_at_an_edit_is_that_of_the_records_before(self) -> None:
        name = "MANIFEST-000000"
        path = FIXTURES / "goleveldb-closed" / "db" / name
        file = Bytes(path.read_bytes())
        whole = objects(lines.manifest_lines(file.read_at, subject(name, file.data)))
        edits = of_type(whole, "edit")
        added = [each for edit in edits for each in edit.get("added", [])]
        assert added
        for count in range(len(edits) + 1):
            (state,) = lines.state_at(decoded.read_manifest(file.read_at), count)
            assert isinstance(state, State)
            numbers = [table.number for table in state.session.tables()]
            assert numbers == [
                each["number"] for edit in edits[:count] for each in edit.get("added", [])
            ]
            assert state.offset == (edits[count - 1]["offset"] if count else None)

    def test_there_is_no_state_behind_the_last_edit(self) -> None:
        data = framed(manifest.encode(SessionRecord(sequence=1)))
        assert list(lines.state_at(decoded.read_manifest(Bytes(data).read_at), 2)) == []


class TestJournals:
    def test_damage_comes_in_its_place(self) -> None:
        first, second, third = (
            batch.encode(number, [batch.Change(b"k%d" % number, bytes(20_000))])
            for number in (1, 2, 3)
        )
        data = bytearray(framed(first, second, third))
        data[20_100] ^= 1
        found = journal_objects(bytes(data))
        types = [line["type"] for line in found[1:]]
        assert types[:3] == ["batch", "entry", "fault"]
        assert types[-2:] == ["batch", "entry"]
        fault = found[3]
        assert fault["part"] == "chunk"
        assert fault["reason"] == "bad checksum"
        assert fault["offset"] == len(framed(first))
        assert fault["expected"].startswith("the checksum 0x")
        assert fault["found"].endswith("in its header")
        assert found[-1]["key"] == "k3"

    def test_entries_before_a_bad_one_are_shown(self) -> None:
        record = batch.encode(5, [batch.Change(b"a", b"1"), batch.Change(b"b", b"2")])
        found = journal_objects(framed(record[:-1]))
        assert [line["type"] for line in found[1:]] == ["batch", "entry", "fault"]
        assert found[1]["count"] == 2
        assert found[2]["key"] == "a"
        assert found[3]["expected"].endswith("of the record")
        assert "\n" not in found[3]["expected"]

    def test_a_deletion_has_no_value(self) -> None:
        record = batch.encode(5, [batch.Change(b"a"), batch.Change(b"b", b"")])
        _, _, delete, put = journal_objects(framed(record))
        assert (delete["kind"], delete["value"]) == ("delete", None)
        assert (put["kind"], put["value"], put["sequence"]) == ("put", "", 6)

    def test_each_reading_of_an_ambiguous_batch_is_shown(self) -> None:
        found = journal_objects(framed(AMBIGUOUS), Dialect.AVCCDB)
        head, readings = found[1], of_type(found, "reading")
        assert head["readings"] == len(readings) == 2
        assert [each["reading"] for each in readings] == [1, 2]
        entries = [[(e["key"], e["version"]) for e in each["entries"]] for each in readings]
        assert entries == [[("\\x01x", 0)], [("x", 2)]]
        assert found[-1]["type"] == "fault"
        assert found[-1]["reason"] == "ambiguous"

    def test_only_batches_with_keys_within_the_bounds_are_read(self) -> None:
        records = [batch.encode(n, [batch.Change(b"k%d" % n, b"")]) for n in range(1, 6)]
        file = Bytes(framed(*records))
        bounds = Bounds(b"k2", b"k4")
        found = list(decoded.read_journal(file.read_at, Dialect.STANDARD, bounds))
        read = [each.entries[0].key for each in found if isinstance(each, Changes)]
        assert read == [b"k2", b"k3"]
        assert len(found) == 2


AMBIGUOUS = (1).to_bytes(8, "little") + (1).to_bytes(4, "little") + b"\x00\x02\x01x"
"""Deletes the key 01 78, or the key 78 of version 2."""


class TestSalvage:
    RECORDS = tuple(batch.encode(n, [batch.Change(b"k%d" % n, bytes(50))]) for n in range(1, 9))

    def salvaged(self, data: bytes) -> list[tuple[int, int]]:
        found = of_type(journal_objects(data), "batch")
        return [(line["offset"], line["sequence"]) for line in found if line.get("salvaged")]

    def starts(self) -> list[int]:
        sizes = [len(journal.frame(record, 0)) for record in self.RECORDS]
        return [sum(sizes[:index]) for index in range(len(sizes))]

    @pytest.mark.parametrize("byte", [0, 4, 6, 20])
    def test_records_behind_a_damaged_one_are_found(self, byte: int) -> None:
        starts = self.starts()
        data = bytearray(framed(*self.RECORDS))
        data[starts[3] + byte] ^= 0x50
        assert self.salvaged(bytes(data)) == [
            (starts[index], index + 1) for index in range(4, len(starts))
        ]

    def test_a_stretch_of_zeros_is_passed(self) -> None:
        starts = self.starts()
        data = bytearray(framed(*self.RECORDS))
        data[starts[2] : starts[5] - 3] = bytes(starts[5] - 3 - starts[2])
        assert [sequence for _, sequence in self.salvaged(bytes(data))] == [6, 7, 8]

    def test_two_holes_in_one_block_are_both_passed(self) -> None:
        starts = self.starts()
        data = bytearray(framed(*self.RECORDS))
        data[starts[2] + 9] ^= 1
        data[starts[5] + 9] ^= 1
        assert [sequence for _, sequence in self.salvaged(bytes(data))] == [4, 5, 7, 8]

    def test_nothing_is_salvaged_twice(self) -> None:
        records = [batch.encode(n, [batch.Change(b"k", bytes(900))]) for n in range(1, 201)]
        data = bytearray(framed(*records))
        data[3 * journal.BLOCK_SIZE + 2000] ^= 1
        found = of_type(journal_objects(bytes(data)), "batch")
        sequences = [line["sequence"] for line in found]
        assert sequences == sorted(set(sequences))
        # The damaged one, and one that begins in this block and ends in the next.
        assert len(sequences) >= len(records) - 3

    def test_edits_that_are_salvaged_have_no_number_and_no_effect(self) -> None:
        edits = [manifest.encode(SessionRecord(sequence=number)) for number in (1, 2, 3)]
        data = bytearray(framed(*edits))
        data[len(framed(edits[0])) + 8] ^= 1
        found = manifest_objects(bytes(data))
        assert [line["type"] for line in found[1:]] == ["edit", "fault", "edit"]
        assert found[-1]["salvaged"]
        assert "edit" not in found[-1]
        read = decoded.read_manifest(Bytes(bytes(data)).read_at)
        assert not any(isinstance(item, State) for item in lines.state_at(read, 2))

    def test_zeros_and_ones_give_nothing(self) -> None:
        for data in (bytes(70_000), b"\x01" * 40_000, b"\x00\x00\x00\x00\x05\x00\x01" * 5000):
            assert self.salvaged(data) == []


class TestTables:
    def test_good_blocks_around_a_bad_one_are_shown(self) -> None:
        layout = Layout()
        handles = [layout.add(pairs(start, start + 10)) for start in (0, 10, 20)]
        data = bytearray(layout.finish())
        data[handles[1].offset + 30] ^= 0x40
        found = table_objects(bytes(data))
        types = [line["type"] for line in found[1:]]
        assert types == ["entry"] * 10 + ["fault"] + ["entry"] * 10
        fault = found[11]
        assert fault["offset"] == handles[1].offset
        assert (fault["part"], fault["reason"]) == ("data block", "bad checksum")
        assert {line["offset"] for line in found[1:11]} == {handles[0].offset}
        assert {line["offset"] for line in found[12:]} == {handles[2].offset}

    def test_keys_that_do_not_decode_are_faults_between_those_that_do(self) -> None:
        layout = Layout()
        good = pairs(0, 3)
        bad_kind = (good[1][0][:-8] + b"\x02" + good[1][0][-7:], b"value")
        layout.add([good[0], bad_kind, good[2], (b"zz", b"short")])
        found = table_objects(layout.finish())
        assert [line["type"] for line in found[1:]] == ["entry", "fault", "entry", "fault"]
        assert found[2]["reason"] == found[4]["reason"] == "bad internal key"
        assert found[2]["found"].endswith(bad_kind[0].hex())
        assert b"zz".hex() in found[4]["found"]

    def test_structure_that_is_damaged_is_told_behind_what_lies_before_it(self) -> None:
        layout = Layout()
        layout.add(pairs(0, 10))
        data = bytearray(layout.finish())
        index = layout.handles["index"]
        data[index.offset] ^= 1
        found = table_objects(bytes(data))
        assert len(of_type(found, "entry")) == 10
        assert found[-1]["type"] == "fault"
        assert found[-1]["offset"] == index.offset

    def test_versions_are_shown_where_there_are_some(self) -> None:
        (name,) = names_of("avccdb-compacted", "tables")
        found = read_fixture("avccdb-compacted", name)
        assert found[0]["dialect"] == "avccdb"
        assert "merkle.tree" in found[0]["blocks"]
        assert {line["version"] for line in of_type(found, "entry")} == {1, 2, 3, 4}

    @pytest.mark.parametrize("form", [Form.HEX, Form.ESCAPE, Form.UTF8])
    def test_plain_and_other_values_are_written_by_the_same_rules(self, form: Form) -> None:
        values = [b"plain", b'"quoted"', b"\xff\0", b"%s %d", "é\u202e".encode(), b"", b"\\"]
        layout = Layout()
        for value in values:
            layout.add([(ikey.encode(InternalKey(b"k" + value, 1, KeyKind.PUT)), value)])
        data = layout.finish()
        about = subject("000001.ldb", data)
        opened = Table(Bytes(data).read_at, len(data))
        found = objects(lines.table_lines(opened, about, form=form))
        show = keys.show(form)
        told = [(line["key"], line["value"]) for line in of_type(found, "entry")]
        assert told == [(show(b"k" + value), show(value)) for value in values]

    def test_a_deletion_has_no_value(self) -> None:
        layout = Layout()
        layout.add([(ikey.encode(InternalKey(b"k", 1, KeyKind.DELETE)), b"")])
        _, entry = table_objects(layout.finish())
        assert (entry["kind"], entry["value"]) == ("delete", None)

    def test_bounds_read_no_more_blocks_than_they_must(self) -> None:
        layout = Layout()
        for start in range(0, 1000, 10):
            layout.add(pairs(start, start + 10))
        file = Bytes(layout.finish())
        opened = Table(file.read_at, len(file.data))
        file.furthest = 0
        bounds = Bounds(b"key00000015", b"key00000023")
        found = list(decoded.read_table(opened, Dialect.STANDARD, bounds))
        read = [key[:-8] for each in found if isinstance(each, Block) for key, _, _ in each.entries]
        assert read == [b"key%08d" % number for number in range(15, 23)]
        assert file.furthest < 0.1 * len(file.data)

    def test_bounds_do_not_trust_a_damaged_index(self) -> None:
        layout = Layout()
        for start in range(0, 100, 10):
            layout.add(pairs(start, start + 10))
        data = bytearray(layout.finish())
        data[layout.handles["index"].offset + 5] ^= 1
        opened = Table(Bytes(bytes(data)).read_at, len(data))
        bounds = Bounds(b"key00000015", b"key00000023")
        found = list(decoded.read_table(opened, Dialect.STANDARD, bounds))
        read = [key[:-8] for each in found if isinstance(each, Block) for key, _, _ in each.entries]
        assert read == [b"key%08d" % number for number in range(15, 23)]


class TestStreaming:
    def test_lines_come_while_the_table_is_read(self) -> None:
        layout = Layout()
        for start in range(0, 2000, 10):
            layout.add(pairs(start, start + 10))
        file = Bytes(layout.finish())
        opened = Table(file.read_at, len(file.data))
        file.furthest = 0
        chunks = lines.table_lines(opened, subject("000001.ldb", file.data))
        next(chunks)
        assert b'"entry"' in next(chunks)
        assert file.furthest < 0.05 * len(file.data)

    def test_lines_come_while_the_journal_is_read(self) -> None:
        records = [batch.encode(n, [batch.Change(b"k", bytes(1000))]) for n in range(200)]
        file = Bytes(framed(*records))
        chunks = lines.journal_lines(file.read_at, subject("000001.log", file.data))
        next(chunks)
        assert b'"batch"' in next(chunks)
        assert file.furthest <= journal.BLOCK_SIZE

    @pytest.mark.parametrize("name", ["000001.log", "000001.ldb", "MANIFEST-000001"])
    def test_an_empty_file_has_its_first_line(self, name: str) -> None:
        read = {
            "000001.log": journal_objects,
            "000001.ldb": table_objects,
            "MANIFEST-000001": manifest_objects,
        }
        found = read[name](b"")
        assert found[0]["type"] == "file"
        assert found[0]["size"] == 0
        faults = [line["reason"] for line in found[1:]]
        assert faults == (["too small"] if name.endswith("ldb") else [])


class TestRecognition:
    @pytest.mark.parametrize("fixture", fixtures())
    def test_the_content_shows_what_the_name_says(self, fixture: str) -> None:
        unreadable = {"truncated-table-footer"}
        for path in sorted((FIXTURES / fixture / "db").iterdir()):
            desc = parse(path.name)
            data = path.read_bytes()
            if desc is None or not data or fixture in unreadable:
                continue
            kind = recognition.kind_of_content(Bytes(data).read_at, len(data))
            assert kind is desc.kind, path.name

    def test_nothing_and_anything_are_not_recognised(self) -> None:
        for data in (b"", b"#!/bin/sh\n" * 100, bytes(70_000)):
            assert recognition.kind_of_content(Bytes(data).read_at, len(data)) is None

    def test_a_name_that_the_file_does_not_deserve_still_counts(self) -> None:
        data = (FIXTURES / "goleveldb-closed" / "db" / "000003.ldb").read_bytes()
        read_at = Bytes(data).read_at
        assert recognition.kind_of("000003.log", read_at, len(data)) is Kind.JOURNAL
        assert recognition.kind_of("backup of a table", read_at, len(data)) is Kind.TABLE

    @pytest.mark.parametrize("fixture", fixtures())
    def test_the_dialect_of_each_fixture_is_found(self, fixture: str) -> None:
        folder = Folder(LocalDirectory(FIXTURES / fixture / "db", read_only=True))
        shown = recognition.of_folder(folder)
        avccdb = fixture.startswith("avccdb")
        assert shown.dialect is (Dialect.AVCCDB if avccdb else Dialect.STANDARD)
        assert shown.dialect is folder.dialect()

    def test_an_assumption_is_called_one(self, tmp_path: Path) -> None:
        shown = recognition.of_folder(Folder(LocalDirectory(tmp_path, read_only=True)))
        assert not shown.certain
        assert "assumed" in shown.evidence


def test_faults_speak_for_themselves() -> None:
    fault = Fault(5, 10, "chunk", "bad checksum", "this", "that")
    assert fault.detail == "chunk at offset 5: expected this, found that"


def test_every_fault_of_the_fixtures_has_both_halves() -> None:
    seen = 0
    for fixture in fixtures():
        for kind in ("tables", "journals", "manifests"):
            for name in names_of(fixture, kind):
                for fault in of_type(read_fixture(fixture, name), "fault"):
                    assert fault["expected"]
                    assert fault["found"]
                    seen += 1
    assert seen >= 5


def test_edits_that_decode_in_part_have_no_number() -> None:
    data = framed(manifest.encode(SessionRecord(sequence=1)) + b"\x08")
    found = list(decoded.read_manifest(Bytes(data).read_at))
    assert [type(item) for item in found] == [Fault, Edit]
    assert isinstance(found[1], Edit)
    assert found[1].number is None


def test_no_mount_is_needed_to_decode() -> None:
    program = (
        "import sys, avccfs.session.lines, avccfs.session.whereabouts, avccfs.session.overview\n"
        "print([name for name in ('pyfuse3', 'trio', 'rich', 'click') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("goleveldb-closed", "MANIFEST-000000"),
        ("goleveldb-closed", "000003.ldb"),
        ("goleveldb-closed", "000008.log"),
        ("avccdb-compacted", "000004.ldb"),
        ("avccdb-tables-and-journal", "000012.log"),
    ],
)
@pytest.mark.parametrize("dialect", Dialect)
def test_any_damage_is_answered(fixture: str, name: str, dialect: Dialect) -> None:
    chance = random.Random(f"{fixture} {name}")
    sound = (FIXTURES / fixture / "db" / name).read_bytes()
    for _ in range(15):
        data = bytearray(sound)
        for _ in range(chance.choice((1, 1, 3, 30))):
            start = chance.randrange(len(data))
            length = chance.choice((1, 1, 4, 200))
            match chance.randrange(3):
                case 0:
                    data[start] ^= 1 << chance.randrange(8)
                case 1:
                    data[start : start + length] = chance.randbytes(length)
                case _:
                    del data[start : start + length]
            if not data:
                break
        read = {"ldb": table_objects, "log": journal_objects}.get(name[-3:])
        found = manifest_objects(bytes(data)) if read is None else read(bytes(data), dialect)
        assert all(line["expected"] and line["found"] for line in of_type(found, "fault"))
