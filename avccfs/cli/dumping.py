"""What a file holds as text for people, and as CSV (`session.lines` has the JSON lines).

The text is that of `leveldbutil dump` where that has one, with more behind `---` and `#`:

    # 000003.log: journal ...                          each file begins with a line or two
    --- offset 41; edit 2; VersionEdit {               a record of a manifest
      AddFile: 2 5 1861 'key' @ 69 : 1 .. 'key' @ 136 : 1     level, number, size, first and last key
    }
    --- offset 0; sequence 205                         a batch of a journal
      put 'key' 'value'
    --- offset 1832; data block                        of a table
    'key' @ 69 : val => 'value'                        69 is the sequence number
    'key' v7 @ 69 : val => 'value'                     avccDB: version 7
    --- offset 931; sequence 212; salvaged             sound, behind damage: no engine reads it
    --- offset 0; fault; data block, 1832 bytes: bad checksum: expected ..., found ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from avccfs.format import batch
from avccfs.format.ikey import Dialect
from avccfs.format.manifest import AddedTable, SessionRecord
from avccfs.format.table import Table
from avccfs.session import decoded, keys
from avccfs.session.decoded import Block, Changes, Edit, Fault
from avccfs.session.engines import PROFILES
from avccfs.session.keys import Form
from avccfs.session.lines import KIND_NAMES, EntryText, State, Subject, encoded, structure
from avccfs.session.state import SessionState

_NUMBERS: Final = (
    ("LogNumber", "journal_number"),
    ("PrevLogNumber", "previous_journal_number"),
    ("NextFile", "next_file_number"),
    ("LastSeq", "sequence"),
)


class Text:
    """Text for people."""

    def __init__(self, subject: Subject, key: Form, value: Form | None) -> None:
        """A `value` of None gives the sizes of values instead."""
        self._dialect = subject.dialect
        self._key = keys.in_text(key)
        self._value = None if value is None else keys.in_text(value)
        version = " vVERSION" if subject.dialect is Dialect.AVCCDB else ""
        unit = " bytes" if value is None else ""
        rest = f"KEY{version} @ SEQUENCE : KIND => VALUE{unit}\n"
        nothing = "0" if value is None else "''"
        self._entries = EntryText(
            subject.dialect, rest, ("del", "val"), self._key, self._value, nothing
        )

    def begin(self, subject: Subject, opened: Table | None) -> bytes:
        """What the file is, and how it is read."""
        name = keys.safe_name(subject.name)
        said = f"# {name}: {subject.kind}"
        if subject.engine is not None:
            said += f" as {PROFILES[subject.engine].title} would show it"
        if subject.size is not None:
            said += f", {_bytes(subject.size)}"
        said += f", {subject.dialect.value} dialect ({subject.evidence})\n"
        if opened is not None:
            blocks = [f"{each} at offset {at.offset}" for each, at in structure(opened)]
            if blocks:
                said += f"# {name}: {', '.join(blocks)}\n"
        return encoded(said)

    def edit(self, edit: Edit) -> bytes:
        """A record of a manifest, as LevelDB writes it."""
        number = "as far as it decodes" if edit.number is None else f"edit {edit.number}"
        if edit.salvaged:
            number = "salvaged"
        out = [f"--- offset {edit.offset}; {number}; VersionEdit {{\n"]
        out += self._session(edit.record)
        for pointer in edit.record.compaction_pointers:
            out.append(f"  CompactPointer: {pointer.level} {self._internal_key(pointer.key)}\n")
        out += [
            f"  RemoveFile: {gone.level} {gone.number}\n" for gone in edit.record.deleted_tables
        ]
        out += [
            f"  AddFile: {each.level} {self._table(each)}\n" for each in edit.record.added_tables
        ]
        return encoded("".join((*out, "}\n")))

    def state(self, state: State) -> bytes:
        """The numbers, and the tables level by level."""
        session = state.session
        where = "before the first" if state.offset is None else f"offset {state.offset}"
        out = [f"--- {where}; after edit {state.edit}; Version {{\n", *self._session(session)]
        for level, raw in session.compaction_pointers.items():
            out.append(f"  CompactPointer: {level} {self._internal_key(raw)}\n")
        for level, tables in session.levels.items():
            size = sum(table.size for table in tables)
            count = f"{len(tables)} table{'' if len(tables) == 1 else 's'}"
            out.append(f"  Level {level}: {count}, {_bytes(size)}\n")
            out += [f"    {self._table(table)}\n" for table in tables]
        return encoded("".join((*out, "}\n")))

    def changes(self, changes: Changes) -> bytes:
        """A batch and its entries."""
        salvaged = "; salvaged" if changes.salvaged else ""
        out = [f"--- offset {changes.offset}; sequence {changes.sequence}{salvaged}\n"]
        out += self._changes(changes.entries, "  ")
        for index, reading in enumerate(changes.readings, 1):
            out.append(f"  reading {index} of {changes.total}:\n")
            out += self._changes(reading, "    ")
        return encoded("".join(out))

    def block(self, block: Block) -> bytes:
        """A data block and its entries."""
        head = f"--- offset {block.offset}; data block\n".encode()
        return head + self._entries.of_table("", block)

    def live(self, entries: Iterable[batch.Entry]) -> bytes:
        """Entries of a key space, as those of a table."""
        return encoded(self._entries.of_journal("", entries))

    def fault(self, fault: Fault) -> bytes:
        """What is wrong, at its place."""
        return encoded(
            f"--- offset {fault.offset}; fault; {fault.part}, {_bytes(fault.length)}: "
            f"{fault.reason}: expected {fault.expected}, found {fault.found}\n"
        )

    def _session(self, said: SessionRecord | SessionState) -> Iterator[str]:
        if said.comparer is not None:
            yield f"  Comparator: {keys.show(Form.ESCAPE)(said.comparer)}\n"
        for word, attribute in _NUMBERS:
            number = getattr(said, attribute)
            if number is not None:
                yield f"  {word}: {number}\n"

    def _changes(self, entries: Iterable[batch.Entry], indent: str) -> Iterator[str]:
        show_key = self._key.show
        show_value = None if self._value is None else self._value.show
        for _, key, value, _, version, _, _ in entries:
            shown = show_key(key) if version is None else f"{show_key(key)} v{version}"
            if value is None:
                yield f"{indent}del {shown}\n"
            elif show_value is None:
                yield f"{indent}put {shown} {len(value)} bytes\n"
            else:
                yield f"{indent}put {shown} {show_value(value)}\n"

    def _table(self, table: AddedTable) -> str:
        smallest, largest = map(self._internal_key, (table.smallest, table.largest))
        return f"{table.number} {table.size} {smallest} .. {largest}"

    def _internal_key(self, raw: bytes) -> str:
        key = decoded.internal_key(raw, self._dialect)
        if key is None:
            return f"(bad){self._key.show(raw)}"
        version = "" if key.version is None else f" v{key.version}"
        return f"{self._key.show(key.user_key)}{version} @ {key.sequence} : {key.kind.value}"


ENTRY_COLUMNS: Final = "file,offset,key,version,sequence,kind,value\n"
EDIT_COLUMNS: Final = "file,offset,edit,field,value,level,number,size,smallest,largest\n"
"""A field that is a key stands in the column `smallest`."""


class Csv:
    """CSV: a line for each entry, or for each field of a manifest. `columns` have their names.

    Faults are no lines of it: they are empty here, and told elsewhere.
    """

    def __init__(self, subject: Subject, key: Form, value: Form | None) -> None:
        """A `value` of None gives the sizes of values instead."""
        self._dialect = subject.dialect
        self._key = keys.in_csv(key).show
        self._file = keys.in_csv(Form.RAW).show(keys.safe_name(subject.name).encode())
        version = "VERSION" if subject.dialect is Dialect.AVCCDB else ""
        self._entries = EntryText(
            subject.dialect,
            f"KEY,{version},SEQUENCE,KIND,VALUE\n",
            KIND_NAMES,
            keys.in_csv(key),
            None if value is None else keys.in_csv(value),
            "",
        )

    def begin(self, _: Subject, __: Table | None) -> bytes:
        """Nothing: the names of the columns come once, whatever the number of files."""
        return b""

    def edit(self, edit: Edit) -> bytes:
        """A line for each field."""
        record = edit.record
        out = [*self._session(record)]
        for pointer in record.compaction_pointers:
            key = self._internal_key(pointer.key)
            out.append(f"compaction_pointer,,{pointer.level},,,{key},")
        out += [f"deleted,,{gone.level},{gone.number},,," for gone in record.deleted_tables]
        out += [self._table("added", each) for each in record.added_tables]
        number = "" if edit.number is None else str(edit.number)
        return self._rows(edit.offset, number, out)

    def state(self, state: State) -> bytes:
        """A line for each number and each table."""
        session = state.session
        out = [*self._session(session)]
        for level, raw in session.compaction_pointers.items():
            out.append(f"compaction_pointer,,{level},,,{self._internal_key(raw)},")
        out += [self._table("table", each) for each in session.tables()]
        offset = "" if state.offset is None else state.offset
        return self._rows(offset, str(state.edit), out)

    def changes(self, changes: Changes) -> bytes:
        """A line for each entry."""
        return encoded(self._entries.of_journal(f"{self._file},{changes.offset},", changes.entries))

    def block(self, block: Block) -> bytes:
        """A line for each entry."""
        return self._entries.of_table(f"{self._file},{block.offset},", block)

    def live(self, entries: Iterable[batch.Entry]) -> bytes:
        """A line for each entry, without an offset."""
        return encoded(self._entries.of_journal(f"{self._file},,", entries))

    def fault(self, _: Fault) -> bytes:
        """Nothing."""
        return b""

    def _rows(self, offset: int | str, edit: str, rows: Sequence[str]) -> bytes:
        return encoded("".join([f"{self._file},{offset},{edit},{row}\n" for row in rows]))

    def _session(self, said: SessionRecord | SessionState) -> Iterator[str]:
        if said.comparer is not None:
            yield f"comparer,{self._key(said.comparer)},,,,,"
        for _, attribute in _NUMBERS:
            number = getattr(said, attribute)
            if number is not None:
                yield f"{attribute},{number},,,,,"

    def _table(self, field: str, table: AddedTable) -> str:
        smallest, largest = map(self._internal_key, (table.smallest, table.largest))
        return f"{field},,{table.level},{table.number},{table.size},{smallest},{largest}"

    def _internal_key(self, raw: bytes) -> str:
        key = decoded.internal_key(raw, self._dialect)
        return self._key(raw if key is None else key.user_key)


def columns(subject: Subject) -> bytes:
    """The first line of CSV of such a file."""
    return (EDIT_COLUMNS if subject.kind == "manifest" else ENTRY_COLUMNS).encode()


def _bytes(count: int) -> str:
    return f"{count} byte{'' if count == 1 else 's'}"
