"""Many operations leave nothing behind: no identity, no handle, no descriptor, no memory."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from avccfs.fs.core import Core
from avccfs.fs.inodes import ROOT
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Attributes, Directory, Rename
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from tests.mounting import descriptors_of, mounted, pid_of

pytestmark = pytest.mark.mounted

MANIFEST, OTHER = "MANIFEST-000001", "MANIFEST-000002"
CALM = 20
"""More than a mount that nobody uses has open: itself, its loop, its logs."""
NAMES = [f"{number:06d}.{suffix}" for number in range(20) for suffix in ("log", "ldb", "other")]


class Load:
    """A caller that behaves as the kernel does: it gives every lookup back, some of them late."""

    def __init__(self, core: Core, seed: int) -> None:
        self.core = core
        self.chance = random.Random(seed)
        self.done = 0
        self.lookups: list[int] = []
        self.open: list[int] = []

    def run(self, count: int) -> None:
        """Make `count` calls of the core, and then give everything back."""
        end = self.done + count
        turns = [self.make, self.read, self.replace, self.vanish, self.folder]
        while self.done < end:
            self.chance.choice(turns)()
            if self.chance.random() < 0.02:
                self.switch()
                self.list()
            if len(self.lookups) > 500:
                self.give_back()
        self.give_back()

    def give_back(self) -> None:
        for handle in self.open:
            self.core.flush(handle)
            self.core.release(handle)
        self.core.forget([(number, 1) for number in self.lookups])
        self.done += 2 * len(self.open) + len(self.lookups)
        self.open.clear()
        self.lookups.clear()

    def find(self, name: str) -> int | None:
        self.done += 1
        try:
            number = self.core.lookup(ROOT, name).number
        except FileNotFoundError:
            return None
        self.lookups.append(number)
        return number

    def make(self) -> None:
        name = self.chance.choice(NAMES)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        number = self.find(name)
        if number is None:
            entry, opened = self.core.create(ROOT, name, 0o644, flags, None)
            self.lookups.append(entry.number)
        else:
            opened = self.core.open(number, flags)
        self.core.write(opened.handle, b"x" * 200, 0)
        self.core.write(opened.handle, b"y" * 100, 200)
        self.open.append(opened.handle)
        self.done += 3

    def read(self) -> None:
        number = self.find(self.chance.choice(NAMES))
        if number is not None:
            handle = self.core.open(number, os.O_RDONLY).handle
            self.core.getattr(number)
            self.core.read(handle, 4096, 0)
            self.core.setattr(number, Attributes(mode=0o600))
            self.open.append(handle)
            self.done += 4

    def replace(self) -> None:
        old, new = self.chance.sample(NAMES, 2)
        how = self.chance.choice([Rename.REPLACE, Rename.EXCHANGE])
        there = self.find(old) is not None, self.find(new) is not None
        if there[0] and (there[1] or how is Rename.REPLACE):
            self.core.rename(ROOT, old, ROOT, new, how)
            self.done += 1

    def vanish(self) -> None:
        name = self.chance.choice(NAMES)
        if self.find(name) is not None:
            self.core.unlink(ROOT, name)
            self.done += 1

    def list(self) -> None:
        handle = self.core.open_folder(ROOT)
        for name, found, _ in self.core.list_folder(handle, 0):
            self.lookups.append(self.core.list_entry(handle, name, found).number)
        self.core.release_folder(handle)
        self.done += 3

    def folder(self) -> None:
        made = self.core.mkdir(ROOT, "lost", 0o755, None)
        inside, opened = self.core.create(made.number, "file", 0o644, os.O_WRONLY, None)
        link = self.core.link(inside.number, ROOT, "link")
        self.core.unlink(made.number, "file")
        self.core.rmdir(ROOT, "lost")
        self.core.unlink(ROOT, "link")
        self.lookups += [made.number, inside.number, link.number]
        self.open.append(opened.handle)
        self.done += 6

    def switch(self) -> None:
        number = self.find("CURRENT")
        assert number is not None
        handle = self.core.open(number, os.O_WRONLY | os.O_TRUNC).handle
        target = self.chance.choice([MANIFEST, OTHER])
        self.core.write(handle, f"{target}\n".encode(), 0)
        self.open.append(handle)
        self.done += 2


def new_core(directory: Directory) -> Core:
    core = Core(DirectoryStorage(directory, write_log=False))
    for name in (MANIFEST, OTHER):
        entry, opened = core.create(ROOT, name, 0o644, os.O_WRONLY, None)
        core.release(opened.handle)
        core.forget([(entry.number, 1)])
    entry, opened = core.create(ROOT, "CURRENT", 0o644, os.O_WRONLY, None)
    core.write(opened.handle, f"{MANIFEST}\n".encode(), 0)
    core.release(opened.handle)
    core.forget([(entry.number, 1)])
    return core


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def check_nothing_grows(make: Callable[[], Directory], count: int) -> None:
    before = descriptors()
    core = new_core(make())
    load = Load(core, 1)
    load.run(count // 10)
    gc.collect()
    warm_objects, warm_descriptors = len(gc.get_objects()), descriptors()
    assert core.counts() == (1, 0)
    load.run(count - load.done)
    assert load.done >= count
    # The root, and nothing else.
    assert core.counts() == (1, 0)
    gc.collect()
    assert descriptors() == warm_descriptors
    # A leak of one object in a hundred operations would be far more.
    assert len(gc.get_objects()) - warm_objects < 1000
    core.close()
    assert descriptors() == before


@pytest.mark.slow
def test_million_operations_in_memory_leave_nothing_behind() -> None:
    check_nothing_grows(MemoryDirectory, 1_000_000)


def test_operations_on_a_local_directory_leave_nothing_behind(db: Path) -> None:
    check_nothing_grows(lambda: LocalDirectory(db), 30_000)


# Through the kernel.


def mixed_calls(root: Path, count: int, seed: int) -> None:
    """About `count` system calls on a mount."""
    chance = random.Random(seed)
    names = [root / name for name in NAMES[:30]]
    for turn in range(count // 10):
        one, two = chance.sample(names, 2)
        fd = os.open(one, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.pwrite(fd, b"z" * 5000, 0)
        if turn % 50 == 0:
            os.fsync(fd)
        os.rename(one, two)
        os.pread(fd, 100, 10)
        if chance.random() < 0.5:
            os.unlink(two)
        os.fstat(fd)
        os.close(fd)
        if turn % 20 == 0:
            os.listdir(root)
            (root / "CURRENT").write_text(f"{chance.choice([MANIFEST, OTHER])}\n")
        (root / f"lost{turn % 7}").mkdir(exist_ok=True)
        (root / f"lost{turn % 7}").rmdir()
        for path in (one, two):
            path.exists()
    for path in names:
        path.unlink(missing_ok=True)


def make_the_kernel_forget() -> None:
    """Drop every cached name: the server is then told to forget them."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


def resident(pid: int) -> int:
    """Memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def settle(pid: int, wanted: int) -> Sequence[str]:
    """What the server has open, once it is no more than wanted; closing reaches it a bit later."""
    deadline = time.monotonic() + 20
    while len(found := descriptors_of(pid)) > wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the kernel forget")
def test_mount_holds_no_descriptor_and_no_memory_of_what_is_over(db: Path, mnt: Path) -> None:
    with mounted(db, mnt) as at:
        (mnt / MANIFEST).touch()
        (mnt / OTHER).touch()
        mixed_calls(mnt, 5000, seed=0)
        make_the_kernel_forget()
        # By now the log has been opened too. Handles may still be on their way to be closed.
        before = settle(at.pid, CALM)
        assert len(before) <= CALM, before
        warm = resident(at.pid)
        mixed_calls(mnt, 20_000, seed=1)
        for _ in range(20):
            assert pid_of(mnt) == at.pid
        make_the_kernel_forget()
        found = settle(at.pid, len(before))
        assert len(found) <= len(before), (before, found)
        assert resident(at.pid) - warm < 4 << 20
        assert sorted(path.name for path in mnt.iterdir()) == sorted(
            path.name for path in db.iterdir()
        )
