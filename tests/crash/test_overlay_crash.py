"""The crash matrix of an overlay's upper directory: every step, every state of the weakest model."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avccfs.crash.trace import record
from avccfs.vfs.base import Attributes, Directory, Open, Rename
from avccfs.vfs.memory import MemoryDirectory
from avccfs.vfs.overlay import Overlay
from avccfs.vfs.overlay.ledger import FileLedger
from tests.crash.overlay_matrix import (
    LOCKS,
    SPARSE,
    History,
    Step,
    carried_out,
    complaints,
    crash_states,
    opened,
    restored,
    see,
    sync_file,
    sync_names,
)

NEW = Open.WRITE | Open.CREATE
BLOCK = 4096


def fill(directory: Directory) -> None:
    write("table", 0, b"t" * (2 * BLOCK + 100))(directory)
    write("log", 0, b"l" * 300)(directory)
    directory.mkdir("d")
    write("d/deep", 0, b"d" * 10)(directory)
    directory.link("log", "d/log")


def write(path: str, offset: int, content: bytes) -> Step:
    def step(directory: Directory) -> None:
        file = directory.open(path, NEW)
        assert file.write_at(content, offset) == len(content)
        file.close()

    return step


def write_and_sync(path: str, offset: int, content: bytes) -> Step:
    """Through one handle, so that nothing is written down by a close in between."""

    def step(directory: Directory) -> None:
        file = directory.open(path, NEW)
        file.write_at(content, offset)
        file.sync(data_only=True)
        file.close()

    step.__name__ = f"sync {path}"
    return step


def cut(path: str, size: int) -> Step:
    def step(directory: Directory) -> None:
        file = directory.open(path, Open.WRITE)
        file.truncate(size)
        file.close()

    return step


def empty(path: str) -> Step:
    return lambda directory: directory.open(path, NEW | Open.TRUNCATE).close()


def remove(path: str) -> Step:
    return lambda directory: directory.remove(path)


def rename(old: str, new: str, how: Rename = Rename.REPLACE) -> Step:
    return lambda directory: directory.rename(old, new, how)


def chmod(path: str) -> Step:
    return lambda directory: directory.set_attributes(path, Attributes(mode=0o600))


def mkdir(path: str) -> Step:
    return lambda directory: directory.mkdir(path)


WORK: dict[str, list[Step]] = {
    "a byte of a table": [write_and_sync("table", 5, b"X"), write("table", BLOCK + 5, b"Y")],
    "a block over a block, again": [
        write("table", 0, b"A" * BLOCK),
        sync_file("table"),
        write("table", 0, b"B" * BLOCK),
        sync_file("table"),
    ],
    "appending": [write_and_sync("log", 300, b"m" * 50), write_and_sync("log", 350, b"n" * 20)],
    "across the end": [write_and_sync("log", 290, b"m" * 50)],
    "cut and grown again": [
        write("table", 5, b"X"),
        cut("table", BLOCK + 10),
        write("table", BLOCK + 10, b"g" * 50),
        sync_file("table"),
    ],
    "cut, and nothing else": [cut("table", 10), sync_file("table")],
    "cut to nothing after a change": [
        write_and_sync("table", 5, b"X"),
        empty("table"),
        write_and_sync("table", 0, b"new"),
    ],
    "emptied": [empty("log"), write("log", 0, b"fresh"), sync_file("log")],
    "grown by a hole": [cut("log", BLOCK * 2), sync_file("log")],
    "replaced": [
        write_and_sync("new", 0, b"new content"),
        rename("new", "log"),
        sync_names(),
    ],
    "replaced without a sync": [write("new", 0, b"new content"), rename("new", "log")],
    "changed, then replaced": [
        write_and_sync("table", 5, b"X"),
        write_and_sync("new", 0, b"n" * 10),
        rename("new", "table"),
        sync_names(),
        write_and_sync("other", 0, b"o" * 10),
    ],
    "changed, then removed": [write_and_sync("log", 0, b"X"), remove("log"), sync_names()],
    "renamed folders": [
        rename("d", "e"),
        write_and_sync("e/deep", 0, b"X"),
        mkdir("d"),
        rename("d", "e", Rename.EXCHANGE),
        sync_names(),
    ],
    "removed and made again": [
        remove("d/deep"),
        remove("d/log"),
        lambda directory: directory.rmdir("d"),
        mkdir("d"),
        write_and_sync("d/new", 0, b"in"),
    ],
    "two names of one file": [
        write_and_sync("d/log", 0, b"X"),
        remove("log"),
        lambda directory: directory.link("d/log", "third"),
        sync_names("d"),
    ],
    "attributes only": [chmod("table"), sync_file("table"), write_and_sync("table", 5, b"X")],
    "links": [
        lambda directory: directory.symlink("link", "log"),
        rename("link", "log"),
        sync_names(),
    ],
}


@pytest.mark.parametrize("work", WORK)
def test_every_state_shows_what_was_promised(work: str) -> None:
    history = carried_out(fill, WORK[work])
    worst = min(complaints(history), key=len, default=None)
    assert worst is None, worst


PATHS = st.sampled_from(["table", "log", "d/log", "d/deep", "new", "d"])
OFFSETS = st.sampled_from([0, 5, 290, BLOCK, 2 * BLOCK + 90])
STEPS = st.one_of(
    st.builds(write, PATHS, OFFSETS, st.just(b"W" * 20)),
    st.builds(write_and_sync, PATHS, OFFSETS, st.just(b"S" * 20)),
    st.builds(cut, PATHS, st.sampled_from([0, 10, 300, BLOCK + 1, 3 * BLOCK])),
    st.builds(empty, PATHS),
    st.builds(sync_file, PATHS),
    st.builds(rename, PATHS, PATHS, st.sampled_from([Rename.REPLACE, Rename.EXCHANGE])),
    st.builds(remove, PATHS),
    st.builds(chmod, PATHS),
    st.builds(sync_names),
)


@given(st.lists(STEPS, max_size=4))
@settings(max_examples=20, deadline=None)
def test_random_work_keeps_what_was_promised(steps: list[Step]) -> None:
    history = carried_out(fill, steps)
    worst = min(complaints(history, SPARSE), key=len, default=None)
    assert worst is None, worst


def test_a_cut_is_durable_before_the_ledger_tells_of_it() -> None:
    """Over a longer file of ours a lowered limit would show the holes in it."""
    steps = [write_and_sync("table", 5, b"X"), cut("table", BLOCK + 10), sync_names()]
    history = carried_out(fill, steps)
    expected = b"tttttX" + b"t" * (BLOCK + 4)
    after = list(crash_states(history, since=history.ends[2]))
    assert after
    for state in after:
        seen = opened(history.lower, state.snapshot())
        assert seen.contents[seen.names["table"][1]] == expected


def test_what_was_cut_off_does_not_come_back_when_the_file_grows() -> None:
    end = BLOCK + 10
    steps = [write_and_sync("table", 5, b"X"), cut("table", end), write("table", end, b"g" * 50)]
    history = carried_out(fill, steps)
    contents = set()
    for state in crash_states(history, since=history.ends[3]):
        seen = opened(history.lower, state.snapshot())
        contents.add(seen.contents[seen.names["table"][1]])
    assert len(contents) > 1
    assert all(b"t" not in content[end:] for content in contents)


def test_a_ledger_that_begins_anew_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileLedger, "GROWTH", 0)
    monkeypatch.setattr(FileLedger, "TIMES", 0)
    history = carried_out(fill, WORK["changed, then removed"])
    assert sum("ledger-0" in str(each) for each in history.trace.operations) > 10
    worst = min(complaints(history), key=len, default=None)
    assert worst is None, worst


@pytest.mark.parametrize("work", ["changed, then removed", "cut and grown again"])
def test_a_crash_while_opening_after_a_crash_changes_nothing_more(work: str) -> None:
    history = carried_out(fill, WORK[work])
    step = max(1, sum(1 for _ in crash_states(history)) // 12)
    for state in itertools.islice(crash_states(history), 0, None, step):
        first = opened(history.lower, state.snapshot())
        upper, trace = record(restored(state.snapshot()), leave_out=LOCKS)
        Overlay(history.lower, upper, close_inner=False).close()
        again = History(trace, history.lower, [first])
        for second in crash_states(again):
            seen = opened(history.lower, second.snapshot())
            assert seen.shape() == first.shape()
            by_path = {path: first.contents.get(node) for path, (_, node) in first.names.items()}
            for path, (_, node) in seen.names.items():
                assert seen.contents.get(node) == by_path[path], second.describe(trace)


def test_a_reset_is_all_or_nothing() -> None:
    lower = MemoryDirectory()
    fill(lower)
    upper, trace = record(MemoryDirectory(), leave_out=LOCKS)
    overlay = Overlay(lower, upper, close_inner=False)
    for step in (write_and_sync("table", 5, b"X"), remove("log"), sync_names()):
        step(overlay)
    begun, before = len(trace), see(overlay)
    overlay.reset()
    done = len(trace)
    history = History(trace, lower, [before])
    plain = see(lower)
    shown = set()
    for state in crash_states(history, since=begun):
        seen = opened(lower, state.snapshot())
        assert seen.shape() in (before.shape(), plain.shape())
        whole = before if seen.shape() == before.shape() else plain
        assert seen.contents == whole.contents
        shown.add(seen.shape())
    assert shown == {before.shape(), plain.shape()}
    for state in crash_states(history, since=done):
        assert opened(lower, state.snapshot()).shape() == plain.shape()
