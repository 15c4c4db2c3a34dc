"""Lock file, bundle and search against a hub on loopback: the real commands, the real library."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, stack_in
from tests.stub_hub import COMMIT, StubHub, sha256

TINY = Path(__file__).parents[2] / "mullama/sources/builtin_models/tiny.gguf"
GIT_USER = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
SOURCE = "hf:org/tiny-GGUF:Q8_0"


class Online(Stack):
    """A home whose hub is the stub."""

    endpoint = ""

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1"}


@pytest.fixture(scope="module")
def hub() -> Iterator[StubHub]:
    with StubHub() as found:
        found.repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": TINY.read_bytes(), "README.md": b"hi"})
        yield found


@pytest.fixture
def home(hub: StubHub, tmp_path: Path) -> Iterator[Online]:
    stack = Online(tmp_path)
    stack.endpoint = hub.url
    try:
        stack.write({"t": {"from": SOURCE}, "b": {"from": "builtin:tiny"}})
        yield stack
    finally:
        stack.close()


def test_a_lock_needs_no_download_and_holds_header_facts(home: Online, hub: StubHub) -> None:
    before = hub.sent
    assert home.run("lock", "--check", code=2).stdout.startswith(f"+ {SOURCE}")

    told = home.json("lock", "--json")

    assert [item["state"] for item in told["sources"]] == ["added"]
    entry = json.loads((home.home / "mullama.lock").read_text())["sources"][SOURCE]
    assert entry["revision"] == COMMIT
    assert entry["files"][0]["digest"] == f"sha256:{sha256(TINY.read_bytes())}"
    assert entry["facts"]["architecture"] == "llama"
    assert hub.sent - before < len(TINY.read_bytes())
    assert home.run("lock", "--check").stdout == "mullama.lock is fresh\n"
    assert [item["state"] for item in home.json("lock", "--json")["sources"]] == ["kept"]


def test_only_an_update_asks_again_and_entries_of_nobody_go(home: Online, hub: StubHub) -> None:
    home.run("lock")
    asked = len(hub.requests)
    home.run("lock")
    assert len(hub.requests) == asked
    home.run("lock", "--update", "t")
    assert len(hub.requests) > asked
    assert home.run("lock", "--update", "nobody", code=3).stderr.startswith("error: the manifest has no model 'nobody'")

    home.write({"b": {"from": "builtin:tiny"}})

    assert home.run("lock", "--check", code=2).stdout.startswith(f"- {SOURCE}")
    home.run("lock")
    assert json.loads((home.home / "mullama.lock").read_text())["sources"] == {}


def test_a_plan_against_a_revision_is_complete_from_the_lock_alone(home: Online, hub: StubHub) -> None:
    """Bytes and memory of a model that is nowhere on this machine, without a question to anybody."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", *GIT_USER, *arguments], cwd=home.home, check=True, capture_output=True)

    home.write({"b": {"from": "builtin:tiny"}})
    git("init")
    git("add", "mullama.yaml")
    git("commit", "--message", "first")
    home.write({"b": {"from": "builtin:tiny"}, "t": {"from": SOURCE, "context": {"size": 512}}})
    before = home.json("diff", "--base", "HEAD", "--format", "json", code=2)
    home.run("lock")
    asked = len(hub.requests)

    after = home.json("diff", "--base", "HEAD", "--format", "json", code=2)

    assert (before["complete"], after["complete"]) == (False, True)
    assert after["steps"][0]["bytes_download"] == len(TINY.read_bytes())
    assert after["steps"][0]["memory_after"] > len(TINY.read_bytes())
    assert len(hub.requests) == asked


def test_locked_refuses_what_the_lock_does_not_hold(home: Online) -> None:
    assert "mullama.lock does not hold" in home.apply("--locked", code=9).stderr
    home.run("lock")
    home.apply("--locked")


def test_offline_says_what_is_missing(home: Online) -> None:
    assert "--offline asks no network" in home.apply("--offline", code=11).stderr
    assert "is not on this machine" in home.run("lock", "--offline", code=11).stderr


def test_a_bundle_carries_all_of_it_to_a_machine_without_a_network(home: Online, tmp_path: Path) -> None:
    assert "does not hold" in home.run("bundle", "export", "b.tar", code=9).stderr
    home.run("lock")
    assert "is not here as it is locked" in home.run("bundle", "export", "b.tar", code=3).stderr
    home.apply()
    home.run("bundle", "export", "b.tar")
    home.down()
    assert "exists already" in home.run("bundle", "export", "b.tar", code=9).stderr

    other = tmp_path / "other"
    other.mkdir()
    with stack_in(other) as stack:
        stack.run("bundle", "import", str(home.home / "b.tar"))
        stack.apply("--offline", "--locked")
        assert stack.run("run", "t", "Hello", "-n", "2").stdout.strip()


def test_a_bundle_of_a_manifest_with_includes_holds_one_file(home: Online, tmp_path: Path) -> None:
    home.write({"b": {"from": "builtin:tiny"}}, include=["more.yaml"])
    (home.home / "more.yaml").write_text("models: {t: {from: '" + SOURCE + "', system: From afar.}}\n")
    home.run("lock")
    home.run("pull", SOURCE, "--name", "here")
    assert "become one file" in home.run("bundle", "export", "all.tar").stderr
    home.down()
    with stack_in(tmp_path / "other") as stack:
        stack.home.mkdir()
        stack.run("bundle", "import", str(home.home / "all.tar"))
        assert stack.run("show", "t", "--system").stdout == "From afar.\n"
        stack.run("apply", "--offline", "--locked", "--yes")


def test_a_bundle_cannot_write_elsewhere_or_lie_about_a_digest(home: Online, tmp_path: Path) -> None:
    home.run("lock")
    home.apply()
    home.run("bundle", "export", "good.tar")
    digest = sha256(TINY.read_bytes())
    evil = tmp_path / "evil.tar"
    with tarfile.open(home.home / "good.tar") as good, tarfile.open(evil, "w") as bad:
        for member in good:
            data = good.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith(digest):
                data = data[:-1] + b"x"
            _put(bad, member.name, data)
        _put(bad, "../outside", b"x")
        _put(bad, "blobs/../../outside", b"x")
    target = tmp_path / "target"
    target.mkdir()
    with stack_in(target) as stack:
        told = stack.run("bundle", "import", str(evil), code=5)
        assert "its name says sha256:" in told.stderr
        assert not list(target.rglob(f"sha256-{digest}"))
        assert not (target / "mullama.yaml").exists()
    assert not list(tmp_path.rglob("outside"))


def _put(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_tune_and_info_ask_the_hub_and_fetch_no_weights(home: Online) -> None:
    told = home.json("tune", "hf:org/tiny-GGUF", "--json")
    assert told["recommended"] == SOURCE
    assert told["quants"][0]["status"] == "recommended"
    assert told["quants"][0]["context_room"] == 1024, "no more than the model was trained on"
    home.run("tune", "hf:org/tiny-GGUF", "--emit", "tuned.yaml", "-c", "512")
    home.run("validate", "-f", "tuned.yaml")
    assert "size: 512" in (home.home / "tuned.yaml").read_text()
    shown = home.run("info", "org/tiny-GGUF").stdout
    assert "tiny-Q8_0.gguf" in shown
    assert "[default]" in shown
    assert home.run("info", "org/none", code=3).stderr.startswith("error: ")


def alone(home: Stack) -> None:
    """A server without a manifest: the built-in file, which is the same one, is not looked at there."""
    home.manifest.unlink()
    home.run("daemon", "start", "-p", "0")


def test_removing_a_model_frees_only_what_nothing_refers_to(home: Online) -> None:
    alone(home)
    home.run("pull", SOURCE, "--name", "one")
    home.run("cp", "one", "two")
    listed = home.json("cache", "list", "--json")["sources"]
    assert [entry["source"] for entry in listed] == [SOURCE]
    assert "no file deleted" in home.run("rm", "one", "-f").stdout
    assert "nothing to delete" in home.run("cache", "clear", "--force").stdout

    assert home.json("rm", "two", "-f", "--json")["freed_bytes"] == len(TINY.read_bytes())

    assert home.json("cache", "size", "--json") == {"size_bytes": 0, "sources": 0}


def test_the_cache_tells_verifies_and_forgets(home: Online) -> None:
    alone(home)
    home.run("pull", SOURCE, "--name", "one")
    assert home.run("cache", "path").stdout == f"{home.home}/data/mullama\n"
    assert home.run("cache", "verify").stdout == "intact: 1 file\n"
    assert "kept, it is still in use" in home.run("cache", "remove", SOURCE).stdout
    assert home.run("cache", "remove", "hf:a/b", code=3).stderr.startswith("error: the store has no hf:a/b")
    (blob,) = (home.home / "data/mullama/blobs").glob("sha256-*")
    blob.write_bytes(b"damaged")
    assert "is damaged" in home.run("cache", "verify", code=5).stderr


def test_a_prune_is_shown_with_its_bytes_and_deletes_only_what_was_shown(home: Online) -> None:
    import os

    alone(home)
    home.run("pull", SOURCE, "--name", "one")
    home.run("rm", "one", "-f", "--keep-files")
    home.run("stop")
    for record in (home.home / "state/mullama").glob("*/generations/*"):
        record.unlink()  # as if all generations that knew the file were twenty applies ago
    (blob,) = (home.home / "data/mullama/blobs").glob("sha256-*")
    home.write({"b": {"from": "builtin:tiny"}}, prune={"files": True, "keep": "1h"})
    assert "store" not in home.run("diff", code=2).stdout

    os.utime(blob, (1, 1))
    shown = home.run("diff", code=2).stdout
    assert "delete 1 file (5." in shown
    assert home.run("apply", code=9).stderr.startswith("error: the plan pauses or removes something")
    serving = home.serve()
    home.ready()
    assert blob.exists(), "a server that begins deletes nothing"

    home.apply()

    assert not blob.exists()
    assert "Nothing to do." in home.run("diff").stdout
    assert serving.poll() is None
