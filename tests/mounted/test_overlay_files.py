"""Files of the source under change on a mounted overlay: handles, names, listings, memory maps."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounting import mounted, tree
from tests.overlays import start_over, unchanged

pytestmark = pytest.mark.mounted

BLOCK = 4096
CONTENT = random.Random(3).randbytes(10 * BLOCK + 123)
KINDS = ("in memory", "in a directory", "in a directory, write-through")

R, RW = os.O_RDONLY, os.O_RDWR


@pytest.fixture
def source(db: Path) -> Path:
    """No database, but every sort of file that one may have beside it."""
    for name in ("file", "other", "third"):
        (db / name).write_bytes(CONTENT)
    (db / "linked").write_bytes(b"two names")
    os.link(db / "linked", db / "second")
    (db / "folder/deep").mkdir(parents=True)
    (db / "folder/deep/file").write_bytes(b"at the bottom")
    (db / "folder/beside").write_bytes(b"beside")
    (db / "link").symlink_to("folder/beside")
    (db / "LOCK").touch()
    return db


@contextmanager
def overlaid(kind: str, source: Path, mnt: Path, tmp_path: Path) -> Iterator[None]:
    """The source under an overlay, which never changes it."""
    words = ["--overlay"] if kind == "in memory" else ["--overlay", os.fspath(tmp_path / "upper")]
    words += ["--write-through"] if "through" in kind else []
    with unchanged(source), mounted(source, mnt, *words):
        yield


@pytest.fixture(params=KINDS)
def shown(
    request: pytest.FixtureRequest, source: Path, mnt: Path, tmp_path: Path
) -> Iterator[Path]:
    """The mount of an overlay over `source`."""
    with overlaid(request.param, source, mnt, tmp_path):
        yield mnt


@contextmanager
def opened(path: Path, flags: int = R) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def everything(fd: int) -> bytes:
    return os.pread(fd, 1 << 20, 0)


# Open handles


def test_reader_from_before_the_first_change_sees_what_is_written_after_it(shown: Path) -> None:
    with opened(shown / "file") as reader, opened(shown / "file", RW) as writer:
        assert everything(reader) == CONTENT
        model = bytearray(CONTENT)
        for offset in (0, BLOCK - 2, 5 * BLOCK + 17, len(CONTENT) - 1):
            os.pwrite(writer, b"<-->", offset)
            model[offset : offset + 4] = b"<-->"
            assert everything(reader) == model
        os.ftruncate(writer, 3 * BLOCK + 5)
        assert everything(reader) == model[: 3 * BLOCK + 5]
        os.ftruncate(writer, 6 * BLOCK)
        assert everything(reader) == model[: 3 * BLOCK + 5].ljust(6 * BLOCK, b"\0")
        assert os.fstat(reader).st_ino == os.fstat(writer).st_ino == (shown / "file").stat().st_ino


def test_file_stays_open_over_its_renaming_and_the_new_name_shows_its_writes(shown: Path) -> None:
    with opened(shown / "file") as reader, opened(shown / "file", RW) as writer:
        (shown / "file").rename(shown / "folder/moved")
        os.pwrite(writer, b"after", 100)
        expected = CONTENT[:100] + b"after" + CONTENT[105:]
        assert everything(reader) == expected == (shown / "folder/moved").read_bytes()
        (shown / "folder").rename(shown / "elsewhere")
        os.pwrite(writer, b"again", BLOCK)
        expected = expected[:BLOCK] + b"again" + expected[BLOCK + 5 :]
        assert everything(reader) == expected == (shown / "elsewhere/moved").read_bytes()
    assert not (shown / "file").exists()
    assert (shown / "elsewhere/deep/file").read_bytes() == b"at the bottom"


def test_removed_file_stays_for_who_has_it_open_and_its_name_is_free(shown: Path) -> None:
    with opened(shown / "file") as reader, opened(shown / "file", RW) as writer:
        (shown / "file").unlink()
        assert everything(reader) == CONTENT
        os.pwrite(writer, b"gone", 0)
        assert everything(reader) == b"gone" + CONTENT[4:]
        assert os.fstat(reader).st_nlink == 0
        (shown / "file").write_bytes(b"another")
        assert everything(reader) == b"gone" + CONTENT[4:]
        assert (shown / "file").read_bytes() == b"another"
        assert (shown / "file").stat().st_ino != os.fstat(reader).st_ino


def test_replaced_file_stays_for_who_has_it_open(shown: Path) -> None:
    (shown / "new").write_bytes(b"the new one")
    with opened(shown / "file") as reader, opened(shown / "other", RW) as writer:
        os.pwrite(writer, b"other", 0)
        (shown / "new").rename(shown / "file")
        assert everything(reader) == CONTENT
        assert (shown / "file").read_bytes() == b"the new one"
        (shown / "other").rename(shown / "file")
        assert (shown / "file").read_bytes() == b"other" + CONTENT[5:]
        os.pwrite(writer, b"O", 0)
        assert (shown / "file").read_bytes() == b"Other" + CONTENT[5:]
        assert everything(reader) == CONTENT
    assert not (shown / "other").exists()


def test_both_names_of_a_file_show_its_change(shown: Path) -> None:
    with opened(shown / "second") as reader:
        (shown / "linked").write_bytes(b"changed")
        assert everything(reader) == b"changed"
    assert (shown / "second").read_bytes() == b"changed"
    assert os.path.samestat((shown / "linked").stat(), (shown / "second").stat())
    (shown / "linked").unlink()
    assert (shown / "second").stat().st_nlink == 1
    assert (shown / "second").read_bytes() == b"changed"


# Names


def test_names_after_many_changes_are_those_of_a_plain_folder_and_survive(
    source: Path, mnt: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    subprocess.run(["cp", "-a", source, plain], timeout=30, check=True)
    script = """
        mv folder gone; mkdir folder; echo new > folder/beside; rm -r gone/deep
        mv other file; ln third fourth; rm third; mv link folder/link2
        rm second; echo x >> linked; mv linked second
        mkdir -p gone/deep/er; mv gone/beside gone/deep/er/; ln -s deep/er gone/way
        echo one > third; mv third third2; rmdir folder/none || mkdir folder/none
        chmod 600 file; touch -d 2001-01-01 fourth; truncate -s 5000 file
    """
    with overlaid("in a directory", source, mnt, tmp_path):
        for place in (plain, mnt):
            subprocess.run(["bash", "-ec", script], cwd=place, timeout=30, check=True)
        assert listing(mnt) == listing(plain)
    with overlaid("in a directory", source, mnt, tmp_path):
        assert listing(mnt) == listing(plain)
        start_over(mnt)
        assert listing(mnt) == listing(source)


def listing(folder: Path) -> list[tuple[object, ...]]:
    """What may be compared between two folders."""
    found: list[tuple[object, ...]] = []
    for path in sorted(folder.rglob("*")):
        told = path.lstat()
        is_folder = path.is_dir() and not path.is_symlink()
        held: object = path.readlink() if path.is_symlink() else None
        if path.is_file() and not path.is_symlink():
            held = path.read_bytes()
        links = 0 if is_folder else told.st_nlink
        found.append((path.relative_to(folder), told.st_mode, links, held))
    return found


def test_folder_that_was_made_anew_shows_nothing_of_the_old_one(shown: Path) -> None:
    subprocess.run(["rm", "-r", shown / "folder"], timeout=30, check=True)
    (shown / "folder").mkdir()
    assert list((shown / "folder").iterdir()) == []
    (shown / "folder/deep").write_bytes(b"a file now")
    assert tree(shown / "folder") == {"deep": b"a file now"}


def test_listing_begun_before_changes_shows_each_name_that_stayed_once(
    source: Path, mnt: Path, tmp_path: Path
) -> None:
    stayed = {f"{number:06d}.ldb" for number in range(0, 3000, 3)}
    for number in range(3000):
        (source / f"{number:06d}.ldb").touch()
    chance = random.Random(5)
    with overlaid("in memory", source, mnt, tmp_path):
        seen: Counter[str] = Counter()
        with os.scandir(mnt) as entries:
            for turn, entry in enumerate(entries):
                seen[entry.name] += 1
                number = 3 * chance.randrange(1000) + chance.choice((1, 2))
                path = mnt / f"{number:06d}.ldb"
                match turn % 4:
                    case 0:
                        path.unlink(missing_ok=True)
                    case 1:
                        (mnt / f"new-{turn}").touch()
                    case 2 if path.exists():
                        path.rename(mnt / f"moved-{turn}")
                    case 3:
                        (mnt / f"{3 * chance.randrange(1000):06d}.ldb").write_bytes(b"changed")
        assert {name for name in seen if name in stayed} == stayed
        assert all(seen[name] == 1 for name in stayed)
        with os.scandir(mnt) as entries:
            names = [entry.name for entry in entries]
        assert len(names) == len(set(names))
        assert stayed < set(names)


# Memory maps


@contextmanager
def mapping(path: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has mapped the file as `memory`, and runs `code` for each line it gets."""
    script = f"""
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
memory = mmap.mmap(fd, 0)
print("ready", flush=True)
for line in sys.stdin:
    {code}
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, os.fspath(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_map_of_a_file_of_the_source_shows_what_another_process_writes(shown: Path) -> None:
    with mapping(shown / "file", "print(memory[int(line)], flush=True)") as other:
        for offset in (0, BLOCK, 7 * BLOCK + 3):
            assert told(other, str(offset)) == str(CONTENT[offset])
            with opened(shown / "file", RW) as writer:
                os.pwrite(writer, bytes([CONTENT[offset] ^ 0xFF]), offset)
            assert told(other, str(offset)) == str(CONTENT[offset] ^ 0xFF)
        (shown / "file").unlink()
        assert told(other, str(BLOCK + 1)) == str(CONTENT[BLOCK + 1])


def test_write_through_a_map_changes_the_file_of_the_overlay(
    source: Path, mnt: Path, tmp_path: Path
) -> None:
    expected = bytearray(CONTENT)
    expected[2 * BLOCK + 5] ^= 0xFF
    with overlaid("in a directory", source, mnt, tmp_path):
        code = "memory[int(line)] ^= 0xff; memory.flush(); print('done', flush=True)"
        with mapping(mnt / "file", code) as other:
            assert told(other, str(2 * BLOCK + 5)) == "done"
            assert (mnt / "file").read_bytes() == expected
    with overlaid("in a directory", source, mnt, tmp_path):
        assert (mnt / "file").read_bytes() == expected
        with opened(mnt / "file", RW) as fd, mmap.mmap(fd, 0) as memory:
            memory[0] ^= 0xFF
        expected[0] ^= 0xFF
        assert (mnt / "file").read_bytes() == expected
    with overlaid("in a directory", source, mnt, tmp_path):
        assert (mnt / "file").read_bytes() == expected
