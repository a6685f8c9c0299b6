"""What real engines left behind opens on the mount exactly as it opens natively, errors included."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engines import ENGINES, GOLEVELDB, Engine
from tests.mounting import mounted
from tests.test_engines import EXPECTED, FIXTURES, observed, without_log

pytestmark = pytest.mark.mounted

KILLED = [name for name in EXPECTED if "-killed" in name]
OPENED = [
    (name, engine)
    for name, expected in EXPECTED.items()
    for engine in ENGINES
    if f"{engine}.open" in expected
]


def expected_of(name: str, engine: Engine) -> dict[str, Any]:
    return without_log(EXPECTED[name][f"{engine}.open"])


@pytest.mark.parametrize(("name", "engine"), OPENED, ids=str)
def test_fixture_opens_on_the_mount_as_below(
    name: str, engine: Engine, mnt: Path, tmp_path: Path
) -> None:
    behind = Path(shutil.copytree(FIXTURES / name / "db", tmp_path / "behind"))
    with mounted(behind, mnt):
        assert observed(engine, mnt) == expected_of(name, engine)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("name", KILLED)
def test_interrupted_database_opens_as_below_without_a_write_back_cache(
    name: str, engine: Engine, mnt: Path, tmp_path: Path
) -> None:
    behind = Path(shutil.copytree(FIXTURES / name / "db", tmp_path / "behind"))
    with mounted(behind, mnt, "--write-through"):
        assert observed(engine, mnt) == expected_of(name, engine)
    # What the opening made of it is on disk, and the second opening finds all of it.
    assert observed(engine, behind) == expected_of(name, engine)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_interrupted_databases_open_in_memory_one_after_the_other(
    engine: Engine, mnt: Path
) -> None:
    with mounted("mem:", mnt):
        for name in KILLED:
            for old in mnt.iterdir():
                old.unlink()
            # CURRENT takes only the name of a manifest that is there: last in the alphabet first.
            for path in sorted((FIXTURES / name / "db").iterdir(), reverse=True):
                shutil.copy2(path, mnt)
            assert observed(engine, mnt) == expected_of(name, engine), name


def test_goleveldb_tidies_current_up_on_the_mount_as_below(mnt: Path, tmp_path: Path) -> None:
    name = "goleveldb-killed-at-fsync-5"
    expected = EXPECTED[name]["get_meta"]
    behind = Path(shutil.copytree(FIXTURES / name / "db", tmp_path / "behind"))
    with mounted(behind, mnt):
        assert GOLEVELDB.get_meta(mnt) == expected["meta"]
    assert (behind / "CURRENT").read_text() == f"{expected['meta']}\n"
    assert not list(behind.glob("CURRENT.[0-9]*"))
