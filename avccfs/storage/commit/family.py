"""Carrying the CURRENT family over, so that the answer of get_meta changes in one moment only.

What decides which manifest is live is all of the family together (`storage.explain`). So if any of
it changed, all of it is set anew. Before the new manifests come, files that name one of them go:
they were of no account, and would speak up. Then `set_meta` of the manifest that the result as a
whole names; then every file gets its content, in an order in which that answer stands:

1. pending files that the result does not have go; CURRENT guards the answer;
2. pending files come, the good ones from the highest number down: the first hides the others;
3. CURRENT.bak, which is not asked while CURRENT is good;
4. CURRENT, which by now is guarded by what answers in the result, if it is not CURRENT itself;
5. after the removals: files that name what is then missing. Before, they would speak up as well.

If the result names no manifest at all, the family is taken away, the file that decides last; what
is to be there instead comes after the removals.
"""

from __future__ import annotations

import stat as stat_bits
from collections.abc import Callable, Iterable

from avccfs.errors import CommitError
from avccfs.format.filename import CURRENT, CURRENT_BAK, FileDesc, Kind, kind_of, name_of, parse
from avccfs.storage.commit.draft import Sheet
from avccfs.storage.commit.entries import status
from avccfs.storage.commit.plan import DropPointer, KeepPointers, PutPointer, Switch
from avccfs.storage.explain import MetaReport, Verdict, explain_meta
from avccfs.vfs.base import Directory


class Family:
    """The CURRENT family as it is in `source` and as it is to be."""

    def __init__(self, view: Directory, source: Directory, sheet: Sheet) -> None:
        self._view = view
        self._source = source
        self._sheet = sheet
        self._now = explain_meta(source)
        self._wanted = explain_meta(view)
        self._target = self._find_target()

    @property
    def concerned(self) -> bool:
        """Whether it is carried over: something changed, or what one of them names came or went.

        Only where all of them are files; a folder or a link among them is carried over like any
        other.
        """
        all_files = all(
            stat_bits.S_ISREG(found.mode)
            for directory in (self._view, self._source)
            for name, found in directory.scan()
            if kind_of(name) is Kind.META
        )
        return all_files and _told(self._now) != _told(self._wanted)

    def silence(self) -> None:
        """Before new manifests come. Raises `CommitError` if a file of the family is unreadable."""
        for each in self._now.candidates:
            if each.verdict is Verdict.UNREADABLE:
                raise CommitError(
                    f"{self._source.label}: {each.finding}, so CURRENT cannot be switched safely. "
                    "Make it readable and run avccfs commit again; nothing was changed",
                    begun=False,
                )
            if (
                each.verdict is Verdict.TARGET_MISSING
                and each.target is not None
                and each.target != self._target
                and status(self._view, name_of(each.target)) is not None
            ):
                self._sheet.move_away(each.name, None)
        self._sheet.sync()

    def carry_over(self, stage: Callable[[str], int]) -> Callable[[], None]:
        """The switch, and 1 to 4; what is returned does 5.

        `stage` gives the number of the staged file for a path.
        """
        sheet, wanted = self._sheet, self._wanted

        def put(names: Iterable[str]) -> None:
            for name in names:
                sheet.add(PutPointer(stage(name), name), name)
                sheet.sync()

        names = [each.name for each in wanted.candidates]
        sheet.restored.update(names)
        if self._target is None:
            self._take_away()
            return lambda: put(names)

        missing = [e.name for e in wanted.candidates if e.verdict is Verdict.TARGET_MISSING]
        pending = [each.name for each in wanted.pending if each.name not in missing]
        temps = [name for name in self._view.names() if name.endswith(".dbtmp") and parse(name)]
        sheet.add(Switch(name_of(self._target)), CURRENT)
        sheet.add(KeepPointers(tuple(sorted((*pending, *temps)))), CURRENT)
        sheet.sync()
        good = [each.name for each in wanted.pending if each.good]
        put((*good, *(name for name in pending if name not in good)))
        for name in (CURRENT_BAK, CURRENT):
            if name not in names:
                sheet.add(DropPointer(name), name)
                sheet.sync()
            elif name not in missing:
                put([name])
        return lambda: put(missing)

    def _take_away(self) -> None:
        winner = self._now.winner
        decider = winner.name if winner is not None else ""
        kept = {each.name: each.content for each in self._wanted.candidates}
        for found in sorted(self._now.candidates, key=lambda each: each.name == decider):
            if found.good or kept.get(found.name) != found.content:
                self._sheet.add(DropPointer(found.name), found.name)
                self._sheet.sync()

    def _find_target(self) -> FileDesc | None:
        """The manifest that the result names, if it can be switched to."""
        winner = self._wanted.winner
        if winner is None or winner.target is None:
            return None
        is_file = stat_bits.S_ISREG(self._view.stat(name_of(winner.target)).mode)
        return winner.target if is_file else None


def _told(report: MetaReport) -> list[tuple[str, bytes | None, Verdict]]:
    return [(each.name, each.content, each.verdict) for each in report.candidates]
