"""`avccfs fault`, and the fault options of `avccfs mount`: what they say, and what they refuse."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from avccfs.cli.main import FAILED, FINE, USAGE
from avccfs.vfs.fault import KIND_WORDS, OP_WORDS
from tests.cli.running import run
from tests.cli.test_mount import as_user, only_root, reachable, wait_until_gone
from tests.faulty import Caller, rules, stats, wait_held_up
from tests.mounting import AVCCFS, avccfs, mounted, pid_of

__all__ = ["reachable"]

pytestmark = pytest.mark.mounted


@pytest.fixture
def db(tmp_path: Path) -> Path:
    folder = tmp_path / "db"
    folder.mkdir()
    return folder


def test_rules_are_added_listed_and_taken_away(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--fault", "none"):
        empty = run("fault", mnt, "list")
        assert (empty.code, empty.text) == (FINE, "")
        assert "nothing goes wrong here" in empty.error
        added = run("fault", mnt, "add", "sync  journal|'*.tmp' #3 : EIO", "write: delay 0.5ms")
        assert (added.code, added.error) == (FINE, "")
        assert added.lines == ["rule 1: sync journal|*.tmp #3: EIO", "rule 2: write: delay 0.5ms"]
        (mnt / "some").write_bytes(b"bytes")
        listed = run("fault", mnt, "list").lines
        assert [line.partition("    # ")[0] for line in listed] == [
            "sync journal|*.tmp #3: EIO",
            "write: delay 0.5ms",
        ]
        assert "rule 2: " in listed[1]
        assert "1 of 1 calls" in listed[1]
        first, second = json.loads(run("fault", mnt, "list", "--format", "json").text)
        assert (first["id"], first["text"]) == (1, "sync journal|*.tmp #3: EIO")
        assert (first["matched"], first["fired"], first["stalled"], first["done"]) == (
            0,
            0,
            0,
            False,
        )
        assert (second["matched"], second["fired"]) == (1, 1)
        assert run("fault", mnt, "remove", "1").text == "rule 1 disarmed\n"
        assert [rule["id"] for rule in rules(mnt)] == [2]
        assert run("fault", mnt, "clear").code == FINE
        assert rules(mnt) == []


def test_one_bad_rule_keeps_all_of_them_out_and_is_pointed_at(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--fault", "none"):
        refused = run("fault", mnt, "add", "sync: EIO", "wriet journal: EIO")
        assert refused.code == USAGE
        assert "no fault rule: at column 1 expected an operation" in refused.error
        assert "did you mean write?" in refused.error
        assert "\n    wriet journal: EIO\n    ^\n" in refused.error
        assert rules(mnt) == []


def test_what_cannot_be_done_is_wrong_usage(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--fault", "sync: EIO"):
        for words, told in (
            ("remove 3", "there is no rule 3; there are: 1"),
            ("release 3", "there is no rule 3; there are: 1"),
            ("release 1", "rule 1 (sync: EIO) holds nobody up"),
            ("remove", "Missing argument"),
            ("remove 0", "0 is not in the range"),
            ("add", "Missing argument"),
            ("break", "No such command 'break'"),
        ):
            refused = run("fault", mnt, *words.split())
            assert refused.code == USAGE
            assert told in refused.error
        assert [rule["id"] for rule in rules(mnt)] == [1]


def test_release_lets_go_and_says_whom(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--fault", "sync journal: stall"):

        def sync(name: str) -> None:
            with (mnt / name).open("wb") as file:
                os.fsync(file.fileno())

        caller = Caller(lambda: sync("000003.log"))
        wait_held_up(mnt, 1)
        assert ", 1 stalled now" in run("fault", mnt, "list").text
        assert json.loads(run("fault", mnt, "list", "--format", "json").text)[0]["stalled"] == 1
        assert run("fault", mnt, "release", "1").text == "calls let go: 1\n"
        assert caller.result() == "ok"
        assert run("fault", mnt, "release").text == "calls let go: 0\n"


def test_stats_of_command_and_file_are_the_same(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--fault", "none"):
        (mnt / "some").write_bytes(b"bytes")
        told = json.loads(run("fault", mnt, "stats").text)
        assert told["operations"]["write"]["foreign"]["bytes"] == 5
        assert set(told) == {"since", "operations", "faults", "rules"} == set(stats(mnt))
        assert told["operations"]["write"] == stats(mnt)["operations"]["write"]


def test_mount_that_is_not_exact_warns_of_it(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, provoked="Input/output error"):
        added = run("fault", mnt, "add", "sync journal: EIO")
        assert added.code == FINE
        assert "this mount was made without --fault" in added.error
        assert "Mount with --fault none" in added.error
        with (mnt / "000003.log").open("wb") as file, pytest.raises(OSError, match="Input/output"):
            os.fsync(file.fileno())
        cleared = run("fault", mnt, "clear")
        assert (cleared.code, cleared.error) == (FINE, "")
    exact = mnt.with_name("exact")
    with mounted(db, exact, "--fault", "none"):
        assert run("fault", exact, "add", "sync journal: EIO").error == ""


def test_places_without_a_mount_are_wrong_usage(mnt: Path, tmp_path: Path) -> None:
    refused = run("fault", mnt, "list")
    assert refused.code == USAGE
    assert (
        f"nothing is mounted at {mnt}. Mount it first: avccfs mount SOURCE {mnt}" in refused.error
    )
    assert "is not an avccfs mount but proc" in run("fault", "/proc", "list").error
    assert run("fault", tmp_path / "no such place", "clear").code == USAGE


def test_dead_mount_cannot_be_asked(db: Path, mnt: Path) -> None:
    avccfs("mount", "--fault", "none", db, mnt)
    pid = pid_of(mnt)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    refused = run("fault", mnt, "list")
    assert refused.code == FAILED
    assert f"avccfs umount {mnt}" in refused.error
    avccfs("umount", mnt)


@only_root
def test_only_root_and_who_mounted_it_may_ask(reachable: Path) -> None:
    db, mnt = reachable / "db", reachable / "mnt"
    with mounted(db, mnt, "--fault", "sync: EIO"):
        for words in (("list",), ("add", "write: EIO"), ("clear",), ("stats",)):
            refused = as_user(65534, *AVCCFS, "fault", mnt, *words)
            assert refused.returncode == FAILED
            assert "only the user who mounted it, and root, may ask this" in refused.stderr
            assert refused.stdout == ""
        assert [rule["text"] for rule in rules(mnt)] == ["sync: EIO"]


def test_help_has_the_whole_language() -> None:
    told = run("fault", "x", "--help").text
    for word in (*OP_WORDS, *KIND_WORDS, "torn", "corrupt", "drop", "stall", "delay", "short"):
        assert word in told
    for word in ("every", "after", "times", "seed", "#N"):
        assert word in told


# At mount time


def test_rules_of_lines_and_of_a_file_are_all_there(db: Path, mnt: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'seed = 7\n[[fault]]\nop = ["sync", "write"]\non = "journal"\nprobability = 0.5\nwhat = "EIO"\n'
        '[[fault]]\nrule = "open table #3: ENOENT"\n'
    )
    with mounted(db, mnt, "--faults", os.fspath(plan), "--fault", "none", "--fault", "read: stall"):
        assert [rule["text"] for rule in rules(mnt)] == [
            "write|sync journal 50% seed=7: EIO",
            "open table #3: ENOENT",
            "read: stall",
        ]


def test_bad_plans_are_refused_before_anything_is_mounted(
    db: Path, mnt: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[[fault]]\nop = "sync"\nwaht = "EIO"\n')
    refused = avccfs("mount", "--faults", plan, db, mnt, check=False)
    assert refused.returncode == USAGE
    assert f"{plan}: fault 1: waht: no such key here" in refused.stderr
    missing = avccfs("mount", "--faults", tmp_path / "none", db, mnt, check=False)
    assert missing.returncode == USAGE
    assert "cannot be read" in missing.stderr
    line = avccfs("mount", "--fault", "sync: EWHAT", db, mnt, check=False)
    assert line.returncode == USAGE
    assert "no fault rule: at column 7" in line.stderr
    assert not mnt.is_mount()
    assert list(db.iterdir()) == []
