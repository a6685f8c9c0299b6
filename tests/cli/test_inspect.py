from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import plyvel
import pytest

from avccfs.cli.main import DAMAGE, FINE, USAGE
from tests.cli.running import assert_golden, db, run
from tests.session.dump import expectations, fixtures, parse

GOLDEN = [
    "goleveldb-killed-at-fsync-5",
    "leveldb-killed",
    "avccdb-tables-and-journal",
    "avccdb-compacted",
    "missing-table",
    "current-missing",
    "current-dangling-with-bak",
    "pending-current-torn",
    "torn-manifest-tail",
    "flipped-journal-byte",
    "truncated-table-footer",
    "goleveldb-old-sst-names",
]


def inspected(path: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run("inspect", path, "--format", "json").text)
    return answer


@pytest.mark.parametrize("fixture", GOLDEN)
def test_it_looks_like_this(fixture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(db(fixture))
    assert_golden(f"inspect-{fixture}.txt", run("inspect", "."))


def test_json_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(db("missing-table"))
    assert_golden("inspect.json", run("inspect", ".", "--format", "json"))


@pytest.mark.parametrize("fixture", fixtures())
def test_the_engine_and_the_live_manifest_are_right(fixture: str) -> None:
    answer = inspected(db(fixture))
    expected = expectations(fixture)
    written_by = "avccdb" if fixture.startswith("avccdb") else "goleveldb"
    if fixture.startswith("leveldb"):
        written_by = "leveldb"
    assert answer["engine"] == written_by
    assert (answer["dialect"] == "avccdb") == (written_by == "avccdb")
    # Without a live manifest goleveldb's answer is an error.
    live = expected["get_meta"].get("meta")
    assert (answer["manifest"] or "") == (live or "")


@pytest.mark.parametrize("fixture", fixtures())
def test_the_levels_are_those_of_leveldbutil(fixture: str) -> None:
    answer = inspected(db(fixture))
    dumped = expectations(fixture).get("leveldbutil_manifest_dump", {}).get(answer["manifest"])
    if dumped is None or any(line.startswith("corruption") for line in dumped):
        return
    summed = parse(dumped)
    by_level: dict[int, int] = {}
    for level, _ in summed.tables:
        by_level[level] = by_level.get(level, 0) + 1
    assert {each["level"]: each["tables"] for each in answer["levels"]} == by_level
    assert answer["next_file_number"] == summed.number("NextFile")
    assert answer["sequence"] == summed.number("LastSeq")
    assert answer["journal_number"] == summed.number("LogNumber")


@pytest.mark.parametrize("fixture", fixtures())
def test_journals_are_counted_as_goleveldb_counts_them(fixture: str) -> None:
    counted = {each["file"]: each["batches"] for each in inspected(db(fixture))["journals"]}
    for name, expected in (expectations(fixture).get("journals") or {}).items():
        assert counted[name] == expected["records"]


class TestProblems:
    def problems(self, path: Path) -> str:
        return "\n".join(f"{each['file']}: {each['what']}" for each in inspected(path)["problems"])

    def test_a_sound_database_has_none(self) -> None:
        done = run("inspect", db("goleveldb-closed"))
        assert done.code == FINE
        assert "Nothing is wrong at a glance." in done.lines

    @pytest.mark.parametrize(
        ("fixture", "said", "code"),
        [
            ("missing-table", "000005.ldb: it is missing", DAMAGE),
            ("current-missing", "there is no live manifest", DAMAGE),
            ("current-empty", "CURRENT is corrupted", DAMAGE),
            ("current-dangling-with-bak", "which does not exist", DAMAGE),
            ("goleveldb-killed-at-fsync-5", "a switch of CURRENT was interrupted", FINE),
            ("goleveldb-killed-at-fsync-5", "LevelDB goes by CURRENT", FINE),
            ("leveldb-killed", "", FINE),
            ("avccdb-versioned-journal", "its own replay misreads", FINE),
            ("flipped-manifest-byte", "MANIFEST-000000: chunk at offset", DAMAGE),
            ("flipped-journal-byte", "000008.log: chunk at offset", DAMAGE),
            ("truncated-table-footer", "expected 1861 bytes, as the manifest says", DAMAGE),
        ],
    )
    def test_what_is_wrong_is_said(self, fixture: str, said: str, code: int) -> None:
        assert said in self.problems(db(fixture))
        assert run("inspect", db(fixture)).code == code

    def test_every_problem_comes_with_advice(self) -> None:
        for fixture in fixtures():
            answer = inspected(db(fixture))
            assert all(problem["advice"] for problem in answer["problems"])
            assert answer["next"]

    def test_batches_that_goleveldb_would_skip_are_told(self) -> None:
        assert "goleveldb and avccDB skip them" in self.problems(db("leveldb-killed"))

    def test_a_manifest_that_lacks_something_is_told(self, tmp_path: Path) -> None:
        shutil.copytree(db("goleveldb-closed"), tmp_path / "db")
        (tmp_path / "db" / "MANIFEST-000000").write_bytes(b"")
        said = self.problems(tmp_path / "db")
        assert said.count("expected a record with the") == 4

    def test_names_and_keys_cannot_attack_the_terminal(self, tmp_path: Path) -> None:
        with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as database:
            database.put(b"\x1b[31m", b"")
            database.compact_range()
        (tmp_path / "db" / "\x1b]0;owned\x07").write_bytes(b"")
        for layout in ("text", "json"):
            done = run("inspect", tmp_path / "db", "--format", layout)
            assert all(line.isprintable() for line in done.lines)
            assert "x1b]0;owned" in done.text


class TestFiles:
    def test_each_file_has_its_use(self) -> None:
        answer = inspected(db("torn-manifest-tail"))
        assert {each["file"]: each["use"] for each in answer["others"]} == {"000007.ldb": "orphan"}
        assert {each["file"]: each["use"] for each in answer["journals"]} == {
            "000006.log": "replayed",
            "000008.log": "replayed",
        }

    def test_foreign_and_temp_files_are_named(self, tmp_path: Path) -> None:
        shutil.copytree(db("goleveldb-closed"), tmp_path / "db")
        (tmp_path / "db" / "5.ldb").write_bytes(b"")
        (tmp_path / "db" / "000099.tmp").write_bytes(b"")
        (tmp_path / "db" / "lost").mkdir()
        uses = {each["file"]: each["use"] for each in inspected(tmp_path / "db")["others"]}
        assert uses == {"5.ldb": "foreign", "000099.tmp": "temp", "lost": "foreign"}

    def test_an_empty_directory_is_no_database(self, tmp_path: Path) -> None:
        answer = inspected(tmp_path)
        assert answer["engine"] is None
        assert answer["manifest"] is None
        assert answer["problems"] == []

    def test_a_place_that_is_no_directory_is_refused(self, tmp_path: Path) -> None:
        assert run("inspect", tmp_path / "none").code == USAGE

    def test_nothing_is_changed(self, tmp_path: Path) -> None:
        shutil.copytree(db("goleveldb-killed-at-fsync-5"), tmp_path / "db")
        before = {path.name: path.read_bytes() for path in (tmp_path / "db").iterdir()}
        run("inspect", tmp_path / "db")
        assert before == {path.name: path.read_bytes() for path in (tmp_path / "db").iterdir()}


class TestInUse:
    def test_who_uses_it_is_told(self, tmp_path: Path) -> None:
        holder = (
            "import plyvel, sys\n"
            f"database = plyvel.DB({str(tmp_path / 'db')!r}, create_if_missing=True)\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            done = run("inspect", tmp_path / "db")
            assert done.code == FINE
            assert f"(pid {process.pid})" in done.text
            users = inspected(tmp_path / "db")["in_use_by"]
            assert [user["pid"] for user in users] == [process.pid]
        assert inspected(tmp_path / "db")["in_use_by"] == []


def on_a_terminal(*arguments: str) -> str:
    """What the command writes when standard output is a terminal."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-P", "-m", "avccfs", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(command, stdout=follower, env=environment) as process:
        os.close(follower)
        out = bytearray()
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:
                break
            if not piece:
                break
            out += piece
        process.wait()
    os.close(leader)
    return out.decode()


def test_a_terminal_gets_tables() -> None:
    shown = on_a_terminal("inspect", str(db("goleveldb-closed")))
    assert "\x1b[1m" in shown
    assert "─" in shown
    assert "'key00000000' .. 'key00000203'" in shown


def test_a_terminal_gets_no_raw_bytes() -> None:
    shown = on_a_terminal("dump", str(db("goleveldb-closed") / "000003.ldb"), "--keys", "raw")
    assert "key00000000" not in shown


def test_nothing_heavy_is_loaded_for_a_pipe() -> None:
    program = (
        "import sys\n"
        "from avccfs.cli.main import main\n"
        "try:\n"
        f"    main(['inspect', {str(db('goleveldb-closed'))!r}])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print([name for name in ('pyfuse3', 'trio', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\n[]\n")
