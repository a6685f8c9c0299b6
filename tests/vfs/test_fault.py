"""Storage that fails on demand."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product

import pytest

from avccfs import errors
from avccfs.format.filename import Kind
from avccfs.vfs.base import Attributes, Open, Rename
from avccfs.vfs.fault import (
    ALL_KINDS,
    ALL_OPS,
    Always,
    FaultDirectory,
    FaultPlan,
    Once,
    OneIn,
    Op,
    kind_of_path,
)
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


def fails(call: Callable[..., object], *args: object, code: int = errno.EIO) -> str:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is checked
        call(*args)
    assert caught.value.errno == code
    return str(caught.value.filename)


class TestEveryOperation:
    def test_each_fails_under_its_own_name_and_only_then(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        def on_file(call: Callable[..., object], *args: object) -> Callable[[], object]:
            return lambda: call(*args)

        file = directory.open(LOG, Open.WRITE)
        directory.symlink("link", LOG)
        directory.mkdir("folder")
        journal, foreign = Kind.JOURNAL, Kind.FOREIGN
        calls: list[tuple[Op, Kind, Callable[[], object]]] = [
            (Op.OPEN, journal, lambda: directory.open(LOG)),
            (Op.OPEN, journal, lambda: directory.open(LOG, Open.WRITE | Open.TRUNCATE)),
            (Op.CREATE, journal, lambda: directory.open(LOG, NEW)),
            (Op.READ, journal, lambda: file.read_at(1, 0)),
            (Op.WRITE, journal, lambda: file.write_at(b"x", 0)),
            (Op.TRUNCATE, journal, lambda: file.truncate(0)),
            (Op.SYNC, journal, on_file(file.sync)),
            (Op.STAT, journal, file.stat),
            (Op.STAT, journal, lambda: directory.stat(LOG)),
            (Op.SET_ATTRIBUTES, journal, lambda: file.set_attributes(Attributes(mode=0o600))),
            (Op.SET_ATTRIBUTES, journal, lambda: directory.set_attributes(LOG, Attributes())),
            (Op.CLOSE, journal, file.close),
            (Op.REMOVE, journal, lambda: directory.remove(LOG)),
            (Op.RENAME, journal, lambda: directory.rename(LOG, TABLE)),
            (Op.LINK, journal, lambda: directory.link(LOG, "other")),
            (Op.SYMLINK, Kind.META, lambda: directory.symlink("CURRENT", LOG)),
            (Op.READLINK, foreign, lambda: directory.readlink("link")),
            (Op.MKDIR, foreign, lambda: directory.mkdir("new")),
            (Op.RMDIR, foreign, lambda: directory.rmdir("folder")),
            (Op.LIST, foreign, directory.names),
            (Op.LIST, foreign, directory.scan),
            (Op.SYNC_DIR, foreign, directory.sync),
            (Op.SPACE, foreign, directory.space),
            (Op.LOCK, Kind.LOCK, lambda: directory.lock(exclusive=True)),
        ]
        assert {op for op, _, _ in calls} == set(Op)
        before = directory.inner.scan()
        for op, kind, call in calls:
            counted = plan.count(op, kind)
            with plan.fail(op, kind, Always()):
                fails(call)
            assert plan.count(op, kind) == counted + 1
        assert directory.inner.scan() == before
        assert plan.failures() == len(calls)

    def test_what_is_not_armed_passes(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        plan.fail(ALL_OPS & ~Op.READ, Kind.JOURNAL, Always())
        plan.fail(Op.READ, ALL_KINDS & ~Kind.JOURNAL, Always())
        plan.clear(Op.OPEN, Kind.JOURNAL)
        file = directory.open(LOG)
        assert file.read_at(3, 0) == b"012"
        fails(file.close)

    def test_the_old_name_decides_for_a_rename(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        plan.fail(Op.RENAME, Kind.META, Always())
        directory.rename(LOG, "CURRENT")
        assert fails(directory.rename, "CURRENT", LOG, Rename.NOREPLACE) == "CURRENT"

    def test_a_handle_keeps_the_kind_it_was_opened_by(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = directory.open(LOG)
        directory.rename(LOG, TABLE)
        plan.fail(Op.READ, Kind.TABLE, Always())
        assert file.read_at(1, 0) == b"0"
        plan.fail(Op.READ, Kind.JOURNAL, Always())
        assert fails(file.read_at, 1, 0) == LOG

    def test_a_close_that_fails_has_closed(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = directory.open(LOG)
        plan.fail(Op.CLOSE, Kind.JOURNAL, Always())
        fails(file.close)
        file.close()
        with pytest.raises(errors.ClosedError):
            file.read_at(1, 0)

    def test_names_in_folders_are_foreign(self) -> None:
        assert kind_of_path(LOG) is Kind.JOURNAL
        assert kind_of_path(f"lost/{LOG}") is Kind.FOREIGN
        assert kind_of_path("") is Kind.FOREIGN
        assert kind_of_path("CURRENT.7") is Kind.META


class TestMasks:
    def test_every_pair_of_a_mask_is_armed(self, plan: FaultPlan) -> None:
        ops = Op.WRITE | Op.SYNC | Op.CLOSE
        kinds = Kind.JOURNAL | Kind.TABLE | Kind.MANIFEST
        plan.fail(ops, kinds)
        for _ in range(2):
            for op, kind in product(Op, Kind):
                try:
                    plan.before(op, kind, "x")
                except OSError:
                    assert op in ops
                    assert kind in kinds
        assert {pair: plan.failures(*pair) for pair in product(ops, kinds)} == dict.fromkeys(
            product(ops, kinds), 1
        )
        assert plan.failures() == 9

    def test_without_kinds_it_means_all_of_them(self, plan: FaultPlan) -> None:
        plan.fail(Op.SYNC)
        for kind in Kind:
            fails(plan.before, Op.SYNC, kind, "x")

    def test_clear_takes_back_every_pair_of_a_mask(self, plan: FaultPlan) -> None:
        plan.fail(ALL_OPS, ALL_KINDS, Always())
        plan.clear(Op.READ | Op.SYNC, Kind.TABLE | Kind.LOG)
        for op, kind in product(Op.READ | Op.SYNC, Kind.TABLE | Kind.LOG):
            plan.before(op, kind, "x")
        fails(plan.before, Op.READ, Kind.JOURNAL, "x")
        fails(plan.before, Op.WRITE, Kind.TABLE, "x")
        plan.clear()
        for op, kind in product(Op, Kind):
            plan.before(op, kind, "x")

    def test_counters_add_up_over_a_mask(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        for name in (LOG, TABLE):
            file = directory.open(name, Open.WRITE)
            file.write_at(b"12345", 0)
            file.read_at(100, 8)
        assert plan.count(Op.WRITE, Kind.JOURNAL) == 1
        assert plan.count(Op.WRITE, Kind.JOURNAL | Kind.TABLE) == 2
        assert plan.bytes(Op.WRITE, ALL_KINDS) == 10
        assert plan.bytes(Op.READ, Kind.TABLE) == 2
        assert plan.bytes() == 14
        assert plan.count() == 6

    def test_what_failed_is_counted_but_moved_nothing(
        self, plan: FaultPlan, directory: FaultDirectory
    ) -> None:
        file = directory.open(LOG, Open.WRITE)
        plan.fail(Op.WRITE)
        fails(file.write_at, b"12345", 0)
        assert plan.count(Op.WRITE) == plan.failures(Op.WRITE) == 1
        assert plan.bytes(Op.WRITE) == 0
        assert file.read_at(5, 0) == b"01234"


class TestTriggers:
    def outcomes(self, plan: FaultPlan, kind: Kind, calls: int) -> list[bool]:
        failed = []
        for _ in range(calls):
            before = plan.failures()
            try:
                plan.before(Op.WRITE, kind, "x")
            except OSError:
                assert plan.failures() == before + 1
            failed.append(plan.failures() > before)
        return failed

    def test_once(self, plan: FaultPlan) -> None:
        plan.fail(Op.WRITE, Kind.LOG, Once())
        assert self.outcomes(plan, Kind.LOG, 4) == [True, False, False, False]

    def test_always(self, plan: FaultPlan) -> None:
        plan.fail(Op.WRITE, Kind.LOG, Always())
        assert self.outcomes(plan, Kind.LOG, 4) == [True] * 4

    def test_one_in_n_is_decided_by_its_seed(self, plan: FaultPlan) -> None:
        runs = []
        for seed in (1, 1, 2):
            with plan.fail(Op.WRITE, Kind.LOG, OneIn(5, seed)):
                runs.append(self.outcomes(plan, Kind.LOG, 400))
        assert runs[0] == runs[1] != runs[2]
        assert 40 < sum(runs[0]) < 130

    def test_one_in_n_for_a_pair_does_not_depend_on_the_others(self, plan: FaultPlan) -> None:
        both = Kind.LOG | Kind.TABLE
        with plan.fail(Op.WRITE, both, OneIn(3, 7)):
            alone = self.outcomes(plan, Kind.LOG, 50)
        with plan.fail(Op.WRITE, both, OneIn(3, 7)):
            mixed, other = [], []
            for _ in range(50):
                other += self.outcomes(plan, Kind.TABLE, 2)
                mixed += self.outcomes(plan, Kind.LOG, 1)
        assert mixed == alone
        assert other[:50] != alone

    def test_one_in_one_is_every_call(self, plan: FaultPlan) -> None:
        plan.fail(Op.WRITE, Kind.LOG, OneIn(1))
        assert self.outcomes(plan, Kind.LOG, 5) == [True] * 5
        with pytest.raises(ValueError, match="one in 0"):
            OneIn(0)

    def test_two_rules_of_one_call(self, plan: FaultPlan) -> None:
        plan.fail(Op.WRITE, Kind.LOG, error=errno.ENOSPC)
        plan.fail(Op.WRITE, Kind.LOG, error=errno.EDQUOT)
        fails(plan.before, Op.WRITE, Kind.LOG, "x", code=errno.ENOSPC)
        fails(plan.before, Op.WRITE, Kind.LOG, "x", code=errno.EDQUOT)
        plan.before(Op.WRITE, Kind.LOG, "x")

    def test_a_block_disarms_its_own_rules_only(self, plan: FaultPlan) -> None:
        plan.fail(Op.WRITE, Kind.LOG, Always(), error=errno.ENOSPC)
        with plan.fail(Op.SYNC | Op.WRITE, Kind.LOG, Always()) as armed:
            fails(plan.before, Op.SYNC, Kind.LOG, "x")
        armed.disarm()
        plan.before(Op.SYNC, Kind.LOG, "x")
        fails(plan.before, Op.WRITE, Kind.LOG, "x", code=errno.ENOSPC)


class TestErrors:
    def test_the_path_is_named(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        plan.fail(Op.OPEN, Kind.JOURNAL, error=errno.ENOENT)
        with pytest.raises(FileNotFoundError, match=LOG):
            directory.open(LOG)

    def test_an_exception_of_ones_own(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        mine = errors.CorruptedError("mine", file=TABLE)
        plan.fail(Op.OPEN, Kind.TABLE, Always(), error=mine)
        for _ in range(2):
            with pytest.raises(errors.CorruptedError) as caught:
                directory.open(TABLE)
            assert caught.value is mine

    def test_a_new_one_each_time(self, plan: FaultPlan, directory: FaultDirectory) -> None:
        plan.fail(Op.OPEN, Kind.TABLE, Always(), error=lambda: TimeoutError("slow"))
        caught = []
        for _ in range(2):
            with pytest.raises(TimeoutError, match="slow") as error:
                directory.open(TABLE)
            caught.append(error.value)
        assert caught[0] is not caught[1]


@pytest.mark.timeout(30)
class TestStalls:
    @pytest.fixture
    def pool(self, plan: FaultPlan) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(4) as made:
            try:
                yield made
            finally:
                # Or a failing test would wait for ever for the threads that it stalled.
                plan.close()

    def read(self, pool: ThreadPoolExecutor, directory: FaultDirectory, name: str) -> Future[bytes]:
        file = directory.open(name)
        return pool.submit(file.read_at, 3, 0)

    def test_only_the_caller_waits(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        plan.stall(Op.READ, Kind.JOURNAL)
        waiting = self.read(pool, directory, LOG)
        assert plan.wait_stalled(Op.READ, Kind.JOURNAL)
        assert self.read(pool, directory, TABLE).result() == b"012"
        directory.rename(TABLE, "000009.ldb")
        assert not waiting.done()
        assert plan.stalled() == plan.stalled(Op.READ, Kind.JOURNAL | Kind.META) == 1
        assert plan.stalled(Op.WRITE) == 0
        plan.release(Op.READ, Kind.JOURNAL)
        assert waiting.result() == b"012"
        assert plan.stalled() == 0

    def test_release_ends_only_what_it_names(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        plan.stall(Op.READ, Kind.JOURNAL | Kind.TABLE | Kind.MANIFEST)
        journal, table, manifest = (
            self.read(pool, directory, name) for name in (LOG, TABLE, MANIFEST)
        )
        assert plan.wait_stalled(threads=3)
        plan.release(Op.READ | Op.WRITE, Kind.JOURNAL | Kind.MANIFEST)
        assert journal.result() == manifest.result() == b"012"
        assert not table.done()
        plan.release()
        assert table.result() == b"012"
        assert self.read(pool, directory, TABLE).result() == b"012"

    def test_release_leaves_failures_armed(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        plan.stall(Op.READ, Kind.JOURNAL)
        plan.fail(Op.READ, Kind.JOURNAL)
        waiting = self.read(pool, directory, LOG)
        assert plan.wait_stalled()
        plan.release()
        fails(waiting.result)

    @pytest.mark.parametrize("end", ["clear", "close", "disarm", "block"])
    def test_nobody_is_left_waiting(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor, end: str
    ) -> None:
        armed = plan.stall(ALL_OPS & ~(Op.OPEN | Op.CREATE))
        waiting = [self.read(pool, directory, name) for name in (LOG, LOG, TABLE)]
        assert plan.wait_stalled(threads=3)
        match end:
            case "clear":
                plan.clear()
            case "close":
                plan.close()
            case "disarm":
                armed.disarm()
            case _:
                with armed:
                    pass
        assert [one.result() for one in waiting] == [b"012"] * 3

    def test_what_was_cleared_during_a_stall_does_not_fail(
        self, plan: FaultPlan, directory: FaultDirectory, pool: ThreadPoolExecutor
    ) -> None:
        plan.stall(Op.READ, Kind.JOURNAL)
        plan.fail(Op.READ, Kind.JOURNAL)
        waiting = self.read(pool, directory, LOG)
        assert plan.wait_stalled()
        plan.clear()
        assert waiting.result() == b"012"
        assert plan.failures() == 0

    def test_waiting_for_a_stall_can_be_given_up(self, plan: FaultPlan) -> None:
        assert not plan.wait_stalled(timeout=0.001)


class TestClosing:
    def test_a_closed_plan_lets_everything_pass(self, directory: FaultDirectory) -> None:
        with directory.plan as plan:
            plan.fail(ALL_OPS, ALL_KINDS, Always())
        assert len(directory.names()) == 3
        assert plan.count(Op.LIST) == 1
        plan.close()
        for arm in (plan.fail, plan.stall):
            with pytest.raises(errors.ClosedError):
                arm(Op.READ)


def test_threads_may_share_a_plan(plan: FaultPlan, directory: FaultDirectory) -> None:
    """Exactly as many calls fail as were armed, however they fall."""
    file = directory.open(LOG, Open.WRITE)
    start = threading.Barrier(4)

    def work() -> int:
        failed = 0
        start.wait()
        for _ in range(200):
            try:
                file.write_at(b"x", 0)
            except OSError:
                failed += 1
        return failed

    for _ in range(25):
        plan.fail(Op.WRITE, Kind.JOURNAL, Once())
    with ThreadPoolExecutor(4) as pool:
        failed = sum(future.result() for future in [pool.submit(work) for _ in range(4)])
    assert failed == plan.failures() == 25
    assert plan.count(Op.WRITE) == 800
    assert plan.bytes(Op.WRITE) == 775
