"""Requests on real workers over scripted models: their rights, time limits and failures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mullama.chat import types as chat
from mullama.chat.inventory import ListModels, LoadModel
from mullama.errors import Denied, EngineFailed, Invalid, NotFound, Refused, TimedOut
from mullama.runtime.scheduler.state import Phase
from tests.runtime.runtime_fixture import CALLER, LocalServer, until

pytestmark = pytest.mark.anyio


def phase(server: LocalServer, model: str) -> Phase:
    return server.pool.phase(server.snapshot.deployments[model].unit)


@pytest.mark.parametrize(
    ("scope", "asked", "may"),
    [
        (("*",), "a", True),
        (("a",), "a", True),
        (("a",), "front", True),
        (("front",), "front", True),
        (("front",), "a", False),
        (("b*",), "a", False),
        ((), "a", False),
    ],
)
async def test_a_key_may_use_the_models_and_routes_that_it_names(
    scope: tuple[str, ...], asked: str, may: bool, server: LocalServer
) -> None:
    """A key for a route may not go round it, and one for a model may use every name of that model."""
    await server.apply({"a": server.script(), "b": server.script("b")}, routes={"front": "a"})
    caller = replace(CALLER, key="k", models=scope)
    if may:
        assert server.service.find(asked, caller).name == "a"
    else:
        with pytest.raises(Denied, match="the key 'k' may not use"):
            server.service.find(asked, caller)


@pytest.mark.parametrize(
    ("scope", "named"), [(("*",), "a"), (("a",), "a"), (("front",), None), (("default",), "default"), ((), None)]
)
async def test_the_default_model_has_a_name_that_the_key_may_use(
    scope: tuple[str, ...], named: str | None, server: LocalServer
) -> None:
    await server.apply({"a": server.script(), "b": server.script("b")}, routes={"front": "a", "default": "a"})
    caller = replace(CALLER, key="k", models=scope)
    if named is None:
        with pytest.raises(Denied, match="the key 'k' may not use"):
            server.service.default_model(caller)
    else:
        assert server.service.default_model(caller) == named
        assert server.service.find(named, caller).name == "a"


async def test_without_a_default_model_the_error_names_the_fix(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "dialects": ["ollama"]}})
    with pytest.raises(Invalid, match="model is required") as caught:
        server.service.default_model(CALLER)
    assert (caught.value.field, "routes: {default: NAME}" in str(caught.value.hint)) == ("model", True)

    await server.apply({"a": {"from": server.script(), "dialects": ["ollama"]}}, routes={"default": "a"})
    with pytest.raises(NotFound, match="not served in the openai dialect"):
        server.service.default_model(CALLER)


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


async def test_a_request_that_exceeds_its_time_limit_is_ended(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "limits": {"timeout": "300ms"}}})

    with pytest.raises(TimedOut, match=r"longer than 0\.3 s"):
        await server.ask("a", "slow 100ms count to 100")

    await until(lambda: server.status("a")["active"] == 0)
    pids = server.pool.pids()
    await server.apply({"a": server.script()})  # a time that no delay of this machine can use up
    assert await server.ask("a", "say on") == "on"
    assert server.pool.pids() == pids


async def test_keep_alive_decides_how_long_the_model_stays_after_the_answer(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand", "ttl": "1h"}}})

    await server.ask("a", "say hi")
    assert phase(server, "a") is Phase.READY
    await server.ask("a", "say hi", keep_alive=0.0)
    await until(lambda: phase(server, "a") is Phase.COLD)
    await server.service.answer(LoadModel(model="a", keep_alive=-1.0), CALLER)
    assert phase(server, "a") is Phase.READY
    assert server.operator.expires(server.snapshot.deployments["a"]) is None


async def test_a_request_that_ended_a_worker_twice_is_refused_and_others_are_served(server: LocalServer) -> None:
    await server.apply({"a": server.script()})

    for _ in range(2):
        with pytest.raises(EngineFailed):
            await server.ask("a", "crash exit")
    with pytest.raises(Invalid, match="crashed the engine twice"):
        await server.ask("a", "crash exit")

    assert server.pool.crashes == 2
    assert await server.ask("a", "say on") == "on"


async def test_choices_share_one_prompt_and_are_counted_together(server: LocalServer) -> None:
    await server.apply({"a": server.script()})

    events = [event async for event in server.events("a", "say twice", n=2)]

    ends = [event.choice for event in events if isinstance(event, chat.Finished)]
    assert sorted(ends) == [0, 1]
    (completed,) = [event for event in events if isinstance(event, chat.Completed)]
    (started,) = [event for event in events if isinstance(event, chat.Started)]
    assert completed.usage.prompt_tokens == started.prompt_tokens
    assert server.metrics.of("a").requests["ok"] == 1


async def test_an_explicit_load_retries_a_failed_model(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})
    unit = server.snapshot.deployments["a"].unit
    server.pool.state.workers[unit.weights].permanently_failed = True
    server.pool.state.workers[unit.weights].error = Refused("it failed before")
    with pytest.raises(Refused):
        await server.ask("a", "say no")

    await server.service.answer(LoadModel(model="a"), CALLER)

    assert server.pool.phase(unit) is Phase.READY
