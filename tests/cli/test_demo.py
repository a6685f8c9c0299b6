"""`avccfs demo`: what it leaves behind, what it refuses, and whether what it tells is true."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from avccfs.cli import demo
from tests.engines import GOLEVELDB, LEVELDB, Content

FIXTURE = Path(__file__).parent.parent / "fixtures/goleveldb-killed-at-fsync-5/db"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    demo.copy_sample(tmp_path / "db")
    return tmp_path / "db"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_sample_is_what_goleveldb_left_behind(sample: Path) -> None:
    assert contents(sample) == contents(FIXTURE)


def test_demo_mounts_a_copy_and_makes_the_mount_point(
    tmp_path: Path, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mounted: list[tuple[dict[str, bytes], bool]] = []

    def mount(source: Path, mountpoint: Path) -> int:
        assert source.parent.parent == temporary
        mounted.append((contents(source), mountpoint.is_dir()))
        return 0

    assert demo.demo(tmp_path / "my mnt", mount=mount) == 0
    assert mounted == [(contents(FIXTURE), True)]
    told = capsys.readouterr().out
    [folder] = temporary.iterdir()
    assert f"head '{tmp_path}/my mnt'/CURRENT*" in told
    assert f"umount '{tmp_path}/my mnt' && rm -r {folder}" in told


def test_failed_mount_leaves_nothing_behind(
    tmp_path: Path, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new"):
        assert demo.demo(tmp_path / name, mount=lambda source, mountpoint: 7) == 7
    assert capsys.readouterr().out == ""
    assert list(temporary.iterdir()) == []
    assert (tmp_path / "mine").is_dir()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("file", "not a directory"), ("full", "not empty"), ("no/parent", "cannot be made")],
)
def test_mount_point_that_would_hide_something_is_refused(
    tmp_path: Path, temporary: Path, name: str, complaint: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    refused = CliRunner().invoke(demo.command, [str(tmp_path / name)])
    assert refused.exit_code == 2
    assert complaint in refused.output
    assert list(temporary.iterdir()) == []


def test_mounted_directory_is_refused() -> None:
    refused = CliRunner().invoke(demo.command, ["/proc"])
    assert refused.exit_code == 2
    assert "mounted already" in refused.output


# What the guide tells, held against the engines.


def test_guide_names_files_that_are_there_and_what_they_hold(sample: Path) -> None:
    told = demo.guide(Path("/mnt"), sample.parent)
    numbered = set(re.findall(r"\b\d{6}\.(?:log|ldb)\b", told))
    assert numbered == {"000006.log", "000008.log", "000009.ldb"}
    assert numbered <= set(contents(sample))
    rows = re.findall(r"^  (CURRENT\S*) +(MANIFEST-\d+) ", told, re.MULTILINE)
    assert rows == [
        ("CURRENT", "MANIFEST-000000"),
        ("CURRENT.bak", "MANIFEST-000000"),
        ("CURRENT.10", "MANIFEST-000010"),
    ]
    assert not (sample / "MANIFEST-000007").exists()


def test_leveldb_reads_current_alone_and_replays_both_journals(sample: Path) -> None:
    assert LEVELDB.open(sample).keys == 337
    log = (sample / "LOG").read_text()
    assert "Recovering log #6" in log
    assert "Recovering log #8" in log
    assert (sample / "CURRENT.10").read_text() == "MANIFEST-000010\n"


def test_goleveldb_takes_the_pending_file_and_replays_one_journal(sample: Path) -> None:
    assert GOLEVELDB.open(sample).keys == 337
    assert (sample / "CURRENT.bak").read_text() == "MANIFEST-000010\n"
    before = (FIXTURE / "LOG").read_text()
    added = (sample / "LOG").read_text().removeprefix(before)
    assert re.findall(r"recovering (@\d+)", added) == ["@8"]


def test_goleveldb_cannot_read_what_leveldb_opened_first(sample: Path, tmp_path: Path) -> None:
    content = LEVELDB.open(sample)
    shutil.copytree(sample, tmp_path / "again")
    assert LEVELDB.open(tmp_path / "again") == content
    ruined = GOLEVELDB.open(sample)
    assert ruined != Content(content.keys, content.sha256)
    assert "000009.ldb" in ruined.iter_error
