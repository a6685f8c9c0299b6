"""Random work on a recorded directory: the model must agree with the directory it followed."""

from __future__ import annotations

import contextlib
import itertools
import stat

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from avccfs.crash.image import CrashImage
from avccfs.crash.model import STRONGEST, WEAKEST, Profile
from avccfs.crash.states import reachable
from avccfs.crash.trace import Trace, record
from avccfs.crash.versions import COARSE
from avccfs.vfs.base import Directory, Open, Rename
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.snapshot import Snapshot, contents, put, take, walk

PATHS = st.sampled_from(["a", "b", "c", "d", "d/a", "d/b"])
STEPS = st.one_of(
    st.tuples(st.just("write"), PATHS, st.integers(0, 6), st.binary(min_size=1, max_size=5)),
    st.tuples(st.just("truncate"), PATHS, st.integers(0, 9)),
    st.tuples(st.just("replace"), PATHS),
    st.tuples(st.sampled_from(["rename", "exchange", "link"]), PATHS, PATHS),
    st.tuples(st.sampled_from(["remove", "mkdir", "rmdir", "sync file", "sync folder"]), PATHS),
)
Step = tuple[object, ...]


def carry_out(directory: Directory, step: Step) -> None:
    """Do it, or let it fail as the directory likes."""

    def handle(path: str, flags: Open, *, size: int | None = None) -> None:
        file = directory.open(path, flags)
        try:
            if size is not None:
                file.truncate(size)
        finally:
            file.close()

    with contextlib.suppress(OSError):
        match step:
            case ("write", str(path), int(offset), bytes(data)):
                file = directory.open(path, Open.WRITE | Open.CREATE)
                file.write_at(data, offset)
                file.close()
            case ("truncate", str(path), int(size)):
                handle(path, Open.WRITE, size=size)
            case ("replace", str(path)):
                handle(path, Open.WRITE | Open.CREATE | Open.TRUNCATE)
            case ("rename", str(old), str(new)):
                directory.rename(old, new)
            case ("exchange", str(old), str(new)):
                directory.rename(old, new, Rename.EXCHANGE)
            case ("link", str(old), str(new)):
                directory.link(old, new)
            case ("remove", str(path)):
                directory.remove(path)
            case ("mkdir", str(path)):
                directory.mkdir(path)
            case ("rmdir", str(path)):
                directory.rmdir(path)
            case ("sync file", str(path)):
                file = directory.open(path)
                file.sync()
                file.close()
            case ("sync folder", str(path)):
                directory.sync(path.rpartition("/")[0])


def seen(snapshot: Snapshot) -> list[tuple[str, object, bytes, str]]:
    """Every path with what it leads to; of two names of one file, the first name they share."""
    first: dict[int, str] = {}
    return [
        (path, snapshot[node].kind, snapshot[node].content, first.setdefault(node, path))
        for path, node in walk(snapshot)
    ]


def worked(steps: list[Step]) -> tuple[Directory, Trace]:
    directory, trace = record(MemoryDirectory())
    for step in steps:
        carry_out(directory, step)
    return directory, trace


@given(st.lists(STEPS, max_size=25))
@settings(deadline=None)
def test_the_state_that_lost_nothing_is_what_everybody_saw(steps: list[Step]) -> None:
    directory, trace = worked(steps)
    for profile in (WEAKEST, STRONGEST):
        *_, last = reachable(trace, profile, COARSE)
        kept = next(iter(last))
        assert kept.faults == ()
        assert seen(kept.snapshot()) == seen(take(directory))


@given(st.lists(STEPS, max_size=25))
@settings(deadline=None)
def test_when_all_is_synced_there_is_one_state(steps: list[Step]) -> None:
    directory, trace = worked(steps)
    directory.sync()
    for path, _ in walk(take(directory)):
        if directory.stat(path).mode & stat.S_IFDIR:
            directory.sync(path)
        else:
            carry_out(directory, ("sync file", path))
    *_, last = reachable(trace, WEAKEST, COARSE)
    (only,) = last
    assert seen(only.snapshot()) == seen(take(directory))


@given(st.lists(STEPS, max_size=7))
@settings(max_examples=60, deadline=None)
def test_a_promise_only_ever_takes_states_away(steps: list[Step]) -> None:
    _, trace = worked(steps)
    weakest = list(reachable(trace, WEAKEST, COARSE))
    assume(all(point.exhaustive and point.bound < 2000 for point in weakest))
    allowed = [{state.digest for state in point} for point in weakest]
    for promise in Profile.__dataclass_fields__:
        for point in reachable(trace, Profile(**{promise: True}), COARSE):
            assert {state.digest for state in point} <= allowed[point.position]


@given(st.lists(STEPS, max_size=6))
@settings(max_examples=40, deadline=None)
def test_every_state_can_be_written_out_and_read_back(steps: list[Step]) -> None:
    _, trace = worked(steps)
    *_, last = reachable(trace, WEAKEST, COARSE)
    for state in itertools.islice(last, 100):
        snapshot = state.snapshot()
        directory = MemoryDirectory()
        put(snapshot, directory)
        assert contents(take(directory)) == contents(snapshot)
        assert contents(take(CrashImage(snapshot))) == contents(snapshot)
