"""The bytes of a file: the lower one's, except what is ours.

Below the *limit* a byte is the lower file's unless its block is marked as ours; from the limit on
all bytes are ours. The limit begins as the lower file's size and only ever falls. Our bytes lie at
their own offsets in a sparse file (`store`), which always has the size that is shown. So a byte
changed costs one block, and appending to a file of any size costs only what is appended.

Readers take no lock: a block is marked after its bytes are in place, so that whoever sees the mark
sees the bytes. What must be durable before what is said where it is done.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import replace

from avccfs.vfs import rules
from avccfs.vfs.base import Attributes, Buffer, Directory, File, Stat
from avccfs.vfs.layered import Extent
from avccfs.vfs.overlay.nodes import Node, shown
from avccfs.vfs.overlay.state import UNRECORDED, State, merged
from avccfs.vfs.overlay.store import Store

BLOCK = 4096
"""The unit of copying, in bytes."""
_SHIFT = 12
_OURS = b"\1"
_THEIRS = b"\0"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Recorder = Callable[["FileNode", dict[str, object], Callable[[], None]], int | None]
"""Writes down new fields of a file's state, and then, with the mutex of the tree held, calls what it
is given. Returns the ticket; None, and nothing is written down, if the file has no name left."""


class FileNode(Node):
    """A file. `lower` and `data` are open while anybody uses it."""

    __slots__ = (
        "_below",
        "_fresh",
        "_hold",
        "_loose",
        "_marks",
        "_marks_file",
        "_marks_known",
        "_mutex",
        "_number",
        "_record",
        "_spare",
        "_store",
        "_syncing",
        "_writable",
        "data",
        "limit",
        "lower",
        "opened_as",
        "straight",
        "writers",
    )

    def __init__(
        self,
        state: State,
        below: Directory,
        store: Store,
        number: Callable[[], int],
        record: Recorder,
    ) -> None:
        """`below` is the lower directory, `number` gives one that was never used."""
        super().__init__(state)
        self._below = below
        self._store = store
        self._number = number
        self._record = record
        self.lower: File | None = None
        self.data: File | None = None
        self.limit = state.limit
        self.straight = False
        """Whether every byte is ours and nothing stands between a write and its file."""
        self.opened_as = ""
        """A path that it was opened by."""
        self.writers = 0
        """How many of its handles may write."""
        self._writable = False
        self._spare: list[File] = []
        self._marks = bytearray()
        self._marks_known = False
        self._marks_file: File | None = None
        self._fresh: list[tuple[int, int]] = []
        """Runs of blocks that were marked and are not yet in the file for marks."""
        self._loose = False
        """Whether the names of its files of ours may still be lost."""
        self._hold = 0
        """The ticket of a lowered limit that has to be durable before the file grows again."""
        self._mutex = threading.Lock()
        """Held by whoever changes content. Taken before the mutex of the tree, never after it."""
        self._syncing = threading.Lock()

    # Opening; called with the mutex of the tree held

    def open(self, lower: File | None, *, writable: bool) -> None:
        """Have the files below open. `lower` is the lower one if the caller opened it already."""
        if self.state.data is not None and not self.limit:
            unused = lower
        elif self.lower is None:
            self.lower, unused = lower or self._below.open(self.state.origin or ""), None
        else:
            unused = lower
        if unused is not None:
            unused.close()
        number = self.state.data
        if number is not None and (self.data is None or (writable and not self._writable)):
            self._open_data(number, writable=writable)

    def _open_data(self, number: int, *, writable: bool) -> None:
        if not self._marks_known and self.limit:
            self._marks = self._store.marks(number)
        self._marks_known = True
        # Only read where nobody writes: reading then leaves the access time alone.
        file = self._store.open(number, writable=writable)
        self._writable = writable
        self._adopt(file)

    def _adopt(self, file: File) -> None:
        if self.data is not None:
            # Somebody may be reading through it at this moment.
            self._spare.append(self.data)
        self.data = file
        self.straight = self._writable and not self.limit and not self._hold

    def shut(self) -> list[File]:
        """Let go of the files below; they are returned, to be closed without the mutex."""
        held = [*self._spare, self.lower, self.data, self._marks_file]
        self._spare = []
        self.lower = self.data = self._marks_file = None
        self._writable = self.straight = False
        return [file for file in held if file is not None]

    @property
    def is_changed(self) -> bool:
        """Whether it differs from the lower file, has another name or none."""
        return self.state.id != UNRECORDED or not self.state.nlink

    def set_state(self, state: State) -> None:
        """Take another state, before anybody uses it."""
        self.state = state
        self.limit = state.limit

    # Looking

    def stat(self, lower: Directory) -> Stat:
        """What `stat` tells of it."""
        state, data = self.state, self.data
        if state.data is None:
            below = self.lower
            return shown(below.stat() if below else lower.stat(state.origin or ""), state)
        told = data.stat() if data is not None else self._store.stat(state.data)
        limit = self.limit
        if limit:
            # Whole blocks of the lower file, as if it had no holes; ours are counted by their file.
            shared = limit - self._ours() * BLOCK
            most = -(-told.size // BLOCK) * (BLOCK // 512)
            taken = min(most, told.blocks + max(0, -(-shared // 512)))
            told = replace(told, blocks=taken)
        return shown(told, state)

    def stat_open(self) -> Stat:
        """What `stat` tells of it while it is open."""
        return self.stat(self._below)

    def _ours(self) -> int:
        if not self._marks_known and self.state.data is not None:
            self._marks = self._store.marks(self.state.data)
            self._marks_known = True
        return self._marks.count(_OURS, 0, -(-self.limit // BLOCK))

    def altered(self, size: int) -> tuple[Extent, ...]:
        """The ranges that are ours, in a file of `size` bytes."""
        if self.state.data is None:
            return ()
        self._ours()
        limit, marks = min(self.limit, size), self._marks
        blocks = -(-limit // BLOCK)
        found: list[Extent] = []
        start = marks.find(_OURS, 0, blocks)
        while start >= 0:
            stop = marks.find(_THEIRS, start, blocks)
            stop = min(len(marks), blocks) if stop < 0 else stop
            end = min(stop * BLOCK, limit)
            found.append(Extent(start * BLOCK, end - start * BLOCK))
            start = marks.find(_OURS, stop, blocks)
        if size > limit:
            if found and found[-1].end == limit:
                last = found.pop()
                found.append(Extent(last.offset, size - last.offset))
            else:
                found.append(Extent(limit, size - limit))
        return tuple(found)

    # Reading

    def read_merged(self, data: File, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset` of a file that is partly ours."""
        if size < 0 or not 0 <= offset <= rules.MAX_OFFSET:
            raise rules.error(errno.EINVAL, "")
        limit, marks = self.limit, self._marks
        end = offset + size
        stop = min(end, limit)
        parts: list[bytes] = []
        position = offset
        while position < stop:
            block = position >> _SHIFT
            ours = block < len(marks) and marks[block] == 1
            following = marks.find(_THEIRS if ours else _OURS, block)
            if following < 0 and not ours:
                length = stop - position
            else:
                run = len(marks) if following < 0 else following
                length = min(run << _SHIFT, stop) - position
            part = data.read_at(length, position) if ours else self._read_lower(length, position)
            parts.append(part)
            if len(part) < length:
                return b"".join(parts)  # It was cut while we read.
            position += length
        if end > position:
            parts.append(data.read_at(end - position, position))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_lower(self, length: int, offset: int) -> bytes:
        lower = self.lower
        if lower is None:
            raise rules.closed_file(self.state.origin or "")
        data = lower.read_at(length, offset)
        if len(data) < length:
            raise OSError(
                errno.EIO,
                f"expected {length} bytes at offset {offset} of {self._below.label}, found "
                f"{len(data)}: the source was changed under the overlay; restore it",
                self.state.origin,
            )
        return data

    # Writing

    def write(self, content: memoryview, offset: int) -> int:
        """Write bytes, not none, at `offset`. Returns how many: see `File.write_at`."""
        with self._mutex:
            data = self._own(None)
            limit = self.limit
            self._settle_limit()
            if offset >= limit:
                return data.write_at(content, offset)
            return self._write_over(data, content, offset, limit)

    def _write_over(self, data: File, content: memoryview, offset: int, limit: int) -> int:
        """Write where bytes of the lower file may be: what is left of their blocks is copied."""
        end = offset + len(content)
        first, last = offset >> _SHIFT, (min(end, limit) - 1) >> _SHIFT
        start = offset
        whole: bytes | memoryview = content
        head = tail = b""
        if offset & (BLOCK - 1) and not self._is_ours(first):
            start = first << _SHIFT
            head = self._read_lower(offset - start, start)
        tail_end = min((last + 1) << _SHIFT, limit)
        if end < tail_end and not self._is_ours(last):
            tail = self._read_lower(tail_end - end, end)
        if head or tail:
            whole = b"".join((head, content, tail))
        stop, failure = _write_all(data, whole, start)
        # A block of which only a part came through stays the lower file's.
        if stop < limit and not self._is_ours(stop >> _SHIFT):
            stop = (stop >> _SHIFT) << _SHIFT
        self._mark(first, -(-limit // BLOCK) if stop >= limit else stop >> _SHIFT, limit)
        count = min(stop, end) - offset
        if failure is not None and (count <= 0 or failure.errno not in _FULL):
            raise failure
        return count

    def _is_ours(self, block: int) -> bool:
        return block < len(self._marks) and self._marks[block] == 1

    def _mark(self, first: int, stop: int, limit: int) -> None:
        """Blocks from `first` up to `stop` are ours from now on."""
        stop = min(stop, -(-limit // BLOCK))
        marks = self._marks
        if stop <= first or marks.count(_OURS, first, stop) == stop - first:
            return
        if len(marks) < stop:
            marks.extend(bytes(stop - len(marks)))
        marks[first:stop] = _OURS * (stop - first)
        if self._store.durable:
            self._fresh.append((first, stop))

    def truncate(self, size: int) -> None:
        """Cut or extend to `size` bytes."""
        with self._mutex:
            if self.data is None:
                data = self._own(size)
                data.truncate(size)
                return
            data = self._own(None)
            if size >= self.limit:
                self._settle_limit()
                data.truncate(size)
                return
            data.truncate(size)
            # Cut in our file first and for good: a lowered limit over a longer file would show its
            # holes. In between, the shorter of the two counts.
            if self._store.durable:
                data.sync()
            self.limit = size
            self.straight = False
            self._hold = self._record(self, {"limit": size}, _nothing) or 0
            self.straight = self._writable and not self.limit and not self._hold

    def _settle_limit(self) -> None:
        """A lowered limit is durable before the file grows: lower bytes must not come back."""
        if self.limit < self.state.limit and self.state.nlink:
            self._hold = self._record(self, {"limit": self.limit}, _nothing) or 0
        if self._hold:
            self._store.settle(self._hold)
            self._hold = 0
        self.straight = self._writable and not self.limit

    def _own(self, size: int | None) -> File:
        """The file with our bytes, made now if there is none; of at most `size` bytes if given."""
        if self.data is not None:
            return self.data
        lower = self.lower
        told = lower.stat() if lower is not None else self._below.stat(self.state.origin or "")
        limit = told.size if size is None else min(size, told.size)
        store, number = self._store, self._number()
        file = store.create(number)
        try:
            if limit:
                file.truncate(limit)
            own = dress(file, told)
            if store.durable and limit:
                # Its full size first: it may be named after a crash before anything else is there.
                file.sync()
            own = merged(self.state.own, own)

            def take_over() -> None:
                if not self.state.nlink:
                    self.state = replace(self.state, data=number, limit=limit, own=own)
                # The limit before the file: readers look at the file first.
                self.limit = limit
                self._marks, self._marks_known = bytearray(), True
                self._loose = store.durable
                self._writable = True
                self._adopt(file)

            fields = {"data": number, "limit": limit, "own": own}
            if self._record(self, fields, take_over) is None:
                store.delete(number)
        except BaseException:
            file.close()
            store.delete(number)
            raise
        return file

    def adopt_new(self, file: File) -> None:
        """Take over the file with our bytes of a file that was made just now."""
        self._loose = self._store.durable
        self._marks_known = self._writable = True
        self._adopt(file)

    # Attributes

    def set_attributes(self, change: Attributes) -> None:
        """Change mode, owner or times."""
        with self._mutex:
            told = self.stat(self._below)
            # Who owns it already need not be allowed to give it away.
            uid = None if change.uid == told.uid else change.uid
            gid = None if change.gid == told.gid else change.gid
            wanted = replace(change, uid=uid, gid=gid)
            if self.state.data is None:
                self._own(None)
            number = self.state.data
            if self.data is not None:
                self.data.set_attributes(wanted)
            elif number is not None:
                self._store.set_attributes(number, wanted)
            own = self.state.own
            if (wanted.uid is not None and own.uid is not None) or (
                wanted.gid is not None and own.gid is not None
            ):
                kept = Attributes(
                    uid=own.uid if wanted.uid is None else None,
                    gid=own.gid if wanted.gid is None else None,
                )
                self._record(self, {"own": kept}, _nothing)

    # Keeping

    def sync(self, *, data_only: bool) -> None:
        """Make the content durable, and the first time the name that it has."""
        data = self.data
        if data is not None:
            if self._store.durable:
                self._keep(data, data_only=data_only)
                if self._loose:
                    self._store.sync_names()
                    self._loose = False
            else:
                data.sync(data_only=data_only)
        if self.state.nlink:
            self._store.settle(self.ticket)

    def _keep(self, data: File, *, data_only: bool) -> None:
        """Make our bytes durable, and then the marks that say so."""
        with self._syncing:
            with self._mutex:
                fresh, self._fresh = self._fresh, []
            try:
                data.sync(data_only=data_only)
                if fresh and self.state.nlink:
                    self._write_marks(fresh)
            except BaseException:
                with self._mutex:
                    self._fresh = fresh + self._fresh
                raise

    def _write_marks(self, fresh: list[tuple[int, int]]) -> None:
        number = self.state.data
        if number is None:
            return
        blocks = -(-self.limit // BLOCK)
        if self._marks_file is None:
            self._marks_file = self._store.open_marks(number, blocks)
            self._loose = True
        for first, stop in fresh:
            if first < blocks:
                _write_fully(self._marks_file, _OURS * (min(stop, blocks) - first), first)
        self._marks_file.sync()

    def settled(self) -> None:
        """Know that the names of its files of ours are durable."""
        self._loose = False

    def leave(self) -> None:
        """What the last handle that may write does before it goes: the marks are written down."""
        data = self.data
        if self._fresh and data is not None and self._store.durable and self.state.nlink:
            self._keep(data, data_only=True)


def _nothing() -> None:
    """Nothing is to be done then."""


def dress(file: File, told: Stat) -> Attributes:
    """Give a new file the attributes of the lower one; what it cannot be given is returned."""
    own = Attributes()
    made = file.stat()
    if (made.uid, made.gid) != (told.uid, told.gid):
        try:
            file.set_attributes(Attributes(uid=told.uid, gid=told.gid))
        except PermissionError:
            own = Attributes(uid=told.uid, gid=told.gid)
    file.set_attributes(Attributes(mode=told.mode, atime_ns=told.atime_ns, mtime_ns=told.mtime_ns))
    return own


def _write_all(file: File, data: Buffer, offset: int) -> tuple[int, OSError | None]:
    """Write; returns the offset that was reached, and what stopped it before the end."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            try:
                done += file.write_at(view[done:], offset + done)
            except OSError as exc:
                return offset + done, exc
    return offset + done, None


def _write_fully(file: File, data: bytes, offset: int) -> None:
    _, failure = _write_all(file, data, offset)
    if failure is not None:
        raise failure
