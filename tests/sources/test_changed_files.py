"""Files that change after they were found: another digest, never the old one, and a good copy where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mullama.errors import MullamaError, TransferFailed, Unavailable
from mullama.sources.library import find_stored
from mullama.store.foreign import Roots
from mullama.weights.located import expecting
from tests import ggufs
from tests.sources.source_fixture import DATA, SourceFixture
from tests.stub_hub import StubHub, sha256

DIGEST = f"sha256:{sha256(DATA)}"
OTHER = ggufs.model(layers=3).bytes()
COMMIT = "a" * 40


def _overwrite(path: Path, data: bytes) -> None:
    """Overwrite in place: the inode stays. The file system's clock may be coarse, so the time is set."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(data)
    new.rename(path)


def _flip(path: Path) -> None:
    _overwrite(path, DATA[:-1] + bytes([DATA[-1] ^ 1]))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a flipped bit in a tensor": _flip,
    "cut": lambda path: _overwrite(path, DATA[:-1000]),
    "noise at its beginning": lambda path: _overwrite(path, b"\x00" * 64 + DATA[64:]),
    "another model": lambda path: _replace(path, OTHER),
    "empty": lambda path: _overwrite(path, b""),
    "missing": Path.unlink,
}


def _hub_cache(root: Path) -> tuple[Roots, Path]:
    repository = root / "hub" / "models--org--m"
    blob = repository / "blobs" / sha256(DATA)
    blob.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    blob.write_bytes(DATA)
    (snapshot / "m-Q8_0.gguf").symlink_to(blob)
    return Roots(huggingface=(str(root / "hub"),)), blob


def _ollama_store(root: Path) -> tuple[Roots, Path]:
    blob = root / "ollama" / "blobs" / f"sha256-{sha256(DATA)}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(DATA)
    return Roots(ollama=(str(root / "ollama"),)), blob


def _folder(root: Path) -> tuple[Roots, Path]:
    path = root / "gguf" / "m.gguf"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return Roots(gguf=(str(path.parent),)), path


def _own_store(root: Path) -> tuple[Roots, Path]:
    return Roots(), root / "store" / "blobs" / f"sha256-{sha256(DATA)}"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("store", [_hub_cache, _ollama_store, _folder, _own_store])
def test_a_damaged_copy_does_not_hide_the_good_one_of_the_hub(
    sources: SourceFixture, hub: StubHub, store: Callable[[Path], tuple[Roots, Path]], damage: Callable[[Path], None]
) -> None:
    roots, path = store(sources.root)
    owner = SourceFixture(sources.root, sources.settings, roots)
    first = owner.pull("hf:org/m:Q8_0")
    assert (first.files, first.digest) == ((str(path),), DIGEST)

    damage(path)

    planned = find_stored("hf:org/m:Q8_0", owner.index, owner.foreign)
    assert planned is None or planned.digest != DIGEST
    with pytest.raises(MullamaError):
        owner.pull("hf:org/m:Q8_0", offline=True)
    again = owner.pull("hf:org/m:Q8_0")
    assert again.digest == DIGEST
    assert Path(again.files[0]).read_bytes() == DATA
    assert again.files[0] == str(_own_store(sources.root)[1])


@pytest.mark.parametrize("name", ["a flipped bit in a tensor", "cut", "noise at its beginning"])
def test_a_copy_that_was_damaged_before_its_first_use_is_replaced(
    sources: SourceFixture, hub: StubHub, name: str
) -> None:
    roots, blob = _hub_cache(sources.root)
    DAMAGE[name](blob)
    owner = SourceFixture(sources.root, sources.settings, roots)

    stored = owner.pull("hf:org/m:Q8_0")

    assert (stored.digest, stored.in_place) == (DIGEST, False)
    assert owner.pull("hf:org/m:Q8_0", offline=True).files == stored.files


def test_a_damaged_copy_of_one_tool_does_not_hide_the_good_one_of_another(sources: SourceFixture, hub: StubHub) -> None:
    hub_roots, bad = _hub_cache(sources.root)
    ollama_roots, good = _ollama_store(sources.root)
    _flip(bad)
    roots = Roots(huggingface=hub_roots.huggingface, ollama=ollama_roots.ollama)
    owner = SourceFixture(sources.root, sources.settings, roots)

    assert owner.pull("hf:org/m:Q8_0").files == (str(good),)
    assert not hub.asked("m-Q8_0.gguf")


@pytest.mark.parametrize("change", [_overwrite, _replace])
def test_a_file_of_the_user_has_the_digest_of_its_present_bytes(
    sources: SourceFixture, change: Callable[[Path, bytes], None]
) -> None:
    path = sources.root / "m.gguf"
    path.write_bytes(DATA)
    before = sources.pull(str(path))

    change(path, OTHER)

    found = find_stored(str(path), sources.index, sources.foreign)
    assert found is not None
    assert (found.digest, found.facts.layers) == (f"sha256:{sha256(OTHER)}", 3)
    assert found.stamps != before.stamps
    with pytest.raises(TransferFailed, match=f"changed from {DIGEST} to sha256:{sha256(OTHER)}"):
        sources.library.ensure(expecting(sources.library.locate(str(path)), DIGEST), lambda _: None, lambda: False)


def test_a_later_part_of_a_split_set_counts_too(sources: SourceFixture) -> None:
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for name, part in zip(names, ggufs.split(ggufs.model(), 2), strict=True):
        (sources.root / name).write_bytes(part)
    source = str(sources.root / names[0])
    before = sources.pull(source)

    second = (sources.root / names[1]).read_bytes()
    _overwrite(sources.root / names[1], second[:-1] + bytes([second[-1] ^ 1]))

    found = find_stored(source, sources.index, sources.foreign)
    assert found is not None
    assert found.digest != before.digest
    assert found.facts == before.facts


def test_a_file_that_changes_while_it_is_hashed_is_an_error_and_not_remembered(
    sources: SourceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sources.root / "m.gguf"
    path.write_bytes(DATA)
    from mullama.sources import fetch

    real = fetch.hashed

    def change(*arguments: object) -> str:
        digest = real(*arguments)  # type: ignore[arg-type]
        _overwrite(path, OTHER)
        return digest

    monkeypatch.setattr(fetch, "hashed", change)
    with pytest.raises(Unavailable, match="changed while it was read"):
        sources.pull(str(path))
    monkeypatch.setattr(fetch, "hashed", real)
    assert sources.pull(str(path)).digest == f"sha256:{sha256(OTHER)}"


def test_a_file_of_the_user_does_not_stand_in_for_a_download(sources: SourceFixture, hub: StubHub) -> None:
    mine = sources.root / "my.gguf"
    mine.write_bytes(DATA)
    sources.pull(str(mine))

    pulled = sources.pull("hf:org/m:Q8_0")

    assert pulled.files == (str(_own_store(sources.root)[1]),)
    assert not pulled.in_place
    assert not hub.asked("m-Q8_0.gguf"), "the bytes are copied from the user's file"
    assert Path(pulled.files[0]).stat().st_nlink == 1, "a link would change with the user's file"
    _overwrite(mine, OTHER)
    mine.unlink()
    assert sources.pull("hf:org/m:Q8_0", offline=True).digest == DIGEST
    sources.check_blobs()


def test_a_declared_folder_stands_in_until_it_is_no_longer_declared(sources: SourceFixture, hub: StubHub) -> None:
    roots, path = _folder(sources.root)
    owner = SourceFixture(sources.root, sources.settings, roots)
    assert owner.pull("hf:org/m:Q8_0").files == (str(path),)

    assert find_stored("hf:org/m:Q8_0", sources.index, sources.foreign) is None
    shutil.rmtree(path.parent)
    assert owner.pull("hf:org/m:Q8_0").digest == DIGEST
