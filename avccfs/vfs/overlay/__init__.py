"""A copy-on-write overlay: try anything on a directory, and leave it as it is.

`Overlay(lower)` shows the lower directory and keeps every change in memory; `Overlay(lower, upper)`
keeps them in a directory of this layout:

    LOCK             the lock of the directory, held while the overlay is open
    ledger-<n>       what is remembered of names and nodes (`ledger`, `state`); the highest complete
                     one counts. Its first record names the format, the source and its listing
    data/<n>         our bytes of one file, sparse, at their own offsets (`content`)
    data/<n>.blocks  one byte for each block of it: 1 where the block is ours and not the source's
"""

from __future__ import annotations

from avccfs.vfs.overlay.listing import LowerChangedError
from avccfs.vfs.overlay.opening import UpperError, source_of
from avccfs.vfs.overlay.overlay import Overlay

__all__ = ["LowerChangedError", "Overlay", "UpperError", "source_of"]
