"""Computes how much a cached beginning must slow the first token down: the least ratio, by arithmetic alone.

    python -m benches.prefix_cost [MODEL.gguf …] [--cached 3062] [--new 18]

Prints a row for each file, and for an 8 B and a 70 B of Llama's shape. Nothing is run.

A decode of n new tokens behind m cached ones needs, in floating-point operations (a multiplication and an addition
are two):

    weights     2 * n * parameters of the layers + 2 * parameters of the output matrix (of the last token alone)
    attention   4 * n * (m + n / 2) * layers * heads * head_dim

It is the third of the operations of a training step, 6 N + 12 L H Q T for each token, in appendix B of "PaLM: Scaling
Language Modeling with Pathways" (Chowdhery et al., 2022). A layer with a sliding window counts no more than its window.
It also needs each weight and each cell of the cache once, in bytes.

The first token with the beginning takes at least this ratio to the one without, the same new tokens in both:
`operations` where arithmetic is the limit (a CPU, or many new tokens), `bytes` where memory is (a GPU, few new tokens).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from mullama.sources.local_files import look_into
from mullama.weights.experts import holds_experts
from mullama.weights.facts import WeightFacts

CACHED, NEW = 3062, 18
"""Of `tool_prompt` with SmolLM2: tokens that are cached, and those of a short question."""
_F16 = 2
"""Bytes of a number in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """The attention of one layer."""

    width: int
    """heads * head_dim, of queries and keys or of values; the mean of both where they differ."""
    cached: int
    """Numbers in the cache for each token."""
    window: int = 0
    """The sliding window in tokens, 0 for none."""

    def reach(self, before: float) -> float:
        """Return the tokens that a token with so many before it is compared with."""
        return min(before, self.window) if self.window else before


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The work of a model."""

    layers: int
    """Parameters of the matrices in its layers that one token uses."""
    output: int
    """Parameters of the output matrix."""
    stored: float
    """Bytes of both."""
    attention: tuple[Attention, ...]

    def operations(self, new: int, cached: int) -> float:
        """Return the floating-point operations of a decode of `new` tokens behind `cached` ones."""
        compared = sum(4 * one.width * one.reach(cached + new / 2) for one in self.attention)
        return new * (2 * self.layers + compared) + 2 * self.output

    def bytes(self, new: int, cached: int) -> float:
        """Return the bytes that the decode reads."""
        return self.stored + sum(one.cached * _F16 * one.reach(cached + new) for one in self.attention)

    def ratios(self, new: int, cached: int) -> tuple[float, float]:
        """Return the least ratio of the time with the cached tokens to that without: by operations, and by bytes."""
        return (
            self.operations(new, cached) / self.operations(new, 0),
            self.bytes(new, cached) / self.bytes(new, 0),
        )


def of_facts(facts: WeightFacts) -> Cost | None:
    """Return the work of a model by its header; None for latent attention, to which the formula does not apply."""
    heads = facts.heads * facts.layers if len(facts.heads) == 1 else facts.heads
    kv_heads = facts.kv_heads * facts.layers if len(facts.kv_heads) == 1 else facts.kv_heads
    attention = []
    for layer, count, shared in zip(facts.per_layer, heads, kv_heads, strict=True):
        if layer.key and not layer.value:
            return None
        if layer.key:
            width = count * (layer.key + layer.value) // (2 * shared)
            window = facts.window if layer.slides else 0
            attention.append(Attention(width=width, cached=layer.key + layer.value, window=window))
    used, stored, output = 0.0, 0.0, 0
    for tensor in facts.tensors:
        if tensor.layer is not None:
            share = facts.experts.used / facts.experts.count if holds_experts(tensor.name) else 1.0
            used, stored = used + tensor.elements * share, stored + tensor.bytes * share
        elif tensor.name == ("token_embd.weight" if facts.tied else "output.weight"):
            output, stored = tensor.elements, stored + tensor.bytes
    return Cost(layers=int(used), output=output, stored=stored, attention=tuple(attention))


def of_llama(width: int, layers: int, heads: int, kv_heads: int, hidden: int, vocabulary: int, bits: float) -> Cost:
    """Return the work of a model of Llama's shape. bits: of a stored parameter."""
    head = width // heads
    inside = layers * (2 * width * width + 2 * kv_heads * head * width + 3 * hidden * width)
    one = Attention(width=width, cached=2 * kv_heads * head)
    output = vocabulary * width
    return Cost(layers=inside, output=output, stored=(inside + output) * bits / 8, attention=(one,) * layers)


_Q4_K_M = 4.85
"""Bits of a parameter, on average."""
SHAPES = {
    "0.5 B of benches.model, Q4_K_M": of_llama(896, 24, 14, 2, 4864, 152_000, _Q4_K_M),
    "Llama 3.1 8B, Q4_K_M": of_llama(4096, 32, 32, 8, 14336, 128_256, _Q4_K_M),
    "Llama 3.3 70B, Q4_K_M": of_llama(8192, 80, 64, 8, 28672, 128_256, _Q4_K_M),
    "Llama 3.3 70B, F16": of_llama(8192, 80, 64, 8, 28672, 128_256, 16),
}


def rows(paths: list[str]) -> Iterator[tuple[str, Cost | None]]:
    """Yield a name and the work of each file, and of the known shapes."""
    for path in paths:
        facts = look_into((path,))
        yield f"{facts.name or path}, {facts.quantization}", of_facts(facts)
    yield from SHAPES.items()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL.gguf")
    parser.add_argument("--cached", type=int, default=CACHED, help="tokens")
    parser.add_argument("--new", type=int, default=NEW, help="tokens")
    options = parser.parse_args()
    print(f"{options.new} new tokens behind {options.cached} cached ones, against the same behind none")
    for name, cost in rows(options.models):
        if cost is None:
            print(f"{name}: latent attention, which is not computed here")
            continue
        operations, read = cost.ratios(options.new, options.cached)
        most = cost.operations(options.new, options.cached) / 1e9
        print(f"{name}: operations {operations:.2f} ({most:.3g} GFLOP), bytes {read:.2f}")


if __name__ == "__main__":
    main()
