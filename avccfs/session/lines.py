"""Manifests, journals and tables as JSON lines: one object a line, each with `file` and `type`.

    file           first, once: kind, size, dialect and what shows it; of a table also its blocks;
                   of a key space the engine, and the path of the directory as `file`
    edit           a record of a manifest: `edit` counts from 1
    partial edit   the fields of a record before the first that does not decode
    state          the session after an edit, with its levels
    batch          a record of a journal; its entries follow
    reading        of a record that can be read in several ways: one of these ways
    entry          of a table or a journal: key, version (avccDB), sequence, kind, value
    live           the same of a key space: what the engine would show; it has no offset
    fault          offset, length, part, reason, expected, found

Behind damage an edit or a batch may be `salvaged`: it is sound, but no engine reads it there.
`offset` is that of the record or the block in the file, in bytes. A value is null where a
deletion has none. What cannot be decoded as an internal key is `{"raw": hex}`.

The lines come as chunks of bytes while the file is read, so that nobody ever holds more than one
block, or one record, and its text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from avccfs.format import batch
from avccfs.format.ikey import Dialect, InternalKey
from avccfs.format.manifest import AddedTable, SessionRecord
from avccfs.format.table import Handle, Table
from avccfs.session import decoded, keys
from avccfs.session.decoded import Block, Changes, Edit, Fault
from avccfs.session.engines import Engine
from avccfs.session.keys import Form, Notation, Show
from avccfs.session.state import EMPTY, SessionState, StateBuilder

ReadAt = Callable[[int, int], bytes]
Report = Callable[[Fault], None]
Value = str | int | None | dict[str, "Value"] | list["Value"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A file that is read, and how."""

    name: str
    """As it is to be called in what is written."""
    kind: str
    """`manifest`, `journal`, `table`, or `key space`."""
    size: int | None
    """In bytes."""
    dialect: Dialect
    evidence: str
    """What shows the dialect."""
    engine: Engine | None = None
    """Whose key space it is."""


@dataclass(frozen=True, slots=True)
class State:
    """The session after the `edit`-th record of a manifest, which begins at `offset`."""

    edit: int
    offset: int | None
    """None before the first."""
    session: SessionState


Item = Edit | State | Changes | Block | Fault


class Writer(Protocol):
    """Makes text of what a file holds. Pieces of text end in a newline, or are empty."""

    def begin(self, subject: Subject, opened: Table | None) -> bytes:
        """What comes first."""

    def edit(self, edit: Edit) -> bytes:
        """A record of a manifest."""

    def state(self, state: State) -> bytes:
        """The session at one moment."""

    def changes(self, changes: Changes) -> bytes:
        """A record of a journal."""

    def block(self, block: Block) -> bytes:
        """Entries of a table."""

    def live(self, entries: Iterable[batch.Entry]) -> bytes:
        """Entries of a key space, as `session.live` gives them."""

    def fault(self, fault: Fault) -> bytes:
        """What is wrong at this place."""


def write(items: Iterable[Item], writer: Writer) -> Iterator[bytes]:
    """What the writer makes of each item, as it comes."""
    for item in items:
        match item:
            case Block():
                text = writer.block(item)
            case Changes():
                text = writer.changes(item)
            case Fault():
                text = writer.fault(item)
            case Edit():
                text = writer.edit(item)
            case State():
                text = writer.state(item)
        if text:
            yield text


def encoded(text: str) -> bytes:
    """The bytes of text that may have surrogates in the place of bytes."""
    return text.encode("utf-8", "surrogateescape")


def manifest_lines(
    read_at: ReadAt, subject: Subject, *, form: Form = Form.ESCAPE
) -> Iterator[bytes]:
    """A manifest as JSON lines."""
    writer = JsonLines(subject, form, form)
    yield writer.begin(subject, None)
    yield from write(decoded.read_manifest(read_at), writer)


def journal_lines(
    read_at: ReadAt, subject: Subject, *, form: Form = Form.ESCAPE
) -> Iterator[bytes]:
    """A journal as JSON lines."""
    writer = JsonLines(subject, form, form)
    yield writer.begin(subject, None)
    yield from write(decoded.read_journal(read_at, subject.dialect), writer)


def table_lines(opened: Table, subject: Subject, *, form: Form = Form.ESCAPE) -> Iterator[bytes]:
    """A table as JSON lines."""
    writer = JsonLines(subject, form, form)
    yield writer.begin(subject, opened)
    yield from write(decoded.read_table(opened, subject.dialect), writer)


def state_at(items: Iterable[Edit | Fault], edit: int) -> Iterator[State | Fault]:
    """The state after so many edits, behind the faults up to there; none if there are not so many.

    Reads no further than it must.
    """
    builder = StateBuilder(EMPTY)
    if edit == 0:
        yield State(0, None, EMPTY)
        return
    for item in items:
        if isinstance(item, Fault):
            yield item
        elif item.number is not None:
            builder.apply(item.record)
            if item.number == edit:
                yield State(edit, item.offset, builder.state())
                return


class EntryText:
    """Makes the text of entries, many in one go: tables hold millions.

    `rest` is a template of the `%` kind behind what is the same for all entries of a block. In it
    KEY, VERSION (only in avccDB's dialect), SEQUENCE, KIND and VALUE stand in this order.
    """

    def __init__(
        self,
        dialect: Dialect,
        rest: str,
        kinds: tuple[str, str],
        key: Notation,
        value: Notation | None,
        nothing: str,
    ) -> None:
        """`kinds` are the words for delete and put; `nothing` stands for the value that a deletion
        lacks; a `value` of None gives sizes in the place of values."""
        self._versioned = dialect is Dialect.AVCCDB
        self._suffix = dialect.suffix_length
        self._kinds = kinds
        self._show_key = key.show
        self._show_value = _size if value is None else value.show
        self._nothing = nothing
        for word, place in (("VERSION", "%d"), ("SEQUENCE", "%d"), ("KIND", "%s")):
            rest = rest.replace(word, place)
        self._rest = rest.replace("KEY", "%s").replace("VALUE", "%s")
        # What needs no escapes is not even made a string.
        self._plain_key, self._plain_value = key.plain, b"" if value is None else value.plain
        quote = "" if value is None else value.quote
        plain = rest.replace("KEY", f"{key.quote}%s{key.quote}")
        self._plain_rest = plain.replace("VALUE", f"{quote}%s{quote}").encode()
        self._plain_kinds = kinds[0].encode(), kinds[1].encode()

    def of_table(self, start: str, block: Block) -> bytes:
        """Entries of a table, each behind `start`."""
        start = start.replace("%", "%%")
        entries, number = block.entries, int.from_bytes
        if self._is_plain(block):
            line = start.encode("utf-8", "surrogateescape") + self._plain_rest
            words = self._plain_kinds
            if self._versioned:
                return b"".join(
                    [
                        line
                        % (
                            key[:-16],
                            number(key[-16:-8], "little"),
                            number(key[-7:], "little"),
                            words[key[-8]],
                            value,
                        )
                        for key, value, _ in entries
                    ]
                )
            return b"".join(
                [
                    line % (key[:-8], number(key[-7:], "little"), words[key[-8]], value)
                    for key, value, _ in entries
                ]
            )
        template = start + self._rest
        kinds, show_key, show_value, nothing = (
            self._kinds,
            self._show_key,
            self._show_value,
            self._nothing,
        )
        if self._versioned:
            text = [
                template
                % (
                    show_key(key[:-16]),
                    number(key[-16:-8], "little"),
                    number(key[-7:], "little"),
                    kinds[key[-8]],
                    show_value(value) if value or key[-8] else nothing,
                )
                for key, value, _ in entries
            ]
        else:
            text = [
                template
                % (
                    show_key(key[:-8]),
                    number(key[-7:], "little"),
                    kinds[key[-8]],
                    show_value(value) if value or key[-8] else nothing,
                )
                for key, value, _ in entries
            ]
        return encoded("".join(text))

    def of_journal(self, start: str, entries: Iterable[batch.Entry]) -> str:
        """Entries of a batch, each behind `start`."""
        template = start.replace("%", "%%") + self._rest
        kinds, show_key, show_value, nothing = (
            self._kinds,
            self._show_key,
            self._show_value,
            self._nothing,
        )
        if self._versioned:
            text = [
                template
                % (
                    show_key(key),
                    version,
                    sequence,
                    kinds[kind],
                    nothing if value is None else show_value(value),
                )
                for kind, key, value, sequence, version, _, _ in entries
            ]
        else:
            text = [
                template
                % (
                    show_key(key),
                    sequence,
                    kinds[kind],
                    nothing if value is None else show_value(value),
                )
                for kind, key, value, sequence, _, _, _ in entries
            ]
        return "".join(text)

    def _is_plain(self, block: Block) -> bool:
        if not block.only_puts or not self._plain_key or not self._plain_value:
            return False
        cut = -self._suffix
        keys_together = b"".join([key[:cut] for key, _, _ in block.entries])
        if keys_together.translate(None, self._plain_key):
            return False
        values = b"".join([value for _, value, _ in block.entries])
        return not values.translate(None, self._plain_value)


class JsonLines:
    """Writes JSON lines. `raw` is no form for it (`ValueError`)."""

    def __init__(self, subject: Subject, key: Form, value: Form | None) -> None:
        """A `value` of None gives the sizes of values instead."""
        self._dialect = subject.dialect
        self._key = keys.show(key)
        self._start = f'{{"file":{_dumps(keys.safe_name(subject.name))},"type":'
        version = '"version":VERSION,' if subject.dialect is Dialect.AVCCDB else ""
        rest = f'"key":KEY,{version}"sequence":SEQUENCE,"kind":KIND,"value":VALUE}}\n'
        self._entries = EntryText(
            subject.dialect,
            rest,
            ('"delete"', '"put"'),
            keys.in_json(key),
            None if value is None else keys.in_json(value),
            "null",
        )

    def begin(self, subject: Subject, opened: Table | None) -> bytes:
        """The `file` line."""
        fields: dict[str, Value] = {
            "kind": subject.kind,
            "size": subject.size,
            "dialect": subject.dialect.value,
            "evidence": subject.evidence,
        }
        if subject.engine is not None:
            fields["engine"] = subject.engine.value
        if opened is not None:
            fields["blocks"] = {
                name: {"offset": handle.offset, "length": handle.length}
                for name, handle in structure(opened)
            }
        return self._line("file", fields)

    def edit(self, edit: Edit) -> bytes:
        """An `edit` or a `partial edit`."""
        fields: dict[str, Value] = {"offset": edit.offset, "end": edit.end}
        if edit.number is not None:
            fields["edit"] = edit.number
        if edit.salvaged:
            fields["salvaged"] = True
        fields.update(self._numbers(edit.record))
        if edit.record.compaction_pointers:
            fields["compaction_pointers"] = [
                {"level": pointer.level, **self._internal_key(pointer.key)}
                for pointer in edit.record.compaction_pointers
            ]
        if edit.record.deleted_tables:
            fields["deleted"] = [
                {"level": gone.level, "number": gone.number} for gone in edit.record.deleted_tables
            ]
        if edit.record.added_tables:
            fields["added"] = [
                {"level": added.level, **self._table(added)} for added in edit.record.added_tables
            ]
        whole = edit.number is not None or edit.salvaged
        return self._line("edit" if whole else "partial edit", fields)

    def state(self, state: State) -> bytes:
        """A `state`."""
        session = state.session
        fields: dict[str, Value] = {"offset": state.offset, "edit": state.edit}
        fields.update(self._numbers(session))
        fields["compaction_pointers"] = [
            {"level": level, **self._internal_key(raw)}
            for level, raw in session.compaction_pointers.items()
        ]
        fields["levels"] = [
            {"level": level, "tables": [self._table(each) for each in tables]}
            for level, tables in session.levels.items()
        ]
        return self._line("state", fields)

    def changes(self, changes: Changes) -> bytes:
        """A `batch`, its entries, and its readings if there are several."""
        offset = changes.offset
        head = (
            f'{self._start}"batch","offset":{offset},"end":{changes.end},'
            f'"sequence":{changes.sequence},"count":{changes.count}'
        )
        entries = self._entries.of_journal(
            f'{self._start}"entry","offset":{offset},', changes.entries
        )
        if changes.salvaged:
            head += ',"salvaged":true'
        if changes.total == 1:
            return encoded(f"{head}}}\n{entries}")
        out = [f'{head},"readings":{changes.total}}}\n', entries]
        for index, reading in enumerate(changes.readings, 1):
            together = ",".join(self._entries.of_journal("{", reading).rstrip("\n").split("\n"))
            out.append(
                f'{self._start}"reading","offset":{offset},"reading":{index},'
                f'"of":{changes.total},"entries":[{together}]}}\n'
            )
        return encoded("".join(out))

    def block(self, block: Block) -> bytes:
        """An `entry` for each."""
        return self._entries.of_table(f'{self._start}"entry","offset":{block.offset},', block)

    def live(self, entries: Iterable[batch.Entry]) -> bytes:
        """A `live` for each."""
        return encoded(self._entries.of_journal(f'{self._start}"live",', entries))

    def fault(self, fault: Fault) -> bytes:
        """A `fault`."""
        return self._line(
            "fault",
            {
                "offset": fault.offset,
                "length": fault.length,
                "part": fault.part,
                "reason": fault.reason,
                "expected": fault.expected,
                "found": fault.found,
            },
        )

    def _line(self, what: str, fields: dict[str, Value]) -> bytes:
        return encoded(f'{self._start}"{what}",{_dumps(fields)[1:]}\n')

    def _numbers(self, said: SessionRecord | SessionState) -> dict[str, Value]:
        values: dict[str, Value] = {
            "comparer": None if said.comparer is None else self._key(said.comparer),
            "journal_number": said.journal_number,
            "previous_journal_number": said.previous_journal_number,
            "next_file_number": said.next_file_number,
            "sequence": said.sequence,
        }
        return {name: value for name, value in values.items() if value is not None}

    def _table(self, added: AddedTable) -> dict[str, Value]:
        return {
            "number": added.number,
            "size": added.size,
            "smallest": self._internal_key(added.smallest),
            "largest": self._internal_key(added.largest),
        }

    def _internal_key(self, raw: bytes) -> dict[str, Value]:
        key = decoded.internal_key(raw, self._dialect)
        return {"raw": raw.hex()} if key is None else key_fields(key, self._key)


def key_fields(key: InternalKey, show: Show) -> dict[str, Value]:
    """An internal key as the lines have it."""
    fields: dict[str, Value] = {"key": show(key.user_key)}
    if key.version is not None:
        fields["version"] = key.version
    return {**fields, "sequence": key.sequence, "kind": KIND_NAMES[key.kind]}


KIND_NAMES: Final = ("delete", "put")


def structure(opened: Table) -> Iterator[tuple[str, Handle]]:
    """The blocks of a table that are not data, under the names the metaindex has for them."""
    for name, handle in (*opened.filters.items(), *opened.others.items()):
        prefix = "filter." if name in opened.filters else ""
        yield prefix + keys.show(Form.ESCAPE)(name), handle
    if opened.merkle is not None:
        yield "merkle.tree", opened.merkle
    if opened.footer is not None:
        yield "metaindex", opened.footer.metaindex
        yield "index", opened.footer.index


def _size(value: bytes) -> str:
    return str(len(value))


def _dumps(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
