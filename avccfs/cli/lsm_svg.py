"""The picture as an SVG file that stands still: the levels after one step.

Everything that comes from the database is escaped twice: bytes that cannot be seen as in a bytes
literal, then what XML takes for markup.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from avccfs.cli.lsm_words import about, asset, human, plural, printable, title
from avccfs.session.keys import Form, show
from avccfs.session.picture.scene import Box, Fate, Row, RowKind, Scene

WIDTH: Final = 1200
_LEFT: Final = 160
_RIGHT: Final = WIDTH - 24
_PLOT: Final = _RIGHT - _LEFT
_GAP: Final = 14
_NARROW: Final = 3.0
"""Boxes narrower than this, in pixels, are drawn together."""
_TICKS: Final = 8
_WIDTH_OF_A_LETTER: Final = 6.3
_LONGEST_LINE: Final = 180
_LONGEST_KEY: Final = 120

_WORDS: Final = {
    Fate.LIVE: "in the levels now",
    Fate.PAST: "dropped later, file gone",
    Fate.OBSOLETE: "dropped, file still there",
    Fate.ORPHAN: "never in this manifest",
    Fate.MISSING: "file missing",
    Fate.DAMAGED: "file damaged",
    Fate.JOURNAL: "journal (pale: no longer needed)",
}


def render(scene: Scene, step: int) -> str:
    """The picture after this step; 0 is before the first."""
    return "\n".join(_Canvas(scene, step).lines()) + "\n"


class _Canvas:
    """A picture that is being drawn, from top to bottom."""

    def __init__(self, scene: Scene, step: int) -> None:
        self._scene = scene
        self._step = step
        self._scale = _PLOT / max(1, len(scene.keys))
        self._y = 0.0
        self._there: dict[int, list[Box]] = {}
        for box in scene.boxes_at(step):
            self._there.setdefault(box.row, []).append(box)
        self._dropped: dict[int, list[Box]] = {}
        for box in scene.boxes:
            if box.until == step:
                self._dropped.setdefault(box.row, []).append(box)

    def lines(self) -> Iterator[str]:
        body = [*self._header(), *self._plot(), *self._legend()]
        height = round(self._y + 16)
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="levels" width="{WIDTH}" '
            f'height="{height}" viewBox="0 0 {WIDTH} {height}">'
        )
        yield f"<title>{escape(title(self._scene))}</title>"
        yield f"<style>\n{escape(asset('boxes.css'), quote=False)}</style>"
        yield f'<rect width="{WIDTH}" height="{height}" style="fill: var(--ground)"/>'
        yield from body
        yield "</svg>"

    def _header(self) -> Iterator[str]:
        scene = self._scene
        yield _text("title", 16, 30, title(scene))
        yield _text("quiet", 16, 49, about(scene))
        yield _text("quiet", 16, 65, self._where())
        self._y = 70
        for note in scene.notes:
            self._y += 16
            yield _text("warning", 16, self._y, printable(note))
        self._y += 18

    def _where(self) -> str:
        step, steps = self._step, self._scene.steps
        levels = [row for row in self._scene.rows if row.kind is RowKind.LEVEL]
        boxes = [
            box
            for number, row in enumerate(self._scene.rows)
            if row in levels
            for box in self._there.get(number, ())
        ]
        held = f"{plural(len(boxes), 'table')} in the levels, {human(sum(b.size for b in boxes))}"
        if not steps:
            return held
        if step == 0:
            return f"Before the first record: {held}"
        now = steps[step - 1]
        what = "damage" if now.edit is None else f"edit {now.edit}"
        return f"After record {step} of {len(steps)} ({what}, offset {now.offset}): {held}"

    def _plot(self) -> list[str]:
        top = self._y
        rows = [
            line for number, row in enumerate(self._scene.rows) for line in self._row(number, row)
        ]
        ticks = list(self._axis(top))
        self._y += 30
        return ticks + rows

    def _row(self, number: int, row: Row) -> Iterator[str]:
        there = self._there.get(number, [])
        each = 30 if row.lanes == 1 else max(7, min(24, 190 // row.lanes))
        height = max(30, each * row.lanes)
        top = self._y
        yield f'<rect class="band" x="{_LEFT}" y="{top:g}" width="{_PLOT}" height="{height}" rx="3"/>'
        yield _text("name", 16, top + 13, row.title)
        what = "journal" if row.kind is RowKind.JOURNALS else "table"
        size = human(sum(box.size for box in there))
        held = f"{plural(len(there), what)} \N{MIDDLE DOT} {size}" if there else "\N{EN DASH}"
        yield _text("quiet", 16, top + 27, held)
        for box in self._dropped.get(number, ()):
            left, right = self._sides(box)
            wide = max(1.5, right - left - 2)
            yield (
                f'<rect class="dropped" x="{left + 1:.1f}" y="{top + height + 3:g}" '
                f'width="{wide:.1f}" height="3.5" rx="1.5"/>'
            )
        for together in self._groups(there):
            yield from self._box(together, top + each * together[0].lane, each - 2)
        self._y = top + height + _GAP

    def _groups(self, boxes: list[Box]) -> Iterator[list[Box]]:
        """Boxes one by one; side by side ones that are narrow and look the same, together."""
        group: list[Box] = []
        for box in boxes:
            left, right = self._sides(box)
            narrow = right - left < _NARROW
            if group and not (
                narrow
                and box.lane == group[0].lane
                and self._looks(box) == self._looks(group[0])
                and left - self._sides(group[0])[0] < 2 * _NARROW
            ):
                yield group
                group = []
            group.append(box)
            if not narrow:
                yield group
                group = []
        if group:
            yield group

    def _box(self, together: list[Box], top: float, height: float) -> Iterator[str]:
        box = together[0]
        left = self._sides(box)[0]
        wide = max(1.5, max(self._sides(each)[1] for each in together) - left - 2)
        many = " many" if len(together) > 1 else ""
        yield f'<g class="box {self._looks(box)}{many}">'
        told = self._told(box) if not many else f"{len(together)} tables, too narrow to tell apart"
        yield f"<title>{escape(printable(told), quote=False)}</title>"
        yield (
            f'<rect x="{left + 1:.1f}" y="{top + 1:g}" width="{wide:.1f}" '
            f'height="{max(2, height):g}" rx="{min(3, wide / 3):.1f}"/>'
        )
        number = f"{box.number:06d}"
        words = [f"{number} \N{MIDDLE DOT} {human(box.size)}", number]
        fitting = [each for each in words if len(each) * _WIDTH_OF_A_LETTER + 10 < wide]
        if fitting and height >= 13 and not many:
            yield _text("", left + 7, top + height / 2 + 5, fitting[0])
        yield "</g>"

    def _looks(self, box: Box) -> str:
        kind = self._scene.rows[box.row].kind
        new = box.since == self._step > 0 and kind is RowKind.LEVEL
        bad = box.fate in (Fate.MISSING, Fate.DAMAGED)
        looks = "added" if new and not bad else box.fate.value
        if not self._scene.is_needed(box, self._step):
            looks += " done"
        return looks if box.ends else f"{looks} unknown"

    def _told(self, box: Box) -> str:
        words = _WORDS[box.fate]
        if box.fate is Fate.JOURNAL:
            words = (
                "to be replayed" if self._scene.is_needed(box, self._step) else "no longer needed"
            )
        parts = [
            f"{box.name or f'{box.number:06d}.ldb'} in {self._scene.rows[box.row].title}, "
            f"{box.size} bytes, {words}"
        ]
        if box.note:
            parts.append(box.note)
        if box.ends:
            keys = " .. ".join(_shown(end.key, _LONGEST_KEY) for end in box.ends)
            parts.append(f"keys {keys}")
        if box.since:
            parts.append(
                f"since record {box.since}, offset {self._scene.steps[box.since - 1].offset}"
            )
        return "; ".join(parts)

    def _axis(self, top: float) -> Iterator[str]:
        keys = self._scene.keys
        count = min(_TICKS, len(keys))
        for place in sorted({number * len(keys) // count for number in range(count)}):
            x = _LEFT + place * self._scale
            yield (
                f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{self._y - 4:g}"/>'
            )
            yield _text("quiet", x, self._y + 12, _shown(keys[place], 16))
        if keys:
            yield _text("quiet", 16, self._y + 12, "keys")

    def _legend(self) -> Iterator[str]:
        fates = {box.fate for boxes in self._there.values() for box in boxes}
        entries = [(f"box {fate.value}", words) for fate, words in _WORDS.items() if fate in fates]
        if any(self._looks(box) == "added" for boxes in self._there.values() for box in boxes):
            entries.append(("box added", "added by this record"))
        if self._dropped:
            entries.append(("dropped", "dropped by this record"))
        x = 16.0
        self._y += 14
        for looks, words in entries:
            y, height = (self._y - 6, 3.5) if looks == "dropped" else (self._y - 10, 11)
            yield (
                f'<g class="{looks}"><rect x="{x:g}" y="{y:g}" width="20" height="{height:g}" '
                'rx="2"/></g>'
            )
            yield _text("quiet", x + 27, self._y, words)
            x += 27 + len(words) * _WIDTH_OF_A_LETTER + 22

    def _sides(self, box: Box) -> tuple[float, float]:
        return _LEFT + box.low * self._scale, _LEFT + (box.high + 1) * self._scale


def _shown(key: bytes, limit: int) -> str:
    shown = show(Form.ESCAPE)(key[:limit])
    return (
        shown
        if len(shown) <= limit and len(key) <= limit
        else f"{shown[:limit]}\N{HORIZONTAL ELLIPSIS}"
    )


def _text(looks: str, x: float, y: float, text: str) -> str:
    if len(text) > _LONGEST_LINE:
        text = text[:_LONGEST_LINE] + "\N{HORIZONTAL ELLIPSIS}"
    attribute = f' class="{looks}"' if looks else ""
    return f'<text{attribute} x="{x:g}" y="{y:g}">{escape(text, quote=False)}</text>'
