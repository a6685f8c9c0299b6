"""The memory storage of SPEC section 3: the contract with nothing on disk.

Where it differs from the file storage:

- A file has one open handle at a time. A second open, a create over an open file and a rename of or
  onto an open file fail `FileOpenError`. Removing an open file is allowed: its handle keeps what
  was in it, and the name is free at once.
- The meta value is one assignment. Nothing is written for it, so nothing can be half-written.
- Log lines are dropped; there is no lock beyond that of the storage itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from avccfs import errors
from avccfs.format.filename import FileDesc, name_of, parse
from avccfs.storage.base import BaseStorage
from avccfs.storage.explain import missing_target, not_found
from avccfs.storage.handles import Handle
from avccfs.vfs.base import Directory
from avccfs.vfs.memory import MemoryDirectory


class MemoryStorage(BaseStorage):
    """A `contract.Storage` in memory.

    A directory may be given to keep the files in (for instance one that injects faults); it stays
    the caller's. The meta value is not part of it.
    """

    def __init__(self, directory: Directory | None = None) -> None:
        super().__init__(MemoryDirectory() if directory is None else directory)
        self._live: FileDesc | None = None
        # The claim of an opening or renaming under way, then the handle it led to.
        self._busy: dict[FileDesc, object] = {}

    def set_meta(self, desc: FileDesc) -> None:
        """Make `desc` the live manifest. Raises `FileNotFoundError` if it does not exist."""
        with self._operation(desc, change=True):
            self._check_exists(desc)
            self._live = desc

    def get_meta(self) -> FileDesc:
        """The live manifest. Raises `FileNotFoundError` if none was set, or it is gone."""
        with self._operation():
            live = self._live
            if live is None:
                raise not_found(f"{self._directory.label}: no live manifest was set", "CURRENT")
            self._check_exists(live)
            return live

    def _check_exists(self, desc: FileDesc) -> None:
        try:
            self._directory.stat(name_of(desc))
        except FileNotFoundError:
            raise missing_target(self._directory, desc) from None

    @contextmanager
    def _claimed(self, *descs: FileDesc) -> Iterator[object]:
        claim = object()
        with self._state:
            for desc in descs:
                if desc in self._busy:
                    raise errors.FileOpenError(
                        f"{desc} is open; a file in memory has one handle at a time: close it first"
                    )
            self._busy.update(dict.fromkeys(descs, claim))
        try:
            yield claim
        finally:
            for desc in descs:
                self._free(desc, claim)

    def _remember(self, handle: Handle, claim: object = None) -> None:
        super()._remember(handle)
        desc = parse(handle.name)
        with self._state:
            # Not if the file was removed meanwhile: then the handle has no name to hold on to.
            if desc is not None and self._busy.get(desc) is claim:
                self._busy[desc] = handle

    def forget(self, handle: Handle) -> None:
        """A handle was closed."""
        super().forget(handle)
        desc = parse(handle.name)
        if desc is not None:
            self._free(desc, handle)

    def _detach(self, desc: FileDesc) -> None:
        with self._state:
            self._busy.pop(desc, None)

    def _free(self, desc: FileDesc, holder: object) -> None:
        with self._state:
            if self._busy.get(desc) is holder:
                del self._busy[desc]
