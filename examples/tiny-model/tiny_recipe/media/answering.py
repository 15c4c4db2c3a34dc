"""Teaches the language model to answer about pictures and sounds from their codes, or from what the encoders write.

The readings have codes: vectors of their own that stand for their words. Codes are written directly, with noise, so this
needs neither pictures nor sounds. Once there are encoders, most of the samples hold what these write about pictures and
sounds, with their mistakes. On samples of text the loss is the divergence from the older model, which keeps its answers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from tiny_recipe.corpus import UNLEARNED, Batch, batches
from tiny_recipe.media.questions import HEARD, HEARD_NOTHING, ask, random_reading
from tiny_recipe.media.reading import FRAMES, NONE, SLOTS, SPOKEN, Reading, token_of
from tiny_recipe.media.vision import PATCHES
from tiny_recipe.muon import Muon
from tiny_recipe.network import WIDTH, Tiny
from tiny_recipe.rendering import THOUGHT_END
from tiny_recipe.training import precision

SOUNDS = 0.12  # share of the samples
REAL = 0.7  # share of the samples with what an encoder wrote, if there is one
NOISE = (0.05, 0.1, 0.2, 0.35)  # in root mean squares of the codes
DOUBTS = 0.15  # share of the vectors that lie between two codes
THINKING, THOUGHT = 0.25, "I answer directly."  # share of the answers with a thought, and the thought
QUESTIONS = 4  # about a picture, each in a conversation of its own
MEDIUM_LAST = 0.15  # share of the samples where the medium follows the question, as some clients send it
IN_TURN = 0.15  # share of the samples whose questions follow each other in one conversation
ALONE = 0.15  # share of the sounds without a question, as speech is written down
REPLAYED, TEXT_EVERY = 1024, 1  # tokens of text, in every so many steps
KEEPING = 4.0  # weight of the divergence from the older model in text
OPENING, CLOSING = "<|audio_start|>", "<|audio_end|>"  # libmtmd writes these around a sound of the type qwen3a
WARM_UP, STEADY = 20, 0.35
REPORT_EVERY, SAVE_EVERY = 5, 20
HEARD_WORDS = (NONE, *SPOKEN)
SECOND, MARKED = slice(4, 7), 0.8  # the slots of the second shape, and the size of their mark in root mean squares
Seen = Iterator[tuple[Reading, Tensor]]
"""Pictures without end: what each shows, and the vectors that an encoder writes about it (PATCHES x WIDTH)."""
Heard = Iterator[tuple[str, Tensor]]
"""Sounds without end: the word in each (or NONE), and the vectors that an encoder writes about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """How long to train (steps over all runs), how fast, with how many samples in a step, and where the state is kept."""

    steps: int
    rate: float
    size: int
    checkpoint: Path


class Codes(nn.Module):
    """The vectors that stand for the words of readings: those of each slot, of the rest of a picture, and of sounds.

    They begin as the embeddings of the words. Those of the second shape have a mark, by which attention finds them.
    """

    def __init__(self, tokenizer: Tokenizer, embeddings: Tensor) -> None:
        super().__init__()
        ids = tokenizer.get_vocab()

        def begun(words: tuple[str, ...]) -> nn.Parameter:
            return nn.Parameter(embeddings[[ids[token_of(word)] for word in words]].detach().clone())

        self.slots = nn.ParameterList(begun(words) for words in SLOTS)
        mark = mark_of(embeddings)
        for codes in self.slots[SECOND]:
            codes.data += mark
        self.rest, self.heard = begun((NONE,)), begun(HEARD_WORDS)

    def picture(self, reading: Reading) -> tuple[Tensor, list[Tensor]]:
        """The vectors of a picture (PATCHES x WIDTH), and for each slot all that could have stood there."""
        slots = zip(self.slots, SLOTS, reading.slots(), strict=True)
        first = torch.stack([codes[words.index(word)] for codes, words, word in slots])
        return torch.cat([first, self.rest.expand(PATCHES - len(first), -1)]), list(self.slots)


def mark_of(embeddings: Tensor) -> Tensor:
    """A vector that no word has, of about the size of an embedding."""
    size = embeddings.detach().pow(2).mean().sqrt()
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)) * size * MARKED


def states(model: Tiny, x: Tensor, where: Tensor, mask: Tensor | None) -> Tensor:
    """The last states of rows of embeddings at the positions `where`: rows x length x WIDTH."""
    cos, sin = model.cos[where][:, None], model.sin[where][:, None]
    for block in model.blk:
        x = block(x, cos, sin, mask)
    last: Tensor = model.output_norm(x)
    return last


@dataclass(frozen=True, slots=True)
class Packed:
    """Conversations about one medium in one row: what they begin with alike, then each of them.

    `where` is the position of each vector in its own conversation, `part` the number of the conversation that it belongs
    to (0 for the shared beginning), and `wanted` the token wanted after it (or UNLEARNED).
    """

    vectors: Tensor
    wanted: Tensor
    where: Tensor
    part: Tensor


class Conversations:
    """A seeded source of conversations about media: about codes, and about what the encoders write if they are given."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        embeddings: Tensor,
        codes: Codes,
        seed: int,
        seen: Seen | None = None,
        heard: Heard | None = None,
    ) -> None:
        self.tokenizer, self.embeddings, self.codes = tokenizer, embeddings, codes
        self.seen, self.heard = seen, heard
        self.rng = random.Random(seed)

    def sample(self) -> Packed:
        rng = self.rng
        system = rng.choice(("You are a helpful assistant.", "Be brief."))
        head = f"<|im_start|>system\n{system}<|im_end|>\n" if rng.random() < 0.15 else ""
        head += "<|im_start|>user\n"
        real = rng.random() < REAL
        if rng.random() < SOUNDS:
            word, vectors = next(self.heard) if self.heard and real else self.sound()
            medium = [self.text(OPENING), vectors, self.text(CLOSING)]
            answer = HEARD_NOTHING if word == NONE else word
            asked = [("" if rng.random() < ALONE else rng.choice(HEARD.learned), answer) for _ in range(2)]
        else:
            reading, vectors = next(self.seen) if self.seen and real else self.picture()
            medium = [vectors]
            some = (ask(rng, reading, held_out=False) for _ in range(QUESTIONS))
            asked = [(one.question, one.answer) for one in some]
        if rng.random() < MEDIUM_LAST:
            question, answer = asked[0]
            between = rng.choice(("\n", "", " "))
            return self.packed([self.text(f"{head}{question}{between}"), *medium], [("", answer)])
        asked = [(rng.choice(("", "", "\n")) + q, a) for q, a in asked]
        return self.packed([self.text(head), *medium], asked, in_turn=rng.random() < IN_TURN)

    def packed(self, shared: list[Tensor], asked: list[tuple[str, str]], *, in_turn: bool = False) -> Packed:
        """The questions in a conversation each, or in turn in one."""
        start = sum(map(len, shared))
        vectors, wanted, where, part = list(shared), [torch.full((start,), UNLEARNED)], [torch.arange(start)], [torch.zeros(start)]
        for i, (question, answer) in enumerate(asked):
            tail = "<|im_end|>\n<|im_start|>assistant\n"
            if in_turn and i:
                question = f"<|im_end|>\n<|im_start|>user\n{question.lstrip()}"
            if self.rng.random() < THINKING and not in_turn:
                answer = f"<think>\n{THOUGHT}\n{THOUGHT_END}{answer}"
            else:
                tail += f"<think>\n\n{THOUGHT_END}"
            read = self.tokenizer.encode(question + tail).ids
            written = self.tokenizer.encode(f"{answer}<|im_end|>").ids
            count = len(read) + len(written) - 1
            vectors.append(self.embeddings[read + written[:-1]])
            wanted.append(torch.tensor([UNLEARNED] * (len(read) - 1) + written))
            where.append(torch.arange(start, start + count))
            part.append(torch.full((count,), 1.0 if in_turn else i + 1.0))
            start += count if in_turn else 0
        return Packed(*(torch.cat(parts) for parts in (vectors, wanted, where, part)))

    def text(self, text: str) -> Tensor:
        return self.embeddings[self.tokenizer.encode(text).ids]

    def picture(self) -> tuple[Reading, Tensor]:
        reading = random_reading(self.rng)
        vectors, choices = self.codes.picture(reading)
        return reading, self.noisy(vectors, [self.rng.choice(others) for others in choices])

    def sound(self) -> tuple[str, Tensor]:
        """A word of one to three seconds; all of its vectors stand for it, and some are in doubt."""
        word = self.rng.choice(HEARD_WORDS)
        count = FRAMES * self.rng.choice((1, 1, 2, 3))
        code = self.codes.heard[HEARD_WORDS.index(word)]
        others = self.codes.heard[[self.rng.randrange(len(HEARD_WORDS)) for _ in range(count)]]
        return word, self.noisy(code.expand(count, -1), list(others))

    def noisy(self, vectors: Tensor, others: list[Tensor]) -> Tensor:
        """The vectors with noise, and some of the first ones on the way to another."""
        mixed = list(vectors)
        for i, other in enumerate(others):
            if self.rng.random() < DOUBTS:
                mixed[i] = torch.lerp(other, mixed[i], self.rng.uniform(0.6, 1))
        size = vectors.detach().pow(2).mean().sqrt()
        return torch.stack(mixed) + torch.randn_like(vectors) * size * self.rng.choice(NOISE)


def batch_of(samples: list[Packed]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors, wanted tokens, positions and the mask of the attention (rows x 1 x length x length) of a batch."""
    def together(name: str, padding: float) -> Tensor:
        return nn.utils.rnn.pad_sequence([getattr(one, name) for one in samples], batch_first=True, padding_value=padding)

    vectors, wanted, where, part = (
        together(name, padding) for name, padding in (("vectors", 0), ("wanted", UNLEARNED), ("where", 0), ("part", -1))
    )
    own = (part[:, :, None] == part[:, None]) | (part[:, None] == 0)
    earlier = torch.ones(own.shape[1:], dtype=torch.bool).tril()
    return vectors, wanted, where, (own & earlier)[:, None]


def train_answers(
    model: Tiny,
    older: Tiny,
    codes: Codes,
    tokenizer: Tokenizer,
    lesson: Lesson,
    seen: Seen | None = None,
    heard: Heard | None = None,
) -> None:
    """Learn up to the last step of the lesson; resumes from the checkpoint. Codes learn where no encoder writes them.

    older: the model whose answers to text are kept.
    """
    older.requires_grad_(False)
    weights = model.token_embd.weight.requires_grad_(False)
    codes.requires_grad_(seen is None and heard is None)
    matrices = [weight for weight in model.blk.parameters() if weight.ndim == 2]
    others = [p for part in (model, codes) for p in part.parameters() if p.requires_grad and not is_in(p, matrices)]
    optimizers = [
        Muon(matrices, lesson.rate),
        torch.optim.AdamW(others, lr=lesson.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    step = 0
    if lesson.checkpoint.exists():
        saved = torch.load(lesson.checkpoint)
        model.load_state_dict(saved["model"])
        codes.load_state_dict(saved["codes"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step = saved["step"]
    source = Conversations(tokenizer, weights, codes, 77 + step, seen, heard)
    text, context = batches(tokenizer, 500 + step), precision()
    started, sums, drift = time.process_time(), torch.zeros(3), torch.tensor(0.0)
    while step < lesson.steps:
        share = min(1.0, (step + 1) / WARM_UP, max(0.02, (1 - step / lesson.steps) / (1 - STEADY)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lesson.rate * share
        x, wanted, where, mask = batch_of([source.sample() for _ in range(lesson.size)])
        learned = wanted != UNLEARNED
        with rounded(matrices):
            with context():
                logits = F.linear(states(model, x, where, mask)[learned], weights).float()
            loss = F.cross_entropy(logits, wanted[learned])
            loss.backward()
            if step % TEXT_EVERY == 0:
                with context():
                    drift = divergence(model, older, next(text))
                (TEXT_EVERY * KEEPING * drift).backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        right = (logits.argmax(-1) == wanted[learned]).float().mean()
        sums += torch.stack([loss.detach(), right, drift.detach()])
        if step % REPORT_EVERY == 0:
            means = " ".join(f"{part:.4f}" for part in (sums / REPORT_EVERY).tolist())
            print(f"step {step}  {time.process_time() - started:.0f} s  loss, right, divergence: {means}", flush=True)
            sums.zero_()
        if step % SAVE_EVERY == 0 or step == lesson.steps:
            fresh = lesson.checkpoint.with_suffix(".new")
            parts = {"model": model.state_dict(), "codes": codes.state_dict()}
            torch.save({**parts, "optimizers": [one.state_dict() for one in optimizers], "step": step}, fresh)
            fresh.replace(lesson.checkpoint)


def is_in(parameter: nn.Parameter, some: Sequence[nn.Parameter]) -> bool:
    return any(parameter is one for one in some)


@contextmanager
def rounded(matrices: Sequence[nn.Parameter]) -> Iterator[None]:
    """The matrices as the file will have them, in Q5_0; their gradients are those of the exact matrices.

    So the model learns to answer in spite of the rounding.
    """
    exact = [matrix.data for matrix in matrices]
    for matrix in matrices:
        matrix.data = q5_0(matrix.data)
    try:
        yield
    finally:
        for matrix, data in zip(matrices, exact, strict=True):
            matrix.data = data


def q5_0(matrix: Tensor) -> Tensor:
    """The matrix after it was stored as Q5_0 (blocks of 32 with a common float16 scale) and read again."""
    blocks = matrix.reshape(-1, 32)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = largest / -16
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    whole = (blocks * inverse + 16.5).trunc().clamp(0, 31) - 16
    return (whole * scale.half().float()).view_as(matrix)


def divergence(model: Tiny, older: Tiny, batch: Batch) -> Tensor:
    """How far the distribution over the next token of a text is from that of the older model, where answers are."""
    length = batch.tokens.shape[1]
    tokens = batch.tokens[: max(1, REPLAYED // length)]
    where = batch.where[(batch.wanted != UNLEARNED) & (batch.where < tokens.numel())]
    positions = torch.arange(length)[None]
    before, after = (
        F.log_softmax(
            F.linear(states(one, older.token_embd(tokens), positions, None).reshape(-1, WIDTH)[where], older.token_embd.weight).float(), -1
        )
        for one in (older, model)
    )
    return F.kl_div(after, before, log_target=True, reduction="sum") / max(1, len(where))
