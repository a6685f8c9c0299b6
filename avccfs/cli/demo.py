"""`avccfs demo`: a database caught in the middle of its switch of CURRENT, mounted to look at."""

from __future__ import annotations

import errno
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import click

SAMPLE = "interrupted"
"""A folder of `avccfs/samples`: goleveldb was reopening a database when it was killed."""

Mount = Callable[[Path, Path], int]
"""Mounts a source on a mount point and returns an exit status, 0 once the mount is usable."""


def _mount(source: Path, mountpoint: Path) -> int:
    # -P: nothing in the folder where the user happens to be may pose as a module.
    command = [sys.executable, "-P", "-m", "avccfs", "mount", str(source), str(mountpoint)]
    return subprocess.run(command, check=False).returncode


def copy_sample(target: Path) -> None:
    """Make `target` a copy of the sample database; it must not exist."""
    with resources.as_file(resources.files("avccfs") / "samples" / SAMPLE) as sample:
        shutil.copytree(sample, target)


def demo(mountpoint: Path, *, mount: Mount = _mount) -> int:
    """Mount a copy of the sample on `mountpoint`, which is made if missing, and say what to see.

    The copy is in a temporary folder; if the mount fails, nothing is left behind. Returns the exit
    status of `mount`. Raises `click.UsageError` for a mount point that would hide something.
    """
    mountpoint = mountpoint.absolute()
    made = _prepare(mountpoint)
    folder = Path(tempfile.mkdtemp(prefix="avccfs-demo-"))
    status = 1
    try:
        copy_sample(folder / "db")
        status = mount(folder / "db", mountpoint)
    finally:
        if status != 0:
            shutil.rmtree(folder)
            if made:
                mountpoint.rmdir()
    if status == 0:
        click.echo(guide(mountpoint, folder))
    return status


def _prepare(mountpoint: Path) -> bool:
    """Make sure that `mountpoint` is an empty directory; returns whether it was made here."""
    umount = f"{_command('avccfs')} umount {shlex.quote(str(mountpoint))}"
    try:
        mountpoint.mkdir()
    except FileExistsError:
        pass
    except OSError as error:
        raise click.UsageError(f"{mountpoint}: cannot be made: {error.strerror}") from None
    else:
        return True
    try:
        if mountpoint.is_mount():
            raise click.UsageError(f"{mountpoint} is mounted already. To free it: {umount}")
        if any(mountpoint.iterdir()):
            raise click.UsageError(
                f"{mountpoint} is not empty, and the mount would hide what is in it."
                " Name an empty or a new directory."
            )
    except NotADirectoryError:
        raise click.UsageError(f"{mountpoint} is not a directory") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise click.UsageError(
                f"{mountpoint} is a mount whose process is gone. To free it: {umount}"
            ) from None
        raise click.UsageError(f"{mountpoint}: {error.strerror}") from None
    return False


def guide(mountpoint: Path, folder: Path) -> str:
    """What to look at, with commands to paste."""
    at = shlex.quote(str(mountpoint))
    backing = folder / "db"
    held = {
        name: (backing / name).read_text().strip()
        for name in ("CURRENT", "CURRENT.bak", "CURRENT.10")
    }
    commands = [
        (f"ls -l {at}", ""),
        (f"head {at}/CURRENT*", ""),
        (f"echo MANIFEST-000007 > {at}/CURRENT", "refused: no such manifest; CURRENT stays"),
        (f"mv {at}/CURRENT.10 {at}/CURRENT", "finish the switch, as goleveldb would"),
        (f"echo MANIFEST-000000 > {at}/CURRENT", "and back"),
        (f"head {at}/CURRENT*", "CURRENT.bak is what it was before"),
    ]
    width = max(len(command) for command, _ in commands)
    lines = [
        f"  {command:{width}}  # {why}" if why else f"  {command}" for command, why in commands
    ]
    return f"""\
Mounted: {mountpoint}
A copy of the sample, so do with it what you like. The real files: {backing}

goleveldb was opening this database again. It was killed in the middle of switching CURRENT
from MANIFEST-000000 to MANIFEST-000010:

  CURRENT      {held["CURRENT"]}   not switched yet
  CURRENT.bak  {held["CURRENT.bak"]}   the copy of CURRENT that it makes first
  CURRENT.10   {held["CURRENT.10"]}   the new CURRENT: written, not yet renamed onto CURRENT

Who opens it now reads a different truth:

  LevelDB    reads CURRENT alone: MANIFEST-000000. It replays 000006.log and 000008.log and knows
             nothing of 000009.ldb, the table that goleveldb had just made of 000006.log.
  goleveldb  takes CURRENT.10, since 10 > 0, and finishes the switch: MANIFEST-000010 has
             000009.ldb, so only 000008.log is replayed.

Either finds all 337 keys. But let LevelDB open it first and goleveldb after that: LevelDB leaves
CURRENT.10 lying there, writes a 000009.ldb of its own, and goleveldb then trusts the old size of
that table and cannot read the database.

Look, and finish the switch by hand:

{chr(10).join(lines)}

When you are done:

  {_command("avccfs")} umount {at} && rm -r {shlex.quote(str(folder))}"""


def _command(name: str) -> str:
    """How the user calls a command of this environment: by name if that finds this very one."""
    ours = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if found is not None and Path(found).resolve() == ours.resolve():
        return name
    return shlex.quote(str(ours))


@click.command("demo")
@click.argument("mountpoint", type=click.Path(path_type=Path))
def command(mountpoint: Path) -> int:
    """Mount a copy of a sample database on MOUNTPOINT and say what to look at.

    The sample is what goleveldb left behind when it was killed while it switched CURRENT.
    """
    return demo(mountpoint)
