"""Starts from a projector that this recipe exported before, where the checkpoints are gone.

The codes are in no file. Those of a picture are found again as the means of what its encoder writes, those of a sound
likewise; where a file has no encoder for sounds, their codes stay the embeddings of the words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from tiny_recipe.media.answering import Codes
from tiny_recipe.media.export import Form
from tiny_recipe.media.reading import SLOTS
from tiny_recipe.warm_start import weights_in

BATCHES = 60  # of examples whose means become codes


@torch.no_grad()
def encoder_from(path: Path, network: nn.Module, form: Form) -> bool:
    """Take over the weights of an encoder; False, and nothing is changed, if the file has none of this form.

    Raises ValueError if a weight has another shape.
    """
    stored = weights_in(path)
    named = {form.stored(name): weight for name, weight in network.state_dict().items()}
    if not named.keys() & stored.keys():
        return False
    for name, weight in named.items():
        if stored[name].shape != weight.shape:
            raise ValueError(f"{path}: {name} has the shape {[*stored[name].shape]}, not {[*weight.shape]}")
        weight.copy_(stored[name])
    return True


@torch.no_grad()
def picture_codes_from(vision: nn.Module, codes: Codes, examples: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Set the codes of pictures to the means of what the encoder writes; examples: pictures and their labels."""
    means = [Means(code) for code in (*codes.slots, codes.rest)]
    for pictures, labels in islice(examples, BATCHES):
        vectors = vision(pictures)
        for position in range(len(SLOTS)):
            means[position].add(vectors[:, position], labels[:, position])
        rest = vectors[:, len(SLOTS) :].flatten(0, 1)
        means[-1].add(rest, torch.zeros(len(rest), dtype=torch.long))
    take(means)


@torch.no_grad()
def sound_codes_from(hearing: nn.Module, codes: Codes, examples: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Set the codes of sounds likewise; examples: sounds and the numbers of their words."""
    means = Means(codes.heard)
    for bands, words in islice(examples, BATCHES):
        vectors = hearing(bands)
        means.add(vectors.flatten(0, 1), words.repeat_interleave(vectors.shape[1]))
    take([means])


class Means:
    """The mean of the vectors of each label; a code whose label never came stays as it is."""

    def __init__(self, code: nn.Parameter) -> None:
        self.code, self.sums, self.counts = code, torch.zeros_like(code), torch.zeros(len(code))

    def add(self, vectors: Tensor, labels: Tensor) -> None:
        self.sums.index_add_(0, labels, vectors.float())
        self.counts.index_add_(0, labels, torch.ones(len(labels)))


def take(means: Sequence[Means]) -> None:
    for one in means:
        seen = one.counts > 0
        one.code[seen] = (one.sums / one.counts.clamp(min=1)[:, None])[seen]
