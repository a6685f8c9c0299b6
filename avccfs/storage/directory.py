"""The file storage of SPEC section 3, over any directory of bytes.

It takes the directory's lock when it is made and lets go of it when it is closed; in between it is
the only one that changes the directory (or, read-only, one of several who look). Making one changes
nothing on disk, the lock aside: LOG is begun by the first line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from avccfs.format.filename import LOCK, FileDesc, Kind, kind_of
from avccfs.storage import explain, meta
from avccfs.storage.base import BaseStorage
from avccfs.storage.explain import MetaReport
from avccfs.storage.handles import ManifestFile
from avccfs.storage.log import LogWriter, utc_now
from avccfs.vfs.base import Directory, File, Open
from avccfs.vfs.local import LocalDirectory


class DirectoryStorage(BaseStorage):
    """A `contract.Storage` whose files, meta value and log are files in a directory.

    `read_only` is the directory's own unless given. With `take_lock` the directory's lock is taken,
    shared to read and exclusive to write, and `LockedError` raised if that fails; without it the
    caller answers for what others do meanwhile. `clock` is what LOG tells the time by.

    The directory stays the caller's, who closes it after the storage; `close_directory` hands that
    over to `close`.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        read_only: bool | None = None,
        write_log: bool = True,
        take_lock: bool = True,
        close_directory: bool = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(directory, read_only=read_only)
        self._close_directory = close_directory
        self._meta = threading.Lock()
        writes = write_log and not self.read_only
        self._log = LogWriter(directory, clock=clock) if writes else None
        # Last: what fails here leaves nothing behind that would have to be released.
        self._held = directory.lock(exclusive=not self.read_only) if take_lock else None

    def log(self, text: str) -> None:
        """A line in LOG. Dropped if the storage is read-only, closed, or keeps no log."""
        if self._log is not None and not self.closed:
            self._log.write(text)

    def share_log(
        self,
        lock: AbstractContextManager[object],
        *,
        busy: Callable[[], bool],
        written: Callable[[], None],
        beneath: Directory | None = None,
    ) -> None:
        """Let somebody else write to LOG through us: see `LogWriter.share`."""
        if self._log is not None:
            self._log.share(lock, busy=busy, written=written, beneath=beneath)

    def settle_log(self) -> None:
        """Write the lines that waited for LOG, if it is free now."""
        if self._log is not None:
            self._log.settle()

    def set_meta(self, desc: FileDesc) -> None:
        """Make `desc` the live manifest, atomically, whatever moment the machine dies.

        Raises `FileNotFoundError` if it does not exist. After any error get_meta answers with the
        old one, or with `desc`.
        """
        with self._operation(desc, change=True), self._meta:
            meta.set_meta(self._directory, desc, self.log)

    def get_meta(self) -> FileDesc:
        """The newest valid meta; a writable storage also restores order in CURRENT and its kin.

        Raises `FileNotFoundError` if there is none, `MetaError` if what is there is corrupted, and
        the system's own error for a file of the family that cannot be read.
        """
        with self._operation(), self._meta:
            return meta.get_meta(self._directory, self.log, tidy=not self.read_only)

    def explain_meta(self) -> MetaReport:
        """Every file that get_meta looks at, and why it answers as it does. Changes nothing."""
        with self._operation(), self._meta:
            return explain.explain_meta(self._directory)

    def check_meta(self, content: bytes) -> FileDesc:
        """The manifest that `content` names, if it may become the content of CURRENT.

        Raises `MetaError` for content that is not the name of a manifest and a newline,
        `FileNotFoundError` if that manifest does not exist.
        """
        with self._operation():
            return explain.check_meta(self._directory, content)

    def adopt_meta(self, path: str, *, exchange: bool = False) -> FileDesc:
        """Make an existing file the new CURRENT by renaming it, as safely as set_meta.

        With `exchange` the old CURRENT takes its name. Raises as `check_meta` and `set_meta`.
        """
        with self._operation(change=True), self._meta:
            return meta.adopt_meta(self._directory, path, self.log, exchange=exchange)

    def open_file(self, path: str, flags: Open, mode: int = 0o644) -> File:
        """Open literally this name, in the directory or below it.

        The sync of a manifest also syncs the directory, and an open manifest counts as an open
        handle. Every other file is the directory's own, so that nothing stands between a reader and
        its bytes: it is not counted, and outlives the storage.
        """
        with self._operation(change=Open.WRITE in flags):
            file = self._directory.open(path, flags, mode)
            if kind_of(path) is not Kind.MANIFEST:
                return file
            handle = ManifestFile(self, path, file)
            self._remember(handle)
            return handle

    def replace_lock(self, path: str) -> None:
        """Rename a file to LOCK, so that the directory is locked at every moment.

        Raises `LockedError` if somebody holds a lock on that file.
        """
        with self._operation(change=True):
            if self._held is None:
                self._directory.rename(path, LOCK)
                return
            new = self._held.also(path)
            try:
                self._directory.rename(path, LOCK)
            except BaseException:
                new.release()
                raise
            self._held.release()
            self._held = new

    def _shut(self, left_open: tuple[str, ...]) -> None:
        try:
            if left_open and self._log is not None:
                self._log.write(
                    f"close: warning, {len(left_open)} files still open: {', '.join(left_open)}"
                )
            if self._held is not None:
                self._held.release()
        finally:
            if self._close_directory:
                self._directory.close()


def open_storage(
    path: str | Path, *, read_only: bool = False, write_log: bool = True, take_lock: bool = True
) -> DirectoryStorage:
    """The storage of a local directory, which is created (mode 0755) unless `read_only`.

    Raises `LockedError` if somebody else has it open, and leaves nothing open then.
    """
    directory = LocalDirectory(path, read_only=read_only, create=not read_only)
    try:
        return DirectoryStorage(
            directory, write_log=write_log, take_lock=take_lock, close_directory=True
        )
    except BaseException:
        directory.close()
        raise
