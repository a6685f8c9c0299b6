"""Running a command in this process, and comparing what it writes with golden files."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from avccfs.cli.main import main
from tests.session.dump import FIXTURES

GOLDEN = Path(__file__).resolve().parent / "golden"
REGENERATE = "AVCCFS_REGENERATE_GOLDEN"
"""With this set to 1 in the environment, golden files are written anew instead of compared."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a command did."""

    code: int
    out: bytes
    error: str

    @property
    def text(self) -> str:
        """Standard output."""
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        """Its lines."""
        return self.text.split("\n")[:-1]


def run(*arguments: str | Path) -> Run:
    """Run `avccfs` with these arguments."""
    out, error = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    code: int | str | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    assert isinstance(code, int)
    return Run(code, out.buffer.getvalue(), error.getvalue())


def db(fixture: str) -> Path:
    """The database of a fixture. Nothing may change it."""
    return FIXTURES / fixture / "db"


def assert_golden(name: str, done: Run) -> None:
    """What was written, and the exit code, is what the file of that name has."""
    path = GOLDEN / name
    found = f"{done.text}--- standard error\n{done.error}--- exit code {done.code}\n"
    if os.environ.get(REGENERATE) == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert path.read_text() == found, f"to accept it: {REGENERATE}=1 pytest {name}"
