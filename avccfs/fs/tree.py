"""Which views there are, and what each is made from.

    status.json             what is mounted, and since when
    session.json            the session as the live manifest tells it, levels, journals, leftovers
    explain/<engine>.txt    what the engine would make of the directory, and lose
    check.txt               what `avccfs check` says
    manifest/<name>.jsonl   journal/<name>.jsonl   table/<name>.jsonl     files, decoded
    edits/<n>/              the tables that were live after the n-th record of the live manifest
    live/<engine>.jsonl     the keys that the engine would show
    log                     what the mount refused and why, and what it changed

Everything is read from the directory below. What an engine has written to the mount and the kernel
still holds is fetched first, so that a view shows what a reader of the mount would see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Protocol

from avccfs.format.batch import Entry
from avccfs.format.filename import FileDesc, Kind, kind_of, name_of, other_name_of, parse
from avccfs.format.table import Table
from avccfs.fs.rendered import Write
from avccfs.fs.views import ViewFile, ViewFolder, ViewLink, ViewNode
from avccfs.session import checkreport, explain, glance, lines, live, overview, recognition
from avccfs.session.check import check
from avccfs.session.decoded import Edit, read_manifest
from avccfs.session.engines import PROFILES, Engine
from avccfs.session.folder import Folder, Opened
from avccfs.session.keys import Form
from avccfs.session.recovery import predict
from avccfs.session.state import EMPTY, StateBuilder
from avccfs.storage.explain import explain_meta
from avccfs.vfs.base import Directory

_DECODED = {"manifest": Kind.MANIFEST, "journal": Kind.JOURNAL, "table": Kind.TABLE}
_READ_BY_ENGINES = Kind.META | Kind.MANIFEST | Kind.JOURNAL | Kind.TABLE


class Mounted(Protocol):
    """What the views need of the file system that they are part of."""

    @property
    def directory(self) -> Directory:
        """The directory below."""

    def fetch(self, name: str | None = None) -> None:
        """Have written what the kernel still holds of a file in the root, or of all of them."""

    def status(self) -> dict[str, object]:
        """What `status.json` says."""

    def messages(self) -> Iterable[str]:
        """The lines of `log`."""


class Tree:
    """The views of one mount."""

    def __init__(self, mounted: Mounted) -> None:
        self._mounted = mounted
        self._directory = mounted.directory
        self._edits: tuple[Hashable, int] | None = None
        fixed: dict[str, ViewNode] = {
            "status.json": ViewFile(self._status),
            "session.json": ViewFile(self._session, self._state_of_all),
            "explain": self._per_engine("txt", self._explain),
            "check.txt": ViewFile(self._check, self._state_of_all),
            "edits": ViewFolder(self._list_edits),
            "live": self._per_engine("jsonl", self._live),
            "log": ViewFile(self._log),
        }
        for folder, kind in _DECODED.items():
            fixed[folder] = ViewFolder(partial(self._list_files, kind))
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
            f"{name}.jsonl": ViewFile(partial(self._decode, name), partial(self._state_of, name))
            for name in self._directory.names()
            if kind_of(name) is kind
        }

    def _list_edits(self) -> dict[str, ViewNode]:
        desc = self._live_manifest()
        if desc is None:
            return {}
        count = self._count_edits(desc)
        return {
            str(number): ViewFolder(partial(self._list_tables, desc, number))
            for number in range(1, count + 1)
        }

    def _list_tables(self, desc: FileDesc, edit: int) -> dict[str, ViewNode]:
        builder = StateBuilder(EMPTY)
        for item in self._records(desc):
            builder.apply(item.record)
            if item.number == edit:
                break
        found: dict[str, ViewNode] = {}
        present = set(self._directory.names())
        for table in builder.state().tables():
            named = FileDesc(table.number, Kind.TABLE)
            other = other_name_of(named)
            # A table that is gone meanwhile is a link into nothing, and says so by that.
            name = other if other in present else name_of(named)
            found[name] = ViewLink(f"../../../{name}")
        return found

    def _live_manifest(self) -> FileDesc | None:
        report = explain_meta(self._directory)
        desc = report.winner.target if report.winner is not None else None
        return desc if desc is not None and desc.kind is Kind.MANIFEST else None

    def _records(self, desc: FileDesc) -> Iterator[Edit]:
        with suppress(FileNotFoundError), closing(self._directory.open(name_of(desc))) as file:
            for item in read_manifest(file.read_at):
                if isinstance(item, Edit):
                    yield item

    def _count_edits(self, desc: FileDesc) -> int:
        state = self._state_of(name_of(desc))
        if self._edits is None or self._edits[0] != state:
            self._edits = (state, sum(1 for _ in self._records(desc)))
        return self._edits[1]

    # -- what a rendering depends on

    def _state_of(self, name: str) -> Hashable:
        self._mounted.fetch(name)
        try:
            found = self._directory.stat(name)
        except FileNotFoundError:
            return (name, None)
        return (name, found.inode, found.size, found.mtime_ns)

    def _state_of_all(self) -> Hashable:
        self._mounted.fetch()
        return tuple(
            sorted(
                (name, found.inode, found.size, found.mtime_ns)
                for name, found in self._directory.scan()
                if kind_of(name) & _READ_BY_ENGINES
            )
        )

    # -- files

    def _status(self, write: Write) -> None:
        write(_json(self._mounted.status()))

    def _session(self, write: Write) -> None:
        self._mounted.fetch()
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
        folder = Folder(self._directory)
        with folder.opened([name]) as opened:
            for piece in self._pieces(folder, opened, name):
                write(piece)

    def _pieces(self, folder: Folder, opened: Opened, name: str) -> Iterator[bytes]:
        desc = parse(name)
        assert desc is not None
        table = Table(opened.read_at, opened.size) if desc.kind is Kind.TABLE else None
        shown = recognition.of_table(table) if table is not None else None
        if shown is None and desc.kind is Kind.JOURNAL:
            shown = recognition.of_journal(opened.read_at)
        shown = shown or recognition.of_folder(folder)
        kind = next(text for text, one in _DECODED.items() if one is desc.kind)
        subject = lines.Subject(name, kind, opened.size, shown.dialect, shown.evidence)
        if table is not None:
            return lines.table_lines(table, subject, form=Form.ESCAPE)
        if desc.kind is Kind.JOURNAL:
            return lines.journal_lines(opened.read_at, subject, form=Form.ESCAPE)
        return lines.manifest_lines(opened.read_at, subject, form=Form.ESCAPE)


def _line(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace")
