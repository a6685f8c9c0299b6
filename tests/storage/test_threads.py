"""Many threads on one storage."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from avccfs import errors
from avccfs.format.filename import Kind
from avccfs.storage.contract import Locker
from tests.storage.backends import Backend, journal, manifest, read, table, write

THREADS = 6
ROUNDS = 40


def together(work: Callable[[int], None]) -> None:
    """Run `work` in several threads that begin at the same moment; raises what one raised."""
    barrier = threading.Barrier(THREADS)

    def start(number: int) -> None:
        barrier.wait(30)
        work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(start, number) for number in range(THREADS)]:
            done.result(60)


def test_threads_with_files_of_their_own_do_not_disturb_each_other(backend: Backend) -> None:
    storage = backend.storage()

    def work(number: int) -> None:
        for n in range(number, ROUNDS * THREADS, THREADS):
            content = f"{n}".encode() * 10
            write(storage, table(n), content)
            assert read(storage, table(n)) == content
            assert table(n) in storage.list(Kind.TABLE)
            storage.rename(table(n), journal(n))
            assert read(storage, journal(n)) == content
            if n % 3:
                storage.remove(journal(n))

    together(work)
    left = [journal(n) for n in range(ROUNDS * THREADS) if n % 3 == 0]
    assert storage.list(Kind.NUMBERED) == sorted(left)


def test_threads_on_the_same_files_see_only_the_contract_s_errors(backend: Backend) -> None:
    storage = backend.storage()

    def work(number: int) -> None:
        chance = random.Random(number)
        for _ in range(ROUNDS * 4):
            desc = table(chance.randrange(3))
            try:
                match chance.randrange(4):
                    case 0:
                        write(storage, desc)
                    case 1:
                        assert read(storage, desc) in (b"", b"content")
                    case 2:
                        storage.remove(desc)
                    case 3:
                        storage.rename(desc, table(chance.randrange(3)))
            except FileNotFoundError:
                pass
            except errors.FileOpenError:
                assert backend.one_handle

    together(work)
    # Every claim was given back: nothing is open, so everything can be written and removed.
    for n in range(3):
        write(storage, table(n))
        storage.remove(table(n))
    assert storage.list(Kind.TABLE) == []


def test_get_meta_always_answers_with_something_that_was_set(backend: Backend) -> None:
    storage = backend.storage()
    for n in range(THREADS):
        write(storage, manifest(n))
    storage.set_meta(manifest(0))

    def work(number: int) -> None:
        for _ in range(10):
            if number % 2:
                assert storage.get_meta().number in range(THREADS)
            else:
                storage.set_meta(manifest(number))

    together(work)
    storage.set_meta(manifest(1))
    assert storage.get_meta() == manifest(1)
    if not backend.one_handle:
        left = {n for n in backend.directory.names() if n.startswith("CURRENT")}
        assert left == {"CURRENT", "CURRENT.bak"}


def test_only_one_thread_gets_the_lock(backend: Backend) -> None:
    storage = backend.storage()
    got: list[Locker] = []

    def work(_: int) -> None:
        try:
            got.append(storage.lock())
        except errors.LockedError:
            return

    together(work)
    assert len(got) == 1
    got[0].unlock()
    storage.lock().unlock()


def test_closing_amid_work_ends_it_cleanly(backend: Backend) -> None:
    storage = backend.storage()
    write(storage, manifest(1))

    def work(number: int) -> None:
        if number == 0:
            for _ in range(20):
                storage.list(Kind.TABLE)
            storage.close()
            return
        with pytest.raises(errors.ClosedError):  # noqa: PT012 - until the other thread closes
            while True:
                write(storage, table(number))
                storage.set_meta(manifest(1))
                storage.get_meta()

    together(work)
    storage.close()
