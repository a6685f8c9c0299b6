"""Which manifest is live, and why: a reading of CURRENT and its family (SPEC section 3, get_meta).

Nothing here changes anything. `explain_meta` reads every candidate file and says of each what it
holds, whether that is good and why it won or lost; `MetaReport.result` turns the same reading into
the answer of get_meta. The order in which candidates are looked at:

1. pending files `CURRENT.<num>`, highest number first,
2. `CURRENT`,
3. `CURRENT.bak`.

The first good pending file wins only if neither CURRENT nor CURRENT.bak is good, or if it names a
greater manifest number than the first good one of these two.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from avccfs import errors
from avccfs.format.filename import (
    CURRENT,
    CURRENT_BAK,
    FileDesc,
    Kind,
    decode_meta,
    name_of,
    parse,
    pending_name,
    pending_number,
)
from avccfs.vfs.base import Directory

READ_LIMIT = 64 * 1024
"""Bytes of a meta file that are ever read. Good content has at most 29."""

Decode = Callable[[bytes], FileDesc | None]
"""The file that the content of a meta file names; None if the content is not good."""

_SHOWN = 80
_MANIFESTS_SHOWN = 5


class Verdict(enum.Enum):
    """What a candidate file is worth by itself."""

    GOOD = "good"
    CORRUPTED = "corrupted"
    TARGET_MISSING = "target missing"
    UNREADABLE = "unreadable"


class Outcome(enum.Enum):
    """Why a candidate won or lost."""

    WINS = "wins"
    NOT_GOOD = "is not good"
    BEHIND = "a file that is looked at earlier is good"
    NOT_NEWER = "pending, but names no greater manifest than CURRENT or CURRENT.bak"
    OLDER = "a pending file names a greater manifest"
    SEARCH_ENDED = "the search ended at a file that cannot be read"


@dataclass(frozen=True, slots=True)
class MetaCandidate:
    """One file of the CURRENT family."""

    name: str
    content: bytes | None
    """The first `READ_LIMIT` bytes; None if it could not be read."""
    target: FileDesc | None
    """The file it names; None if the content is corrupted or unread."""
    verdict: Verdict
    outcome: Outcome
    error: OSError | None = None
    """Why it, or the entry of its target, could not be read."""

    @property
    def good(self) -> bool:
        """Ends in a newline, names a database file, and that file exists."""
        return self.verdict is Verdict.GOOD

    @property
    def pending(self) -> int | None:
        """The number of a pending file, None for CURRENT and CURRENT.bak."""
        return pending_number(self.name)

    @property
    def finding(self) -> str:
        """One sentence: what is in the file, and why it won or lost."""
        match self.verdict:
            case Verdict.GOOD:
                found = f"{self.name} names {self.target}"
                return f"{found}: {self.outcome.value}"
            case Verdict.TARGET_MISSING:
                return f"{self.name} names {self.target}, which does not exist"
            case Verdict.CORRUPTED:
                return f"{self.name} is corrupted: {_found(self.content or b'')}"
            case Verdict.UNREADABLE:
                return f"{self.name} cannot be read: {self.error}"


@dataclass(frozen=True, slots=True)
class MetaReport:
    """Every candidate in the order it is looked at, and which one wins."""

    label: str
    """The directory, as its errors name it."""
    candidates: tuple[MetaCandidate, ...]
    manifests: tuple[FileDesc, ...]
    """The manifests that exist, lowest number first."""

    @property
    def winner(self) -> MetaCandidate | None:
        """The candidate that decides which manifest is live."""
        return next((c for c in self.candidates if c.outcome is Outcome.WINS), None)

    @property
    def pending(self) -> tuple[MetaCandidate, ...]:
        """The pending files, highest number first."""
        return tuple(c for c in self.candidates if c.pending is not None)

    @property
    def untidy(self) -> bool:
        """Whether get_meta of a writable storage would restore order.

        That is: there is an answer, and it is not simply in CURRENT, or pending files lie about.
        """
        winner = self.winner
        return winner is not None and (winner.name != CURRENT or bool(self.pending))

    @property
    def blocked_by(self) -> MetaCandidate | None:
        """The unreadable file that ends the search, if one does."""
        if self.winner is not None:
            return None
        for group in (self.pending, self._plain):
            stop = _stop(group)
            if stop is not None and not stop.good:
                return stop
        return None

    @property
    def _plain(self) -> tuple[MetaCandidate, ...]:
        return tuple(c for c in self.candidates if c.pending is None)

    def candidate(self, name: str) -> MetaCandidate | None:
        """What was found under a name; None if there is no such file."""
        return next((c for c in self.candidates if c.name == name), None)

    def result(self) -> FileDesc:
        """The answer of get_meta.

        Raises `MetaError` if nothing is good and something is corrupted, `FileNotFoundError` if
        nothing is good otherwise, and the system's own error for a file that cannot be read.
        """
        winner = self.winner
        if winner is not None and winner.target is not None:
            return winner.target
        blocked = self.blocked_by
        if blocked is not None and blocked.error is not None:
            raise blocked.error
        # The engines report a corrupted pending file before one of CURRENT or CURRENT.bak, and of
        # several in a group the last.
        for group in (self.pending, self._plain):
            corrupted = [c for c in group if c.verdict is Verdict.CORRUPTED]
            if corrupted:
                raise errors.MetaError(self._no_answer(), file=corrupted[-1].name)
        raise not_found(self._no_answer(), CURRENT)

    def _no_answer(self) -> str:
        found = "; ".join(c.finding for c in self.candidates) or "there is no CURRENT file"
        return f"{self.label}: no live manifest: {found}. {_what_exists(self.manifests)}"


def explain_meta(directory: Directory, decode: Decode = decode_meta) -> MetaReport:
    """Read every candidate of a database directory. Changes nothing.

    A file that vanishes meanwhile counts as absent. Errors of listing the directory propagate;
    errors of reading one file are part of the report. `decode` is for saying what an engine does
    that takes more names than it writes.
    """
    names = directory.names()
    numbers = sorted((n for n in map(pending_number, names) if n is not None), reverse=True)
    pending = _read_all(directory, [pending_name(n) for n in numbers], decode)
    plain = _read_all(directory, [CURRENT, CURRENT_BAK], decode)
    return MetaReport(
        label=directory.label,
        candidates=_judge(pending, plain),
        manifests=_manifests(names),
    )


def check_meta(directory: Directory, content: bytes, *, file: str = CURRENT) -> FileDesc:
    """The manifest that `content` names, if it may become the content of CURRENT.

    Stricter than get_meta: only a manifest, and it must exist. `file` is the file to name in the
    error. Raises `MetaError` for content of another form, `FileNotFoundError` for a manifest that
    does not exist.
    """
    desc = decode_meta(content)
    if desc is None or desc.kind is not Kind.MANIFEST:
        exist = _what_exists(_manifests(directory.names()))
        raise errors.MetaError(
            f"{file}: expected the name of a manifest and one newline, such as "
            f"'MANIFEST-000007\\n'; found {_found(content)}. {exist}",
            file=file,
        )
    try:
        directory.stat(name_of(desc))
    except FileNotFoundError:
        raise missing_target(directory, desc) from None
    return desc


def missing_target(directory: Directory, desc: FileDesc) -> FileNotFoundError:
    """The error for a meta value whose file does not exist."""
    exist = _what_exists(_manifests(directory.names()))
    return not_found(
        f"{directory.label}: {desc} does not exist, so CURRENT cannot name it. {exist}", str(desc)
    )


def not_found(message: str, name: str) -> FileNotFoundError:
    """A `FileNotFoundError` that says more than the system does."""
    return FileNotFoundError(errno.ENOENT, message, name)


def read_meta(directory: Directory, name: str) -> bytes:
    """The content of a small file, at most `READ_LIMIT` bytes of it."""
    file = directory.open(name)
    try:
        return file.read_at(READ_LIMIT, 0)
    finally:
        file.close()


def _read_all(directory: Directory, names: list[str], decode: Decode) -> list[MetaCandidate]:
    return [c for name in names if (c := _read(directory, name, decode)) is not None]


def _read(directory: Directory, name: str, decode: Decode) -> MetaCandidate | None:
    """What a candidate is worth by itself; `_judge` compares it with the others."""

    def candidate(verdict: Verdict, error: OSError | None = None) -> MetaCandidate:
        return MetaCandidate(name, content, target, verdict, Outcome.NOT_GOOD, error)

    content: bytes | None = None
    target: FileDesc | None = None
    try:
        content = read_meta(directory, name)
    except FileNotFoundError:
        return None
    except OSError as error:
        return candidate(Verdict.UNREADABLE, error)
    target = decode(content)
    if target is None:
        return candidate(Verdict.CORRUPTED)
    try:
        directory.stat(name_of(target))
    except FileNotFoundError:
        return candidate(Verdict.TARGET_MISSING)
    except OSError as error:
        return candidate(Verdict.UNREADABLE, error)
    return candidate(Verdict.GOOD)


def _judge(
    pending: Sequence[MetaCandidate], plain: Sequence[MetaCandidate]
) -> tuple[MetaCandidate, ...]:
    first_pending, first_plain = _stop(pending), _stop(plain)
    blocked = any(c is not None and not c.good for c in (first_pending, first_plain))
    winner = None if blocked else _stronger(first_pending, first_plain)

    def outcome(c: MetaCandidate, first: MetaCandidate | None, beaten: Outcome) -> Outcome:
        if not c.good:
            return Outcome.NOT_GOOD
        if blocked:
            return Outcome.SEARCH_ENDED
        if c is not first:
            return Outcome.BEHIND
        return Outcome.WINS if c is winner else beaten

    return (
        *(replace(c, outcome=outcome(c, first_pending, Outcome.NOT_NEWER)) for c in pending),
        *(replace(c, outcome=outcome(c, first_plain, Outcome.OLDER)) for c in plain),
    )


def _stop(group: Iterable[MetaCandidate]) -> MetaCandidate | None:
    """Where the search through a group stops: at the first that is good or cannot be read."""
    return next((c for c in group if c.verdict in (Verdict.GOOD, Verdict.UNREADABLE)), None)


def _stronger(pending: MetaCandidate | None, plain: MetaCandidate | None) -> MetaCandidate | None:
    if pending is None or pending.target is None:
        return plain
    if plain is None or plain.target is None or pending.target.number > plain.target.number:
        return pending
    return plain


def _manifests(names: list[str]) -> tuple[FileDesc, ...]:
    found = (parse(name) for name in names)
    return tuple(sorted(d for d in found if d is not None and d.kind is Kind.MANIFEST))


def _found(content: bytes) -> str:
    shown = repr(content[:_SHOWN])[1:]
    if len(shown) > _SHOWN or len(content) > _SHOWN:
        return f"{shown[:_SHOWN]}... ({len(content)} bytes)"
    if not content:
        return "nothing (the file is empty)"
    if content.rstrip(b"\n") and not content.endswith(b"\n"):
        return f"{shown} (no newline at the end)"
    return shown


def _what_exists(manifests: tuple[FileDesc, ...]) -> str:
    if not manifests:
        return "There is no manifest in this directory."
    shown = [str(d) for d in manifests[-_MANIFESTS_SHOWN:]]
    more = len(manifests) - len(shown)
    others = f" and {more} with lower numbers" if more else ""
    return f"Manifests here: {', '.join(shown)}{others}."
