"""Facts about a set of weights, from its header: small enough for a lock file, except for metadata and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mullama.struct import Struct, equality_without, field
from mullama.weights.tensors import Tensor

Role = Literal["model", "projector", "adapter"]
Capability = Literal["completion", "embedding", "tools", "thinking", "insert", "vision", "audio", "rerank"]


class SpecialToken(Struct, frozen=True, kw_only=True):
    """A token with a role: bos, eos, eot, eom, unk, sep, pad, mask, fim_pre, fim_suf, fim_mid …"""

    role: str
    id: int
    text: str


class RopeFacts(Struct, frozen=True, kw_only=True):
    """Rotary position embedding."""

    dimensions: int = 0
    """Dimensions of each head that are rotated."""
    base: float = 0.0
    """The base frequency."""
    scaling: str = ""
    factor: float = 1.0
    """The factor of the scaling, 1.0 for none."""
    original_context: int = 0


class Experts(Struct, frozen=True, kw_only=True):
    """The experts of a mixture-of-experts model."""

    count: int = 0
    used: int = 0
    """Experts for each token."""
    shared: int = 0
    feed_forward: int = 0
    """Rows of one expert."""


class LayerFacts(Struct, frozen=True, kw_only=True):
    """The memory of one layer."""

    weights: int
    """Bytes of its tensors."""
    experts: int = 0
    """Bytes of those tensors that hold routed experts."""
    key: int = 0
    """Elements of the cache per token, 0 for a layer without a cache."""
    value: int = 0
    """Elements of the cache per token; 0 next to a `key` is multi-head latent attention."""
    index: int = 0
    """Elements of a sparse-attention index per token."""
    slides: bool = False
    """True if the cache has the sliding window only."""
    state: int = 0
    """Elements of recurrent state per sequence."""


class EncoderWork(Struct, frozen=True, kw_only=True):
    """The work buffer of an encoder of a projector, by the size of an image or a sound."""

    positions: int
    """Positions of the largest one, or of as many as are encoded together."""
    merged: int = 0
    """Positions that become one vector; 0 for media that are all encoded in one size."""
    stages: tuple[tuple[int, int], ...] = ()
    """(bytes for each position, bytes for each pair of positions) of the stages, of which the largest counts."""

    def bytes(self, tokens: int) -> int:
        """Return the bytes for the largest medium of at most as many tokens."""
        positions = min(self.positions, tokens * self.merged or self.positions)
        return max((row * positions + pair * positions**2 for row, pair in self.stages), default=0)


class ProjectorFacts(Struct, frozen=True, kw_only=True):
    """The abilities of a projector, and its work."""

    vision: bool = False
    audio: bool = False
    audio_type: str = ""
    """Name of the encoder of sound (clip.audio.projector_type), which tells the kind of model; "" for none."""
    width: int = 0
    """Numbers of one vector, which the model reads in place of the embedding of a token; 0 if the header does not tell
    it."""
    work: tuple[EncoderWork, ...] = ()
    """The work buffers of its encoders, each of which keeps its own."""

    def work_bytes(self, tokens: int) -> int:
        """Return the bytes of the work buffers after media of at most as many tokens each."""
        return sum(encoder.bytes(tokens) for encoder in self.work)


class WeightFacts(Struct, frozen=True, kw_only=True):
    """Facts about a set of weights. Sizes are in bytes, of all parts together."""

    role: Role = "model"
    architecture: str
    name: str = ""
    quantization: str = ""
    """The name, such as Q4_K_M; the most frequent tensor type for a file without one."""
    parameter_count: int
    size_bytes: int
    layers: int
    embedding_length: int
    heads: tuple[int, ...] = ()
    """One number for all layers, or one for each."""
    kv_heads: tuple[int, ...] = ()
    """One number for all layers, or one for each."""
    key_length: int = 0
    value_length: int = 0
    feed_forward: tuple[int, ...] = ()
    train_context: int
    """The longest context of the training in tokens."""
    vocabulary: int
    tokenizer: str = ""
    pre_tokenizer: str = ""
    add_bos: bool | None = None
    add_eos: bool | None = None
    template: str = ""
    """The chat template, "" for none."""
    templates: tuple[tuple[str, str], ...] = ()
    """Name and text of each named chat template."""
    special: tuple[SpecialToken, ...] = ()
    control: tuple[str, ...] | None = None
    """Texts of the tokens that are no text: control tokens and the unknown token. None in a lock file."""
    window: int = 0
    """The sliding window in tokens, 0 for none."""
    cached: bool = True
    """True if a context needs a cache for each token."""
    pooling: str = ""
    """none, mean, cls, last or rank; "" for a file that names none."""
    causal: bool = True
    rope: RopeFacts = field(default_factory=RopeFacts)
    experts: Experts = field(default_factory=Experts)
    parts: int = 1
    """The number of files."""
    license: str = ""
    capabilities: tuple[Capability, ...] = ()
    projector: ProjectorFacts | None = None
    """Of a projector; None for any other file."""
    per_layer: tuple[LayerFacts, ...] = ()
    input_bytes: int = 0
    """The token embeddings, which stay in main memory."""
    output_bytes: int = 0
    """The output head and the norms."""
    drafting_layers: int = 0
    """The last layers, which predict further tokens (nextn) for speculative decoding; they are part of `layers`."""
    tied: bool = False
    """True if the token embeddings are the output head, too."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The keys of the file as JSON, with {"array": kind, "length": n} for long arrays; empty in a lock file.

    No part of `==`, as `tensors`."""
    tensors: tuple[Tensor, ...] = ()
    """The tensors of all parts; empty in a lock file."""

    __eq__, __hash__ = equality_without("metadata", "tensors")

    def token(self, role: str) -> SpecialToken | None:
        """Return the special token with this role; None for none."""
        return next((token for token in self.special if token.role == role), None)

    @property
    def recurrent(self) -> bool:
        """True if layers keep a state for each sequence."""
        return any(layer.state for layer in self.per_layer)

    @property
    def parameter_size(self) -> str:
        """The parameter count as text: "8.0B", "5.5M"."""
        for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
            if self.parameter_count >= size:
                return f"{self.parameter_count / size:.1f}{unit}"
        return str(self.parameter_count)
