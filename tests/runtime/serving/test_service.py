"""Requests on real workers over scripted models: their rights, time limits and failures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

import psutil
import pytest

from mullama.chat import types as chat
from mullama.chat.inventory import LoadModel
from mullama.errors import ContextOverflow, Denied, EngineFailed, Invalid, NotFound, TimedOut
from mullama.offload import LARGE
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.worker.parent import WorkerClient
from mullama.runtime.worker.watchdog import StallLimits
from mullama.struct import replace
from tests.runtime.runtime_fixture import CALLER, LocalServer, request_of, until

pytestmark = pytest.mark.anyio


def phase(server: LocalServer, model: str) -> Phase:
    return server.pool.phase(server.snapshot.deployments[model].unit)


async def declare(server: LocalServer, **routes: str) -> None:
    """Apply two models that no request has loaded yet, so that no worker starts."""
    on_demand = {"residency": {"load": "on_demand"}}
    await server.apply({name: {"from": server.script(name), **on_demand} for name in "ab"}, routes=routes)


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
    await declare(server, front="a")
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
    await declare(server, front="a", default="a")
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
    assert server.status("a")["expires"] is None


async def test_a_request_that_ended_a_worker_twice_is_refused_and_others_are_served(server: LocalServer) -> None:
    await server.apply({"a": server.script()})

    for _ in range(2):
        with pytest.raises(EngineFailed):
            await server.ask("a", "crash exit")
    with pytest.raises(Invalid, match="crashed the engine twice"):
        await server.ask("a", "crash exit")

    assert server.pool.crashes == 2
    assert await server.ask("a", "say on") == "on"


async def test_a_worker_killed_from_outside_is_no_fault_of_the_requests_in_work(server: LocalServer) -> None:
    """Equal requests, as probes and canned prompts are, are repeated and never refused."""
    await server.apply({"a": server.script()})

    for _ in range(2):
        with server.suspended("a"):
            asked = [asyncio.create_task(server.ask("a", "say hi")) for _ in range(2)]
            await until(lambda: server.pool.state.active("a") == 2)
            (pid,) = server.pool.pids()
            os.kill(pid, signal.SIGKILL)
            await until(lambda: server.pool.pids() == ())
        assert await asyncio.gather(*asked) == ["hi", "hi"]

    assert server.pool.crashes == 2


async def test_a_request_beside_one_that_crashes_is_answered_and_only_the_other_is_refused(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    beside = server.events("a", "slow 20ms count to 500")
    while not isinstance(await anext(beside), chat.TextDelta):
        pass
    with pytest.raises(EngineFailed):  # both are in work: each is suspected
        await server.ask("a", "crash exit")
    with pytest.raises(EngineFailed):
        async for _ in beside:
            pass

    assert await server.ask("a", "say on") == "on"
    with pytest.raises(EngineFailed):  # alone: this one counts
        await server.ask("a", "crash exit")

    quarantine = server.pool.quarantine
    assert [quarantine.blames(request_of("a", text)) for text in ("crash exit", "slow 20ms count to 500")] == [
        True,
        False,
    ]
    assert server.pool.crashes == 2
    weights = server.snapshot.deployments["a"].unit.weights
    assert len(server.pool.state.workers[weights].excused) == 1


async def whole(server: LocalServer, text: str) -> str:
    """The text of an answer that is sent at its end."""
    found = await server.service.answer(request_of("a", text), CALLER)
    assert isinstance(found, chat.Answer)
    return found.choices[0].text


def begun(server: LocalServer) -> int:
    """The answers of model a that have text."""
    return sum(server.metrics.of("a").first_token.counts)


async def test_a_whole_answer_that_had_begun_is_repeated_after_a_death_from_outside(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    asked = [asyncio.create_task(whole(server, "slow 20ms count to 30")) for _ in range(2)]
    await until(lambda: begun(server) == 2)
    os.kill(server.pool.pids()[0], signal.SIGKILL)

    answers = await asyncio.gather(*asked)

    assert answers[0] == answers[1] == await whole(server, "slow 0ms count to 30")
    assert server.pool.crashes == 1


async def test_whole_answers_beside_a_request_that_crashes_are_repeated_and_that_request_is_blamed(
    server: LocalServer,
) -> None:
    await server.apply({"a": server.script()})
    beside = [asyncio.create_task(whole(server, f"slow 20ms count to {n}")) for n in (30, 31)]
    await until(lambda: begun(server) == 2)

    with pytest.raises(EngineFailed):
        await whole(server, "crash exit")

    assert [len(text) for text in await asyncio.gather(*beside)] == [
        len(await whole(server, f"slow 0ms count to {n}")) for n in (30, 31)
    ]
    assert server.pool.crashes == 2  # the second is the repeated request alone
    assert server.pool.quarantine.blames(request_of("a", "crash exit"))


@pytest.mark.parametrize(
    "request_", [chat.TokenizeRequest(model="a", text="x y"), chat.DetokenizeRequest(model="a", tokens=(1, 2))]
)
async def test_a_question_about_tokens_is_repeated_after_a_death(server: LocalServer, request_: Any) -> None:
    await server.apply({"a": server.script()})
    before = await server.service.answer(request_, CALLER)
    with server.suspended("a"):
        asked = asyncio.create_task(server.service.answer(request_, CALLER))
        await until(lambda: server.pool.state.active("a") == 1)
        os.kill(server.pool.pids()[0], signal.SIGKILL)
        await until(lambda: server.pool.pids() == ())

    assert await asked == before


async def test_a_worker_that_hangs_beyond_the_time_limit_is_replaced_and_innocents_are_answered(
    server: LocalServer,
) -> None:
    server.pool.limits = StallLimits(overdue_quiet=0.2, overdue_ping=0.05)
    await server.apply({"a": {"from": server.script(), "limits": {"timeout": "2s"}}})
    (pid,) = server.pool.pids()

    hanging = asyncio.create_task(server.ask("a", "hang"))
    await until(lambda: server.pool.state.active("a") == 1)
    with pytest.raises(TimedOut):
        await hanging
    answers = await asyncio.gather(*(server.ask("a", "say hi") for _ in range(3)))

    assert answers == ["hi", "hi", "hi"]
    assert server.pool.pids() != (pid,)
    assert server.pool.crashes == 1
    assert server.pool.quarantine.blames(request_of("a", "hang"))


async def test_a_stopped_worker_is_replaced_and_nobody_is_blamed(server: LocalServer) -> None:
    server.pool.limits = StallLimits(ping=0.05)
    await server.apply({"a": server.script()})
    (pid,) = server.pool.pids()
    worker = server.pool.worker(server.snapshot.deployments["a"].unit)
    assert worker is not None
    worker._watchdog.limits = StallLimits(quiet=0.3, ping=0.05)  # not before the load, which may take its time

    os.kill(pid, signal.SIGSTOP)
    answers = await asyncio.gather(*(server.ask("a", "say hi") for _ in range(2)))

    assert answers == ["hi", "hi"]
    assert not psutil.pid_exists(pid)
    message = next(e["message"] for e in server.event_log.kept() if "hung" in e["message"])
    assert message.endswith("its process is stopped")


async def test_embeddings_beside_a_death_from_outside_are_repeated(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    request = chat.EmbedRequest(model="a", inputs=("x",))
    with server.suspended("a"):
        asked = asyncio.create_task(server.service.answer(request, CALLER))
        await until(lambda: server.pool.state.active("a") == 1)
        os.kill(server.pool.pids()[0], signal.SIGKILL)
        await until(lambda: server.pool.pids() == ())
    assert len((await asked).vectors) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "running",
    [
        request_of("a", "say yes", keep_alive=60.0),
        chat.EmbedRequest(model="a", inputs=("x",), keep_alive=60.0),
        chat.RerankRequest(model="a", query="x", documents=("y", "z"), top_n=1),
    ],
    ids=["conversation", "vectors", "ranking"],
)
async def test_a_reload_that_removes_a_model_loses_no_running_request(server: LocalServer, running: Any) -> None:
    await server.apply({"a": server.script("a"), "b": server.script("b")})
    with server.suspended("a"):
        asked = asyncio.create_task(server.service.answer(running, CALLER))
        await until(lambda: server.pool.state.active("a") == 1)
        applied = asyncio.create_task(server.apply({"b": server.script("b")}))
        await until(lambda: "a" not in server.snapshot.deployments)
    answer: Any = await asked
    assert (answer.effective.model if isinstance(running, chat.ChatRequest) else answer.answered_by) == "a"
    assert (await applied)["outcome"] == "applied"


async def test_choices_share_one_prompt_and_are_counted_together(server: LocalServer) -> None:
    await server.apply({"a": server.script()})

    events = [event async for event in server.events("a", "say twice", n=2)]

    ends = [event.choice for event in events if isinstance(event, chat.Finished)]
    assert sorted(ends) == [0, 1]
    (completed,) = [event for event in events if isinstance(event, chat.Completed)]
    (started,) = [event for event in events if isinstance(event, chat.Started)]
    assert completed.usage.prompt_tokens == started.prompt_tokens
    assert server.metrics.of("a").requests["ok"] == 1


async def test_a_long_text_is_tokenized_by_a_question_and_a_short_one_by_its_job(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.apply({"a": {"from": server.script(), "context": {"size": 2048}}})
    asked: list[int] = []
    real = WorkerClient.tokenize

    async def tokenize(worker: WorkerClient, text: str, **options: object) -> tuple[int, ...]:
        asked.append(len(text))
        return await real(worker, text, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(WorkerClient, "tokenize", tokenize)
    for prompt, wanted in (("say on", []), ("x " * LARGE, [2 * LARGE])):
        asked.clear()
        request = chat.CompletionRequest(model="a", prompts=(prompt,), raw=True, max_tokens=2)
        with contextlib.suppress(ContextOverflow):
            await server.service.answer(request, CALLER)
        assert asked == wanted
        asked.clear()
        with contextlib.suppress(ContextOverflow):
            await server.service.answer(chat.EmbedRequest(model="a", inputs=(prompt,)), CALLER)
        assert asked == wanted


@pytest.mark.parametrize(
    ("prompts", "context", "tokens"),
    [
        (((1,) * 2048,), (), 2048),
        (("x", (1,) * 3000, (1,) * 2500), (), 3000),
        (((1,) * 1000,), (1,) * 1048, 2048),
        (("x",), (1,) * 4000, 4000),
    ],
)
async def test_ids_that_cannot_fit_are_refused_before_they_reach_the_worker(
    prompts: tuple[str | tuple[int, ...], ...], context: tuple[int, ...], tokens: int, server: LocalServer
) -> None:
    await server.apply({"a": {"from": server.script(), "context": {"size": 2048}}})
    request = chat.CompletionRequest(model="a", prompts=prompts, context=context, raw=True)

    with server.suspended("a"), pytest.raises(ContextOverflow) as caught:
        await server.service.answer(request, CALLER)

    assert (caught.value.prompt_tokens, caught.value.context_size) == (tokens, 2048)


@pytest.mark.parametrize(
    ("inputs", "place"),
    [(("one two three four five six",), "content"), (("one", "one two three four five six"), "content[1]")],
)
async def test_an_input_that_is_too_long_is_named(inputs: tuple[str, ...], place: str, server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "context": {"size": 4}}})
    request = chat.EmbedRequest(model="a", inputs=inputs, place="content", truncate=False)

    with pytest.raises(ContextOverflow) as caught:
        await server.service.answer(request, CALLER)

    assert caught.value.field == place
    assert caught.value.message.startswith(place)


async def test_vectors_longer_than_those_of_the_model_are_refused(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script()}})

    with pytest.raises(Invalid, match="dimensions is 100000, but the vectors of a have") as caught:
        await server.service.answer(chat.EmbedRequest(model="a", inputs=("x",), dimensions=100_000), CALLER)

    assert caught.value.field == "dimensions"
