"""Places of answers, effective settings and states of models, on real workers over scripted models."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from mullama.chat import types as chat
from mullama.chat.inventory import LoadModel, ModelCard, ModelStateReport, ShowModel
from mullama.engines.base import Begun
from mullama.errors import Invalid
from mullama.runtime.scheduler.events import UnitKey
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.serving.places import PlaceBoard
from tests.runtime.runtime_fixture import CALLER, LocalServer, until

pytestmark = pytest.mark.anyio


async def test_places_number_the_answers_that_run_together(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "limits": {"parallel": 2}}})

    async def slots() -> list[tuple[bool, int]]:
        shown = await server.service.answer(ShowModel(model="a"), CALLER)
        assert isinstance(shown, ModelCard)
        return [(slot.busy, slot.generated) for slot in shown.slots]

    assert await slots() == [(False, 0), (False, 0)]
    ended: list[chat.Finished] = []
    async for event in server.events("a", "slow 50ms count to 3", n=2):
        match event:
            case chat.Started(effective=effective):
                assert effective is not None
                assert (effective.model, effective.context_size) == ("a", 8192)
                assert any(busy for busy, _ in await slots())
            case chat.Finished():
                ended.append(event)
    places = sorted(end.outcome.slot for end in ended if end.outcome)
    assert places == [0, 1]
    assert await slots() == [(False, 0), (False, 0)]
    async with aclosing(server.events("a", "count to 9")) as leaving:
        assert isinstance(await anext(leaving), chat.Started)
    assert await slots() == [(False, 0), (False, 0)]


def test_a_place_keeps_no_text_of_its_request() -> None:
    board = PlaceBoard(lambda: ())
    unit, effective = UnitKey("w", "c"), chat.Effective(model="m", context_size=9, sampling=chat.DEFAULT_SAMPLING)
    requests = (
        chat.CompletionRequest(model="m", prompts=("secret",), suffix="secret", n=2),
        chat.ChatRequest(model="m", messages=(chat.text_message("user", "secret"),), n=2),
    )
    for request in requests:
        places = board.request(unit, 2, request, effective, lambda choice: choice)
        for choice in (0, 1):
            places.begin(choice, Begun(id=choice, prompt_tokens=5, cached_tokens=1, prompt="secret"))
        slots = board.slots(unit, 2)
        assert [(slot.id, slot.busy, slot.generated) for slot in slots] == [(0, True, 0), (1, True, 1)]
        assert [slot.request.n for slot in slots if slot.request] == [2, 2]
        assert "secret" not in repr(slots)
        assert places.end(1) == 1
        places.close()
        assert [slot.busy for slot in board.slots(unit, 2)] == [False, False]
        assert places.end(1) == -1


def test_the_end_of_a_request_leaves_a_place_that_another_has_taken() -> None:
    board = PlaceBoard(lambda: ())
    unit, effective = UnitKey("w", "c"), chat.Effective(model="m", context_size=9, sampling=chat.DEFAULT_SAMPLING)
    request = chat.CompletionRequest(model="m", prompts=("a",))
    first, second = (board.request(unit, 1, request, effective, lambda choice: 0) for _ in range(2))
    first.begin(0, Begun(id=1, prompt_tokens=5, cached_tokens=0))
    second.begin(0, Begun(id=2, prompt_tokens=6, cached_tokens=0))  # the end of the first is read later
    assert first.end(0) == 0
    [slot] = board.slots(unit, 1)
    assert (slot.busy, slot.prompt_tokens) == (True, 6)


async def test_a_request_with_a_route_shows_the_models_own_settings(server: LocalServer) -> None:
    model = {"from": server.script(), "parameters": {"top_k": 3}, "limits": {"max_tokens": 5}}
    await server.apply({"a": model}, routes={"front": "a"})

    [started] = [
        e async for e in server.events("front", "hi", sampling=chat.Sampling(seed=7)) if isinstance(e, chat.Started)
    ]
    assert started.effective is not None
    assert (started.effective.model, started.effective.max_tokens) == ("a", 5)
    assert (started.effective.sampling.top_k, started.effective.sampling.seed) == (3, 7)


async def test_states_of_models_are_watched_from_now_on(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})

    async with aclosing(server.service.watch(CALLER)) as watching:
        assert await anext(watching) == ModelStateReport(model="a", state="cold")
        task = asyncio.create_task(server.ask("a", "hi"))
        assert [(await anext(watching)).state for _ in range(2)] == ["opening", "ready"]
        await task
        await server.apply({"b": server.script("b")})
        seen: set[tuple[str, str]] = set()
        while ("a", "") not in seen:
            state = await anext(watching)
            seen.add((state.model, state.state))


async def test_a_load_that_would_change_nothing_is_refused_if_asked(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})
    load, unload = LoadModel(model="a", only_change=True), LoadModel(model="a", keep_alive=0.0, only_change=True)

    with pytest.raises(Invalid, match="'a' is not loaded"):
        await server.service.answer(unload, CALLER)
    await server.service.answer(load, CALLER)
    with pytest.raises(Invalid, match="'a' is already loaded"):
        await server.service.answer(load, CALLER)
    await server.service.answer(unload, CALLER)
    await until(lambda: server.pool.phase(server.snapshot.deployments["a"].unit) is Phase.COLD)
