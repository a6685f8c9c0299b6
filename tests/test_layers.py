"""The storage layer stands alone: it works where there is no FUSE."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyfuse3", "trio"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from avccfs.fs.core import Core
from avccfs.session.session import Session
from avccfs.storage.directory import open_storage

with open_storage(sys.argv[1]) as storage:
    Session(storage).create()
    print(storage.get_meta())
"""


def test_a_database_is_created_where_there_is_no_fuse(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("MANIFEST-")
    assert (tmp_path / "db" / "CURRENT").read_text() == done.stdout
