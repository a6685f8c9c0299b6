"""What is measured, how much of it, and what is expected of avccfs there."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from bench_places import Place

NOISE = 1.05
"""A ratio up to this is not told apart from 1."""


class Cache(enum.Enum):
    """What the kernel may know when the clock starts."""

    KEPT = "kept"
    """What the work done before, on the same mount, left in it."""
    FIRST = "first"
    """Right after mounting: nothing about the mount, everything about the directory below."""
    COLD = "cold"
    """Nothing at all: the work begins on the disk."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """That avccfs takes at most `limit` times as long as another place."""

    against: Place
    limit: float
    text: str


WITHIN = Expectation(Place.NATIVE, 1.5, "within 1.5 times native")
FASTER = Expectation(Place.BINDFS, 1 / 5, "at least 5 times faster than bindfs")
NOT_SLOWER = Expectation(Place.BINDFS, NOISE, "not slower than bindfs")


@dataclass(frozen=True, slots=True)
class Task:
    """A task of `bench_worker` and how much of it."""

    name: str
    count: int
    least: int = 1
    """What `scaled` stops at."""

    def scaled(self, factor: float) -> Task:
        """The same with more or less to do."""
        return replace(self, count=max(self.least, round(self.count * factor)))


@dataclass(frozen=True, slots=True)
class Workload:
    """One line of the table. `count` of `timed` is in the unit that `title` speaks of."""

    name: str
    title: str
    timed: Task
    expected: tuple[Expectation, ...] = (NOT_SLOWER,)
    cache: Cache = Cache.KEPT
    before: tuple[Task, ...] = ()
    """Done first, off the clock: in the place itself if the cache is kept, else natively."""
    shared: Task | None = None
    """Makes a directory that is only read and serves all places and rounds; None: a new one each."""

    def scaled(self, factor: float) -> Workload:
        """The same with more or less to do."""
        return replace(
            self,
            timed=self.timed.scaled(factor),
            before=tuple(task.scaled(factor) for task in self.before),
            shared=self.shared.scaled(factor) if self.shared else None,
        )


_FILL = Task("fill_at_random", 150_000, least=100)
_SCAN = Task("scan_entries", 450_000, least=100)
_GET = Task("get_at_random", 150_000, least=100)
_TABLE = Task("make_table", 256, least=4)
_READ_ONCE = Task("read_in_order", 256, least=4)
_READ_AGAIN = Task("read_in_order", 2048, least=4)
_FOLDER = Task("make_folder", 20_000, least=20)
_LIST = Task("list_long", 20_000, least=20)
_STAT = Task("stat_each", 20_000, least=20)
_OPEN = Task("open_each", 20_000, least=20)

WORKLOADS: tuple[Workload, ...] = (
    Workload(
        "fillseq",
        "puts in key order",
        Task("fill_in_order", 200_000, least=100),
        (WITHIN, FASTER),
    ),
    Workload(
        "fillrandom",
        "puts in random order",
        Task("fill_at_random", 200_000, least=100),
        (WITHIN, FASTER),
    ),
    Workload(
        "overwrite",
        "puts over older ones",
        Task("fill_at_random", 200_000, least=100),
        (WITHIN, FASTER),
        before=(Task("fill_in_order", 200_000, least=100),),
    ),
    Workload(
        "fillsync",
        "puts, each synced",
        Task("fill_synced", 300, least=5),
        (WITHIN, NOT_SLOWER),
    ),
    Workload("readseq", "entries in key order", _SCAN, (WITHIN, NOT_SLOWER), before=(_FILL,)),
    Workload("readrandom", "gets at random", _GET, (WITHIN, NOT_SLOWER), before=(_FILL,)),
    Workload(
        "readseq-first",
        "entries, just mounted",
        _SCAN,
        cache=Cache.FIRST,
        before=(_FILL,),
    ),
    Workload(
        "readrandom-first",
        "gets, just mounted",
        _GET,
        cache=Cache.FIRST,
        before=(_FILL,),
    ),
    Workload(
        "table-cold",
        "MiB from the disk",
        _READ_ONCE,
        (),
        cache=Cache.COLD,
        shared=_TABLE,
    ),
    Workload(
        "table-warm",
        "MiB, again",
        _READ_AGAIN,
        (WITHIN, NOT_SLOWER),
        before=(_READ_ONCE,),
        shared=_TABLE,
    ),
    Workload(
        "blocks-cold",
        "x 4 KiB from the disk",
        Task("read_at_random", 3_000, least=10),
        cache=Cache.COLD,
        shared=_TABLE,
    ),
    Workload(
        "blocks-warm",
        "x 4 KiB, again",
        Task("read_at_random", 300_000, least=10),
        (WITHIN, NOT_SLOWER),
        before=(_READ_ONCE,),
        shared=_TABLE,
    ),
    Workload(
        "list-first",
        "files, just mounted",
        _LIST,
        cache=Cache.FIRST,
        before=(_LIST,),
        shared=_FOLDER,
    ),
    Workload("list-again", "files, again", _LIST, before=(_LIST,), shared=_FOLDER),
    Workload("stat", "stats after ls -l", _STAT, before=(_LIST,), shared=_FOLDER),
    Workload("open", "opens after ls -l", _OPEN, before=(_LIST,), shared=_FOLDER),
    Workload("replace", "files saved with care", Task("replace_each", 300, least=3)),
    Workload(
        "switch",
        "switches of CURRENT",
        Task("switch_current", 150, least=3),
        before=(Task("make_manifests", 500, least=500),),
    ),
)
