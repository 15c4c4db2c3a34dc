"""A load that hangs holds up no other change, and a newer manifest ends it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mullama.chat.inventory import CopyModel, LoadModel
from mullama.controller.runs.change import Line
from mullama.runtime.base import ApplyOptions
from mullama.runtime.worker.watchdog import StallLimits
from tests.runtime.runtime_fixture import CALLER, LocalServer, until

pytestmark = pytest.mark.anyio

Models = dict[str, Any]


class Loading:
    """A server that serves `a` and applies a manifest whose model `stuck` never loads."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.a: Models = {"a": {"from": server.script(), "system": "one"}}
        self.stuck: Models = {"stuck": server.script("stuck", on_load="hang")}

    async def begin(self, trigger: Any = "apply", **more: Any) -> asyncio.Task[Line]:
        await self.server.apply(self.a)
        models = {**self.a, **self.stuck, **more}
        run = asyncio.create_task(self.server.apply(models, ApplyOptions(trigger=trigger)))
        await until(lambda: bool(self.loading))
        return run

    @property
    def loading(self) -> list[str]:
        return list(self.server.pool._loads)

    @property
    def system(self) -> str:
        return self.server.snapshot.deployments["a"].model.system or ""

    def edited(self) -> Models:
        return {"a": {"from": "./a.script.json", "system": "two"}}


@pytest.fixture
def scenario(server: LocalServer) -> Loading:
    return Loading(server)


@pytest.mark.parametrize("trigger", ["apply", "watch", "api"])
async def test_a_live_edit_is_applied_at_once_and_the_load_continues(trigger: Any, scenario: Loading) -> None:
    server = scenario.server
    first = await scenario.begin()
    (pid,) = [load.worker.pid for load in server.pool._loads.values()]
    newer = server.apply({**scenario.edited(), **scenario.stuck}, ApplyOptions(trigger=trigger))
    second = asyncio.create_task(newer)
    await until(lambda: scenario.system == "two")

    assert "a newer manifest" in (await first)["message"]
    assert [load.worker.pid for load in server.pool._loads.values()] == [pid], "it was not begun again"
    assert not second.done(), "it waits for the load, as its result says whether all is applied"
    assert await server.ask("a", "say on") == "on"
    assert server.status("stuck")["state"] == "loading"
    server.pool._loads[scenario.loading[0]].worker._process.kill()
    assert (await second)["outcome"] == "partly_applied"


async def test_a_newer_manifest_without_the_model_ends_its_load(scenario: Loading) -> None:
    first = await scenario.begin()
    result = await scenario.server.apply(scenario.edited())

    assert result["outcome"] == "applied"
    assert (await first)["outcome"] == "conflict"
    await until(lambda: not scenario.loading)
    assert list(scenario.server.snapshot.deployments) == ["a"]


async def test_the_load_of_a_replacement_is_taken_over_and_the_old_one_serves(scenario: Loading) -> None:
    server = scenario.server
    await server.apply({"b": server.script("b"), **scenario.a})
    replaced = {"b": server.script("c", on_load="hang")}
    first = asyncio.create_task(server.apply({**replaced, **scenario.a}))
    await until(lambda: bool(scenario.loading))
    (pid,) = [load.worker.pid for load in server.pool._loads.values()]
    second = asyncio.create_task(server.apply({**replaced, **scenario.edited()}))
    await until(lambda: scenario.system == "two")
    await first

    assert await server.ask("b", "say old") == "old"
    assert [load.worker.pid for load in server.pool._loads.values()] == [pid]
    reverted = await server.apply({"b": "./b.script.json", **scenario.edited()})
    assert reverted["outcome"] == "applied"
    assert (await second)["outcome"] == "conflict"
    await until(lambda: not scenario.loading)


async def test_a_change_of_the_overlay_does_not_wait_for_the_load_and_does_not_end_it(scenario: Loading) -> None:
    server = scenario.server
    first = await scenario.begin()
    await server.service.answer(CopyModel(source="a", destination="copy"), CALLER)

    assert await server.ask("copy", "say on") == "on"
    assert not first.done(), "the apply waits for its load"
    assert scenario.loading
    await server.service.answer(_unload("stuck"), CALLER)
    result = await first
    assert result["outcome"] == "partly_applied"
    assert result["models"]["stuck"]["message"].startswith("stuck was unloaded while it loaded")


def _unload(model: str) -> Any:
    return LoadModel(model=model, keep_alive=0.0)


async def test_an_unload_ends_the_first_load_of_an_apply(scenario: Loading) -> None:
    first = await scenario.begin()
    await scenario.server.service.answer(_unload("stuck"), CALLER)

    assert (await first)["models"]["stuck"]["ok"] is False
    await until(lambda: not scenario.loading)


async def test_a_load_without_progress_ends_the_apply(scenario: Loading) -> None:
    scenario.server.pool.limits = StallLimits(quiet=1.0, ping=0.1)
    first = await scenario.begin()

    result = await first
    assert result["outcome"] == "partly_applied"
    assert "made no progress" in result["models"]["stuck"]["message"]
    assert scenario.server.status("stuck")["state"] == "failed"
