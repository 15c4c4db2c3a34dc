"""Trains an encoder by labels: each vector should be the embedding of the token that its label names.

The loss is the cross-entropy of the label among its candidates, where the logit of a candidate falls with the squared
distance to its embedding, and the squared distance to the embedding of the label itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tiny_recipe.media.pictures import SIDE, Painter, seen
from tiny_recipe.media.reading import NONE, SLOTS, SPOKEN, Reading, token_of
from tiny_recipe.media.speech import Speaker, heard
from tiny_recipe.media.vision import PATCHES
from tiny_recipe.muon import Muon

SHARP = 8.0  # the logit between two candidates at the mean distance
WARM_UP, STEADY = 100, 0.4  # steps; share of the steps after which the rate begins to fall
KEPT_PICTURES = 6000  # half of each batch are pictures that were drawn before
WHOLE_EVERY = 16  # steps; the vectors after the slots learn only then, for they are all the same
REPORT_EVERY, SAVE_EVERY = 20, 250  # steps
HEARD = (NONE, *SPOKEN)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The language model's embeddings of the tokens that readings are made of."""

    weights: Tensor
    ids: dict[str, int]

    def of(self, words: Sequence[str]) -> Tensor:
        return self.weights[[self.ids[token_of(word)] for word in words]]

    @property
    def power(self) -> Tensor:
        """The mean square of a number in them."""
        return self.weights.pow(2).mean()


class Labels:
    """The candidates of each position, and the loss against them. One set of candidates may serve all positions."""

    def __init__(self, embeddings: Embeddings, sets: Sequence[Sequence[str]]) -> None:
        self.sets = [list(words) for words in sets]
        self.candidates = [embeddings.of(words) for words in self.sets]
        self.power = embeddings.power
        apart = [(c[:, None] - c[None]).pow(2).sum(-1).mean() for c in self.candidates]
        self.sharpness = SHARP * len(apart) / torch.stack(apart).sum()

    def logits(self, vectors: Tensor, position: int) -> Tensor:
        """Of `vectors` (rows x width) at a position: rows x candidates."""
        return -self.sharpness * torch.cdist(vectors[None], self.candidates[position][None])[0].pow(2)

    def loss(self, vectors: Tensor, wanted: Tensor, none_counts: float) -> tuple[Tensor, float]:
        """The loss, and its cross-entropy alone. `none_counts` is the weight of labels that are NONE."""
        sums: list[Tensor] = []
        for position in range(len(self.sets)):
            here, label = vectors[:, position], wanted[:, position]
            entropy = F.cross_entropy(self.logits(here, position), label, reduction="none")
            empty = torch.tensor(self.sets[position][0] == NONE) & (label == 0)
            sums.append((entropy * torch.where(empty, none_counts, 1.0)).mean())
            sums.append((here - self.candidates[position][label]).pow(2).mean() / self.power / 2 / len(self.sets))
        entropy = float(sum(float(part.detach()) for part in sums[::2]))
        return torch.stack(sums).sum(), entropy

    def read(self, vectors: Tensor) -> Tensor:
        """The nearest candidates: rows x positions."""
        return torch.stack([self.logits(vectors[:, i], i).argmax(-1) for i in range(len(self.sets))], 1)


def picture_batch(painter: Painter, count: int, kind: str | None = None) -> tuple[Tensor, Tensor]:
    """Pictures with a little noise, as the encoder sees them, and their labels."""
    drawn = [painter.picture(kind) for _ in range(count)]
    noise = np.random.default_rng(painter.rng.getrandbits(32))
    pixels = np.stack([np.asarray(seen(image), np.float32) for image, _ in drawn])
    level = np.array([painter.rng.uniform(0, 12) if painter.rng.random() < 0.4 else 0.0 for _ in drawn])
    pixels += level[:, None, None, None].astype(np.float32) * noise.standard_normal(pixels.shape, np.float32)
    return tensor_of(pixels), torch.tensor([labels_of(reading) for _, reading in drawn])


def tensor_of(pixels: np.ndarray[Any, Any]) -> Tensor:
    """Pictures (rows x SIDE x SIDE x 3, from 0 to 255) as the encoder wants them."""
    return torch.from_numpy(pixels.clip(0, 255) / 127.5 - 1).permute(0, 3, 1, 2).contiguous()


def tensor_of_image(image: Image.Image) -> Tensor:
    return tensor_of(np.asarray(seen(image), np.float32)[None])


def labels_of(reading: Reading) -> list[int]:
    return [words.index(word) for words, word in zip(SLOTS, reading.slots(), strict=True)]


def pictures(seed: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: half new pictures, half earlier ones with new noise."""
    painter = Painter(seed, held_out=False)
    kept = torch.zeros(KEPT_PICTURES, 3, SIDE, SIDE, dtype=torch.uint8)
    labels = torch.zeros(KEPT_PICTURES, len(SLOTS), dtype=torch.long)
    filled = 0
    while True:
        fresh = size if filled < size else size // 2
        x, y = picture_batch(painter, fresh)
        chosen = torch.randint(0, max(1, min(filled, KEPT_PICTURES)), (size - fresh,))
        again = kept[chosen].float() / 127.5 - 1
        again += 0.05 * torch.rand(1) * torch.randn_like(again)
        yield torch.cat([x, again]), torch.cat([y, labels[chosen]])
        at = torch.arange(filled, filled + fresh) % KEPT_PICTURES
        kept[at], labels[at] = ((x + 1) * 127.5).clamp(0, 255).to(torch.uint8), y
        filled += fresh


def sound_batch(speaker: Speaker, count: int, seconds: int, kind: str | None = None) -> tuple[Tensor, Tensor, list[list[str]]]:
    """Sounds as the encoder hears them, the labels of all vectors, and the words of each."""
    made = [speaker.recording(seconds, kind) for _ in range(count)]
    bands = np.stack([heard(sound, seconds) for sound, _, _ in made])
    labels = [[HEARD.index(word) for word in labels] for _, _, labels in made]
    return torch.from_numpy(bands), torch.tensor(labels), [words for _, words, _ in made]


def sounds(speaker: Speaker, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end of sounds of one, two or three seconds."""
    while True:
        for seconds in (1, 2, 2, 3):
            x, y, _ = sound_batch(speaker, max(8, size * 3 // 2 // (seconds + 1)), seconds)
            yield x, y


def train_vision(model: nn.Module, embeddings: Embeddings, steps: int, rate: float, size: int, checkpoint: Path) -> None:
    labels, none = Labels(embeddings, SLOTS), embeddings.of([NONE])
    count = len(SLOTS)

    def loss_of(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        vectors = model(x, PATCHES if step % WHOLE_EVERY == 0 else count)
        loss, entropy = labels.loss(vectors[:, :count], y, 0.25)
        if vectors.shape[1] > count:
            loss = loss + (vectors[:, count:] - none).pow(2).mean() / labels.power / 2
        return loss, entropy

    train(model, lambda step: pictures(1_000_000 + step, size), loss_of, steps, rate, checkpoint)


def train_hearing(
    model: nn.Module, embeddings: Embeddings, speaker: Callable[[int], Speaker], steps: int, rate: float, size: int,
    checkpoint: Path,
) -> None:  # fmt: skip
    labels = Labels(embeddings, [HEARD])

    def loss_of(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        return labels.loss(model(x).flatten(0, 1)[:, None], y.flatten()[:, None], 0.5)

    train(model, lambda step: sounds(speaker(step), size), loss_of, steps, rate, checkpoint)


def train(
    model: nn.Module,
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]],
    loss_of: Callable[[int, Tensor, Tensor], tuple[Tensor, float]],
    steps: int,
    rate: float,
    checkpoint: Path,
) -> None:
    """Learn up to the given step; resumes from the checkpoint."""
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim == 2 and "position" not in name]
    others = [p for name, p in named.items() if p.ndim != 2 or "position" in name]
    optimizers = [Muon(matrices, rate), torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step = saved["step"]
    average, started = 0.0, time.process_time()
    for x, y in batches(step):
        if step >= steps:
            return
        share = min(1.0, (step + 1) / WARM_UP, max(0.01, (1 - step / steps) / (1 - STEADY)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        loss, entropy = loss_of(step, x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        average = 0.98 * average + 0.02 * entropy if average else entropy
        step += 1
        if step % REPORT_EVERY == 0:
            print(f"step {step}  {time.process_time() - started:.0f} s  loss {average:.3f}", flush=True)
        if step % SAVE_EVERY == 0 or step == steps:
            fresh = checkpoint.with_suffix(".new")
            states = [optimizer.state_dict() for optimizer in optimizers]
            torch.save({"model": model.state_dict(), "optimizers": states, "step": step}, fresh)
            fresh.replace(checkpoint)
