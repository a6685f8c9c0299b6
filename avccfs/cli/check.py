"""`avccfs check DIR`: is the database sound, and where is it not?"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from avccfs.errors import UsageError
from avccfs.format.filename import Kind, kind_of

if TYPE_CHECKING:
    from avccfs.session.check import Progress, Runner

DAMAGE: Final = 1

_WORTH_FORKING: Final = 32 * 1024 * 1024
"""Bytes of tables from which on processes beside this one earn their start."""
_MOST_JOBS: Final = 8
_DATABASE: Final = Kind.TABLE | Kind.JOURNAL | Kind.MANIFEST | Kind.META


@click.command("check")
@click.argument("directory", type=click.Path(exists=True, file_okay=False), metavar="DIR")
@click.option(
    "--dialect",
    type=click.Choice(["standard", "avccdb"]),
    help="How to read internal keys. Without it, what the tables and journals show.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or one object for programs, with stable codes.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    help="Processes that check tables side by side. Without it, one for each processor.",
)
def command(directory: str, dialect: str | None, form: str, jobs: int | None) -> int:
    """Check every byte of the database in DIR, and how its files fit together.

    Checksums of every block, order of keys, filters, Merkle trees, ranges and sizes against the
    manifest, overlaps, missing tables, files that nothing names, journals and their batches, CURRENT
    and its family. Nothing is changed and no lock is taken.

    Exit code 0: sound. 1: damage, or a risk of losing something. 2: wrong usage.
    """
    from avccfs.format.ikey import Dialect
    from avccfs.session import checkreport
    from avccfs.session.check import check
    from avccfs.vfs.local import LocalDirectory
    from avccfs.vfs.platform import holders

    place = LocalDirectory(directory, read_only=True)
    try:
        sizes = [(name, told.size) for name, told in place.scan() if kind_of(name) in _DATABASE]
        if not sizes:
            raise UsageError(
                f"{directory}: no database here: there is no CURRENT, manifest, journal or table"
            )
        tables = sum(size for name, size in sizes if kind_of(name) is Kind.TABLE)
        with _progress_bar() as progress:
            report = check(
                place,
                dialect=None if dialect is None else Dialect(dialect),
                progress=progress,
                holders=holders.of_directory(directory),
                runner=_runner(tables, jobs),
            )
    finally:
        place.close()
    if form == "json":
        import json

        click.echo(json.dumps(checkreport.as_json(report), indent=1))
    else:
        verdict, *lines = checkreport.as_lines(report)
        click.secho(verdict, fg="green" if report.sound else "red", bold=True)
        for line in lines:
            click.echo(line)
    return 0 if report.sound else DAMAGE


def _runner(size: int, jobs: int | None) -> Runner | None:
    """None for the work to be done here, one table after another."""
    if jobs is None:
        jobs = min(_MOST_JOBS, len(os.sched_getaffinity(0)) if hasattr(os, "fork") else 1)
        if size < _WORTH_FORKING:
            return None
    if jobs == 1:
        return None
    from avccfs.cli.forking import ForkRunner

    return ForkRunner(jobs)


@contextlib.contextmanager
def _progress_bar() -> Iterator[Progress | None]:
    """A bar on the terminal, if there is one, once the work takes longer than a moment."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield None
        return
    from avccfs.cli.bar import Bar

    with Bar() as bar:
        yield bar.show
