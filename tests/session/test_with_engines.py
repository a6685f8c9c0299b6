"""Manifests of the engines read by us, and ours read by the engines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.format.filename import CURRENT
from avccfs.format.manifest import SessionRecord
from avccfs.session.session import Session
from avccfs.storage.directory import DirectoryStorage, open_storage
from tests.engines import ENGINES, Content, Engine
from tests.session import dump
from tests.workload import Fill

EMPTY_CONTENT = Content.of([])

UNREADABLE = {
    "current-dangling",
    "current-empty",
    "current-missing",
    "current-no-newline",
    "current-nul-bytes",
}
"""Fixtures whose get_meta fails."""

OURS_TO_REWRITE = [
    "current-dangling-with-bak",
    "flipped-manifest-byte",
    "goleveldb-closed",
    "goleveldb-killed-at-fsync-5",
    "goleveldb-killed-at-renameat-2",
    "goleveldb-old-sst-names",
    "leveldb-closed",
    "leveldb-killed",
    "leveldb-uncompressed",
    "pending-current-newer",
    "torn-manifest-tail",
]


def copy_of(fixture: str, target: Path) -> Path:
    shutil.copytree(dump.FIXTURES / fixture / "db", target)
    return target


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DirectoryStorage]:
    with open_storage(copy_of(request.param, tmp_path / "db"), write_log=False) as opened:
        yield opened
        assert opened.open_handles == ()


def readable(*, dumped: bool) -> list[object]:
    """The fixtures with a live manifest, which LevelDB's own tool has dumped or not."""
    return [
        pytest.param(name, name, id=name)
        for name in dump.fixtures()
        if name not in UNREADABLE
        and ("leveldbutil_manifest_dump" in dump.expectations(name)) is dumped
    ]


@pytest.mark.parametrize(("fixture", "storage"), readable(dumped=True), indirect=["storage"])
def test_manifests_of_the_engines_are_read_as_leveldb_reads_them(
    fixture: str, storage: DirectoryStorage
) -> None:
    expected = dump.expectations(fixture)
    with Session(storage) as session:
        session.recover()
        name = str(session.state.manifest)
        assert name == expected["get_meta"]["meta"]
        dump.assert_same(session.state, dump.parse(expected["leveldbutil_manifest_dump"][name]))
        dropped = expected["manifests"][name]["dropped"]
        assert len(session.faults) == len(dropped or ())
        assert session.unmatched_deletions == ()


@pytest.mark.parametrize(("fixture", "storage"), readable(dumped=False), indirect=["storage"])
def test_manifests_of_avccdb_name_the_tables_that_are_there(
    fixture: str, storage: DirectoryStorage
) -> None:
    tables = dump.expectations(fixture)["tables"]
    with Session(storage) as session:
        session.recover()
        assert session.faults == ()
        assert {f"{each.number:06d}.ldb" for each in session.state.tables()} == set(tables)
        for each in session.state.tables():
            told = tables[f"{each.number:06d}.ldb"]
            assert each.smallest.hex() == told["first_internal_key_hex"]
            assert each.largest.hex() == told["last_internal_key_hex"]


@pytest.mark.parametrize("fixture", sorted(UNREADABLE))
def test_nobody_creates_a_new_database_over_one_without_an_entry_point(
    fixture: str, tmp_path: Path
) -> None:
    path = copy_of(fixture, tmp_path / "db")
    before = {each.name: each.read_bytes() for each in path.iterdir()}
    with open_storage(path, write_log=False) as storage, Session(storage) as session:
        for attempt in (session.recover, session.create):
            with pytest.raises(errors.MetaError, match="missing or corrupted"):
                attempt()
    assert {each.name: each.read_bytes() for each in path.iterdir()} == before
    # The way out that the message gives.
    (path / CURRENT).write_text("MANIFEST-000000\n")
    with open_storage(path, write_log=False) as storage, Session(storage) as session:
        session.recover()
        assert len(list(session.state.tables())) == 3


@pytest.mark.parametrize("fixture", OURS_TO_REWRITE)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_engines_find_the_same_content_behind_our_manifest(
    engine: Engine, fixture: str, tmp_path: Path
) -> None:
    result = dump.expectations(fixture)[f"{engine}.open"]
    if "keys" not in result:
        # LevelDB refuses this manifest, goleveldb reads on: ours says what goleveldb made of it.
        result = dump.expectations(fixture)["goleveldb.open"]
    path = copy_of(fixture, tmp_path / "db")
    with open_storage(path) as storage, Session(storage) as session:
        session.recover()
        session.commit(SessionRecord())
        session.rotate()
        session.commit(SessionRecord())
        name = str(session.state.manifest)
    assert (path / CURRENT).read_text() == f"{name}\n"
    sha256 = result["sha256_of_hexkey_space_hexvalue_lines"]
    assert engine.open(path) == Content(result["keys"], sha256)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_engines_open_and_fill_a_database_that_we_created(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "db"
    fill = Fill(300)
    with open_storage(path) as storage, Session(storage) as session:
        session.create()
        session.commit(SessionRecord(sequence=77))
    assert engine.open(path) == EMPTY_CONTENT
    engine.fill(path, fill)
    assert engine.compact(path) == Content.of(fill.items())
    with open_storage(path) as storage, Session(storage) as session:
        session.recover()
        assert session.state.sequence is not None
        assert session.state.sequence >= 77 + 300
        assert session.journals_to_replay() != ()
        session.rotate()
    assert engine.open(path) == Content.of(fill.items())
