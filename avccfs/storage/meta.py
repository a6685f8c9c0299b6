"""The CURRENT protocol: how a directory says which manifest is live (SPEC sections 3 and 10).

`get_meta` answers and, where it may write, restores order. `set_meta` switches to another manifest;
`adopt_meta` does the same by renaming a given file onto CURRENT. `explain` holds the reading part.

What is promised: power may fail at any moment, on a disk that keeps or loses every unsynced write
and every unsynced directory change by itself (a rename being three of them). Whatever is left,
get_meta answers with the old manifest or the new one, and with the new one once the call returned.
(Without an old answer, its place is taken by the error that get_meta had before.)

The order of a switch to manifest N:

1. *Make durable what is relied upon*: N itself, the file that answers now, CURRENT, the first
   good pending file (it hides those behind it), and their names. Whoever wrote them may have died
   before the sync.
2. *Take away pending files that could speak up later.* One that names a greater manifest than N
   would win over the new CURRENT. It is removed before the switch if it does not decide now, the
   ones hidden behind another pending file first, or they would come to light. If it decides now,
   its removal is the moment of the switch and comes last.
3. *Write the new pointer* as a pending file of its own, synced with its name. Never a file that
   exists, and never the pending file that decides now: the two halves of its rename could both go
   missing, and with them the answer.
4. *Copy a good CURRENT to CURRENT.bak*, which then answers if both halves of the rename go missing.
   A CURRENT that is not good is copied only at the end: until then CURRENT.bak may be the only
   pointer left.
5. *Rename onto CURRENT, sync the directory.*
6. *Remove what decided until now, if it still would* (see 2), and what is left over.

If CURRENT holds the wanted content already, 3 to 5 are left out. If a given file is adopted, it
takes the place of the file of step 3; where it is itself the file that the answer rests upon (the
deciding pending file, or CURRENT.bak), one more pending file stands guard until the rename is
durable.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable

from avccfs import errors
from avccfs.format.filename import (
    CURRENT,
    CURRENT_BAK,
    MAX_NUMBER,
    FileDesc,
    Kind,
    encode_meta,
    name_of,
    other_name_of,
    pending_name,
    pending_number,
)
from avccfs.storage.explain import (
    MetaCandidate,
    MetaReport,
    Outcome,
    Verdict,
    check_meta,
    explain_meta,
    missing_target,
    not_found,
    read_meta,
)
from avccfs.storage.handles import write_all
from avccfs.vfs.base import Directory, Open, Rename, split

__all__ = [
    "MetaCandidate",
    "MetaReport",
    "Outcome",
    "Verdict",
    "adopt_meta",
    "check_meta",
    "explain_meta",
    "get_meta",
    "set_meta",
]

Log = Callable[[str], None]


def get_meta(directory: Directory, log: Log, *, tidy: bool) -> FileDesc:
    """The newest valid meta; with `tidy`, order is restored if it did not come from CURRENT alone.

    Restoring order is set_meta of the answer, then the removal of every pending file; an error in
    that is logged and the answer stands. Raises what `MetaReport.result` raises.
    """
    report = explain_meta(directory)
    for candidate in report.candidates:
        if not candidate.good:
            log(candidate.finding)
    desc = report.result()
    if tidy and report.untidy:
        try:
            set_meta(directory, desc, log)
        except (OSError, errors.AvccfsError) as error:
            log(f"CURRENT and its kin stay as they are, {desc} is live: {error}")
        else:
            _clear(directory, [c.name for c in report.pending], log)
    return desc


def set_meta(directory: Directory, desc: FileDesc, log: Log) -> None:
    """Make `desc` what CURRENT names.

    Raises `FileNotFoundError` if `desc` does not exist, and whatever kept a step from being done,
    with a note that says which one; get_meta then answers as before, or with `desc`.
    """
    _Switch(directory, desc, log).run()


def adopt_meta(directory: Directory, path: str, log: Log, *, exchange: bool = False) -> FileDesc:
    """Make the file at `path` the new CURRENT by renaming it, and return the manifest it names.

    With `exchange` the old CURRENT takes its name. Raises as `check_meta` for content that may not
    become CURRENT, and as `set_meta`. The name CURRENT itself is `set_meta` of what it holds.
    """
    desc = check_meta(directory, read_meta(directory, path), file=path)
    if path == name_of(desc):
        raise errors.MetaError(
            f"{path}: names itself; renamed onto CURRENT it would be gone and CURRENT would name "
            f"nothing. Copy it instead",
            file=path,
        )
    source = None if path == CURRENT else path
    _Switch(directory, desc, log, source=source, exchange=exchange).run()
    return desc


class _Switch:
    """One run of the protocol in the module's text."""

    def __init__(
        self,
        directory: Directory,
        desc: FileDesc,
        log: Log,
        *,
        source: str | None = None,
        exchange: bool = False,
    ) -> None:
        self._directory = directory
        self._desc = desc
        self._content = encode_meta(desc)
        self._log = log
        self._source = source
        self._exchange = exchange and source is not None
        self._created: list[str] = []
        self._switched = False
        self._doing = ""
        self._report: MetaReport
        self._current: MetaCandidate | None
        self._decider: MetaCandidate | None
        self._top: MetaCandidate | None

    def run(self) -> None:
        """Do it. After an error a note on it says how far that came."""
        try:
            self._look()
            self._check()
            self._make_durable()
            self._remove_hidden()
            if self._source is not None or not self._holds_already:
                self._switch()
            self._remove_decider()
            self._finish()
        except BaseException as error:
            if not self._switched:
                self._undo()
            state = "CURRENT had been switched" if self._switched else "CURRENT is as it was"
            error.add_note(
                f"{self._directory.label}: making {self._desc} the live manifest failed while "
                f"{self._doing}; {state}"
            )
            raise

    @property
    def _holds_already(self) -> bool:
        return self._current is not None and self._current.content == self._content

    @property
    def _pending_decides(self) -> bool:
        return self._top is not None and self._decider is self._top

    def _beats_us(self, candidate: MetaCandidate) -> bool:
        """Whether this pending file would win over a CURRENT that names our manifest."""
        return (
            candidate.good
            and candidate.target is not None
            and candidate.target.number > self._desc.number
        )

    def _look(self) -> None:
        self._doing = "looking at CURRENT and its kin"
        self._report = explain_meta(self._directory)
        self._current = self._report.candidate(CURRENT)
        self._decider = self._report.winner
        self._top = next((c for c in self._report.pending if c.good), None)

    def _check(self) -> None:
        for candidate in self._report.candidates:
            if candidate.error is not None and (
                candidate.name != CURRENT_BAK or candidate is self._report.blocked_by
            ):
                raise candidate.error
        if not self._exchange:
            return
        if self._current is None:
            raise not_found(f"{self._directory.label}: no CURRENT to exchange with", CURRENT)
        if pending_number(self._source or "") is not None and self._beats_us(self._current):
            raise errors.MetaError(
                f"{self._source}: after the exchange it would name {self._current.target}, and a "
                f"pending file that names a greater manifest wins over CURRENT. Rename "
                f"{self._source} onto CURRENT without exchange",
                file=self._source or "",
            )

    def _make_durable(self) -> None:
        self._doing = f"making {self._desc} durable"
        try:
            self._sync_file(name_of(self._desc))
        except FileNotFoundError:
            raise missing_target(self._directory, self._desc) from None
        self._doing = "making durable what holds now"
        # The first good pending file counts even if it loses: it hides all those behind it.
        holding = (self._decider, self._current, self._top)
        rests_on = {c.name for c in holding if c is not None and c.good}
        if self._source is not None:
            rests_on.add(self._source)
        for name in sorted(rests_on):
            self._sync_file(name)
        self._sync_parent_of_source()
        self._directory.sync()

    def _remove_hidden(self) -> None:
        self._doing = "removing pending files that would win over the new CURRENT"
        loud = [c for c in self._report.pending if self._beats_us(c)]
        self._remove([c.name for c in loud if c is not self._top])
        if self._top in loud and not self._pending_decides:
            self._remove([c.name for c in loud if c is self._top])

    def _switch(self) -> None:
        if self._source is None:
            self._doing = "writing the new pointer"
            source = self._write_pointer()
            self._directory.sync()
        else:
            source = self._source
            self._stand_guard(source)
        current = self._current
        if current is not None and current.good and source != CURRENT_BAK:
            self._doing = f"copying CURRENT to {CURRENT_BAK}"
            self._back_up(current.content or b"")
        self._doing = f"renaming {source} onto CURRENT"
        how = Rename.EXCHANGE if self._exchange else Rename.REPLACE
        self._directory.rename(source, CURRENT, how)
        self._switched = True
        self._created = [name for name in self._created if name != source]
        self._doing = "syncing the directory after the rename"
        self._directory.sync()
        self._sync_parent_of_source()

    def _remove_decider(self) -> None:
        """The moment of the switch where a pending file decided and names a greater manifest."""
        if self._top is not None and self._pending_decides and self._beats_us(self._top):
            self._doing = f"removing {self._top.name}, which would win over the new CURRENT"
            self._remove([self._top.name])

    def _finish(self) -> None:
        """What the answer does not depend on any more; errors are logged."""
        if not self._switched:
            return
        current = self._current
        if current is not None and not current.good and self._source != CURRENT_BAK:
            try:
                self._back_up(current.content or b"")
            except (OSError, errors.AvccfsError) as error:
                self._log(f"the old CURRENT was not copied to {CURRENT_BAK}: {error}")
        same = [c.name for c in self._report.pending if c.good and c.target == self._desc]
        left_over = {*same, *self._created} - {self._source}
        _clear(self._directory, sorted(left_over), self._log)

    def _write_pointer(self) -> str:
        """Write a new file with the new content and return its name."""
        decides = self._decider.target if self._pending_decides and self._decider else None
        if decides is None or self._desc.number >= decides.number:
            return self._write_pending(self._desc.number)
        # A step back while a pending file decides: one more pending file could hide that one
        # without winning itself. LevelDB's own name for the new pointer takes no part in get_meta.
        for number in range(self._desc.number, MAX_NUMBER + 1):
            name = other_name_of(FileDesc(number, Kind.TEMP))
            if name is not None and self._write_new(name):
                return name
        raise self._no_free_name()

    def _write_pending(self, start: int) -> str:
        for number in range(start, MAX_NUMBER + 1):
            if self._write_new(pending_name(number)):
                return pending_name(number)
        raise self._no_free_name()

    def _no_free_name(self) -> OSError:
        return OSError(errno.EEXIST, "no free name for the new pointer; remove CURRENT.<number>")

    def _stand_guard(self, source: str) -> None:
        """Keep a second pointer where the answer rests upon the file that is to be renamed."""
        top = self._top
        rests_upon = top.name if top is not None and self._pending_decides else CURRENT_BAK
        if source == rests_upon:
            self._doing = "writing a second pointer"
            # Above every other, so that nothing the exchange may leave behind can hide it.
            above = -1 if top is None or top.pending is None else top.pending
            self._write_pending(max(self._desc.number, above + 1))
            self._directory.sync()

    def _write_new(self, name: str) -> bool:
        """Write a new, synced file with the new content; False if the name is taken."""
        try:
            file = self._directory.open(name, Open.WRITE | Open.CREATE | Open.EXCLUSIVE)
        except FileExistsError:
            return False
        self._created.append(name)
        try:
            write_all(file, self._content, 0)
            file.sync()
        finally:
            file.close()
        return True

    def _back_up(self, content: bytes) -> None:
        """Put `content` into CURRENT.bak, durably.

        The file is replaced, not overwritten: another name of it (a snapshot of the directory made
        of hard links) keeps its content. After an error nothing is left of it, because a file whose
        sync failed may read back well and yet not be on disk.
        """
        bak = self._report.candidate(CURRENT_BAK)
        if bak is not None and bak.content == content:
            self._sync_file(CURRENT_BAK)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._directory.remove(CURRENT_BAK)
            flags = Open.WRITE | Open.CREATE | Open.EXCLUSIVE
            file = self._directory.open(CURRENT_BAK, flags)
            try:
                write_all(file, content, 0)
                file.sync()
            except BaseException:
                self._discard([CURRENT_BAK])
                raise
            finally:
                file.close()
        self._directory.sync()

    def _sync_file(self, name: str) -> None:
        file = self._directory.open(name)
        try:
            file.sync()
        finally:
            file.close()

    def _sync_parent_of_source(self) -> None:
        parent = split(self._source)[0] if self._source is not None else ""
        if parent:
            self._directory.sync(parent)

    def _remove(self, names: list[str]) -> None:
        """Remove files and make that durable."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._directory.remove(name)
            self._log(f"removed {name}: it would win over CURRENT, which is to name {self._desc}")
        if names:
            self._directory.sync()

    def _undo(self) -> None:
        self._discard(self._created)

    def _discard(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError, errors.AvccfsError):
                self._directory.remove(name)


def _clear(directory: Directory, names: list[str], log: Log) -> None:
    """Remove files on which the answer does not depend; errors are logged."""
    try:
        for name in names:
            try:
                directory.remove(name)
            except FileNotFoundError:
                pass
            except OSError as error:
                log(f"{name} was left behind: {error}")
        if names:
            directory.sync()
    except (OSError, errors.AvccfsError) as error:
        log(f"the removal of {', '.join(names)} may not be durable: {error}")
