"""A mistake in a manifest, and its place in a file.

Apart from `errors`, because a command that only asks the server would wait longer for these two classes than for its
answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.errors import masked
from mullama.struct import Struct, force_setattr


class Location(Struct, frozen=True):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Problem(Struct, frozen=True):
    """One mistake in a manifest: dotted path of the field, place, message, hint."""

    path: str
    place: Location | None
    message: str
    hint: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "message", masked(self.message))
        force_setattr(self, "hint", masked(self.hint))

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{path}{self.message}{hint}"

    def tree(self) -> dict[str, str | int | None]:
        """Return the problem in its JSON form; `from_tree` reads it."""
        place = self.place
        return {
            "path": self.path,
            "file": place.file if place else None,
            "line": place.line if place else None,
            "column": place.column if place else None,
            "message": self.message,
            "hint": self.hint,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Problem:
        """Return the problem of a JSON form."""
        place = Location(tree["file"], tree["line"], tree["column"]) if tree.get("file") else None
        return cls(str(tree.get("path") or ""), place, str(tree["message"]), str(tree.get("hint") or ""))
