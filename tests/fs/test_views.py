"""Views made by hand: rendered when they are looked up, kept as long as it pays, of exact size."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from avccfs.fs import rendered
from avccfs.fs.inodes import StaleInodeError
from avccfs.fs.rendered import Rendered, Write
from avccfs.fs.views import FIRST, ViewFile, ViewFolder, ViewLink, ViewNode, Views
from tests.fs.places import refused
from tests.fs.waiting import wait_for
from tests.mounting import descriptors_of

MIB = 1 << 20


def descriptors() -> Sequence[str]:
    return descriptors_of(os.getpid())


@dataclass
class Source:
    """What a view is made from, and how often it was rendered."""

    content: bytes
    state: object = 1
    rendered: int = 0

    def render(self, write: Write) -> None:
        self.rendered += 1
        write(self.content)

    def view(self) -> ViewFile:
        return ViewFile(self.render, lambda: self.state)

    def view_that_may_always_have_changed(self) -> ViewFile:
        return ViewFile(self.render)


def views_of(nodes: dict[str, ViewNode]) -> Views:
    return Views(ViewFolder(lambda: nodes), owner=(0, 0))


@pytest.fixture
def source() -> Source:
    return Source(b"some text")


@pytest.fixture
def views(source: Source) -> Iterator[Views]:
    with closing(views_of({"a": source.view(), "b": Source(b"other").view()})) as made:
        yield made


def look(views: Views, name: str) -> bytes:
    """What a reader gets, who gives everything back."""
    number, found = views.lookup(FIRST, name)
    content = views.open(number)
    try:
        data = content.read_at(1 << 30, 0)
        assert len(data) == found.size == views.getattr(number).size
        return data
    finally:
        views.release(number)
        views.forget(number, 1)


def test_what_has_not_changed_is_rendered_once(views: Views, source: Source) -> None:
    assert [look(views, "a") for _ in range(5)] == [b"some text"] * 5
    assert source.rendered == 1


def test_what_has_changed_is_rendered_again_under_a_new_number(
    views: Views, source: Source
) -> None:
    before, _ = views.lookup(FIRST, "a")
    source.content, source.state = b"another text", 2
    after, found = views.lookup(FIRST, "a")
    assert after != before
    assert found.size == len(b"another text")
    assert look(views, "a") == b"another text"


def test_what_was_rendered_again_to_the_same_keeps_its_number(views: Views, source: Source) -> None:
    before, _ = views.lookup(FIRST, "a")
    source.state = 2
    assert views.lookup(FIRST, "a")[0] == before
    assert source.rendered == 2
    assert views.lookup(FIRST, "a")[0] == before
    assert source.rendered == 2


def test_view_that_may_always_have_changed_is_rendered_for_each_lookup(source: Source) -> None:
    views = views_of({"a": source.view_that_may_always_have_changed()})
    assert look(views, "a") == b"some text"
    source.content = b"new"
    assert look(views, "a") == b"new"
    assert source.rendered == 2


def test_open_view_keeps_its_bytes_and_its_size(views: Views, source: Source) -> None:
    number, _ = views.lookup(FIRST, "a")
    content = views.open(number)
    source.content, source.state = b"another text", 2
    views.lookup(FIRST, "a")
    views.forget(number, 1)
    assert content.read_at(100, 0) == b"some text"
    assert views.getattr(number).size == len(b"some text")
    views.release(number)
    with pytest.raises(StaleInodeError):
        views.getattr(number)


def test_error_of_rendering_is_that_of_the_lookup_and_leaves_nothing(source: Source) -> None:
    def fail(write: Write) -> None:
        write(b"x" * (rendered.IN_MEMORY + 1))
        if source.state == 1:
            raise RuntimeError("a bug")

    views = views_of({"a": ViewFile(fail, lambda: source.state)})
    before = descriptors()
    with pytest.raises(RuntimeError, match="a bug"):
        views.lookup(FIRST, "a")
    assert views.counts() == (1, 0)
    assert descriptors() == before
    source.state = 2
    assert len(look(views, "a")) == rendered.IN_MEMORY + 1
    views.close()
    assert descriptors() == before


def test_error_of_rendering_anew_leaves_the_old_view_to_those_who_have_it(source: Source) -> None:
    def sometimes(write: Write) -> None:
        if source.state == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        source.render(write)

    views = views_of({"a": ViewFile(sometimes, lambda: source.state)})
    number, _ = views.lookup(FIRST, "a")
    content = views.open(number)
    source.state = 2
    with pytest.raises(OSError, match="No space"):
        views.lookup(FIRST, "a")
    assert content.read_at(100, 0) == b"some text"
    source.state = 3
    assert look(views, "a") == b"some text"


@dataclass
class Stalled(Source):
    """Is rendered when it is told to go on."""

    begun: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def render(self, write: Write) -> None:
        self.begun.set()
        assert self.go_on.wait(30)
        super().render(write)


@pytest.mark.parametrize("always_changed", [False, True])
def test_lookups_at_the_same_time_render_once(always_changed: bool) -> None:
    source = Stalled(b"text")
    node = source.view_that_may_always_have_changed() if always_changed else source.view()
    views = views_of({"slow": node})
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(views.lookup, FIRST, "slow")
        assert source.begun.wait(30)
        others = [threads.submit(views.lookup, FIRST, "slow") for _ in range(7)]
        wait_for(lambda: views._gates[("slow",)].users == 8)
        source.go_on.set()
        numbers = {one.result(30)[0] for one in (first, *others)}
    # The first had begun before the others came: for one that may have changed that is too early.
    assert source.rendered == (2 if always_changed else 1)
    assert len(numbers) == 1
    assert not views._gates
    views.forget(numbers.pop(), 8)
    assert views.counts() == (2, 1)


def test_while_a_view_is_rendered_everything_else_answers() -> None:
    source = Stalled(b"slow")
    views = views_of({"slow": source.view(), "a": Source(b"text").view()})
    opened, _ = views.lookup(FIRST, "a")
    with ThreadPoolExecutor(1) as threads:
        pending = threads.submit(views.lookup, FIRST, "slow")
        assert source.begun.wait(30)
        assert look(views, "a") == b"text"
        assert sorted(views.names(FIRST)) == ["a", "slow"]
        assert views.getattr(opened).size == 4
        views.provisional(FIRST, "slow", stat.S_IFREG, 0)
        source.go_on.set()
        assert pending.result(30)[1].size == 4


def test_listing_renders_nothing(views: Views, source: Source) -> None:
    for name, (kind, size) in views.names(FIRST).items():
        number, found = views.provisional(FIRST, name, kind, size)
        assert stat.S_ISREG(found.mode)
        # Who comes with such a number is sent back to the name, which has the true size.
        with pytest.raises(StaleInodeError):
            views.open(number)
        views.forget(number, 1)
    assert source.rendered == 0
    assert views.counts() == (1, 0)
    assert views.lookup(FIRST, "a")[1].size == len(b"some text")


def test_listing_shows_what_is_rendered_already(views: Views) -> None:
    number, found = views.lookup(FIRST, "a")
    assert views.provisional(FIRST, "a", stat.S_IFREG, 0) == (number, found)


def test_folders_and_links_keep_their_numbers_while_they_are_known() -> None:
    nodes: dict[str, ViewNode] = {"f": ViewFolder(lambda: {"l": ViewLink("../a")})}
    views = views_of(nodes)
    folder, _ = views.lookup(FIRST, "f")
    assert views.provisional(FIRST, "f", stat.S_IFDIR, 0)[0] == folder
    assert views.lookup(FIRST, "f")[0] == folder
    link, found = views.lookup(folder, "l")
    assert (stat.S_ISLNK(found.mode), found.size) == (True, len("../a"))
    assert views.names(folder) == {"l": (stat.S_IFLNK, len("../a"))}
    assert views.provisional(folder, "l", stat.S_IFLNK, found.size) == (link, found)
    assert views.readlink(link) == "../a"
    for number, count in ((folder, 3), (link, 2)):
        views.forget(number, count)
    assert views.counts() == (1, 0)


def test_wrong_questions_have_the_answers_of_a_file_system(views: Views) -> None:
    number, _ = views.lookup(FIRST, "a")
    questions: list[tuple[Callable[[], object], int]] = [
        (lambda: views.names(number), errno.ENOTDIR),
        (lambda: views.readlink(number), errno.EINVAL),
        (lambda: views.lookup(number, "b"), errno.ENOENT),
        (lambda: views.lookup(FIRST, "missing"), errno.ENOENT),
    ]
    for ask, expected in questions:
        with refused(expected):
            ask()
    views.forget(number, 1)
    for gone in (number + 1000, FIRST + 999):
        with pytest.raises(StaleInodeError):
            views.getattr(gone)
        views.forget(gone, 1)
        views.release(gone)


def test_numbers_are_never_used_twice(source: Source) -> None:
    views = views_of({"a": source.view()})
    seen = set()
    for turn in range(50):
        source.content, source.state = b"%d" % turn, turn
        number, _ = views.lookup(FIRST, "a")
        assert number not in seen
        seen.add(number)
        views.forget(number, 1)
    assert views.counts() == (2, 1)


# -- what is kept


def sized(count: int, size: int) -> dict[str, ViewNode]:
    return {str(number): Source(b"%d" % (number % 10) * size).view() for number in range(count)}


@pytest.mark.parametrize("given_back", [True, False], ids=["forgotten", "still known"])
def test_only_so_much_is_kept_in_memory(given_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "KEPT_IN_MEMORY", 100_000)
    views = views_of(sized(200, 3_000))
    for turn in range(200):
        number, _ = views.lookup(FIRST, str(turn))
        views.open(number)
        views.release(number)
        if given_back:
            views.forget(number, 1)
    numbers, contents = views.counts()
    # 1 KiB is counted for what surrounds each.
    assert contents == 100_000 // 4_024
    assert numbers == (contents if given_back else 200) + 1
    assert look(views, "0") == b"0" * 3_000


@pytest.mark.parametrize("given_back", [True, False], ids=["forgotten", "still known"])
def test_only_so_much_is_kept_on_disk(given_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "IN_MEMORY", 1_000)
    monkeypatch.setattr(rendered, "KEPT_BYTES", 10_000)
    views = views_of(sized(50, 2_500))
    before = len(descriptors())
    for turn in range(50):
        number, _ = views.lookup(FIRST, str(turn))
        views.open(number)
        views.release(number)
        if given_back:
            views.forget(number, 1)
    assert views.counts()[1] == 4
    assert len(descriptors()) == before + 4
    views.close()
    assert len(descriptors()) == before


def test_what_was_only_looked_at_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "IN_MEMORY", 1_000)
    monkeypatch.setattr(rendered, "KEPT_BYTES", 0)
    views = views_of(sized(20, 2_000))
    numbers = [views.lookup(FIRST, str(turn))[0] for turn in range(20)]
    assert views.counts() == (21, rendered.WAITED_FOR)
    for number in numbers[: -rendered.WAITED_FOR]:
        # What the kernel was told stays true; for the bytes it must come by the name again.
        assert views.getattr(number).size == 2_000
        with pytest.raises(StaleInodeError):
            views.open(number)
    for number in numbers[-rendered.WAITED_FOR :]:
        assert views.open(number).size == 2_000
        views.release(number)
    assert views.counts() == (21, 0)


def test_open_views_are_kept_whatever_else_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "KEPT_IN_MEMORY", 0)
    views = views_of(sized(20, 2_000))
    number, _ = views.lookup(FIRST, "3")
    content = views.open(number)
    for turn in range(20):
        look(views, str(turn))
    assert content.read_at(10, 1_990) == b"3" * 10
    assert views.lookup(FIRST, "3")[0] == number


def test_thousands_of_lookups_leave_nothing_behind(views: Views, source: Source) -> None:
    baseline = None
    for turn in range(3_000):
        source.content, source.state = b"x" * (turn % 50), turn // 3
        number, _ = views.lookup(FIRST, "a")
        provisional, _ = views.provisional(FIRST, "b", stat.S_IFREG, 0)
        if turn % 2:
            views.open(number)
            views.release(number)
        views.forget(provisional, 1)
        views.forget(number, 1)
        baseline = baseline or views.counts()
        assert views.counts() == baseline


# -- renderings


def rendering(*pieces: bytes) -> Rendered:
    def render(write: Write) -> None:
        for piece in pieces:
            write(piece)

    return Rendered(render)


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0],
        [1],
        [rendered.IN_MEMORY],
        [rendered.IN_MEMORY + 1],
        [MIB // 2 + 7] * 5,
        [5 * MIB, 3],
    ],
)
def test_rendering_is_what_was_written(sizes: list[int]) -> None:
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    whole = b"".join(pieces)
    with closing(rendering(*pieces)) as content:
        assert content.size == len(whole)
        assert content.read_at(len(whole) + 10, 0) == whole
        assert content.read_at(10, max(0, len(whole) - 3)) == whole[-3:]
        assert content.read_at(10, len(whole)) == content.read_at(1, len(whole) + 99) == b""
        assert (content.on_disk == 0) == (len(whole) <= rendered.IN_MEMORY)


def test_large_rendering_is_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = descriptors()
    with closing(rendering(b"x" * (2 * MIB))):
        assert list(tmp_path.iterdir()) == []
        [new] = set(descriptors()) - set(before)
        assert new.startswith(f"{tmp_path}/")
    assert descriptors() == before


def test_only_equal_small_renderings_are_taken_for_each_other() -> None:
    large = b"x" * (2 * MIB)
    with ExitStack() as stack:
        one, two, other, big, bigger = (
            stack.enter_context(closing(rendering(content)))
            for content in (b"text", b"text", b"else", large, large)
        )
        assert one.same_as(two)
        assert not one.same_as(other)
        assert not big.same_as(bigger)


def test_missing_place_for_large_views_is_no_missing_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="TMPDIR") as raised:
        rendering(b"x" * (2 * MIB))
    assert raised.value.errno == errno.EIO
    with closing(rendering(b"small")) as content:
        assert content.size == 5
