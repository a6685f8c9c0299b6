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
    """That a place takes at most `limit` times as long as another."""

    against: Place
    limit: float
    text: str
    of: Place = Place.AVCCFS


WITHIN = Expectation(Place.NATIVE, 1.5, "within 1.5 times native")
FASTER = Expectation(Place.BINDFS, 1 / 5, "at least 5 times faster than bindfs")
NOT_SLOWER = Expectation(Place.BINDFS, NOISE, "not slower than bindfs")

_OVERLAYS = (Place.OVERLAY, Place.OVERLAY_DIR)
WITHIN_PLAIN = tuple(
    Expectation(Place.AVCCFS, 1.5, f"{one.option} within 1.5 times the plain mount", one)
    for one in _OVERLAYS
)
AS_PLAIN = tuple(
    Expectation(Place.AVCCFS, NOISE, f"{one.option} as fast as the plain mount", one)
    for one in _OVERLAYS
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A table: the places that its workloads are done in, and what is told of them."""

    name: str
    places: tuple[Place, ...]
    against: tuple[Place, ...]
    """What all the other places that are mounts of avccfs are compared with."""


MOUNT = Comparison(
    "mount", (Place.NATIVE, Place.BINDFS, Place.AVCCFS), (Place.NATIVE, Place.BINDFS)
)
OVERLAY = Comparison("overlay", (Place.AVCCFS, *_OVERLAYS), (Place.AVCCFS,))


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
    comparison: Comparison = MOUNT
    also: tuple[Place, ...] = ()
    """Places beyond those of the comparison."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it is done."""
        return (*self.comparison.places, *self.also)

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

_MOUNTED: tuple[Workload, ...] = (
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


def _overlaid(
    name: str,
    expected: tuple[Expectation, ...],
    *,
    cache: Cache | None = None,
    faults: bool = False,
) -> Workload:
    """A workload, now done on overlays; with `faults` also where faults may come."""
    (found,) = (one for one in _MOUNTED if one.name == name)
    return replace(
        found,
        name=f"overlay-{name}",
        expected=expected,
        cache=cache or found.cache,
        comparison=OVERLAY,
        also=(Place.FAULTS,) if faults else (),
    )


_OVERLAID: tuple[Workload, ...] = (
    _overlaid("fillseq", WITHIN_PLAIN, faults=True),
    _overlaid("fillrandom", WITHIN_PLAIN),
    # What is written over lies in the source.
    _overlaid("overwrite", WITHIN_PLAIN, cache=Cache.FIRST),
    _overlaid("fillsync", WITHIN_PLAIN, faults=True),
    # What is read was written to the overlay ...
    _overlaid("readseq", WITHIN_PLAIN),
    _overlaid("readrandom", WITHIN_PLAIN, faults=True),
    # ... and from here on lies in the source, unchanged.
    _overlaid("readseq-first", AS_PLAIN),
    _overlaid("readrandom-first", AS_PLAIN),
    _overlaid("table-cold", AS_PLAIN),
    _overlaid("table-warm", AS_PLAIN),
    _overlaid("blocks-cold", AS_PLAIN, faults=True),
    _overlaid("blocks-warm", AS_PLAIN),
    _overlaid("list-first", ()),
    _overlaid("open", AS_PLAIN, faults=True),
    Workload(
        "overlay-change",
        "bytes, each in another block",
        Task("change_bytes", 4_000, least=10),
        (),
        cache=Cache.FIRST,
        before=(Task("make_table", 64, least=4),),
        comparison=OVERLAY,
        also=(Place.FAULTS,),
    ),
)

WORKLOADS = _MOUNTED + _OVERLAID
