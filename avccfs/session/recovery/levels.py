"""The tables of a session in the order in which an engine's iterator takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.format.manifest import AddedTable
from avccfs.session.engines import Profile, names_of
from avccfs.session.folder import Folder
from avccfs.session.recovery.findings import Findings
from avccfs.session.recovery.keyspace import (
    Order,
    ReadError,
    Source,
    Status,
    UndefinedError,
    ordering,
)
from avccfs.session.recovery.tablescan import (
    Damage,
    Raw,
    goleveldb_entries,
    is_good_key,
    leveldb_entries,
)
from avccfs.session.state import SessionState


def by_level(
    state: SessionState, profile: Profile
) -> tuple[list[AddedTable], list[list[AddedTable]]]:
    """The tables of level 0, and those of each deeper level.

    Level 0 is in the order in which equal keys are found: the highest number first in goleveldb
    and avccDB, the smallest key first in LevelDB.
    """
    level_0: list[AddedTable] = []
    deeper: list[list[AddedTable]] = []
    for level, tables in state.levels.items():
        if level == 0 and profile.like_goleveldb:
            level_0 = sorted(tables, key=lambda table: -table.number)
            continue
        in_order = sorted(tables, key=lambda table: (smallest(table, profile), table.number))
        if level == 0:
            level_0 = in_order
        else:
            deeper.append(in_order)
    return level_0, deeper


def smallest(table: AddedTable, profile: Profile) -> Order:
    """What a table is sorted by."""
    return _order_of(table.smallest, profile)


def source_of(
    folder: Folder, tables: Iterable[AddedTable], found: Findings, status: Status
) -> Source:
    """The items of tables that lie one behind the other, each opened when its turn comes.

    Of a table that a rebuild writes anew only what it copies.
    """
    order = ordering(found.profile)
    for table in tables:
        rewritten = table.number in found.rewritten
        first: Order | None = None
        last: Order | None = None
        for raw, value in _entries(folder, table, found.profile, status, rewritten):
            if rewritten and not is_good_key(raw):
                continue
            last, trailer = order(raw)
            if first is None:
                first = last
            yield last, trailer, value
        if first is not None and last is not None:
            _check_range(table, first, last, found)


def _check_range(table: AddedTable, first: Order, last: Order, found: Findings) -> None:
    """A compaction may begin as soon as the database is open, and goes by these ranges."""
    profile = found.profile
    if _order_of(table.smallest, profile) > first or _order_of(table.largest, profile) < last:
        found.uncertain = (
            f"table {table.number} holds keys outside of the range that the manifest gives it: "
            "compactions and look-ups go wrong, and the first compaction may come at once"
        )


def _order_of(raw: bytes, profile: Profile) -> Order:
    try:
        return ordering(profile)(raw)[0]
    except UndefinedError:
        return (b"", 0, 0)


def _entries(
    folder: Folder, table: AddedTable, profile: Profile, status: Status, rewritten: bool
) -> Iterator[Raw]:
    label = folder.label
    desc = FileDesc(table.number, Kind.TABLE)
    try:
        with folder.opened(names_of(desc)) as opened:
            file = opened
            if profile.checks_blocks:
                damage = Damage() if rewritten else None
                yield from goleveldb_entries(file, table.size, label, status, damage)
            else:
                yield from leveldb_entries(file, table.size, label, status)
    except OSError as error:
        problem = error.strerror or str(error)
        if profile.like_goleveldb:
            raise ReadError(f"open {label}/{name_of(desc)}: {problem.lower()}") from None
        status.add(f"IO error: {label}/{name_of(desc)}: {problem}")
