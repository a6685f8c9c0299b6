"""goleveldb's rebuild, `Recover`, and avccDB's, step by step (SPEC section 9).

It looks at no meta file and no manifest. Every table with at least one good key goes to level 0; a
table with damaged blocks is written anew without them. Then come all journals, as in an opening;
batches below the highest sequence number in the tables are skipped.

The copy is made with the plain comparer, which does not know of sequence numbers: it fails where a
damaged table holds a key twice, and with it the whole rebuild.
"""

from __future__ import annotations

from dataclasses import replace

from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.format.manifest import BYTEWISE_COMPARER, AddedTable
from avccfs.session.engines import names_of, understand_all
from avccfs.session.folder import Folder, Opened
from avccfs.session.recovery.findings import Findings
from avccfs.session.recovery.goleveldb import meta_files, replay_and_read
from avccfs.session.recovery.keyspace import ReadError, Status
from avccfs.session.recovery.prediction import Fate, TableRebuild
from avccfs.session.recovery.tablescan import Damage, goleveldb_entries, is_good_key
from avccfs.session.state import EMPTY, SessionState
from avccfs.storage.explain import explain_meta

_OUT_OF_ORDER = "leveldb/table: Writer: keys are not in increasing order"


def predict_rebuild(folder: Folder, found: Findings) -> None:
    """Fill in what happens. Errors of listing the directory pass through."""
    found.error = _Rebuild(folder, found).run()


class _Rebuild:
    def __init__(self, folder: Folder, found: Findings) -> None:
        self._folder = folder
        self._found = found
        self._after = found.aftermath
        self._highest = 0
        self._added: dict[int, AddedTable] = {}
        self._temporary = 0

    def run(self) -> str | None:
        report = explain_meta(self._folder.directory)
        why = "a rebuild does not look at it, and writes a new CURRENT"
        self._found.meta = tuple(replace(file, wins=False, why=why) for file in meta_files(report))
        tables = [
            named
            for named in understand_all(self._folder.names, self._found.profile)
            if named.kind is Kind.TABLE
        ]
        if tables:
            self._after.mark(tables[-1].number)
        for named in tables:
            error = self._table(named.number, named.name)
            if error is not None:
                return error
        manifest = self._after.create(Kind.MANIFEST)
        state = self._state(manifest)
        self._found.state = state
        pending = [c.name for c in report.pending]
        if pending:
            self._found.notes.append(
                f"the rebuild leaves {', '.join(pending)} in place: at the next opening such a file "
                "wins over the new CURRENT if it names a greater manifest that exists. Move it away"
            )
        return replay_and_read(self._folder, self._found, state, None, new_manifest=manifest)

    def _state(self, manifest: int) -> SessionState:
        levels = {0: tuple(self._added[number] for number in sorted(self._added))}
        return replace(
            EMPTY,
            comparer=BYTEWISE_COMPARER,
            next_file_number=self._after.next_number,
            journal_number=0,
            sequence=self._highest,
            levels=levels if self._added else {},
            manifest=FileDesc(manifest, Kind.MANIFEST),
        )

    def _table(self, number: int, name: str) -> str | None:
        """Take over a table; returns why the whole rebuild fails."""
        desc = FileDesc(number, Kind.TABLE)
        label = self._folder.label
        try:
            with self._folder.opened(names_of(desc)) as opened:
                return self._recover(desc, opened.name, opened)
        except OSError as failure:
            problem = (failure.strerror or str(failure)).lower()
            # It tells of the last name that it tried.
            tried = names_of(desc)[-1] if desc.valid else name
            return f"open {label}/{tried}: {problem}"
        except ReadError as failure:
            return str(failure)

    def _recover(self, desc: FileDesc, name: str, file: Opened) -> str | None:
        damage = Damage()
        good = bad = 0
        highest = 0
        smallest = largest = previous = b""
        ascending = True
        status = Status()
        for key, _ in goleveldb_entries(file, file.size, self._folder.label, status, damage):
            if not is_good_key(key):
                bad += 1
                continue
            if good and previous >= key:
                ascending = False
            smallest = smallest if good else key
            largest = previous = key
            good += 1
            highest = max(highest, int.from_bytes(key[-7:], "little"))
        self._found.uncertain = self._found.uncertain or status.doubt
        damaged = f"{damage.blocks} damaged blocks, {bad} keys that cannot be"
        if not good:
            why = f"no good key in it ({damaged}): it is left out, and deleted"
            self._note(name, Fate.DROPPED, 0, why)
            return None
        if damage.blocks or bad:
            if not ascending:
                self._note(name, Fate.DROPPED, good, f"{damaged}; {_OUT_OF_ORDER}")
                return _OUT_OF_ORDER
            # The copy takes the new name even if the table had the old one, which then stays.
            self._after.remove_name(f"{self._temporary:06d}.tmp")
            self._temporary += 1
            self._after.rewrite(name_of(desc))
            self._found.rewritten.add(desc.number)
            self._note(name, Fate.PARTLY, good, f"written anew without {damaged}")
        else:
            self._note(name, Fate.KEPT, good, "goes to level 0")
        self._highest = max(self._highest, highest)
        self._added[desc.number] = AddedTable(0, desc.number, file.size, smallest, largest)
        return None

    def _note(self, name: str, fate: Fate, keys: int, why: str) -> None:
        self._found.tables.append(TableRebuild(name, fate, keys, why))
