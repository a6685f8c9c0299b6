"""An open file of an overlay."""

from __future__ import annotations

import errno
from collections.abc import Callable

from avccfs.vfs import rules
from avccfs.vfs.base import Attributes, Buffer, Stat
from avccfs.vfs.overlay.content import FileNode


class OverlayFile:
    """A handle. All handles of a file share its node, so each sees at once what another writes."""

    __slots__ = ("_leave", "_node", "_path", "_refusal", "_writable")

    def __init__(
        self,
        node: FileNode,
        path: str,
        leave: Callable[[FileNode, bool], None],
        *,
        writable: bool,
        refusal: str | None,
    ) -> None:
        """`leave` gives the node back; `refusal` is the label of an overlay that cannot change."""
        self._node: FileNode | None = node
        self._path = path
        self._leave = leave
        self._writable = writable
        self._refusal = refusal

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`."""
        node = self._node
        if node is None:
            raise rules.closed_file(self._path)
        try:
            data = node.data
            if data is None:
                lower = node.lower
                if lower is None:
                    raise rules.closed_file(self._path)
                return lower.read_at(size, offset)
            if not node.limit:
                return data.read_at(size, offset)
            return node.read_merged(data, size, offset)
        except OSError as exc:
            exc.filename = self._path
            raise

    def write_at(self, data: Buffer, offset: int) -> int:
        """Write all of `data` at `offset`; less only when the next call will say why."""
        node = self._node
        if node is None:
            raise rules.closed_file(self._path)
        try:
            if not self._writable or offset < 0:
                raise rules.error(errno.EINVAL if offset < 0 else errno.EBADF, self._path)
            ours = node.data
            if node.straight and ours is not None:
                return ours.write_at(data, offset)
            with memoryview(data) as view, view.cast("B") as content:
                if not content:
                    return 0
                if offset + len(content) > rules.MAX_OFFSET:
                    raise rules.error(errno.EFBIG, self._path)
                return node.write(content, offset)
        except OSError as exc:
            exc.filename = self._path
            raise

    def truncate(self, size: int) -> None:
        """Cut or extend to `size` bytes."""
        node = self._held()
        with rules.Naming(self._path):
            if size < 0 or not self._writable:
                raise rules.error(errno.EINVAL, self._path)
            if size > rules.MAX_OFFSET:
                raise rules.error(errno.EFBIG, self._path)
            node.truncate(size)

    def sync(self, *, data_only: bool = False) -> None:
        """Make the content durable, and the first time the name."""
        node = self._held()
        with rules.Naming(self._path):
            node.sync(data_only=data_only)

    def stat(self) -> Stat:
        """The file's attributes."""
        node = self._held()
        with rules.Naming(self._path):
            return node.stat_open()

    def set_attributes(self, change: Attributes) -> None:
        """Change mode, owner or times."""
        node = self._held()
        if self._refusal is not None:
            raise rules.read_only(self._refusal, self._path)
        with rules.Naming(self._path):
            if change != Attributes():
                node.set_attributes(change)

    def close(self) -> None:
        """Release the handle; late errors come out here, and it is released anyway."""
        node, self._node = self._node, None
        if node is not None:
            with rules.Naming(self._path):
                self._leave(node, self._writable)

    def _held(self) -> FileNode:
        node = self._node
        if node is None:
            raise rules.closed_file(self._path)
        return node
