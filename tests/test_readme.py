"""The README's session, run as written: a reader will paste it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from avccfs.cli.main import command
from avccfs.fuse import mounts
from tests.mounting import require_fuse

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DEMO = "/tmp/demo"


def session() -> list[tuple[str, str]]:
    """Commands and what they print, from all `console` blocks in order."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], ""))
            else:
                typed, printed = steps[-1]
                steps[-1] = (typed, f"{printed}{line}\n")
    return steps


def matches(printed: str, expected: str) -> bool:
    """Whether output is as the README has it; `...` there stands for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.split("..."))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


@pytest.mark.mounted
def test_the_session_prints_what_the_readme_says(tmp_path: Path) -> None:
    require_fuse()
    steps = session()
    assert len(steps) > 8
    demo = tmp_path / "demo"
    try:
        for typed, expected in steps:
            done = subprocess.run(
                ["bash", "-c", typed.replace(DEMO, os.fspath(demo))],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": os.fspath(tmp_path)},
                text=True,
                timeout=300,
                check=False,
            )
            printed = done.stdout.replace(os.fspath(demo), DEMO)
            assert matches(printed, expected), f"$ {typed}\n{printed}\nexpected:\n{expected}"
    finally:
        if mounts.mount_at(os.fspath(demo)) is not None:
            subprocess.run(["umount", "-l", os.fspath(demo)], check=False)


def test_the_readme_names_every_command_and_every_option() -> None:
    import click

    context = click.Context(command)
    for name in command.list_commands(context):
        assert f"avccfs {name}" in README
        sub = command.get_command(context, name)
        assert sub is not None
        for parameter in sub.params:
            names = parameter.opts if isinstance(parameter, click.Option) else []
            told = [one for one in names if re.search(rf"[` |/\[]{one}\b", README)]
            assert told or not names, f"{name} {parameter.name}"


def test_the_readme_names_every_room_and_module_that_it_speaks_of() -> None:
    rooms = {path.name for path in (ROOT / "avccfs").iterdir() if (path / "__init__.py").exists()}
    section = README.partition("## How it is built")[2]
    told = dict(re.findall(r"^\| `(\w+)/` \| (.*) \|$", section, re.MULTILINE))
    assert set(told) == rooms
    for room, text in told.items():
        for module in re.findall(r"`(\w+)`", text):
            place = ROOT / "avccfs" / room / module
            assert place.with_suffix(".py").exists() or place.is_dir(), f"{room}/{module}"
