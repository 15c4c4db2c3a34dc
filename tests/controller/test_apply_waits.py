"""An apply ends when the models that stay loaded answer, whatever it changes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mullama.chat.inventory import LoadModel
from mullama.runtime.scheduler.state import Phase
from tests.runtime.runtime_fixture import CALLER, LocalServer, local_server, suspended_worker, until

pytestmark = pytest.mark.anyio
SOURCE = "./my.script.json"

CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({"my": {"from": SOURCE}}, {}),
    "a live field": ({"my": {"from": SOURCE, "parameters": {"temperature": 0.1}}}, {}),
    "a field without cost": ({"my": {"from": SOURCE, "description": "new"}}, {}),
    "a rename": ({"new": {"from": SOURCE}}, {"moved": [{"from": "my", "to": "new"}]}),
    "a rename and a live field": ({"new": {"from": SOURCE, "system": "x"}}, {"moved": [{"from": "my", "to": "new"}]}),
    "a context field": ({"my": {"from": SOURCE, "context": {"size": 512}}}, {}),
    "a time to live": ({"my": {"from": SOURCE, "residency": {"ttl": "5m"}}}, {}),
    "a route": ({"my": {"from": SOURCE}}, {"routes": {"default": "my"}}),
}


@pytest.mark.parametrize(("models", "blocks"), CHANGES.values(), ids=CHANGES)
async def test_a_model_that_is_not_in_memory_is_loaded(
    tmp_path: Path, models: dict[str, Any], blocks: dict[str, Any]
) -> None:
    """The server was killed and starts again with a changed manifest."""
    async with local_server(tmp_path) as server:
        server.script("my")
        await server.apply({"my": {"from": SOURCE}})
    async with local_server(tmp_path) as server:
        ((name, _),) = models.items()
        lines = await server.apply_lines(models, **blocks)

        assert lines[-1]["outcome"] == "applied"
        assert server.status(name)["state"] == "ready"
        assert server.operator.missing() == ()
        steps = [(line["model"], line["state"]) for line in lines if line["event"] == "step"]
        assert steps == [(name, "loading"), (name, "ready")]


@pytest.mark.parametrize(("models", "blocks"), CHANGES.values(), ids=CHANGES)
async def test_a_model_that_no_longer_loads_fails_the_apply(
    tmp_path: Path, models: dict[str, Any], blocks: dict[str, Any]
) -> None:
    async with local_server(tmp_path) as server:
        server.script("my")
        await server.apply({"my": {"from": SOURCE, "residency": {"load": "on_demand"}}})
    server.script("my", on_load="crash exit")
    async with local_server(tmp_path) as server:
        done = await server.apply(models, **blocks)

        ((name, _),) = models.items()
        assert done["outcome"] == "partly_applied"
        assert done["models"][name]["ok"] is False
        assert server.status(name)["state"] == "failed"


async def test_a_live_change_loads_a_model_that_a_client_unloaded_and_the_plan_says_so(server: LocalServer) -> None:
    await server.apply({"my": server.script("my")})
    await server.service.answer(LoadModel(model="my", keep_alive=0), CALLER)
    await until(lambda: server.status("my")["state"] == "idle")
    assert [c["reason"] for c in server.status("my")["conditions"]] == ["OnDemand", "UnloadedByClient"]

    lines = await server.apply_lines({"my": {"from": SOURCE, "system": "x"}})

    (plan,) = (line["plan"] for line in lines if line["event"] == "plan")
    assert [step["detail"] for step in plan["steps"]] == ["next request; not in memory: load"]
    assert server.status("my")["state"] == "ready"


async def test_a_model_that_loads_after_the_apply_is_not_called_unloaded(server: LocalServer) -> None:
    """The worker died, and another one starts."""
    await server.apply({"my": server.script("my")})
    deployment = server.snapshot.deployments["my"]
    worker = server.pool.state.workers[deployment.unit.weights]
    server.spawn = suspended_worker
    os.kill(server.pool.pids()[0], signal.SIGKILL)
    await until(lambda: worker.phase is Phase.OPENING)

    assert server.pool.phase(deployment.unit) is Phase.COLD
    assert server.status("my")["state"] == "loading"
    assert [c["reason"] for c in server.status("my")["conditions"]] == ["Loading"]
    await server.reconciler.stop()
