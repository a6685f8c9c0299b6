"""Opens databases with the engines, many of them quickly, and copies of them only.

LevelDB runs in one process that is told directories line by line; should a database bring that down,
the next one gets a new process. goleveldb gets a process for each.

    python -m tests.session.opener      the process with LevelDB
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.engines import EXISTING, GOLEVELDB, ROOT, Content, EngineCrash, EngineError


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an opening."""

    content: Content | None = None
    error: str | None = None
    crashed: bool = False


class Opener:
    """Asks the engines. Leaving the `with` block ends the process with LevelDB."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def leveldb(self, directory: Path) -> Answer:
        """Open with LevelDB, read all, close."""
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{directory}\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            self._end()
            return Answer(crashed=True)
        answer = json.loads(line)
        if "error" in answer:
            return Answer(error=answer["error"])
        return Answer(Content.answered(answer))

    def goleveldb(self, directory: Path) -> Answer:
        """Open with goleveldb and read all. It is not closed: that would tell of compactions."""
        try:
            with GOLEVELDB.session(directory, EXISTING) as session:
                return Answer(session.content())
        except EngineError as error:
            return Answer(error=str(error))
        except EngineCrash:
            return Answer(crashed=True)

    def goleveldb_rebuild(self, directory: Path) -> Answer:
        """goleveldb's own rebuild, then read all."""
        try:
            return Answer(GOLEVELDB.recover(directory))
        except EngineError as error:
            return Answer(error=str(error))
        except EngineCrash:
            return Answer(crashed=True)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.session.opener"],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def main() -> None:
    import plyvel

    from tests.plyvel_tool import LevelDBError, read

    for line in sys.stdin:
        try:
            with closing(plyvel.DB(line.rstrip("\n"), create_if_missing=False)) as database:
                answer = read(database)
        except LevelDBError as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
