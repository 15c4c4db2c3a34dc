"""Questions about models, their load and unload, and the watch of their states."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, cast

import pytest

from mullama.chat.inventory import ListModels, LoadModel
from mullama.errors import Denied, NotFound, Refused
from mullama.runtime.scheduler.state import Phase
from mullama.struct import replace
from tests.runtime.runtime_fixture import CALLER, LocalServer, until

pytestmark = pytest.mark.anyio


async def test_a_listing_holds_the_models_and_routes_that_the_caller_may_use(
    server: LocalServer,
) -> None:
    models = {"a": server.script(), "b": {"from": server.script("b"), "dialects": ["ollama"]}, "c": server.script("c")}
    await server.apply(models, routes={"front": "a", "back": "c", "default": "a"})

    async def names(dialect: str, *scope: str) -> set[str]:
        found = await server.service.answer(ListModels(), replace(CALLER, dialect=dialect, models=scope))
        return {card.name for card in found.models}  # type: ignore[union-attr]

    assert await names("openai", "*") == {"a", "c", "front", "back"}
    assert await names("ollama", "*") == {"a", "b", "c", "front", "back"}
    assert await names("openai", "a") == {"a", "front"}
    with pytest.raises(NotFound, match="not served in the openai dialect"):
        server.service.find("b", CALLER)


async def test_an_explicit_load_retries_a_failed_model(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})
    unit = server.snapshot.deployments["a"].unit
    server.pool.state.workers[unit.weights].permanently_failed = True
    server.pool.state.workers[unit.weights].error = Refused("it failed before")
    with pytest.raises(Refused):
        await server.ask("a", "say no")

    await server.service.answer(LoadModel(model="a"), CALLER)

    assert server.pool.phase(unit) is Phase.READY


async def test_a_key_unloads_no_model_that_it_may_not_use(server: LocalServer) -> None:
    """Models with the same weights and the same context share it."""
    source = server.script("a")
    await server.apply({"chat": {"from": source}, "brief": {"from": source, "system": "Be brief."}})
    unit = server.snapshot.deployments["chat"].unit
    assert server.snapshot.deployments["brief"].unit == unit
    unload = LoadModel(model="brief", keep_alive=0.0)

    with pytest.raises(Denied, match="brief shares its context with chat, which the key 'k' may not use"):
        await server.service.answer(unload, replace(CALLER, key="k", models=("brief",)))
    assert server.pool.phase(unit) is Phase.READY

    await server.service.answer(unload, CALLER)
    await until(lambda: server.pool.phase(unit) is Phase.COLD)


async def test_a_watch_reports_the_states_of_the_models_that_a_key_may_use(server: LocalServer) -> None:
    on_demand = {"residency": {"load": "on_demand"}}
    await server.apply({name: {"from": server.script(name), **on_demand} for name in "ab"})
    caller = replace(CALLER, key="k", models=("a",))

    async with aclosing(cast(Any, server.service.watch(caller))) as reports:
        first = await anext(reports)
        assert (first.model, first.state) == ("a", "cold")
        await server.service.answer(LoadModel(model="b"), CALLER)
        await server.service.answer(LoadModel(model="a"), CALLER)
        seen = [await anext(reports)]
        while seen[-1].state != "ready":
            seen.append(await anext(reports))
        assert {report.model for report in seen} == {"a"}

        await server.apply({"b": {"from": server.script("b"), **on_demand}})
        while seen[-1].state:
            seen.append(await anext(reports))
        assert seen[-1].model == "a"
