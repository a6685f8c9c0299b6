"""A directory in memory, with the rules of a local one.

The same errors in the same order as Linux gives them: tests and crash states run on it in place of
a disk.
"""

from __future__ import annotations

import errno
import os
import stat
import threading

from avccfs import errors
from avccfs.format import filename
from avccfs.vfs import platform, rules
from avccfs.vfs.base import (
    Attributes,
    Buffer,
    Open,
    Rename,
    Space,
    Stat,
)
from avccfs.vfs.nodes import Disk, FileNode, FolderNode, LinkNode, Node, stat_of
from avccfs.vfs.sparse import PAGE

NAME_MAX = 255
"""The longest name, in bytes."""
# What an unlimited directory claims to have: 1 EiB, which no tool overflows on.
_UNLIMITED = 2**60
_FILES = 2**32


class MemoryFile:
    """An open file in memory. See `vfs.base.File`."""

    def __init__(self, disk: Disk, node: FileNode, path: str, *, writable: bool) -> None:
        """Made by `MemoryDirectory.open`, with the disk's mutex held."""
        self._disk = disk
        self._node: FileNode | None = node
        self._path = path
        self._writable = writable
        node.opens += 1

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`."""
        with self._disk.mutex:
            node = self._held()
            if size < 0 or not 0 <= offset <= rules.MAX_OFFSET:
                raise rules.error(errno.EINVAL, self._path)
            return node.data.read(size, offset)

    def write_at(self, data: Buffer, offset: int) -> int:
        """Write all of `data` at `offset`; what there is room for when it runs out."""
        with self._disk.mutex, memoryview(data) as view, view.cast("B") as content:
            node = self._held()
            if not self._writable:
                raise rules.error(errno.EBADF, self._path)
            if offset < 0:
                raise rules.error(errno.EINVAL, self._path)
            if not content:
                return 0
            if offset + len(content) > rules.MAX_OFFSET:
                raise rules.error(errno.EFBIG, self._path)
            done = self._disk.write(node, content, offset)
            if not done:
                raise rules.error(errno.ENOSPC, self._path)
            node.modified()
            return done

    def truncate(self, size: int) -> None:
        """Cut or extend to `size` bytes."""
        with self._disk.mutex:
            node = self._held()
            if size < 0 or not self._writable:
                raise rules.error(errno.EINVAL, self._path)
            if size > rules.MAX_OFFSET:
                raise rules.error(errno.EFBIG, self._path)
            self._disk.truncate(node, size)
            node.modified()

    def sync(self, *, data_only: bool = False) -> None:
        """Nothing to do: memory is as durable as it gets."""
        with self._disk.mutex:
            self._held()

    def stat(self) -> Stat:
        """The file's attributes."""
        with self._disk.mutex:
            return stat_of(self._held())

    def set_attributes(self, change: Attributes) -> None:
        """Change mode, owner or times."""
        with self._disk.mutex:
            self._held().set(change)

    def close(self) -> None:
        """Release the handle, and the content if no name and no other handle is left."""
        with self._disk.mutex:
            node, self._node = self._node, None
            if node is not None:
                node.opens -= 1
                self._disk.forget(node)

    def _held(self) -> FileNode:
        if self._node is None:
            raise rules.closed_file(self._path)
        return self._node


class MemoryLock:
    """A held lock of a `MemoryDirectory`."""

    def __init__(self, held: list[MemoryLock], mutex: threading.RLock, *, exclusive: bool) -> None:
        self._held = held
        self._mutex = mutex
        self.exclusive = exclusive

    def also(self, path: str) -> MemoryLock:
        """The lock is the directory's own here: no file can take it along."""
        with self._mutex:
            other = MemoryLock(self._held, self._mutex, exclusive=self.exclusive)
            self._held.append(other)
            return other

    def release(self) -> None:
        """Let go; may be called again."""
        with self._mutex:
            if self in self._held:
                self._held.remove(self)


class MemoryDirectory:
    """A directory in memory. See `vfs.base.Directory`.

    Differences from a local one: nobody is refused for lack of rights, no umask applies to `mode`,
    access times never move on their own, and everything is gone when the object is.
    """

    def __init__(self, *, capacity: int | None = None) -> None:
        """Start empty. `capacity` is the room for content in bytes, handed out in pages of 4096.

        Beyond it writes get `OSError(ENOSPC)`; None is unlimited, shown by `space` as 1 EiB.
        """
        self._disk = Disk(capacity)
        self._mutex = self._disk.mutex
        self._root = FolderNode(next(self._disk.inodes), stat.S_IFDIR | 0o755, nlink=2)
        self._locks: list[MemoryLock] = []
        self._closed = False

    @property
    def read_only(self) -> bool:
        """Never."""
        return False

    @property
    def label(self) -> str:
        """`mem:`."""
        return "mem:"

    # Looking

    def names(self, path: str = "") -> list[str]:
        """The names in a directory."""
        with self._mutex:
            return list(self._folder(path).entries)

    def scan(self, path: str = "") -> list[tuple[str, Stat]]:
        """Names with their attributes."""
        with self._mutex:
            return [(name, stat_of(node)) for name, node in self._folder(path).entries.items()]

    def stat(self, path: str = "") -> Stat:
        """Attributes of an entry itself."""
        with self._mutex:
            return stat_of(self._node(path))

    def readlink(self, path: str) -> str:
        """Where a symbolic link points."""
        with self._mutex:
            node = self._node(path)
            if not isinstance(node, LinkNode):
                raise rules.error(errno.EINVAL, path)
            return node.target

    def space(self) -> Space:
        """The capacity and what is left of it, in pages."""
        with self._mutex:
            self._check_open()
            total = _UNLIMITED if self._disk.capacity is None else self._disk.capacity
            free = max(0, total - self._disk.used) // PAGE
            return Space(
                bsize=PAGE,
                frsize=PAGE,
                blocks=total // PAGE,
                bfree=free,
                bavail=free,
                files=_FILES,
                ffree=_FILES,
                favail=_FILES,
                namemax=NAME_MAX,
            )

    # Opening

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> MemoryFile:
        """Open, or create, a regular file."""
        with self._mutex:
            folder, name = self._place(path, root=errno.EISDIR)
            rules.check_open(flags, path)
            node = self._lookup(folder, name, path)
            if node is None:
                if Open.CREATE not in flags:
                    raise rules.error(errno.ENOENT, path)
                node = FileNode(next(self._disk.inodes), stat.S_IFREG | stat.S_IMODE(mode))
                self._put(folder, name, node)
            elif Open.EXCLUSIVE in flags:
                raise rules.error(errno.EEXIST, path)
            elif not isinstance(node, FileNode):
                is_link = isinstance(node, LinkNode)
                raise rules.error(errno.ELOOP if is_link else errno.EISDIR, path)
            elif Open.TRUNCATE in flags:
                self._disk.truncate(node, 0)
                node.modified()
            return MemoryFile(self._disk, node, path, writable=Open.WRITE in flags)

    # Changing

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        """Rename, atomically."""
        with self._mutex:
            try:
                self._rename(old, new, how)
            except OSError as exc:
                exc.filename, exc.filename2 = old, new
                raise

    def _rename(self, old: str, new: str, how: Rename) -> None:
        # The order of the checks is the kernel's; it decides which error comes out.
        old_folder, old_name = self._place(old, root=errno.EBUSY)
        new_folder, new_name = self._place(new, root=errno.EBUSY)
        source = self._lookup(old_folder, old_name, old)
        if source is None:
            raise rules.error(errno.ENOENT, old)
        target = self._lookup(new_folder, new_name, new)
        if how is Rename.NOREPLACE and target is not None:
            raise rules.error(errno.EEXIST, new)
        if how is Rename.EXCHANGE and target is None:
            raise rules.error(errno.ENOENT, new)
        if new_folder.within(source):
            raise rules.error(errno.EINVAL, old)
        if target is not None and old_folder.within(target):
            raise rules.error(
                errno.EINVAL if how is Rename.EXCHANGE else errno.ENOTEMPTY,
                new,
            )
        if target is source:
            return
        if target is not None and how is not Rename.EXCHANGE:
            self._check_replace(source, target, new)
            self._drop(new_folder, new_name)
        self._take(old_folder, old_name)
        if target is not None and how is Rename.EXCHANGE:
            self._take(new_folder, new_name)
            self._put(old_folder, old_name, target)
        self._put(new_folder, new_name, source)

    def _check_replace(self, source: Node, target: Node, new: str) -> None:
        if isinstance(source, FolderNode):
            if not isinstance(target, FolderNode):
                raise rules.error(errno.ENOTDIR, new)
            if target.entries:
                raise rules.error(errno.ENOTEMPTY, new)
        elif isinstance(target, FolderNode):
            raise rules.error(errno.EISDIR, new)

    def remove(self, path: str) -> None:
        """Remove the name of anything that is not a directory."""
        with self._mutex:
            folder, name = self._place(path, root=errno.EISDIR)
            node = self._existing(folder, name, path)
            if isinstance(node, FolderNode):
                raise rules.error(errno.EISDIR, path)
            self._drop(folder, name)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make a directory."""
        with self._mutex:
            folder, name = self._free_place(path)
            inode = next(self._disk.inodes)
            self._put(folder, name, FolderNode(inode, stat.S_IFDIR | stat.S_IMODE(mode), nlink=2))

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        with self._mutex:
            folder, name = self._place(path, root=errno.EBUSY)
            node = self._existing(folder, name, path)
            if not isinstance(node, FolderNode):
                raise rules.error(errno.ENOTDIR, path)
            if node.entries:
                raise rules.error(errno.ENOTEMPTY, path)
            self._drop(folder, name)

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link at `path`."""
        with self._mutex:
            self._place(path, root=errno.EEXIST)
            rules.check_target(target, path)
            folder, name = self._free_place(path)
            inode = next(self._disk.inodes)
            self._put(folder, name, LinkNode(inode, stat.S_IFLNK | 0o777, target=target))

    def link(self, existing: str, new: str) -> None:
        """Make a second name for a file."""
        with self._mutex, rules.Naming(existing, new):
            # Both ways are walked before either entry is looked at, as by `LocalDirectory`.
            if existing:
                self._place(existing, root=errno.EPERM)
            self._place(new, root=errno.EEXIST)
            node = self._node(existing)
            folder, name = self._free_place(new)
            if isinstance(node, FolderNode):
                raise rules.error(errno.EPERM, existing)
            node.nlink += 1
            self._put(folder, name, node)

    def set_attributes(self, path: str, change: Attributes) -> None:
        """Change mode, owner or times of an entry itself."""
        with self._mutex:
            node = self._node(path)
            if change.mode is not None and isinstance(node, LinkNode):
                raise rules.error(errno.EOPNOTSUPP, path)
            node.set(change)

    # Keeping

    def sync(self, path: str = "") -> None:
        """Nothing to do: memory is as durable as it gets."""
        with self._mutex:
            self._folder(path)

    def lock(self, *, exclusive: bool) -> MemoryLock:
        """Take the lock, many shared or one exclusive; makes the file `LOCK` as a local one does."""
        with self._mutex:
            self._check_open()
            if self._locks and (exclusive or self._locks[0].exclusive):
                pid = os.getpid()
                holder = ((pid, platform.process_name(pid) or "this program"),)
                raise errors.LockedError(platform.explain_lock(self.label, holder), holders=holder)
            if filename.LOCK not in self._root.entries:
                self.open(filename.LOCK, Open.WRITE | Open.CREATE).close()
            lock = MemoryLock(self._locks, self._mutex, exclusive=exclusive)
            self._locks.append(lock)
            return lock

    def close(self) -> None:
        """Release the directory and its locks. Open files stay usable until they are closed."""
        with self._mutex:
            self._closed = True
            self._locks.clear()

    # Paths; all of these are called with the mutex held

    def _check_open(self) -> None:
        if self._closed:
            raise rules.closed_directory(self.label)

    def _place(self, path: str, *, root: int) -> tuple[FolderNode, str]:
        """The folder and the name a path leads to; `root` is the errno for the empty path."""
        self._check_open()
        parts = rules.components(path)
        if not parts:
            raise rules.error(root, path)
        folder = self._root
        for name in parts[:-1]:
            folder = self._as_folder(self._lookup(folder, name, path), path)
        return folder, parts[-1]

    def _free_place(self, path: str) -> tuple[FolderNode, str]:
        folder, name = self._place(path, root=errno.EEXIST)
        if self._lookup(folder, name, path) is not None:
            raise rules.error(errno.EEXIST, path)
        return folder, name

    def _lookup(self, folder: FolderNode, name: str, path: str) -> Node | None:
        if len(os.fsencode(name)) > NAME_MAX:
            raise rules.error(errno.ENAMETOOLONG, path)
        return folder.entries.get(name)

    def _existing(self, folder: FolderNode, name: str, path: str) -> Node:
        node = self._lookup(folder, name, path)
        if node is None:
            raise rules.error(errno.ENOENT, path)
        return node

    def _as_folder(self, node: Node | None, path: str) -> FolderNode:
        if isinstance(node, FolderNode):
            return node
        if node is None:
            raise rules.error(errno.ENOENT, path)
        raise rules.error(errno.ELOOP if isinstance(node, LinkNode) else errno.ENOTDIR, path)

    def _node(self, path: str) -> Node:
        self._check_open()
        if not path:
            return self._root
        folder, name = self._place(path, root=errno.EINVAL)
        return self._existing(folder, name, path)

    def _folder(self, path: str) -> FolderNode:
        return self._as_folder(self._node(path), path)

    # Entries; the link counts and times are kept here and nowhere else

    def _put(self, folder: FolderNode, name: str, node: Node) -> None:
        folder.entries[name] = node
        folder.modified()
        node.changed()
        if isinstance(node, FolderNode):
            node.parent = folder
            folder.nlink += 1

    def _take(self, folder: FolderNode, name: str) -> Node:
        node = folder.entries.pop(name)
        folder.modified()
        if isinstance(node, FolderNode):
            node.parent = None
            folder.nlink -= 1
        return node

    def _drop(self, folder: FolderNode, name: str) -> None:
        node = self._take(folder, name)
        node.changed()
        node.nlink = 0 if isinstance(node, FolderNode) else node.nlink - 1
        self._disk.forget(node)
