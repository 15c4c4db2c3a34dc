"""Media on their way to a real worker, and what their files can do to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mullama.chat.media import Medium
from mullama.chat.types import DEFAULT_SAMPLING
from mullama.engines.base import (
    ContextFacts,
    ContextOptions,
    Ended,
    EngineChoice,
    Generate,
    Output,
    Piece,
    Projector,
    Prompt,
    WeightsOptions,
)
from mullama.errors import EngineFailed, Invalid
from mullama.runtime.worker.parent import WorkerClient
from mullama.runtime.worker.process import Death
from tests.engines.llamacpp import builders
from tests.engines.llamacpp.media import projectors
from tests.processes.forked import fork_worker

pytestmark = pytest.mark.anyio
M = "\ue001"
IMAGE = Medium.of("image", projectors.png(64, 64))
DAMAGED = Medium.of("image", projectors.png(64, 64)[:100])


@asynccontextmanager
async def worker(
    folder: Path, deaths: list[Death], write: Callable[[Path], None] = projectors.llava
) -> AsyncIterator[tuple[WorkerClient, ContextFacts]]:
    builders.llama(folder / "weights.gguf")
    write(folder / "mmproj.gguf")
    choice = EngineChoice(name="llamacpp", files=(str(folder / "weights.gguf"),), options=WeightsOptions())
    started = await WorkerClient.start(choice, deaths.append, fork_worker)
    try:
        projector = Projector(path=str(folder / "mmproj.gguf"), gpu=False)
        facts = await started.open_context("c", ContextOptions(size=1024, parallel=2, threads=1, projector=projector))
        yield started, facts
    finally:
        await started.kill()


def job(w: WorkerClient, *media: Medium) -> Generate:
    text = f"Look: {M} What?" if media else "What?"
    return Generate(
        id=w.next_id(), context="c", prompt=text, sampling=DEFAULT_SAMPLING, max_tokens=4, marker=M, media=media
    )


def prompt(medium: Medium) -> Prompt:
    return Prompt(context="c", prompt=f"Look: {M} What?", marker=M, media=(medium,))


async def outputs_of(w: WorkerClient, job: Generate, request: object = None) -> list[Output]:
    return [output async for outputs in w.generate(job, request=request) for output in outputs]


async def test_media_reach_the_worker_and_are_counted(tmp_path: Path) -> None:
    async with worker(tmp_path, []) as (w, facts):
        assert facts.media is not None
        assert (facts.media.vision, facts.media.audio) == (True, False)
        counted = await w.count_tokens(prompt(IMAGE))
        outputs = await outputs_of(w, job(w, IMAGE))
        with pytest.raises(Invalid, match="medium 1 of the request is a damaged image"):
            await outputs_of(w, job(w, DAMAGED))
        with pytest.raises(Invalid, match="medium 1 of the request is a damaged image"):
            await w.count_tokens(prompt(DAMAGED))
        assert any(isinstance(o, Piece) for o in await outputs_of(w, job(w)))

    ended = outputs[-1]
    assert isinstance(ended, Ended)
    assert ended.prompt_tokens == counted > 16


async def test_a_crash_of_native_code_at_a_sound_names_its_request(tmp_path: Path) -> None:
    """The quarantine of requests judges by these names."""
    deaths: list[Death] = []
    async with worker(tmp_path, deaths, lambda path: projectors.qwen2a(path, positions=100)) as (w, _):
        assert any(isinstance(o, Piece) for o in await outputs_of(w, job(w)))
        with pytest.raises(EngineFailed, match="SIGABRT"):
            await outputs_of(w, job(w, Medium.of("audio", projectors.wav(0.5))), "the request with a sound")
    (death,) = deaths
    assert death.work == ("the request with a sound",)
