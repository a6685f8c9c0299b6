"""An overlay and a plain directory with the same content, driven side by side.

Same names, same bytes, same link counts, same errors after every step; the lower directory stays
as it was; and an overlay that keeps its changes shows them again when it is opened anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from avccfs.vfs.base import Directory, File, Open
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.overlay import Overlay
from tests.vfs.test_memory_is_local import MAX_HANDLES, SIZES, SideBySide, families, tree

NEW = Open.WRITE | Open.CREATE


def fill(directory: Directory) -> None:
    """Files of several blocks, one with two names, folders in folders, a link."""

    def put(path: str, content: bytes) -> None:
        file = directory.open(path, NEW)
        file.write_at(content, 0)
        file.close()

    directory.mkdir("d")
    directory.mkdir("d/e")
    put("a", bytes(range(1, 251)) * 80)
    put("d/a", b"small")
    put("d/e/a", b"deep" * 2000)
    put("CURRENT", b"MANIFEST-000001\n")
    directory.link("a", "d/b")
    directory.symlink("b", "d/a")


class OverMemory(SideBySide):
    overlay: Overlay

    def __init__(self) -> None:
        super().__init__()
        self.local.close()
        fill(self.memory)
        self.lower: Directory = self.make_lower()
        fill(self.lower)
        self.lower_before = self.lower_now()
        self.show()

    def show(self) -> None:
        """Open the overlay, and have it driven in place of the local directory."""
        self.overlay = self.local = self.open_overlay()  # type: ignore[assignment]

    def make_lower(self) -> Directory:
        return MemoryDirectory()

    def open_overlay(self) -> Overlay:
        return Overlay(self.lower, close_inner=False)

    def lower_now(self) -> object:
        stats = {path: self.lower.stat(path) for path in tree(self.lower)}
        return tree(self.lower), families(self.lower), stats

    def teardown(self) -> None:
        for pair in self.handles:
            for file in pair:
                file.close()
        self.overlay.close()
        self.lower.close()
        shutil.rmtree(self.place)

    @precondition(lambda self: self.handles)
    @rule(
        number=st.integers(0, MAX_HANDLES - 1),
        offset=st.sampled_from([0, 1, 4095, 4096, 8191, 12288, 19999, 20000, 20001, 70000]),
        size=SIZES,
        fill=st.integers(1, 255),
    )
    def write(self, number: int, offset: int, size: int, fill: int) -> None:
        self.on_handle(number, lambda file: file.write_at(bytes([fill]) * size, offset))

    @precondition(lambda self: self.handles)
    @rule(number=st.integers(0, MAX_HANDLES - 1), size=st.integers(0, 21000))
    def cut(self, number: int, size: int) -> None:
        self.on_handle(number, lambda file: file.truncate(size))

    @precondition(lambda self: self.handles)
    @rule(number=st.integers(0, MAX_HANDLES - 1))
    def sync_file(self, number: int) -> None:
        self.on_handle(number, lambda file: file.sync())

    @rule()
    def what_is_unaltered_is_the_same(self) -> None:
        for path in self.files():
            origin = self.overlay.origin(path)
            if origin is not None:
                ours, theirs = whole(self.overlay, path), whole(self.lower, origin.path)
                end = 0
                for extent in origin.altered:
                    assert extent.offset >= end
                    assert ours[end : extent.offset] == theirs[end : extent.offset]
                    end = extent.end
                assert end <= len(ours)
                assert ours[end:] == theirs[end : len(ours)]

    def files(self) -> list[str]:
        return [path for path, told in tree(self.overlay).items() if isinstance(told[3], bytes)]

    @rule()
    def reset_when_nothing_is_open(self) -> None:
        if not self.handles:
            self.overlay.reset()
            assert not self.overlay.changed
            self.memory.close()
            self.memory = MemoryDirectory()
            fill(self.memory)

    @invariant()
    def the_lower_directory_stays_as_it_was(self) -> None:
        assert self.lower_now() == self.lower_before


class OverLocal(OverMemory):
    """Over a local directory, kept in another; closed and opened again in between."""

    def make_lower(self) -> Directory:
        return LocalDirectory(f"{self.place}/lower")

    def open_overlay(self) -> Overlay:
        upper = LocalDirectory(f"{self.place}/upper")
        lower = LocalDirectory(f"{self.place}/lower", read_only=True)
        return Overlay(lower, upper)

    @rule()
    def open_anew(self) -> None:
        for pair in self.handles:
            for file in pair:
                file.close()
        self.handles.clear()
        self.overlay.close()
        self.show()


def whole(directory: Directory, path: str) -> bytes:
    file = directory.open(path)
    try:
        return file.read_at(file.stat().size, 0)
    finally:
        file.close()


def test_every_rule_is_inherited() -> None:
    """Were the machine renamed, the subclasses would drive nothing."""
    names: list[Callable[..., object]] = [OverLocal.rename, OverLocal.truncate, OverLocal.look]
    assert all(hasattr(each, "hypothesis_stateful_rule") for each in names)
    assert issubclass(OverLocal, SideBySide)
    assert isinstance(MemoryDirectory().open("a", NEW), File)


OverMemory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
OverLocal.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestOverMemory = OverMemory.TestCase
TestOverLocal = OverLocal.TestCase
