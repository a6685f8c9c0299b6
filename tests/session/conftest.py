"""Fixtures of the session's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.session.places import FILE_PLACES, PLACES, Place


@pytest.fixture(params=list(PLACES.values()), ids=list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each storage in turn; afterwards no session may have left a handle open."""
    yield from _made(request.param(tmp_path / "db"))


@pytest.fixture(params=list(FILE_PLACES.values()), ids=list(FILE_PLACES))
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The same, but only storages whose meta value is files."""
    yield from _made(request.param(tmp_path / "db"))


def _made(place: Place) -> Iterator[Place]:
    yield place
    assert place.storage.open_handles == ()
    place.storage.close()
    place.directory.close()
