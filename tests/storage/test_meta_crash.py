"""Power loss at every moment of a CURRENT switch, on a disk that promises nothing unsynced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avccfs import errors
from avccfs.format.filename import FileDesc, Kind
from avccfs.storage import meta
from tests.storage.weakdisk import State, WeakDisk, answer

NEW = FileDesc(5, Kind.MANIFEST)
EXISTING = (3, 5, 7, 8)
"""The manifests that exist: lower, equal and greater than the new one."""

GOOD = [f"MANIFEST-{n:06d}\n".encode() for n in EXISTING]
ABSENT = None
TORN = b"MANIFEST-00"
DANGLING = b"MANIFEST-000099\n"
CONTENTS = [*GOOD, TORN, DANGLING]


@dataclass
class Case:
    """Meta files, and which of them nobody synced yet."""

    files: dict[str, bytes]
    unsynced: frozenset[str] = frozenset()
    new_manifest_unsynced: bool = True

    def disk(self) -> WeakDisk:
        disk = WeakDisk()
        late = set(self.unsynced)
        if self.new_manifest_unsynced:
            late.add(str(NEW))
        files = {f"MANIFEST-{n:06d}": b"whole" for n in EXISTING} | self.files
        for name, content in files.items():
            if name not in late:
                disk.put(name, content)
        disk.settle()
        for name, content in files.items():
            if name in late:
                disk.put(name, content)
        return disk


def seen(disk: WeakDisk) -> State:
    """What is there as long as the power stays on."""
    state = {}
    for name in disk.names():
        file = disk.open(name)
        state[name] = file.read_at(1 << 20, 0)
        file.close()
    return state


def check(case: Case, act: Callable[[WeakDisk], object]) -> None:
    """Run `act` and look at every state that power loss could leave on the way and at the end."""
    disk = case.disk()
    old = answer(seen(disk))
    allowed = {answer(state) for state in disk.states()} | {old, NEW.number}

    def look() -> None:
        # The first sync of the directory makes what answers now durable; what happened before the
        # call is not the call's to answer for.
        within = allowed if disk.directory_syncs == 0 else {old, NEW.number}
        for state in disk.states():
            found = answer(state)
            assert found in within, f"{found} after power loss, from {case}: {state}"
            if found == NEW.number and disk.directory_syncs:
                assert state[str(NEW)] == b"whole"

    disk.before_sync = look
    act(disk)
    look()
    for state in disk.states():
        assert answer(state) == NEW.number, f"lost after it was acknowledged: {case}: {state}"


def ignore(_: str) -> None:
    """A log nobody reads."""


def set_new(disk: WeakDisk) -> None:
    meta.set_meta(disk, NEW, ignore)


@pytest.mark.parametrize("bak", [ABSENT, *CONTENTS])
@pytest.mark.parametrize("current", [ABSENT, *CONTENTS])
def test_switching_is_atomic_from_every_pair_of_current_and_bak(
    current: bytes | None, bak: bytes | None
) -> None:
    files = {"CURRENT": current, "CURRENT.bak": bak}
    plain = {n: c for n, c in files.items() if c is not None}
    check(Case(plain), set_new)
    for pending in ("CURRENT.4", "CURRENT.5", "CURRENT.6"):
        for content in CONTENTS:
            check(Case(plain | {pending: content}), set_new)


def names(number: int) -> bytes:
    return f"MANIFEST-{number:06d}\n".encode()


@pytest.mark.parametrize(
    "case",
    [
        # A pending file that loses hides one that would win; it has to be durable before use.
        Case(
            {"CURRENT": names(3), "CURRENT.9": names(3), "CURRENT.6": names(7)},
            frozenset({"CURRENT.9"}),
        ),
        # Of two pending files in the way, the hidden one has to go first.
        Case({"CURRENT": names(7), "CURRENT.9": names(7), "CURRENT.6": names(8)}),
        # A step back past a pending file that loses now and would win afterwards.
        Case({"CURRENT": names(8), "CURRENT.7": names(7)}),
        # A step back while a pending file with a low number decides.
        Case({"CURRENT": names(7), "CURRENT.4": names(8)}),
        # The unfinished switch that is finished: both halves of its rename may be lost.
        Case({"CURRENT": names(3), "CURRENT.5": names(5), "CURRENT.bak": names(3)}),
        # A copy of CURRENT that is already there, and not yet on disk.
        Case({"CURRENT": names(3), "CURRENT.bak": names(3)}, frozenset({"CURRENT.bak"})),
        # A CURRENT that somebody replaced without a sync, and the copy of the one before.
        Case({"CURRENT": names(7), "CURRENT.bak": names(3)}, frozenset({"CURRENT"})),
    ],
)
def test_switching_is_atomic_where_it_is_hardest(case: Case) -> None:
    check(case, set_new)


@pytest.mark.parametrize("exchange", [False, True])
@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("CURRENT.bak", {"CURRENT": TORN}),
        ("CURRENT.bak", {"CURRENT": names(3)}),
        ("CURRENT.bak", {"CURRENT": names(8)}),
        ("CURRENT.9", {"CURRENT": names(3), "CURRENT.bak": names(3)}),
        ("CURRENT.4", {"CURRENT": names(3), "CURRENT.bak": names(7)}),
        ("CURRENT.4", {"CURRENT": names(3), "CURRENT.9": names(3), "CURRENT.6": names(7)}),
        ("x", {"CURRENT": names(5), "CURRENT.bak": names(8)}),
    ],
)
def test_adopting_is_atomic_where_it_is_hardest(
    source: str, files: dict[str, bytes], exchange: bool
) -> None:
    case = Case(files | {source: names(5)})
    check(case, lambda disk: meta.adopt_meta(disk, source, ignore, exchange=exchange))


maybe_content = st.sampled_from([ABSENT, *CONTENTS])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    files = {}
    for name in ("CURRENT", "CURRENT.bak"):
        content = draw(maybe_content)
        if content is not None:
            files[name] = content
    pending = st.sampled_from([f"CURRENT.{n}" for n in (0, 4, 5, 6, 9)])
    files |= draw(st.dictionaries(pending, st.sampled_from(CONTENTS), max_size=3))
    unsynced = draw(st.sets(st.sampled_from(sorted(files)), max_size=2)) if files else set()
    return Case(files, frozenset(unsynced), draw(st.booleans()))


@settings(max_examples=120, deadline=None)
@given(cases())
def test_switching_is_atomic_among_any_pending_files(case: Case) -> None:
    check(case, set_new)


SOURCES = ["x", "CURRENT.bak", "CURRENT.4", "CURRENT.5", "CURRENT.9", "CURRENT.777"]


@pytest.mark.parametrize("exchange", [False, True])
@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_adopting_a_file_is_atomic(source: str, exchange: bool, case: Case) -> None:
    case.files[source] = b"MANIFEST-000005\n"
    if exchange:
        case.files.setdefault("CURRENT", b"MANIFEST-000003\n")
    held = case.files.get("CURRENT")

    def adopt(disk: WeakDisk) -> None:
        try:
            assert meta.adopt_meta(disk, source, ignore, exchange=exchange) == NEW
        except errors.MetaError:
            # Refused before anything was touched: the old CURRENT would win from its new name.
            assert exchange
            assert held in (b"MANIFEST-000007\n", b"MANIFEST-000008\n")
            assert seen(disk).keys() == case.files.keys() | {f"MANIFEST-{n:06d}" for n in EXISTING}
            meta.set_meta(disk, NEW, ignore)
            return
        after = seen(disk)
        assert after["CURRENT"] == b"MANIFEST-000005\n"
        if exchange:
            assert after[source] == held
        else:
            assert source not in after

    check(case, adopt)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_restoring_order_never_changes_the_answer(case: Case) -> None:
    case.new_manifest_unsynced = False
    disk = case.disk()
    expected = answer(seen(disk))
    possible = {answer(state) for state in disk.states()}

    def look() -> None:
        within = possible if disk.directory_syncs == 0 else {expected}
        assert {answer(state) for state in disk.states()} <= within

    disk.before_sync = look
    if expected is None:
        with pytest.raises((errors.MetaError, FileNotFoundError)):
            meta.get_meta(disk, ignore, tidy=True)
        return
    assert meta.get_meta(disk, ignore, tidy=True).number == expected
    look()
    assert not meta.explain_meta(disk).untidy


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_explanation_agrees_with_a_second_wording_of_the_rules(case: Case) -> None:
    disk = case.disk()
    winner = meta.explain_meta(disk).winner
    assert (winner.target.number if winner and winner.target else None) == answer(seen(disk))
