"""The command itself: what it lists, and that listing imports nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from avccfs.cli import main as cli
from avccfs.cli.main import command

FOLDER = Path(cli.__file__).parent


def test_every_command_is_listed_with_a_line() -> None:
    context = click.Context(command)
    listed = command.list_commands(context)
    with_command = {
        path.stem
        for path in FOLDER.glob("*.py")
        if any(
            f'\n@click.{what}("{path.stem}"' in path.read_text() for what in ("command", "group")
        )
    }
    assert set(listed) == with_command
    for name in listed:
        found = command.get_command(context, name)
        assert found is not None
        assert found.name == name
        assert found.help
    assert command.get_command(context, "mend") is None


def test_help_imports_no_command() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "avccfs", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for line in ("Show a database on one screen", "Mount a copy of a sample database"):
        assert line in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "avccfs.cli.main" in imported
    for weight in ("avccfs.session", "avccfs.format.table", "avccfs.cli.dump", "pyfuse3", "trio"):
        assert weight not in imported


@pytest.mark.parametrize("wrong", [["mend"], ["mount"], ["check", "/missing"], ["--frob"]])
def test_wrong_usage_exits_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(wrong)
    assert ended.value.code == cli.USAGE
    assert capsys.readouterr().err
