"""What was fetched and read before: believed only while the files have not changed."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from mullama.errors import Denied, Unavailable
from mullama.store.index import Fetched, Index
from mullama.struct import replace
from mullama.weights.inspect import inspect
from mullama.weights.stored import PinnedFile
from tests import ggufs

DIGEST = "sha256:" + "a" * 64
FACTS = inspect([ggufs.reader(ggufs.model().bytes())])
ENTRY = Fetched(
    source="hf:org/m", resolved="hf:org/m:m.gguf@x", revision="c" * 40,
    files=(PinnedFile(name="m.gguf", size=5, digest=DIGEST),), architecture="llama", license="mit", fetched=5.0,
)  # fmt: skip


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "store")


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"hello")
    return str(path)


def test_the_index_is_private_once_an_address_in_it_has_a_secret(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "store/index.sqlite"
    index.remember_fetched(replace(ENTRY, source="https://h.example/m.gguf?token=from_env:NAME"))
    before = path.stat().st_mode & 0o777
    signed = "https://h.example/m.gguf?sig=abc"
    index.remember_fetched(replace(ENTRY, source=signed))
    modes = {file.stat().st_mode & 0o777 for file in path.parent.glob("index.sqlite*")}
    assert modes == {0o600}
    assert before & 0o400
    assert {entry.source for entry in index.all_fetched()} >= {signed}


def test_looking_creates_nothing(index: Index, file: str, tmp_path: Path) -> None:
    assert index.digest(file) is None
    assert index.facts([file]) is None
    assert index.all_fetched() == ()
    assert not (tmp_path / "store").exists()


def test_digest_and_facts_are_kept_while_the_file_is_the_same(index: Index, file: str, tmp_path: Path) -> None:
    index.remember_digest(file, DIGEST, index.stamp(file))
    index.remember_facts([file], FACTS, [index.stamp(file)])
    again = Index(tmp_path / "store")
    assert again.digest(file) == DIGEST
    assert again.paths_of(DIGEST) == (file,)
    assert again.facts([file]) == FACTS
    assert again.facts([file]).tensors == ()  # type: ignore[union-attr]


@pytest.mark.parametrize("change", ["content", "time", "inode", "gone"])
def test_whatever_changed_is_unknown_again(index: Index, file: str, change: str) -> None:
    index.remember_digest(file, DIGEST, index.stamp(file))
    index.remember_facts([file], FACTS, [index.stamp(file)])
    path = Path(file)
    if change == "content":
        path.write_bytes(b"hello!")
    elif change == "time":
        os.utime(file, ns=(1, 1))
    elif change == "inode":
        times = path.stat()
        other = path.with_suffix(".new")
        other.write_bytes(b"hello")
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.replace(other, path)
    else:
        path.unlink()
    assert index.digest(file) is None
    assert index.paths_of(DIGEST) == ()
    assert index.facts([file]) is None


def test_a_set_is_unknown_when_one_part_changed(index: Index, file: str, tmp_path: Path) -> None:
    second = tmp_path / "n.gguf"
    second.write_bytes(b"n")
    index.remember_facts([file, str(second)], FACTS, [index.stamp(file), index.stamp(str(second))])
    assert index.facts([file, str(second)]) == FACTS
    assert index.facts([str(second), file]) is None
    second.write_bytes(b"nn")
    assert index.facts([file, str(second)]) is None


def test_what_a_source_stood_for_is_kept_replaced_and_forgotten(index: Index) -> None:
    index.remember_fetched(ENTRY)
    assert index.fetched("hf:org/m") == ENTRY
    index.remember_fetched(replace(ENTRY, revision="d" * 40, fetched=6.0))
    assert [entry.revision for entry in index.all_fetched()] == ["d" * 40]
    assert index.referenced() == {DIGEST}
    assert index.forget("hf:org/m")
    assert not index.forget("hf:org/m")
    assert index.referenced() == frozenset()


@pytest.mark.parametrize(
    "damage", [b"", b"not a database at all, not even nearly", b"SQLite format 3\0" + b"\xff" * 500]
)
def test_a_damaged_index_is_set_aside_and_begun_anew(index: Index, file: str, tmp_path: Path, damage: bytes) -> None:
    index.remember_digest(file, DIGEST, index.stamp(file))
    index.close()
    path = tmp_path / "store" / "index.sqlite"
    path.write_bytes(damage)
    assert index.digest(file) is None
    index.remember_digest(file, DIGEST, index.stamp(file))
    assert Index(tmp_path / "store").digest(file) == DIGEST
    assert not damage or path.with_suffix(".corrupt").read_bytes() == damage


def test_an_index_that_was_deleted_while_it_is_open_is_made_again(index: Index, file: str, tmp_path: Path) -> None:
    index.remember_digest(file, DIGEST, index.stamp(file))
    shutil.rmtree(tmp_path / "store")
    index.remember_digest(file, DIGEST, index.stamp(file))
    assert Index(tmp_path / "store").digest(file) == DIGEST


def test_a_store_that_cannot_be_made_is_told_with_its_path(tmp_path: Path, file: str) -> None:
    (tmp_path / "store").write_text("a file in the way")
    with pytest.raises((Unavailable, Denied), match=str(tmp_path / "store")):
        Index(tmp_path / "store").remember_digest(file, DIGEST, "1 2 3 4")


def test_many_threads_use_it_at_once(index: Index, file: str) -> None:
    def work(number: int) -> None:
        for step in range(10):
            index.remember_fetched(replace(ENTRY, source=f"hf:org/m{number}-{step}"))
            assert index.fetched(f"hf:org/m{number}-{step}") is not None

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index.all_fetched()) == 40
