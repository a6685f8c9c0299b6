"""Where a symbolic link on the mount may lead."""

from __future__ import annotations

import pytest

from avccfs.fs.links import contain

SOURCE = "/data/db"


@pytest.mark.parametrize(
    ("target", "depth", "told"),
    [
        ("MANIFEST-000001", 0, "MANIFEST-000001"),
        ("./CURRENT", 0, "./CURRENT"),
        ("lost/000005.ldb", 0, "lost/000005.ldb"),
        ("../CURRENT", 1, "../CURRENT"),
        ("../../x", 2, "../../x"),
        (".", 0, "."),
        ("..", 1, ".."),
        # Absolute, but inside the source: told so that it stays on the mount.
        ("/data/db/CURRENT", 0, "CURRENT"),
        ("/data/db/CURRENT", 2, "../../CURRENT"),
        ("/data/db/lost/x", 1, "../lost/x"),
        ("/data/db", 0, "."),
        ("/data/db//etc/passwd", 0, "etc/passwd"),
        ("/data/db/", 1, "../."),
    ],
)
def test_a_link_that_stays_inside_is_told(target: str, depth: int, told: str) -> None:
    assert contain(target, depth, SOURCE) == told


@pytest.mark.parametrize(
    ("target", "depth"),
    [
        ("/etc/passwd", 0),
        ("..", 0),
        ("../x", 0),
        ("../../x", 1),
        ("./../x", 0),
        # The first name may be a link itself, and ".." then starts elsewhere.
        ("lost/../../x", 1),
        ("lost/../x", 0),
        ("/data/db/../secret", 0),
        ("/data/dbx", 0),
        ("/data", 0),
        ("", 0),
    ],
)
def test_a_link_that_might_lead_out_is_not_told(target: str, depth: int) -> None:
    assert contain(target, depth, SOURCE) is None


def test_without_a_source_path_no_absolute_link_is_told() -> None:
    assert contain("/data/db/CURRENT", 0, None) is None
