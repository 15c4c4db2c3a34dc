"""Tensors of adapters against those of weights."""

from __future__ import annotations

import pytest

from mullama.weights.adapters import misfit
from mullama.weights.tensors import Tensor

WEIGHTS = {"a.weight": (64, 32), "token_embd.weight": (64, 300), "norm.weight": (64,)}


def _tensors(shapes: dict[str, tuple[int, ...]]) -> list[Tensor]:
    return [Tensor(name, "F32", shape, 0, 0) for name, shape in shapes.items()]


def _pair(name: str, left: tuple[int, ...], right: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.lora_a": left, f"{name}.lora_b": right}


@pytest.mark.parametrize(
    "adapter",
    [
        _pair("a.weight", (64, 4), (4, 32)),
        {**_pair("a.weight", (64, 4), (4, 32)), "x_norm.weight": (64,)},
        _pair("token_embd.weight", (4, 300), (4, 64)),
    ],
)
def test_an_adapter_fits(adapter: dict[str, tuple[int, ...]]) -> None:
    assert misfit(_tensors(adapter), _tensors(WEIGHTS)) == ""


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        (_pair("b.weight", (64, 4), (4, 32)), "the weights have no tensor b.weight"),
        (_pair("a.weight", (64, 4), (4, 30)), "a.weight is 64 x 30, the weights have 64 x 32"),
        (_pair("a.weight", (64, 4), (8, 32)), "a.weight has the ranks 4 and 8"),
        (_pair("token_embd.weight", (64, 4), (4, 300)), "token_embd.weight is 300 x 4, the weights have 64 x 300"),
        (_pair("norm.weight", (64, 4), (4, 1)), "norm.weight is no matrix"),
        ({"a.weight.lora_a": (64, 4)}, "a.weight has no .lora_b"),
        ({"a.weight": (64, 32)}, "its tensor a.weight is no part of a LoRA"),
        ({}, "it has no tensors"),
    ],
)
def test_an_adapter_that_does_not_fit_names_its_tensor(adapter: dict[str, tuple[int, ...]], says: str) -> None:
    assert misfit(_tensors(adapter), _tensors(WEIGHTS)) == says
