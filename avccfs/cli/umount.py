"""`avccfs umount MOUNTPOINT`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from avccfs.errors import AvccfsError, UsageError
from avccfs.fuse import mounts

if TYPE_CHECKING:
    from avccfs.fuse.asking import Asking

PATIENCE = 60.0
"""Seconds to wait for the serving process to end after the mount is gone."""


@click.command("umount")
@click.argument("mountpoint")
@click.option(
    "-l", "--lazy", is_flag=True, help="Take it out of the tree even while files are open."
)
def command(mountpoint: str, lazy: bool) -> int:
    """Unmount MOUNTPOINT, and wait until everything is written and the database is unlocked."""
    from avccfs.fuse.asking import Asking
    from avccfs.fuse.unmounting import unmount

    place = mounts.resolve(mountpoint)
    there = mounts.mount_at(place)
    if there is None:
        raise UsageError(f"nothing is mounted at {place}")
    if there.fstype != mounts.FSTYPE:
        raise UsageError(f"{place} is not an avccfs mount but {there.fstype} ({there.source})")
    dead, server = mounts.is_dead(place), mounts.server_of(there)
    # Looked for now: once the mount has left the tree, nothing shows that they are on it.
    staying = mounts.holders_of(place) if lazy else []
    # A dead mount has nothing left to write: nothing is lost by taking it out at once.
    refusal = unmount(place, lazy=lazy or dead)
    if refusal is not None and mounts.mount_at(place) == there:
        holders = mounts.holders_of(place)
        held_up = _held_up(Asking(server, place)) if server is not None else 0
        stalls = (
            f" Calls held up by faults: {held_up}. To let them go: avccfs fault {place} release."
            if held_up
            else ""
        )
        raise AvccfsError(
            f"{place} is in use by {mounts.describe(holders)}.{stalls} Close that and try again, or take "
            f"the mount out of the tree now and let it end when they are done: avccfs umount -l {place}\n"
            f"(the system said: {refusal})"
        )
    if lazy and server is not None:
        # Once it is out of the tree, nobody else can.
        _let_go(Asking(server, place))
    if dead:
        click.echo(f"avccfs: {place} was a dead mount; it is cleaned up", err=True)
        return 0
    if staying or server is None:
        return 0
    if not server.wait(PATIENCE):
        raise AvccfsError(
            f"{place} is unmounted, but pid {server.pid} is still busy with it after {PATIENCE:.0f} s; "
            "the database stays locked until it ends"
        )
    return 0


def _held_up(mount: Asking) -> int:
    with suppress(AvccfsError):
        return sum(rule["stalled"] for rule in mount.ask("faults")["rules"])
    return 0


def _let_go(mount: Asking) -> None:
    # The mount may have ended by now.
    with suppress(AvccfsError):
        mount.ask("tell-faults", line="release")
