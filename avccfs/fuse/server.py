"""Mount, serve, and let go: the life of one mount.

Letting go is the delicate part. With a write-back cache the kernel holds bytes that only this process
can take; ending first would lose them. So a signal asks the *kernel* to unmount while requests are
still answered, and the process ends when the kernel has let go. If somebody still has a file open the
mount leaves the tree at once, and the process goes on serving what is open until that is closed, or
until a second signal says that it shall not.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import signal
from collections.abc import Callable

import pyfuse3
import trio

from avccfs.fs.core import Core
from avccfs.fuse import mounts
from avccfs.fuse.control import Service, converse
from avccfs.fuse.operations import Operations
from avccfs.fuse.options import MountOptions
from avccfs.fuse.unmounting import unmount

_log = logging.getLogger("avccfs.mount")

REQUESTS_AT_ONCE = 10_000
"""More than will ever be under way. A view may be waited for by any number of readers, while itself it
waits for writes: among too few requests there would be no room for those."""

_NOBODY_WAITS = f"fuse_reply_* failed with {os.strerror(errno.ENOENT)}"
"""In pyfuse3's log: the kernel did not want an answer any more. Who asked was killed, or the last file of
a mount that had left the tree was closed, and the kernel did not wait to hear of it."""

_watchers: set[trio.socket.SocketType] = set()
"""Connections of those who wait for the end of this process. They are closed by that end and by nothing
before it, because only after the loop is everything written and the directory's lock let go."""


def _is_worth_a_word(record: logging.LogRecord) -> bool:
    return not record.getMessage().endswith(_NOBODY_WAITS)


logging.getLogger("pyfuse3").addFilter(_is_worth_a_word)


class MountFailedError(Exception):
    """The kernel or libfuse would not mount; the text says why and what to do."""


def serve(
    core: Core,
    mountpoint: str,
    options: MountOptions,
    *,
    source: str,
    on_ready: Callable[[], None],
    service: Service | None = None,
) -> None:
    """Mount `core` at `mountpoint` and serve it until it is unmounted.

    `source` is the name that mount tables show. `on_ready` is called once the mount answers.
    `service` answers what other processes ask about the mount. Raises `MountFailedError`. The caller
    closes the core.
    """
    operations = Operations(
        core, write_back=options.write_back, cache=options.caching, exact=options.exact
    )
    _raise_descriptor_limit()
    # The kernel has applied the caller's umask already.
    os.umask(0)
    try:
        pyfuse3.init(operations, mountpoint, options.for_libfuse(source))
    except RuntimeError as error:
        raise MountFailedError(_why_not(mountpoint, options)) from error
    life = _Life(core, mountpoint, on_ready, service)
    try:
        trio.run(life.run)
    finally:
        # Still mounted only if the loop was ended by a second signal or a failure.
        pyfuse3.close(unmount=not life.unmounted)


class _Life:
    def __init__(
        self, core: Core, mountpoint: str, on_ready: Callable[[], None], service: Service | None
    ) -> None:
        self._core = core
        self._mountpoint = mountpoint
        self._on_ready = on_ready
        self._service = service
        self.unmounted = False

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce, nursery)
            nursery.start_soon(self._listen_to_signals, nursery)
            try:
                await pyfuse3.main(max_tasks=REQUESTS_AT_ONCE)
            finally:
                self.unmounted = mounts.mount_at(self._mountpoint) is None
            nursery.cancel_scope.cancel()

    async def _announce(self, nursery: trio.Nursery) -> None:
        mount = mounts.mount_at(self._mountpoint)
        # A look through the front door, from a thread because it is us who open: after it the mount
        # has shaken hands with the kernel and answers.
        await trio.to_thread.run_sync(os.stat, self._mountpoint)
        try:
            if mount is None:
                raise OSError("the mount is in no table that this process can see")
            listener = trio.socket.from_stdlib_socket(mounts.announce(mount))
        except OSError as error:
            # A convenience for `avccfs umount`; the mount works without.
            _log.warning("cannot announce this mount to others: %s", error)
            self._on_ready()
            return
        greeting = mounts.greeting()
        self._on_ready()
        while True:
            connection, _ = await listener.accept()
            nursery.start_soon(self._stay_with, connection, greeting)

    async def _stay_with(self, connection: trio.socket.SocketType, greeting: bytes) -> None:
        _watchers.add(connection)
        with contextlib.suppress(OSError):
            await connection.send(greeting)
            # Returns when the other side has gone.
            await converse(connection, self._service)
        _watchers.remove(connection)
        connection.close()

    async def _listen_to_signals(self, nursery: trio.Nursery) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            asked = False
            async for number in signals:
                name = signal.Signals(number).name
                if asked:
                    _log.warning(
                        "%s again: ending now; files still open on the mount lose access", name
                    )
                    pyfuse3.terminate()
                    # The loop waits for all requests under way. A view may never be ready: it waits
                    # for writes that nobody takes any more.
                    nursery.cancel_scope.cancel()
                    return
                asked = True
                _log.info("%s: unmounting %s", name, self._mountpoint)
                await self._let_go()

    async def _let_go(self) -> None:
        refusal = await trio.to_thread.run_sync(unmount, self._mountpoint)
        if refusal is None or mounts.mount_at(self._mountpoint) is None:
            return
        holders = await trio.to_thread.run_sync(mounts.holders_of, self._mountpoint)
        _log.warning(
            "%s is still in use by %s. It has left the tree and ends when they are done; "
            "signal pid %d again to end it now",
            self._mountpoint,
            mounts.describe(holders),
            os.getpid(),
        )
        refusal = await trio.to_thread.run_sync(lambda: unmount(self._mountpoint, lazy=True))
        if refusal is not None:
            _log.error("cannot unmount %s: %s", self._mountpoint, refusal)
        elif self._core.faults is not None:
            # Out of the tree nobody finds us to let them go.
            self._core.faults.release_rules()


def _raise_descriptor_limit() -> None:
    """Every file that an engine has open is open here too: allow as many as the system does."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _why_not(mountpoint: str, options: MountOptions) -> str:
    if not os.path.exists("/dev/fuse"):
        return (
            "there is no /dev/fuse on this machine: load the kernel module (modprobe fuse), or give "
            "the container access to the device (--device /dev/fuse --cap-add SYS_ADMIN)"
        )
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "fusermount3 is missing, which ordinary users need to mount: apt-get install fuse3"
    if os.geteuid() != 0 and {"allow_other", "allow_root"} & options.kernel:
        return (
            f"cannot mount at {mountpoint}: allow_other is for root unless /etc/fuse.conf holds a line "
            "user_allow_other"
        )
    if os.geteuid() != 0 and not os.access(mountpoint, os.W_OK):
        return (
            f"cannot mount at {mountpoint}: an ordinary user must be able to write the mount point"
        )
    return f"the kernel would not mount at {mountpoint}; libfuse's own words are above"
