"""Stores of other tools: found by digest and by name, never through a link that leads out, never written."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from mullama.errors import MullamaError
from mullama.names import HubRef, PathRef, RegistryRef
from mullama.store.foreign import Foreign, Roots, usual_roots
from tests.stub_hub import sha256

DATA, COMMIT = b"weights", "c" * 40
NAME = sha256(DATA)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A Hugging Face cache with one snapshot of one file."""
    root = tmp_path / "hub"
    repository = root / "models--org--m"
    for folder in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (repository / folder).mkdir(parents=True)
    (repository / "blobs" / NAME).write_bytes(DATA)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / f"snapshots/{COMMIT}/m-Q8_0.gguf").symlink_to(f"../../blobs/{NAME}")
    return root


@pytest.fixture
def ollama(tmp_path: Path) -> Path:
    """An Ollama store with one model of two layers."""
    root = tmp_path / "ollama"
    (root / "blobs").mkdir(parents=True)
    layers = []
    for kind, data in (("model", DATA), ("template", b"{{ .Prompt }}")):
        (root / "blobs" / f"sha256-{sha256(data)}").write_bytes(data)
        media = f"application/vnd.ollama.image.{kind}"
        layers.append({"mediaType": media, "digest": f"sha256:{sha256(data)}", "size": len(data)})
    manifest = root / "manifests" / "registry.ollama.ai" / "library" / "mini" / "latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return root


MINI = RegistryRef("registry.ollama.ai", "library", "mini", "latest")


def test_a_file_is_found_by_its_digest_in_either_store(hub: Path, ollama: Path) -> None:
    in_hub = Foreign(Roots(huggingface=(str(hub),))).by_digest(f"sha256:{NAME}", len(DATA))
    assert list(in_hub) == [str(hub / "models--org--m" / "blobs" / NAME)]
    store = Foreign(Roots(ollama=(str(ollama),)))
    assert list(store.by_digest(f"sha256:{NAME}", None)) == [str(ollama / "blobs" / f"sha256-{NAME}")]
    assert list(store.by_digest(f"sha256:{NAME}", len(DATA) + 1)) == []
    assert list(store.by_digest("sha256:" + "0" * 64, None)) == []


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        (HubRef("org/m"), True),
        (HubRef("org/m", quant="Q8_0"), True),
        (HubRef("org/m", "m-q8_0.gguf"), True),
        (HubRef("org/m", revision=COMMIT), True),
        (HubRef("org/m", revision="main"), True),
        (HubRef("org/m", quant="Q4_0"), False),
        (HubRef("org/m", revision="dev"), False),
        (HubRef("org/m", revision="d" * 40), False),
        (HubRef("org/other"), False),
        (PathRef("/x.gguf"), False),
    ],
)
def test_a_snapshot_is_found_by_reference(hub: Path, ref: HubRef, found: bool) -> None:
    located = Foreign(Roots(huggingface=(str(hub),))).by_ref(ref)
    assert (located is not None) == found
    if located is not None:
        assert (located.files[0].digest, located.revision) == (f"sha256:{NAME}", COMMIT)


def test_an_ollama_model_is_found_with_all_its_layers(ollama: Path) -> None:
    foreign = Foreign(Roots(ollama=(str(ollama),)))
    located = foreign.by_ref(MINI)
    assert located is not None
    assert [file.role for file in located.files] == ["weights", "template"]
    assert foreign.registry_models() == (MINI,)
    (ollama / "blobs" / f"sha256-{sha256(b'{{ .Prompt }}')}").unlink()
    assert foreign.by_ref(MINI) is None


def test_a_model_with_a_cut_blob_is_not_found(ollama: Path) -> None:
    (ollama / "blobs" / f"sha256-{NAME}").write_bytes(DATA[:-1])
    assert Foreign(Roots(ollama=(str(ollama),))).by_ref(MINI) is None


def test_a_manifest_that_makes_no_sense_is_our_error(ollama: Path) -> None:
    (ollama / "manifests/registry.ollama.ai/library/mini/latest").write_text("nonsense")
    with pytest.raises(MullamaError, match="not JSON"):
        Foreign(Roots(ollama=(str(ollama),))).by_ref(MINI)


def test_a_link_that_leads_out_of_its_store_is_not_followed(hub: Path, ollama: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    link = hub / "models--org--m" / f"snapshots/{COMMIT}" / "m-Q8_0.gguf"
    link.unlink()
    link.symlink_to(secret)
    assert Foreign(Roots(huggingface=(str(hub),))).by_ref(HubRef("org/m")) is None
    blob = ollama / "blobs" / f"sha256-{NAME}"
    blob.unlink()
    blob.symlink_to(secret)
    assert Foreign(Roots(ollama=(str(ollama),))).by_ref(MINI) is None


def test_pipes_loops_and_broken_links_are_passed_by(ollama: Path) -> None:
    blob = ollama / "blobs" / f"sha256-{NAME}"
    foreign = Foreign(Roots(ollama=(str(ollama),)))
    for make in (
        lambda: os.mkfifo(blob),
        lambda: blob.symlink_to(blob),
        lambda: blob.symlink_to("nowhere"),
        blob.mkdir,
    ):
        blob.unlink() if blob.is_symlink() or blob.exists() else None
        make()
        assert list(foreign.by_digest(f"sha256:{NAME}", None)) == []
        assert foreign.by_ref(MINI) is None


def test_plain_folders_are_walked_to_a_bound(tmp_path: Path) -> None:
    folder = tmp_path / "gguf"
    (folder / "a" / "b").mkdir(parents=True)
    for name in ("x.gguf", "a/y.GGUF", "a/b/mmproj-z.gguf", "a/note.txt"):
        (folder / name).write_bytes(DATA)
    (folder / "loop").symlink_to(folder)
    found = Foreign(Roots(gguf=(str(folder),))).ggufs()
    assert [Path(path).name for path, _ in found] == ["mmproj-z.gguf", "y.GGUF", "x.gguf"]
    assert {size for _, size in found} == {len(DATA)}


def test_missing_and_unreadable_stores_are_no_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    roots = Roots(huggingface=(str(tmp_path / "none"), str(closed)), ollama=("/nonexistent",), gguf=(str(closed),))
    foreign = Foreign(roots)
    closed.chmod(0)
    try:
        assert list(foreign.by_digest("sha256:" + "0" * 64, None)) == []
        assert foreign.by_ref(HubRef("org/m")) is None
        assert foreign.ggufs() == ()
        assert os.geteuid() == 0 or str(closed) in foreign.problems
    finally:
        closed.chmod(0o755)


def test_nothing_in_a_foreign_store_ever_changes(hub: Path, ollama: Path) -> None:
    def state() -> list[tuple[str, int, int, int]]:
        seen = []
        for path in sorted([*hub.rglob("*"), *ollama.rglob("*")]):
            found = path.lstat()
            seen.append((str(path), found.st_mtime_ns, found.st_size, stat.S_IMODE(found.st_mode)))
        return seen

    before = state()
    foreign = Foreign(Roots(huggingface=(str(hub),), ollama=(str(ollama),), gguf=(str(hub),)))
    list(foreign.by_digest(f"sha256:{NAME}", None))
    foreign.by_ref(HubRef("org/m"))
    foreign.by_ref(MINI)
    foreign.ggufs()
    foreign.registry_models()
    assert state() == before
    writing = ("write", "remove", "delete", "put", "add", "lock", "move", "set")
    assert not [name for name in vars(Foreign) if name.startswith(writing)]


def test_the_usual_folders_follow_the_environment(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert usual_roots(home).huggingface == (str(tmp_path / ".cache/huggingface/hub"),)
    assert usual_roots({**home, "HF_HOME": "/hf"}).huggingface == ("/hf/hub",)
    assert usual_roots({**home, "HF_HUB_CACHE": "/hub"}).huggingface == ("/hub",)
    assert usual_roots({**home, "XDG_CACHE_HOME": "/c"}).huggingface == ("/c/huggingface/hub",)
    assert usual_roots({**home, "OLLAMA_MODELS": "/o"}).ollama[0] == "/o"
    assert usual_roots(home).ollama[0] == str(tmp_path / ".ollama/models")
    assert usual_roots(home, huggingface="never", ollama="/mine", gguf=("/g",)) == Roots(
        ollama=("/mine",), gguf=("/g",)
    )
