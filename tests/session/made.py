"""Small databases made by hand, sound until a test changes something."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from avccfs.format import batch, ikey, journal, manifest, merkle
from avccfs.format.batch import Change
from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.format.filter import METAINDEX_PREFIX, bloom_hash
from avccfs.format.ikey import Dialect, InternalKey, KeyKind
from avccfs.format.manifest import BYTEWISE_COMPARER, AddedTable, SessionRecord
from avccfs.session.check import check
from avccfs.session.checkreport import Report
from avccfs.vfs.base import Open
from avccfs.vfs.memory import MemoryDirectory
from tests.format.tables import Layout, Pair

POLICY = b"leveldb.BuiltinBloomFilter2"


def key(text: str, sequence: int, version: int | None = None) -> bytes:
    """An internal key of a put."""
    return ikey.encode(InternalKey(text.encode(), sequence, KeyKind.PUT, version))


def put(text: str, sequence: int, version: int | None = None) -> Pair:
    """An entry of a table."""
    return key(text, sequence, version), f"value of {text}".encode()


def bloom_of(keys: Sequence[bytes], size: int = 16, probes: int = 4) -> bytes:
    """A filter of `size` bytes of bits over user keys."""
    bits = bytearray(size)
    for each in keys:
        position = bloom_hash(each)
        delta = (position >> 17 | position << 15) & 0xFFFFFFFF
        for _ in range(probes):
            at = position % (8 * size)
            bits[at >> 3] |= 1 << (at & 7)
            position = (position + delta) & 0xFFFFFFFF
    return bytes(bits) + bytes([probes])


def filter_block(filters: Sequence[bytes]) -> bytes:
    """A filter block of these filters."""
    offsets, start = [], 0
    for each in filters:
        offsets.append(start)
        start += len(each)
    return b"".join(filters) + struct.pack(f"<{len(offsets) + 1}I", *offsets, start) + b"\x0b"


def table_of(
    blocks: Sequence[Sequence[Pair]], *, with_filter: bool = False, with_tree: bool = False
) -> bytes:
    """A table with these data blocks, all of them within the first 2048 bytes."""
    layout = Layout()
    for pairs in blocks:
        layout.add(pairs)
    every = [pair for pairs in blocks for pair in pairs]
    if with_filter:
        keys = [each[:-8] for each, _ in every]
        layout.name(METAINDEX_PREFIX + POLICY, filter_block([bloom_of(keys)]))
    if with_tree:
        tree = merkle.build(merkle.leaf_hash(*pair) for pair in every)
        layout.name(merkle.METAINDEX_KEY, merkle.encode(tree))
    return layout.finish()


@dataclass
class Made:
    """A database: what its files hold, and what its manifest will say."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Tables, journals and whatever else; CURRENT and the manifest are made from the rest."""
    state: SessionRecord = field(
        default_factory=lambda: SessionRecord(
            comparer=BYTEWISE_COMPARER, journal_number=4, next_file_number=5, sequence=100
        )
    )
    later: list[SessionRecord] = field(default_factory=list)
    """Records of the manifest behind the first."""
    manifest: int = 2

    def say(self, **changes: object) -> None:
        """Change what the manifest says."""
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]

    def add_table(
        self, number: int, blocks: Sequence[Sequence[Pair]], level: int = 0, **how: bool
    ) -> None:
        """A table that the manifest names."""
        data = table_of(blocks, **how)
        self.put_table(number, data, blocks[0][0][0], blocks[-1][-1][0], level)

    def put_table(
        self, number: int, data: bytes, smallest: bytes, largest: bytes, level: int = 0
    ) -> None:
        """The same, of any content."""
        self.files[name_of(FileDesc(number, Kind.TABLE))] = data
        added = AddedTable(level, number, len(data), smallest, largest)
        self.say(added_tables=(*self.state.added_tables, added))

    def add_journal(self, number: int, *batches: tuple[int, Sequence[Change]]) -> None:
        """A journal of these batches, each with its first sequence number."""
        writer = journal.Writer()
        data = b"".join(writer.append(batch.encode(*each)) for each in batches)
        self.files[name_of(FileDesc(number, Kind.JOURNAL))] = data

    def all_files(self) -> dict[str, bytes]:
        """Every file by name. What was put under a name wins over what would be made."""
        name = name_of(FileDesc(self.manifest, Kind.MANIFEST))
        writer = journal.Writer()
        records = [manifest.encode(each) for each in (self.state, *self.later)]
        made = {
            "CURRENT": f"{name}\n".encode(),
            name: b"".join(writer.append(each) for each in records),
            "LOCK": b"",
            "LOG": b"words",
        }
        return {**made, **self.files}

    def directory(self, *, without: Sequence[str] = ()) -> MemoryDirectory:
        """The database in memory."""
        files = self.all_files()
        return directory_of({name: files[name] for name in files if name not in without})

    def check(self, *, dialect: Dialect | None = None, without: Sequence[str] = ()) -> Report:
        """What `check` says of it."""
        return check(self.directory(without=without), dialect=dialect)


def directory_of(files: dict[str, bytes]) -> MemoryDirectory:
    """A directory in memory with these files."""
    return fill(MemoryDirectory(), files)


def fill(directory: MemoryDirectory, files: dict[str, bytes]) -> MemoryDirectory:
    """`directory`, with these files in it."""
    for name, content in files.items():
        file = directory.open(name, Open.WRITE | Open.CREATE)
        file.write_at(content, 0)
        file.close()
    return directory


def small() -> Made:
    """A table of two blocks with a filter, and a journal."""
    made = Made()
    blocks = [[put("apple", 3), put("banana", 1), put("cherry", 7)], [put("date", 9)]]
    made.add_table(3, blocks, with_filter=True)
    made.add_journal(
        4, (101, [Change(b"elder", b"new"), Change(b"fig")]), (103, [Change(b"a", b"")])
    )
    return made


def small_avccdb() -> Made:
    """The same of avccDB: with versions, and a Merkle tree."""
    made = Made()
    blocks = [[put("apple", 3, 2), put("apple", 2, 1), put("cherry", 7, 5)], [put("date", 9, 1)]]
    made.add_table(3, blocks, with_tree=True)
    made.add_journal(4, (101, [Change(b"elder", b"new", 3)]))
    return made
