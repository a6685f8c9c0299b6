"""Faults on a real mount: told live, they act at once, and none of them ends the mount."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from avccfs.vfs.fault import KIND_WORDS, OP_WORDS
from tests.cli.running import run
from tests.faulty import PROVOKED, faulty, fired, outcome, rules, stats, tell, wait_until
from tests.mounting import descriptors_of, mounted, tree

pytestmark = pytest.mark.mounted

JOURNAL = "000003.log"
OLD = bytes(range(1, 201)) * 20


def add_by_command(mnt: Path, line: str) -> None:
    done = run("fault", mnt, "add", line)
    assert (done.code, done.error) == (0, "")


def add_by_file(mnt: Path, line: str) -> None:
    (mnt / ".avccfs/faults").write_text(f"{line}\n")


def clear_by_command(mnt: Path) -> None:
    assert run("fault", mnt, "clear").code == 0


def clear_by_file(mnt: Path) -> None:
    (mnt / ".avccfs/faults").write_text("clear\n")


def shell(mnt: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=mnt, capture_output=True, text=True, timeout=60, check=False
    )


def views(mnt: Path, name: str) -> str:
    return (mnt / ".avccfs" / name).read_text()


# Live


@pytest.mark.parametrize(
    ("add", "clear"),
    [(add_by_command, clear_by_command), (add_by_file, clear_by_file)],
    ids=["command", "file"],
)
def test_changes_act_at_once_on_what_is_open(
    add: Callable[[Path, str], None], clear: Callable[[Path], None], db: Path, mnt: Path
) -> None:
    with faulty(db, mnt), (mnt / JOURNAL).open("wb", buffering=0) as file:
        assert outcome(lambda: os.fsync(file.fileno())) == "ok"
        add(mnt, "sync journal: EIO")
        assert outcome(lambda: os.fsync(file.fileno())) == "EIO"
        add(mnt, "write 000003.log #2: ENOSPC")
        assert outcome(lambda: file.write(b"one")) == "ok"
        assert outcome(lambda: file.write(b"two")) == "ENOSPC"
        clear(mnt)
        assert outcome(lambda: os.fsync(file.fileno())) == "ok"
        assert outcome(lambda: file.write(b"three")) == "ok"
        assert (db / JOURNAL).read_bytes() == b"onethree"


def test_file_of_faults_shows_rules_as_they_can_be_written_again(db: Path, mnt: Path) -> None:
    with faulty(db, mnt, "sync journal #2-: EIO") as at:
        add_by_file(at.path, "write '*.ldb' 5% seed=7: torn prefix 50%")
        shown = views(mnt, "faults").splitlines()
        assert [line.partition("    # rule ")[0] for line in shown] == [
            "sync journal #2-: EIO",
            "write *.ldb 5% seed=7: torn prefix 50%",
        ]
        copied = shell(
            mnt,
            "cp .avccfs/faults /tmp/$$ && echo clear > .avccfs/faults && "
            "cat /tmp/$$ > .avccfs/faults; rm /tmp/$$",
        )
        assert copied.stderr == ""
        assert [rule["text"] for rule in rules(mnt)] == [
            "sync journal #2-: EIO",
            "write *.ldb 5% seed=7: torn prefix 50%",
        ]
        assert [rule["id"] for rule in rules(mnt)] == [3, 4]
        assert [rule["matched"] for rule in rules(mnt)] == [0, 0]


@pytest.mark.parametrize(
    "command",
    [
        "echo 'sync: EIO' > .avccfs/faults",
        "echo 'sync: EIO' >> .avccfs/faults",
        "printf 'sync: EIO' > .avccfs/faults",
        "printf '# mine\\n\\nsync: EIO\\n' | tee .avccfs/faults",
        "printf 'write: EIO\\nsync: EIO\\nremove 1\\n' > .avccfs/faults",
    ],
)
def test_shells_write_rules_in_their_ways(command: str, db: Path, mnt: Path) -> None:
    with faulty(db, mnt):
        done = shell(mnt, command)
        assert (done.returncode, done.stderr) == (0, "")
        assert [rule["text"] for rule in rules(mnt)] == ["sync: EIO"]


def test_bad_line_is_refused_to_the_writer_and_explained_in_the_log(db: Path, mnt: Path) -> None:
    with faulty(db, mnt, "open journal: EIO"):
        lines = b"sync: EIO\nsync jornal: EIO\nwrite: EIO\n"
        with (mnt / ".avccfs/faults").open("wb", buffering=0) as faults:
            assert outcome(lambda: faults.write(lines)) == "EINVAL"
        # Line by line: what came before it is done, what came after it is not.
        assert [rule["text"] for rule in rules(mnt)] == ["open journal: EIO", "sync: EIO"]
        log = views(mnt, "log")
        assert "refused: 'sync jornal: EIO': no fault rule: at column 6" in log
        assert "did you mean journal?" in log
        assert outcome(lambda: add_by_file(mnt, "remove 77")) == "EINVAL"
        assert "there is no rule 77; there are: 1, 2" in views(mnt, "log")
        assert outcome(lambda: add_by_file(mnt, "release 1")) == "EINVAL"
        assert "rule 1 (open journal: EIO) holds nobody up" in views(mnt, "log")


def test_rules_for_every_file_leave_the_hidden_folder_alone(db: Path, mnt: Path) -> None:
    """Whoever made everything fail can still look, and take it back."""
    with faulty(db, mnt, "any: EIO"):
        assert outcome(lambda: (mnt / "new").touch()) == "EIO"
        shown = views(mnt, "faults")
        assert "any: EIO" in shown
        assert stats(mnt)["operations"]["create"]["foreign"]["faulted"] == 1
        assert shell(mnt, "ls -l .avccfs && cat .avccfs/log .avccfs/check.txt").returncode == 0
        assert shell(mnt, "echo clear > .avccfs/faults").stderr == ""
        assert outcome(lambda: (mnt / "new").touch()) == "ok"
        assert "close" not in stats(mnt)["operations"] or (
            # The file that was made, and nothing of what was looked at.
            stats(mnt)["operations"]["close"]["foreign"]["calls"] == 1
        )


def test_lines_of_the_mount_itself_in_log_are_no_operations(mnt: Path, tmp_path: Path) -> None:
    db = tmp_path / "source"
    db.mkdir()
    for name in ("MANIFEST-000001", "MANIFEST-000002"):
        (db / name).write_bytes(b"")
    (db / "CURRENT").write_text("MANIFEST-000001\n")
    with faulty(db, mnt, "any log: stall"):
        (mnt / "CURRENT").write_text("MANIFEST-000002\n")
        assert (mnt / "CURRENT").read_text() == "MANIFEST-000002\n"
        assert "CURRENT now names MANIFEST-000002" in (db / "LOG").read_text()
        assert rules(mnt)[0]["matched"] == 0
        assert "log" not in {kind for kinds in stats(mnt)["operations"].values() for kind in kinds}


def test_switch_of_current_that_a_fault_stops_leaves_the_old_or_the_new(
    mnt: Path, tmp_path: Path
) -> None:
    db = tmp_path / "source"
    db.mkdir()
    manifests = ("MANIFEST-000001", "MANIFEST-000002")
    for name in manifests:
        (db / name).write_bytes(b"")
    (db / "CURRENT").write_text("MANIFEST-000001\n")
    with faulty(db, mnt):
        outcomes: list[str] = []
        turn = 0
        while outcomes[-1:] != ["ok"]:
            before = (mnt / "CURRENT").read_text().strip()
            other = next(name for name in manifests if name != before)
            turn += 1
            add_by_file(
                mnt, f"create,write,sync,sync-dir,rename meta|manifest|foreign #{turn}: EIO"
            )
            outcomes.append(outcome(lambda: (mnt / "CURRENT").write_text(f"{other}\n")))  # noqa: B023
            clear_by_file(mnt)
            assert (mnt / "CURRENT").read_text().strip() in (before, other)
            if outcomes[-1] == "ok":
                assert (mnt / "CURRENT").read_text().strip() == other
        assert set(outcomes) == {"EIO", "ok"}
        # Manifest, its folder, the copy, the pointer, the folder, the rename, the folder.
        assert len(outcomes) > 7


# What is counted


def test_stats_count_each_operation_of_a_process_once(db: Path, mnt: Path) -> None:
    with faulty(db, mnt, "write table #3: ENOSPC", "sync journal: delay 5ms"):
        fd = os.open(mnt / JOURNAL, os.O_RDWR | os.O_CREAT)
        for _ in range(10):
            os.write(fd, b"0123456789")
        os.fsync(fd)
        os.ftruncate(fd, 50)
        os.close(fd)
        os.close(os.open(mnt / JOURNAL, os.O_RDONLY))
        fd = os.open(mnt / "000004.ldb", os.O_RDWR | os.O_CREAT)
        assert [outcome(lambda: os.write(fd, bytes(1000))) for _ in range(4)] == [
            "ok",
            "ok",
            "ENOSPC",
            "ok",
        ]
        os.close(fd)
        os.rename(mnt / "000004.ldb", mnt / "000005.ldb")
        os.unlink(mnt / "000005.ldb")
        fd = os.open(mnt, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        told = stats(mnt)["operations"]
        counts = {
            (op, kind): (one["calls"], one["failures"], one["faulted"], one["bytes"])
            for op in OP_WORDS
            for kind, one in told.get(op, {}).items()
        }
        assert counts == {
            ("create", "journal"): (1, 0, 0, 0),
            ("open", "journal"): (1, 0, 0, 0),
            ("write", "journal"): (10, 0, 0, 100),
            ("sync", "journal"): (1, 0, 0, 0),
            ("truncate", "journal"): (1, 0, 0, 0),
            ("close", "journal"): (2, 0, 0, 0),
            ("create", "table"): (1, 0, 0, 0),
            ("write", "table"): (4, 1, 1, 3000),
            ("close", "table"): (1, 0, 0, 0),
            ("rename", "table"): (1, 0, 0, 0),
            ("remove", "table"): (1, 0, 0, 0),
            ("sync-dir", "foreign"): (1, 0, 0, 0),
        }
        for kinds in told.values():
            for one in kinds.values():
                latency = one["latency_us"]
                assert sum(latency["below"].values()) == one["calls"]
                assert 0 < latency["max"] <= latency["total"]
        assert told["sync"]["journal"]["latency_us"]["max"] >= 5000
        delayed, failed = stats(mnt)["faults"]
        assert (delayed["rule"], delayed["op"], delayed["did"]) == (2, "sync", "delay 5ms")
        assert (failed["rule"], failed["path"], failed["offset"], failed["length"]) == (
            1,
            "000004.ldb",
            2000,
            1000,
        )
        assert (failed["text"], failed["call"]) == ("write table #3: ENOSPC", 3)


def work_on_files(mnt: Path) -> None:
    """Some work, the same each time, whatever fails in it."""
    chance = random.Random(1)
    for turn in range(60):
        path = mnt / f"{turn % 7 + 3:06d}.{chance.choice(['log', 'ldb'])}"
        fd = -1
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT)
            for _ in range(5):
                os.pwrite(fd, chance.randbytes(1000), chance.randrange(5000))
            os.fsync(fd)
            os.ftruncate(fd, chance.randrange(4000))
        except OSError:
            pass
        finally:
            if fd >= 0:
                outcome(lambda: os.close(fd))  # noqa: B023
        if turn % 5 == 4:
            outcome(lambda: path.rename(path.with_suffix(".moved")))  # noqa: B023


CHANCY = (
    "write journal 10% seed={}: EIO",
    "write 10% seed={}: corrupt bit",
    "sync 20% seed={}: drop",
    "open,create,rename 10% seed={}: ENOSPC",
    "truncate,close 15% seed={}: EIO",
)


def test_same_seed_and_work_fire_at_the_same_calls_and_leave_the_same_bytes(
    mnt: Path, tmp_path: Path
) -> None:
    found = []
    for turn, seed in enumerate((7, 7, 8)):
        db = tmp_path / f"db{turn}"
        db.mkdir()
        with faulty(db, mnt, *(rule.format(seed) for rule in CHANCY)):
            work_on_files(mnt)
            found.append((fired(mnt), tree(db)))
    assert len(found[0][0]) > 20
    assert {fault[0] for fault in found[0][0]} == {1, 2, 3, 4, 5}
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]


def test_plan_from_a_file_acts_as_its_lines_would(mnt: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        "seed = 7\n"
        + "".join(f'[[fault]]\nrule = "{rule.replace(" seed={}", "")}"\n' for rule in CHANCY[:3])
        + '[[fault]]\nop = ["open", "create", "rename"]\nprobability = 0.1\nwhat = "ENOSPC"\n'
        + '[[fault]]\nop = "truncate|close"\nprobability = 0.15\nwhat = "EIO"\n'
    )
    found = []
    for turn, options in enumerate(
        [
            ("--faults", os.fspath(tmp_path / "plan.toml")),
            tuple(word for rule in CHANCY for word in ("--fault", rule.format(7))),
        ]
    ):
        db = tmp_path / f"db{turn}"
        db.mkdir()
        with mounted(db, mnt, *options, provoked=PROVOKED):
            work_on_files(mnt)
            found.append((fired(mnt), tree(db)))
    assert found[0] == found[1]
    assert len(found[0][0]) > 20


# What is seen of faults


def test_torn_write_is_seen_as_it_is_below_by_who_wrote_it(db: Path, mnt: Path) -> None:
    with faulty(db, mnt), (mnt / JOURNAL).open("w+b", buffering=0) as file:
        file.write(OLD)
        assert os.pread(file.fileno(), len(OLD), 0) == OLD
        tell(mnt, "write journal: torn at 1000,2000 keep 2")
        assert outcome(lambda: os.pwrite(file.fileno(), bytes(len(OLD)), 0)) == "EIO"
        torn = OLD[:1000] + bytes(1000) + OLD[2000:]
        assert (db / JOURNAL).read_bytes() == torn
        assert (mnt / JOURNAL).read_bytes() == torn
        assert os.pread(file.fileno(), len(OLD), 0) == torn


def test_dropped_bytes_are_gone_for_who_has_the_file_open_and_mapped(db: Path, mnt: Path) -> None:
    (db / JOURNAL).write_bytes(OLD)
    with faulty(db, mnt, "sync journal: drop"), (mnt / JOURNAL).open("r+b", buffering=0) as file:
        with mmap.mmap(file.fileno(), len(OLD), access=mmap.ACCESS_READ) as seen:
            assert seen[:] == OLD
            os.pwrite(file.fileno(), b"\xff" * 100, 50)
            assert seen[50:150] == b"\xff" * 100
            assert outcome(lambda: os.fsync(file.fileno())) == "EIO"
            assert seen[:] == OLD
        assert os.pread(file.fileno(), len(OLD), 0) == OLD
        assert (db / JOURNAL).read_bytes() == OLD


def test_page_that_was_misread_is_read_anew_by_the_next_opener(db: Path, mnt: Path) -> None:
    (db / "000004.ldb").write_bytes(OLD)
    with faulty(db, mnt, "read table times 1: corrupt bit 0"):
        with (mnt / "000004.ldb").open("rb", buffering=0) as file:
            assert os.pread(file.fileno(), len(OLD), 0) == bytes([OLD[0] ^ 1]) + OLD[1:]
        assert (mnt / "000004.ldb").read_bytes() == OLD


def test_short_writes_lose_nothing_for_who_goes_on_with_the_rest(db: Path, mnt: Path) -> None:
    data = random.Random(1).randbytes(4000)
    with faulty(db, mnt, "write table: short 33%"):
        fd = os.open(mnt / "000004.ldb", os.O_RDWR | os.O_CREAT)
        counts: list[int] = []
        while sum(counts) < len(data):
            counts.append(os.write(fd, data[sum(counts) :]))
        os.close(fd)
        left = len(data)
        for count in counts:
            assert count == (left * 33 // 100 or 1)
            left -= count
        assert (mnt / "000004.ldb").read_bytes() == data
    assert (db / "000004.ldb").read_bytes() == data


def test_short_read_is_followed_by_the_rest(db: Path, mnt: Path) -> None:
    data = random.Random(1).randbytes(50_000)
    (db / "000004.ldb").write_bytes(data)
    with (
        faulty(db, mnt, "read table #1: short 33%"),
        (mnt / "000004.ldb").open("rb", buffering=0) as file,
    ):
        pieces = [file.read(len(data)), file.read(len(data))]
        assert len(pieces[0]) == len(data) * 33 // 100
        assert b"".join(pieces) == data


def test_reads_fail_for_who_maps_the_file_without_ending_the_mount(db: Path, mnt: Path) -> None:
    (db / "000004.ldb").write_bytes(OLD)
    reading = f"import mmap; f = open({str(mnt / '000004.ldb')!r}, 'rb'); " + (
        "m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); m[0]"
    )
    with faulty(db, mnt, "read table: EIO"):
        done = subprocess.run(["python3", "-c", reading], timeout=60, check=False)
        assert done.returncode == -7  # SIGBUS, as from a real disk
        tell(mnt, "clear")
        assert (mnt / "000004.ldb").read_bytes() == OLD


# Nothing ends the mount


def random_rule(chance: random.Random) -> str:
    op = chance.choice([*OP_WORDS, "any", "read,write"])
    files = chance.choice(["", "", *KIND_WORDS, "'*.log'", "sub/*"])
    when = chance.choice(["", "#2-", "every 3", "30%", "times 2", "after 1ms"])
    whats = ["EIO", "ENOSPC", "ENOENT", "EINTR", "EAGAIN", "ESTALE", "stall", "delay 1ms"]
    if op in ("read", "write", "read,write"):
        whats += ["short 1", "short 0", "short 50%", "corrupt bit", "corrupt block"]
    if op == "write":
        whats += ["torn prefix 10", "torn at 5 keep 2 ENOSPC", "torn sectors 0"]
    if op == "sync":
        whats += ["drop", "drop ENOSPC"]
    if op == "sync-dir":
        files = ""
    return f"{op} {files} {when} seed={chance.randrange(9)}: {chance.choice(whats)}"


class Busy(threading.Thread):
    """Works on files of its own until it is told to stop; that anything fails is no news to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.chance = random.Random(seed)
        self.stop = False
        self.deeds = 0
        self.start()

    def run(self) -> None:
        while not self.stop:
            with contextlib.suppress(OSError):
                self.turn()
            self.deeds += 1

    def see_it_go_on(self) -> None:
        before = self.deeds
        wait_until(lambda: self.deeds > before + 10, "work that goes on")

    def turn(self) -> None:
        chance = self.chance
        path = self.folder / f"{chance.randrange(10):06d}.{chance.choice(['log', 'ldb', 'tmp'])}"
        match chance.randrange(6):
            case 0:
                path.rename(path.with_suffix(".dbtmp"))
            case 1:
                path.unlink()
            case 2:
                fd = os.open(self.folder, os.O_RDONLY)
                try:
                    os.fsync(fd)
                    os.listdir(fd)
                finally:
                    os.close(fd)
            case 3:
                os.truncate(path, chance.randrange(10_000))
            case _:
                fd = os.open(path, os.O_RDWR | os.O_CREAT)
                try:
                    os.pwrite(fd, chance.randbytes(chance.randrange(9000)), chance.randrange(5000))
                    os.pread(fd, 9000, 0)
                    os.fsync(fd)
                finally:
                    os.close(fd)


def files_held(pid: int, db: Path) -> set[str]:
    """What a process has open there, but for a folder that an error in the garbage may hold."""
    return {one for one in descriptors_of(pid) if one.startswith(f"{db}/")} - {f"{db}/sub"}


@pytest.mark.parametrize("seed", [1, 2])
def test_no_fault_ends_the_mount_or_stays_after_clear(seed: int, db: Path, mnt: Path) -> None:
    chance = random.Random(seed)
    with faulty(db, mnt) as at:
        (mnt / "sub").mkdir()
        workers = [Busy(folder, one) for one, folder in enumerate((mnt, mnt, mnt / "sub"))]
        for _ in range(60):
            tell(mnt, random_rule(chance))
            if chance.random() < 0.3:
                tell(mnt, chance.choice(["release", "clear"]))
            time.sleep(0.01)
        assert stats(mnt)["faults"]
        tell(mnt, "clear")
        for worker in workers:
            worker.see_it_go_on()
            worker.stop = True
            worker.join(60)
            assert not worker.is_alive()
        for path in (mnt / "after", mnt / "sub" / "after"):
            path.write_bytes(OLD)
            assert path.read_bytes() == OLD
            path.unlink()
        assert tree(mnt) == tree(db)
        wait_until(lambda: files_held(at.pid, db) == {f"{db}/LOCK"}, "files that are let go")
