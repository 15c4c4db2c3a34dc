"""The training loop: counts steps, not time, so that pauses and busy machines change nothing; resumes where it stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from tiny_recipe.corpus import batches
from tiny_recipe.muon import Muon
from tiny_recipe.network import Tiny

WARM_UP = 50  # steps
STEADY = 0.25  # share of the steps after which the rate begins to fall
LOWEST = 0.02  # of the rate, at the end
SAVE_EVERY = 120.0  # seconds
REPORT_EVERY = 10  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long to train (steps over all runs), how fast, and where the state is kept."""

    steps: int
    rate: float
    checkpoint: Path


@dataclass(slots=True)
class State:
    """What a checkpoint holds: `seconds` of processor time over all runs; `seeds` are those of the samples seen."""

    model: Tiny
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    seconds: float = 0.0
    seeds: tuple[int, ...] = ()

    def save(self, path: Path) -> None:
        """Replace the checkpoint at once, so that a broken run leaves the old one."""
        fresh = path.with_suffix(".new")
        kept = {"step": self.step, "seconds": self.seconds, "seeds": self.seeds}
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save({"model": self.model.state_dict(), "optimizers": optimizers, **kept}, fresh)
        fresh.replace(path)

    def load(self, path: Path) -> None:
        saved: dict[str, Any] = torch.load(path)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.seconds, self.seeds = saved["step"], saved["seconds"], tuple(saved["seeds"])


def optimizers_of(model: Tiny, rate: float) -> tuple[list[torch.optim.Optimizer], list[nn.Parameter]]:
    """Muon for the matrices, AdamW for the rest; and the rest, whose gradients are clipped."""
    matrices = [weight for weight in model.blk.parameters() if weight.ndim == 2]
    others = [weight for name, weight in model.named_parameters() if weight.ndim == 1 or "embd" in name]
    return [
        Muon(matrices, rate),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ], others


def precision() -> Callable[[], AbstractContextManager[object]]:
    """bfloat16 where the processor multiplies such matrices fast, otherwise float32."""
    if torch.cpu._is_amx_tile_supported():
        return lambda: torch.autocast("cpu", torch.bfloat16)
    return nullcontext


def train(model: Tiny, tokenizer: Tokenizer, settings: Settings) -> None:
    """Learn for the given steps, or until SIGTERM; the checkpoint is written every so often and at the end."""
    optimizers, clipped = optimizers_of(model, settings.rate)
    state = State(model, optimizers)
    if settings.checkpoint.exists():
        state.load(settings.checkpoint)
    state.seeds = (*state.seeds, state.step)
    loss_of: Any = torch.compile(model)
    context = precision()
    average, saved_at, spent_before = 0.0, time.monotonic(), state.seconds
    stopped = asked_to_stop()
    for batch in batches(tokenizer, state.step):
        state.seconds = spent_before + time.process_time()
        done = state.step >= settings.steps or stopped()
        if done or time.monotonic() - saved_at > SAVE_EVERY:
            state.save(settings.checkpoint)
            saved_at = time.monotonic()
        if done:
            return
        set_rate(optimizers, settings.rate * falling(state.step, settings.steps))
        with context():
            loss = loss_of(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(clipped, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        average = loss.item() if not average else 0.97 * average + 0.03 * loss.item()
        state.step += 1
        if state.step % REPORT_EVERY == 0:
            print(f"step {state.step}  {state.seconds:.0f} s  loss {average:.4f}", flush=True)


def asked_to_stop() -> Callable[[], bool]:
    """Whether SIGTERM came since this was called."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    return lambda: bool(asked)


def falling(step: int, steps: int) -> float:
    """The share of the rate: up in the first steps, level, then down to almost nothing."""
    return min(1.0, (step + 1) / WARM_UP, max(LOWEST, (1 - step / steps) / (1 - STEADY)))


def set_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
