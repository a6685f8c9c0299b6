"""`avccfs check`: exit codes, the two forms, the bar, several processes, and Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avccfs.cli import bar
from avccfs.cli.bar import Bar
from avccfs.cli.forking import ForkRunner
from avccfs.session.check import check
from avccfs.vfs.local import LocalDirectory
from tests.session.dump import FIXTURES

FINE, DAMAGE, USAGE, INTERRUPTED = 0, 1, 2, 130
COMMAND = (sys.executable, "-P", "-m", "avccfs", "check")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def database(fixture: str) -> Path:
    return FIXTURES / fixture / "db"


def test_sound_database_is_exit_code_0_and_silence_but_for_the_report() -> None:
    done = run(database("goleveldb-closed"))
    assert (done.returncode, done.stderr) == (FINE, "")
    verdict, *rest = done.stdout.splitlines()
    assert (
        verdict == f"{database('goleveldb-closed')}: sound (by MANIFEST-000000, standard dialect)"
    )
    assert rest[-1].startswith("looked at 23509 bytes: tables: 3 (3 live), ")
    assert "\x1b" not in done.stdout


def test_damage_is_exit_code_1_and_says_where() -> None:
    done = run(database("flipped-journal-byte"))
    assert (done.returncode, done.stderr) == (DAMAGE, "")
    assert "NOT SOUND: 1 damage" in done.stdout.splitlines()[0]
    assert "\n  000008.log:3458 chunk-checksum: expected " in done.stdout


def test_json_is_one_object() -> None:
    done = run(database("missing-table"), "--format", "json")
    assert (done.returncode, done.stderr) == (DAMAGE, "")
    said = json.loads(done.stdout)
    assert said["sound"] is False
    assert [(each["file"], each["code"]) for each in said["findings"]] == [
        ("000005.ldb", "table-missing")
    ]
    assert said["files"]["tables"] == 2


def test_dialect_can_be_given() -> None:
    done = run(database("avccdb-compacted"), "--dialect", "standard", "--format", "json")
    assert json.loads(done.stdout)["dialect"] == "standard"
    assert done.returncode == DAMAGE


@pytest.mark.parametrize(
    "arguments", [[], ["missing"], ["file"], ["empty"], ["empty", "--format", "xml"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    (tmp_path / "file").touch()
    given = [
        tmp_path / each if each in ("missing", "file", "empty") else each for each in arguments
    ]
    done = run(*given)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_database_in_use_is_looked_at_and_its_holder_named(tmp_path: Path) -> None:
    shutil.copytree(database("goleveldb-closed"), tmp_path / "db")
    with (tmp_path / "db" / "LOCK").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done = run(tmp_path / "db")
    assert done.returncode == FINE
    assert "LOCK in-use: expected nobody with the database open, found " in done.stdout
    assert f"(pid {os.getpid()})" in done.stdout
    assert "in use while it was checked" in done.stdout.splitlines()[0]


def test_looking_does_not_even_make_a_lock(tmp_path: Path) -> None:
    shutil.copytree(database("goleveldb-closed"), tmp_path / "db")
    (tmp_path / "db" / "LOCK").unlink()
    before = sorted(path.name for path in (tmp_path / "db").iterdir())
    assert run(tmp_path / "db").returncode == FINE
    assert sorted(path.name for path in (tmp_path / "db").iterdir()) == before


def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    for fixture in ("flipped-table-block", "truncated-table-footer", "goleveldb-closed"):
        with contextlib.closing(LocalDirectory(database(fixture))) as directory:
            assert check(directory, runner=ForkRunner(3)) == check(directory)
        assert run(database(fixture), "-j", "3").stdout == run(database(fixture), "-j", "1").stdout


# -- several processes


def test_results_come_in_the_order_of_the_pieces() -> None:
    def work(piece: int) -> tuple[int, int]:
        time.sleep(0.01 * (piece % 3))
        return piece, os.getpid()

    results = list(ForkRunner(4).run(work, list(range(20))))
    assert [piece for piece, _ in results] == list(range(20))
    assert os.getpid() not in {pid for _, pid in results}


def test_more_processes_than_pieces_do_no_harm() -> None:
    assert list(ForkRunner(4).run(str, [1])) == ["1"]
    assert list(ForkRunner(4).run(str, [])) == []


def test_piece_whose_process_dies_is_done_here() -> None:
    here = os.getpid()

    def work(piece: int) -> int:
        if piece == 2 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return piece * 10

    assert list(ForkRunner(2).run(work, [0, 1, 2, 3])) == [0, 10, 20, 30]


def test_what_a_piece_raises_is_raised_here() -> None:
    def work(piece: int) -> float:
        return 1 / piece

    results = ForkRunner(2).run(work, [1, 0])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        return [int(each) for each in listed.read_text().split()]
    return []


def has_open(pid: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        return any(os.readlink(each).endswith(name) for each in Path(f"/proc/{pid}/fd").iterdir())
    return False


def wait_until_reading(process: subprocess.Popen[str], name: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if any(has_open(pid, name) for pid in (process.pid, *children(process.pid))):
            return
        time.sleep(0.01)
    raise AssertionError("the command did not get as far as the table")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_it_at_once_and_leaves_nobody_behind(jobs: str, tmp_path: Path) -> None:
    shutil.copytree(database("goleveldb-closed"), tmp_path / "db")
    # Too much to be done before the signal comes, and no room on the disk.
    os.truncate(tmp_path / "db" / "000005.ldb", 1 << 38)
    with subprocess.Popen(
        [*COMMAND, str(tmp_path / "db"), "-j", jobs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            wait_until_reading(process, "000005.ldb")
            started = children(process.pid)
            os.killpg(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, stdout, stderr) == (INTERRUPTED, "", "\navccfs: interrupted\n")
    assert bool(started) == (jobs == "2")
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


# -- the bar


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes rich take what is captured for a terminal, and the bar come at once."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(bar, "PATIENCE", 0.0)
    monkeypatch.setattr(bar, "_PAUSE", 0.0)


@pytest.mark.usefixtures("terminal")
def test_bar_shows_the_file_and_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as shown:
        shown.show(250, 1000, "000005.ldb")
    said = capsys.readouterr()
    assert said.out == ""
    assert "000005.ldb" in said.err
    assert "0.2/1.0 kB" in said.err or "250/1,000 bytes" in said.err


def test_bar_waits_a_moment(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as shown:
        shown.show(250, 1000, "000005.ldb")
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_the_verdict_has_a_colour() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*COMMAND, str(database("goleveldb-closed"))], stdout=theirs, stderr=theirs, check=False
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == FINE
    assert said.startswith("\x1b[32m")
    assert ": sound (by MANIFEST-000000, standard dialect)" in said
