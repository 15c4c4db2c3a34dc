"""Fresh samples without end, as batches of token rows of one length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from tiny_recipe.rendering import rendered
from tiny_recipe.samples.mix import samples
from tiny_recipe.samples.values import Sample
from tiny_recipe.tokenizer import SPECIAL, VOCABULARY

LENGTHS = (128, 256, 512, 1024)
LONGEST = LENGTHS[-1]
BATCH_TOKENS = 8192
LEARNED_AT_MOST = BATCH_TOKENS // 3
UNLEARNED = -100
CHUNK = 2000  # samples written at a time
ECHOES = 0.12  # share of the batches
SMALL = "abcdefghijklmnopqrstuvwxyz"  # each a token of its own

Ids = NDArray[np.int64]
Row = tuple[Ids, NDArray[np.bool_]]


class Rows(NamedTuple):
    """Token rows of one length, and the tokens wanted after each (UNLEARNED where nothing is learned)."""

    tokens: NDArray[np.int16]
    wanted: NDArray[np.int16]


class Batch(NamedTuple):
    """Tokens (rows x length), the flat positions to learn at, and the tokens wanted there."""

    tokens: Tensor
    where: Tensor
    wanted: Tensor


def learned(ids: Ids, tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Which tokens the model learns to write: answers and their end, what fills a hole, all of a plain document."""
    mask = np.zeros(len(ids), dtype=bool)
    hole = np.flatnonzero(ids == tokenizer.token_to_id("<|fim_middle|>"))
    opening = tokenizer.encode("<|im_start|>assistant\n").ids
    if len(hole) or not (ids == opening[0]).any():
        mask[hole[0] + 1 if len(hole) else 0 :] = True
        return mask
    empty = tokenizer.encode("<think>\n\n</think>\n\n").ids
    ends = np.flatnonzero(ids == tokenizer.token_to_id("<|im_end|>"))
    for found in np.flatnonzero(
        (ids[:-2] == opening[0]) & (ids[1:-1] == opening[1]) & (ids[2:] == opening[2])
    ):
        start = int(found)
        following = ends[ends > start]
        end = int(following[0]) if len(following) else len(ids) - 1
        start += len(opening)
        if ids[start : start + len(empty)].tolist() == empty:
            start += len(empty)
        mask[start : end + 1] = True
    return mask


def rows_of(some: list[Sample], tokenizer: Tokenizer) -> dict[int, Rows]:
    """The samples as rows by length. A conversation is cut where its row ends; short documents share a row."""
    rows: dict[int, list[Row]] = {length: [] for length in LENGTHS}
    shared: Row = (np.array([], dtype=np.int64), np.array([], dtype=bool))
    encodings = tokenizer.encode_batch([rendered(sample) for sample in some])
    for sample, encoding in zip(some, encodings, strict=True):
        whole = np.array(encoding.ids, dtype=np.int64)
        cut = sample.thought is None and sample.text is None and len(whole) < 1.5 * sample.length
        ids = whole[: (sample.length if cut else LONGEST) + 1]
        row = ids, learned(ids, tokenizer)
        if sample.text is None or len(ids) > LENGTHS[0]:
            place(rows, row)
        elif len(shared[0]) + len(ids) > LENGTHS[1] + 1:
            place(rows, shared)
            shared = row
        else:
            shared = np.concatenate([shared[0], ids]), np.concatenate([shared[1], row[1]])
    return {length: padded(some_rows, length) for length, some_rows in rows.items() if some_rows}


def place(rows: dict[int, list[Row]], row: Row) -> None:
    """Into the shortest rows that hold it."""
    rows[next(length for length in LENGTHS if len(row[0]) - 1 <= length)].append(row)


def padded(rows: list[Row], length: int) -> Rows:
    tokens = np.zeros((len(rows), length), dtype=np.int16)
    wanted = np.full((len(rows), length), UNLEARNED, dtype=np.int16)
    for i, (ids, mask) in enumerate(rows):
        tokens[i, : len(ids) - 1] = ids[:-1]
        wanted[i, : len(ids) - 1] = np.where(mask[1:], ids[1:], UNLEARNED)
    return Rows(tokens, wanted)


def echoes(rng: np.random.Generator, tokenizer: Tokenizer) -> Rows:
    """What repeats after a while, and means nothing: the shortest way to keep copying sharp.

    A third is any tokens, a third few different ones, a third words in letters that begin or end alike. So what is
    copied resembles itself in other places.
    """
    length = LENGTHS[0]
    tokens = np.zeros((BATCH_TOKENS // length, length), dtype=np.int16)
    wanted = np.full_like(tokens, UNLEARNED)
    for i, period in enumerate(rng.integers(4, 60, len(tokens))):
        if i % 3 == 2:
            once = tokenizer.encode(words_alike(rng)).ids
        else:
            some = rng.integers(len(SPECIAL), VOCABULARY, period if i % 3 else max(4, min(8, period // 2)))
            once = rng.choice(some, period).tolist()
        row = np.resize(once, length + 1)
        tokens[i], wanted[i, len(once) :] = row[:-1], row[len(once) + 1 :]
    return Rows(tokens, wanted)


def words_alike(rng: np.random.Generator) -> str:
    """Two to nine words that do not exist, many of which share letters with the one before."""
    words = [""]
    for size in rng.integers(2, 8, rng.integers(2, 10)):
        word = "".join(rng.choice(list(SMALL), size))
        shared = int(rng.integers(0, min(size, len(words[-1])) + 1))
        match rng.integers(3):
            case 0:
                word = words[-1][:shared] + word[shared:]
            case 1:
                word = word[: size - shared] + words[-1][len(words[-1]) - shared :]
        words.append(word)
    rng.shuffle(words)
    return (", " if rng.random() < 0.3 else " ").join(("", *filter(None, words)))


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[Batch]:
    """Batches of fresh rows; what does not fill a batch waits for the next chunk of samples."""
    rng = np.random.default_rng(seed)
    drawn = samples(1000 + seed)
    waiting: dict[int, Rows] = {}
    while True:
        fresh = rows_of(list(islice(drawn, CHUNK)), tokenizer)
        for length in fresh.keys() & waiting.keys():
            pairs = zip(waiting.pop(length), fresh[length], strict=True)
            fresh[length] = Rows(*(np.concatenate(pair) for pair in pairs))
        plan: list[Rows] = []
        for length, (tokens, wanted) in fresh.items():
            order, size = rng.permutation(len(tokens)), BATCH_TOKENS // length
            full = len(order) // size * size
            plan += [
                Rows(tokens[chosen], wanted[chosen]) for chosen in np.split(order[:full], full // size or 1)
            ]
            waiting[length] = Rows(tokens[order[full:]], wanted[order[full:]])
        for i in rng.permutation(len(plan)):
            if rng.random() < ECHOES:
                yield batch_of(echoes(rng, tokenizer))
            if len(plan[i].tokens):
                yield batch_of(plan[i])


def batch_of(rows: Rows) -> Batch:
    """The batch, with exactly LEARNED_AT_MOST positions: some left out, or filled up with unlearned ones."""
    tokens, wanted = (torch.from_numpy(part.astype(np.int64)) for part in rows)
    flat = wanted.flatten()
    where = (flat != UNLEARNED).nonzero().flatten()
    where = where[torch.randperm(len(where))[:LEARNED_AT_MOST]].sort().values
    count = len(where)
    where = torch.nn.functional.pad(where, (0, LEARNED_AT_MOST - count))
    chosen = flat[where]
    chosen[count:] = UNLEARNED
    return Batch(tokens, where, chosen)
