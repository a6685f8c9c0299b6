"""One piece of work on one directory, in a process of its own, timed from the inside.

    python bench_worker.py TASK DIRECTORY COUNT

prints the seconds that the work itself took. What is not the work (importing, making up keys,
opening a database) is outside of the clock. Randomness is seeded: every place gets the same work.
"""

from __future__ import annotations

import collections
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import plyvel

from avccfs.format import batch, journal
from avccfs.format.table import Fault, Table

SEED = 301
VALUE_SIZE = 100
BLOCK = 4096
PAGE_VALUE = 4096
"""Bytes of a value in the database that nothing can compress."""
ONE_FILE = 1 << 30
"""A write buffer that never fills up: what is written stays in one journal, or makes one table."""
MIB = 1 << 20
TABLE = "000005.ldb"
"""The file that `make_table` leaves for those that read it."""
MANIFESTS = ("MANIFEST-000001", "MANIFEST-000002")


class Clock:
    """Adds up the seconds spent in its `with` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start


# -- an engine: LevelDB, with the key and value sizes of its own db_bench


def key(number: int) -> bytes:
    return b"%016d" % number


def random_keys(count: int) -> list[bytes]:
    numbers = random.Random(SEED)
    return [key(numbers.randrange(count)) for _ in range(count)]


def values() -> Callable[[], bytes]:
    """An endless supply of values that compress to about half, as db_bench's do."""
    source = random.Random(SEED)
    pool = b"".join(source.randbytes(50) * 2 for _ in range(MIB // VALUE_SIZE))
    position = 0

    def take() -> bytes:
        nonlocal position
        if position + VALUE_SIZE > len(pool):
            position = 0
        position += VALUE_SIZE
        return pool[position - VALUE_SIZE : position]

    return take


def fill(directory: Path, keys: Iterable[bytes], clock: Clock, *, sync: bool = False) -> None:
    """One write an entry. Closing counts: until then a compaction may owe work."""
    take = values()
    items = [(each, take()) for each in keys]
    database = plyvel.DB(str(directory), create_if_missing=True)
    with clock:
        put = database.put
        for each, value in items:
            put(each, value, sync=sync)
        database.close()


def fill_in_order(directory: Path, count: int, clock: Clock) -> None:
    fill(directory, map(key, range(count)), clock)


def fill_at_random(directory: Path, count: int, clock: Clock) -> None:
    fill(directory, random_keys(count), clock)


def fill_synced(directory: Path, count: int, clock: Clock) -> None:
    fill(directory, map(key, range(count)), clock, sync=True)


def scan_entries(directory: Path, count: int, clock: Clock) -> None:
    """Everything in key order, over and over until `count` entries were seen."""
    database = plyvel.DB(str(directory))
    seen = 0
    while seen < count:
        with clock, database.iterator() as entries:
            numbered = collections.deque(enumerate(entries, 1), maxlen=1)
        if not numbered:
            raise SystemExit(f"{directory} holds no entries to read")
        seen += numbered[0][0]
    database.close()


def get_at_random(directory: Path, count: int, clock: Clock) -> None:
    database = plyvel.DB(str(directory))
    keys = random_keys(count)
    with clock:
        found = sum(value is not None for value in map(database.get, keys))
    database.close()
    if not found:
        raise SystemExit(f"{directory} holds none of the {count} keys that were looked for")


# -- one large file


def make_table(directory: Path, count: int, clock: Clock) -> None:
    """A file of `count` MiB that no disk can compress."""
    with clock, (directory / TABLE).open("wb") as file:
        for _ in range(count):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def read_in_order(directory: Path, count: int, clock: Clock) -> None:
    """`count` MiB, 1 MiB at a time, from the start again where the file ends."""
    buffer = bytearray(MIB)
    with (directory / TABLE).open("rb", buffering=0) as file, clock:
        for _ in range(count):
            if file.readinto(buffer) != MIB:
                file.seek(0)
                if file.readinto(buffer) != MIB:
                    raise SystemExit(f"{file.name} is shorter than 1 MiB")


def read_at_random(directory: Path, count: int, clock: Clock) -> None:
    """`count` blocks of 4 KiB, none twice before all were read."""
    numbers = random.Random(SEED)
    with (directory / TABLE).open("rb", buffering=0) as file:
        blocks = os.fstat(file.fileno()).st_size // BLOCK
        offsets: list[int] = []
        while len(offsets) < count:
            some = min(blocks, count - len(offsets))
            offsets += [BLOCK * number for number in numbers.sample(range(blocks), some)]
        with clock:
            for offset in offsets:
                if len(os.pread(file.fileno(), BLOCK, offset)) != BLOCK:
                    raise SystemExit(f"{file.name} ends before offset {offset + BLOCK}")


def change_bytes(directory: Path, count: int, clock: Clock) -> None:
    """One byte in each of `count` blocks, no block twice, and an fsync."""
    with (directory / TABLE).open("r+b", buffering=0) as file:
        blocks = os.fstat(file.fileno()).st_size // BLOCK
        if count > blocks:
            raise SystemExit(f"{file.name} has {blocks} blocks, not {count}")
        numbers = random.Random(SEED)
        offsets = [
            BLOCK * block + numbers.randrange(BLOCK)
            for block in numbers.sample(range(blocks), count)
        ]
        with clock:
            for offset in offsets:
                os.pwrite(file.fileno(), b"x", offset)
            os.fsync(file.fileno())


# -- many small files


def names(count: int) -> list[str]:
    return [f"{number:06d}.ldb" for number in range(1, count + 1)]


def make_folder(directory: Path, count: int, clock: Clock) -> None:
    """`count` files of 100 bytes, and LOCK, which a mount would otherwise add."""
    content = os.urandom(VALUE_SIZE)
    with clock:
        for name in [*names(count), "LOCK"]:
            (directory / name).write_bytes(content if name != "LOCK" else b"")


def list_long(directory: Path, count: int, clock: Clock) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    with clock:
        listing = subprocess.run(
            ["ls", "-l", directory], env=environment, stdout=subprocess.PIPE, check=True
        ).stdout
    lines = listing.count(b"\n")
    if lines < count:
        raise SystemExit(f"ls -l {directory} shows {lines} lines, not {count}")


def stat_each(directory: Path, count: int, clock: Clock) -> None:
    paths = [os.path.join(directory, name) for name in names(count)]
    with clock:
        for path in paths:
            os.stat(path)


def open_each(directory: Path, count: int, clock: Clock) -> None:
    paths = [os.path.join(directory, name) for name in names(count)]
    with clock:
        for path in paths:
            os.close(os.open(path, os.O_RDONLY))


def write_synced(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_each(directory: Path, count: int, clock: Clock) -> None:
    """Create, fsync and rename small files: how careful programs save."""
    content = os.urandom(VALUE_SIZE)
    final = [os.path.join(directory, name) for name in names(count)]
    with clock:
        for path in final:
            temporary = path[: -len("ldb")] + "tmp"
            write_synced(temporary, content)
            os.rename(temporary, path)


def make_manifests(directory: Path, count: int, clock: Clock) -> None:
    """Two manifests of `count` bytes, and a CURRENT to switch between them."""
    with clock:
        for name in MANIFESTS:
            write_synced(os.path.join(directory, name), bytes(count))
        (directory / "CURRENT").write_text(MANIFESTS[0] + "\n")


def switch_current(directory: Path, count: int, clock: Clock) -> None:
    """LevelDB's way to switch: write a temporary file, fsync it, rename it onto CURRENT."""
    current = os.path.join(directory, "CURRENT")
    with clock:
        for number in range(count):
            temporary = os.path.join(directory, f"{number + 3:06d}.dbtmp")
            write_synced(temporary, MANIFESTS[(number + 1) % 2].encode() + b"\n")
            os.rename(temporary, current)


# -- databases to look inside, and the looking


def make_journal(directory: Path, count: int, clock: Clock) -> None:
    """One journal with `count` entries, each a record of its own."""
    take = values()
    with clock:
        database = plyvel.DB(str(directory), create_if_missing=True, write_buffer_size=ONE_FILE)
        for number in range(count):
            database.put(key(number), take())
        database.close()


def make_sorted_table(directory: Path, count: int, clock: Clock) -> None:
    """One table with `count` entries."""
    make_journal(directory, count, clock)
    settle(directory)


def make_incompressible(directory: Path, count: int, clock: Clock) -> None:
    """Tables with `count` values of 4 KiB that nothing can compress."""
    source = random.Random(SEED)
    with clock:
        database = plyvel.DB(str(directory), create_if_missing=True)
        for number in range(count):
            database.put(key(number), source.randbytes(PAGE_VALUE))
        database.close()
    settle(directory)


def make_tiny(directory: Path, count: int, clock: Clock) -> None:
    """A table and a journal with `count` entries each."""
    make_sorted_table(directory, count, clock)
    fill(directory, map(key, range(count)), clock)


def settle(directory: Path) -> None:
    """What opening a database brings: the journal's entries go to tables."""
    plyvel.DB(str(directory), write_buffer_size=ONE_FILE).close()


def only(directory: Path, pattern: str) -> Path:
    found = list(directory.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{directory} has {len(found)} files {pattern}, not one")
    return found[0]


def decode_table(directory: Path, count: int, clock: Clock) -> None:
    """Every entry of a table, with all checksums compared."""
    faults: list[Fault] = []
    with only(directory, "*.ldb").open("rb", buffering=0) as file:
        fd, size = file.fileno(), os.fstat(file.fileno()).st_size
        with clock:
            table = Table(lambda length, offset: os.pread(fd, length, offset), size)
            numbered = collections.deque(enumerate(table.entries(faults.append), 1), maxlen=1)
    expect(count, numbered[0][0] if numbered else 0, (*table.faults, *faults))


def decode_journal(directory: Path, count: int, clock: Clock) -> None:
    """Every entry of a journal, with all checksums compared."""
    seen = 0
    faults: list[journal.Fault] = []
    with only(directory, "*.log").open("rb", buffering=0) as file:
        fd = file.fileno()
        with clock:
            for item in journal.read(
                lambda length, offset: os.pread(fd, length, offset), journal.Policy.LEVELDB
            ):
                if isinstance(item, journal.Fault):
                    faults.append(item)
                else:
                    for _ in batch.entries(item.payload):
                        seen += 1
    expect(count, seen, faults)


def expect(count: int, seen: int, faults: Sequence[object]) -> None:
    if seen != count or faults:
        raise SystemExit(f"{seen} entries of {count} were decoded, with {len(faults)} faults")


TASKS: dict[str, Callable[[Path, int, Clock], Any]] = {
    function.__name__: function
    for function in (
        fill_in_order,
        fill_at_random,
        fill_synced,
        scan_entries,
        get_at_random,
        make_table,
        read_in_order,
        read_at_random,
        change_bytes,
        make_folder,
        list_long,
        stat_each,
        open_each,
        replace_each,
        make_manifests,
        switch_current,
        make_journal,
        make_sorted_table,
        make_incompressible,
        make_tiny,
        decode_table,
        decode_journal,
    )
}


def main() -> None:
    task, directory, count = sys.argv[1:]
    clock = Clock()
    TASKS[task](Path(directory), int(count), clock)
    print(clock.seconds)


if __name__ == "__main__":
    main()
