"""A prediction in words, and as one JSON object: for the command line and for views on the mount.

The text is for somebody who has to decide at night: the verdict first, then why, then what to do.
Nothing is left out that was dropped; what was kept is told in ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from avccfs.format.filename import Kind, parse
from avccfs.format.ikey import Dialect
from avccfs.session.engines import PROFILES
from avccfs.session.recovery import Call, Fate, Prediction
from avccfs.session.recovery.prediction import JournalStep, ManifestStep

Json = dict[str, object]

_TABLES_SHOWN: Final = 12
"""Tables in a list before it is cut."""
_PLURALS: Final = {"batch": "batches", "entry": "entries"}


def damaged(prediction: Prediction) -> bool:
    """Whether a stretch of the manifest or of a journal cannot be read as what it should be."""
    if any(step.fate is not Fate.KEPT for step in prediction.records):
        return True
    steps = (step for journal in prediction.journals for step in journal.steps)
    return any(step.fate is not Fate.KEPT and step.sequence is None for step in steps)


def verdict(prediction: Prediction) -> str:
    """One line: whether it opens, how many keys there are, what is lost."""
    what = "rebuilds" if prediction.call is Call.REBUILD else "opens"
    parts: list[str] = []
    reading = prediction.reading
    if prediction.error is not None:
        parts.append(f"REFUSES: {prediction.error}")
    elif reading is None:
        parts.append(f"{what}, but what is read then cannot be foretold")
    elif reading.error is not None:
        parts.append(
            f"{what}, but READING STOPS after {_count(reading.keys, 'key')}: {reading.error}"
        )
    else:
        parts.append(f"{what}; {_count(reading.keys, 'key')}")
        if reading.unseen_error is not None:
            parts.append(
                f"READING ENDS EARLY, with an error behind the last key: {reading.unseen_error}"
            )
    lost = prediction.loss
    if lost.keys:
        older = f", of which {lost.outdated} show an older value" if lost.outdated else ""
        parts.append(f"{_count(lost.keys, 'key').upper()} LOST FOR GOOD{older}")
    elif lost.returned == 0 and prediction.deleted_files:
        parts.append("nothing lost for good")
    elif lost.returned == 0:
        parts.append("nothing is changed")
    if prediction.error is not None and prediction.deleted_files:
        parts.append("THE DIRECTORY IS CHANGED all the same")
    if lost.returned:
        parts.append(f"{_count(lost.returned, 'DELETED KEY')} RETURN")
    if prediction.uncertain is not None:
        parts.append("NOT CERTAIN, see below")
    return printable("; ".join(parts))


def to_text(prediction: Prediction) -> Iterator[str]:
    """The explanation, line by line, without line ends."""
    return map(printable, _lines(prediction))


def printable(text: str) -> str:
    """`text` with an escape for whatever a terminal might obey or could not show.

    Damaged files are full of it, and engines repeat it in their errors.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _lines(prediction: Prediction) -> Iterator[str]:
    title = PROFILES[prediction.engine].title
    call = "rebuild" if prediction.call is Call.REBUILD else "open"
    yield f"{title}, {call} {prediction.directory}"
    yield f"  {verdict(prediction)}"
    if prediction.foreign:
        yield f"  {_foreign(prediction)}"
    if prediction.uncertain is not None:
        yield f"  Not certain: {prediction.uncertain}"
    if prediction.loss.examples:
        shown = ", ".join(ascii(key)[2:-1] or "(empty)" for key in prediction.loss.examples)
        more = " ..." if prediction.loss.keys > len(prediction.loss.examples) else ""
        yield f"  Lost keys: {shown}{more}"
    yield ""
    yield "  Meta files"
    for file in prediction.meta:
        told = file.why if file.name in file.why else f"{file.name}: {file.why}"
        yield f"    {'*' if file.wins else '-'} {told}"
    if not prediction.meta:
        yield "    - none: there is no CURRENT file"
    yield from _manifest(prediction)
    if prediction.tables:
        yield ""
        yield "  Tables"
        for table in prediction.tables:
            yield f"    {table.file}: {_fate(table.fate)}, {_count(table.keys, 'entry')}: {table.why}"
    yield from _journals(prediction)
    yield ""
    yield "  Afterwards"
    yield f"    deleted: {_listed(prediction.deleted_files)}"
    if prediction.overwritten_files:
        yield f"    overwritten: {_listed(prediction.overwritten_files)}"
    yield ""
    yield "  What to do"
    for step in next_steps(prediction):
        yield f"    - {step}"


def to_json(prediction: Prediction) -> Json:
    """One object; its keys stay the same whatever is found."""
    return {key: _printable_all(value) for key, value in _object(prediction).items()}


def _printable_all(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable_all(part) for part in value]
    if isinstance(value, dict):
        return {key: _printable_all(part) for key, part in value.items()}
    return value


def _object(prediction: Prediction) -> Json:
    state, reading, loss = prediction.state, prediction.reading, prediction.loss
    return {
        "engine": prediction.engine.value,
        "call": prediction.call.value,
        "directory": prediction.directory,
        "dialect": prediction.dialect.value,
        "foreign": prediction.foreign,
        "opens": prediction.opens,
        "error": prediction.error,
        "keys": prediction.keys,
        "sha256": prediction.sha256,
        "read_error": None if reading is None else reading.error,
        "unseen_read_error": None if reading is None else reading.unseen_error,
        "lost_for_good": loss.keys,
        "lost_outdated": loss.outdated,
        "deleted_keys_returned": loss.returned,
        "lost_examples": [key.hex() for key in loss.examples],
        "uncertain": prediction.uncertain,
        "meta": [
            {"name": file.name, "wins": file.wins, "why": file.why} for file in prediction.meta
        ],
        "manifest": {
            "file": prediction.manifest,
            "records": [
                {
                    "offset": step.offset,
                    "length": step.length,
                    "fate": step.fate.value,
                    "why": step.why,
                }
                for step in prediction.records
            ],
        },
        "state": None
        if state is None
        else {
            "next_file_number": state.next_file_number,
            "journal_number": state.journal_number,
            "previous_journal_number": state.previous_journal_number,
            "sequence": state.sequence,
            "levels": {
                str(level): [table.number for table in tables]
                for level, tables in state.levels.items()
            },
        },
        "sequence_after": prediction.sequence,
        "tables": [
            {
                "file": table.file,
                "fate": table.fate.value,
                "entries": table.keys,
                "why": table.why,
            }
            for table in prediction.tables
        ],
        "journals": [
            {
                "file": journal.file,
                "replayed": True,
                "kept": journal.batches(Fate.KEPT),
                "partly_kept": journal.batches(Fate.PARTLY),
                "dropped": journal.batches(Fate.DROPPED),
                "why": journal.note or None,
                "steps": [_step_json(step) for step in journal.steps],
            }
            for journal in prediction.journals
        ]
        + [
            {
                "file": ignored.file,
                "replayed": False,
                "kept": 0,
                "partly_kept": 0,
                "dropped": 0,
                "why": ignored.why,
                "steps": [],
            }
            for ignored in prediction.ignored_journals
        ],
        "deleted_files": list(prediction.deleted_files),
        "overwritten_files": list(prediction.overwritten_files),
        "notes": list(prediction.notes),
        "next_steps": list(next_steps(prediction)),
    }


def next_steps(prediction: Prediction) -> Iterator[str]:
    """What a person should do, the most urgent first."""
    engine = PROFILES[prediction.engine].title
    if prediction.foreign:
        yield f"Do not open it with {engine}: its keys are not what {engine} takes them for."
    yield from prediction.notes
    if prediction.harmless and not prediction.foreign:
        if damaged(prediction):
            yield (
                "Nothing that can be read is lost, but there is damage (above). If the machine did "
                "not just crash, find out why, and keep a copy."
            )
        else:
            yield "Nothing: it can be opened."
        return
    loss = prediction.loss
    lossy = bool(loss.keys or loss.returned)
    if lossy or prediction.error is not None or prediction.foreign:
        yield "Copy the whole directory before anything opens it: cp -a."
    lost_batches = any(
        step.sequence is not None and step.fate is not Fate.KEPT
        for journal in prediction.journals
        for step in journal.steps
    )
    misread = Dialect.STANDARD is not prediction.dialect is PROFILES[prediction.engine].reads_as
    if lossy and misread:
        yield (
            f"{engine} never reads the version of an entry in a journal: it misreads such entries "
            "or skips them, and deletes the journal. Save what the journals hold before it opens "
            "the database: avccfs dump --dialect avccdb FILE.log"
        )
    elif lossy and lost_batches:
        yield (
            f"{engine} drops batches that are whole (above) and deletes their journal. Compare with "
            "what the other engines do, and with --rebuild."
        )
    if lossy and any(step.fate is not Fate.KEPT for step in prediction.records):
        yield (
            "The manifest is damaged: tables that the dropped records name are deleted as "
            "obsolete. A rebuild from the tables (--rebuild) may keep them."
        )
    if prediction.error is not None:
        yield from _after_refusal(prediction)
    reading = prediction.reading
    stopped = "" if reading is None else reading.error or reading.unseen_error or ""
    if stopped and not (misread and "internal key" in stopped):
        yield (
            "A table is damaged (above). The files stay, so nothing more is lost by opening; a "
            "rebuild (--rebuild) leaves the damaged blocks out and reads on."
        )


def _after_refusal(prediction: Prediction) -> Iterator[str]:
    if prediction.state is None and prediction.manifest is None:
        yield (
            "No application may open it with create_if_missing: it would put a new database over "
            "this one and delete every table."
        )
        yield (
            "Look which manifest is whole (avccfs dump), and write its name and a newline into "
            "CURRENT; on a mount: echo MANIFEST-NNNNNN > CURRENT."
        )
    elif prediction.state is None:
        yield (
            f"{prediction.manifest} cannot carry a session. Look for an older manifest, or rebuild "
            "from the tables (--rebuild); on a copy."
        )
    else:
        yield "Bring the missing files back from a copy, or rebuild without them (--rebuild)."
    if prediction.deleted_files:
        yield "Although it refuses, it changes the directory (above): every attempt counts."


def _manifest(prediction: Prediction) -> Iterator[str]:
    if prediction.manifest is None:
        return
    yield ""
    yield f"  Manifest {prediction.manifest}"
    for kept, group in groupby(prediction.records, key=lambda step: step.fate is Fate.KEPT):
        steps = list(group)
        if kept:
            yield f"    {_kept_records(steps)}"
        else:
            for step in steps:
                yield (
                    f"    offset {step.offset}, {_count(step.length, 'byte')}: "
                    f"{_fate(step.fate)}: {step.why}"
                )
    state = prediction.state
    if state is None:
        return
    levels = [
        f"level {level}: {_count(len(tables), 'table')}" for level, tables in state.levels.items()
    ]
    yield (
        f"    says: next file {state.next_file_number}, journal {state.journal_number}, sequence "
        f"{state.sequence}; {', '.join(levels) or 'no table'}"
    )


def _kept_records(steps: list[ManifestStep]) -> str:
    first, last = steps[0], steps[-1]
    if first is last:
        return f"offset {first.offset}: 1 record kept: {first.why}"
    return (
        f"offset {first.offset} to {last.offset}: {len(steps)} records kept; the last: {last.why}"
    )


def _journals(prediction: Prediction) -> Iterator[str]:
    if not prediction.journals and not prediction.ignored_journals:
        return
    yield ""
    yield "  Journals, in the order of the replay"
    for journal in prediction.journals:
        yield f"    {journal.file}{': ' + journal.note if journal.note else ''}"
        for step in journal.steps:
            yield f"      {_step(step)}"
        if not journal.steps:
            yield "      empty"
    for ignored in prediction.ignored_journals:
        yield f"    {ignored.file}: not replayed: {ignored.why}"
    if prediction.sequence is not None:
        yield f"    sequence number afterwards: {prediction.sequence}"


def _step(step: JournalStep) -> str:
    if step.sequence is None:
        where = f"offset {step.offset}"
        if step.length:
            where += f", {_count(step.length, 'byte')}"
        return f"{where}: {_fate(step.fate)}: {step.why}"
    sequences = f"sequence {step.sequence}"
    if step.last_sequence != step.sequence:
        sequences += f" to {step.last_sequence}"
    if step.fate is Fate.KEPT:
        where = f"offset {step.offset}"
        if step.batches > 1:
            where += f" to {step.last_offset}"
        batches = _count(step.batches, "batch")
        return f"{where}: {batches} kept, {_count(step.entries, 'entry')}, {sequences}"
    entries = _count(step.entries, "entry")
    return f"offset {step.offset}: {_fate(step.fate)}: {entries}, {sequences}: {step.why}"


def _step_json(step: JournalStep) -> Json:
    return {
        "offset": step.offset,
        "last_offset": step.last_offset,
        "fate": step.fate.value,
        "batches": step.batches,
        "entries": step.entries,
        "applied": step.applied,
        "sequence": step.sequence,
        "last_sequence": step.last_sequence,
        "length": step.length,
        "why": step.why or None,
    }


def _foreign(prediction: Prediction) -> str:
    if prediction.dialect is Dialect.AVCCDB:
        return (
            "This is an avccDB database: every key in its tables ends in 8 bytes of version, which "
            "this engine takes for a part of the key."
        )
    return (
        "This is no avccDB database: its keys have no version, and avccDB takes the last 8 bytes of "
        "each for one."
    )


def _fate(fate: Fate) -> str:
    return {Fate.KEPT: "kept", Fate.PARTLY: "PARTLY KEPT", Fate.DROPPED: "DROPPED"}[fate]


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    tables = [n for n in listed if (desc := parse(n)) is not None and desc.kind is Kind.TABLE]
    if not listed:
        return "nothing"
    if len(tables) > _TABLES_SHOWN:
        others = [name for name in listed if name not in set(tables)]
        return ", ".join([*others, f"{len(tables)} tables from {tables[0]} to {tables[-1]}"])
    return ", ".join(listed)


def _count(number: int, what: str) -> str:
    if number == 1:
        return f"1 {what}"
    return f"{number} {_PLURALS.get(what) or what + ('S' if what.isupper() else 's')}"
