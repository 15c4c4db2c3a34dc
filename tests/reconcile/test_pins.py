"""The pins of a manifest come from the manifest first, then from the lock file next to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.errors import Invalid
from mullama.manifest.load import load_text
from mullama.manifest.spec import Manifest
from mullama.names import LOCK_NAME
from mullama.reconcile.pins import lock_digest, lock_path, pinned, pins_of, read_lock, read_locked_tools, tool_pins_of
from mullama.store import lockfile
from mullama.weights.facts import ProjectorFacts
from mullama.weights.stored import LockEntry, PinnedFile

OWN, LOCKED, OTHER = ("sha256:" + digit * 64 for digit in "abc")
HUB, PLAIN = "hf:org/m:Q8_0", "https://x.org/m.gguf"
MANIFEST = f"""mullama: v1
models:
  m: {HUB}
lock:
  sources:
    {HUB}:
      resolved: hf:org/m:m.gguf@{"d" * 40}
      files: [{{name: m.gguf, size: 5, digest: "{OWN}"}}]
  tools:
    docs: {{search: "{OWN}"}}
"""


def entry(source: str, digest: str, *beside: PinnedFile) -> LockEntry:
    files = (PinnedFile(name="m.gguf", size=5, digest=digest), *beside)
    return LockEntry(source=source, resolved=source, revision=None, files=files)


def declared(folder: Path) -> Manifest:
    return load_text(MANIFEST, name="mullama.yaml", base_dir=str(folder), env={}).manifest


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A manifest next to a lock file that pins both sources and the tools of two servers."""
    lock = {HUB: entry(HUB, LOCKED), PLAIN: entry(PLAIN, LOCKED)}
    tools = {"docs": {"search": LOCKED}, "mail": {"send": LOCKED}}
    (tmp_path / LOCK_NAME).write_text(lockfile.render(lock, None, tools))
    return str(tmp_path / "mullama.yaml")


def test_the_pins_of_the_manifest_go_before_those_of_the_lock_file(path: str, tmp_path: Path) -> None:
    manifest = declared(tmp_path)
    found = pins_of(manifest, path)
    assert {source: pin.files[0].digest for source, pin in found.items()} == {HUB: OWN, PLAIN: LOCKED}
    assert tool_pins_of(manifest, path) == {"docs": {"search": OWN}, "mail": {"send": LOCKED}}


def test_a_manifest_without_a_lock_file_has_its_own_pins(tmp_path: Path) -> None:
    manifest = declared(tmp_path)
    for place in (str(tmp_path / "mullama.yaml"), None):
        assert (read_lock(place), read_locked_tools(place), lock_digest(place)) == ({}, {}, "")
        assert pins_of(manifest, place).keys() == {HUB}
        assert tool_pins_of(manifest, place) == {"docs": {"search": OWN}}


def test_the_digest_of_a_lock_file_follows_its_bytes(path: str) -> None:
    before = lock_digest(path)
    lock_path(path).write_bytes(lock_path(path).read_bytes() + b"\n")
    assert "" != before != lock_digest(path)


def test_a_lock_file_that_is_not_text_is_an_error_with_its_path(path: str) -> None:
    lock_path(path).write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match=r"mullama\.lock is not UTF-8 text"):
        read_lock(path)


def test_a_pinned_source_has_the_size_of_its_weights_and_its_projector() -> None:
    beside = PinnedFile(name="mmproj.gguf", size=7, digest=OTHER, role="projector")
    found = pinned(entry(HUB, LOCKED, beside))
    assert (found.source, found.size, found.stored) == (HUB, 5, False)
    assert found.projector is not None
    assert (found.projector.digest, found.projector.size, found.projector.facts) == (OTHER, 7, ProjectorFacts())
    assert pinned(entry(HUB, LOCKED)).projector is None
