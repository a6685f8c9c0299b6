"""Waiting for what comes true by itself, such as what the kernel tells the mount after close(2)."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT = 20.0
"""Seconds after which it is taken never to come true."""


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fail when it does not within `LIMIT`."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
