"""A real mount for a test: made by the real command, checked and taken down at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from avccfs.fuse import mounts

AVCCFS = (sys.executable, "-m", "avccfs")


def avccfs(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command; with `check` a failure fails the test with what it printed."""
    done = subprocess.run(
        [*AVCCFS, *(os.fspath(one) for one in arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(
            f"{done.args} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done


@dataclass(frozen=True)
class MountedAt:
    """A mount that is up."""

    path: Path
    source: str
    log_file: Path
    pid: int

    def log(self) -> str:
        """What the mount has said so far."""
        return self.log_file.read_text() if self.log_file.exists() else ""


def require_fuse() -> None:
    """Fail, not skip: a machine without FUSE cannot vouch for the mount."""
    assert Path("/dev/fuse").exists(), (
        "there is no /dev/fuse: the mounted tests cannot run here; --no-mount leaves them out"
    )


def pid_of(mountpoint: Path) -> int:
    """The process that serves a mount."""
    there = mounts.mount_at(os.fspath(mountpoint))
    assert there is not None, f"nothing is mounted at {mountpoint}"
    server = mounts.server_of(there)
    assert server is not None, f"nobody serves {mountpoint}"
    server.connection.close()
    return server.pid


@contextmanager
def mounted(
    source: str | Path, mountpoint: Path, *options: str, unmount: bool = True, provoked: str = ""
) -> Iterator[MountedAt]:
    """Mount, and unmount at the end. `unmount=False` for a test that ends the mount itself.

    The test fails if the mount met an error, except one whose line holds the text `provoked`.
    """
    require_fuse()
    mountpoint.mkdir(parents=True, exist_ok=True)
    log_file = mountpoint.with_name(mountpoint.name + ".messages")
    avccfs("mount", "--log-file", log_file, *options, source, mountpoint)
    at = MountedAt(mountpoint, os.fspath(source), log_file, pid_of(mountpoint))
    try:
        yield at
    finally:
        if mounts.mount_at(os.fspath(mountpoint)) is not None:
            avccfs("umount", *(() if unmount else ("--lazy",)), mountpoint)
    if unmount:
        met = [line for line in at.log().splitlines() if " ERROR " in line]
        unexpected = [line for line in met if not provoked or provoked not in line]
        assert not unexpected, "the mount met errors nobody expected:\n" + at.log()


def unmount_below(folder: Path) -> None:
    """Take out of the tree what a failed test left mounted: the next run could not clean up."""
    for one in reversed(mounts.mounts()):
        if one.mountpoint.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", one.mountpoint], timeout=30, check=False)


def tree(root: Path) -> dict[str, bytes]:
    """Every regular file below a folder, by relative name: what must not change when nobody writes."""
    return {
        os.fspath(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def descriptors_of(pid: int) -> Sequence[str]:
    """What a process has open, for a leak check."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
    return sorted(found)
