"""Generations, the server record and the lock: whole or not at all, and never left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Conflict, Invalid, NotFound
from mullama.folders import is_own_folder
from mullama.store.disk import hold_lock, overwrite, write_atomic
from mullama.store.process import process_identity
from mullama.store.records import (
    KEEP_GENERATIONS,
    Records,
    Revision,
    ServerRecord,
    instance_name,
    instances,
)


def generation(number: int) -> Revision:
    return Revision(
        generation=number, revision=f"r{number}", manifest={"mullama": "v1"}, when=1.0, trigger="apply", by="me",
        origin={"path": None}, summary={}, overlay=("x",),
    )  # fmt: skip


def server(pid: int) -> ServerRecord:
    return ServerRecord(pid=pid, started=1.0, listen=("127.0.0.1:1",), control="/c", manifest=None, version="1")


def test_the_last_generation_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    records = Records(tmp_path, "x")
    assert records.last() is None

    for number in (1, 2, 3):
        records.commit(generation(number))

    assert records.last() == generation(3)
    assert [g.generation for g in records.history()] == [3, 2, 1]
    assert records.find(2) == generation(2)
    with pytest.raises(NotFound, match="stored revisions: 3, 2, 1"):
        records.find(9)


def test_only_the_newest_generations_are_kept(tmp_path: Path) -> None:
    records = Records(tmp_path, "x")
    for number in range(1, KEEP_GENERATIONS + 6):
        records.commit(generation(number))

    kept = [g.generation for g in records.history()]
    assert kept == list(range(KEEP_GENERATIONS + 5, 5, -1))


@given(junk=st.binary(max_size=200))
def test_a_damaged_generation_is_set_aside_and_the_one_before_counts(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    records = Records(tmp_path_factory.mktemp("records"), "x")
    records.commit(generation(1))
    path = records.folder / "generations" / "00000002.json"
    path.write_bytes(junk)

    assert records.last() == generation(1)
    assert not path.exists()


def test_a_generation_of_another_format_is_refused_and_kept(tmp_path: Path) -> None:
    records = Records(tmp_path, "x")
    records.commit(generation(1))
    path = records.folder / "generations" / "00000001.json"
    path.write_text(json.dumps({"format": "mullama.generation/9", "sha256": "", "body": "{}"}))

    with pytest.raises(Invalid, match="generation/9"):
        records.last()
    assert path.exists()


def test_a_changed_byte_of_a_generation_is_noticed(tmp_path: Path) -> None:
    records = Records(tmp_path, "x")
    records.commit(generation(1))
    path = records.folder / "generations" / "00000001.json"
    path.write_bytes(path.read_bytes().replace(b"r1", b"r7"))

    assert records.last() is None


def test_the_record_of_a_server_whose_process_is_gone_counts_as_none(tmp_path: Path) -> None:
    records = Records(tmp_path, "x")
    records.announce(server(os.getpid()))
    assert records.server() == server(os.getpid())

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    records.announce(server(gone.pid))

    assert records.server() is None
    records.withdraw(os.getpid())
    assert (records.folder / "server.json").read_bytes().strip()
    records.withdraw(gone.pid)
    assert not (records.folder / "server.json").read_bytes().strip()


def _full(*arguments: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_a_write_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "x"))) as raised:
        write_atomic(tmp_path / "x", b"some data")
    assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_held_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", _full)
    with hold_lock(tmp_path / "lock", "serve"), pytest.raises(Conflict), hold_lock(tmp_path / "lock", "apply"):
        pass


@pytest.mark.parametrize(
    ("data", "written", "content"),
    [(b"ab", True, b"ab  "), (b"", True, b"    "), (b"abcd", True, b"abcd"), (b"abcde", False, b"1234")],
)
def test_a_file_is_overwritten_in_its_own_space(tmp_path: Path, data: bytes, written: bool, content: bytes) -> None:
    (tmp_path / "f").write_bytes(b"1234")

    assert overwrite(tmp_path / "f", data) is written
    assert (tmp_path / "f").read_bytes() == content
    assert overwrite(tmp_path / "none", data) is False


def test_a_server_is_recorded_over_the_one_before_when_the_file_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, *, durable: bool = True) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    records = Records(tmp_path, "x")
    records.announce(server(os.getpid()))
    records.withdraw(os.getpid())
    monkeypatch.setattr("mullama.store.records.write_atomic", full)

    records.announce(server(os.getpid()))

    assert records.server() == server(os.getpid())
    with pytest.raises(OSError, match=r"server\.json"):
        Records(tmp_path, "y").announce(server(os.getpid()))


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    records = Records(tmp_path, "x")
    here = server(os.getpid())._replace(process_identity=process_identity(os.getpid()))
    records.announce(here)
    path = records.folder / "server.json"
    path.write_text(path.read_text().replace('"process_identity"', '"birth"'))

    assert records.server() == here


def test_a_second_holder_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    records = Records(tmp_path, "x")

    with records.lock("apply"), pytest.raises(Conflict, match=rf"pid {os.getpid()} \(apply"), records.lock("apply"):
        pass

    with records.lock("again"):
        pass


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    records = Records(tmp_path, "x")
    code = (
        "import sys, pathlib; from mullama.store.records import Records\n"
        f"with Records(pathlib.Path({str(tmp_path)!r}), 'x').lock('apply'): print('held', flush=True); input()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline().strip() == b"held"
    with pytest.raises(Conflict), records.lock("me"):
        pass

    child.kill()
    child.wait()
    child.stdout.close()
    child.stdin.close()

    with records.lock("me"):
        pass


@pytest.mark.parametrize("damaged", ["", "{", "null", "[]", '"x"', '{"u": 5}', '{"../x": {"from": "builtin:tiny"}}'])
def test_a_damaged_overlay_becomes_that_of_the_last_revision(tmp_path: Path, damaged: str) -> None:
    records = Records(tmp_path, "x")
    models = {name: {"from": "builtin:tiny", "system": name} for name in ("x", "declared")}
    manifest = {"mullama": "v1", "models": models, "routes": {"default": "x", "other": "declared"}}
    records.commit(generation(1)._replace(manifest=manifest, overlay=("x", "default")))
    (records.folder / "overlay.json").write_text(damaged)

    kept = {"x": models["x"], "default": {"route": "x"}}
    assert records.overlay() == kept
    assert (records.folder / "overlay.corrupt").read_text() == damaged
    assert records.overlay() == kept, "the next process reads the same"


def test_the_overlay_is_kept_and_a_damaged_one_set_aside(tmp_path: Path) -> None:
    records = Records(tmp_path, "x")
    assert records.overlay() == {}
    records.save_overlay({"a": {"from": "builtin:tiny"}})
    assert records.overlay() == {"a": {"from": "builtin:tiny"}}

    (records.folder / "overlay.json").write_text("{")

    assert records.overlay() == {}


@pytest.mark.parametrize(
    ("listen", "path", "name"),
    [
        (("127.0.0.1:11434",), None, "127.0.0.1-11434"),
        (("unix:./a.sock",), None, "unix-.-a.sock"),
        (("[::1]:80",), None, "1-80"),
        ((), None, "none"),
    ],
)
def test_an_instance_is_named_by_its_first_address(listen: tuple[str, ...], path: str | None, name: str) -> None:
    assert instance_name(listen, path) == name


def test_a_port_that_is_chosen_later_leaves_the_name_to_the_file() -> None:
    one, two = (instance_name(("127.0.0.1:0",), path) for path in ("/a", "/b"))

    assert one != two
    assert one.startswith("file-")


def test_instances_are_the_folders_that_exist(tmp_path: Path) -> None:
    assert instances(tmp_path / "none") == ()
    Records(tmp_path, "b").create()
    Records(tmp_path, "a").create()

    assert [records.instance for records in instances(tmp_path)] == ["a", "b"]


def test_states_in_memory_end_with_the_server(tmp_path: Path) -> None:
    records = Records(tmp_path, "main")
    folder = records.memory_folder
    if folder is None:
        pytest.skip("this machine has no file system in memory")
    assert is_own_folder(folder)
    (folder / "a.prefix").touch()
    records.free_memory()
    assert not folder.exists()
    records.free_memory()
