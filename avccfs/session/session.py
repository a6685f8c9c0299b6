"""The session: the one place that decides what is live, and writes it down (SPEC section 9).

A commit is acknowledged when its record is durable in a manifest that CURRENT durably names, and
everything here follows from never getting that wrong when a step fails:

- A failed write or sync leaves the end of the manifest unknown. Nothing is ever appended behind
  it; the next commit goes through a new manifest. (A second sync that succeeds proves nothing: the
  system may have dropped the pages that the first could not write.)
- A failed `set_meta` may have switched all the same, say when only its last directory sync failed,
  or it may have left a pending CURRENT.<num> that wins later. So nothing is removed before
  `get_meta` has said which manifest is live. If that is the new one, or nobody knows, both files
  stay, and the next commit goes through a third manifest, whose higher number beats both.
- The number of a new manifest that failed is reused only if its file is gone and, once `set_meta`
  was tried, the directory was synced since: a pending CURRENT that came back after a power loss
  must not find a half-written successor under the name it points to.
- Names before pointers: before a record that names tables is even written, the directory is
  synced, because a record may reach the disk before the directory that it relies on.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Final, Self

from avccfs.errors import ClosedError, ReadOnlyError, StorageError
from avccfs.format import manifest
from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.format.journal import Policy
from avccfs.format.manifest import BYTEWISE_COMPARER, SessionRecord
from avccfs.session import entry, manifests
from avccfs.session.failures import Failures
from avccfs.session.manifests import ManifestFault, ManifestWriter, UnmatchedDeletion
from avccfs.session.numbers import FileNumbers
from avccfs.session.state import EMPTY, SessionState, snapshot
from avccfs.storage.contract import Locker, Storage, Writer

DEFAULT_MAX_MANIFEST_SIZE: Final = 64 * 1024 * 1024
"""Bytes; the engines' own default."""


class Session:
    """One database in a storage, from `create` or `recover` to `close`.

    Holds the storage's lock in between; the storage itself stays the caller's. Safe to use from
    several threads: commits happen one after the other. Content of tables and journals is not its
    business: whoever commits a table has synced it before.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        comparer: bytes = BYTEWISE_COMPARER,
        max_manifest_size: int = DEFAULT_MAX_MANIFEST_SIZE,
        policy: Policy = Policy.GOLEVELDB,
        strict: bool = False,
    ) -> None:
        """A session that is not open yet; nothing is touched.

        A manifest of `max_manifest_size` bytes or more is replaced at the next commit. `policy` is
        whose reading of a damaged manifest counts; `strict` refuses damage instead.
        """
        self.numbers: Final = FileNumbers()
        self._storage = storage
        self._comparer = comparer
        self._max_manifest_size = max_manifest_size
        self._policy = policy
        self._strict = strict
        self._mutex = threading.Lock()
        self._closed = False
        self._locker: Locker | None = None
        self._state: SessionState | None = None
        self._live: ManifestWriter | None = None
        self._leftovers: set[FileDesc] = set()
        self._unsettled = False
        self._faults: tuple[ManifestFault, ...] = ()
        self._unmatched_deletions: tuple[UnmatchedDeletion, ...] = ()

    @property
    def state(self) -> SessionState:
        """What was committed last. Raises `StorageError` before `create` or `recover`."""
        return self._opened()

    @property
    def faults(self) -> tuple[ManifestFault, ...]:
        """What recovery passed over in the manifest, in the order of the file."""
        return self._faults

    @property
    def unmatched_deletions(self) -> tuple[UnmatchedDeletion, ...]:
        """Deletions of tables that their level did not have, seen by recovery."""
        return self._unmatched_deletions

    @property
    def unsettled(self) -> bool:
        """Whether a failed commit may be on disk all the same; the next good commit settles it."""
        return self._unsettled

    def create(self) -> None:
        """Make a new database in an empty storage, and open it.

        Refuses (`MetaError`) where there is an entry point, or any database file without one.
        Raises `SessionError` if a step fails: settled, there is no database, and it can be tried
        again; not settled, there may be one, and `recover` tells.
        """
        with self._mutex:
            self._demand_unopened()
            self._demand_writable()
            self._locker = self._storage.lock()
            try:
                entry.demand_nothing_there(self._storage, self._leftovers)
                # No engine has a journal 0 beside a manifest: it stands for "none yet".
                first = replace(EMPTY, comparer=self._comparer, journal_number=0, sequence=0)
                self._switch(first)
            finally:
                if self._state is None:
                    self._unlock()

    def recover(self) -> None:
        """Open the database that is there.

        Raises `FileNotFoundError` if there is none, `MetaError` if its entry point is missing or
        corrupted, and `ManifestError` if the manifest lacks a field, is for another comparer, or
        (strict) is damaged. After any of them the session can be tried again.
        """
        with self._mutex:
            self._demand_unopened()
            self._locker = self._storage.lock()
            try:
                self._recover()
            finally:
                if self._state is None:
                    self._unlock()

    def commit(self, change: SessionRecord) -> None:
        """Make `change` durable; then, and only then, it is the state.

        The record gets the current next file number; numbers that `change` names count as used.
        Raises `SessionError` if a step fails: the state stays, and the session can be used on.
        Unless the error is `settled` the change may still come back at recovery, so keep the files
        that it names until a later commit has succeeded. A change that cannot be written, or that
        names another comparer, is a `ValueError`.
        """
        with self._mutex:
            state = self._opened()
            self._demand_writable()
            if change.comparer not in (None, self._comparer):
                raise ValueError(
                    f"a commit cannot change the comparer from {self._comparer!r} to "
                    f"{change.comparer!r}: the tables are sorted by it"
                )
            manifest.encode(change)
            self._mark_numbers_of(change)
            live = self._live
            if live is None or not live.trusted or live.size >= self._max_manifest_size:
                self._switch(state.apply(change))
            else:
                self._append(live, state, change)

    def rotate(self) -> None:
        """Write the state into a new manifest now, whatever the size of the old one."""
        with self._mutex:
            state = self._opened()
            self._demand_writable()
            self._switch(state)

    def journals_to_replay(self) -> tuple[FileDesc, ...]:
        """The journals that hold what no table has yet, oldest first; the last is marked used."""
        with self._mutex:
            state = self._opened()
            journals = tuple(
                desc
                for desc in self._storage.list(Kind.JOURNAL)
                if desc.number >= (state.journal_number or 0)
                # The engines take a previous journal that nobody named for number 0.
                or desc.number == (state.previous_journal_number or 0)
            )
            if journals:
                self.numbers.mark(journals[-1].number)
            return journals

    def new_journal(self) -> tuple[FileDesc, Writer]:
        """Allocate a number and create a journal under it; on failure the number is free again.

        Only the next successful commit makes its name durable: acknowledge nothing that is written
        to it before. Raises `SessionError`.
        """
        with self._mutex:
            self._opened()
            self._demand_writable()
            desc = FileDesc(self.numbers.allocate(), Kind.JOURNAL)
            try:
                return desc, self._storage.create(desc)
            except Exception as error:
                failures = Failures(f"creating {desc}", error)
                self._discard(desc, None, failures)
                raise failures.error("The session is as it was", settled=True) from error

    def close(self) -> None:
        """Close the manifest and let go of the lock; may be called again.

        Loses nothing: every commit that was acknowledged is durable already.
        """
        with self._mutex:
            self._closed = True
            if self._live is not None:
                self._close_logged(self._live)
                self._live = None
            self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- recovery

    def _recover(self) -> None:
        desc = entry.find_manifest(self._storage)
        file = name_of(desc)
        reading = manifests.read(self._storage, desc, self._policy, strict=self._strict)
        manifests.demand_complete(reading, file, self._comparer)
        state = reading.state
        assert state.next_file_number is not None
        present = self._storage.list(Kind.NUMBERED)
        self.numbers.set_next(state.next_file_number)
        # The recorded number is only as new as the last record that survived. An engine that died,
        # or a record that was lost, may have left files beyond it; an allocation that met one
        # would truncate it, and a manifest numbered below the live one could never win over it.
        for table in state.tables():
            self.numbers.mark(table.number)
        for found in present:
            if found.kind is Kind.TEMP:
                self.numbers.mark_temp(found.number)
            else:
                self.numbers.mark(found.number)
        self._faults = reading.faults
        self._unmatched_deletions = reading.unmatched_deletions
        for fault in reading.faults:
            self._storage.log(f"session: {fault} (passed over)")
        self._unsettled = False
        self._leftovers.clear()
        self._state = state

    # --- writing

    def _append(self, live: ManifestWriter, state: SessionState, change: SessionRecord) -> None:
        record = replace(change, next_file_number=self.numbers.next)
        payload = manifest.encode(record)
        settled = True
        live.trusted = False
        try:
            if record.added_tables:
                live.sync()
            settled = False
            live.append(payload)
            live.sync()
        except Exception as error:
            self._unsettled |= not settled
            failures = Failures(f"committing to {live.desc}", error)
            raise failures.error(
                "The state stays as it was; the next commit will begin a new manifest",
                settled=settled,
            ) from error
        self._state = state.apply(record)
        live.trusted = True

    def _switch(self, wanted: SessionState) -> None:
        """Make `wanted` the state by way of a new manifest, and remove the old one."""
        old, old_live = self._state, self._live
        desc = FileDesc(self.numbers.allocate(), Kind.MANIFEST)
        wanted = replace(wanted, next_file_number=self.numbers.next, manifest=desc)
        new: ManifestWriter | None = None
        try:
            new = ManifestWriter(desc, self._storage.create(desc))
            new.append(manifest.encode(snapshot(wanted)))
            new.sync()
        except Exception as error:
            failures = Failures(f"writing the new manifest {desc}", error)
            self._discard(desc, new, failures)
            raise failures.error(_staying(old), settled=True) from error
        trusted = old_live is not None and old_live.trusted
        if old_live is not None:
            # Until it is known which manifest is live, whatever ends this call.
            old_live.trusted = False
        try:
            self._storage.set_meta(desc)
        except Exception as error:
            failures = Failures(f"making {desc} the live manifest", error)
            settled = self._settle(new, failures)
            if settled and old_live is not None:
                old_live.trusted = trusted
            self._unsettled |= not settled
            outcome = _staying(old) if settled else _in_doubt(old, desc)
            raise failures.error(outcome, settled=settled) from error
        self._live, self._state, self._unsettled = new, wanted, False
        self._retire(old, old_live)

    def _settle(self, new: ManifestWriter, failures: Failures) -> bool:
        """After a failed `set_meta`: clear up if the old manifest is certainly still live."""
        old = self._state.manifest if self._state is not None else None
        live: FileDesc | None = None
        known = True
        try:
            live = self._storage.get_meta()
        except FileNotFoundError as error:
            if old is not None:
                failures.add("asking which manifest is live", error)
                known = False
        except Exception as error:  # noqa: BLE001 - reported with the first failure
            failures.add("asking which manifest is live", error)
            known = False
        if known and live == old:
            # What is seen now must also be what a power loss leaves, before the name is given up.
            durable = failures.attempt("syncing the directory", new.sync)
            self._discard(new.desc, new, failures, reuse=durable)
            return durable
        failures.attempt(f"closing {new.desc}", new.close)
        self._leftovers.add(new.desc)
        return False

    def _discard(
        self,
        desc: FileDesc,
        writer: ManifestWriter | None,
        failures: Failures,
        *,
        reuse: bool = True,
    ) -> None:
        """Remove a file that came to nothing, and give its number back if it is really gone."""
        if writer is not None:
            failures.attempt(f"closing {desc}", writer.close)
        if not failures.attempt(f"removing {desc}", lambda: self._remove(desc)):
            self._leftovers.add(desc)
        elif reuse:
            self.numbers.reuse(desc.number)

    def _retire(self, old: SessionState | None, old_live: ManifestWriter | None) -> None:
        """Clear away what the switch left behind. The switch is done: failures are only logged."""
        if old_live is not None:
            self._close_logged(old_live)
        if old is not None and old.manifest is not None:
            if old_live is None and self._faults:
                self._storage.log(
                    f"session: {old.manifest} is damaged and kept: it is all that tells of what "
                    "was lost"
                )
            else:
                self._leftovers.add(old.manifest)
        for desc in sorted(self._leftovers):
            try:
                self._remove(desc)
            except Exception as error:  # noqa: BLE001 - tried again at the next switch
                self._storage.log(f"session: {desc} is obsolete, but removing it failed: {error}")
            else:
                self._leftovers.discard(desc)

    def _remove(self, desc: FileDesc) -> None:
        try:
            self._storage.remove(desc)
        except FileNotFoundError:
            return

    def _close_logged(self, writer: ManifestWriter) -> None:
        try:
            writer.close()
        except Exception as error:  # noqa: BLE001 - all that was acknowledged is durable
            self._storage.log(f"session: closing {writer.desc} failed: {error}")

    def _mark_numbers_of(self, change: SessionRecord) -> None:
        for table in change.added_tables:
            self.numbers.mark(table.number)
        if change.journal_number is not None:
            self.numbers.mark(change.journal_number)
        if change.next_file_number:
            self.numbers.mark(change.next_file_number - 1)

    # --- conditions

    def _opened(self) -> SessionState:
        if self._closed:
            raise ClosedError("the session is closed: make a new one and recover the database")
        if self._state is None:
            raise StorageError("the session is not open: create or recover the database first")
        return self._state

    def _demand_unopened(self) -> None:
        if self._closed:
            raise ClosedError("the session is closed: make a new one")
        if self._state is not None:
            raise StorageError(f"the session is open already, in {self._state.manifest}")

    def _demand_writable(self) -> None:
        if self._storage.read_only:
            raise ReadOnlyError("the storage is read-only: nothing can be committed to it")

    def _unlock(self) -> None:
        locker, self._locker = self._locker, None
        if locker is not None:
            locker.unlock()


def _staying(old: SessionState | None) -> str:
    return "There is no database yet" if old is None else f"{old.manifest} and its state stay"


def _in_doubt(old: SessionState | None, desc: FileDesc) -> str:
    if old is None:
        return f"There may be a database all the same, in {desc}: recover to see"
    return (
        f"{desc} may turn out to be live all the same. {old.manifest} is kept and its state stays; "
        "the next commit will begin a new manifest, which settles it"
    )
