"""The crash matrix of CURRENT: every step, every state that the weakest model allows.

In every state get_meta answers as before the call or with the new manifest, once the call returned
with the new one; the manifest that it names holds all that was written to it; and that stays so
through the tidying-up of the next opening, and through a crash in the middle of that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import pytest

from avccfs.crash.image import CrashImage
from avccfs.crash.model import WEAKEST
from avccfs.crash.states import State, every_state
from avccfs.crash.trace import Trace, record
from avccfs.crash.versions import COARSE, FINE, Granularity
from avccfs.errors import MetaError
from avccfs.format.filename import CURRENT, CURRENT_BAK, FileDesc, encode_meta
from avccfs.storage import meta
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Directory, Open
from avccfs.vfs.recorder import Move, SyncDirectory
from avccfs.vfs.snapshot import Snapshot, contents
from tests.crash.matrix import (
    NO_ANSWER,
    Action,
    Answer,
    Switch,
    answer,
    answer_in,
    complaint,
    demand_none,
    directory_with,
    manifest,
    recorded,
    restored,
    silent,
    violations,
    write_file,
)

WHOLE = Granularity(every_byte_up_to=0, most_tears=0)
"""Writes are kept or lost, but never torn."""

MANIFESTS = {f"MANIFEST-{number:06d}": b"manifest %d" % number for number in (1, 3, 5, 7)}


def naming(number: int) -> bytes:
    return encode_meta(manifest(number))


def set_meta(number: int) -> Action:
    return lambda directory: meta.set_meta(directory, manifest(number), silent)


def adopt_meta(path: str, *, exchange: bool = False) -> Action:
    return lambda directory: meta.adopt_meta(directory, path, silent, exchange=exchange)


def switch(family: Mapping[str, bytes], number: int, action: Action | None = None) -> Switch:
    """A recorded switch to a manifest, from a directory with these files of the CURRENT family."""
    base = directory_with({**MANIFESTS, **family})
    return recorded(base, action or set_meta(number), manifest(number), b"manifest %d" % number)


BEGINNINGS: dict[str, tuple[dict[str, bytes], int]] = {
    "no CURRENT": ({}, 5),
    "a good CURRENT": ({CURRENT: naming(3)}, 5),
    "a good CURRENT and a stale bak": ({CURRENT: naming(3), CURRENT_BAK: naming(1)}, 5),
    "a dangling CURRENT and a good bak": (
        {CURRENT: b"MANIFEST-000777\n", CURRENT_BAK: naming(3)},
        5,
    ),
    "a torn CURRENT and a good bak": ({CURRENT: b"MANIFEST-0000", CURRENT_BAK: naming(3)}, 5),
    "only a good bak": ({CURRENT_BAK: naming(3)}, 5),
    "nothing good": ({CURRENT: b"", CURRENT_BAK: b"\0" * 16}, 5),
    "a newer pending file": ({CURRENT: naming(3), "CURRENT.7": naming(7)}, 5),
    "the pending file of this very switch": ({CURRENT: naming(3), "CURRENT.5": naming(5)}, 5),
    "a pending file that decides, going up": ({CURRENT: naming(3), "CURRENT.5": naming(5)}, 7),
    "a lower number": ({CURRENT: naming(5)}, 3),
    "a lower number, with a pending file that decides": (
        {CURRENT: naming(3), CURRENT_BAK: naming(3), "CURRENT.7": naming(7)},
        1,
    ),
    "the same content again": ({CURRENT: naming(5), CURRENT_BAK: naming(3)}, 5),
    "a pending file of this number with other content": (
        {CURRENT: naming(3), "CURRENT.5": naming(1)},
        5,
    ),
    "a torn pending file of this number": ({CURRENT: naming(3), "CURRENT.5": b"MANI"}, 5),
    "a newer pending file hidden behind another": (
        {CURRENT: naming(3), "CURRENT.7": naming(7), "CURRENT.9": naming(1)},
        5,
    ),
    "only pending files": ({"CURRENT.3": naming(3), "CURRENT.1": naming(1)}, 5),
}


def each_beginning(granularity: Granularity = FINE) -> Iterator[tuple[Switch, State]]:
    """Every state of every switch in BEGINNINGS; each directory once a switch."""
    for family, number in BEGINNINGS.values():
        one = switch(family, number)
        told: set[bytes] = set()
        for state in every_state(one.trace, WEAKEST, granularity):
            if state.digest not in told:
                told.add(state.digest)
                yield one, state


def first_crashes(granularity: Granularity) -> dict[bytes, Snapshot]:
    """The directories that any switch in BEGINNINGS may leave."""
    return {state.digest: state.snapshot() for _, state in each_beginning(granularity)}


class TestSetMeta:
    @pytest.mark.parametrize("beginning", BEGINNINGS)
    def test_every_state_answers_with_the_old_or_the_new(self, beginning: str) -> None:
        one = switch(*BEGINNINGS[beginning])
        assert one.returned == len(one.trace)
        demand_none(one)

    @pytest.mark.parametrize("beginning", BEGINNINGS)
    def test_the_call_itself_leaves_order(self, beginning: str) -> None:
        family, number = BEGINNINGS[beginning]
        directory = directory_with({**MANIFESTS, **family})
        set_meta(number)(directory)
        assert answer(directory).meta == manifest(number)
        assert answer(directory, tidy=True).meta == manifest(number)
        assert set(directory.names()) - set(MANIFESTS) <= {CURRENT, CURRENT_BAK}

    def test_the_tables_of_beginnings_are_what_they_are_called(self) -> None:
        said = {name: switch(*each).before.meta for name, each in BEGINNINGS.items()}
        assert said == {
            "no CURRENT": None,
            "a good CURRENT": manifest(3),
            "a good CURRENT and a stale bak": manifest(3),
            "a dangling CURRENT and a good bak": manifest(3),
            "a torn CURRENT and a good bak": manifest(3),
            "only a good bak": manifest(3),
            "nothing good": None,
            "a newer pending file": manifest(7),
            "the pending file of this very switch": manifest(5),
            "a pending file that decides, going up": manifest(5),
            "a lower number": manifest(5),
            "a lower number, with a pending file that decides": manifest(7),
            "the same content again": manifest(5),
            "a pending file of this number with other content": manifest(3),
            "a torn pending file of this number": manifest(3),
            "a newer pending file hidden behind another": manifest(3),
            "only pending files": manifest(3),
        }

    def test_every_combination_of_what_may_lie_about(self) -> None:
        currents = (None, naming(3), naming(5), b"MANIFEST-000777\n", b"")
        baks = (None, naming(1), naming(5), b"\0" * 16)
        pendings: tuple[dict[str, bytes], ...] = (
            {},
            {"CURRENT.5": naming(5)},
            {"CURRENT.5": b"MANI"},
            {"CURRENT.7": naming(7)},
            {"CURRENT.2": naming(7), "CURRENT.9": naming(1)},
            {"CURRENT.3": naming(3), "CURRENT.8": naming(7), "CURRENT.9": b""},
        )
        for current, bak, pending in itertools.product(currents, baks, pendings):
            family = dict(pending)
            if current is not None:
                family[CURRENT] = current
            if bak is not None:
                family[CURRENT_BAK] = bak
            for number in (3, 5, 7):
                demand_none(switch(family, number), granularity=COARSE)

    def test_a_manifest_that_nobody_synced_is_made_durable_first(self) -> None:
        def write_and_switch(directory: Directory) -> None:
            write_file(directory, "MANIFEST-000009", b"manifest 9", sync=False)
            meta.set_meta(directory, manifest(9), silent)

        demand_none(switch({CURRENT: naming(3)}, 9, write_and_switch))

    def test_a_current_that_nobody_synced_is_made_durable_first(self) -> None:
        """As an engine or a shell leaves it: then the answers before it are allowed too, but no
        state is without one."""

        def rename_and_switch(directory: Directory) -> None:
            write_file(directory, "000003.dbtmp", naming(3))
            directory.sync()
            directory.link(CURRENT, "kept")
            directory.rename("000003.dbtmp", CURRENT)
            meta.set_meta(directory, manifest(5), silent)

        one = switch({CURRENT: naming(1), CURRENT_BAK: naming(1)}, 5, rename_and_switch)
        between = Answer(manifest(3), b"manifest 3")
        wrong = [each for each in violations(one) if each[1] != between]
        assert wrong == []
        assert all(state.position < one.returned for state, _ in violations(one))

    def test_one_switch_after_another(self) -> None:
        def twice(directory: Directory) -> None:
            meta.set_meta(directory, manifest(5), silent)
            meta.set_meta(directory, manifest(7), silent)

        one = switch({CURRENT: naming(3)}, 7, twice)
        halfway = Answer(manifest(5), b"manifest 5")
        order = [one.before, halfway, one.after]
        for state in every_state(one.trace):
            assert answer_in(state) in order
        assert {found for _, found in violations(one)} == {halfway}

    @pytest.mark.parametrize(
        "sync",
        [
            "sync MANIFEST-000009",
            "sync CURRENT.9",
            "sync CURRENT.bak",
            "the last sync of the directory before the rename",
            "every sync of the directory before the rename",
            "sync of the directory after the rename",
        ],
    )
    def test_leaving_out_a_sync_is_caught(self, sync: str) -> None:
        """The proof rests on each of these: without it some state has the wrong answer."""

        def write_and_switch(directory: Directory) -> None:
            write_file(directory, "MANIFEST-000009", b"manifest 9", sync=False)
            meta.set_meta(directory, manifest(9), silent)

        one = switch({CURRENT: naming(3), CURRENT_BAK: naming(1)}, 9, write_and_switch)
        done = list(one.trace.operations)
        renamed = next(index for index, each in enumerate(done) if isinstance(each, Move))
        places = [index for index, each in enumerate(done) if isinstance(each, SyncDirectory)]
        before = [index for index in places if index < renamed]
        match sync:
            case "the last sync of the directory before the rename":
                left_out = before[-1:]
            case "every sync of the directory before the rename":
                left_out = before
            case "sync of the directory after the rename":
                left_out = [index for index in places if index > renamed]
            case _:
                left_out = [index for index, each in enumerate(done) if str(each) == sync]
        assert left_out
        fewer = [each for index, each in enumerate(done) if index not in left_out]
        weakened = Switch(Trace(one.trace.base, fewer), one.before, one.after, len(fewer))
        assert list(violations(weakened, granularity=COARSE))


class TestOpeningAfterwards:
    def test_a_storage_answers_the_same_twice_and_leaves_order(self) -> None:
        for one, state in each_beginning():
            found = answer_in(state)
            directory = restored(state.snapshot())
            with DirectoryStorage(directory, write_log=False) as storage:
                for _ in range(2):
                    try:
                        said: FileDesc | None = storage.get_meta()
                    except (FileNotFoundError, MetaError):
                        said = None
                    assert said == found.meta, complaint(one, state, found)
            left = {name for name in directory.names() if name.startswith(CURRENT)}
            if found != NO_ANSWER:
                assert left <= {CURRENT, CURRENT_BAK}, complaint(one, state, found)
                assert answer(directory) == found

    def test_a_crash_while_it_tidies_up_keeps_the_answer(self) -> None:
        tidied = 0
        for snapshot in first_crashes(COARSE).values():
            tidied += self._demand_same_answer(snapshot, COARSE)
        assert tidied > 200

    def test_a_crash_while_it_tidies_up_after_that_keeps_it_too(self) -> None:
        second: dict[bytes, Snapshot] = {}
        for snapshot in first_crashes(WHOLE).values():
            directory, trace = record(restored(snapshot))
            answer(directory, tidy=True)
            second |= {each.digest: each.snapshot() for each in every_state(trace, WEAKEST, WHOLE)}
        tidied = sum(self._demand_same_answer(snapshot, WHOLE) for snapshot in second.values())
        assert tidied > 200

    @staticmethod
    def _demand_same_answer(snapshot: Snapshot, granularity: Granularity) -> bool:
        found = answer(CrashImage(snapshot))
        directory, trace = record(restored(snapshot))
        assert answer(directory, tidy=True) == found
        same = Switch(trace, found, found, returned=0)
        demand_none(same, granularity=granularity)
        return len(trace) > 0

    def test_a_switch_without_tidying_up_first_is_as_safe(self) -> None:
        for snapshot in first_crashes(WHOLE).values():
            for number in (1, 5, 7):
                content = b"manifest %d" % number
                one = recorded(restored(snapshot), set_meta(number), manifest(number), content)
                demand_none(one, granularity=WHOLE)


SOURCES: dict[str, tuple[dict[str, bytes], str, int]] = {
    "LevelDB's temp file": ({CURRENT: naming(3)}, "000005.dbtmp", 5),
    "a temp file of sed": ({CURRENT: naming(3), CURRENT_BAK: naming(1)}, "sedXq3f", 5),
    "goleveldb's pending file": ({CURRENT: naming(3)}, "CURRENT.5", 5),
    "a pending file that decides": ({CURRENT: naming(3)}, "CURRENT.7", 7),
    "a step back": ({CURRENT: naming(5)}, "x", 3),
    "a step back beside a pending file that decides": (
        {CURRENT: naming(3), "CURRENT.7": naming(7)},
        "x",
        1,
    ),
    "without a CURRENT": ({}, "x", 5),
    "the backup, which answers": ({CURRENT: b"MANI"}, CURRENT_BAK, 3),
    "the backup, which does not": ({CURRENT: naming(5)}, CURRENT_BAK, 3),
    "what CURRENT holds already": ({CURRENT: naming(5)}, "x", 5),
}


class TestAdoptMeta:
    @pytest.mark.parametrize("name", SOURCES)
    def test_every_state_answers_with_the_old_or_the_new(self, name: str) -> None:
        family, source, number = SOURCES[name]
        one = switch({**family, source: naming(number)}, number, adopt_meta(source))
        demand_none(one)
        self._demand_gone(one, source)

    @pytest.mark.parametrize("name", SOURCES)
    def test_a_source_that_nobody_synced_is_made_durable_first(self, name: str) -> None:
        """`sed -i` writes and renames, and syncs nothing."""
        family, source, number = SOURCES[name]

        def write_and_rename(directory: Directory) -> None:
            write_file(directory, source, naming(number), sync=False)
            meta.adopt_meta(directory, source, silent)

        one = switch(family, number, write_and_rename)
        demand_none(one)
        self._demand_gone(one, source)

    @staticmethod
    def _demand_gone(one: Switch, source: str) -> None:
        """A rename that returned has taken the source away; CURRENT.bak is written anew."""
        final = [state for state in every_state(one.trace) if state.position == one.returned]
        assert final
        for state in final:
            held = contents(state.snapshot())
            assert source == CURRENT_BAK or source not in held, state.describe(one.trace)

    @pytest.mark.parametrize(
        "family",
        [{CURRENT: naming(3)}, {CURRENT: naming(3), CURRENT_BAK: naming(1)}, {CURRENT: naming(7)}],
        ids=["up", "with a stale bak", "down"],
    )
    def test_an_exchange_is_as_safe(self, family: dict[str, bytes]) -> None:
        one = switch({**family, "x": naming(5)}, 5, adopt_meta("x", exchange=True))
        demand_none(one)
        final = [state for state in every_state(one.trace) if state.position == one.returned]
        for state in final:
            held = contents(state.snapshot())
            assert (held["x"], held[CURRENT]) == (family[CURRENT], naming(5))

    def test_a_source_in_a_folder_that_nobody_synced(self) -> None:
        def make_and_rename(directory: Directory) -> None:
            directory.mkdir("lost")
            write_file(directory, "lost/x", naming(5), sync=False)
            meta.adopt_meta(directory, "lost/x", silent)

        demand_none(switch({CURRENT: naming(3)}, 5, make_and_rename))

    def test_a_crash_while_order_is_restored_keeps_the_answer(self) -> None:
        for family, source, number in SOURCES.values():
            one = switch({**family, source: naming(number)}, number, adopt_meta(source))
            left = {each.digest: each for each in every_state(one.trace, WEAKEST, COARSE)}
            for state in left.values():
                snapshot = state.snapshot()
                found = answer(CrashImage(snapshot))
                directory, trace = record(restored(snapshot))
                assert answer(directory, tidy=True) == found
                demand_none(Switch(trace, found, found, returned=0), granularity=WHOLE)


def test_get_meta_of_a_sound_directory_changes_nothing() -> None:
    directory, trace = record(directory_with({**MANIFESTS, CURRENT: naming(3)}))
    assert answer(directory, tidy=True).meta == manifest(3)
    assert trace.operations == ()


def test_a_hard_linked_current_is_never_written_through() -> None:
    """Half a rename may leave CURRENT and its pending file one and the same."""
    base = directory_with({**MANIFESTS, CURRENT: naming(5)})
    base.link(CURRENT, "CURRENT.5")
    base.link(CURRENT, CURRENT_BAK)
    for number in (3, 5, 7):
        one = recorded(
            restored(record(base)[1].base),
            set_meta(number),
            manifest(number),
            b"manifest %d" % number,
        )
        demand_none(one)


def test_a_read_only_look_at_a_crash_image_is_the_same_as_at_the_directory() -> None:
    for _, state in each_beginning(COARSE):
        snapshot = state.snapshot()
        image, directory = CrashImage(snapshot), restored(snapshot)
        assert sorted(image.names()) == sorted(directory.names())
        for name in image.names():
            here, there = image.open(name), directory.open(name, Open.READ)
            assert here.read_at(99, 0) == there.read_at(99, 0)
            assert here.stat().nlink == there.stat().nlink
            here.close()
            there.close()
