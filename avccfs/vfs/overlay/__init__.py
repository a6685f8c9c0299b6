"""A copy-on-write overlay: try anything on a directory, and leave it as it is.

`Overlay(lower)` shows the lower directory and keeps every change in memory; `Overlay(lower, upper)`
keeps them in a directory of this layout:

    LOCK             the lock of the directory, held while the overlay is open
    ledger-<n>       what is remembered of names and nodes (`ledger`, `state`); the highest complete
                     one counts. Its first record names the format, the source and its listing
    data/<n>         our bytes of one file, sparse, at their own offsets (`content`)
    data/<n>.blocks  one byte for each block of it: 1 where the block is ours and not the source's

What is promised, whatever a disk may lose that POSIX lets it lose:

- Names are those after some change, never a mixture; not one before the last that was synced.
- What was synced of a file is there, and the first sync of a file covers its name.
- A byte that was written over is the old one or the new one. So a block is marked as ours after its
  bytes are durable; our file has its full size before the ledger names it; it is cut before the
  ledger tells of a lowered limit, which is durable before it grows again; and our file of what was
  removed is deleted after the removal is durable.
- A killed process loses nothing but what was written over blocks of the source through handles that
  were neither synced nor closed.
"""

from __future__ import annotations

from avccfs.vfs.overlay.listing import LowerChangedError
from avccfs.vfs.overlay.opening import UpperError, source_of, wipe
from avccfs.vfs.overlay.overlay import Overlay

__all__ = ["LowerChangedError", "Overlay", "UpperError", "source_of", "wipe"]
