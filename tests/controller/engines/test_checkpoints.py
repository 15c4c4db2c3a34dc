"""Checkpoints from the manifest to status and metrics, with a model of random weights that has a sliding window."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.llamacpp import builders
from tests.runtime.runtime_fixture import LocalServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("bound", "kept"), [("1MiB", True), (0, False)])
async def test_the_bound_of_the_manifest_holds_and_the_status_counts(
    bound: str | int, kept: bool, server: LocalServer
) -> None:
    builders.window(Path(server.home) / "window.gguf")
    model = {"from": "./window.gguf", "template": "{{ messages[0].content }}", "limits": {"parallel": 1}}
    done = await server.apply({"chat": {**model, "context": {"size": 512, "checkpoints": bound}}})
    assert done["outcome"] == "applied"
    await server.ask("chat", "the sea and the many ships " * 20, max_tokens=2)
    (deployment,) = server.snapshot.deployments.values()
    worker = server.pool.worker(deployment.unit)
    assert worker is not None
    while worker.seen.running or worker.seen.steps < (await worker.stats()).steps:
        worker._watch_now.set()
    (status,) = server.operator.status()["models"]
    checkpoints = status["checkpoints"]
    assert checkpoints["most_bytes"] == (2**20 if kept else 0)
    assert (checkpoints["count"] > 0) is kept
    assert checkpoints["bytes"] <= checkpoints["most_bytes"]
    assert checkpoints["restored"] == 0
    assert f'mullama_model_checkpoint_bytes{{model="chat"}} {float(checkpoints["bytes"])}' in server.operator.metrics()
