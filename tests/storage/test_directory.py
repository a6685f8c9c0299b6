"""What the file storage does beyond the contract: its lock, its handles, CURRENT by hand, LOG."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avccfs import errors
from avccfs.format.filename import Kind
from avccfs.storage.contract import Storage
from avccfs.storage.directory import DirectoryStorage, open_storage
from avccfs.storage.memory import MemoryStorage
from avccfs.vfs.base import File, Open
from avccfs.vfs.fault import FaultDirectory, FaultPlan, Op
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.memory import MemoryDirectory
from tests.storage.backends import Backend, get, journal, manifest, put, read, tree, write

CREATE = Open.WRITE | Open.CREATE


def test_both_are_storages() -> None:
    storages: list[Storage] = [DirectoryStorage(MemoryDirectory()), MemoryStorage()]
    for storage in storages:
        storage.close()


# Opening and the lock between processes


def test_opening_and_closing_changes_nothing_but_the_lock(file_backend: Backend) -> None:
    put(file_backend.directory, "CURRENT", b"torn")
    put(file_backend.directory, "CURRENT.3", b"MANIFEST-000003\n")
    before = tree(file_backend.directory)
    storage = file_backend.file_storage()
    storage.lock().unlock()
    storage.list(Kind.NUMBERED)
    storage.explain_meta()
    storage.close()
    after = tree(file_backend.directory)
    after.pop("LOCK", None)
    assert after == before


def test_one_writer_or_many_readers(file_backend: Backend) -> None:
    writer = file_backend.file_storage()
    with pytest.raises(errors.LockedError):
        DirectoryStorage(file_backend.directory)
    with pytest.raises(errors.LockedError):
        DirectoryStorage(file_backend.directory, read_only=True)
    DirectoryStorage(file_backend.directory, read_only=True, take_lock=False).close()
    with pytest.raises(errors.LockedError):
        DirectoryStorage(file_backend.directory)
    writer.close()
    readers = [DirectoryStorage(file_backend.directory, read_only=True) for _ in range(2)]
    with pytest.raises(errors.LockedError):
        DirectoryStorage(file_backend.directory)
    for reader in readers:
        reader.close()
    DirectoryStorage(file_backend.directory).close()


def test_another_process_is_kept_out(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from avccfs.errors import LockedError\n"
        "from avccfs.storage.directory import open_storage\n"
        "try:\n"
        "    open_storage(sys.argv[1]).close()\n"
        "except LockedError as error:\n"
        "    print([pid for pid, _ in error.holders])\n"
        "else:\n"
        "    print('opened')\n"
    )

    def another() -> str:
        command = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    with open_storage(tmp_path):
        assert another() in (f"[{os.getpid()}]", "[]")
    assert another() == "opened"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_failed_opening_leaves_nothing_open(tmp_path: Path) -> None:
    with open_storage(tmp_path / "db") as storage:
        held = descriptors()
        with pytest.raises(errors.LockedError):
            open_storage(tmp_path / "db")
        with pytest.raises(errors.LockedError):
            DirectoryStorage(storage.directory)
        assert descriptors() == held
    with pytest.raises(FileNotFoundError):
        open_storage(tmp_path / "absent", read_only=True)
    assert not (tmp_path / "absent").exists()


def test_closing_releases_everything(tmp_path: Path) -> None:
    before = descriptors()
    storage = open_storage(tmp_path / "db")
    write(storage, manifest(1))
    storage.set_meta(manifest(1))
    storage.log("a line")
    assert storage.get_meta() == manifest(1)
    storage.close()
    assert descriptors() == before
    with pytest.raises(errors.ClosedError):
        storage.directory.names()


def test_a_directory_handed_over_is_closed_with_the_storage() -> None:
    directory = MemoryDirectory()
    DirectoryStorage(directory, close_directory=True).close()
    with pytest.raises(errors.ClosedError):
        directory.names()


def test_a_directory_is_created_with_mode_0755(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        open_storage(tmp_path / "db").close()
    finally:
        os.umask(old)
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o755


# LOG


def test_files_still_open_are_named_at_close(file_backend: Backend) -> None:
    storage = file_backend.file_storage()
    writer = storage.create(journal(7))
    held = storage.open_file("MANIFEST-000002", CREATE)
    storage.create(journal(8)).close()
    storage.close()
    assert b" close: warning, 2 files still open: 000007.log, MANIFEST-000002\n" in get(
        file_backend.directory, "LOG"
    )
    writer.close()
    held.close()


def test_a_clean_close_writes_no_log(file_backend: Backend) -> None:
    storage = file_backend.file_storage()
    write(storage, manifest(1))
    storage.set_meta(manifest(1))
    storage.close()
    assert "LOG" not in file_backend.directory.names()


def test_no_log_is_written_when_none_is_wanted() -> None:
    directory = MemoryDirectory()
    with DirectoryStorage(directory, write_log=False) as storage:
        storage.log("dropped")
    with DirectoryStorage(directory, read_only=True) as storage:
        storage.log("dropped")
    assert "LOG" not in directory.names()


def test_get_meta_logs_what_it_could_not_use(file_backend: Backend) -> None:
    put(file_backend.directory, "MANIFEST-000003")
    put(file_backend.directory, "CURRENT", b"\0\0")
    put(file_backend.directory, "CURRENT.bak", b"MANIFEST-000003\n")
    storage = file_backend.file_storage()
    assert storage.get_meta() == manifest(3)
    assert b" CURRENT is corrupted: " in get(file_backend.directory, "LOG")


# open_file


def test_open_file_opens_exactly_this_name(file_backend: Backend) -> None:
    storage = file_backend.file_storage()
    put(storage.directory, "000005.sst", b"old")
    with pytest.raises(FileNotFoundError):
        storage.open_file("000005.ldb", Open.READ)
    file = storage.open_file("000005.sst", Open.READ)
    assert file.read_at(10, 0) == b"old"
    file.close()
    storage.directory.mkdir("lost")
    file = storage.open_file("lost/any name", CREATE, 0o600)
    assert file.stat().mode & 0o777 == 0o600
    file.close()


@pytest.mark.parametrize(
    ("path", "syncs_of_directory"),
    [
        ("MANIFEST-000004", 1),
        ("000004.log", 0),
        ("CURRENT", 0),
        ("foreign", 0),
        ("MANIFEST-4", 0),
        ("lost/MANIFEST-000004", 0),
    ],
)
def test_the_sync_of_a_manifest_opened_by_name_syncs_the_directory(
    path: str, syncs_of_directory: int
) -> None:
    plan = FaultPlan()
    directory = FaultDirectory(MemoryDirectory(), plan)
    directory.mkdir("lost")
    storage = DirectoryStorage(directory)
    file = storage.open_file(path, CREATE)
    file.write_at(b"x", 0)
    file.sync()
    assert plan.count(Op.SYNC) == 1
    assert plan.count(Op.SYNC_DIR) == syncs_of_directory
    file.sync(data_only=True)
    assert plan.count(Op.SYNC_DIR) == 2 * syncs_of_directory
    file.close()
    file.close()
    storage.close()


def test_a_manifest_opened_by_name_is_a_whole_file() -> None:
    storage = DirectoryStorage(MemoryDirectory())
    file: File = storage.open_file("MANIFEST-000004", CREATE)
    assert isinstance(file, File)
    assert file.write_at(b"0123456789", 0) == 10
    file.truncate(4)
    assert file.read_at(10, 1) == b"123"
    assert file.stat().size == 4
    file.close()
    with pytest.raises(errors.ClosedError):
        file.read_at(1, 0)
    storage.close()


def test_open_file_obeys_the_storage() -> None:
    directory = MemoryDirectory()
    put(directory, "x", b"abc")
    reading = DirectoryStorage(directory, read_only=True)
    with pytest.raises(errors.ReadOnlyError):
        reading.open_file("x", Open.WRITE)
    file = reading.open_file("x", Open.READ)
    assert file.read_at(3, 0) == b"abc"
    reading.close()
    with pytest.raises(errors.ClosedError):
        reading.open_file("x", Open.READ)
    file.close()


# CURRENT by hand


def test_check_and_adopt_and_explain(file_backend: Backend) -> None:
    storage = file_backend.file_storage()
    for number in (1, 2):
        write(storage, manifest(number))
    storage.set_meta(manifest(1))
    assert storage.check_meta(b"MANIFEST-000002\n") == manifest(2)
    with pytest.raises(errors.MetaError):
        storage.check_meta(b"MANIFEST-000002")
    with pytest.raises(FileNotFoundError):
        storage.check_meta(b"MANIFEST-000003\n")
    assert storage.get_meta() == manifest(1)
    put(storage.directory, "sedXq3f", b"MANIFEST-000002\n")
    assert storage.adopt_meta("sedXq3f") == manifest(2)
    assert storage.get_meta() == manifest(2)
    assert get(storage.directory, "CURRENT.bak") == b"MANIFEST-000001\n"
    assert [c.name for c in storage.explain_meta().candidates] == ["CURRENT", "CURRENT.bak"]
    put(storage.directory, "other", b"MANIFEST-000001\n")
    assert storage.adopt_meta("other", exchange=True) == manifest(1)
    assert get(storage.directory, "other") == b"MANIFEST-000002\n"


def test_current_by_hand_obeys_the_storage() -> None:
    directory = MemoryDirectory()
    put(directory, "MANIFEST-000001")
    put(directory, "x", b"MANIFEST-000001\n")
    reading = DirectoryStorage(directory, read_only=True)
    with pytest.raises(errors.ReadOnlyError):
        reading.adopt_meta("x")
    assert reading.check_meta(b"MANIFEST-000001\n") == manifest(1)
    reading.close()
    for call in (
        lambda: reading.adopt_meta("x"),
        reading.explain_meta,
        lambda: reading.check_meta(b"MANIFEST-000001\n"),
    ):
        with pytest.raises(errors.ClosedError):
            call()
    assert "CURRENT" not in directory.names()


def test_a_caller_s_directory_stays_open(tmp_path: Path) -> None:
    directory = LocalDirectory(tmp_path)
    with DirectoryStorage(directory) as storage:
        write(storage, journal(1), b"kept")
    with DirectoryStorage(directory) as storage:
        assert read(storage, journal(1)) == b"kept"
    directory.close()
