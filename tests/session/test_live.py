from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from avccfs.format.batch import Entry
from avccfs.format.ikey import Dialect
from avccfs.session import live
from avccfs.session.engines import PROFILES, Engine
from avccfs.session.recovery import predict
from avccfs.vfs.local import LocalDirectory
from tests.session.dump import FIXTURES, expectations, fixtures

CASES = [(fixture, engine) for fixture in fixtures() for engine in Engine]
ASKED = [(name, engine) for name, engine in CASES if f"{engine.value}.open" in expectations(name)]


class Taken:
    """The keys as they come."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.keys = 0
        self.entries: list[Entry] = []
        self._digest = hashlib.sha256()

    def __call__(self, entries: list[Entry]) -> None:
        self.calls.append(len(entries))
        self.keys += len(entries)
        self.entries += entries
        for entry in entries:
            assert entry.value is not None
            self._digest.update(f"{entry.key.hex()} {entry.value.hex()}\n".encode())

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def read(path: Path, engine: Engine) -> tuple[live.Ending, Taken]:
    taken = Taken()
    directory = LocalDirectory(path, read_only=True)
    try:
        return live.read(directory, PROFILES[engine], taken), taken
    finally:
        directory.close()


@pytest.mark.parametrize(("fixture", "engine"), ASKED)
def test_the_keys_are_those_that_the_engine_showed(fixture: str, engine: Engine) -> None:
    expected = expectations(fixture)[f"{engine.value}.open"]
    ending, taken = read(FIXTURES / fixture / "db", engine)
    if "keys" not in expected:
        # An error of reading counts like one of opening: LevelDB was asked for all keys at once.
        assert ending.refusal or ending.stopped
        assert not (ending.refusal and taken.calls)
    else:
        assert ending.refusal is None
        assert taken.keys == expected["keys"]
        assert taken.sha256 == expected["sha256_of_hexkey_space_hexvalue_lines"]
        assert bool(ending.stopped) == bool(expected.get("iter_error"))


@pytest.mark.parametrize(("fixture", "engine"), CASES)
def test_the_keys_are_those_that_are_predicted(fixture: str, engine: Engine) -> None:
    path = FIXTURES / fixture / "db"
    directory = LocalDirectory(path, read_only=True)
    try:
        prediction = predict(directory, PROFILES[engine])
    finally:
        directory.close()
    ending, taken = read(path, engine)
    assert ending.refusal == prediction.error
    assert ending.dialect is prediction.dialect
    if prediction.reading is not None:
        assert (taken.keys, taken.sha256) == (prediction.keys, prediction.sha256)


def test_versions_and_sequence_numbers_come_along() -> None:
    ending, taken = read(FIXTURES / "avccdb-compacted" / "db", Engine.AVCCDB)
    assert ending.dialect is Dialect.AVCCDB
    first = taken.entries[0]
    assert (first.key, first.version, first.sequence) == (b"key00000000", 4, 4)


def test_keys_come_some_at_a_time() -> None:
    _, taken = read(FIXTURES / "leveldb-closed" / "db", Engine.LEVELDB)
    assert taken.calls == [live.AT_ONCE, live.AT_ONCE, 40]


def test_what_the_taker_raises_ends_the_reading() -> None:
    def refuse(_: list[Entry]) -> None:
        raise BrokenPipeError

    directory = LocalDirectory(FIXTURES / "leveldb-closed" / "db", read_only=True)
    try:
        with pytest.raises(BrokenPipeError):
            live.read(directory, PROFILES[Engine.LEVELDB], refuse)
    finally:
        directory.close()
