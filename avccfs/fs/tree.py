"""Which views there are, and what each is made from.

    status.json             what is mounted, and since when
    session.json            the session as the live manifest tells it, levels, journals, leftovers
    explain/<engine>.txt    what the engine would make of the directory, and lose
    check.txt               what `avccfs check` says
    manifest/<name>.jsonl   journal/<name>.jsonl   table/<name>.jsonl     files, decoded
    edits/<n>/              the tables that were live after the n-th record of the live manifest
    live/<engine>.jsonl     the keys that the engine would show
    log                     what the mount refused and why, and what it changed
    faults                  the rules of what goes wrong; a line that is written here is done
    stats.json              operations, bytes and latency, and the faults that fired

Everything is read from the directory below. What an engine has written to the mount and the kernel
still holds is fetched first, so that a view shows what a reader of the mount would see.
"""

from __future__ import annotations

import json
import stat as stat_module
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from avccfs.format.batch import Entry
from avccfs.format.filename import FileDesc, Kind, kind_of, name_of, other_name_of, parse
from avccfs.format.manifest import SessionRecord
from avccfs.format.table import Table
from avccfs.fs.faultwords import rule_lines, tell_plan, told_stats
from avccfs.fs.rendered import Write
from avccfs.fs.views import ViewFile, ViewFolder, ViewLink, ViewNode
from avccfs.session import checkreport, explain, glance, lines, live, overview, recognition
from avccfs.session.check import check
from avccfs.session.decoded import Edit, read_manifest
from avccfs.session.engines import PROFILES, Engine
from avccfs.session.folder import Folder, Opened
from avccfs.session.keys import Form
from avccfs.session.recognition import Shown
from avccfs.session.recovery import predict
from avccfs.session.state import EMPTY
from avccfs.storage.explain import explain_meta
from avccfs.vfs.base import Directory
from avccfs.vfs.fault import FaultPlan

_DECODED: Final = {"manifest": Kind.MANIFEST, "journal": Kind.JOURNAL, "table": Kind.TABLE}
_SUFFIX: Final = ".jsonl"
_FIRST_WORDS: Final = 256
_FOLDERS_KEPT: Final = 16


class Mounted(Protocol):
    """What the views need of the file system that they are part of."""

    @property
    def beneath(self) -> Directory:
        """The directory below, without any faults."""

    @property
    def faults(self) -> FaultPlan | None:
        """What goes wrong in it, if anything can."""

    def fetch(self, name: str | None = None) -> None:
        """Have written what the kernel still holds of a file in the root, or of all of them."""

    def status(self) -> dict[str, object]:
        """What `status.json` says."""

    def messages(self) -> Iterable[str]:
        """The lines of `log`."""


class History:
    """Which tables were live after each record of a manifest.

    Read once, and kept without the keys: walking through `edits` asks for one after the other.
    """

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._records: list[SessionRecord] = []
        self._tables: dict[int, frozenset[int]] = {}
        for item in edits:
            # What no engine reads, or not to its end, has no number and counts for nothing.
            if item.number is not None:
                added = (
                    replace(one, smallest=b"", largest=b"") for one in item.record.added_tables
                )
                self._records.append(
                    SessionRecord(
                        deleted_tables=item.record.deleted_tables, added_tables=tuple(added)
                    )
                )

    def __len__(self) -> int:
        return len(self._records)

    def tables_after(self, edit: int) -> frozenset[int]:
        """The numbers of the tables that are live after so many edits."""
        found = self._tables.get(edit)
        if found is None:
            state = EMPTY.apply_all(self._records[:edit])
            found = frozenset(table.number for table in state.tables())
            if len(self._tables) == _FOLDERS_KEPT:
                self._tables = {}
            self._tables[edit] = found
        return found


class Tree:
    """The views of one mount. Asked by several threads at once."""

    def __init__(self, mounted: Mounted) -> None:
        self._mounted = mounted
        self._directory = mounted.beneath
        self._history: tuple[Hashable, History] | None = None
        self._shown: tuple[Hashable, Shown] | None = None
        fixed: dict[str, ViewNode] = {
            "status.json": ViewFile(self._status),
            "session.json": ViewFile(self._session, self._state_of_all),
            "explain": self._per_engine("txt", self._explain),
            "check.txt": ViewFile(self._check, self._state_of_all),
            "edits": ViewFolder(self._list_edits, self._find_edit),
            "live": self._per_engine("jsonl", self._live),
            "log": ViewFile(self._log),
        }
        if mounted.faults is not None:
            fixed["faults"] = ViewFile(
                partial(_list_faults, mounted.faults), take=partial(_tell, mounted.faults)
            )
            fixed["stats.json"] = ViewFile(partial(_stats, mounted.faults))
        for folder, kind in _DECODED.items():
            fixed[folder] = ViewFolder(
                partial(self._list_files, kind), partial(self._find_file, kind)
            )
        self.root = ViewFolder(lambda: fixed)

    # -- folders

    def _per_engine(self, suffix: str, render: Callable[[Engine, Write], None]) -> ViewFolder:
        files: dict[str, ViewNode] = {
            f"{engine.value}.{suffix}": ViewFile(partial(render, engine), self._state_of_all)
            for engine in Engine
        }
        return ViewFolder(lambda: files)

    def _list_files(self, kind: Kind) -> dict[str, ViewNode]:
        return {
            name + _SUFFIX: self._file(name)
            for name, found in self._directory.scan()
            if kind_of(name) is kind and stat_module.S_ISREG(found.mode)
        }

    def _find_file(self, kind: Kind, view: str) -> ViewNode | None:
        name = view.removesuffix(_SUFFIX)
        if name == view or kind_of(name) is not kind:
            return None
        with suppress(FileNotFoundError):
            if stat_module.S_ISREG(self._directory.stat(name).mode):
                return self._file(name)
        return None

    def _file(self, name: str) -> ViewFile:
        return ViewFile(partial(self._decode, name), partial(self._state_of_decoded, name))

    def _list_edits(self) -> dict[str, ViewNode]:
        history = self._live_history()
        return {str(edit): self._edit(history, edit) for edit in range(1, len(history) + 1)}

    def _find_edit(self, view: str) -> ViewNode | None:
        if not (view.isascii() and view.isdecimal()) or view.startswith("0"):
            return None
        history = self._live_history()
        # The first test keeps `int` from numbers that take it long.
        if len(view) > len(str(len(history))) or int(view) > len(history):
            return None
        return self._edit(history, int(view))

    def _edit(self, history: History, edit: int) -> ViewFolder:
        return ViewFolder(
            partial(self._list_tables, history, edit), partial(self._find_table, history, edit)
        )

    def _list_tables(self, history: History, edit: int) -> dict[str, ViewNode]:
        present = set(self._directory.names())
        names = (
            _table_name(number, present.__contains__)
            for number in sorted(history.tables_after(edit))
        )
        return {name: _link_to(name) for name in names}

    def _find_table(self, history: History, edit: int, view: str) -> ViewNode | None:
        desc = parse(view)
        if desc is None or desc.number not in history.tables_after(edit):
            return None
        name = _table_name(desc.number, self._is_there)
        return _link_to(name) if name == view else None

    def _is_there(self, name: str) -> bool:
        try:
            self._directory.stat(name)
        except FileNotFoundError:
            return False
        return True

    def _live_history(self) -> History:
        report = explain_meta(self._directory)
        desc = report.winner.target if report.winner is not None else None
        if desc is None or desc.kind is not Kind.MANIFEST:
            return History(())
        state = self._state_of(name_of(desc))
        kept = self._history
        if kept is None or kept[0] != state:
            kept = self._history = (state, History(self._edits_in(desc)))
        return kept[1]

    def _edits_in(self, desc: FileDesc) -> Iterator[Edit]:
        name = name_of(desc)
        with suppress(FileNotFoundError):
            if stat_module.S_ISREG(self._directory.stat(name).mode):
                with closing(self._directory.open(name)) as file:
                    items = read_manifest(file.read_at)
                    yield from (item for item in items if isinstance(item, Edit))

    # -- what a rendering depends on

    def _state_of(self, name: str) -> Hashable:
        self._mounted.fetch(name)
        try:
            found = self._directory.stat(name)
        except FileNotFoundError:
            return (name, None)
        return (name, found.inode, found.size, found.mtime_ns)

    def _state_of_decoded(self, name: str) -> Hashable:
        return self._state_of(name), self._shown_by(name)

    def _state_of_all(self) -> Hashable:
        self._mounted.fetch()
        return tuple(
            # LOG changes all the time, and nothing but its first words is ever looked at.
            (name, found.inode, min(found.size, _FIRST_WORDS))
            if kind_of(name) is Kind.LOG
            else (name, found.inode, found.size, found.mtime_ns)
            for name, found in sorted(self._directory.scan())
        )

    # -- files

    def _status(self, write: Write) -> None:
        write(_json(self._mounted.status()))

    def _session(self, write: Write) -> None:
        write(_json(glance.as_json(overview.look(self._directory))))

    def _explain(self, engine: Engine, write: Write) -> None:
        for line in explain.to_text(predict(self._directory, PROFILES[engine])):
            write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def _check(self, write: Write) -> None:
        for line in checkreport.as_lines(check(self._directory)):
            write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def _live(self, engine: Engine, write: Write) -> None:
        profile, writer = PROFILES[engine], None

        def take(entries: list[Entry]) -> None:
            nonlocal writer
            if writer is None:
                evidence = "the one that this engine reads"
                subject = lines.Subject(
                    self._directory.label, "key space", None, profile.reads_as, evidence, engine
                )
                writer = lines.JsonLines(subject, Form.ESCAPE, Form.ESCAPE)
                write(writer.begin(subject, None))
            write(writer.live(entries))

        ending = live.read(self._directory, profile, take)
        for kind, why in (("refusal", ending.refusal), ("stop", ending.stopped)):
            if why is not None:
                write(_line({"engine": engine.value, "type": kind, "why": why}))

    def _log(self, write: Write) -> None:
        for line in self._mounted.messages():
            write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def _decode(self, name: str, write: Write) -> None:
        shown = self._shown_by(name)
        with self._opened(name) as opened:
            for piece in _pieces(opened, shown):
                write(piece)

    @contextmanager
    def _opened(self, name: str) -> Iterator[Opened]:
        with closing(self._directory.open(name)) as file:
            yield Opened(name, file, file.stat().size)

    # -- the form of the keys

    def _shown_by(self, name: str) -> Shown:
        """Which form the keys of a file have: a table may say so, all others are told by tables."""
        if kind_of(name) is Kind.TABLE:
            with self._opened(name) as opened:
                shown = recognition.of_table(Table(opened.read_at, opened.size))
            if shown is not None:
                return shown
        return self._shown_by_folder()

    def _shown_by_folder(self) -> Shown:
        looked_at = frozenset(
            (name, found.inode, found.size, found.mtime_ns)
            for name, found in self._directory.scan()
            if kind_of(name) in Kind.TABLE | Kind.JOURNAL
        )
        kept = self._shown
        if kept is None or kept[0] != looked_at:
            kept = self._shown = (looked_at, recognition.of_folder(Folder(self._directory)))
        return kept[1]


def _list_faults(plan: FaultPlan, write: Write) -> None:
    for line in rule_lines(plan):
        write(f"{line}\n".encode("utf-8", "backslashreplace"))


def _tell(plan: FaultPlan, line: str) -> None:
    tell_plan(plan, line)


def _stats(plan: FaultPlan, write: Write) -> None:
    write(_json(told_stats(plan)))


def _pieces(opened: Opened, shown: Shown) -> Iterator[bytes]:
    kind = kind_of(opened.name)
    called = next(text for text, one in _DECODED.items() if one is kind)
    subject = lines.Subject(opened.name, called, opened.size, shown.dialect, shown.evidence)
    match kind:
        case Kind.TABLE:
            return lines.table_lines(Table(opened.read_at, opened.size), subject)
        case Kind.JOURNAL:
            return lines.journal_lines(opened.read_at, subject)
        case _:
            return lines.manifest_lines(opened.read_at, subject)


def _table_name(number: int, is_there: Callable[[str], bool]) -> str:
    """What a table is called. One that is gone meanwhile has the name that engines look for first."""
    desc = FileDesc(number, Kind.TABLE)
    usual, other = name_of(desc), other_name_of(desc)
    return other if other is not None and is_there(other) and not is_there(usual) else usual


def _link_to(name: str) -> ViewLink:
    # From `edits/<n>` below the hidden folder to the root.
    return ViewLink(f"../../../{name}")


def _line(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace")
