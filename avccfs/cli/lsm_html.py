"""The picture as one HTML page that needs nothing else.

What comes from the database goes into the page as JSON in which no `<` is left, keys even as
hexadecimal digits, and from there into text nodes. Should something slip through nevertheless, the
page's own policy runs no script but the one whose digest it names, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from string import Template
from typing import Any, Final

from avccfs.cli.lsm_words import about, asset, printable, title
from avccfs.format.ikey import Dialect
from avccfs.session.keys import Form, show
from avccfs.session.picture.history import Step
from avccfs.session.picture.scene import Box, Fate, Scene

LONGEST_KEY: Final = 1024
"""Bytes of a key that a page holds. Of a longer one it shows these and the length."""

_LISTED: Final = 60
_EXACT: Final = 2**53 - 1
"""Integers above are not exact in JavaScript: they are strings there."""

_FATES: Final = list(Fate)


def render(scene: Scene, step: int) -> str:
    """The page, which begins at this step."""
    style = asset("boxes.css") + asset("page.css")
    script = asset("page.js")
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    return Template(asset("page.html")).substitute(
        policy=policy,
        title=html.escape(title(scene)),
        style=style,
        script=script,
        data=_json(_data(scene, step)),
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(data: object) -> str:
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(scene: Scene, step: int) -> dict[str, Any]:
    places = {key: place for place, key in enumerate(scene.keys)}
    return {
        "about": about(scene),
        "notes": [printable(note) for note in scene.notes],
        "at": step,
        "keys": [_key(key) for key in scene.keys],
        "rows": [
            {"kind": row.kind.value, "title": row.title, "lanes": row.lanes} for row in scene.rows
        ],
        "fates": [fate.value for fate in _FATES],
        "boxes": [_box(box, places) for box in scene.boxes],
        "steps": [_step(each, scene.dialect) for each in scene.steps],
    }


def _key(key: bytes) -> str | list[str | int]:
    return key.hex() if len(key) <= LONGEST_KEY else [key[:LONGEST_KEY].hex(), len(key)]


def _box(box: Box, places: dict[bytes, int]) -> list[Any]:
    return [
        box.row,
        box.lane,
        _number(box.number),
        _number(box.size),
        box.low,
        box.high,
        box.ends and [[places[end.key], _number(end.sequence)] for end in box.ends],
        box.since,
        box.until,
        _FATES.index(box.fate),
        box.name,
        box.note and printable(box.note),
    ]


def _step(step: Step, dialect: Dialect) -> dict[str, Any]:
    return {
        "offset": step.offset,
        "length": step.end - step.offset,
        "edit": step.edit,
        "fault": step.fault and printable(step.fault),
        "lines": lines(step, dialect),
        "unmatched": [
            f"drops {gone.number:06d} from L{gone.level}, which did not have it"
            for gone in step.unmatched[:_LISTED]
        ],
        "journal": _number(step.journal_number),
        "previous": _number(step.previous_journal_number),
    }


def lines(step: Step, dialect: Dialect) -> list[str]:
    """What a record says but for its tables."""
    record = step.record
    if record is None:
        return []
    shown = show(Form.ESCAPE)
    told = []
    if record.comparer is not None:
        told.append(f"comparer {shown(record.comparer[:LONGEST_KEY])}")
    numbers = [
        f"{what} {number}"
        for what, number in (
            ("journal", record.journal_number),
            ("previous journal", record.previous_journal_number),
            ("next file", record.next_file_number),
            ("sequence", record.sequence),
        )
        if number is not None
    ]
    if numbers:
        told.append(", ".join(numbers))
    told += [
        f"next compaction of L{pointer.level} from {shown(_user_key(pointer.key, dialect))}"
        for pointer in record.compaction_pointers[:_LISTED]
    ]
    return told


def _user_key(raw: bytes, dialect: Dialect) -> bytes:
    cut = dialect.suffix_length
    return (raw[:-cut] if len(raw) >= cut else raw)[:LONGEST_KEY]


def _number(number: int | None) -> int | str | None:
    return str(number) if number is not None and number > _EXACT else number
