"""Where sessions are tested: every storage, on a directory that can be made to fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from avccfs.format.filename import FileDesc, Kind
from avccfs.format.manifest import AddedTable, SessionRecord
from avccfs.session.session import Session
from avccfs.session.state import SessionState
from avccfs.storage.directory import DirectoryStorage
from avccfs.storage.memory import MemoryStorage
from avccfs.vfs.base import Directory, Open
from avccfs.vfs.fault import ALL_KINDS, ALL_OPS, FaultDirectory, FaultPlan, Op, Pair
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory

AnyStorage = DirectoryStorage | MemoryStorage


@dataclass
class Place:
    """A storage, and the plan by which the directory below it fails."""

    directory: Directory
    plan: FaultPlan
    storage: AnyStorage

    def put(self, name: str, content: bytes = b"") -> None:
        """Make a file behind the storage's back."""
        file = self.directory.open(name, Open.WRITE | Open.CREATE | Open.TRUNCATE)
        file.write_at(content, 0)
        file.close()

    def read(self, name: str) -> bytes:
        """What a file holds."""
        file = self.directory.open(name)
        try:
            return file.read_at(file.stat().size, 0)
        finally:
            file.close()

    def manifests(self) -> list[int]:
        """The numbers of the manifests that exist."""
        return [desc.number for desc in self.storage.list(Kind.MANIFEST)]

    @contextlib.contextmanager
    def recovered(self) -> Iterator[Session]:
        """A fresh session on what is there."""
        with Session(self.storage) as session:
            session.recover()
            yield session


def local(root: Path) -> Place:
    """The file storage over a real directory."""
    return _over(LocalDirectory(root, create=True), _file_storage)


def memory_files(_: Path) -> Place:
    """The file storage over a directory in memory."""
    return _over(MemoryDirectory(), _file_storage)


def memory(_: Path) -> Place:
    """The memory storage."""
    return memory_place()


def memory_place() -> Place:
    """The same, where there is no folder to hand."""
    return _over(MemoryDirectory(), MemoryStorage)


FILE_PLACES = {"local": local, "memory files": memory_files}
"""Those whose meta value is files, so that a switch can fail half-way."""
PLACES = {**FILE_PLACES, "memory": memory}


def _file_storage(directory: Directory) -> DirectoryStorage:
    return DirectoryStorage(directory, write_log=False)


def _over(inner: Directory, make: Callable[[Directory], AnyStorage]) -> Place:
    plan = FaultPlan()
    return Place(inner, plan, make(FaultDirectory(inner, plan)))


class From:
    """A trigger that lets `passing` calls of any pair pass, then fails `failing` of them."""

    def __init__(self, passing: int, failing: int | None = 1) -> None:
        """`failing` None means all of them, for ever: the disk is dead from there on."""
        self._passing = passing
        self._failing = failing
        self._calls = 0
        self.fired = 0

    def decisions(self, pair: Pair) -> Iterator[bool]:
        """Counts the calls of all pairs together."""
        while True:
            self._calls += 1
            fails = self._calls > self._passing and (
                self._failing is None or self._calls <= self._passing + self._failing
            )
            self.fired += fails
            yield fails


class When:
    """A trigger that fires once for each pair, at its first call for which `condition` holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition

    def decisions(self, pair: Pair) -> Iterator[bool]:
        """Ends behind the first True."""
        while not self._condition():
            yield False
        yield True


def arm(plan: FaultPlan, passing: int, failing: int | None = 1, ops: Op = ALL_OPS) -> From:
    """Make the operations after `passing` more fail."""
    trigger = From(passing, failing)
    plan.fail(ops, ALL_KINDS, trigger)
    return trigger


def added(*numbers: int, level: int = 0) -> tuple[AddedTable, ...]:
    """Tables with these numbers."""
    return tuple(
        AddedTable(level, number, 100 + number, b"a" + bytes(8), b"z" + bytes(8))
        for number in numbers
    )


def change(*tables: int, sequence: int | None = None) -> SessionRecord:
    """A change that adds these tables."""
    return SessionRecord(sequence=sequence, added_tables=added(*tables))


def content(state: SessionState) -> SessionState:
    """A state without what differs between two manifests that say the same."""
    return replace(state, manifest=None, next_file_number=None)


def manifest_desc(number: int) -> FileDesc:
    """The descriptor of a manifest."""
    return FileDesc(number, Kind.MANIFEST)
