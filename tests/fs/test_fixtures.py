"""Databases that engines left, damaged ones among them: all is shown, and looking changes nothing."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from avccfs.fs.core import Core
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.local import LocalDirectory
from tests.fs.places import CorePlace, OsPlace, Place, names_in, read_all
from tests.mounting import mounted, tree

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())


def everything_about(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Names, modes, times, identities and bytes of all there is."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        about = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
        found[str(path.relative_to(root))] = (
            about.st_mode,
            about.st_mtime_ns,
            about.st_ino,
            content,
        )
    return found


def look_at_everything(place: Place, expected: dict[str, bytes]) -> None:
    assert names_in(place) == sorted(expected)
    for name, content in expected.items():
        found = place.facts(name)
        assert stat.S_ISREG(found.mode)
        assert found.size == len(content)
        assert read_all(place, name) == content
    assert stat.S_ISDIR(place.facts().mode)


def copied(name: str, tmp_path: Path) -> Path:
    source = tmp_path / "source"
    shutil.copytree(FIXTURES / name / "db", source)
    return source


def open_core(source: Path, *, read_only: bool) -> Core:
    directory = LocalDirectory(source, read_only=read_only, create=False)
    return Core(DirectoryStorage(directory, read_only=read_only), source=os.fspath(source))


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
@pytest.mark.parametrize("name", NAMES)
def test_looking_changes_nothing(name: str, read_only: bool, tmp_path: Path) -> None:
    source = copied(name, tmp_path)
    before = everything_about(source)
    with closing(open_core(source, read_only=read_only)) as core:
        look_at_everything(CorePlace(core, "core"), tree(source))
        assert core.counts() == (1, 0)
    assert everything_about(source) == before


def _empty(source: Path) -> None:
    source.mkdir()


def _only_foreign(source: Path) -> None:
    source.mkdir()
    (source / "notes.txt").write_bytes(b"foreign")
    (source / "5.ldb").write_bytes(b"not a table")
    (source / "LOCK").touch()


def _only_rubbish(source: Path) -> None:
    source.mkdir()
    for name in ("CURRENT", "CURRENT.bak", "CURRENT.7", "MANIFEST-000001", "000002.log", "LOG"):
        (source / name).write_bytes(b"\xff\0" * 5_000)
    (source / "LOCK").write_bytes(b"even here")


ODD: dict[str, Callable[[Path], None]] = {
    "empty": _empty,
    "only foreign files": _only_foreign,
    "only rubbish": _only_rubbish,
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_directories_are_shown_as_readily(odd: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    ODD[odd](source)
    before = tree(source)
    with closing(open_core(source, read_only=False)) as core:
        # The lock is the one thing that mounting makes.
        look_at_everything(CorePlace(core, "core"), {"LOCK": b"", **before})
    assert tree(source) == {"LOCK": b"", **before}


def test_what_is_no_file_is_shown_and_left_alone(tmp_path: Path) -> None:
    source = copied("leveldb-closed", tmp_path)
    (source / "lost").mkdir()
    (source / "lost" / "000007.ldb").write_bytes(b"a table")
    (source / "outside").symlink_to("/etc/passwd")
    (source / "inside").symlink_to(source / "CURRENT")
    os.mkfifo(source / "fifo")
    # CURRENT and a table as nobody would make them.
    (source / "CURRENT.bak").mkdir()
    (source / "000099.ldb").symlink_to("CURRENT")
    with closing(open_core(source, read_only=False)) as core:
        place = CorePlace(core, "core")
        assert set(names_in(place)) == set(os.listdir(source))
        assert names_in(place, "lost") == ["000007.ldb"]
        assert place.readlink("inside") == "CURRENT"
        assert place.readlink("000099.ldb") == "CURRENT"
        assert stat.S_ISLNK(place.facts("outside").mode)
        with pytest.raises(OSError, match="cross-device"):
            place.readlink("outside")
        assert stat.S_ISFIFO(place.facts("fifo").mode)
        with pytest.raises(OSError, match=r"\[Errno"):
            place.open("fifo")
        assert stat.S_ISDIR(place.facts("CURRENT.bak").mode)


@pytest.mark.mounted
@pytest.mark.parametrize(
    "name", ["current-empty", "goleveldb-killed-at-fsync-5", "truncated-table-footer"]
)
@pytest.mark.parametrize("options", [(), ("--read-only",), ("--unlocked",)], ids=" ".join)
def test_looking_through_a_mount_changes_nothing(
    name: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    source = copied(name, tmp_path)
    before = everything_about(source)
    with mounted(source, tmp_path / "mnt", *options) as at:
        look_at_everything(OsPlace(at.path, "mount"), tree(source))
        shown = everything_about(at.path)
    assert everything_about(source) == before
    # And it was all shown as it is, but for the numbers, which are the mount's own.
    for path, (mode, mtime_ns, _, content) in before.items():
        assert shown[path][:2] == (mode, mtime_ns)
        assert shown[path][3] == content
