"""Lock file, bundles, cache and pruning with a hub on loopback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import TINY, Stack, eventually, stack_in
from tests.stub_hub import COMMIT, StubHub, sha256

GIT_USER = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
SOURCE = "hf:org/tiny-GGUF:Q8_0"


@pytest.fixture
def hub(hub: StubHub) -> StubHub:
    hub.repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": TINY.read_bytes(), "README.md": b"hi"})
    return hub


@pytest.fixture
def online(online: Stack) -> Stack:
    online.write({"t": {"from": SOURCE}, "b": {"from": "builtin:tiny"}})
    return online


def test_a_lock_needs_no_download_and_holds_header_facts(online: Stack, hub: StubHub) -> None:
    before = hub.sent
    assert online.run("lock", "--check", code=2).stdout.startswith(f"+ {SOURCE}")

    locked = online.json("lock", "--json")

    assert [item["state"] for item in locked["sources"]] == ["added"]
    entry = json.loads((online.home / "mullama.lock").read_text())["sources"][SOURCE]
    assert entry["revision"] == COMMIT
    assert entry["files"][0]["digest"] == f"sha256:{sha256(TINY.read_bytes())}"
    assert entry["facts"]["architecture"] == "llama"
    assert hub.sent - before < len(TINY.read_bytes())
    assert online.run("lock", "--check").stdout == "mullama.lock is up to date\n"
    assert [item["state"] for item in online.json("lock", "--json")["sources"]] == ["kept"]


def test_only_an_update_asks_the_hub_again_and_unused_entries_are_removed(online: Stack, hub: StubHub) -> None:
    online.run("lock")
    asked = len(hub.requests)
    online.run("lock")
    assert len(hub.requests) == asked
    online.run("lock", "--update", "t")
    assert len(hub.requests) > asked
    assert online.run("lock", "--update", "none", code=3).stderr.startswith("error: the manifest has no model 'none'")

    online.write({"b": {"from": "builtin:tiny"}})

    assert online.run("lock", "--check", code=2).stdout.startswith(f"- {SOURCE}")
    online.run("lock")
    assert json.loads((online.home / "mullama.lock").read_text())["sources"] == {}


def test_newer_files_are_shown_and_nothing_moves_before_the_lock_is_updated(online: Stack, hub: StubHub) -> None:
    assert f"+ {SOURCE}" in online.run("outdated").stdout
    online.run("lock")
    assert online.run("outdated").stdout.endswith("1 source, 0 outdated\n")

    newer = TINY.read_bytes() + bytes(32)
    hub.repos["org/tiny-GGUF"].files["tiny-Q8_0.gguf"] = newer
    hub.repos["org/tiny-GGUF"].commit = "f" * 40
    locked = (online.home / "mullama.lock").read_bytes()

    (found,) = online.json("outdated", "--json", code=2)["sources"]
    assert (found["state"], found["revision"], found["newest"]) == ("outdated", COMMIT, "f" * 40)
    (changed,) = found["files"]
    assert changed["before"]["digest"] == f"sha256:{sha256(TINY.read_bytes())}"
    assert changed["now"] == {"size": len(newer), "digest": f"sha256:{sha256(newer)}"}
    (row,) = [row for row in online.json("list", "--outdated", "--json")["models"] if row["name"] == "t"]
    assert row["update"] == "f" * 40
    planned = online.run("lock", "--update", "--dry-run").stdout
    assert f"{COMMIT[:12]} -> {'f' * 12}" in planned
    assert f"{sha256(TINY.read_bytes())[:12]} -> " in planned
    assert planned.endswith("mullama.lock: 1 source, 1 would change\n")
    assert (online.home / "mullama.lock").read_bytes() == locked

    online.run("lock", "--update")
    assert online.run("outdated").stdout.endswith("1 source, 0 outdated\n")
    hub.repos.clear()
    assert f"? {SOURCE}  " in online.run("outdated", code=8).stdout


def test_the_watch_serves_what_an_update_of_the_lock_file_pins(online: Stack, hub: StubHub) -> None:
    online.run("lock")
    online.serve()
    online.ready()
    newer = TINY.read_bytes() + bytes(32)
    hub.repos["org/tiny-GGUF"].files["tiny-Q8_0.gguf"] = newer
    hub.repos["org/tiny-GGUF"].commit = "f" * 40

    online.run("lock", "--update")

    def served() -> str:
        return next(row["digest"] for row in online.status()["models"] if row["name"] == "t")

    eventually(lambda: served() == f"sha256:{sha256(newer)}", online.log)


def test_a_plan_against_a_revision_is_complete_from_the_lock_alone(online: Stack, hub: StubHub) -> None:
    """The plan has bytes and memory of a model that is not on this machine, and no request is sent."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", *GIT_USER, *arguments], cwd=online.home, check=True, capture_output=True)

    online.write({"b": {"from": "builtin:tiny"}})
    git("init")
    git("add", "mullama.yaml")
    git("commit", "--message", "first")
    online.write({"b": {"from": "builtin:tiny"}, "t": {"from": SOURCE, "context": {"size": 512}}})
    before = online.json("diff", "--base", "HEAD", "--format", "json", code=2)
    online.run("lock")
    asked = len(hub.requests)

    after = online.json("diff", "--base", "HEAD", "--format", "json", code=2)

    assert (before["complete"], after["complete"]) == (False, True)
    assert after["steps"][0]["bytes_download"] == len(TINY.read_bytes())
    assert after["steps"][0]["memory_after"] > len(TINY.read_bytes())
    assert len(hub.requests) == asked


def test_locked_refuses_what_the_lock_does_not_hold(online: Stack) -> None:
    assert "mullama.lock lacks" in online.apply("--locked", code=9).stderr
    online.run("lock")
    online.apply("--locked")


def test_offline_says_what_is_missing(online: Stack) -> None:
    assert "--offline uses no network" in online.apply("--offline", code=11).stderr
    assert "is not on this machine" in online.run("lock", "--offline", code=11).stderr


def test_a_bundle_carries_all_of_it_to_a_machine_without_a_network(online: Stack, tmp_path: Path) -> None:
    assert "mullama.lock lacks" in online.run("bundle", "export", "b.tar", code=9).stderr
    online.run("lock")
    assert "are not stored" in online.run("bundle", "export", "b.tar", code=3).stderr
    online.apply()
    online.run("bundle", "export", "b.tar")
    online.down()
    assert "already exists" in online.run("bundle", "export", "b.tar", code=9).stderr

    other = tmp_path / "other"
    other.mkdir()
    with stack_in(other) as stack:
        stack.run("bundle", "import", str(online.home / "b.tar"))
        stack.apply("--offline", "--locked")
        assert stack.run("run", "t", "Hello", "--think=false", "-n", "2").stdout.strip()


def test_a_bundle_of_a_manifest_with_includes_holds_one_file(online: Stack, tmp_path: Path) -> None:
    online.write({"b": {"from": "builtin:tiny"}}, include=["more.yaml"])
    (online.home / "more.yaml").write_text("models: {t: {from: '" + SOURCE + "', system: From afar.}}\n")
    online.run("lock")
    online.run("pull", SOURCE, "--name", "here")
    assert "merged into one file" in online.run("bundle", "export", "all.tar").stderr
    online.down()
    with stack_in(tmp_path / "other") as stack:
        stack.home.mkdir()
        stack.run("bundle", "import", str(online.home / "all.tar"))
        assert stack.run("show", "t", "--system").stdout == "From afar.\n"
        stack.run("apply", "--offline", "--locked", "--yes")


def test_a_bundle_cannot_write_elsewhere_or_lie_about_a_digest(online: Stack, tmp_path: Path) -> None:
    online.run("lock")
    online.apply()
    online.run("bundle", "export", "good.tar")
    digest = sha256(TINY.read_bytes())
    evil = tmp_path / "evil.tar"
    with tarfile.open(online.home / "good.tar") as good, tarfile.open(evil, "w") as bad:
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
        refused = stack.run("bundle", "import", str(evil), code=5)
        assert "which its name does not have" in refused.stderr
        assert not list(target.rglob(f"sha256-{digest}"))
        assert not (target / "mullama.yaml").exists()
    assert not list(tmp_path.rglob("outside"))


def _put(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_tune_and_info_ask_the_hub_and_fetch_no_weights(online: Stack) -> None:
    rated = online.json("tune", "hf:org/tiny-GGUF", "--json")
    assert rated["recommended"] == SOURCE
    assert rated["quants"][0]["status"] == "recommended"
    assert rated["quants"][0]["context_room"] == 1024, "no more than the model was trained on"
    online.run("tune", "hf:org/tiny-GGUF", "--emit", "tuned.yaml", "-c", "512")
    online.run("validate", "-f", "tuned.yaml")
    assert "size: 512" in (online.home / "tuned.yaml").read_text()
    shown = online.run("info", "org/tiny-GGUF").stdout
    assert "tiny-Q8_0.gguf" in shown
    assert "[default]" in shown
    assert online.run("info", "org/none", code=3).stderr.startswith("error: ")


def serve_without_manifest(online: Stack) -> None:
    """Start a server without the built-in model, whose file has the same digest as the hub's."""
    online.manifest.unlink()
    online.run("daemon", "start", "-p", "0")


def test_removing_a_model_frees_only_what_nothing_refers_to(online: Stack) -> None:
    serve_without_manifest(online)
    online.run("pull", SOURCE, "--name", "one")
    online.run("cp", "one", "two")
    listed = online.json("cache", "list", "--json")["sources"]
    assert [entry["source"] for entry in listed] == [SOURCE]
    assert "no file deleted" in online.run("rm", "one", "-f").stdout
    assert "nothing to delete" in online.run("cache", "clear", "--force").stdout

    assert online.json("rm", "two", "-f", "--json")["freed_bytes"] == len(TINY.read_bytes())

    assert online.json("cache", "size", "--json") == {"size_bytes": 0, "sources": 0}


def test_cache_prints_verifies_and_removes_files(online: Stack) -> None:
    serve_without_manifest(online)
    online.run("pull", SOURCE, "--name", "one")
    assert online.run("cache", "path").stdout == f"{online.home}/data/mullama\n"
    assert online.run("cache", "verify").stdout == "intact: 1 file\n"
    for command in ("remove", "delete"):
        refused = online.run("cache", command, SOURCE, code=9)
        assert refused.stderr == f"error: one uses {SOURCE}\nhint: mullama rm one first\n"
    assert "not here" not in online.run("list").stdout
    assert online.run("cache", "remove", "hf:a/b", code=3).stderr.startswith("error: the store has no hf:a/b")
    (blob,) = (online.home / "data/mullama/blobs").glob("sha256-*")
    blob.write_bytes(b"damaged")
    assert "is damaged" in online.run("cache", "verify", code=5).stderr


def test_a_prune_is_shown_with_its_bytes_and_deletes_only_what_was_shown(online: Stack) -> None:
    serve_without_manifest(online)
    online.run("pull", SOURCE, "--name", "one")
    online.run("rm", "one", "-f", "--keep-files")
    online.run("stop")
    for record in (online.home / "state/mullama").glob("*/generations/*"):
        record.unlink()  # as if all generations that knew the file were twenty applies ago
    (blob,) = (online.home / "data/mullama/blobs").glob("sha256-*")
    online.write({"b": {"from": "builtin:tiny"}}, prune={"files": True, "keep": "1h"})
    assert "store" not in online.run("diff", code=2).stdout

    os.utime(blob, (1, 1))
    shown = online.run("diff", code=2).stdout
    assert "delete 1 file (5." in shown
    assert online.run("apply", code=9).stderr.startswith("error: the plan pauses or removes models")
    serving = online.serve()
    online.ready()
    assert blob.exists(), "a server that begins deletes nothing"

    online.apply()

    assert not blob.exists()
    assert "Nothing to do." in online.run("diff").stdout
    assert serving.poll() is None


def test_a_remote_include_is_pinned_by_the_lock_and_served_from_its_copy(online: Stack, hub: StubHub) -> None:
    text = b"models: {coder: {from: builtin:tiny, system: One.}}\nroutes: {fast: coder}\n"
    hub.repo("acme/presets", {"coder.yaml": text}, lfs=False)
    spec = "hf:acme/presets/coder.yaml@main"
    online.write({"b": {"from": "builtin:tiny"}}, include=[spec])

    unpinned = online.run("diff", "-f", online.name, code=1).stderr
    assert f"include: {spec} is not pinned by mullama.lock (mullama lock fetches and pins it)" in unpinned
    assert unpinned.startswith("mullama.yaml:")
    assert f"+ {spec}  is not locked" in online.run("lock", "-f", online.name, "--check", code=2).stdout

    shown = online.run("lock", "-f", online.name).stdout
    assert f"+ {spec}  {COMMIT[:12]}  {len(text)} B  added" in shown
    online.run("lock", "-f", online.name, "--check")
    asked = len(hub.requests)
    online.apply("--offline")
    assert sorted(model["name"] for model in online.status()["models"]) == ["b", "coder"]
    assert online.status()["routes"] == {"fast": "coder"}
    assert len(hub.requests) == asked

    assert f"= {spec}  {COMMIT[:12]}" in online.run("outdated", "-f", online.name).stdout
    hub.repo("acme/presets", {"coder.yaml": text.replace(b"One", b"Two?")}, commit="a" * 40, lfs=False)
    online.run("diff", "-f", online.name, code=0)
    shown = online.run("outdated", "-f", online.name, code=2).stdout
    assert (
        f"~ {spec}  {COMMIT[:12]} -> {'a' * 12}  {len(text) + 1} B to download\n    coder.yaml  {len(text)} B " in shown
    )
    assert online.json("outdated", "-f", online.name, "--json", code=2)["includes"][0]["newest"] == "a" * 40
    listed = online.run("list", "--outdated").stdout
    assert f"include {spec} has changed: {'a' * 12}" in listed
    assert "~ hf:acme/presets/coder.yaml@main" in online.run("lock", "-f", online.name, "--update", "--dry-run").stdout
    online.run("lock", "-f", online.name, "--update")
    eventually(lambda: "Two?." in json.dumps(httpx.get(f"{online.url}/api/v1/stack", timeout=30).json()), online.log)
    online.write({"b": {"from": "builtin:tiny"}})
    unused = online.run("lock", "-f", online.name, "--check", code=2).stdout
    assert f"- {spec}  is locked and not used" in unused
