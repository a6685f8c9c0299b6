#!/usr/bin/env python3
"""Mount a database directory, straight from a fresh checkout.

Sets up what is missing (scripts/setup), then hands over to the `avccfs` of the environment. Only
the standard library is used here, and no syntax newer than Python 3.9: this runs before there is an
environment, under whatever interpreter the machine has.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent

USAGE = """\
usage: mount.py --demo MNT                 mount a sample database and say what to look at
       mount.py SOURCE MNT [options...]    the same as: avccfs mount SOURCE MNT [options...]
       mount.py --help                     this text

SOURCE is a database directory, or mem: for an empty one in memory. What is missing on this machine
is set up first: Debian packages (as root, or through sudo), and .venv beside this file. Without the
rights to do that, the command to run is printed and the exit status is 77.
The options of mount, once that is done: .venv/bin/avccfs mount --help
"""


def command_line(arguments: list[str]) -> list[str] | None:
    """What to give to `avccfs`; None if the arguments make no sense."""
    if arguments[:1] == ["--demo"]:
        return ["demo", *arguments[1:]] if len(arguments) == 2 else None
    return ["mount", *arguments] if len(arguments) >= 2 else None


def main(arguments: list[str]) -> int:
    """Set up and hand over; returns an exit status where there is nobody to hand over to."""
    if "--help" in arguments or "-h" in arguments:
        print(USAGE, end="")
        return 0
    wanted = command_line(arguments)
    if wanted is None:
        print(USAGE, end="", file=sys.stderr)
        return 2
    if not sys.platform.startswith("linux"):
        print("mount.py: this needs Linux, for its FUSE", file=sys.stderr)
        return 1
    try:
        status = subprocess.run([str(ROOT / "scripts" / "setup")], check=False).returncode
    except KeyboardInterrupt:
        return 130
    if status == 0:
        hand_over(wanted)
    return status


def hand_over(arguments: list[str]) -> NoReturn:
    """Become `avccfs` with these arguments."""
    avccfs = str(ROOT / ".venv" / "bin" / "avccfs")
    os.execv(avccfs, [avccfs, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
