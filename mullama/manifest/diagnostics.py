"""Collects the mistakes of a manifest, to report all of them at once."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.errors import ManifestError
from mullama.names import suggest
from mullama.problems import Location, Problem

MOST_PROBLEMS = 200
MOST_SUGGESTIONS = 20


class Suggestions:
    """Similar names for hints. The search is slow, so only the first mistakes get one."""

    def __init__(self) -> None:
        self._left = MOST_SUGGESTIONS

    def __call__(self, wanted: str, names: Iterable[str]) -> str:
        """Return `did you mean …?`, or an empty text."""
        if self._left <= 0:
            return ""
        self._left -= 1
        close = suggest(wanted[:200], names)
        return f"did you mean {' or '.join(close)}?" if close else ""


class Diagnostics:
    """Collects problems without duplicates, and raises them together in the order of the text."""

    def __init__(self) -> None:
        self._problems: dict[tuple[Location | None, str], Problem] = {}
        self._settled: set[Location] = set()
        self.suggest = Suggestions()

    def add(self, path: str, place: Location | None, message: str, hint: str = "") -> None:
        self.extend((Problem(path, place, message, hint),))

    def settle(self, path: str, place: Location, message: str, hint: str = "") -> None:
        """Add a mistake that causes others; later problems at its place are dropped."""
        self.add(path, place, message, hint)
        self._settled.add(place)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add problems. A mistake in `defaults` occurs in each model at one place and is added once."""
        for problem in problems:
            if problem.place in self._settled:
                continue
            key = (problem.place, problem.message if problem.place else f"{problem.path} {problem.message}")
            self._problems.setdefault(key, problem)

    def check(self) -> None:
        """Raise `ManifestError` if there are problems."""
        if not self._problems:
            return
        found = sorted(self._problems.values(), key=_order)
        if len(found) > MOST_PROBLEMS:
            more = Problem("", None, f"and {len(found) - MOST_PROBLEMS} more problems")
            found = [*found[:MOST_PROBLEMS], more]
        raise ManifestError(tuple(found))


def _order(problem: Problem) -> tuple[str, int, int]:
    place = problem.place
    return (place.file, place.line, place.column) if place else ("", 0, 0)
