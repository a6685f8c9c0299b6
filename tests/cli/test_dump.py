from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import plyvel
import pytest

from avccfs.cli.main import DAMAGE, FAILED, FINE, USAGE, main
from avccfs.format import batch, journal
from avccfs.format.filename import Kind, parse
from avccfs.session import keys
from avccfs.session.keys import Form
from tests.cli.running import assert_golden, db, run
from tests.format.tables import Layout, pairs
from tests.session.dump import expectations, fixtures

AVCCFS = [sys.executable, "-P", "-m", "avccfs"]


class TestAgainstLevelDB:
    @pytest.mark.parametrize("fixture", fixtures())
    def test_manifests_look_as_leveldbutil_shows_them(self, fixture: str) -> None:
        for name, expected in expectations(fixture).get("leveldbutil_manifest_dump", {}).items():
            found = run("dump", db(fixture) / name).lines
            assert found.pop(0).startswith("# ")
            if "; salvaged; " in "".join(found):
                found = found[: next(i for i, line in enumerate(found) if "; fault; " in line)]
            edits = [line for line in found if "; fault; " not in line]
            shown = [re.sub(r"; edit \d+;", ";", line) for line in edits]
            sound = [line for line in expected if not line.startswith("corruption: ")]
            assert shown == sound

    @pytest.mark.parametrize("fixture", fixtures())
    def test_journals_and_tables_look_as_leveldbutil_shows_them(self, fixture: str) -> None:
        for name, expected in expectations(fixture).get("leveldbutil_dump", {}).items():
            done = run("dump", db(fixture) / name)
            if done.code == DAMAGE:
                assert "; fault; " in done.text
                continue
            desc = parse(name)
            assert desc is not None
            extra = "# " if desc.kind is Kind.JOURNAL else ("# ", "--- ")
            lines = [line for line in done.lines if not line.startswith(extra)]
            assert lines[:2] == expected["head"]
            assert len(lines) == expected["lines"]
            digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode())
            assert digest.hexdigest() == expected["sha256"]


GOLDEN = {
    "manifest.txt": ["dump", "MANIFEST-000000"],
    "manifest.jsonl": ["dump", "MANIFEST-000000", "--format", "jsonl"],
    "manifest.csv": ["dump", "MANIFEST-000000", "--format", "csv"],
    "manifest-at-4.txt": ["dump", "MANIFEST-000000", "--at-edit", "4"],
    "manifest-at-4.jsonl": ["dump", "MANIFEST-000000", "--at-edit", "4", "--format", "jsonl"],
    "manifest-at-4.csv": ["dump", "MANIFEST-000000", "--at-edit", "4", "--format", "csv"],
    "manifest-at-9.txt": ["dump", "MANIFEST-000000", "--at-edit", "9"],
    "table.txt": ["dump", "000005.ldb", "--to", "key00000110"],
    "table.jsonl": ["dump", "000005.ldb", "--to", "key00000110", "--format", "jsonl"],
    "table.csv": ["dump", "000005.ldb", "--to", "key00000110", "--format", "csv"],
    "journal.txt": ["dump", "000006.log", "--prefix", "key0000020", "--values", "size"],
    "journal.hex.txt": ["dump", "000006.log", "--keys", "hex", "--prefix", "6b657930303030303230"],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_dumps_look_like_this(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(db("flipped-table-block"))
    assert_golden(name, run(*GOLDEN[name]))


AVCCDB = {
    "avccdb-manifest.txt": ["dump", "MANIFEST-000000"],
    "avccdb-table.txt": ["dump", "000003.ldb", "--prefix", "key00000003", "--values", "size"],
    "avccdb-table.csv": ["dump", "000003.ldb", "--prefix", "key00000003", "--format", "csv"],
    "avccdb-journal.txt": ["dump", "000010.log", "--from", "key00000160", "--values", "size"],
}


@pytest.mark.parametrize("name", AVCCDB)
def test_dumps_of_avccdb_look_like_this(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(db("avccdb-tables-and-journal"))
    assert_golden(name, run(*AVCCDB[name]))


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("torn-journal-tail", "000008.log"),
        ("zeroed-journal-range", "000008.log"),
        ("flipped-journal-byte", "000008.log"),
        ("flipped-manifest-byte", "MANIFEST-000000"),
        ("torn-manifest-tail", "MANIFEST-000000"),
        ("truncated-table-footer", "000005.ldb"),
    ],
)
def test_damage_looks_like_this(fixture: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(db(fixture))
    done = run("dump", name, "--values", "size")
    assert done.code == DAMAGE
    assert_golden(f"{fixture}.txt", done)


class TestForms:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        odd = [b"a\0b", b"quote'", b'"', b"\xff\xfe", "é".encode(), b"\x1b[2J", b"100%", b"\\"]
        database = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
        for key in odd:
            database.put(key, key[::-1])
        database.delete(b"gone")
        database.compact_range()
        database.close()
        (path,) = (tmp_path / "db").glob("*.ldb")
        return path

    @pytest.mark.parametrize("form", [Form.HEX, Form.ESCAPE, Form.UTF8])
    def test_all_three_layouts_say_the_same(self, table: Path, form: Form) -> None:
        show = keys.show(form)
        with plyvel.DB(str(table.parent)) as database:
            expected = {show(key): show(value) for key, value in database}
        arguments = ["dump", str(table), "--keys", form.value, "--format"]
        objects = [json.loads(line) for line in run(*arguments, "jsonl").lines[1:]]
        puts = {each["key"]: each["value"] for each in objects if each["kind"] == "put"}
        assert puts == expected
        rows = list(csv.DictReader(io.StringIO(run(*arguments, "csv").text, newline="")))
        assert {row["key"]: row["value"] for row in rows if row["kind"] == "put"} == expected
        text = run(*arguments, "text").lines
        for key, value in expected.items():
            assert any(
                line.startswith(f"'{key}' @ ") and line.endswith(f" : val => '{value}'")
                for line in text
            )

    @pytest.mark.parametrize("layout", ["text", "jsonl", "csv"])
    @pytest.mark.parametrize("form", ["hex", "escape", "utf8"])
    def test_no_control_character_gets_out(self, table: Path, layout: str, form: str) -> None:
        done = run("dump", table, "--format", layout, "--keys", form)
        assert done.code == FINE
        assert all(line.isprintable() for line in done.lines)

    def test_raw_is_raw(self, table: Path) -> None:
        done = run("dump", table, "--keys", "raw")
        assert b"'\xff\xfe' @ " in done.out
        assert b"=> 'J2[\x1b'\n" in done.out

    def test_json_refuses_raw(self, table: Path) -> None:
        done = run("dump", table, "--keys", "raw", "--format", "jsonl")
        assert done.code == USAGE
        assert "choose --keys hex, escape or utf8" in done.error

    def test_a_name_cannot_attack_the_terminal(self, table: Path) -> None:
        evil = table.with_name("\x1b]0;owned\x07 \udcff.ldb")
        os.rename(table, evil)
        for layout in ("text", "jsonl", "csv"):
            done = run("dump", evil, "--format", layout)
            assert done.code == FINE
            assert all(line.isprintable() for line in done.lines)
            assert "x1b]0;owned" in done.text
        evil.write_bytes(b"\xff" * 100)
        done = run("dump", evil)
        assert done.code == USAGE
        assert done.error.strip().isprintable()

    def test_keys_and_values_can_be_written_differently(self, table: Path) -> None:
        done = run("dump", table, "--keys", "hex", "--values", "escape", "--prefix", "6100")
        assert done.lines[-1].startswith("'610062' @ ")
        assert done.lines[-1].endswith("=> 'b\\x00a'")

    @pytest.mark.parametrize("layout", ["text", "jsonl", "csv"])
    def test_sizes_can_stand_for_values(self, table: Path, layout: str) -> None:
        done = run("dump", table, "--values", "size", "--prefix", "quote", "--format", layout)
        last = done.lines[-1]
        assert last.endswith({"text": "=> 6 bytes", "jsonl": '"value":6}', "csv": ",6"}[layout])


class TestChoosing:
    TABLE = db("goleveldb-closed") / "000003.ldb"

    def found(self, *arguments: str) -> list[str]:
        done = run("dump", self.TABLE, "--format", "jsonl", *arguments)
        assert done.code == FINE
        return [json.loads(line)["key"] for line in done.lines[1:]]

    def test_from_is_within_and_to_is_not(self) -> None:
        assert self.found("--from", "key00000010", "--to", "key00000013") == [
            "key00000010",
            "key00000011",
            "key00000012",
        ]

    def test_prefix_and_from_come_together(self) -> None:
        assert self.found("--prefix", "key0000003", "--from", "key00000038") == [
            "key00000038",
            "key00000039",
        ]

    def test_nothing_is_between_the_end_and_the_start(self) -> None:
        assert self.found("--from", "l") == []
        assert self.found("--to", "a") == []

    def test_a_key_in_another_form_is_refused(self) -> None:
        done = run("dump", self.TABLE, "--keys", "hex", "--from", "key")
        assert done.code == USAGE
        assert "--from is no key as --keys hex writes it" in done.error

    def test_a_manifest_has_no_entries_to_choose_from(self) -> None:
        done = run("dump", db("goleveldb-closed") / "MANIFEST-000000", "--prefix", "k")
        assert done.code == USAGE
        assert "avccfs history" in done.error

    def test_edits_are_those_of_manifests(self) -> None:
        done = run("dump", self.TABLE, "--at-edit", "1")
        assert done.code == USAGE
        assert "is no manifest" in done.error


class TestFiles:
    def test_several_are_dumped_one_after_the_other(self) -> None:
        paths = sorted(db("goleveldb-closed").glob("*.ldb"))
        done = run("dump", *paths, "--format", "jsonl")
        objects = [json.loads(line) for line in done.lines]
        assert {each["file"] for each in objects} == {str(path) for path in paths}
        assert len([each for each in objects if each["type"] == "file"]) == len(paths)

    def test_one_that_is_missing_does_not_hide_the_others(self, tmp_path: Path) -> None:
        done = run("dump", tmp_path / "none.ldb", db("goleveldb-closed") / "000003.ldb")
        assert done.code == FAILED
        assert "No such file" in done.error
        assert "key00000000" in done.text

    def test_the_content_tells_what_an_unknown_name_does_not(self, tmp_path: Path) -> None:
        source = db("leveldb-killed")
        for name, kind in (
            ("000005.ldb", "table"),
            ("000008.log", "journal"),
            ("MANIFEST-000002", "manifest"),
        ):
            copy = tmp_path / "some file"
            shutil.copy(source / name, copy)
            assert f"some file: {kind}, " in run("dump", copy).lines[0]

    def test_the_type_can_be_forced(self, tmp_path: Path) -> None:
        copy = tmp_path / "000009.log"
        shutil.copy(db("goleveldb-closed") / "000003.ldb", copy)
        assert run("dump", copy).code == DAMAGE
        assert run("dump", copy, "--type", "table").code == FINE

    def test_the_dialect_can_be_forced(self) -> None:
        table = db("goleveldb-closed") / "000003.ldb"
        done = run("dump", table, "--dialect", "avccdb", "--format", "jsonl")
        assert json.loads(done.lines[0])["dialect"] == "avccdb"
        faults_or_entries = {json.loads(line)["type"] for line in done.lines[1:]}
        assert faults_or_entries <= {"entry", "fault"}

    def test_what_is_nothing_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("hello\n")
        done = run("dump", path)
        assert done.code == USAGE
        assert "--type manifest, journal or table" in done.error
        path.write_text("")
        assert "is empty" in run("dump", path).error

    @pytest.mark.parametrize(
        ("name", "code"), [("000001.log", FINE), ("000001.ldb", DAMAGE), ("MANIFEST-000001", FINE)]
    )
    def test_an_empty_file_is_no_riddle_if_it_has_a_name(
        self, tmp_path: Path, name: str, code: int
    ) -> None:
        (tmp_path / name).write_bytes(b"")
        for layout in ("text", "jsonl", "csv"):
            assert run("dump", tmp_path / name, "--format", layout).code == code

    def test_links_are_followed(self, tmp_path: Path) -> None:
        link = tmp_path / "link.ldb"
        link.symlink_to(db("goleveldb-closed") / "000003.ldb")
        assert run("dump", link).code == FINE

    def test_a_directory_needs_live(self) -> None:
        done = run("dump", db("goleveldb-closed"))
        assert done.code == USAGE
        assert "--live --engine goleveldb" in done.error

    def test_csv_does_not_mix_columns(self) -> None:
        source = db("goleveldb-closed")
        done = run("dump", "--format", "csv", source / "000003.ldb", source / "MANIFEST-000000")
        assert done.code == USAGE
        assert "other columns" in done.error

    def test_a_database_in_use_can_be_dumped(self, tmp_path: Path) -> None:
        with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as database:
            database.put(b"key", b"value")
            (path,) = (tmp_path / "db").glob("*.log")
            assert "  put 'key' 'value'" in run("dump", path).lines
            database.put(b"key", b"next")


class TestFaults:
    @pytest.mark.parametrize("layout", ["text", "jsonl", "csv"])
    def test_all_that_is_sound_is_there_and_the_exit_code_tells(self, layout: str) -> None:
        done = run("dump", db("flipped-table-block") / "000005.ldb", "--format", layout)
        assert done.code == DAMAGE
        assert done.text.count("key000001") == 31
        assert "bad checksum" in (done.error if layout == "csv" else done.text)
        assert "000005.ldb" in done.error
        assert "offset 0" in done.error

    def test_each_fault_is_told_in_csv_and_only_a_sum_elsewhere(self, tmp_path: Path) -> None:
        layout = Layout()
        handles = [layout.add(pairs(start, start + 10)) for start in range(0, 50, 10)]
        content = bytearray(layout.finish())
        for handle in handles[1:4]:
            content[handle.offset] ^= 1
        path = tmp_path / "000005.ldb"
        path.write_bytes(content)
        assert run("dump", path, "--format", "csv").error.count("\n") == 3
        assert "3 faults, the first" in run("dump", path).error

    def test_ambiguous_batches_show_their_readings(self, tmp_path: Path) -> None:
        path = tmp_path / "000001.log"
        record = (9).to_bytes(8, "little") + (1).to_bytes(4, "little") + b"\x00\x02\x01x"
        path.write_bytes(journal.frame(record, 0))
        done = run("dump", path, "--dialect", "avccdb")
        assert done.code == DAMAGE
        assert done.lines[1:7] == [
            "--- offset 0; sequence 9",
            "  reading 1 of 2:",
            "    del '\\x01x' v0",
            "  reading 2 of 2:",
            "    del 'x' v2",
            "--- offset 0; fault; batch, 23 bytes: ambiguous: expected one way to read the entries "
            "from here on at byte 12 of the record, found 2",
        ]


class TestLive:
    def digest(self, fixture: str, engine: str) -> tuple[int, str]:
        arguments = ["--live", "--engine", engine, "--format", "jsonl", "--keys", "hex"]
        done = run("dump", db(fixture), *arguments)
        assert done.code == FINE
        lines = [json.loads(line) for line in done.lines[1:]]
        digest = hashlib.sha256()
        for line in lines:
            digest.update(f"{line['key']} {line['value']}\n".encode())
        return len(lines), digest.hexdigest()

    @pytest.mark.parametrize("engine", ["leveldb", "goleveldb"])
    @pytest.mark.parametrize("fixture", ["leveldb-killed", "goleveldb-killed-at-fsync-5"])
    def test_it_is_the_key_space_of_the_engine(self, fixture: str, engine: str) -> None:
        expected = expectations(fixture)[f"{engine}.open"]
        assert self.digest(fixture, engine) == (
            expected["keys"],
            expected["sha256_of_hexkey_space_hexvalue_lines"],
        )

    def test_bounds_hold_here_too(self) -> None:
        arguments = ["--live", "--engine", "goleveldb", "--prefix", "key0000001"]
        done = run("dump", db("goleveldb-closed"), *arguments, "--format", "csv")
        assert len(done.lines) == 11
        assert done.lines[1].split(",")[2] == '"key00000010"'

    def test_an_engine_that_refuses_is_told(self) -> None:
        done = run("dump", db("missing-table"), "--live", "--engine", "leveldb")
        assert done.code == FAILED
        assert "LevelDB would not open it" in done.error
        assert done.text == ""

    def test_reading_that_stops_is_damage(self) -> None:
        done = run("dump", db("flipped-table-block"), "--live", "--engine", "goleveldb")
        assert done.code == DAMAGE
        assert "as goleveldb would" in done.error

    def test_keys_of_another_dialect_are_told(self) -> None:
        done = run("dump", db("avccdb-compacted"), "--live", "--engine", "goleveldb")
        assert "reads these keys wrongly" in done.error

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--live"],
            ["--engine", "leveldb"],
            ["--live", "--engine", "leveldb", "--type", "table"],
            ["--live", "--engine", "leveldb", "--at-edit", "1"],
        ],
    )
    def test_what_makes_no_sense_is_refused(self, arguments: list[str]) -> None:
        assert run("dump", db("goleveldb-closed"), *arguments).code == USAGE

    def test_a_file_is_no_directory(self) -> None:
        path = db("goleveldb-closed") / "000003.ldb"
        assert run("dump", path, "--live", "--engine", "leveldb").code == USAGE


class TestStreams:
    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        layout = Layout()
        for start in range(0, 40_000, 50):
            layout.add(pairs(start, start + 50))
        path = tmp_path / "000005.ldb"
        path.write_bytes(layout.finish())
        return path

    def test_memory_stays_the_same_however_large_the_table_is(
        self, large: Path, tmp_path: Path
    ) -> None:
        small = tmp_path / "000003.ldb"
        layout = Layout()
        for start in range(0, 4000, 50):
            layout.add(pairs(start, start + 50))
        small.write_bytes(layout.finish())

        def peak(path: Path) -> int:
            tracemalloc.start()
            try:
                # Kept in memory, the output would be all there is to measure.
                with (
                    open(os.devnull, "w") as out,
                    contextlib.redirect_stdout(out),
                    pytest.raises(SystemExit),
                ):
                    main(["dump", str(path), "--format", "jsonl"])
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(small)
        assert peak(large) < peak(small) + 300_000

    def test_head_ends_it_quietly(self, large: Path) -> None:
        with subprocess.Popen(
            [*AVCCFS, "dump", str(large)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith(b"# ")
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == FINE

    def test_a_full_disk_is_an_error(self, large: Path) -> None:
        if not os.path.exists("/dev/full"):
            pytest.skip("there is no /dev/full")
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*AVCCFS, "dump", str(large)], stdout=full, stderr=subprocess.PIPE, check=False
            )
        assert done.returncode == FAILED
        assert done.stderr == b"avccfs: standard output: No space left on device\n"


def test_nothing_heavy_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from avccfs.cli.main import main\n"
        "try:\n"
        f"    main(['dump', {str(db('goleveldb-closed') / '000003.ldb')!r}])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print([name for name in ('pyfuse3', 'trio', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\n[]\n")


def test_batches_of_many_entries_keep_their_order(tmp_path: Path) -> None:
    changes = [batch.Change(b"k%03d" % number, b"") for number in range(300)]
    path = tmp_path / "000001.log"
    path.write_bytes(journal.frame(batch.encode(1, changes), 0))
    lines = [json.loads(line) for line in run("dump", path, "--format", "jsonl").lines]
    assert [line["sequence"] for line in lines[2:]] == list(range(1, 301))
