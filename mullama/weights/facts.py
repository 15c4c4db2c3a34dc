"""What is known of a set of weights: one value, small enough for a lock file, plus what only `show` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mullama.weights.tensors import Tensor

Role = Literal["model", "projector", "adapter"]
Capability = Literal["completion", "embedding", "tools", "thinking", "insert", "vision", "rerank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialToken:
    """A token with a role of its own: bos, eos, eot, eom, unk, sep, pad, mask, fim_pre, fim_suf, fim_mid …"""

    role: str
    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeFacts:
    """Rotary positions: `dimensions` of each head, base frequency, scaling kind and factor (1.0 for none)."""

    dimensions: int = 0
    base: float = 0.0
    scaling: str = ""
    factor: float = 1.0
    original_context: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """How many experts there are, how many each token uses, and the rows of one."""

    count: int = 0
    used: int = 0
    shared: int = 0
    feed_forward: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What one block needs. weights: bytes of its tensors.

    key, value: elements that one token adds to the cache, 0 where the layer keeps none (`value` 0 with a
    `key` is multi-head latent attention). index: elements of a sparse-attention index per token.
    slides: the cache holds the window only. state: elements of recurrent state per sequence.
    """

    weights: int
    key: int = 0
    value: int = 0
    index: int = 0
    slides: bool = False
    state: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFacts:
    """A set of weights as its header tells it. Sizes in bytes, of all parts together.

    quantization: "Q4_K_M", or the commonest tensor type where the file names none. heads, kv_heads: one
    number, or one per layer. train_context: tokens. template: the chat template, "" for none; templates:
    the named variants. window: the sliding window in tokens, 0 for none. pooling: none, mean, cls, last,
    rank, or "" where unsaid. parts: number of files. metadata: the file's keys as plain JSON, long arrays
    replaced by {"array": kind, "length": n}; empty, like `tensors`, in a value read from a lock file.
    input_bytes: the token embeddings, which stay in main memory; output_bytes: output head and norms.
    tied: the embeddings serve as output head too. cached: whether a context needs a cache per token.
    """

    role: Role = "model"
    architecture: str
    name: str = ""
    quantization: str = ""
    parameter_count: int
    size_bytes: int
    layers: int
    embedding_length: int
    heads: tuple[int, ...] = ()
    kv_heads: tuple[int, ...] = ()
    key_length: int = 0
    value_length: int = 0
    feed_forward: tuple[int, ...] = ()
    train_context: int
    vocabulary: int
    tokenizer: str = ""
    pre_tokenizer: str = ""
    add_bos: bool | None = None
    add_eos: bool | None = None
    template: str = ""
    templates: tuple[tuple[str, str], ...] = ()
    special: tuple[SpecialToken, ...] = ()
    window: int = 0
    cached: bool = True
    pooling: str = ""
    causal: bool = True
    rope: RopeFacts = field(default_factory=RopeFacts)
    experts: Experts = field(default_factory=Experts)
    parts: int = 1
    license: str = ""
    capabilities: tuple[Capability, ...] = ()
    per_layer: tuple[LayerFacts, ...] = ()
    input_bytes: int = 0
    output_bytes: int = 0
    tied: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    tensors: tuple[Tensor, ...] = field(default=(), compare=False, repr=False)

    def token(self, role: str) -> SpecialToken | None:
        """The special token with this role, None when the file names none."""
        return next((token for token in self.special if token.role == role), None)

    @property
    def recurrent(self) -> bool:
        """Whether layers keep a state per sequence."""
        return any(layer.state for layer in self.per_layer)

    @property
    def parameter_size(self) -> str:
        """The parameter count as people write it: "8.0B", "5.5M"."""
        for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
            if self.parameter_count >= size:
                return f"{self.parameter_count / size:.1f}{unit}"
        return str(self.parameter_count)
