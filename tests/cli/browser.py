"""A real browser without a window, told what to do over a pipe (the DevTools protocol)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--window-size=1400,900",
)
_PATIENCE = 60.0


@dataclass
class Page:
    """A tab. `complaints` are messages of the console, exceptions and refused loads."""

    connection: Connection
    session: str
    target: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there."""
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=path.as_uri())
        self.connection.wait_for("Page.loadEventFired", self._note)

    def close(self) -> None:
        """Close the tab."""
        self.connection.call("Target.closeTarget", {"targetId": self.target})

    def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript comes to, as JSON has it."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in told:
            raise AssertionError(f"{expression}: {told['exceptionDetails']}")
        return told["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, as a hand does."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=_CODES[key],
            )

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Do one thing in this tab."""
        return self.connection.call(method, parameters, self.session, self._note)

    def _note(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        match event["method"]:
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded":
                self.complaints.append(json.dumps(told))
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])


_CODES = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40, "Home": 36, "End": 35,
          "Enter": 13, "Tab": 9}  # fmt: skip


class Connection:
    """Commands to the browser, and what it answers, over two pipes."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._sent = 0
        self._unread = b""

    def call(
        self,
        method: str,
        parameters: dict[str, Any],
        session: str | None = None,
        note: Any = None,
    ) -> dict[str, Any]:
        """Send a command; `note` gets the events that come before its answer."""
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._sent:
                assert "error" not in answer, f"{method}: {answer}"
                result: dict[str, Any] = answer["result"]
                return result
            if note is not None and "method" in answer:
                note(answer)

    def wait_for(self, method: str, note: Any) -> None:
        """Go on when this event has come."""
        while True:
            event = self._next()
            if "method" in event:
                note(event)
            if event.get("method") == method:
                return

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, "the browser does not answer"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "the browser is gone"
            self._unread += piece
        message, _, self._unread = self._unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


@contextlib.contextmanager
def running(profile: Path) -> Iterator[Connection]:
    """A browser with a profile of its own, for the length of a `with` block."""
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing; install it with: scripts/setup --dev"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # It talks on the descriptors 3 and 4; the shell moves them there from above ten.
    high_in = fcntl.fcntl(theirs_in, fcntl.F_DUPFD, 10)
    high_out = fcntl.fcntl(theirs_out, fcntl.F_DUPFD, 10)
    os.close(theirs_in)
    os.close(theirs_out)
    log = profile.with_name(profile.name + ".log")
    with log.open("wb") as said:
        process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$0" "$@" 3<&{high_in} 4>&{high_out}', chromium),
                *(*_FLAGS, f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(high_in, high_out),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            env={**os.environ, "HOME": str(profile.parent)},
        )
    os.close(high_in)
    os.close(high_out)
    try:
        connection = Connection(ours_out, ours_in)
        yield connection
        connection.call("Browser.close", {})
        process.wait(timeout=_PATIENCE)
    finally:
        os.close(ours_out)
        os.close(ours_in)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=_PATIENCE)


def new_page(connection: Connection) -> Page:
    """A new tab."""
    target = connection.call("Target.createTarget", {"url": "about:blank"})["targetId"]
    attached = connection.call("Target.attachToTarget", {"targetId": target, "flatten": True})
    return Page(connection, attached["sessionId"], target)
