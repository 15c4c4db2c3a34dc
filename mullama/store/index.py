"""What was fetched and what was read before, so that a second run hashes and parses nothing again.

One SQLite file, a cache: it may be deleted at any time. A file is known by path, size, modification time and
inode together; whatever changed is unknown again. A damaged index is set aside and begun anew.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from mullama.errors import Invalid, Unavailable
from mullama.names import JSONValue
from mullama.store.blobs import Blobs
from mullama.store.disk import translate_os_errors
from mullama.weights import record
from mullama.weights.facts import WeightFacts
from mullama.weights.stored import PinnedFile, StoredWeights

Got = TypeVar("Got")
_FORMAT: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sets (paths TEXT PRIMARY KEY, stamp TEXT NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fetched (
    source TEXT PRIMARY KEY, resolved TEXT NOT NULL, revision TEXT, files TEXT NOT NULL, size INTEGER NOT NULL,
    architecture TEXT NOT NULL, quantization TEXT NOT NULL, license TEXT NOT NULL, fetched REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a source text stood for when it was last fetched. Moments in unix seconds, size in bytes."""

    source: str
    resolved: str
    revision: str | None
    files: tuple[PinnedFile, ...]
    architecture: str = ""
    quantization: str = ""
    license: str = ""
    fetched: float = 0.0

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Index:
    """The index under the store's folder. Safe for several threads and processes."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.blobs = Blobs(root)
        self._path = Path(root) / "index.sqlite"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def digest(self, path: str) -> str | None:
        """The digest of a file that has not changed since it was hashed."""
        row = self._one("SELECT stamp, digest FROM files WHERE path = ?", path)
        return str(row[1]) if row and row[0] == stamp(path) else None

    def remember_digest(self, path: str, digest: str) -> None:
        seen = stamp(path)
        if seen:
            self._change("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", path, seen, digest)

    def paths_of(self, digest: str) -> tuple[str, ...]:
        """Files, not ours perhaps, that had this digest and have not changed since."""
        rows = self._all("SELECT path, stamp FROM files WHERE digest = ?", digest)
        return tuple(str(path) for path, seen in rows if seen == stamp(path))

    def facts(self, paths: Sequence[str]) -> WeightFacts | None:
        """What the headers of this set said, when no file of it has changed."""
        row = self._one("SELECT stamp, facts FROM sets WHERE paths = ?", "\n".join(paths))
        if not row or row[0] != _stamps(paths):
            return None
        try:
            return record.from_json(json.loads(row[1]))
        except (Invalid, ValueError):
            return None  # written by another version: read the header again

    def remember_facts(self, paths: Sequence[str], facts: WeightFacts) -> None:
        """Keep what was read, without tensors and metadata: those are read again for the rare wish to see them."""
        seen = _stamps(paths)
        if seen:
            facts = replace(facts, metadata={}, tensors=())
            text = json.dumps(record.to_json(facts), separators=(",", ":"))
            self._change("INSERT OR REPLACE INTO sets VALUES (?, ?, ?)", "\n".join(paths), seen, text)

    def fetched(self, source: str) -> Fetched | None:
        row = self._one(f"SELECT {_COLUMNS} FROM fetched WHERE source = ?", source)
        return _fetched(row) if row else None

    def remember(self, stored: StoredWeights, now: float) -> None:
        """Keep what a source stood for, so that it is found again without a network. now: unix seconds."""
        self.remember_fetched(
            Fetched(
                source=stored.source, resolved=stored.resolved, revision=stored.revision, files=stored.pinned,
                architecture=stored.facts.architecture, quantization=stored.facts.quantization,
                license=stored.license, fetched=now,
            )
        )  # fmt: skip

    def remember_fetched(self, entry: Fetched) -> None:
        self._change(
            "INSERT OR REPLACE INTO fetched VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            entry.source, entry.resolved, entry.revision, json.dumps([asdict(file) for file in entry.files]),
            entry.size, entry.architecture, entry.quantization, entry.license, entry.fetched,
        )  # fmt: skip

    def forget(self, source: str) -> bool:
        """Remove the record of a source; its files stay until they are swept."""
        return self._change("DELETE FROM fetched WHERE source = ?", source) > 0

    def all_fetched(self) -> tuple[Fetched, ...]:
        """Every source that was fetched, the newest first."""
        rows = self._all(f"SELECT {_COLUMNS} FROM fetched ORDER BY fetched DESC, source")
        return tuple(entry for entry in map(_fetched, rows) if entry)

    def referenced(self) -> frozenset[str]:
        """The digests of all files that a fetched source refers to."""
        return frozenset(file.digest for entry in self.all_fetched() for file in entry.files)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        rows = self._all(query, *values)
        return rows[0] if rows else None

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        if self._connection is None and not self._path.exists():
            return []  # nothing was ever stored: looking must not create the folder
        return self._run(query, values, lambda cursor: cursor.fetchall())

    def _change(self, query: str, *values: object) -> int:
        return self._run(query, values, lambda cursor: cursor.rowcount)

    def _run(self, query: str, values: Sequence[object], result: Callable[[sqlite3.Cursor], Got]) -> Got:
        """One statement; a damaged index is set aside and the statement run on a new one."""
        with self._lock, translate_os_errors(self._path):
            try:
                return self._once(query, values, result)
            except sqlite3.OperationalError as error:
                raise Unavailable(f"{self._path}: {error}", hint="it is a cache and may be deleted") from error
            except sqlite3.DatabaseError:
                self._set_aside()
                return self._once(query, values, result)

    def _once(self, query: str, values: Sequence[object], result: Callable[[sqlite3.Cursor], Got]) -> Got:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self._path)
        with self._connection, closing(self._connection.execute(query, tuple(values))) as cursor:
            return result(cursor)

    def _set_aside(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        os.replace(self._path, self._path.with_suffix(".corrupt"))
        for left in ("-journal", "-wal", "-shm"):
            Path(f"{self._path}{left}").unlink(missing_ok=True)


_COLUMNS: Final = "source, resolved, revision, files, architecture, quantization, license, fetched"


def stamp(path: str) -> str:
    """What identifies the state of a file, "" when it is not there."""
    try:
        seen = os.stat(path)
    except OSError:
        return ""
    return f"{seen.st_size} {seen.st_mtime_ns} {seen.st_ino}"


def _stamps(paths: Sequence[str]) -> str:
    seen = [stamp(path) for path in paths]
    return "\n".join(seen) if all(seen) else ""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"index format {version}")
        connection.executescript(_TABLES)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
    except BaseException:
        connection.close()
        raise
    return connection


def _fetched(row: tuple[Any, ...]) -> Fetched | None:
    source, resolved, revision, files, architecture, quantization, license_, moment = row
    try:
        pinned = tuple(_pinned(item) for item in json.loads(files))
    except (ValueError, TypeError, KeyError):
        return None
    return Fetched(
        source=source, resolved=resolved, revision=revision, files=pinned, architecture=architecture,
        quantization=quantization, license=license_, fetched=moment,
    )  # fmt: skip


def _pinned(item: Mapping[str, JSONValue]) -> PinnedFile:
    return PinnedFile(**item)  # type: ignore[arg-type]
