"""What a request may do, with real workers over scripted models: who may ask what, for how long, how often."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mullama.chat import types as chat
from mullama.chat.inventory import ListModels, LoadModel
from mullama.errors import Denied, EngineFailed, Invalid, NotFound, TimedOut
from mullama.runtime.scheduler.state import Phase
from tests.runtime.runtime_fixture import CALLER, Stand, run, stand, until


def phase(s: Stand, model: str) -> Phase:
    return s.pool.phase(s.reconciler.snapshot.deployments[model].unit)


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
def test_a_key_may_use_the_models_and_routes_that_it_names(
    scope: tuple[str, ...], asked: str, may: bool, tmp_path: Path
) -> None:
    """A key for a route may not go round it, and one for a model may use every name of that model."""

    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script(), "b": s.script("b")}, routes={"front": "a"})
            caller = replace(CALLER, key="k", models=scope)
            if may:
                assert s.service.find(asked, caller).name == "a"
            else:
                with pytest.raises(Denied, match="the key 'k' may not use"):
                    s.service.find(asked, caller)

    run(test)


def test_a_listing_holds_what_the_caller_may_use_in_its_dialect_with_the_routes_to_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            models = {"a": s.script(), "b": {"from": s.script("b"), "dialects": ["ollama"]}, "c": s.script("c")}
            await s.apply(models, routes={"front": "a", "back": "c", "default": "a"})

            async def names(dialect: str, *scope: str) -> set[str]:
                found = await s.service.answer(ListModels(), replace(CALLER, dialect=dialect, models=scope))
                return {card.name for card in found.models}  # type: ignore[union-attr]

            assert await names("openai", "*") == {"a", "c", "front", "back"}
            assert await names("ollama", "*") == {"a", "b", "c", "front", "back"}
            assert await names("openai", "a") == {"a", "front"}
            with pytest.raises(NotFound, match="not served in the openai dialect"):
                s.service.find("b", CALLER)

    run(test)


def test_a_request_that_takes_longer_than_the_model_allows_is_ended(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "limits": {"timeout": "300ms"}}})

            with pytest.raises(TimedOut, match=r"longer than 0\.3 s"):
                await s.ask("a", "slow 100ms count to 100")

            await until(lambda: s.status("a")["active"] == 0)
            pids = s.pool.pids()
            await s.apply({"a": s.script()})  # a time that no delay of this machine can use up
            assert await s.ask("a", "say on") == "on"
            assert s.pool.pids() == pids

    run(test)


def test_keep_alive_decides_how_long_the_model_stays_after_the_answer(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "residency": {"load": "on_demand", "ttl": "1h"}}})

            await s.ask("a", "say hi")
            assert phase(s, "a") is Phase.READY
            await s.ask("a", "say hi", keep_alive=0.0)
            await until(lambda: phase(s, "a") is Phase.COLD)
            await s.service.answer(LoadModel(model="a", keep_alive=-1.0), CALLER)
            assert phase(s, "a") is Phase.READY
            assert s.operator.expires(s.reconciler.snapshot.deployments["a"]) is None

    run(test)


def test_a_request_that_ended_a_worker_twice_is_refused_and_others_are_served(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script()})

            for _ in range(2):
                with pytest.raises(EngineFailed):
                    await s.ask("a", "crash exit")
            with pytest.raises(Invalid, match="crashed the engine twice"):
                await s.ask("a", "crash exit")

            assert s.pool.crashes == 2
            assert await s.ask("a", "say on") == "on"

    run(test)


def test_choices_share_one_prompt_and_are_counted_together(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script()})

            events = [event async for event in s.events("a", "say twice", n=2)]

            ends = [event.choice for event in events if isinstance(event, chat.Finished)]
            assert sorted(ends) == [0, 1]
            (completed,) = [event for event in events if isinstance(event, chat.Completed)]
            (started,) = [event for event in events if isinstance(event, chat.Started)]
            assert completed.usage.prompt_tokens == started.prompt_tokens
            assert s.stats.of("a").requests["ok"] == 1

    run(test)
