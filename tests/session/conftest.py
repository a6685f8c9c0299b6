"""Fixtures of the session's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.session.places import PLACES, Place


@pytest.fixture(params=list(PLACES.values()), ids=list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each storage in turn; afterwards no session may have left a handle open."""
    made: Place = request.param(tmp_path / "db")
    yield made
    assert made.storage.open_handles == ()
    made.storage.close()
    made.directory.close()
