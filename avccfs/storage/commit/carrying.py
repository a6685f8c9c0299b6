"""The second phase of a commit: the plan is carried out. Every step of it can be done again.

A staged file keeps its name beside until the end: it gets its place by a hard link, or by the rename
of a second name, so that no half of a rename that a crash loses can take the content with it. Where
there are no hard links it is renamed itself; then one that is gone has been installed.

What is taken away is renamed into the trash. If it is there, that was done, and what stands in its
old place was put there since: doing it again must not touch it.
"""

from __future__ import annotations

import stat as stat_bits
from collections.abc import Iterator
from contextlib import closing, suppress

from avccfs.errors import CommitError
from avccfs.format.filename import CURRENT, Kind, kind_of, parse, pending_number
from avccfs.storage.commit.entries import give, status
from avccfs.storage.commit.plan import (
    DropPointer,
    Install,
    KeepPointers,
    MakeFolder,
    MoveAway,
    Operation,
    Plan,
    PutPointer,
    SetAttributes,
    Switch,
    SyncFolders,
    spare,
    staged,
    trash,
)
from avccfs.storage.commit.staging import NO_LINKS
from avccfs.storage.directory import DirectoryStorage
from avccfs.storage.explain import read_meta
from avccfs.storage.handles import write_all
from avccfs.vfs.base import Directory, Open, Stat
from avccfs.vfs.layered import COMMIT_FOLDER


def conflicts(source: Directory, plan: Plan) -> Iterator[str]:
    """What stands against carrying the plan out: somebody else worked here since it was made."""
    found = status(source, CURRENT)
    if plan.current and found is not None and stat_bits.S_ISREG(found.mode):
        content = read_meta(source, CURRENT)
        if content not in plan.current:
            expected = " or ".join(ascii(each)[1:] for each in plan.current)
            yield f"{CURRENT} holds {ascii(content[:64])[1:]}, expected {expected}"
    for each in plan.operations:
        if isinstance(each, Install):
            yield from _conflicts_of_install(source, each)
        elif isinstance(each, MoveAway) and status(source, trash(each.number)) is None:
            yield from _other_size(status(source, each.path), each.path, each.was)
        elif isinstance(each, PutPointer) and status(source, staged(each.number)) is None:
            yield f"{staged(each.number)}, which is to be {each.path}, is gone"


def _conflicts_of_install(source: Directory, operation: Install) -> Iterator[str]:
    ready, there = status(source, staged(operation.number)), status(source, operation.path)
    if ready is None and there is None:
        yield f"{operation.path} and {staged(operation.number)} are both gone"
    elif ready is None:
        yield from _other_size(there, operation.path, operation.size)
    else:
        yield from _other_size(ready, staged(operation.number), operation.size)
        if there is not None and there.inode != ready.inode:
            yield from _other_size(there, operation.path, operation.was)


def _other_size(found: Stat | None, path: str, size: int | None) -> Iterator[str]:
    if found is not None and size is not None and found.size != size:
        yield f"{path} has {found.size} bytes, expected {size}"


class Carrier:
    """Carries out the operations of a plan on a directory."""

    def __init__(self, source: Directory) -> None:
        self._source = source
        self.doing = ""
        """The operation under way, for people."""

    def carry_out(self, operation: Operation) -> None:
        """Do it, or see that it was done."""
        match operation:
            case MakeFolder(path=path):
                self.doing = f"making the folder {path!r}"
                self._make_folder(path)
            case Install(number=number, path=path):
                self.doing = f"putting {path!r} in its place"
                self._install(number, path)
            case PutPointer(number=number, path=path):
                self.doing = f"writing {path}"
                self._put_pointer(number, path)
            case DropPointer(path=path):
                self.doing = f"removing {path}"
                with suppress(FileNotFoundError):
                    self._source.remove(path)
            case Switch(manifest=manifest):
                self.doing = f"switching {CURRENT} to {manifest}"
                self._switch(manifest)
            case KeepPointers(names=names):
                self.doing = f"removing what is left of switches of {CURRENT}"
                self._keep_pointers(frozenset(names))
            case MoveAway(number=number, path=path):
                self.doing = f"removing {path!r}"
                self._move_away(path, trash(number))
            case SetAttributes(path=path):
                self.doing = f"setting mode, owner and times of {path or '.'!r}"
                self._set_attributes(operation)
            case SyncFolders(paths=paths):
                for path in (*paths, COMMIT_FOLDER):
                    self.doing = f"syncing the folder {path or '.'!r}"
                    self._source.sync(path)

    def _make_folder(self, path: str) -> None:
        found = status(self._source, path)
        if found is None or not stat_bits.S_ISDIR(found.mode):
            self._source.mkdir(path)

    def _install(self, number: int, path: str) -> None:
        name, other = staged(number), spare(number)
        ready, there = status(self._source, name), status(self._source, path)
        if ready is None or (there is not None and there.inode == ready.inode):
            return
        if there is None:
            if not self._link(name, path):
                self._source.rename(name, path)
            return
        with suppress(FileNotFoundError):
            self._source.remove(other)
        self._source.rename(other if self._link(name, other) else name, path)

    def _link(self, existing: str, new: str) -> bool:
        """Make a hard link; False where that is not possible."""
        try:
            self._source.link(existing, new)
        except OSError as error:
            if error.errno in NO_LINKS:
                return False
            raise
        return True

    def _put_pointer(self, number: int, path: str) -> None:
        """By a copy: after a crash a switch is done again, and then this as well."""
        content = self._content(staged(number))
        there = status(self._source, path)
        if there is not None and stat_bits.S_ISREG(there.mode) and self._content(path) == content:
            return
        other = spare(number)
        with suppress(FileNotFoundError):
            self._source.remove(other)
        flags = Open.WRITE | Open.CREATE | Open.EXCLUSIVE
        with closing(self._source.open(other, flags)) as file:
            write_all(file, content, 0)
            file.sync()
        self._source.rename(other, path)

    def _content(self, path: str) -> bytes:
        with closing(self._source.open(path)) as file:
            return file.read_at(file.stat().size, 0)

    def _switch(self, manifest: str) -> None:
        desc = parse(manifest)
        if desc is None:
            raise CommitError(f"{manifest!r} is no name of a manifest", begun=True)
        with DirectoryStorage(self._source, write_log=False, take_lock=False) as storage:
            storage.set_meta(desc)

    def _keep_pointers(self, names: frozenset[str]) -> None:
        for name in self._source.names():
            desc = parse(name)
            temp = desc is not None and desc.kind is Kind.TEMP and name.endswith(".dbtmp")
            pending = kind_of(name) is Kind.META and pending_number(name) is not None
            if (temp or pending) and name not in names:
                self._source.remove(name)

    def _move_away(self, path: str, place: str) -> None:
        gone, there = status(self._source, place), status(self._source, path)
        if there is None:
            return
        if gone is None:
            self._source.rename(path, place)
        elif gone.inode == there.inode:
            # Half of the rename was lost in a crash.
            self._source.remove(path)

    def _set_attributes(self, operation: SetAttributes) -> None:
        path = operation.path
        now = self._source.stat(path)
        wanted = Stat(
            operation.mode,
            now.size,
            now.inode,
            uid=operation.uid,
            gid=operation.gid,
            atime_ns=operation.atime_ns,
            mtime_ns=operation.mtime_ns,
        )
        give(now, wanted, lambda change: self._source.set_attributes(path, change))
        # A mode may have shut us out; then the attributes get to disk in their own time.
        with suppress(PermissionError):
            if stat_bits.S_ISDIR(now.mode):
                self._source.sync(path)
            elif stat_bits.S_ISREG(now.mode):
                with closing(self._source.open(path)) as file:
                    file.sync()
