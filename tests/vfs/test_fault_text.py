"""Fault rules as lines and as TOML."""

from __future__ import annotations

import errno
import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avccfs.errors import UsageError
from avccfs.format.filename import Kind
from avccfs.vfs.fault import (
    ALL_KINDS,
    RULE_OPS,
    Amount,
    CorruptBit,
    CorruptBlock,
    Delay,
    Drop,
    Fail,
    FaultSyntaxError,
    Op,
    Rule,
    Short,
    Stall,
    Targets,
    TornAt,
    TornPrefix,
    TornSectors,
    What,
    When,
    load_toml,
    parse_rule,
    parse_rules,
)
from avccfs.vfs.fault.effects import MAX_DELAY_US, merged

SYNC = "sync: "

# A line, what it means, and the line that says the same in the one canonical way.
LINES: list[tuple[str, Rule, str]] = [
    (
        "sync journal #3: EIO",
        Rule(Op.SYNC, Fail(errno.EIO), Targets(Kind.JOURNAL), When(first=3, last=3)),
        "sync journal #3: EIO",
    ),
    ("any: stall", Rule(RULE_OPS, Stall()), "any: stall"),
    (
        " write,read | sync-dir  foreign , 'a b'|*.tmp  #3-5 every 2 times 3 5% seed=7 after 90s :ENOSPC ",
        Rule(
            Op.WRITE | Op.READ | Op.SYNC_DIR,
            Fail(errno.ENOSPC),
            Targets(Kind.FOREIGN, ("a b", "*.tmp")),
            When(first=3, last=5, every=2, after=90 * 10**6, chance=0.05, seed=7, times=3),
        ),
        "read|write|sync-dir foreign|'a b'|*.tmp #3-5 every 2 after 90s 5% seed=7 times 3: ENOSPC",
    ),
    (
        "open * #2-: EMFILE",
        Rule(Op.OPEN, Fail(errno.EMFILE), when=When(first=2)),
        "open #2-: EMFILE",
    ),
    ("create #1-: EACCES", Rule(Op.CREATE, Fail(errno.EACCES)), "create: EACCES"),
    (
        "rename journal|'*': EXDEV",
        Rule(Op.RENAME, Fail(errno.EXDEV), Targets(ALL_KINDS)),
        "rename: EXDEV",
    ),
    (
        "remove 'journal'|'it''s'|CURRENT.*|lost/a: EBUSY",
        Rule(
            Op.REMOVE,
            Fail(errno.EBUSY),
            Targets(patterns=("journal", "it's", "CURRENT.*", "lost/a")),
        ),
        "remove 'journal'|'it''s'|CURRENT.*|lost/a: EBUSY",
    ),
    (
        "truncate '12'|'EIO'|'a:b'|[ab]: EFBIG",
        Rule(Op.TRUNCATE, Fail(errno.EFBIG), Targets(patterns=("12", "EIO", "a:b", "[ab]"))),
        "truncate '12'|'EIO'|'a:b'|[ab]: EFBIG",
    ),
    ("close p=0.0625: EIO", Rule(Op.CLOSE, Fail(), when=When(chance=0.0625)), "close 6.25%: EIO"),
    ("sync p=2e-07: EIO", Rule(Op.SYNC, Fail(), when=When(chance=2e-7)), "sync p=2e-07: EIO"),
    ("sync 100%: EIO", Rule(Op.SYNC, Fail(), when=When(chance=1.0)), "sync 100%: EIO"),
    ("sync: EWOULDBLOCK", Rule(Op.SYNC, Fail(errno.EAGAIN)), "sync: EAGAIN"),
    ("sync: delay 200ms", Rule(Op.SYNC, Delay(200_000)), "sync: delay 200ms"),
    ("sync: delay 1.5s", Rule(Op.SYNC, Delay(1_500_000)), "sync: delay 1500ms"),
    ("sync: delay 0.25ms", Rule(Op.SYNC, Delay(250)), "sync: delay 0.25ms"),
    ("sync: delay 120m", Rule(Op.SYNC, Delay(7200 * 10**6)), "sync: delay 2h"),
    ("read: short 100", Rule(Op.READ, Short(Amount(100))), "read: short 100"),
    ("write: short 50%", Rule(Op.WRITE, Short(Amount(50, True))), "write: short 50%"),
    (
        "write: torn prefix 100",
        Rule(Op.WRITE, TornPrefix(Amount(100))),
        "write: torn prefix 100",
    ),
    (
        "write: torn prefix 25% ENOSPC",
        Rule(Op.WRITE, TornPrefix(Amount(25, True), errno.ENOSPC)),
        "write: torn prefix 25% ENOSPC",
    ),
    (
        "write: torn at 100|200 keep 1,3 EIO",
        Rule(Op.WRITE, TornAt((100, 200), (1, 3))),
        "write: torn at 100,200 keep 1,3",
    ),
    (
        "write: torn sectors 7,2-3,0,4 EROFS",
        Rule(Op.WRITE, TornSectors(((0, 0), (2, 4), (7, 7)), errno.EROFS)),
        "write: torn sectors 0,2-4,7 EROFS",
    ),
    ("read: corrupt bit", Rule(Op.READ, CorruptBit()), "read: corrupt bit"),
    ("write: corrupt bit 4711", Rule(Op.WRITE, CorruptBit(4711)), "write: corrupt bit 4711"),
    ("read: corrupt block", Rule(Op.READ, CorruptBlock()), "read: corrupt block"),
    ("read: corrupt block 0 512", Rule(Op.READ, CorruptBlock(0)), "read: corrupt block 0"),
    (
        "read: corrupt block 2 4096",
        Rule(Op.READ, CorruptBlock(2, 4096)),
        "read: corrupt block 2 size=4096",
    ),
    (
        "read: corrupt block size=4096",
        Rule(Op.READ, CorruptBlock(None, 4096)),
        "read: corrupt block size=4096",
    ),
    ("sync: drop", Rule(Op.SYNC, Drop()), "sync: drop"),
    ("sync: drop ENOSPC", Rule(Op.SYNC, Drop(errno.ENOSPC)), "sync: drop ENOSPC"),
]


@pytest.mark.parametrize(("line", "rule", "canonical"), LINES, ids=[line for line, _, _ in LINES])
def test_a_line_means_a_rule_which_has_one_line(line: str, rule: Rule, canonical: str) -> None:
    assert parse_rule(line) == rule
    assert str(rule) == canonical
    assert parse_rule(canonical) == rule


def test_none_and_nothing_are_no_rules() -> None:
    assert parse_rules(["none", "", " none ", "sync: EIO"]) == [parse_rule("sync: EIO")]
    with pytest.raises(FaultSyntaxError, match="`none` stands for none"):
        parse_rule("none")


# --- errors -----------------------------------------------------------------------------------

# A line with a mark before what is wrong with it, and what was expected there.
WRONG = [
    ("^", "an operation"),
    ("^: EIO", "an operation"),
    ("^stat: EIO", "open, create, read, write, sync, sync-dir, rename, remove, truncate, close"),
    ("^snyc: EIO", "(did you mean sync?)"),
    ("sync|^: EIO", "an operation"),
    ("sync ^jurnal #3: EIO", "(did you mean journal?)"),
    ("sync journal|^: EIO", "a kind of file"),
    ("sync ^'': EIO", "a kind of file"),
    ("sync ^a'b': EIO", "a kind of file"),
    ("sync ^'x: EIO", "a closing quote"),
    ("sync ^3: EIO", "'#3' for call number 3"),
    ("sync^", "a colon"),
    ("sync journal ^EIO", "a colon before what is to happen"),
    ("sync ^EIO", "a colon before what is to happen"),
    ("sync ^stall", "a colon before what is to happen"),
    ("sync #3 ^journal: EIO", "files come right behind the operation"),
    ("sync journal ^table: EIO", "files come right behind the operation"),
    ("sync ^#0: EIO", "counted from 1"),
    ("sync ^#5-3: EIO", "the earlier one first"),
    ("sync ^#x: EIO", "such as #3"),
    ("sync #1 ^#2: EIO", "each condition once"),
    ("sync 5% ^p=0.1: EIO", "each condition once"),
    ("sync every ^0: EIO", "such as every 10"),
    ("sync every^: EIO", "such as every 10"),
    ("sync times ^x: EIO", "such as times 2"),
    ("sync after ^3: EIO", "such as 200ms"),
    ("sync after ^9999h: EIO", "0.001ms to 8760h"),
    ("sync ^0%: EIO", "above 0%"),
    ("sync ^101%: EIO", "up to 100%"),
    ("sync ^p=x: EIO", "such as 5%"),
    ("sync ^seed=x: EIO", "such as seed=7"),
    ("sync:^", "an errno such as EIO"),
    ("sync: ^eio", "(did you mean EIO?)"),
    ("sync: ^E", "an errno such as EIO"),
    ("sync: EIO ^EIO", "nothing more"),
    ("sync: delay^", "such as 200ms"),
    ("sync: delay ^0ms", "0.001ms"),
    ("sync: ^torn prefix 5", "sync: this is for write"),
    ("write|sync: ^short 5", "sync: this is for read and write"),
    ("write: ^drop", "write: this is for sync"),
    ("write: short^", "such as 100 or 50%"),
    ("write: short ^101%", "such as 100 or 50%"),
    ("write: torn ^sideways", "prefix 100"),
    ("write: torn prefix ^all", "such as 100 or 50%"),
    ("write: torn prefix 5 ^OOPS", "an errno"),
    ("write: torn at 5,^5 keep 1", "ascending"),
    ("write: torn at ^0 keep 1", "above 0"),
    ("write: torn at 5 ^1", "`keep`"),
    ("write: torn at 5,9 keep 1,^4", "of 1 to 3"),
    ("write: torn sectors ^3-1", "the earlier one first"),
    ("write: torn sectors ^3-", "such as 0,2-3"),
    ("read: corrupt ^byte", "bit or block"),
    ("read: corrupt bit ^x", "a bit's number"),
    ("read: corrupt block 1 ^0", "a size in bytes"),
    ("sync-dir ^table: EIO", "sync-dir is about folders"),
]


@pytest.mark.parametrize(("marked", "expected"), WRONG, ids=[marked for marked, _ in WRONG])
def test_an_error_shows_the_place_and_what_belongs_there(marked: str, expected: str) -> None:
    column = marked.index("^")
    line = marked.replace("^", "", 1)
    with pytest.raises(FaultSyntaxError) as caught:
        parse_rule(line)
    error = caught.value
    assert isinstance(error, UsageError)
    assert (error.line, error.column) == (line, column)
    first, shown, caret, example = str(error).splitlines()
    assert expected in first
    assert f"at column {column + 1} " in first
    assert shown == f"    {line}"
    assert caret == "    " + " " * column + "^"
    parse_rule(example.removeprefix("for example: "))


def test_the_whole_message() -> None:
    with pytest.raises(FaultSyntaxError) as caught:
        parse_rule("sync\tjurnal #3: EIO")
    assert str(caught.value) == (
        "no fault rule: at column 6 expected a kind of file (manifest, journal, table, temp, meta, "
        "foreign, log, lock) or a pattern of names such as '*.log'; found 'jurnal' (did you mean "
        "journal?)\n"
        "    sync jurnal #3: EIO\n"
        "         ^\n"
        "for example: sync journal #3: EIO"
    )


def test_a_rule_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ValueError, match="fits write only"):
        Rule(Op.SYNC, TornPrefix(Amount(1)))
    with pytest.raises(ValueError, match="a rule is about open"):
        Rule(Op.STAT, Fail())
    with pytest.raises(ValueError, match="with an errno"):
        Rule(Op.SYNC, Fail(OSError))
    with pytest.raises(ValueError, match="about folders"):
        Rule(Op.SYNC_DIR, Fail(), Targets(Kind.TABLE))
    with pytest.raises(ValueError, match="no file at all"):
        Targets()
    with pytest.raises(ValueError, match="no pattern"):
        Targets(patterns=("a\nb",))


# --- round trips ------------------------------------------------------------------------------

errors = st.sampled_from(sorted(errno.errorcode))
amounts = st.builds(Amount, st.integers(0, 10**6)) | st.builds(
    Amount, st.integers(0, 100), st.just(True)
)
numbers = st.integers(0, 10**6)


@st.composite
def torn_at(draw: st.DrawFn) -> TornAt:
    cuts = draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True))
    keep = draw(st.lists(st.integers(1, len(cuts) + 1), min_size=1, unique=True))
    return TornAt(tuple(sorted(cuts)), tuple(sorted(keep)), draw(errors))


@st.composite
def torn_sectors(draw: st.DrawFn) -> TornSectors:
    pairs = draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
    return TornSectors(merged(tuple((min(pair), max(pair)) for pair in pairs)), draw(errors))


EFFECTS: dict[Op, st.SearchStrategy[What]] = {
    RULE_OPS: st.builds(Fail, errors)
    | st.builds(Delay, st.integers(1, MAX_DELAY_US))
    | st.just(Stall()),
    Op.READ | Op.WRITE: st.builds(Short, amounts)
    | st.builds(CorruptBit, st.none() | numbers)
    | st.builds(CorruptBlock, st.none() | numbers, st.integers(1, 10**6)),
    Op.WRITE: st.builds(TornPrefix, amounts, errors) | torn_at() | torn_sectors(),
    Op.SYNC: st.builds(Drop, errors),
}
names = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=8).filter(
    str.isprintable
)


@st.composite
def targets(draw: st.DrawFn) -> Targets:
    kinds = draw(st.lists(st.sampled_from(list(Kind)), unique=True))
    patterns = draw(st.lists(names, max_size=3, min_size=0 if kinds else 1))
    return Targets(functools.reduce(Kind.__or__, kinds, Kind(0)), tuple(patterns))


@st.composite
def whens(draw: st.DrawFn) -> When:
    first = draw(st.integers(1, 10**6))
    return When(
        first=first,
        last=draw(st.none() | st.integers(first, 10**9)),
        every=draw(st.integers(1, 10**6)),
        after=draw(st.integers(0, MAX_DELAY_US)),
        chance=draw(st.none() | st.floats(0, 1, exclude_min=True)),
        seed=draw(st.none() | numbers),
        times=draw(st.none() | st.integers(1, 10**6)),
    )


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    possible = draw(st.sampled_from(list(EFFECTS)))
    chosen = draw(st.lists(st.sampled_from(list(possible)), min_size=1, unique=True))
    ops = functools.reduce(Op.__or__, chosen)
    files = draw(targets())
    if ops is Op.SYNC_DIR:
        files = Targets(files.kinds | Kind.FOREIGN, files.patterns)
    return Rule(ops, draw(EFFECTS[possible]), files, draw(whens()))


@given(rules())
def test_every_rule_is_read_back_from_its_line(rule: Rule) -> None:
    assert parse_rule(str(rule)) == rule
    assert str(parse_rule(str(rule))) == str(rule)


@given(st.text() | st.text("sync journal|#3:'*.%=10-,torn EIO"))
def test_any_text_is_a_rule_or_a_syntax_error(text: str) -> None:
    wrong: FaultSyntaxError | None = None
    try:
        rule = parse_rule(text)
    except FaultSyntaxError as error:
        wrong = error
    if wrong is None:
        assert parse_rule(str(rule)) == rule
    else:
        assert 0 <= wrong.column <= len(text)


# --- TOML -------------------------------------------------------------------------------------

PLAN = """
seed = 7

[[fault]]
op = ["sync", "write"]
on = ["journal", "*.tmp"]
nth = 3
what = "EIO"

[[fault]]
op = "write"
on = "table|'my file'"
nth = "2-"
every = 10
after = "30s"
probability = 0.05
times = 2
what = "torn prefix 50% ENOSPC"

[[fault]]
op = "read"
seed = 8
what = "corrupt bit"

[[fault]]
op = "read"
what = "corrupt block"

[[fault]]
rule = "sync 5%: drop"
"""


def test_a_toml_file_says_the_same() -> None:
    assert [str(rule) for rule in load_toml(PLAN, "plan.toml")] == [
        "write|sync journal|*.tmp #3: EIO",
        "write table|'my file' #2- every 10 after 30s 5% seed=7 times 2: torn prefix 50% ENOSPC",
        "read seed=8: corrupt bit",
        "read seed=7: corrupt block",
        "sync 5% seed=7: drop",
    ]


def test_an_empty_plan_has_no_rules() -> None:
    assert load_toml("", "plan.toml") == []


WRONG_TOML = [
    ("seed = ", "plan.toml: no TOML: "),
    ("sede = 7", "plan.toml: sede: no such key here; known: seed, fault"),
    ("seed = 'x'", "plan.toml: seed: expected a whole number, 0 or more, found 'x'"),
    ("fault = 3", "plan.toml: fault: expected tables"),
    ("[[fault]]\nwhat='EIO'", "plan.toml: fault 1: op is missing"),
    ("[[fault]]\nop='sync'", "plan.toml: fault 1: what is missing"),
    ("[[fault]]\nrule='sync: EIO'\n[[fault]]\nno=1", "plan.toml: fault 2: no: no such key here"),
    (
        "[[fault]]\nrule='sync: EIO'\nnth=1",
        "plan.toml: fault 1: nth: no such key here; known: rule",
    ),
    ("[[fault]]\nrule='sync'", "plan.toml: fault 1: rule: no fault rule: at column 5"),
    ("[[fault]]\nop='sink'\nwhat='EIO'", "plan.toml: fault 1: op: no fault rule: at column 1"),
    ("[[fault]]\nop=[]\nwhat='EIO'", "plan.toml: fault 1: op: expected text, found []"),
    ("[[fault]]\nop='sync'\nwhat='EI'", "plan.toml: fault 1: what: no fault rule: at column 1"),
    (
        "[[fault]]\nop='sync'\nwhat='torn prefix 1'",
        "plan.toml: fault 1: `torn prefix 1` fits write",
    ),
    ("[[fault]]\nop='sync'\nwhat='EIO'\nnth=0", "plan.toml: fault 1: nth: no fault rule"),
    ("[[fault]]\nop='sync'\nwhat='EIO'\nevery=0", "plan.toml: fault 1: every: expected a whole"),
    ("[[fault]]\nop='sync'\nwhat='EIO'\nafter=3", "plan.toml: fault 1: after: no fault rule"),
    (
        "[[fault]]\nop='sync'\nwhat='EIO'\nprobability=5",
        "plan.toml: fault 1: probability: expected a number above 0 and up to 1, found 5",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG_TOML, ids=[text for text, _ in WRONG_TOML])
def test_a_toml_error_names_file_table_and_key(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_toml(text, "plan.toml")
    assert str(caught.value).startswith(message)
