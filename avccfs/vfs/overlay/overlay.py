"""The overlay as a directory. What a name leads to is in `tree`, what a file holds in `content`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from avccfs import errors
from avccfs.format.filename import LOCK
from avccfs.vfs import platform, rules
from avccfs.vfs.base import (
    Attributes,
    Directory,
    DirectoryLock,
    File,
    Open,
    Rename,
    Space,
    Stat,
    exists,
    join,
)
from avccfs.vfs.layered import Origin
from avccfs.vfs.memory import MemoryLock
from avccfs.vfs.overlay import edits, listing, opening
from avccfs.vfs.overlay.content import FileNode
from avccfs.vfs.overlay.handle import OverlayFile
from avccfs.vfs.overlay.ledger import FileLedger
from avccfs.vfs.overlay.nodes import FolderNode, Node, OtherNode, kind_of
from avccfs.vfs.overlay.state import NEW_INODES, Json, Kind, State
from avccfs.vfs.overlay.store import Store, encode
from avccfs.vfs.overlay.tree import Below, Change, Tree


class Overlay:
    """A directory that shows another one, `lower`, and changes to it. See `vfs.base.Directory`.

    `lower` is only ever read. The changes are in memory, or in `upper`, a directory of their own
    that is locked for as long as the overlay is open (`LockedError`); opened again over the same
    lower directory, it shows the same. No umask applies to the mode of a folder.

    `source` is what the lower directory is called in `upper`, its label unless given. Raises
    `UpperError` for an upper directory that is not of ours, is damaged, or belongs to another
    source (`any_source` lets that pass), and `LowerChangedError` if the lower directory changed
    since the overlay began (unless `check` is off: then a memory overlay cannot tell later either).
    `take_lock` takes a shared lock of the lower directory, if there is a LOCK to take it on.

    The directories given are closed with the overlay, unless `close_inner` is off.
    """

    def __init__(
        self,
        lower: Directory,
        upper: Directory | None = None,
        *,
        take_lock: bool = True,
        check: bool = True,
        source: str | None = None,
        any_source: bool = False,
        close_inner: bool = True,
    ) -> None:
        self._lower = lower
        self._upper = upper
        self._source = lower.label if source is None else source
        self._close_inner = close_inner
        self._closed = False
        self._still = 0
        self._locks: list[MemoryLock] = []
        self._listing: listing.Listing | None = None
        self._ticket = 0
        with ExitStack() as undo:
            self._lower_lock = self._take_lower_lock() if take_lock else None
            if self._lower_lock is not None:
                undo.callback(self._lower_lock.release)
            self._upper_lock: DirectoryLock | None = None
            self._tree = Tree(lower, self._make_file)
            if upper is None:
                self._store = Store.in_memory()
                self._listing = listing.take(lower) if check else None
            else:
                self._upper_lock = _lock_upper(upper)
                if self._upper_lock is not None:
                    undo.callback(self._upper_lock.release)
                self._open_upper(upper, check=check, any_source=any_source)
            self._tree.record = self._write_down
            self._store.begin_anew = self._begin_anew
            undo.pop_all()

    def _take_lower_lock(self) -> DirectoryLock | None:
        # Taking a lock would make the file, and nothing is made there.
        return self._lower.lock(exclusive=False) if exists(self._lower, LOCK) else None

    def _open_upper(self, upper: Directory, *, check: bool, any_source: bool) -> None:
        found = opening.look(upper)
        if found.source not in (None, self._source) and not any_source:
            raise opening.UpperError(
                f"{upper.label}: holds changes to {found.source}, not to {self._source}; open it over "
                "that source, or name another directory"
            )
        if found.is_new or check:
            self._listing = listing.take(self._lower)
        if not found.is_new:
            if check and self._listing is not None:
                listing.demand_same(found.listing, self._listing, self._lower.label, upper.label)
            self._listing = found.listing
        ledger = FileLedger(upper, found.number)
        self._store = Store(upper, ledger, durable=True)
        opening.replay(self._tree, found, upper.label)
        if not upper.read_only or not found.is_new:
            opening.mend(self._tree, self._store)
        if not upper.read_only:
            opening.put_in_order(self._tree, self._store, ledger, self._header())

    def _header(self) -> Json:
        return opening.header(self._source, self._listing or {})

    # What it is

    @property
    def read_only(self) -> bool:
        """Whether the upper directory is."""
        return self._upper is not None and self._upper.read_only

    @property
    def label(self) -> str:
        """The lower directory's, with a word that this is not it."""
        return f"{self._lower.label} (overlay)"

    @property
    def lower(self) -> Directory:
        """The directory below."""
        return self._lower

    @property
    def changed(self) -> bool:
        """Whether anything differs from the lower directory; times of folders and LOCK aside."""
        tree = self._tree
        with tree.mutex:
            self._check_open()
            lock = tree.look_above(tree.root, LOCK)
            return any(self._differs(node) for node in tree.nodes if node is not lock)

    def _differs(self, node: Node) -> bool:
        own = node.state.own
        if isinstance(node, FolderNode):
            names = node.entries.keys() - ({LOCK} if node is self._tree.root else ())
            return bool(names) or (own.mode, own.uid, own.gid) != (None, None, None)
        return node.state.data is not None or own != Attributes()

    def origin(self, path: str) -> Origin | None:
        """Where the file at this path takes its bytes from; None if all of it is new."""
        with self._tree.mutex, rules.Naming(path):
            self._check_open()
            found = self._tree.find(path)
            if isinstance(found, Below):
                if kind_of(found.stat.mode) is not Kind.FILE:
                    raise rules.error(errno.EINVAL, path)
                return Origin(found.path, ())
            if not isinstance(found, FileNode):
                raise rules.error(errno.EINVAL, path)
            state = found.state
            if state.origin is None or (state.data is not None and not found.limit):
                return None
            return Origin(state.origin, found.altered(found.stat(self._lower).size))

    def check_lower(self) -> None:
        """Raise `LowerChangedError` if the lower directory is not what it was at the beginning."""
        if self._listing is not None:
            ours = self._upper.label if self._upper is not None else "in memory"
            now = listing.take(self._lower)
            listing.demand_same(self._listing, now, self._lower.label, ours)

    def busy(self) -> list[str]:
        """The paths of files that are open for writing, or open and changed; sorted."""
        with self._tree.mutex:
            self._check_open()
            held = [node for node in self._files_in_use() if node.writers or node.is_changed]
            return sorted(self._paths_of(held).values())

    def reset(self) -> None:
        """Drop every change and show the lower directory as it is now.

        What is open and did not change stays usable. Raises `OSError(EBUSY)` with the path of a file
        that is open and changed, was renamed or removed; then nothing was dropped.
        """
        tree, store = self._tree, self._store
        with tree.mutex:
            self._check_writable("")
            changed = [node for node in self._files_in_use() if node.is_changed]
            if changed:
                path = min(self._paths_of(changed).values())
                text = "open, and changed since the overlay began; close it first"
                raise OSError(errno.EBUSY, text, path)
            if self._listing is not None:
                self._listing = listing.take(self._lower)
            numbers = [node.state.data for node in tree.nodes if node.state.data is not None]
            store.ledger.restart(encode({**self._header(), **tree.blank()}))
            tree.reset()
            for number in numbers:
                store.delete(number)
            if self._locks:
                self._show_lock()

    @contextmanager
    def held_still(self) -> Iterator[None]:
        """Nothing can be changed in this block: a change fails with `OSError(EBUSY)`.

        So does the block itself, before it begins, with the path of a file that is open for writing.
        """
        with self._tree.mutex:
            self._check_open()
            writing = [node for node in self._files_in_use() if node.writers]
            if writing:
                path = min(self._paths_of(writing).values())
                raise OSError(errno.EBUSY, "open for writing; close it first", path)
            self._still += 1
        try:
            yield
        finally:
            with self._tree.mutex:
                self._still -= 1

    @contextmanager
    def lower_let_go(self) -> Iterator[None]:
        """The lower directory is not locked in this block, so that its changes can be carried over.

        Raises `LockedError` at the end if somebody else has taken it meanwhile.
        """
        lock, self._lower_lock = self._lower_lock, None
        if lock is not None:
            lock.release()
        try:
            yield
        finally:
            if lock is not None:
                self._lower_lock = self._take_lower_lock()

    def _files_in_use(self) -> Iterator[FileNode]:
        return (node for node in self._tree.pinned if isinstance(node, FileNode))

    def _paths_of(self, nodes: list[FileNode]) -> dict[FileNode, str]:
        paths = {node: node.opened_as for node in nodes}
        for path, node in self._tree.walk():
            if isinstance(node, FileNode) and node in paths:
                paths[node] = path
        return paths

    # Looking

    def names(self, path: str = "") -> list[str]:
        """The names in a directory."""
        with self._tree.mutex, rules.Naming(path):
            self._check_open()
            return self._tree.names(self._tree.folder(path))

    def scan(self, path: str = "") -> list[tuple[str, Stat]]:
        """Names with their attributes."""
        with rules.Naming(path):
            with self._tree.mutex:
                self._check_open()
                folder = self._tree.folder(path)
                origin = folder.state.origin
            below = [] if origin is None else self._lower.scan(origin)
            with self._tree.mutex:
                return self._tree.scan(folder, below)

    def stat(self, path: str = "") -> Stat:
        """Attributes of an entry itself."""
        with self._tree.mutex, rules.Naming(path):
            self._check_open()
            found = self._tree.find(path)
            return found.stat if isinstance(found, Below) else found.stat(self._lower)

    def readlink(self, path: str) -> str:
        """Where a symbolic link points."""
        with self._tree.mutex, rules.Naming(path):
            self._check_open()
            found = self._tree.find(path)
            if isinstance(found, Below):
                return self._lower.readlink(found.path)
            if not isinstance(found, OtherNode):
                raise rules.error(errno.EINVAL, path)
            return found.readlink(self._lower)

    def space(self) -> Space:
        """Room left for changes."""
        self._check_open()
        return self._store.upper.space()

    # Opening

    def open(self, path: str, flags: Open = Open.READ, mode: int = 0o644) -> OverlayFile:
        """Open, or create, a regular file."""
        tree = self._tree
        # Most are opened to be read, and to ask a set of flags for one of them is slow.
        changes = flags is not Open.READ
        writable = changes and Open.WRITE in flags
        with rules.Naming(path):
            with tree.mutex:
                self._check_open()
                if changes:
                    self._check_changes(path)
                folder, name = tree.place(path, root=errno.EISDIR)
                rules.check_open(flags, path)
                node, lower = self._find_to_open(folder, name, path, flags)
                created = node is None
                if node is None:
                    node = self._create(folder, name, mode)
                self._use(node, lower, writable=writable)
                node.opened_as = path
            refusal = self.label if self.read_only else None
            file = OverlayFile(node, path, self._leave, writable=writable, refusal=refusal)
            if changes and Open.TRUNCATE in flags and not created:
                try:
                    node.truncate(0)
                except BaseException:
                    file.close()
                    raise
        return file

    def _find_to_open(
        self, folder: FolderNode, name: str, path: str, flags: Open
    ) -> tuple[FileNode | None, File | None]:
        """The file to open, None for one to be made; and the lower file, if it was opened already."""
        tree = self._tree
        exclusive = flags is not Open.READ and Open.EXCLUSIVE in flags
        found = tree.look_above(folder, name)
        below = join(folder.state.origin or "", name)
        if exclusive and found is not None and not isinstance(found, Node):
            # Only looked at: opening would fail for what is no file, and it is there all the same.
            found = tree.look(folder, name)
        if isinstance(found, FileNode) and not exclusive:
            return found, None
        if isinstance(found, (Node, Below)):
            if exclusive:
                raise rules.error(errno.EEXIST, path)
            raise rules.error(_not_a_file(found, self._lower), path)
        if found is not None:
            try:
                lower = self._lower.open(below)
            except FileNotFoundError:
                pass
            else:
                try:
                    node = tree.hold(tree.known(Below(below, lower.stat())))
                except BaseException:
                    lower.close()
                    raise
                if isinstance(node, FileNode):
                    return node, lower
                lower.close()
                raise rules.error(errno.EIO, path)
        if Open.CREATE not in flags:
            raise rules.error(errno.ENOENT, path)
        return None, None

    def _create(self, folder: FolderNode, name: str, mode: int) -> FileNode:
        tree, store = self._tree, self._store
        number = tree.next_number()
        file = store.create(number, mode)
        try:
            state = State(
                Kind.FILE, NEW_INODES + number, 1, id=number, data=number, mode=stat.S_IMODE(mode)
            )
            node = self._make_file(replace(state, id=0))
            change = Change(tree)
            change.set(node, state)
            change.put(folder, name, node)
            tree.commit(change)
        except BaseException:
            file.close()
            store.delete(number)
            raise
        node.adopt_new(file)
        return node

    def _use(self, node: FileNode, lower: File | None, *, writable: bool) -> None:
        try:
            node.open(lower, writable=writable)
        except BaseException:
            if not node.pins:
                for file in node.shut():
                    file.close()
                self._tree.forget(node)
            raise
        self._tree.pin(node)
        node.writers += writable

    def _leave(self, node: FileNode, writable: bool) -> None:
        """Give back what `_use` gave."""
        was_last = False
        if writable:
            with self._tree.mutex:
                node.writers -= 1
                was_last = not node.writers
        try:
            if was_last:
                node.leave()
        finally:
            with self._tree.mutex:
                files = node.shut() if self._tree.unpin(node) else []
            for file in files:
                file.close()

    def _make_file(self, state: State) -> FileNode:
        return FileNode(state, self._lower, self._store, self._tree.take_number, self._note)

    # Changing

    def rename(self, old: str, new: str, how: Rename = Rename.REPLACE) -> None:
        """Rename, atomically. Nothing is copied, whatever it is that gets another name."""
        with self._changes(old, new) as change:
            edits.rename(change, old, new, how)

    def remove(self, path: str) -> None:
        """Remove the name of anything that is not a directory."""
        with self._changes(path) as change:
            edits.remove(change, path)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make a directory."""
        with self._changes(path) as change:
            edits.mkdir(change, path, mode)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        with self._changes(path) as change:
            edits.rmdir(change, path)

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link at `path`."""
        with self._changes(path) as change:
            edits.symlink(change, path, target)

    def link(self, existing: str, new: str) -> None:
        """Make a second name for a file."""
        with self._changes(existing, new) as change:
            edits.link(change, existing, new)

    def set_attributes(self, path: str, change: Attributes) -> None:
        """Change mode, owner or times of an entry itself."""
        tree = self._tree
        with rules.Naming(path):
            with tree.mutex:
                self._check_changes(path)
                node = tree.node(path)
                if not isinstance(node, FileNode):
                    made = edits.attributes(tree, node, change, path)
                    if made is not None:
                        tree.commit(made)
                    return
                tree.pin(node)
            try:
                if change != Attributes():
                    node.set_attributes(change)
            finally:
                self._leave(node, False)

    @contextmanager
    def _changes(self, path: str, path2: str | None = None) -> Iterator[Change]:
        """A change of names, which is carried out as a whole when the block ends."""
        tree, store = self._tree, self._store
        with rules.Naming(path, path2):
            with tree.mutex:
                self._check_changes(path)
                change = Change(tree)
                yield change
                if not change.names:
                    return
                tree.commit(change)
                for node, state in change.states.items():
                    if not state.nlink and state.data is not None:
                        store.doom(state.data, node.ticket)
            if store.crowded:
                store.settle(self._ticket)

    # Writing down

    def _write_down(self, change: Change) -> int:
        if self._store.durable:
            self._begin_anew()
            self._ticket = self._store.ledger.append(encode(self._tree.told_of(change)))
        return self._ticket

    def _begin_anew(self) -> None:
        with self._tree.mutex:
            if self._store.ledger.overgrown():
                everything = {**self._header(), **self._tree.to_json()}
                self._store.ledger.restart(encode(everything))

    def _note(
        self, node: FileNode, fields: dict[str, object], then: Callable[[], None]
    ) -> int | None:
        """See `content.Recorder`."""
        with self._tree.mutex:
            if not node.state.nlink:
                then()
                return None
            change = Change(self._tree)
            change.set(node, replace(node.state, **fields))  # type: ignore[arg-type]
            self._tree.commit(change)
            then()
            return node.ticket

    # Keeping

    def sync(self, path: str = "") -> None:
        """Make the names durable: those of this directory, and all other changes of names."""
        with rules.Naming(path):
            with self._tree.mutex:
                self._check_open()
                self._tree.folder(path)
            if not self.read_only:
                self._store.settle(self._ticket)

    def lock(self, *, exclusive: bool) -> MemoryLock:
        """Take the overlay's own lock, many shared or one exclusive; no other process sees it.

        What keeps others out is the lock of the upper directory, which is held all the time. Makes
        the file LOCK as a local directory does, in the overlay.
        """
        with self._tree.mutex:
            self._check_open()
            if exclusive and self.read_only:
                raise rules.read_only(self.label, "")
            if self._locks and (exclusive or self._locks[0].exclusive):
                pid = os.getpid()
                holder = ((pid, platform.process_name(pid) or "this program"),)
                raise errors.LockedError(platform.explain_lock(self.label, holder), holders=holder)
            self._show_lock()
            lock = MemoryLock(self._locks, self._tree.mutex, exclusive=exclusive)
            self._locks.append(lock)
            return lock

    def _show_lock(self) -> None:
        # Not by `open`: it is made even while nothing can be changed.
        if not self.read_only and self._tree.look(self._tree.root, LOCK) is None:
            node = self._create(self._tree.root, LOCK, 0o644)
            self._use(node, None, writable=True)
            self._leave(node, True)

    def close(self) -> None:
        """Keep what is to be kept, release everything. Open files stay usable until they are closed.

        Except that over an upper directory a lower file that did not change before can only be read
        from now on: nothing would remember the change.
        """
        with self._tree.mutex:
            if self._closed:
                return
            self._closed = True
            self._locks.clear()
            files = list(self._files_in_use())
        with ExitStack() as last:
            for inner in (self._lower, self._upper) if self._close_inner else ():
                if inner is not None:
                    last.callback(inner.close)
            for lock in (self._lower_lock, self._upper_lock):
                if lock is not None:
                    last.callback(lock.release)
            last.callback(self._store.ledger.close)
            if not self.read_only:
                last.callback(self._keep_all, files)

    def _keep_all(self, files: list[FileNode]) -> None:
        """Make every name durable, so that what is open can be synced without the overlay."""
        for node in files:
            node.leave()
        self._store.sync_names()
        self._store.settle(self._ticket)
        for node in files:
            node.settled()

    def _check_open(self) -> None:
        if self._closed:
            raise rules.closed_directory(self.label)

    def _check_writable(self, path: str) -> None:
        self._check_open()
        if self.read_only:
            raise rules.read_only(self.label, path)

    def _check_changes(self, path: str) -> None:
        self._check_writable(path)
        if self._still:
            text = "the overlay's changes are being carried over or dropped; try again in a moment"
            raise OSError(errno.EBUSY, text, path)


def _lock_upper(upper: Directory) -> DirectoryLock | None:
    if not exists(upper, LOCK):
        opening.look(upper)  # Taking the lock makes the file: not in a directory of somebody else.
    try:
        return upper.lock(exclusive=not upper.read_only)
    except errors.LockedError as exc:
        by = ", ".join(f"{name} (pid {pid})" for pid, name in exc.holders) or "somebody"
        text = f"{upper.label}: the overlay whose changes these are is open, held by {by}; "
        text += "close it (unmount it) first, or name another directory"
        raise errors.LockedError(text, holders=exc.holders) from None


def _not_a_file(found: Node | Below, lower: Directory) -> int:
    mode = found.stat.mode if isinstance(found, Below) else found.stat(lower).mode
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return errno.ELOOP if stat.S_ISLNK(mode) else errno.ENXIO
