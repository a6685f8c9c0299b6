"""CURRENT changed by the tools people have at hand, on real mounts; and where it is not CURRENT that
decides, but a pending file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from avccfs.fs.core import Core
from avccfs.storage.directory import DirectoryStorage, open_storage
from avccfs.vfs.base import Rename
from avccfs.vfs.local import LocalDirectory
from tests.fs.databases import NEW, OLD, Database, pending_left
from tests.fs.places import CorePlace, OsPlace, Place, names_in, read_all, write_all
from tests.mounting import mounted

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAME = NEW.decode().strip()


def shell(command: str, at: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], cwd=at, capture_output=True, text=True, timeout=60, check=False
    )


SWITCHES = {
    "echo": f"echo {NAME} > CURRENT",
    "printf": f"printf '%s\\n' {NAME} > CURRENT",
    "echo to both ends": f"echo {NAME} 1<> CURRENT",
    "cat": f"echo {NAME} | cat > CURRENT",
    "tee": f"echo {NAME} | tee CURRENT",
    "cp": "cp new CURRENT",
    "cp -p": "cp -p new CURRENT",
    "cp to a link": "ln -s CURRENT link && cp new link && rm link",
    "cp --remove-destination": "cp --remove-destination new CURRENT",
    "install": "install -m 600 new CURRENT",
    "ln -f": "ln -f new CURRENT",
    "mv": "cp new moving && mv moving CURRENT",
    "mv from elsewhere": f'd=$(mktemp -d) && echo {NAME} > "$d/x" && mv "$d/x" CURRENT',
    "dd": "dd if=new of=CURRENT",
    "dd conv=notrunc": "dd if=new of=CURRENT conv=notrunc,fsync",
    "sed -i": "sed -i s/000001/000007/ CURRENT",
    "sed -i with a backup": "sed -i.orig s/000001/000007/ CURRENT && rm CURRENT.orig",
    "python": f'python3 -c \'with open("CURRENT", "w") as f: f.write("{NAME}\\n")\'',
    "rm and echo": f"rm CURRENT && echo {NAME} > CURRENT",
    "an editor that renames": f"mv CURRENT CURRENT~ && echo {NAME} > CURRENT && rm CURRENT~",
    "an editor that copies": f"cp -p CURRENT .CURRENT.swp && echo {NAME} > CURRENT && rm .CURRENT.swp",
}
"""Commands that must make CURRENT name the other manifest. `new` holds its line."""


@pytest.mark.parametrize("tool", SWITCHES)
def test_a_tool_switches(tool: str, mounted_database: Database) -> None:
    database = mounted_database
    (database.at / "new").write_bytes(NEW)
    before = database.tree()
    done = shell(SWITCHES[tool], database.at)
    assert done.returncode == 0, done.stderr
    after = database.tree()
    assert after == {**before, "CURRENT": NEW, **{n: OLD for n in ("CURRENT.bak",) if n in after}}
    assert pending_left(after) == []
    assert (database.at / "CURRENT").read_bytes() == NEW
    assert shell("cat CURRENT", database.at).stdout == NEW.decode()
    assert sum("CURRENT now names" in line for line in database.log().splitlines()) == 1


REFUSALS = {
    "echo rubbish": "echo rubbish > CURRENT",
    "echo a missing one": "echo MANIFEST-000042 > CURRENT",
    "echo without a newline": f"printf {NAME} > CURRENT",
    "a second line": f"echo {NAME} >> CURRENT",
    "two lines": f"printf '{NAME}\\n{NAME}\\n' > CURRENT",
    "tee rubbish": "echo rubbish | tee CURRENT",
    "tee -a": f"echo {NAME} | tee -a CURRENT",
    "cp": "cp notes.txt CURRENT",
    "mv": "mv notes.txt CURRENT",
    "ln -sf": "ln -sfn new CURRENT",
    "dd in the middle": "printf 7 | dd of=CURRENT bs=1 seek=14 conv=notrunc",
    # After the last digit it is a whole name without its newline, and so refused.
    "dd byte by byte": "dd if=new of=CURRENT bs=1",
    "truncate": "truncate -s 0 CURRENT",
    "truncate to grow": "truncate -s 100 CURRENT",
    "fallocate": "fallocate -l 100 CURRENT",
    "sed -i": "sed -i s/000001/rubbish/ CURRENT",
    "python": 'python3 -c \'with open("CURRENT", "w") as f: f.write("rubbish\\n")\'',
    "python leaves it empty": 'python3 -c \'open("CURRENT", "w").close()\'',
}


@pytest.mark.parametrize("tool", REFUSALS)
def test_a_tool_is_told_that_it_cannot(tool: str, mounted_database: Database) -> None:
    database = mounted_database
    (database.at / "new").write_bytes(NEW)
    before = database.tree()
    done = shell(REFUSALS[tool], database.at)
    assert done.returncode != 0
    assert done.stderr, "the tool said nothing"
    left = database.tree()
    # sed leaves its temporary file behind when it cannot rename it.
    left = {name: content for name, content in left.items() if not name.startswith("sed")}
    assert left == before
    assert database.log() == ""
    assert (database.at / "CURRENT").read_bytes() == OLD


def test_emptying_it_in_a_shell_changes_nothing(mounted_database: Database) -> None:
    # No write, and a shell does not look at what close says: it must at least be harmless.
    before = mounted_database.tree()
    shell(": > CURRENT", mounted_database.at)
    assert mounted_database.tree() == before
    assert (mounted_database.at / "CURRENT").read_bytes() == OLD


# Where a pending file decides


@pytest.fixture(
    params=["core", pytest.param("mount", marks=pytest.mark.mounted)],
)
def undecided(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Place, Path]]:
    """A directory whose CURRENT.999 names a greater manifest than CURRENT, and so wins."""
    source = tmp_path / "source"
    shutil.copytree(FIXTURES / "pending-current-newer" / "db", source)
    with ExitStack() as stack:
        place: Place
        if request.param == "mount":
            at = stack.enter_context(mounted(source, tmp_path / "mnt"))
            place = OsPlace(at.path, "mount")
        else:
            core = Core(DirectoryStorage(LocalDirectory(source)), source=os.fspath(source))
            stack.callback(core.close)
            place = CorePlace(core, "core")
        assert names_in(place) == sorted(os.listdir(source))
        yield place, source


def live_manifest(source: Path) -> str:
    with open_storage(source, read_only=True, take_lock=False) as storage:
        return str(storage.get_meta())


def test_looking_does_not_decide(undecided: tuple[Place, Path]) -> None:
    place, source = undecided
    expected = json.loads((FIXTURES / "pending-current-newer" / "expect.json").read_text())
    assert read_all(place, "CURRENT") == b"MANIFEST-000000\n"
    assert read_all(place, "CURRENT.999") == b"MANIFEST-000999\n"
    assert live_manifest(source) == expected["get_meta"]["meta"]


def test_a_step_back_takes_the_pending_file_away(undecided: tuple[Place, Path]) -> None:
    place, source = undecided
    write_all(place, "CURRENT", b"MANIFEST-000000\n")
    assert live_manifest(source) == "MANIFEST-000000"
    assert "CURRENT.999" not in names_in(place)
    assert read_all(place, "CURRENT") == b"MANIFEST-000000\n"


def test_a_step_forward_leaves_one_pointer(undecided: tuple[Place, Path]) -> None:
    place, source = undecided
    write_all(place, "CURRENT", b"MANIFEST-000999\n")
    assert live_manifest(source) == "MANIFEST-000999"
    assert read_all(place, "CURRENT") == b"MANIFEST-000999\n"
    assert [name for name in names_in(place) if name.startswith("CURRENT")] == [
        "CURRENT",
        "CURRENT.bak",
    ]


@pytest.mark.parametrize("how", [Rename.REPLACE, Rename.EXCHANGE])
def test_the_deciding_file_itself_can_be_renamed(
    undecided: tuple[Place, Path], how: Rename
) -> None:
    place, source = undecided
    place.rename("CURRENT.999", "CURRENT", how)
    assert live_manifest(source) == "MANIFEST-000999"
    assert read_all(place, "CURRENT") == b"MANIFEST-000999\n"
    assert ("CURRENT.999" in names_in(place)) == (how is Rename.EXCHANGE)


def test_removing_the_deciding_file_lets_current_decide(undecided: tuple[Place, Path]) -> None:
    place, source = undecided
    place.unlink("CURRENT.999")
    assert live_manifest(source) == "MANIFEST-000000"
