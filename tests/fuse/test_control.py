"""The conversation over a mount's socket: lines of JSON, whoever asks, and whatever is asked."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest
import trio

from avccfs.errors import AvccfsError, LockedError, UsageError
from avccfs.fuse import control
from avccfs.fuse.asking import Asking
from avccfs.fuse.control import Progress, Service, converse
from avccfs.fuse.mounts import Server

Answering = Callable[[str, Mapping[str, object], Progress], object]


class Said:
    """A service that answers with a function."""

    def __init__(self, answering: Answering, quick: tuple[str, ...] = ()) -> None:
        self._answering = answering
        self._quick = quick

    def is_quick(self, name: str) -> bool:
        return name in self._quick

    def answer(self, name: str, details: Mapping[str, object], progress: Progress) -> object:
        return self._answering(name, details, progress)


@contextlib.contextmanager
def conversation(service: Service | None) -> Iterator[socket.socket]:
    """One end of a conversation; at the other one somebody answers, until this one is closed."""
    ours, theirs = socket.socketpair()
    failures: list[BaseException] = []

    async def answer() -> None:
        with trio.socket.from_stdlib_socket(theirs) as connection:
            await converse(connection, service)

    def serve() -> None:
        try:
            trio.run(answer)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours:
            ours.settimeout(30)
            yield ours
    finally:
        thread.join(30)
        assert not thread.is_alive()
    assert failures == []


@contextlib.contextmanager
def asked(answering: Answering, quick: tuple[str, ...] = ()) -> Iterator[Asking]:
    with conversation(Said(answering, quick)) as ours:
        mount = Asking(Server(os.getpid(), ours), "/mnt")
        try:
            yield mount
        finally:
            mount.close()


def lines(connection: socket.socket) -> Iterator[dict[str, object]]:
    with connection.makefile("rb") as file:
        for line in file:
            yield json.loads(line)


def test_questions_are_answered_one_after_the_other() -> None:
    with asked(lambda name, details, progress: [name, details["what"]], quick=("quick",)) as mount:
        assert mount.ask("quick", what=1) == ["quick", 1]
        assert mount.ask("slow", what="größer") == ["slow", "größer"]
        assert mount.ask("quick", what=None) == ["quick", None]


def test_quick_questions_are_answered_between_two_requests_and_slow_ones_apart() -> None:
    seen = {}

    def answering(name: str, details: Mapping[str, object], progress: Progress) -> object:
        try:
            trio.lowlevel.current_task()
            seen[name] = "in the loop"
        except RuntimeError:
            seen[name] = "in a thread"
        return None

    with asked(answering, quick=("quick",)) as mount:
        mount.ask("quick")
        mount.ask("slow")
    assert seen == {"quick": "in the loop", "slow": "in a thread"}


def test_progress_is_told_before_the_answer() -> None:
    def answering(name: str, details: Mapping[str, object], progress: Progress) -> object:
        for done in range(3):
            progress(done, 2, f"file {done}")
        return "done"

    told: list[tuple[int, int, str]] = []
    with asked(answering) as mount:
        assert mount.ask("slow", progress=lambda *step: told.append(step)) == "done"
        assert mount.ask("slow") == "done"
    assert told == [(0, 2, "file 0"), (1, 2, "file 1"), (2, 2, "file 2")]


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UsageError("not so"), UsageError),
        (LockedError("busy"), LockedError),
        (AvccfsError("failed"), AvccfsError),
        (OSError(5, "Input/output error", "a file"), AvccfsError),
    ],
)
def test_errors_arrive_as_what_they_are_and_the_conversation_goes_on(
    error: Exception, kind: type[Exception], quick: bool
) -> None:
    def answering(name: str, details: Mapping[str, object], progress: Progress) -> object:
        if name == "fail":
            raise error
        return "fine"

    with asked(answering, quick=("fail", "go on") if quick else ()) as mount:
        with pytest.raises(AvccfsError) as told:
            mount.ask("fail")
        assert type(told.value) is kind
        assert str(told.value) == str(error)
        assert mount.ask("go on") == "fine"


def test_error_that_nobody_expected_is_told_and_logged(
    errors_logged: list[logging.LogRecord],
) -> None:
    def answering(name: str, details: Mapping[str, object], progress: Progress) -> object:
        return dict[str, object]()["nothing"]

    with asked(answering) as mount:
        with pytest.raises(AvccfsError, match="KeyError: 'nothing'"):
            mount.ask("fail")
        with pytest.raises(AvccfsError, match="KeyError"):
            mount.ask("fail")
    assert [record.getMessage() for record in errors_logged] == [
        "a question could not be answered"
    ] * 2
    errors_logged.clear()


@pytest.mark.parametrize(
    "line", [b"gibberish", b"[]", b"{}", b'"ask"', b"3", b"\xff\xfe", b'{"ask": []}', b""]
)
def test_what_is_no_question_gets_an_error_and_the_next_one_an_answer(
    line: bytes, errors_logged: list[logging.LogRecord]
) -> None:
    with conversation(Said(lambda name, details, progress: {"a": 1}[name])) as ours:
        ours.sendall(line + b'\n{"ask": "a"}\n')
        ours.shutdown(socket.SHUT_WR)
        refusal, answer = lines(ours)
    error = refusal["error"]
    assert isinstance(error, dict)
    assert error["kind"] == "failed"
    assert error["text"]
    assert answer == {"answer": 1}
    errors_logged.clear()


def test_questions_may_come_in_any_pieces() -> None:
    with conversation(Said(lambda name, details, progress: name, quick=("a", "b", "ü"))) as ours:
        for byte in '{"ask": "a"}\n{"ask": "ü"}\n'.encode():
            ours.sendall(bytes([byte]))
        ours.sendall(b'{"ask": "a"}\n{"ask": "b"}\n{"ask')
        ours.shutdown(socket.SHUT_WR)
        assert list(lines(ours)) == [{"answer": name} for name in ("a", "ü", "a", "b")]


def test_question_without_an_end_ends_the_conversation() -> None:
    with conversation(Said(lambda name, details, progress: None)) as ours:
        # Who is hung up on cannot send all of it.
        with contextlib.suppress(ConnectionError):
            ours.sendall(bytes(2 * control.LINE_MAX))
        with contextlib.suppress(ConnectionError):
            assert ours.recv(1) == b""


def test_large_answer_arrives_whole() -> None:
    with asked(lambda name, details, progress: "x" * 3_000_000) as mount:
        assert mount.ask("slow") == "x" * 3_000_000


def test_mount_without_a_service_answers_no_questions() -> None:
    with conversation(None) as ours:
        mount = Asking(Server(os.getpid(), ours), "/mnt")
        with pytest.raises(UsageError, match="answers no questions"):
            mount.ask("anything")
        mount.close()


def test_strangers_get_a_refusal_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_may_ask", lambda connection: False)
    asked_of: list[str] = []
    with conversation(Said(lambda name, details, progress: asked_of.append(name))) as ours:
        ours.sendall(b'{"ask": "a"}\n{"ask": "b"}\n')
        [refusal] = lines(ours)
    assert refusal == {
        "error": {
            "kind": "failed",
            "text": "only the user who mounted it, and root, may ask this",
        }
    }
    assert asked_of == []


def test_what_was_begun_is_finished_when_who_asked_has_gone() -> None:
    begun, gone, finished = threading.Event(), threading.Event(), threading.Event()

    def answering(name: str, details: Mapping[str, object], progress: Progress) -> object:
        begun.set()
        assert gone.wait(30)
        for done in range(100):
            progress(done, 100, "x" * 10_000)
        finished.set()
        return None

    ours, theirs = socket.socketpair()

    async def answer() -> None:
        with trio.socket.from_stdlib_socket(theirs) as connection, contextlib.suppress(OSError):
            await converse(connection, Said(answering))

    thread = threading.Thread(target=trio.run, args=(answer,))
    thread.start()
    ours.sendall(b'{"ask": "slow"}\n')
    assert begun.wait(30)
    ours.close()
    gone.set()
    assert finished.wait(30)
    thread.join(30)
    assert not thread.is_alive()


def test_mount_that_ends_before_it_has_answered_is_told_as_such() -> None:
    ours, theirs = socket.socketpair()
    mount = Asking(Server(4711, ours), "/mnt")
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(
        AvccfsError, match=r"/mnt: the mount \(pid 4711\) ended before it had answered"
    ):
        mount.ask("anything")
    theirs.close()
    with pytest.raises(AvccfsError, match="/mnt: the mount ended meanwhile"):
        mount.ask("anything")
    mount.close()
