"""The entry point of a database: from CURRENT to the live manifest, or why not (SPEC section 9).

An entry point that is gone while the files are still there is what makes people, and engines that
create what is missing, put a new database over an old one. Both ways in refuse that here.
"""

from __future__ import annotations

from collections.abc import Collection

from avccfs.errors import MetaError
from avccfs.format.filename import CURRENT, FileDesc, Kind
from avccfs.storage.contract import Storage


def find_manifest(storage: Storage) -> FileDesc:
    """The live manifest.

    Raises `MetaError` if the entry point is missing or corrupted, or names no manifest;
    `FileNotFoundError` only if there is no database file at all.
    """
    try:
        desc = storage.get_meta()
    except MetaError as error:
        raise _missing(str(error), error.file) from error
    except FileNotFoundError as error:
        present = storage.list(Kind.NUMBERED)
        if not present:
            raise
        raise _missing(_listed(present), CURRENT) from error
    if desc.kind is not Kind.MANIFEST:
        raise MetaError(
            f"{CURRENT} names {desc}: expected the name of a manifest, found that of another kind "
            "of file. Write the name of the newest whole manifest and a newline into it",
            file=CURRENT,
        )
    return desc


def demand_nothing_there(storage: Storage, own: Collection[FileDesc]) -> None:
    """Raise `MetaError` where a new database would lie over what may be an old one.

    `own` are files that an earlier attempt of the caller's own could not clear away: where nothing
    else is, they and what became of CURRENT then do not count.
    """
    present = [desc for desc in storage.list(Kind.NUMBERED) if desc not in own]
    try:
        desc = storage.get_meta()
    except FileNotFoundError:
        if present:
            raise _missing(_listed(present), CURRENT) from None
    except MetaError as error:
        if present or not own:
            raise _missing(str(error), error.file) from error
    else:
        raise MetaError(
            f"there is a database already: expected an empty storage, found {CURRENT} naming "
            f"{desc}. Recover it instead of creating a new one",
            file=CURRENT,
        )


def _missing(found: str, file: str) -> MetaError:
    return MetaError(
        f"the entry point of the database is missing or corrupted: expected {CURRENT} to name the "
        f"live manifest, found {found.rstrip('.')}. Do not create a new database over it: write "
        f"the name of the newest whole manifest and a newline into {CURRENT}, or rebuild the "
        "manifest from the tables, on a copy first",
        file=file,
    )


def _listed(present: list[FileDesc]) -> str:
    names = ", ".join(str(desc) for desc in present[:5])
    return f"none, but {names}{' ...' if len(present) > 5 else ''}"
