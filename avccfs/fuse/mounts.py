"""What is mounted where, who serves it and who holds it: read from /proc, without touching a mount.

A process that serves a mount listens on an abstract socket named after the mount's device number.
Whoever connects learns its pid, and learns of its end when the connection closes: after that the
directory's lock is free and everything it had to write is written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

FSTYPE = "fuse.avccfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    mountpoint: str
    device: str
    """`major:minor`"""
    fstype: str
    source: str


@dataclass(frozen=True, slots=True)
class Server:
    """The process that serves a mount, and a connection that ends when it does."""

    pid: int
    connection: socket.socket

    def wait(self, seconds: float) -> bool:
        """Wait for the process to end; False if it has not within `seconds`."""
        self.connection.settimeout(seconds)
        try:
            while self.connection.recv(4096):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mounts() -> list[Mount]:
    """Everything that is mounted, the topmost mount of a place last."""
    found = []
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        found.append(Mount(_unescape(fields[4]), fields[2], rest[0], _unescape(rest[1])))
    return found


def mount_at(mountpoint: str) -> Mount | None:
    """The topmost mount exactly at this absolute path, if there is one."""
    return next((one for one in reversed(mounts()) if one.mountpoint == mountpoint), None)


def resolve(mountpoint: str) -> str:
    """The absolute path of a mount point, its parents resolved; the mount itself is not touched.

    A dead mount cannot be asked anything, so only the folder above it is.
    """
    path = os.path.abspath(mountpoint)
    parent, name = os.path.split(path)
    return os.path.join(os.path.realpath(parent), name) if name else path


def socket_name(mount: Mount) -> str:
    """The abstract address of the server of a mount.

    The place is part of it: the kernel gives a device number to the next mount as soon as the last
    one with it is gone, when the process that served that may still be ending. (A digest, since a
    path may be longer than an address.)
    """
    place = hashlib.sha256(os.fsencode(mount.mountpoint)).hexdigest()[:32]
    return f"\0avccfs/{mount.device}/{place}"


def announce(mount: Mount) -> socket.socket:
    """Listen for those who want to know when this process ends."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(socket_name(mount))
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener


def greeting() -> bytes:
    """What a server says to a connection, which it then keeps open until its end."""
    return json.dumps({"pid": os.getpid()}).encode() + b"\n"


def server_of(mount: Mount) -> Server | None:
    """The process that serves an avccfs mount; None if none answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    try:
        connection.connect(socket_name(mount))
        with connection.makefile("rb") as answer:
            return Server(int(json.loads(answer.readline(4096))["pid"]), connection)
    except (OSError, ValueError, KeyError, TypeError):
        connection.close()
        return None


def is_served_by(mount: Mount, pids: Collection[int]) -> bool:
    """Whether one of these processes serves an avccfs mount."""
    server = server_of(mount)
    if server is None:
        return False
    server.connection.close()
    return server.pid in pids


def is_dead(mountpoint: str) -> bool:
    """Whether the process that served a mount is gone and the mount is still there."""
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def holders_of(mountpoint: str) -> list[tuple[int, str]]:
    """Processes with something open, or their working directory, below a mount point.

    Only those this user may look at. Pairs of pid and command name.
    """
    inside = (mountpoint, mountpoint.rstrip("/") + "/")
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        links = [f"/proc/{pid}/cwd", f"/proc/{pid}/root"]
        try:
            links += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
            name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        for link in links:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target == inside[0] or target.startswith(inside[1]):
                found.append((pid, name))
                break
    return found


def describe(holders: list[tuple[int, str]]) -> str:
    """`vim (pid 12), bash (pid 7)`."""
    return (
        ", ".join(f"{name} (pid {pid})" for pid, name in holders) or "a process that cannot be seen"
    )
