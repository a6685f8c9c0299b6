"""What every test gets: `--no-mount`, and a look at what was logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-mount",
        action="store_true",
        help="leave out the tests marked `mounted`. For the hand: without it they fail, not skip, "
        "where there is no /dev/fuse",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--no-mount"):
        return
    mounted = [item for item in items if item.get_closest_marker("mounted")]
    config.hook.pytest_deselected(items=mounted)
    items[:] = [item for item in items if not item.get_closest_marker("mounted")]


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def errors_logged() -> Iterator[list[logging.LogRecord]]:
    """Errors that the product logged in this process: none, when a test ends.

    A test that provokes some asks for this fixture, looks at them and clears the list.
    """
    handler = _Errors()
    logger = logging.getLogger("avccfs")
    logger.addHandler(handler)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)
    unexpected = [logging.Formatter().format(record) for record in handler.records]
    assert not unexpected, "errors were logged that the test did not look at"
