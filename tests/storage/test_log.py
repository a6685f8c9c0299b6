"""The LOG file, line by line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from avccfs.storage.log import ROTATE_AFTER, LogWriter
from avccfs.vfs.base import Open
from avccfs.vfs.fault import Always, FaultDirectory, FaultPlan, Op
from avccfs.vfs.memory import MemoryDirectory
from tests.storage.backends import get, put


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 15, 4, 5, 123, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


BANNER = b"=============== Nov 20, 2026 (UTC) ===============\n"


def lines(directory: MemoryDirectory) -> bytes:
    return get(directory, "LOG")


def test_a_day_begins_with_a_banner() -> None:
    directory, clock = MemoryDirectory(), Clock()
    log = LogWriter(directory, clock=clock)
    assert directory.names() == []
    log.write("first")
    clock.now += timedelta(seconds=61)
    log.write("second")
    clock.now = datetime(2026, 12, 1, 0, 0, 0, tzinfo=UTC)
    log.write("third")
    assert lines(directory) == (
        BANNER
        + b"15:04:05.000123 first\n"
        + b"15:05:06.000123 second\n"
        + b"=============== Dec 1, 2026 (UTC) ===============\n"
        + b"00:00:00.000000 third\n"
    )


def test_time_is_told_in_utc() -> None:
    directory, clock = MemoryDirectory(), Clock()
    clock.now = datetime(2026, 11, 21, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    LogWriter(directory, clock=clock).write("x")
    assert lines(directory) == BANNER + b"23:00:00.000000 x\n"


def test_a_new_writer_appends_with_a_banner_of_its_own() -> None:
    directory, clock = MemoryDirectory(), Clock()
    LogWriter(directory, clock=clock).write("one")
    LogWriter(directory, clock=clock).write("two")
    assert lines(directory) == (
        BANNER + b"15:04:05.000123 one\n" + BANNER + b"15:04:05.000123 two\n"
    )


def test_past_the_limit_log_becomes_log_old() -> None:
    directory, clock = MemoryDirectory(), Clock()
    put(directory, "LOG", b"x" * (ROTATE_AFTER - 1) + b"\n")
    put(directory, "LOG.old", b"older")
    log = LogWriter(directory, clock=clock)
    log.write("still fits: the limit has to be passed")
    assert get(directory, "LOG.old") == b"older"
    log.write("begins a new file")
    assert get(directory, "LOG.old").endswith(b"has to be passed\n")
    assert lines(directory) == BANNER + b"15:04:05.000123 begins a new file\n"
    log.write("goes on")
    assert lines(directory).endswith(b"new file\n15:04:05.000123 goes on\n")


def test_lines_of_others_are_kept() -> None:
    directory, clock = MemoryDirectory(), Clock()
    log = LogWriter(directory, clock=clock)
    log.write("ours")
    before = lines(directory)
    file = directory.open("LOG", Open.WRITE)
    file.write_at(b"theirs\n", len(before))
    log.write("ours again")
    assert lines(directory) == before + b"theirs\n15:04:05.000123 ours again\n"
    file.write_at(b"half a l", len(lines(directory)))
    log.write("on a line of its own")
    assert lines(directory).endswith(b"\nhalf a l\n15:04:05.000123 on a line of its own\n")


def test_a_log_renamed_by_somebody_else_is_not_written_to_any_more() -> None:
    directory, clock = MemoryDirectory(), Clock()
    log = LogWriter(directory, clock=clock)
    log.write("one")
    old = lines(directory)
    directory.rename("LOG", "LOG.old")
    log.write("two")
    assert get(directory, "LOG.old") == old
    assert lines(directory) == BANNER + b"15:04:05.000123 two\n"


def test_a_text_is_one_line_in_one_write() -> None:
    plan = FaultPlan()
    directory, clock = MemoryDirectory(), Clock()
    log = LogWriter(FaultDirectory(directory, plan), clock=clock)
    log.write("a\nb\r\nc\x1b[0m\td\x00 \udcff é\n")
    assert plan.count(Op.WRITE) == 1
    assert lines(directory) == (
        BANNER + "15:04:05.000123 a | b | c\\x1b[0m\td\\x00 \\udcff é\n".encode()
    )


def test_what_cannot_be_written_is_dropped() -> None:
    plan = FaultPlan()
    directory, clock = MemoryDirectory(), Clock()
    log = LogWriter(FaultDirectory(directory, plan), clock=clock)
    for op in (Op.CREATE, Op.STAT, Op.WRITE, Op.CLOSE):
        with plan.fail(op, how=Always()):
            log.write("lost")
    directory.remove("LOG")
    directory.symlink("LOG", "elsewhere")
    log.write("lost")
    assert directory.names() == ["LOG"]
    directory.close()
    log.write("lost")
