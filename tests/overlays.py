"""Overlays on real mounts: proof that the source stays as it is, and words to the mount."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from avccfs.fs.core import Core
from avccfs.fuse.asking import asking
from avccfs.storage.directory import DirectoryStorage
from avccfs.vfs.local import LocalDirectory
from avccfs.vfs.overlay import Overlay
from tests.fs.places import CorePlace, OsPlace, Place, write_all
from tests.mounting import AVCCFS, tree
from tests.session.dump import FIXTURES

Facts = dict[str, tuple[int, ...]]


def facts(root: Path) -> Facts:
    """What `lstat` says of everything below a folder, and of it; the time of reading aside."""
    found: Facts = {}
    for path in (root, *sorted(root.rglob("*"))):
        told = path.lstat()
        found[os.fspath(path.relative_to(root))] = (
            *(told.st_dev, told.st_ino, told.st_mode, told.st_nlink, told.st_uid, told.st_gid),
            *(told.st_size, told.st_blocks, told.st_mtime_ns, told.st_ctime_ns),
        )
    return found


@contextmanager
def unchanged(source: Path) -> Iterator[None]:
    """Bytes, names, modes, owners, inodes and times are at the end what they were before."""
    before, content = facts(source), tree(source)
    yield
    assert facts(source) == before
    assert tree(source) == content


def start_over(mountpoint: Path) -> None:
    """Drop the changes of a mounted overlay."""
    with asking(os.fspath(mountpoint)) as mount:
        assert mount.ask("discard") == {"busy": []}


def size_on_disk(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


# One of each change, on a copy of the sample, in which two manifests lead to the same keys


SAMPLE = FIXTURES / "goleveldb-killed-at-fsync-5/db"
FIRST, SECOND = "MANIFEST-000000", "MANIFEST-000010"


def rehearse(place: Place) -> None:
    """Change a database of `SAMPLE` in every way that a commit has to carry over."""
    write_all(place, "CURRENT", f"{SECOND}\n".encode())
    with closing(place.open("000007.ldb", os.O_RDWR)) as table:
        table.write(b"XX", 100)
    place.mkdir("sub")
    write_all(place, "sub/file", b"new\n")
    place.symlink("sub/link", "file")
    place.rename("000003.ldb", "000103.ldb")
    place.link("000009.ldb", "second name")
    place.chmod("000005.ldb", 0o600)
    write_all(place, "000012.log", bytes(20_000))
    place.unlink("LOG")


def rehearse_on(mountpoint: Path) -> None:
    """The same on a mount."""
    rehearse(OsPlace(mountpoint, "mount"))


def rehearse_in(root: Path) -> tuple[Path, Path]:
    """A copy of `SAMPLE`, and the directory with these changes of it; without a mount."""
    source = Path(shutil.copytree(SAMPLE, root / "db"))
    below = LocalDirectory(source, read_only=True)
    overlay = Overlay(below, LocalDirectory(root / "changes"))
    core = Core(DirectoryStorage(overlay))
    try:
        rehearse(CorePlace(core, "core"))
    finally:
        core.close()
    return source, root / "changes"


REHEARSED = """\
changed     CURRENT               16 -> 16 bytes  named MANIFEST-000000, names MANIFEST-000010
removed     CURRENT.10            was 16 bytes  named MANIFEST-000010, names nothing (no file)
added       000012.log            20000 bytes
attributes  000005.ldb            mode 0644 -> 0600
changed     000007.ldb            1875 -> 1875 bytes  other bytes: [100, +2)
renamed     000003.ldb -> 000103.ldb  1854 -> 1854 bytes
removed     LOG                   was 1868 bytes
linked      second name, the same file as 000009.ldb  1862 bytes
added       sub                   folder
added       sub/file              4 bytes
added       sub/link              symbolic link to file

4 added, 2 removed, 1 renamed, 2 changed, 1 attributes, 1 linked; 21869 bytes that are new or other
"""
"""What `diff` says of it."""

Shown = dict[str, tuple[object, ...]]


def shown_by(place: Path) -> Shown:
    """What a directory shows: content, links, modes, owners, and times of what is no folder."""
    found: Shown = {}
    for path in (place, *sorted(place.rglob("*"))):
        if path.name in ("LOCK", "LOG"):
            continue
        told = path.lstat()
        held: object = path.readlink() if path.is_symlink() else None
        time = told.st_mtime_ns
        if path.is_dir() and not path.is_symlink():
            time = 0
        elif not path.is_symlink():
            held = path.read_bytes()
        names = told.st_nlink if time else 0
        found[os.fspath(path.relative_to(place))] = (
            *(told.st_mode, told.st_uid, told.st_gid, time, names),
            held,
        )
    return found


# A terminal, for the question


@dataclass(frozen=True)
class Dialogue:
    code: int
    said: str


def on_terminal(
    answer: str, *arguments: str | Path, before_answer: Callable[[], object] = lambda: None
) -> Dialogue:
    """Run the command on a terminal and answer its question, after doing `before_answer`."""
    ours, theirs = pty.openpty()
    words = [*AVCCFS, *(os.fspath(each) for each in arguments)]
    said = b""
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            asked = False
            while piece := _read(ours):
                said += piece
                if b"[y/N]" in said and not asked:
                    asked = True
                    before_answer()
                    os.write(ours, f"{answer}\n".encode())
        finally:
            os.close(ours)
            process.wait(60)
    assert asked, said
    return Dialogue(process.returncode, said.decode().replace("\r\n", "\n"))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the last process has closed its side.
        return b""
