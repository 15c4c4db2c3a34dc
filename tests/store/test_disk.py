"""Operations on the disk: locks, atomic writes, and errors that name the path."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from mullama.errors import Conflict, Denied, MullamaError, TransferFailed, Unavailable
from mullama.store import disk
from mullama.store.disk import hold_lock, storage_error, try_lock, write_atomic


def test_an_atomic_write_leaves_no_private_file_behind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")

    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [(28, TransferFailed, "no space is left"), (122, TransferFailed, "no space"), (13, Denied, "writable"),
     (30, Denied, "writable"), (5, Unavailable, "Input/output"), (24, Unavailable, "Too many open")],
)  # fmt: skip
def test_errors_of_the_disk_name_the_path(number: int, error: type[MullamaError], words: str) -> None:
    found = storage_error(OSError(number, os.strerror(number)), "/store/blobs")
    assert isinstance(found, error)
    assert "/store/blobs" in str(found)
    assert words in str(found)


def test_a_lock_that_is_held_is_refused_with_its_holder(tmp_path: Path) -> None:
    with (
        hold_lock(tmp_path / "lock", "apply"),
        pytest.raises(Conflict, match=rf"pid {os.getpid()} \(apply"),
        hold_lock(tmp_path / "lock", "undo"),
    ):
        pass


@pytest.mark.parametrize("system_has_locks", [True, False])
def test_where_locks_do_not_work_every_lock_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system_has_locks: bool
) -> None:
    def broken(*_: object) -> None:
        raise OSError(37, "No locks available")

    if system_has_locks:
        monkeypatch.setattr(fcntl, "flock", broken)
    else:
        monkeypatch.setattr(disk, "fcntl", None)
    with hold_lock(tmp_path / "lock", "apply"), (tmp_path / "lock").open() as file:
        assert try_lock(file.fileno())


def test_a_folder_that_is_a_link_can_hold_a_file_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    write_atomic(tmp_path / "link" / "file", b"one")
    assert (tmp_path / "folder" / "file").read_bytes() == b"one"


def test_a_write_over_a_folder_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_atomic(tmp_path / "folder", b"one")
    assert caught.value.filename == str(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_without_room_for_a_file_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(OSError, match="Read-only") as caught:
        write_atomic(tmp_path / "x", b"one")
    assert (caught.value.errno, caught.value.filename) == (errno.EROFS, str(tmp_path / "x"))
