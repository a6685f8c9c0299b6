"""`avccfs mount`: when it returns, what it refuses, what its options do, how it lets go."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from avccfs.cli.main import FAILED, FINE, LOCKED, USAGE
from avccfs.fuse import mounts
from avccfs.fuse.options import MountOptions
from avccfs.vfs.local import LocalDirectory
from tests.engines import GOLEVELDB, Content
from tests.mounting import AVCCFS, avccfs, mounted, pid_of, tree
from tests.workload import Fill

pytestmark = pytest.mark.mounted

FIXTURES = Path(__file__).parent.parent / "fixtures"
SAMPLE = FIXTURES / "goleveldb-killed-at-fsync-5/db"
FIRST, SECOND = "MANIFEST-000000\n", "MANIFEST-000010\n"

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="what root may do")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to take note does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> None:
    wait_until(lambda: not is_running(pid), "the end of the mount process")


def assert_unlocked(directory: Path) -> None:
    """The lock is free: for the engines, and for the next mount."""
    with contextlib.closing(LocalDirectory(directory)) as opened:
        lock = opened.lock(exclusive=True)
        assert lock is not None
        lock.release()


# Coming


def test_returns_when_the_mount_answers_and_stays_in_the_background(db: Path, mnt: Path) -> None:
    for _ in range(3):
        said = avccfs("mount", db, mnt)
        with (mnt / "CURRENT").open() as file:
            assert file.read() == FIRST
        assert said.stdout == said.stderr == ""
        pid = pid_of(mnt)
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {os.devnull}
        avccfs("umount", mnt)
        wait_until_gone(pid)


def test_mounting_leaves_no_descriptor_of_the_caller_behind(
    db: Path, mnt: Path, tmp_path: Path
) -> None:
    # A pipe that the daemon kept would let its reader wait for ever: `avccfs mount ... | cat`.
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(AVCCFS)} mount {db} {mnt} 2>&1 | cat"], timeout=60, check=False
    )
    assert done.returncode == 0
    assert mnt.is_mount()
    avccfs("umount", mnt)


class Foreground:
    """`avccfs mount -f`, up and answering."""

    def __init__(self, source: Path | str, mnt: Path, *options: str) -> None:
        command = [*AVCCFS, "mount", *options, os.fspath(source), os.fspath(mnt)]
        self._mnt = mnt
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Foreground:
        def answers() -> bool:
            assert self.process.poll() is None
            there = mounts.mount_at(os.fspath(self._mnt))
            server = None if there is None else mounts.server_of(there)
            if server is None:
                return False
            server.connection.close()
            return True

        wait_until(answers, "the mount in the foreground")
        return self

    def end(self, number: int) -> str:
        """Signal it; returns what it had to say once it ended well."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=30)
        assert self.process.returncode == FINE, said
        assert not self._mnt.is_mount()
        return said

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
            avccfs("umount", self._mnt, check=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_stays_until_a_signal(number: int, db: Path, mnt: Path) -> None:
    with Foreground(db, mnt, "-f") as foreground:
        assert (mnt / "CURRENT").read_text() == FIRST
        assert foreground.process.poll() is None
        assert foreground.end(number) == ""
    assert_unlocked(db)


def test_foreground_ends_with_umount(db: Path, mnt: Path) -> None:
    with Foreground(db, mnt, "--foreground") as foreground:
        avccfs("umount", mnt)
        _, said = foreground.process.communicate(timeout=30)
        assert said == ""
        assert foreground.process.returncode == FINE


def test_verbose_says_what_changes_and_otherwise_only_trouble_is_told(db: Path, mnt: Path) -> None:
    for options, expected in ((("-f",), False), (("-f", "-v"), True)):
        with Foreground(db, mnt, *options) as foreground:
            (mnt / "CURRENT").write_text(SECOND)
            with pytest.raises(OSError, match="Invalid argument"):
                (mnt / "CURRENT").write_text("nonsense\n")
            said = foreground.end(signal.SIGTERM)
        assert ("CURRENT now names MANIFEST-000010" in said) == expected
        assert "nonsense" in said


def test_debug_fuse_shows_requests_in_the_foreground(db: Path, mnt: Path) -> None:
    with Foreground(db, mnt, "--debug-fuse") as foreground:
        assert (mnt / "CURRENT").read_text() == FIRST
        assert "LOOKUP" in foreground.end(signal.SIGTERM)


def test_log_file_takes_what_the_mount_has_to_say(db: Path, mnt: Path, tmp_path: Path) -> None:
    log = tmp_path / "messages"
    # Relative on purpose: the daemon lives in another folder.
    said = subprocess.run(
        [*AVCCFS, "mount", "--log-file", "messages", db, mnt],
        cwd=tmp_path,
        timeout=60,
        check=True,
        capture_output=True,
    )
    assert said.stderr == b""
    (mnt / "CURRENT").write_text(SECOND)
    with pytest.raises(OSError):  # noqa: PT011 - the write says ENOENT, the close EINVAL
        (mnt / "CURRENT").write_text("MANIFEST-000077\n")
    avccfs("umount", mnt)
    assert "INFO CURRENT now names MANIFEST-000010" in log.read_text()
    assert "MANIFEST-000077" in log.read_text()


# Going


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_unmounts_and_loses_nothing_of_what_was_written(
    number: int, db: Path, mnt: Path
) -> None:
    data = os.urandom(8 << 20)
    avccfs("mount", db, mnt)
    pid = pid_of(mnt)
    (mnt / "fresh").write_bytes(data)
    os.kill(pid, number)
    wait_until_gone(pid)
    assert not mnt.is_mount()
    assert (db / "fresh").read_bytes() == data
    assert_unlocked(db)


def test_signal_with_an_open_file_serves_it_until_it_is_closed(
    db: Path, mnt: Path, tmp_path: Path
) -> None:
    log = tmp_path / "messages"
    avccfs("mount", "--log-file", log, db, mnt)
    pid = pid_of(mnt)
    with (mnt / "fresh").open("w+b", buffering=0) as file:
        file.write(b"before, ")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not mnt.is_mount(), "the mount to leave the tree")
        assert list(mnt.iterdir()) == []
        file.write(b"after")
        file.seek(0)
        assert file.read() == b"before, after"
        assert is_running(pid)
        refused = avccfs("mount", db, mnt, check=False)
        assert refused.returncode == LOCKED
        assert f"(pid {pid})" in refused.stderr
    wait_until_gone(pid)
    assert (db / "fresh").read_bytes() == b"before, after"
    assert f"(pid {os.getpid()})" in log.read_text()
    assert_unlocked(db)


def test_second_signal_ends_a_mount_that_is_still_in_use(
    db: Path, mnt: Path, tmp_path: Path
) -> None:
    avccfs("mount", db, mnt)
    pid = pid_of(mnt)
    file = os.open(mnt / "CURRENT", os.O_RDONLY)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not mnt.is_mount(), "the mount to leave the tree")
    os.kill(pid, signal.SIGTERM)
    wait_until_gone(pid)
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.read(file, 100)
    with contextlib.suppress(OSError):  # nobody is there to be told
        os.close(file)
    assert_unlocked(db)


# Refusing


def refused(*arguments: str | Path) -> tuple[int, str]:
    done = avccfs("mount", *arguments, check=False)
    assert done.stdout == ""
    assert done.stderr.startswith(("avccfs: ", "Usage: "))
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_busy_mount_point_is_refused_and_explained(db: Path, mnt: Path, tmp_path: Path) -> None:
    with mounted(db, mnt) as at:
        for source in (tmp_path, "mem:"):
            code, said = refused(source, mnt)
            assert code == USAGE
            assert f"{mnt} is in use: {db} is mounted there (avccfs, pid {at.pid})" in said
            assert f"avccfs umount {mnt}" in said
        assert (mnt / "CURRENT").read_text() == FIRST


def test_dead_mount_point_is_explained(db: Path, mnt: Path) -> None:
    avccfs("mount", db, mnt)
    pid = pid_of(mnt)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    code, said = refused(db, mnt)
    assert code == USAGE
    assert f"{mnt} is a dead mount" in said
    assert f"avccfs umount {mnt}" in said
    avccfs("umount", mnt)
    with mounted(db, mnt):
        assert (mnt / "CURRENT").read_text() == FIRST


def test_places_that_make_no_sense_are_refused(db: Path, mnt: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    inside = db / "inside"
    inside.mkdir()
    before = tree(db)
    cases: list[tuple[str | Path, Path, list[str]]] = [
        (db, tmp_path / "missing", [f"{tmp_path}/missing does not exist", "mkdir -p"]),
        (db, file, [f"{file} is not a directory"]),
        (tmp_path / "missing", mnt, [f"{tmp_path}/missing does not exist"]),
        (file, mnt, [f"{file} is not a directory"]),
        (db, inside, [str(inside), f"inside the source {db}"]),
    ]
    for source, place, words in cases:
        code, said = refused(source, place)
        assert code == USAGE
        for word in words:
            assert word in said
    assert not (tmp_path / "missing").exists()
    assert tree(db) == before


def test_missing_arguments_and_unknown_switches_are_wrong_usage(db: Path, mnt: Path) -> None:
    assert refused(db)[0] == USAGE
    assert refused(db, mnt, "--paint-it-black")[0] == USAGE


def test_directory_is_mounted_over_itself(db: Path) -> None:
    with mounted(db, db):
        assert (db / "CURRENT").read_text() == FIRST
        (db / "CURRENT").write_text(SECOND)
        (db / "fresh").write_text("here")
        assert db.is_mount()
    assert (db / "CURRENT").read_text() == SECOND
    assert (db / "fresh").read_text() == "here"


def test_relative_and_linked_places_are_found(db: Path, mnt: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(tmp_path)
    command = [*AVCCFS, "mount", "way/db", "way/mnt/"]
    subprocess.run(command, cwd=tmp_path, timeout=60, check=True)
    assert (mnt / "CURRENT").read_text() == FIRST
    command = [*AVCCFS, "umount", "way/mnt/"]
    subprocess.run(command, cwd=tmp_path, timeout=60, check=True)
    assert not mnt.is_mount()


@pytest.mark.parametrize("content", [[], ["CURRENT"], ["000001.log", "notes"]], ids=len)
def test_empty_and_half_empty_directories_are_mounted(
    content: list[str], tmp_path: Path, mnt: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in content:
        (source / name).write_bytes(b"\x00broken")
    with mounted(source, mnt):
        assert tree(mnt) == dict.fromkeys(content, b"\x00broken") | {"LOCK": b""}


# Looking only


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything about the files that mounting must leave alone."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (root, *sorted(root.rglob("*"))):
        if path.name != "LOCK":
            told = path.lstat()
            found[path.name] = (
                *(told.st_mode, told.st_uid, told.st_gid, told.st_ino, told.st_nlink),
                told.st_size if path != root else 0,
                told.st_mtime_ns if path != root else 0,
                told.st_atime_ns if path != root else 0,
                told.st_ctime_ns if path != root else 0,
            )
    return found


@pytest.mark.parametrize("name", sorted(path.parent.name for path in FIXTURES.glob("*/db")))
def test_mounting_and_looking_changes_nothing_on_disk(name: str, tmp_path: Path, mnt: Path) -> None:
    source = Path(shutil.copytree(FIXTURES / name / "db", tmp_path / "source"))
    for path in source.iterdir():
        # Last read before it was last written: a read that counts would show.
        os.utime(path, ns=(1_000_000_000, 1_700_000_000_123_456_789))
    before, content = facts(source), tree(FIXTURES / name / "db")
    with mounted(source, mnt):
        look = "ls -la && cat *[!K] | cksum && stat * && du -a ."
        subprocess.run(["bash", "-c", look], cwd=mnt, stdout=-3, timeout=60, check=True)
        assert tree(mnt) == content
    assert facts(source) == before
    assert tree(source) == content


# Options


def test_mount_options_reach_the_kernel(db: Path, mnt: Path) -> None:
    def listed() -> list[str]:
        [line] = [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4] == os.fspath(mnt)
        ]
        return line.split()

    with mounted(db, mnt):
        fields = listed()
        assert fields[-3:-1] == ["fuse.avccfs", os.fspath(db)]
        assert "default_permissions" in fields[-1].split(",")
        assert "allow_other" not in fields[-1].split(",")
    with mounted(db, mnt, "-o", "ro,default_permissions", "-o", "fsname=my db,noexec"):
        fields = listed()
        assert fields[-2] == r"my\040db"
        assert {"ro", "noexec", "nosuid", "nodev"} >= {"ro", "noexec"} & {*fields[5].split(",")}
        assert {"ro", "noexec"} <= {*fields[5].split(",")}
        with pytest.raises(OSError, match="Read-only file system"):
            (mnt / "fresh").touch()


def test_unknown_option_is_refused_with_the_list_of_known_ones(db: Path, mnt: Path) -> None:
    code, said = refused("-o", "ro,paint=black", db, mnt)
    assert code == USAGE
    assert "'paint=black'" in said
    for known in ("ro", "allow_other", "default_permissions", "fsname=", "unlocked", "log_file="):
        assert known in said
    assert not mnt.is_mount()


def test_words_of_fstab_are_understood() -> None:
    words = "noauto,user,x-systemd.automount,x-systemd.idle-timeout=60,nofail,_netdev,defaults,ro"
    assert MountOptions().with_words(words) == MountOptions(read_only=True)


@pytest.fixture
def mount_program(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a script where mount(8) finds `avccfs`: it looks in the system's folders only."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "avccfs").symlink_to(Path(sys.executable).parent / "avccfs")

    def run(script: str) -> subprocess.CompletedProcess[str]:
        # In a mount namespace of its own, so that nobody else sees it there.
        inside = f"mount --bind {folder} /usr/local/sbin; {script}"
        command = ["unshare", "--mount", "bash", "-euc", inside]
        return subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)

    return run


@only_root
@pytest.mark.parametrize(
    "unmount", ["umount", f"{' '.join(AVCCFS)} umount"], ids=["umount", "ours"]
)
@pytest.mark.parametrize("options", ["", "-o ro,noauto,user,x-systemd.automount,nofail"])
def test_mount_program_mounts_by_type(
    options: str,
    unmount: str,
    db: Path,
    mnt: Path,
    mount_program: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = mount_program(
        f"mount -t fuse.avccfs {options} {db} {mnt}; cat {mnt}/CURRENT;"
        f" findmnt -no FSTYPE,SOURCE {mnt}; touch {mnt}/fresh || echo refused; {unmount} {mnt}"
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    assert said[:3] == [FIRST.strip(), "fuse.avccfs", os.fspath(db)]
    assert (said[3:] == ["refused"]) == ("ro" in options)
    assert (db / "fresh").exists() == ("ro" not in options)
    if unmount != "umount":
        assert_unlocked(db)


@only_root
def test_mount_program_tells_why_it_could_not(
    db: Path, mnt: Path, mount_program: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    with GOLEVELDB.hold(db) as held:
        done = mount_program(f"mount -t fuse.avccfs {db} {mnt}")
        assert done.returncode == LOCKED
        assert f"(pid {held.pid})" in done.stderr
    done = mount_program(f"mount -t fuse.avccfs -o paint=black {db} {mnt}")
    assert done.returncode == USAGE
    assert "'paint=black'" in done.stderr


# Other users

NOBODY, SOMEBODY = 65534, 54321


def as_user(uid: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=uid,
        group=uid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def reachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of nobody's that everybody can reach, and a /dev/fuse for everybody, as udev makes it."""
    import tempfile

    if as_user(NOBODY, sys.executable, "-c", "import avccfs").returncode:
        pytest.skip("this checkout is out of reach for the user nobody")
    fuse = Path("/dev/fuse")
    mode = fuse.stat().st_mode & 0o777
    fuse.chmod(mode | 0o666)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name in ("db", "mnt"):
            (root / name).mkdir()
            os.chown(root / name, NOBODY, NOBODY)
        GOLEVELDB.fill(root / "db", Fill(50))
        for path in (root / "db").iterdir():
            os.chown(path, NOBODY, NOBODY)
        try:
            yield root
        finally:
            if mounts.mount_at(os.fspath(root / "mnt")) is not None:
                avccfs("umount", "--lazy", root / "mnt", check=False)
            fuse.chmod(mode)


@only_root
def test_ordinary_user_mounts_uses_and_unmounts(reachable: Path) -> None:
    db, mnt = reachable / "db", reachable / "mnt"
    done = as_user(NOBODY, *AVCCFS, "mount", db, mnt)
    assert done.returncode == FINE, done.stderr
    pid = pid_of(mnt)
    assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
    assert as_user(NOBODY, "cat", mnt / "CURRENT").stdout == (db / "CURRENT").read_text()
    done = as_user(
        NOBODY, "bash", "-c", f"echo hi > {mnt}/fresh && mkdir {mnt}/lost && sync {mnt}/fresh"
    )
    assert done.returncode == 0, done.stderr
    for uid in (SOMEBODY, 0):
        for command in ("ls", "stat"):
            done = as_user(uid, command, mnt / "CURRENT")
            assert done.returncode != 0
            assert "Permission denied" in done.stderr
    done = as_user(NOBODY, *AVCCFS, "umount", mnt)
    assert done.returncode == FINE, done.stderr
    assert_unlocked(db)
    wait_until_gone(pid)
    assert (db / "fresh").read_text() == "hi\n"
    assert {(db / name).stat().st_uid for name in ("fresh", "lost")} == {NOBODY}
    assert GOLEVELDB.open(db) == Content.of(Fill(50).items())


@only_root
def test_ordinary_user_is_told_why_a_mount_is_not_possible(reachable: Path) -> None:
    db, mnt = reachable / "db", reachable / "mnt"
    os.chown(mnt, 0, 0)
    done = as_user(NOBODY, *AVCCFS, "mount", db, mnt)
    assert done.returncode == FAILED
    assert f"{mnt}: an ordinary user must be able to write the mount point" in done.stderr
    os.chown(mnt, NOBODY, NOBODY)
    configured = Path("/etc/fuse.conf")
    lines = configured.read_text().splitlines() if configured.exists() else []
    if "user_allow_other" not in lines:
        done = as_user(NOBODY, *AVCCFS, "mount", "-o", "allow_other", db, mnt)
        assert done.returncode == FAILED
        assert "user_allow_other" in done.stderr
    (db / "LOCK").chmod(0o600)
    os.chown(db / "LOCK", 0, 0)
    done = as_user(NOBODY, *AVCCFS, "mount", db, mnt)
    assert done.returncode == FAILED
    assert "Permission denied" in done.stderr
    assert "LOCK" in done.stderr
    assert not mnt.is_mount()


@only_root
def test_mount_of_root_is_closed_to_others_and_not_theirs_to_unmount(reachable: Path) -> None:
    db, mnt = reachable / "db", reachable / "mnt"
    avccfs("mount", db, mnt)
    done = as_user(NOBODY, "ls", mnt)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr
    done = as_user(NOBODY, *AVCCFS, "umount", mnt)
    assert done.returncode == FAILED
    assert mnt.is_mount()
    avccfs("umount", mnt)


@only_root
def test_root_unmounts_the_mount_of_an_ordinary_user(reachable: Path) -> None:
    db, mnt = reachable / "db", reachable / "mnt"
    assert as_user(NOBODY, *AVCCFS, "mount", db, mnt).returncode == FINE
    code, said = refused(db, mnt)
    assert code == USAGE
    assert "is in use" in said
    avccfs("umount", mnt)
    assert_unlocked(db)


@only_root
def test_allow_other_lets_others_in_and_modes_and_owners_count(reachable: Path) -> None:
    db, mnt = reachable / "db", reachable / "mnt"
    db.chmod(0o777)
    os.chown(db, 0, 0)
    (db / "open").write_text("for all")
    (db / "closed").write_text("for root")
    (db / "closed").chmod(0o600)
    avccfs("mount", "-o", "allow_other", db, mnt)
    assert as_user(NOBODY, "cat", mnt / "open").stdout == "for all"
    for command in ("cat {}/closed", "echo >> {}/open", "chmod 666 {}/open", "chown 65534 {}/open"):
        done = as_user(NOBODY, "bash", "-c", command.format(mnt))
        assert done.returncode != 0, command
        assert "denied" in done.stderr or "not permitted" in done.stderr
    made = "umask 022; echo mine > {0}/fresh; mkdir {0}/folder; ln -s fresh {0}/link; cp {0}/open {0}/copy"
    done = as_user(NOBODY, "bash", "-c", made.format(mnt))
    assert done.returncode == 0, done.stderr
    for place in (mnt, db):
        for name in ("fresh", "folder", "link", "copy"):
            told = (place / name).lstat()
            assert (told.st_uid, told.st_gid) == (NOBODY, NOBODY), name
    assert (mnt / "fresh").stat().st_mode & 0o777 == 0o644
    (mnt / "by-root").touch()
    assert (db / "by-root").stat().st_uid == 0
    avccfs("umount", mnt)
