"""What the mount shows and does, without knowing who asks (no FUSE in here).

`Core` is the file system over a `DirectoryStorage`: identities and handles on this side, names and
bytes on that. It decides what a name means: a write or a rename onto CURRENT is a switch of the live
manifest, a new database file marks its number as used, LOCK keeps guarding the directory whatever
happens to its name.

Names that this side may change behind the kernel's back (CURRENT and its family, LOG, LOCK) are
*volatile*: they must not be cached by the caller. Everything else changes only through here.

Every method may be called from any thread. Errors are those of the layers below and
`StaleInodeError`; the caller translates.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace

from avccfs.errors import AvccfsError, MetaError, ReadOnlyError
from avccfs.format import filename
from avccfs.format.filename import CURRENT, LOCK, LOG, LOG_OLD, Kind
from avccfs.fs.current import CurrentHandle
from avccfs.fs.handles import FileHandle, FolderHandle, Handle, HandleTable
from avccfs.fs.inodes import ROOT, Inode, InodeTable, StaleInodeError
from avccfs.fs.links import contain
from avccfs.fs.notes import Notes, said
from avccfs.fs.switch import CurrentSwitch
from avccfs.session.numbers import FileNumbers
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Attributes, Buffer, Directory, Open, Rename, Space, Stat, join
from avccfs.vfs.fault import FaultDirectory, FaultPlan, Op, kind_of_path

_VOLATILE = Kind.META | Kind.LOG | Kind.LOCK


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer about one name or number."""

    number: int
    """The inode number on the mount."""
    stat: Stat
    volatile: bool
    """Whether the answer may be out of date at once: do not cache it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer to open: the handle's number, and whether its bytes must bypass caches."""

    handle: int
    direct: bool


class Core:
    """The file system. See the module's text."""

    def __init__(self, storage: DirectoryStorage, *, source: str | None = None) -> None:
        """`source` is the absolute path that `storage` lies at, for links that name it."""
        self.storage = storage
        self.directory = below = storage.directory
        self.beneath: Directory = below
        """The directory without the faults: for those who look at it, and are no engine."""
        self.faults: FaultPlan | None = None
        """What goes wrong in the directory, if it is one in which anything can."""
        self._tells_closes = False
        self._spoilt: set[int] = set()
        self.read_only = storage.read_only
        self.handles = HandleTable()
        self.numbers = FileNumbers()
        self.write_back: Callable[[int], None] | None = None
        """Makes a caller that collects writes hand over those to an inode, by calls of `write`."""
        self.drop_name: Callable[[int, str], None] | None = None
        """Makes a caller that caches names forget one: parent's number and name. May wait for calls
        that are under way."""
        self.drop_facts: Callable[[int], None] | None = None
        """Makes such a caller forget what it knows of a number."""
        self._source = source
        self._lock = threading.RLock()
        self._inodes = InodeTable(self.directory.stat())
        self._lock_hidden = False
        self.notes = Notes(storage)
        self._current = CurrentSwitch(
            storage, self._inodes, self.handles, self.notes, lock=self._lock, fetch=self.fetch
        )
        if isinstance(below, FaultDirectory):
            self.beneath, self.faults = below.disarmed, below.plan
            self._tells_closes = not below.announces_close
            below.on_spoiled = self._was_spoiled
        # Our own lines are written with the lock held, and are no operations of an engine.
        storage.share_log(
            self._lock,
            busy=self._log_is_open,
            written=self._log_was_written,
            beneath=self.beneath,
        )
        for name in self.directory.names():
            self._mark(name)

    # -- names ---------------------------------------------------------------------------------

    def lookup(self, parent: int, name: str) -> Entry:
        """Find a name in a folder. Counts as one lookup that `forget` must give back."""
        with self._lock:
            folder = self._inodes.get(parent)
            self._check_shown(folder, name)
            found = self.directory.stat(join(folder.path, name))
            return self._entry_of(folder, name, found)

    def is_slow(self, number: int, name: str | None = None) -> bool:
        """Whether to look this name up, or to list or read what this is, may take long.

        A caller with other work then uses a thread.
        """
        return False

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """Give lookups back: pairs of inode number and count."""
        with self._lock:
            for number, count in counts:
                self._inodes.forget(number, count)

    def list_folder(self, handle: int, start: int) -> Iterable[tuple[str, Stat, int]]:
        """Name, attributes and next position of each entry from position `start` on.

        The names are those of the moment when reading began, so that a position always means the
        same; the attributes are of now, because the caller may cache them, and what is gone
        meanwhile is left out.
        """
        folder = self.handles.folder(handle)
        try:
            with self._lock:
                path = folder.inode.path
            if folder.names is None or start == 0:
                folder.names = self.directory.names(path)
        except (StaleInodeError, FileNotFoundError):
            return  # The folder was removed: nothing is in it.
        for position in range(start, len(folder.names)):
            name = folder.names[position]
            if name == LOCK and self._lock_hidden and not path:
                continue
            try:
                # Part of the listing, which is one operation: counting each would cost a sixth of it.
                found = self.beneath.stat(join(path, name))
            except FileNotFoundError:
                continue
            yield name, found, position + 1

    def list_entry(self, handle: int, name: str, found: Stat) -> Entry:
        """Turn one entry of a listing into an answer; counts as a lookup."""
        with self._lock:
            return self._entry_of(self.handles.folder(handle).inode, name, found)

    def unlist_entry(self, entry: Entry) -> None:
        """Take the lookup of `list_entry` back: there was no room to tell the caller."""
        self.forget([(entry.number, 1)])

    def getattr(self, number: int) -> Entry:
        """Attributes of an inode."""
        with self._lock:
            inode = self._inodes.get(number)
            return Entry(number, self._stat(inode), self._is_volatile_inode(inode))

    def setattr(
        self, number: int, change: Attributes, size: int | None = None, handle: int | None = None
    ) -> Entry:
        """Change attributes, and the size where `size` is not None."""
        self._check_writable()
        with self._lock:
            inode = self._inodes.get(number)
            path = self._path_or_none(inode)
        if size is not None:
            try:
                self._truncate(inode, path, size, self.handles.file(handle) if handle else None)
            except MetaError as error:
                self.notes.refused(str(error))
                raise
        if change != Attributes():
            if path is not None:
                self.directory.set_attributes(path, change)
            else:
                self._any_handle(inode).set_attributes(change)
        return self.getattr(number)

    def readlink(self, number: int) -> str:
        """Where a symbolic link leads; `OSError(EXDEV)` where it leads out of the directory."""
        with self._lock:
            inode = self._inodes.get(number)
            path, depth = inode.path, inode.depth - 1
        target = self.directory.readlink(path)
        inside = contain(target, depth, self._source)
        if inside is None:
            self.notes.refused(f"{path}: the link leads out of the database directory: {target!r}")
            raise OSError(errno.EXDEV, "the link leads out of the database directory", path)
        return inside

    # -- changes of names ------------------------------------------------------------------------

    def mkdir(self, parent: int, name: str, mode: int, owner: tuple[int, int] | None) -> Entry:
        """Make a folder. `owner` is the (uid, gid) it shall belong to, None for our own."""
        path = self._new_path(parent, name)
        self.directory.mkdir(path, mode)
        return self._made(parent, name, path, owner)

    def symlink(self, parent: int, name: str, target: str, owner: tuple[int, int] | None) -> Entry:
        """Make a symbolic link that stays inside the directory."""
        path = self._new_path(parent, name)
        self._check_not_current(path, "made a symbolic link")
        with self._lock:
            folder = self._inodes.get(parent)
            depth = folder.depth
        if contain(target, depth, self._source) is None:
            self.notes.refused(
                f"{path}: refused a link that leads out of the directory: {target!r}"
            )
            raise OSError(errno.EXDEV, "the link leads out of the database directory", path)
        self.directory.symlink(path, target)
        return self._made(parent, name, path, owner)

    def mknod(self, parent: int, name: str, mode: int, owner: tuple[int, int] | None) -> Entry:
        """Make an empty regular file; other kinds of node have no business in a database."""
        if not stat_module.S_ISREG(mode):
            raise OSError(errno.EPERM, "only regular files can be made here", name)
        if self.is_current(parent, name):
            raise MetaError("an empty CURRENT names no manifest", file=CURRENT, offset=0)
        entry, opened = self.create(parent, name, mode, os.O_RDWR | os.O_EXCL, owner)
        self.release(opened.handle)
        return entry

    def link(self, number: int, parent: int, name: str) -> Entry:
        """Give a file a second name."""
        path = self._new_path(parent, name)
        with self._lock:
            inode = self._inodes.get(number)
            existing = inode.path
        for one in (existing, path):
            # A write through the other name would change CURRENT in place, past the protocol.
            self._check_not_current(one, "hard-linked")
        self.directory.link(existing, path)
        with self._lock:
            self._inodes.share(inode)
            self._mark(path)
            return self._entry_of(self._inodes.get(parent), name, self.directory.stat(path))

    def unlink(self, parent: int, name: str) -> None:
        """Remove a name. What has it open keeps it."""
        path = self._new_path(parent, name)
        with self._admitted(Op.REMOVE, path), self._lock:
            folder = self._inodes.get(parent)
            self._check_shown(folder, name)
            if path == LOCK:
                # The file guards the directory for as long as it is mounted; only its name goes.
                self._lock_hidden = True
            else:
                self.directory.remove(path)
            self._inodes.detach(folder, name)
        if path == CURRENT:
            self.notes.changed("CURRENT was removed; engines will not find the database")

    def rmdir(self, parent: int, name: str) -> None:
        """Remove an empty folder."""
        path = self._new_path(parent, name)
        with self._lock:
            self.directory.rmdir(path)
            self._inodes.detach(self._inodes.get(parent), name)

    def is_volatile(self, parent: int, name: str) -> bool:
        """Whether answers about this name must not be cached."""
        # The first test is a quick one for the thousands of tables in a listing.
        return parent == ROOT and name[0] in "CL" and filename.kind_of(name) in _VOLATILE

    def is_current(self, parent: int, name: str) -> bool:
        """Whether this is CURRENT itself: a rename to it is a switch and waits for the disk."""
        return parent == ROOT and name == CURRENT

    def number_of(self, parent: int, name: str) -> int | None:
        """The inode number under which a name is known, without looking it up."""
        with self._lock:
            inode = self._inodes.at(self._inodes.get(parent), name)
            return inode.number if inode is not None else None

    def rename(
        self,
        parent: int,
        name: str,
        new_parent: int,
        new_name: str,
        how: Rename = Rename.REPLACE,
    ) -> None:
        """Rename, atomically. Onto CURRENT it is a switch to the manifest that the file names."""
        old, new = self._new_path(parent, name), self._new_path(new_parent, new_name)
        with self._lock:
            self._check_shown(self._inodes.get(parent), name)
        moved = True
        if LOCK in (old, new):
            self._rename_lock(old, new, how)
        elif new == CURRENT and old != CURRENT:
            moved = self._current.rename_onto(old, how)
        elif old == CURRENT and how is Rename.EXCHANGE:
            self._current.rename_onto(new, how)
        else:
            self.directory.rename(old, new, how)
        with self._lock:
            folder, new_folder = self._inodes.get(parent), self._inodes.get(new_parent)
            if how is Rename.EXCHANGE:
                self._inodes.swap(folder, name, new_folder, new_name)
            elif not moved:
                self._inodes.detach(folder, name)
                self._inodes.supersede(self._inodes.root, CURRENT)
            else:
                self._inodes.move(folder, name, new_folder, new_name)
            self._mark(new)
            self._current.follow_rename(old, new)
        if old == CURRENT and new != CURRENT and how is not Rename.EXCHANGE:
            self.notes.changed(f"CURRENT was renamed to {new}; engines will not find the database")

    # -- open files --------------------------------------------------------------------------------

    def create(
        self, parent: int, name: str, mode: int, flags: int, owner: tuple[int, int] | None
    ) -> tuple[Entry, Opened]:
        """Create and open a file that was not there (or was made meanwhile, without O_EXCL)."""
        path = self._new_path(parent, name)
        if path == CURRENT:
            with self._lock:
                draft, handle, number = self._current.create(exclusive=bool(flags & os.O_EXCL))
            found = replace(handle.stat(), nlink=1)
            return Entry(draft.number, found, volatile=True), Opened(number, direct=True)
        how = Open.WRITE | Open.CREATE
        if flags & os.O_TRUNC:
            how |= Open.TRUNCATE
        if flags & os.O_EXCL:
            how |= Open.EXCLUSIVE
        with self._admitted(Op.CREATE, path), self._lock:
            if path == LOCK and self._lock_hidden:
                how = Open.WRITE | Open.CREATE | Open.TRUNCATE
                self._lock_hidden = False
            file = self.storage.open_file(path, how, stat_module.S_IMODE(mode))
            if owner is not None:
                file.set_attributes(Attributes(uid=owner[0], gid=owner[1]))
            entry = self._entry_of(self._inodes.get(parent), name, file.stat())
            self._mark(path)
            inode = self._inodes.get(entry.number)
            number = self.handles.add(FileHandle(inode, file, writable=True))
        return entry, Opened(number, self._is_direct(path))

    def open(self, number: int, flags: int) -> Opened:
        """Open a file; `flags` as open(2), of which the access mode and O_TRUNC count."""
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self._check_writable()
        while True:
            with self._lock:
                path = self._path_to_open(self._inodes.get(number))
            with self._admitted(Op.OPEN, path), self._lock:
                inode = self._inodes.get(number)
                if self._path_to_open(inode) == path:
                    return self._open(inode, path, flags)
            # Renamed while a fault held us up: what is announced is the name that is opened.

    def _open(self, inode: Inode, path: str, flags: int) -> Opened:
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        if path == CURRENT and (writing or flags & os.O_TRUNC) and self._current.is_regular():
            draft = self._current.open(inode, truncated=bool(flags & os.O_TRUNC))
            return Opened(draft, direct=True)
        how = Open.WRITE if writing else Open.READ
        if flags & os.O_TRUNC:
            how |= Open.WRITE | Open.TRUNCATE
        file = self.storage.open_file(path, how)
        handle = FileHandle(inode, file, writable=Open.WRITE in how)
        return Opened(self.handles.add(handle), self._is_direct(path))

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """Bytes of an open file; fewer than `size` only at its end."""
        return self.handles.file(handle).read(size, offset)

    def write(self, handle: int, data: Buffer, offset: int) -> int:
        """Write to an open file; on CURRENT this is the switch."""
        target = self.handles.file(handle)
        if target.slow:
            try:
                return target.write(data, offset)
            except (AvccfsError, OSError) as error:
                self.notes.refused(said(error))
                raise
        return target.write(data, offset)

    def flush(self, handle: int) -> None:
        """One descriptor of an open file is closed."""
        target = self.handles.file(handle)
        if self._tells_closes and self.faults is not None:
            # Only here can a failing close be told to who closes; `release` has nobody to tell.
            path = self._path_to_tell(target.inode)
            self.faults.before(Op.CLOSE, kind_of_path(path), path)
        target.flush()

    def sync(self, handle: int, *, data_only: bool) -> None:
        """Make an open file durable; waits for the disk."""
        self.handles.file(handle).sync(data_only=data_only)

    def release(self, handle: int) -> None:
        """The last descriptor of an open file is gone."""
        with self._lock:
            closed = self.handles.remove(handle)
        if isinstance(closed, CurrentHandle) and closed.unfinished:
            self.notes.refused(closed.unfinished)
        try:
            closed.close()
        finally:
            with self._lock:
                self._inodes.drop_if_unused(closed.inode)
                self.storage.settle_log()

    def open_folder(self, number: int) -> int:
        """Open a folder for listing; returns the handle's number."""
        with self._lock:
            return self.handles.add_folder(FolderHandle(self._inodes.get(number)))

    def release_folder(self, handle: int) -> None:
        """Close a folder."""
        self.handles.remove_folder(handle)

    def sync_folder(self, handle: int) -> None:
        """Make the names in a folder durable; waits for the disk."""
        with self._lock:
            path = self.handles.folder(handle).inode.path
        self.directory.sync(path)

    def space(self) -> Space:
        """Room on the file system below."""
        return self.directory.space()

    def close(self) -> None:
        """Close everything and let the lock go. No fault keeps anything from being closed."""
        if self.faults is not None:
            self.faults.close()
        for number in self.handles.numbers():
            self.release(number)
        with self._lock:
            if self._lock_hidden:
                self.directory.remove(LOCK)
                self._lock_hidden = False
        self.storage.close()
        self.directory.close()

    def fetch(self, name: str | None = None) -> None:
        """Have a caller that collects writes hand over those to a file in the root, or to all.

        Waits for calls of `write`, so it must not be called by whoever makes those.
        """
        if self.write_back is None:
            return
        with self._lock:
            root = self._inodes.root
            named = self._inodes.at(root, name) if name is not None else None
            wanted = [named] if named is not None else list(self._inodes) if name is None else []
            numbers = [
                inode.number for inode in wanted if any(one.writable for one in inode.handles)
            ]
        for number in numbers:
            self.write_back(number)

    def start_over(self) -> None:
        """What lies below was exchanged: every name must be looked up anew, and is another file.

        Folders that are still there stay what they are: somebody may be at work in them. Nobody may
        have a file open that is not there any more. Not to be called by whoever makes the calls that
        `drop_name` may wait for.
        """
        with self._lock:
            known = [(folder, name) for one in self._inodes for folder, name in one.names]
            folders = [one for one in self._inodes if one.is_folder]
            staying = {one.number for one in folders if self._is_still_there(one)}
            gone = [one for one in self._inodes if one.number not in staying]
            for one in gone:
                for folder, name in list(one.names):
                    self._inodes.detach(folder, name)
            self._lock_hidden = False
        if self.drop_name is not None:
            for folder, name in known:
                self.drop_name(folder.number, name)
        if self.drop_facts is not None:
            for number in staying:
                self.drop_facts(number)

    def _is_still_there(self, inode: Inode) -> bool:
        """Whether a folder's path leads to a folder, which it stands for from now on."""
        try:
            found = self.beneath.stat(inode.path)
        except (StaleInodeError, OSError):
            return False
        inode.identity = found.inode
        return stat_module.S_ISDIR(found.mode)

    def counts(self) -> tuple[int, int]:
        """How many identities and handles are in use: what a leak would let grow."""
        with self._lock:
            return len(self._inodes), len(self.handles)

    # -- faults ----------------------------------------------------------------------------------------

    def take_spoilt(self) -> set[int]:
        """Inode numbers whose bytes a fault has changed since the last call: drop what is cached."""
        if not self._spoilt:
            return set()
        with self._lock:
            spoilt, self._spoilt = self._spoilt, set()
            return spoilt

    def _admitted(self, op: Op, path: str) -> AbstractContextManager[object]:
        """To be entered before the lock is taken: whom a fault holds up must hold up nobody else."""
        return nullcontext() if self.faults is None else self.faults.admit(op, path)

    def _was_spoiled(self, path: str) -> None:
        with self._lock:
            inode: Inode | None = self._inodes.root
            for name in path.split("/"):
                inode = self._inodes.at(inode, name) if inode is not None else None
            if inode is not None:
                self._spoilt.add(inode.number)

    def _path_to_tell(self, inode: Inode) -> str:
        with self._lock:
            try:
                return self._path_to_open(inode)
            except StaleInodeError:
                return ""

    # -- LOG and LOCK ---------------------------------------------------------------------------------

    def _rename_lock(self, old: str, new: str, how: Rename) -> None:
        if old == new:
            return
        if old == LOCK or how is Rename.EXCHANGE:
            self.notes.refused(f"LOCK was not renamed to {new}: it guards the mounted directory")
            raise OSError(errno.EBUSY, "LOCK guards the mounted directory", old)
        if how is Rename.NOREPLACE and not self._lock_hidden:
            raise FileExistsError(errno.EEXIST, "File exists", LOCK)
        self.storage.replace_lock(old)
        self._lock_hidden = False

    def _log_is_open(self) -> bool:
        inode = self._inodes.at(self._inodes.root, LOG)
        return inode is not None and bool(inode.handles)

    def _log_was_written(self) -> None:
        # Its size changed behind the kernel's back, and it may have been rotated.
        for name in (LOG, LOG_OLD):
            self._inodes.detach(self._inodes.root, name)

    # -- helpers -------------------------------------------------------------------------------------

    def _entry_of(self, folder: Inode, name: str, found: Stat) -> Entry:
        inode = self._inodes.bind(folder, name, found)
        inode.lookups += 1
        return Entry(inode.number, found, self.is_volatile(folder.number, name))

    def _made(self, parent: int, name: str, path: str, owner: tuple[int, int] | None) -> Entry:
        with self._lock:
            if owner is not None:
                self.directory.set_attributes(path, Attributes(uid=owner[0], gid=owner[1]))
            self._mark(path)
            return self._entry_of(self._inodes.get(parent), name, self.directory.stat(path))

    def _new_path(self, parent: int, name: str) -> str:
        self._check_writable()
        with self._lock:
            return join(self._inodes.get(parent).path, name)

    def _path_to_open(self, inode: Inode) -> str:
        try:
            return inode.path
        except StaleInodeError:
            if inode.former is None:
                raise
            return inode.former

    def _path_or_none(self, inode: Inode) -> str | None:
        try:
            return inode.path
        except StaleInodeError:
            return None if inode.handles else self._path_to_open(inode)

    def _stat(self, inode: Inode) -> Stat:
        path = self._path_or_none(inode)
        return self.directory.stat(path) if path is not None else self._any_handle(inode).stat()

    def _any_handle(self, inode: Inode) -> Handle:
        if not inode.handles:
            raise StaleInodeError(inode.number)
        return inode.handles[0]

    def _truncate(self, inode: Inode, path: str | None, size: int, handle: Handle | None) -> None:
        if handle is None and path == CURRENT and self._current.is_regular():
            # No open file to collect a new line in: only "as it is" makes sense.
            handle = self._current.draft(inode, truncated=False)
            if size == 0:
                raise MetaError(
                    "emptying CURRENT would leave no valid line", file=CURRENT, offset=0
                )
        if handle is not None and not handle.writable:
            handle = None
        if handle is None and path is None:
            handle = next((one for one in inode.handles if one.writable), None)
            if handle is None:
                raise StaleInodeError(inode.number)
        if handle is not None:
            handle.truncate(size)
            return
        assert path is not None
        with closing(self.storage.open_file(path, Open.WRITE)) as file:
            file.truncate(size)

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError("the mount is read-only")

    def _check_shown(self, folder: Inode, name: str) -> None:
        if self._lock_hidden and name == LOCK and folder.number == ROOT:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", LOCK)

    def _check_not_current(self, path: str, what: str) -> None:
        if path == CURRENT:
            self.notes.refused(f"CURRENT was not {what}: it must stay a file of its own")
            raise OSError(errno.EPERM, f"CURRENT cannot be {what}", CURRENT)

    def _is_direct(self, path: str) -> bool:
        # What is, or is about to become, CURRENT must be here the moment it is written: the rename
        # must not overtake the bytes.
        return filename.kind_of(path) is Kind.META or path.endswith(".dbtmp")

    def _is_volatile_inode(self, inode: Inode) -> bool:
        return any(self.is_volatile(folder.number, name) for folder, name in inode.names)

    def _mark(self, path: str) -> None:
        desc = filename.parse(path)
        if desc is not None and desc.kind is not Kind.TEMP:
            self.numbers.mark(desc.number)
