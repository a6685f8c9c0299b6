"""Carrying the changes of an overlay into the directory below, so that any moment may be the last.

1. *Stage.* Every new or changed file is built in `.avccfs-commit`, complete and synced (`staging`),
   and the plan is written (`planning` makes it, `plan` keeps it). Until it is durable nothing has
   begun.
2. *Carry out* the plan, strictly (`carrying`). Whoever finds it finishes it: nothing else is needed
   than the directory itself.
3. *Settle.* The overlay forgets its changes; then the plan goes, then the rest of the folder.

What holds in a crash, on the weakest disk (`crash.model`): before the plan is durable the database
is as it was. From then on CURRENT leads to the old manifest or the new one, and every file that this
one needs is there, new ones complete. Running the commit again ends with what the overlay showed.

Two things take a disk on which renames are atomic, as with any journaling file system. A file whose
bytes changed under its name is then old or new; else its name may be missing until the commit is run
again. And a folder that is taken away is then in one place; half of such a rename cannot be mended.
"""

from avccfs.storage.commit.run import Unfinished, commit, resume, unfinished

__all__ = ["Unfinished", "commit", "resume", "unfinished"]
