"""The ten operations that a rule can name, each as one system call on a journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from avccfs.fuse.selftest.bench import NEW, OLD, SIZE, Bench


@dataclass(frozen=True, slots=True)
class Begun:
    """A deed that is all prepared."""

    call: Callable[[], object]
    happened: Callable[[], bool] | None = None
    """Whether the directory behind the mount shows that it was done; None where nothing can."""


@dataclass(frozen=True, slots=True)
class Deed:
    """A system call that is one operation."""

    targets: str
    """Operation and kind of file, as a rule names them: `write journal`."""
    words: str
    begin: Callable[[Bench], Begun]


def _open(bench: Bench) -> Begun:
    path = bench.path(bench.make())
    return Begun(lambda: os.close(os.open(path, os.O_RDONLY)))


def _create(bench: Bench) -> Begun:
    name = bench.name()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    return Begun(
        lambda: os.close(os.open(bench.path(name), flags, 0o644)), lambda: bench.is_below(name)
    )


def _read(bench: Bench) -> Begun:
    # Past the cache: for a page that it cannot read, the kernel asks twice.
    fd = bench.open(bench.make(), os.O_RDONLY | os.O_DIRECT)
    return Begun(lambda: os.pread(fd, SIZE, 0))


def _write(bench: Bench) -> Begun:
    name = bench.make()
    fd = bench.open(name)
    return Begun(lambda: os.pwrite(fd, NEW, 0), lambda: bench.below(name) != OLD)


def _sync(bench: Bench) -> Begun:
    fd = bench.open(bench.make())
    return Begun(lambda: os.fsync(fd))


def _sync_dir(bench: Bench) -> Begun:
    def sync() -> None:
        fd = os.open(bench.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    return Begun(sync)


def _rename(bench: Bench) -> Begun:
    old, new = bench.make(), bench.name()
    return Begun(
        lambda: os.rename(bench.path(old), bench.path(new)),
        lambda: bench.is_below(new) or not bench.is_below(old),
    )


def _remove(bench: Bench) -> Begun:
    name = bench.make()
    return Begun(lambda: os.unlink(bench.path(name)), lambda: not bench.is_below(name))


def _truncate(bench: Bench) -> Begun:
    name = bench.make()
    fd = bench.open(name)
    return Begun(lambda: os.ftruncate(fd, 100), lambda: bench.below(name) != OLD)


def _close(bench: Bench) -> Begun:
    file = bench.path(bench.make()).open("rb", buffering=0)
    # Once it was closed, however that went, another time does nothing.
    bench.at_end(file.close)
    return Begun(file.close)


OPEN = Deed("open journal", "open", _open)
CREATE = Deed("create journal", "open with O_CREAT", _create)
READ = Deed("read journal", f"read of {SIZE} bytes", _read)
WRITE = Deed("write journal", f"write of {SIZE} bytes", _write)
SYNC = Deed("sync journal", "fsync", _sync)
SYNC_DIR = Deed("sync-dir", "fsync of the folder", _sync_dir)
RENAME = Deed("rename journal", "rename", _rename)
REMOVE = Deed("remove journal", "unlink", _remove)
TRUNCATE = Deed("truncate journal", "ftruncate", _truncate)
CLOSE = Deed("close journal", "close", _close)

DEEDS = (OPEN, CREATE, READ, WRITE, SYNC, SYNC_DIR, RENAME, REMOVE, TRUNCATE, CLOSE)
