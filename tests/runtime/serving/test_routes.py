"""Requests to routes on real workers over scripted models: the model that answers, fallbacks, rules, reloads."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.chat.inventory import ListModels
from mullama.errors import Busy, Denied, EngineFailed, Invalid, TimedOut, Unavailable
from mullama.runtime.scheduler.state import Phase
from mullama.struct import replace
from tests.runtime.runtime_fixture import CALLER, LocalServer, request_of, until

pytestmark = pytest.mark.anyio


async def apply(server: LocalServer, routes: dict[str, Any], **models: dict[str, Any]) -> None:
    """Apply models whose answers are their names."""
    declared = {name: {"from": server.script(name, default=f"I am {name}"), **more} for name, more in models.items()}
    result = await server.apply(declared, routes=routes)
    assert result["outcome"] == "applied", result


async def effective(server: LocalServer, request: chat.ChatRequest) -> chat.Effective:
    answer = await server.service.answer(request, CALLER)
    assert isinstance(answer, chat.Answer)
    assert answer.effective
    return answer.effective


async def test_conversations_are_shared_by_weight_and_each_stays_with_its_model(server: LocalServer) -> None:
    await apply(server, {"r": {"to": ["a", "b"]}}, a={}, b={})

    first = {text: await server.ask("r", text) for text in map(str, range(12))}
    assert set(first.values()) == {"I am a", "I am b"}
    for text, answer in first.items():
        turns = (*request_of("r", text).messages, chat.text_message("assistant", "x"), chat.text_message("user", "y"))
        later = replace(request_of("r", text), messages=turns)
        assert (await effective(server, later)).model == answer.removeprefix("I am ")
    same = {await server.ask("r", text, conversation="mine") for text in map(str, range(12))}
    assert len(same) == 1


async def test_a_model_that_cannot_be_loaded_is_replaced_by_its_fallback(server: LocalServer) -> None:
    broken = server.script("a", on_open="crash exit")
    models = {"a": {"from": broken, "residency": {"load": "on_demand"}}, "b": server.script("b", default="I am b")}
    route = {"to": "a", "fallback": ["b"]}
    await server.apply(models, routes={"r": route, "only": {**route, "on_error": ["overloaded", "timeout"]}})

    assert await server.ask("r", "hello") == "I am b"
    unit = server.snapshot.deployments["a"].unit
    assert len(server.pool.state.workers[unit.weights].failures) == 1, "one death leads to the fallback"
    answer = await server.service.answer(request_of("r", "hello"), CALLER)
    assert isinstance(answer, chat.Answer)
    assert answer.choices[0].text == "I am b"
    counted = 'mullama_route_fallbacks_total{fallback="b",model="a",reason="unavailable",route="r"} 2.0'
    assert counted in server.operator.metrics()
    await until(lambda: len(server.pool.state.workers[unit.weights].failures) > 1)  # restarted without a request
    with pytest.raises(EngineFailed):
        await server.ask("only", "hello")
    with pytest.raises(EngineFailed):
        await server.ask("a", "hello")


async def test_a_full_queue_and_a_passed_time_lead_to_the_fallback(server: LocalServer) -> None:
    slow = {"limits": {"parallel": 1, "queue": 0, "timeout": "30s"}}
    short = {"limits": {"timeout": "200ms"}}
    routes = {
        "full": {"to": "a", "fallback": ["b"], "on_error": ["overloaded"]},
        "late": {"to": "c", "fallback": ["b"], "on_error": ["timeout"]},
        "neither": {"to": "c", "fallback": ["b"], "on_error": ["unavailable"]},
    }
    await apply(server, routes, a=slow, b={}, c=short)

    running = server.events("a", "slow 50ms count to 500")
    await anext(running)
    with pytest.raises(Busy):
        await server.ask("a", "hello")
    assert await server.ask("full", "hello") == "I am b"
    await running.aclose()

    slowly = "slow 100ms count to 5"
    assert (await effective(server, request_of("late", slowly))).model == "b"
    assert server.metrics.fallbacks == {("full", "a", "b", "overloaded"): 1, ("late", "c", "b", "timeout"): 1}
    for name in ("neither", "c"):
        with pytest.raises(TimedOut):
            await effective(server, request_of(name, slowly))
    with pytest.raises(TimedOut):  # a stream has begun
        await server.ask("late", slowly)


async def test_nothing_is_tried_again_after_the_first_event_or_for_a_fault_of_the_request(server: LocalServer) -> None:
    await apply(server, {"r": {"to": "a", "fallback": ["b"]}}, a={}, b={})

    events = server.events("r", "slow 20ms count to 100000")  # longer than any pause of the machine
    while not isinstance(await anext(events), chat.TextDelta):  # `Started` comes before anything is sent
        pass
    worker = server.pool.worker(server.snapshot.deployments["a"].unit)
    assert worker
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises((EngineFailed, Unavailable)):
        async for _ in events:
            pass
    with pytest.raises(Invalid):
        await server.ask("r", "hello", max_tokens=5, logprobs=3, n=0, adapters=(("none", 1.0),))


async def test_two_names_of_one_model_have_their_own_parameters(server: LocalServer) -> None:
    routes = {
        "plain": {"to": "coder", "force": {"think": False, "temperature": 0.1}, "strip": ["seed", "keep_alive"]},
        "brief": {"to": "coder", "parameters": {"num_predict": 3, "top_k": 7}},
    }
    await apply(server, routes, coder={"parameters": {"top_k": 5}, "force": {"min_p": 0.2}, "strip": ["stop"]})

    asked = request_of("coder", "hello", sampling=chat.Sampling(temperature=0.9, seed=3, min_p=0.5), stop=("x",))
    own = await effective(server, asked)
    plain = await effective(server, replace(asked, model="plain"))
    brief = await effective(server, replace(asked, model="brief"))

    assert (own.sampling.temperature, own.sampling.seed, own.sampling.min_p, own.stop) == (0.9, 3, 0.2, ())
    assert (plain.sampling.temperature, plain.sampling.seed, plain.sampling.min_p) == (0.1, -1, 0.2)
    assert (own.sampling.top_k, brief.sampling.top_k, brief.max_tokens) == (5, 7, 3)
    assert {own.model, plain.model, brief.model} == {"coder"}
    rendered = [
        await server.service.answer(chat.RenderRequest(chat=request_of(name, "hello")), CALLER)
        for name in ("coder", "plain")
    ]
    assert ["</think>" in found.text for found in rendered if isinstance(found, chat.DetokenizedText)] == [False, True]
    await server.service.answer(replace(request_of("plain", "hello"), keep_alive=0.0), CALLER)
    assert server.pool.phase(server.snapshot.deployments["coder"].unit) is Phase.READY


@pytest.mark.parametrize(
    ("scope", "answers"),
    [(("r",), {"I am a", "I am b"}), (("a", "b"), {"I am a", "I am b"}), (("b",), {"I am b"}), (("c",), None)],
)
async def test_a_key_uses_the_whole_route_or_the_models_that_it_names(
    scope: tuple[str, ...], answers: set[str] | None, server: LocalServer
) -> None:
    await apply(server, {"r": {"to": ["a", "b"]}}, a={}, b={}, c={"residency": {"load": "on_demand"}})
    caller = replace(CALLER, key="k", models=scope)

    async def ask(text: str) -> str:
        answer = await server.service.answer(request_of("r", text), caller)
        assert isinstance(answer, chat.Answer)
        return answer.choices[0].text

    if answers is None:
        with pytest.raises(Denied, match="the key 'k' may not use"):
            await ask("0")
    else:
        assert {await ask(str(number)) for number in range(12)} == answers
    listed = await server.service.answer(ListModels(), caller)
    assert ("r" in {card.name for card in listed.models}) == (answers is not None)  # type: ignore[union-attr]


async def test_a_default_route_of_several_models_answers_requests_without_a_name(server: LocalServer) -> None:
    await apply(server, {"default": {"to": ["a", "b"]}}, a={}, b={})
    name = server.service.default_model(CALLER)
    assert {await server.ask(name, str(number)) for number in range(12)} == {"I am a", "I am b"}


async def test_requests_under_reloads_that_move_the_route_are_all_answered(server: LocalServer) -> None:
    """Each reload removes the model that the route led to and adds the other one."""
    await apply(server, {"r": {"to": "a", "fallback": ["c"]}}, a={}, c={})
    answers: list[str] = []
    stop = asyncio.Event()

    async def client(number: int) -> None:
        while not stop.is_set():
            answers.append(await server.ask("r", f"hello {number}"))

    clients = [asyncio.create_task(client(number)) for number in range(4)]
    for turn in range(10):
        name = "ab"[turn % 2 == 0]
        await apply(server, {"r": {"to": name, "fallback": ["c"]}}, **{name: {}}, c={"force": {"seed": turn}})
        count = len(answers)
        await until(lambda count=count: len(answers) > count or any(c.done() for c in clients))  # type: ignore[misc]
    stop.set()
    await asyncio.gather(*clients)
    assert set(answers) <= {"I am a", "I am b", "I am c"}
    assert len(answers) >= 10
