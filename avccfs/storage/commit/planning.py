"""From changes to a plan: what is staged, and in which order it comes to its place.

The order keeps the database whole at every step. What a manifest needs is there before the manifest,
the manifest before CURRENT, and nothing goes before CURRENT has left it behind:

1. folders that are in the way of files go, new folders come;
2. new files (tables, journals, the rest), then changed tables and journals;
3. manifests; then the rest of the changed files;
4. the CURRENT family, as `family` tells;
5. what turned from a file into a folder;
6. what was removed, manifests first: with them goes the last claim on the tables;
7. attributes, those of folders last, because every step before moves their times.
"""

from __future__ import annotations

import stat as stat_bits
from collections.abc import Callable, Collection, Iterable

from avccfs.errors import CommitError
from avccfs.format.filename import CURRENT, Kind, encode_meta, kind_of, parse
from avccfs.storage.commit.draft import Draft, Sheet, Stage
from avccfs.storage.commit.entries import status
from avccfs.storage.commit.family import Family
from avccfs.storage.commit.plan import Install, SetAttributes, Switch
from avccfs.storage.explain import read_meta
from avccfs.vfs.base import Directory, exists, split
from avccfs.vfs.changes import Change, Changes, Entry, EntryKind, What
from avccfs.vfs.layered import Layered

_LATER = Kind.TEMP | Kind.LOCK | Kind.LOG | Kind.FOREIGN


def draft(view: Layered, source: Directory, changes: Changes) -> Draft:
    """What to stage and what to do, to make `source` what `view` shows.

    Raises `CommitError` for what cannot be carried over, `OSError` if `source` cannot be read.
    """
    return _Planner(view, source, changes).run()


class _Planner:
    def __init__(self, view: Layered, source: Directory, changes: Changes) -> None:
        self._view = view
        self._source = source
        self._changes = {each.path: each for each in changes.entries}
        self._new = [
            each for each in changes.entries if each.after and each.what is not What.ATTRIBUTES
        ]
        self._sheet = Sheet()
        family = Family(view, source, self._sheet)
        self._family = family if family.concerned else None
        self._stages: list[Stage] = []
        self._staged: dict[str, int] = {}

    def run(self) -> Draft:
        """All of it, in the order of the module's text."""
        self._refuse_what_nobody_can_make()
        sheet = self._sheet
        folders = [each.path for each in self._new if _is(each.after, EntryKind.FOLDER)]
        late = {path for path in folders if _stood(self._changes[path]) is not None}
        files = [
            each
            for each in self._new
            if not _is(each.after, EntryKind.FOLDER) and not self._by_protocol(each.path)
        ]
        early = [each for each in files if not _within(each.path, late)]
        fresh = [each for each in early if _stood(each) is None]
        over = [each for each in early if _stood(each) is not None]

        for each in over:
            if _is(_stood(each), EntryKind.FOLDER):
                sheet.move_away(each.path, None)
        sheet.sync()
        sheet.make_folders(path for path in folders if not _within(path, late))
        self._install(fresh, ~(Kind.MANIFEST | Kind.META))
        self._install(over, Kind.TABLE | Kind.JOURNAL)
        sheet.sync()
        if self._family is not None:
            self._family.silence()
        self._install(early, Kind.MANIFEST)
        sheet.sync()
        self._install(over, _LATER)
        sheet.sync()
        after_removals = self._carry_family(early)
        for path in sorted(late):
            sheet.move_away(path, _size_of(_stood(self._changes[path]), path))
        sheet.sync()
        sheet.make_folders(path for path in folders if _within(path, late))
        self._install((each for each in files if _within(each.path, late)), ~Kind(0))
        sheet.sync()
        self._remove()
        after_removals()
        self._set_attributes()
        return Draft(tuple(self._stages), tuple(sheet.operations), self._current_meanwhile())

    def _refuse_what_nobody_can_make(self) -> None:
        for each in self._new:
            if _is(each.after, EntryKind.OTHER):
                raise CommitError(
                    f"{self._source.label}: {each.path!r} is a pipe, a socket or a device, which "
                    "a commit cannot make. Remove it, or move it back to where it was, and run "
                    "avccfs commit again; nothing was changed",
                    begun=False,
                )

    def _install(self, changes: Iterable[Change], kinds: Kind) -> None:
        def rank(each: Change) -> tuple[int, str]:
            kind = kind_of(each.path)
            return (0 if kind is Kind.TABLE else 1 if kind is Kind.JOURNAL else 2), each.path

        for each in sorted(changes, key=rank):
            if kind_of(each.path) in kinds and each.after is not None:
                size = each.after.size if _is(each.after, EntryKind.FILE) else None
                was = _size_of(_stood(each), each.path)
                number = self._stage(each.path)
                self._sheet.add(Install(number, each.path, size, was), each.path)

    def _remove(self) -> None:
        gone = {each.path: each.before for each in self._changes.values() if each.after is None}
        for each in self._new:
            if each.old_path is not None and not self._shows(each.old_path):
                gone[each.old_path] = each.before
        taken = {each.path for each in self._new if _is(_stood(each), EntryKind.FOLDER)}
        taken.update(gone)
        top = [
            path
            for path in sorted(gone)
            if not _within(split(path)[0], taken) and not self._by_protocol(path)
        ]
        for manifests in (True, False):
            for path in top:
                if (kind_of(path) is Kind.MANIFEST) is manifests:
                    self._sheet.move_away(path, _size_of(gone[path], path))
            self._sheet.sync()

    def _set_attributes(self) -> None:
        for each in self._changes.values():
            if _is(each.after, EntryKind.FOLDER):
                self._sheet.touched.add(each.path)
            elif each.what is What.ATTRIBUTES:
                self._sheet.restored.add(each.path)
        folders = [path for path in self._sheet.touched if self._shows(path)]
        # The deepest first: a folder may be closed to us once it has its mode.
        folders.sort(key=lambda path: (-path.count("/") - bool(path), path))
        for path in (*sorted(self._sheet.restored), *folders):
            found = self._view.stat(path)
            self._sheet.operations.append(
                SetAttributes(
                    path,
                    stat_bits.S_IMODE(found.mode),
                    found.uid,
                    found.gid,
                    found.atime_ns,
                    found.mtime_ns,
                )
            )

    def _shows(self, path: str) -> bool:
        return status(self._view, path) is not None

    # Staging

    def _stage(self, path: str) -> int:
        """The number of the staged file for a path of the view."""
        if path in self._staged:
            return self._staged[path]
        number = len(self._stages)
        change = self._changes.get(path)
        stage = Stage(number, path)
        if change is not None and _is(change.after, EntryKind.LINK):
            stage = Stage(number, path, link=True)
        elif change is not None and change.link_of and self._is_new(change.link_of):
            main = self._stage(change.link_of)
            number = len(self._stages)
            stage = Stage(number, path, same_stage=main)
        elif change is not None and (same := self._same_file(change)) is not None:
            stage = Stage(number, path, same_as=same)
            # Its staged name is one more of a file that is not to change before its time.
            self._sheet.restored.add(path)
        self._stages.append(stage)
        self._staged[path] = number
        return number

    def _same_file(self, change: Change) -> str | None:
        """The file of the source that this one is, if a hard link can stand for it."""
        if change.link_of is not None:
            return change.link_of
        before, after = change.before, change.after
        if (
            change.what is not What.RENAMED
            or change.old_path is None
            or (before and before.size) != (after and after.size)
            or change.bytes.count
        ):
            return None
        # Where something else that happens to hold the same took its old name, that stays as it is;
        # and one file with two names is not what the view shows.
        stays = self._shows(change.old_path) and not self._is_new(change.old_path)
        return None if stays else change.old_path

    def _is_new(self, path: str) -> bool:
        """Whether what the view shows at a path gets there by a staged file."""
        change = self._changes.get(path)
        return change is not None and change.what is not What.ATTRIBUTES

    # The CURRENT family

    def _by_protocol(self, path: str) -> bool:
        return self._family is not None and kind_of(path) is Kind.META

    def _carry_family(self, early: list[Change]) -> Callable[[], None]:
        if self._family is not None:
            return self._family.carry_over(self._stage)
        for each in sorted(early, key=lambda each: each.path == CURRENT):
            self._install([each], Kind.META)
            self._sheet.sync()
        return lambda: None

    def _current_meanwhile(self) -> tuple[bytes, ...]:
        named = [
            read_meta(directory, CURRENT)
            for directory in (self._source, self._view)
            if exists(directory, CURRENT) and stat_bits.S_ISREG(directory.stat(CURRENT).mode)
        ]
        switches = [each.manifest for each in self._sheet.operations if isinstance(each, Switch)]
        descs = [desc for desc in map(parse, switches) if desc is not None]
        return tuple(dict.fromkeys((*named, *map(encode_meta, descs))))


def _is(entry: Entry | None, kind: EntryKind) -> bool:
    return entry is not None and entry.kind is kind


def _stood(change: Change) -> Entry | None:
    """What stands in the source where the change puts something."""
    return change.replaced if change.what is What.RENAMED else change.before


def _size_of(entry: Entry | None, path: str) -> int | None:
    """The size by which a file of the database is known again when the plan is carried out."""
    if entry is None or entry.kind is not EntryKind.FILE or parse(path) is None:
        return None
    return entry.size


def _within(path: str, roots: Collection[str]) -> bool:
    """Whether a path is one of these or lies below one."""
    while path:
        if path in roots:
            return True
        path = split(path)[0]
    return False
