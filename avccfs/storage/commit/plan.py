"""The plan of a commit: operations that can be done again, and the file that keeps them.

While a commit is under way the folder `.avccfs-commit` of the directory holds

    staged-N    a new or changed file, complete and synced
    spare-N     one more name of it, on its way over an old file
    trash-N     what was taken away
    plan.json   what is to be done with them, in order

The plan is one JSON object: "format", "version", "begun" (nanoseconds since 1970), "digest" (of the
changes), "current" (what CURRENT may hold meanwhile, in hexadecimal), "operations", and "checksum":
SHA-256 over the same object without it, keys sorted, no spaces. It is written beside, synced and
renamed, so that a crash leaves all of it or nothing; what does not decode was damaged or forged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from avccfs.errors import CommitError
from avccfs.format.filename import LOCK, Kind, kind_of, parse
from avccfs.vfs import rules
from avccfs.vfs.base import Directory, join
from avccfs.vfs.layered import COMMIT_FOLDER

PLAN: Final = join(COMMIT_FOLDER, "plan.json")
PLAN_DRAFT: Final = join(COMMIT_FOLDER, "plan.tmp")
FORMAT: Final = "avccfs commit"
VERSION: Final = 1


def staged(number: int) -> str:
    """Where a finished file waits."""
    return join(COMMIT_FOLDER, f"staged-{number}")


def spare(number: int) -> str:
    """Its second name, for the rename over an old file."""
    return join(COMMIT_FOLDER, f"spare-{number}")


def trash(number: int) -> str:
    """Where something goes that is taken away."""
    return join(COMMIT_FOLDER, f"trash-{number}")


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make a folder unless it is there."""

    path: str


@dataclass(frozen=True, slots=True)
class Install:
    """Give a staged file its name, over whatever file has it."""

    number: int
    path: str
    size: int | None
    """Of the staged file in bytes; None for a symbolic link."""
    was: int | None
    """The size of the database file that is replaced; None if that is nobody's concern."""


@dataclass(frozen=True, slots=True)
class PutPointer:
    """Make a file of the CURRENT family hold what the staged one holds."""

    number: int
    path: str


@dataclass(frozen=True, slots=True)
class DropPointer:
    """Remove a file of the CURRENT family if it is there."""

    path: str


@dataclass(frozen=True, slots=True)
class Switch:
    """Make a manifest the live one, by the protocol of `storage.meta`."""

    manifest: str


@dataclass(frozen=True, slots=True)
class KeepPointers:
    """Remove every pending file, and every temp file of a switch, that is not among these."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MoveAway:
    """Take something away, a folder with all that is in it."""

    number: int
    path: str
    was: int | None
    """The size of the database file that it is; None if that is nobody's concern."""


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Set mode, owner and times (nanoseconds since 1970). The empty path is the directory."""

    path: str
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class SyncFolders:
    """Make the names in these folders durable, and those in the folder of the commit."""

    paths: tuple[str, ...]


Operation = (
    MakeFolder
    | Install
    | PutPointer
    | DropPointer
    | Switch
    | KeepPointers
    | MoveAway
    | SetAttributes
    | SyncFolders
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is left to do once the staged files are complete."""

    operations: tuple[Operation, ...]
    begun_ns: int
    digest: str
    """`Changes.digest` of what is carried over."""
    current: tuple[bytes, ...]
    """What CURRENT may hold before, meanwhile and afterwards; empty if that is not watched."""


def encode(plan: Plan) -> bytes:
    """The content of plan.json."""
    body: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "begun": plan.begun_ns,
        "digest": plan.digest,
        "current": [content.hex() for content in plan.current],
        "operations": [
            {"do": _WORDS[type(each)], **dataclasses.asdict(each)} for each in plan.operations
        ],
    }
    return json.dumps({**body, "checksum": _checksum(body)}).encode("ascii") + b"\n"


def decode(content: bytes, where: str) -> Plan:
    """The plan in a plan.json. Raises `CommitError`, which begins with `where`."""
    try:
        body = json.loads(content)
        if not isinstance(body, dict):
            raise _WrongError(f"expected an object, found {type(body).__name__}")
        checksum = body.pop("checksum", None)
        if checksum != _checksum(body):
            raise _WrongError(
                f"its checksum does not fit: expected {_checksum(body)}, found {checksum!r}"
            )
        if (body.get("format"), body.get("version")) != (FORMAT, VERSION):
            raise _WrongError(
                f"expected {FORMAT!r} version {VERSION}, found {body.get('format')!r} version "
                f"{body.get('version')!r}; it may need the avccfs that wrote it"
            )
        return Plan(
            tuple(_operation(each) for each in _list(body.get("operations"))),
            _time(body.get("begun")),
            _text(body.get("digest")),
            tuple(bytes.fromhex(_text(each)) for each in _list(body.get("current"))),
        )
    except (ValueError, RecursionError, _WrongError) as error:
        raise CommitError(
            f"{where}: this is no plan of a commit, so nothing was touched: {error}. The changes "
            f"are in {COMMIT_FOLDER} as files staged-N, and what was removed as trash-N. Remove "
            "that folder to leave the directory as it is now",
            begun=True,
        ) from error


def load(directory: Directory) -> Plan | None:
    """The plan in a directory; None if there is none. Raises `CommitError` for a bad one."""
    try:
        file = directory.open(PLAN)
    except FileNotFoundError:
        return None
    with closing(file):
        content = file.read_at(file.stat().size, 0)
    return decode(content, f"{directory.label}/{PLAN}")


def _checksum(body: Mapping[str, object]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# What may be in a plan. A forged one must not lead out of the directory, nor to its LOCK.


class _WrongError(Exception):
    """Why it is no plan."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _WrongError(f"expected text, found {value!r}")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise _WrongError(f"expected a list, found {value!r}")
    return value


def _number(value: object) -> int:
    # bool is an int to Python, and no number in JSON.
    if not isinstance(value, int) or isinstance(value, bool):
        raise _WrongError(f"expected a number, found {value!r}")
    return value


def _count(value: object) -> int:
    if _number(value) < 0:
        raise _WrongError(f"expected a number from 0 on, found {value!r}")
    return _number(value)


def _identity(value: object) -> int:
    if not 0 <= _number(value) < 2**32 - 1:
        raise _WrongError(f"expected the number of a user or group, found {value!r}")
    return _number(value)


def _time(value: object) -> int:
    if not -(2**63) <= _number(value) < 2**63:
        raise _WrongError(f"expected a time, found {value!r}")
    return _number(value)


def _count_or_none(value: object) -> int | None:
    return None if value is None else _count(value)


def _folder(value: object) -> str:
    path = _text(value)
    try:
        parts = rules.components(path)
    except OSError:
        raise _WrongError(f"expected a path within the directory, found {path!r}") from None
    if parts and (path == LOCK or parts[0] == COMMIT_FOLDER):
        raise _WrongError(f"a plan never touches {path!r}")
    return path


def _path(value: object) -> str:
    if not _folder(value):
        raise _WrongError("expected a path, found the directory itself")
    return _folder(value)


def _pointer(value: object) -> str:
    if kind_of(_path(value)) is not Kind.META:
        raise _WrongError(f"expected CURRENT or one of its kin, found {value!r}")
    return _path(value)


def _target(value: object) -> str:
    if parse(_text(value)) is None:
        raise _WrongError(f"expected the name of a manifest, found {value!r}")
    return _text(value)


def _paths(value: object) -> tuple[str, ...]:
    return tuple(_path(each) for each in _list(value))


def _folders(value: object) -> tuple[str, ...]:
    return tuple(_folder(each) for each in _list(value))


_FORMS: dict[str, tuple[Callable[..., Operation], dict[str, Callable[[object], object]]]] = {
    "make folder": (MakeFolder, {"path": _path}),
    "install": (
        Install,
        {"number": _count, "path": _path, "size": _count_or_none, "was": _count_or_none},
    ),
    "put pointer": (PutPointer, {"number": _count, "path": _pointer}),
    "drop pointer": (DropPointer, {"path": _pointer}),
    "switch": (Switch, {"manifest": _target}),
    "keep pointers": (KeepPointers, {"names": _paths}),
    "move away": (MoveAway, {"number": _count, "path": _path, "was": _count_or_none}),
    "set attributes": (
        SetAttributes,
        {
            "path": _folder,
            "mode": _count,
            "uid": _identity,
            "gid": _identity,
            "atime_ns": _time,
            "mtime_ns": _time,
        },
    ),
    "sync folders": (SyncFolders, {"paths": _folders}),
}
_WORDS = {make: word for word, (make, _) in _FORMS.items()}


def _operation(value: object) -> Operation:
    if not isinstance(value, dict):
        raise _WrongError(f"expected an operation, found {value!r}")
    form = _FORMS.get(_text(value.get("do")))
    if form is None:
        raise _WrongError(f"there is no operation {value.get('do')!r}")
    make, fields = form
    return make(**{name: read(value.get(name)) for name, read in fields.items()})
