"""Drives an engine as a worker does: submits jobs, steps until it is idle, and collects the outputs of each job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mullama.chat.types import DEFAULT_SAMPLING, PromptInput, Sampling, TokenLogprob
from mullama.engines.base import (
    Begun,
    Embed,
    Embedded,
    Ended,
    Engine,
    Failed,
    Generate,
    Output,
    Piece,
    PieceDetails,
    Prefilled,
)

GREEDY = Sampling(temperature=0.0).over(DEFAULT_SAMPLING)


def sampling(**changes: Any) -> Sampling:
    return Sampling(**changes).over(DEFAULT_SAMPLING)


def ask(id: int, prompt: PromptInput, **changes: Any) -> Generate:
    """Return a greedy job in the context `main`; `changes` replace its fields."""
    settings: dict[str, Any] = {"context": "main", "sampling": GREEDY, "max_tokens": 24}
    return Generate(id=id, prompt=prompt, **{**settings, **changes})


def user(text: str) -> str:
    """Return a prompt in the built-in model's format, without thinking."""
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@dataclass
class Result:
    """The outputs of one job. `events` are their class names in order."""

    text: str = ""
    echo: str = ""
    count: int = 0
    events: list[str] = field(default_factory=list)
    begun: Begun | None = None
    ended: Ended | None = None
    failed: Failed | None = None
    embedded: Embedded | None = None
    progress: list[Prefilled] = field(default_factory=list)
    details: list[PieceDetails] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    echo_logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return bool(self.ended or self.failed or self.embedded)


class Driver:
    """Steps an engine and collects its outputs by job."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.results: dict[int, Result] = {}
        self.steps = 0

    def submit(self, *jobs: Generate | Embed) -> Driver:
        for job in jobs:
            self.results[job.id] = Result()
            self.engine.submit(job)
        return self

    def step(self) -> Sequence[Output]:
        self.steps += 1
        outputs = self.engine.step()
        for output in outputs:
            self._take(output)
        return outputs

    def run(self, until: Callable[[], bool] = lambda: False, *, steps: int = 20_000) -> dict[int, Result]:
        for _ in range(steps):
            if not self.engine.busy or until():
                return self.results
            self.step()
        raise AssertionError(f"still busy after {steps} steps: {self.results}")

    def _take(self, output: Output) -> None:
        result = self.results[output.id]
        assert not result.done, f"{output} after the end"
        result.events.append(type(output).__name__)
        match output:
            case Begun():
                result.begun = output
            case Prefilled():
                result.progress.append(output)
            case Piece(echo=True):
                result.echo += output.text
                result.echo_logprobs += output.logprobs
            case Piece():
                result.text += output.text
                result.count += output.count
                result.details += [output.details] if output.details else []
                result.logprobs += output.logprobs
            case Ended():
                result.ended = output
            case Failed():
                result.failed = output
            case Embedded():
                result.embedded = output


def answers(engine: Engine, *jobs: Generate | Embed) -> list[Result]:
    """Submit these jobs together; return their results."""
    results = Driver(engine).submit(*jobs).run()
    return [results[job.id] for job in jobs]


def answer(engine: Engine, prompt: PromptInput, **changes: Any) -> Result:
    return answers(engine, ask(1, prompt, **changes))[0]
