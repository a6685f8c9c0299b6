"""Changes of a directory (`vfs.differences`), written down for people and for programs."""

from __future__ import annotations

import dataclasses
import stat as stat_bits
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from avccfs.format.filename import CURRENT, Kind, decode_meta, kind_of
from avccfs.vfs.changes import Bytes, Change, Changes, Entry, EntryKind, What

JSON_VERSION: Final = 1
"""Goes up when a key of `as_json` changes its meaning or goes; new keys leave it as it is."""
MOST_SHOWN: Final = 6
"""Ranges of one file that a person is shown."""

_ORDER = (Kind.META, Kind.MANIFEST, Kind.JOURNAL, Kind.TABLE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME_WIDTH = 20


def as_lines(changes: Changes) -> Iterator[str]:
    """One line for each path, what matters most first, then the totals.

    Sizes in bytes; a range `[a, +n)` is n bytes from offset a on. Names that do not print come as
    Python would write them. That a folder's time moved is left out.
    """
    shown = sorted((each for each in changes.entries if not each.minor), key=_rank)
    for change in shown:
        told = "  ".join(_told(change))
        yield f"{_word(change):<10}  {_name(change):<{_NAME_WIDTH}}  {told}".rstrip()
    if shown:
        yield ""
    yield _totals(shown)


def as_json(changes: Changes) -> dict[str, object]:
    """One object, for programs. See `JSON_VERSION` for how stable it is.

    Names that are not UTF-8 hold surrogates, as `os.fsdecode` makes them.
    """
    return {
        "version": JSON_VERSION,
        "digest": changes.digest,
        "changes": [_object(each) for each in changes.entries],
    }


def printable(name: str) -> str:
    """A name as it is if it prints, else quoted with escapes."""
    plain = name.isprintable() and name and name == name.strip()
    return name if plain else ascii(name)


# For people


def _rank(change: Change) -> tuple[int, int, str]:
    kind = kind_of(change.path)
    place = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    return place, change.path != CURRENT, change.path


def _word(change: Change) -> str:
    linked = change.link_of is not None and change.what is What.ADDED
    return "linked" if linked else change.what.value


def _name(change: Change) -> str:
    name = printable(change.path) if change.path else "."
    if change.old_path is not None:
        return f"{printable(change.old_path)} -> {name}"
    return f"{name}, the same file as {printable(change.link_of)}" if change.link_of else name


def _told(change: Change) -> Iterator[str]:
    """What a line says after the name."""
    before, after = change.before, change.after
    if change.what is not What.ATTRIBUTES:
        yield _sides(before, after)
    if change.replaced is not None:
        yield f"over what was there ({_side(change.replaced)})"
    if change.pointer is not None:
        former, now = _named(change.pointer.before), _named(change.pointer.after)
        yield f"named {former}, names {now}" if now != former else f"names {now} as before"
    elif before is not None and before.kind is EntryKind.FILE:
        yield from _ranges(change.bytes)
    if before is not None and after is not None:
        yield from _attributes(before, after, timed=change.what is What.ATTRIBUTES)


def _sides(before: Entry | None, after: Entry | None) -> str:
    if before is None and after is not None:
        return _side(after)
    if after is None and before is not None:
        return f"was {_side(before)}"
    was, now = _side(before), _side(after)
    both_files = before and after and before.kind is after.kind is EntryKind.FILE
    if both_files and before and after:
        return f"{before.size} -> {now}"
    return f"{was} -> {now}"


def _side(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    if entry.kind is EntryKind.FILE:
        return f"{entry.size} bytes"
    target = f" to {printable(entry.target)}" if entry.kind is EntryKind.LINK else ""
    return f"{entry.kind.value}{target}"


def _named(content: bytes | None) -> str:
    if content is None:
        return "nothing (no file)"
    desc = decode_meta(content)
    return str(desc) if desc is not None else f"nothing good ({ascii(content)[1:]})"


def _ranges(found: Bytes) -> Iterator[str]:
    if not found.ranges:
        return
    shown = [f"[{each.offset}, +{each.length})" for each in found.ranges[:MOST_SHOWN]]
    more = len(found.ranges) - len(shown) + found.more
    yield f"other bytes: {', '.join(shown)}" + (f" and {more} more" if more else "")


def _attributes(before: Entry, after: Entry, *, timed: bool) -> Iterator[str]:
    mode, uid, gid, time = before.attributes
    new_mode, new_uid, new_gid, new_time = after.attributes
    if mode != new_mode:
        yield f"mode {mode:04o} -> {new_mode:04o}"
    if (uid, gid) != (new_uid, new_gid):
        yield f"owner {uid}:{gid} -> {new_uid}:{new_gid}"
    if timed and time != new_time and after.kind is not EntryKind.FOLDER:
        yield f"time {_time(time)} -> {_time(new_time)}"


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    try:
        return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}.{rest:09d}"
    except OverflowError:
        return f"{nanoseconds} ns"


def _totals(shown: list[Change]) -> str:
    if not shown:
        return "no changes"
    counts = Counter(_word(each) for each in shown)
    words = [*(what.value for what in What), "linked"]
    told = ", ".join(f"{counts[word]} {word}" for word in words if counts[word])
    return f"{told}; {sum(each.bytes.count for each in shown)} bytes that are new or other"


# For programs


def _object(change: Change) -> dict[str, object]:
    pointer = change.pointer
    return {
        "what": change.what.value,
        "path": change.path,
        "old_path": change.old_path,
        "link_of": change.link_of,
        "before": _entry(change.before),
        "after": _entry(change.after),
        "replaced": _entry(change.replaced),
        "bytes": {
            "ranges": [[each.offset, each.length] for each in change.bytes.ranges],
            "more_ranges": change.bytes.more,
            "count": change.bytes.count,
            "sha256": change.bytes.digest or None,
        },
        "pointer": None
        if pointer is None
        else {"before": _target(pointer.before), "after": _target(pointer.after)},
    }


def _entry(entry: Entry | None) -> dict[str, object] | None:
    if entry is None:
        return None
    kept = dataclasses.asdict(entry)
    return {
        **kept,
        "kind": entry.kind.value,
        "mode": stat_bits.S_IMODE(entry.mode),
        "target": entry.target or None,
    }


def _target(content: bytes | None) -> str | None:
    """The manifest that a pointer names; None where it names none."""
    desc = None if content is None else decode_meta(content)
    return None if desc is None else str(desc)
