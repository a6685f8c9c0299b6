"""What an engine makes of one record of a journal: which entries get into its memtable, and why not.

No engine takes a batch back. An entry that does not decode ends the batch, and those before it are
in the memtable already. LevelDB moves its sequence number on all the same, by what the header of the
batch says; goleveldb and avccDB do not, so that such entries may lie above it and stay invisible.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from avccfs.errors import FormatError
from avccfs.format import batch
from avccfs.format.coding import MAX_UINT64, read_varint
from avccfs.format.ikey import MAX_SEQUENCE
from avccfs.session.engines import Profile, SequenceRule

_HEADER: Final = struct.Struct("<QI")

Applied = tuple[bytes, int, bytes]
"""User key, trailer, value of an entry as it gets into the memtable."""


class PanicError(Exception):
    """The engine's process ends: with goleveldb's words."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one record."""

    sequence: int | None
    count: int
    applied: list[Applied]
    error: str | None
    """What the engine says of it; None if it is taken as a whole."""
    next_sequence: int | None
    """What the record moves the session's sequence number to; None if it does not."""


def apply(payload: bytes, profile: Profile, expected: int) -> Outcome:
    """Replay one record. `expected` is the session's sequence number before it.

    Raises `PanicError` where goleveldb ends its process.
    """
    if len(payload) < batch.HEADER_SIZE:
        short = "Corruption: log record too small"
        if profile.like_goleveldb:
            short = "leveldb: batch corrupted: too short"
        return Outcome(None, 0, [], short, None)
    sequence, count = _HEADER.unpack_from(payload)
    if profile.sequence_rule is SequenceRule.NOT_BELOW_SESSION and sequence < expected:
        return Outcome(
            sequence, count, [], "leveldb: batch corrupted: invalid sequence number", None
        )
    after = _sequence_after(sequence, count, profile)
    try:
        entries = batch.entries(payload)
    except FormatError:
        applied, error = _Damaged(payload, profile).read(sequence, count)
        return Outcome(
            sequence, count, applied, error, after if profile.partial_batch_counts else None
        )
    if profile.like_goleveldb and count and sequence + count - 1 > MAX_SEQUENCE:
        raise PanicError("panic: leveldb: invalid sequence number")
    return Outcome(
        sequence,
        count,
        [
            (entry.key, (entry.sequence << 8 | entry.kind) & MAX_UINT64, entry.value or b"")
            for entry in entries
        ],
        None,
        after,
    )


def _sequence_after(sequence: int, count: int, profile: Profile) -> int:
    """goleveldb keeps the number behind the last entry, LevelDB that of the last entry."""
    if profile.like_goleveldb:
        return (sequence + count) & MAX_UINT64
    signed = count - (1 << 32) if count >= 1 << 31 else count
    return (sequence + signed - 1) & MAX_UINT64


class _Damaged:
    """A batch that is not sound, read as far as the engine reads it."""

    def __init__(self, payload: bytes, profile: Profile) -> None:
        self._payload = payload
        self._go = profile.like_goleveldb

    def read(self, sequence: int, count: int) -> tuple[list[Applied], str]:
        payload, go = self._payload, self._go
        applied: list[Applied] = []
        position = batch.HEADER_SIZE
        while position < len(payload):
            kind = payload[position]
            if kind > 1:
                if go:
                    return applied, _go_error(f"bad record: invalid type {kind:#x}")
                return applied, "Corruption: unknown WriteBatch tag"
            key = self._part(position + 1)
            if key is None:
                word = "Put" if kind else "Delete"
                return applied, (
                    _go_error("bad record: invalid key length")
                    if go
                    else f"Corruption: bad WriteBatch {word}"
                )
            position = key[1]
            value = b""
            if kind:
                part = self._part(position)
                if part is None:
                    return applied, (
                        _go_error("bad record: invalid value length")
                        if go
                        else "Corruption: bad WriteBatch Put"
                    )
                value, position = part
            if go:
                if len(applied) >= count:
                    return applied, _go_error("invalid records length")
                if sequence + len(applied) > MAX_SEQUENCE:
                    raise PanicError("panic: leveldb: invalid sequence number")
            trailer = ((sequence + len(applied)) << 8 | kind) & MAX_UINT64
            applied.append((key[0], trailer, value))
        if go:
            return applied, _go_error(f"invalid records length: {count} vs {len(applied)}")
        return applied, "Corruption: WriteBatch has wrong count"

    def _part(self, offset: int) -> tuple[bytes, int] | None:
        """A key or a value, and the offset behind it."""
        try:
            length, start = read_varint(self._payload, offset)
        except FormatError:
            return None
        if not self._go and start - offset > 5:
            return None
        if self._go and length >= 1 << 63:
            raise PanicError("panic: runtime error: slice bounds out of range")
        if not self._go:
            # It reads lengths of 32 bits, and lets the rest of a fifth byte fall.
            length &= 0xFFFFFFFF
        if start + length > len(self._payload):
            return None
        return self._payload[start : start + length], start + length


def _go_error(reason: str) -> str:
    return f"leveldb: batch corrupted: {reason}"
