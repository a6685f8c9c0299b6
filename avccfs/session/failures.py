"""One error out of a failed step and of what failed while clearing up after it."""

from __future__ import annotations

from collections.abc import Callable

from avccfs.errors import SessionError


class Failures:
    """What failed: a step, and then perhaps more while clearing up after it."""

    def __init__(self, doing: str, error: Exception) -> None:
        self._causes = [error]
        self._texts = [_told(doing, error)]

    def add(self, doing: str, error: Exception) -> None:
        """One failure more, met while `doing` something."""
        self._causes.append(error)
        self._texts.append(_told(doing, error))

    def attempt(self, doing: str, step: Callable[[], object]) -> bool:
        """Whether the step succeeded; if not, it is one failure more."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - reported with the first failure
            self.add(doing, error)
            return False
        return True

    def error(self, outcome: str, *, settled: bool) -> SessionError:
        """The error that names them all, and how things stand now."""
        return SessionError(
            f"{'; then '.join(self._texts)}. {outcome}",
            causes=tuple(self._causes),
            settled=settled,
        )


def _told(doing: str, error: Exception) -> str:
    return f"{doing} failed: {type(error).__name__}: {error}"
