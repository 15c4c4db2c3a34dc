"""The first change of a server that served before: a changed manifest that cannot be applied keeps nothing down."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from mullama.controller.restart import begin
from mullama.controller.runs.change import Line
from mullama.runtime.base import ApplyOptions, Origin
from mullama.store import records as store_records
from mullama.struct import replace
from tests.runtime.runtime_fixture import LocalServer, local_server

pytestmark = pytest.mark.anyio
FILE = Origin(path="/m.yaml", digest="d1")
START = ApplyOptions(trigger="start")


async def started(server: LocalServer, models: dict[str, Any], origin: Origin = FILE) -> Line:
    """Start a server with a manifest; return the result."""
    change = server.change(models, START, origin)
    return [line async for line in begin(server.reconciler, server.records, change)][-1]


async def serve_before(home: Path, models: dict[str, Any], origin: Origin = FILE) -> None:
    async with local_server(home) as server:
        for name in models:
            server.script(name)
        assert (await server.apply(models, ApplyOptions(), origin))["outcome"] == "applied"


A = {"a": "./a.script.json"}


@pytest.mark.parametrize("source", ["./gone.gguf", "hf:org/typo"])
async def test_a_new_model_that_cannot_be_fetched_is_reported_and_not_committed(tmp_path: Path, source: str) -> None:
    await serve_before(tmp_path, A)
    async with local_server(tmp_path) as server:
        server.env["HF_ENDPOINT"] = "http://127.0.0.1:9"
        server.script("b")
        result = await started(server, {"a": {"from": A["a"], "system": "new"}, "b": "./b.script.json", "n": source})

        assert result["outcome"] in ("not_found", "unavailable")
        assert (await server.ask("a", "say yes"), await server.ask("b", "say yes")) == ("yes", "yes")
        assert list(server.snapshot.manifest.models) == ["a", "b"]
        assert all("n" not in kept.manifest["models"] for kept in server.records.history())
        synced = server.condition("Synced")
        assert (synced["status"], server.operator.status()["state"]) == (False, "degraded")
        assert "gone.gguf" in synced["message"] or "typo" in synced["message"]


async def test_a_changed_model_whose_file_is_gone_fails_alone(tmp_path: Path) -> None:
    await serve_before(tmp_path, {**A, "b": "./b.script.json"})
    (tmp_path / "b.script.json").unlink()
    async with local_server(tmp_path) as server:
        await started(server, {**A, "b": {"from": "./b.script.json", "system": "new"}})

        assert await server.ask("a", "say yes") == "yes"
        assert server.status("b")["state"] == "failed"
        assert [kept.generation for kept in server.records.history()] == [1]


async def test_a_full_disk_keeps_the_last_revision_and_the_file_is_applied_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serve_before(tmp_path, A)
    whole = store_records.write_atomic

    def full(path: Path, data: bytes, *, durable: bool = True) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    changed = {"a": {"from": A["a"], "system": "new"}}
    async with local_server(tmp_path) as server:
        monkeypatch.setattr(store_records, "write_atomic", full)
        result = await started(server, changed)

        assert result["outcome"] == "unavailable"
        assert "00000002.json: No space left on device" in server.condition("Synced")["message"]
        assert await server.ask("a", "say yes") == "yes"
        assert server.snapshot.manifest.models["a"].system is None
        assert server.reconciler.current.origin.digest == ""  # the watcher reads the file again

        monkeypatch.setattr(store_records, "write_atomic", whole)
        assert (await server.apply(changed, ApplyOptions(trigger="watch"), FILE))["outcome"] == "applied"
        assert server.condition("Synced")["status"] is True
        assert server.snapshot.generation == 2


@pytest.mark.parametrize("before", [None, Origin(), Origin(path="/other.yaml")])
async def test_a_start_without_an_earlier_revision_of_its_file_is_all_or_nothing(
    tmp_path: Path, before: Origin | None
) -> None:
    if before is not None:
        await serve_before(tmp_path, A, before)
    async with local_server(tmp_path) as server:
        server.script("a")
        result = await started(server, {**A, "n": "./gone.gguf"}, FILE if before != Origin() else Origin())

        assert result["outcome"] == "not_found"
        assert not server.reconciler.current.started


async def test_models_that_were_added_elsewhere_are_served_without_one_whose_file_is_gone(tmp_path: Path) -> None:
    async with local_server(tmp_path) as server:
        server.script("a")
        change = server.change({**A, "n": "./gone.gguf"}, START, Origin())
        added = replace(change, added=frozenset({"a", "n"}))
        async for _ in begin(server.reconciler, server.records, added):
            pass

        assert await server.ask("a", "say yes") == "yes"
        assert server.status("n")["state"] == "failed"


async def test_a_protected_model_is_not_removed_while_the_server_is_down(tmp_path: Path) -> None:
    guarded = {"a": {"from": A["a"], "protect": True}, "b": "./b.script.json"}
    await serve_before(tmp_path, guarded)
    async with local_server(tmp_path) as server:
        result = await server.apply({"b": "./b.script.json"}, ApplyOptions(), FILE)
        assert result["outcome"] == "refused"
        assert "a is protected and would be removed" in result["message"]
    async with local_server(tmp_path) as server:
        result = await started(server, {"b": "./b.script.json"})
        assert result["outcome"] == "refused"
        assert await server.ask("a", "say yes") == "yes", "the last revision serves"
    async with local_server(tmp_path) as server:
        assert (await started(server, {**guarded, "a": A["a"]}))["outcome"] == "applied"
        assert (await server.apply({"b": "./b.script.json"}, ApplyOptions(), FILE))["outcome"] == "applied"


async def test_a_key_without_its_secret_is_missing_and_the_log_says_so(tmp_path: Path) -> None:
    auth = {"keys": {name.lower(): {"secret": {"from_env": name}} for name in ("K", "GONE")}}
    async with local_server(tmp_path) as server:
        server.env |= {"K": "one", "GONE": "two"}
        await server.apply({"a": server.script()}, ApplyOptions(), FILE, auth=auth)
    async with local_server(tmp_path) as server:
        server.env["K"] = "one"
        await server.apply({"a": server.script()}, START, FILE, auth=auth)

        says = "auth.keys.gone.secret: the environment variable GONE is missing or empty"
        assert [key.name for key in server.service.access().keys] == ["k"]
        assert server.condition("Synced")["message"].startswith(says)
        [event] = [event for event in server.event_log.kept() if event["kind"] == "warning"]
        assert event["message"].startswith(says)
