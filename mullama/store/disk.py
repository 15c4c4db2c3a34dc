"""The few things the store does to a disk, and what the disk's own errors mean to a user."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

from mullama.errors import Denied, MullamaError, TransferFailed, Unavailable

fcntl: ModuleType | None
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows has no such locks: there, as on some network disks, work may be done twice
    fcntl = None

NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
"""Open what the name says, never what a link at its end points to."""
FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | NOFOLLOW
NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
"""Never wait for the other end of a pipe."""


@contextmanager
def told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an error of the disk into one of ours that names the path."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, os.fspath(path)) from error


def storage_error(error: OSError, path: str) -> MullamaError:
    """What an error of the disk means, with the path and the system's own words."""
    said = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TransferFailed(
            f"no space is left: {path}: {said}", hint="free some space and try again: what was fetched is kept"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(f"{path}: {said}", hint="the store must be writable: see MULLAMA_CACHE_DIR")
    return Unavailable(f"{path}: {said}", hint="check the folder of the store")


def folder(path: Path) -> int:
    """A descriptor of a folder of the store, created where it is missing; a link is refused."""
    with told(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
        return os.open(path, FOLDER)


def try_lock(descriptor: int) -> bool:
    """False when another holds the lock; True when it is ours, and also where locks do not work."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def share_lock(descriptor: int) -> None:
    """Wait until nobody holds the lock alone, then hold it with others, where locks work."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(path, FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
