"""Rules at work: what they match, when they act, who waits for them, what is told of it."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs import errors
from avccfs.format.filename import Kind
from avccfs.vfs.base import Directory, Open, Rename
from avccfs.vfs.fault import (
    ALL_KINDS,
    OP_WORDS,
    RULE_OPS,
    Always,
    Call,
    Fail,
    FaultDirectory,
    FaultPlan,
    FaultSyntaxError,
    Op,
    Rule,
    When,
    kind_of_path,
    parse_rule,
)
from avccfs.vfs.fault.triggers import Schedule
from avccfs.vfs.memory import MemoryDirectory

NEW = Open.WRITE | Open.CREATE
LOG = "000001.log"
TABLE = "000002.ldb"
MANIFEST = "MANIFEST-000003"


@pytest.fixture
def plan() -> Iterator[FaultPlan]:
    with FaultPlan() as made:
        yield made


@pytest.fixture
def directory(plan: FaultPlan) -> FaultDirectory:
    inner = MemoryDirectory()
    for name in (LOG, TABLE, MANIFEST):
        file = inner.open(name, NEW)
        file.write_at(b"0123456789", 0)
        file.close()
    return FaultDirectory(inner, plan)


@pytest.fixture
def pool(plan: FaultPlan) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        try:
            yield made
        finally:
            # Or a failing test would wait for ever for the threads that it stalled.
            plan.close()


def fails(call: Callable[..., object], *args: object, code: int = errno.EIO) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is checked
        call(*args)
    assert caught.value.errno == code


def acts(plan: FaultPlan, op: Op, path: str, other: str | None = None) -> bool:
    """Whether a call fails."""
    try:
        with plan.ticket(Call(op, kind_of_path(path), path, other)):
            return False
    except OSError:
        return True


def outcomes(plan: FaultPlan, calls: int, path: str = LOG) -> list[int]:
    """Which of so many syncs fail, counted from 1."""
    return [number for number in range(1, calls + 1) if acts(plan, Op.SYNC, path)]


def fired(plan: FaultPlan) -> list[int]:
    return [status.fired for status in plan.rules()]


class TestTargets:
    @pytest.mark.parametrize(
        ("targets", "matching", "others"),
        [
            ("journal", [LOG], [TABLE, "LOG", f"lost/{LOG}", "a.log"]),
            ("journal|meta", [LOG, "CURRENT", "CURRENT.7"], [TABLE, MANIFEST]),
            ("*.log", [LOG, "a.log", f"lost/{LOG}"], ["a.LOG", "x.log.1"]),
            ("'manifest'", ["manifest", "a/manifest"], [MANIFEST]),
            ("table|'?'", [TABLE, "x"], ["xy", LOG]),
            ("lost/*", ["lost/x", f"lost/{LOG}"], ["lost", "found/x"]),
            ("foreign", ["x", "lost/" + LOG, ""], [LOG]),
            ("[ab]*", ["apple", "b"], ["c", "A"]),
            ("*", [LOG, "x", ""], []),
        ],
    )
    def test_files_are_meant_by_kind_or_name(
        self, plan: FaultPlan, targets: str, matching: list[str], others: list[str]
    ) -> None:
        plan.add(f"any {targets}: EIO")
        assert [path for path in matching + others if acts(plan, Op.SYNC, path)] == matching

    @pytest.mark.parametrize("old_kind", [True, False])
    def test_a_rename_is_about_either_name(
        self, plan: FaultPlan, directory: FaultDirectory, old_kind: bool
    ) -> None:
        plan.add("rename meta|*.bak: EIO")
        names = ("CURRENT", "x") if old_kind else ("x", "CURRENT")
        assert acts(plan, Op.RENAME, *names)
        assert acts(plan, Op.RENAME, "x", "y.bak")
        assert not acts(plan, Op.RENAME, "x", "y")
        fails(directory.rename, LOG, "CURRENT", Rename.EXCHANGE)
        assert directory.inner.stat(LOG)

    @pytest.mark.parametrize(
        ("line", "root", "lost"),
        [
            ("sync-dir: EIO", True, True),
            ("sync-dir foreign: EIO", True, True),
            ("sync-dir lost*: EIO", False, True),
            ("sync: EIO", False, False),
        ],
    )
    def test_a_directory_sync_is_about_the_folder(
        self, plan: FaultPlan, line: str, root: bool, lost: bool
    ) -> None:
        plan.add(line)
        assert acts(plan, Op.SYNC_DIR, "") is root
        assert acts(plan, Op.SYNC_DIR, "lost") is lost

    @pytest.mark.parametrize("word", OP_WORDS)
    def test_every_operation_has_its_word_and_any_is_all_of_them(self, word: str) -> None:
        for line, ops in ((f"{word}: EIO", OP_WORDS[word]), ("any: EIO", RULE_OPS)):
            with FaultPlan() as plan:
                plan.add(line)
                assert {op for op in Op if acts(plan, op, "x")} == set(ops)


class TestWhen:
    @pytest.mark.parametrize(
        ("when", "expected"),
        [
            ("", list(range(1, 13))),
            ("#3", [3]),
            ("#10-", [10, 11, 12]),
            ("#3-5", [3, 4, 5]),
            ("every 5", [5, 10]),
            ("every 5 #6-", [10]),
            ("times 2", [1, 2]),
            ("every 3 times 2", [3, 6]),
            ("#2- every 2 times 3", [2, 4, 6]),
            ("#1-4 every 5", []),
            ("100%", list(range(1, 13))),
        ],
    )
    def test_calls_are_counted_from_the_adding_on(
        self, plan: FaultPlan, when: str, expected: list[int]
    ) -> None:
        outcomes(plan, 5)
        plan.add(f"sync journal {when}: EIO")
        assert outcomes(plan, 12) == expected

    def test_one_counter_counts_everything_that_matches(self, plan: FaultPlan) -> None:
        plan.add("sync|write journal|table #3: EIO")
        results = [
            acts(plan, Op.SYNC, LOG),
            acts(plan, Op.SYNC, MANIFEST),
            acts(plan, Op.WRITE, TABLE),
            acts(plan, Op.READ, LOG),
            acts(plan, Op.WRITE, LOG),
        ]
        assert results == [False] * 4 + [True]

    def test_after_is_measured_from_the_adding_on(self) -> None:
        now = [100.0]
        with FaultPlan(clock=lambda: now[0]) as plan:
            plan.add("sync after 30s times 2: EIO")
            assert outcomes(plan, 3) == []
            now[0] = 129.999
            assert outcomes(plan, 3) == []
            now[0] = 130.0
            assert outcomes(plan, 3) == [1, 2]
            assert [status.matched for status in plan.rules()] == [8]

    def test_a_chance_is_about_what_it_says(self, plan: FaultPlan) -> None:
        plan.add("sync 25%: EIO")
        assert 180 < len(outcomes(plan, 1000)) < 320

    def test_a_seed_decides_and_rules_of_one_seed_do_not_act_in_step(self) -> None:
        def run(line: str, path: str = LOG) -> list[int]:
            with FaultPlan() as plan:
                plan.add(line)
                return outcomes(plan, 60, path)

        assert run("sync journal 50% seed=7: EIO") == run("sync journal 50% seed=7: EIO")
        assert run("sync journal 50% seed=7: EIO") != run("sync journal 50% seed=8: EIO")
        assert run("sync journal 50%: EIO") == run("sync journal 50% seed=0: EIO")
        assert run("sync journal 50%: EIO") != run("sync table 50%: EIO", TABLE)

    def test_the_draw_for_a_call_does_not_depend_on_the_other_conditions(self) -> None:
        def run(line: str) -> set[int]:
            with FaultPlan() as plan:
                plan.add(line)
                return set(outcomes(plan, 100))

        everything = run("sync 30%: EIO")
        assert run("sync #20-60 30%: EIO") == {n for n in everything if 20 <= n <= 60}
        assert run("sync 30% every 2: EIO") == {n for n in everything if n % 2 == 0}

    @given(
        st.integers(1, 8),
        st.none() | st.integers(0, 8),
        st.integers(1, 4),
        st.none() | st.integers(1, 4),
    )
    def test_all_conditions_hold_together(
        self, first: int, more: int | None, every: int, times: int | None
    ) -> None:
        last = None if more is None else first + more
        schedule = Schedule(When(first=first, last=last, every=every, times=times), "", 0.0)
        done = []
        acted = []
        for number in range(1, 40):
            if schedule.meet(0.0):
                acted.append(number)
            done.append(schedule.spent)
        possible = [n for n in range(first, (last or 39) + 1) if n % every == 0]
        assert acted == possible[:times]
        # Once it says that it is done it never acts again.
        assert all(number <= done.index(True) + 1 for number in acted if True in done)

    PROGRAM = """
import sys
from avccfs.vfs.fault import Call, FaultPlan, Op
from avccfs.format.filename import Kind
plan = FaultPlan()
plan.add("sync|write 20% seed=7: EIO")
plan.add("read: corrupt block size=8")
failed = []
for number in range(200):
    try:
        plan.before(Op.SYNC if number % 3 else Op.WRITE, Kind.JOURNAL, "000001.log")
    except OSError:
        failed.append(number)
rule = plan.rules()[1].rule
print(failed, rule.what.spoil(bytes(100), 5, rule.random(3)))
"""

    def test_another_process_does_the_same(self) -> None:
        told = [
            subprocess.run(
                [sys.executable, "-c", self.PROGRAM],
                env={"PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
                timeout=60,
            ).stdout
            for seed in ("1", "2")
        ]
        assert told[0] == told[1]
        assert told[0].count(b",") > 20


class TestThePlan:
    def test_rules_have_numbers_and_a_history(self, plan: FaultPlan) -> None:
        before = datetime.now(UTC)
        first = plan.add("sync journal #2: EIO")
        second = plan.add(Rule(Op.WRITE, Fail(errno.ENOSPC)))
        assert (first.id, second.id) == (1, 2)
        assert (first.text, first.matched, first.fired, first.done) == (
            "sync journal #2: EIO",
            0,
            0,
            False,
        )
        assert before <= first.added <= second.added <= datetime.now(UTC)
        assert outcomes(plan, 5) == [2]
        assert acts(plan, Op.WRITE, LOG)
        first, second = plan.rules()
        assert (first.matched, first.fired, first.done) == (2, 1, True)
        assert (second.matched, second.fired, second.done) == (1, 1, False)

    def test_a_number_is_never_given_again(self, plan: FaultPlan) -> None:
        plan.add("sync: EIO")
        plan.remove(1)
        assert plan.add("sync: EIO").id == 2
        plan.clear()
        assert plan.rules() == []
        assert plan.add("sync: EIO").id == 3

    def test_removing_takes_one_rule_away(self, plan: FaultPlan) -> None:
        plan.add("sync: EIO")
        plan.add("sync: ENOSPC")
        plan.remove(1)
        fails(plan.before, Op.SYNC, Kind.LOG, "x", code=errno.ENOSPC)
        for number in (1, 3):
            with pytest.raises(errors.UsageError, match=f"no rule {number}; there are: 2"):
                plan.remove(number)
        plan.remove(2)
        with pytest.raises(errors.UsageError, match="there are: none"):
            plan.release_rules(2)

    def test_it_is_armed_while_any_rule_may_act(self, plan: FaultPlan) -> None:
        states = [plan.armed]
        plan.add("sync #2: EIO")
        states.append(plan.armed)
        assert outcomes(plan, 2) == [2]
        states.append(plan.armed)
        plan.add("sync #1-3 every 5: EIO")
        assert outcomes(plan, 3) == []
        states.append(plan.armed)
        with plan.fail(Op.READ, Kind.LOG, Always()):
            states.append(plan.armed)
        states.append(plan.armed)
        plan.fail(Op.SYNC, Kind.JOURNAL)
        plan.add("sync: EIO")
        states.append(plan.armed)
        plan.close()
        states.append(plan.armed)
        assert states == [False, True, False, False, True, False, True, False]
        assert plan.closed

    def test_nothing_is_added_to_a_closed_plan(self, plan: FaultPlan) -> None:
        plan.close()
        with pytest.raises(errors.ClosedError):
            plan.add("sync: EIO")
        with pytest.raises(FaultSyntaxError):
            plan.add("sync")

    def test_the_first_that_fails_a_call_ends_it_but_all_count_it(self, plan: FaultPlan) -> None:
        plan.add("sync #2: EIO")
        plan.add("sync #2-3: ENOSPC")
        plan.before(Op.SYNC, Kind.LOG, "x")
        fails(plan.before, Op.SYNC, Kind.LOG, "x", code=errno.EIO)
        fails(plan.before, Op.SYNC, Kind.LOG, "x", code=errno.ENOSPC)
        assert fired(plan) == [1, 1]

    def test_a_rule_that_did_not_get_to_act_has_its_times_left(self, plan: FaultPlan) -> None:
        plan.add("sync #1: EIO")
        plan.add("sync times 1: ENOSPC")
        fails(plan.before, Op.SYNC, Kind.LOG, "x", code=errno.EIO)
        fails(plan.before, Op.SYNC, Kind.LOG, "x", code=errno.ENOSPC)
        plan.before(Op.SYNC, Kind.LOG, "x")

    def test_rules_with_and_without_numbers_act_in_one_order(self, plan: FaultPlan) -> None:
        plan.fail(Op.SYNC, Kind.LOG, error=errno.EDQUOT)
        plan.add("sync log times 1: ENOSPC")
        plan.fail(Op.SYNC, Kind.LOG, error=errno.EBADF)
        for code in (errno.EDQUOT, errno.ENOSPC, errno.EBADF):
            fails(plan.before, Op.SYNC, Kind.LOG, "x", code=code)
        plan.before(Op.SYNC, Kind.LOG, "x")

    def test_clearing_pairs_spares_a_rule_that_matches_more(self, plan: FaultPlan) -> None:
        plan.add("sync|write journal: EIO")
        plan.add("sync journal: EIO")
        plan.add("sync *.log: EIO")
        plan.clear(Op.SYNC, Kind.JOURNAL)
        assert [status.id for status in plan.rules()] == [1, 3]
        plan.clear(Op.SYNC | Op.WRITE, ALL_KINDS)
        assert plan.rules() == []

    def test_threads_share_one_counter(self, plan: FaultPlan, pool: ThreadPoolExecutor) -> None:
        plan.add("sync every 7 times 20: EIO")
        start = threading.Barrier(4)

        def work() -> int:
            start.wait()
            return len(outcomes(plan, 100))

        assert sum(pool.map(lambda _: work(), range(4))) == 20
        assert [status.fired for status in plan.rules()] == [20]


@pytest.mark.timeout(30)
class TestWaiting:
    def read(self, pool: ThreadPoolExecutor, directory: Directory, name: str) -> Future[bytes]:
        file = directory.open(name)
        return pool.submit(file.read_at, 3, 0)

    def test_a_stall_lasts_until_it_is_released_and_its_rule_is_done(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        rule = plan.add("read journal|table: stall")
        waiting = [self.read(pool, directory, name) for name in (LOG, TABLE)]
        assert plan.wait_stalled(threads=2)
        assert self.read(pool, directory, MANIFEST).result() == b"012"
        assert [status.stalled for status in plan.rules()] == [2]
        assert not any(one.done() for one in waiting)
        assert plan.release_rules(rule.id) == 2
        assert [one.result() for one in waiting] == [b"012"] * 2
        assert plan.rules() == []
        assert self.read(pool, directory, LOG).result() == b"012"

    @pytest.mark.parametrize("what", ["stall", "delay 1h"])
    @pytest.mark.parametrize("end", ["release", "release all", "remove", "clear", "close", "old"])
    def test_nobody_is_left_waiting(
        self,
        plan: FaultPlan,
        directory: FaultDirectory,
        pool: ThreadPoolExecutor,
        what: str,
        end: str,
    ) -> None:
        rule = plan.add(f"read #1: {what}")
        waiting = self.read(pool, directory, LOG)
        assert plan.wait_stalled(Op.READ, Kind.JOURNAL)
        match end:
            case "release":
                plan.release_rules(rule.id)
            case "release all":
                assert plan.release_rules() == 1
            case "remove":
                plan.remove(rule.id)
            case "clear":
                plan.clear()
            case "close":
                plan.close()
            case _:
                plan.release()
        assert waiting.result() == b"012"
        assert plan.stalled() == 0
        assert not plan.armed

    def test_a_released_delay_stays_armed(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        rule = plan.add("read: delay 1h")
        for _ in range(2):
            waiting = self.read(pool, directory, LOG)
            assert plan.wait_stalled()
            assert plan.release_rules(rule.id) == 1
            assert waiting.result() == b"012"
        assert fired(plan) == [2]

    def test_a_delay_ends_by_itself(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        plan.add("read #1: delay 0.001ms")
        assert directory.open(LOG).read_at(3, 0) == b"012"
        assert fired(plan) == [1]

    def test_releasing_leaves_other_rules_alone(self, plan: FaultPlan) -> None:
        plan.add("sync: EIO")
        with pytest.raises(errors.UsageError, match=r"rule 1 \(sync: EIO\) holds nobody up"):
            plan.release_rules(1)
        assert plan.release_rules() == 0
        assert outcomes(plan, 1) == [1]

    def test_release_names_one_of_several(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        plan.add("read journal: stall")
        plan.add("read table: stall")
        journal, table = (self.read(pool, directory, name) for name in (LOG, TABLE))
        assert plan.wait_stalled(threads=2)
        plan.release_rules(2)
        assert table.result() == b"012"
        assert not journal.done()
        assert [status.id for status in plan.rules()] == [1]

    def test_the_rules_behind_a_stall_come_after_it(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        plan.add("read: stall")
        plan.add("read: EIO")
        plan.add("read: ENOSPC")
        waiting = self.read(pool, directory, LOG)
        assert plan.wait_stalled()
        plan.remove(2)
        plan.release_rules(1)
        fails(waiting.result, code=errno.ENOSPC)


class TestAdmission:
    """What callers do that hold a lock while they carry an operation out."""

    def test_an_error_comes_before_the_block_and_is_counted(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        plan.add("remove table: EIO")
        with pytest.raises(OSError, match=TABLE), plan.admit(Op.REMOVE, TABLE):
            pytest.fail("the block was entered")
        assert directory.inner.stat(TABLE)
        assert plan.count(Op.REMOVE, Kind.TABLE) == plan.failures() == 1
        fails(directory.remove, TABLE)

    def test_what_was_admitted_is_not_announced_again(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        plan.add("remove|rename #2-: EIO")
        with plan.admit(Op.REMOVE, TABLE):
            directory.remove(TABLE)
        assert [status.matched for status in plan.rules()] == [1]
        with pytest.raises(OSError, match=LOG), plan.admit(Op.RENAME, LOG, "x"):
            pass
        assert plan.count(Op.REMOVE, Kind.TABLE) == 1
        assert plan.failures(Op.REMOVE) == 0

    def test_only_the_next_call_is_admitted_and_only_that_one(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        plan.add("remove #2-: EIO")
        with plan.admit(Op.REMOVE, TABLE):
            fails(directory.remove, LOG)
            directory.remove(TABLE)
            fails(directory.remove, TABLE)
        assert [status.matched for status in plan.rules()] == [3]

    def test_a_rename_goes_by_both_names(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        plan.add("rename meta #1-: EIO")
        with pytest.raises(OSError, match=LOG), plan.admit(Op.RENAME, LOG, "CURRENT"):
            pass
        with plan.admit(Op.RENAME, LOG, "x"):
            directory.rename(LOG, "x")

    def test_bytes_are_still_spoiled(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        file = directory.open(LOG, Open.WRITE)
        plan.add("write #1: torn prefix 2")
        with plan.admit(Op.WRITE, LOG):
            fails(file.write_at, b"abcd", 0)
        assert file.read_at(4, 0) == b"ab23"
        assert fired(plan) == [1]
        assert not plan.armed

    def test_blocks_nest(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        plan.add("any #3-: EIO")
        with plan.admit(Op.REMOVE, LOG), plan.admit(Op.REMOVE, TABLE):
            directory.remove(LOG)
            directory.remove(TABLE)
        assert [status.matched for status in plan.rules()] == [2]

    def test_what_comes_to_nothing_has_not_been_acted_on(self, plan: FaultPlan) -> None:
        plan.add("write times 1: torn prefix 2")
        with plan.admit(Op.WRITE, LOG):
            pass
        assert fired(plan) == [0]
        assert plan.armed
        assert plan.count() == 0

    def test_it_is_left_for_a_later_call_whoever_came_in_between(self, plan: FaultPlan) -> None:
        plan.add("write times 1: torn prefix 2")
        with plan.admit(Op.WRITE, LOG):
            assert not acts(plan, Op.WRITE, TABLE)
        assert plan.armed
        with plan.ticket(Call(Op.WRITE, Kind.TABLE, TABLE)) as ticket:
            assert [hit.number for hit in ticket.hits] == [3]

    def test_a_rule_that_comes_too_late_waits_for_the_next_call(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        with plan.admit(Op.REMOVE, TABLE):
            plan.add("remove: EIO")
            directory.remove(TABLE)
        fails(directory.remove, LOG)

    def test_another_thread_is_not_admitted(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        plan.add("remove #2-: EIO")
        with plan.admit(Op.REMOVE, TABLE):
            fails(pool.submit(directory.remove, TABLE).result)
            directory.remove(TABLE)

    @pytest.mark.timeout(30)
    def test_who_is_stalled_holds_no_lock(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        lock = threading.Lock()

        def remove(name: str) -> None:
            with plan.admit(Op.REMOVE, name), lock:
                directory.remove(name)

        plan.add("remove table: stall")
        waiting = pool.submit(remove, TABLE)
        assert plan.wait_stalled(Op.REMOVE, Kind.TABLE)
        remove(LOG)
        assert sorted(directory.inner.names()) == [TABLE, MANIFEST]
        plan.release_rules()
        waiting.result()
        assert directory.inner.names() == [MANIFEST]


class TestStatistics:
    def operations(self, plan: FaultPlan) -> dict[str, dict[str, dict[str, object]]]:
        stats = json.loads(json.dumps(plan.stats()))
        assert list(stats) == ["since", "operations", "faults", "rules"]
        assert datetime.fromisoformat(stats["since"]) <= datetime.now(UTC)
        operations: dict[str, dict[str, dict[str, object]]] = stats["operations"]
        return operations

    def test_calls_bytes_and_failures_are_told_per_operation_and_kind(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = directory.open(LOG, Open.WRITE)
        file.write_at(b"12345", 0)
        file.write_at(memoryview(b"12345678").cast("Q"), 0)
        file.read_at(100, 0)
        with pytest.raises(FileNotFoundError):
            directory.open("000009.log")
        plan.add("sync journal #2: EIO")
        file.sync()
        fails(file.sync)
        directory.sync()
        file.close()
        told = {
            (op, kind): tuple(tally[key] for key in ("calls", "failures", "faulted", "bytes"))
            for op, kinds in self.operations(plan).items()
            for kind, tally in kinds.items()
        }
        assert told == {
            ("open", "journal"): (2, 1, 0, 0),
            ("write", "journal"): (2, 0, 0, 13),
            ("read", "journal"): (1, 0, 0, 10),
            ("sync", "journal"): (2, 1, 1, 0),
            ("sync-dir", "foreign"): (1, 0, 0, 0),
            ("close", "journal"): (1, 0, 0, 0),
        }

    @pytest.mark.parametrize("armed", [False, True])
    def test_latency_is_all_the_time_between(
        self,
        plan: FaultPlan,
        directory: FaultDirectory,
        monkeypatch: pytest.MonkeyPatch,
        armed: bool,
    ) -> None:
        took = iter([500, 500, 3_000, 100_000])
        now = [0]

        def clock() -> int:
            return now[0]

        class Slow(MemoryDirectory):
            def remove(self, path: str) -> None:
                now[0] += next(took)

        for module in ("tallies", "ticket"):
            monkeypatch.setattr(f"avccfs.vfs.fault.{module}.perf_counter_ns", clock)
        directory = FaultDirectory(Slow(), plan)
        if armed:
            plan.add("sync #9: EIO")
        for _ in range(4):
            directory.remove(LOG)
        assert self.operations(plan)["remove"]["journal"]["latency_us"] == {
            "total": 104.0,
            "max": 100.0,
            "p50": 1.0,
            "p99": 100.0,
            "below": {"1": 2, "4": 1, "128": 1},
        }

    def test_a_delay_shows_also_in_what_was_admitted(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        plan.add("remove #1-2: delay 2ms")
        directory.remove(LOG)
        with plan.admit(Op.REMOVE, TABLE):
            directory.remove(TABLE)
        for kind in ("journal", "table"):
            latency = self.operations(plan)["remove"][kind]["latency_us"]
            assert isinstance(latency, dict)
            assert latency["total"] >= 2000

    def test_the_faults_that_fired_say_what_was_done(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = directory.open(LOG, Open.WRITE)
        plan.add("write journal #2: torn prefix 2")
        plan.add("rename: EXDEV")
        plan.fail(Op.SYNC, Kind.JOURNAL, error=errno.ENOSPC)
        plan.add("read: delay 0.001ms")
        file.write_at(b"12345", 0)
        fails(file.write_at, b"abcde", 4)
        fails(directory.rename, LOG, "a\udcff", code=errno.EXDEV)
        fails(file.sync, code=errno.ENOSPC)
        file.read_at(3, 1)
        faults = json.loads(json.dumps(plan.stats()["faults"]))
        assert all(
            datetime.fromisoformat(fault.pop("time")) <= datetime.now(UTC) for fault in faults
        )
        common = {"kind": "journal", "path": LOG}
        assert faults == [
            {
                "rule": 1,
                "text": "write journal #2: torn prefix 2",
                "op": "write",
                **common,
                "offset": 4,
                "length": 5,
                "call": 2,
                "did": "first 2 of 5 bytes written, then EIO",
            },
            {
                "rule": 2,
                "text": "rename: EXDEV",
                "op": "rename",
                **common,
                "new_path": "a\\xff",
                "call": 1,
                "did": "EXDEV",
            },
            {
                "rule": None,
                "text": "sync journal: ENOSPC",
                "op": "sync",
                **common,
                "call": 1,
                "did": "ENOSPC",
            },
            {
                "rule": 3,
                "text": "read: delay 0.001ms",
                "op": "read",
                **common,
                "offset": 1,
                "length": 3,
                "call": 1,
                "did": "delay 0.001ms",
            },
        ]

    def test_the_last_hundred_are_kept(self, plan: FaultPlan) -> None:
        plan.add("sync: EIO")
        outcomes(plan, 120)
        faults = plan.stats()["faults"]
        assert isinstance(faults, list)
        assert [fault["call"] for fault in faults] == list(range(21, 121))

    def test_rules_are_told_with_their_history(self, plan: FaultPlan) -> None:
        plan.add("sync #2: EIO")
        outcomes(plan, 3)
        (told,) = json.loads(json.dumps(plan.stats()["rules"]))
        assert datetime.fromisoformat(told.pop("added")) <= datetime.now(UTC)
        assert told == {
            "id": 1,
            "text": "sync #2: EIO",
            "matched": 2,
            "fired": 1,
            "stalled": 0,
            "done": True,
        }


class TestTheDirectory:
    def test_who_looks_below_is_neither_counted_nor_failed(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        plan.add("any: EIO")
        assert directory.disarmed is directory.inner
        assert len(directory.disarmed.names()) == 3
        assert plan.count() == 0

    def test_closing_can_be_left_to_the_caller(self, plan: FaultPlan) -> None:
        directory = FaultDirectory(MemoryDirectory(), plan, closes=False)
        plan.add("close: EIO")
        file = directory.open(LOG, NEW)
        file.close()
        assert plan.count(Op.CLOSE) == 0
        with pytest.raises(errors.ClosedError):
            file.read_at(1, 0)
        fails(plan.before, Op.CLOSE, Kind.JOURNAL, LOG)
        assert plan.count(Op.CLOSE) == 1

    def test_a_rule_may_come_while_files_are_open(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = directory.open(LOG, Open.WRITE)
        file.write_at(b"x", 0)
        plan.add("write|read|sync|truncate|close 100% times 5: EIO")
        for call in (
            lambda: file.write_at(b"y", 0),
            lambda: file.read_at(1, 0),
            lambda: file.truncate(0),
            file.sync,
            file.close,
        ):
            fails(call)
        inner = directory.inner.open(LOG)
        assert inner.read_at(3, 0) == b"x12"

    def test_rules_of_lines_and_of_programs_are_one_plan(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        plan.add(parse_rule("open journal times 1: EMFILE"))
        plan.fail(Op.OPEN, Kind.JOURNAL, error=errno.ENFILE)
        fails(directory.open, LOG, code=errno.EMFILE)
        fails(directory.open, LOG, code=errno.ENFILE)
        directory.open(LOG).close()
