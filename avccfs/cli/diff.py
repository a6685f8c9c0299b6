"""`avccfs diff MOUNTPOINT|DIR`."""

from __future__ import annotations

import json

import click

from avccfs.errors import AvccfsError


@click.command("diff")
@click.argument("overlay")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def command(overlay: str, form: str) -> int:
    """Show what was changed on OVERLAY, a mount point or the directory given to --overlay.

    Files that were added, removed or renamed, and the ranges of bytes that differ from the source.
    Nothing is changed.
    """
    from avccfs.cli.overlays import progress_bar, target

    with target(overlay, read_only=True) as found, progress_bar() as progress:
        difference = found.diff(progress)
    if difference.half_committed:
        raise AvccfsError(
            f"a commit of these changes into {difference.source} was stopped halfway. Finish it: "
            f"avccfs commit {overlay}"
        )
    if form == "json":
        click.echo(json.dumps({"source": difference.source, **difference.json}, indent=1))
    else:
        for line in difference.lines:
            click.echo(line)
    return 0
