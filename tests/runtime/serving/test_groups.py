"""Groups on real workers over scripted models."""

from __future__ import annotations

import asyncio

import pytest

from mullama.chat.inventory import LoadModel
from mullama.runtime.scheduler.state import Phase
from tests.runtime.runtime_fixture import CALLER, LocalServer, until

pytestmark = pytest.mark.anyio


def loaded(server: LocalServer) -> set[str]:
    """The models that take memory."""
    deployments = server.snapshot.deployments.items()
    return {name for name, d in deployments if server.pool.phase(d.unit) is not Phase.COLD}


async def test_the_models_of_a_group_replace_each_other_and_no_request_is_lost(server: LocalServer) -> None:
    on_demand = {"residency": {"load": "on_demand"}}
    models = {name: {"from": server.script(name, default=f"I am {name}"), **on_demand} for name in "ab"}
    await server.apply({**models, "other": server.script("other")}, groups={"g": {"models": ["a", "b"], "max": 1}})
    most: set[int] = set()

    async def client(name: str) -> list[str]:
        answers = []
        for _ in range(3):
            answers.append(await server.ask(name, "hello"))
            most.add(len(loaded(server) & {"a", "b"}))
        return answers

    found = await asyncio.gather(client("a"), client("b"))

    assert found == [["I am a"] * 3, ["I am b"] * 3]
    assert most == {1}
    assert "other" in loaded(server)


async def test_a_group_that_is_larger_than_the_budget_is_named_and_served_in_turns(server: LocalServer) -> None:
    on_demand = {"residency": {"load": "on_demand"}}
    models = {name: {"from": server.script(name, default=f"I am {name}"), **on_demand} for name in "abc"}
    groups = {"g": {"models": ["a", "b", "c"], "max": 3}}
    await server.apply(models)
    await server.ask("a", "hello")
    each = server.status("a")["memory"]
    assert each > 0
    await server.apply(models)
    lines = await server.apply_lines(models, groups=groups, hardware={"budget": {"ram": str(int(each * 1.5))}})

    (plan,) = (line["plan"] for line in lines if line["event"] == "plan")
    assert any("the group g allows 3 loaded models" in text for text in plan["warnings"]), plan["warnings"]
    assert lines[-1]["outcome"] == "applied"
    most: set[int] = set()
    for name in "abcab":
        assert await server.ask(name, "hello") == f"I am {name}"
        most.add(len(loaded(server)))
    assert most == {1}


async def test_the_status_shows_which_models_of_a_group_are_loaded_and_which_wait(server: LocalServer) -> None:
    on_demand = {"residency": {"load": "on_demand"}}
    models = {name: {"from": server.script(name), **on_demand} for name in "abc"}
    await server.apply(models, groups={"g": {"models": ["c", "b", "a"], "max": 1}})

    def group() -> dict[str, object]:
        (found,) = server.operator.status()["groups"]
        return found  # type: ignore[no-any-return]

    assert group() == {"name": "g", "max": 1, "loaded": [], "waiting": {}}
    running = server.events("a", "slow 20ms count to 500")
    await anext(running)
    waiting = [asyncio.create_task(server.ask(name, "hello")) for name in "bbc"]
    await until(lambda: len(server.pool.state.waiting) == 3)
    assert group() == {"name": "g", "max": 1, "loaded": ["a"], "waiting": {"b": 2, "c": 1}}
    await running.aclose()
    await asyncio.gather(*waiting)
    assert group()["waiting"] == {}
    await server.apply(models)
    assert server.operator.status()["groups"] == []


async def test_a_recreated_model_is_unloaded_before_its_new_revision_is_loaded(server: LocalServer) -> None:
    rollout = {"rollout": {"strategy": "recreate"}}
    await server.apply({"a": {"from": server.script(default="old"), **rollout}})
    old = server.pool.pids()

    changed = {"from": server.script("new", default="new"), **rollout}
    lines = await server.apply_lines({"a": changed})

    (step,) = next(line["plan"]["steps"] for line in lines if line["event"] == "plan")
    assert (step["pause"], step["refusal"]) == (True, "")
    assert lines[-1]["outcome"] == "applied"
    assert await server.ask("a", "hello") == "new"
    assert not set(old) & set(server.pool.pids())


async def test_a_model_for_when_there_is_room_comes_back_after_the_large_one(server: LocalServer) -> None:
    models = {
        "small": {"from": server.script("small"), "residency": {"load": "when_room"}},
        "large": {"from": server.script("large"), "residency": {"load": "on_demand"}},
    }
    result = await server.apply(models, groups={"g": {"models": ["small", "large"]}})
    assert result["outcome"] == "applied"
    assert not server.operator.missing()
    await until(lambda: loaded(server) == {"small"})

    assert await server.ask("large", "say yes") == "yes"
    assert loaded(server) == {"large"}
    small = server.status("small")
    assert (small["state"], small["conditions"][0]["reason"]) == ("idle", "OnDemand"), "nothing loads it now"
    await server.service.answer(LoadModel(model="large", keep_alive=0.0), CALLER)

    await until(lambda: loaded(server) == {"small"})
    assert await server.ask("small", "say yes") == "yes"
