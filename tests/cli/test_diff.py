"""`avccfs diff`: the same of a mounted overlay and of one that lies in its directory."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from avccfs.cli.main import FAILED, FINE, LOCKED, USAGE
from avccfs.vfs.local import LocalDirectory
from tests.cli.running import run
from tests.engines import GOLEVELDB, LEVELDB, NEW
from tests.fs.waiting import wait_for
from tests.mounted.test_kill import is_dead
from tests.mounting import avccfs, mounted
from tests.overlays import REHEARSED, rehearse_on, unchanged
from tests.workload import Fill

pytestmark = pytest.mark.mounted


def overlay(upper: Path) -> tuple[str, str]:
    return "--overlay", os.fspath(upper)


def test_text_and_json_are_the_same_of_the_mount_and_of_the_directory(
    db: Path, mnt: Path, upper: Path
) -> None:
    with unchanged(db):
        with mounted(db, mnt, *overlay(upper)):
            rehearse_on(mnt)
            while_mounted = run("diff", mnt)
            json_while_mounted = run("diff", "--format", "json", mnt)
        with unchanged(upper):
            assert run("diff", upper) == while_mounted
            assert run("diff", "--format", "json", upper) == json_while_mounted
    assert (while_mounted.code, while_mounted.text, while_mounted.error) == (FINE, REHEARSED, "")


def test_json_says_all_that_the_text_says(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--overlay"):
        rehearse_on(mnt)
        done = run("diff", "--format", "json", mnt)
        (mnt / "sub/file").write_text("NEW\n")
        other = run("diff", "--format", "json", mnt)
    assert (done.code, done.error) == (FINE, "")
    told = json.loads(done.text)
    assert (told["source"], told["version"]) == (os.fspath(db), 1)
    changes = {each["path"]: each for each in told["changes"] if each["path"]}
    assert {path: each["what"] for path, each in changes.items()} == {
        "CURRENT": "changed",
        "CURRENT.10": "removed",
        "000012.log": "added",
        "000005.ldb": "attributes",
        "000007.ldb": "changed",
        "000103.ldb": "renamed",
        "LOG": "removed",
        "second name": "added",
        "sub": "added",
        "sub/file": "added",
        "sub/link": "added",
    }
    assert changes["CURRENT"]["pointer"] == {
        "before": "MANIFEST-000000",
        "after": "MANIFEST-000010",
    }
    assert changes["000007.ldb"]["bytes"]["ranges"] == [[100, 2]]
    assert changes["000103.ldb"]["old_path"] == "000003.ldb"
    assert changes["second name"]["link_of"] == "000009.ldb"
    assert changes["sub/link"]["after"]["target"] == "file"
    # The same names and sizes, other bytes: other changes.
    assert json.loads(other.text)["digest"] != told["digest"]


def test_overlay_on_which_nothing_was_done_has_no_changes(db: Path, mnt: Path, upper: Path) -> None:
    with mounted(db, mnt, *overlay(upper)):
        for path in sorted(mnt.iterdir()):
            path.read_bytes()
        assert run("diff", mnt).text == "no changes\n"
        # What is taken back was no change either.
        (mnt / "LOG").rename(mnt / "LOG.mine")
        (mnt / "LOG.mine").rename(mnt / "LOG")
        (mnt / "fresh").touch()
        (mnt / "fresh").unlink()
        assert run("diff", mnt).text == "no changes\n"
    assert run("diff", upper).text == "no changes\n"
    told = json.loads(run("diff", "--format", "json", upper).text)
    assert [each for each in told["changes"] if each["path"]] == []


def test_bytes_that_nobody_has_synced_are_told(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--overlay"), (mnt / "000006.log").open("r+b", buffering=0) as file:
        file.seek(50)
        file.write(b"unsynced")
        assert "other bytes: [50, +8)" in run("diff", mnt).text


def test_changes_are_told_while_an_engine_works(db: Path, mnt: Path) -> None:
    for old in db.iterdir():
        old.unlink()
    LEVELDB.fill(db, Fill(10))
    with mounted(db, mnt, "--overlay"), LEVELDB.write_sync(mnt, Fill(3000), NEW) as writer:
        for _ in range(5):
            for _ in range(100):
                writer.next()
            done = run("diff", mnt)
            assert (done.code, done.error) == (FINE, "")
            assert "names MANIFEST" in done.text
        writer.drain()
        assert len(writer.acknowledged) == 3000


def test_what_is_no_overlay_is_refused(db: Path, mnt: Path, tmp_path: Path) -> None:
    with mounted(db, mnt):
        done = run("diff", mnt)
        assert (done.code, done.text) == (USAGE, "")
        assert "this mount is no overlay" in done.error
        assert "--overlay" in done.error
    with unchanged(db):
        done = run("diff", db)
        assert (done.code, done.error) == (USAGE, f"avccfs: {db} holds no changes of an overlay\n")
    done = run("diff", tmp_path / "missing")
    assert done.code == USAGE
    assert "there is no such directory" in done.error
    done = run("diff", mnt)
    assert done.code == USAGE
    assert list(mnt.iterdir()) == []


def test_directory_that_is_open_without_a_mount_is_refused(
    db: Path, mnt: Path, upper: Path
) -> None:
    with mounted(db, mnt, *overlay(upper)):
        rehearse_on(mnt)
    with closing(LocalDirectory(upper)) as directory:
        directory.lock(exclusive=True)
        done = run("diff", upper)
    assert done.code == LOCKED
    assert str(upper) in done.error
    assert f"(pid {os.getpid()})" in done.error


def test_source_that_changed_meanwhile_is_named(db: Path, mnt: Path, upper: Path) -> None:
    with mounted(db, mnt, *overlay(upper)):
        rehearse_on(mnt)
    (db / "000006.log").write_bytes(b"changed")
    with unchanged(upper), unchanged(db):
        done = run("diff", upper)
    assert (done.code, done.text) == (FAILED, "")
    assert "000006.log" in done.error
    assert str(db) in done.error


def test_source_that_is_gone_is_named(db: Path, mnt: Path, upper: Path) -> None:
    with mounted(db, mnt, *overlay(upper)):
        rehearse_on(mnt)
    db.rename(db.with_name("elsewhere"))
    done = run("diff", upper)
    assert (done.code, done.text) == (FAILED, "")
    assert str(db) in done.error
    db.with_name("elsewhere").rename(db)
    assert run("diff", upper).text == REHEARSED


def test_dead_mount_is_told_from_one_that_is_slow(db: Path, mnt: Path, upper: Path) -> None:
    with mounted(db, mnt, *overlay(upper), unmount=False) as at:
        os.kill(at.pid, signal.SIGKILL)
        wait_for(lambda: is_dead(mnt))
        done = run("diff", mnt)
        assert (done.code, done.text) == (FAILED, "")
        assert f"avccfs umount {mnt}" in done.error
        avccfs("umount", mnt)
    assert run("diff", upper).text == "no changes\n"


def test_keys_that_an_engine_wrote_are_told_as_files(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--overlay"):
        GOLEVELDB.fill(mnt, Fill(5), NEW)
        text = run("diff", mnt).text
    assert "removed     MANIFEST-000010" in text
    assert "changed     CURRENT " in text
