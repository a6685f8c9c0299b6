from __future__ import annotations

import json
import shutil
from pathlib import Path

import plyvel
import pytest

from avccfs.cli.main import DAMAGE, FINE, USAGE
from tests.cli.running import assert_golden, db, run

GOLDEN = {
    "history-two-engines.txt": ("goleveldb-killed-at-fsync-5", "key00000204"),
    "history-versions.txt": ("avccdb-tables-and-journal", "key00000032"),
    "history-journal-of-avccdb.txt": ("avccdb-versioned-journal", "key00000000"),
    "history-not-open.txt": ("current-missing", "key00000070"),
    "history-damage.txt": ("flipped-table-block", "key00000070"),
    "history-nowhere.txt": ("goleveldb-closed", "no such key"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_it_looks_like_this(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture, key = GOLDEN[name]
    monkeypatch.chdir(db(fixture))
    assert_golden(name, run("history", ".", key))


def test_json_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(db("goleveldb-killed-at-fsync-5"))
    assert_golden("history.json", run("history", ".", "key00000204", "--format", "json"))


def test_the_exit_code_tells_of_damage() -> None:
    assert run("history", db("flipped-table-block"), "key00000070").code == DAMAGE
    assert run("history", db("goleveldb-closed"), "key00000070").code == FINE


@pytest.mark.parametrize(
    ("form", "key"), [("hex", "61ff00"), ("escape", r"a\xff\x00"), ("utf8", r"a\xff\0")]
)
def test_the_key_may_be_written_in_each_form(tmp_path: Path, form: str, key: str) -> None:
    with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as database:
        database.put(b"a\xff\0", b"\x1b[31mred")
    done = run("history", tmp_path / "db", key, "--keys", form)
    assert done.code == FINE
    assert " is in 1 place " in done.lines[0]
    assert all(line.isprintable() for line in done.lines)


def test_a_key_in_another_form_is_refused() -> None:
    done = run("history", db("goleveldb-closed"), "key", "--keys", "hex")
    assert done.code == USAGE
    assert "KEY is no key as --keys hex writes it" in done.error


def test_json_refuses_raw() -> None:
    arguments = ["key", "--keys", "raw", "--format", "json"]
    assert run("history", db("goleveldb-closed"), *arguments).code == USAGE


def test_a_deletion_is_a_place_too(tmp_path: Path) -> None:
    with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as database:
        database.put(b"key", b"value")
        database.delete(b"key")
    done = run("history", tmp_path / "db", "key", "--format", "json")
    deletion, put = json.loads(done.text)["places"]
    assert (deletion["kind"], deletion["sequence"]) == ("delete", 2)
    assert (put["kind"], put["sequence"]) == ("put", 1)
    assert deletion["engines"]["leveldb"]["visible"]
    assert not put["engines"]["leveldb"]["visible"]


def test_a_table_under_its_old_name_is_searched() -> None:
    done = run("history", db("goleveldb-old-sst-names"), "key00000000", "--format", "json")
    (place,) = json.loads(done.text)["places"]
    assert place["file"].endswith(".sst")
    assert place["engines"]["goleveldb"] == {"role": "level", "level": 0, "visible": True}


def test_a_directory_that_is_no_database_holds_nothing(tmp_path: Path) -> None:
    done = run("history", tmp_path, "key")
    assert done.code == FINE
    assert "is in no place (0 files searched" in done.lines[0]


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    assert run("history", tmp_path / "none", "key").code == USAGE


def test_a_database_in_use_is_searched_and_not_changed(tmp_path: Path) -> None:
    with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as database:
        database.put(b"key", b"value")
        before = sorted(
            (path.name, path.stat().st_mtime_ns) for path in (tmp_path / "db").iterdir()
        )
        assert run("history", tmp_path / "db", "key").code == FINE
        after = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "db").iterdir())
        assert before == after
        database.put(b"key", b"next")


def test_a_name_that_looks_like_a_table_is_read_as_one(tmp_path: Path) -> None:
    shutil.copytree(db("goleveldb-closed"), tmp_path / "db")
    shutil.copy(tmp_path / "db" / "LOG", tmp_path / "db" / "000999.ldb")
    done = run("history", tmp_path / "db", "key00000000", "--format", "json")
    assert done.code == DAMAGE
    answer = json.loads(done.text)
    assert len(answer["places"]) == 1
    assert {fault["file"] for fault in answer["faults"]} == {"000999.ldb"}
