"""scripts/bench runs, reports and cleans up. How fast anything is has no place in a test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from avccfs.fuse import mounts

ROOT = Path(__file__).parent.parent
BENCH = str(ROOT / "scripts/bench")
PLACES = {"native", "bindfs", "avccfs"}
TINY = ("--scale", "0.001")


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [BENCH, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def left_below(directory: Path) -> list[str]:
    """What a run has not taken away: mounts and names."""
    mounted = [one.mountpoint for one in mounts.mounts()]
    return [one for one in mounted if one.startswith(f"{directory}/")] + os.listdir(directory)


@pytest.mark.mounted
def test_a_tiny_run_yields_a_table_and_a_report(tmp_path: Path) -> None:
    work, file = tmp_path / "work", tmp_path / "report.json"
    work.mkdir()
    names = ["fillseq", "list-first"]

    done = bench(
        *TINY,
        "--rounds=2",
        *(f"--only={name}" for name in names),
        "--json",
        file,
        "--directory",
        work,
    )

    for name in names:
        assert any(line.split()[:1] == [name] for line in done.stdout.splitlines()), done.stdout
    assert done.stderr == "", "in a pipe there is no progress to show"
    report: dict[str, Any] = json.loads(file.read_text())
    assert report["rounds"] == 2
    assert len(report["machine"]["load_at_start"]) == 3
    assert report["cold"] is None, "nothing was read from the disk"
    assert [workload["name"] for workload in report["workloads"]] == names
    for workload in report["workloads"]:
        assert set(workload["places"]) == PLACES
        for sample in workload["places"].values():
            assert len(sample["seconds"]) == 2
            assert 0 < sample["min"] <= sample["median"] <= max(sample["seconds"])
        medians = {name: sample["median"] for name, sample in workload["places"].items()}
        assert workload["ratios"]["avccfs"] == {
            other: pytest.approx(medians["avccfs"] / medians[other])
            for other in PLACES - {"avccfs"}
        }
        for one in workload["expectations"]:
            assert one["met"] == (workload["ratios"]["avccfs"][one["against"]] <= one["limit"])
    missed = sum(
        not one["met"] for workload in report["workloads"] for one in workload["expectations"]
    )
    assert len(report["missed"]) == done.stdout.count("Missed: ") == missed
    assert left_below(work) == []


def test_looking_inside_yields_a_table_and_a_report(tmp_path: Path) -> None:
    work, file = tmp_path / "work", tmp_path / "report.json"
    work.mkdir()
    names = ["decode-table", "decode-journal", "dump-jsonl", "check", "help-lsm", "tiny-explain"]

    done = bench(
        *TINY,
        "--rounds=1",
        *(f"--only={name}" for name in names),
        "--json",
        file,
        "--directory",
        work,
    )

    for name in names:
        assert any(line.split()[:1] == [name] for line in done.stdout.splitlines()), done.stdout
    assert done.stderr == "", "in a pipe there is no progress to show"
    report: dict[str, Any] = json.loads(file.read_text())
    assert report["workloads"] == []
    assert set(report["inside"]["tools"]) == {"avccfs", "leveldbutil"}
    assert list(report["inside"]["tools"]["leveldbutil"]) == ["version"]
    measures = {measure["name"]: measure for measure in report["inside"]["measures"]}
    assert list(measures) == names
    for name, measure in measures.items():
        compared = {"leveldbutil"} if name == "dump-jsonl" else set()
        assert set(measure["tools"]) == {"avccfs"} | compared
        for tool in measure["tools"].values():
            rate = {"entries/s": measure["amount"], "MB/s": measure["amount"] / 1e6}
            median = tool["median"]
            expected = median * 1e3 if measure["unit"] == "ms" else rate[measure["unit"]] / median
            assert tool["value"] == pytest.approx(expected)
        (one,) = measure["expectations"]
        if measure["unit"] == "ms":
            assert one["met"] == (measure["tools"]["avccfs"]["value"] < one["limit"])
        else:
            assert one["met"] == (one["measured"] >= one["limit"])
    assert measures["decode-table"]["amount"] == 100
    assert measures["check"]["amount"] > 10 * 4096
    missed = [
        f"{name}: {one['text']}"
        for name, measure in measures.items()
        for one in measure["expectations"]
        if not one["met"]
    ]
    assert report["missed"] == missed
    assert done.stdout.count("Missed: ") == len(missed)
    assert left_below(work) == []


def test_without_a_compiler_leveldbutil_has_no_numbers_and_the_reason_is_told(
    tmp_path: Path,
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)

    done = subprocess.run(
        [BENCH, *TINY, "--only=dump-text", "--rounds=1", "--json=-", "--directory", str(tmp_path)],
        env={**os.environ, "PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "leveldbutil was not measured: g++ is missing; install it with: " in done.stderr
    report = json.loads(done.stdout)
    assert list(report["inside"]["tools"]["leveldbutil"]) == ["missing"]
    (measure,) = report["inside"]["measures"]
    assert set(measure["tools"]) == {"avccfs"}
    assert measure["expectations"] == [], "there is nothing to compare with"


@pytest.mark.mounted
def test_a_report_on_stdout_stands_alone_there(tmp_path: Path) -> None:
    once = ("--only=table-cold", "--rounds=1", "--write-through")

    done = bench(*TINY, *once, "--json=-", "--directory", tmp_path)

    report = json.loads(done.stdout)
    assert report["cold"] == ("drop_caches" if os.geteuid() == 0 else "posix_fadvise")
    (workload,) = report["workloads"]
    assert set(workload["places"]) == PLACES | {"avccfs --write-through"}
    assert "x native" in done.stderr
    assert left_below(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "begun"),
    [
        pytest.param("fillsync", "*/source-*/CURRENT", marks=pytest.mark.mounted),
        ("check", "*/database-*/CURRENT"),
    ],
)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(
    tmp_path: Path, signum: signal.Signals, name: str, begun: str
) -> None:
    command = [BENCH, f"--only={name}", "--scale=100", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob(begun)):
                assert time.monotonic() < deadline, "the run never began to measure"
                time.sleep(0.02)
            running.send_signal(signum)
            _, complaints = running.communicate(timeout=60)
        finally:
            running.kill()

    assert (running.returncode, complaints) == (130, "bench: interrupted\n")
    assert left_below(tmp_path) == []


@pytest.mark.mounted
def test_a_failing_measurement_is_explained_and_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "bindfs").write_text("#!/bin/sh\necho out of order >&2\nexit 7\n")
    (broken / "bindfs").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()

    done = subprocess.run(
        [BENCH, *TINY, "--only=stat", "--directory", str(work)],
        env={**os.environ, "PATH": f"{broken}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "bindfs" in done.stderr
    assert "exit status 7: out of order" in done.stderr
    assert left_below(work) == []
