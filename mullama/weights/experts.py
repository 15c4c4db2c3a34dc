"""The routed experts of a model: the tensors that hold them, and the patterns that keep them in main memory.

A token needs few of its layer's experts, so they lose least in main memory. The expression is llama.cpp's
`LLM_FFN_EXPS_REGEX` (`common/common.h`), behind its arguments `--cpu-moe` and `--n-cpu-moe`.
"""

from __future__ import annotations

import re
from typing import Final

from mullama.weights.facts import WeightFacts

EXPERTS: Final = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
_EXPERTS: Final = re.compile(EXPERTS)


def holds_experts(tensor: str) -> bool:
    """Return True for the name of a tensor with routed experts."""
    return _EXPERTS.search(tensor) is not None


def expert_layers(facts: WeightFacts) -> tuple[int, ...]:
    """Return the numbers of the layers with routed experts."""
    return tuple(number for number, layer in enumerate(facts.per_layer) if layer.experts)


def in_main_memory(facts: WeightFacts, count: int) -> frozenset[int]:
    """Return the layers whose experts stay in main memory: the first `count` that have any, all for -1."""
    layers = expert_layers(facts)
    return frozenset(layers if count < 0 else layers[:count])


def expert_patterns(facts: WeightFacts | None, count: int) -> tuple[str, ...]:
    """Return the expressions for the names of the tensors that `in_main_memory` keeps there."""
    if count < 0 or (count and facts is None):
        return (EXPERTS,)
    if facts is None:
        return ()
    return tuple(rf"blk\.{layer}{EXPERTS}" for layer in sorted(in_main_memory(facts, count)))
