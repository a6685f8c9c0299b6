"""What the tests write into databases, and how they compare what comes out.

Everything is generated from a seed, so that the expected content can be computed here while an
engine in another process writes it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Item = tuple[bytes, bytes]
Change = tuple[bytes, bytes | None]
"""A key and its new value; None deletes the key."""


def digest(items: Iterable[Item]) -> str:
    """SHA-256 over lines `hex(key) SPACE hex(value) NEWLINE`, in the order given."""
    total = hashlib.sha256()
    for key, value in items:
        total.update(f"{key.hex()} {value.hex()}\n".encode())
    return total.hexdigest()


def key_of(number: int) -> bytes:
    """The key of entry `number`: keys sort as their numbers do."""
    return b"key%08d" % number


def value_of(seed: str, number: int, size: int) -> bytes:
    """`size` bytes that do not compress. golevel/main.go generates the same."""
    blocks = (
        hashlib.sha256(f"{seed}/{number}/{block}".encode()).digest()
        for block in range((size + 31) // 32)
    )
    return b"".join(blocks)[:size]


@dataclass(frozen=True, slots=True)
class Fill:
    """A run of `count` entries from number `start` on; `value_size` is in bytes.

    The same numbers with another seed overwrite the same keys with other values.
    """

    count: int
    start: int = 0
    value_size: int = 100
    seed: str = ""

    def items(self) -> Iterator[Item]:
        """Its entries in key order."""
        for number in range(self.start, self.start + self.count):
            yield key_of(number), value_of(self.seed, number, self.value_size)


def mixed_changes(seed: int, count: int, *, keys: int, value_size: int = 100) -> Iterator[Change]:
    """`count` changes over the entries 0 to `keys` - 1: about one in four is a deletion."""
    chance = random.Random(seed)
    for turn in range(count):
        number = chance.randrange(keys)
        deletes = chance.random() < 0.25
        yield key_of(number), None if deletes else value_of(f"{seed}:{turn}", number, value_size)


def apply(model: dict[bytes, bytes], changes: Iterable[Change]) -> None:
    """Make the changes to a model."""
    for key, value in changes:
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value
