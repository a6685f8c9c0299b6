from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.format import filename
from avccfs.format.filename import MAX_NUMBER, FileDesc, Kind
from tests.format.samples import unhurried

NAMES = [
    ("MANIFEST-000000", FileDesc(0, Kind.MANIFEST)),
    ("MANIFEST-000007", FileDesc(7, Kind.MANIFEST)),
    ("MANIFEST-1000005", FileDesc(1000005, Kind.MANIFEST)),
    ("000001.log", FileDesc(1, Kind.JOURNAL)),
    ("999999.log", FileDesc(999999, Kind.JOURNAL)),
    ("000005.ldb", FileDesc(5, Kind.TABLE)),
    ("1000005.ldb", FileDesc(1000005, Kind.TABLE)),
    ("9223372036854775807.ldb", FileDesc(2**63 - 1, Kind.TABLE)),
    ("000003.tmp", FileDesc(3, Kind.TEMP)),
]
OTHER_NAMES = [
    ("000005.sst", FileDesc(5, Kind.TABLE)),
    ("1000005.sst", FileDesc(1000005, Kind.TABLE)),
    ("000003.dbtmp", FileDesc(3, Kind.TEMP)),
]
FOREIGN = [
    "",
    ".",
    "5.ldb",
    "00005.ldb",
    "0000005.ldb",
    "-3.log",
    "-00003.log",
    "+00003.log",
    "MANIFEST-1",
    "MANIFEST-",
    "MANIFEST-000001.log",
    "manifest-000001",
    "000005.ldb~",
    "000005.LDB",
    " 000005.ldb",
    "000005.ldb\n",
    "000005 .ldb",
    "000005",
    "000005.",
    "a/000005.ldb",
    "000_005.ldb",
    "\u0661\u0662\u0663\u0664\u0665\u0666.ldb",
    "9223372036854775808.ldb",
    "09223372036854775807.ldb",
    "99999999999999999999.log",
    "lost",
    "sedXq3f",
    "LOCK2",
    "LOG.older",
    "CURRENT~",
]
NOT_PENDING = [
    "CURRENT.",
    "CURRENT.007",
    "CURRENT.00",
    "CURRENT.-1",
    "CURRENT.+1",
    "CURRENT.7 ",
    "CURRENT.7\n",
    "CURRENT.7.8",
    "CURRENT.x",
    "CURRENT.9223372036854775808",
    "CURRENT.99999999999999999999",
]

NUMBERED = st.sampled_from([Kind.MANIFEST, Kind.JOURNAL, Kind.TABLE, Kind.TEMP])
DESCRIPTORS = st.builds(FileDesc, number=st.integers(0, MAX_NUMBER), kind=NUMBERED)


@pytest.mark.parametrize(("name", "desc"), NAMES)
def test_names_stand_for_descriptors_in_both_directions(name: str, desc: FileDesc) -> None:
    assert filename.parse(name) == desc
    assert filename.name_of(desc) == name == str(desc)
    assert filename.kind_of(name) is desc.kind
    assert desc.valid


@pytest.mark.parametrize(("name", "desc"), OTHER_NAMES)
def test_second_names_stand_for_the_same_descriptors(name: str, desc: FileDesc) -> None:
    assert filename.parse(name) == desc
    assert filename.other_name_of(desc) == name
    assert filename.kind_of(name) is desc.kind


@pytest.mark.parametrize("kind", [Kind.MANIFEST, Kind.JOURNAL])
def test_manifests_and_journals_have_one_name(kind: Kind) -> None:
    assert filename.other_name_of(FileDesc(1, kind)) is None


@given(st.from_regex(r"[0-9٣]{5,7}[.-](log|ldb|sst|tmp|dbtmp|[a-z]{0,2})\n?", fullmatch=True))
def test_the_kind_of_a_numbered_name_is_that_of_its_descriptor(name: str) -> None:
    desc = filename.parse(name)
    assert filename.kind_of(name) is (Kind.FOREIGN if desc is None else desc.kind)


@pytest.mark.parametrize("name", FOREIGN + NOT_PENDING)
def test_names_that_no_engine_writes_are_foreign(name: str) -> None:
    assert filename.parse(name) is None
    assert filename.kind_of(name) is Kind.FOREIGN


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CURRENT", Kind.META),
        ("CURRENT.bak", Kind.META),
        ("CURRENT.0", Kind.META),
        ("CURRENT.10", Kind.META),
        ("CURRENT.9223372036854775807", Kind.META),
        ("LOCK", Kind.LOCK),
        ("LOG", Kind.LOG),
        ("LOG.old", Kind.LOG),
    ],
)
def test_files_without_descriptor_have_a_kind(name: str, kind: Kind) -> None:
    assert filename.kind_of(name) is kind
    assert filename.parse(name) is None


@pytest.mark.parametrize("number", [0, 7, 10, MAX_NUMBER])
def test_pending_names_carry_their_number(number: int) -> None:
    assert filename.pending_number(filename.pending_name(number)) == number


@pytest.mark.parametrize("name", [*NOT_PENDING, "CURRENT", "CURRENT.bak"])
def test_other_names_are_not_pending(name: str) -> None:
    assert filename.pending_number(name) is None


@unhurried
@given(DESCRIPTORS)
def test_descriptors_come_back_from_every_name(desc: FileDesc) -> None:
    assert filename.parse(filename.name_of(desc)) == desc
    other = filename.other_name_of(desc)
    assert other is None or filename.parse(other) == desc
    assert filename.decode_meta(filename.encode_meta(desc)) == desc


@unhurried
@given(
    st.one_of(
        st.text(max_size=30),
        st.from_regex(r"(MANIFEST-)?[-+ 0-9]{0,21}(\.(log|ldb|sst|tmp|dbtmp))?", fullmatch=True),
    )
)
def test_a_name_that_parses_is_one_of_the_names_generated(name: str) -> None:
    desc = filename.parse(name)
    if desc is not None:
        assert desc.valid
        assert name in (filename.name_of(desc), filename.other_name_of(desc))


@pytest.mark.parametrize(
    "desc",
    [
        FileDesc(-1, Kind.TABLE),
        FileDesc(2**63, Kind.JOURNAL),
        FileDesc(1, Kind.META),
        FileDesc(1, Kind.FOREIGN),
        FileDesc(1, Kind.TABLE | Kind.JOURNAL),
        FileDesc(1, Kind(0)),
    ],
)
def test_descriptors_of_no_file_are_invalid_and_still_print(desc: FileDesc) -> None:
    assert not desc.valid
    assert str(desc.number) in str(desc)


def test_descriptors_sort_by_number_then_kind() -> None:
    table, journal = FileDesc(3, Kind.TABLE), FileDesc(3, Kind.JOURNAL)
    assert sorted([table, FileDesc(10, Kind.MANIFEST), journal]) == [
        journal,
        table,
        FileDesc(10, Kind.MANIFEST),
    ]


def test_meta_content_is_a_name_and_one_newline() -> None:
    desc = FileDesc(7, Kind.MANIFEST)
    assert filename.encode_meta(desc) == b"MANIFEST-000007\n"
    assert filename.decode_meta(b"MANIFEST-000007\n") == desc


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"MANIFEST-000007",
        b"MANIFEST-000007\n\n",
        b"MANIFEST-000007\r\n",
        b" MANIFEST-000007\n",
        b"MANIFEST-7\n",
        b"MANIFEST-000007\nMANIFEST-000008\n",
        b"\x00" * 16,
        b"MANIFEST-00000\x00\n",
        b"\xff\xfe\n",
        b"CURRENT\n",
        b"../MANIFEST-000007\n",
    ],
)
def test_meta_content_that_names_no_file_is_not_good(content: bytes) -> None:
    assert filename.decode_meta(content) is None


def test_meta_content_may_name_any_numbered_file_as_the_engines_allow() -> None:
    assert filename.decode_meta(b"000005.sst\n") == FileDesc(5, Kind.TABLE)


@unhurried
@given(st.binary(max_size=40))
def test_any_meta_content_is_good_or_not(content: bytes) -> None:
    desc = filename.decode_meta(content)
    if desc is not None:
        names = filename.name_of(desc), filename.other_name_of(desc)
        assert content[:-1].decode() in names
