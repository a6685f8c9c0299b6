"""The storage contract, row by row of SPEC section 3, for every storage.

Where the memory storage differs on purpose, the test says so and asserts the difference:

- one open handle per file (`test_a_file_in_memory_has_one_handle` and its neighbours);
- when the live manifest vanishes it has no CURRENT.bak to fall back to;
- it has no read-only form of its own, no LOG, and no lock between processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.format.filename import MAX_NUMBER, FileDesc, Kind
from avccfs.storage.contract import Storage
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.base import Open
from avccfs.vfs.fault import Op
from tests.storage.backends import (
    Backend,
    get,
    journal,
    manifest,
    put,
    read,
    table,
    temp,
    tree,
    write,
)

Call = Callable[[Storage], object]

BY_DESCRIPTOR: dict[str, Callable[[Storage, FileDesc], object]] = {
    "set_meta": lambda s, d: s.set_meta(d),
    "open": lambda s, d: s.open(d),
    "create": lambda s, d: s.create(d),
    "remove": lambda s, d: s.remove(d),
    "rename from": lambda s, d: s.rename(d, journal(1)),
    "rename to": lambda s, d: s.rename(journal(1), d),
    "rename itself": lambda s, d: s.rename(d, d),
}

CHANGES: dict[str, Call] = {
    "set_meta": lambda s: s.set_meta(manifest(1)),
    "create": lambda s: s.create(journal(9)),
    "remove": lambda s: s.remove(journal(1)),
    "rename": lambda s: s.rename(journal(1), journal(2)),
    "rename itself": lambda s: s.rename(journal(1), journal(1)),
}

CALLS: dict[str, Call] = CHANGES | {
    "lock": lambda s: s.lock(),
    "get_meta": lambda s: s.get_meta(),
    "list": lambda s: s.list(Kind.NUMBERED),
    "open": lambda s: s.open(journal(1)),
}

INVALID = [
    FileDesc(-1, Kind.TABLE),
    FileDesc(MAX_NUMBER + 1, Kind.TABLE),
    FileDesc(1, Kind.META),
    FileDesc(1, Kind.LOCK),
    FileDesc(1, Kind.FOREIGN),
    FileDesc(1, Kind.MANIFEST | Kind.JOURNAL),
    FileDesc(1, Kind(0)),
]


# The order of checks


@pytest.mark.parametrize("call", BY_DESCRIPTOR.values(), ids=BY_DESCRIPTOR)
def test_an_invalid_descriptor_is_refused_before_anything_else(
    backend: Backend, call: Callable[[Storage, FileDesc], object]
) -> None:
    storage = backend.storage()
    write(storage, journal(1))
    before = tree(backend.directory)
    calls = backend.plan.count()
    for desc in INVALID:
        with pytest.raises(errors.InvalidFileError, match=r"number from 0"):
            call(storage, desc)
    assert backend.plan.count() == calls
    assert tree(backend.directory) == before
    storage.close()
    for desc in INVALID:
        with pytest.raises(errors.InvalidFileError):
            call(storage, desc)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_everything_fails_closed_after_close(backend: Backend, call: Call) -> None:
    storage = backend.storage()
    write(storage, journal(1))
    write(storage, manifest(1))
    storage.close()
    before = tree(backend.directory)
    with pytest.raises(errors.ClosedError):
        call(storage)
    storage.close()
    storage.log("dropped")
    assert tree(backend.directory) == before


@pytest.mark.parametrize("call", CHANGES.values(), ids=CHANGES)
def test_a_read_only_storage_refuses_every_change(file_backend: Backend, call: Call) -> None:
    writable = file_backend.file_storage()
    write(writable, journal(1))
    write(writable, manifest(1))
    writable.set_meta(manifest(1))
    writable.close()
    before = tree(file_backend.directory)
    storage = file_backend.file_storage(read_only=True)
    assert storage.read_only
    with pytest.raises(errors.ReadOnlyError):
        call(storage)
    storage.log("dropped")
    assert storage.get_meta() == manifest(1)
    assert read(storage, journal(1)) == b"content"
    assert storage.list(Kind.NUMBERED) == [manifest(1), journal(1)]
    storage.close()
    assert tree(file_backend.directory) == before
    with pytest.raises(errors.ClosedError):
        call(storage)


def test_a_writable_storage_over_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    backend = Backend("local", tmp_path)
    directory = backend.make_directory(read_only=True)
    with pytest.raises(errors.ReadOnlyError):
        DirectoryStorage(directory, read_only=False)
    with DirectoryStorage(directory) as storage:
        assert storage.read_only
    backend.close()


# lock, log


def test_the_lock_has_one_holder_until_it_is_unlocked(backend: Backend) -> None:
    storage = backend.storage()
    first = storage.lock()
    with pytest.raises(errors.LockedError, match=r"already locked"):
        storage.lock()
    first.unlock()
    second = storage.lock()
    first.unlock()
    with pytest.raises(errors.LockedError):
        storage.lock()
    storage.close()
    second.unlock()
    with pytest.raises(errors.ClosedError):
        storage.lock()


def test_a_read_only_storage_hands_out_empty_locks(file_backend: Backend) -> None:
    storage = file_backend.file_storage(read_only=True)
    first = storage.lock()
    second = storage.lock()
    first.unlock()
    second.unlock()


def test_logging_never_raises(backend: Backend) -> None:
    storage = backend.storage()
    with backend.plan.fail(Op.OPEN | Op.CREATE | Op.WRITE | Op.STAT):
        storage.log("line\nbroken \udcff \x00")
    storage.log("another")


# set_meta, get_meta


def test_the_meta_value_is_what_was_set_last(backend: Backend) -> None:
    storage = backend.storage()
    with pytest.raises(FileNotFoundError):
        storage.get_meta()
    for number in (3, 12, 5, 5, 4):
        write(storage, manifest(number))
        storage.set_meta(manifest(number))
        assert storage.get_meta() == manifest(number)


def test_the_meta_value_must_name_an_existing_file(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, manifest(2))
    storage.set_meta(manifest(2))
    with pytest.raises(FileNotFoundError, match=r"MANIFEST-000007 does not exist.*MANIFEST-000002"):
        storage.set_meta(manifest(7))
    assert storage.get_meta() == manifest(2)


def test_a_vanished_live_manifest_is_not_found(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, manifest(2))
    storage.set_meta(manifest(2))
    storage.remove(manifest(2))
    with pytest.raises(FileNotFoundError):
        storage.get_meta()


def test_a_vanished_live_manifest_leaves_the_one_before_it_in_a_directory(backend: Backend) -> None:
    storage = backend.storage()
    for number in (2, 3):
        write(storage, manifest(number))
        storage.set_meta(manifest(number))
    storage.remove(manifest(3))
    if backend.one_handle:
        with pytest.raises(FileNotFoundError):
            storage.get_meta()
    else:
        assert storage.get_meta() == manifest(2)


def test_the_meta_value_outlives_the_storage_in_a_directory(file_backend: Backend) -> None:
    first = file_backend.storage()
    write(first, manifest(2))
    first.set_meta(manifest(2))
    first.close()
    assert file_backend.storage().get_meta() == manifest(2)


# list


def test_listing_gives_the_kinds_asked_for_and_skips_other_names(backend: Backend) -> None:
    storage = backend.storage()
    descs = [manifest(1), journal(2), table(3), temp(4), table(1000005), journal(0)]
    for desc in descs:
        write(storage, desc)
    for name in ("5.ldb", "-3.log", "MANIFEST-1", "000005.ldb~", "0000005.ldb", "CURRENT.bak"):
        put(backend.directory, name)
    put(backend.directory, "000006.sst")
    put(backend.directory, "000007.dbtmp")
    backend.directory.mkdir("lost")
    put(backend.directory, "lost/000099.ldb")
    assert storage.list(Kind.NUMBERED) == [
        journal(0),
        manifest(1),
        journal(2),
        table(3),
        temp(4),
        table(6),
        temp(7),
        table(1000005),
    ]
    assert storage.list(Kind.TABLE | Kind.TEMP) == [
        table(3),
        temp(4),
        table(6),
        temp(7),
        table(1000005),
    ]
    assert storage.list(Kind.META | Kind.FOREIGN) == []


def test_a_table_under_both_of_its_names_is_listed_once(backend: Backend) -> None:
    put(backend.directory, "000006.sst")
    put(backend.directory, "000006.ldb")
    assert backend.storage().list(Kind.TABLE) == [table(6)]


# open: the reader


def test_a_reader_reads_seeks_and_reads_at(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, table(5), b"0123456789")
    reader = storage.open(table(5))
    assert reader.size() == 10
    assert reader.read(3) == b"012"
    assert reader.read_at(4, 5) == b"5678"
    assert reader.read() == b"3456789"
    assert reader.read(5) == b""
    assert reader.seek(2) == 2
    assert reader.seek(2, 1) == 4
    assert reader.read(1) == b"4"
    assert reader.seek(-1, 2) == 9
    assert reader.read() == b"9"
    assert reader.seek(100) == 100
    assert reader.read() == b""
    assert reader.read(1) == b""
    with pytest.raises(ValueError, match=r"before the start"):
        reader.seek(-1)
    with pytest.raises(ValueError, match=r"whence"):
        reader.seek(0, 3)
    assert reader.read_at(10, 8) == b"89"
    assert reader.read_at(10, 10) == b""
    reader.close()


def test_a_reader_cannot_write(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, table(5))
    reader = storage.open(table(5))
    assert not hasattr(reader, "write")
    reader.close()


def test_opening_what_is_not_there_is_not_found(backend: Backend) -> None:
    storage = backend.storage()
    for desc in (manifest(1), journal(1), table(1), temp(1)):
        with pytest.raises(FileNotFoundError) as caught:
            storage.open(desc)
        assert caught.value.filename == str(desc)


@pytest.mark.parametrize(
    ("desc", "old_name"), [(table(5), "000005.sst"), (temp(5), "000005.dbtmp")]
)
def test_open_rename_and_remove_fall_back_to_the_old_name(
    backend: Backend, desc: FileDesc, old_name: str
) -> None:
    storage = backend.storage()
    put(backend.directory, old_name, b"old")
    assert storage.list(desc.kind) == [desc]
    assert read(storage, desc) == b"old"
    moved = FileDesc(6, desc.kind)
    storage.rename(desc, moved)
    assert read(storage, moved) == b"old"
    assert old_name not in backend.directory.names()
    put(backend.directory, old_name, b"old")
    storage.remove(desc)
    assert storage.list(desc.kind) == [moved]
    with pytest.raises(FileNotFoundError):
        storage.remove(desc)


def test_the_new_name_of_a_table_comes_before_the_old_one(backend: Backend) -> None:
    storage = backend.storage()
    put(backend.directory, "000005.sst", b"old")
    put(backend.directory, "000005.ldb", b"new")
    assert read(storage, table(5)) == b"new"
    storage.remove(table(5))
    assert read(storage, table(5)) == b"old"


def test_an_error_other_than_not_found_does_not_fall_back(faulty_backend: Backend) -> None:
    storage = faulty_backend.storage()
    put(faulty_backend.directory, "000005.ldb", b"new")
    put(faulty_backend.directory, "000005.sst", b"old")
    faulty_backend.plan.fail(Op.OPEN, Kind.TABLE)
    with pytest.raises(OSError, match=r"000005.ldb") as caught:
        storage.open(table(5))
    assert not isinstance(caught.value, FileNotFoundError)
    assert read(storage, table(5)) == b"new"


# create: the writer


def test_create_truncates_and_the_writer_appends(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, journal(3), b"something longer")
    writer = storage.create(journal(3))
    assert writer.write(b"ab") == 2
    assert writer.write(bytearray(b"cd")) == 2
    assert writer.write(memoryview(b"xefx")[1:3]) == 2
    assert writer.write(b"") == 0
    writer.close()
    assert get(backend.directory, "000003.log") == b"abcdef"


def test_a_writer_cannot_read(backend: Backend) -> None:
    writer = backend.storage().create(journal(3))
    assert not hasattr(writer, "read")
    writer.close()


def test_a_failed_write_can_be_repeated(faulty_backend: Backend) -> None:
    writer = faulty_backend.storage().create(journal(3))
    writer.write(b"ab")
    faulty_backend.plan.fail(Op.WRITE, Kind.JOURNAL)
    with pytest.raises(OSError, match=r"000003.log"):
        writer.write(b"cd")
    writer.write(b"cd")
    writer.close()
    assert get(faulty_backend.directory, "000003.log") == b"abcd"


@pytest.mark.parametrize(
    ("desc", "syncs_of_directory"), [(manifest(1), 1), (journal(1), 0), (table(1), 0), (temp(1), 0)]
)
def test_only_the_sync_of_a_manifest_syncs_the_directory(
    faulty_backend: Backend, desc: FileDesc, syncs_of_directory: int
) -> None:
    writer = faulty_backend.storage().create(desc)
    before = faulty_backend.plan.count(Op.SYNC_DIR)
    writer.sync()
    assert faulty_backend.plan.count(Op.SYNC, desc.kind) == 1
    assert faulty_backend.plan.count(Op.SYNC_DIR) - before == syncs_of_directory
    writer.close()


# remove, rename


def test_remove(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, journal(3))
    storage.remove(journal(3))
    assert storage.list(Kind.NUMBERED) == []
    with pytest.raises(FileNotFoundError):
        storage.remove(journal(3))


def test_rename_replaces_what_is_there(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, temp(1), b"new")
    write(storage, table(2), b"old")
    storage.rename(temp(1), table(2))
    assert read(storage, table(2)) == b"new"
    assert storage.list(Kind.NUMBERED) == [table(2)]


def test_rename_to_itself_is_nothing_to_do(backend: Backend) -> None:
    storage = backend.storage()
    calls = backend.plan.count()
    storage.rename(table(1), table(1))
    assert backend.plan.count() == calls


def test_renaming_what_is_not_there_is_not_found(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, table(2), b"stays")
    with pytest.raises(FileNotFoundError):
        storage.rename(table(1), table(2))
    assert read(storage, table(2)) == b"stays"


# Handles


def test_a_closed_handle_fails_closed(backend: Backend) -> None:
    storage = backend.storage()
    writer = storage.create(journal(1))
    writer.close()
    for call in (lambda: writer.write(b"x"), writer.sync, writer.close):
        with pytest.raises(errors.ClosedError):
            call()
    reader = storage.open(journal(1))
    reader.close()
    for look in (reader.read, lambda: reader.seek(0), lambda: reader.read_at(1, 0), reader.size):
        with pytest.raises(errors.ClosedError):
            look()
    with pytest.raises(errors.ClosedError):
        reader.close()


def test_handles_of_a_closed_storage_fail_closed_but_can_be_released(backend: Backend) -> None:
    storage = backend.storage()
    writer = storage.create(journal(1))
    write(storage, journal(2))
    reader = storage.open(journal(2))
    storage.close()
    for call in (
        lambda: writer.write(b"x"),
        writer.sync,
        reader.read,
        reader.size,
        lambda: reader.seek(0),
        lambda: reader.read_at(1, 0),
    ):
        with pytest.raises(errors.ClosedError, match=r"storage was closed"):
            call()
    writer.close()
    reader.close()
    with pytest.raises(errors.ClosedError):
        reader.close()


def test_a_failed_close_releases_the_handle(faulty_backend: Backend) -> None:
    storage = faulty_backend.storage()
    writer = storage.create(journal(1))
    faulty_backend.plan.fail(Op.CLOSE, Kind.JOURNAL)
    with pytest.raises(OSError, match=r"000001.log"):
        writer.close()
    write(storage, journal(1), b"again")
    assert read(storage, journal(1)) == b"again"


def test_a_removed_file_stays_readable_through_its_handle(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, table(1), b"still here")
    reader = storage.open(table(1))
    storage.remove(table(1))
    assert reader.read() == b"still here"
    # The name is free at once, also in memory, where an open file's name is otherwise taken.
    write(storage, table(1), b"another")
    assert read(storage, table(1)) == b"another"
    assert reader.read_at(5, 0) == b"still"
    reader.close()
    assert read(storage, table(1)) == b"another"


# One handle per file: the memory storage's own rule


def test_a_file_in_memory_has_one_handle(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, table(1))
    first = storage.open(table(1))
    if backend.one_handle:
        with pytest.raises(errors.FileOpenError, match=r"000001.ldb is open"):
            storage.open(table(1))
        with pytest.raises(errors.FileOpenError):
            storage.create(table(1))
        first.close()
        storage.open(table(1)).close()
    else:
        second = storage.open(table(1))
        first.close()
        assert second.read() == b"content"
        second.close()


def test_an_open_file_in_memory_is_not_renamed_nor_replaced(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, table(1), b"one")
    write(storage, table(2), b"two")
    reader = storage.open(table(1))
    if backend.one_handle:
        with pytest.raises(errors.FileOpenError):
            storage.rename(table(1), table(3))
        with pytest.raises(errors.FileOpenError):
            storage.rename(table(2), table(1))
        assert storage.list(Kind.TABLE) == [table(1), table(2)]
        reader.close()
        storage.rename(table(2), table(1))
    else:
        storage.rename(table(2), table(1))
        assert reader.read() == b"one"
        reader.close()
    assert read(storage, table(1)) == b"two"


def test_what_failed_to_open_is_not_taken(faulty_backend: Backend) -> None:
    storage = faulty_backend.storage()
    write(storage, table(1))
    faulty_backend.plan.fail(Op.OPEN | Op.CREATE | Op.RENAME, Kind.TABLE)
    for call in (
        lambda: storage.open(table(1)),
        lambda: storage.create(table(1)),
        lambda: storage.rename(table(1), table(2)),
    ):
        with pytest.raises(OSError, match=r"000001.ldb"):
            call()
    assert read(storage, table(1)) == b"content"


# close


def test_close_waits_for_what_is_running(faulty_backend: Backend) -> None:
    storage = faulty_backend.storage()
    faulty_backend.plan.stall(Op.CREATE, Kind.TABLE)
    done: list[str] = []

    def create() -> None:
        storage.create(table(1)).close()

    def close() -> None:
        storage.close()
        done.append("close")

    creating = threading.Thread(target=create)
    creating.start()
    assert faulty_backend.plan.wait_stalled(Op.CREATE, Kind.TABLE, timeout=30)
    closing = threading.Thread(target=close)
    closing.start()
    while True:
        try:
            storage.list(Kind.TABLE)
        except errors.ClosedError:
            break
    assert done == []
    faulty_backend.plan.release()
    creating.join(30)
    closing.join(30)
    assert done == ["close"]
    assert "000001.ldb" in faulty_backend.directory.names()


def test_open_handles_are_counted_until_they_are_closed(file_backend: Backend) -> None:
    storage = file_backend.file_storage()
    writer = storage.create(journal(2))
    held = storage.open_file("MANIFEST-000001", Open.WRITE | Open.CREATE)
    assert storage.open_handles == ("000002.log", "MANIFEST-000001")
    writer.close()
    held.close()
    held.close()
    assert not storage.open_handles
