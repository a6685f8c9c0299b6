"""Asking the system to unmount. Apart from the server because it needs no pyfuse3."""

from __future__ import annotations

import os
import shutil
import subprocess


def unmount(mountpoint: str, *, lazy: bool = False) -> str | None:
    """Unmount; returns what the system said if it would not, None if it did.

    A mount that is not lazy first takes every byte the kernel still holds to the serving process,
    which must be answering meanwhile.
    """
    if os.geteuid() == 0:
        command = ["umount", "-i", *(["-l"] if lazy else []), mountpoint]
    else:
        tool = shutil.which("fusermount3") or "fusermount"
        command = [tool, "-u", *(["-z"] if lazy else []), mountpoint]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    return None if done.returncode == 0 else (done.stderr.strip() or f"{command[0]} failed")
