"""Bytes with holes against a plain byte string."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from avccfs.vfs.sparse import CHUNK, PAGE, SparseBytes

# Around the edges of pages and chunks, where mistakes live.
EDGES = st.sampled_from([0, PAGE, CHUNK, 2 * CHUNK]).flatmap(
    lambda edge: st.integers(max(0, edge - 3), edge + 3)
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), EDGES, st.sampled_from([1, 2, 5, PAGE, CHUNK + 1])),
        st.tuples(st.just("truncate"), EDGES, st.just(0)),
    ),
    max_size=12,
)


@given(STEPS)
def test_it_holds_what_a_plain_byte_string_would(steps: list[tuple[str, int, int]]) -> None:
    sparse = SparseBytes()
    plain = bytearray()
    for number, (step, offset, length) in enumerate(steps, 1):
        if step == "write":
            data = bytes([number]) * length
            assert sparse.write(memoryview(data), offset) == length
            plain.extend(bytes(max(0, offset - len(plain))))
            plain[offset : offset + length] = data
        else:
            sparse.truncate(offset)
            del plain[offset:]
            plain.extend(bytes(offset - len(plain)))
        assert sparse.size == len(plain)
        assert sparse.read(len(plain) + 1, 0) == plain
        assert sparse.read(CHUNK, CHUNK - 2) == plain[CHUNK - 2 : 2 * CHUNK - 2]
        assert sparse.allocated % PAGE == 0
        assert sparse.allocated <= -(-len(plain) // PAGE) * PAGE
    sparse.truncate(0)
    assert sparse.allocated == 0


@given(st.integers(0, 6), EDGES, st.integers(1, 3 * CHUNK))
def test_room_is_never_overdrawn(pages: int, offset: int, length: int) -> None:
    room = pages * PAGE + 7
    sparse = SparseBytes()
    data = bytes(range(1, 252)) * (length // 251 + 1)
    done = sparse.write(memoryview(data[:length]), offset, room)
    assert sparse.allocated <= room
    assert sparse.size == (offset + done if done else 0)
    assert sparse.read(length, offset) == data[:done]
    # Short only because nothing more fits.
    if done < length:
        assert sparse.write(memoryview(b"x"), offset + done, room - sparse.allocated) == 0


def test_a_byte_far_out_costs_one_chunk() -> None:
    sparse = SparseBytes()
    assert sparse.write(memoryview(b"x"), 2**60 + 17) == 1
    assert sparse.size == 2**60 + 18
    assert sparse.allocated <= CHUNK
    assert sparse.read(20, 2**60 + 10) == bytes(7) + b"x"
    assert sparse.read(5, 2**59) == bytes(5)
    sparse.truncate(2**60)
    assert sparse.allocated == 0
