"""Every storage, over every kind of directory, by name; and small helpers."""

from __future__ import annotations

from pathlib import Path

from avccfs.format.filename import FileDesc, Kind
from avccfs.storage.contract import Storage
from avccfs.storage.directory import DirectoryStorage
from avccfs.storage.memory import MemoryStorage
from avccfs.vfs.base import Directory, Open
from avccfs.vfs.fault import FaultDirectory, FaultPlan
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory

BACKENDS = [
    "local",
    "memory-directory",
    "memory-storage",
    "local-faults",
    "memory-directory-faults",
    "memory-storage-faults",
]


class Backend:
    """One place; storages are opened over it, one after the other or together."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.plan = FaultPlan()
        self._path = path / "db"
        self._inner: Directory | None = None
        self._opened: list[Storage] = []
        self._directories: list[Directory] = []
        self.directory = self.make_directory()

    @property
    def faults(self) -> bool:
        """Whether operations pass through (and are counted by) the plan."""
        return self.name.endswith("-faults")

    @property
    def one_handle(self) -> bool:
        """Whether a file may have only one open handle: the rule of the memory storage."""
        return self.name.startswith("memory-storage")

    def make_directory(self, *, read_only: bool = False) -> Directory:
        if self.name.startswith("local"):
            made: Directory = LocalDirectory(self._path, read_only=read_only)
        else:
            if self._inner is None:
                self._inner = MemoryDirectory()
            made = self._inner
        if self.faults:
            made = FaultDirectory(made, self.plan)
        self._directories.append(made)
        return made

    def storage(self) -> Storage:
        if self.one_handle:
            opened: Storage = MemoryStorage(self.directory)
        else:
            opened = DirectoryStorage(self.directory)
        self._opened.append(opened)
        return opened

    def file_storage(self, *, read_only: bool = False) -> DirectoryStorage:
        directory = self.make_directory(read_only=True) if read_only else self.directory
        opened = DirectoryStorage(directory, read_only=read_only)
        self._opened.append(opened)
        return opened

    def close(self) -> None:
        self.plan.close()
        for storage in self._opened:
            storage.close()
        for directory in self._directories:
            directory.close()


def manifest(number: int) -> FileDesc:
    return FileDesc(number, Kind.MANIFEST)


def journal(number: int) -> FileDesc:
    return FileDesc(number, Kind.JOURNAL)


def table(number: int) -> FileDesc:
    return FileDesc(number, Kind.TABLE)


def temp(number: int) -> FileDesc:
    return FileDesc(number, Kind.TEMP)


def put(directory: Directory, name: str, content: bytes = b"") -> None:
    """Write a file as somebody else would, past the storage."""
    file = directory.open(name, Open.WRITE | Open.CREATE | Open.TRUNCATE)
    file.write_at(content, 0)
    file.close()


def get(directory: Directory, name: str) -> bytes:
    file = directory.open(name)
    try:
        return file.read_at(1 << 24, 0)
    finally:
        file.close()


def tree(directory: Directory, *, but: frozenset[str] = frozenset()) -> dict[str, bytes]:
    """All files with their contents."""
    return {name: get(directory, name) for name in directory.names() if name not in but}


def write(storage: Storage, desc: FileDesc, content: bytes = b"content") -> None:
    writer = storage.create(desc)
    writer.write(content)
    writer.sync()
    writer.close()


def read(storage: Storage, desc: FileDesc) -> bytes:
    reader = storage.open(desc)
    try:
        return reader.read()
    finally:
        reader.close()
