"""Usage by key, route and model, in one SQLite file: sums by minute, hour and day, and no text of any request."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

from mullama.store.sqlite_file import SqliteFile
from mullama.struct import Struct

Subject = Literal["key", "route", "model"]
SUBJECTS: Final[tuple[Subject, ...]] = get_args(Subject)
Span = Literal["minute", "hour", "day"]
SECONDS: Final[Mapping[Span, int]] = {"minute": 60, "hour": 3600, "day": 86400}
"""The length of each span. Days are those of UTC."""
SUMS: Final = (
    "requests", "errors", "cancelled", "prompt_tokens", "cached_tokens", "generated_tokens", "drafted_tokens",
    "accepted_tokens", "seconds",
)  # fmt: skip
"""The columns that are added up."""

_DAY: Final = 86400.0
_KEPT: Final[Mapping[Span, float]] = {
    "minute": 2 * _DAY,
    "hour": 31 * _DAY,
}  # at most; days have no limit
_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS usage (
    span INTEGER NOT NULL, start INTEGER NOT NULL, key TEXT NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL,
    {", ".join(f"{name} REAL NOT NULL" if name == "seconds" else f"{name} INTEGER NOT NULL" for name in SUMS)},
    PRIMARY KEY (span, start, key, route, model)) WITHOUT ROWID;
"""
_COLUMNS: Final = f"span, start, key, route, model, {', '.join(SUMS)}"
_SUM_UP: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
_ADD: Final = (
    f"INSERT INTO usage ({_COLUMNS}) VALUES ({', '.join('?' * (5 + len(SUMS)))}) ON CONFLICT DO UPDATE SET {_SUM_UP}"
)


class UsageRow(Struct, frozen=True, kw_only=True):
    """The sums of one minute."""

    minute: int
    """Its start in Unix seconds."""
    key: str
    """The name of the API key, "" without one."""
    route: str
    model: str
    sums: tuple[float, ...]
    """In the order of `SUMS`."""


class UsageQuery(Struct, frozen=True, kw_only=True):
    """The sums of a time."""

    since: float
    """Unix time in seconds."""
    by: Sequence[Subject] = ()
    span: Span | None = None
    """One row for each span; None for one over the whole time."""


class UsageFile(SqliteFile):
    """Reads and writes the file."""

    tables = _TABLES
    purpose = "the records of usage need"

    def add(self, rows: Iterable[UsageRow]) -> None:
        """Add the rows to the sums of their minute, hour and day, all or none."""
        values = [
            (length, row.minute // length * length, row.key, row.route, row.model, *row.sums)
            for row in rows
            for length in SECONDS.values()
        ]
        self._run(lambda db: db.executemany(_ADD, values), create=True)

    def read(self, query: UsageQuery, now: float) -> list[dict[str, Any]]:
        """Return the sums, largest number of tokens first; with `span`, in order of time.

        Each row has the subjects, the sums and, with `span`, its `start`. The time begins at the start of the shortest
        span that is kept for as long.
        """
        found = self._run(lambda db: _read(db, query, now))
        return found or []

    def last_used(self) -> dict[str, int]:
        """Return the start of the last minute in which each key was used, in Unix seconds, by its name.

        A key whose minutes are no longer kept has the start of its last hour or day.
        """
        found = self._run(lambda db: db.execute("SELECT key, MAX(start) FROM usage GROUP BY key").fetchall())
        return dict(found or ())

    def rename(self, renames: Iterable[tuple[Subject, str, str]]) -> None:
        """Give the sums of each (subject, old name, new name) to the new name, all or none.

        A request that names its model has the name as its route, too, so a model is renamed in both.
        """

        all_renames = tuple(renames)

        def work(db: sqlite3.Connection) -> None:
            for subject, old, new in all_renames:
                columns = _COLUMNS.replace(subject, ":new", 1)
                if subject == "model":
                    columns = columns.replace("route", "CASE route WHEN :old THEN :new ELSE route END", 1)
                names = {"old": old, "new": new}
                db.execute(
                    f"INSERT INTO usage ({_COLUMNS}) SELECT {columns} FROM usage WHERE {subject} = :old"
                    f" ON CONFLICT DO UPDATE SET {_SUM_UP}",
                    names,
                )
                db.execute(f"DELETE FROM usage WHERE {subject} = :old", names)

        self._run(work)

    def purge(self, keep: float, now: float) -> None:
        """Delete what is older than `keep` seconds, and shorter spans earlier than that."""

        def work(db: sqlite3.Connection) -> None:
            for span, length in SECONDS.items():
                kept = min(keep, _KEPT.get(span, keep))
                db.execute("DELETE FROM usage WHERE span = ? AND start < ?", (length, now - kept - length))

        self._run(work)


def _read(db: sqlite3.Connection, query: UsageQuery, now: float) -> list[dict[str, Any]]:
    # A longer span than that of the rows is summed up from them.
    age = now - query.since
    length = next((SECONDS[span] for span, kept in _KEPT.items() if age <= kept), SECONDS["day"])
    subjects: list[str] = list(query.by)
    if query.span is not None:
        length = min(length, SECONDS[query.span])
        subjects = [f"start / {SECONDS[query.span]} * {SECONDS[query.span]}", *subjects]
    sums = [f"SUM({name})" for name in SUMS]
    places = ", ".join(str(place + 1) for place in range(len(subjects)))
    grouped = f"GROUP BY {places}" if subjects else ""
    order = f"{'1, ' if query.span else ''}SUM(prompt_tokens + generated_tokens) DESC"
    rows = db.execute(
        f"SELECT {', '.join([*subjects, *sums])} FROM usage WHERE span = ? AND start >= ? {grouped} ORDER BY {order}",
        (length, int(query.since) // length * length),
    )
    names = [*(["start"] if query.span else []), *query.by, *SUMS]
    return [dict(zip(names, row, strict=True)) for row in rows if row[-1] is not None]
