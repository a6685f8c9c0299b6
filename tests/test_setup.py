"""The first minutes on a machine: scripts/setup and mount.py.

scripts/setup runs here in a small project of its own, with an interpreter and package tools that
only write down what they are asked for.
"""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ["scripts/setup", "scripts/test", "scripts/check", ".ci/run"]

PYTHON = f"""\
#!/bin/bash
case "$*" in
    *sys.executable*) echo "$0" ;;
    "-I -c"*) exec {shlex.quote(sys.executable)} "$@" ;;
    "-I -m venv --clear "*)
        echo venv >>"$CALLS"
        rm -rf "$5" && mkdir -p "$5/bin" && cp "$0" "$5/bin/python" ;;
    *"-m pip install"*)
        echo "pip ${{@: -1}}" >>"$CALLS"
        if [ -e "$BREAK_PIP" ]; then echo "no wheel for you"; exit 1; fi ;;
    *) exit 99 ;;
esac
"""
DPKG_QUERY = """\
#!/bin/bash
for package in "${@:4}"; do
    case " $(cat "$MISSING") " in
        *" $package "*) status=1 ;;
        *) echo "$package installed" ;;
    esac
done
exit ${status:-0}
"""
APT_GET = """\
#!/bin/bash
echo "apt-get $*" >>"$CALLS"
if [ "$1" = --version ]; then exit; fi
if [ "$1" = update ]; then rm -f "$BREAK_APT"; exit; fi
if [ -e "$BREAK_APT" ]; then exit 100; fi
: >"$MISSING"
"""
SUDO = """\
#!/bin/bash
if [ -e "$BREAK_SUDO" ]; then echo "sudo: a password is required" >&2; exit 1; fi
shift
exec "$@"
"""


@dataclass
class Machine:
    """A project folder with scripts/setup in it, and what its surroundings pretend."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        (self.root / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/setup", self.root / "scripts/setup")
        self.root.joinpath("pyproject.toml").write_text("[project]\n")
        for name, text in {
            "python": PYTHON,
            "dpkg-query": DPKG_QUERY,
            "apt-get": APT_GET,
            "sudo": SUDO,
        }.items():
            self.shim(name, text)
        self.file("calls").touch()
        self.file("missing").touch()
        self.user(1000)

    @property
    def root(self) -> Path:
        return self.folder / "project"

    @property
    def stamp(self) -> Path:
        return self.root / ".venv/setup.stamp"

    def file(self, name: str) -> Path:
        return self.folder / name

    def shim(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def user(self, uid: int) -> None:
        self.shim("id", f"#!/bin/sh\necho {uid}\n")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "AVCCFS_PYTHON": str(self.folder / "bin/python"),
            "CALLS": str(self.file("calls")),
            "MISSING": str(self.file("missing")),
            "BREAK_PIP": str(self.file("break-pip")),
            "BREAK_APT": str(self.file("break-apt")),
            "BREAK_SUDO": str(self.file("break-sudo")),
        }
        return subprocess.Popen(
            [str(self.root / "scripts/setup"), *arguments],
            env=environment,
            cwd=self.folder,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def setup(self, *arguments: str, status: int = 0) -> str:
        """Run it; returns what it said to people."""
        process = self.start(*arguments)
        output, said = process.communicate()
        assert (process.returncode, output) == (status, ""), said
        return said

    def calls(self) -> list[str]:
        """What was called since the last look."""
        lines = self.file("calls").read_text().splitlines()
        self.file("calls").write_text("")
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_executable_and_parses(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / name)], check=True)


def test_first_run_makes_the_environment(machine: Machine) -> None:
    machine.setup()
    assert machine.calls() == ["venv", "pip .[mount]"]
    assert machine.stamp.exists()


def test_second_run_only_looks(machine: Machine) -> None:
    machine.setup()
    machine.calls()
    before = machine.stamp.stat().st_mtime_ns, sorted(machine.root.rglob("*"))
    assert machine.setup() == ""
    assert machine.calls() == []
    assert (machine.stamp.stat().st_mtime_ns, sorted(machine.root.rglob("*"))) == before


def test_failed_run_shows_the_log_and_the_next_one_begins_anew(machine: Machine) -> None:
    machine.file("break-pip").touch()
    said = machine.setup(status=1)
    assert "no wheel for you" in said
    assert ".build/setup.log" in said
    assert not machine.stamp.exists()
    machine.calls()
    machine.file("break-pip").unlink()
    machine.setup()
    assert machine.calls() == ["venv", "pip .[mount]"]


def test_failed_upgrade_is_not_taken_for_done(machine: Machine) -> None:
    machine.setup()
    machine.file("break-pip").touch()
    machine.setup("--dev", status=1)
    machine.file("break-pip").unlink()
    machine.calls()
    machine.setup()
    assert machine.calls() == ["venv", "pip .[mount]"]


def test_changed_project_is_installed_again_into_the_same_environment(machine: Machine) -> None:
    machine.setup("--dev")
    machine.calls()
    machine.root.joinpath("pyproject.toml").write_text("[project]\nname = 'other'\n")
    machine.setup()
    assert machine.calls() == ["pip .[dev]"]


def test_dev_adds_to_what_there_is_and_stays(machine: Machine) -> None:
    machine.setup()
    machine.calls()
    machine.setup("--dev")
    assert machine.calls() == ["pip .[dev]"]
    machine.setup()
    machine.setup("--dev")
    assert machine.calls() == []


def test_moved_project_gets_a_new_environment(machine: Machine) -> None:
    machine.setup()
    machine.calls()
    machine.root.rename(machine.folder / "elsewhere")
    machine.root.symlink_to("elsewhere")
    machine.setup()
    assert machine.calls() == ["venv", "pip .[mount]"]


def test_two_runs_at_once_make_one_environment(machine: Machine) -> None:
    processes = [machine.start(), machine.start(), machine.start()]
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert machine.calls() == ["venv", "pip .[mount]"]


def test_only_missing_packages_are_installed(machine: Machine) -> None:
    machine.user(0)
    machine.file("missing").write_text("fuse3 rsync")
    machine.setup()
    [apt, *_] = machine.calls()
    assert apt.startswith("apt-get install -y ")
    assert apt.endswith(" fuse3")


def test_dev_needs_more_packages(machine: Machine) -> None:
    machine.user(0)
    machine.file("missing").write_text("golang-go rsync")
    machine.setup("--dev")
    assert machine.calls()[0].endswith(" golang-go rsync")


def test_old_package_lists_are_refreshed(machine: Machine) -> None:
    machine.user(0)
    machine.file("missing").write_text("gcc")
    machine.file("break-apt").touch()
    machine.setup()
    install, update, again, *rest = machine.calls()
    assert (install, update, rest) == (again, "apt-get update", ["venv", "pip .[mount]"])


def test_ordinary_user_installs_through_sudo(machine: Machine) -> None:
    machine.file("missing").write_text("gcc")
    machine.setup()
    probe, install, *rest = machine.calls()
    assert probe == "apt-get --version"
    assert install.endswith(" gcc")
    assert rest == ["venv", "pip .[mount]"]


def test_without_rights_the_command_is_printed(machine: Machine) -> None:
    machine.file("missing").write_text("gcc fuse3")
    machine.file("break-sudo").touch()
    said = machine.setup(status=77)
    assert machine.calls() == []
    [command] = [line.strip() for line in said.splitlines() if line.startswith("    ")]
    machine.file("break-sudo").unlink()
    machine.shim("sudo", '#!/bin/sh\nexec "$@"\n')
    environment = {
        "PATH": f"{machine.folder / 'bin'}:/usr/bin:/bin",
        "CALLS": str(machine.file("calls")),
        "MISSING": str(machine.file("missing")),
    }
    subprocess.run(["sh", "-c", command], env=environment, check=True)
    assert machine.calls()[0].endswith(" fuse3 gcc")
    machine.setup()
    assert machine.calls() == ["venv", "pip .[mount]"]


def test_packages_that_vanish_are_missed_again(machine: Machine) -> None:
    machine.user(0)
    machine.setup()
    machine.calls()
    machine.file("missing").write_text("fuse3")
    machine.setup()
    [apt] = machine.calls()
    assert apt.endswith(" fuse3")


def test_too_old_interpreter_is_named(machine: Machine) -> None:
    machine.shim("python", "#!/bin/sh\nexit 1\n")
    said = machine.setup(status=1)
    assert "3.11" in said
    assert str(machine.folder / "bin/python") in said


def test_wrong_argument_shows_the_usage(machine: Machine) -> None:
    assert "usage: scripts/setup" in machine.setup("--fast", status=2)


def test_setup_explains_itself() -> None:
    done = subprocess.run(
        [str(ROOT / "scripts/setup"), "--help"], capture_output=True, text=True, check=True
    )
    assert "--dev" in done.stdout
    assert done.stderr == ""


# ---- mount.py ------------------------------------------------------------------------------------


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "mount.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose set-up ends as the file `status` says, and whose avccfs shows its orders."""
    for name, text in {
        "scripts/setup": f"#!/bin/sh\nexit $(cat {shlex.quote(str(tmp_path))}/status)\n",
        ".venv/bin/avccfs": "#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 42\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "status").write_text("0")
    shutil.copy(ROOT / "mount.py", tmp_path)
    return tmp_path


def test_launcher_is_executable_and_has_no_newer_syntax() -> None:
    assert os.access(ROOT / "mount.py", os.X_OK)
    ast.parse((ROOT / "mount.py").read_text(), feature_version=(3, 9))


def test_launcher_explains_itself() -> None:
    done = launch(ROOT, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: mount.py --demo MNT")


@pytest.mark.parametrize("arguments", [[], ["only-a-source"], ["--demo"], ["--demo", "a", "b"]])
def test_launcher_refuses_wrong_usage(checkout: Path, arguments: list[str]) -> None:
    done = launch(checkout, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: mount.py")


@pytest.mark.parametrize(
    ("arguments", "handed_over"),
    [
        (["--demo", "my mnt"], "<demo><my mnt>"),
        (["my db", "mnt", "-o", "ro"], "<mount><my db><mnt><-o><ro>"),
        (["-f", "db", "mnt"], "<mount><-f><db><mnt>"),
    ],
)
def test_launcher_hands_over(checkout: Path, arguments: list[str], handed_over: str) -> None:
    done = launch(checkout, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (42, handed_over, "")


def test_launcher_ends_as_a_failed_setup_does(checkout: Path) -> None:
    (checkout / "status").write_text("77")
    done = launch(checkout, "--demo", "mnt")
    assert (done.returncode, done.stdout) == (77, "")
