"""The real engines, as every room of the tests uses them.

    for engine in ENGINES:                      # LevelDB and goleveldb
        engine.fill(directory, Fill(1000))
        assert engine.open(directory) == Content.of(Fill(1000).items())

Each command runs in a process of its own (tests/plyvel_tool.py, tests/golevel/main.go), so its
locks are real and it can be killed. What an engine refuses raises `EngineError` with its words; a
process that ends without an answer raises `EngineCrash` with its last words.
"""

from __future__ import annotations

import abc
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypedDict

from tests.workload import Change, Fill, Item, apply, digest

ROOT = Path(__file__).resolve().parent.parent
GOPATH = Path("/usr/share/gocode")


class EngineError(Exception):
    """The engine said no; the text is its own."""


class EngineCrash(Exception):  # noqa: N818 - it is what happened, not what the engine answered
    """The engine's process ended without an answer."""


class Answer(TypedDict, total=False):
    """One line of a tool's output; golevel/main.go says which command answers what."""

    keys: int
    sha256: str
    iter_error: str
    key: str
    value: str
    found: bool
    meta: str
    written: int
    acked: str
    held: bool
    closed: bool
    ok: bool
    error: str


@dataclass(frozen=True, slots=True)
class Content:
    """What an engine read: number of keys, `workload.digest` of all, and why it stopped early."""

    keys: int
    sha256: str
    iter_error: str = ""

    @classmethod
    def of(cls, items: Iterable[Item]) -> Content:
        """The content that a database with these items has; they need not be sorted."""
        listed = sorted(items)
        return cls(len(listed), digest(listed))

    @classmethod
    def answered(cls, answer: Answer) -> Content:
        """The content that a tool answered."""
        return cls(answer["keys"], answer["sha256"], answer["iter_error"])


@dataclass(frozen=True, slots=True)
class Options:
    """How an engine opens a database; sizes in bytes, None leaves the engine's own default.

    LevelDB raises small sizes to its limits: 64 KiB of write buffer, 1 MiB in a table.
    """

    create: bool = False
    read_only: bool = False
    """goleveldb only: LevelDB has no such thing."""
    write_buffer: int | None = None
    table_size: int | None = None
    block_size: int | None = None
    compression: bool = True

    def arguments(self) -> list[str]:
        """As the tools take them."""
        chosen = ["--create"] if self.create else []
        chosen += ["--ro"] if self.read_only else []
        chosen += [] if self.compression else ["--compression=none"]
        sizes = {
            "write-buffer": self.write_buffer,
            "table-size": self.table_size,
            "block-size": self.block_size,
        }
        return chosen + [f"--{name}={size}" for name, size in sizes.items() if size is not None]


EXISTING = Options()
NEW = Options(create=True)


class Process:
    """A running tool. Leaving the `with` block kills what still runs."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, *lines: str) -> None:
        """Write lines to its input."""
        try:
            self._input.write("".join(f"{line}\n" for line in lines))
            self._input.flush()
        except BrokenPipeError:
            raise self._crash() from None

    def answer(self) -> Answer:
        """Wait for its next line."""
        line = self._output.readline()
        if not line.endswith("\n"):
            raise self._crash()
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    def end_input(self) -> None:
        """Let it see the end of its input."""
        try:
            self._input.close()
        except BrokenPipeError:
            raise self._crash() from None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. What it wrote before can still be read."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill what still runs, and release everything."""
        if self._process.poll() is None:
            self.kill()
        with contextlib.suppress(BrokenPipeError):  # unsent lines of a process that is gone
            self._input.close()
        self._output.close()
        self._complaints.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _crash(self) -> EngineCrash:
        status = self._process.wait()
        self._complaints.seek(0)
        words = self._complaints.read().decode(errors="replace").strip()
        return EngineCrash(f"{' '.join(self._command)}: exit status {status}: {words[-2000:]}")


class Held(Process):
    """A process that has the database open and does nothing until it is released."""

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(command)
        try:
            self.answer()
        except BaseException:
            self.close()
            raise

    def release(self) -> None:
        """Let it close the database."""
        self.end_input()
        self.answer()


class SyncWriter(Process):
    """A process that writes entries, each synced, and tells of each that the engine acknowledged.

    `acknowledged` are the keys it told so far.
    """

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(command)
        self.acknowledged: list[bytes] = []

    def next(self) -> bytes | None:
        """Wait for the next acknowledged key; None when all are written and the database closed."""
        answer = self.answer()
        if "acked" not in answer:
            return None
        self.acknowledged.append(bytes.fromhex(answer["acked"]))
        return self.acknowledged[-1]

    def drain(self) -> list[bytes]:
        """All acknowledged keys, until it ends, is refused or was killed."""
        with contextlib.suppress(EngineError, EngineCrash):
            while self.next() is not None:
                pass
        return self.acknowledged


class Session(Held):
    """An open database that obeys, one acknowledged step after the other.

    `model` is what the database must hold after everything that was acknowledged, given that it
    held nothing, or what the caller put into `model`, at the start.
    """

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(command)
        self.model: dict[bytes, bytes] = {}

    def put(self, key: bytes, value: bytes, *, sync: bool = False) -> None:
        """Write one entry."""
        self._do(_line((key, value)) + (" sync" if sync else ""))
        apply(self.model, [(key, value)])

    def put_later(self, key: bytes, value: bytes) -> None:
        """Begin to write one entry, synced. Other steps may be made before `result`."""
        self._do("later " + _line((key, value)) + " sync")

    def result(self, key: bytes, value: bytes) -> None:
        """Wait for the end of `put_later`. Raises `EngineError` if that write was refused."""
        self._do("result")
        apply(self.model, [(key, value)])

    def delete(self, key: bytes, *, sync: bool = False) -> None:
        """Delete one key."""
        self._do(_line((key, None)) + (" sync" if sync else ""))
        apply(self.model, [(key, None)])

    def batch(self, changes: Iterable[Change], *, sync: bool = False) -> None:
        """Make several changes in one write."""
        listed = list(changes)
        head = f"batch {len(listed)}" + (" sync" if sync else "")
        self._do(head, *map(_line, listed))
        apply(self.model, listed)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None if there is none."""
        answer = self._do(f"get {_word(key)}")
        return bytes.fromhex(answer["value"]) if answer["found"] else None

    def content(self) -> Content:
        """What the open database holds now."""
        return Content.answered(self._do("digest"))

    def expected(self) -> Content:
        """What it must hold now."""
        return Content.of(self.model.items())

    def begin(self) -> None:
        """Begin an iterator, which goes on seeing what the database holds now."""
        self._do("begin")

    def rest(self) -> Content:
        """All that the begun iterator sees, whatever was written since; it ends here."""
        return Content.answered(self._do("rest"))

    def compact(self) -> None:
        """Compact the whole key range."""
        self._do("compact")

    def shut(self) -> None:
        """Close the database but keep the process."""
        self._do("close")

    def reopen(self) -> None:
        """Close and open the database: both engines begin a new manifest then."""
        self._do("reopen")

    def _do(self, *lines: str) -> Answer:
        self.send(*lines)
        return self.answer()


def _word(data: bytes) -> str:
    return data.hex() or "-"


def _line(change: Change) -> str:
    key, value = change
    return f"del {_word(key)}" if value is None else f"put {_word(key)} {_word(value)}"


class Engine(abc.ABC):
    """An engine. Directories must exist, except where `Options.create` is given."""

    name: str

    def __str__(self) -> str:
        return self.name

    @abc.abstractmethod
    def program(self) -> list[str]:
        """The beginning of every command line."""

    def open(self, directory: Path, options: Options = EXISTING) -> Content:
        """Open, read every key, close."""
        return Content.answered(self._ask("open", directory, options.arguments()))

    def recover(self, directory: Path) -> Content:
        """Rebuild the database the engine's own way, then as `open`."""
        return Content.answered(self._ask("recover", directory))

    def compact(self, directory: Path, options: Options = EXISTING) -> Content:
        """Compact the whole key range, then as `open`."""
        return Content.answered(self._ask("compact", directory, options.arguments()))

    def items(self, directory: Path, options: Options = EXISTING) -> dict[bytes, bytes]:
        """Everything in the database, in key order. Raises `EngineError` if reading stops early."""
        items: dict[bytes, bytes] = {}
        with Process(self._command("dump", directory, options.arguments())) as process:
            while "key" in (answer := process.answer()):
                items[bytes.fromhex(answer["key"])] = bytes.fromhex(answer["value"])
        if answer["iter_error"]:
            raise EngineError(answer["iter_error"])
        return items

    def fill(
        self,
        directory: Path,
        fill: Fill,
        options: Options = NEW,
        *,
        batch: int = 1,
        sync: bool = False,
    ) -> None:
        """Write the entries, `batch` of them in each write, and close."""
        more = [f"--batch={batch}", *(["--sync"] if sync else [])]
        self._ask("fill", directory, [*options.arguments(), *_arguments(fill), *more])

    def write_sync(self, directory: Path, fill: Fill, options: Options = NEW) -> SyncWriter:
        """Begin to write the entries, each synced."""
        arguments = [*options.arguments(), *_arguments(fill)]
        return SyncWriter(self._command("write-sync", directory, arguments))

    def hold(self, directory: Path, options: Options = EXISTING) -> Held:
        """Open the database and keep it open."""
        return Held(self._command("hold", directory, options.arguments()))

    def session(self, directory: Path, options: Options = NEW) -> Session:
        """Open the database and obey."""
        return Session(self._command("run", directory, options.arguments()))

    def _command(self, word: str, directory: Path, arguments: Iterable[str] = ()) -> list[str]:
        # Not resolve(): that would walk into a mount which may be dead on purpose.
        return [*self.program(), word, *arguments, str(directory.absolute())]

    def _ask(self, word: str, directory: Path, arguments: Iterable[str] = ()) -> Answer:
        with Process(self._command(word, directory, arguments)) as process:
            process.end_input()
            return process.answer()


def _arguments(fill: Fill) -> list[str]:
    return [
        f"--count={fill.count}",
        f"--start={fill.start}",
        f"--value-size={fill.value_size}",
        f"--seed={fill.seed}",
    ]


class LevelDB(Engine):
    """LevelDB, as plyvel brings it."""

    name = "leveldb"

    def program(self) -> list[str]:
        return [sys.executable, "-m", "tests.plyvel_tool"]

    def repair(self, directory: Path) -> None:
        """`leveldb::RepairDB`."""
        self._ask("repair", directory)

    def destroy(self, directory: Path) -> None:
        """`leveldb::DestroyDB`."""
        self._ask("destroy", directory)


class GoLevel(Engine):
    """goleveldb, as Debian packages it."""

    name = "goleveldb"

    def program(self) -> list[str]:
        return [str(build_golevel())]

    def get_meta(self, directory: Path, *, read_only: bool = False) -> str:
        """What its file storage names as the live manifest; writable, it also tidies up."""
        return self._ask("meta", directory, Options(read_only=read_only).arguments())["meta"]


LEVELDB = LevelDB()
GOLEVELDB = GoLevel()
ENGINES: tuple[Engine, ...] = (LEVELDB, GOLEVELDB)


@functools.cache
def build_golevel() -> Path:
    """Build tests/golevel with Debian's goleveldb, or find what an earlier run built."""
    go = shutil.which("go")
    library = GOPATH / "src/github.com/syndtr/goleveldb"
    if go is None or not library.is_dir():
        raise RuntimeError("Go and Debian's goleveldb are missing: run scripts/setup --dev")
    ours = ROOT / "tests/golevel/main.go"
    key = hashlib.sha256()
    for source in [ours, *sorted(library.rglob("*.go"))]:
        key.update(source.read_bytes())
    build = ROOT / ".build"
    build.mkdir(exist_ok=True)
    program = build / f"golevel-{key.hexdigest()[:16]}"
    with (build / "golevel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            unfinished = program.with_suffix(".tmp")
            environment = {
                **os.environ,
                "GO111MODULE": "off",
                "GOFLAGS": "-mod=",
                "GOPATH": str(GOPATH),
                "GOCACHE": str(build / "gocache"),
                "CGO_ENABLED": "0",
            }
            built = subprocess.run(
                [go, "build", "-o", str(unfinished), str(ours)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if built.returncode:
                raise RuntimeError(f"go build failed:\n{built.stdout}{built.stderr}")
            unfinished.rename(program)
    return program
