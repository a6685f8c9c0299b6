"""`avccfs mount SOURCE MOUNTPOINT`."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import stat
import sys
import traceback
from collections.abc import Callable

import click

from avccfs.cli.main import FAILED, INTERRUPTED, LOCKED, USAGE
from avccfs.errors import AvccfsError, LockedError, UsageError
from avccfs.fuse import mounts
from avccfs.fuse.options import MountOptions

MEMORY = "mem:"


@click.command("mount")
@click.argument("source")
@click.argument("mountpoint")
@click.option(
    "-o", "words", multiple=True, metavar="OPT[,OPT...]", help="Mount options, as for mount(8)."
)
@click.option(
    "-r", "--read-only", is_flag=True, help="Allow no change; may be mounted more than once."
)
@click.option(
    "--unlocked", is_flag=True, help="Look at a directory an engine has open (read-only, uncached)."
)
@click.option("--write-through", is_flag=True, help="Do not let the kernel collect writes.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground until unmounted.")
@click.option(
    "--log-file", type=click.Path(dir_okay=False), help="Write what the mount has to say here."
)
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.option(
    "--views-name",
    default=".avccfs",
    show_default=True,
    metavar="NAME",
    help="Call the hidden folder of decoded views so; empty: none.",
)
@click.option("--debug-fuse", is_flag=True, help="Show every request (implies --foreground).")
def command(
    source: str,
    mountpoint: str,
    words: tuple[str, ...],
    read_only: bool,
    unlocked: bool,
    write_through: bool,
    foreground: bool,
    log_file: str | None,
    verbose: bool,
    views_name: str,
    debug_fuse: bool,
) -> int:
    """Show the database directory SOURCE as a file system at MOUNTPOINT.

    SOURCE may be `mem:` for an empty directory in memory. Returns when the mount is usable, and
    stays in the background. The database is locked while it is mounted; nothing in it is changed
    until somebody writes to the mount.
    """
    options = MountOptions(
        read_only=read_only,
        unlocked=unlocked,
        write_through=write_through,
        foreground=foreground or debug_fuse,
        log_file=os.path.abspath(log_file) if log_file else None,
        verbose=verbose,
        debug_fuse=debug_fuse,
    ).with_views(views_name)
    options = options.with_words(",".join(words))
    source, mountpoint = check_places(source, mountpoint)
    if options.unlocked and source != MEMORY:
        click.echo(
            f"avccfs: {source} is shown without its lock: read-only, nothing cached; what an engine is "
            "writing at this moment may be seen half done",
            err=True,
        )
    if options.foreground:
        _set_up_log(options, background=False)
        return _run(source, mountpoint, options, on_ready=lambda: None)
    return _in_background(source, mountpoint, options)


def check_places(source: str, mountpoint: str) -> tuple[str, str]:
    """Absolute paths of both, or a `UsageError` that says what is wrong and what mends it."""
    place = mounts.resolve(mountpoint)
    there = mounts.mount_at(place)
    if there is not None and there.fstype == mounts.FSTYPE:
        if mounts.is_dead(place):
            raise UsageError(
                f"{place} is a dead mount: the process that served it is gone. "
                f"Clean it up with: avccfs umount {place}"
            )
        server = mounts.server_of(there)
        if server is not None:
            server.connection.close()
        who = "avccfs" if server is None else f"avccfs, pid {server.pid}"
        raise UsageError(
            f"{place} is in use: {there.source} is mounted there ({who}). "
            f"Unmount it first: avccfs umount {place}"
        )
    try:
        found = os.stat(place)
    except FileNotFoundError:
        raise UsageError(
            f"the mount point {place} does not exist. Make it: mkdir -p {place}"
        ) from None
    except OSError as error:
        raise UsageError(
            f"the mount point {place} cannot be used: {error.strerror}. If a dead mount is in the way: "
            f"fusermount3 -uz {place}"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"the mount point {place} is not a directory")
    if source == MEMORY:
        return source, place
    origin = os.path.realpath(source)
    if not os.path.isdir(origin):
        what = "is not a directory" if os.path.exists(origin) else "does not exist"
        raise UsageError(f"{source} {what}; the source is a database directory, or mem:")
    if place.startswith(origin.rstrip("/") + "/"):
        raise UsageError(
            f"the mount point {place} lies inside the source {origin}; the mount would contain itself. "
            "Choose a mount point elsewhere"
        )
    return origin, place


def _run(source: str, mountpoint: str, options: MountOptions, on_ready: Callable[[], None]) -> int:
    """Serve until unmounted, in this process."""
    # Late, because of their weight: the command line starts without them.
    from avccfs.fs.core import Core
    from avccfs.fs.viewed import ViewedCore
    from avccfs.fuse.server import MountFailedError, serve
    from avccfs.storage.directory import DirectoryStorage
    from avccfs.vfs.base import Directory
    from avccfs.vfs.local import LocalDirectory
    from avccfs.vfs.memory import MemoryDirectory

    read_only = options.read_only or options.unlocked
    directory: Directory
    if source == MEMORY:
        directory = MemoryDirectory()
    else:
        directory = LocalDirectory(source, read_only=read_only, create=False)
    storage = DirectoryStorage(directory, read_only=read_only, take_lock=not options.unlocked)
    path = None if source == MEMORY else source
    if options.views_name:
        core: Core = ViewedCore(storage, options.views_name, source=path)
    else:
        core = Core(storage, source=path)
    try:
        serve(core, mountpoint, options, source=source, on_ready=on_ready)
    except MountFailedError as error:
        raise AvccfsError(str(error)) from error
    finally:
        core.close()
    return 0


def _in_background(source: str, mountpoint: str, options: MountOptions) -> int:
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _be_the_daemon(source, mountpoint, options, sender)
    os.close(sender)
    with open(receiver, "rb") as answer:
        try:
            said = answer.read()
        except KeyboardInterrupt:
            os.kill(child, 15)
            return INTERRUPTED
    if not said:
        click.echo(
            "avccfs: the mount process died before it was ready; try again with -f -v", err=True
        )
        return FAILED
    result = json.loads(said)
    if result["message"]:
        click.echo(f"avccfs: {result['message']}", err=True)
    return int(result["code"])


def _be_the_daemon(source: str, mountpoint: str, options: MountOptions, sender: int) -> None:
    """In the child: serve, tell the parent how it went, and never return."""
    told = False

    def tell(code: int, message: str) -> None:
        nonlocal told
        if told:
            return
        told = True
        with open(sender, "wb") as answer:
            answer.write(json.dumps({"code": code, "message": message}).encode())

    def ready() -> None:
        tell(0, "")
        # Until now words of libfuse and of ours could reach the terminal; from here nobody listens.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        os.close(nowhere)

    code = 0
    try:
        os.setsid()
        os.chdir("/")
        _set_up_log(options, background=True)
        code = _run(source, mountpoint, options, on_ready=ready)
    except LockedError as error:
        code = LOCKED
        tell(code, str(error))
    except UsageError as error:
        code = USAGE
        tell(code, str(error))
    except (AvccfsError, OSError) as error:
        code = FAILED
        tell(code, str(error))
    except BaseException as error:  # noqa: BLE001 - the parent must be told, whatever it is
        code = FAILED
        tell(code, "".join(traceback.format_exception(error)))
    finally:
        logging.shutdown()
        os._exit(code)


def _set_up_log(options: MountOptions, *, background: bool) -> None:
    handler: logging.Handler
    if options.log_file:
        handler = logging.FileHandler(options.log_file, delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    elif not background:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("avccfs: %(message)s"))
    elif os.path.exists("/dev/log"):
        handler = logging.handlers.SysLogHandler("/dev/log", facility="daemon")
        handler.setFormatter(logging.Formatter("avccfs[%(process)d]: %(message)s"))
    else:
        handler = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO if options.verbose or options.log_file else logging.WARNING)
    logging.getLogger("pyfuse3").setLevel(logging.WARNING)
