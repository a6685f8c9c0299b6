"""Whoever is held up by a fault holds up nobody else, is let go on demand, and stops no unmounting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from avccfs.cli.main import FAILED, FINE
from avccfs.vfs.fault import OP_WORDS
from tests.cli.running import run
from tests.cli.test_mount import assert_unlocked, is_running, wait_until_gone
from tests.faulty import (
    Caller,
    faulty,
    held_up,
    let_go_at_end,
    no_such_mount,
    outcome,
    rules,
    tell,
    wait_held_up,
    wait_until,
)
from tests.mounting import avccfs, mounted

pytestmark = pytest.mark.mounted

JOURNAL = "000003.log"
OLD, NEW = b"old" * 1000, b"new" * 1000


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Ground:
    """A journal, open, and other files to work on meanwhile."""

    def __init__(self, mnt: Path) -> None:
        self.mnt = mnt
        self.path = mnt / JOURNAL
        self.path.write_bytes(OLD)
        self.fd = os.open(self.path, os.O_RDWR)
        self.other = (mnt / "other").open("w+b", buffering=0)
        self.folder = mnt / "folder"
        self.folder.mkdir(exist_ok=True)

    def call(self, op: str) -> object:
        """Do an operation to the journal."""
        match op:
            case "open":
                os.close(os.open(self.path, os.O_RDONLY))
            case "create":
                os.close(os.open(self.mnt / "000004.log", os.O_WRONLY | os.O_CREAT))
            case "read":
                return os.pread(self.fd, 10, 0)
            case "write":
                return os.pwrite(self.fd, NEW, 0)
            case "sync":
                os.fsync(self.fd)
            case "sync-dir":
                sync_folder(self.mnt)
            case "rename":
                self.path.rename(self.mnt / "000005.log")
            case "remove":
                self.path.unlink()
            case "truncate":
                os.ftruncate(self.fd, 10)
            case "close":
                fd, self.fd = self.fd, -1
                os.close(fd)
        return None

    def work_elsewhere(self) -> None:
        """Use what is open, what is known by name, and a folder in which anything may be made."""
        self.other.write(b"more")
        os.fsync(self.other.fileno())
        with (self.mnt / "other").open("rb") as file:
            assert file.read().endswith(b"more")
        new = self.folder / "new"
        new.write_bytes(NEW)
        assert new.read_bytes() == NEW
        new.rename(self.folder / "newer").unlink()
        sync_folder(self.folder)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.other.close()


@contextmanager
def ground(db: Path, mnt: Path) -> Iterator[Ground]:
    with faulty(db, mnt):
        found = Ground(mnt)
        try:
            yield found
        finally:
            tell(mnt, "clear")
            found.close()


@pytest.mark.parametrize("op", OP_WORDS)
def test_stalled_call_stalls_nobody_else_and_ends_when_released(
    op: str, db: Path, mnt: Path
) -> None:
    # A folder that is being synced is the one of the stall: another one can be.
    rule = "sync-dir times 1: stall" if op == "sync-dir" else f"{op} journal: stall"
    with ground(db, mnt) as at:
        tell(mnt, rule)
        caller = Caller(lambda: at.call(op))
        wait_held_up(mnt, 1)
        for _ in range(3):
            other = Caller(at.work_elsewhere)
            assert other.result() == "ok"
        assert caller.waits
        assert held_up(mnt) == 1
        released = run("fault", mnt, "release")
        assert (released.code, released.text) == (FINE, "calls let go: 1\n")
        assert caller.result() == "ok"
        assert rules(mnt) == []
        if op in ("write", "truncate"):
            assert (db / JOURNAL).read_bytes() == (NEW if op == "write" else OLD[:10])
        assert (db / JOURNAL).exists() == (op not in ("rename", "remove"))
        assert (db / "000004.log").exists() == (op == "create")
        assert (db / "000005.log").exists() == (op == "rename")


@pytest.mark.parametrize("rule", ["sync manifest", "create meta", "sync meta", "rename meta"])
@pytest.mark.parametrize("way", ["write", "rename"])
def test_stalled_switch_of_current_stalls_nobody_else(
    way: str, rule: str, db: Path, mnt: Path
) -> None:
    for name in ("MANIFEST-000001", "MANIFEST-000002"):
        (db / name).touch()
    (db / "CURRENT").write_text("MANIFEST-000001\n")
    with ground(db, mnt) as at:
        (mnt / "next").write_text("MANIFEST-000002\n")
        tell(mnt, f"{rule}: stall")

        def switch() -> None:
            if way == "rename":
                (mnt / "next").rename(mnt / "CURRENT")
            else:
                (mnt / "CURRENT").write_text("MANIFEST-000002\n")

        caller = Caller(switch)
        wait_held_up(mnt, 1)
        assert Caller(at.work_elsewhere).result() == "ok"
        assert (db / "CURRENT").read_text() == "MANIFEST-000001\n"
        tell(mnt, "release")
        assert caller.result() == "ok"
        assert (db / "CURRENT").read_text() == "MANIFEST-000002\n"


def sync_new_file(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        os.fsync(file.fileno())


def test_many_are_stalled_and_each_rule_is_released_alone(db: Path, mnt: Path) -> None:
    with ground(db, mnt) as at:
        tell(mnt, "sync '*.one': stall")
        tell(mnt, "sync '*.two': stall")
        callers = {
            suffix: [
                Caller(lambda n=n, suffix=suffix: sync_new_file(mnt / f"{n}.{suffix}"))  # type: ignore[misc]
                for n in range(60)
            ]
            for suffix in ("one", "two")
        }
        wait_held_up(mnt, 120)
        assert Caller(at.work_elsewhere).result() == "ok"
        # And by name: nothing holds the folder.
        assert outcome(lambda: (mnt / "new").touch()) == "ok"
        assert run("fault", mnt, "release", "2").text == "calls let go: 60\n"
        assert {caller.result() for caller in callers["two"]} == {"ok"}
        assert held_up(mnt) == 60
        assert all(caller.waits for caller in callers["one"])
        assert [rule["id"] for rule in rules(mnt)] == [1]
        (mnt / ".avccfs/faults").write_text("release\n")
        assert {caller.result() for caller in callers["one"]} == {"ok"}


@pytest.mark.parametrize("line", ["release", "release 1", "remove 1", "clear"])
def test_line_in_the_file_lets_go(line: str, db: Path, mnt: Path) -> None:
    with ground(db, mnt) as at:
        (mnt / ".avccfs/faults").write_text("any journal: stall\n")
        caller = Caller(lambda: at.call("write"))
        wait_held_up(mnt, 1)
        assert ", 1 stalled now" in (mnt / ".avccfs/faults").read_text()
        (mnt / ".avccfs/faults").write_text(f"{line}\n")
        assert caller.result() == "ok"
        assert (db / JOURNAL).read_bytes() == NEW


def test_everything_stalled_can_be_released_by_command(db: Path, mnt: Path) -> None:
    with ground(db, mnt) as at:
        tell(mnt, "any: stall")
        # None of them needs what the kernel holds for another.
        calls = (
            lambda: at.call("open"),
            lambda: at.call("write"),
            lambda: (mnt / "new").touch(),
            lambda: sync_folder(at.folder),
        )
        callers = [Caller(call) for call in calls]
        wait_held_up(mnt, len(callers))
        assert run("fault", mnt, "clear").code == FINE
        assert {caller.result() for caller in callers} == {"ok"}


def test_delay_under_way_ends_when_released_and_the_rule_stays(db: Path, mnt: Path) -> None:
    with ground(db, mnt) as at:
        tell(mnt, "write journal: delay 1h")
        for _ in range(2):
            caller = Caller(lambda: at.call("write"))
            wait_held_up(mnt, 1)
            tell(mnt, "release")
            assert caller.result() == "ok"


def test_stall_that_comes_while_nothing_was_armed_holds_up_its_caller_only(
    db: Path, mnt: Path
) -> None:
    """Between two requests: never within one that is answered in line."""
    with ground(db, mnt) as at:
        for _ in range(30):
            # All in one write, so that for a moment nothing is armed.
            (mnt / ".avccfs/faults").write_text(
                "write foreign: delay 1h\nclear\nread journal: stall\n"
            )
            caller = Caller(lambda: at.call("read"))
            at.work_elsewhere()
            wait_held_up(mnt, 1)
            tell(mnt, "clear")
            assert caller.result() == "ok"
            # Opened anew, so that it is read anew.
            os.close(at.fd)
            at.fd = os.open(at.path, os.O_RDWR)


# Ends

HELD = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(fd, b"abc")
for turn in range(int(sys.argv[2])):
    try:
        os.fsync(fd)
        print("synced", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


class Syncing(subprocess.Popen[str]):
    """A process that writes to a file, and syncs it so often."""

    def __init__(self, path: Path, times: int = 1) -> None:
        super().__init__(
            [sys.executable, "-c", HELD, path, str(times)], stdout=subprocess.PIPE, text=True
        )

        self._mnt = path.parent

    def __exit__(self, *exception: Any) -> None:
        # A test that failed must not wait for what is held up.
        with let_go_at_end(self._mnt):
            pass
        super().__exit__(*exception)

    def said(self) -> list[str]:
        return self.communicate(timeout=60)[0].splitlines()


def test_umount_names_the_stall_and_succeeds_after_release(db: Path, mnt: Path) -> None:
    with faulty(db, mnt, "sync journal: stall"), Syncing(mnt / JOURNAL) as process:
        wait_held_up(mnt, 1)
        refused = avccfs("umount", mnt, check=False)
        assert refused.returncode == FAILED
        assert f"(pid {process.pid})" in refused.stderr
        assert f"Calls held up by faults: 1. To let them go: avccfs fault {mnt} release." in (
            refused.stderr
        )
        tell(mnt, "release")
        assert process.said() == ["synced"]


def test_lazy_umount_lets_go_and_everything_ends_well(db: Path, mnt: Path) -> None:
    with (
        mounted(db, mnt, "--fault", "sync journal: stall") as at,
        Syncing(mnt / JOURNAL, 2) as process,
    ):
        wait_held_up(mnt, 1)
        assert avccfs("umount", "--lazy", mnt).returncode == FINE
        assert process.said() == ["synced", "synced"]
        wait_until_gone(at.pid)
    assert (db / JOURNAL).read_bytes() == b"abc"
    assert_unlocked(db)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_lets_go_and_everything_ends_well(number: int, db: Path, mnt: Path) -> None:
    with (
        mounted(db, mnt, "--fault", "sync journal: stall") as at,
        Syncing(mnt / JOURNAL, 2) as process,
    ):
        wait_held_up(mnt, 1)
        os.kill(at.pid, number)
        assert process.said() == ["synced", "synced"]
        wait_until_gone(at.pid)
    assert (db / JOURNAL).read_bytes() == b"abc"
    assert_unlocked(db)


def test_second_signal_ends_a_mount_on_which_somebody_is_held_up(db: Path, mnt: Path) -> None:
    with (
        mounted(db, mnt, "--fault", "sync journal: delay 1h", "--fault", "write 'x': EIO") as at,
        Syncing(mnt / JOURNAL, 2) as process,
    ):
        wait_held_up(mnt, 1)
        os.kill(at.pid, signal.SIGTERM)
        # The delay under way was ended; the next one is as long.
        assert process.stdout is not None
        assert process.stdout.readline() == "synced\n"
        wait_until(lambda: no_such_mount(mnt), "a mount that has left the tree")
        assert is_running(at.pid)
        os.kill(at.pid, signal.SIGTERM)
        wait_until_gone(at.pid)
        [said] = process.said()
        assert said in ("Software caused connection abort", "Transport endpoint is not connected")
    assert (db / JOURNAL).read_bytes() == b"abc"
    assert_unlocked(db)


def test_killed_caller_leaves_the_mount_to_the_others(db: Path, mnt: Path) -> None:
    with faulty(db, mnt, "sync journal: stall"), Syncing(mnt / JOURNAL) as process:
        wait_held_up(mnt, 1)
        process.kill()
        sync_new_file(mnt / "other")
        tell(mnt, "release")
        assert process.wait(60) == -signal.SIGKILL
        assert outcome(lambda: sync_new_file(mnt / "000004.log")) == "ok"


def test_killed_mount_fails_those_whom_it_held_up(db: Path, mnt: Path) -> None:
    with (
        mounted(db, mnt, "--fault", "sync journal: stall", unmount=False) as at,
        Syncing(mnt / JOURNAL) as process,
    ):
        wait_held_up(mnt, 1)
        os.kill(at.pid, signal.SIGKILL)
        [said] = process.said()
        assert said in ("Software caused connection abort", "Transport endpoint is not connected")
        assert avccfs("umount", mnt).returncode == FINE
    assert (db / JOURNAL).read_bytes() == b"abc"
    assert_unlocked(db)
