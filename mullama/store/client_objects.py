"""Objects that clients store (responses, chat completions), in one SQLite file of the state folder.

Each belongs to an owner: the name of an API key, "" without keys. No other owner can read it. The oldest are deleted
when the file exceeds its bound, all when their time is over.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mullama.store.sqlite_file import SqliteFile
from mullama.struct import Struct, field

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS objects (
    number INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
    created REAL NOT NULL, model TEXT NOT NULL, metadata TEXT NOT NULL, data TEXT NOT NULL, size INTEGER NOT NULL,
    UNIQUE (owner, kind, id));
CREATE INDEX IF NOT EXISTS by_created ON objects (created);
CREATE INDEX IF NOT EXISTS by_size ON objects (size);
"""
_COLUMNS: Final = "kind, id, created, model, metadata, data"


class ObjectRecord(Struct, frozen=True, kw_only=True):
    """One stored object. Its data is JSON text."""

    kind: str
    id: str
    created: float
    """Unix time in seconds."""
    data: str
    model: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectQuery(Struct, frozen=True, kw_only=True):
    """One page of the objects of a kind, in the order in which they were stored."""

    kind: str
    limit: int
    after: str | None = None
    """The id of the object before the page."""
    newest_first: bool = False
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Pairs that an object must have."""


class ObjectFile(SqliteFile):
    """Reads and writes the file. Objects that were created before `since` count as deleted."""

    tables = _TABLES
    purpose = "stored objects need"

    def put(self, owner: str, record: ObjectRecord, *, most: int) -> None:
        """Store or replace an object. most: the bound of all objects in bytes; the oldest are deleted above it.

        An object that is larger than the bound is not stored.
        """
        metadata = json.dumps(dict(record.metadata))
        size = len(record.data.encode()) + len(metadata)
        if size > most:
            return

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO objects (owner, kind, id, created, model, metadata, data, size)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (owner, kind, id) DO UPDATE SET"
                " model = excluded.model, metadata = excluded.metadata, data = excluded.data, size = excluded.size",
                (owner, record.kind, record.id, record.created, record.model, metadata, record.data, size),
            )
            _shrink(db, most)

        self._run(work, create=True)

    def give(self, owners: Mapping[str, str]) -> None:
        """Give the objects of each owner to another one, which keeps its own of the same id."""

        def work(db: sqlite3.Connection) -> None:
            for old, new in owners.items():
                db.execute("UPDATE OR IGNORE objects SET owner = ? WHERE owner = ?", (new, old))

        self._run(work)

    def get(self, owner: str, kind: str, id: str, *, since: float) -> ObjectRecord | None:
        rows = self._run(
            lambda db: db.execute(
                f"SELECT {_COLUMNS} FROM objects WHERE owner = ? AND kind = ? AND id = ? AND created >= ?",
                (owner, kind, id, since),
            ).fetchall()
        )
        return _record(rows[0]) if rows else None

    def delete(self, owner: str, kind: str, id: str) -> bool:
        """Delete an object; return False for one that does not exist."""
        return bool(
            self._run(
                lambda db: (
                    db.execute(
                        "DELETE FROM objects WHERE owner = ? AND kind = ? AND id = ?", (owner, kind, id)
                    ).rowcount
                )
            )
        )

    def page(self, owner: str, query: ObjectQuery, *, since: float) -> tuple[tuple[ObjectRecord, ...], bool] | None:
        """Return the objects of one page, and True if more follow; None for an unknown `after`."""
        return self._run(lambda db: _page(db, owner, query, since)) or (None if query.after else ((), False))

    def purge(self, *, since: float) -> int:
        """Delete the objects that were created before; return their number."""
        return self._run(lambda db: db.execute("DELETE FROM objects WHERE created < ?", (since,)).rowcount) or 0


def _shrink(db: sqlite3.Connection, most: int) -> None:
    (total,) = db.execute("SELECT COALESCE(SUM(size), 0) FROM objects").fetchone()
    if total <= most:
        return
    for number, size in db.execute("SELECT number, size FROM objects ORDER BY number").fetchall():
        if total <= most:
            return
        db.execute("DELETE FROM objects WHERE number = ?", (number,))
        total -= size


def _page(
    db: sqlite3.Connection, owner: str, query: ObjectQuery, since: float
) -> tuple[tuple[ObjectRecord, ...], bool] | None:
    where, values = "owner = ? AND kind = ? AND created >= ?", [owner, query.kind, since]
    if query.after is not None:
        found = db.execute(f"SELECT number FROM objects WHERE {where} AND id = ?", (*values, query.after)).fetchone()
        if found is None:
            return None
        where += f" AND number {'<' if query.newest_first else '>'} ?"
        values.append(found[0])
    if query.model is not None:
        where += " AND model = ?"
        values.append(query.model)
    order = "DESC" if query.newest_first else "ASC"
    rows = db.execute(f"SELECT {_COLUMNS} FROM objects WHERE {where} ORDER BY number {order}", values)
    chosen: list[ObjectRecord] = []
    for record in _matching(rows, query.metadata):
        if len(chosen) == query.limit:
            return tuple(chosen), True
        chosen.append(record)
    return tuple(chosen), False


def _matching(rows: sqlite3.Cursor, metadata: Mapping[str, str]) -> Iterator[ObjectRecord]:
    for row in rows:
        record = _record(row)
        if metadata.items() <= record.metadata.items():
            yield record


def _record(row: tuple[Any, ...]) -> ObjectRecord:
    kind, id, created, model, metadata, data = row
    return ObjectRecord(kind=kind, id=id, created=created, model=model, metadata=json.loads(metadata), data=data)
