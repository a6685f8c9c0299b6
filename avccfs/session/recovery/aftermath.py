"""The names in a directory while an engine opens it, and the numbers that it hands out.

Engines number what they create from what the manifest says. After a stale or damaged manifest such
a number may belong to a file that exists: it is cut to nothing and written anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from avccfs.format.filename import FileDesc, Kind, name_of
from avccfs.session.engines import Profile, names_of, understand_all


class Aftermath:
    """What becomes of the names."""

    def __init__(self, names: Iterable[str], next_number: int) -> None:
        self.present = set(names)
        self.deleted: list[str] = []
        self.overwritten: list[str] = []
        self.next_number = next_number
        """The first number that is not handed out."""
        self._before = frozenset(self.present)

    def mark(self, number: int) -> None:
        """From now on numbers are above this one."""
        self.next_number = max(self.next_number, number + 1)

    def create(self, kind: Kind) -> int:
        """Create a file with the next number, and return that."""
        number = self.next_number
        self.next_number += 1
        name = name_of(FileDesc(number, kind))
        if name in self.present and name in self._before and name not in self.overwritten:
            self.overwritten.append(name)
        self.present.add(name)
        return number

    def rewrite(self, name: str) -> None:
        """Replace a file by another one of that name."""
        if name in self._before:
            self.overwritten.append(name)
        self.present.add(name)

    def remove_name(self, name: str) -> bool:
        """Remove a name; whether it was there."""
        if name not in self.present:
            return False
        self.present.discard(name)
        if name in self._before:
            self.deleted.append(name)
        return True

    def remove(self, desc: FileDesc) -> bool:
        """Remove a file under the first of its names; whether there was one."""
        return any(self.remove_name(name) for name in names_of(desc))

    def missing(self, number: int) -> bool:
        """Whether no table of that number is there under a name that engines look for."""
        names = names_of(FileDesc(number, Kind.TABLE))
        return not any(name in self.present for name in names)

    def tables_listed(self, numbers: set[int], profile: Profile) -> int:
        """How many names in the directory the engine takes for tables of these numbers."""
        found = understand_all(self.present, profile)
        return sum(1 for named in found if named.kind is Kind.TABLE and named.number in numbers)
