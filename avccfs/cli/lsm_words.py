"""What both forms of `avccfs lsm` say in the same words."""

from __future__ import annotations

from importlib import resources

from avccfs.format.ikey import Dialect
from avccfs.session.picture.scene import Scene


def asset(name: str) -> str:
    """A file that goes into a picture."""
    return (resources.files("avccfs") / "cli" / "lsm_page" / name).read_text(encoding="utf-8")


def printable(text: str) -> str:
    """The text without anything but characters that can be seen, as XML and a terminal want it."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def title(scene: Scene) -> str:
    """What the picture is of."""
    return f"Levels of {printable(scene.label)}"


def about(scene: Scene) -> str:
    """The manifest, and how it was read."""
    if scene.manifest is None:
        return "No manifest: only files are shown"
    records = len(scene.steps)
    edits = sum(step.edit is not None for step in scene.steps)
    told = f"{records} record{'' if records == 1 else 's'}"
    if edits != records:
        told += f", {records - edits} of them damaged"
    keys = "avccDB's internal keys" if scene.dialect is Dialect.AVCCDB else "standard internal keys"
    return " \N{MIDDLE DOT} ".join([scene.manifest, told, keys, "files as they are now"])


def human(size: int) -> str:
    """A number of bytes, short."""
    value = float(size)
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    unit = 0
    while value >= 1024 and unit < len(units) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {units[unit]}" if unit and value < 100 else f"{value:.0f} {units[unit]}"


def plural(number: int, what: str) -> str:
    """So many of them."""
    return f"{number} {what}{'' if number == 1 else 's'}"
