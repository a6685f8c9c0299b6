"""CURRENT on the mount: who may open it, what a rename onto it is, and who is told.

`current.CurrentHandle` knows what a write to CURRENT means. Here is the rest of it: which inode
numbers stand for CURRENT and for drafts of it, and how a file becomes CURRENT by being renamed.
"""

from __future__ import annotations

import errno
import stat as stat_module
import threading
from collections.abc import Callable

from avccfs.errors import AvccfsError, MetaError
from avccfs.format import filename
from avccfs.format.filename import CURRENT, FileDesc, Kind
from avccfs.fs.current import CurrentHandle
from avccfs.fs.handles import FileHandle, HandleTable
from avccfs.fs.inodes import Inode, InodeTable, StaleInodeError
from avccfs.fs.notes import Notes, said
from avccfs.storage.directory import DirectoryStorage
from avccfs.storage.explain import read_meta
from avccfs.vfs.base import Rename, exists


class CurrentSwitch:
    """What happens to CURRENT through the mount. Guarded by its owner's lock."""

    def __init__(
        self,
        storage: DirectoryStorage,
        inodes: InodeTable,
        handles: HandleTable,
        notes: Notes,
        *,
        lock: threading.RLock,
        fetch: Callable[[str], None],
    ) -> None:
        """`fetch` has written what the kernel still holds of a file in the root."""
        self._storage = storage
        self._directory = storage.directory
        self._inodes = inodes
        self._handles = handles
        self._notes = notes
        self._lock = lock
        self._fetch = fetch
        self._sent_back = False

    def is_regular(self, path: str = CURRENT) -> bool:
        """Whether a name is that of a regular file, as everything that may be CURRENT is."""
        return stat_module.S_ISREG(self._directory.stat(path).mode)

    def draft(self, inode: Inode, *, truncated: bool) -> CurrentHandle:
        """A handle that switches when its line is whole."""
        return CurrentHandle(
            inode,
            self._storage,
            truncated=truncated,
            before_switch=self._complete,
            on_switch=self._switched,
        )

    def open(self, inode: Inode, *, truncated: bool) -> int:
        """Open CURRENT for writing; returns the handle's number."""
        # The inode number goes with the writer: the kernel will believe sizes about it that are
        # true of the draft only. Everybody else finds CURRENT under a new number.
        root = self._inodes.root
        if self._inodes.at(root, CURRENT) is inode:
            self._inodes.supersede(root, CURRENT)
        # And who has the old number open already shall not see them either. A kernel that is told
        # of a stale number looks the name up once more, and only once.
        self._sent_back = bool(inode.handles) and not self._sent_back
        if self._sent_back:
            raise StaleInodeError(inode.number)
        return self._handles.add(self.draft(inode, truncated=truncated))

    def create(self, *, exclusive: bool) -> tuple[Inode, CurrentHandle, int]:
        """Begin a CURRENT that is not there; it is not there before its first whole line."""
        if exclusive and exists(self._directory, CURRENT):
            raise FileExistsError(errno.EEXIST, "File exists", CURRENT)
        inode = self._inodes.nameless(0)
        inode.lookups = 1
        handle = self.draft(inode, truncated=True)
        return inode, handle, self._handles.add(handle)

    def rename_onto(self, old: str, how: Rename) -> bool:
        """Make the file `old` CURRENT, or exchange the two.

        Returns whether CURRENT is now the very file that was renamed. Not to be called with the
        lock held: it waits for the disk.
        """
        if not self.is_regular(old):
            raise MetaError(
                f"{old} is not a regular file; only a file that names a manifest can become CURRENT",
                file=old,
            )
        if how is Rename.NOREPLACE and exists(self._directory, CURRENT):
            raise FileExistsError(errno.EEXIST, "File exists", CURRENT)
        linked = self._directory.stat(old).nlink > 1
        named = filename.decode_meta(read_meta(self._directory, old))
        if named is not None:
            self._complete(named)
        try:
            if linked:
                desc = self._copy_onto(old, how)
            else:
                desc = self._storage.adopt_meta(old, exchange=how is Rename.EXCHANGE)
        except (AvccfsError, OSError) as error:
            self._notes.refused(f"{old} was not renamed onto CURRENT: {said(error)}")
            raise
        self._notes.changed(f"CURRENT now names {desc}, renamed from {old}")
        return not linked

    def follow_rename(self, old: str, new: str) -> None:
        """After the names were moved: new numbers where the kernel's idea would be wrong."""
        root = self._inodes.root
        if CURRENT in (old, new):
            self.forget_family(keep=(old, new))
        inode = self._inodes.at(root, CURRENT)
        if inode is not None and self._guard_writers(inode):
            # As in `open`: a size that the kernel made up must not be CURRENT's.
            self._inodes.supersede(root, CURRENT)

    def forget_family(self, *, keep: tuple[str, ...] = ()) -> None:
        """set_meta rewrote some of the family behind the kernel's back: new numbers for all."""
        root = self._inodes.root
        for name in self._directory.names():
            if name not in keep and filename.kind_of(name) is Kind.META:
                self._inodes.detach(root, name)

    def _copy_onto(self, old: str, how: Rename) -> FileDesc:
        # The file has other names. CURRENT must not be one of them: a write through another name
        # would change it in place. So it gets the content, and only this name goes.
        if how is Rename.EXCHANGE:
            raise OSError(errno.EPERM, f"CURRENT cannot change places with {old}, a hard link", old)
        desc = self._storage.check_meta(read_meta(self._directory, old))
        self._storage.set_meta(desc)
        self._directory.remove(old)
        return desc

    def _guard_writers(self, inode: Inode) -> bool:
        # A file that became CURRENT by rename may still be open for writing; from now on those
        # writes are writes to CURRENT. Returns whether there were any.
        writers = [h for h in inode.handles if h.writable and isinstance(h, FileHandle)]
        for handle in writers:
            self._handles.replace(handle, self.draft(inode, truncated=False))
            handle.close()
        return bool(writers)

    def _complete(self, desc: FileDesc) -> None:
        # goleveldb switches to a manifest that it has written but not synced. The switch makes it
        # durable, as far as it is here: what is still above would be lost with the mount process.
        self._fetch(filename.name_of(desc))

    def _switched(self, desc: FileDesc) -> None:
        with self._lock:
            self._inodes.supersede(self._inodes.root, CURRENT)
            self.forget_family()
        self._notes.changed(f"CURRENT now names {desc}")
