"""Protocols with a known fault: the matrix must catch each, or it proves nothing.

Each of them has been in use. Beside the fault itself the tests pin down under which promises of a
file system it cannot show.
"""

from __future__ import annotations

import pytest

from avccfs.crash.model import STRONGEST, WEAKEST, Profile
from avccfs.format.filename import CURRENT, CURRENT_BAK, encode_meta
from avccfs.vfs.base import Directory
from tests.crash.matrix import (
    Action,
    Switch,
    complaint,
    directory_with,
    manifest,
    recorded,
    simplest,
    violations,
    write_file,
)

OLD, NEW = manifest(3), manifest(5)
NEW_CONTENT = b"manifest five"
BASE = {"MANIFEST-000003": b"manifest three", CURRENT: encode_meta(OLD)}


def new_manifest(directory: Directory) -> None:
    write_file(directory, "MANIFEST-000005", NEW_CONTENT)


def back_up(directory: Directory) -> None:
    write_file(directory, CURRENT_BAK, encode_meta(OLD))


def rename_into_place(directory: Directory, *, sync: bool = True) -> None:
    write_file(directory, "CURRENT.5", encode_meta(NEW), sync=sync)
    directory.rename("CURRENT.5", CURRENT)


def goleveldb(directory: Directory) -> None:
    """Sync the manifest's content, not its name, before the pointer to it."""
    new_manifest(directory)
    back_up(directory)
    rename_into_place(directory)
    directory.sync()


def without_backup(directory: Directory) -> None:
    """The textbook: write, fsync, rename, fsync the directory."""
    new_manifest(directory)
    directory.sync()
    rename_into_place(directory)
    directory.sync()


def without_file_sync(directory: Directory) -> None:
    """Write and rename, never fsync the pointer."""
    new_manifest(directory)
    back_up(directory)
    directory.sync()
    rename_into_place(directory, sync=False)
    directory.sync()


def target_last(directory: Directory) -> None:
    """The pointer is durable, and what it points to still on its way."""
    write_file(directory, "MANIFEST-000005", NEW_CONTENT, sync=False)
    back_up(directory)
    directory.sync()
    rename_into_place(directory)
    directory.sync()


def in_place(directory: Directory) -> None:
    """Overwrite CURRENT, as `echo MANIFEST-000005 > CURRENT` does on a plain directory."""
    new_manifest(directory)
    directory.sync()
    write_file(directory, CURRENT, encode_meta(NEW))
    directory.sync()


def returning_early(directory: Directory) -> None:
    """Everything but the last sync of the directory."""
    new_manifest(directory)
    back_up(directory)
    directory.sync()
    rename_into_place(directory)


def careful(directory: Directory) -> None:
    """No fault: what the others lack, all together."""
    new_manifest(directory)
    back_up(directory)
    directory.sync()
    write_file(directory, "CURRENT.5", encode_meta(NEW))
    directory.sync()
    directory.rename("CURRENT.5", CURRENT)
    directory.sync()


def switched(action: Action) -> Switch:
    return recorded(directory_with(BASE), action, NEW, NEW_CONTENT)


FAULTY = [
    goleveldb,
    without_backup,
    without_file_sync,
    target_last,
    in_place,
    returning_early,
]


@pytest.mark.parametrize("action", FAULTY, ids=lambda action: action.__name__)
def test_a_faulty_protocol_is_caught(action: Action) -> None:
    assert simplest(violations(switched(action))) is not None


def test_a_careful_protocol_is_not() -> None:
    assert list(violations(switched(careful))) == []


MENDED_BY = [
    (goleveldb, Profile(ordered_names=True)),
    (goleveldb, Profile(fsync_keeps_name=True)),
    (without_backup, Profile(ordered_names=True)),
    (without_backup, Profile(atomic_rename=True)),
    # The pending file answers where the rename onto CURRENT is lost.
    (returning_early, Profile(fsync_keeps_name=True, atomic_rename=True)),
    (in_place, None),
    (without_file_sync, None),
    (target_last, None),
]


@pytest.mark.parametrize(("action", "promises"), MENDED_BY)
def test_what_a_file_system_must_promise_to_hide_the_fault(
    action: Action, promises: Profile | None
) -> None:
    """None: not even all promises together hide it."""
    if promises is None:
        assert list(violations(switched(action), STRONGEST))
    else:
        assert list(violations(switched(action), WEAKEST))
        assert list(violations(switched(action), promises)) == []


def test_the_pointer_that_outlives_its_target_is_told_in_full() -> None:
    switch = switched(goleveldb)
    worst = simplest(violations(switch))
    assert worst is not None
    assert complaint(switch, *worst) == (
        "   1  create MANIFEST-000005\n"
        "   2  write 13 bytes at 0 of MANIFEST-000005\n"
        "   3  sync MANIFEST-000005\n"
        "   4  create CURRENT.bak\n"
        "   5  write 16 bytes at 0 of CURRENT.bak\n"
        "   6  sync CURRENT.bak\n"
        "   7  create CURRENT.5\n"
        "   8  write 16 bytes at 0 of CURRENT.5\n"
        "   9  sync CURRENT.5\n"
        "  10  rename CURRENT.5 to CURRENT\n"
        "      ** the power fails here **\n"
        "  11  sync the directory\n"
        "      -- the call returned\n"
        "of this, on disk:\n"
        "  operation 1: the new name MANIFEST-000005 is lost\n"
        "  operation 4: the new name CURRENT.bak is lost\n"
        "so the directory holds:\n"
        "  CURRENT: b'MANIFEST-000005\\n'\n"
        "  MANIFEST-000003: b'manifest three'\n"
        "get_meta says no answer; it must say MANIFEST-000003, which holds b'manifest three' "
        "or MANIFEST-000005, which holds b'manifest five'"
    )
