"""Faults of the bytes: short reads and writes, torn writes, silent corruption, a sync that drops."""

from __future__ import annotations

import os
from collections.abc import Callable

from avccfs.fuse.selftest.bench import (
    NEW,
    OLD,
    SIZE,
    SUCCESS,
    Bench,
    Check,
    Topic,
    check,
    check_outcome,
    unlike,
)

_UNALIGNED = 100
"""Where a write begins that does not begin with a sector."""


def _reads_short(amount: str, size: int) -> Check:
    def run(bench: Bench, rule: str) -> str:
        fd = bench.open(bench.make())
        bench.add(rule)
        first = os.pread(fd, SIZE, 0)
        check(first == OLD[:size], f"the first {size} bytes", unlike(OLD[:size], first))
        rest = os.pread(fd, SIZE, size)
        check(rest == OLD[size:], "then the rest", unlike(OLD[size:], rest))
        bench.check_fired(1)
        return f"{size} of {SIZE} bytes read, then the rest"

    return Check(Topic.SHORT, f"read journal #1: short {amount}", run)


def _writes_short(amount: str, size: int) -> Check:
    def run(bench: Bench, rule: str) -> str:
        name = bench.make()
        fd = bench.open(name)
        bench.add(rule)
        done = os.pwrite(fd, NEW, 0)
        check(done == size, f"a count of {size}", f"{done}")
        bench.check_content(name, NEW[:size] + OLD[size:], f"{size} new bytes")
        done += os.pwrite(fd, NEW[size:], size)
        check(done == SIZE, f"a second write of the other {SIZE - size}", f"{done - size}")
        bench.check_content(name, NEW, "new bytes only")
        bench.check_fired(1)
        return f"{size} of {SIZE} bytes written, then the rest"

    return Check(Topic.SHORT, f"write journal #1: short {amount}", run)


def _tears(what: str, error: str, offset: int, expected: bytes, words: str) -> Check:
    """A write of `NEW` at `offset` fails, and makes `OLD` what is expected."""

    def run(bench: Bench, rule: str) -> str:
        name = bench.make()
        fd = bench.open(name)
        bench.add(rule)
        check_outcome(lambda: os.pwrite(fd, NEW, offset), error, f"write of {SIZE} bytes")
        bench.check_content(name, expected, words)
        bench.check_fired(1)
        return f"{error}; written: {words}"

    return Check(Topic.TORN, f"write journal: {what}", run)


def _mixed(*edges: int) -> bytes:
    """`OLD`, with `NEW` between the first two of the edges, between the next two, and so on."""
    content = bytearray(OLD)
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        content[start:stop] = NEW[start:stop]
    return bytes(content)


def _shifted(start: int, stop: int) -> bytes:
    """`OLD`, with a part of a `NEW` that begins at an odd place written over it."""
    begin, end = _UNALIGNED + start, _UNALIGNED + stop
    return OLD[:begin] + NEW[start:stop] + OLD[end:]


def _spoils(what: str, is_right: Callable[[bytes], bool], words: str) -> Check:
    """A write goes well, but what is written differs from `NEW` in a mask that is right."""

    def run(bench: Bench, rule: str) -> str:
        masks = []
        for _ in range(2):
            name = bench.make()
            fd = bench.open(name)
            bench.clear()
            bench.add(rule)
            done = os.pwrite(fd, NEW, 0)
            check(done == SIZE, f"a write that seems to succeed with {SIZE}", f"{done}")
            masks.append(_mask(NEW, bench.below(name)))
            check(is_right(masks[-1]), f"{words}, behind the mount", _changes(masks[-1]))
            shown = _mask(NEW, bench.read(name))
            check(shown == masks[-1], "the same on the mount", _changes(shown))
            bench.check_fired(1)
        check(masks[0] == masks[1], "the same once more", f"another time {_changes(masks[1])}")
        return f"written without a word: {words}; twice the same"

    return Check(Topic.CORRUPT, f"write journal: {what}", run)


def _misreads(what: str, is_right: Callable[[bytes], bool], words: str) -> Check:
    """A read goes well, but what is read differs from the file in a mask that is right."""

    def run(bench: Bench, rule: str) -> str:
        masks = []
        for _ in range(2):
            name = bench.make()
            fd = bench.open(name)
            bench.clear()
            bench.add(rule)
            masks.append(_mask(OLD, os.pread(fd, SIZE, 0)))
            check(is_right(masks[-1]), f"{words}, in what is read", _changes(masks[-1]))
            bench.check_fired(1)
            bench.clear()
            bench.check_content(name, OLD, "the file as it was")
        check(masks[0] == masks[1], "the same once more", f"another time {_changes(masks[1])}")
        return f"read without a word: {words}; twice the same; the file is as it was"

    return Check(Topic.CORRUPT, f"read journal: {what}", run)


def _mask(expected: bytes, found: bytes) -> bytes:
    if len(found) != len(expected):
        return b""
    return bytes(one ^ other for one, other in zip(expected, found, strict=True))


def _changes(mask: bytes) -> str:
    if not mask:
        return "another length"
    changed = [place for place, byte in enumerate(mask) if byte]
    if not changed:
        return "nothing changed"
    return f"{len(changed)} bytes changed, from {changed[0]} to {changed[-1]}"


def _bit(number: int) -> Callable[[bytes], bool]:
    return lambda mask: len(mask) == SIZE and mask == _only(number // 8, 1 << number % 8)


def _only(place: int, byte: int) -> bytes:
    return bytes(place) + bytes([byte]) + bytes(SIZE - place - 1)


def _one_bit(mask: bytes) -> bool:
    return len(mask) == SIZE and sum(byte.bit_count() for byte in mask) == 1


def _block(number: int, size: int = 512) -> Callable[[bytes], bool]:
    """All bytes of this block differ, and no others."""

    def is_right(mask: bytes) -> bool:
        changed = [place for place, byte in enumerate(mask) if byte]
        return changed == [*range(number * size, (number + 1) * size)]

    return is_right


def _any_block(size: int) -> Callable[[bytes], bool]:
    return lambda mask: any(_block(number, size)(mask) for number in range(SIZE // size))


def _drops(what: str, error: str, offset: int, expected: bytes, words: str) -> Check:
    """A sync after a write of `NEW` at `offset` fails, and makes the file what is expected."""

    def run(bench: Bench, rule: str) -> str:
        name = bench.make()
        fd = bench.open(name)
        bench.add(rule)
        os.pwrite(fd, NEW, offset)
        check_outcome(lambda: os.fsync(fd), error, "fsync")
        bench.check_content(name, expected, words)
        check_outcome(lambda: os.fsync(fd), SUCCESS, "the next fsync")
        bench.check_content(name, expected, f"{words}, as before")
        bench.check_fired(1)
        return f"fsync: {error}, then success; left is {words}"

    return Check(Topic.DROP, f"sync journal #1: {what}", run)


def _drops_no_more(bench: Bench, rule: str) -> str:
    name = bench.make()
    fd = bench.open(name)
    bench.add(rule)
    os.pwrite(fd, NEW[:1000], 0)
    os.fsync(fd)
    os.pwrite(fd, NEW[1000:2000], 1000)
    check_outcome(lambda: os.fsync(fd), "EIO", "the second fsync")
    bench.check_content(name, NEW[:1000] + OLD[1000:], "what the first fsync covers, and no more")
    bench.check_fired(1)
    return "what was synced before stays, what was written since is taken back"


CHECKS = (
    _reads_short("100", 100),
    _reads_short("50%", SIZE // 2),
    _writes_short("100", 100),
    _writes_short("25%", SIZE // 4),
    _tears("torn prefix 100", "EIO", 0, _mixed(0, 100), "the first 100 bytes"),
    _tears("torn prefix 25% ENOSPC", "ENOSPC", 0, _mixed(0, SIZE // 4), "the first 1024 bytes"),
    _tears("torn prefix 0", "EIO", 0, OLD, "nothing"),
    _tears("torn prefix 100", "EIO", SIZE, OLD + NEW[:100], "the first 100 of the bytes appended"),
    _tears(
        "torn at 1000,3000 keep 1,3",
        "EIO",
        0,
        _mixed(0, 1000, 3000, SIZE),
        "all but the bytes 1000 to 2999",
    ),
    _tears("torn at 2000 keep 2", "EIO", 0, _mixed(2000, SIZE), "the bytes from 2000 on"),
    _tears(
        "torn sectors 0,2-3 EDQUOT",
        "EDQUOT",
        0,
        _mixed(0, 512, 1024, 2048),
        "the bytes 0 to 511 and 1024 to 2047",
    ),
    _tears(
        "torn sectors 1",
        "EIO",
        _UNALIGNED,
        _shifted(512 - _UNALIGNED, 1024 - _UNALIGNED),
        "the bytes 512 to 1023 of the file, of a write at 100",
    ),
    _tears(
        "torn sectors 2",
        "EIO",
        SIZE,
        OLD + bytes(1024) + NEW[1024:1536],
        "the third sector appended, zeros before it",
    ),
    _spoils("corrupt bit 9", _bit(9), "bit 1 of byte 1 turned over"),
    _spoils("corrupt bit", _one_bit, "one bit turned over"),
    _spoils("corrupt block 2", _block(2), "the bytes 1024 to 1535 all changed"),
    _spoils("corrupt block size=1024", _any_block(1024), "one block of 1024 bytes all changed"),
    _misreads("corrupt bit 32767", _bit(32767), "the last bit turned over"),
    _misreads("corrupt bit", _one_bit, "one bit turned over"),
    _misreads("corrupt block 7", _block(7), "the last 512 bytes all changed"),
    _misreads("corrupt block 1 2048", _block(1, 2048), "the last 2048 bytes all changed"),
    _drops("drop", "EIO", 0, OLD, "what was there before"),
    _drops("drop ENOSPC", "ENOSPC", SIZE, OLD + bytes(SIZE), "zeros where bytes were appended"),
    _drops("drop", "EIO", 2048, OLD + bytes(2048), "the old bytes, and zeros behind them"),
    Check(Topic.DROP, "sync journal #2: drop", _drops_no_more),
)
