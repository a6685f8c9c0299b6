"""A session over the memory storage against a model of a few lines, whatever is done in whatever
order, with steps that fail in between.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from avccfs.errors import SessionError
from avccfs.format.filename import Kind
from avccfs.format.manifest import DeletedTable, SessionRecord
from avccfs.session.session import Session
from avccfs.vfs.fault import Op
from tests.session.places import Place, added, manifest_desc, memory_place

LEVELS = st.integers(0, 2)


class SessionMachine(RuleBasedStateMachine):
    """The model: the first unused number, what was recorded of it, tables, and the manifest."""

    place: Place
    session: Session

    def __init__(self) -> None:
        super().__init__()
        self.next = 0
        self.recorded_next = 0
        self.sequence = 0
        self.journal = 0
        self.tables: set[tuple[int, int]] = set()
        self.manifest = 0
        self.journals: set[int] = set()
        self.handed_out: list[int] = []
        self.fresh = False
        """Whether the next commit has to begin a new manifest."""

    @initialize()
    def create(self) -> None:
        self.place = memory_place()
        self.session = Session(self.place.storage)
        self.session.create()
        self.next = self.recorded_next = 1

    # --- numbers

    @rule()
    def allocate(self) -> None:
        number = self.session.numbers.allocate()
        assert number == self.next
        self.handed_out.append(number)
        self.next += 1

    @rule(number=st.integers(0, 60))
    def mark(self, number: int) -> None:
        self.session.numbers.mark(number)
        self.next = max(self.next, number + 1)

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data())
    def reuse(self, data: st.DataObject) -> None:
        # Only a number that no file and no committed table bears may be given back.
        number = data.draw(st.sampled_from(self.handed_out))
        self.handed_out.remove(number)
        if self.session.numbers.reuse(number):
            assert self.next == number + 1
            self.next = number

    # --- commits

    @rule(level=LEVELS, sequence=st.integers(0, 5))
    def add_table(self, level: int, sequence: int) -> None:
        number = self.session.numbers.allocate()
        self.next += 1
        self.sequence += sequence
        self._commit(SessionRecord(sequence=self.sequence, added_tables=added(number, level=level)))
        self.tables.add((level, number))

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), level=LEVELS)
    def move_table(self, data: st.DataObject, level: int) -> None:
        old = data.draw(st.sampled_from(sorted(self.tables)))
        self._commit(
            SessionRecord(
                deleted_tables=(DeletedTable(*old),), added_tables=added(old[1], level=level)
            )
        )
        self.tables.remove(old)
        self.tables.add((level, old[1]))

    @rule(level=LEVELS, number=st.integers(0, 80))
    def delete_table(self, level: int, number: int) -> None:
        self._commit(SessionRecord(deleted_tables=(DeletedTable(level, number),)))
        self.tables.discard((level, number))

    @rule()
    def begin_journal(self) -> None:
        desc, writer = self.session.new_journal()
        writer.close()
        assert desc.number == self.next
        self.next += 1
        self.journals.add(desc.number)
        self._commit(SessionRecord(journal_number=desc.number))
        self.journal = desc.number

    @rule()
    def rotate(self) -> None:
        self.session.rotate()
        self._switched()

    # --- what fails

    @rule(op=st.sampled_from([Op.CREATE, Op.WRITE, Op.SYNC, Op.SYNC_DIR]))
    def fail_to_rotate(self, op: Op) -> None:
        assert self._fails(op, self.session.rotate)

    @precondition(lambda self: self.fresh)
    @rule(op=st.sampled_from([Op.CREATE, Op.WRITE, Op.SYNC, Op.SYNC_DIR]))
    def fail_to_commit_to_a_new_manifest(self, op: Op) -> None:
        assert self._fails(op, lambda: self.session.commit(SessionRecord(sequence=10**6)))

    @precondition(lambda self: not self.fresh)
    @rule(op=st.sampled_from([Op.WRITE, Op.SYNC, Op.SYNC_DIR]))
    def fail_to_commit_to_the_open_manifest(self, op: Op) -> None:
        assert not self._fails(op, lambda: self.session.commit(SessionRecord(sequence=10**6)))
        # Only a commit makes the outcome certain; what else happens first is another test's.
        self._commit(SessionRecord(), begins_new=True)

    @rule()
    def fail_to_begin_a_journal(self) -> None:
        failing = self.place.plan.fail(Op.CREATE, Kind.JOURNAL)
        with failing, pytest.raises(SessionError) as caught:
            self.session.new_journal()
        assert caught.value.settled

    # --- closing and coming back

    @rule()
    def reopen(self) -> None:
        self.session.close()
        self.session = Session(self.place.storage)
        self.session.recover()
        self.fresh = True
        self.handed_out.clear()
        in_use = [self.manifest, *self.journals, *(number for _, number in self.tables)]
        self.next = max(self.recorded_next, max(in_use) + 1)
        expected = [number for number in sorted(self.journals) if number >= self.journal]
        assert [desc.number for desc in self.session.journals_to_replay()] == expected

    @invariant()
    def the_session_is_as_the_model(self) -> None:
        if not hasattr(self, "session"):
            return
        state = self.session.state
        assert self.session.numbers.next == self.next
        assert {(each.level, each.number) for each in state.tables()} == self.tables
        assert (state.sequence, state.journal_number) == (self.sequence, self.journal)
        assert state.manifest == manifest_desc(self.manifest)
        assert state.next_file_number == self.recorded_next
        assert not self.session.unsettled
        assert self.place.manifests() == [self.manifest]
        assert self.place.storage.get_meta() == manifest_desc(self.manifest)

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.close()
            assert self.place.storage.open_handles == ()
            self.place.storage.close()

    def _commit(self, change: SessionRecord, *, begins_new: bool = False) -> None:
        self.session.commit(change)
        for table in change.added_tables:
            self.next = max(self.next, table.number + 1)
        if self.fresh or begins_new:
            self._switched()
        else:
            self.recorded_next = self.next
        # What a record names is in use, and may not be given back.
        self.handed_out.clear()

    def _switched(self) -> None:
        self.manifest = self.next
        self.next += 1
        self.recorded_next = self.next
        self.fresh = False

    def _fails(self, op: Op, step: Callable[[], object]) -> bool:
        """Make one step fail; whether the error says that nothing of it is left."""
        kinds = Kind.FOREIGN if op is Op.SYNC_DIR else Kind.MANIFEST
        with self.place.plan.fail(op, kinds), pytest.raises(SessionError) as caught:
            step()
        return caught.value.settled


SessionMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSession = SessionMachine.TestCase
