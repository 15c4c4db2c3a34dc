"""Starts from a file that was trained before: its vocabulary, and its weights under new layers that change nothing."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from gguf import GGUFReader
from tokenizers import Tokenizer
from torch import Tensor

from tiny_recipe.network import Tiny
from tiny_recipe.tokenizer import tokenizer_of


def tokenizer_in(path: Path) -> Tokenizer:
    """The tokenizer of a file that this recipe wrote."""
    field = GGUFReader(path).fields["tokenizer.ggml.tokens"]
    tokens: list[str] = field.contents()
    return tokenizer_of([token for token in tokens if not token.startswith("<|unused_")])


@torch.no_grad()
def start_from(model: Tiny, path: Path) -> None:
    """Take over the weights; a layer that the file lacks adds nothing to the stream until it has learned.

    Raises ValueError if a weight has another shape.
    """
    older = weights_in(path)
    for name, weight in model.state_dict().items():
        if name in older:
            if older[name].shape != weight.shape:
                raise ValueError(
                    f"{path}: {name} has the shape {[*older[name].shape]}, not {[*weight.shape]}"
                )
            weight.copy_(older[name])
        elif name.endswith(("attn_output.weight", "ffn_down.weight")):
            weight.zero_()


@torch.no_grad()
def blend(model: Tiny, path: Path, share: float) -> None:
    """Move the weights back towards the file that they started from, by this share of the way.

    After a short training the middle often answers better than either end: it forgets less of what was known.
    """
    older = weights_in(path)
    for name, weight in model.state_dict().items():
        weight.lerp_(older.get(name, weight), share)


def weights_in(path: Path) -> dict[str, Tensor]:
    tensors = GGUFReader(path).tensors
    return {
        tensor.name: torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        for tensor in tensors
    }
