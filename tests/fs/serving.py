"""Cores that the command does not make, on a real mount: `python -m tests.fs.serving KIND MNT`.

Prints `ready` once the mount answers, and what it logs to stderr; ends when it is unmounted.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from avccfs.fs.core import Core, Entry
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


def make(kind: str) -> Core:
    if kind == "broken":
        return BrokenCore(DirectoryStorage(MemoryDirectory()))
    return Core(DirectoryStorage(MemoryDirectory(capacity=ROOM)))


@dataclass
class Served:
    path: Path
    errors: Path

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
            yield Served(mountpoint, errors)
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
