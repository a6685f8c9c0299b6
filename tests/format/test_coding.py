from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.errors import FormatError
from avccfs.format import coding
from tests.format.samples import unhurried

UINT64 = st.integers(0, 2**64 - 1)

VARINTS = [
    (0, "00"),
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (300, "ac02"),
    (16383, "ff7f"),
    (16384, "808001"),
    (2**32 - 1, "ffffffff0f"),
    (2**63 - 1, "ffffffffffffffff7f"),
    (2**63, "80808080808080808001"),
    (2**64 - 1, "ffffffffffffffffff01"),
]


@pytest.mark.parametrize(("value", "encoded"), VARINTS)
def test_varints_have_these_bytes_in_both_directions(value: int, encoded: str) -> None:
    raw = bytes.fromhex(encoded)
    assert coding.encode_varint(value) == raw
    assert coding.read_varint(raw, 0) == (value, len(raw))


@unhurried
@given(UINT64, st.binary(max_size=4), st.binary(max_size=4))
def test_varint_is_read_from_amid_other_bytes(value: int, before: bytes, after: bytes) -> None:
    raw = coding.encode_varint(value)
    data = before + raw + after
    for buffer in (data, bytearray(data), memoryview(data)):
        assert coding.read_varint(buffer, len(before)) == (value, len(before) + len(raw))


def test_varint_longer_than_needed_is_read_as_the_engines_read_it() -> None:
    assert coding.read_varint(b"\x81\x80\x00", 0) == (1, 3)
    assert coding.read_varint(b"\x80" * 9 + b"\x00", 0) == (0, 10)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_numbers_out_of_range_are_not_encoded(value: int) -> None:
    for encode in (coding.encode_varint, coding.encode_fixed64, coding.encode_fixed32):
        with pytest.raises(ValueError, match=r"2\*\*"):
            encode(value)


@pytest.mark.parametrize(("value", "encoded"), VARINTS)
def test_varint_cut_short_names_its_offset(value: int, encoded: str) -> None:
    raw = bytes.fromhex(encoded)
    for length in range(len(raw)):
        with pytest.raises(FormatError, match="end of the data") as caught:
            coding.read_varint(b"\x00\x00\x00" + raw[:length], 3)
        assert caught.value.offset == 3


def test_varint_behind_the_end_is_cut_short() -> None:
    with pytest.raises(FormatError) as caught:
        coding.read_varint(b"ab", 7)
    assert caught.value.offset == 7


@pytest.mark.parametrize(
    "encoded",
    ["ffffffffffffffffff02", "ffffffffffffffffff7f", "8080808080808080808001", "80" * 500],
)
def test_varint_past_64_bits_is_refused(encoded: str) -> None:
    with pytest.raises(FormatError, match="larger") as caught:
        coding.read_varint(b"\x00" + bytes.fromhex(encoded), 1)
    assert caught.value.offset == 1


@unhurried
@given(st.binary(max_size=300), st.binary(max_size=3))
def test_bytes_come_back(value: bytes, after: bytes) -> None:
    raw = coding.encode_bytes(value)
    assert coding.read_bytes(raw + after, 0) == (value, len(raw))
    assert coding.read_bytes(memoryview(raw + after), 0) == (value, len(raw))
    assert coding.encode_bytes(memoryview(value)) == raw


def test_bytes_longer_than_the_data_name_what_is_missing() -> None:
    with pytest.raises(FormatError, match=r"expected 5 bytes at offset 2, found 3") as caught:
        coding.read_bytes(b"\x00\x05abc", 1)
    assert caught.value.offset == 1


def test_forged_length_costs_no_memory() -> None:
    data = coding.encode_varint(2**64 - 1) + b"abc"
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            coding.read_bytes(data, 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_fixed_numbers_are_little_endian() -> None:
    assert coding.encode_fixed32(0x01020304) == bytes([4, 3, 2, 1])
    assert coding.encode_fixed64(0x0102030405060708) == bytes([8, 7, 6, 5, 4, 3, 2, 1])
    assert coding.read_fixed32(b"\xff\x04\x03\x02\x01\xff", 1) == (0x01020304, 5)
    assert coding.read_fixed64(b"\xff\x08\x07\x06\x05\x04\x03\x02\x01", 1) == (
        0x0102030405060708,
        9,
    )


@unhurried
@given(UINT64)
def test_fixed_numbers_come_back(value: int) -> None:
    assert coding.read_fixed64(coding.encode_fixed64(value), 0) == (value, 8)
    half = value & 0xFFFFFFFF
    assert coding.read_fixed32(coding.encode_fixed32(half), 0) == (half, 4)


@pytest.mark.parametrize("offset", [1, 4, 40])
def test_fixed_number_cut_short_names_its_offset(offset: int) -> None:
    for read in (coding.read_fixed32, coding.read_fixed64):
        with pytest.raises(FormatError, match="expected") as caught:
            read(b"\x01\x02\x03\x04", offset)
        assert caught.value.offset == offset


def test_checksum_is_the_masked_form_of_crc_32c() -> None:
    # 0xe3069283 is the check value of CRC-32C. Rotated right by 15 it is 0x2507c60d.
    assert coding.mask(0xE3069283) == (0x2507C60D + 0xA282EAD8) % 2**32
    assert coding.masked_crc32c(b"123456789") == coding.mask(0xE3069283)
    assert coding.masked_crc32c(memoryview(b"x123456789")[1:]) == coding.mask(0xE3069283)


@unhurried
@given(st.integers(0, 2**32 - 1))
def test_mask_can_be_undone(crc: int) -> None:
    rotated = (coding.mask(crc) - 0xA282EAD8) % 2**32
    assert (rotated >> 17 | rotated << 15) % 2**32 == crc


@unhurried
@given(st.binary(max_size=40), st.integers(0, 50))
def test_any_bytes_decode_or_fail_as_a_format_error(data: bytes, offset: int) -> None:
    for read in (coding.read_varint, coding.read_fixed32, coding.read_fixed64, coding.read_bytes):
        failed_at = None
        end = offset
        try:
            _, end = read(data, offset)
        except FormatError as error:
            failed_at = error.offset
        assert failed_at == offset or offset < end <= len(data)
