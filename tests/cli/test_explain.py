"""`avccfs explain`: the verdict first, every reason, JSON for programs, and exit codes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avccfs.session.engines import Engine
from tests.engines import LEVELDB
from tests.workload import Fill

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DAMAGE, USAGE = 1, 2

Result = subprocess.CompletedProcess[str]


def explain(*arguments: str | Path) -> Result:
    return subprocess.run(
        [sys.executable, "-m", "avccfs", "explain", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def db(fixture: str) -> Path:
    return FIXTURES / fixture / "db"


def objects(result: Result) -> dict[str, dict[str, Any]]:
    listed = [json.loads(line) for line in result.stdout.splitlines()]
    return {one["engine"]: one for one in listed}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A place for a database of the test's own."""
    return tmp_path / "db"


def test_sound_database_is_fine_for_all_engines_that_speak_its_dialect() -> None:
    result = explain(db("goleveldb-closed"))
    assert result.returncode == 0, result.stdout
    assert result.stderr == ""
    first = result.stdout.splitlines()[:3]
    assert first[0] == "LevelDB    opens; 337 keys; nothing lost for good"
    assert first[1] == "goleveldb  opens; 337 keys; nothing lost for good"
    assert first[2].startswith("avccDB     (not its dialect) opens")


def test_engine_that_was_asked_for_counts_even_if_it_is_foreign() -> None:
    assert explain(db("goleveldb-closed"), "--engine", "avccdb").returncode == DAMAGE


def test_loss_is_told_first_and_every_dropped_batch_is_named() -> None:
    result = explain(db("leveldb-killed"), "--engine", "goleveldb")
    assert result.returncode == DAMAGE
    lines = result.stdout.splitlines()
    assert lines[0] == f"goleveldb, open {db('leveldb-killed')}"
    assert "1815 keys; 75 KEYS LOST FOR GOOD, of which 48 show an older value" in lines[1]
    dropped = re.findall(
        r"^      offset (\d+): DROPPED: 1 entry, sequence (\d+): leveldb: batch corrupted: "
        r"invalid sequence number$",
        result.stdout,
        re.MULTILINE,
    )
    assert len(dropped) == 95
    assert dropped[0] == ("0", "2692")
    kept = re.search(r"offset (\d+) to 28121: (\d+) batches kept", result.stdout)
    assert kept is not None
    assert int(kept[2]) == 486 - 95
    assert "deleted: 000008.log, MANIFEST-000002" in result.stdout


def test_same_journal_is_fine_for_leveldb() -> None:
    result = explain(db("leveldb-killed"), "--engine", "leveldb")
    assert result.returncode == 0
    assert "opens; 1840 keys; nothing lost for good" in result.stdout
    assert "offset 0 to 28121: 486 batches kept, 486 entries, sequence 2692 to 3177" in (
        result.stdout
    )


def test_refusal_names_the_error_and_what_to_do() -> None:
    result = explain(db("current-missing"))
    assert result.returncode == DAMAGE
    assert "REFUSES: database entry point either missing or corrupted" in result.stdout
    assert "does not exist (create_if_missing is false)" in result.stdout
    assert "No application may open it with create_if_missing" in result.stdout


def test_refusal_that_changes_the_directory_is_told() -> None:
    result = explain(db("missing-table"), "--engine", "goleveldb")
    assert "REFUSES: file missing" in result.stdout
    assert "THE DIRECTORY IS CHANGED all the same" in result.stdout


def test_a_normal_close_of_avccdb_is_a_total_loss() -> None:
    result = explain(db("avccdb-versioned-journal"), "--engine", "avccdb")
    assert result.returncode == DAMAGE
    assert "33 KEYS LOST FOR GOOD" in result.stdout
    assert "never reads the version of an entry in a journal" in result.stdout


def test_damage_counts_even_if_nothing_readable_is_lost() -> None:
    result = explain(db("torn-journal-tail"), "--engine", "goleveldb")
    assert result.returncode == DAMAGE
    assert "nothing lost for good" in result.stdout
    assert "torn chunk" in result.stdout


def test_rebuild_is_explained_instead() -> None:
    result = explain(db("flipped-manifest-byte"), "--rebuild", "--engine", "goleveldb")
    assert result.returncode == 0
    assert "rebuilds; 337 keys; nothing lost for good" in result.stdout
    assert "000005.ldb: kept, 68 entries: goes to level 0" in result.stdout


def test_rebuild_of_leveldb_is_a_usage_error() -> None:
    result = explain(db("goleveldb-closed"), "--rebuild", "--engine", "leveldb")
    assert result.returncode == USAGE
    assert "ask for goleveldb or avccdb" in result.stderr
    both = explain(db("goleveldb-closed"), "--rebuild", "--format", "json")
    assert list(objects(both)) == ["goleveldb", "avccdb"]


@pytest.mark.parametrize(
    "arguments", [["/nowhere/at/all"], [str(FIXTURES / "README.md")], ["--engine", "rocksdb", "."]]
)
def test_wrong_calls_are_usage_errors(arguments: list[str]) -> None:
    assert explain(*arguments).returncode == USAGE


@pytest.mark.parametrize(
    "fixture",
    [
        "goleveldb-closed",
        "current-empty",
        "missing-table",
        "flipped-table-block",
        "leveldb-killed",
        "avccdb-tables-and-journal",
        "torn-manifest-tail",
    ],
)
def test_json_has_the_same_keys_whatever_is_found(fixture: str) -> None:
    sound = objects(explain(db("goleveldb-closed"), "--format", "json"))
    found = objects(explain(db(fixture), "--format", "json"))
    assert list(found) == [engine.value for engine in Engine]
    for engine, one in found.items():
        assert list(one) == list(sound[engine])
        assert {"meta", "opens", "error", "keys", "sha256", "lost_for_good"} <= set(one)
        assert {"journals", "deleted_files"} <= set(one)
        assert one["opens"] == (one["error"] is None)
        assert (one["keys"] is None) == (one["sha256"] is None)


def test_json_tells_what_the_text_tells() -> None:
    result = explain(db("leveldb-killed"), "--format", "json", "--engine", "goleveldb")
    assert result.returncode == DAMAGE
    one = objects(result)["goleveldb"]
    expected = json.loads((FIXTURES / "leveldb-killed" / "expect.json").read_text())
    answer = expected["goleveldb.open"]
    assert one["keys"] == answer["keys"]
    assert one["sha256"] == answer["sha256_of_hexkey_space_hexvalue_lines"]
    assert one["lost_for_good"] == 75
    assert one["deleted_files"] == ["000008.log", "MANIFEST-000002"]
    (journal,) = one["journals"]
    assert (journal["file"], journal["replayed"]) == ("000008.log", True)
    assert (journal["kept"], journal["dropped"]) == (391, 95)
    assert len(journal["steps"]) == 96
    assert [file["name"] for file in one["meta"] if file["wins"]] == ["CURRENT"]
    records = one["manifest"]["records"]
    assert {record["fate"] for record in records} == {"kept"}


def test_what_damaged_files_hold_never_reaches_the_terminal(copied: Path) -> None:
    shutil.copytree(db("goleveldb-closed"), copied)
    (copied / "CURRENT").write_bytes(b"MANI\x1b]0;owned\x07\xff\n")
    for form in ("text", "json"):
        result = explain(copied, "--engine", "leveldb", "--format", form)
        assert result.returncode == DAMAGE
        assert "\x1b" not in result.stdout
        assert "owned" in result.stdout


def test_a_directory_in_use_can_be_looked_at(copied: Path) -> None:
    copied.mkdir()
    LEVELDB.fill(copied, Fill(50))
    with LEVELDB.hold(copied) as held:
        before = {path.name: path.read_bytes() for path in copied.iterdir()}
        result = explain(copied, "--engine", "leveldb")
        assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
        held.release()
    assert result.returncode == 0
    assert "opens; 50 keys" in result.stdout


def test_nothing_is_imported_for_help_that_only_the_work_needs() -> None:
    code = (
        "import sys; from avccfs.cli import explain; "
        "print(sorted(m for m in sys.modules if m.startswith(('avccfs.session', 'cramjam'))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
