"""Memory and a real file system, driven side by side: same names, same bytes, same errors.

Left out because they differ on purpose: the size of folders, times, how much room a file takes, and
what depends on rights (modes that keep the owner out, setuid and setgid).
"""

from __future__ import annotations

import errno
import shutil
import stat
import tempfile
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from avccfs.vfs.base import Attributes, Directory, File, Open, Rename, join
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory

# Few names, so that operations meet; folders in folders; and what no path may be.
PATHS = st.one_of(
    st.sampled_from(["a", "b", "d", "e", "d/a", "d/b", "d/e", "d/e/a", "e/a", "CURRENT"]),
    st.sampled_from(["", "..", "a/", "n" * 256, "d/" + "n" * 256, "\udcff"]),
)
FLAGS = st.sampled_from(
    [
        Open.READ,
        Open.WRITE,
        Open.WRITE | Open.CREATE,
        Open.WRITE | Open.CREATE | Open.EXCLUSIVE,
        Open.WRITE | Open.TRUNCATE,
        Open.WRITE | Open.CREATE | Open.TRUNCATE,
        Open.CREATE,
    ]
)
OFFSETS = st.sampled_from([0, 1, 4095, 4096, 65535, 65536, 70000, -1])
SIZES = st.sampled_from([0, 1, 5, 4097])
MAX_HANDLES = 4

Tree = dict[str, tuple[int, int, int, bytes | str | None]]
Outcome = tuple[str, object]


def outcome(call: Callable[[], object]) -> Outcome:
    """What a call gave: its result, or the errno it failed with and the paths it named."""
    try:
        return "result", call()
    except OSError as exc:
        code = errno.errorcode[exc.errno] if exc.errno is not None else None
        return "error", (code, exc.filename, exc.filename2)


def tree(directory: Directory, path: str = "") -> Tree:
    """Everything below a path: mode, link count, group of names of one file, content."""
    found: Tree = {}
    for name in sorted(directory.names(path)):
        here = join(path, name)
        told = directory.stat(here)
        content: bytes | str | None = None
        if stat.S_ISREG(told.mode):
            file = directory.open(here)
            content = file.read_at(told.size, 0)
            file.close()
        elif stat.S_ISLNK(told.mode):
            content = directory.readlink(here)
        else:
            found.update(tree(directory, here))
        size = 0 if stat.S_ISDIR(told.mode) else told.size
        found[here] = (told.mode, told.nlink, size, content)
    return found


def families(directory: Directory) -> set[frozenset[str]]:
    """The names that are one file, together."""
    groups: dict[int, set[str]] = {}
    for path in tree(directory):
        groups.setdefault(directory.stat(path).inode, set()).add(path)
    return {frozenset(group) for group in groups.values()}


class SideBySide(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.mkdtemp()
        self.memory = MemoryDirectory()
        self.local = LocalDirectory(f"{self.place}/db")
        self.handles: list[tuple[File, File]] = []

    def teardown(self) -> None:
        for pair in self.handles:
            for file in pair:
                file.close()
        self.local.close()
        shutil.rmtree(self.place)

    def both(self, call: Callable[[Directory], object]) -> None:
        assert outcome(lambda: call(self.memory)) == outcome(lambda: call(self.local))

    def on_handle(self, number: int, call: Callable[[File], object]) -> None:
        memory, local = self.handles[number % len(self.handles)]
        assert outcome(lambda: call(memory)) == outcome(lambda: call(local))

    @rule(path=PATHS, flags=FLAGS, mode=st.sampled_from([0o600, 0o644]))
    def open(self, path: str, flags: Open, mode: int) -> None:
        memory = outcome(lambda: self.memory.open(path, flags, mode))
        local = outcome(lambda: self.local.open(path, flags, mode))
        if isinstance(memory[1], File) and isinstance(local[1], File):
            self.handles.append((memory[1], local[1]))
        else:
            assert memory == local
        while len(self.handles) > MAX_HANDLES:
            for file in self.handles.pop(0):
                file.close()

    @rule(old=PATHS, new=PATHS, how=st.sampled_from(Rename))
    def rename(self, old: str, new: str, how: Rename) -> None:
        self.both(lambda directory: directory.rename(old, new, how))

    @rule(path=PATHS)
    def remove(self, path: str) -> None:
        self.both(lambda directory: directory.remove(path))

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        self.both(lambda directory: directory.mkdir(path))

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.both(lambda directory: directory.rmdir(path))

    @rule(path=PATHS, pointing_to=st.sampled_from(["a", "d", "/", "", "x" * 4096]))
    def symlink(self, path: str, pointing_to: str) -> None:
        self.both(lambda directory: directory.symlink(path, pointing_to))

    @rule(path=PATHS)
    def readlink(self, path: str) -> None:
        self.both(lambda directory: directory.readlink(path))

    @rule(existing=PATHS, new=PATHS)
    def link(self, existing: str, new: str) -> None:
        self.both(lambda directory: directory.link(existing, new))

    @rule(path=PATHS, mode=st.sampled_from([0o700, 0o755, 0o1777]), mtime=st.integers(0, 2**60))
    def set_attributes(self, path: str, mode: int, mtime: int) -> None:
        change = Attributes(mode=mode, mtime_ns=mtime)
        self.both(lambda directory: directory.set_attributes(path, change))

    @rule(path=PATHS)
    def look(self, path: str) -> None:
        self.both(lambda directory: sorted(directory.names(path)))
        self.both(lambda directory: sorted(name for name, _ in directory.scan(path)))
        self.both(lambda directory: directory.stat(path).mode)
        self.both(lambda directory: directory.sync(path))

    @precondition(lambda self: self.handles)
    @rule(
        number=st.integers(0, MAX_HANDLES - 1), offset=OFFSETS, size=SIZES, fill=st.integers(1, 255)
    )
    def write(self, number: int, offset: int, size: int, fill: int) -> None:
        self.on_handle(number, lambda file: file.write_at(bytes([fill]) * size, offset))

    @precondition(lambda self: self.handles)
    @rule(number=st.integers(0, MAX_HANDLES - 1), offset=OFFSETS, size=SIZES)
    def read(self, number: int, offset: int, size: int) -> None:
        self.on_handle(number, lambda file: file.read_at(size, offset))

    @precondition(lambda self: self.handles)
    @rule(number=st.integers(0, MAX_HANDLES - 1), size=OFFSETS)
    def truncate(self, number: int, size: int) -> None:
        self.on_handle(number, lambda file: file.truncate(size))

    @invariant()
    def open_files_are_alike(self) -> None:
        for memory, local in self.handles:
            ours, theirs = memory.stat(), local.stat()
            assert (ours.mode, ours.size, ours.nlink) == (theirs.mode, theirs.size, theirs.nlink)

    @invariant()
    def trees_are_alike(self) -> None:
        assert tree(self.memory) == tree(self.local)
        assert families(self.memory) == families(self.local)
        assert self.memory.stat().nlink == self.local.stat().nlink


SideBySide.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSideBySide = SideBySide.TestCase
