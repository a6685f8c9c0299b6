"""Who holds the lock on a file, as far as the system tells.

Asked only after a lock was refused, to name the program that has to be stopped. Nothing here calls
stat on another process's files: one of them may lie on a mount that hangs, or on our own.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

from avccfs.format import filename

try:
    import fcntl
except ImportError:  # pragma: no cover - not on POSIX
    fcntl = None  # type: ignore[assignment]

Holders = tuple[tuple[int, str], ...]
"""Process ids with the names of their programs."""

_FLOCK = struct.Struct("@hhqqi4x")


def process_name(pid: int) -> str | None:
    """The command name of a running process; None if there is none, or no telling.

    One that has ended and only waits for its parent to notice (a zombie) holds nothing any more.
    """
    try:
        line = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")
    except OSError:
        return None
    # "1234 (name) S ...", and the name may hold anything, brackets and spaces too.
    name, _, rest = line.partition("(")[2].rpartition(")")
    return None if rest.split()[0] in ("Z", "X") else name


def find(fd: int) -> Holders:
    """The processes that hold a lock of any kind on the file open as `fd`; empty if unknown."""
    seen = {_record_lock_holder(fd), *_listed_holders(fd)}
    named = {pid: name for pid in sorted(seen) if pid > 0 and (name := process_name(pid))}
    # A lock outlives the process that took it in the children that share its descriptor, and the
    # lock of an open file description never has an owner: then look at who has it open.
    return tuple((named or _sharing_processes(fd)).items())


def of_directory(path: str) -> Holders:
    """The processes that have a database directory locked, found out without a lock of our own.

    Empty if nobody has, or if there is no LOCK that can be looked at.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(os.path.join(path, filename.LOCK), flags)
    except OSError:
        return ()
    try:
        return find(fd)
    finally:
        os.close(fd)


def explain_lock(label: str, found: Holders) -> str:
    """What to tell a person who was refused the lock of the directory `label`."""
    who = " and ".join(
        f"{name} (pid {pid}{', this process' if pid == os.getpid() else ''})" for pid, name in found
    )
    return (
        f"{label}: the database is in use: {filename.LOCK} is held by "
        f"{who or 'a process that the system does not name'}. Stop it and try again; to look all "
        "the same, use --read-only (beside other readers) or --unlocked (takes no lock at all)"
    )


def _record_lock_holder(fd: int) -> int:
    """The pid of a holder of a record lock; 0 if there is none, -1 if it has no owner."""
    command = getattr(fcntl, "F_OFD_GETLK", None) or getattr(fcntl, "F_GETLK", None)
    if command is None:
        return 0
    # The description may be open for reading only, but asking for a write lock is allowed.
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, command, question))
    except OSError:
        return 0
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _listed_holders(fd: int) -> list[int]:
    """The pids that `/proc/locks` names for the file, waiting ones left out."""
    identity = _identity(fd)
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split()
        # "3: FLOCK ADVISORY WRITE 1234 fe:00:5678 0 EOF"; a waiting one has "->" second.
        if len(fields) == 8 and fields[5] == identity:
            found.append(int(fields[4]))
    return found


def _sharing_processes(fd: int) -> dict[int, str]:
    """The processes with a descriptor that carries a lock on the file.

    Found by the `lock:` lines of fdinfo. The device shown there is not always the one that stat
    shows (btrfs, overlays), so the same path counts as the same file.
    """
    identity = _identity(fd)
    path = _target(f"/proc/self/fd/{fd}")
    found: dict[int, str] = {}
    for pid in _running():
        for entry in _descriptors(pid):
            locks = [line.split() for line in _fdinfo(pid, entry) if line.startswith("lock:")]
            if not locks:
                continue
            same = any(identity in fields for fields in locks)
            if same or (path is not None and _target(f"/proc/{pid}/fd/{entry}") == path):
                found[pid] = process_name(pid) or "unknown"
                break
    return found


def _identity(fd: int) -> str:
    """The file as `/proc/locks` writes it: device numbers in hexadecimal, then the inode."""
    told = os.fstat(fd)
    if not hasattr(os, "major"):  # pragma: no cover - not on POSIX
        return ""
    return f"{os.major(told.st_dev):02x}:{os.minor(told.st_dev):02x}:{told.st_ino}"


def _running() -> list[int]:
    with contextlib.suppress(OSError):
        return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    return []


def _descriptors(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(f"/proc/{pid}/fdinfo")
    return []


def _fdinfo(pid: int, entry: str) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/fdinfo/{entry}").read_text().splitlines()
    return []


def _target(link: str) -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(link)
    return None
