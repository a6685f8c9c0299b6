"""File numbers: none twice, none lost, whatever threads do."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.errors import StorageError
from avccfs.format.filename import MAX_NUMBER
from avccfs.session.numbers import FileNumbers


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(index)` in `count` threads that all start at the same moment."""
    start = threading.Barrier(count)
    failures: list[BaseException] = []

    def run(index: int) -> None:
        start.wait()
        try:
            work(index)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_allocate_returns_the_first_unused_and_moves_on_by_one() -> None:
    numbers = FileNumbers(7)
    assert (numbers.next, numbers.allocate(), numbers.allocate(), numbers.next) == (7, 7, 8, 9)


def test_mark_lifts_the_counter_past_a_number_in_use() -> None:
    numbers = FileNumbers(3)
    numbers.mark(10)
    assert numbers.allocate() == 11


@given(st.integers(0, 50), st.lists(st.integers(0, 60)))
def test_mark_never_lowers(first: int, marks: list[int]) -> None:
    numbers = FileNumbers(first)
    for mark in marks:
        before = numbers.next
        numbers.mark(mark)
        assert numbers.next == max(before, mark + 1)


def test_reuse_takes_back_only_the_last_number() -> None:
    numbers = FileNumbers()
    first, last = numbers.allocate(), numbers.allocate()
    assert not numbers.reuse(first)
    assert numbers.next == 2
    assert numbers.reuse(last)
    assert numbers.next == last
    assert numbers.reuse(first)
    assert numbers.next == first


def test_reuse_of_a_number_never_handed_out_does_nothing() -> None:
    numbers = FileNumbers(5)
    assert not numbers.reuse(5)
    assert not numbers.reuse(900)
    assert numbers.next == 5


def test_set_next_replaces_the_counter() -> None:
    numbers = FileNumbers(50)
    numbers.set_next(4)
    assert numbers.allocate() == 4


def test_temp_files_have_a_counter_of_their_own() -> None:
    numbers = FileNumbers(9)
    assert [numbers.allocate_temp(), numbers.allocate_temp(), numbers.next] == [0, 1, 9]
    numbers.mark_temp(30)
    numbers.mark_temp(2)
    assert (numbers.allocate_temp(), numbers.allocate()) == (31, 9)


def test_the_last_number_is_kept_back_so_that_the_counter_can_always_be_written() -> None:
    numbers = FileNumbers(MAX_NUMBER - 1)
    assert numbers.allocate() == MAX_NUMBER - 1
    assert numbers.next == MAX_NUMBER
    with pytest.raises(StorageError, match="no file numbers left"):
        numbers.allocate()
    assert numbers.next == MAX_NUMBER


def test_a_file_with_the_largest_possible_number_can_be_marked() -> None:
    numbers = FileNumbers()
    numbers.mark(MAX_NUMBER)
    numbers.mark_temp(MAX_NUMBER)
    with pytest.raises(StorageError, match="no file numbers left"):
        numbers.allocate()
    with pytest.raises(StorageError, match="temp files"):
        numbers.allocate_temp()


@pytest.mark.parametrize("bad", [-1, MAX_NUMBER + 1])
def test_numbers_out_of_range_are_refused_and_change_nothing(bad: int) -> None:
    numbers = FileNumbers(2)
    calls: list[Callable[[int], object]] = [
        numbers.set_next,
        numbers.mark,
        numbers.reuse,
        numbers.mark_temp,
        FileNumbers,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="file number"):
            call(bad)
    assert (numbers.next, numbers.allocate_temp()) == (2, 0)


def test_threads_never_get_the_same_number() -> None:
    numbers = FileNumbers(100)
    taken: list[list[int]] = [[] for _ in range(8)]
    taken_temp: list[list[int]] = [[] for _ in range(8)]

    def work(index: int) -> None:
        for _ in range(2000):
            taken[index].append(numbers.allocate())
            taken_temp[index].append(numbers.allocate_temp())

    in_threads(8, work)
    assert sorted(itertools.chain(*taken)) == list(range(100, 100 + 16_000))
    assert sorted(itertools.chain(*taken_temp)) == list(range(16_000))


def test_no_number_is_held_twice_while_threads_allocate_mark_and_reuse() -> None:
    numbers = FileNumbers()
    held: set[int] = set()
    guard = threading.Lock()

    def work(index: int) -> None:
        rng = random.Random(index)
        for _ in range(2000):
            number = numbers.allocate()
            with guard:
                assert number not in held
                held.add(number)
            match rng.randrange(4):
                case 0:
                    # A number goes back only after its holder has let go of it.
                    with guard:
                        held.remove(number)
                    numbers.reuse(number)
                case 1:
                    numbers.mark(rng.randrange(number + 1))
                case 2:
                    numbers.mark(number + rng.randrange(5))
                case _:
                    pass

    in_threads(8, work)
    assert numbers.next > max(held)
