"""A real child process: its answers, its outputs and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from mullama.chat.types import DEFAULT_SAMPLING
from mullama.engines.base import (
    ContextOptions,
    Embed,
    Ended,
    EngineChoice,
    Generate,
    Output,
    Piece,
    WeightsOptions,
)
from mullama.errors import BadWeights, ContextOverflow, EngineFailed, Invalid, MullamaError
from mullama.runtime.worker.parent import WorkerClient
from mullama.runtime.worker.process import Death
from tests.processes.forked import fork_worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "w.script.json"
    path.write_text(json.dumps({"faults": True, "context": 4096}))
    return str(path)


@asynccontextmanager
async def worker(script: str, deaths: list[Death] | None = None) -> AsyncIterator[WorkerClient]:
    choice = EngineChoice(name="scripted", files=(script,), options=WeightsOptions())
    started = await WorkerClient.start(choice, (deaths if deaths is not None else []).append, fork_worker)
    try:
        await started.open_context("c", ContextOptions(size=512, parallel=4))
        yield started
    finally:
        await started.kill()
        assert not psutil.pid_exists(started.pid)


def job(w: WorkerClient, prompt: str, **more: int) -> Generate:
    return Generate(id=w.next_id(), context="c", prompt=prompt, sampling=DEFAULT_SAMPLING, **more)  # type: ignore[arg-type]


async def text_of(w: WorkerClient, prompt: str) -> str:
    return "".join([o.text for o in await outputs_of(w, job(w, prompt)) if isinstance(o, Piece)])


async def outputs_of(w: WorkerClient, *jobs: Generate) -> list[Output]:
    return [output async for outputs in w.generate(*jobs) for output in outputs]


async def test_a_worker_answers_many_jobs_at_once(script: str) -> None:
    async with worker(script) as w:
        texts = await asyncio.gather(*(text_of(w, f"say hello {i}") for i in range(8)))

    assert texts == [f"hello {i}" for i in range(8)]


async def test_jobs_of_one_request_end_one_by_one_and_the_first_failure_ends_the_others(script: str) -> None:
    async with worker(script) as w:
        short, long = job(w, "say a"), job(w, "say a b c d e f g")
        both = await outputs_of(w, short, long)
        assert [o.id for o in both if isinstance(o, Ended)] == [short.id, long.id]

        lost = Generate(id=w.next_id(), context="nowhere", prompt="x", sampling=DEFAULT_SAMPLING)
        with pytest.raises(MullamaError):
            await outputs_of(w, job(w, "10000 tokens slow 5ms"), lost)
        while (await w.stats()).running:  # each question is a round trip, so this ends at once
            pass


async def test_questions_are_answered(script: str) -> None:
    async with worker(script) as w:
        tokens = await w.tokenize("hello", add_special=False, parse_special=False)
        back = await w.detokenize(tokens)
        found = await w.embed(Embed(id=w.next_id(), context="c", inputs=("a", "b")))
        stats = await w.stats()

    assert back == b"hello"
    assert len(found.vectors) == 2
    assert stats.contexts == ("c",)


async def test_the_numbers_of_a_busy_worker_are_looked_at(script: str) -> None:
    async with worker(script) as w:
        await text_of(w, "say hello")
        while not w.seen.completion_tokens:
            w._watch_now.set()
            await w.stats()  # a round trip


async def test_leaving_a_stream_cancels_its_job(script: str) -> None:
    async with worker(script) as w:
        stream = w.generate(job(w, "10000 tokens slow 5ms"))
        async for outputs in stream:
            if any(isinstance(output, Piece) for output in outputs):
                break
        await stream.aclose()
        while (await w.stats()).running:  # each question is a round trip, so this ends at once
            pass


async def test_a_prompt_that_is_too_long_is_an_overflow_with_both_numbers(script: str) -> None:
    async with worker(script) as w:
        with pytest.raises(ContextOverflow) as caught:
            await text_of(w, "x" * 5000)

    assert caught.value.context_size == 512
    assert caught.value.prompt_tokens > 512


@pytest.mark.parametrize(
    ("prompt", "reason"), [("crash segv", "SIGSEGV"), ("crash abort", "SIGABRT"), ("crash exit", "exit code")]
)
async def test_a_native_crash_ends_its_streams_with_the_reason(script: str, prompt: str, reason: str) -> None:
    deaths: list[Death] = []
    async with worker(script, deaths) as w:
        with pytest.raises(EngineFailed) as caught:
            await text_of(w, prompt)
        with pytest.raises(EngineFailed):
            await w.tokenize("after", add_special=False, parse_special=False)

    assert reason in caught.value.message
    assert reason in deaths[0].message


async def test_garbage_on_the_socket_ends_the_worker(script: str) -> None:
    deaths: list[Death] = []
    async with worker(script, deaths) as w:
        with pytest.raises(EngineFailed):
            await text_of(w, "garbage")
    assert len(deaths) == 1


async def test_a_flood_of_output_is_drained_and_its_end_is_kept(script: str) -> None:
    async with worker(script) as w:
        await text_of(w, "flood stderr")
        await w.stats()
        assert len(w.report()) <= 128 * 1024


async def test_a_file_that_is_no_script_is_refused_and_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "bad.script.json"
    path.write_text("[")
    before = {p.pid for p in psutil.Process().children()}
    choice = EngineChoice(name="scripted", files=(str(path),), options=WeightsOptions())
    with pytest.raises((BadWeights, Invalid, EngineFailed)):
        await WorkerClient.start(choice, lambda death: None)
    assert {p.pid for p in psutil.Process().children()} <= before


async def test_a_worker_killed_from_outside_is_reported(script: str) -> None:
    deaths: list[Death] = []
    async with worker(script, deaths) as w:
        stream = w.generate(job(w, "10000 tokens slow 5ms"))
        with pytest.raises(EngineFailed, match="SIGKILL"):
            await _kill_at_first_piece(w, stream)
    assert len(deaths) == 1


async def _kill_at_first_piece(w: WorkerClient, stream: AsyncIterator[list[Output]]) -> None:
    async for outputs in stream:
        if any(isinstance(output, Piece) for output in outputs):
            os.kill(w.pid, signal.SIGKILL)


async def test_the_real_engine_speaks_the_same_protocol() -> None:
    path = Path(__file__).parents[3] / "mullama/sources/builtin_models/tiny.gguf"
    choice = EngineChoice(name="llamacpp", files=(str(path),), options=WeightsOptions())
    w = await WorkerClient.start(choice, lambda death: None)
    try:
        await w.open_context("c", ContextOptions(size=256, parallel=2))
        outputs = await outputs_of(w, job(w, "Hello", max_tokens=3))
    finally:
        await w.stop()
    assert isinstance(outputs[-1], Ended)
    assert outputs[-1].completion_tokens == 3


async def test_a_stop_that_is_cancelled_ends_the_worker_before_it_returns(script: str) -> None:
    """A second signal cancels the stop of a server that waits for its worker."""
    async with worker(script) as w:
        os.kill(w.pid, signal.SIGSTOP)  # it cannot exit
        stopping = asyncio.create_task(w.stop(patience=600))
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert not psutil.pid_exists(w.pid)


async def test_an_unknown_context_is_an_error_and_not_a_crash(script: str) -> None:
    async with worker(script) as w:
        lost = Generate(id=w.next_id(), context="nowhere", prompt="x", sampling=DEFAULT_SAMPLING)
        with pytest.raises(MullamaError):
            await outputs_of(w, lost)
        assert await text_of(w, "say ok") == "ok"
