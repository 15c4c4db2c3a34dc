"""Starts from a file that was trained before: its vocabulary, and its weights under new layers that change nothing."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from gguf import GGUFReader
from tokenizers import Tokenizer

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
    weights = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name, weight in model.state_dict().items():
        if name not in weights:
            if name.endswith(("attn_output.weight", "ffn_down.weight")):
                weight.zero_()
            continue
        found = weights[name]
        values = torch.from_numpy(gguf.quants.dequantize(found.data, found.tensor_type).copy())
        if values.shape != weight.shape:
            raise ValueError(f"{path}: {name} has the shape {[*values.shape]}, not {[*weight.shape]}")
        weight.copy_(values)
