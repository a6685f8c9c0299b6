"""What every test of a real mount starts from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting import unmount_below


@pytest.fixture(autouse=True)
def nothing_stays_mounted(tmp_path: Path) -> Iterator[None]:
    """Also after a test that failed half-way."""
    yield
    unmount_below(tmp_path)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """An empty directory to be mounted."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def mnt(tmp_path: Path) -> Path:
    """A mount point. LevelDB's words in the fixtures call the database DB."""
    folder = tmp_path / "DB"
    folder.mkdir()
    return folder
