"""The prediction is what the engine did, on every database that a real engine was asked about."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from avccfs.session.engines import PROFILES, Engine, Profile
from avccfs.session.recovery import Prediction, predict, predict_rebuild
from avccfs.vfs.base import Directory, Open
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
CALLS: dict[str, Callable[[Directory, Profile], Prediction]] = {
    "open": predict,
    "recover": predict_rebuild,
}


def asked() -> Iterator[tuple[str, Engine, str]]:
    for folder in sorted(path for path in FIXTURES.iterdir() if path.is_dir()):
        expected = json.loads((folder / "expect.json").read_text())
        for engine in Engine:
            for call in CALLS:
                if f"{engine.value}.{call}" in expected:
                    yield folder.name, engine, call


CASES = list(asked())


def expected_of(fixture: str, engine: Engine, call: str) -> dict[str, object]:
    text = (FIXTURES / fixture / "expect.json").read_text()
    answer: dict[str, object] = json.loads(text)[f"{engine.value}.{call}"]
    return answer


def predicted_of(fixture: str, engine: Engine, call: str) -> Prediction:
    place = LocalDirectory(FIXTURES / fixture / "db", read_only=True)
    try:
        return CALLS[call](place, PROFILES[engine])
    finally:
        place.close()


def test_every_fixture_has_answers_to_compare_with() -> None:
    folders = {path.name for path in FIXTURES.iterdir() if path.is_dir()}
    assert {fixture for fixture, _, _ in CASES} == folders
    assert len(CASES) > 90


@pytest.mark.parametrize(("fixture", "engine", "call"), CASES)
def test_prediction_is_what_the_engine_did(fixture: str, engine: Engine, call: str) -> None:
    expected = expected_of(fixture, engine, call)
    prediction = predicted_of(fixture, engine, call)
    assert prediction.uncertain is None
    reading = prediction.reading
    stopped = "" if reading is None or reading.error is None else reading.error
    if "error" in expected:
        said = str(expected["error"])
        if engine is Engine.LEVELDB:
            # What was asked about LevelDB does not tell opening and reading apart.
            _, _, literal = said.partition(": ")
            said = ast.literal_eval(literal).decode()
        words = (prediction.error or stopped).replace(prediction.directory, "DB")
        assert words == said
        return
    assert prediction.opens
    assert prediction.keys == expected["keys"]
    assert prediction.sha256 == expected["sha256_of_hexkey_space_hexvalue_lines"]
    said = str(expected.get("iter_error", ""))
    assert bool(stopped) == bool(said)
    if "internal key" not in said:
        assert stopped == said


@pytest.mark.parametrize(("fixture", "engine", "call"), CASES)
def test_nothing_is_changed_and_any_directory_will_do(
    fixture: str, engine: Engine, call: str
) -> None:
    """A directory in memory that refuses every change gives the same prediction as the files."""
    memory = MemoryDirectory()
    contents = {path.name: path.read_bytes() for path in (FIXTURES / fixture / "db").iterdir()}
    for name, content in contents.items():
        file = memory.open(name, Open.WRITE | Open.CREATE)
        file.write_at(content, 0)
        file.close()
    here = CALLS[call](memory, PROFILES[engine])
    there = predicted_of(fixture, engine, call)
    assert (here.keys, here.sha256, here.deleted_files, here.loss) == (
        there.keys,
        there.sha256,
        there.deleted_files,
        there.loss,
    )
    assert here.opens == there.opens
    assert sorted(memory.names()) == sorted(contents)
    for name, content in contents.items():
        file = memory.open(name)
        assert file.read_at(len(content) + 1, 0) == content
        file.close()


@pytest.mark.parametrize(
    ("fixture", "engine", "lost"),
    [
        # 25 keys are gone and 2 deleted ones are back; of 48 an older value shows up.
        ("leveldb-killed", Engine.GOLEVELDB, 75),
        ("leveldb-killed", Engine.LEVELDB, 0),
        # The tables 5 and 7, with 68 keys each, are named by the dropped records alone.
        ("flipped-manifest-byte", Engine.GOLEVELDB, 136),
        ("flipped-manifest-byte", Engine.LEVELDB, 0),
        # Table 7 is named by the torn record; its journal is gone.
        ("torn-manifest-tail", Engine.GOLEVELDB, 68),
        ("torn-manifest-tail", Engine.LEVELDB, 68),
        # A normal close, a normal open, and every key is lost.
        ("avccdb-versioned-journal", Engine.AVCCDB, 33),
        ("avccdb-compacted", Engine.AVCCDB, 0),
        ("goleveldb-closed", Engine.GOLEVELDB, 0),
        ("goleveldb-killed-at-fsync-5", Engine.GOLEVELDB, 0),
        ("goleveldb-killed-at-unlinkat-2", Engine.LEVELDB, 0),
        # What cannot be read now is not lost by opening.
        ("flipped-journal-byte", Engine.GOLEVELDB, 0),
        ("flipped-table-block", Engine.GOLEVELDB, 0),
        ("missing-table", Engine.LEVELDB, 0),
    ],
)
def test_keys_lost_for_good(fixture: str, engine: Engine, lost: int) -> None:
    prediction = predicted_of(fixture, engine, "open")
    assert prediction.loss.keys == lost
    assert len(prediction.loss.examples) == min(lost, 10)


def test_lost_deletions_bring_keys_back() -> None:
    loss = predicted_of("leveldb-killed", Engine.GOLEVELDB, "open").loss
    sound = predicted_of("leveldb-killed", Engine.LEVELDB, "open").keys
    damaged = predicted_of("leveldb-killed", Engine.GOLEVELDB, "open").keys
    assert sound is not None
    assert damaged is not None
    assert sound - damaged == loss.keys - loss.outdated - loss.returned
    assert loss.returned > 0


def test_rebuild_keeps_what_a_damaged_manifest_would_cost() -> None:
    rebuilt = predicted_of("flipped-manifest-byte", Engine.GOLEVELDB, "recover")
    assert rebuilt.keys == 337
    assert rebuilt.loss.keys == 0
    assert [table.file for table in rebuilt.tables] == ["000003.ldb", "000005.ldb", "000007.ldb"]


def test_rebuild_gives_up_what_it_could_have_read() -> None:
    """A table without a footer is deleted, though all of its blocks are sound."""
    rebuilt = predicted_of("truncated-table-footer", Engine.GOLEVELDB, "recover")
    assert rebuilt.loss.keys == 68
    assert "000005.ldb" in rebuilt.deleted_files
