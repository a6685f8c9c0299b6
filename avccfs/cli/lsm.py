"""`avccfs lsm DIR -o FILE.html`: the levels over the range of keys, through a manifest's history."""

from __future__ import annotations

import os
import sys

import click

from avccfs.cli import lsm_html, lsm_svg
from avccfs.cli.main import DAMAGE, FINE
from avccfs.errors import UsageError
from avccfs.format.ikey import Dialect
from avccfs.session.keys import safe_name
from avccfs.session.picture.scene import Scene
from avccfs.session.picture.survey import survey
from avccfs.vfs.local import LocalDirectory

STDOUT = "-"

_RENDERERS = {"html": lsm_html.render, "svg": lsm_svg.render}
_SUFFIXES = {".html": "html", ".htm": "html", ".svg": "svg"}


@click.command("lsm")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    help="Where the picture goes: a name in .html or .svg, or - for standard output. "
    "A file of that name is overwritten.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(_RENDERERS)),
    help="What goes to standard output (html).",
)
@click.option("--manifest", metavar="NAME", help="The manifest to read instead of the live one.")
@click.option(
    "--at-edit",
    type=click.IntRange(min=0),
    metavar="N",
    help="Show the levels after the N-th record that decodes; 0: before the first.",
)
@click.option(
    "--dialect",
    type=click.Choice([each.value for each in Dialect]),
    help="The form of internal keys. Without it, what the files show.",
)
@click.option(
    "--checksums",
    is_flag=True,
    help="Read every block of every table, not only sizes and footers.",
)
def command(
    directory: str,
    output: str,
    form: str | None,
    manifest: str | None,
    at_edit: int | None,
    dialect: str | None,
    checksums: bool,
) -> int:
    """Draw the levels of the database in DIR over the range of its keys.

    An HTML page has a slider through the records of the manifest; it is one file and needs no
    network. An SVG file shows the levels after one record, the last unless --at-edit names another.

    Nothing in DIR is changed and no lock is taken. Exit code 1: the picture shows damage (no live
    manifest, bad records, tables that are missing or not sound).
    """
    form = _form(output, form)
    _refuse_inside(directory, output)
    source = LocalDirectory(directory, read_only=True)
    try:
        scene = survey(
            source,
            manifest=manifest,
            dialect=None if dialect is None else Dialect(dialect),
            checksums=checksums,
        )
    finally:
        source.close()
    step = _step(scene, at_edit)
    _write(output, _RENDERERS[form](scene, step))
    for note in scene.notes:
        click.echo(f"avccfs: {note}", err=True)
    return DAMAGE if scene.damaged else FINE


def _form(output: str, form: str | None) -> str:
    if output == STDOUT:
        return form or "html"
    chosen = _SUFFIXES.get(os.path.splitext(output)[1].lower())
    if chosen is None:
        raise UsageError(
            f"{safe_name(output)}: expected a name that ends in .html or .svg, or - for standard "
            "output with --format html or svg"
        )
    if form is not None and form != chosen:
        raise UsageError(
            f"{safe_name(output)} asks for {chosen}, --format for {form}: leave --format out"
        )
    return chosen


def _refuse_inside(directory: str, output: str) -> None:
    """Never write into the database, whatever links lead there."""
    if output == STDOUT:
        return
    inside = os.path.join(os.path.realpath(directory), "")
    if os.path.realpath(output).startswith(inside):
        raise UsageError(
            f"{safe_name(output)} would lie in the database directory: name a file elsewhere"
        )


def _step(scene: Scene, at_edit: int | None) -> int:
    if at_edit is None:
        return len(scene.steps)
    return scene.step_of(at_edit) if at_edit else 0


def _write(output: str, picture: str) -> None:
    data = picture.encode("utf-8")
    if output == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    with open(output, "wb") as file:
        file.write(data)
