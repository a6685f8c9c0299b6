"""`avccfs selftest`: faults that are tried before anybody relies on them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

from avccfs.cli.main import DAMAGE, FINE
from avccfs.errors import AvccfsError

if TYPE_CHECKING:
    from avccfs.fuse.selftest import Bench, Outcome, Topic

TOPICS: Final = ("errno", "delay", "stall", "short", "torn", "corrupt", "drop", "when", "files")
"""As `fuse.selftest.Topic` has them; here without importing it, for the sake of `--help`."""

_MARKS: Final = {True: ("✓", "ok", "green"), False: ("✗", "NO", "red")}
_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE: Final = 30.0
"""Seconds to wait for the mount process to end."""


@click.command("selftest")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@click.argument("kinds", nargs=-1, type=click.Choice(TOPICS), metavar="[KIND]...")
def command(form: str, kinds: tuple[str, ...]) -> int:
    """Show on a scratch mount that each kind of fault does what it says.

    Every fault is armed in turn on a mount of an empty temporary directory. Plain system calls are
    made there, and what they return, and what then lies in the directory behind the mount, is
    compared with what the rule promises. Exits with 1 if anything is not as promised.

    KIND, one or more of errno, delay, stall, short, torn, corrupt, drop, when (which calls) and
    files (which files), leaves out all others.
    """
    from avccfs.fuse.selftest import Topic

    topics = [Topic(kind) for kind in kinds]
    with scratch_bench() as bench:
        outcomes = _shown(bench, topics) if form == "text" else _collected(bench, topics)
    failed = sum(not outcome.fine for outcome in outcomes)
    if form == "json":
        click.echo(json.dumps(_as_json(outcomes), ensure_ascii=False, indent=1))
    else:
        was = "all as the rules promise" if not failed else f"{failed} NOT AS THE RULES PROMISE"
        click.echo(f"{len(outcomes)} checks, {was}")
    return DAMAGE if failed else FINE


@contextlib.contextmanager
def scratch_bench() -> Iterator[Bench]:
    """A mount of its own to try faults on; at the end nothing is left of it, whatever happened.

    Raises `AvccfsError` if it cannot be mounted.
    """
    from avccfs.fuse.asking import asking
    from avccfs.fuse.selftest import Bench

    with _terminated_as_interrupted(), contextlib.ExitStack() as ends:
        folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="avccfs-selftest-")))
        source, mountpoint = folder / "source", folder / "mnt"
        ends.callback(_tidy_up, folder, mountpoint)
        source.mkdir()
        mountpoint.mkdir()
        _mount(source, mountpoint, folder / "messages")
        mount = ends.enter_context(asking(str(mountpoint)))
        yield Bench(mountpoint, source, mount)


def _mount(source: Path, mountpoint: Path, log_file: Path) -> None:
    # -P: nothing in the folder where the user happens to be may pose as a module. What the mount has
    # to say of faults is no news for the system's log.
    command = [sys.executable, "-P", "-m", "avccfs", "mount", "--log-file", str(log_file)]
    command += ["--fault", "none", str(source), str(mountpoint)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        words = done.stderr.strip().removeprefix("avccfs: ") or f"exit status {done.returncode}"
        raise AvccfsError(f"no scratch mount could be made to try faults on: {words}")


def _take_down(mountpoint: str) -> None:
    """Unmount if it is mounted, and wait until the mount process has ended."""
    from avccfs.fuse import mounts
    from avccfs.fuse.asking import Asking
    from avccfs.fuse.unmounting import unmount

    there = mounts.mount_at(mountpoint)
    if there is None:
        return
    server = mounts.server_of(there)
    with contextlib.ExitStack() as ends:
        if server is not None:
            mount = ends.enter_context(contextlib.closing(Asking(server, mountpoint)))
            with contextlib.suppress(AvccfsError):
                # A call that still waits would keep the mount busy.
                mount.ask("tell-faults", line="clear")
        if unmount(mountpoint) is not None:
            unmount(mountpoint, lazy=True)
        if server is not None:
            server.wait(_PATIENCE)


def _tidy_up(folder: Path, mountpoint: Path) -> None:
    """Leave nothing behind, deaf to an impatient second Ctrl-C."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTS}
    try:
        _take_down(str(mountpoint))
    finally:
        shutil.rmtree(folder)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Whatever would end the process does as Ctrl-C: nothing stays mounted."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _collected(bench: Bench, topics: list[Topic]) -> list[Outcome]:
    from avccfs.fuse.selftest import run

    return list(run(bench, topics))


def _shown(bench: Bench, topics: list[Topic]) -> list[Outcome]:
    """Carry out the checks, and tell of each as soon as it is done."""
    from avccfs.fuse.selftest import CHECKS, run

    width = max(len(check.rule) for check in CHECKS)
    outcomes = []
    told = Counter[str]()
    for outcome in run(bench, topics):
        outcomes.append(outcome)
        topic = outcome.check.topic.value
        if not told[topic]:
            click.echo(topic)
        told[topic] += 1
        click.echo(_line(outcome, width))
    return outcomes


def _line(outcome: Outcome, width: int) -> str:
    sign, plain, colour = _MARKS[outcome.fine]
    mark = click.style(sign if _can_print(sign) else plain, fg=colour)
    rule = f"{outcome.check.rule:{width}}"
    if outcome.fine:
        return f"  {mark} {rule}  {outcome.seen}"
    return f"  {mark} {rule}  EXPECTED {outcome.expected}\n{'':{width + 6}}SEEN {outcome.seen}"


def _can_print(sign: str) -> bool:
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _as_json(outcomes: list[Outcome]) -> dict[str, object]:
    failed = sum(not outcome.fine for outcome in outcomes)
    return {
        "avccfs": version("avccfs"),
        "ok": not failed,
        "passed": len(outcomes) - failed,
        "failed": failed,
        "checks": [
            {
                "kind": outcome.check.topic.value,
                "rule": outcome.check.rule,
                "ok": outcome.fine,
                "expected": outcome.expected,
                "seen": outcome.seen,
            }
            for outcome in outcomes
        ],
    }
