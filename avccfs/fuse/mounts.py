"""What is mounted where, who serves it and who holds it: read from /proc, without touching a mount.

A process that serves a mount listens on an abstract socket named after the mount's device number.
Whoever connects learns its pid, and learns of its end when the connection closes: after that the
directory's lock is free and everything it had to write is written.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

FSTYPE = "fuse.avccfs"
PLACES = 4
"""Addresses for the servers of one device number."""


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


def socket_name(device: str, place: int) -> str:
    """The abstract address of a server of a mount; `place` is below `PLACES`."""
    return f"\0avccfs/{device}/{place}"


def announce(device: str) -> socket.socket:
    """Listen for those who want to know when this process ends.

    The kernel gives a device number to a new mount as soon as the old one is gone, when the process
    that served it may still be ending: then the next place is taken.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    for place in range(PLACES):
        try:
            listener.bind(socket_name(device, place))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or place == PLACES - 1:
                listener.close()
                raise
            continue
        break
    listener.listen(64)
    return listener


def greeting(mountpoint: str) -> bytes:
    """What a server says to a connection, which it then keeps open until its end."""
    words = {"pid": os.getpid(), "mountpoint": mountpoint, "since": time.monotonic_ns()}
    return json.dumps(words).encode() + b"\n"


def server_of(mount: Mount) -> Server | None:
    """The process that serves an avccfs mount; None if it is gone (or answers to nobody).

    Of several with the mount's device number, the one that mounted there, and the latest.
    """
    answers = [_ask(socket_name(mount.device, place)) for place in range(PLACES)]
    found = [answer for answer in answers if answer is not None]
    found.sort(key=lambda answer: (answer[0] == mount.mountpoint, answer[1]))
    for *_, server in found[:-1]:
        server.connection.close()
    return found[-1][2] if found else None


def _ask(address: str) -> tuple[str, int, Server] | None:
    """The mount point of the server at an address, when it greeted, and the server itself."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    try:
        connection.connect(address)
        with connection.makefile("rb") as answer:
            words = json.loads(answer.readline(4096))
        return str(words["mountpoint"]), int(words["since"]), Server(int(words["pid"]), connection)
    except (OSError, ValueError, KeyError, TypeError):
        connection.close()
        return None


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
