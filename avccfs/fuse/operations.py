"""The handlers pyfuse3 calls: unwrap, ask the core, wrap. Nothing is decided here.

Every handler is wrapped, because any exception but `FUSEError` that leaves one ends the whole mount.
What waits for the disk (fsync, a switch of CURRENT) runs in a worker thread; everything else is
answered in line, since a hop to a thread costs more than most answers. As soon as a fault is armed
anything may have to wait, and everything runs in a thread: who is held up holds up nobody else.
"""

from __future__ import annotations

import contextlib
import errno
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


def _drop_bytes(number: int) -> None:
    """Make the kernel forget the attributes and bytes that it has; that it cannot is no harm."""
    with contextlib.suppress(OSError):
        pyfuse3.invalidate_inode(InodeT(number))


def _drop_name_at_once(parent: int, name: str) -> None:
    """Not for the thread that answers: it waits for what is being asked of the folder."""
    with contextlib.suppress(OSError):
        pyfuse3.invalidate_entry(InodeT(parent), os.fsencode(name))


def _drop_name(parent: int, name: str) -> None:
    pyfuse3.invalidate_entry_async(InodeT(parent), os.fsencode(name), 0, True)


class Operations(pyfuse3.Operations):
    """`Core`, in the shape pyfuse3 wants."""

    supports_dot_lookup = False
    enable_acl = False

    def __init__(self, core: Core, *, write_back: bool, cache: bool, exact: bool = False) -> None:
        """`write_back`: the kernel may collect writes. `cache`: it may cache anything at all.

        `exact`: it shall hand on what processes do as they do it, and keep little in between.
        """
        super().__init__()
        self.enable_writeback_cache = write_back
        self._core = core
        self._cache = cache
        self._exact = exact
        self._timeout = CACHE_SECONDS if cache and not exact else 0.0
        self._own = (os.geteuid(), os.getegid())
        self._slow = trio.CapacityLimiter(SLOW_AT_ONCE)
        self._faults = core.faults
        # The hot path asks the table of handles itself.
        self._file = core.handles.file
        if write_back:
            core.write_back = _write_back
        if cache:
            core.drop_name = _drop_name_at_once
            core.drop_facts = _drop_bytes

    # -- names

    @_handler
    async def lookup(
        self, parent_inode: InodeT, name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        core, text = self._core, os.fsdecode(name)
        if core.is_slow(parent_inode, text):
            return self._attributes(await self._apart(core.lookup, parent_inode, text))
        return self._attributes(await self._ask(core.lookup, parent_inode, text))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        try:
            await self._ask(self._core.forget, inode_list)
        except Exception as error:  # noqa: BLE001 - there is nobody to answer to
            translate(error, "forget")

    @_handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(await self._ask(self._core.getattr, inode))

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
        return self._attributes(await self._ask(self._core.setattr, inode, change, size, fh))

    @_handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        if self._core.is_slow(inode):
            return os.fsencode(await self._apart(self._core.readlink, inode))
        return os.fsencode(await self._ask(self._core.readlink, inode))

    @_handler
    async def mkdir(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        mode = ModeT(stat_module.S_IMODE(mode))
        made = await self._ask(
            self._core.mkdir, parent_inode, os.fsdecode(name), mode, self._owner(ctx)
        )
        return self._attributes(made)

    @_handler
    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        made = await self._ask(
            self._core.mknod, parent_inode, os.fsdecode(name), mode, self._owner(ctx)
        )
        return self._attributes(made)

    @_handler
    async def symlink(
        self, parent_inode: InodeT, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        texts = os.fsdecode(name), os.fsdecode(target)
        made = await self._ask(self._core.symlink, parent_inode, *texts, self._owner(ctx))
        return self._attributes(made)

    @_handler
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        text = os.fsdecode(new_name)
        return self._attributes(await self._ask(self._core.link, inode, new_parent_inode, text))

    @_handler
    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        await self._ask(self._core.unlink, parent_inode, os.fsdecode(name))

    @_handler
    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        await self._ask(self._core.rmdir, parent_inode, os.fsdecode(name))

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
            await self._wait_for_disk(core.rename, *names[0], *names[1], how)
        else:
            await self._ask(core.rename, *names[0], *names[1], how)
        # The kernel moved its entry with the old name's long life to a name that must have none.
        for one in names:
            if self._cache and core.is_volatile(*one):
                _drop_name(*one)

    # -- open files

    @_handler
    async def create(
        self, parent_inode: InodeT, name: bytes, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        text, owner = os.fsdecode(name), self._owner(ctx)
        entry, opened = await self._ask(self._core.create, parent_inode, text, mode, flags, owner)
        return self._file_info(opened), self._attributes(entry)

    @_handler
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        return self._file_info(await self._ask(self._core.open, inode, flags))

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        try:
            # As `_ask`, without its cost.
            if self._faults is not None and self._faults.armed:
                return await self._apart(self._core.read, fh, size, off)
            return self._file(fh).read(size, off)
        except Exception as error:  # noqa: BLE001 - nothing may leave a handler
            raise FUSEError(translate(error, "read")) from None

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        try:
            handle = self._file(fh)
            if handle.slow:
                return await self._wait_for_disk(self._core.write, fh, buf, off)
            if self._faults is not None and self._faults.armed and not handle.immediate:
                return await self._write_with_faults(fh, off, buf)
            return self._write(fh, off, buf)
        except Exception as error:  # noqa: BLE001 - nothing may leave a handler
            raise FUSEError(translate(error, "write")) from None

    def _write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        handle = self._file(fh)
        done = handle.write(buf, off)
        # A kernel that writes pages back takes any answer but an error for "all is written".
        # After a short count the next call says what is wrong (vfs.base.File.write_at).
        while done < len(buf) and self.enable_writeback_cache:
            more = handle.write(buf[done:], off + done)
            if not more:
                raise OSError(errno.EIO, "nothing was written, and no reason given")
            done += more
        return done

    async def _write_with_faults(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        try:
            return await self._apart(self._write, fh, off, buf)
        finally:
            # Not waited for: the kernel may hold the pages until it has our answer.
            for number in self._core.take_spoilt():
                trio.lowlevel.spawn_system_task(self._forget_bytes, number)

    @_handler
    async def flush(self, fh: FileHandleT) -> None:
        await self._ask(self._core.flush, fh)

    @_handler
    async def release(self, fh: FileHandleT) -> None:
        await self._ask(self._core.release, fh)

    @_handler
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        sync = functools.partial(self._core.sync, fh, data_only=datasync)
        try:
            await self._wait_for_disk(sync)
        finally:
            for number in self._core.take_spoilt():
                await self._forget_bytes(number)

    # -- folders

    @_handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(await self._ask(self._core.open_folder, inode))

    @_handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        core = self._core
        entries = core.list_folder(fh, start_id)
        if self._may_wait() or core.is_slow(core.handles.folder(fh).inode.number):
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
        await self._wait_for_disk(self._core.sync_folder, fh)

    @_handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        space, answer = self._core.space(), StatvfsData()
        answer.f_bsize, answer.f_frsize = space.bsize, space.frsize
        answer.f_blocks, answer.f_bfree, answer.f_bavail = space.blocks, space.bfree, space.bavail
        answer.f_files, answer.f_ffree, answer.f_favail = space.files, space.ffree, space.favail
        answer.f_namemax = space.namemax
        return answer

    # -- helpers

    async def _forget_bytes(self, number: int) -> None:
        # The kernel first hands over what it still holds of the file, and a fault may stop that.
        await self._apart(_drop_bytes, number)

    def _may_wait(self) -> bool:
        return self._faults is not None and self._faults.armed

    async def _ask(self, ask: Callable[..., R], *args: object) -> R:
        """Ask the core something that is answered at once, unless a fault makes it wait."""
        if self._may_wait():
            return await self._apart(ask, *args)
        return ask(*args)

    async def _wait_for_disk(self, ask: Callable[..., R], *args: object) -> R:
        """Ask the core something that waits for the disk; with a fault perhaps for ever."""
        if self._may_wait():
            return await self._apart(ask, *args)
        return await trio.to_thread.run_sync(ask, *args)

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
        keep = not (direct or self._exact)
        return FileInfo(fh=FileHandleT(opened.handle), direct_io=direct, keep_cache=keep)

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
