"""The programs that avccfs is compared with where it looks inside. Made once, kept in `.build`."""

from __future__ import annotations

import enum
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench_places import AVCCFS, BenchError
from bench_processes import finish

BUILD = Path(__file__).resolve().parent.parent / ".build"
_SOURCE = Path(__file__).with_name("bench_leveldbutil.cc")
_HEADER = Path("/usr/include/leveldb/dumpfile.h")
_DFLEVELDB = ("dfindexeddb==20260210",)
"""The distribution that the command `dfleveldb` comes in."""
_DFLEVELDB_NEEDS = ("python-snappy==0.7.3", "zstd==1.5.5.1")
"""It asks for python-snappy 0.6.1, which must be compiled against libsnappy; this one need not be."""


class Tool(enum.Enum):
    """A program that looks inside; the value is its name in tables and JSON."""

    AVCCFS = "avccfs"
    LEVELDBUTIL = "leveldbutil"
    DFLEVELDB = "dfleveldb"


@dataclass(frozen=True, slots=True)
class Ready:
    """A tool that can be run."""

    command: tuple[str, ...]
    """What comes before the arguments."""
    version: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A tool that cannot be, and what would help."""

    why: str


Peer = Ready | Missing


def prepare(tool: Tool) -> Peer:
    """The tool, made if it has not been."""
    try:
        return _MAKERS[tool]()
    except (BenchError, OSError) as error:
        return Missing(str(error))


def _avccfs() -> Peer:
    return Ready(AVCCFS, finish((*AVCCFS, "--version"), "avccfs").said.split()[-1])


def _leveldbutil() -> Peer:
    compiler = shutil.which("g++")
    if compiler is None or not _HEADER.exists():
        lacking = "libleveldb-dev" if compiler else "g++"
        return Missing(f"{lacking} is missing; install it with: scripts/setup --dev")
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    program = BUILD / f"leveldbutil-{digest}"
    if not program.exists():
        BUILD.mkdir(exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        # Debian compiles LevelDB without run-time types, so there are none to derive from.
        words = (compiler, "-O2", "-fno-rtti", str(_SOURCE), "-o", str(unfinished), "-lleveldb")
        try:
            finish(words, "compiling leveldbutil")
            unfinished.rename(program)
        finally:
            unfinished.unlink(missing_ok=True)
    command = (str(program),)
    return Ready(command, finish(command, "leveldbutil").said.strip())


def _dfleveldb() -> Peer:
    wanted = " ".join((*_DFLEVELDB, *_DFLEVELDB_NEEDS, sys.version))
    home = BUILD / f"dfleveldb-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    # Written last of all: an environment without it is half made.
    stamp = home / "made"
    if not stamp.exists():
        finish((sys.executable, "-m", "venv", "--clear", str(home)), "an environment for dfleveldb")
        pip = (str(home / "bin/python"), "-m", "pip", "install", "--no-input", "--quiet")
        finish((*pip, "--no-deps", *_DFLEVELDB), "installing dfleveldb")
        finish((*pip, *_DFLEVELDB_NEEDS), "installing what dfleveldb needs")
        stamp.touch()
    return Ready((str(home / "bin/dfleveldb"),), _DFLEVELDB[0].partition("==")[2])


_MAKERS: dict[Tool, Callable[[], Peer]] = {
    Tool.AVCCFS: _avccfs,
    Tool.LEVELDBUTIL: _leveldbutil,
    Tool.DFLEVELDB: _dfleveldb,
}
