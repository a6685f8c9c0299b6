"""`avccfs lsm`: exit codes and files, a golden picture, hostile keys, and the page in a browser.

To write the golden picture anew after a change that was meant: REGENERATE_GOLDEN=1 in the
environment of the tests; then look at it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from avccfs.cli import lsm
from avccfs.errors import UsageError
from avccfs.format import ikey, journal, manifest
from avccfs.format.ikey import InternalKey, KeyKind
from avccfs.format.manifest import (
    BYTEWISE_COMPARER,
    AddedTable,
    CompactionPointer,
    DeletedTable,
    SessionRecord,
)
from avccfs.session.keys import Form, show
from tests.cli import browser
from tests.cli.browser import Connection, Page

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
GOLDEN = Path(__file__).resolve().parent / "golden" / "lsm-avccdb-tables-and-journal.svg"
SVG = "{http://www.w3.org/2000/svg}"

HOSTILE = [
    b"</script><img src=x onerror=\"window.owned = 'script'\">",
    b"\"><script>window.owned = 'quote'</script>",
    b"'];window.owned='string';//",
    b"<!--<script>$script ${data} {{data}}",
    b"]]></title></svg><script>window.owned='cdata'</script>",
    b"&lt;script&gt; \xe2\x80\xa8 \x00\x1b[31m\xff\xfe\\",
]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(lsm.command, [str(each) for each in arguments], standalone_mode=False)


def drawn(fixture: str, output: Path, *arguments: str) -> Path:
    result = run(FIXTURES / fixture / "db", "-o", output, *arguments)
    assert result.exception is None
    return output


def key(user_key: bytes) -> bytes:
    return ikey.encode(InternalKey(user_key, 7, KeyKind.PUT))


def database(place: Path, records: list[SessionRecord]) -> Path:
    """A directory with a manifest and nothing else."""
    place.mkdir()
    framing = journal.Writer()
    (place / "MANIFEST-000001").write_bytes(
        b"".join(framing.append(manifest.encode(record)) for record in records)
    )
    (place / "CURRENT").write_text("MANIFEST-000001\n")
    return place


def hostile_database(tmp_path: Path) -> Path:
    tables = tuple(
        AddedTable(number % 2, 10 + number, 2**60, key(each), key(each + b"z"))
        for number, each in enumerate(HOSTILE)
    )
    return database(
        tmp_path / "<img src=x onerror=window.owned=1>",
        [
            SessionRecord(comparer=HOSTILE[0], added_tables=tables),
            SessionRecord(deleted_tables=(DeletedTable(0, 99),)),
        ],
    )


def large_database(place: Path, tables: int) -> Path:
    """Two levels with so many tables between them, and a record that drops a third of one."""

    def added(level: int, count: int, first: int) -> tuple[AddedTable, ...]:
        return tuple(
            AddedTable(
                level, first + n, 1 << 21, key(b"k%08d" % (n * 10)), key(b"k%08d" % (n * 10 + 9))
            )
            for n in range(count)
        )

    upper, lower = added(2, tables // 10, 10), added(3, tables - tables // 10, tables)
    dropped = tuple(DeletedTable(2, each.number) for each in upper[::3])
    return database(
        place,
        [
            SessionRecord(comparer=BYTEWISE_COMPARER, added_tables=upper + lower),
            SessionRecord(deleted_tables=dropped),
        ],
    )


# ---- the command ---------------------------------------------------------------------------------


def test_the_golden_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES)
    result = run("avccdb-tables-and-journal/db", "-o", tmp_path / "levels.svg")
    assert result.return_value == 0
    picture = (tmp_path / "levels.svg").read_bytes()
    if os.environ.get("REGENERATE_GOLDEN"):
        GOLDEN.write_bytes(picture)
    assert picture == GOLDEN.read_bytes()


@pytest.mark.parametrize("form", ["html", "svg"])
@pytest.mark.parametrize(
    ("fixture", "code"),
    [
        ("goleveldb-closed", 0),
        ("leveldb-killed", 0),
        ("goleveldb-killed-at-fsync-5", 0),
        ("missing-table", 1),
        ("flipped-manifest-byte", 1),
        ("current-missing", 1),
        ("truncated-table-footer", 1),
    ],
)
def test_the_exit_code_says_whether_there_is_damage(
    tmp_path: Path, fixture: str, code: int, form: str
) -> None:
    result = run(FIXTURES / fixture / "db", "-o", tmp_path / f"levels.{form}")
    assert result.return_value == code
    assert (tmp_path / f"levels.{form}").stat().st_size > 1000


def test_checksums_are_looked_at_if_asked_for(tmp_path: Path) -> None:
    source = FIXTURES / "flipped-table-block" / "db"
    assert run(source, "-o", tmp_path / "a.html").return_value == 0
    assert run(source, "-o", tmp_path / "a.html", "--checksums").return_value == 1


@pytest.mark.parametrize(
    ("arguments", "begins"), [((), b"<!DOCTYPE html>"), (("--format", "svg"), b"<svg ")]
)
def test_the_picture_goes_to_standard_output(arguments: tuple[str, ...], begins: bytes) -> None:
    result = run(FIXTURES / "goleveldb-closed" / "db", "-o", "-", *arguments)
    assert result.return_value == 0
    assert result.stdout_bytes.startswith(begins)


def test_an_existing_picture_is_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "levels.html"
    output.write_text("x" * 1_000_000)
    drawn("goleveldb-closed", output)
    assert output.read_text().endswith("</html>\n")


def test_a_name_of_another_kind_is_refused(tmp_path: Path) -> None:
    result = run(FIXTURES / "goleveldb-closed" / "db", "-o", tmp_path / "levels.png")
    assert isinstance(result.exception, UsageError)
    assert not (tmp_path / "levels.png").exists()


def test_a_form_that_the_name_gainsays_is_refused(tmp_path: Path) -> None:
    source = FIXTURES / "goleveldb-closed" / "db"
    result = run(source, "-o", tmp_path / "levels.html", "--format", "svg")
    assert isinstance(result.exception, UsageError)


def test_nothing_is_written_into_the_database_even_through_a_link(tmp_path: Path) -> None:
    copied = tmp_path / "db"
    shutil.copytree(FIXTURES / "goleveldb-closed" / "db", copied)
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    link = tmp_path / "levels.html"
    link.symlink_to(copied / "CURRENT")
    for output in (copied / "levels.html", link):
        result = run(copied, "-o", output)
        assert isinstance(result.exception, UsageError)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def test_an_edit_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    result = run(FIXTURES / "goleveldb-closed" / "db", "-o", tmp_path / "a.svg", "--at-edit", "6")
    assert isinstance(result.exception, UsageError)
    assert "has edits 1 to 5" in str(result.exception)


# ---- the picture that stands still ---------------------------------------------------------------


def texts(picture: Path) -> list[str]:
    """All text of an SVG file that is well-formed."""
    root = ElementTree.fromstring(picture.read_bytes())
    assert root.tag == f"{SVG}svg"
    return [each.text or "" for each in root.iter() if each.tag in (f"{SVG}text", f"{SVG}title")]


def test_a_picture_may_be_of_any_edit(tmp_path: Path) -> None:
    numbers: list[set[str]] = []
    for edit in range(10):
        told = texts(drawn("avccdb-tables-and-journal", tmp_path / "a.svg", "--at-edit", str(edit)))
        found = (re.match(r"(\d{6})\.ldb in (L\d)", each) for each in told)
        numbers.append({f"{match[2]} {match[1]}" for match in found if match})
    assert numbers[0] == set()
    assert numbers[-1] == {"L0 000003", "L0 000005", "L0 000007", "L1 000009", "L1 000011"}
    assert len(set(map(frozenset, numbers))) > 4


def test_hostile_keys_are_text_in_a_picture(tmp_path: Path) -> None:
    source = hostile_database(tmp_path)
    output = tmp_path / "levels.svg"
    assert run(source, "-o", output).return_value == 1
    told = "\n".join(texts(output))
    assert "</script><img src=x" in told
    assert "]]></title></svg><script>" in told
    root = ElementTree.fromstring(output.read_bytes())
    known = {"svg", "title", "style", "rect", "g", "text", "line"}
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= known
    assert not any(name.startswith("on") for each in root.iter() for name in each.attrib)


def test_a_picture_of_ten_thousand_tables_stays_small(tmp_path: Path) -> None:
    source = large_database(tmp_path / "db", 10_000)
    assert run(source, "-o", tmp_path / "levels.svg").return_value == 1
    root = ElementTree.fromstring((tmp_path / "levels.svg").read_bytes())
    assert len(list(root.iter())) < 5000
    assert any("9666 tables in the levels" in each for each in texts(tmp_path / "levels.svg"))


# ---- the page, in a browser ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with browser.running(tmp_path_factory.mktemp("chromium") / "profile") as connected:
        yield connected


@pytest.fixture
def page(connection: Connection) -> Iterator[Page]:
    """A tab; afterwards it has complained of nothing and asked for nothing but its file."""
    opened = browser.new_page(connection)
    yield opened
    assert opened.complaints == []
    assert [url.partition(":")[0] for url in opened.requests] == ["file"]
    opened.close()


NUMBERS = "[...document.querySelectorAll('#levels .box')].map(b => b.getAttribute('aria-label'))"


def shown(page: Page) -> list[str]:
    """What the boxes of the levels are called, in order."""
    labels: list[str] = page.evaluate(NUMBERS)
    return [" ".join(label.split(", ")[:2]) for label in labels if ".ldb, L" in label]


def slide(page: Page, step: int) -> None:
    page.evaluate(
        f"(s => {{ s.value = {step}; s.dispatchEvent(new Event('input')); }})"
        "(document.getElementById('slider'))"
    )


def test_the_slider_goes_through_the_history(page: Page, tmp_path: Path) -> None:
    page.open(drawn("avccdb-tables-and-journal", tmp_path / "levels.html"))
    last = ["000003.ldb L0", "000007.ldb L0", "000005.ldb L0", "000009.ldb L1", "000011.ldb L1"]
    assert shown(page) == last
    assert page.evaluate("document.getElementById('where').textContent") == "record 9 of 9"
    slide(page, 0)
    assert shown(page) == []
    slide(page, 3)
    assert shown(page) == ["000003.ldb L0"]
    change = page.evaluate("document.getElementById('change').textContent")
    assert "000003 to L0" in change
    assert "journal 2, next file 4, sequence 129" in change
    assert re.match(r"Edit 3 at offset \d+, ", change)
    slide(page, 9)
    assert shown(page) == last


def test_keys_step_and_move_from_table_to_table(page: Page, tmp_path: Path) -> None:
    page.open(drawn("avccdb-tables-and-journal", tmp_path / "levels.html"))
    page.press("ArrowLeft")
    assert page.evaluate("document.getElementById('where').textContent") == "record 8 of 9"
    page.press("Home")
    assert shown(page) == []
    page.press("End")
    page.evaluate("document.querySelector('#levels .live').focus()")
    assert "000003.ldb" in page.evaluate("document.getElementById('table').textContent")
    page.press("ArrowRight")
    detail = page.evaluate("document.getElementById('table').textContent")
    assert "000007.ldb" in detail
    assert "hex 6b6579" in detail
    page.press("ArrowDown")
    assert "000005.ldb" in page.evaluate("document.getElementById('table').textContent")
    assert page.evaluate("document.getElementById('where').textContent") == "record 9 of 9"
    page.press("Enter")
    assert page.evaluate("state.to - state.from < places")
    assert "000005.ldb L0" in shown(page)


def test_play_goes_on_by_itself(page: Page, tmp_path: Path) -> None:
    page.open(drawn("goleveldb-closed", tmp_path / "levels.html", "--at-edit", "4"))
    page.evaluate("document.getElementById('play').click()")
    assert page.evaluate("document.getElementById('play').textContent") == "Pause"
    page.call(
        "Runtime.evaluate",
        awaitPromise=True,
        expression="new Promise(done => { const look = () => state.timer === null ? done()"
        " : setTimeout(look, 20); look(); })",
    )
    assert page.evaluate("document.getElementById('where').textContent") == "record 5 of 5"
    assert page.evaluate("document.getElementById('play').textContent") == "Play"


def test_damage_is_marked_under_the_slider_and_explained(page: Page, tmp_path: Path) -> None:
    page.open(drawn("flipped-manifest-byte", tmp_path / "levels.html"))
    assert page.evaluate("document.querySelectorAll('#sizes .fault').length") == 1
    assert "is damaged" in page.evaluate("document.getElementById('notes').textContent")
    slide(page, page.evaluate("data.steps.findIndex(step => step.fault) + 1"))
    change = page.evaluate("document.getElementById('change').textContent")
    assert change.startswith("Damage at offset ")
    assert "expected the checksum" in change


def test_a_missing_table_is_shown_where_it_was(page: Page, tmp_path: Path) -> None:
    page.open(drawn("missing-table", tmp_path / "levels.html"))
    labels = page.evaluate(NUMBERS)
    assert [label for label in labels if "file missing" in label] == [
        label for label in labels if label.startswith("000005.ldb")
    ]
    assert page.evaluate("document.querySelectorAll('#levels .missing').length") == 1


def test_hostile_keys_are_text_in_the_page(page: Page, tmp_path: Path) -> None:
    source = hostile_database(tmp_path)
    output = tmp_path / "levels.html"
    assert run(source, "-o", output).return_value == 1
    markup = output.read_text()
    assert "<img" not in markup
    assert markup.count("<script") == markup.count("</script") == 2
    page.open(output)
    details = []
    for step in (0, 1, 2):
        slide(page, step)
        for number in range(page.evaluate("shown.length")):
            page.evaluate(f"shown[{number}].element.focus()")
            details.append(page.evaluate("document.getElementById('table').textContent"))
    for each in HOSTILE:
        assert any(show(Form.ESCAPE)(each) in detail for detail in details)
    assert page.evaluate("window.owned ?? 'nobody'") == "nobody"
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert "drops 000099 from L0" in page.evaluate("document.getElementById('change').textContent")


def test_the_page_escapes_keys_as_the_other_commands_do(page: Page, tmp_path: Path) -> None:
    every_byte = bytes(range(256))
    source = database(
        tmp_path / "db",
        [SessionRecord(added_tables=(AddedTable(0, 5, 1, key(every_byte), key(b"\xff" * 3000)),))],
    )
    run(source, "-o", tmp_path / "levels.html")
    page.open(tmp_path / "levels.html")
    told = page.evaluate("escaped(hexOf(data.keys[0]))")
    assert told.encode("ascii") == show(Form.ESCAPE)(every_byte).encode("ascii")
    assert page.evaluate("cutOf(data.keys[1])") == " \u2026 (3,000 bytes)"


def test_the_page_would_run_no_script_that_got_in(page: Page, tmp_path: Path) -> None:
    output = drawn("goleveldb-closed", tmp_path / "levels.html")
    page.open(output)
    page.evaluate(
        "(s => { s.textContent = 'window.owned = 1'; document.body.append(s); })"
        "(document.createElement('script'))"
    )
    assert page.evaluate("window.owned ?? 'nobody'") == "nobody"
    [complaint] = page.complaints
    assert "Content Security Policy" in complaint
    page.complaints.clear()


def test_ten_thousand_tables_are_drawn_with_few_elements(page: Page, tmp_path: Path) -> None:
    source = large_database(tmp_path / "db", 10_000)
    output = tmp_path / "levels.html"
    assert run(source, "-o", output).return_value == 1
    assert output.stat().st_size < 4_000_000
    page.open(output)
    elements = "document.querySelectorAll('#levels *').length"
    assert page.evaluate(elements) < 2000
    assert page.evaluate("document.getElementById('total').textContent").startswith("9,666 tables ")
    page.evaluate("zoomTo(shown[20])")
    page.evaluate("zoomTo(shown[Math.floor(shown.length / 2)])")
    assert page.evaluate(elements) < 2000
    assert page.evaluate("shown.some(each => each.many.length === 1)")
    slide(page, 1)
    assert page.evaluate("document.getElementById('total').textContent").startswith("10,000 tables")


def test_a_compaction_pointer_is_shown_as_a_user_key(page: Page, tmp_path: Path) -> None:
    pointer = CompactionPointer(1, key(b"here"))
    source = database(tmp_path / "db", [SessionRecord(compaction_pointers=(pointer,))])
    run(source, "-o", tmp_path / "levels.html")
    page.open(tmp_path / "levels.html")
    change = page.evaluate("document.getElementById('change').textContent")
    assert change.endswith("next compaction of L1 from here")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_readable_on_their_ground(page: Page, tmp_path: Path, scheme: str) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3) of text on every kind of box."""
    page.open(drawn("goleveldb-closed", tmp_path / "levels.html"))
    page.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    pairs = [
        ("--ink", f"--{kind}")
        for kind in ("live", "past", "added", "obsolete", "orphan", "journal", "bad")
    ]
    pairs += [
        ("--ink", "--panel"),
        ("--ink", "--ground"),
        ("--quiet", "--panel"),
        ("--quiet", "--ground"),
    ]
    pairs += [("--bad-ink", "--panel"), ("--bad-ink", "--band"), ("--quiet", "--band")]
    for ink, ground in pairs:
        brighter, darker = sorted((luminance(page, ink), luminance(page, ground)), reverse=True)
        contrast = (brighter + 0.05) / (darker + 0.05)
        assert contrast >= 4.5, f"{ink} on {ground}: {contrast:.2f}"


def luminance(page: Page, name: str) -> float:
    """Relative luminance of a colour of the page, 0 to 1."""
    told = page.evaluate(
        f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()"
    )
    channels = [int(told[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
