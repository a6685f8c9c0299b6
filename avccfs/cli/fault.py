"""`avccfs fault MOUNTPOINT add|list|clear|remove|release|stats`."""

from __future__ import annotations

import json
from typing import Any

import click

from avccfs.fuse.asking import Asking, asking

_HELP = """Rules look like this:

\b
  sync journal #3: EIO             the third sync of a journal fails
  write table|manifest 5%: ENOSPC  one write of twenty, decided by seed=N
  sync '*.log': stall              until it is released
  write journal: torn prefix 100   100 bytes arrive, and the write fails
  read table every 10: corrupt bit

\b
operations  open create read write sync sync-dir rename remove truncate close any
files       manifest journal table temp meta foreign log lock, or name patterns
when        #N  #N-M  every N  after 30s  5% seed=N  times N
what        an errno | short N | delay 200ms | stall | torn prefix N
            | torn at N,M keep I | torn sectors I,J | corrupt bit | corrupt block | drop
"""


@click.group("fault", epilog=_HELP, invoke_without_command=False)
@click.argument("mountpoint")
@click.pass_context
def command(ctx: click.Context, mountpoint: str) -> None:
    """Make the disk under MOUNTPOINT misbehave, now, and see what it did."""
    ctx.obj = mountpoint


@command.command("add")
@click.argument("rules", nargs=-1, required=True, metavar="RULE...")
@click.pass_obj
def _add(mountpoint: str, rules: tuple[str, ...]) -> int:
    """Add rules; they count from now on."""
    from avccfs.vfs.fault import parse_rule

    for rule in rules:
        parse_rule(rule)  # All of them, before the first one acts.
    with asking(mountpoint) as mount:
        for rule in rules:
            _tell(mount, rule)
    return 0


@command.command("list")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@click.pass_obj
def _list(mountpoint: str, form: str) -> int:
    """Show the rules, and how often each has fired."""
    with asking(mountpoint) as mount:
        told = mount.ask("faults")
    if form == "json":
        click.echo(json.dumps(told["rules"], ensure_ascii=False, indent=1))
    else:
        for line in told["lines"]:
            click.echo(line)
        if not told["lines"]:
            click.echo("no rules: nothing goes wrong here", err=True)
    return 0


@command.command("clear")
@click.pass_obj
def _clear(mountpoint: str) -> int:
    """Take all rules away; whoever was held up goes on."""
    with asking(mountpoint) as mount:
        _tell(mount, "clear")
    return 0


@command.command("remove")
@click.argument("number", type=click.IntRange(min=1))
@click.pass_obj
def _remove(mountpoint: str, number: int) -> int:
    """Take one rule away."""
    with asking(mountpoint) as mount:
        _tell(mount, f"remove {number}")
    return 0


@command.command("release")
@click.argument("number", type=click.IntRange(min=1), required=False)
@click.pass_obj
def _release(mountpoint: str, number: int | None) -> int:
    """Let those go on whom stalls hold up, all or those of one rule."""
    with asking(mountpoint) as mount:
        _tell(mount, "release" if number is None else f"release {number}")
    return 0


@command.command("stats")
@click.pass_obj
def _stats(mountpoint: str) -> int:
    """Show operations, bytes, latency and fired faults, as JSON."""
    with asking(mountpoint) as mount:
        click.echo(json.dumps(mount.ask("stats"), ensure_ascii=False, indent=1))
    return 0


def _tell(mount: Asking, line: str) -> None:
    told: dict[str, Any] = mount.ask("tell-faults", line=line)
    click.echo(told["done"])
    if told["warning"]:
        click.echo(f"avccfs: {told['warning']}", err=True)
