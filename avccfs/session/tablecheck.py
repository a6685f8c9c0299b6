"""What is wrong with one table, and what is in it.

`check_table` asks `tableproof` first. Only if that finds no proof the table is read again, block by
block, and each fault is reported where it is. Both look for the same, so if the second reading finds
nothing the bytes were not the same both times, and that is reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from avccfs.errors import FormatError
from avccfs.format import block, ikey, merkle
from avccfs.format.block import TRAILER_SIZE, Reason
from avccfs.format.coding import mask
from avccfs.format.filter import BLOOM_POLICIES, FilterBlock
from avccfs.format.ikey import MAX_SEQUENCE, Dialect, KeyKind, SortKey
from avccfs.format.table import FOOTER_SIZE, Fault, Handle, Part, ReadAt, Table
from avccfs.session import tableproof
from avccfs.session.faults import Code, Flaw, Report

_CODES: Final = {
    Reason.TOO_SMALL: Code.TABLE_FOOTER,
    Reason.BAD_MAGIC: Code.TABLE_FOOTER,
    Reason.BAD_PADDING: Code.TABLE_FOOTER,
    Reason.BAD_HANDLE: Code.BLOCK_HANDLE,
    Reason.OVERLAP: Code.BLOCK_OVERLAP,
    Reason.GAP: Code.TABLE_GAP,
    Reason.TRUNCATED: Code.BLOCK_TRUNCATED,
    Reason.TOO_LARGE: Code.BLOCK_TOO_LARGE,
    Reason.BAD_CHECKSUM: Code.BLOCK_CHECKSUM,
    Reason.UNKNOWN_COMPRESSION: Code.BLOCK_COMPRESSION,
    Reason.BAD_COMPRESSION: Code.BLOCK_COMPRESSION,
    Reason.BAD_RESTARTS: Code.BLOCK_RESTARTS,
    Reason.MISPLACED_RESTART: Code.BLOCK_RESTARTS,
    Reason.BAD_ENTRY: Code.BLOCK_ENTRY,
    Reason.BAD_FILTER: Code.FILTER_MALFORMED,
    Reason.BAD_MERKLE: Code.MERKLE_MALFORMED,
    Reason.UNREADABLE: Code.BLOCK_CHECKSUM,
}
_PIECE: Final = 1024 * 1024
_TRAILER: Final = 8
_SHOWN: Final = 40
_NAMES_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class TableCheck:
    """What one table is like."""

    size: int
    dialect: Dialect | None
    """What the table itself shows."""
    blocks: int
    """How many could be read."""
    entries: int
    """In blocks that could be read."""
    smallest: bytes | None
    """Encoded internal key, as `largest`; None if the block that should have it is not sound."""
    largest: bytes | None
    highest_sequence: int


@dataclass(frozen=True, slots=True)
class Terms:
    """How to read a table."""

    dialect: Dialect | None
    """None goes by what the table shows."""
    fallback: Dialect | None
    """For a table that shows nothing. None too: then the order of its keys is not looked at."""
    ordered: bool = True
    """Whether user keys are in order of their bytes."""


def check_table(read_at: ReadAt, size: int, terms: Terms, report: Report) -> TableCheck:
    """Check all of a table of `size` bytes. Errors of `read_at` pass through, nothing else.

    Memory holds a few blocks; of a table with a Merkle tree also that, which is a block too.
    """
    if terms.ordered:
        summary = tableproof.prove(read_at, size, terms.dialect)
        if summary is not None:
            return TableCheck(
                size,
                summary.dialect,
                summary.blocks,
                summary.entries,
                summary.smallest,
                summary.largest,
                summary.highest_sequence,
            )
    faults = 0

    def count(fault: Flaw) -> None:
        nonlocal faults
        faults += 1
        report(fault)

    checked = _Diagnosis(read_at, size, terms, count).run()
    if terms.ordered and not faults:
        found = "nothing wrong the second time"
        report(Flaw(Code.TABLE_CHANGED, None, None, "the same when it is read again", found))
    return checked


class _Diagnosis:
    """The second reading of a table: the faults, one by one."""

    def __init__(self, read_at: ReadAt, size: int, terms: Terms, report: Report) -> None:
        self._read_at = tableproof.Window(read_at, size).read
        self._size = size
        self._report = report
        self._table = Table(self._read_at, size)
        known = terms.dialect or self._table.dialect or terms.fallback
        self._dialect = known or Dialect.STANDARD
        self._ordered = terms.ordered and known is not None
        self._blocks = 0
        self._entries = 0
        self._highest = 0
        self._whole = True
        """Whether every entry was seen."""

    def run(self) -> TableCheck:
        table = self._table
        for fault in table.faults:
            self._fault(fault)
        smallest: bytes | None = None
        largest: bytes | None = None
        if not table.indexed:
            found = f"{sum(1 for _ in table.entries(_ignore))} entries that can be read without it"
            self._tell(Code.TABLE_SALVAGEABLE, None, None, "an index to read by", found)
        else:
            self._check_footer()
            self._check_first_restarts()
            filters = list(self._filters())
            self._check_others()
            tree = self._tree()
            smallest, largest = self._check_data(filters, tree)
            if tree is not None and self._whole:
                self._compare_trees(tree)
        return TableCheck(
            self._size,
            table.dialect,
            self._blocks,
            self._entries,
            smallest,
            largest,
            self._highest,
        )

    def _check_footer(self) -> None:
        footer = self._table.footer
        start = self._size - FOOTER_SIZE
        if footer is None or any(fault.part is Part.FOOTER for fault in self._table.faults):
            return
        raw = self._read_at(FOOTER_SIZE, start)
        expected = tableproof.encode_footer(footer)
        if raw != expected:
            self._tell(Code.TABLE_FOOTER, start, FOOTER_SIZE, expected.hex(), raw.hex())

    def _check_first_restarts(self) -> None:
        """Of index and metaindex, which are sound enough to be read again."""
        footer = self._table.footer
        if footer is None:
            return
        for part, handle in ((Part.METAINDEX, footer.metaindex), (Part.INDEX, footer.index)):
            content = self._table.content(handle, part, _ignore)
            if content is not None:
                self._blocks += 1
                self._check_first_restart(content, handle)
            if content is not None and part is Part.METAINDEX:
                self._check_names(content, handle)

    def _check_names(self, content: bytes, handle: Handle) -> None:
        names = [name for name, _, _ in self._read(content, handle, _ignore)]
        if any(one >= other for one, other in itertools.pairwise(names)):
            shown = ", ".join(map(_shown, names[:_NAMES_SHOWN]))
            self._in_block(Code.KEY_ORDER, handle, "names in ascending order", shown)

    def _check_first_restart(self, content: bytes, handle: Handle) -> None:
        try:
            for _ in block.entries(content, 0):
                break
        except block.BlockError:
            return
        restart = tableproof.first_restart(content)
        if restart:
            self._in_block(Code.BLOCK_RESTARTS, handle, "the first restart at 0", str(restart))

    def _filters(self) -> Iterator[FilterBlock]:
        for policy, handle in self._table.filters.items():
            if policy in BLOOM_POLICIES:
                filters = self._table.filter_block(policy, self._fault)
                if filters is not None:
                    self._blocks += 1
                    yield filters
                continue
            self._blocks += self._table.content(handle, Part.FILTER, self._fault) is not None
            known = ", ".join(sorted(name.decode() for name in BLOOM_POLICIES))
            self._in_block(Code.BLOCK_UNKNOWN, handle, f"a filter by {known}", _shown(policy))

    def _check_others(self) -> None:
        for name, handle in self._table.others.items():
            self._blocks += self._table.content(handle, Part.FILE, self._fault) is not None
            expected = "the name of a filter or of a Merkle tree in the metaindex"
            self._in_block(Code.BLOCK_UNKNOWN, handle, expected, _shown(name))

    def _tree(self) -> merkle.MerkleTree | None:
        tree = self._table.merkle_tree(self._fault)
        self._blocks += tree is not None
        return tree

    def _check_data(
        self, filters: list[FilterBlock], tree: merkle.MerkleTree | None
    ) -> tuple[bytes | None, bytes | None]:
        """Every data block in turn; the first and the last key, where they are known."""
        self._leaves: list[bytes] = []
        smallest: bytes | None = None
        before: tuple[bytes, bytes] | None = None
        """Separator and last key of the block before, if it was sound."""
        sound = True
        for number, (separator, handle) in enumerate(self._table.blocks()):
            ends = self._check_block(handle, filters, tree)
            sound = ends is not None
            if ends is None:
                self._whole = False
                continue
            first, last = ends
            if number == 0:
                smallest = first
            if self._ordered:
                self._check_separator(handle, separator, last)
                if before is not None:
                    self._check_border(handle, *before, first)
            before = separator, last
        # A handle that the index has and that leads nowhere hides a block, perhaps the first.
        if any(fault.part in (Part.INDEX, Part.FILE) for fault in self._table.faults):
            self._whole = False
            return None, None
        if before is None and sound:
            self._tell(Code.TABLE_EMPTY, None, None, "entries", "none")
        return smallest, before[1] if before is not None and sound else None

    def _check_block(
        self, handle: Handle, filters: list[FilterBlock], tree: merkle.MerkleTree | None
    ) -> tuple[bytes, bytes] | None:
        """First and last key of a data block; None if not all of it could be read."""
        faults = 0

        def report(fault: Fault) -> None:
            nonlocal faults
            faults += 1
            self._fault(fault)

        content = self._table.content(handle, Part.DATA, report)
        if content is None:
            return None
        self._blocks += 1
        self._check_first_restart(content, handle)
        first = last = None
        place: SortKey | None = None
        denied = malformed = disordered = False
        for key, value, _ in self._read(content, handle, report):
            first = key if first is None else first
            last = key
            self._entries += 1
            if (wrong := self._malformed(key)) is not None:
                if not malformed:
                    expected = f"an internal key of the {self._dialect.value} dialect"
                    self._in_block(Code.KEY_MALFORMED, handle, expected, wrong)
                malformed = True
                continue
            now = ikey.sort_key(key, self._dialect)
            if place is not None and now <= place and not disordered and self._ordered:
                disordered = True
                expected = "keys in ascending order"
                self._in_block(Code.KEY_ORDER, handle, expected, f"{_shown(key)} out of order")
            place = now
            if tree is not None and len(self._leaves) <= tree.leaves:
                self._leaves.append(merkle.leaf_hash(key, value))
            if not denied and any(
                not each.may_contain(handle.offset, key[:-_TRAILER]) for each in filters
            ):
                denied = True
                expected = "a filter that lets every key of the block pass"
                self._in_block(
                    Code.FILTER_MISSES_KEY, handle, expected, f"one that denies {_shown(key)}"
                )
        if first is None or last is None:
            if not faults:
                self._in_block(Code.TABLE_EMPTY, handle, "entries in every data block", "none")
            return None
        return None if faults or malformed or disordered else (first, last)

    def _read(
        self, content: bytes, handle: Handle, report: Callable[[Fault], None]
    ) -> Iterator[block.Entry]:
        try:
            yield from block.entries(content, handle.offset)
        except block.BlockError as error:
            length = handle.length + TRAILER_SIZE
            report(
                Fault(handle.offset, length, Part.DATA, error.reason, error.expected, error.found)
            )

    def _malformed(self, key: bytes) -> str | None:
        if len(key) < self._dialect.suffix_length:
            return f"{len(key)} bytes: {_shown(key)}"
        trailer = int.from_bytes(key[-_TRAILER:], "little")
        self._highest = max(self._highest, min(trailer >> 8, MAX_SEQUENCE))
        if trailer & 0xFF > KeyKind.PUT:
            return f"kind {trailer & 0xFF}: {_shown(key)}"
        return None

    def _check_separator(self, handle: Handle, separator: bytes, last: bytes) -> None:
        if not self._in_order(last, separator, or_equal=True):
            expected = f"a key in the index not before the last of the block, {_shown(last)}"
            self._in_block(Code.INDEX_SEPARATOR, handle, expected, _shown(separator))

    def _check_border(self, handle: Handle, separator: bytes, last: bytes, first: bytes) -> None:
        """Between two blocks, of which `handle` is the second."""
        if not self._in_order(last, first):
            expected = f"a first key behind the last of the block before, {_shown(last)}"
            self._in_block(Code.KEY_ORDER, handle, expected, _shown(first))
        elif not self._in_order(separator, first):
            expected = f"a key in the index before the first of the next block, {_shown(first)}"
            self._in_block(Code.INDEX_SEPARATOR, handle, expected, _shown(separator))

    def _in_order(self, one: bytes, other: bytes, *, or_equal: bool = False) -> bool:
        if or_equal and one == other:
            return True
        try:
            return ikey.sort_key(one, self._dialect) < ikey.sort_key(other, self._dialect)
        except FormatError:
            return False

    def _compare_trees(self, stored: merkle.MerkleTree) -> None:
        handle = self._table.merkle
        if handle is None:
            return
        for fault in merkle.compare(stored, merkle.build(self._leaves)):
            which = "" if fault.index is None else f" {fault.index}"
            self._tell(
                Code.MERKLE_MISMATCH,
                handle.offset + fault.offset,
                None,
                f"{fault.part.value}{which} {fault.expected}",
                fault.found,
            )

    def _fault(self, fault: Fault) -> None:
        """Report what the table's reader says."""
        code = _CODES[fault.reason]
        expected, found = fault.expected, fault.found
        if fault.part is Part.FOOTER:
            code = Code.TABLE_FOOTER
        if fault.reason is Reason.TOO_LARGE:
            wrong = self._streamed_checksum(fault)
            if wrong is not None:
                code, (expected, found) = Code.BLOCK_CHECKSUM, wrong
        where = "" if fault.part is Part.FOOTER else f"{fault.part.value}: "
        self._tell(code, fault.offset, fault.length, f"{where}{expected}", found)

    def _streamed_checksum(self, fault: Fault) -> tuple[str, str] | None:
        """Expected and found, if the checksum of a block is wrong that no memory should hold."""
        end = fault.offset + fault.length - 4
        checksum = 0
        for offset in itertools.count(fault.offset, _PIECE):
            piece = self._read_at(max(0, min(_PIECE, end - offset)), offset)
            if not piece:
                break
            checksum = crc32c(piece, checksum)
        stored = int.from_bytes(self._read_at(4, end), "little")
        computed = mask(checksum)
        if computed == stored:
            return None
        return f"the checksum {computed:#010x} of its bytes", f"{stored:#010x} in its trailer"

    def _in_block(self, code: Code, handle: Handle, expected: str, found: str) -> None:
        self._tell(code, handle.offset, handle.length + TRAILER_SIZE, expected, found)

    def _tell(
        self, code: Code, offset: int | None, length: int | None, expected: str, found: str
    ) -> None:
        self._report(Flaw(code, offset, length, expected, found))


def _shown(key: bytes) -> str:
    shown = repr(key[:_SHOWN])[1:]
    return shown if len(key) <= _SHOWN else f"{shown}... ({len(key)} bytes)"


def _ignore(_: object) -> None:
    """A report for faults that have been reported already."""
