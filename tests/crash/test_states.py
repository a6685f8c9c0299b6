"""Sets of states worked out by hand, one rule of the model each."""

from __future__ import annotations

import pytest

from avccfs.crash.model import WEAKEST, Profile
from avccfs.crash.states import every_state, reachable
from avccfs.crash.trace import Trace
from avccfs.crash.versions import FINE, Granularity
from avccfs.vfs.recorder import (
    Create,
    Exchange,
    Link,
    Move,
    Operation,
    Remove,
    Slot,
    SyncDirectory,
    SyncFile,
    Truncate,
    Write,
)
from avccfs.vfs.snapshot import ROOT, NodeKind, contents, walk
from tests.crash.hand import found_after, garbage, holding, slot, states

EMPTY = holding()
SYNC = SyncDirectory(ROOT, "")


def write(node: int, path: str, data: bytes, offset: int = 0) -> Write:
    return Write(node, path, offset, data)


class TestNames:
    def test_a_new_name_is_kept_or_lost(self) -> None:
        assert found_after(EMPTY, Create(slot("a"), 1)) == states({}, {"a": b""})

    def test_syncing_the_directory_keeps_a_new_name(self) -> None:
        assert found_after(EMPTY, Create(slot("a"), 1), SYNC) == states({"a": b""})

    def test_two_new_names_are_lost_independently(self) -> None:
        found = found_after(EMPTY, Create(slot("a"), 1), Create(slot("b"), 2))
        assert found == states({}, {"a": b""}, {"b": b""}, {"a": b"", "b": b""})

    def test_a_removed_name_may_come_back(self) -> None:
        assert found_after(holding(a=b"x"), Remove(slot("a"), 1)) == states({}, {"a": b"x"})

    def test_a_name_that_came_and_went_may_be_there(self) -> None:
        found = found_after(EMPTY, Create(slot("a"), 1), Remove(slot("a"), 1))
        assert found == states({}, {"a": b""})

    def test_a_rename_onto_nothing_has_two_halves(self) -> None:
        found = found_after(holding(a=b"x"), Move(slot("a"), slot("b"), 1))
        assert found == states({"a": b"x"}, {"b": b"x"}, {"a": b"x", "b": b"x"}, {})

    def test_a_rename_onto_a_file_has_three_parts(self) -> None:
        found = found_after(holding(a=b"new", b=b"old"), Move(slot("a"), slot("b"), 1, 2))
        assert found == states(
            {"a": b"new", "b": b"old"},  # nothing came
            {"a": b"new"},  # only the removal of what was replaced
            {"a": b"new", "b": b"new"},  # the removal of the old name did not
            {"b": b"new"},  # all came
            {"b": b"old"},  # only the removal of the old name
            {},  # both removals
        )

    def test_an_atomic_rename_has_one(self) -> None:
        found = found_after(
            holding(a=b"new", b=b"old"),
            Move(slot("a"), slot("b"), 1, 2),
            profile=Profile(atomic_rename=True),
        )
        assert found == states({"a": b"new", "b": b"old"}, {"b": b"new"})

    def test_an_exchange_may_leave_one_file_under_both_names(self) -> None:
        found = found_after(holding(a=b"1", b=b"2"), Exchange(slot("a"), slot("b"), 1, 2))
        for a in (b"1", b"2", None):
            for b in (b"1", b"2", None):
                pairs = {"a": a, "b": b}.items()
                assert frozenset((k, v) for k, v in pairs if v is not None) in found
        assert len(found) == 9

    def test_an_atomic_exchange_swaps_or_does_not(self) -> None:
        found = found_after(
            holding(a=b"1", b=b"2"),
            Exchange(slot("a"), slot("b"), 1, 2),
            profile=Profile(atomic_rename=True),
        )
        assert found == states({"a": b"1", "b": b"2"}, {"a": b"2", "b": b"1"})

    def test_a_link_is_a_name_like_any_other(self) -> None:
        found = found_after(holding(a=b"x"), Link(slot("b"), 1))
        assert found == states({"a": b"x"}, {"a": b"x", "b": b"x"})

    def test_ordered_names_lose_only_a_tail(self) -> None:
        found = found_after(
            EMPTY,
            Create(slot("a"), 1),
            Create(slot("b"), 2),
            profile=Profile(ordered_names=True),
        )
        assert found == states({}, {"a": b""}, {"a": b"", "b": b""})

    def test_a_sync_settles_older_changes_of_the_name_for_good(self) -> None:
        found = found_after(
            holding(a=b"old"),
            Remove(slot("a"), 1),
            Create(slot("a"), 2),
            SYNC,
            Remove(slot("a"), 2),
        )
        assert found == states({"a": b""}, {})

    def test_a_sync_covers_only_its_own_directory(self) -> None:
        below = Create(slot("d"), 1, NodeKind.DIRECTORY)
        inside = Slot(1, "x", "d/x")
        operations: list[Operation] = [below, SYNC, Create(inside, 2)]
        assert found_after(EMPTY, *operations, SYNC) == states({}, {"d/x": b""})
        assert found_after(EMPTY, *operations, SyncDirectory(1, "d")) == states({"d/x": b""})

    def test_a_file_in_a_directory_whose_name_is_lost_is_lost(self) -> None:
        inside = Slot(1, "x", "d/x")
        trace = Trace(
            EMPTY,
            [Create(slot("d"), 1, NodeKind.DIRECTORY), Create(inside, 2), SyncDirectory(1, "d")],
        )
        *_, last = reachable(trace)
        trees = {tuple(path for path, _ in walk(state.snapshot())) for state in last}
        assert trees == {(), ("d", "d/x")}

    def test_fsync_of_a_file_does_not_make_its_name_durable(self) -> None:
        found = found_after(EMPTY, Create(slot("a"), 1), write(1, "a", b"x"), SyncFile(1, "a"))
        assert found == states({}, {"a": b"x"})

    def test_unless_the_file_system_promises_that(self) -> None:
        found = found_after(
            EMPTY,
            Create(slot("a"), 1),
            Create(slot("b"), 2),
            SyncFile(1, "a"),
            profile=Profile(fsync_keeps_name=True),
        )
        assert found == states({"a": b""}, {"a": b"", "b": b""})

    def test_a_durable_name_under_ordered_names_keeps_what_came_before(self) -> None:
        found = found_after(
            EMPTY,
            Create(slot("a"), 1),
            Create(slot("b"), 2),
            SyncFile(2, "b"),
            profile=Profile(fsync_keeps_name=True, ordered_names=True),
        )
        assert found == states({"a": b"", "b": b""})


class TestContents:
    def test_an_unsynced_write_into_a_new_file_shows_in_every_torn_form(self) -> None:
        found = found_after(EMPTY, Create(slot("a"), 1), SYNC, write(1, "a", b"xyz"))
        g = garbage(3)
        assert found == states(
            {"a": b""},
            {"a": b"x"},
            {"a": b"xy"},
            {"a": b"xyz"},
            {"a": b"\0\0\0"},
            {"a": g},
            {"a": b"x\0\0"},
            {"a": b"x" + g[:2]},
            {"a": b"xy\0"},
            {"a": b"xy" + g[:1]},
            {"a": b"\0yz"},
            {"a": g[:1] + b"yz"},
            {"a": b"\0\0z"},
            {"a": g[:2] + b"z"},
        )

    def test_fsync_is_a_barrier(self) -> None:
        operations: list[Operation] = [
            Create(slot("a"), 1),
            SYNC,
            write(1, "a", b"xyz"),
            SyncFile(1, "a"),
        ]
        assert found_after(EMPTY, *operations) == states({"a": b"xyz"})
        found = found_after(EMPTY, *operations, write(1, "a", b"!", offset=3))
        assert found == states(
            {"a": b"xyz"}, {"a": b"xyz!"}, {"a": b"xyz\0"}, {"a": b"xyz" + garbage(1)}
        )

    def test_fsync_covers_only_its_own_file(self) -> None:
        found = found_after(holding(a=b"1", b=b"2"), write(1, "a", b"x"), SyncFile(2, "b"))
        assert found == states({"a": b"1", "b": b"2"}, {"a": b"x", "b": b"2"})

    def test_an_overwrite_mixes_old_and_new_but_never_shows_garbage(self) -> None:
        assert found_after(holding(a=b"old"), write(1, "a", b"NEW")) == states(
            {"a": b"old"},
            {"a": b"NEW"},
            {"a": b"Nld"},
            {"a": b"NEd"},
            {"a": b"oEW"},
            {"a": b"olW"},
        )

    def test_two_writes_reach_the_disk_in_any_order(self) -> None:
        found = found_after(holding(a=b"__"), write(1, "a", b"x"), write(1, "a", b"y", offset=1))
        assert found == states({"a": b"__"}, {"a": b"x_"}, {"a": b"_y"}, {"a": b"xy"})

    def test_a_truncation_may_be_lost(self) -> None:
        found = found_after(holding(a=b"old"), Truncate(1, "a", 1))
        # The last: the cut took the bytes, and the old size came back.
        assert found == states({"a": b"old"}, {"a": b"o"}, {"a": b"o\0\0"})

    def test_a_file_rewritten_in_place_may_be_found_empty(self) -> None:
        found = found_after(holding(a=b"old"), Truncate(1, "a", 0), write(1, "a", b"n"))
        assert states({"a": b""}, {"a": b"n"}, {"a": b"nld"}, {"a": b"old"}) <= found

    def test_what_was_skipped_over_reads_as_zeros_not_garbage(self) -> None:
        found = found_after(holding(a=b""), write(1, "a", b"x", offset=2))
        assert found == states(
            {"a": b""}, {"a": b"\0\0x"}, {"a": b"\0\0\0"}, {"a": b"\0\0" + garbage(1)}
        )

    def test_what_was_cut_off_before_reads_as_zeros_not_garbage(self) -> None:
        trace = Trace(
            holding(a=b""),
            [write(1, "a", b"x"), Truncate(1, "a", 0), write(1, "a", b"y", offset=1)],
        )
        *_, last = reachable(trace)
        everything = next(iter(last))
        assert everything.faults == ()
        assert contents(everything.snapshot()) == {"a": b"\0y"}

    def test_without_garbage_only_zeros_are_ahead_of_the_bytes(self) -> None:
        found = found_after(holding(a=b""), write(1, "a", b"xy"), profile=Profile(no_garbage=True))
        assert found == states(
            {"a": b""}, {"a": b"x"}, {"a": b"xy"}, {"a": b"\0\0"}, {"a": b"x\0"}, {"a": b"\0y"}
        )

    def test_ordered_data_has_no_size_ahead_of_the_bytes(self) -> None:
        found = found_after(
            holding(a=b""), write(1, "a", b"xy"), profile=Profile(ordered_data=True)
        )
        assert found == states({"a": b""}, {"a": b"x"}, {"a": b"xy"})

    def test_ordered_data_keeps_two_appends_in_order(self) -> None:
        found = found_after(
            holding(a=b""),
            write(1, "a", b"x"),
            write(1, "a", b"y", offset=1),
            profile=Profile(ordered_data=True),
        )
        assert found == states({"a": b""}, {"a": b"x"}, {"a": b"xy"})

    def test_both_names_of_half_a_rename_show_the_same_torn_file(self) -> None:
        found = found_after(holding(a=b"12"), write(1, "a", b"xy"), Move(slot("a"), slot("b"), 1))
        both = [dict(each) for each in found if len(each) == 2]
        assert {each["a"] for each in both} == {b"12", b"x2", b"1y", b"xy"}
        assert all(each["a"] == each["b"] for each in both)

    def test_a_long_write_is_torn_where_sectors_end(self) -> None:
        base = holding(a=bytes(1200))
        found = found_after(base, write(1, "a", b"n" * 1000, offset=100))
        kept = {(a.index(b"n"), a.count(b"n")) for ((_, a),) in found if b"n" in a}
        ends = (1, 412, 500, 924, 999)
        assert kept == {
            (100, 1000),
            *((100, end) for end in ends),
            *((100 + end, 1000 - end) for end in ends),
        }


class TestEnumeration:
    SWITCH = (
        Create(slot("t"), 2),
        write(2, "t", b"new\n"),
        SyncFile(2, "t"),
        Move(slot("t"), slot("a"), 2, 1),
        SYNC,
    )

    def test_the_states_of_a_position_are_told_once(self) -> None:
        for point in reachable(Trace(holding(a=b"old\n"), self.SWITCH)):
            digests = [state.digest for state in point]
            assert len(digests) == len(set(digests)) <= point.bound

    def test_the_first_state_is_the_one_that_lost_nothing(self) -> None:
        for point in reachable(Trace(holding(a=b"old\n"), self.SWITCH)):
            assert next(iter(point)).faults == ()

    def test_equal_contents_under_the_same_names_have_equal_digests(self) -> None:
        trace = Trace(holding(a=b"old\n"), self.SWITCH)
        by_digest: dict[bytes, set[object]] = {}
        for state in every_state(trace):
            held = frozenset(contents(state.snapshot()).items())
            by_digest.setdefault(state.digest, set()).add(held)
        assert all(len(held) == 1 for held in by_digest.values())

    def test_two_names_of_one_file_are_not_two_equal_files(self) -> None:
        copied = (Create(slot("b"), 2), write(2, "b", b"x"), SyncFile(2, "b"), SYNC)
        linked = (Link(slot("b"), 1), SYNC)
        digests = []
        for operations in (copied, linked):
            *_, last = reachable(Trace(holding(a=b"x"), operations))
            digests += [state.digest for state in last]
        assert len(digests) == len(set(digests)) == 2

    def test_a_stronger_profile_allows_a_part_of_what_a_weaker_one_does(self) -> None:
        trace = Trace(holding(a=b"old\n"), self.SWITCH)
        everything = {(state.position, state.digest) for state in every_state(trace)}
        for name in Profile.__dataclass_fields__:
            fewer = {
                (state.position, state.digest)
                for state in every_state(trace, Profile(**{name: True}))
            }
            assert fewer <= everything

    def test_a_state_tells_its_story(self) -> None:
        trace = Trace(holding(a=b"old\n"), self.SWITCH)
        trace.mark("acknowledged: the switch")
        found = [
            state.describe(trace)
            for state in every_state(trace)
            if state.position == 4 and contents(state.snapshot()) == {"t": b"new\n"}
        ]
        assert found == [
            "   1  create t\n"
            "   2  write 4 bytes at 0 of t\n"
            "   3  sync t\n"
            "   4  rename t to a\n"
            "      ** the power fails here **\n"
            "   5  sync the directory\n"
            "      -- acknowledged: the switch\n"
            "of this, on disk:\n"
            "  operation 4: the new name a is lost\n"
            "  operation 4: the removal of the old name t is lost\n"
            "so the directory holds:\n"
            "  t: b'new\\n'"
        ]

    def test_a_torn_write_is_told_with_its_bytes(self) -> None:
        trace = Trace(holding(a=b""), [write(1, "a", b"wxyz")])
        told = {contents(s.snapshot())["a"]: s.faults for s in every_state(trace) if s.position}
        torn = "operation 1, write 4 bytes at 0 of a: only bytes 0 to 1 of 4"
        assert told[b"w"] == (torn,)
        assert told[b"w\0\0\0"] == (
            torn,
            "the size of a on disk is 4",
            "what is missing from a reads as zeros",
        )
        assert told[b""] == ("operation 1, write 4 bytes at 0 of a: lost",)

    def test_promises_hold_from_where_they_were_made(self) -> None:
        trace = Trace(EMPTY)
        trace.mark("first")
        trace.append(Create(slot("a"), 1))
        trace.mark("second")
        assert trace.promised(0) == ("first",)
        assert trace.promised(1) == ("first", "second")


class TestLimits:
    """Where the product explodes, a part is enumerated, and the caller is told which."""

    def test_many_loose_names(self) -> None:
        trace = Trace(EMPTY, [Create(slot(f"{n:02d}"), n) for n in range(1, 13)])
        *_, last = reachable(trace)
        assert not last.exhaustive
        assert any("12 changes of names" in line for line in last.limits)
        held = {tuple(contents(state.snapshot())) for state in last}
        everything = tuple(f"{n:02d}" for n in range(1, 13))
        assert {everything[:n] for n in range(13)} <= held
        assert {(*everything[:n], *everything[n + 1 :]) for n in range(12)} <= held
        assert {(name,) for name in everything} <= held

    def test_many_loose_names_in_order_are_no_matter(self) -> None:
        trace = Trace(EMPTY, [Create(slot(f"{n:02d}"), n) for n in range(1, 13)])
        *_, last = reachable(trace, Profile(ordered_names=True))
        assert last.exhaustive
        assert len(list(last)) == 13

    def test_many_writes_to_one_file(self) -> None:
        trace = Trace(holding(a=b""), [write(1, "a", b"ab", offset=2 * n) for n in range(10)])
        *_, last = reachable(trace)
        assert [line for line in last.limits if "a has 10 changes pending" in line]
        held = {contents(state.snapshot())["a"] for state in last}
        for cut in range(21):
            assert (b"ab" * 10)[:cut] in held
        assert b"ab" * 4 + b"\0\0" + b"ab" * 5 in held

    @pytest.mark.parametrize(("most_states", "vary"), [(10_000, 3), (400, 2), (10, 1)])
    def test_many_files_with_changes_pending(self, most_states: int, vary: int) -> None:
        base = holding(a=b"____", b=b"____", c=b"____")
        trace = Trace(base, [write(n, "abc"[n - 1], b"wxyz") for n in (1, 2, 3)])
        *_, last = reachable(trace, WEAKEST, Granularity(most_states=most_states))
        assert last.exhaustive is (vary == 3)
        held = {tuple(contents(state.snapshot()).values()) for state in last}
        each = {b"____", b"wxyz", b"w___", b"wx__", b"wxy_", b"_xyz", b"__yz", b"___z"}
        torn = [sum(content not in (b"____", b"wxyz") for content in state) for state in held]
        assert max(torn) == vary
        assert {state[0] for state in held} == each
        assert len(held) <= last.bound

    def test_the_limits_are_never_passed_by_a_switch_of_current(self) -> None:
        trace = Trace(holding(a=b"old\n"), TestEnumeration.SWITCH)
        assert all(point.exhaustive for point in reachable(trace, WEAKEST, FINE))
