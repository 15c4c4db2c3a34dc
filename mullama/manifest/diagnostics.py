"""The list of mistakes that reading a manifest collects, so that all of them are shown at once."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.errors import Location, ManifestError, Problem
from mullama.names import suggest

MOST_PROBLEMS = 200
MOST_SUGGESTIONS = 20


class Suggestions:
    """Near names for hints. They cost more than all the rest of a check, so only the first mistakes get them."""

    def __init__(self) -> None:
        self._left = MOST_SUGGESTIONS

    def __call__(self, wanted: str, names: Iterable[str]) -> str:
        """`did you mean …?`, or nothing."""
        if self._left <= 0:
            return ""
        self._left -= 1
        close = suggest(wanted[:200], names)
        return f"did you mean {' or '.join(close)}?" if close else ""


class Diagnostics:
    """Collects problems, says each only once, and raises them together in the order of the text."""

    def __init__(self) -> None:
        self._problems: dict[tuple[Location | None, str], Problem] = {}
        self._settled: set[Location] = set()
        self.suggest = Suggestions()

    def add(self, path: str, place: Location | None, message: str, hint: str = "") -> None:
        self.extend((Problem(path, place, message, hint),))

    def settle(self, path: str, place: Location, message: str, hint: str = "") -> None:
        """A mistake that would draw others after it: what is said of this place later is left out."""
        self.add(path, place, message, hint)
        self._settled.add(place)

    def extend(self, problems: Iterable[Problem]) -> None:
        """What stands in `defaults` is wrong in every model, at one place: it is said once."""
        for problem in problems:
            if problem.place in self._settled:
                continue
            key = (problem.place, problem.message if problem.place else f"{problem.path} {problem.message}")
            self._problems.setdefault(key, problem)

    def check(self) -> None:
        """Raises `ManifestError` when there is anything to say."""
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
