"""`avccfs discard MOUNTPOINT|DIR`."""

from __future__ import annotations

import os

import click

from avccfs.fuse import mounts

_QUESTION = "Drop these changes for good?"


@click.command("discard")
@click.argument("overlay")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(overlay: str, yes: bool) -> int:
    """Drop what was changed on OVERLAY: it shows its source again.

    OVERLAY is a mount point, or the directory given to --overlay. The source is not touched.
    """
    from avccfs.cli.overlays import agreed, target
    from avccfs.storage.rehearsal import SourceGoneError, discard_unopened
    from avccfs.vfs.overlay import LowerChangedError

    try:
        with target(overlay, read_only=False) as found:
            difference = found.diff(None)
            if not difference.half_committed:
                for line in difference.lines:
                    click.echo(line)
                if difference.empty:
                    return 0
                if not agreed(_QUESTION, yes=yes):
                    click.echo("Nothing was dropped.")
                    return 0
            found.discard()
    except (LowerChangedError, SourceGoneError) as error:
        if mounts.mount_at(mounts.resolve(overlay)) is not None:
            raise
        # What the changes are cannot be told any more, but they can still go.
        click.echo(f"avccfs: {error}", err=True)
        if not agreed(_QUESTION, yes=yes):
            click.echo("Nothing was dropped.")
            return 0
        discard_unopened(os.path.realpath(overlay))
    click.echo("The changes are gone.")
    return 0
