"""The file of stored objects: owners, order, bounds, lifetime, permissions and damage."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mullama.errors import Unavailable
from mullama.store.client_objects import ObjectFile, ObjectQuery, ObjectRecord

EVER = float("-inf")
MUCH = 2**30


def record(id: str, created: float = 1.0, data: str = "{}", **more: object) -> ObjectRecord:
    return ObjectRecord(kind="response", id=id, created=created, data=data, **more)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "objects.sqlite"


@pytest.fixture
def file(path: Path) -> ObjectFile:
    return ObjectFile(path)


def ids(file: ObjectFile, owner: str = "a", **query: object) -> tuple[list[str], bool]:
    found = file.page(owner, ObjectQuery(**{"kind": "response", "limit": 10, **query}), since=EVER)  # type: ignore[arg-type]
    assert found is not None
    return [one.id for one in found[0]], found[1]


def test_an_object_belongs_to_its_owner_and_survives_a_restart(file: ObjectFile, path: Path) -> None:
    kept = record("r1", data='{"a": "ü"}', model="m", metadata={"k": "v"})
    assert file.get("a", "response", "r1", since=EVER) is None
    assert not path.exists(), "a query creates no file"
    file.put("a", kept, most=MUCH)
    file.close()
    again = ObjectFile(path)
    assert again.get("a", "response", "r1", since=EVER) == kept
    assert again.get("b", "response", "r1", since=EVER) is None
    assert again.get("a", "chat.completion", "r1", since=EVER) is None
    assert not again.delete("b", "response", "r1")
    assert again.delete("a", "response", "r1")
    assert again.get("a", "response", "r1", since=EVER) is None
    again.close()


def test_only_the_user_can_read_the_files(file: ObjectFile, path: Path) -> None:
    file.put("a", record("r1"), most=MUCH)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    file.close()
    assert set(modes) >= {"objects.sqlite", "objects.sqlite-wal"}
    assert set(modes.values()) == {0o600}


def test_objects_are_listed_page_by_page_with_filters(file: ObjectFile) -> None:
    for i in range(5):
        metadata = {"even": str(i % 2 == 0), "n": str(i)}
        file.put("a", record(f"r{i}", model="x" if i < 3 else "y", metadata=metadata), most=MUCH)
    file.put("b", record("other"), most=MUCH)
    assert ids(file) == (["r0", "r1", "r2", "r3", "r4"], False)
    assert ids(file, limit=2) == (["r0", "r1"], True)
    assert ids(file, limit=2, after="r1") == (["r2", "r3"], True)
    assert ids(file, limit=2, after="r3") == (["r4"], False)
    assert ids(file, limit=2, newest_first=True) == (["r4", "r3"], True)
    assert ids(file, limit=9, newest_first=True, after="r2") == (["r1", "r0"], False)
    assert ids(file, model="y") == (["r3", "r4"], False)
    assert ids(file, metadata={"even": "True"}) == (["r0", "r2", "r4"], False)
    assert ids(file, metadata={"even": "True"}, model="x", limit=1) == (["r0"], True)
    assert file.page("a", ObjectQuery(kind="response", limit=1, after="other"), since=EVER) is None
    file.close()


def test_a_replaced_object_keeps_its_place_and_its_time(file: ObjectFile) -> None:
    for id in ("r0", "r1"):
        file.put("a", record(id, created=5.0), most=MUCH)
    file.put("a", record("r0", created=9.0, metadata={"k": "new"}), most=MUCH)
    assert ids(file)[0] == ["r0", "r1"]
    found = file.get("a", "response", "r0", since=EVER)
    assert found is not None
    assert (found.created, found.metadata) == (5.0, {"k": "new"})
    file.close()


def test_objects_end_with_their_time(file: ObjectFile) -> None:
    for i in range(3):
        file.put("a", record(f"r{i}", created=float(i)), most=MUCH)
    assert file.get("a", "response", "r0", since=1.0) is None
    page = file.page("a", ObjectQuery(kind="response", limit=9), since=1.0)
    assert page is not None
    assert [one.id for one in page[0]] == ["r1", "r2"]
    assert ids(file)[0] == ["r0", "r1", "r2"]
    assert file.purge(since=1.0) == 1
    assert ids(file)[0] == ["r1", "r2"]
    file.close()


def test_the_oldest_objects_make_room(file: ObjectFile) -> None:
    for i in range(5):
        file.put(f"owner {i % 2}", record(f"r{i}", data="x" * 98), most=300)  # and 2 bytes of metadata
    assert ids(file, "owner 0")[0] == ["r2", "r4"]
    assert ids(file, "owner 1")[0] == ["r3"]
    file.put("owner 0", record("huge", data="x" * 400), most=300)
    assert ids(file, "owner 0")[0] == ["r2", "r4"], "an object above the bound is not stored, and displaces none"
    file.close()


def test_a_damaged_file_is_set_aside(file: ObjectFile, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 100)
    file.put("a", record("r1"), most=MUCH)
    assert ids(file)[0] == ["r1"]
    assert path.with_suffix(".corrupt").exists()
    file.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = ObjectFile(tmp_path / "file" / "objects.sqlite")
    with pytest.raises(Unavailable, match="file"):
        blocked.put("a", record("r1"), most=MUCH)
