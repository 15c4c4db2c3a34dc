"""The files of clients: whole or not at all, with mode and links, and recorded so that they come back byte for byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mullama.errors import Conflict, Invalid, TooLarge
from mullama.store import client_files
from mullama.store.client_files import (
    ClientRecords,
    EditedFile,
    digest_of,
    missing_folders,
    read_client_file,
    remove_client_file,
    write_client_file,
)
from mullama.struct import replace


def edit(path: str, before: bytes | None, after: bytes) -> EditedFile:
    return EditedFile(client="codex", path=path, before=before, after=digest_of(after), values={"a.b": 1})


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    records = ClientRecords(tmp_path)
    assert records.all() == ()
    first = records.add("/m.yaml", 1.0, [edit("/f", b"\xff\x00old", b"new"), edit("/g", None, b"x")])
    second = records.add(None, 2.0, [edit("/f", b"new", b"newer")])
    assert records.all() == (first, second)
    assert (first.number, second.number) == (1, 2)
    assert records.values() == {"/f": {"a.b": 1}, "/g": {"a.b": 1}}
    records.save(replace(second, files=()))
    assert records.all() == (first,)


def test_the_base_is_the_file_before_all_applies(tmp_path: Path) -> None:
    records = ClientRecords(tmp_path)
    assert records.base_of("/f", b"one") is None
    records.add(None, 1.0, [edit("/f", b"one", b"two"), edit("/new", None, b"x")])
    records.add(None, 2.0, [edit("/f", b"two", b"three")])
    assert records.base_of("/f", b"three") == b"one"
    assert records.base_of("/new", b"x") == b""
    assert records.base_of("/f", b"changed") is None
    assert records.base_of("/f", None) is None
    records.add(None, 3.0, [edit("/f", b"changed", b"four")])
    assert records.base_of("/f", b"four") == b"changed"


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    records = ClientRecords(tmp_path)
    records.add(None, 1.0, [edit("/f", None, b"x")])
    [path] = (tmp_path / "clients").glob("*.json")
    path.write_text("{}")
    with pytest.raises(Invalid, match=str(path)):
        records.all()


def test_a_file_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles" / "config.toml", tmp_path / "home" / "config.toml"
    real.parent.mkdir()
    link.parent.mkdir()
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)

    write_client_file(str(link), b"new", b"old")

    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o640
    assert list(real.parent.iterdir()) == [real]


def test_a_new_file_is_for_its_user_alone_and_goes_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "f"
    folders = missing_folders(str(path))
    assert folders == (str(tmp_path / "a"), str(tmp_path / "a" / "b"))
    write_client_file(str(path), b"x", None)
    assert path.stat().st_mode & 0o777 == 0o600

    (tmp_path / "a" / "other").write_text("")
    remove_client_file(str(path), folders)

    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["other"]


def test_a_link_that_leads_nowhere_leads_to_the_new_file(tmp_path: Path) -> None:
    link = tmp_path / "f"
    link.symlink_to(tmp_path / "there" / "f")
    write_client_file(str(link), b"x", None)
    assert (tmp_path / "there" / "f").read_bytes() == b"x"
    assert link.is_symlink()


def test_a_file_that_has_changed_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"theirs")
    for expected in (b"old", None):
        with pytest.raises(Conflict, match="just been changed"):
            write_client_file(str(path), b"new", expected)
    assert path.read_bytes() == b"theirs"


def test_a_write_that_fails_leaves_the_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=str(path)):
        write_client_file(str(path), b"new", b"old")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_files_of_a_reasonable_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_client_file(str(tmp_path / "none")) is None
    with pytest.raises(IsADirectoryError):
        read_client_file(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Invalid, match="is not a file"):  # and is not waited for
        read_client_file(str(tmp_path / "pipe"))
    monkeypatch.setattr(client_files, "MOST_BYTES", 3)
    (tmp_path / "f").write_bytes(b"1234")
    with pytest.raises(TooLarge, match="larger than"):
        read_client_file(str(tmp_path / "f"))
