"""An upper directory that is kept: found, read, and put in order before it is used.

Whatever a crash or a kill left is decided here, once: a torn end of the ledger is dropped, a file of
ours that the ledger names and that is not there begins anew, one that nothing names is deleted. All
of that is durable, in a new ledger, before the first change.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from avccfs.errors import AvccfsError
from avccfs.format.filename import LOCK
from avccfs.vfs.base import Attributes, Directory, Open, exists
from avccfs.vfs.overlay import ledger
from avccfs.vfs.overlay.content import FileNode, dress
from avccfs.vfs.overlay.ledger import FileLedger
from avccfs.vfs.overlay.listing import Listing
from avccfs.vfs.overlay.state import Json
from avccfs.vfs.overlay.store import DATA, Store, data_name, encode, number_of
from avccfs.vfs.overlay.tree import Tree

FORMAT = "avccfs overlay"
VERSION = 1


class UpperError(AvccfsError):
    """The directory given for an overlay's changes cannot be used: foreign, damaged, another's."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an upper directory holds."""

    number: int
    """The highest number of a ledger; 0 for none."""
    source: str | None
    """What the changes were made over; None where there are none yet."""
    listing: Listing
    records: tuple[Json, ...]

    @property
    def is_new(self) -> bool:
        """Whether nothing is there yet."""
        return self.source is None


def look(upper: Directory) -> Found:
    """Read an upper directory; nothing is changed. Raises `UpperError` for what is none."""
    names = upper.names()
    numbers = ledger.numbers_in(names)
    for number in numbers:
        records = ledger.read(upper, number)
        if records:
            return _decode(upper, numbers[0], number, records)
    strange = sorted({*names} - {LOCK, DATA, *map(ledger.name_of, numbers)})
    if not strange and DATA in names:
        strange = [f"{DATA}/{name}" for name in upper.names(DATA)]
    if strange:
        raise UpperError(
            f"{upper.label}: expected an empty directory or the changes of an overlay, found "
            f"{', '.join(strange[:3])} and no sound ledger; name another directory"
        )
    return Found(max(numbers, default=0), None, {}, ())


def source_of(upper: Directory) -> str | None:
    """What the changes in a directory were made over; None if there are none. Raises `UpperError`."""
    try:
        return look(upper).source
    except UpperError:
        if any(ledger.numbers_in(upper.names())):
            raise
        return None


def wipe(upper: Directory) -> None:
    """Remove all that an overlay keeps in a directory; the caller holds its lock.

    The ledger goes last: as long as it is there, the directory is known for what it is.
    """
    if exists(upper, DATA):
        for name in upper.names(DATA):
            upper.remove(f"{DATA}/{name}")
        upper.rmdir(DATA)
        upper.sync()
    for number in reversed(ledger.numbers_in(upper.names())):
        upper.remove(ledger.name_of(number))
    upper.sync()


def _decode(upper: Directory, highest: int, number: int, payloads: list[bytes]) -> Found:
    where = f"{upper.label}: {ledger.name_of(number)}"
    try:
        records = tuple(json.loads(payload) for payload in payloads)
        header: Mapping[str, Any] = records[0]
        version = header[FORMAT]
        source = str(header["source"])
        listing: Listing = {path: tuple(entry) for path, entry in header["lower"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise UpperError(
            f"{where}: expected the ledger of an overlay, found records of something else ({exc}); "
            "name another directory"
        ) from None
    if version != VERSION:
        raise UpperError(
            f"{where}: expected version {VERSION} of the format, found {version}; open it with the "
            "avccfs that wrote it"
        )
    return Found(highest, source, listing, records)


def header(source: str, listing: Listing) -> Json:
    """What the first record of a ledger says beside the nodes and names."""
    return {FORMAT: VERSION, "source": source, "lower": listing}


def replay(tree: Tree, found: Found, where: str) -> None:
    """Carry the records out in a tree. Raises `UpperError` for one that makes no sense."""
    for position, record in enumerate(found.records):
        try:
            tree.replay(record)
        except (KeyError, TypeError, ValueError) as exc:
            raise UpperError(
                f"{where}: expected a change of names in record {position} of the ledger, found "
                f"{type(exc).__name__} {exc}; the directory is damaged: drop it, or name another"
            ) from exc


def mend(tree: Tree, store: Store) -> None:
    """Bring what the ledger says of our files and what is there together.

    A file is cut before its lowered limit is written down: the shorter of the two is what counts.
    """
    upper = store.upper
    writable = not upper.read_only
    with contextlib.suppress(FileExistsError):
        if writable:
            upper.mkdir(DATA)
    try:
        sizes = {name: told.size for name, told in upper.scan(DATA)}
    except FileNotFoundError:
        sizes = {}
    for name in sizes:
        number = number_of(name)
        if number is not None:
            # Never again the number of a file of which a crash may bring back the name.
            tree.skip(number)
    for node in tree.nodes:
        state = node.state
        if not isinstance(node, FileNode) or state.data is None:
            continue
        size = sizes.get(str(state.data))
        if size is None:
            number = tree.next_number()
            node.set_state(replace(state, data=number))
            _begin_anew(tree, store, node, number)
        else:
            node.set_state(replace(state, limit=min(size, state.limit)))
    if writable:
        # Names that a killed process left unsynced: from here on they count as durable.
        upper.sync(DATA)


def _begin_anew(tree: Tree, store: Store, node: FileNode, number: int) -> None:
    """Make the file of ours that a crash took: it was never synced, so nothing is owed of it."""
    state = node.state
    place = store.missing if store.upper.read_only else store.upper
    name = str(number) if store.upper.read_only else data_name(number)
    file = place.open(name, Open.WRITE | Open.CREATE | Open.EXCLUSIVE, 0o600)
    try:
        file.truncate(state.limit)
        if state.origin is not None:
            own = dress(file, tree.lower.stat(state.origin))
            node.set_state(replace(state, own=own))
        elif state.mode is not None:
            file.set_attributes(Attributes(mode=state.mode))
        file.sync()
    finally:
        file.close()


def put_in_order(tree: Tree, store: Store, files: FileLedger, head: Json) -> None:
    """Begin a new ledger, and delete what it does not name."""
    files.restart(encode({**head, **tree.to_json()}))
    named = {node.state.data for node in tree.nodes}
    for name in store.upper.names(DATA):
        number = number_of(name)
        if number is not None and number not in named:
            store.upper.remove(f"{DATA}/{name}")
