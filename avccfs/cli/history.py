"""`avccfs history DIR KEY`: every place that holds a key."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from avccfs.cli.dump import key_of
from avccfs.cli.main import DAMAGE, FINE
from avccfs.cli.output import on_terminal, standard_output
from avccfs.errors import UsageError
from avccfs.format.ikey import Dialect
from avccfs.session import keys
from avccfs.session.keys import Form
from avccfs.session.lines import KIND_NAMES, Value, encoded
from avccfs.session.whereabouts import Place, Role, Sight, Whereabouts, find
from avccfs.vfs.local import LocalDirectory


@click.command("history")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.argument("key")
@click.option(
    "--keys",
    "key_form",
    type=click.Choice([form.value for form in Form]),
    default=Form.ESCAPE.value,
    help="How KEY is written, and how to write keys and values.",
)
@click.option("--format", "layout", type=click.Choice(["text", "json"]), default="text")
@click.option(
    "--dialect",
    type=click.Choice([dialect.value for dialect in Dialect]),
    help="The form of internal keys, if the tables do not show it.",
)
def command(directory: str, key: str, key_form: str, layout: str, dialect: str | None) -> int:
    """Show every place in the database DIR that holds KEY, the newest first.

    All tables and journals are searched, also orphans and journals that are done with. For each
    place: what it is to each engine, and whether a reader would get this entry. Nothing is locked
    and nothing is changed: DIR may be in use. The exit code is 1 if damage may hide more.
    """
    form = Form(key_form)
    if form is Form.RAW and layout == "json":
        raise UsageError("JSON has no raw bytes: choose --keys hex, escape or utf8")
    # A key can be given raw, but must not be shown raw to a terminal.
    shown_as = Form.ESCAPE if form is Form.RAW and on_terminal() else form
    opened = LocalDirectory(directory, read_only=True, create=False)
    try:
        found = find(
            opened,
            key_of(form, key, "KEY"),
            dialect=None if dialect is None else Dialect(dialect),
        )
    finally:
        opened.close()
    with standard_output() as out:
        text = _text(found, shown_as) if layout == "text" else _json(found, shown_as)
        out.write(encoded(text))
    return DAMAGE if found.faults else FINE


def _text(found: Whereabouts, form: Form) -> str:
    show = keys.in_text(form).show
    files = f"{found.searched} file{'' if found.searched == 1 else 's'} searched"
    count = len(found.places)
    where = "is in no place" if not count else f"is in {count} place{'' if count == 1 else 's'}"
    order = ", newest first" if count > 1 else ""
    said = [
        f"{show(found.key)} {where} ({files}; {found.dialect.dialect.value} dialect: "
        f"{found.dialect.evidence}){order}"
    ]
    rows = [_row(place, sights, form) for place, sights in found.places]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        said.append("  " + "  ".join(cells).rstrip())
    said += [
        f"{view.engine.value} would not open it: {view.error}"
        for view in found.views
        if view.error is not None
    ]
    if found.faults:
        said.append("Damage, in which there may be more:")
        said += [f"  {keys.safe_name(fault.file)}: {fault.detail}" for fault in found.faults]
    return "\n".join((*said, ""))


def _row(place: Place, sights: Sequence[Sight], form: Form) -> list[str]:
    name = KIND_NAMES[place.change]
    value = ""
    if place.size or place.change:
        value = keys.in_text(form).show(place.preview)
        value += f"... ({place.size} bytes)" if place.size > len(place.preview) else ""
    return [
        f"sequence {place.sequence}",
        *([] if place.version is None else [f"version {place.version}"]),
        name if place.certain else f"perhaps {name}",
        keys.safe_name(place.file),
        f"offset {place.offset}",
        _agreed([(sight.engine.value, _role(sight)) for sight in sights]),
        _visible(sights),
        value,
    ]


def _role(sight: Sight) -> str:
    return f"level {sight.level}" if sight.role is Role.LEVEL else sight.role.value


def _agreed(said: list[tuple[str, str]]) -> str:
    """What all engines say, or what each of them says."""
    if len({what for _, what in said}) == 1:
        return said[0][1]
    return ", ".join(f"{what} ({engine})" for engine, what in said)


def _visible(sights: Sequence[Sight]) -> str:
    seen = [sight.engine.value for sight in sights if sight.visible]
    if len(seen) == len(sights):
        return "visible"
    return f"visible to {' and '.join(seen)}" if seen else "hidden"


def _json(found: Whereabouts, form: Form) -> str:
    show = keys.show(form)
    places: list[Value] = [
        {
            "file": keys.safe_name(place.file),
            "offset": place.offset,
            "sequence": place.sequence,
            "version": place.version,
            "kind": KIND_NAMES[place.change],
            "certain": place.certain,
            "size": place.size,
            "value": show(place.preview),
            "engines": {
                sight.engine.value: {
                    "role": sight.role.value,
                    "level": sight.level,
                    "visible": sight.visible,
                }
                for sight in sights
            },
        }
        for place, sights in found.places
    ]
    whole: dict[str, Value] = {
        "directory": keys.safe_name(found.directory),
        "key": show(found.key),
        "dialect": found.dialect.dialect.value,
        "evidence": found.dialect.evidence,
        "searched": found.searched,
        "engines": {
            view.engine.value: {"manifest": view.manifest, "error": view.error}
            for view in found.views
        },
        "places": places,
        "faults": [
            {
                "file": keys.safe_name(fault.file),
                "offset": None if fault.fault is None else fault.fault.offset,
                "detail": fault.detail,
            }
            for fault in found.faults
        ],
    }
    return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"
