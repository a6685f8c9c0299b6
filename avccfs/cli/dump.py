"""`avccfs dump FILE...`: what manifests, journals and tables hold."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import click

from avccfs.cli import dumping
from avccfs.cli.main import DAMAGE, FAILED, FINE
from avccfs.cli.output import Output, OutputError, on_terminal, standard_output
from avccfs.errors import AvccfsError, UsageError
from avccfs.format.batch import Entry
from avccfs.format.filename import Kind
from avccfs.format.ikey import Dialect
from avccfs.format.table import Table
from avccfs.session import decoded, keys, lines, recognition
from avccfs.session.decoded import Bounds, Edit, Fault
from avccfs.session.engines import PROFILES, Engine
from avccfs.session.folder import Folder, Opened
from avccfs.session.keys import Form
from avccfs.session.lines import Item, JsonLines, State, Subject, Writer
from avccfs.vfs.local import LocalDirectory

_WRITERS: dict[str, type[dumping.Text] | type[JsonLines] | type[dumping.Csv]] = {
    "text": dumping.Text,
    "jsonl": JsonLines,
    "csv": dumping.Csv,
}
_KINDS = {
    kind.name.lower(): kind for kind in (Kind.MANIFEST, Kind.JOURNAL, Kind.TABLE) if kind.name
}
_SIZE = "size"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options ask for."""

    layout: str
    key: Form
    value: Form | None
    """None: only the size."""
    bounds: Bounds | None
    at_edit: int | None
    kind: Kind | None
    dialect: Dialect | None
    engine: Engine | None
    """Not None: the key space of directories, as this engine would show it."""


@click.command("dump")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@click.option(
    "--live",
    "live_keys",
    is_flag=True,
    help="Each FILE is a database directory: every key that --engine would show after opening it.",
)
@click.option(
    "--engine",
    type=click.Choice([engine.value for engine in Engine]),
    help="For --live. Engines differ in what they recover.",
)
@click.option(
    "--format",
    "layout",
    type=click.Choice(list(_WRITERS)),
    default="text",
    help="text is as that of leveldbutil dump; jsonl is one object a line.",
)
@click.option(
    "--keys",
    "key_form",
    type=click.Choice([form.value for form in Form]),
    default=Form.ESCAPE.value,
    help="How to write keys and values, and to read the keys given here.",
)
@click.option(
    "--values",
    "value_form",
    type=click.Choice([*(form.value for form in Form), _SIZE]),
    help="How to write values, if not like keys; size tells only how many bytes each has.",
)
@click.option("--from", "low", metavar="KEY", help="Only entries with this key or a later one.")
@click.option("--to", "high", metavar="KEY", help="Only entries with keys before this one.")
@click.option("--prefix", metavar="KEY", help="Only entries with keys that begin so.")
@click.option(
    "--at-edit",
    type=click.IntRange(min=0),
    metavar="N",
    help="Of a manifest: the numbers and levels after its N-th record, instead of the records.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(list(_KINDS)),
    help="What the files are. By default the name says it, or else the content.",
)
@click.option(
    "--dialect",
    type=click.Choice([dialect.value for dialect in Dialect]),
    help="The form of internal keys. By default the table says it, or the tables beside the file.",
)
def command(
    files: tuple[str, ...],
    live_keys: bool,
    engine: str | None,
    layout: str,
    key_form: str,
    value_form: str | None,
    low: str | None,
    high: str | None,
    prefix: str | None,
    at_edit: int | None,
    kind: str | None,
    dialect: str | None,
) -> int:
    """Show what manifests, journals and tables hold, with the offset of everything.

    All that is sound is shown, whatever damage is before or behind it; damage is shown in its place
    (in CSV: on standard error), and then the exit code is 1. Nothing is locked and nothing is
    changed: the files may be in use.

    \b
    avccfs dump db/MANIFEST-000004
    avccfs dump db/*.ldb --prefix user: --format jsonl | jq .key
    avccfs dump db/000007.log --keys hex | head
    avccfs dump db --live --engine goleveldb --format csv
    """
    if live_keys and engine is None:
        raise UsageError(
            "--live needs --engine: leveldb, goleveldb and avccdb do not always show the same"
        )
    if engine is not None and not live_keys:
        raise UsageError("--engine is for --live: what a file holds is the same to all engines")
    if live_keys and (kind is not None or at_edit is not None):
        raise UsageError("--type and --at-edit are for files, --live is for directories")
    form = Form(key_form)
    value = Form(value_form) if value_form and value_form != _SIZE else None
    if value_form is None:
        value = form
    if layout == "jsonl" and Form.RAW in (form, value):
        raise UsageError("JSON has no raw bytes: choose --keys hex, escape or utf8")
    if Form.RAW in (form, value) and on_terminal():
        raise UsageError(
            "raw bytes could make this terminal do anything: send them to a file or a pipe, or "
            "choose --keys escape"
        )
    wishes = Wishes(
        layout=layout,
        key=form,
        value=value,
        bounds=bounds_of(form, low, high, prefix),
        at_edit=at_edit,
        kind=_KINDS[kind] if kind else None,
        dialect=Dialect(dialect) if dialect else None,
        engine=Engine(engine) if engine else None,
    )
    return _Dump(wishes).run(files)


def bounds_of(form: Form, low: str | None, high: str | None, prefix: str | None) -> Bounds | None:
    """What `--from`, `--to` and `--prefix` ask for; None if they are not there."""
    if low is high is prefix is None:
        return None
    bounds = Bounds(
        b"" if low is None else key_of(form, low, "--from"),
        None if high is None else key_of(form, high, "--to"),
    )
    if prefix is not None:
        bounds = bounds.and_prefix(key_of(form, prefix, "--prefix"))
    return bounds


def key_of(form: Form, text: str, what: str) -> bytes:
    """A key from the command line. Raises `UsageError`."""
    try:
        return keys.parse(form, text)
    except ValueError as error:
        raise UsageError(f"{what} is no key as --keys {form.value} writes it: {error}") from None


class _Dump:
    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._code = FINE
        self._columns: bytes | None = None

    def run(self, files: tuple[str, ...]) -> int:
        with standard_output() as out:
            for path in files:
                try:
                    if self._wishes.engine is None:
                        self._file(path, out)
                    else:
                        self._key_space(path, self._wishes.engine, out)
                except (BrokenPipeError, OutputError):
                    raise
                except UsageError:
                    out.flush()
                    raise
                except (OSError, AvccfsError) as error:
                    out.flush()
                    _say(f"{keys.safe_name(path)}: {_reason(error)}")
                    self._code = FAILED
        return self._code

    def _file(self, path: str, out: Output) -> None:
        if os.path.isdir(path):
            raise UsageError(
                f"{keys.safe_name(path)} is a directory: name the files in it that you want to see "
                "(avccfs inspect shows what there is), or have every key that an engine would show: "
                f"avccfs dump {keys.safe_name(path)} --live --engine goleveldb"
            )
        with _open(path) as (folder, opened):
            subject, kind, table = self._subject(path, folder, opened)
            faults = _Faults(subject.name, tell_all=self._wishes.layout == "csv", out=out)
            wishes = self._wishes
            writer: Writer = _WRITERS[wishes.layout](subject, wishes.key, wishes.value)
            if wishes.layout == "csv":
                self._one_set_of_columns(subject, out)
            out.write(writer.begin(subject, table))
            for piece in lines.write(
                faults.watch(self._items(subject, kind, opened, table)), writer
            ):
                out.write(piece)
            out.flush()
            if faults.count:
                self._code = self._code or DAMAGE
                faults.sum_up()

    def _key_space(self, path: str, engine: Engine, out: Output) -> None:
        if not os.path.isdir(path):
            raise UsageError(f"{keys.safe_name(path)} is no directory, which --live is for")
        # Late, because of its weight.
        # Late: the engines' recovery comes with it, which no file needs.
        from avccfs.session import live

        wishes, profile = self._wishes, PROFILES[engine]
        writer: Writer | None = None

        def take(entries: list[Entry]) -> None:
            nonlocal writer
            if writer is None:
                evidence = "the one that this engine reads"
                subject = Subject(path, "key space", None, profile.reads_as, evidence, engine)
                writer = _WRITERS[wishes.layout](subject, wishes.key, wishes.value)
                if wishes.layout == "csv":
                    self._one_set_of_columns(subject, out)
                out.write(writer.begin(subject, None))
            if wishes.bounds is not None:
                entries = [entry for entry in entries if entry.key in wishes.bounds]
            out.write(writer.live(entries))

        directory = LocalDirectory(path, read_only=True, create=False)
        try:
            ending = live.read(directory, profile, take, dialect=wishes.dialect)
        finally:
            directory.close()
        out.flush()
        if ending.refusal is not None:
            raise AvccfsError(
                f"{profile.title} would not open it: {keys.safe_name(ending.refusal)}. To see why: "
                f"avccfs explain {keys.safe_name(path)}"
            )
        if ending.stopped is not None:
            said = f"reading stops here, as {profile.title} would: {ending.stopped}"
            _say(f"{keys.safe_name(path)}: {keys.safe_name(said)}")
            self._code = self._code or DAMAGE
        if ending.dialect is not profile.reads_as:
            _say(
                f"{keys.safe_name(path)}: {profile.title} reads these keys wrongly: the database is "
                f"of the {ending.dialect.value} dialect"
            )

    def _subject(
        self, path: str, folder: Folder, opened: Opened
    ) -> tuple[Subject, Kind, Table | None]:
        wishes = self._wishes
        read_at, size = opened.read_at, opened.size
        kind = wishes.kind or recognition.kind_of(os.path.basename(path), read_at, size)
        if kind is None or kind not in _KINDS.values():
            what = (
                "is empty, and its name does not say what it is"
                if not size
                else ("is neither a table, nor has it a record of a manifest or a journal")
            )
            raise UsageError(
                f"{keys.safe_name(path)} {what}. If you know better: --type manifest, journal or table"
            )
        if wishes.at_edit is not None and kind is not Kind.MANIFEST:
            raise UsageError(f"{keys.safe_name(path)} is no manifest: --at-edit is about manifests")
        if wishes.bounds is not None and kind is Kind.MANIFEST:
            raise UsageError(
                f"{keys.safe_name(path)} is a manifest, which has no entries that --from, --to and "
                "--prefix could choose from. Where a key is: avccfs history DIR KEY"
            )
        table = Table(read_at, size) if kind is Kind.TABLE else None
        shown = self._dialect(folder, opened, kind, table)
        name = next(name for name, each in _KINDS.items() if each is kind)
        return Subject(path, name, size, shown.dialect, shown.evidence), kind, table

    def _dialect(
        self, folder: Folder, opened: Opened, kind: Kind, table: Table | None
    ) -> recognition.Shown:
        if self._wishes.dialect is not None:
            return recognition.Shown(self._wishes.dialect, recognition.GIVEN, True)
        shown = None if table is None else recognition.of_table(table)
        if shown is None:
            shown = recognition.of_folder(folder)
        if not shown.certain and kind is Kind.JOURNAL:
            shown = recognition.of_journal(opened.read_at) or shown
        return shown

    def _items(
        self, subject: Subject, kind: Kind, opened: Opened, table: Table | None
    ) -> Iterator[Item]:
        wishes = self._wishes
        if table is not None:
            yield from decoded.read_table(table, subject.dialect, wishes.bounds)
        elif kind is Kind.JOURNAL:
            yield from decoded.read_journal(opened.read_at, subject.dialect, wishes.bounds)
        elif wishes.at_edit is None:
            yield from decoded.read_manifest(opened.read_at)
        else:
            edits = 0

            def counted() -> Iterator[Edit | Fault]:
                nonlocal edits
                for item in decoded.read_manifest(opened.read_at):
                    edits += isinstance(item, Edit) and item.number is not None
                    yield item

            found = False
            for item in lines.state_at(counted(), wishes.at_edit):
                found = found or isinstance(item, State)
                yield item
            if not found:
                raise UsageError(
                    f"{keys.safe_name(subject.name)} has no edit {wishes.at_edit}: "
                    f"there are {edits}"
                )

    def _one_set_of_columns(self, subject: Subject, out: Output) -> None:
        columns = dumping.columns(subject)
        if self._columns is None:
            out.write(columns)
            self._columns = columns
        elif columns != self._columns:
            raise UsageError(
                f"{keys.safe_name(subject.name)}: a manifest has other columns than journals and "
                "tables: make a file of CSV of each"
            )


class _Faults:
    """Counts the faults of a file, and tells of them on standard error."""

    def __init__(self, name: str, *, tell_all: bool, out: Output) -> None:
        self.count = 0
        self._name = keys.safe_name(name)
        self._first: Fault | None = None
        self._tell_all = tell_all
        self._out = out

    def watch(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items."""
        for item in items:
            if isinstance(item, Fault):
                self.count += 1
                self._first = self._first or item
                if self._tell_all:
                    self._out.flush()
                    _say(f"{self._name}: {item.reason}: {item.detail}")
            yield item

    def sum_up(self) -> None:
        """How many there were."""
        if self._first is None or self._tell_all:
            return
        faults = "1 fault" if self.count == 1 else f"{self.count} faults, the first"
        _say(f"{self._name}: {faults}: {self._first.detail}")


@contextlib.contextmanager
def _open(path: str) -> Iterator[tuple[Folder, Opened]]:
    """A file and the directory that it is in. Links are followed: the user has named it."""
    parent, name = os.path.split(os.path.realpath(path, strict=True))
    directory = LocalDirectory(parent, read_only=True, create=False)
    try:
        folder = Folder(directory)
        with folder.opened([name]) as opened:
            yield folder, opened
    finally:
        directory.close()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _say(text: str) -> None:
    click.echo(f"avccfs: {text}", err=True)
