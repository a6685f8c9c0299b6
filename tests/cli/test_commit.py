"""`avccfs commit`: what it shows, asks and refuses; and that any moment of it may be the last."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from avccfs.cli.main import FAILED, FINE, LOCKED, USAGE, main
from avccfs.storage.directory import open_storage
from avccfs.storage.rehearsal import Rehearsal
from tests.cli.running import Run, run
from tests.cli.test_mount import assert_unlocked
from tests.engines import ENGINES, LEVELDB, NEW, Content, Engine, Options
from tests.fs.waiting import wait_for
from tests.mounted.test_kill import answering, is_dead
from tests.mounting import avccfs, mounted, tree
from tests.overlays import (
    REHEARSED,
    SAMPLE,
    SECOND,
    Shown,
    on_terminal,
    rehearse_in,
    rehearse_on,
    shown_by,
    unchanged,
)
from tests.workload import Fill, key_of, mixed_changes, value_of

pytestmark = pytest.mark.mounted

SMALL = Options(create=True, write_buffer=64 << 10, table_size=32 << 10)
READING = Options(read_only=True)

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)


@pytest.fixture(params=["mounted", "mounted with a directory", "in a directory"])
def rehearsed(
    request: pytest.FixtureRequest, db: Path, mnt: Path, upper: Path
) -> Iterator[tuple[Path, Shown]]:
    """What to name to the commands, after `rehearse`, and what the mount showed."""
    if request.param == "mounted":
        with mounted(db, mnt, "--overlay"):
            rehearse_on(mnt)
            yield mnt, shown_by(mnt)
        return
    with mounted(db, mnt, "--overlay", os.fspath(upper)):
        rehearse_on(mnt)
        shown = shown_by(mnt)
        if request.param != "in a directory":
            yield mnt, shown
    if request.param == "in a directory":
        yield upper, shown


# Showing and asking


def test_commit_makes_of_the_source_what_was_shown(
    rehearsed: tuple[Path, Shown], db: Path, mnt: Path
) -> None:
    place, shown = rehearsed
    done = run("commit", "--yes", place)
    assert (done.code, done.error) == (FINE, "")
    assert done.text == f"{REHEARSED}{db} now holds these changes.\n"
    assert shown_by(db) == {**shown, "CURRENT.bak": shown_by(db)["CURRENT.bak"]}
    assert not (db / ".avccfs-commit").exists()
    for command in (("diff", place), ("commit", place), ("commit", "--yes", place)):
        assert run(*command) == Run(FINE, b"no changes\n", "")
    if place == mnt:
        # It goes on showing the same, and on being an overlay.
        assert shown_by(mnt) == shown_by(db)
        with unchanged(db):
            (mnt / "000007.ldb").write_bytes(b"changed again")
            (mnt / "sub/file").unlink()
        assert "2 " not in run("diff", mnt).text.splitlines()[0]
        assert run("commit", "-y", mnt).code == FINE
        assert (db / "000007.ldb").read_bytes() == b"changed again"
        assert not (db / "sub/file").exists()


def test_question_is_asked_after_the_changes_were_shown(
    rehearsed: tuple[Path, Shown], db: Path
) -> None:
    place, shown = rehearsed
    with unchanged(db):
        for answer in ("n", "", "no"):
            told = on_terminal(answer, "commit", place)
            assert told.code == FINE
            assert REHEARSED in told.said
            assert told.said.index(REHEARSED) < told.said.index(f"Carry this into {db}? [y/N]")
            assert "Nothing was changed." in told.said
    assert run("diff", place).text == REHEARSED
    told = on_terminal("y", "commit", place)
    assert told.code == FINE
    assert f"{db} now holds these changes." in told.said
    assert shown_by(db).items() >= shown.items()


def test_question_that_nobody_can_answer_is_an_error(
    rehearsed: tuple[Path, Shown], db: Path
) -> None:
    place, _ = rehearsed
    with unchanged(db):
        done = avccfs("commit", place, check=False)
    assert (done.returncode, done.stdout) == (USAGE, REHEARSED)
    assert "--yes" in done.stderr
    assert run("diff", place).text == REHEARSED


def test_changes_that_are_others_than_those_that_were_shown_are_not_committed(
    db: Path, mnt: Path
) -> None:
    with mounted(db, mnt, "--overlay"):
        rehearse_on(mnt)
        with unchanged(db):
            told = on_terminal(
                "y",
                "commit",
                mnt,
                before_answer=lambda: (mnt / "sub/file").write_text("NEW\n"),
            )
        assert told.code == FAILED
        assert "not those that were shown" in told.said
        # Looked at again, they are.
        assert run("commit", "--yes", mnt).code == FINE
        assert (db / "sub/file").read_text() == "NEW\n"


# Refusing


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDONLY], ids=["to write", "to read"])
def test_changed_file_that_is_open_is_named_with_its_holder(
    flags: int, db: Path, mnt: Path
) -> None:
    with mounted(db, mnt, "--overlay"):
        rehearse_on(mnt)
        code = (
            f"import os, sys; os.open('000007.ldb', {flags}); print(flush=True); sys.stdin.read()"
        )
        with (
            unchanged(db),
            subprocess.Popen(
                ["python3", "-c", code], cwd=mnt, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as holder,
        ):
            assert holder.stdout is not None
            holder.stdout.readline()
            done = run("commit", "--yes", mnt)
            holder.communicate(timeout=30)
        assert done.code == FAILED
        assert "000007.ldb is open" in done.error
        assert f"(pid {holder.pid})" in done.error
        assert f"(pid {os.getpid()})" not in done.error
        wait_for(lambda: run("commit", "--yes", mnt).code == FINE)


def test_unchanged_file_may_stay_open_to_be_read(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--overlay"):
        rehearse_on(mnt)
        content = (db / "000006.log").read_bytes()
        with (mnt / "000006.log").open("rb", buffering=0) as file:
            assert run("commit", "--yes", mnt).code == FINE
            assert file.read() == content
            # A file of the same name that comes later is another one.
            (mnt / "000006.log").unlink()
            (mnt / "000006.log").write_bytes(b"new")
            assert os.pread(file.fileno(), 1 << 20, 0) == content


def test_process_that_works_in_a_folder_goes_on(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--overlay"):
        rehearse_on(mnt)
        script = "cat file && read line && cat file && echo more >> file && echo done"
        with subprocess.Popen(
            ["bash", "-c", script],
            cwd=mnt / "sub",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "new\n"
            assert run("commit", "--yes", mnt).code == FINE
            said, _ = worker.communicate("go\n", timeout=30)
        assert said == "new\ndone\n"
        assert (mnt / "sub/file").read_text() == "new\nmore\n"
        assert (db / "sub/file").read_text() == "new\n"


@each_engine
def test_engine_at_work_is_not_committed_under(engine: Engine, db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--overlay"):
        with engine.session(mnt) as session:
            session.put(b"key", b"value", sync=True)
            with unchanged(db):
                done = run("commit", "--yes", mnt)
            assert done.code == FAILED
            assert f"(pid {session.pid})" in done.error
            # And it goes on working.
            session.put(b"another", b"value", sync=True)
            session.release()
        items = engine.items(mnt)
        wait_for(lambda: run("commit", "--yes", mnt).code == FINE)
    assert engine.items(db) == items
    assert (items[b"key"], items[b"another"]) == (b"value", b"value")


def test_source_that_somebody_reads_is_not_changed(
    rehearsed: tuple[Path, Shown], db: Path, tmp_path: Path
) -> None:
    place, shown = rehearsed
    with mounted(db, tmp_path / "reader", "--read-only") as reader:
        with unchanged(db):
            done = run("commit", "--yes", place)
        assert done.code == LOCKED
        assert str(db) in done.error
        assert f"(pid {reader.pid})" in done.error
        assert run("diff", place).text == REHEARSED
    assert run("commit", "--yes", place).code == FINE
    assert shown_by(db).items() >= shown.items()


def test_nobody_gets_at_the_source_of_a_mount_after_a_commit(
    db: Path, mnt: Path, tmp_path: Path
) -> None:
    with mounted(db, mnt, "--overlay"):
        rehearse_on(mnt)
        assert run("commit", "--yes", mnt).code == FINE
        (tmp_path / "second").mkdir()
        refused = avccfs("mount", db, tmp_path / "second", check=False)
        assert refused.returncode == LOCKED
    assert_unlocked(db)


def test_source_that_was_changed_behind_the_mount_is_not_committed_to(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--overlay"):
        rehearse_on(mnt)
        (db / "stranger").write_text("new")
        with unchanged(db):
            done = run("commit", "--yes", mnt)
        assert done.code == FAILED
        assert "stranger" in done.error


def test_what_is_no_overlay_has_nothing_to_commit(db: Path, mnt: Path, tmp_path: Path) -> None:
    with mounted(db, mnt):
        assert run("commit", "--yes", mnt).code == USAGE
    for place in (db, tmp_path / "missing"):
        assert run("commit", "--yes", place).code == USAGE


def test_read_only_overlay_is_not_emptied(db: Path, mnt: Path, upper: Path) -> None:
    with mounted(db, mnt, "--overlay", os.fspath(upper)):
        rehearse_on(mnt)
    with (
        unchanged(db),
        unchanged(upper),
        mounted(db, mnt, "--read-only", "--overlay", os.fspath(upper)),
    ):
        done = run("commit", "--yes", mnt)
        assert (done.code, done.text) == (FAILED, REHEARSED)
        assert "read-only" in done.error.lower()
        assert run("diff", mnt).text == REHEARSED


# What engines make of it


@each_engine
def test_engine_opens_the_committed_source_as_it_opened_the_overlay(
    engine: Engine, db: Path, mnt: Path, tmp_path: Path
) -> None:
    model: dict[bytes, bytes] = {}
    shutil.rmtree(db)
    engine.fill(db, Fill(300), SMALL)
    model.update(Fill(300).items())
    with mounted(db, mnt, "--overlay"):
        for turn in range(3):
            with engine.session(mnt, SMALL) as session:
                session.model.update(model)
                session.batch(mixed_changes(turn, 500, keys=400, value_size=400))
                session.put(key_of(turn), value_of("once more", turn, 50_000))
                session.compact()
                session.release()
                model = session.model
            wait_for(lambda: run("commit", "--yes", mnt).code == FINE)
            assert tree(db) == tree(mnt)
            copy = Path(shutil.copytree(db, tmp_path / f"copy-{turn}"))
            assert engine.items(copy) == model
        # And on the same mount, after each.
        assert engine.items(mnt) == model
    assert engine.open(db) == Content.of(model.items())


def test_repaired_database_is_carried_over(db: Path, mnt: Path) -> None:
    shutil.rmtree(db)
    LEVELDB.fill(db, Fill(2000), NEW)
    LEVELDB.compact(db)
    (db / "CURRENT").unlink()
    with mounted(db, mnt, "--overlay"):
        LEVELDB.repair(mnt)
        assert LEVELDB.open(mnt) == Content.of(Fill(2000).items())
        wait_for(lambda: run("commit", "--yes", mnt).code == FINE)
        assert tree(db) == tree(mnt)
    assert list((db / "lost").glob("MANIFEST-*"))
    assert LEVELDB.open(db) == Content.of(Fill(2000).items())


# kill -9

EVERY = int(os.environ.get("AVCCFS_KILL_EVERY", "9"))
"""A commit on a mount is killed at every so many-th of its changes."""
CHANGING = (
    *("fsync", "fdatasync", "rename", "replace", "link", "unlink", "symlink", "mkdir", "rmdir"),
    *("ftruncate", "chmod", "chown", "utime"),
)
"""The calls with which the product changes a file system, except for the writing itself."""


def die_before(step: int) -> None:
    """From now on this process is killed as it makes its change number `step`."""
    left = step

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def instead(*args: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **named)

        return instead

    for name in CHANGING:
        setattr(os, name, counted(getattr(os, name)))


def forked(work: Callable[[], object]) -> int:
    """Do something in another process, which says nothing."""
    child = os.fork()
    if child == 0:
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nowhere, standard)
            work()
        finally:
            os._exit(1)
    return child


def was_killed(child: int) -> bool:
    """Wait for the end of a process; whether it was killed, and not done."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFSIGNALED(status)


def killed_before(step: int, *arguments: str | Path) -> bool:
    """Whether a command was killed before its change number `step`, and not done before that."""

    def work() -> None:
        die_before(step)
        main([os.fspath(each) for each in arguments])

    return was_killed(forked(work))


def has_begun(source: Path) -> bool:
    return (source / ".avccfs-commit/plan.json").exists()


def held(place: Path) -> Shown:
    """What `shown_by` says, without times."""
    return {name: (*told[:3], *told[4:]) for name, told in shown_by(place).items()}


def state_of(source: Path) -> str:
    """How far a commit has come."""
    if has_begun(source):
        return "begun"
    now = {name: held for name, held in tree(source).items() if ".avccfs-commit" not in name}
    return "before" if now == tree(SAMPLE) else "after"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """What the source holds after a commit of `rehearse` that nobody stopped."""
    source, changes = rehearse_in(tmp_path_factory.mktemp("result"))
    assert run("commit", "--yes", changes).code == FINE
    return held(source)


def test_commit_from_a_directory_may_be_killed_at_any_change(tmp_path: Path, result: Shown) -> None:
    states = []
    for step in range(1, 1000):
        source, changes = rehearse_in(tmp_path / f"{step}")
        killed = killed_before(step, "commit", "--yes", changes)
        states.append(state_of(source))
        with open_storage(source, read_only=True) as storage:
            assert str(storage.get_meta()) == SECOND
        again = run("commit", "--yes", changes)
        assert again.code == FINE, (step, again)
        assert held(source) == result, f"step {step}"
        assert run("diff", changes).text == "no changes\n", f"step {step}"
        if not killed:
            break
    assert not killed, "the commit never came to its end"
    assert list(dict.fromkeys(states)) == ["before", "begun", "after"]


@contextlib.contextmanager
def dies_committing(step: int, source: Path, mnt: Path, *options: str) -> Iterator[None]:
    """A mount that is killed before change number `step` of the first commit it is asked for."""

    def work() -> None:
        commit = Rehearsal.commit

        def armed(*arguments: Any, **named: Any) -> None:
            die_before(step)
            commit(*arguments, **named)

        Rehearsal.commit = armed  # type: ignore[method-assign]
        main(["mount", "-f", *options, os.fspath(source), os.fspath(mnt)])

    child = forked(work)
    try:
        wait_for(lambda: answering(mnt) == child)
        yield
    finally:
        if is_dead(mnt) or mnt.is_mount():
            avccfs("umount", mnt)
        os.waitpid(child, 0)


def test_mount_with_a_directory_may_be_killed_at_any_change_of_a_commit(
    tmp_path: Path, mnt: Path, result: Shown
) -> None:
    states = []
    for step in range(1, 1000, EVERY):
        source, changes = rehearse_in(tmp_path / f"{step}")
        with dies_committing(step, source, mnt, f"--overlay={changes}"):
            done = run("commit", "--yes", mnt)
            killed = is_dead(mnt)
        assert (done.code, "the mount" in done.error) == (
            (FAILED, True) if killed else (FINE, False)
        )
        states.append(state_of(source))
        if states[-1] == "begun":
            for words in ((), (f"--overlay={changes}",)):
                refused = avccfs("mount", *words, source, mnt, check=False)
                assert refused.returncode == FAILED
                assert "Finish it: avccfs commit" in refused.stderr
        assert run("commit", "--yes", changes).code == FINE, f"step {step}"
        assert held(source) == result, f"step {step}"
        if not killed:
            break
    assert not killed, "the commit never came to its end"
    assert list(dict.fromkeys(states)) == ["before", "begun", "after"]


def test_mount_in_memory_may_be_killed_at_any_change_of_a_commit(
    tmp_path: Path, mnt: Path, result: Shown
) -> None:
    before = tree(SAMPLE)
    states = []
    for step in range(1, 1000, EVERY):
        source = Path(shutil.copytree(SAMPLE, tmp_path / f"{step}"))
        with dies_committing(step, source, mnt, "--overlay"):
            rehearse_on(mnt)
            done = run("commit", "--yes", mnt)
            killed = is_dead(mnt)
        assert done.code == (FAILED if killed else FINE)
        states.append(state_of(source))
        if (source / ".avccfs-commit").exists():
            finished = run("commit", source)
            assert finished.code == FINE
            assert ("is finished" in finished.text) == (states[-1] == "begun"), f"step {step}"
        # Not begun, the changes are gone with the mount, and the source is as it was.
        if states[-1] == "before":
            assert tree(source) == before, f"step {step}"
        else:
            assert held(source) == result, f"step {step}"
        if not killed:
            break
    assert not killed, "the commit never came to its end"
    assert list(dict.fromkeys(states)) == ["before", "begun", "after"]
