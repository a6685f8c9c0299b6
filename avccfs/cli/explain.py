"""`avccfs explain DIR`: what each engine would do with a database, before any of them does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from avccfs.session.recovery import Prediction

_ENGINES = ("leveldb", "goleveldb", "avccdb")


@click.command("explain", short_help="Say what each engine would make of a database, and lose.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False), metavar="DIR")
@click.option(
    "engines",
    "--engine",
    type=click.Choice(_ENGINES),
    multiple=True,
    help="The engine to speak of; may be given several times. Default: all.",
)
@click.option(
    "form",
    "--format",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="json: one object a line for each engine.",
)
@click.option(
    "--rebuild",
    is_flag=True,
    help="Speak of the engine's own rebuild (goleveldb's RecoverFile) instead of opening.",
)
@click.option(
    "--dialect",
    type=click.Choice(("standard", "avccdb")),
    help="The form of keys in the database. Default: found out from its files.",
)
def command(
    directory: str, engines: tuple[str, ...], form: str, rebuild: bool, dialect: str | None
) -> int:
    """Say what each engine would do if it opened the database in DIR.

    Which meta file wins, what of the manifest and the journals is kept or dropped and why, which
    files are deleted afterwards, how many keys can be read then, and how many would be lost for
    good. Nothing is changed and no lock is taken: DIR may be in use, but then its files move while
    they are read, so look again before you believe a loss.

    An engine that takes the keys for something else than they are (avccDB and the others differ in
    this) is shown too, but counts for the exit code only if it was asked for by name.

    Exit codes: 0 every engine opens it and nothing is lost or damaged, 1 damage or loss, 2 usage.
    """
    from avccfs.format.ikey import Dialect
    from avccfs.session import explain
    from avccfs.session.engines import PROFILES, Engine
    from avccfs.session.recovery import predict, predict_rebuild
    from avccfs.vfs.local import LocalDirectory

    asked = [Engine(name) for name in dict.fromkeys(engines)]
    chosen = asked or [e for e in Engine if PROFILES[e].rebuilds or not rebuild]
    known = Dialect(dialect) if dialect else None
    ask = predict_rebuild if rebuild else predict
    place = LocalDirectory(directory, read_only=True)
    try:
        predictions = [ask(place, PROFILES[engine], dialect=known) for engine in chosen]
    finally:
        place.close()
    if form == "json":
        for prediction in predictions:
            click.echo(json.dumps(explain.to_json(prediction)))
    else:
        _print(predictions)
    counted = [p for p in predictions if asked or not p.foreign]
    return int(any(not p.harmless or explain.damaged(p) for p in counted))


def _print(predictions: list[Prediction]) -> None:
    from avccfs.session import explain
    from avccfs.session.engines import PROFILES

    if len(predictions) > 1:
        width = max(len(PROFILES[p.engine].title) for p in predictions)
        for prediction in predictions:
            title = PROFILES[prediction.engine].title
            foreign = "(not its dialect) " if prediction.foreign else ""
            colour = "green" if prediction.harmless else "red"
            if prediction.foreign:
                colour = "bright_black"
            line = f"{title:<{width}}  {foreign}{explain.verdict(prediction)}"
            click.secho(line, fg=colour)
        click.echo()
    for index, prediction in enumerate(predictions):
        if index:
            click.echo()
        for number, line in enumerate(explain.to_text(prediction)):
            click.secho(line, bold=number < 2)
