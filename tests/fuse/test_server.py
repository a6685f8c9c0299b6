"""What the log of a mount is spared."""

from __future__ import annotations

import errno
import logging
import os

import pytest

import avccfs.fuse.server  # noqa: F401 - what is tested is what importing it sets up

log = logging.getLogger("pyfuse3")


@pytest.mark.parametrize(("number", "kept"), [(errno.ENOENT, False), (errno.EIO, True)])
def test_answer_that_nobody_waits_for_is_no_error(number: int, kept: bool) -> None:
    record = log.makeRecord(
        log.name,
        logging.ERROR,
        __file__,
        0,
        "fuse_release(): fuse_reply_* failed with %s",
        (os.strerror(number),),
        None,
    )
    assert bool(log.filter(record)) is kept
