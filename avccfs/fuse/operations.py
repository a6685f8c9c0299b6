"""The handlers pyfuse3 calls: unwrap, ask the core, wrap. Nothing is decided here.

Every handler is wrapped, because any exception but `FUSEError` that leaves one ends the whole mount.
What waits for the disk (fsync, a switch of CURRENT) runs in a worker thread; everything else is
answered in line, since a hop to a thread costs more than most answers.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import stat as stat_module
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
)

from avccfs.fs.core import Core, Entry, Opened
from avccfs.fuse.errno_map import translate
from avccfs.vfs.base import Attributes, Rename

CACHE_SECONDS = 86400.0
"""How long the kernel may trust an answer that only this side could make untrue."""

SLOW_AT_ONCE = 1000
"""Threads for slow questions. Almost all of them would wait for the same answer as others."""

LISTED_AT_ONCE = 1000
"""Entries of a slow folder for one answer: more than a kernel takes at once."""

P = ParamSpec("P")
R = TypeVar("R")


def _handler(
    method: Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]]:
    async def guarded(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:  # noqa: BLE001 - nothing may leave a handler
            raise FUSEError(translate(error, method.__name__)) from None

    # Not functools.wraps: its type is no function, and pyfuse3's signatures ask for one.
    functools.update_wrapper(guarded, method)
    return guarded


def _write_back(number: int) -> None:
    """Make the kernel hand over what it still holds of a file.

    Being told to drop its cache, it writes it first. That blocks until our own write handler has
    answered: only for other threads than the one that answers.
    """
    with contextlib.suppress(FileNotFoundError):
        pyfuse3.invalidate_inode(InodeT(number))


class Operations(pyfuse3.Operations):
    """`Core`, in the shape pyfuse3 wants."""

    supports_dot_lookup = False
    enable_acl = False

    def __init__(self, core: Core, *, write_back: bool, cache: bool) -> None:
        """`write_back`: the kernel may collect writes. `cache`: it may cache anything at all."""
        super().__init__()
        self.enable_writeback_cache = write_back
        self._core = core
        self._cache = cache
        self._timeout = CACHE_SECONDS if cache else 0.0
        self._own = (os.geteuid(), os.getegid())
        self._slow = trio.CapacityLimiter(SLOW_AT_ONCE)
        # The hot path asks the table of handles itself.
        self._file = core.handles.file
        if write_back:
            core.write_back = _write_back

    # -- names

    @_handler
    async def lookup(
        self, parent_inode: InodeT, name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        core, text = self._core, os.fsdecode(name)
        if core.is_slow(parent_inode, text):
            return self._attributes(await self._apart(core.lookup, parent_inode, text))
        return self._attributes(core.lookup(parent_inode, text))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        try:
            self._core.forget(inode_list)
        except Exception as error:  # noqa: BLE001 - there is nobody to answer to
            translate(error, "forget")

    @_handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(self._core.getattr(inode))

    @_handler
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        change = Attributes(
            mode=stat_module.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        size = attr.st_size if fields.update_size else None
        return self._attributes(self._core.setattr(inode, change, size, fh))

    @_handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        if self._core.is_slow(inode):
            return os.fsencode(await self._apart(self._core.readlink, inode))
        return os.fsencode(self._core.readlink(inode))

    @_handler
    async def mkdir(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        mode = ModeT(stat_module.S_IMODE(mode))
        return self._attributes(
            self._core.mkdir(parent_inode, os.fsdecode(name), mode, self._owner(ctx))
        )

    @_handler
    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return self._attributes(
            self._core.mknod(parent_inode, os.fsdecode(name), mode, self._owner(ctx))
        )

    @_handler
    async def symlink(
        self, parent_inode: InodeT, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        return self._attributes(
            self._core.symlink(
                parent_inode, os.fsdecode(name), os.fsdecode(target), self._owner(ctx)
            )
        )

    @_handler
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        return self._attributes(self._core.link(inode, new_parent_inode, os.fsdecode(new_name)))

    @_handler
    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        self._core.unlink(parent_inode, os.fsdecode(name))

    @_handler
    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        self._core.rmdir(parent_inode, os.fsdecode(name))

    @_handler
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: bytes,
        parent_inode_new: InodeT,
        name_new: bytes,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        how = {0: Rename.REPLACE, pyfuse3.RENAME_NOREPLACE: Rename.NOREPLACE}.get(flags)
        if how is None:
            if flags != pyfuse3.RENAME_EXCHANGE:
                raise OSError(22, "unknown rename flags")
            how = Rename.EXCHANGE
        core, old, new = self._core, os.fsdecode(name_old), os.fsdecode(name_new)
        names = ((parent_inode_old, old), (parent_inode_new, new))
        if any(core.is_current(*one) for one in names):
            if self.enable_writeback_cache:
                # What is renamed onto CURRENT is judged by its bytes.
                for number in filter(None, (core.number_of(*one) for one in names)):
                    await trio.to_thread.run_sync(_write_back, number)
            await trio.to_thread.run_sync(core.rename, *names[0], *names[1], how)
        else:
            core.rename(*names[0], *names[1], how)
        # The kernel moved its entry with the old name's long life to a name that must have none.
        for one in names:
            if self._cache and core.is_volatile(*one):
                pyfuse3.invalidate_entry_async(InodeT(one[0]), os.fsencode(one[1]), 0, True)

    # -- open files

    @_handler
    async def create(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        entry, opened = self._core.create(
            parent_inode, os.fsdecode(name), mode, flags, self._owner(ctx)
        )
        return self._file_info(opened), self._attributes(entry)

    @_handler
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        return self._file_info(self._core.open(inode, flags))

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        try:
            return self._file(fh).read(size, off)
        except Exception as error:  # noqa: BLE001 - nothing may leave a handler
            raise FUSEError(translate(error, "read")) from None

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        try:
            handle = self._file(fh)
            if handle.slow:
                return await trio.to_thread.run_sync(self._core.write, fh, buf, off)
            done = handle.write(buf, off)
            # A kernel that writes pages back takes any answer but an error for "all is written".
            # After a short count the next call says what is wrong (vfs.base.File.write_at).
            while done < len(buf) and self.enable_writeback_cache:
                done += handle.write(buf[done:], off + done)
            return done
        except Exception as error:  # noqa: BLE001 - nothing may leave a handler
            raise FUSEError(translate(error, "write")) from None

    @_handler
    async def flush(self, fh: FileHandleT) -> None:
        self._core.flush(fh)

    @_handler
    async def release(self, fh: FileHandleT) -> None:
        self._core.release(fh)

    @_handler
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        sync = functools.partial(self._core.sync, fh, data_only=datasync)
        await trio.to_thread.run_sync(sync)

    # -- folders

    @_handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(self._core.open_folder(inode))

    @_handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        core = self._core
        entries = core.list_folder(fh, start_id)
        if core.is_slow(core.handles.folder(fh).inode.number):
            some = itertools.islice(entries, LISTED_AT_ONCE)
            entries = await self._apart(lambda: list(some))
        for name, found, position in entries:
            entry = core.list_entry(fh, name, found)
            attributes = self._attributes(entry)
            if not pyfuse3.readdir_reply(token, os.fsencode(name), attributes, position):
                core.unlist_entry(entry)
                break

    @_handler
    async def releasedir(self, fh: FileHandleT) -> None:
        self._core.release_folder(fh)

    @_handler
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await trio.to_thread.run_sync(self._core.sync_folder, fh)

    @_handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        space, answer = self._core.space(), StatvfsData()
        answer.f_bsize, answer.f_frsize = space.bsize, space.frsize
        answer.f_blocks, answer.f_bfree, answer.f_bavail = space.blocks, space.bfree, space.bavail
        answer.f_files, answer.f_ffree, answer.f_favail = space.files, space.ffree, space.favail
        answer.f_namemax = space.namemax
        return answer

    # -- helpers

    async def _apart(self, ask: Callable[..., R], *args: object) -> R:
        """Ask the core something that may take long, in a thread.

        These threads have a limit of their own: none of them may keep a writer from its fsync. And
        whoever ends the mount does not wait for them; they may wait for us to take what the kernel
        holds, which we then do not any more.
        """
        return await trio.to_thread.run_sync(ask, *args, limiter=self._slow, abandon_on_cancel=True)

    def _owner(self, ctx: RequestContext) -> tuple[int, int] | None:
        caller = (ctx.uid, ctx.gid)
        return caller if self._own[0] == 0 and caller != self._own else None

    def _file_info(self, opened: Opened) -> FileInfo:
        direct = opened.direct or not self._cache
        return FileInfo(fh=FileHandleT(opened.handle), direct_io=direct, keep_cache=not direct)

    def _attributes(self, entry: Entry) -> EntryAttributes:
        found, answer = entry.stat, EntryAttributes()
        answer.st_ino = InodeT(entry.number)
        answer.entry_timeout = answer.attr_timeout = 0 if entry.volatile else self._timeout
        answer.st_mode = ModeT(found.mode)
        answer.st_nlink = found.nlink
        answer.st_uid = found.uid
        answer.st_gid = found.gid
        answer.st_rdev = found.rdev
        answer.st_size = found.size
        answer.st_blocks = found.blocks
        answer.st_blksize = found.blksize
        answer.st_atime_ns = found.atime_ns
        answer.st_mtime_ns = found.mtime_ns
        answer.st_ctime_ns = found.ctime_ns
        return answer
