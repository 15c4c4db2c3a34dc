"""A pool of cells from the manifest to status and metrics, and its change while the model runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.runtime_fixture import LocalServer

pytestmark = pytest.mark.anyio


def chat(**context: Any) -> dict[str, Any]:
    return {"chat": {"from": "builtin:tiny", "context": {"size": 256, **context}, "limits": {"parallel": 4}}}


def observed(path: str | None, tokens: int) -> None:
    """Write what requests have used."""
    assert path is not None
    Path(path).write_text(str(tokens))


async def pool_of(server: LocalServer) -> dict[str, Any] | None:
    """The pool in the status, once the server has seen the present numbers of the engine."""
    (deployment,) = server.snapshot.deployments.values()
    worker = server.pool.worker(deployment.unit)
    assert worker is not None
    while worker.seen.running or worker.seen.steps < (await worker.stats()).steps:
        worker._watch_now.set()
        await asyncio.sleep(0)
    (status,) = server.operator.status()["models"]
    return status["pool"]  # type: ignore[no-any-return]


async def test_the_status_shows_the_pool_and_a_change_keeps_the_weights(server: LocalServer) -> None:
    await server.apply(chat(pool=512))
    await server.ask("chat", "How are you?", max_tokens=4)
    found = await pool_of(server)
    assert found is not None
    assert found["used"] > 0
    assert {**found, "used": 0} == {
        "size": 512, "worst_case": 1024, "used": 0, "set_aside": 0, "set_asides": 0, "resumes": 0,
    }  # fmt: skip
    metrics = server.operator.metrics()
    assert 'mullama_pool_size{model="chat"} 512.0' in metrics
    assert f'mullama_pool_used{{model="chat"}} {float(found["used"])}' in metrics

    before = server.operator.status()["models"][0]["worker"]
    await server.apply(chat(pool=256))
    await server.ask("chat", "How are you?", max_tokens=4)
    changed = await pool_of(server)
    assert changed is not None
    assert (changed["size"], server.operator.status()["models"][0]["worker"]) == (256, before)

    await server.apply(chat(pool="worst_case"))
    assert await pool_of(server) is None
    assert "mullama_pool_size" not in server.operator.metrics()


async def test_an_automatic_pool_is_chosen_when_the_context_opens(server: LocalServer) -> None:
    await server.apply(chat(pool="auto"))
    (deployment,) = server.snapshot.deployments.values()
    await server.ask("chat", "How are you?", max_tokens=4)
    observed(deployment.options.use_file, 500)
    await server.apply({"chat": {**chat(pool="auto")["chat"], "system": "Be brief."}})
    first = await pool_of(server)
    assert first is not None
    assert first["size"] == 256, "a live change keeps the context with its pool"
    assert server.snapshot.deployments["chat"].unit == deployment.unit
    await server.apply(chat(pool="auto", batch=128))
    second = await pool_of(server)
    assert second is not None
    assert second["size"] == 768, "a quarter more than was used"
