"""`avccfs selftest`: it covers the language, would notice a fault that lies, and leaves nothing."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from avccfs.cli.main import DAMAGE, FAILED, FINE, INTERRUPTED, USAGE
from avccfs.cli.selftest import TOPICS, scratch_bench
from avccfs.fuse import mounts
from avccfs.fuse.selftest import CHECKS, Bench, Topic
from avccfs.fuse.selftest import run as run_checks
from avccfs.fuse.selftest.bench import NEW, OLD
from avccfs.vfs.fault import (
    KIND_WORDS,
    RULE_OPS,
    CorruptBit,
    CorruptBlock,
    Delay,
    Fail,
    Op,
    Rule,
    Short,
    Stall,
    What,
    When,
    parse_rule,
)
from tests.cli.running import run
from tests.mounting import AVCCFS, unmount_below

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="what root may do")

RULES = {check: parse_rule(check.rule) for check in CHECKS}


def mounted_below(folder: Path) -> list[str]:
    inside = f"{folder.resolve()}/"
    return [one.mountpoint for one in mounts.mounts() if one.mountpoint.startswith(inside)]


def assert_nothing_left(temporary: Path) -> None:
    assert mounted_below(temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    unmount_below(folder)


# What is checked


def ops_of(*whats: type) -> Op:
    found = [rule.ops for rule in RULES.values() if isinstance(rule.what, whats)]
    return functools.reduce(Op.__or__, found)


def test_every_kind_of_fault_is_checked_on_every_operation_it_fits() -> None:
    assert {type(rule.what) for rule in RULES.values()} == {*get_args(What)}
    assert ops_of(Fail) == ops_of(Delay) == ops_of(Stall) == RULE_OPS
    assert ops_of(Short) == ops_of(CorruptBit) == ops_of(CorruptBlock) == Op.READ | Op.WRITE


def test_every_condition_and_every_kind_of_file_is_checked() -> None:
    usual = When()
    said = {
        field.name
        for rule in RULES.values()
        for field in dataclasses.fields(When)
        if getattr(rule.when, field.name) != getattr(usual, field.name)
    }
    assert said == {field.name for field in dataclasses.fields(When)}
    about_files = [rule for check, rule in RULES.items() if check.topic is Topic.FILES]
    assert {*KIND_WORDS.values()} <= {rule.targets.kinds for rule in about_files}
    assert any(rule.targets.patterns for rule in about_files)


def test_old_and_new_content_differ_in_every_byte() -> None:
    assert len(OLD) == len(NEW)
    assert all(old != new and old and new for old, new in zip(OLD, NEW, strict=True))


def test_topics_are_the_words_of_the_command_and_none_is_empty() -> None:
    assert tuple(topic.value for topic in Topic) == TOPICS
    assert {check.topic for check in CHECKS} == {*Topic}


# Whether it can fail


def outcomes_with(change: Callable[[Rule], Rule | None]) -> dict[bool, list[str]]:
    """Rules of checks that are fine, and of those that are not, if every rule is another one."""

    class Liar:
        """A mount that does something else than it is told."""

        def __init__(self, bench: Bench) -> None:
            self._mount = bench._mount

        def ask(self, name: str, *, line: str = "") -> Any:
            if name == "tell-faults" and ":" in line:
                other = change(parse_rule(line))
                line = "none" if other is None else str(other)
            return self._mount.ask(name, line=line)

    with scratch_bench() as bench:
        bench._mount = Liar(bench)
        found: dict[bool, list[str]] = {True: [], False: []}
        for outcome in run_checks(bench):
            found[outcome.fine].append(outcome.check.rule)
            assert outcome.fine or (outcome.seen and outcome.expected)
    assert sum(map(len, found.values())) == len(CHECKS)
    return found


@pytest.mark.mounted
def test_no_check_passes_where_rules_do_nothing(temporary: Path) -> None:
    assert outcomes_with(lambda rule: None)[True] == []


@pytest.mark.mounted
def test_no_check_passes_where_rules_do_something_else(temporary: Path) -> None:
    other = Fail(errno.ESTALE)
    assert outcomes_with(lambda rule: dataclasses.replace(rule, what=other))[True] == []


@pytest.mark.mounted
def test_no_check_of_certain_calls_passes_where_rules_act_one_call_late(temporary: Path) -> None:
    def late(rule: Rule) -> Rule:
        when = rule.when
        last = None if when.last is None else when.last + 1
        every = when.every + 1 if when.every > 1 else 1
        return dataclasses.replace(
            rule, when=dataclasses.replace(when, first=when.first + 1, last=last, every=every)
        )

    by_chance = "write journal 30% seed=7: EIO"
    assert {*outcomes_with(late)[True]} <= {by_chance, "write journal after 50ms: EIO"}


# What it says


@pytest.mark.mounted
def test_all_is_as_promised_and_nothing_is_left_behind(temporary: Path) -> None:
    done = run("selftest")
    assert done.code == FINE, done.text
    assert done.lines[-1] == f"{len(CHECKS)} checks, all as the rules promise"
    assert [line for line in done.lines if not line.startswith("  ")][:-1] == list(TOPICS)
    told = [line for line in done.lines if line.startswith("  ✓ ")]
    assert len(told) == len(CHECKS)
    assert all(check.rule in line for check, line in zip(CHECKS, told, strict=True))
    assert done.error == ""
    assert_nothing_left(temporary)


@pytest.mark.mounted
def test_only_the_named_kinds_are_checked(temporary: Path) -> None:
    done = run("selftest", "--format", "json", "drop", "short")
    found = json.loads(done.text)
    assert done.code == FINE
    assert found["ok"] is True
    assert (found["passed"], found["failed"]) == (len(found["checks"]), 0)
    assert [one["rule"] for one in found["checks"]] == [
        check.rule for check in CHECKS if check.topic in (Topic.DROP, Topic.SHORT)
    ]
    assert {frozenset(one) for one in found["checks"]} == {
        frozenset({"kind", "rule", "ok", "expected", "seen"})
    }
    assert all(one["expected"] is None and one["seen"] for one in found["checks"])
    assert done.error == ""


@pytest.mark.mounted
def test_what_is_not_as_promised_is_told_in_words(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "add", lambda self, line: None)
    done = run("selftest", "torn")
    count = sum(check.topic is Topic.TORN for check in CHECKS)
    assert done.code == DAMAGE
    assert done.lines[-1] == f"{count} checks, {count} NOT AS THE RULES PROMISE"
    assert "✗ write journal: torn prefix 100 " in done.text
    assert "EXPECTED write of 4096 bytes: EIO\n" in done.text
    assert "SEEN write of 4096 bytes: success\n" in done.text
    told = run("selftest", "torn", "--format", "json")
    found = json.loads(told.text)
    assert told.code == DAMAGE
    assert (found["ok"], found["failed"]) == (False, count)
    assert found["checks"][0]["expected"] == "write of 4096 bytes: EIO"
    assert_nothing_left(temporary)


@pytest.mark.mounted
def test_output_that_cannot_take_a_check_mark_gets_words(temporary: Path) -> None:
    done = subprocess.run(
        [*AVCCFS, "selftest", "drop"],
        capture_output=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "TMPDIR": str(temporary)},
    )
    assert b"\n  ok sync journal #1: drop " in done.stdout


def test_unknown_kind_is_wrong_usage() -> None:
    refused = run("selftest", "gremlins")
    assert refused.code == USAGE
    assert "'gremlins' is not one of" in refused.error


# How it ends


@pytest.mark.mounted
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["errno", "stall"])
def test_interrupted_it_leaves_nothing_behind(number: int, moment: str, temporary: Path) -> None:
    with subprocess.Popen(
        [*AVCCFS, "selftest"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != f"{moment}\n":
            assert process.poll() is None
        process.send_signal(number)
        out, error = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert error.strip() == "avccfs: interrupted"
    assert "checks, " not in out
    assert_nothing_left(temporary)


@pytest.mark.mounted
def test_interrupted_in_a_call_that_waits_it_leaves_nothing_behind(temporary: Path) -> None:
    said = []

    def interrupted(bench: Bench) -> None:
        bench.add("sync journal: stall")
        with bench.path(bench.name()).open("wb") as file:
            said.append(bench.start(lambda: os.fsync(file.fileno())))
            assert bench.wait(lambda: bench.stalled() == 1)
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises(KeyboardInterrupt), scratch_bench() as bench:
        interrupted(bench)
    assert said[0].ended
    assert_nothing_left(temporary)


def test_mount_that_cannot_be_made_is_explained(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    refused = run("selftest")
    assert refused.code == FAILED
    assert refused.error == (
        "avccfs: no scratch mount could be made to try faults on: exit status 1\n"
    )
    assert_nothing_left(temporary)


@only_root
def test_machine_without_fuse_is_explained(temporary: Path) -> None:
    # In a /dev of its own, which has no fuse in it.
    script = (
        "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && exec "
        f"{' '.join(AVCCFS)} selftest"
    )
    refused = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert refused.returncode == FAILED
    assert "there is no /dev/fuse on this machine: load the kernel module" in refused.stderr
    assert refused.stdout == ""
    assert_nothing_left(temporary)
