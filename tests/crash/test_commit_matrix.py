"""The crash matrix of a commit: every step, every state that the disk may be found in.

In every state the database is the old one or the new one, with every file that its manifest needs,
and running the commit again ends in what the overlay showed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import plyvel
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avccfs.crash.image import CrashImage
from avccfs.crash.model import WEAKEST, Profile
from avccfs.crash.states import State, reachable
from avccfs.crash.trace import Trace, record
from avccfs.crash.versions import Granularity
from avccfs.errors import AvccfsError, CommitError
from avccfs.format.filename import (
    CURRENT,
    CURRENT_BAK,
    LOG,
    FileDesc,
    Kind,
    name_of,
)
from avccfs.format.manifest import AddedTable, SessionRecord
from avccfs.session.session import Session
from avccfs.storage.commit import commit, resume, unfinished
from avccfs.storage.directory import DirectoryStorage
from avccfs.storage.explain import explain_meta
from avccfs.vfs.base import Directory, Rename
from avccfs.vfs.differences import differences
from avccfs.vfs.layered import COMMIT_FOLDER
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.recorder import Link, Move, Operation
from avccfs.vfs.snapshot import contents, take
from tests.crash.matrix import restored
from tests.vfs.laid import Laid, copy_all, holding, read, replace, tree, write
from tests.vfs.test_differences import STEPS, do

FIXTURES = Path(__file__).parent.parent / "fixtures"
WHOLE = Granularity(every_byte_up_to=0, most_tears=0)
"""Writes are kept or lost, but never torn: whatever is torn here was never synced, nor named."""
JOURNALED = Profile(atomic_rename=True)
"""Still weaker than any journaling file system in everything else."""

Files = Mapping[str, bytes]


def database(directory: Directory) -> Files:
    """The live manifest and what it needs, as an opening finds it; empty where there is none."""
    winner = explain_meta(directory).winner
    if winner is None or winner.target is None:
        return {}
    copy = MemoryDirectory()
    copy_all(directory, copy)
    with DirectoryStorage(copy, write_log=False) as storage, Session(storage) as session:
        try:
            session.recover()
        except (FileNotFoundError, AvccfsError):
            # Made up, or damaged: then the manifest itself is all that can be asked for.
            return {name_of(winner.target): read(directory, name_of(winner.target))}
        state = session.state
        needed = [winner.target, *(FileDesc(each.number, Kind.TABLE) for each in state.tables())]
        oldest = state.journal_number or 0
        needed += [each for each in storage.list(Kind.JOURNAL) if each.number >= oldest]
    names = set(directory.names())
    return {
        name_of(each): read(directory, name_of(each)) if name_of(each) in names else b"MISSING"
        for each in needed
    }


def holds(directory: Directory, wanted: Files) -> bool:
    """Whether the live manifest is that of `wanted`, and all that it needs is there."""
    winner = explain_meta(directory).winner
    if winner is None or winner.target is None:
        return not wanted
    if name_of(winner.target) not in wanted:
        return False
    names = set(directory.names())
    return all(name in names and read(directory, name) == wanted[name] for name in wanted)


@dataclass
class Recorded:
    """A commit on a recorded directory."""

    view: Laid
    profile: Profile = WEAKEST
    trace: Trace = field(init=False)
    old: Files = field(init=False)
    new: Files = field(init=False)
    settled: int = field(init=False, default=0)
    """The position at which the overlay was told to forget its changes."""

    def __post_init__(self) -> None:
        source = MemoryDirectory()
        copy_all(self.view.lower, source)
        self.old, self.new = database(source), database(self.view)
        recorder, self.trace = record(source, leave_out=("LOCK",))

        def settle() -> None:
            self.settled = self.trace.mark("the overlay has forgotten its changes")

        commit(self.view, recorder, differences(self.view), settled=settle)
        self.trace.mark("the commit returned")
        self.wanted = tree(self.view, attributes=False)
        assert tree(source, attributes=False) == self.wanted

    def states(self) -> Iterator[State]:
        """Each directory once before the overlay has forgotten its changes, and once after."""
        told: set[tuple[bytes, bool]] = set()
        for point in reachable(self.trace, self.profile, WHOLE):
            for state in point:
                key = state.digest, state.position >= self.settled
                if key not in told:
                    told.add(key)
                    yield state

    def finished(self, state: State) -> Directory:
        """The directory after the commit was run again."""
        source = restored(state.snapshot())
        left = unfinished(source)
        if left is not None and left.durable:
            resume(source, settled=lambda: None)
        else:
            view = Laid(source) if state.position >= self.settled else self.view
            commit(view, source, differences(view), settled=lambda: None)
        return source

    def demand_all(self, *, whole: bool = True) -> int:
        """Look at every state; how many there were. With `whole` the database is never broken."""
        count = 0
        for state in self.states():
            count += 1
            image = CrashImage(state.snapshot())
            if whole:
                begun = unfinished(image)
                sound = holds(image, self.new) or holds(image, self.old)
                assert sound, f"{state.describe(self.trace)}\nneither the old database nor the new"
                if begun is not None and not begun.durable and state.position < self.settled:
                    assert holds(image, self.old), state.describe(self.trace)
            again = tree(self.finished(state), attributes=False)
            assert again == self.wanted, state.describe(self.trace)
        return count


def engine_worked(fixture: str, tmp_path: Path) -> Laid:
    """A view in which LevelDB has opened the database of a fixture, and written to it."""
    old, new = FIXTURES / fixture / "db", tmp_path / "db"
    shutil.copytree(old, new)
    with closing(plyvel.DB(str(new), create_if_missing=False)) as engine:
        engine.put(b"a new key", b"and its value")
    return became(old, new)


def became(old: Path, new: Path) -> Laid:
    lower = MemoryDirectory()
    with closing(LocalDirectory(old, read_only=True)) as there:
        copy_all(there, lower)
    view = Laid(lower)
    with closing(LocalDirectory(new, read_only=True)) as there:
        after = contents(take(there, leave_out=("LOCK",)))
    for name in set(contents(take(lower, leave_out=("LOCK",)))) - set(after):
        view.remove(name)
    for name, content in after.items():
        if name not in lower.names() or read(lower, name) != content:
            replace(view, name, content)
    return view


class TestDatabases:
    @pytest.mark.parametrize("fixture", ["leveldb-closed", "leveldb-killed"])
    def test_an_engine_opened_it_and_wrote(self, fixture: str, tmp_path: Path) -> None:
        one = Recorded(engine_worked(fixture, tmp_path))
        assert set(one.old) != set(one.new)
        assert one.demand_all() > 100

    @pytest.mark.parametrize(("old", "new"), [(2, 5), (5, 7), (1, 8), (5, 2), (8, 1)])
    def test_goleveldb_killed_at_one_moment_and_at_another(self, old: int, new: int) -> None:
        """Forwards and back; at 5 a pending file decides, which must not speak before it may."""
        before, after = (FIXTURES / f"goleveldb-killed-at-fsync-{n}" / "db" for n in (old, new))
        one = Recorded(became(before, after))
        assert one.demand_all() > 20

    def appended(self, tmp_path: Path) -> Laid:
        """The manifest goes on, under the same CURRENT, and names another table."""
        storage = DirectoryStorage(LocalDirectory(tmp_path), write_log=False, close_directory=True)
        lower = MemoryDirectory()
        with storage, Session(storage) as session:
            session.create()
            for turn in range(2):
                number = session.numbers.allocate()
                table = AddedTable(0, number, 8, b"a%d" % number, b"z%d" % number)
                writer = storage.create(FileDesc(number, Kind.TABLE))
                writer.write(b"contents")
                writer.sync()
                writer.close()
                session.commit(SessionRecord(sequence=turn + 5, added_tables=(table,)))
                if not turn:
                    copy_all(storage.directory, lower)
            view = Laid(lower)
            for name in set(storage.directory.names()) - {"LOCK"}:
                content = read(storage.directory, name)
                if name not in lower.names():
                    write(view, name, content)
                elif content != read(lower, name):
                    write(view, name, content[len(read(lower, name)) :], lower.stat(name).size)
        return view

    def test_a_manifest_that_was_appended_to(self, tmp_path: Path) -> None:
        one = Recorded(self.appended(tmp_path), JOURNALED)
        (manifest,) = {name for name in one.old if one.old[name] != one.new.get(name)}
        assert one.new[manifest].startswith(one.old[manifest])
        assert len(one.new) == len(one.old) + 1
        assert one.demand_all() > 20

    def test_where_renames_are_not_atomic_it_may_be_missing_until_the_commit_is_run_again(
        self, tmp_path: Path
    ) -> None:
        one = Recorded(self.appended(tmp_path), WEAKEST)
        assert one.demand_all(whole=False) > 30
        (manifest,) = {name for name in one.old if one.old[name] != one.new.get(name)}
        found = {contents(state.snapshot()).get(manifest) for state in one.states()}
        assert found == {None, one.old[manifest], one.new[manifest]}


FILES = st.sampled_from(["a", "b", "c"])
FILE_STEPS = st.one_of(
    st.tuples(st.just("write"), FILES, st.binary(max_size=4)),
    st.tuples(st.sampled_from(["rename", "link", "exchange"]), FILES, FILES),
    st.tuples(st.sampled_from(["remove", "symlink"]), FILES),
)


class TestOtherChanges:
    def test_one_of_each_kind(self) -> None:
        """Folders and links, names exchanged, kinds that change. No database in it."""
        lower = holding(
            {"a": b"a", "b": b"b", "kind": b"file", "d/a": b"da", "d/b": b"db", LOG: b""}
        )
        view = Laid(lower)
        view.rename("a", "b", Rename.EXCHANGE)
        view.remove("kind")
        view.mkdir("kind")
        write(view, "kind/x", b"x")
        view.remove("d/a")
        view.rename("d/b", "c")
        view.rmdir("d")
        view.symlink("d", "kind")
        view.link("c", "kind/c")
        one = Recorded(view, JOURNALED)
        assert one.demand_all() > 100

    @given(st.lists(STEPS, max_size=6))
    @settings(deadline=None, max_examples=40)
    def test_whatever_was_done(self, steps: list[tuple[object, ...]]) -> None:
        view = Laid(holding({"a": b"aa", "b": b"bb", "d/a": b"da"}))
        for step in steps:
            do(view, step)
        Recorded(view, JOURNALED).demand_all()

    @given(st.lists(FILE_STEPS, max_size=5))
    @settings(deadline=None, max_examples=15)
    def test_whatever_was_done_to_files_is_finished_on_the_weakest_disk(
        self, steps: list[tuple[object, ...]]
    ) -> None:
        view = Laid(holding({"a": b"aa", "b": b"bb"}))
        for step in steps:
            do(view, step)
        Recorded(view, WEAKEST).demand_all(whole=False)


MANIFESTS = {f"MANIFEST-{number:06d}": b"manifest %d" % number for number in (1, 3, 5)}
M1, M3, M5 = (name.encode() + b"\n" for name in MANIFESTS)
BOTH = {"MANIFEST-000001", "MANIFEST-000003"}
FAMILY = st.dictionaries(
    st.sampled_from([CURRENT, CURRENT_BAK, "CURRENT.2", "CURRENT.9"]),
    st.sampled_from([M1, M3, M5, b"MANI"]),
)
SOME = st.sets(st.sampled_from(sorted(MANIFESTS)))


class TestFamily:
    @given(old=FAMILY, new=FAMILY, had=SOME, has=SOME)
    @example(old={CURRENT: M1}, new={}, had=set(), has={"MANIFEST-000001"})
    @example(old={CURRENT: M1, CURRENT_BAK: M3}, new={CURRENT_BAK: M3}, had=BOTH, has=set())
    @example(
        old={CURRENT: M1, CURRENT_BAK: M3},
        new={CURRENT: M1, CURRENT_BAK: M3, "CURRENT.9": M5},
        had={"MANIFEST-000003"},
        has=set(MANIFESTS),
    )
    @settings(deadline=None, max_examples=10)
    def test_the_answer_is_the_old_one_or_the_new(
        self, old: dict[str, bytes], new: dict[str, bytes], had: set[str], has: set[str]
    ) -> None:
        one = self.recorded(old, new, had, has)
        one.demand_all()

    @pytest.mark.parametrize(
        ("old", "new", "has"),
        [
            ({CURRENT: 1}, {CURRENT: 3, "CURRENT.9": 5}, (1, 3, 5)),
            ({CURRENT: 1}, {CURRENT: 3, "CURRENT.9": 5}, (3,)),
            ({CURRENT: 5}, {CURRENT_BAK: 1}, (1,)),
            ({CURRENT: 1, "CURRENT.9": 5}, {CURRENT: 1, CURRENT_BAK: 5, "CURRENT.2": 5}, (1,)),
            ({CURRENT: 1}, {CURRENT: 3, "CURRENT.2": 5, "CURRENT.9": 1}, (1, 3, 5)),
            ({CURRENT: 5}, {CURRENT: 5, "CURRENT.9": 3}, (1,)),
            ({CURRENT: 5, CURRENT_BAK: 3, "CURRENT.2": 1}, {}, (1, 3, 5)),
            ({}, {CURRENT: 5}, (5,)),
        ],
    )
    def test_where_it_is_not_easy(
        self, old: dict[str, int], new: dict[str, int], has: tuple[int, ...]
    ) -> None:
        def family(numbers: dict[str, int]) -> dict[str, bytes]:
            return {name: b"MANIFEST-%06d\n" % number for name, number in numbers.items()}

        kept = {f"MANIFEST-{number:06d}" for number in has}
        one = self.recorded(family(old), family(new), set(MANIFESTS), kept)
        assert one.demand_all() > 10

    @staticmethod
    def recorded(
        old: dict[str, bytes], new: dict[str, bytes], had: set[str], has: set[str]
    ) -> Recorded:
        view = Laid(holding({**old, **{name: MANIFESTS[name] for name in had}}))
        for name in sorted(set(old) | had):
            view.remove(name)
        for name, content in {**new, **{name: MANIFESTS[name] for name in has}}.items():
            write(view, name, content)
        return Recorded(view)


class TestWhatTheMatrixWouldCatch:
    """The same question, asked of a commit that leaves something out."""

    def wrong(self, one: Recorded, without: Callable[[Operation], bool]) -> bool:
        kept = [each for each in one.trace.operations if not without(each)]
        assert len(kept) < len(one.trace.operations)
        fewer = Trace(one.trace.base, kept)
        return any(
            self.broken(one, state) for point in reachable(fewer, WEAKEST, WHOLE) for state in point
        )

    @staticmethod
    def broken(one: Recorded, state: State) -> bool:
        image = CrashImage(state.snapshot())
        if not holds(image, one.old) and not holds(image, one.new):
            return True
        source = restored(state.snapshot())
        try:
            left = unfinished(source)
            if left is None or not left.durable:
                return False
            resume(source, settled=lambda: None)
        except CommitError:
            return True
        return tree(source, attributes=False) != one.wanted

    @pytest.fixture
    def one(self, tmp_path: Path) -> Recorded:
        return Recorded(engine_worked("leveldb-closed", tmp_path))

    @pytest.mark.parametrize(
        "sync",
        [
            f"sync {COMMIT_FOLDER}/staged-0",
            f"sync {COMMIT_FOLDER}/plan.tmp",
            f"sync the directory {COMMIT_FOLDER}",
            "sync the directory",
        ],
    )
    def test_leaving_out_a_sync_is_caught(self, one: Recorded, sync: str) -> None:
        assert self.wrong(one, lambda each: str(each) == sync)

    def test_removing_before_the_switch_is_caught(self, one: Recorded) -> None:
        done = list(one.trace.operations)
        removals = [each for each in done if isinstance(each, Move) and "/trash-" in each.new.path]
        assert removals
        installed = next(each for each in done if isinstance(each, Link))
        done = [each for each in done if each not in removals]
        done[done.index(installed) : done.index(installed)] = removals
        states = (
            s for point in reachable(Trace(one.trace.base, done), WEAKEST, WHOLE) for s in point
        )
        assert any(self.broken(one, state) for state in states)
