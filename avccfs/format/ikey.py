"""Internal keys: what a table and a manifest hold in the place of a user's key (SPEC section 8).

    LevelDB, goleveldb    user key | trailer
    avccDB                user key | version | trailer

Version and trailer are fixed64; the trailer is `sequence << 8 | kind`. User keys ascend; among
equal ones the newest comes first: version descending, then trailer descending. Nothing in a key
says which dialect it is of.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from avccfs.errors import FormatError
from avccfs.format.coding import MAX_UINT64, Buffer

MAX_SEQUENCE: Final = 2**56 - 1
LATEST_VERSION: Final = MAX_UINT64
"""The version with which avccDB asks for the latest value."""

_TRAILER: Final = struct.Struct("<Q")
_VERSION_AND_TRAILER: Final = struct.Struct("<QQ")


class Dialect(enum.Enum):
    """Which form internal keys have in a database."""

    STANDARD = "standard"
    AVCCDB = "avccdb"

    @property
    def suffix_length(self) -> int:
        """How many bytes follow the user key."""
        return _SUFFIX_LENGTH[self]


_SUFFIX_LENGTH: Final = {
    Dialect.STANDARD: _TRAILER.size,
    Dialect.AVCCDB: _VERSION_AND_TRAILER.size,
}


class KeyKind(enum.IntEnum):
    """What an entry does to its key. The values are on disk."""

    DELETE = 0
    PUT = 1


SortKey = tuple[bytes, int, int]
"""Compares as the engines compare internal keys of one dialect."""


@dataclass(frozen=True, slots=True)
class InternalKey:
    """A decoded internal key."""

    user_key: bytes
    sequence: int
    """0 to `MAX_SEQUENCE`."""
    kind: KeyKind
    version: int | None = None
    """0 to 2**64 - 1 in avccDB; None in the standard dialect."""

    @property
    def dialect(self) -> Dialect:
        """The dialect in which this key is encoded."""
        return Dialect.STANDARD if self.version is None else Dialect.AVCCDB

    @property
    def sort_key(self) -> SortKey:
        """The same as `sort_key` of the encoded form."""
        return self.user_key, -(self.version or 0), -(self.sequence << 8 | self.kind)


def encode(key: InternalKey) -> bytes:
    """The bytes of a key, in the dialect that it is of. A number out of range: `ValueError`."""
    if not 0 <= key.sequence <= MAX_SEQUENCE:
        raise ValueError(f"a sequence number is 0 to 2**56 - 1, not {key.sequence}")
    trailer = key.sequence << 8 | key.kind
    if key.version is None:
        return key.user_key + _TRAILER.pack(trailer)
    if not 0 <= key.version <= MAX_UINT64:
        raise ValueError(f"a version is 0 to 2**64 - 1, not {key.version}")
    return key.user_key + _VERSION_AND_TRAILER.pack(key.version, trailer)


def decode(raw: Buffer, dialect: Dialect) -> InternalKey:
    """The key that `raw` holds as a whole; `FormatError` if it is too short or of no kind."""
    end = _end_of_user_key(raw, dialect)
    version: int | None = None
    if dialect is Dialect.AVCCDB:
        version, trailer = _VERSION_AND_TRAILER.unpack_from(raw, end)
    else:
        (trailer,) = _TRAILER.unpack_from(raw, end)
    kind = trailer & 0xFF
    if kind > KeyKind.PUT:
        offset = len(raw) - _TRAILER.size
        raise FormatError(
            f"expected kind 0 (delete) or 1 (put) at offset {offset} of an internal key, "
            f"found {kind}",
            offset=offset,
        )
    return InternalKey(bytes(raw[:end]), trailer >> 8, KeyKind(kind), version)


def sort_key(raw: Buffer, dialect: Dialect) -> SortKey:
    """What orders encoded keys of one dialect.

    Looks at the length only, as the engines do: a key of unknown kind has its place too. Raises
    `FormatError` if `raw` is too short.
    """
    end = _end_of_user_key(raw, dialect)
    if dialect is Dialect.AVCCDB:
        version, trailer = _VERSION_AND_TRAILER.unpack_from(raw, end)
    else:
        version, (trailer,) = 0, _TRAILER.unpack_from(raw, end)
    return bytes(raw[:end]), -version, -trailer


def _end_of_user_key(raw: Buffer, dialect: Dialect) -> int:
    end = len(raw) - dialect.suffix_length
    if end < 0:
        raise FormatError(
            f"expected at least {dialect.suffix_length} bytes for an internal key of the "
            f"{dialect.value} dialect, found {len(raw)}"
        )
    return end
