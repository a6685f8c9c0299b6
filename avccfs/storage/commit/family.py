"""Carrying the CURRENT family over, so that the answer of get_meta changes in one moment only.

What decides which manifest is live is all of the family together (`storage.explain`). So if any of
it changed, all of it is set anew: first `set_meta` of the manifest that the result as a whole names,
then every file gets its content, in an order in which that answer stands:

1. pending files that the result does not have go; CURRENT guards the answer;
2. pending files come, the good ones from the highest number down: the first hides the others;
3. CURRENT.bak, which is not asked while CURRENT is good;
4. CURRENT, which by now is guarded by what answers in the result, if it is not CURRENT itself;
5. after the removals: files that name what is then missing. Before, they would speak up.

If the result names no manifest at all, the family is taken away, the file that decides last; what
is to be there instead comes after the removals.
"""

from __future__ import annotations

import stat as stat_bits
from collections.abc import Callable, Iterable

from avccfs.errors import CommitError
from avccfs.format.filename import CURRENT, CURRENT_BAK, FileDesc, Kind, kind_of, name_of, parse
from avccfs.storage.commit.draft import Sheet
from avccfs.storage.commit.plan import DropPointer, KeepPointers, PutPointer, Switch
from avccfs.storage.explain import MetaReport, Verdict, explain_meta
from avccfs.vfs.base import Directory


def in_shape(*directories: Directory) -> bool:
    """Whether all of the family are files, so that its protocol can be kept."""
    return all(
        stat_bits.S_ISREG(found.mode)
        for directory in directories
        for name, found in directory.scan()
        if kind_of(name) is Kind.META
    )


def carry_over(
    view: Directory, source: Directory, sheet: Sheet, stage: Callable[[str], int]
) -> Callable[[], None]:
    """Add the operations of 1 to 4; what is returned adds those of 5.

    `stage` gives the number of the staged file for a path. Raises `CommitError` if a file of the
    family cannot be read.
    """
    now, wanted = explain_meta(source), explain_meta(view)
    for each in now.candidates:
        if each.verdict is Verdict.UNREADABLE:
            raise CommitError(
                f"{source.label}: {each.finding}, so CURRENT cannot be switched safely. Make it "
                "readable and run avccfs commit again; nothing was changed",
                begun=False,
            )

    def put(names: Iterable[str]) -> None:
        for name in names:
            sheet.add(PutPointer(stage(name), name), name)
            sheet.sync()

    names = [each.name for each in wanted.candidates]
    sheet.restored.update(names)
    target = _target(view, wanted)
    if target is None:
        _take_away(now, wanted, sheet)
        return lambda: put(names)

    missing = [e.name for e in wanted.candidates if e.verdict is Verdict.TARGET_MISSING]
    pending = [each.name for each in wanted.pending if each.name not in missing]
    temps = [name for name in view.names() if name.endswith(".dbtmp") and parse(name)]
    sheet.add(Switch(name_of(target)), CURRENT)
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


def _target(view: Directory, wanted: MetaReport) -> FileDesc | None:
    """The manifest that the result names, if it can be switched to."""
    winner = wanted.winner
    if winner is None or winner.target is None:
        return None
    is_file = stat_bits.S_ISREG(view.stat(name_of(winner.target)).mode)
    return winner.target if is_file else None


def _take_away(now: MetaReport, wanted: MetaReport, sheet: Sheet) -> None:
    decider = now.winner.name if now.winner is not None else ""
    kept = {each.name: each.content for each in wanted.candidates}
    for found in sorted(now.candidates, key=lambda each: each.name == decider):
        if kept.get(found.name) != found.content:
            sheet.add(DropPointer(found.name), found.name)
            sheet.sync()
