"""Places that the tests of commands work in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting import unmount_below
from tests.overlays import SAMPLE


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A copy of a sample database."""
    return Path(shutil.copytree(SAMPLE, tmp_path / "db"))


@pytest.fixture
def mnt(tmp_path: Path) -> Iterator[Path]:
    """A mount point, free again at the end whatever happened."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    unmount_below(tmp_path)


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """Where an overlay may keep its changes; not made yet."""
    return tmp_path / "changes"
