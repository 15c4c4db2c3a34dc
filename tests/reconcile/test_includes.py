"""Remote files of `include`: pins, copies in the store, and the commands that write and check the pins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mullama.errors import Invalid, NotFound
from mullama.manifest.load import load
from mullama.manifest.spec import Sources
from mullama.reconcile.includes import LockedIncludes, PinnedIncludes
from mullama.store import lockfile
from tests.stub_hub import COMMIT, StubHub, sha256

SPEC = "hf:acme/presets/coder.yaml@v3"
TEXT = b"models: {coder: builtin:tiny}\n"


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with StubHub() as hub:
        hub.repo("acme/presets", {"coder.yaml": TEXT}, revisions={"v3": COMMIT})
        yield hub


@pytest.fixture
def sources(hub: StubHub) -> Sources:
    return Sources.model_validate({"hf": {"endpoint": hub.url}})


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "MULLAMA_CACHE_DIR": str(tmp_path / "cache")}


def locked(env: dict[str, str], sources: Sources, lock: bytes | None = None, *, update: bool = False) -> bytes:
    """Return the lock file after `mullama lock`."""
    includes = LockedIncludes(env, offline=False, update=update)
    includes.read(SPEC, sources, lock)
    return lockfile.render({}, includes.pins).encode()


def test_a_pinned_file_is_read_from_its_copy_without_the_hub(
    hub: StubHub, env: dict[str, str], sources: Sources
) -> None:
    lock = locked(env, sources)
    asked = len(hub.requests)

    assert json.loads(lock)["includes"][SPEC] == {
        "revision": COMMIT, "digest": f"sha256:{sha256(TEXT)}", "size": len(TEXT),
    }  # fmt: skip
    assert PinnedIncludes(env, offline=True).read(SPEC, sources, lock) == TEXT
    assert locked(env, sources, lock) == lock
    assert len(hub.requests) == asked


def test_a_file_without_a_pin_is_not_read(hub: StubHub, env: dict[str, str], sources: Sources) -> None:
    includes = PinnedIncludes(env)
    for lock in (None, lockfile.render({}).encode()):
        with pytest.raises(NotFound, match=r"is not pinned by mullama.lock") as raised:
            includes.read(SPEC, sources, lock)
        assert raised.value.hint == "mullama lock fetches and pins it"
    assert includes.unpinned == [SPEC, SPEC]
    assert hub.requests == []
    with pytest.raises(Invalid, match="not JSON"):
        includes.read(SPEC, sources, b"{")


def test_a_missing_or_damaged_copy_is_fetched_at_the_pinned_commit_and_checked(
    hub: StubHub, env: dict[str, str], sources: Sources
) -> None:
    lock = locked(env, sources)
    (copy,) = Path(env["MULLAMA_CACHE_DIR"]).rglob("includes/*.yaml")
    copy.write_bytes(b"models: {evil: builtin:tiny}\n")

    with pytest.raises(NotFound, match=r"the pinned copy of .* is not on this machine"):
        PinnedIncludes(env, offline=True).read(SPEC, sources, lock)
    assert PinnedIncludes(env).read(SPEC, sources, lock) == TEXT
    assert copy.read_bytes() == TEXT

    copy.unlink()
    hub.repo("acme/presets", {"coder.yaml": b"models: {evil: builtin:tiny}\n"}, revisions={"v3": COMMIT})
    with pytest.raises(Invalid, match=r"other bytes at commit 0123456789ab than mullama.lock pins"):
        PinnedIncludes(env).read(SPEC, sources, lock)
    assert not copy.exists()
    moved = json.loads(locked(env, sources, lock, update=True))
    assert moved["includes"][SPEC]["digest"] != json.loads(lock)["includes"][SPEC]["digest"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:acme/presets/none.yaml@v3", "acme/presets has no file none.yaml at v3"),
        ("hf:acme/none/coder.yaml", "has no model acme/none"),
    ],
)
def test_a_file_that_the_hub_does_not_have_is_named(
    env: dict[str, str], sources: Sources, spec: str, message: str
) -> None:
    with pytest.raises(NotFound, match=message):
        LockedIncludes(env, offline=False, update=False).read(spec, sources, None)


@pytest.mark.parametrize(
    "pin", [{"revision": "main", "digest": "sha256:" + "0" * 64, "size": 1}, {"revision": COMMIT}, []]
)
def test_a_pin_that_is_none_is_refused(env: dict[str, str], sources: Sources, pin: object) -> None:
    lock = json.dumps({"mullama.lock": 1, "sources": {}, "includes": {SPEC: pin}}).encode()
    with pytest.raises(Invalid, match=r"coder.yaml"):
        PinnedIncludes(env).read(SPEC, sources, lock)


def test_a_lock_file_larger_than_a_manifest_is_read(tmp_path: Path, env: dict[str, str], sources: Sources) -> None:
    lock = locked(env, sources)
    (tmp_path / "mullama.lock").write_bytes(lock.ljust(2 * 1024**2))
    path = tmp_path / "m.yaml"
    path.write_text(f"mullama: v1\ninclude: ['{SPEC}']\n")

    loaded = load(str(path), env=env, remote=PinnedIncludes(env, offline=True))

    assert list(loaded.manifest.models) == ["coder"]
    assert str(tmp_path / "mullama.lock") in [file.path for file in loaded.files], "a new pin is noticed"
