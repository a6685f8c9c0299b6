"""An overview as a plain object, and what to do next: for the command line and for views."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from avccfs.session import keys
from avccfs.session.engines import Engine
from avccfs.session.keys import Form
from avccfs.session.lines import Value
from avccfs.session.overview import Overview, Problem, Use


def as_json(
    overview: Overview, users: Iterable[tuple[int, str]] = (), form: Form = Form.ESCAPE
) -> dict[str, Value]:
    """An overview as one object, for programs; its keys are stable.

    `users` are processes, `(pid, command name)`, that have the database locked. User keys are written
    as `form` says.
    """
    show = keys.show(form)
    state = overview.state

    def key(user_key: bytes | None) -> str | None:
        return None if user_key is None else show(user_key)

    return {
        "directory": keys.safe_name(overview.directory),
        "engine": _engine_name(overview.engine),
        "engine_evidence": list(overview.engine_evidence),
        "dialect": overview.dialect.dialect.value,
        "dialect_evidence": overview.dialect.evidence,
        "manifest": None if overview.manifest is None else str(overview.manifest),
        "manifest_why": overview.manifest_why,
        "edits": overview.edits,
        "comparer": key(state.comparer),
        "next_file_number": state.next_file_number,
        "journal_number": state.journal_number,
        "previous_journal_number": state.previous_journal_number,
        "sequence": state.sequence,
        "levels": [
            {
                "level": level.number,
                "tables": level.tables,
                "size": level.size,
                "smallest": key(level.smallest),
                "largest": key(level.largest),
                "missing": level.missing,
            }
            for level in overview.levels
        ],
        "journals": [
            {
                "file": journal.file,
                "use": journal.use.value,
                "size": journal.size,
                "batches": journal.batches,
                "entries": journal.entries,
                "faults": journal.faults,
            }
            for journal in overview.journals
        ],
        "others": [
            {"file": keys.safe_name(other.file), "use": other.use.value, "size": other.size}
            for other in overview.leftovers
        ],
        "problems": [_problem(problem) for problem in overview.problems],
        "next": list(next_steps(overview)),
        "in_use_by": [{"pid": pid, "name": keys.safe_name(name)} for pid, name in users],
    }


def _problem(problem: Problem) -> dict[str, Value]:
    return {
        "file": keys.safe_name(problem.file),
        "offset": problem.offset,
        "what": keys.safe_name(problem.what),
        "advice": keys.safe_name(problem.advice),
        "damage": problem.damage,
    }


def _engine_name(engine: Engine | None) -> str | None:
    return None if engine is None else engine.value


def next_steps(overview: Overview) -> list[str]:
    """What a person should do."""
    steps = list(dict.fromkeys(keys.safe_name(problem.advice) for problem in overview.problems))
    directory = keys.safe_name(shlex.quote(overview.directory))
    if overview.problems:
        steps.append(f"avccfs explain {directory}   what each engine would make of it")
    steps.append(f"avccfs check {directory}   read every byte")
    if any(other.use is Use.ORPHAN for other in overview.leftovers):
        steps.append("engines delete orphans when they open the database: copy it before that")
    return steps
