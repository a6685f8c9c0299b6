"""The file system with the hidden folder of views in its root.

Numbers tell the two apart: those of views lie far above those of files. A file or folder that is
really called like the hidden folder wins over it, and nothing in it can be changed.
"""

from __future__ import annotations

import os
import stat as stat_module
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from avccfs.errors import AvccfsError, ReadOnlyError
from avccfs.fs.core import Core, Entry, Opened
from avccfs.fs.handles import FolderHandle
from avccfs.fs.inodes import ROOT, Inode
from avccfs.fs.rendered import Rendered
from avccfs.fs.views import FIRST, Views
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Attributes, Buffer, Rename, Stat, exists

owns = Views.owns


class ViewHandle:
    """An open view."""

    __slots__ = ("_content", "_number", "_views", "inode", "read", "slow", "writable")

    immediate = False

    def __init__(self, views: Views, number: int, content: Rendered) -> None:
        self.inode = Inode(number, 0, is_folder=False)
        self.writable = False
        self.slow = False
        self.read = content.read_at
        self._views = views
        self._number = number
        self._content = content

    def write(self, data: Buffer, offset: int) -> int:
        """Views are read-only."""
        raise _refusal()

    def truncate(self, size: int) -> None:
        """Views are read-only."""
        raise _refusal()

    def sync(self, *, data_only: bool) -> None:
        """Nothing here is on a disk."""

    def flush(self) -> None:
        """Nothing was written."""

    def stat(self) -> Stat:
        """See `Handle`."""
        return self._views.getattr(self._number)

    def set_attributes(self, change: Attributes) -> None:
        """Views are read-only."""
        raise _refusal()

    def close(self) -> None:
        """See `Handle`."""
        self._views.release(self._number)


class TakingHandle:
    """A view that is open for writing: what is written is not kept, but done, line by line.

    A write holds whole lines (as `echo` and `printf` make them); where in the file it goes means
    nothing. What cannot be done fails the write.
    """

    __slots__ = ("_stat", "_take", "inode", "slow", "writable")

    immediate = True

    def __init__(self, number: int, take: Callable[[str], None], found: Callable[[], Stat]) -> None:
        self.inode = Inode(number, 0, is_folder=False)
        self.writable = True
        self.slow = False
        self._take = take
        self._stat = found

    def read(self, size: int, offset: int) -> bytes:
        """Nothing: to read it, open it for reading."""
        return b""

    def write(self, data: Buffer, offset: int) -> int:
        """Have every line done; raises at the first that cannot be."""
        for line in bytes(data).decode("utf-8", "replace").splitlines():
            self._take(line)
        return len(data)

    def truncate(self, size: int) -> None:
        """As shells do first: there is nothing to cut."""

    def sync(self, *, data_only: bool) -> None:
        """What was written is done."""

    def flush(self) -> None:
        """What was written is done."""

    def stat(self) -> Stat:
        """See `Handle`."""
        return self._stat()

    def set_attributes(self, change: Attributes) -> None:
        """Views are read-only."""
        raise _refusal()

    def close(self) -> None:
        """See `Handle`."""


class ViewFolderHandle(FolderHandle):
    """An open folder of views: names, types and sizes as they were when reading began."""

    __slots__ = ("found",)

    def __init__(self, inode: Inode) -> None:
        super().__init__(inode)
        self.found: dict[str, tuple[int, int]] = {}


class ViewedCore(Core):
    """`Core` and `Views`, as one file system."""

    def __init__(self, storage: DirectoryStorage, name: str, *, source: str | None = None) -> None:
        """`name` is what the hidden folder is called."""
        super().__init__(storage, source=source)
        self._since = datetime.now(UTC)
        self._name = name
        self._views: Views | None = None
        self._views_lock = threading.Lock()

    @property
    def views(self) -> Views:
        """What lies in the hidden folder; made when it is first asked for, which takes a moment."""
        with self._views_lock:
            if self._views is None:
                self._views = self.make_views()
            return self._views

    def make_views(self) -> Views:
        """The tree of all there is to see."""
        # Late: all the decoders come with it, and most mounts are never looked at this way.
        from avccfs.fs.tree import Tree

        root = self.directory.stat()
        return Views(Tree(self).root, owner=(root.uid, root.gid))

    def status(self) -> dict[str, object]:
        """What is mounted, and how."""
        # Late: hardly any mount is asked, and all would wait for it.
        from importlib.metadata import version

        return {
            "avccfs": version("avccfs"),
            "pid": os.getpid(),
            "source": self.directory.label,
            "since": self._since.isoformat(timespec="seconds"),
            "read_only": self.read_only,
            "write_back": self.write_back is not None,
            "next_file_number": self.numbers.next,
        }

    def messages(self) -> list[str]:
        """What the mount refused and why, and what it changed."""
        return self.notes.kept()

    def is_slow(self, number: int, name: str | None = None) -> bool:
        """A view is rendered when it is looked up, and a folder of views made when it is listed."""
        return owns(number) or (self._views is None and self._is_hidden(number, name))

    def lookup(self, parent: int, name: str) -> Entry:
        """As `Core.lookup`; the name of the hidden folder is found if nothing real has it."""
        if owns(parent):
            return _entry(*self.views.lookup(parent, name))
        try:
            return super().lookup(parent, name)
        except FileNotFoundError:
            if not self._is_hidden(parent, name):
                raise
            return _entry(*self.views.lookup_root())

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """As `Core.forget`."""
        files = []
        for number, count in counts:
            if owns(number):
                self.views.forget(number, count)
            else:
                files.append((number, count))
        super().forget(files)

    def getattr(self, number: int) -> Entry:
        """As `Core.getattr`."""
        if owns(number):
            return _entry(number, self.views.getattr(number))
        return super().getattr(number)

    def setattr(
        self, number: int, change: Attributes, size: int | None = None, handle: int | None = None
    ) -> Entry:
        """As `Core.setattr`; nothing about a view can be changed."""
        if not owns(number):
            return super().setattr(number, change, size, handle)
        if size != 0 or self.views.taker(number) is None:
            raise _refusal()
        # A shell's `>`: it comes before the line that counts.
        return self.getattr(number)

    def readlink(self, number: int) -> str:
        """As `Core.readlink`."""
        return self.views.readlink(number) if owns(number) else super().readlink(number)

    def number_of(self, parent: int, name: str) -> int | None:
        """As `Core.number_of`; nothing of a view waits in a cache."""
        return None if owns(parent) else super().number_of(parent, name)

    def mknod(self, parent: int, name: str, mode: int, owner: tuple[int, int] | None) -> Entry:
        """As `Core.mknod`."""
        self._new_path(parent, name)
        return super().mknod(parent, name, mode, owner)

    def link(self, number: int, parent: int, name: str) -> Entry:
        """As `Core.link`; a view has one name."""
        if owns(number):
            raise _refusal()
        return super().link(number, parent, name)

    def unlink(self, parent: int, name: str) -> None:
        """As `Core.unlink`; the hidden folder stays."""
        self._check_real(parent, name)
        super().unlink(parent, name)

    def rmdir(self, parent: int, name: str) -> None:
        """As `Core.rmdir`; the hidden folder stays."""
        self._check_real(parent, name)
        super().rmdir(parent, name)

    def rename(
        self,
        parent: int,
        name: str,
        new_parent: int,
        new_name: str,
        how: Rename = Rename.REPLACE,
    ) -> None:
        """As `Core.rename`; views stay where they are.

        A folder may be given the name of the hidden folder, and has it from then on.
        """
        self._new_path(new_parent, new_name)
        self._check_real(parent, name)
        if how is Rename.EXCHANGE:
            self._check_real(new_parent, new_name)
        super().rename(parent, name, new_parent, new_name, how)

    def open(self, number: int, flags: int) -> Opened:
        """As `Core.open`."""
        if not owns(number):
            return super().open(number, flags)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            take = self.views.taker(number)
            if take is None:
                raise _refusal()
            taking = TakingHandle(
                number, self._said_aloud(take), lambda: self.views.getattr(number)
            )
            return Opened(self.handles.add(taking), direct=True)
        handle = ViewHandle(self.views, number, self.views.open(number))
        return Opened(self.handles.add(handle), direct=False)

    def flush(self, handle: int) -> None:
        """As `Core.flush`; whoever closes a view has done nothing to the directory."""
        target = self.handles.file(handle)
        if owns(target.inode.number):
            target.flush()
        else:
            super().flush(handle)

    def open_folder(self, number: int) -> int:
        """As `Core.open_folder`."""
        if not owns(number):
            return super().open_folder(number)
        return self.handles.add_folder(ViewFolderHandle(Inode(number, 0, is_folder=True)))

    def sync_folder(self, handle: int) -> None:
        """As `Core.sync_folder`; nothing of a view is on a disk."""
        if not owns(self.handles.folder(handle).inode.number):
            super().sync_folder(handle)

    def list_folder(self, handle: int, start: int) -> Iterable[tuple[str, Stat, int]]:
        """As `Core.list_folder`."""
        folder = self.handles.folder(handle)
        if not isinstance(folder, ViewFolderHandle):
            yield from super().list_folder(handle, start)
            return
        if folder.names is None or start == 0:
            folder.found = self.views.names(folder.inode.number)
            folder.names = list(folder.found)
        for position in range(start, len(folder.names)):
            name = folder.names[position]
            kind, size = folder.found[name]
            yield name, Stat(mode=kind, size=size, inode=FIRST), position + 1

    def list_entry(self, handle: int, name: str, found: Stat) -> Entry:
        """As `Core.list_entry`."""
        number = self.handles.folder(handle).inode.number
        if not owns(number):
            return super().list_entry(handle, name, found)
        kind = stat_module.S_IFMT(found.mode)
        return _entry(*self.views.provisional(number, name, kind, found.size))

    def close(self) -> None:
        """As `Core.close`."""
        super().close()
        with self._views_lock:
            if self._views is not None:
                self._views.close()

    def _said_aloud(self, take: Callable[[str], None]) -> Callable[[str], None]:
        """Errors of a shell's redirection are an errno; the words go where they can be found."""

        def taking(line: str) -> None:
            try:
                take(line)
            except AvccfsError as error:
                self.notes.refused(f"{line!r}: {error}")
                raise

        return taking

    def _is_hidden(self, parent: int, name: str | None) -> bool:
        return parent == ROOT and name == self._name

    def _check_real(self, parent: int, name: str) -> None:
        if self._is_hidden(parent, name) and not exists(self.directory, name):
            raise _refusal()

    def _new_path(self, parent: int, name: str) -> str:
        # Every change of a name goes through here.
        if owns(parent):
            raise _refusal()
        return super()._new_path(parent, name)


def _entry(number: int, found: Stat) -> Entry:
    return Entry(number, found, volatile=True)


def _refusal() -> ReadOnlyError:
    return ReadOnlyError("views are made from the database and cannot be changed")
