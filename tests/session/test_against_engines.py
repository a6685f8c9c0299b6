"""Predictions held against the engines: databases damaged at random, opened by all who can.

AVCCFS_RECOVERY_CASES says how many (default below), AVCCFS_RECOVERY_SEED the first seed. A failure
names its seed; `Damage(seed, base)` makes the same database again.
"""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.session.engines import GOLEVELDB, LEVELDB
from avccfs.session.recovery import Prediction, predict, predict_rebuild
from avccfs.vfs.base import Directory
from avccfs.vfs.local import LocalDirectory
from tests.engines import Content
from tests.session.damage import Base, Damage, Files, make_bases, write_files
from tests.session.handmade import ODD
from tests.session.opener import Answer, Opener

CASES = int(os.environ.get("AVCCFS_RECOVERY_CASES", "200"))
FIRST = int(os.environ.get("AVCCFS_RECOVERY_SEED", "0"))

Predictor = Callable[[Directory], Prediction]
Asker = Callable[[Opener, Path], Answer]

CALLS: dict[str, tuple[Predictor, Asker]] = {
    "leveldb": (lambda place: predict(place, LEVELDB), Opener.leveldb),
    "goleveldb": (lambda place: predict(place, GOLEVELDB), Opener.goleveldb),
    "goleveldb-rebuild": (
        lambda place: predict_rebuild(place, GOLEVELDB),
        Opener.goleveldb_rebuild,
    ),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def opener() -> Iterator[Opener]:
    with Opener() as opener:
        yield opener


@pytest.mark.parametrize("call", CALLS)
def test_sound_databases_open_as_predicted(
    call: str, bases: list[Base], opener: Opener, tmp_path: Path
) -> None:
    for base in bases:
        prediction = compare(call, base.files, base.name, opener, tmp_path)
        assert prediction.uncertain is None
        assert prediction.opens
        if call != "goleveldb" or not base.name.startswith("level"):
            assert prediction.loss.keys == 0, base.name


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("odd", ODD)
def test_odd_databases_open_as_predicted(
    odd: str, call: str, opener: Opener, tmp_path: Path
) -> None:
    prediction = compare(call, ODD[odd], odd, opener, tmp_path)
    # LevelDB takes a sequence number that no key can hold, and its next compaction drops all.
    assert (prediction.uncertain is not None) == (call == "leveldb" and "60 bits" in odd)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_damaged_databases_open_as_predicted(
    call: str, bases: list[Base], opener: Opener, tmp_path: Path
) -> None:
    uncertain = 0
    for seed in range(FIRST, FIRST + CASES):
        damage = Damage(seed, bases[seed % len(bases)])
        files = damage.damage()
        prediction = compare(call, files, "; ".join(damage.done), opener, tmp_path)
        uncertain += prediction.uncertain is not None
    assert uncertain <= max(5, CASES // 20)


def compare(call: str, files: Files, done: str, opener: Opener, tmp_path: Path) -> Prediction:
    """Predict, open a copy, and hold one against the other."""
    foretell, ask = CALLS[call]
    directory = tmp_path / "db"
    write_files(directory, files)
    try:
        place = LocalDirectory(directory, read_only=True)
        try:
            prediction = foretell(place)
        finally:
            place.close()
        assert {path.name: path.read_bytes() for path in directory.iterdir()} == files, done
        if prediction.uncertain is None:
            answer = ask(opener, directory)
            assert described(prediction) == told(prediction, answer), f"{call}: {done}"
            left = {path.name for path in directory.iterdir()}
            check_names(prediction, set(files) - left, f"{call}: {done}")
    finally:
        shutil.rmtree(directory)
    return prediction


def described(prediction: Prediction) -> Content | str:
    if prediction.error is not None:
        return "crashes" if prediction.error.startswith("panic") else "refuses"
    assert prediction.reading is not None
    reading = prediction.reading
    return Content(reading.keys, reading.sha256, "stops" if reading.error else "")


def told(prediction: Prediction, answer: Answer) -> Content | str:
    """The answer of an engine in the same terms, after a look at its words."""
    if answer.crashed:
        return "crashes"
    if answer.error is not None:
        if prediction.error is not None:
            assert same_words(prediction.error, answer.error), (prediction.error, answer.error)
        return "refuses"
    assert answer.content is not None
    content = answer.content
    return Content(content.keys, content.sha256, "stops" if content.iter_error else "")


def same_words(predicted: str, said: str) -> bool:
    """plyvel wraps LevelDB's words; goleveldb adds the keys that are out of order, for one."""
    _, wrapped, literal = said.partition(": b")
    if wrapped and literal[:1] in ("'", '"'):
        words: bytes = ast.literal_eval(f"b{literal}")
        return words.startswith(os.fsencode(predicted))
    return said.startswith(predicted)


def check_names(prediction: Prediction, gone: set[str], done: str) -> None:
    """Tables that are live may be compacted away at once, new ones too."""
    predicted = set(prediction.deleted_files)
    tables = () if prediction.state is None else tuple(prediction.state.tables())
    live = {name_of(FileDesc(table.number, Kind.TABLE)) for table in tables}
    live |= {name.replace(".ldb", ".sst") for name in live}
    live |= set(prediction.overwritten_files)
    if (prediction.error or "").startswith(("remove", "leveldb/storage: invalid file")):
        # Where it gives up depends on the order of the directory.
        assert gone <= predicted | live, done
        return
    assert gone - live == predicted - live, done
    assert predicted <= gone, done
