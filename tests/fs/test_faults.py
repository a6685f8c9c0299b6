"""Faults below the file system: who is held up holds no lock, and what is announced is what is done."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from avccfs.errors import ClosedError, UsageError
from avccfs.format.filename import LOCK, LOG
from avccfs.fs.core import Core
from avccfs.fs.faultwords import rule_lines, tell_plan
from avccfs.fs.inodes import ROOT, StaleInodeError
from avccfs.fs.service import MountService
from avccfs.fs.viewed import ViewedCore
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Attributes, Directory, Open
from avccfs.vfs.fault import FaultDirectory, FaultPlan, Op
from avccfs.vfs.memory import MemoryDirectory
from tests.fs.waiting import wait_for

JOURNAL = "000003.log"


@pytest.fixture
def plan() -> Iterator[FaultPlan]:
    with FaultPlan() as plan:
        yield plan


@pytest.fixture
def memory() -> Directory:
    return MemoryDirectory()


@pytest.fixture
def core(memory: Directory, plan: FaultPlan) -> Iterator[ViewedCore]:
    """As a mount has it."""
    below = FaultDirectory(memory, plan, track=True, closes=False)
    core = ViewedCore(DirectoryStorage(below), ".avccfs")
    yield core
    core.close()


def make(core: Core, name: str, content: bytes = b"content") -> int:
    """Make a file; returns its number."""
    entry, opened = core.create(ROOT, name, 0o644, os.O_RDWR | os.O_CREAT, None)
    core.write(opened.handle, content, 0)
    core.flush(opened.handle)
    core.release(opened.handle)
    return entry.number


class Held:
    """A call that is held up by a fault."""

    def __init__(self, plan: FaultPlan, call: Callable[[], object], others: int = 0) -> None:
        self.error: BaseException | None = None
        self.answer: object = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()
        assert plan.wait_stalled(threads=others + 1, timeout=30)

    def _run(self, call: Callable[[], object]) -> None:
        try:
            self.answer = call()
        except Exception as error:
            self.error = error

    def end(self) -> object:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.answer


def assert_nobody_else_waits(core: Core) -> None:
    """Everything that takes the core's lock can be done."""

    def work() -> None:
        number = make(core, "other")
        core.lookup(ROOT, "other")
        opened = core.open(number, os.O_RDWR)
        core.write(opened.handle, b"x", 0)
        core.sync(opened.handle, data_only=False)
        core.release(opened.handle)
        core.rename(ROOT, "other", ROOT, "another")
        core.unlink(ROOT, "another")
        core.getattr(ROOT)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(30)
    assert not worker.is_alive(), "somebody else waits"


CALLS: dict[str, Callable[[Core, int, int], object]] = {
    "open": lambda core, number, handle: core.open(number, os.O_RDWR),
    "create": lambda core, number, handle: make(core, "000004.log"),
    "read": lambda core, number, handle: core.read(handle, 7, 0),
    "write": lambda core, number, handle: core.write(handle, b"new", 0),
    "sync": lambda core, number, handle: core.sync(handle, data_only=True),
    "rename": lambda core, number, handle: core.rename(ROOT, JOURNAL, ROOT, "000005.log"),
    "remove": lambda core, number, handle: core.unlink(ROOT, JOURNAL),
    "truncate": lambda core, number, handle: core.setattr(number, Attributes(), 3, handle),
    "close": lambda core, number, handle: core.flush(handle),
}


@pytest.mark.parametrize("op", CALLS)
def test_whoever_is_held_up_holds_no_lock(op: str, core: ViewedCore, plan: FaultPlan) -> None:
    number = make(core, JOURNAL)
    handle = core.open(number, os.O_RDWR).handle
    plan.add(f"{op} journal: stall")
    held = Held(plan, lambda: CALLS[op](core, number, handle))
    assert_nobody_else_waits(core)
    assert plan.release_rules() == 1
    held.end()
    assert plan.rules() == []


def test_folder_that_is_synced_for_ever_holds_no_lock(core: ViewedCore, plan: FaultPlan) -> None:
    folder = core.open_folder(ROOT)
    plan.add("sync-dir: stall")
    held = Held(plan, lambda: core.sync_folder(folder))
    assert_nobody_else_waits(core)
    plan.release_rules()
    held.end()
    core.release_folder(folder)


def test_file_renamed_while_its_opener_was_held_up_is_announced_by_its_new_name(
    core: ViewedCore, plan: FaultPlan
) -> None:
    number = make(core, "000003.tmp")
    plan.add("open temp: stall")
    plan.add("open table: stall")
    held = Held(plan, lambda: core.open(number, os.O_RDONLY))
    core.rename(ROOT, "000003.tmp", ROOT, "000003.ldb")
    plan.release_rules(1)
    wait_for(lambda: [rule.id for rule in plan.rules() if rule.stalled] == [2])
    # Still without the lock.
    assert_nobody_else_waits(core)
    plan.release_rules(2)
    held.end()


def test_file_removed_while_its_opener_was_held_up_is_opened_by_nobody(
    core: ViewedCore, plan: FaultPlan
) -> None:
    number = make(core, JOURNAL)
    plan.add("open journal: stall")
    held = Held(plan, lambda: core.open(number, os.O_RDONLY))
    core.unlink(ROOT, JOURNAL)
    plan.release_rules()
    with pytest.raises(StaleInodeError):
        held.end()
    assert core.counts()[1] == 0


def test_lock_whose_name_was_removed_is_created_anew_as_any_other_file(
    core: ViewedCore, plan: FaultPlan
) -> None:
    core.unlink(ROOT, LOCK)
    plan.add("open lock: ENOENT")
    plan.add("create lock #1: EIO")
    with pytest.raises(OSError, match="Input/output error"):
        make(core, LOCK)
    make(core, LOCK)
    assert [rule.fired for rule in plan.rules()] == [0, 1]


def test_lines_of_our_own_in_log_are_no_operations_and_wait_for_nobody(
    core: ViewedCore, plan: FaultPlan, memory: Directory
) -> None:
    for name in ("MANIFEST-000001", "MANIFEST-000002", "CURRENT"):
        with_content = b"MANIFEST-000001\n" if name == "CURRENT" else b""
        file = memory.open(name, Open.WRITE | Open.CREATE)
        file.write_at(with_content, 0)
        file.close()
    plan.add("any log: stall")
    core.unlink(ROOT, "CURRENT")
    assert plan.stalled() == 0
    assert plan.rules()[0].matched == 0
    assert b"CURRENT was removed" in memory.open(LOG).read_at(10_000, 0)


def test_closing_a_view_is_no_operation(core: ViewedCore, plan: FaultPlan) -> None:
    hidden = core.lookup(ROOT, ".avccfs").number
    plan.add("any: EIO")
    for flags in (os.O_RDONLY, os.O_WRONLY):
        handle = core.open(core.lookup(hidden, "faults").number, flags).handle
        if flags == os.O_WRONLY:
            core.write(handle, b"remove 1\n", 0)
            core.sync(handle, data_only=False)
        else:
            assert b"any: EIO" in core.read(handle, 1000, 0)
        core.flush(handle)
        core.release(handle)
    assert plan.rules() == []
    assert plan.count(Op.CLOSE) == 0


def test_words_to_the_mount_are_taken_between_two_requests(core: ViewedCore) -> None:
    """Only so can no rule come within a request that was begun when nothing was armed."""
    hidden = core.lookup(ROOT, ".avccfs").number
    faults = core.lookup(hidden, "faults").number
    telling = core.open(faults, os.O_WRONLY).handle
    reading = core.open(core.lookup(hidden, "faults").number, os.O_RDONLY).handle
    writing = core.open(make(core, JOURNAL), os.O_RDWR).handle
    immediate = {core.handles.file(one).immediate: one for one in (telling, reading, writing)}
    assert immediate[True] == telling
    assert not core.handles.file(reading).immediate
    assert not core.handles.file(writing).immediate


def test_write_to_the_file_of_faults_does_line_by_line(core: ViewedCore, plan: FaultPlan) -> None:
    hidden = core.lookup(ROOT, ".avccfs").number
    handle = core.open(core.lookup(hidden, "faults").number, os.O_WRONLY).handle
    with pytest.raises(UsageError, match="expected an operation"):
        core.write(handle, b"sync: EIO\n\n# remark\nnonsense\nwrite: EIO\n", 0)
    assert [rule.text for rule in plan.rules()] == ["sync: EIO"]
    assert any("'nonsense'" in message for message in core.messages())
    with pytest.raises(UsageError, match="expected"):
        core.write(handle, b"\xff\xfe: EIO\n", 0)


# Words


def test_words_to_a_plan_do_what_they_say(plan: FaultPlan) -> None:
    assert tell_plan(plan, "sync journal|'*.x'  #3 :EIO") == "rule 1: sync journal|*.x #3: EIO"
    assert tell_plan(plan, "  ") == tell_plan(plan, "# remark") == tell_plan(plan, "none")
    assert tell_plan(plan, "read: stall") == "rule 2: read: stall"
    assert tell_plan(plan, "release") == "calls let go: 0"
    assert [rule.id for rule in plan.rules()] == [1]
    assert tell_plan(plan, "remove 1") == "rule 1 disarmed"
    for line in (
        "a: EIO",
        "release x",
        "remove",
        "remove 1 2",
        "remove 9",
        "clear all",
        "remove -1",
    ):
        with pytest.raises(UsageError):
            tell_plan(plan, line)
    tell_plan(plan, "sync: EIO")
    tell_plan(plan, "sync: ENOSPC")
    assert tell_plan(plan, "clear") == "rules disarmed: 2"
    assert plan.rules() == []


def test_what_is_shown_of_rules_can_be_said_again(plan: FaultPlan) -> None:
    for line in (
        "sync journal #3: EIO",
        "write '# rule 7' 5% seed=3: torn at 1,2 keep 1",
        "any: stall",
    ):
        tell_plan(plan, line)
    shown = list(rule_lines(plan))
    with FaultPlan() as other:
        for line in shown:
            tell_plan(other, line)
        assert [rule.text for rule in other.rules()] == [rule.text for rule in plan.rules()]


def test_service_warns_only_where_operations_are_not_the_engines_own(
    core: ViewedCore, plan: FaultPlan
) -> None:
    def told(service: MountService, line: str) -> object:
        answer = service.answer("tell-faults", {"line": line}, lambda *_: None)
        assert isinstance(answer, dict)
        return answer["warning"]

    assert told(MountService(core, exact=True), "sync: EIO") is None
    inexact = MountService(core, exact=False)
    assert "mount with --fault none" in str(told(inexact, "sync: EIO")).lower()
    assert told(inexact, "clear") is None
    with pytest.raises(UsageError, match="does not know what 'dance' is"):
        inexact.answer("dance", {}, lambda *_: None)


def test_closing_lets_everybody_go(memory: Directory) -> None:
    plan = FaultPlan()
    core = Core(DirectoryStorage(FaultDirectory(memory, plan, track=True, closes=False)))
    handle = core.open(make(core, JOURNAL), os.O_RDWR).handle
    plan.add("sync journal: stall")
    held = Held(plan, lambda: core.sync(handle, data_only=False))
    core.close()
    # The file may have been closed under it.
    with contextlib.suppress(ClosedError):
        held.end()
    assert plan.closed
