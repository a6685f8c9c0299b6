"""CURRENT and its kin: what the engines answer, how a switch leaves the files, what may fail."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.format.filename import FileDesc, Kind
from avccfs.storage.explain import Outcome, Verdict
from avccfs.storage.meta import adopt_meta, check_meta, explain_meta, get_meta, set_meta
from avccfs.vfs.base import Directory, Open
from avccfs.vfs.fault import ALL_OPS, Always, FaultDirectory, FaultPlan, Op, Pair
from avccfs.vfs.memory import MemoryDirectory
from tests.storage.backends import Backend, get, manifest, put, tree

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/expect.json"))


def ignore(_: str) -> None:
    """A log nobody reads."""


def content(number: int) -> bytes:
    return f"MANIFEST-{number:06d}\n".encode()


def directory_with(files: dict[str, bytes], *manifests: int) -> MemoryDirectory:
    made = MemoryDirectory()
    for number in manifests:
        put(made, str(manifest(number)), b"records")
    for name, data in files.items():
        put(made, name, data)
    return made


def family(directory: Directory) -> dict[str, bytes]:
    """CURRENT and its kin."""
    return {n: get(directory, n) for n in directory.names() if n.startswith("CURRENT")}


# What the engines answered


def load(backend: Backend, fixture: str) -> dict[str, bytes]:
    files = {f.name: f.read_bytes() for f in (FIXTURES / fixture / "db").iterdir()}
    for name, data in files.items():
        put(backend.directory, name, data)
    return files


def answer(call: Callable[[], FileDesc]) -> str:
    """What a call answers, in the words of the fixtures."""
    try:
        return str(call())
    except FileNotFoundError:
        return "file does not exist"
    except errors.MetaError:
        return "leveldb/storage: corrupted or incomplete CURRENT file"


@pytest.mark.parametrize("fixture", NAMES)
@pytest.mark.parametrize("where", ["local", "memory-directory-faults"])
def test_get_meta_answers_as_goleveldb_did(where: str, fixture: str, tmp_path: Path) -> None:
    told = json.loads((FIXTURES / fixture / "expect.json").read_text())["get_meta"]
    expected = told.get("meta") or told["error"]
    backend = Backend(where, tmp_path)
    before = load(backend, fixture)

    reading = backend.file_storage(read_only=True)
    assert answer(reading.get_meta) == expected
    report = reading.explain_meta()
    assert answer(report.result) == expected
    assert str(report.winner.target if report.winner else None) == told.get("meta", "None")
    reading.close()
    assert tree(backend.directory) == before

    writing = backend.file_storage()
    assert answer(writing.explain_meta().result) == expected
    assert tree(backend.directory) == before
    assert answer(writing.get_meta) == expected
    if "meta" in told:
        after = {f"{name}={data.decode()}" for name, data in family(backend.directory).items()}
        assert after == set(told["meta_files_after_rw_get"])
        assert answer(writing.get_meta) == expected
        assert not writing.explain_meta().untidy
    else:
        kin = {name: data for name, data in before.items() if name.startswith("CURRENT")}
        assert family(backend.directory) == kin
    backend.close()


def test_there_are_fixtures() -> None:
    assert len(NAMES) >= 30


def test_tables_of_a_database_with_old_names_are_found(tmp_path: Path) -> None:
    backend = Backend("local", tmp_path)
    files = load(backend, "goleveldb-old-sst-names")
    with backend.file_storage(read_only=True) as storage:
        tables = storage.list(Kind.TABLE)
        assert [str(desc) for desc in tables] == ["000003.ldb", "000005.ldb", "000007.ldb"]
        for desc in tables:
            reader = storage.open(desc)
            assert reader.read() == files[f"{desc.number:06d}.sst"]
            reader.close()
    backend.close()


# The explanation


def test_the_explanation_says_of_every_file_why_it_lost() -> None:
    directory = directory_with(
        {
            "CURRENT": content(5),
            "CURRENT.bak": content(3),
            "CURRENT.12": b"MANIFEST-0000",
            "CURRENT.9": content(9),
            "CURRENT.5": content(3),
            "CURRENT.4": content(5),
            "CURRENT.04": content(5),
        },
        3,
        5,
    )
    report = explain_meta(directory)
    assert [(c.name, c.verdict, c.outcome) for c in report.candidates] == [
        ("CURRENT.12", Verdict.CORRUPTED, Outcome.NOT_GOOD),
        ("CURRENT.9", Verdict.TARGET_MISSING, Outcome.NOT_GOOD),
        ("CURRENT.5", Verdict.GOOD, Outcome.NOT_NEWER),
        ("CURRENT.4", Verdict.GOOD, Outcome.BEHIND),
        ("CURRENT", Verdict.GOOD, Outcome.WINS),
        ("CURRENT.bak", Verdict.GOOD, Outcome.BEHIND),
    ]
    assert report.winner is report.candidate("CURRENT")
    assert report.untidy
    assert report.manifests == (manifest(3), manifest(5))
    findings = [c.finding for c in report.candidates]
    assert findings[0] == "CURRENT.12 is corrupted: 'MANIFEST-0000' (no newline at the end)"
    assert findings[1] == "CURRENT.9 names MANIFEST-000009, which does not exist"
    assert findings[4] == "CURRENT names MANIFEST-000005: wins"


def test_a_pending_file_wins_by_number_or_for_lack_of_others() -> None:
    newer = {"CURRENT": content(5), "CURRENT.9": content(9)}
    report = explain_meta(directory_with(newer, 5, 9))
    assert [c.outcome for c in report.candidates] == [Outcome.WINS, Outcome.OLDER]
    alone = {"CURRENT": b"", "CURRENT.bak": content(8), "CURRENT.3": content(3)}
    report = explain_meta(directory_with(alone, 3))
    assert [c.outcome for c in report.candidates] == [
        Outcome.WINS,
        Outcome.NOT_GOOD,
        Outcome.NOT_GOOD,
    ]


def test_not_found_and_corrupted_say_what_is_there() -> None:
    directory = directory_with({"CURRENT": content(7)}, 3)
    with pytest.raises(
        FileNotFoundError,
        match=r"CURRENT names MANIFEST-000007, which does not exist\. Manifests here: MANIFEST-0+3",
    ):
        get_meta(directory, ignore, tidy=True)
    directory = directory_with({"CURRENT": content(7), "CURRENT.bak": b"\0" * 200})
    with pytest.raises(errors.MetaError, match=r"CURRENT\.bak is corrupted.*no manifest") as caught:
        get_meta(directory, ignore, tidy=True)
    assert caught.value.file == "CURRENT.bak"
    assert len(str(caught.value)) < 500
    with pytest.raises(FileNotFoundError, match="there is no CURRENT file"):
        get_meta(directory_with({}), ignore, tidy=True)


def test_a_huge_meta_file_is_corrupted_and_not_read_whole() -> None:
    plan = FaultPlan()
    directory = FaultDirectory(directory_with({}, 3), plan)
    file = directory.open("CURRENT", Open.WRITE | Open.CREATE)
    file.truncate(1 << 40)
    file.close()
    with pytest.raises(errors.MetaError):
        get_meta(directory, ignore, tidy=True)
    assert plan.bytes(Op.READ) < 1 << 20


# Errors that end the search


def test_an_unreadable_file_ends_the_search_with_its_own_error() -> None:
    directory = directory_with({"CURRENT": content(3)}, 3)
    directory.mkdir("CURRENT.7")
    before = family_names(directory)
    with pytest.raises(IsADirectoryError) as caught:
        get_meta(directory, ignore, tidy=True)
    assert caught.value.filename == "CURRENT.7"
    assert family_names(directory) == before
    report = explain_meta(directory)
    assert report.blocked_by is report.candidates[0]
    assert [c.outcome for c in report.candidates] == [Outcome.NOT_GOOD, Outcome.SEARCH_ENDED]
    with pytest.raises(IsADirectoryError):
        set_meta(directory, manifest(3), ignore)


def family_names(directory: Directory) -> list[str]:
    return sorted(n for n in directory.names() if n.startswith("CURRENT"))


def test_an_unreadable_file_behind_a_good_one_is_not_looked_at() -> None:
    directory = directory_with({"CURRENT": content(3), "CURRENT.9": content(5)}, 3, 5)
    directory.mkdir("CURRENT.7")
    directory.mkdir("CURRENT.bak")
    said: list[str] = []
    assert get_meta(directory, said.append, tidy=True) == manifest(5)
    assert any("stay as they are" in line and "CURRENT.7" in line for line in said)


def test_a_target_that_cannot_be_looked_at_is_unreadable() -> None:
    plan = FaultPlan()
    directory = FaultDirectory(directory_with({"CURRENT": content(3)}, 3), plan)
    plan.fail(Op.STAT, Kind.MANIFEST, Always(), error=errno.EACCES)
    with pytest.raises(PermissionError):
        get_meta(directory, ignore, tidy=True)
    assert explain_meta(directory).candidates[0].verdict is Verdict.UNREADABLE


# What a switch leaves behind


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"CURRENT": content(5)}),
        (
            {"CURRENT": content(3)},
            {"CURRENT": content(5), "CURRENT.bak": content(3)},
        ),
        (
            {"CURRENT": content(3), "CURRENT.bak": b"whatever was here"},
            {"CURRENT": content(5), "CURRENT.bak": content(3)},
        ),
        # A bad CURRENT is kept too, for whoever wants to know what happened.
        (
            {"CURRENT": b"\0\0\0", "CURRENT.bak": content(3)},
            {"CURRENT": content(5), "CURRENT.bak": b"\0\0\0"},
        ),
        ({"CURRENT.bak": content(3)}, {"CURRENT": content(5), "CURRENT.bak": content(3)}),
        # Nothing changes if CURRENT names it already ...
        (
            {"CURRENT": content(5), "CURRENT.bak": content(3), "CURRENT.4": content(3)},
            {"CURRENT": content(5), "CURRENT.bak": content(3), "CURRENT.4": content(3)},
        ),
        # ... but for pending files that would win over it.
        (
            {"CURRENT": content(5), "CURRENT.4": content(8), "CURRENT.7": content(7)},
            {"CURRENT": content(5)},
        ),
        # The unfinished switch to the same manifest is finished.
        (
            {"CURRENT": content(3), "CURRENT.5": content(5)},
            {"CURRENT": content(5), "CURRENT.bak": content(3)},
        ),
        # A pending file of that number but with another content is not overwritten.
        (
            {"CURRENT": content(3), "CURRENT.5": b"MANIF"},
            {"CURRENT": content(5), "CURRENT.bak": content(3), "CURRENT.5": b"MANIF"},
        ),
        # A step back, past a pending file that would have won.
        (
            {"CURRENT": content(7), "CURRENT.8": content(8)},
            {"CURRENT": content(5), "CURRENT.bak": content(7)},
        ),
    ],
)
def test_the_files_after_a_switch(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    directory = directory_with(before, 3, 5, 7, 8)
    set_meta(directory, manifest(5), ignore)
    assert family(directory) == after
    assert get_meta(directory, ignore, tidy=False) == manifest(5)
    assert set(directory.names()) == {*after, *(str(manifest(n)) for n in (3, 5, 7, 8))}


def test_a_step_back_writes_no_pending_file_that_could_hide_the_deciding_one() -> None:
    plan = FaultPlan()
    inner = directory_with({"CURRENT": content(7), "CURRENT.1": content(8)}, 5, 7, 8)
    directory = FaultDirectory(inner, plan)
    plan.fail(Op.RENAME)
    with pytest.raises(OSError, match=r"000005\.dbtmp"):
        set_meta(directory, manifest(5), ignore)
    assert plan.count(Op.CREATE, Kind.META) == 1  # CURRENT.bak
    assert get_meta(inner, ignore, tidy=False) == manifest(8)
    set_meta(directory, manifest(5), ignore)
    assert family(inner) == {"CURRENT": content(5), "CURRENT.bak": content(7)}


def test_a_hard_linked_copy_of_the_directory_keeps_its_files() -> None:
    directory = directory_with({"CURRENT": content(3), "CURRENT.bak": content(2)}, 2, 3, 5)
    directory.mkdir("snapshot")
    for name in ("CURRENT", "CURRENT.bak"):
        directory.link(name, f"snapshot/{name}")
    set_meta(directory, manifest(5), ignore)
    assert get(directory, "snapshot/CURRENT") == content(3)
    assert get(directory, "snapshot/CURRENT.bak") == content(2)


def test_a_switch_to_what_does_not_exist_or_cannot_be_opened_changes_nothing() -> None:
    directory = directory_with({"CURRENT": content(3)}, 3)
    directory.mkdir("MANIFEST-000006")
    with pytest.raises(FileNotFoundError, match=r"MANIFEST-000005 does not exist") as caught:
        set_meta(directory, manifest(5), ignore)
    assert caught.value.filename == "MANIFEST-000005"
    assert "CURRENT is as it was" in caught.value.__notes__[0]
    with pytest.raises(IsADirectoryError):
        set_meta(directory, manifest(6), ignore)
    assert family(directory) == {"CURRENT": content(3)}


# Failure of any step


class Nth:
    """The n-th operation of any kind fails, counted from 0; and all after it, if `lasting`."""

    def __init__(self, n: int, *, lasting: bool) -> None:
        self.left = n
        self.lasting = lasting
        self.fired = False

    def decisions(self, pair: Pair) -> Iterator[bool]:
        while True:
            self.left -= 1
            hit = self.left == -1 or (self.lasting and self.left < 0)
            self.fired = self.fired or hit
            yield hit


STARTS: dict[str, dict[str, bytes]] = {
    "nothing": {},
    "good": {"CURRENT": content(3)},
    "good with bak": {"CURRENT": content(3), "CURRENT.bak": content(2)},
    "held already": {"CURRENT": content(5), "CURRENT.bak": content(3), "CURRENT.9": content(8)},
    "empty with bak": {"CURRENT": b"", "CURRENT.bak": content(3)},
    "dangling with bak": {"CURRENT": content(99), "CURRENT.bak": content(3)},
    "bak only": {"CURRENT.bak": content(3)},
    "unfinished": {"CURRENT": content(3), "CURRENT.5": content(5)},
    "other unfinished": {"CURRENT": content(3), "CURRENT.8": content(8), "CURRENT.5": b"x"},
    "step back": {"CURRENT": content(7), "CURRENT.8": content(8), "CURRENT.6": content(7)},
    "stale pending": {"CURRENT": content(8), "CURRENT.7": content(7), "CURRENT.2": content(8)},
}

ACTIONS: dict[str, Callable[[Directory], object]] = {
    "set": lambda d: set_meta(d, manifest(5), ignore),
    "adopt a file": lambda d: adopt_meta(d, "lost/x", ignore),
    "adopt bak": lambda d: adopt_meta(d, "CURRENT.bak", ignore),
    "adopt the pending file": lambda d: adopt_meta(d, "CURRENT.5", ignore),
}

SOURCES = {"adopt bak": "CURRENT.bak", "adopt the pending file": "CURRENT.5"}


def live(directory: Directory) -> FileDesc | None:
    winner = explain_meta(directory).winner
    return None if winner is None else winner.target


def outcome(act: Callable[[Directory], object], directory: Directory) -> OSError | None:
    try:
        act(directory)
    except OSError as error:
        return error
    return None


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("start", STARTS)
def test_whatever_operation_fails_the_answer_is_the_old_or_the_new_one(
    start: str, action: str, lasting: bool
) -> None:
    for n in itertools.count():
        inner = directory_with(STARTS[start], 2, 3, 5, 7, 8)
        inner.mkdir("lost")
        put(inner, "lost/x", content(5))
        if action in SOURCES:
            put(inner, SOURCES[action], content(5))
        old = live(inner)
        before = set(inner.names())
        plan = FaultPlan()
        nth = Nth(n, lasting=lasting)
        plan.fail(ALL_OPS, how=nth)
        error = outcome(ACTIONS[action], FaultDirectory(inner, plan))
        assert live(inner) in (old, manifest(5)), f"operation {n}"
        if error is None:
            assert live(inner) == manifest(5), f"operation {n}"
            if not nth.fired:
                break
        else:
            assert error.errno == errno.EIO
            notes = getattr(error, "__notes__", [])
            if not lasting and not any("had been switched" in note for note in notes):
                assert set(inner.names()) <= before | {"CURRENT.bak"}, f"operation {n}"
        # And nothing stands in the way of doing it again.
        set_meta(inner, manifest(5), ignore)
        assert get_meta(inner, ignore, tidy=True) == manifest(5)
        assert not explain_meta(inner).untidy
    assert n > 5


@pytest.mark.parametrize("start", STARTS)
def test_whatever_operation_fails_while_tidying_the_answer_stands(start: str) -> None:
    reference = directory_with(STARTS[start], 2, 3, 5, 7, 8)
    expected = live(reference)
    reading = FaultPlan()
    explain_meta(FaultDirectory(reference, reading))
    reads = reading.count()
    for n in itertools.count(reads):
        inner = directory_with(STARTS[start], 2, 3, 5, 7, 8)
        plan = FaultPlan()
        nth = Nth(n, lasting=False)
        plan.fail(ALL_OPS, how=nth)
        said: list[str] = []
        if expected is None:
            with pytest.raises((errors.MetaError, FileNotFoundError)):
                get_meta(FaultDirectory(inner, plan), said.append, tidy=True)
        else:
            assert get_meta(FaultDirectory(inner, plan), said.append, tidy=True) == expected
        assert live(inner) == expected
        if not nth.fired:
            break
        assert any("Input/output error" in line for line in said) or not explain_meta(inner).untidy


def test_an_error_says_which_step_failed() -> None:
    plan = FaultPlan()
    directory = FaultDirectory(directory_with({"CURRENT": content(3)}, 3, 5), plan)
    plan.fail(Op.RENAME, error=errno.ENOSPC)
    with pytest.raises(OSError, match="No space left") as caught:
        set_meta(directory, manifest(5), ignore)
    assert caught.value.__notes__ == [
        "mem:: making MANIFEST-000005 the live manifest failed while renaming CURRENT.5 onto "
        "CURRENT; CURRENT is as it was"
    ]
    plan.fail(Op.SYNC_DIR, how=After(3))
    with pytest.raises(OSError, match="Input/output") as caught:
        set_meta(directory, manifest(5), ignore)
    assert "CURRENT had been switched" in caught.value.__notes__[0]


class After:
    """The call after so many."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def decisions(self, pair: Pair) -> Iterator[bool]:
        return iter([False] * self.calls + [True])


# check_meta


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (b"", "nothing"),
        (b"MANIFEST-000005", "no newline at the end"),
        (b"MANIFEST-000005\r\n", r"'MANIFEST-000005\\r\\n'"),
        (b"MANIFEST-000005\n\n", "MANIFEST"),
        (b"MANIFEST-5\n", "MANIFEST-5"),
        (b"000005.ldb\n", "000005"),
        (b" MANIFEST-000005\n", " MANIFEST"),
        (b"\xff" * 1000 + b"\n", r"1001 bytes"),
    ],
)
def test_what_does_not_name_a_manifest_is_refused_with_what_was_found(
    bad: bytes, found: str
) -> None:
    directory = directory_with({}, 5)
    put(directory, "000005.ldb")
    with pytest.raises(errors.MetaError, match=found) as caught:
        check_meta(directory, bad)
    assert caught.value.file == "CURRENT"
    assert "expected the name of a manifest and one newline" in str(caught.value)
    assert "Manifests here: MANIFEST-000005." in str(caught.value)
    assert len(str(caught.value)) < 350


def test_a_manifest_that_exists_is_accepted_and_one_that_does_not_is_not_found() -> None:
    directory = directory_with({}, *range(1, 9))
    assert check_meta(directory, content(5)) == manifest(5)
    with pytest.raises(FileNotFoundError, match="MANIFEST-000010 does not exist") as caught:
        check_meta(directory, content(10))
    assert "MANIFEST-000008 and 3 with lower numbers" in str(caught.value)


# adopt_meta


@pytest.mark.parametrize("source", ["x", "lost/CURRENT", "000005.dbtmp", "CURRENT.5", "CURRENT.99"])
def test_an_adopted_file_becomes_current_and_its_name_is_gone(source: str) -> None:
    directory = directory_with({"CURRENT": content(3)}, 3, 5)
    directory.mkdir("lost")
    put(directory, source, content(5))
    inode = directory.stat(source).inode
    assert adopt_meta(directory, source, ignore) == manifest(5)
    assert directory.stat("CURRENT").inode == inode
    assert family(directory) == {"CURRENT": content(5), "CURRENT.bak": content(3)}
    assert set(directory.names()) == {
        "CURRENT",
        "CURRENT.bak",
        "MANIFEST-000003",
        "MANIFEST-000005",
        "lost",
    }
    assert directory.names("lost") == []


def test_a_file_with_the_content_of_current_is_adopted_all_the_same() -> None:
    directory = directory_with({"CURRENT": content(3), "x": content(3)}, 3)
    inode = directory.stat("x").inode
    adopt_meta(directory, "x", ignore)
    assert directory.stat("CURRENT").inode == inode
    assert "x" not in directory.names()


def test_adopting_current_itself_keeps_it() -> None:
    directory = directory_with({"CURRENT": content(3)}, 3)
    assert adopt_meta(directory, "CURRENT", ignore) == manifest(3)
    assert family(directory) == {"CURRENT": content(3)}


def test_adopting_bak_leaves_no_bak() -> None:
    directory = directory_with({"CURRENT": content(5), "CURRENT.bak": content(3)}, 3, 5)
    assert adopt_meta(directory, "CURRENT.bak", ignore) == manifest(3)
    assert family(directory) == {"CURRENT": content(3)}


def test_an_exchange_swaps_the_files() -> None:
    directory = directory_with({"CURRENT": content(3), "x": content(5)}, 3, 5)
    adopt_meta(directory, "x", ignore, exchange=True)
    assert tree(directory, but=frozenset({"MANIFEST-000003", "MANIFEST-000005"})) == {
        "CURRENT": content(5),
        "CURRENT.bak": content(3),
        "x": content(3),
    }


def test_an_exchange_that_could_not_take_effect_is_refused() -> None:
    files = {"CURRENT": content(5), "CURRENT.2": content(3)}
    directory = directory_with(files, 3, 5)
    with pytest.raises(errors.MetaError, match=r"wins over CURRENT"):
        adopt_meta(directory, "CURRENT.2", ignore, exchange=True)
    assert family(directory) == files
    directory = directory_with({"x": content(5)}, 5)
    with pytest.raises(FileNotFoundError, match="no CURRENT to exchange with"):
        adopt_meta(directory, "x", ignore, exchange=True)
    assert directory.names().count("x") == 1


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("absent", FileNotFoundError),
        ("torn", errors.MetaError),
        ("table", errors.MetaError),
        ("dangling", FileNotFoundError),
        ("folder", IsADirectoryError),
        ("symlink", OSError),
        ("MANIFEST-000005", errors.MetaError),
    ],
)
def test_what_may_not_become_current_is_refused_and_stays(
    source: str, error: type[Exception]
) -> None:
    directory = directory_with(
        {
            "CURRENT": content(3),
            "torn": b"MANIFEST-00",
            "table": b"000007.ldb\n",
            "000007.ldb": b"",
            "dangling": content(9),
            "MANIFEST-000005": content(5),
        },
        3,
    )
    directory.mkdir("folder")
    directory.symlink("symlink", "CURRENT")
    before = set(directory.names())
    with pytest.raises(error):
        adopt_meta(directory, source, ignore)
    assert set(directory.names()) == before
    assert family(directory) == {"CURRENT": content(3)}
