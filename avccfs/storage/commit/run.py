"""A commit from beginning to end, and what was left of one that was stopped."""

from __future__ import annotations

import stat as stat_bits
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from avccfs.errors import AvccfsError, CommitError, ReadOnlyError
from avccfs.storage.commit.carrying import Carrier, conflicts
from avccfs.storage.commit.draft import Draft
from avccfs.storage.commit.entries import give, status
from avccfs.storage.commit.plan import PLAN, Plan, SetAttributes, load
from avccfs.storage.commit.planning import draft
from avccfs.storage.commit.staging import build, size_of_copies, sweep, write_plan
from avccfs.vfs.base import Directory, Stat
from avccfs.vfs.changes import Changes, Entry, EntryKind
from avccfs.vfs.differences import Progress, differences
from avccfs.vfs.layered import COMMIT_FOLDER, Layered

Settled = Callable[[], None]
"""Makes the overlay forget its changes, durably. May be called again after it was done."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_CONFLICTS = 3


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a commit that was stopped has left behind."""

    durable: bool
    """Whether it had begun: then `resume` finishes it. If not, the directory is as it was before,
    and the next commit removes what is left."""
    operations: int = 0
    """How many there are in its plan, done or not."""
    begun: datetime | None = None
    digest: str = ""
    """`Changes.digest` of what it carries over."""


def unfinished(source: Directory) -> Unfinished | None:
    """What is left of a commit in a directory; None if there is nothing. Changes nothing.

    Raises `CommitError` for a plan that is damaged or forged.
    """
    plan = _plan_in(source)
    if plan is None:
        return None if _folder(source) is None else Unfinished(durable=False)
    begun = _EPOCH + timedelta(microseconds=plan.begun_ns // 1000)
    return Unfinished(True, len(plan.operations), begun, plan.digest)


def commit(
    view: Layered,
    source: Directory,
    changes: Changes,
    *,
    settled: Settled,
    progress: Progress | None = None,
) -> None:
    """Make `source` what `view` shows; `changes` are `differences(view)`, as they were shown.

    `source` is the directory below the view, open for writing and locked by the caller, and nobody
    changes the view meanwhile. `settled` is called when everything is in place. `progress` is told
    of bytes while files are staged, then of operations.

    Raises `CommitError`; its `begun` says whether `source` may have been changed. What `settled`
    raises passes through, and the commit is then unfinished.
    """
    left = unfinished(source)
    if left is not None and left.durable:
        raise CommitError(
            f"{source.label}: a commit begun at {left.begun:%Y-%m-%d %H:%M:%S} UTC is not finished. "
            "Finish it first: run avccfs commit again",
            begun=True,
        )
    _refuse_read_only(source)
    with _nothing_changed(source):
        if left is not None:
            sweep(source)
        _demand_same(source, changes)
        made = draft(view, source, changes)
    plan = Plan(made.operations, time.time_ns(), changes.digest, made.current)
    _stage(view, source, made, plan, progress)
    _finish(source, plan, settled, progress)


def resume(source: Directory, *, settled: Settled, progress: Progress | None = None) -> None:
    """Finish a commit that was stopped, from what is in `source` alone.

    `source` is open for writing and locked by the caller; `settled` and `progress` are as for
    `commit`. Raises `CommitError`: before anything is touched if the plan is bad, if there is none,
    or if somebody else worked in the directory since.
    """
    _refuse_read_only(source)
    plan = _plan_in(source)
    if plan is None:
        raise CommitError(
            f"{source.label}: there is no commit to finish; nothing was changed", begun=False
        )
    with _stopped(source, lambda: "looking at what is there"):
        found = list(conflicts(source, plan))
    if found:
        more = len(found) - _MOST_CONFLICTS
        told = "; ".join(found[:_MOST_CONFLICTS]) + (f"; and {more} more" if more > 0 else "")
        raise CommitError(
            f"{source.label}: somebody worked here since the commit was stopped, so it cannot be "
            f"finished: {told}. Nothing was touched. The changes are in {COMMIT_FOLDER} as files "
            "staged-N; remove that folder to leave the directory as it is now",
            begun=True,
        )
    _finish(source, plan, settled, progress)


def _stage(
    view: Layered, source: Directory, made: Draft, plan: Plan, progress: Progress | None
) -> None:
    """Build everything and write the plan; after an error nothing is left of it."""
    total, done = size_of_copies(view, made.stages), 0

    def told(count: int, path: str) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total, path)

    with _nothing_changed(source):
        try:
            build(view, source, made.stages, told)
            if differences(view).digest != plan.digest:
                raise CommitError(
                    f"{source.label}: the overlay has changed since its changes were shown, and "
                    "only what was shown is committed. Look at them again and run avccfs commit "
                    "again; nothing was changed",
                    begun=False,
                )
            write_plan(source, plan)
        except BaseException:
            with suppress(OSError, AvccfsError):
                sweep(source)
            raise


def _finish(source: Directory, plan: Plan, settled: Settled, progress: Progress | None) -> None:
    carrier = Carrier(source)
    with _stopped(source, lambda: carrier.doing):
        for number, operation in enumerate(plan.operations):
            carrier.carry_out(operation)
            if progress is not None:
                progress(number + 1, len(plan.operations), carrier.doing)
    settled()
    with _stopped(source, lambda: f"removing {COMMIT_FOLDER}, with everything else in place"):
        sweep(source)
    _restore_time(source, plan)


def _restore_time(source: Directory, plan: Plan) -> None:
    """The commit's own folder has moved the time of the directory. Nothing rests on that time."""
    for each in plan.operations:
        if isinstance(each, SetAttributes) and not each.path:
            now = source.stat()
            wanted = Stat(
                now.mode,
                0,
                0,
                uid=now.uid,
                gid=now.gid,
                atime_ns=now.atime_ns,
                mtime_ns=each.mtime_ns,
            )
            with suppress(OSError):
                give(now, wanted, lambda change: source.set_attributes("", change))


# Before it begins


def _folder(source: Directory) -> Stat | None:
    found = status(source, COMMIT_FOLDER)
    if found is not None and not stat_bits.S_ISDIR(found.mode):
        raise CommitError(
            f"{source.label}/{COMMIT_FOLDER} is not a folder, so no commit made it. Rename it, then "
            "run avccfs commit again; nothing was changed",
            begun=False,
        )
    return found


def _plan_in(source: Directory) -> Plan | None:
    if _folder(source) is None:
        return None
    try:
        return load(source)
    except OSError as error:
        raise CommitError(
            f"{source.label}/{PLAN} cannot be read, so nothing was touched: {error}", begun=True
        ) from error


def _refuse_read_only(source: Directory) -> None:
    if source.read_only:
        raise ReadOnlyError(
            f"{source.label}: opened read-only; open it for writing to commit to it"
        )


def _demand_same(source: Directory, changes: Changes) -> None:
    """See that `source` is what the changes were made to."""
    for each in changes.entries:
        expected = [(each.old_path or each.path, each.before)]
        if each.old_path is not None:
            expected.append((each.path, each.replaced))
        for path, entry in expected:
            found = _seen(source, path)
            wanted = (entry.kind, entry.size) if entry is not None else None
            if found != wanted:
                raise CommitError(
                    f"{source.label}: the changes were made over another directory, or somebody "
                    f"changed this one: at {path!r} expected {_said(wanted)}, found {_said(found)}. "
                    "Compare again before you commit; nothing was changed",
                    begun=False,
                )


def _seen(source: Directory, path: str) -> tuple[EntryKind, int] | None:
    found = status(source, path)
    if found is None:
        return None
    entry = Entry.of(found)
    return entry.kind, entry.size


def _said(found: tuple[EntryKind, int] | None) -> str:
    if found is None:
        return "nothing"
    kind, size = found
    return f"a file of {size} bytes" if kind is EntryKind.FILE else f"a {kind.value}"


# Errors


@contextmanager
def _nothing_changed(source: Directory) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommitError(
            f"{source.label}: the commit did not begin, nothing was changed: {error}", begun=False
        ) from error


@contextmanager
def _stopped(source: Directory, doing: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except (OSError, AvccfsError) as error:
        raise CommitError(
            f"{source.label}: the commit stopped while {doing()}: {error}. What was done stays, and "
            "nothing is lost: put that right, then run avccfs commit again to go on",
            begun=True,
        ) from error
