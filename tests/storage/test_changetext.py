"""Changes, written down for people and for programs."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from avccfs.storage.changetext import MOST_SHOWN, as_json, as_lines, printable
from avccfs.vfs.base import Attributes, Open
from avccfs.vfs.differences import MOST_RANGES, differences
from tests.vfs.laid import Laid, holding, replace, write

OLD = {
    "CURRENT": b"MANIFEST-000001\n",
    "MANIFEST-000001": b"the manifest",
    "000003.log": b"a journal",
    "000005.ldb": b"a table",
    "notes": b"foreign",
}


@pytest.fixture
def view() -> Laid:
    return Laid(holding(OLD))


def lines(view: Laid) -> list[str]:
    return list(as_lines(differences(view)))


def line(view: Laid, name: str) -> str:
    (found,) = (each for each in lines(view) if f" {name} " in each)
    return found


class TestText:
    def test_nothing_changed(self, view: Laid) -> None:
        assert lines(view) == ["no changes"]

    def test_what_matters_most_comes_first(self, view: Laid) -> None:
        replace(view, "CURRENT", b"MANIFEST-000008\n")
        write(view, "CURRENT.bak", b"MANIFEST-000001\n")
        write(view, "MANIFEST-000008", b"another")
        view.remove("MANIFEST-000001")
        write(view, "000003.log", b" goes on", 9)
        view.rename("000005.ldb", "000007.ldb")
        view.remove("notes")
        assert lines(view) == [
            "changed     CURRENT               16 -> 16 bytes  "
            "named MANIFEST-000001, names MANIFEST-000008",
            "added       CURRENT.bak           16 bytes  "
            "named nothing (no file), names MANIFEST-000001",
            "removed     MANIFEST-000001       was 12 bytes",
            "added       MANIFEST-000008       7 bytes",
            "changed     000003.log            9 -> 17 bytes  other bytes: [9, +8)",
            "renamed     000005.ldb -> 000007.ldb  7 -> 7 bytes",
            "removed     notes                 was 7 bytes",
            "",
            "2 added, 2 removed, 1 renamed, 2 changed; 32 bytes that are new or other",
        ]

    def test_a_pointer_that_names_nothing_good(self, view: Laid) -> None:
        write(view, "CURRENT", b"\0\xff")
        assert line(view, "CURRENT").endswith(
            r"named MANIFEST-000001, names nothing good ('\x00\xff')"
        )
        view.remove("CURRENT")
        assert line(view, "CURRENT").endswith("named MANIFEST-000001, names nothing (no file)")

    def test_many_ranges(self) -> None:
        view = Laid(holding({"x": bytes(20 * MOST_RANGES)}))
        for place in range(MOST_RANGES + 3):
            write(view, "x", b"1", 16 * place)
        told = line(view, "x")
        assert told.count("[") == MOST_SHOWN
        assert told.endswith(f"and {MOST_RANGES + 3 - MOST_SHOWN} more")

    def test_a_cut(self, view: Laid) -> None:
        with closing(view.open("notes", Open.WRITE)) as file:
            file.truncate(2)
        assert line(view, "notes") == "changed     notes                 7 -> 2 bytes"

    def test_attributes(self, view: Laid) -> None:
        view.set_attributes("notes", Attributes(mode=0o600, uid=1, gid=2, mtime_ns=3 * 10**9 + 7))
        told = line(view, "notes")
        status = view.lower.stat("notes")
        assert told.startswith("attributes  notes                 mode 0644 -> 0600  owner ")
        assert f"owner {status.uid}:{status.gid} -> 1:2" in told
        assert told.endswith("-> 1970-01-01 00:00:03.000000007")

    def test_other_kinds(self, view: Laid) -> None:
        view.remove("notes")
        view.mkdir("notes")
        view.symlink("link", "a\nb")
        view.link("000005.ldb", "snapshot")
        view.rename("000003.log", "000005.ldb")
        assert " 7 bytes -> folder " in line(view, "notes")
        assert line(view, "link").endswith(r"symbolic link to 'a\nb'")
        assert "over what was there (7 bytes)" in line(view, "000003.log -> 000005.ldb")
        view.link("link", "other")
        write(view, "twin", b"x")
        view.link("twin", "twins")
        assert "linked      twins, the same file as twin  1 bytes" in lines(view)

    def test_the_directory_itself_is_a_dot(self, view: Laid) -> None:
        view.set_attributes("", Attributes(mode=0o700))
        assert line(view, ".") == "attributes  .                     mode 0755 -> 0700"

    def test_the_time_of_a_folder_is_not_worth_a_line(self, view: Laid) -> None:
        view.set_attributes("", Attributes(mtime_ns=1))
        assert lines(view) == ["no changes"]

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("caf\udce9", r"'caf\udce9'"),
            ("a\nb", r"'a\nb'"),
            ("\x1b[31m", r"'\x1b[31m'"),
            ("\u202egpj.exe", r"'\u202egpj.exe'"),
            (" ", "' '"),
            ("café", "café"),
        ],
    )
    def test_names_are_safe_to_print(self, view: Laid, name: str, shown: str) -> None:
        assert printable(name) == shown
        write(view, name, b"x")
        (told, *_) = lines(view)
        assert shown in told
        told.encode("utf-8")
        assert told.isprintable()


class TestJson:
    def test_every_key_is_there(self, view: Laid) -> None:
        view.rename("000005.ldb", "CURRENT.7")
        replace(view, "CURRENT", b"MANIFEST-000001\n\n")
        found = json.loads(json.dumps(as_json(differences(view))))
        assert found["version"] == 1
        assert found["digest"] == differences(view).digest
        by_path = {each["path"]: each for each in found["changes"]}
        current, renamed = by_path["CURRENT"], by_path["CURRENT.7"]
        status = view.stat("CURRENT")
        assert current == {
            "what": "changed",
            "path": "CURRENT",
            "old_path": None,
            "link_of": None,
            "before": {**current["after"], "size": 16, "mtime_ns": current["before"]["mtime_ns"]},
            "after": {
                "kind": "file",
                "size": 17,
                "mode": 0o644,
                "uid": status.uid,
                "gid": status.gid,
                "mtime_ns": status.mtime_ns,
                "target": None,
            },
            "replaced": None,
            "bytes": {
                "ranges": [[16, 1]],
                "more_ranges": 0,
                "count": 1,
                "sha256": current["bytes"]["sha256"],
            },
            "pointer": {"before": "MANIFEST-000001", "after": None},
        }
        assert len(current["bytes"]["sha256"]) == 64
        assert (renamed["what"], renamed["old_path"]) == ("renamed", "000005.ldb")
        assert renamed["bytes"] == {"ranges": [], "more_ranges": 0, "count": 0, "sha256": None}
        assert renamed["pointer"] == {"before": None, "after": None}

    def test_names_that_are_not_text_survive(self, view: Laid) -> None:
        write(view, "caf\udce9", b"x")
        found = json.loads(json.dumps(as_json(differences(view))))
        assert "caf\udce9" in [each["path"] for each in found["changes"]]
