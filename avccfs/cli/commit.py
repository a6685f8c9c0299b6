"""`avccfs commit MOUNTPOINT|DIR`."""

from __future__ import annotations

import os

import click

from avccfs.fuse import mounts


@click.command("commit")
@click.argument("overlay")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(overlay: str, yes: bool) -> int:
    """Carry what was changed on OVERLAY into its source.

    OVERLAY is a mount point, or the directory given to --overlay. The changes are shown first, and
    nothing is done unless you agree. New files come first and are synced, CURRENT is switched after
    them, what is to go goes last. If it is stopped halfway, run it again: it ends the same. (For a
    mount that is gone: run it on the source itself.)
    """
    if _is_plain_source(overlay):
        return _finish(overlay)
    from avccfs.cli.overlays import agreed, progress_bar, target

    with target(overlay, read_only=False) as found:
        with progress_bar() as progress:
            difference = found.diff(progress)
        if difference.half_committed:
            click.echo(f"A commit into {difference.source} was stopped halfway; this finishes it.")
        else:
            for line in difference.lines:
                click.echo(line)
            if difference.empty:
                if difference.left_over:
                    # Carries nothing over, and clears that away.
                    found.commit(difference.digest, None)
                return 0
        if not agreed(f"Carry this into {difference.source}?", yes=yes):
            click.echo("Nothing was changed.")
            return 0
        with progress_bar() as progress:
            found.commit(difference.digest, progress)
    click.echo(f"{difference.source} now holds these changes.")
    return 0


def _is_plain_source(place: str) -> bool:
    """Whether this is the directory that a commit was stopped in."""
    if mounts.mount_at(mounts.resolve(place)) is not None:
        return False
    return os.path.isdir(os.path.join(place, ".avccfs-commit"))


def _finish(source: str) -> int:
    from avccfs.cli.overlays import progress_bar
    from avccfs.storage.rehearsal import finish

    with progress_bar() as progress:
        begun = finish(os.path.realpath(source), progress)
    if begun:
        click.echo(f"The commit that was stopped in {source} is finished.")
    else:
        click.echo(f"A commit into {source} was stopped before it had begun; it is as it was.")
    return 0
