"""Trains an encoder by labels: each vector should be the code of the word that its label names.

The loss is the cross-entropy of the label among the codes of its position, where the logit of a code falls with the
squared distance to it, and the squared distance to the code of the label itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tiny_recipe.media.pictures import SIDE, Painter, seen
from tiny_recipe.media.answering import HEARD_WORDS, Codes, Heard, Lesson, Seen
from tiny_recipe.media.questions import random_kind
from tiny_recipe.media.reading import NONE, SLOTS, Reading
from tiny_recipe.media.speech import Speaker, heard
from tiny_recipe.media.vision import PATCHES
from tiny_recipe.muon import Muon

SHARP = 8.0  # the logit between two codes at the mean distance
WARM_UP, STEADY = 100, 0.4  # steps; share of the steps after which the rate begins to fall
KEPT_PICTURES = 6000  # half of each batch are pictures that were drawn before
WHOLE_EVERY = 16  # steps; the vectors after the slots learn only then, for they are all the same
REPORT_EVERY, SAVE_EVERY = 20, 250  # steps


class Labels:
    """The codes that could stand at each position, and the loss against them."""

    def __init__(self, sets: Sequence[Sequence[str]], codes: Sequence[Tensor]) -> None:
        self.sets, self.candidates = sets, [part.detach() for part in codes]
        self.power = torch.cat(self.candidates).pow(2).mean()
        apart = [(c[:, None] - c[None]).pow(2).sum(-1).mean() for c in self.candidates]
        self.sharpness = [SHARP / float(mean) for mean in apart]

    def logits(self, vectors: Tensor, position: int) -> Tensor:
        """Of `vectors` (rows x width) at a position: rows x candidates."""
        return -self.sharpness[position] * torch.cdist(vectors[None], self.candidates[position][None])[0].pow(2)

    def loss(self, vectors: Tensor, wanted: Tensor) -> tuple[Tensor, float]:
        """The loss, and its cross-entropy alone. A label that is NONE counts a quarter."""
        sums: list[Tensor] = []
        for position in range(len(self.sets)):
            here, label = vectors[:, position], wanted[:, position]
            entropy = F.cross_entropy(self.logits(here, position), label, reduction="none")
            empty = torch.tensor(self.sets[position][0] == NONE) & (label == 0)
            sums.append((entropy * torch.where(empty, 0.25, 1.0)).mean())
            sums.append((here - self.candidates[position][label]).pow(2).mean() / self.power / 2 / len(self.sets))
        entropy = float(sum(float(part.detach()) for part in sums[::2]))
        return torch.stack(sums).sum(), entropy

    def read(self, vectors: Tensor) -> Tensor:
        """The nearest candidates: rows x positions."""
        return torch.stack([self.logits(vectors[:, i], i).argmax(-1) for i in range(len(self.sets))], 1)


def picture_batch(painter: Painter, count: int, kind: str | None = None) -> tuple[Tensor, Tensor]:
    """Pictures with a little noise, as the encoder sees them, and their labels."""
    pictures, readings = noisy_pictures(painter, [kind] * count)
    return pictures, torch.tensor([labels_of(reading) for reading in readings])


def picture_examples(painter: Painter, size: int = 50) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end of pictures that are all new, and their labels."""
    while True:
        yield picture_batch(painter, size)


def noisy_pictures(painter: Painter, kinds: Sequence[str | None]) -> tuple[Tensor, list[Reading]]:
    drawn = [painter.picture(kind) for kind in kinds]
    noise = np.random.default_rng(painter.rng.getrandbits(32))
    pixels = np.stack([np.asarray(seen(image), np.float32) for image, _ in drawn])
    level = np.array([painter.rng.uniform(0, 12) if painter.rng.random() < 0.4 else 0.0 for _ in drawn])
    pixels += level[:, None, None, None].astype(np.float32) * noise.standard_normal(pixels.shape, np.float32)
    return tensor_of(pixels), [reading for _, reading in drawn]


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


def sound_batch(speaker: Speaker, count: int, seconds: int) -> tuple[Tensor, Tensor]:
    """Sounds as the encoder hears them, and the number of the word of each."""
    made = [speaker.recording(seconds) for _ in range(count)]
    bands = np.stack([heard(sound, seconds) for sound, _ in made])
    return torch.from_numpy(bands), torch.tensor([HEARD_WORDS.index(word) for _, word in made])


def sounds(speaker: Speaker, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end of sounds of one to three seconds."""
    while True:
        for seconds in (1, 2, 1, 3):
            yield sound_batch(speaker, size * 2 // (seconds + 1), seconds)


@torch.no_grad()
def seen_by(vision: nn.Module, size: int = 32, seed: int = 2_000_000) -> Seen:
    """New pictures without end, and what the encoder writes about them."""
    painter = Painter(seed, held_out=False)
    while True:
        pictures, readings = noisy_pictures(painter, [random_kind(painter.rng) for _ in range(size)])
        yield from zip(readings, vision(pictures), strict=True)


@torch.no_grad()
def heard_by(hearing: nn.Module, speaker: Callable[[int], Speaker], size: int = 16, seed: int = 2_000_000) -> Heard:
    """New sounds without end, and what the encoder writes about them."""
    for bands, words in sounds(speaker(seed), size):
        yield from zip([HEARD_WORDS[word] for word in words.tolist()], hearing(bands), strict=True)


def train_vision(model: nn.Module, codes: Codes, lesson: Lesson) -> None:
    labels, rest = Labels(SLOTS, list(codes.slots)), codes.rest.detach()
    count = len(SLOTS)

    def loss_of(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        vectors = model(x, PATCHES if step % WHOLE_EVERY == 0 else count)
        loss, entropy = labels.loss(vectors[:, :count], y)
        if vectors.shape[1] > count:
            loss = loss + (vectors[:, count:] - rest).pow(2).mean() / labels.power / 2
        return loss, entropy

    train(model, lambda step: pictures(1_000_000 + step, lesson.size), loss_of, lesson)


def train_hearing(model: nn.Module, codes: Codes, speaker: Callable[[int], Speaker], lesson: Lesson) -> None:
    labels = Labels([HEARD_WORDS], [codes.heard])

    def loss_of(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        vectors = model(x)
        return labels.loss(vectors.flatten(0, 1)[:, None], y.repeat_interleave(vectors.shape[1])[:, None])

    train(model, lambda step: sounds(speaker(step), lesson.size), loss_of, lesson)


def train(
    model: nn.Module,
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]],
    loss_of: Callable[[int, Tensor, Tensor], tuple[Tensor, float]],
    lesson: Lesson,
) -> None:
    """Learn up to the last step of the lesson; resumes from the checkpoint."""
    steps, rate, checkpoint = lesson.steps, lesson.rate, lesson.checkpoint
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
