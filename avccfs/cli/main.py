"""The command `avccfs`: finds the subcommand, and nothing else, so that it starts at once."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from avccfs.errors import AvccfsError, LockedError, UsageError

FINE = 0
DAMAGE = 1
USAGE = 2
LOCKED = 3
FAILED = 4
INTERRUPTED = 130

# Each is the object `command` in avccfs/cli/<name>.py. The lines stand here too, so that `--help`
# need not import every command to tell them.
_COMMANDS = {
    "inspect": "Show a database on one screen, what is wrong, and what to do next.",
    "explain": "Say what each engine would make of a database, and lose.",
    "check": "Check every byte of a database, and how its files fit together.",
    "dump": "Show what manifests, journals and tables hold, with offsets.",
    "history": "Show every place in a database that holds a key, newest first.",
    "lsm": "Draw the levels of a database over the range of its keys.",
    "mount": "Show a database directory as a file system.",
    "umount": "Unmount, and wait until the database is written and unlocked.",
    "diff": "Show what was changed on an overlay.",
    "commit": "Carry what was changed on an overlay into its source.",
    "discard": "Drop what was changed on an overlay.",
    "fault": "Make the disk under a mount misbehave, and see what it did.",
    "selftest": "Show on a scratch mount that each kind of fault does what it says.",
    "demo": "Mount a copy of a sample database and say what to look at.",
}


class _Commands(click.Group):
    """Subcommands that are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found = importlib.import_module(f"avccfs.cli.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 damage found, 2 wrong usage, 3 directory in use by somebody, "
    "4 it could not be done, 130 interrupted.",
)
@click.version_option(package_name="avccfs")
def command() -> None:
    """Debug LevelDB-family databases by hand: mount them, look, rehearse."""


def _as_mount_helper(arguments: Sequence[str]) -> list[str]:
    """Arguments as mount(8) gives them for `-t fuse.avccfs`: SOURCE MOUNTPOINT [-o OPTIONS].

    mount.fuse3 runs `avccfs` with these, without a subcommand.
    """
    given = list(arguments)
    if len(given) >= 2 and given[0] not in _COMMANDS and not given[0].startswith("-"):
        looks_like_it = given[0] == "mem:" or os.sep in given[0] or os.path.isdir(given[0])
        if looks_like_it:
            return ["mount", *given]
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    given = _as_mount_helper(sys.argv[1:] if arguments is None else arguments)
    try:
        result = command.main(args=given, prog_name="avccfs", standalone_mode=False)
        code = result if isinstance(result, int) else FINE
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("avccfs: interrupted", err=True)
        code = INTERRUPTED
    except UsageError as error:
        click.echo(f"avccfs: {error}", err=True)
        code = USAGE
    except LockedError as error:
        click.echo(f"avccfs: {error}", err=True)
        code = LOCKED
    except (AvccfsError, OSError) as error:
        click.echo(f"avccfs: {error}", err=True)
        code = FAILED
    sys.exit(code)
