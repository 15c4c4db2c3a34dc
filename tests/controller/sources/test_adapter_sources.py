"""Adapters from a hub and a registry: pulled with their model, pinned by digest and lock file, and drift."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mullama.manifest.spec import Manifest
from mullama.plan.steps import Cause, Cost
from mullama.reconcile import lock as lock_file
from mullama.reconcile.files import Files, wanted_kinds
from mullama.reconcile.pins import read_lock
from mullama.runtime.base import Origin
from tests import ggufs
from tests.runtime.runtime_fixture import LocalServer
from tests.stub_hub import StubHub, sha256

pytestmark = pytest.mark.anyio

HOUSE = ggufs.adapter("scripted", alpha=1.0).bytes()
TONE = ggufs.adapter("scripted", alpha=2.0).bytes()


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with StubHub() as hub:
        hub.repo("acme/house-lora", {"house-lora.gguf": HOUSE, "README.md": b"hi"})
        hub.model("acme/tone", "latest", [("model", ggufs.model().bytes()), ("adapter", TONE)])
        yield hub


def _models(server: LocalServer, hub: StubHub, **more: Any) -> dict[str, Any]:
    adapters = [{"from": "hf:acme/house-lora", **more}, {"from": f"ollama:{hub.host}/acme/tone"}]
    return {"a": {"from": server.script(), "adapters": adapters}}


def _sources(hub: StubHub) -> dict[str, Any]:
    return {"hf": {"endpoint": hub.url}}


async def test_adapters_are_pulled_with_their_model(server: LocalServer, hub: StubHub) -> None:
    done = await server.apply(_models(server, hub), sources=_sources(hub))

    assert done["outcome"] == "applied"
    deployment = server.snapshot.deployments["a"]
    assert [known.digest for known in deployment.adapters] == [f"sha256:{sha256(data)}" for data in (HOUSE, TONE)]
    paths = [adapter.path for adapter in deployment.options.adapters]
    assert [Path(path).read_bytes() for path in paths] == [HOUSE, TONE]
    assert len(hub.asked("house-lora.gguf")) == 1
    assert not hub.asked(f"sha256:{sha256(ggufs.model().bytes())}")
    assert await server.ask("a", "say hi") == "hi"
    assert (await server.reconciler.plan(server.change(_models(server, hub), sources=_sources(hub)))).empty


async def test_another_digest_than_the_pinned_one_is_refused(server: LocalServer, hub: StubHub) -> None:
    lines = await server.apply_lines(_models(server, hub, digest="sha256:" + "0" * 64), sources=_sources(hub))

    assert "house-lora.gguf changed from sha256:000" in json.dumps(lines[-1])
    assert "a" not in server.snapshot.deployments


def _manifest(server: LocalServer, hub: StubHub) -> Manifest:
    return server.change(_models(server, hub), sources=_sources(hub)).desired  # type: ignore[return-value]


async def test_the_lock_file_pins_adapters_and_another_file_is_drift(server: LocalServer, hub: StubHub) -> None:
    manifest, files = _manifest(server, hub), Files.here(server.env)
    library, settings = files.library(manifest), files.settings(manifest)
    assert lock_file.lockable(manifest) == ("hf:acme/house-lora", f"ollama:{hub.host}/acme/tone")
    entries = {
        source: lock_file.resolve(
            library, settings, source, offline=False, refresh=False, report=lambda progress: None,
            wanted=wanted_kinds(manifest.models.values())[source],
        )[0]
        for source in lock_file.lockable(manifest)
    }  # fmt: skip
    assert [entry.files[0].digest for entry in entries.values()] == [f"sha256:{sha256(d)}" for d in (HOUSE, TONE)]
    path = str(server.home / "m.yaml")
    lock_file.write_lock(path, entries)
    assert read_lock(path) == entries

    change = server.change(_models(server, hub), origin=Origin(path=path), sources=_sources(hub))
    lines = [line async for line in server.reconciler.apply(change)]
    assert lines[-1]["outcome"] == "applied"
    assert (await server.reconciler.plan(change)).empty

    hub.repo("acme/house-lora", {"house-lora.gguf": ggufs.adapter("scripted", alpha=3.0).bytes()})
    moved, _ = lock_file.resolve(
        files.library(manifest), settings, "hf:acme/house-lora", offline=False, refresh=True,
        report=lambda progress: None, wanted="adapter",
    )  # fmt: skip
    lock_file.write_lock(path, {**entries, "hf:acme/house-lora": moved})
    (step,) = (await server.reconciler.plan(change)).steps
    assert (step.cause, step.cost) == (Cause.DRIFT, Cost.FILES)
    assert step.detail == "the file of the adapter hf:acme/house-lora is not here: pull"
    assert step.bytes_download == moved.files[0].size
    lines = [line async for line in server.reconciler.apply(change)]
    assert lines[-1]["outcome"] == "applied"
    assert server.snapshot.deployments["a"].adapters[0].digest == moved.digest
    assert (await server.reconciler.plan(change)).empty
