"""Cores that the command does not make, on a real mount: `python -m tests.fs.serving KIND MNT`.

Prints `ready` once the mount answers, and what it logs to stderr; ends when it is unmounted.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from avccfs.fs.core import Core, Entry
from avccfs.fs.rendered import Write
from avccfs.fs.viewed import ViewedCore
from avccfs.fs.views import ViewFile, ViewFolder, ViewNode, Views
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.memory import MemoryDirectory
from tests.mounting import avccfs, require_fuse

ROOM = 256 * 1024
"""Bytes that fit on the mount `full`."""


class BrokenCore(Core):
    """Has a bug in one place: the name `boom`."""

    def lookup(self, parent: int, name: str) -> Entry:
        if name == "boom":
            raise RuntimeError("a bug that nobody expected")
        return super().lookup(parent, name)


class OddViewsCore(ViewedCore):
    """Has views made by hand: `quick`, `fails`, and `deep/slow`, which waits for a file called `go`.

    The slow one lies in a folder of its own: the kernel looks up one name of a folder at a time.
    """

    def make_views(self) -> Views:
        deep: dict[str, ViewNode] = {"slow": ViewFile(self._wait)}
        nodes: dict[str, ViewNode] = {
            "quick": ViewFile(self._quick, lambda: 1),
            "fails": ViewFile(self._fail, lambda: 1),
            "deep": ViewFolder(lambda: deep),
        }
        return Views(ViewFolder(lambda: nodes), owner=(0, 0))

    def _quick(self, write: Write) -> None:
        write(b"quick\n")

    def _say(self, write: Write) -> None:
        write(b"quick\n")

    def _fail(self, write: Write) -> None:
        raise RuntimeError("a bug in a view")

    def _wait(self, write: Write) -> None:
        while "go" not in self.directory.names():
            time.sleep(0.01)
        write(b"slow\n")


def make(kind: str) -> Core:
    if kind == "views":
        return OddViewsCore(DirectoryStorage(MemoryDirectory()), ".avccfs")
    if kind == "broken":
        return BrokenCore(DirectoryStorage(MemoryDirectory()))
    return Core(DirectoryStorage(MemoryDirectory(capacity=ROOM)))


@dataclass
class Served:
    path: Path
    errors: Path
    process: subprocess.Popen[str]

    def log(self) -> str:
        return self.errors.read_text()


@contextmanager
def served(kind: str, mountpoint: Path, *options: str) -> Iterator[Served]:
    """Mount a core of this kind; unmounted at the end, when its process has to end well."""
    require_fuse()
    mountpoint.mkdir()
    errors = mountpoint.with_name(f"{mountpoint.name}.errors")
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fs.serving", kind, mountpoint, *options],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", errors.read_text()
            yield Served(mountpoint, errors, process)
            if process.poll() is None:
                avccfs("umount", mountpoint)
            assert process.wait(30) == 0, errors.read_text()
        finally:
            if process.poll() is None:
                avccfs("umount", "--lazy", mountpoint, check=False)
                process.kill()


def main(kind: str, mountpoint: str, *options: str) -> None:
    from avccfs.fuse.options import MountOptions
    from avccfs.fuse.server import serve

    logging.basicConfig(level=logging.INFO)
    core = make(kind)
    words = MountOptions(write_through="--write-through" in options)
    try:
        serve(
            core,
            mountpoint,
            words,
            source=f"test:{kind}",
            on_ready=lambda: print("ready", flush=True),
        )
    finally:
        core.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
