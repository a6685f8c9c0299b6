"""Tables made by hand: sound ones, and with whatever a test wants to be wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import cramjam
import zstandard

from avccfs.format import ikey
from avccfs.format.block import Compression
from avccfs.format.coding import encode_varint, masked_crc32c
from avccfs.format.ikey import InternalKey, KeyKind
from avccfs.format.table import MAGIC, Fault, Handle, Table, encode_handle

Pair = tuple[bytes, bytes]


def entry(shared: int, unshared: bytes, value: bytes) -> bytes:
    """An entry as it lies in a block."""
    lengths = (shared, len(unshared), len(value))
    return b"".join(map(encode_varint, lengths)) + unshared + value


def content_of(pairs: Sequence[Pair], interval: int = 16) -> bytes:
    """The content of a block with these keys and values."""
    out = bytearray()
    restarts = []
    before = b""
    for index, (key, value) in enumerate(pairs):
        shared = 0
        if index % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += entry(shared, key[shared:], value)
        before = key
    return with_restarts(bytes(out), restarts or [0])


def with_restarts(entries: bytes, restarts: Sequence[int]) -> bytes:
    """Entries and the restarts behind them."""
    return entries + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def compressed(content: bytes, compression: int) -> bytes:
    """Content as it is stored."""
    match compression:
        case Compression.SNAPPY:
            return bytes(cramjam.snappy.compress_raw(content))
        case Compression.ZSTD:
            return zstandard.ZstdCompressor().compress(content)
    return content


def stored(content: bytes, compression: int) -> bytes:
    """What is stored, with a trailer that is right."""
    checked = content + bytes([compression])
    return checked + struct.pack("<I", masked_crc32c(checked))


def footer(metaindex: Handle, index: Handle) -> bytes:
    """The end of a table."""
    return (encode_handle(metaindex) + encode_handle(index)).ljust(40, b"\0") + MAGIC


@dataclass
class Layout:
    """A table of one file, put together block by block."""

    compression: int = Compression.NONE
    data: bytearray = field(default_factory=bytearray)
    index: list[Pair] = field(default_factory=list)
    named: list[Pair] = field(default_factory=list)
    """What the metaindex names, in order."""
    handles: dict[str, Handle] = field(default_factory=dict)
    """Of metaindex and index, once the table is finished."""

    def put(self, content: bytes, compression: int | None = None) -> Handle:
        """Append a block."""
        chosen = self.compression if compression is None else compression
        raw = compressed(content, chosen)
        handle = Handle(len(self.data), len(raw))
        self.data += stored(raw, chosen)
        return handle

    def add(self, pairs: Sequence[Pair]) -> Handle:
        """Append a data block, and an entry of the index for it."""
        handle = self.put(content_of(pairs))
        self.index.append((pairs[-1][0], encode_handle(handle)))
        return handle

    def name(self, key: bytes, content: bytes) -> Handle:
        """Append an uncompressed block, and an entry of the metaindex for it."""
        handle = self.put(content, Compression.NONE)
        self.named.append((key, encode_handle(handle)))
        return handle

    def finish(self) -> bytes:
        """The table."""
        metaindex = self.put(content_of(self.named))
        index = self.put(content_of(self.index, interval=1))
        self.handles = {"metaindex": metaindex, "index": index}
        self.data += footer(metaindex, index)
        return bytes(self.data)


def internal_key(number: int) -> bytes:
    """The number-th key of a table, in the standard dialect."""
    return ikey.encode(InternalKey(b"key%08d" % number, number + 1, KeyKind.PUT))


def pairs(start: int, end: int, size: int = 20) -> list[Pair]:
    """Entries whose values do not compress well."""
    return [
        (internal_key(number), bytes((number * number * 31 + at * 7) % 251 for at in range(size)))
        for number in range(start, end)
    ]


def open_table(data: bytes, *, verify: bool = True) -> Table:
    """A reader of these bytes."""
    return Table(lambda size, offset: data[offset : offset + size], len(data), verify=verify)


def read(data: bytes, *, beyond_index: bool = True) -> tuple[list[Pair], list[Fault]]:
    """All entries of a table, and all faults in any part of it."""
    table = open_table(data)
    faults = list(table.faults)
    found = [
        (key, value) for key, value, _ in table.entries(faults.append, beyond_index=beyond_index)
    ]
    for policy in table.filters:
        table.filter_block(policy, faults.append)
    table.merkle_tree(faults.append)
    return found, faults
