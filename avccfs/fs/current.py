"""Writing to CURRENT, without ever writing into CURRENT.

A handle that is open for writing on CURRENT never touches the file. It looks at each write as it
arrives, and a write that completes the one line CURRENT may hold (a manifest's name and a newline)
*is* the switch: it returns when `Storage.set_meta` has, and fails if that fails. The switch happens
in the write and not in the close because shells ignore an error of close.

What is refused, always with nothing changed: a bad name (EINVAL), a manifest that does not exist
(ENOENT), appending a second line, a complete name without its newline (the newline is how engines
tell a whole line from a torn one). A name may arrive in pieces as long as what has arrived is
plainly unfinished; closing with an unfinished line, or with none after truncating, is EINVAL.
"""

from __future__ import annotations

import re
import stat as stat_module
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from avccfs.errors import MetaError
from avccfs.format.filename import CURRENT, FileDesc
from avccfs.fs.inodes import Inode
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Attributes, Buffer, Stat

# What may still become "MANIFEST-<six digits or more>\n": a piece of the prefix, or the prefix and
# fewer digits than any number has.
_UNFINISHED = re.compile(rb"M(A(N(I(F(E(S(T(-[0-9]{0,5})?)?)?)?)?)?)?)?")

_HOW_TO = "write the whole line at once, for example: echo MANIFEST-000001 > CURRENT"


class CurrentHandle:
    """CURRENT, open for writing. See the module's text."""

    __slots__ = (
        "_before_switch",
        "_buffer",
        "_on_switch",
        "_pending",
        "_storage",
        "_told",
        "inode",
        "slow",
        "writable",
    )

    immediate = False

    def __init__(
        self,
        inode: Inode,
        storage: DirectoryStorage,
        *,
        truncated: bool,
        before_switch: Callable[[FileDesc], None],
        on_switch: Callable[[FileDesc], None],
    ) -> None:
        self.inode = inode
        self.writable = True
        self.slow = True
        self._storage = storage
        self._before_switch = before_switch
        self._on_switch = on_switch
        self._buffer: bytes | None = b"" if truncated else None
        """What this handle has made of the content so far; None while it only looks on."""
        self._pending = truncated
        self._told = False

    def read(self, size: int, offset: int) -> bytes:
        """This handle's own unfinished content, else what CURRENT holds now."""
        if self._buffer is not None:
            return self._buffer[offset : offset + size]
        with closing(self._storage.directory.open(CURRENT)) as file:
            return file.read_at(size, offset)

    def write(self, data: Buffer, offset: int) -> int:
        """Switch to the manifest that is named, or refuse and change nothing."""
        self._told = True
        taken = self._write(bytes(data), offset)
        self._told = False
        return taken

    def _write(self, piece: bytes, offset: int) -> int:
        if offset == 0:
            content = piece
        elif self._buffer is not None and offset == len(self._buffer):
            content = self._buffer + piece
        else:
            raise MetaError(
                f"a write at offset {offset} of CURRENT would leave more than one line in it; {_HOW_TO}",
                file=CURRENT,
                offset=offset,
            )
        if _UNFINISHED.fullmatch(content):
            self._buffer, self._pending = content, True
            return len(piece)
        desc = self._storage.check_meta(content)
        self._before_switch(desc)
        self._storage.set_meta(desc)
        self._buffer, self._pending = content, False
        self._on_switch(desc)
        return len(piece)

    def truncate(self, size: int) -> None:
        """Emptying is the beginning of a rewrite; any other cut would leave no valid line."""
        if size == 0:
            self._buffer, self._pending = b"", True
            return
        if size != self.stat().size:
            raise MetaError(
                f"cutting CURRENT to {size} bytes would leave no valid line; {_HOW_TO}",
                file=CURRENT,
            )

    def sync(self, *, data_only: bool) -> None:
        """A switch is durable when its write returns; only an unfinished line is a failure."""
        self.flush()

    def flush(self) -> None:
        """Report a line that was begun and never finished."""
        if self._pending:
            raise MetaError(self._unfinished_text(), file=CURRENT, offset=len(self._buffer or b""))

    @property
    def unfinished(self) -> str | None:
        """What to say when the last descriptor is closed on an unfinished line.

        None when all is well, or when a refused write has said it already.
        """
        return self._unfinished_text() if self._pending and not self._told else None

    def _unfinished_text(self) -> str:
        what = f"an unfinished line {self._buffer!r}" if self._buffer else "no content"
        return f"CURRENT was closed with {what}; it keeps its old content; {_HOW_TO}"

    def stat(self) -> Stat:
        """CURRENT's attributes, with the size of what this handle would read."""
        try:
            below = self._storage.directory.stat(CURRENT)
        except FileNotFoundError:
            below = Stat(mode=stat_module.S_IFREG | 0o644, size=0, inode=0, nlink=0)
        if self._buffer is None:
            return below
        return replace(below, size=len(self._buffer))

    def set_attributes(self, change: Attributes) -> None:
        """Mode, owner and times are CURRENT's own; with no CURRENT there is nothing to change."""
        try:
            self._storage.directory.set_attributes(CURRENT, change)
        except FileNotFoundError:
            return

    def close(self) -> None:
        """Whatever was unfinished is dropped; CURRENT was never touched."""
        self._buffer, self._pending = None, False
