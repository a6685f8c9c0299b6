"""What an engine would do with a directory, said beforehand (SPEC section 9).

    prediction = predict(LocalDirectory(path), PROFILES[Engine.GOLEVELDB])
    prediction.opens, prediction.keys, prediction.loss.keys, prediction.deleted_files

The directory is read, never changed, and no lock is taken: it may be in use, and then the prediction
is about a moment of which parts may be over. Any damage is answered, never raised; only an error of
listing the directory passes through. Memory does not grow with the size of the database: tables are
streamed, what journals hold beyond some megabytes is sorted aside into temporary files.
"""

from __future__ import annotations

from avccfs.errors import UsageError
from avccfs.format.ikey import Dialect
from avccfs.session.engines import Profile
from avccfs.session.folder import Folder
from avccfs.session.recovery import goleveldb, leveldb, loss, rebuild
from avccfs.session.recovery.findings import Findings
from avccfs.session.recovery.prediction import Call, Fate, Prediction
from avccfs.vfs.base import Directory

__all__ = ["Call", "Fate", "Prediction", "predict", "predict_rebuild"]


def predict(
    directory: Directory, profile: Profile, *, dialect: Dialect | None = None
) -> Prediction:
    """What opening does, with the engine's default options and without creating what is missing.

    `dialect` is the form of internal keys in the database; None has it found out.
    """
    return _predict(directory, profile, Call.OPEN, dialect)


def predict_rebuild(
    directory: Directory, profile: Profile, *, dialect: Dialect | None = None
) -> Prediction:
    """What the engine's own rebuild does: goleveldb's `RecoverFile`, and avccDB's.

    Raises `UsageError` for LevelDB, whose repair is another matter.
    """
    if not profile.rebuilds:
        raise UsageError(
            f"{profile.title} has no rebuild that can be predicted: ask for goleveldb or avccdb"
        )
    return _predict(directory, profile, Call.REBUILD, dialect)


def _predict(
    directory: Directory, profile: Profile, call: Call, dialect: Dialect | None
) -> Prediction:
    folder = Folder(directory)
    found = Findings(folder, profile, call, dialect or folder.dialect())
    if call is Call.REBUILD:
        rebuild.predict_rebuild(folder, found)
    elif profile.like_goleveldb:
        goleveldb.predict_open(folder, found)
    else:
        leveldb.predict_open(folder, found)
    found.loss = loss.count(folder, found)
    return found.prediction()
