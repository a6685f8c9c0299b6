"""What another process may ask the one that serves a mount, over the socket that announces it.

After the greeting (`mounts.greeting`) the caller sends one line of JSON, `{"ask": NAME, ...}`, and gets
lines back: any number of `{"progress": [DONE, TOTAL, WHAT]}`, and at last `{"answer": ...}` or
`{"error": {"kind": KIND, "text": TEXT}}`, KIND being one of `ErrorKind`. Then it may ask again.

Anybody on the machine can connect to an abstract socket, so who asks is taken from the kernel: the
user that serves the mount, and root, are answered.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Protocol

import trio

from avccfs.errors import AvccfsError, LockedError, UsageError

_log = logging.getLogger("avccfs.mount")

LINE_MAX = 1024 * 1024
"""Bytes of the longest question."""

_CREDENTIALS = struct.Struct("3i")


class ErrorKind(enum.Enum):
    """What kind of failure an answer tells, and with it the exit code of the command that asked."""

    USAGE = "usage"
    LOCKED = "locked"
    FAILED = "failed"


Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, and what is being worked on."""


class Service(Protocol):
    """What answers the questions."""

    def is_quick(self, name: str) -> bool:
        """Whether a question is answered at once, and must not wait for a thread."""

    def answer(self, name: str, details: Mapping[str, object], progress: Progress) -> object:
        """The answer, as JSON would have it. Raises `AvccfsError` or `OSError`.

        Called in a thread unless the question is quick.
        """


async def converse(connection: trio.socket.SocketType, service: Service | None) -> None:
    """Answer the questions of one caller until it goes away."""
    allowed = _may_ask(connection)
    waiting = b""
    while True:
        line, newline, rest = waiting.partition(b"\n")
        if not newline:
            if len(waiting) > LINE_MAX:
                return
            received = await connection.recv(65536)
            if not received:
                return
            waiting += received
            continue
        waiting = rest
        if not allowed:
            text = "only the user who mounted it, and root, may ask this"
            await _send(connection, {"error": {"kind": ErrorKind.FAILED.value, "text": text}})
            return
        await _send(connection, await _answer(connection, service, line))


async def _answer(
    connection: trio.socket.SocketType, service: Service | None, line: bytes
) -> Mapping[str, object]:
    try:
        question = json.loads(line)
        name = question["ask"]
        if service is None:
            raise UsageError("this mount answers no questions")
        if service.is_quick(name):
            return {"answer": service.answer(name, question, lambda *_: None)}
        return {"answer": await _ask_apart(connection, service, name, question)}
    except UsageError as error:
        return _error(ErrorKind.USAGE, str(error))
    except LockedError as error:
        return _error(ErrorKind.LOCKED, str(error))
    except (AvccfsError, OSError) as error:
        return _error(ErrorKind.FAILED, str(error))
    except Exception as error:  # noqa: BLE001 - a question must not end the mount
        _log.exception("a question could not be answered")
        return _error(ErrorKind.FAILED, f"{type(error).__name__}: {error}")


async def _ask_apart(
    connection: trio.socket.SocketType,
    service: Service,
    name: str,
    question: Mapping[str, object],
) -> object:
    async def tell(done: int, total: int, what: str) -> None:
        with contextlib.suppress(OSError):
            # Who asked may have gone; what was begun is finished all the same.
            await _send(connection, {"progress": [done, total, what]})

    def progress(done: int, total: int, what: str) -> None:
        trio.from_thread.run(tell, done, total, what)

    return await trio.to_thread.run_sync(service.answer, name, question, progress)


def _error(kind: ErrorKind, text: str) -> Mapping[str, object]:
    return {"error": {"kind": kind.value, "text": text}}


async def _send(connection: trio.socket.SocketType, message: Mapping[str, object]) -> None:
    rest = memoryview(json.dumps(message).encode() + b"\n")
    while rest:
        rest = rest[await connection.send(rest) :]


def _may_ask(connection: trio.socket.SocketType) -> bool:
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(told)
    return uid in (0, os.geteuid())
