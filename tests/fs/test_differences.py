"""What is *not* as on a local disk, on purpose: one table, and every place asked.

CURRENT's protocol has a module of its own, `test_current`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from avccfs.vfs.base import Rename
from tests.fs.databases import MISSING, NEW, OLD
from tests.fs.places import Place, opening, read_all, write_all


@dataclass(frozen=True)
class Difference:
    """One question, and the errno it is answered with; None where it succeeds."""

    what: str
    ask: Callable[[Place], object]
    on_a_disk: int | None
    here: int | None


def _change_a_byte(place: Place) -> None:
    with opening(place, "CURRENT", os.O_WRONLY) as opened:
        opened.write(b"7", 14)


def _open_emptied(place: Place) -> None:
    place.open("CURRENT", os.O_WRONLY | os.O_TRUNC).close()


def _make_empty(place: Place) -> None:
    place.unlink("CURRENT")
    place.mknod("CURRENT")


def _link_to_current(place: Place) -> None:
    place.unlink("CURRENT")
    place.symlink("CURRENT", "notes.txt")


def _second_name(place: Place) -> None:
    write_all(place, "mine", NEW)
    place.unlink("CURRENT")
    place.link("mine", "CURRENT")


DIFFERENCES = [
    # Engines follow CURRENT blindly: it never holds anything but a manifest that exists.
    Difference(
        "CURRENT is given a name that is none",
        lambda place: write_all(place, "CURRENT", b"rubbish\n"),
        None,
        errno.EINVAL,
    ),
    Difference(
        "CURRENT is given a manifest that does not exist",
        lambda place: write_all(place, "CURRENT", MISSING),
        None,
        errno.ENOENT,
    ),
    Difference(
        "a byte in the middle of CURRENT is changed",
        _change_a_byte,
        None,
        errno.EINVAL,
    ),
    Difference("CURRENT is emptied and left so", _open_emptied, None, errno.EINVAL),
    Difference(
        "CURRENT is cut by path",
        lambda place: place.truncate("CURRENT", 0),
        None,
        errno.EINVAL,
    ),
    Difference(
        "a file that names nothing is renamed onto CURRENT",
        lambda place: place.rename("notes.txt", "CURRENT"),
        None,
        errno.EINVAL,
    ),
    Difference(
        "CURRENT is exchanged with a file that names nothing",
        lambda place: place.rename("CURRENT", "notes.txt", Rename.EXCHANGE),
        None,
        errno.EINVAL,
    ),
    # A second name would let it be changed in place, past the protocol.
    Difference(
        "CURRENT gets a second name",
        lambda place: place.link("CURRENT", "again"),
        None,
        errno.EPERM,
    ),
    Difference(
        "CURRENT becomes a symbolic link",
        _link_to_current,
        None,
        errno.EPERM,
    ),
    Difference(
        "a second name of a file becomes CURRENT",
        _second_name,
        None,
        errno.EPERM,
    ),
    Difference(
        "CURRENT is made empty",
        _make_empty,
        None,
        errno.EINVAL,
    ),
    # The kernel follows links itself: one that leads out would be followed out.
    Difference(
        "a link leads out by an absolute path",
        lambda place: place.symlink("out", "/etc/passwd"),
        None,
        errno.EXDEV,
    ),
    Difference(
        "a link leads out by ..",
        lambda place: place.symlink("out", "../elsewhere"),
        None,
        errno.EXDEV,
    ),
    Difference(
        "a link might lead out through another",
        lambda place: place.symlink("out", "lost/../notes.txt"),
        None,
        errno.EXDEV,
    ),
    # LOCK is what keeps engines out while the directory is mounted.
    Difference(
        "LOCK is renamed",
        lambda place: place.rename("LOCK", "KEY"),
        None,
        errno.EBUSY,
    ),
    Difference(
        "LOCK is exchanged",
        lambda place: place.rename("notes.txt", "LOCK", Rename.EXCHANGE),
        None,
        errno.EBUSY,
    ),
    # A database directory holds files, folders and links.
    Difference(
        "a FIFO is made",
        lambda place: place.mknod("fifo", stat.S_IFIFO),
        None,
        errno.EPERM,
    ),
    # And what looks as if it could differ, but does not.
    Difference(
        "CURRENT is switched",
        lambda place: write_all(place, "CURRENT", NEW),
        None,
        None,
    ),
    Difference("CURRENT is removed", lambda place: place.unlink("CURRENT"), None, None),
    Difference(
        "CURRENT is renamed away",
        lambda place: place.rename("CURRENT", "CURRENT.mine"),
        None,
        None,
    ),
    Difference(
        "CURRENT is cut to the size it has",
        lambda place: place.truncate("CURRENT", len(OLD)),
        None,
        None,
    ),
    Difference("LOCK is removed", lambda place: place.unlink("LOCK"), None, None),
    Difference("LOCK is replaced", lambda place: place.rename("notes.txt", "LOCK"), None, None),
    Difference(
        "a rename refuses to replace CURRENT",
        lambda place: place.rename("notes.txt", "CURRENT", Rename.NOREPLACE),
        errno.EEXIST,
        errno.EEXIST,
    ),
    Difference(
        "a link stays inside",
        lambda place: place.symlink("link", "lost/000005.ldb"),
        None,
        None,
    ),
]


@pytest.mark.parametrize("one", DIFFERENCES, ids=lambda one: one.what.replace(" ", "-"))
def test_the_outcome_is_the_one_in_the_table(one: Difference, database_anywhere: Place) -> None:
    place = database_anywhere
    try:
        one.ask(place)
    except OSError as error:
        outcome = error.errno
    else:
        outcome = None
    assert outcome == (one.on_a_disk if place.name == "local" else one.here)


def test_a_refusal_leaves_current_as_it_was(database_anywhere: Place) -> None:
    place = database_anywhere
    if place.name == "local":
        write_all(place, "CURRENT", b"rubbish\n")
        assert read_all(place, "CURRENT") == b"rubbish\n"
        return
    for one in DIFFERENCES[:8]:
        with pytest.raises(OSError, match=r"\[Errno"):
            one.ask(place)
        assert read_all(place, "CURRENT") == OLD, one.what
