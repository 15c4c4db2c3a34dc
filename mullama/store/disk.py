"""Operations on files and folders: locks, durable and atomic writes, and errors of the operating system as ours."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

from mullama.errors import Conflict, Denied, MullamaError, TransferFailed, Unavailable


def _optional(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        return None


fcntl: ModuleType | None = _optional("fcntl")
"""Locks of POSIX systems; None on Windows."""
msvcrt: ModuleType | None = _optional("msvcrt")
"""Locks of Windows; None elsewhere."""

NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags that refuse a symbolic link as the last part of a path."""
FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | NOFOLLOW
"""Flags that open a folder, not a link to one."""
NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
"""Flag that opens a pipe without a wait for its other end."""


_NOT_WRITABLE = (
    "the folder must be writable: MULLAMA_CACHE_DIR sets that of the weights, MULLAMA_STATE_DIR that of the server"
)


@contextmanager
def translate_os_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise an `OSError` of the block as one of our errors that names the path."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, os.fspath(path)) from error


def storage_error(error: OSError, path: str) -> MullamaError:
    """Return the error of ours for an error of the operating system, with the path and the system's own words."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TransferFailed(
            f"no space is left: {path}: {reason}", hint="free some space and try again: downloaded data is kept"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(f"{path}: {reason}", hint=_NOT_WRITABLE)
    return Unavailable(f"{path}: {reason}", hint="check the folder of the store")


def is_full(folder: Path) -> bool:
    """Return True if the disk of a folder has no space for a file of this user."""
    if not hasattr(os, "statvfs"):
        return False
    found = os.statvfs(folder)
    return found.f_blocks > 0 and found.f_bavail == 0


def open_folder(path: Path) -> int:
    """Return a descriptor of a folder, which is created where it is missing; a link is refused."""
    with translate_os_errors(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
        return os.open(path, FOLDER)


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file. Return False when another process holds it.

    Return True also where the file system has no locks, as some network disks: there, two processes may do the same
    work, and atomic writes keep the files valid. The kernel frees the lock when the descriptor is closed or the
    process ends.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):  # the second is what Windows raises for a lock that is held
        return False
    except OSError:
        return True
    return True


def share_lock(descriptor: int) -> None:
    """Wait for the shared lock of an open file; return at once where there are no such locks."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)


@contextmanager
def hold_lock(path: Path, command: str) -> Iterator[None]:
    """Hold the exclusive lock of a file for the block, with the pid and the command written into the file.

    Raises `Conflict` with this text when another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if not try_lock(descriptor):
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() if hasattr(os, "pread") else ""
            raise Conflict(f"locked by {holder or 'another mullama'}", hint="wait for it to end, then try again")
        since = time.strftime("%H:%M:%S")
        with suppress(OSError):  # the lock is held; on a full disk its file only names no holder
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"pid {os.getpid()} ({command}, since {since})".encode())
        yield
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable. Windows cannot open a folder, and needs no such call."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace a file, durably: after a crash the path has the old bytes or the new ones.

    Every `OSError` names this path; by itself, one names the private file or, on a full disk, none.
    durable: False for a file that is void after a crash of the system, whose writer does not wait for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    private = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        private.replace(path)
    except BaseException as error:
        with suppress(OSError):  # a folder that cannot be written has no private file
            private.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    if durable:
        sync_folder(path.parent)


def overwrite(path: Path, data: bytes) -> bool:
    """Write data and spaces over the bytes of a file, which needs no space on most file systems.

    Return False if the file is shorter than the data, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | NOFOLLOW)
    except OSError:
        return False
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        try:
            return length >= len(data) and file.write(data.ljust(length)) == length
        except OSError:
            return False
