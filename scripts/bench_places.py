"""The places that are compared, and the care that none of them outlives the run.

A place shows a source directory natively, through bindfs, or through avccfs in one of its ways;
every place has its sources, and an overlay its changes, in the same temporary folder, so on the same
file system.
"""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType

from avccfs.fuse import mounts

PATIENCE = 60.0
"""Seconds to wait for a mount or an unmount."""
AVCCFS = (str(Path(sys.executable).with_name("avccfs")),)


class Place(enum.Enum):
    """A way to a directory; the value is its name in tables and JSON."""

    NATIVE = "native"
    BINDFS = "bindfs"
    AVCCFS = "avccfs"
    WRITE_THROUGH = "avccfs --write-through"
    OVERLAY = "avccfs --overlay"
    OVERLAY_DIR = "avccfs --overlay DIR"
    FAULTS = "avccfs --fault none"

    @property
    def option(self) -> str:
        """What tells it from the plain mount; the whole name if it is no mount of avccfs."""
        return self.value.removeprefix("avccfs ")


_CHANGES = "DIR"
"""In a command: a new folder beside the mount point, for the changes of an overlay."""
_MOUNT = {
    Place.BINDFS: ("bindfs",),
    Place.AVCCFS: (*AVCCFS, "mount"),
    Place.WRITE_THROUGH: (*AVCCFS, "mount", "--write-through"),
    Place.OVERLAY: (*AVCCFS, "mount", "--overlay"),
    Place.OVERLAY_DIR: (*AVCCFS, "mount", "--overlay", _CHANGES),
    Place.FAULTS: (*AVCCFS, "mount", "--fault", "none"),
}


class BenchError(Exception):
    """Something could not be measured; the text says what and what to do."""


def check_tools(places: Collection[Place]) -> None:
    """Raise `BenchError` if this machine lacks what these places need."""
    if not Path("/dev/fuse").exists():
        raise BenchError(
            "there is no /dev/fuse on this machine: load the kernel module with: modprobe fuse"
        )
    if Place.BINDFS in places and shutil.which("bindfs") is None:
        raise BenchError("bindfs is missing; install it with: scripts/setup --dev")


@contextlib.contextmanager
def shown(place: Place, source: Path, mountpoint: Path) -> Iterator[Path]:
    """Show `source` in a place for the length of the block; yields where to work."""
    if place is Place.NATIVE:
        yield source
        return
    words = _MOUNT[place]
    changes = mountpoint.with_name(f"{mountpoint.name}-changes")
    with interrupts.held_back():
        mountpoint.mkdir()
        if _CHANGES in words:
            changes.mkdir()
        words = tuple(str(changes) if word == _CHANGES else word for word in words)
        _call([*words, str(source), str(mountpoint)])
    try:
        yield mountpoint
    finally:
        with interrupts.held_back():
            _unmount(mountpoint)
            mountpoint.rmdir()
            if changes.exists():
                shutil.rmtree(changes)


@contextlib.contextmanager
def room(parent: Path | None) -> Iterator[Path]:
    """A temporary folder. At the end whatever is still mounted below it is unmounted, and it goes."""
    with interrupts.held_back():
        path = Path(tempfile.mkdtemp(prefix="avccfs-bench-", dir=parent)).resolve()
    try:
        yield path
    finally:
        with interrupts.held_back():
            for left in _mounted_below(path):
                _unmount(Path(left))
            if not _mounted_below(path):
                shutil.rmtree(path)


def drop_caches(files: Sequence[Path]) -> str:
    """Make the next read come from the disk. Returns how that was done."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except PermissionError:
        # Without root the pages of single files can go; names and attributes stay cached.
        for file in files:
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return "posix_fadvise"
    return "drop_caches"


class _Interrupts:
    """Ctrl-C and SIGTERM end the run, but never between making a mount and knowing of it."""

    def __init__(self) -> None:
        self._held = 0
        self._waiting = False

    def listen(self) -> None:
        """Turn both signals into `KeyboardInterrupt`."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._arrived)

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """A block that is finished first."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._waiting and not self._held:
                self._waiting = False
                raise KeyboardInterrupt

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._waiting = True
        else:
            raise KeyboardInterrupt


interrupts = _Interrupts()


def _mounted_below(path: Path) -> list[str]:
    inside = f"{path}{os.sep}"
    # Later mounts may lie on earlier ones.
    return [
        one.mountpoint for one in reversed(mounts.mounts()) if one.mountpoint.startswith(inside)
    ]


def _unmount(mountpoint: Path) -> None:
    """Unmount; a mount that will not go leaves the tree at once, so that nothing stays behind."""
    there = mounts.mount_at(str(mountpoint))
    if there is None:
        return
    try:
        if there.fstype == mounts.FSTYPE:
            _call([*AVCCFS, "umount", str(mountpoint)])
        else:
            _call([*_plain_unmount(), str(mountpoint)])
    except BenchError as error:
        print(f"bench: {error}; unmounting lazily", file=sys.stderr)
        _call([*_plain_unmount(), "-l" if os.geteuid() == 0 else "-z", str(mountpoint)])


def _plain_unmount() -> list[str]:
    return ["umount", "-i"] if os.geteuid() == 0 else ["fusermount3", "-u"]


def _call(command: Sequence[str]) -> None:
    # Complaints go to a file: the process that stays behind to serve would keep a pipe open for
    # ever. In a session of its own, because a Ctrl-C at the terminal is ours to act upon.
    with tempfile.TemporaryFile() as complaints:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{' '.join(command)}: no answer within {PATIENCE:.0f} s") from None
        complaints.seek(0)
        words = complaints.read().decode(errors="replace").strip()
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: exit status {done.returncode}: {words}")
