"""The index of the store: digests and headers of files, and the files of sources, so that each is read once.

The index is one SQLite file. It is a cache, and may be deleted at any time. A file is identified by path, size,
modification time, inode and device; an entry of a file that changed is not used. A damaged index is renamed to
`.corrupt`, and a new one is created.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from mullama.errors import Invalid, Unavailable, masked
from mullama.names import JSONValue
from mullama.store.blobs import Blobs
from mullama.store.disk import translate_os_errors
from mullama.store.sqlite_file import set_aside
from mullama.struct import Struct, asdict, replace
from mullama.weights import record
from mullama.weights.facts import WeightFacts
from mullama.weights.stored import PinnedFile, StoredWeights

T = TypeVar("T")
_FORMAT: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sets (paths TEXT PRIMARY KEY, stamp TEXT NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fetched (
    source TEXT PRIMARY KEY, resolved TEXT NOT NULL, revision TEXT, files TEXT NOT NULL, size INTEGER NOT NULL,
    architecture TEXT NOT NULL, quantization TEXT NOT NULL, license TEXT NOT NULL, fetched REAL NOT NULL);
"""


class Fetched(Struct, frozen=True, kw_only=True):
    """The files of a source at the time of the last download."""

    source: str
    resolved: str
    """The source after aliases, with the file and the revision that were chosen."""
    revision: str | None
    files: tuple[PinnedFile, ...]
    architecture: str = ""
    quantization: str = ""
    license: str = ""
    fetched: float = 0.0
    """The time of the download in unix seconds."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Index:
    """Reads and writes the index in the folder of the store. Safe for several threads and processes."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.blobs = Blobs(root)
        self._path = Path(root) / "index.sqlite"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def digest(self, path: str) -> str | None:
        """Return the digest of a file; None for a file that was not hashed, or has changed since."""
        row = self._one("SELECT stamp, digest FROM files WHERE path = ?", path)
        return str(row[1]) if row and row[0] == stamp(path) else None

    def seen(self, path: str) -> bool:
        """Return True for a file whose digest was kept, also if the file has changed since."""
        return self._one("SELECT 1 FROM files WHERE path = ?", path) is not None

    def remember_digest(self, path: str, digest: str, stamp: str) -> None:
        """Keep the digest of a file. stamp: the state of the file before it was hashed."""
        if stamp:
            self._execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", path, stamp, digest)

    def stamp(self, path: str) -> str:
        """See the function `stamp`."""
        return stamp(path)

    def paths_of(self, digest: str) -> tuple[str, ...]:
        """Return the files with this digest that have not changed since they were hashed, also outside of the store."""
        rows = self._all("SELECT path, stamp FROM files WHERE digest = ?", digest)
        return tuple(str(path) for path, current in rows if current == stamp(path))

    def facts(self, paths: Sequence[str]) -> WeightFacts | None:
        """Return the facts of a set of files; None for a set that was not read, or has changed since."""
        row = self._one("SELECT stamp, facts FROM sets WHERE paths = ?", "\n".join(paths))
        if not row or row[0] != "\n".join(map(stamp, paths)):
            return None
        try:
            facts = record.from_json(json.loads(row[1]))
        except (Invalid, ValueError):
            return None  # an index of another version
        # An older version did not read the control tokens and the abilities and sizes of projectors, nor weigh the
        # experts.
        unread = facts.control is None or (facts.experts.count and not any(layer.experts for layer in facts.per_layer))
        unread = unread or (facts.role == "projector" and not (facts.projector and facts.projector.work))
        return None if unread else facts

    def remember_facts(self, paths: Sequence[str], facts: WeightFacts, stamps: Sequence[str]) -> None:
        """Keep the facts of a set of files without tensors and metadata, which few requests need.

        stamps: the states of the files before they were read.
        """
        if all(stamps):
            facts = replace(facts, metadata={}, tensors=())
            text = json.dumps(record.to_json(facts), separators=(",", ":"))
            self._execute("INSERT OR REPLACE INTO sets VALUES (?, ?, ?)", "\n".join(paths), "\n".join(stamps), text)

    def fetched(self, source: str) -> Fetched | None:
        row = self._one(f"SELECT {_COLUMNS} FROM fetched WHERE source = ?", source)
        return _fetched(row) if row else None

    def remember(self, stored: StoredWeights, now: float) -> None:
        """Keep the files of a source, so that it is found without a network. now: unix seconds."""
        self.remember_fetched(
            Fetched(
                source=stored.source, resolved=stored.resolved, revision=stored.revision, files=stored.pinned,
                architecture=stored.facts.architecture, quantization=stored.facts.quantization,
                license=stored.license, fetched=now,
            )
        )  # fmt: skip

    def remember_fetched(self, entry: Fetched) -> None:
        """Keep an entry. The address of a source may have a secret: then its owner alone reads the file from now on.

        Without one, the file keeps the mode that its folder gives it, because several users may share a store.
        """
        if masked(f"{entry.source} {entry.resolved}") != f"{entry.source} {entry.resolved}":
            self._make_private()
        self._execute(
            "INSERT OR REPLACE INTO fetched VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            entry.source, entry.resolved, entry.revision, json.dumps([asdict(file) for file in entry.files]),
            entry.size, entry.architecture, entry.quantization, entry.license, entry.fetched,
        )  # fmt: skip

    def _make_private(self) -> None:
        self._execute("SELECT 1 FROM fetched LIMIT 0")  # creates the file
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError, PermissionError):  # another user's file stays as it is
                os.chmod(f"{self._path}{suffix}", 0o600)

    def forget(self, source: str) -> bool:
        """Remove the entry of a source; its files stay until a sweep."""
        return self._execute("DELETE FROM fetched WHERE source = ?", source) > 0

    def all_fetched(self) -> tuple[Fetched, ...]:
        """Return the entries of all sources, newest first."""
        rows = self._all(f"SELECT {_COLUMNS} FROM fetched ORDER BY fetched DESC, source")
        return tuple(entry for entry in map(_fetched, rows) if entry)

    def referenced(self) -> frozenset[str]:
        """Return the digests of the files of all sources."""
        return frozenset(file.digest for entry in self.all_fetched() for file in entry.files)

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        rows = self._all(query, *values)
        return rows[0] if rows else None

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        if self._connection is None and not self._path.exists():
            return []  # a query must not create the folder
        return self._run(query, values, lambda cursor: cursor.fetchall())

    def _execute(self, query: str, *values: object) -> int:
        return self._run(query, values, lambda cursor: cursor.rowcount)

    def _run(self, query: str, values: Sequence[object], result: Callable[[sqlite3.Cursor], T]) -> T:
        """Run one statement; on a damaged index, replace the index and run it again."""
        with self._lock, translate_os_errors(self._path):
            try:
                return self._once(query, values, result)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname == "SQLITE_READONLY_DBMOVED":  # the file was deleted, as the hint allows
                    self._disconnect()
                    return self._once(query, values, result)
                raise Unavailable(f"{self._path}: {error}", hint="it is a cache and may be deleted") from error
            except sqlite3.DatabaseError:
                self._set_aside()
                return self._once(query, values, result)

    def _once(self, query: str, values: Sequence[object], result: Callable[[sqlite3.Cursor], T]) -> T:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self._path)
        with self._connection, closing(self._connection.execute(query, tuple(values))) as cursor:
            return result(cursor)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_aside(self) -> None:
        self._disconnect()
        set_aside(self._path)


_COLUMNS: Final = "source, resolved, revision, files, architecture, quantization, license, fetched"


def stamp(path: str) -> str:
    """Return the identity of the state of a file; "" for a file that is missing."""
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):  # the second: a name that no file can have
        return ""


def changed(stamps: Mapping[str, str]) -> dict[str, str]:
    """Return the files that are not in the given states, with their states now; see `stamp`. stamps: by path."""
    states = {path: stamp(path) for path in stamps}
    return {path: state for path, state in states.items() if state != stamps[path]}


def stamp_of(current: os.stat_result) -> str:
    """Return the identity of the state of a file: size, modification time, inode and device."""
    return f"{current.st_size} {current.st_mtime_ns} {current.st_ino} {current.st_dev}"


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"index format {version}")
        if version != _FORMAT:  # one transaction: each of its own would wait for the disk
            connection.executescript(f"BEGIN;{_TABLES}PRAGMA user_version = {_FORMAT};COMMIT;")
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
