"""Compares the tensors of a LoRA adapter with those of weights, by the rules of `llama_adapter_lora_init`."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.weights.tensors import Tensor

_SUFFIXES = (".lora_a", ".lora_b")


def misfit(adapter: Sequence[Tensor], weights: Sequence[Tensor]) -> str:
    """Return why an adapter cannot be applied to weights, with the name of the tensor; "" if it can."""
    shapes = {tensor.name: tuple(tensor.shape) for tensor in weights}
    pairs: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in adapter:
        name, suffix = tensor.name[:-7], tensor.name[-7:]
        if suffix in _SUFFIXES:
            pairs.setdefault(name, {})[suffix] = tuple(tensor.shape)
        elif not tensor.name.endswith("_norm.weight"):
            return f"its tensor {tensor.name} is no part of a LoRA"
    if not pairs:
        return "it has no tensors"
    return next(filter(None, (_misfit(name, pair, shapes.get(name)) for name, pair in pairs.items())), "")


def _misfit(name: str, pair: dict[str, tuple[int, ...]], base: tuple[int, ...] | None) -> str:
    left, right = pair.get(".lora_a"), pair.get(".lora_b")
    if left is None or right is None:
        return f"{name} has no {'.lora_a' if left is None else '.lora_b'}"
    if base is None:
        return f"the weights have no tensor {name}"
    if len(base) < 2 or len(left) < 2 or len(right) < 2:
        return f"{name} is no matrix"
    # The embeddings of tokens are looked up by row, so their two factors are exchanged.
    wanted = (right[1], left[1]) if name.endswith("token_embd.weight") else (left[0], right[1])
    if base[:2] != wanted:
        return f"{name} is {_shape(wanted)}, the weights have {_shape(base)}"
    if not name.endswith("token_embd.weight") and left[1] != right[0]:
        return f"{name} has the ranks {left[1]} and {right[0]}"
    return ""


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
