"""`avccfs inspect DIR`: a database directory on one screen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Literal

import click

from avccfs.cli.main import DAMAGE, FINE
from avccfs.cli.output import on_terminal, standard_output
from avccfs.session import keys
from avccfs.session.glance import as_json, next_steps
from avccfs.session.keys import Form
from avccfs.session.lines import encoded
from avccfs.session.overview import Overview, look, title_of
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.platform import holders

_SHOWN = 10
"""Problems, and leftovers, that are spelled out."""
_KEY_SHOWN = 32

_Rows = list[tuple[str, ...]]


@click.command("inspect")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--keys",
    "key_form",
    type=click.Choice([form.value for form in Form if form is not Form.RAW]),
    default=Form.ESCAPE.value,
    help="How to write keys.",
)
@click.option("--format", "layout", type=click.Choice(["text", "json"]), default="text")
def command(directory: str, key_form: str, layout: str) -> int:
    """Show the database DIR on one screen, what is wrong with it, and what to do next.

    Manifest and journals are read, and the ends of tables; `avccfs check` reads everything. Nothing
    is locked and nothing is changed: DIR may be in use. The exit code is 1 if there is damage.
    """
    form = Form(key_form)
    opened = LocalDirectory(directory, read_only=True, create=False)
    try:
        overview = look(opened)
    finally:
        opened.close()
    users = holders.of_directory(directory)
    with standard_output() as out:
        if layout == "json":
            whole = as_json(overview, users, form)
            out.write(encoded(json.dumps(whole, ensure_ascii=False, indent=2) + "\n"))
        else:
            out.write(encoded(_text(overview, users, form)))
    return DAMAGE if overview.damaged else FINE


def _text(overview: Overview, users: holders.Holders, form: Form) -> str:
    parts = [_table(_summary(overview, users), numbers=())]
    if overview.levels:
        rows: _Rows = [("level", "tables", "size", "keys", "")]
        for level in overview.levels:
            span = f"{_key(level.smallest, form)} .. {_key(level.largest, form)}"
            missing = f"{level.missing} missing" if level.missing else ""
            rows.append((str(level.number), str(level.tables), _size(level.size), span, missing))
        parts.append(_table(rows, numbers=(0, 1, 2), head=True))
    if overview.journals:
        rows = [("journal", "use", "size", "batches", "entries", "")]
        for journal in overview.journals:
            faults = _count(journal.faults, "fault") if journal.faults else ""
            rows.append(
                (
                    keys.safe_name(journal.file),
                    journal.use.value,
                    _size(journal.size),
                    str(journal.batches),
                    str(journal.entries),
                    faults,
                )
            )
        parts.append(_table(rows, numbers=(2, 3, 4), head=True))
    if overview.leftovers:
        rows = [("other files", "use", "size")]
        for other in overview.leftovers[:_SHOWN]:
            rows.append((keys.safe_name(other.file), other.use.value, _size(other.size)))
        if len(overview.leftovers) > _SHOWN:
            rows.append((f"and {len(overview.leftovers) - _SHOWN} more", "", ""))
        parts.append(_table(rows, numbers=(2,), head=True))
    parts.append("".join(f"{line}\n" for line in _verdict(overview)))
    return "\n".join(parts)


def _summary(overview: Overview, users: holders.Holders) -> _Rows:
    state = overview.state
    engine = "unknown" if overview.engine is None else title_of(overview.engine)
    if overview.engine_evidence:
        engine += f" ({', '.join(overview.engine_evidence)})"
    manifest = "none" if overview.manifest is None else str(overview.manifest)
    if overview.manifest is not None:
        manifest += f", {_count(overview.edits, 'edit')}"
    rows: _Rows = [
        ("directory", keys.safe_name(overview.directory)),
        ("engine", engine),
        ("dialect", f"{overview.dialect.dialect.value} ({overview.dialect.evidence})"),
        ("manifest", f"{manifest} ({_safe(overview.manifest_why)})"),
    ]
    if overview.manifest is not None:
        comparer = state.comparer
        rows += [
            ("comparer", "missing" if comparer is None else keys.show(Form.UTF8)(comparer)),
            ("next file", _number(state.next_file_number)),
            ("journal", _number(state.journal_number)),
            ("sequence", _number(state.sequence)),
        ]
    if users:
        named = ", ".join(f"{_safe(name)} (pid {pid})" for pid, name in users)
        rows.append(("in use", f"by {named}: what is shown may be a moment old already"))
    return rows


def _verdict(overview: Overview) -> Iterator[str]:
    """What is wrong, and what to do next."""
    if overview.problems:
        yield f"What is wrong ({len(overview.problems)}):"
        for problem in overview.problems[:_SHOWN]:
            at = "" if problem.offset is None else f":{problem.offset}"
            yield f"  {keys.safe_name(problem.file)}{at}: {_safe(problem.what)}"
        if len(overview.problems) > _SHOWN:
            yield f"  and {len(overview.problems) - _SHOWN} more (--format json has all)"
    else:
        yield "Nothing is wrong at a glance."
    yield "What to do next:"
    yield from (f"  {step}" for step in next_steps(overview))


def _table(rows: _Rows, *, numbers: Sequence[int], head: bool = False) -> str:
    """Rows as a table: with rich on a terminal, plain in a pipe."""
    if on_terminal():
        return _rich_table(rows, numbers, head)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index in numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "".join(f"{line}\n" for line in lines)


def _rich_table(rows: _Rows, numbers: Sequence[int], head: bool) -> str:
    # Late, because of its weight.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if head else None, show_header=head, pad_edge=False)
    for index, name in enumerate(rows[0]):
        justify: Literal["right", "left"] = "right" if index in numbers else "left"
        style = "bold" if not head and index == 0 else None
        table.add_column(name if head else "", justify=justify, style=style, overflow="fold")
    for row in rows[head:]:
        table.add_row(*map(Text, row))
    console = Console()
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def _key(user_key: bytes | None, form: Form) -> str:
    if user_key is None:
        return "?"
    cut = user_key[:_KEY_SHOWN]
    return keys.in_text(form).show(cut) + ("..." if len(user_key) > _KEY_SHOWN else "")


def _safe(text: str) -> str:
    return keys.safe_name(text)


def _number(value: int | None) -> str:
    return "missing" if value is None else str(value)


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _size(size: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
