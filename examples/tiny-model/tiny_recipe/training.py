"""The training loop: resumes from its checkpoint, follows the clock, and waits while it is asked to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from tiny_recipe.corpus import batches
from tiny_recipe.network import Tiny

WARM_UP = 100  # steps
STEADY = 0.25  # share of the time after which the rate begins to fall
LOWEST = 0.02  # of the rate, at the end
SAVE_EVERY = 90.0  # seconds
REPORT_EVERY = 20  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long to train (minutes over all runs), how fast, and where the state is kept."""

    minutes: float
    rate: float
    checkpoint: Path
    pause: Path | None = None


@dataclass(slots=True)
class State:
    """What a checkpoint holds: `spent` is in seconds, over all runs; `seeds` are those of the samples seen."""

    model: Tiny
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    spent: float = 0.0
    seeds: tuple[int, ...] = ()

    def save(self, path: Path) -> None:
        """Replace the checkpoint at once, so that a broken run leaves the old one."""
        fresh = path.with_suffix(".new")
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        model = self.model.state_dict()
        torch.save(
            {
                "model": model,
                "optimizers": optimizers,
                "step": self.step,
                "spent": self.spent,
                "seeds": self.seeds,
            },
            fresh,
        )
        fresh.replace(path)

    def load(self, path: Path) -> None:
        saved: dict[str, Any] = torch.load(path)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.spent, self.seeds = saved["step"], saved["spent"], tuple(saved["seeds"])


def optimizers_of(model: Tiny, rate: float) -> tuple[list[torch.optim.Optimizer], list[nn.Parameter]]:
    """Muon for the matrices, AdamW for the rest; and the rest, whose gradients are clipped."""
    matrices = [weight for weight in model.blk.parameters() if weight.ndim == 2]
    others = [weight for name, weight in model.named_parameters() if weight.ndim == 1 or "embd" in name]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ], others


def train(model: Tiny, tokenizer: Tokenizer, settings: Settings) -> None:
    """Learn until the time is spent; the checkpoint is written every so often and at the end."""
    optimizers, clipped = optimizers_of(model, settings.rate)
    state = State(model, optimizers)
    if settings.checkpoint.exists():
        state.load(settings.checkpoint)
    loss_of: Any = torch.compile(model)
    average, saved_at = 0.0, state.spent
    state.seeds = (*state.seeds, state.step)
    clock = ticks(settings.pause)
    for batch in batches(tokenizer, state.step):
        state.spent += next(clock)
        progress = state.spent / 60 / settings.minutes
        if progress >= 1 or state.spent - saved_at > SAVE_EVERY:
            state.save(settings.checkpoint)
            saved_at = state.spent
        if progress >= 1:
            return
        set_rate(optimizers, settings.rate * falling(state.step, progress))
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(clipped, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        average = loss.item() if not average else 0.98 * average + 0.02 * loss.item()
        state.step += 1
        if state.step % REPORT_EVERY == 0:
            print(f"step {state.step}  {state.spent / 60:.1f} min  loss {average:.3f}", flush=True)


def ticks(pause: Path | None) -> Iterator[float]:
    """The seconds since the last call; waits while the file `pause` exists."""
    last = time.monotonic()
    while True:
        while pause is not None and pause.exists():
            time.sleep(1)
        now = time.monotonic()
        yield now - last
        last = now


def falling(step: int, progress: float) -> float:
    """The share of the rate: up in the first steps, level, then down to almost nothing."""
    return min(1.0, (step + 1) / WARM_UP, max(LOWEST, (1 - progress) / (1 - STEADY)))


def set_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
