"""`avccfs discard`: the overlay shows its source again, at once and in every cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from avccfs.cli.main import DAMAGE, FAILED, FINE, LOCKED, USAGE
from tests.cli.running import Run, run
from tests.cli.test_commit import has_begun, held, killed_before
from tests.engines import ENGINES, Content, Engine
from tests.fs.waiting import wait_for
from tests.mounting import avccfs, mounted, tree
from tests.overlays import (
    REHEARSED,
    Shown,
    on_terminal,
    rehearse_in,
    rehearse_on,
    shown_by,
    unchanged,
)
from tests.workload import Fill

pytestmark = pytest.mark.mounted

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)


@pytest.fixture(params=["in memory", "in a directory"])
def overlay(request: pytest.FixtureRequest, upper: Path) -> str:
    """The option that makes an overlay."""
    return "--overlay=" if request.param == "in memory" else f"--overlay={upper}"


def sizes_and_times(place: Path) -> dict[str, tuple[int, ...]]:
    """What `stat` says that the kernel may have kept."""
    found: dict[str, tuple[int, ...]] = {}
    for path in (place, *place.rglob("*")):
        told = path.lstat()
        if path.name != "LOCK":
            found[os.fspath(path.relative_to(place))] = (
                *(told.st_mode, told.st_size, told.st_nlink, told.st_mtime_ns),
            )
    return found


# On a mount


def test_source_is_shown_again_at_once(overlay: str, db: Path, mnt: Path) -> None:
    (db / "folder/deep").mkdir(parents=True)
    (db / "folder/deep/file").write_bytes(b"at the bottom")
    (db / "folder/another").write_bytes(b"another")
    before, told = shown_by(db), sizes_and_times(db)
    with unchanged(db), mounted(db, mnt, overlay):
        for turn in range(10):
            assert shown_by(mnt) == before, f"turn {turn}"
            rehearse_on(mnt)
            # Into the caches: what is there, and what is not.
            (mnt / "folder/deep").rename(mnt / "moved")
            (mnt / "folder/another").unlink()
            (mnt / "folder").rmdir()
            (mnt / "000009.ldb").unlink()
            (mnt / "000009.ldb").mkdir()
            (mnt / "MANIFEST-000000").write_bytes(b"other")
            assert len(tree(mnt)) > 5
            assert not (mnt / "folder").exists()
            done = run("discard", "--yes", mnt)
            assert (done.code, done.error) == (FINE, "")
            assert done.text.endswith("The changes are gone.\n")
            assert (mnt / "folder/deep/file").read_bytes() == b"at the bottom"
            assert (mnt / "000009.ldb").is_file()
            assert sizes_and_times(mnt) == told, f"turn {turn}"
        assert run("diff", mnt).text == "no changes\n"
        assert run("discard", "--yes", mnt) == Run(FINE, b"no changes\n", "")
    if overlay != "--overlay=":
        assert run("diff", overlay.partition("=")[2]).text == "no changes\n"


@each_engine
def test_engine_finds_each_time_what_it_found_the_first_time(
    engine: Engine, overlay: str, db: Path, mnt: Path
) -> None:
    shutil.rmtree(db)
    engine.fill(db, Fill(300))
    with unchanged(db), mounted(db, mnt, overlay):
        for turn in range(3):
            with engine.session(mnt) as session:
                session.model.update(Fill(300).items())
                assert session.content() == session.expected()
                session.batch(Fill(300, start=100, seed=f"{turn}").items())
                session.compact()
                if turn == 1:
                    refused = run("discard", "--yes", mnt)
                    assert refused.code == FAILED
                    assert f"(pid {session.pid})" in refused.error
                    assert session.content() == session.expected()
                session.release()
            wait_for(lambda: run("discard", "--yes", mnt).code == FINE)
    assert engine.open(db) == Content.of(Fill(300).items())


def test_what_is_open_and_changed_is_not_pulled_away(overlay: str, db: Path, mnt: Path) -> None:
    with mounted(db, mnt, overlay):
        rehearse_on(mnt)
        (mnt / "000012.log").unlink()
        with (mnt / "sub/file").open() as file:
            done = run("discard", "--yes", mnt)
            assert done.code == FAILED
            assert "sub/file is open" in done.error
            assert file.read() == "new\n"
        assert (mnt / "sub/file").read_text() == "new\n"
        wait_for(lambda: run("discard", "--yes", mnt).code == FINE)
        assert not (mnt / "sub").exists()


def test_what_is_open_and_unchanged_stays_open(overlay: str, db: Path, mnt: Path) -> None:
    content = (db / "000006.log").read_bytes()
    with mounted(db, mnt, overlay), (mnt / "000006.log").open("rb", buffering=0) as file:
        assert file.read(10) == content[:10]
        rehearse_on(mnt)
        assert run("discard", "--yes", mnt).code == FINE
        assert file.read() == content[10:]
        # Its name leads to the same bytes, and from now on to changes that it sees or not, as when
        # a file is replaced; never to a mixture.
        (mnt / "000006.log").write_bytes(b"changed")
        assert os.pread(file.fileno(), 1 << 20, 0) in (content, b"changed")
        assert (mnt / "000006.log").read_bytes() == b"changed"


def test_process_that_works_in_a_folder_of_the_source_goes_on(
    overlay: str, db: Path, mnt: Path
) -> None:
    (db / "folder").mkdir()
    (db / "folder/file").write_bytes(b"here")
    with mounted(db, mnt, overlay):
        script = (
            "cat file && echo changed > file && echo ready && read line && cat file && ls && pwd"
        )
        with subprocess.Popen(
            ["bash", "-c", script],
            cwd=mnt / "folder",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "hereready\n"
            wait_for(lambda: run("discard", "--yes", mnt).code == FINE)
            said, _ = worker.communicate("go\n", timeout=30)
        assert said == f"herefile\n{mnt}/folder\n"


def test_what_was_written_a_moment_ago_does_not_come_back(
    overlay: str, db: Path, mnt: Path
) -> None:
    with unchanged(db), mounted(db, mnt, overlay):
        for _ in range(5):
            with (mnt / "000006.log").open("r+b", buffering=0) as file:
                file.write(b"changed" * 1000)
            (mnt / "fresh").write_bytes(bytes(300_000))
            wait_for(lambda: run("discard", "--yes", mnt).code == FINE)
            assert tree(mnt) == tree(db)


def test_attributes_of_the_directory_itself_come_back(overlay: str, db: Path, mnt: Path) -> None:
    before = db.stat()
    with unchanged(db), mounted(db, mnt, overlay):
        mnt.chmod(0o700)
        os.utime(mnt, ns=(0, 0))
        assert run("discard", "--yes", mnt).code == FINE
        now = mnt.stat()
        assert (now.st_mode, now.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


# The question


def test_question_is_asked_after_the_changes_were_shown(db: Path, mnt: Path) -> None:
    with mounted(db, mnt, "--overlay"):
        rehearse_on(mnt)
        for answer in ("n", ""):
            told = on_terminal(answer, "discard", mnt)
            assert told.code == FINE
            assert REHEARSED in told.said
            assert "Nothing was dropped." in told.said
            assert run("diff", mnt).text == REHEARSED
        done = avccfs("discard", mnt, check=False)
        assert (done.returncode, done.stdout) == (USAGE, REHEARSED)
        assert "--yes" in done.stderr
        assert run("diff", mnt).text == REHEARSED
        told = on_terminal("y", "discard", mnt)
        assert (told.code, "The changes are gone." in told.said) == (FINE, True)
        assert shown_by(mnt) == shown_by(db)


# In a directory


def test_changes_in_a_directory_are_dropped_and_it_can_be_used_again(
    tmp_path: Path, mnt: Path
) -> None:
    source, changes = rehearse_in(tmp_path)
    with unchanged(source):
        done = avccfs("discard", changes, check=False)
        assert (done.returncode, done.stdout) == (USAGE, REHEARSED)
        assert run("diff", changes).text == REHEARSED
        done_now = run("discard", "--yes", changes)
        assert (done_now.code, done_now.error) == (FINE, "")
        assert done_now.text == f"{REHEARSED}The changes are gone.\n"
        assert run("diff", changes).text == "no changes\n"
        assert list((changes / "data").iterdir()) == []
        with mounted(source, mnt, f"--overlay={changes}"):
            assert shown_by(mnt) == shown_by(source)
            rehearse_on(mnt)
        assert run("diff", changes).text == REHEARSED


def test_changes_of_a_source_that_was_changed_can_only_be_dropped(tmp_path: Path) -> None:
    source, changes = rehearse_in(tmp_path)
    (source / "000006.log").write_bytes(b"changed")
    with unchanged(source):
        assert run("commit", "--yes", changes).code == FAILED
        with unchanged(changes):
            done = avccfs("discard", changes, check=False)
            assert done.returncode == USAGE
            assert "000006.log" in done.stderr
        done_now = run("discard", "--yes", changes)
        assert (done_now.code, done_now.text) == (FINE, "The changes are gone.\n")
        assert run("diff", changes).text == "no changes\n"


def test_changes_of_a_source_that_is_gone_can_only_be_dropped(tmp_path: Path) -> None:
    source, changes = rehearse_in(tmp_path)
    source.rename(tmp_path / "elsewhere")
    for command in ("diff", "commit"):
        done = run(command, changes)
        assert done.code == FAILED
        assert str(source) in done.error
        assert f"avccfs discard {changes}" in done.error
    done = run("discard", "--yes", changes)
    assert (done.code, done.text) == (FINE, "The changes are gone.\n")
    assert [path.name for path in changes.iterdir()] == ["LOCK"]


def test_mounted_overlay_is_found_by_its_directory(db: Path, mnt: Path, upper: Path) -> None:
    with unchanged(db), mounted(db, mnt, f"--overlay={upper}"):
        rehearse_on(mnt)
        assert run("diff", upper).text == REHEARSED
        assert run("discard", "--yes", upper).code == FINE
        assert run("diff", mnt).text == "no changes\n"
        assert shown_by(mnt) == shown_by(db)


def test_directory_whose_source_somebody_else_has_mounted_is_left_alone(
    tmp_path: Path, mnt: Path
) -> None:
    source, changes = rehearse_in(tmp_path)
    (source / "LOCK").touch()
    with mounted(source, mnt), unchanged(changes):
        assert run("discard", "--yes", changes).code == LOCKED


def test_directory_that_is_none_of_ours_is_left_alone(db: Path, mnt: Path, upper: Path) -> None:
    with unchanged(db):
        assert run("discard", "--yes", db).code == USAGE
    assert run("discard", "--yes", upper / "missing").code == USAGE
    with mounted(db, mnt):
        assert run("discard", "--yes", mnt).code == USAGE


# After a commit that was stopped


def half_committed(root: Path) -> tuple[Path, Path]:
    """A source and its changes, of which a part has been carried over."""
    for step in range(40, 200):
        source, changes = rehearse_in(root / f"{step}")
        if killed_before(step, "commit", "--yes", changes) and not (source / "LOG").exists():
            assert has_begun(source)
            return source, changes
    raise AssertionError("no step was in the middle of the commit")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    source, changes = rehearse_in(tmp_path_factory.mktemp("result"))
    assert run("commit", "--yes", changes).code == FINE
    return held(source)


def test_changes_that_are_half_committed_are_not_dropped(tmp_path: Path, result: Shown) -> None:
    source, changes = half_committed(tmp_path)
    with unchanged(source):
        done = run("discard", "--yes", changes)
        assert done.code == FAILED
        assert "avccfs commit" in done.error
        done = run("diff", changes)
        assert (done.code, done.text) == (FAILED, "")
        assert f"avccfs commit {changes}" in done.error
    done = run("commit", "--yes", changes)
    assert (done.code, done.error) == (FINE, "")
    assert "stopped halfway" in done.text
    assert held(source) == result


def test_looking_at_a_half_committed_source_says_how_to_finish_it(tmp_path: Path) -> None:
    source, _ = half_committed(tmp_path)
    with unchanged(source):
        done = run("inspect", source)
    assert done.code == DAMAGE
    assert "stopped halfway" in done.text
    assert f"avccfs commit {source}" in done.text
    assert run("commit", source).code == FINE
    assert "avccfs commit" not in run("inspect", source).text


def test_changes_whose_commit_was_finished_from_the_source_are_left_to_be_dropped(
    tmp_path: Path, result: Shown
) -> None:
    source, changes = half_committed(tmp_path)
    done = run("commit", source)
    assert (done.code, done.text) == (
        FINE,
        f"The commit that was stopped in {source} is finished.\n",
    )
    assert held(source) == result
    done = run("diff", changes)
    assert done.code == FAILED
    assert f"avccfs discard {changes}" in done.error
    with unchanged(source):
        assert run("discard", "--yes", changes).code == FINE
        assert run("diff", changes).text == "no changes\n"
