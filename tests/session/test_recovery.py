"""Openings explained: which file wins, what is kept or dropped and why, what is deleted, what lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from avccfs.errors import UsageError
from avccfs.format import batch, manifest
from avccfs.format.ikey import Dialect
from avccfs.format.manifest import AddedTable, SessionRecord
from avccfs.session.engines import AVCCDB, GOLEVELDB, LEVELDB, Profile, understand
from avccfs.session.recovery import Fate, Prediction, predict, predict_rebuild
from avccfs.session.recovery.batches import apply
from avccfs.session.recovery.keyspace import Item, merge
from avccfs.session.recovery.runs import Runs
from avccfs.vfs.base import Directory
from tests.session.damage import Base, Damage
from tests.session.handmade import (
    ODD,
    Files,
    fixture_files,
    framed,
    in_memory,
    key_of,
    large_snapshot,
    put,
    session,
    small,
    table_of,
)

BOTH = pytest.mark.parametrize("profile", [LEVELDB, GOLEVELDB], ids=lambda p: p.engine.value)


def opened(files: Files, profile: Profile) -> Prediction:
    return predict(in_memory(files), profile)


def steps(prediction: Prediction) -> list[tuple[Fate, int, int | None, str]]:
    (replay,) = prediction.journals
    return [(step.fate, step.batches, step.sequence, step.why) for step in replay.steps]


# Meta files


def test_leveldb_looks_at_current_alone() -> None:
    prediction = opened(fixture_files("pending-current-newer"), LEVELDB)
    assert prediction.manifest == "MANIFEST-000000"
    assert [file.name for file in prediction.meta if file.wins] == ["CURRENT"]
    why = {file.name: file.why for file in prediction.meta}
    assert "never looked at" in why["CURRENT.999"]


def test_goleveldb_follows_a_pending_file_and_removes_it() -> None:
    prediction = opened(fixture_files("pending-current-newer"), GOLEVELDB)
    assert prediction.manifest == "MANIFEST-000999"
    assert [file.name for file in prediction.meta if file.wins] == ["CURRENT.999"]
    assert "CURRENT.999" in prediction.deleted_files
    assert "MANIFEST-000999" in prediction.deleted_files


def test_goleveldb_takes_names_that_nobody_writes() -> None:
    files = small(put(10, b"a"))
    files["CURRENT"] = b"MANIFEST- 00002\n"
    assert opened(files, GOLEVELDB).keys == 1
    assert opened(files, LEVELDB).error is not None


def test_words_of_damaged_files_reach_the_error_unharmed() -> None:
    files = small(put(10, b"a"))
    files["CURRENT"] = b"MANIFEST\xff\x1b[2J\n"
    error = opened(files, LEVELDB).error
    assert error is not None
    assert error.startswith("Corruption: CURRENT points to a non-existent file")
    assert "MANIFEST\udcff\x1b[2J" in error


@BOTH
def test_directory_without_a_database_is_refused(profile: Profile) -> None:
    prediction = opened({}, profile)
    assert not prediction.opens
    assert prediction.deleted_files == ()
    assert prediction.meta == ()


# Manifests


def test_numbers_of_a_damaged_record_count_in_goleveldb() -> None:
    """The record breaks off in its table: the tables are dropped, the sequence number stays."""
    table = AddedTable(0, 9, 100, key_of(b"a"), key_of(b"b"))
    record = manifest.encode(SessionRecord(sequence=20, added_tables=(table,)))
    files = small(put(15, b"early"), put(25, b"late"))
    files["MANIFEST-000002"] = framed(session(), record[:-3])
    prediction = opened(files, GOLEVELDB)
    assert [step.fate for step in prediction.records] == [Fate.KEPT, Fate.PARTLY]
    assert "kept: sequence 20" in prediction.records[1].why
    assert prediction.keys == 1
    assert opened(files, LEVELDB).error == "Corruption: VersionEdit: new-file entry"


def test_goleveldb_keeps_the_numbers_of_a_record_that_spans_a_damaged_block() -> None:
    """The snapshot of a large database: all that is left of it is that there are no tables."""
    files = large_snapshot()
    prediction = opened(files, GOLEVELDB)
    assert prediction.opens
    assert prediction.state is not None
    assert not prediction.state.levels
    assert "000010.ldb" in prediction.deleted_files
    assert opened(files, LEVELDB).error == "Corruption: checksum mismatch"


def test_goleveldb_reads_on_behind_an_unknown_tag() -> None:
    files = small(put(30, b"a"))
    files["MANIFEST-000002"] = framed(b"\x08" + session(sequence=30))
    assert opened(files, GOLEVELDB).keys == 1
    assert opened(files, LEVELDB).error == "Corruption: VersionEdit: unknown tag"


def test_goleveldb_gives_up_where_a_record_ends_before_the_bytes_of_a_field() -> None:
    files = small(put(30, b"a"))
    files["MANIFEST-000002"] = framed(session(), b"\x01\x05")
    assert opened(files, GOLEVELDB).error == "EOF"


def test_memory_that_a_forged_record_asks_for_is_not_certain() -> None:
    files = small(put(30, b"a"))
    huge = manifest.encode(SessionRecord(deleted_tables=(manifest.DeletedTable(2**40, 7),)))
    files["MANIFEST-000002"] = framed(session(), huge)
    prediction = opened(files, GOLEVELDB)
    assert not prediction.opens
    assert prediction.uncertain is not None


@pytest.mark.parametrize(
    ("record", "leveldb", "goleveldb"),
    [
        (session(comparer=None), None, "comparer"),
        (session(next_file=None), "no meta-nextfile entry", "next-file-num"),
        (session(journal_number=None), "no meta-lognumber entry", "journal-file-num"),
        (session(sequence=None), "no last-sequence-number entry", "seq-num"),
    ],
    ids=("comparer", "next file", "journal", "sequence"),
)
def test_fields_that_a_manifest_must_have(
    record: bytes, leveldb: str | None, goleveldb: str
) -> None:
    files = small(put(10, b"a")) | {"MANIFEST-000002": framed(record)}
    error = opened(files, LEVELDB).error
    assert error == (None if leveldb is None else f"Corruption: {leveldb} in descriptor")
    assert opened(files, GOLEVELDB).error == (
        f"leveldb: manifest corrupted (field '{goleveldb}'): missing [file=MANIFEST-000002]"
    )


# Tables


def test_another_file_of_its_number_hides_a_missing_table_from_leveldb() -> None:
    files = fixture_files("missing-table")
    assert opened(files, LEVELDB).error is not None
    files["MANIFEST-000005"] = b""
    prediction = opened(files, LEVELDB)
    assert prediction.opens
    assert prediction.reading is not None
    assert prediction.reading.error is not None
    assert any("table 5 is missing" in note for note in prediction.notes)


def test_goleveldb_counts_names_and_misses_a_table_that_has_both() -> None:
    files = fixture_files("goleveldb-closed")
    files["000005.sst"] = files["000005.ldb"]
    assert opened(files, GOLEVELDB).error == "file missing"
    assert opened(files, LEVELDB).keys == 337


def test_a_name_that_goleveldb_misunderstands_keeps_it_from_opening() -> None:
    files = fixture_files("goleveldb-closed") | {"99.ldb": b"mine"}
    prediction = opened(files, GOLEVELDB)
    assert prediction.error == (
        f"remove {prediction.directory}/000099.ldb: no such file or directory"
    )
    assert any("99.ldb" in note for note in prediction.notes)
    leveldb = opened(files, LEVELDB)
    assert leveldb.opens
    assert "99.ldb" in leveldb.deleted_files


def test_goleveldb_changes_the_directory_before_it_refuses() -> None:
    prediction = opened(fixture_files("missing-table"), GOLEVELDB)
    assert prediction.error == "file missing"
    assert prediction.deleted_files == ("000006.log", "000008.log", "MANIFEST-000000")
    assert opened(fixture_files("missing-table"), LEVELDB).deleted_files == ()


def test_plyvel_ends_silently_where_the_last_table_is_damaged() -> None:
    """LevelDB keeps the error; a reader who does not ask behind the last key never hears of it."""
    files = fixture_files("goleveldb-closed")
    del files["000006.log"], files["000008.log"]
    files["000007.ldb"] = files["000007.ldb"][:1000].ljust(len(files["000007.ldb"]), b"\0")
    prediction = opened(files, LEVELDB)
    assert prediction.reading is not None
    assert prediction.reading.error == "Corruption: not an sstable (bad magic number)"
    assert prediction.keys == 0
    assert not prediction.harmless


def test_a_block_behind_the_end_of_a_table_is_not_certain_in_goleveldb() -> None:
    files = fixture_files("goleveldb-closed")
    table = bytearray(files["000007.ldb"])
    place = len(table) - 48
    # The handle of the metaindex: its offset now lies behind the end of the file.
    table[place + 1] |= 0x7F
    files["000007.ldb"] = bytes(table)
    prediction = opened(files, GOLEVELDB)
    assert prediction.uncertain is not None
    assert prediction.reading is not None
    assert prediction.reading.error is not None
    assert opened(files, LEVELDB).keys == 337


# Journals


def test_goleveldb_skips_batches_below_the_session_and_says_so() -> None:
    files = small(put(8, b"a"), put(9, b"b"), put(10, b"c", b"d"), put(12, b"e"))
    prediction = opened(files, GOLEVELDB)
    why = "leveldb: batch corrupted: invalid sequence number"
    assert steps(prediction) == [
        (Fate.DROPPED, 1, 8, why),
        (Fate.DROPPED, 1, 9, why),
        (Fate.KEPT, 2, 10, ""),
    ]
    assert prediction.keys == 3
    assert prediction.loss.keys == 2
    assert prediction.loss.examples == (b"a", b"b")
    assert prediction.sequence == 13


def test_leveldb_replays_batches_below_the_session() -> None:
    prediction = opened(small(put(8, b"a"), put(9, b"b"), put(10, b"c", b"d")), LEVELDB)
    assert steps(prediction) == [(Fate.KEPT, 3, 8, "")]
    assert prediction.keys == 4
    assert prediction.loss.keys == 0
    assert prediction.sequence == 11


def test_entries_before_the_break_of_a_batch_are_kept() -> None:
    """LevelDB shows them. In goleveldb they lie above the sequence number, until that moves on."""
    broken = put(10, b"a", b"b", b"c")[:-4]
    prediction = opened(small(broken), LEVELDB)
    ((fate, _, _, why),) = steps(prediction)
    assert fate is Fate.PARTLY
    assert why.startswith("Corruption: bad WriteBatch Put")
    assert prediction.keys == 2
    assert opened(small(broken), GOLEVELDB).keys == 1
    assert opened(small(broken, put(12, b"z")), GOLEVELDB).keys == 3


def test_sequence_number_that_no_key_can_hold_ends_goleveldb() -> None:
    prediction = opened(small(put(2**60, b"a")), GOLEVELDB)
    assert prediction.error == "panic: leveldb: invalid sequence number"
    assert prediction.journals[0].note


def test_journals_are_replayed_from_the_lowest_number_up() -> None:
    files = small(put(10, b"a"))
    files["000012.log"] = framed(put(14, b"c"))
    files["000007.log"] = framed(put(12, b"b"))
    files["000001.log"] = framed(put(1, b"old"))
    for profile in (LEVELDB, GOLEVELDB):
        prediction = opened(files, profile)
        assert [j.file for j in prediction.journals] == ["000003.log", "000007.log", "000012.log"]
        (ignored,) = prediction.ignored_journals
        assert ignored.file == "000001.log"
        assert "below the manifest's journal number 3" in ignored.why
        assert set(prediction.deleted_files) >= {"000001.log", "000012.log"}
        assert prediction.keys == 3


def test_previous_journal_is_replayed_too() -> None:
    files = ODD["previous journal"]
    for profile in (LEVELDB, GOLEVELDB):
        prediction = opened(files, profile)
        assert [j.file for j in prediction.journals] == ["000003.log", "000005.log"]


def test_damage_in_a_journal_is_a_step_of_its_own() -> None:
    prediction = opened(fixture_files("flipped-journal-byte"), GOLEVELDB)
    damaged = [s for j in prediction.journals for s in j.steps if s.batches == 0]
    (step,) = damaged
    assert step.fate is Fate.DROPPED
    assert step.length > 0
    assert "checksum mismatch" in step.why


# Numbers of files


def test_stale_current_makes_engines_overwrite_files() -> None:
    """The old manifest hands out numbers that are taken since."""
    files = small(put(10, b"a"))
    files["000004.ldb"] = b"something newer"
    files["MANIFEST-000004"] = b"newer, too"
    leveldb = opened(files, LEVELDB)
    assert leveldb.overwritten_files == ("MANIFEST-000004",)
    assert "000004.ldb" in leveldb.deleted_files
    assert opened(files, GOLEVELDB).overwritten_files == ("000004.ldb",)


def test_files_of_others_are_left_alone() -> None:
    files = small(put(10, b"a")) | {"notes.txt": b"", "000005.ldb~": b"", "lost": b""}
    for profile in (LEVELDB, GOLEVELDB, AVCCDB):
        prediction = opened(files, profile)
        assert prediction.opens
        assert not {"notes.txt", "000005.ldb~", "lost"} & set(prediction.deleted_files)


@pytest.mark.parametrize(
    ("name", "leveldb", "goleveldb"),
    [
        ("000005.ldb", True, True),
        ("5.ldb", True, True),
        ("0000000005.log", True, True),
        ("+5.log", False, True),
        ("-3.log", False, True),
        ("5.log copy", False, True),
        ("5.log~", False, False),
        ("000005.tmp", False, True),
        ("000005.dbtmp", True, False),
        ("MANIFEST-1", True, True),
        ("MANIFEST-1.bak", False, False),
        ("MANIFEST-", False, False),
        ("18446744073709551615.log", True, False),
        ("18446744073709551616.log", False, False),
        ("CURRENT", False, False),
    ],
)
def test_names_that_engines_take_for_their_own(name: str, leveldb: bool, goleveldb: bool) -> None:
    assert (understand(name, LEVELDB) is not None) == leveldb
    assert (understand(name, GOLEVELDB) is not None) == goleveldb


# Loss


def test_an_obsolete_table_is_no_loss() -> None:
    """What a sound manifest has replaced may hold keys that were deleted since."""
    files = fixture_files("goleveldb-closed")
    sound = opened(files, GOLEVELDB)
    # A table of another database, with other keys.
    other = fixture_files("leveldb-killed")
    files["000001.ldb"] = next(other[name] for name in sorted(other) if name.endswith(".ldb"))
    prediction = opened(files, GOLEVELDB)
    assert "000001.ldb" in prediction.deleted_files
    assert prediction.loss == sound.loss


def test_an_orphan_that_is_too_new_for_the_manifest_is_a_loss() -> None:
    files = small()
    files["000050.ldb"] = fixture_files("goleveldb-closed")["000003.ldb"]
    for profile in (LEVELDB, GOLEVELDB):
        prediction = opened(files, profile)
        assert "000050.ldb" in prediction.deleted_files
        assert prediction.loss.keys == 68


def test_a_lost_deletion_brings_the_key_back() -> None:
    deletion = batch.encode(11, [batch.Change(b"a")])
    files = small(put(10, b"a"), put(12, b"z"), deletion)
    prediction = opened(files, GOLEVELDB)
    assert prediction.loss.keys == 0
    assert prediction.loss.returned == 1
    assert not prediction.harmless


# avccDB


def test_every_journal_of_avccdb_is_misread() -> None:
    prediction = opened(fixture_files("avccdb-versioned-journal"), AVCCDB)
    assert prediction.dialect is Dialect.AVCCDB
    assert not prediction.foreign
    assert prediction.keys == 0
    assert prediction.loss.keys == 33
    assert prediction.loss.outdated == 0


def test_engines_of_another_dialect_are_called_foreign() -> None:
    assert opened(fixture_files("avccdb-compacted"), LEVELDB).foreign
    assert opened(fixture_files("goleveldb-closed"), AVCCDB).foreign
    forced = predict(in_memory(small(put(10, b"a"))), AVCCDB, dialect=Dialect.AVCCDB)
    assert not forced.foreign


# Rebuild


def test_leveldb_has_no_rebuild_to_predict() -> None:
    with pytest.raises(UsageError, match="goleveldb or avccdb"):
        predict_rebuild(in_memory({}), LEVELDB)


def test_rebuild_fails_where_a_damaged_table_holds_a_key_twice() -> None:
    """It copies the table with a comparer that does not know of sequence numbers."""
    entries = [(key_of(b"k", 2), b"new"), (key_of(b"k", 1), b"old"), (key_of(b"z", 3), b"")]
    sound = table_of([entries, [(key_of(b"zz", 4), b"")]])
    files = small() | {"000003.ldb": sound}
    assert predict_rebuild(in_memory(files), GOLEVELDB).keys == 3
    damaged = bytearray(sound)
    damaged[sound.index(b"zz")] ^= 1
    files["000003.ldb"] = bytes(damaged)
    prediction = predict_rebuild(in_memory(files), GOLEVELDB)
    assert prediction.error == "leveldb/table: Writer: keys are not in increasing order"
    assert prediction.deleted_files == ()


def test_rebuild_leaves_pending_files_and_says_so() -> None:
    prediction = predict_rebuild(in_memory(fixture_files("pending-current-newer")), GOLEVELDB)
    assert prediction.opens
    assert "CURRENT.999" not in prediction.deleted_files
    assert any("CURRENT.999" in note for note in prediction.notes)


# Whatever is there

ANYWAY: dict[str, Callable[[Directory], Prediction]] = {
    "leveldb": lambda place: predict(place, LEVELDB),
    "goleveldb": lambda place: predict(place, GOLEVELDB),
    "goleveldb-rebuild": lambda place: predict_rebuild(place, GOLEVELDB),
    "avccdb": lambda place: predict(place, AVCCDB),
    "avccdb-rebuild": lambda place: predict_rebuild(place, AVCCDB),
}


@pytest.mark.parametrize("call", ANYWAY)
def test_every_damage_is_answered(call: str) -> None:
    names = ("avccdb-tables-and-journal", "avccdb-compacted", "leveldb-killed")
    for seed in range(45):
        name = names[seed % len(names)]
        damage = Damage(seed, Base(name, fixture_files(name), {}))
        files = damage.damage()
        prediction = ANYWAY[call](in_memory(files))
        assert set(prediction.deleted_files) <= set(files), damage.done
        assert set(prediction.overwritten_files) <= set(files), damage.done
        if prediction.uncertain is None:
            assert prediction.opens == (prediction.reading is not None), damage.done


@pytest.mark.parametrize("name", ["000003.log", "MANIFEST-000002", "CURRENT", "000001.ldb"])
def test_a_directory_in_the_place_of_a_file_is_answered(name: str) -> None:
    for foretell in ANYWAY.values():
        files = small(put(10, b"a"))
        files.pop(name, None)
        memory = in_memory(files)
        memory.mkdir(name)
        assert name not in foretell(memory).overwritten_files


@pytest.mark.parametrize(
    "content", [b"../MANIFEST-000002\n", b"a/b\n", b".\n", b"..\n", b"x" * 5000 + b"\n", b"\0\n"]
)
def test_any_content_of_current_is_answered(content: bytes) -> None:
    for foretell in ANYWAY.values():
        foretell(in_memory(small(put(10, b"a")) | {"CURRENT": content}))


# Parts


def items(*keys: tuple[bytes, int]) -> list[Item]:
    return [((key, -sequence, 0), sequence << 8 | 1, b"%d" % sequence) for key, sequence in keys]


@pytest.mark.parametrize("profile", [LEVELDB, GOLEVELDB, AVCCDB], ids=lambda p: p.engine.value)
def test_merge_gives_every_item_in_order(profile: Profile) -> None:
    sources = [
        items((b"a", 1), (b"c", 9), (b"c", 3)),
        items(),
        items((b"b", 2)),
        items((b"a", 4), (b"c", 5), (b"d", 1)),
    ]
    merged = list(merge([iter(source) for source in sources], profile))
    assert merged == sorted(item for source in sources for item in source)


def test_merge_does_with_disorder_what_the_engine_does() -> None:
    """Only the next item of each source is looked at."""
    sources = [items((b"m", 1), (b"a", 1), (b"z", 1)), items((b"b", 1), (b"n", 1))]
    merged = [order[0] for order, _, _ in merge([iter(s) for s in sources], LEVELDB)]
    assert merged == [b"b", b"m", b"a", b"n", b"z"]


def test_of_equal_items_goleveldb_prefers_the_source_it_came_from() -> None:
    first = [((b"k", -1, 0), 257, b"first")]
    second = [((b"a", -1, 0), 257, b""), ((b"k", -1, 0), 257, b"second")]
    for profile, value in ((LEVELDB, b"first"), (GOLEVELDB, b"second")):
        merged = list(merge([iter(first), iter(second)], profile))
        assert merged[1][2] == value


def test_runs_are_sorted_and_put_aside_when_they_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avccfs.session.recovery.runs.IN_MEMORY", 100)
    runs: Runs[tuple[int], bytes] = Runs(50)
    for number in range(100):
        if runs.put((number * 37 % 101,), b"%d" % number, 10):
            runs.end_run()
    runs.put((5,), b"twice", 10)
    runs.put((5,), b"again", 10)
    streams = [list(stream) for stream in runs.streams()]
    assert len(streams) > 10
    assert all(stream == sorted(stream) for stream in streams)
    assert streams[-1] == [((5,), b"again")]
    assert sum(map(len, streams)) == 101
    runs.close()


def test_a_batch_beyond_its_count_is_dropped_where_the_engine_notices() -> None:
    record = bytearray(put(10, b"a", b"b"))
    record[8] = 1
    leveldb = apply(bytes(record), LEVELDB, 0)
    assert [user for user, _, _ in leveldb.applied] == [b"a", b"b"]
    assert leveldb.error == "Corruption: WriteBatch has wrong count"
    assert leveldb.next_sequence == 10
    goleveldb = apply(bytes(record), GOLEVELDB, 0)
    assert [user for user, _, _ in goleveldb.applied] == [b"a"]
    assert goleveldb.next_sequence is None
