"""Teaches the language model to answer from readings, while it keeps its answers to everything else.

It needs neither pictures nor sounds: readings are written directly, as noisy embeddings. Beside them it sees samples of
its own recipe, where its distribution must stay that of the model as it was (the divergence is part of the loss). The
embeddings of its tokens stay as they are, because the encoders learn to produce them.
"""

from __future__ import annotations

import copy
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from tiny_recipe.corpus import UNLEARNED, batches
from tiny_recipe.media.encoders import Embeddings
from tiny_recipe.media.questions import HEARD, ask, random_reading
from tiny_recipe.media.reading import FRAMES, NONE, SLOTS, SPOKEN, Reading
from tiny_recipe.media.vision import PATCHES
from tiny_recipe.network import WIDTH, Tiny
from tiny_recipe.rendering import THOUGHT_END

SOUNDS = 0.3  # share of the samples
NOISE = (0.05, 0.1, 0.2, 0.35)  # in root mean squares of the embeddings
DOUBTS = 0.15  # share of the vectors that lie between two tokens
THINKING, THOUGHT = 0.65, "I answer directly."  # share of the answers with a thought, and the thought
REPLAYED = 1536  # tokens of old samples in each step
KEEPING = 2.0  # weight of the divergence
OPENING, CLOSING = "<|audio_start|>", "<|audio_end|>"  # libmtmd writes these around a sound of the type qwen3a
WARM_UP, STEADY = 20, 0.3
SAVE_EVERY = 25


class ReadingWriter:
    """A seeded source of conversations about media: embeddings, and the tokens wanted after each (or UNLEARNED)."""

    def __init__(self, tokenizer: Tokenizer, embeddings: Embeddings, seed: int) -> None:
        self.tokenizer, self.embeddings = tokenizer, embeddings
        self.rng = random.Random(seed)

    def sample(self) -> tuple[Tensor, Tensor]:
        rng = self.rng
        if rng.random() < SOUNDS:
            words, vectors = self.sound()
            question, answer = rng.choice(HEARD.learned), " ".join(words)
            medium = [self.text(OPENING), vectors, self.text(CLOSING)]
        else:
            reading = random_reading(rng)
            asked = ask(rng, reading, held_out=False)
            question, answer, medium = asked.question, asked.answer, [self.picture(reading)]
        system = rng.choice(("You are a helpful assistant.", "Be brief."))
        head = f"<|im_start|>system\n{system}<|im_end|>\n" if rng.random() < 0.15 else ""
        tail = "<|im_end|>\n<|im_start|>assistant\n"
        if rng.random() < THINKING:
            answer = f"<think>\n{THOUGHT}\n{THOUGHT_END}{answer}"
        else:
            tail += f"<think>\n\n{THOUGHT_END}"
        if rng.random() < 0.3:  # the medium after the question, as some clients send it
            between = rng.choice(("\n", "", " "))
            parts = [self.text(f"{head}<|im_start|>user\n{question}{between}"), *medium, self.text(tail)]
        else:
            between = rng.choice(("", "", "\n"))
            parts = [self.text(f"{head}<|im_start|>user\n"), *medium, self.text(f"{between}{question}{tail}")]
        written = self.tokenizer.encode(f"{answer}<|im_end|>").ids
        whole = torch.cat([*parts, self.embeddings.weights[written[:-1]]])
        wanted = torch.full((len(whole),), UNLEARNED)
        wanted[-len(written) :] = torch.tensor(written)
        return whole, wanted

    def text(self, text: str) -> Tensor:
        return self.embeddings.weights[self.tokenizer.encode(text).ids]

    def picture(self, reading: Reading) -> Tensor:
        slots = reading.slots()
        vectors = self.embeddings.of([*slots, *[NONE] * (PATCHES - len(slots))])
        for i, choices in enumerate(SLOTS):
            if self.rng.random() < DOUBTS:
                other = self.embeddings.of([self.rng.choice(choices)])[0]
                vectors[i] = torch.lerp(other, vectors[i], self.rng.uniform(0.6, 1))
        return self.noisy(vectors)

    def sound(self) -> tuple[list[str], Tensor]:
        """Two to four digits, or a word: each over some vectors, with none between them."""
        rng = self.rng
        digits = rng.random() < 0.5
        words = [rng.choice(SPOKEN[:10]) for _ in range(rng.randint(2, 4))] if digits else [rng.choice(SPOKEN)]
        heard = [NONE] * rng.randint(0, 4)
        for word in words:
            heard += [word] * rng.randint(2, 7) + [NONE] * rng.randint(1, 4)
        vectors = self.embeddings.of([*heard, *[NONE] * (-len(heard) % FRAMES)])
        none = self.embeddings.of([NONE])[0]
        for i in range(len(vectors)):
            if rng.random() < DOUBTS:
                vectors[i] = torch.lerp(none, vectors[i], rng.uniform(0.4, 1))
        return words, self.noisy(vectors)

    def noisy(self, vectors: Tensor) -> Tensor:
        return vectors + torch.randn_like(vectors) * self.embeddings.power.sqrt() * self.rng.choice(NOISE)


def states(model: Tiny, x: Tensor) -> Tensor:
    """The last states of rows of embeddings: rows x length x width."""
    for block in model.blk:
        x = block(x, model.cos[: x.shape[1]], model.sin[: x.shape[1]])
    last: Tensor = model.output_norm(x)
    return last


def train_answers(model: Tiny, tokenizer: Tokenizer, steps: int, rate: float, size: int, checkpoint: Path) -> None:
    """Learn up to the given step; resumes from the checkpoint."""
    older = copy.deepcopy(model).requires_grad_(False)
    model.token_embd.weight.requires_grad_(False)
    weights = older.token_embd.weight
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    writer = ReadingWriter(tokenizer, Embeddings(weights, tokenizer.get_vocab()), 77 + step)
    started = time.process_time()
    for batch in batches(tokenizer, 500 + step):
        if step >= steps:
            return
        share = min(1.0, (step + 1) / WARM_UP, max(0.02, (1 - step / steps) / (1 - STEADY)))
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        samples = [writer.sample() for _ in range(size)]
        x = torch.nn.utils.rnn.pad_sequence([vectors for vectors, _ in samples], batch_first=True)
        wanted = torch.nn.utils.rnn.pad_sequence([w for _, w in samples], batch_first=True, padding_value=UNLEARNED)
        learned = wanted != UNLEARNED
        loss = F.cross_entropy(F.linear(states(model, x)[learned], weights), wanted[learned])
        loss.backward()
        length = batch.tokens.shape[1]
        rows = max(1, REPLAYED // length)
        where = batch.where[(batch.wanted != UNLEARNED) & (batch.where < rows * length)]
        again = weights[batch.tokens[:rows]]
        before, after = (
            F.log_softmax(F.linear(states(one, again).reshape(-1, WIDTH)[where], weights), -1) for one in (older, model)
        )
        drift = F.kl_div(after, before, log_target=True, reduction="sum") / max(1, len(where))
        (KEEPING * drift).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        seconds = time.process_time() - started
        print(f"step {step}  {seconds:.0f} s  loss {loss.item():.3f}  divergence {drift.item():.4f}", flush=True)
        if step % SAVE_EVERY == 0 or step == steps:
            fresh = checkpoint.with_suffix(".new")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, fresh)
            fresh.replace(checkpoint)
