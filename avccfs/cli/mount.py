"""`avccfs mount SOURCE MOUNTPOINT`."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import stat
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from avccfs.cli.main import FAILED, INTERRUPTED, LOCKED, USAGE
from avccfs.errors import AvccfsError, LockedError, UsageError
from avccfs.fuse import mounts
from avccfs.fuse.options import MountOptions

if TYPE_CHECKING:
    from avccfs.storage.rehearsal import Rehearsal
    from avccfs.vfs.base import Directory

MEMORY = "mem:"


class _MountCommand(click.Command):
    """`--overlay` may have a value, or none: what follows it is one if a word is too many without."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--overlay" in args:
            at = args.index("--overlay")
            after = args[at + 1] if at + 1 < len(args) else None
            joined = [*args[:at], f"--overlay={after}", *args[at + 2 :]]
            alone = [*args[:at], "--overlay=", *args[at + 1 :]]
            _, too_many, _ = self.make_parser(ctx).parse_args(args=list(alone))
            value_follows = after is not None and not after.startswith("-")
            args = joined if value_follows and too_many else alone
        return super().parse_args(ctx, args)


@click.command("mount", cls=_MountCommand)
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
@click.option(
    "--overlay",
    metavar="[DIR]",
    help="Never change SOURCE: changes go to memory, or to DIR, where they survive.",
)
@click.option(
    "--fault",
    "fault_lines",
    multiple=True,
    metavar="RULE",
    help="Make something fail, such as 'sync journal #3: EIO'; 'none' only gets ready. Repeatable.",
)
@click.option(
    "--faults",
    "fault_file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The same from a TOML file.",
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
    overlay: str | None,
    fault_lines: tuple[str, ...],
    fault_file: str | None,
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
    until somebody writes to the mount, and with --overlay nothing at all (see `avccfs diff`, `commit`
    and `discard`). With --fault or --faults the disk misbehaves on demand (see `avccfs fault`).
    """
    plan = read_plan(fault_lines, fault_file)
    options = MountOptions(
        read_only=read_only,
        unlocked=unlocked,
        overlay=None if overlay is None else os.path.abspath(overlay) if overlay else "",
        faults=plan,
        write_through=write_through,
        foreground=foreground or debug_fuse,
        log_file=os.path.abspath(log_file) if log_file else None,
        verbose=verbose,
        debug_fuse=debug_fuse,
    ).with_views(views_name)
    options = options.with_words(",".join(words))
    source, mountpoint = check_places(source, mountpoint)
    options = check_overlay(source, mountpoint, options)
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


def check_overlay(source: str, mountpoint: str, options: MountOptions) -> MountOptions:
    """The options with the real path of the overlay's directory. Raises `UsageError`."""
    if options.overlay is None:
        return options
    if source == MEMORY:
        raise UsageError(
            "mem: is nothing but memory; --overlay is for a directory to keep unchanged"
        )
    if options.unlocked:
        raise UsageError(
            "--overlay needs a source that nobody changes; --unlocked allows just that. Stop the "
            "engine, or copy the directory"
        )
    if not options.overlay:
        return options
    upper = os.path.realpath(options.overlay)
    for what, place in (("source", source), ("mount point", mountpoint)):
        if upper == place or _inside(upper, place) or _inside(place, upper):
            raise UsageError(
                f"the overlay's directory {upper} and the {what} {place} must not lie in each other"
            )
    if options.read_only and not os.path.exists(upper):
        raise UsageError(
            f"there are no changes to look at in {upper}: it does not exist. Without --read-only it is "
            "made"
        )
    return dataclasses.replace(options, overlay=upper)


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def read_plan(lines: tuple[str, ...], file: str | None) -> tuple[str, ...]:
    """The rules of a fault plan as lines. Raises `UsageError` for one that makes no sense."""
    if not lines and file is None:
        return ()
    from avccfs.vfs.fault import load_toml, parse_rule

    rules: list[str] = []
    if file is not None:
        try:
            with open(file, encoding="utf-8") as text:
                rules += map(str, load_toml(text.read(), file))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the fault plan {file} cannot be read: {error}") from None
    for line in lines:
        if line.strip() != "none":
            rules.append(str(parse_rule(line)))
    # An empty plan is one too: it makes the mount ready for rules to come.
    return tuple(rules) or ("none",)


def _run(source: str, mountpoint: str, options: MountOptions, on_ready: Callable[[], None]) -> int:
    """Serve until unmounted, in this process."""
    # Late, because of their weight: the command line starts without them.
    from avccfs.fs.core import Core
    from avccfs.fs.service import MountService
    from avccfs.fs.viewed import ViewedCore
    from avccfs.fuse.server import MountFailedError, serve
    from avccfs.storage.directory import DirectoryStorage
    from avccfs.vfs.fault import FaultDirectory, FaultPlan

    plan = FaultPlan()
    for line in options.faults:
        if line != "none":
            plan.add(line)
    directory, rehearsal = _directory(source, options)
    below = FaultDirectory(directory, plan, track=options.exact, closes=False)
    storage = DirectoryStorage(below, read_only=below.read_only, take_lock=not options.unlocked)
    path = None if source == MEMORY else source
    if options.views_name:
        core: Core = ViewedCore(storage, options.views_name, source=path)
    else:
        core = Core(storage, source=path)
    service = MountService(core, rehearsal=rehearsal, exact=options.exact)
    try:
        serve(core, mountpoint, options, source=source, on_ready=on_ready, service=service)
    except MountFailedError as error:
        raise AvccfsError(str(error)) from error
    finally:
        core.close()
    return 0


def _directory(source: str, options: MountOptions) -> tuple[Directory, Rehearsal | None]:
    """The directory to show, and what can be done with it if it is an overlay."""
    from avccfs.vfs.base import exists
    from avccfs.vfs.layered import COMMIT_FOLDER
    from avccfs.vfs.local import LocalDirectory
    from avccfs.vfs.memory import MemoryDirectory

    read_only = options.read_only or options.unlocked
    if source == MEMORY:
        return MemoryDirectory(), None
    below = LocalDirectory(source, read_only=read_only or options.overlay is not None, create=False)
    if exists(below, COMMIT_FOLDER) and (options.overlay is not None or not read_only):
        _check_whole(below, options.overlay or source)
    if options.overlay is None:
        return below, None
    from avccfs.storage.rehearsal import Rehearsal
    from avccfs.vfs.overlay import Overlay

    upper = LocalDirectory(options.overlay, read_only=read_only) if options.overlay else None
    overlay = Overlay(below, upper)
    return overlay, Rehearsal(overlay, source, upper)


def _check_whole(source: Directory, finish: str) -> None:
    from avccfs.storage.commit import unfinished

    left = unfinished(source)
    if left is not None and left.durable:
        raise AvccfsError(
            f"{source.label}: a commit begun at {left.begun:%Y-%m-%d %H:%M:%S} UTC was stopped halfway; "
            "the database may be neither the old one nor the new. Finish it: avccfs commit "
            f"{finish}. To look at it as it is: --read-only"
        )


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
        from logging.handlers import SysLogHandler

        handler = SysLogHandler("/dev/log", facility="daemon")
        handler.setFormatter(logging.Formatter("avccfs[%(process)d]: %(message)s"))
    else:
        handler = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO if options.verbose or options.log_file else logging.WARNING)
    logging.getLogger("pyfuse3").setLevel(logging.WARNING)
