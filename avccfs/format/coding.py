"""Integers, length-prefixed bytes and checksums, as every record of the family uses them.

    varint    unsigned LEB128: seven bits a byte, low ones first, the top bit says "more"; at most
              10 bytes and 2**64 - 1 (SPEC, introduction)
    bytes     varint length, then that many bytes
    fixed32   4 bytes, little-endian        fixed64   8 bytes, little-endian
    checksum  CRC-32C, masked: rotated right by 15 and moved on by a constant, so that a checksum
              over bytes which hold checksums stays a good one (SPEC section 4)

Every `read_*` takes a buffer and an offset into it, returns the value and the offset behind it, and
raises `FormatError` with the offset of the value that does not decode. A length is compared with
what the buffer really holds before anything is copied, so a forged one costs nothing. Like the
engines, `read_varint` accepts encodings longer than needed.
"""

from __future__ import annotations

import struct
from typing import Final

from crc32c import crc32c

from avccfs.errors import FormatError

Buffer = bytes | bytearray | memoryview

MAX_UINT32: Final = 2**32 - 1
MAX_UINT64: Final = 2**64 - 1
MAX_VARINT_LENGTH: Final = 10

_MASK_DELTA: Final = 0xA282EAD8
_FIXED32: Final = struct.Struct("<I")
_FIXED64: Final = struct.Struct("<Q")
_ONE_BYTE: Final = tuple(bytes([value]) for value in range(0x80))


def encode_varint(value: int) -> bytes:
    """The shortest encoding of 0 to 2**64 - 1; any other number is a `ValueError`."""
    if 0 <= value < 0x80:
        return _ONE_BYTE[value]
    if not 0 <= value <= MAX_UINT64:
        raise ValueError(f"a varint holds 0 to 2**64 - 1, not {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: Buffer, offset: int) -> tuple[int, int]:
    """The varint at `offset`, and the offset behind it."""
    try:
        byte = data[offset]
        if byte < 0x80:
            return byte, offset + 1
        value = byte & 0x7F
        position = offset + 1
        for shift in range(7, 63, 7):
            byte = data[position]
            position += 1
            if byte < 0x80:
                return value | byte << shift, position
            value |= (byte & 0x7F) << shift
        # Nine bytes have given 63 bits: of the tenth only the lowest bit fits.
        byte = data[position]
    except IndexError:
        raise FormatError(
            f"expected a varint at offset {offset}, found the end of the data after "
            f"{max(0, len(data) - offset)} of its bytes",
            offset=offset,
        ) from None
    if byte > 1:
        raise FormatError(
            f"expected a varint of at most 2**64 - 1 at offset {offset}, found a larger number",
            offset=offset,
        )
    return value | byte << 63, position + 1


def encode_bytes(value: Buffer) -> bytes:
    """`value` behind its length."""
    return encode_varint(len(value)) + value


def read_bytes(data: Buffer, offset: int) -> tuple[bytes, int]:
    """The length-prefixed bytes at `offset`, and the offset behind them."""
    length, start = read_varint(data, offset)
    end = start + length
    if end > len(data):
        raise FormatError(
            f"expected {length} bytes at offset {start}, found {len(data) - start}", offset=offset
        )
    return bytes(data[start:end]), end


def encode_fixed32(value: int) -> bytes:
    """Four bytes for 0 to 2**32 - 1; any other number is a `ValueError`."""
    if not 0 <= value <= MAX_UINT32:
        raise ValueError(f"fixed32 holds 0 to 2**32 - 1, not {value}")
    return _FIXED32.pack(value)


def read_fixed32(data: Buffer, offset: int) -> tuple[int, int]:
    """The four-byte number at `offset`, and the offset behind it."""
    if len(data) - offset < 4:
        raise _too_short(data, offset, 4)
    return _FIXED32.unpack_from(data, offset)[0], offset + 4


def encode_fixed64(value: int) -> bytes:
    """Eight bytes for 0 to 2**64 - 1; any other number is a `ValueError`."""
    if not 0 <= value <= MAX_UINT64:
        raise ValueError(f"fixed64 holds 0 to 2**64 - 1, not {value}")
    return _FIXED64.pack(value)


def read_fixed64(data: Buffer, offset: int) -> tuple[int, int]:
    """The eight-byte number at `offset`, and the offset behind it."""
    if len(data) - offset < 8:
        raise _too_short(data, offset, 8)
    return _FIXED64.unpack_from(data, offset)[0], offset + 8


def mask(crc: int) -> int:
    """The form in which a CRC-32C is stored."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & MAX_UINT32


def unmask(masked: int) -> int:
    """The CRC-32C that is stored as `masked`."""
    rotated = (masked - _MASK_DELTA) & MAX_UINT32
    return (rotated >> 17 | rotated << 15) & MAX_UINT32


def masked_crc32c(data: Buffer) -> int:
    """The checksum of `data` in the form in which it is stored."""
    return mask(crc32c(data))


def _too_short(data: Buffer, offset: int, size: int) -> FormatError:
    return FormatError(
        f"expected {size} bytes at offset {offset}, found {max(0, len(data) - offset)}",
        offset=offset,
    )
