"""Databases made by hand, byte by byte: small, and odd in one way each."""

from __future__ import annotations

from pathlib import Path

from avccfs.format import batch, journal, manifest
from avccfs.format.coding import encode_fixed32, encode_varint, masked_crc32c
from avccfs.format.ikey import InternalKey, KeyKind, encode
from avccfs.format.manifest import AddedTable, SessionRecord
from avccfs.format.table import MAGIC
from avccfs.vfs.base import Open
from avccfs.vfs.memory import MemoryDirectory

Files = dict[str, bytes]

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def fixture_files(name: str) -> Files:
    return {path.name: path.read_bytes() for path in (FIXTURES / name / "db").iterdir()}


def in_memory(files: Files) -> MemoryDirectory:
    memory = MemoryDirectory()
    for name, content in files.items():
        file = memory.open(name, Open.WRITE | Open.CREATE)
        file.write_at(content, 0)
        file.close()
    return memory


def framed(*records: bytes) -> bytes:
    writer = journal.Writer()
    return b"".join(writer.append(record) for record in records)


def put(sequence: int, *keys: bytes) -> bytes:
    return batch.encode(sequence, [batch.Change(key, b"value of " + key) for key in keys])


def key_of(user_key: bytes, sequence: int = 1) -> bytes:
    return encode(InternalKey(user_key, sequence, KeyKind.PUT))


def session(
    *,
    comparer: bytes | None = manifest.BYTEWISE_COMPARER,
    journal_number: int | None = 3,
    previous: int | None = None,
    next_file: int | None = 4,
    sequence: int | None = 10,
    tables: tuple[AddedTable, ...] = (),
) -> bytes:
    return manifest.encode(
        SessionRecord(
            comparer=comparer,
            journal_number=journal_number,
            previous_journal_number=previous,
            next_file_number=next_file,
            sequence=sequence,
            added_tables=tables,
        )
    )


def small(*batches: bytes) -> Files:
    """A database without tables: a manifest, and a journal with these batches."""
    return {
        "CURRENT": b"MANIFEST-000002\n",
        "MANIFEST-000002": framed(session()),
        "000003.log": framed(*batches),
    }


def table_of(blocks: list[list[tuple[bytes, bytes]]]) -> bytes:
    """A table with these blocks of internal keys and values, not compressed."""
    content = b""
    index: list[tuple[bytes, bytes]] = []
    for entries in blocks:
        handle, stored = _block(entries, len(content))
        index.append((entries[-1][0], handle))
        content += stored
    metaindex, stored = _block([], len(content))
    content += stored
    index_handle, stored = _block(index, len(content))
    content += stored
    return content + (metaindex + index_handle).ljust(40, b"\0") + MAGIC


def _block(entries: list[tuple[bytes, bytes]], offset: int) -> tuple[bytes, bytes]:
    """The handle of a block at an offset, and its bytes. Every entry is a restart."""
    content = b""
    restarts: list[int] = []
    for key, value in entries:
        restarts.append(len(content))
        content += b"\0" + encode_varint(len(key)) + encode_varint(len(value)) + key + value
    content += b"".join(map(encode_fixed32, restarts or [0]))
    content += encode_fixed32(max(1, len(restarts))) + b"\0"
    handle = encode_varint(offset) + encode_varint(len(content) - 1)
    return handle, content + encode_fixed32(masked_crc32c(content))


def large_snapshot() -> Files:
    """A manifest with one record larger than a block of its framing; the second block is damaged."""
    tables = tuple(
        AddedTable(1, number, 100, key_of(b"%05d" % number), key_of(b"%05dx" % number))
        for number in range(10, 1010)
    )
    content = bytearray(framed(session(next_file=2000, tables=tables)))
    content[journal.BLOCK_SIZE + 100] ^= 1
    return small(put(10, b"a")) | {"MANIFEST-000002": bytes(content), "000010.ldb": b"a table"}


def _odd() -> dict[str, Files]:
    table = AddedTable(0, 9, 100, key_of(b"a"), key_of(b"b"))
    torn_record = manifest.encode(SessionRecord(sequence=20, added_tables=(table,)))[:-3]
    one, closed = small(put(10, b"a")), fixture_files("goleveldb-closed")
    early = small(put(8, b"a"), put(9, b"b"), put(10, b"c", b"d"), put(12, b"e"))
    broken = put(10, b"a", b"b", b"c")[:-4]
    beyond = bytearray(put(10, b"a", b"b"))
    beyond[8] = 1
    sound = table_of(
        [[(key_of(b"k", 2), b"new"), (key_of(b"k", 1), b"old")], [(key_of(b"zz", 4), b"")]]
    )
    twice = bytearray(sound)
    twice[sound.index(b"zz")] ^= 1
    return {
        "batches below the session": early,
        "broken batch": small(broken),
        "broken batch, then another": small(broken, put(12, b"z")),
        "more entries than the batch counts": small(bytes(beyond), put(11, b"c")),
        "same sequence twice": small(put(10, b"a"), put(11, b"b"), put(11, b"b", b"c")),
        "sequence of 60 bits": small(put(2**60, b"a")),
        "record too short for a batch": small(b"short", put(10, b"a")),
        "empty manifest": one | {"MANIFEST-000002": b""},
        "no comparer": one | {"MANIFEST-000002": framed(session(comparer=None))},
        "other comparer": one | {"MANIFEST-000002": framed(session(comparer=b"other"))},
        "no sequence": one | {"MANIFEST-000002": framed(session(sequence=None))},
        "no journal number": one | {"MANIFEST-000002": framed(session(journal_number=None))},
        "no next file number": one | {"MANIFEST-000002": framed(session(next_file=None))},
        "unknown tag": one | {"MANIFEST-000002": framed(b"\x08" + session())},
        "record without its bytes": one | {"MANIFEST-000002": framed(session(), b"\x01\x05")},
        "torn record with a number": small(put(15, b"early"), put(25, b"late"))
        | {"MANIFEST-000002": framed(session(), torn_record)},
        "damaged large snapshot": large_snapshot(),
        "previous journal": one
        | {
            "MANIFEST-000002": framed(session(journal_number=5, previous=3, next_file=6)),
            "000004.log": framed(put(11, b"b")),
            "000005.log": framed(put(12, b"c")),
        },
        "blank in CURRENT": one | {"CURRENT": b"MANIFEST- 00002\n"},
        "short name in CURRENT": one | {"CURRENT": b"MANIFEST-2\n"},
        "NUL in CURRENT": one | {"CURRENT": b"MANIFEST-000002\0\n"},
        "slash in CURRENT": one | {"CURRENT": b"/MANIFEST-000002\n"},
        "newline alone in CURRENT": one | {"CURRENT": b"\n"},
        "CURRENT names itself": one | {"CURRENT": b"CURRENT\n"},
        "number already taken": one | {"000004.ldb": b"newer", "MANIFEST-000004": b"newer"},
        "table missing, its number in use": {
            name: content for name, content in closed.items() if name != "000005.ldb"
        }
        | {"MANIFEST-000005": b""},
        "table under both names": closed | {"000005.sst": closed["000005.ldb"]},
        "table with a name nobody writes": closed | {"99.ldb": b"mine"},
        "journal with a name nobody writes": one | {"9.log": framed(put(20, b"x"))},
        "negative journal": one | {"-3.log": b""},
        "key twice in a damaged table": small() | {"000003.ldb": bytes(twice)},
        "nothing": {},
        "only a table": {"000003.ldb": closed["000003.ldb"]},
        "old table left over": closed | {"000001.ldb": closed["000003.ldb"]},
    }


ODD = _odd()
