"""Databases of real engines, and ways to damage them at random.

A database is a dict of names to contents. `BASES` makes a few that hold what recovery is about:
several tables, journals that no table has taken over yet, deletions, overwritten keys, values larger
than a block of a journal. Each comes with files that it had earlier in its life, so that damage can
bring them back: a stale CURRENT, a manifest or a journal that the engine had removed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avccfs.format import batch, journal
from avccfs.format.filename import Kind, kind_of, parse
from tests.engines import GOLEVELDB, LEVELDB, Engine, Options
from tests.workload import Change, key_of, mixed_changes, value_of

Files = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Base:
    """A sound database."""

    name: str
    files: Files
    earlier: Files
    """Files that it had once, under names that it has no longer or with other content."""


def read_files(directory: Path) -> Files:
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.is_file() and path.name not in ("LOCK", "LOG", "LOG.old")
    }


def write_files(directory: Path, files: Files) -> None:
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)


def make_bases(place: Path) -> list[Base]:
    small = Options(create=True, write_buffer=8192, table_size=8192, block_size=512)
    plain = Options(create=True, write_buffer=65536, block_size=1024, compression=False)
    large = Options(create=True)
    return [
        _make(place / "go", GOLEVELDB, small, changes=900, keys=200, size=60, kill=False),
        _make(place / "go-killed", GOLEVELDB, small, changes=700, keys=500, size=90, kill=True),
        _make(place / "go-large", GOLEVELDB, large, changes=24, keys=12, size=9000, kill=True),
        _make(place / "level", LEVELDB, plain, changes=1500, keys=300, size=100, kill=False),
        _make(place / "level-killed", LEVELDB, plain, changes=1700, keys=600, size=90, kill=True),
        _make(place / "level-snappy", LEVELDB, large, changes=500, keys=120, size=50, kill=True),
    ]


def _make(
    directory: Path,
    engine: Engine,
    options: Options,
    *,
    changes: int,
    keys: int,
    size: int,
    kill: bool,
) -> Base:
    listed = list(mixed_changes(changes, changes, keys=keys, value_size=size))
    directory.mkdir()
    earlier: Files = {}
    with engine.session(directory, options) as session:
        for part in range(4):
            quarter = listed[part * len(listed) // 4 : (part + 1) * len(listed) // 4]
            _write(session.batch, quarter)
            earlier.update(read_files(directory))
            if part == 1:
                session.compact()
            if part == 2:
                session.reopen()
                earlier.update(read_files(directory))
        if kill:
            session.kill()
        else:
            session.release()
    files = read_files(directory)
    old = {name: content for name, content in earlier.items() if files.get(name) != content}
    return Base(directory.name, files, old)


def _write(write: Callable[[list[Change]], None], changes: list[Change]) -> None:
    chance = random.Random(len(changes))
    start = 0
    while start < len(changes):
        count = chance.choice((1, 1, 1, 2, 5, 20))
        write(changes[start : start + count])
        start += count
    write([(key_of(0), value_of("last", 0, 10))])


class Damage:
    """Damages files; `done` says how, for the message of a test that fails."""

    def __init__(self, seed: int, base: Base) -> None:
        self.files = dict(base.files)
        self.done: list[str] = [f"{base.name}, seed {seed}"]
        self._chance = random.Random(seed)
        self._base = base

    def damage(self) -> Files:
        for _ in range(self._chance.choice((1, 1, 1, 2, 3))):
            if self.files:
                self._chance.choice(_WAYS)(self)
        return self.files

    def note(self, text: str) -> None:
        self.done.append(text)

    def pick(self, *kinds: Kind) -> str | None:
        names = sorted(n for n in self.files if not kinds or kind_of(n) in kinds)
        return self._chance.choice(names) if names else None

    def _content(self, *kinds: Kind) -> tuple[str, bytes]:
        name = self.pick(*kinds)
        if name is None or not self.files[name]:
            name = self.pick()
        assert name is not None
        return name, self.files[name]

    def _any_content(self) -> tuple[str, bytes]:
        kind = self._chance.choice((Kind.MANIFEST, Kind.JOURNAL, Kind.JOURNAL, Kind.TABLE))
        return self._content(kind)

    def flip(self) -> None:
        name, content = self._any_content()
        if content:
            bit = self._place(len(content)) * 8 + self._chance.randrange(8)
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            self.files[name] = bytes(changed)
            self.note(f"flip bit {bit} of {name}")

    def _place(self, size: int) -> int:
        """An offset; the ends of files matter more than their middles."""
        if self._chance.random() < 0.3:
            return max(0, size - 1 - self._chance.randrange(64))
        return self._chance.randrange(size)

    def tear(self) -> None:
        name, content = self._any_content()
        if content:
            size = self._place(len(content))
            self.files[name] = content[:size]
            self.note(f"cut {name} to {size} of {len(content)}")

    def overwrite(self) -> None:
        name, content = self._any_content()
        if content:
            start = self._place(len(content))
            length = min(self._chance.choice((1, 3, 8, 64, 600, 40000)), len(content) - start)
            kind = self._chance.choice(("zeros", "garbage", "another place"))
            if kind == "zeros":
                new = bytes(length)
            elif kind == "garbage":
                new = self._chance.randbytes(length)
            else:
                other = self._chance.randrange(len(content))
                new = content[other : other + length].ljust(length, b"\0")
            self.files[name] = content[:start] + new + content[start + length :]
            self.note(f"{kind} over {length} bytes of {name} at {start}")

    def extend(self) -> None:
        name, content = self._any_content()
        more = self._chance.choice((bytes(100), bytes(40000), self._chance.randbytes(50), content))
        self.files[name] = content + more
        self.note(f"{len(more)} bytes behind {name}")

    def lose(self) -> None:
        name = self.pick(Kind.MANIFEST, Kind.JOURNAL, Kind.TABLE, Kind.TABLE, Kind.META)
        if name is not None:
            del self.files[name]
            self.note(f"lose {name}")

    def revive(self) -> None:
        if self._base.earlier:
            name = self._chance.choice(sorted(self._base.earlier))
            self.files[name] = self._base.earlier[name]
            self.note(f"bring back {name}")

    def stale_current(self) -> None:
        """CURRENT, and the manifest that it names, as they once were."""
        manifests = [n for n in self._base.earlier if kind_of(n) is Kind.MANIFEST]
        if manifests:
            name = self._chance.choice(sorted(manifests))
            self.files[name] = self._base.earlier[name]
            self.files["CURRENT"] = f"{name}\n".encode()
            for old in self._base.earlier:
                if kind_of(old) in (Kind.TABLE, Kind.JOURNAL) and self._chance.random() < 0.7:
                    self.files.setdefault(old, self._base.earlier[old])
            self.note(f"CURRENT names {name} of long ago")

    def _meta_content(self) -> bytes:
        manifest = self.pick(Kind.MANIFEST) or "MANIFEST-000003"
        other = self.pick() or "000004.log"
        listed = [
            b"",
            b"\n",
            bytes(16),
            manifest.encode(),
            f"{manifest}\n".encode(),
            f"{manifest}\n".encode(),
            f"{other}\n".encode(),
            b"MANIFEST-000777\n",
            f"{manifest.replace('-0000', '-')}\n".encode(),
            f"{manifest[:10]} {manifest[11:]}\n".encode(),
            f"{manifest}\0\n".encode(),
            f"{manifest}\n\n".encode(),
            f" {manifest}\n".encode(),
            f"{manifest} \n".encode(),
            self._chance.randbytes(16) + b"\n",
        ]
        return self._chance.choice(listed)

    def meta(self) -> None:
        pending = f"CURRENT.{self._chance.choice((0, 7, 999, 1000))}"
        name = self._chance.choice(("CURRENT", "CURRENT", "CURRENT.bak", pending, pending))
        self.files[name] = self._meta_content()
        self.note(f"{name} = {self.files[name]!r}")

    def flip_current(self) -> None:
        content = self.files.get("CURRENT")
        if content:
            bit = self._chance.randrange(len(content) * 8)
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            self.files["CURRENT"] = bytes(changed)
            self.note(f"CURRENT = {bytes(changed)!r}")

    def twin(self) -> None:
        """A copy of a file under another number, or another name of the same number."""
        name, content = self._content(*self._chance.choice(((Kind.MANIFEST,), (Kind.TABLE,), ())))
        desc = parse(name)
        if desc is None:
            return
        number = self._chance.choice((desc.number, desc.number + 1, 5, 12, 99))
        new = self._chance.choice(
            (
                f"MANIFEST-{number:06d}",
                f"{number:06d}.ldb",
                f"{number:06d}.sst",
                f"{number:06d}.log",
            )
        )
        if self._chance.random() < 0.1:
            new = self._chance.choice((f"{number}.ldb", f"{number}.log", "-3.log", "000005.ldb~"))
        self.files[new] = content
        self.note(f"{name} copied to {new}")
        if self._chance.random() < 0.3:
            del self.files[name]
            self.note("and removed")

    def reframe(self) -> None:
        """Records of a manifest or a journal lost, doubled or swapped, with sound checksums."""
        name, content = self._content(self._chance.choice((Kind.MANIFEST, Kind.JOURNAL)))
        records = [
            item.payload
            for item in journal.read(content, journal.Policy.LEVELDB)
            if isinstance(item, journal.Record)
        ]
        if not records:
            return
        what = self._chance.choice(("lost", "doubled", "swapped", "cut", "spoiled"))
        place = self._chance.randrange(len(records))
        if what == "lost":
            count = self._chance.choice((1, 1, 5, 50))
            del records[place : place + count]
        elif what == "doubled":
            records.insert(self._chance.randrange(len(records)), records[place])
        elif what == "swapped":
            other = self._chance.randrange(len(records))
            records[place], records[other] = records[other], records[place]
        elif what == "cut":
            records[place] = records[place][: self._chance.randrange(len(records[place]) + 1)]
        elif records[place]:
            spoiled = bytearray(records[place])
            at = self._chance.randrange(min(len(spoiled), 200))
            spoiled[at] ^= 1 << self._chance.randrange(8)
            records[place] = bytes(spoiled)
        writer = journal.Writer()
        self.files[name] = b"".join(writer.append(record) for record in records)
        self.note(f"record {place} of {name} {what}")

    def foreign_batches(self) -> None:
        """More batches at the end of a journal: odd sequence numbers, odd counts."""
        name, content = self._content(Kind.JOURNAL)
        if kind_of(name) is not Kind.JOURNAL:
            return
        writer = journal.Writer(len(content))
        for _ in range(self._chance.choice((1, 3))):
            sequence = self._chance.choice((0, 1, 500, 5000, 2**40))
            changes = [
                batch.Change(
                    key_of(self._chance.randrange(700)), self._chance.choice((None, b"new"))
                )
                for _ in range(self._chance.choice((0, 1, 4)))
            ]
            record = bytearray(batch.encode(sequence, changes))
            if self._chance.random() < 0.4:
                record[8] = self._chance.randrange(8)
            if self._chance.random() < 0.2:
                record += self._chance.randbytes(5)
            content += writer.append(bytes(record))
            self.note(f"batch at {sequence} with {len(changes)} changes behind {name}")
        self.files[name] = content


_WAYS: list[Callable[[Damage], None]] = [
    *[Damage.flip] * 5,
    *[Damage.tear] * 4,
    *[Damage.overwrite] * 4,
    Damage.extend,
    *[Damage.lose] * 3,
    *[Damage.revive] * 3,
    *[Damage.stale_current] * 2,
    *[Damage.meta] * 3,
    Damage.flip_current,
    *[Damage.twin] * 2,
    *[Damage.reframe] * 3,
    *[Damage.foreign_batches] * 2,
]
