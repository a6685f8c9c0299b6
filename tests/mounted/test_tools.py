"""Unix tools do on the mount what they do in a plain directory.

Each script runs twice, in a plain copy of a database and on a mount of another copy. What it
prints, how it ends and what it leaves behind must be the same, with one difference on purpose: a
switch of CURRENT on the mount keeps the old one as CURRENT.bak, as goleveldb does, and says so in
LOG.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import pytest

from tests.engines import GOLEVELDB, LEVELDB, Content, Options
from tests.mounted.scripts import SCRIPTS
from tests.mounting import avccfs, mounted, tree
from tests.workload import Fill

pytestmark = pytest.mark.mounted

FILL = Fill(1500, value_size=120)
SMALL = Options(create=True, write_buffer=32 << 10, table_size=16 << 10)
FIRST_TO_LAST = ("MANIFEST", "CURRENT", "0", "LOG")


@dataclass(frozen=True)
class Pair:
    """The same database twice, and as it was."""

    sample: Path
    plain: Path
    mount: Path
    behind: Path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("tools")
    sample = root / "sample"
    GOLEVELDB.fill(sample, FILL, SMALL)
    GOLEVELDB.open(sample)
    (sample / "CURRENT.bak").unlink()
    (sample / "notes.txt").write_text("old notes\nof somebody\n")
    (sample / "backup").mkdir()
    (sample / "backup/inside").write_bytes(bytes(range(256)))
    pair = Pair(sample, root / "plain", root / "mnt", root / "behind")
    pair.plain.mkdir()
    pair.behind.mkdir()
    with mounted(pair.behind, pair.mount):
        yield pair
        left = tree(pair.mount)
    assert tree(pair.behind) == left


@pytest.fixture
def pair(both: Pair) -> Pair:
    for place in (both.plain, both.mount):
        for old in place.iterdir():
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        # CURRENT takes only the name of a manifest that is there, and its arrival is told in LOG.
        for path in sorted(both.sample.iterdir(), key=order_of_arrival):
            if path.is_dir():
                shutil.copytree(path, place / path.name)
            else:
                shutil.copy2(path, place)
        os.utime(place, ns=(10**18, 10**18))
    return both


def order_of_arrival(path: Path) -> int:
    return next((rank for rank, name in enumerate(FIRST_TO_LAST) if path.name.startswith(name)), 2)


def run(script: str, place: Path, pair: Pair, out: Path) -> tuple[int, str]:
    """Exit status and output of a script, without the names that differ on purpose."""
    out.mkdir()
    live = (pair.sample / "CURRENT").read_text().strip()
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=place,
        env={
            **os.environ,
            "LC_ALL": "C",
            "TMPDIR": str(out),
            "HOME": str(out),
            "LIVE": live,
            "SAMPLE": str(pair.sample),
            "OUT": str(out),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="backslashreplace",
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.replace(str(out), "$OUT").replace(str(place), "$PLACE")


def left_in(place: Path) -> dict[str, tuple[str, bytes | str]]:
    """Modes and contents of everything below a folder."""
    found: dict[str, tuple[str, bytes | str]] = {}
    for path in sorted(place.rglob("*")):
        mode = path.lstat().st_mode
        content: bytes | str = ""
        if stat.S_ISREG(mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(mode):
            content = os.readlink(path)
        found[os.fspath(path.relative_to(place))] = (stat.filemode(mode), content)
    found.pop("CURRENT.bak", None)
    if "LOG" in found:
        found["LOG"] = (found["LOG"][0], without_notes(place / "LOG"))
    return found


def without_notes(log: Path) -> str:
    """A database's LOG without the lines of the mount, and without the days that begin them."""
    lines = log.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if " avccfs: " not in line and "=====" not in line)


@pytest.mark.parametrize("name", SCRIPTS)
def test_tool_does_what_it_does_in_a_plain_directory(name: str, pair: Pair, tmp_path: Path) -> None:
    natively = run(SCRIPTS[name], pair.plain, pair, tmp_path / "plain")
    mounted_ = run(SCRIPTS[name], pair.mount, pair, tmp_path / "mounted")
    assert mounted_ == natively
    assert left_in(tmp_path / "mounted") == left_in(tmp_path / "plain")
    assert left_in(pair.mount) == left_in(pair.plain)


@pytest.mark.parametrize("tool", ["cp -a {}/. .", "rsync -a {}/ .", "tar -C {} -c . | tar -x"])
def test_whole_database_comes_in_at_the_latest_in_a_second_go(
    tool: str, both: Pair, db: Path, mnt: Path
) -> None:
    # CURRENT never names a manifest that is not there, so whether the first go ends well depends
    # on the order in which the tool brings the files.
    with mounted(db, mnt):
        command = ["bash", "-o", "pipefail", "-c", tool.format(both.sample)]
        first = subprocess.run(
            command, cwd=mnt, capture_output=True, text=True, timeout=60, check=False
        )
        if first.returncode:
            assert "CURRENT" in first.stderr
            assert not (mnt / "CURRENT").exists()
            subprocess.run(command, cwd=mnt, timeout=60, check=True)
        assert left_in(mnt) == left_in(both.sample)
        assert GOLEVELDB.open(mnt) == Content.of(FILL.items())
    assert LEVELDB.open(db) == Content.of(FILL.items())


def test_df_shows_the_source_and_its_room(pair: Pair) -> None:
    def df(place: Path, columns: str) -> str:
        command = ["df", f"--output={columns}", "--block-size=1", str(place)]
        shown = subprocess.check_output(command, text=True, timeout=30)
        return str(shown).splitlines()[1]

    assert df(pair.mount, "source,fstype,target").split() == [
        str(pair.behind),
        "fuse.avccfs",
        str(pair.mount),
    ]
    assert df(pair.mount, "size,itotal") == df(pair.behind, "size,itotal")


class Tail:
    """`tail -f`, whose lines can be waited for."""

    def __init__(self, path: Path) -> None:
        command = ["tail", "-n", "+1", "--sleep-interval=0.05", "-f", str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def wait_for(self, text: str) -> None:
        while text not in self.lines.get(timeout=30):
            pass

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self._reader.join()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_tail_follows_the_log_of_an_engine_on_the_mount(db: Path, mnt: Path) -> None:
    with mounted(db, mnt), GOLEVELDB.session(mnt) as session, Tail(mnt / "LOG") as tail:
        tail.wait_for("db@open done")
        for _ in range(3):
            session.put(b"key", b"value")
            session.reopen()
            tail.wait_for("db@close done")
            tail.wait_for("db@open done")
        session.release()
        tail.wait_for("db@close done")


def test_tail_follows_the_log_of_an_engine_beside_an_unlocked_mount(db: Path, mnt: Path) -> None:
    with (
        GOLEVELDB.session(db) as session,
        mounted(db, mnt, "--unlocked"),
        Tail(mnt / "LOG") as tail,
    ):
        tail.wait_for("db@open done")
        session.reopen()
        tail.wait_for("db@close done")
        tail.wait_for("db@open done")


def test_copy_is_compared_across_an_unmount(pair: Pair, tmp_path: Path, mnt: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", pair.mount, copy], timeout=60, check=True)
    with mounted(copy, mnt, "--read-only"):
        subprocess.run(["diff", "-r", pair.mount, mnt], timeout=60, check=True)
        refused = subprocess.run(
            ["cp", mnt / "LOG", mnt / "LOG.copy"], capture_output=True, text=True, check=False
        )
        assert "Read-only file system" in refused.stderr
    assert avccfs("umount", mnt, check=False).returncode == 2
