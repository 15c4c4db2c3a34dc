"""A SQLite file of the state folder. A damaged file is renamed to `.corrupt`, and a new one is created."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final, TypeVar

from mullama.errors import Unavailable
from mullama.store.disk import translate_os_errors

T = TypeVar("T")
_FORMAT: Final = 1


class SqliteFile:
    """The file, which is created with the first write. Safe for several threads; survives crashes by its WAL."""

    tables: ClassVar[str]
    """The SQL that creates the tables where they do not exist."""
    purpose: ClassVar[str]
    """The beginning of a sentence about a writable state folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _run(self, work: Callable[[sqlite3.Connection], T], *, create: bool = False) -> T | None:
        """Run one transaction; None where there is no file. A damaged file is replaced, and the work repeated.

        Raises `Unavailable` for a folder that cannot be written and for a full disk.
        """
        with self._lock, translate_os_errors(self._path):
            if self._connection is None and not create and not self._path.exists():
                return None
            try:
                return self._once(work)
            except sqlite3.OperationalError as error:
                hint = f"{self.purpose} a writable state folder"
                raise Unavailable(f"{self._path}: {error}", hint=hint) from error
            except sqlite3.DatabaseError:
                self._set_aside()
                return self._once(work)

    def _once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._connect()
        with self._connection:
            return work(self._connection)

    def _set_aside(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        set_aside(self._path)

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives its further files the permissions of the first.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _FORMAT):
                raise sqlite3.DatabaseError(f"format {version}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(self.tables)
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
        except BaseException:
            connection.close()
            raise
        return connection


def set_aside(path: Path) -> None:
    """Rename a damaged file to `.corrupt`, and delete the files that SQLite keeps beside it."""
    os.replace(path, path.with_suffix(".corrupt"))
    for left in ("-journal", "-wal", "-shm"):
        Path(f"{path}{left}").unlink(missing_ok=True)
