"""The context block of a model: size, batch, cache types and threads."""

from typing import Literal

from pydantic import Field

from mullama.manifest.spec.readers import CacheType
from mullama.manifest.spec.values import Block, Checkpoints, Flash, Number, Pool, Whole


class Kv(Block):
    """Data types of the KV cache."""

    k: CacheType = "f16"
    """Data type of the keys."""
    v: CacheType = "f16"
    """Data type of the values; a quantized type needs flash attention."""


class Rope(Block):
    """RoPE scaling, for contexts longer than the trained one."""

    scaling: Literal["none", "linear", "yarn"] | None = None
    """Scaling method; without it, that of the weights file."""
    base: Number | None = Field(default=None, gt=0)
    """Base frequency; without it, that of the weights file."""
    scale: Number | None = Field(default=None, gt=0)
    """Frequency scaling factor; without it, that of the weights file."""


class Context(Block):
    """Context: the memory of conversations. A change makes a new context and keeps the weights loaded."""

    size: Whole | None = Field(default=None, ge=1, le=2**31 - 1, examples=[16384])
    """Context size of one request in tokens, for any `limits.parallel`. Default: the trained size, at most 8192."""
    pool: Pool = Field(default="auto", examples=["worst_case", 16384])
    """Tokens that all requests together have in the cache: `auto` for what requests have really used, at first a
    quarter of the worst case, a number of tokens, or `worst_case` for `size` times `limits.parallel`. A pool has at
    least `size`, so each request has its `size`. When it runs out, the youngest request is set aside in main memory,
    and resumed when there is room."""
    batch: Whole = Field(default=512, ge=1, le=65_536)
    """Maximum number of tokens of one decode step (logical batch)."""
    ubatch: Whole | None = Field(default=None, ge=1, le=65_536)
    """Number of tokens that are computed at once (physical batch). Default: `batch`."""
    kv: Kv = Kv()
    """Data types of the KV cache."""
    checkpoints: Checkpoints = Field(default="auto", examples=["1GiB"])
    """Most main memory for checkpoints: copies of the state of a model whose memory cannot be cut (sliding window,
    hybrid, recurrent), from which a conversation continues after an edit. `0` for none. `auto`: sixteen, at most
    256 MiB, but one for each request at once and one more. Other models have none."""
    flash_attention: Flash = "auto"
    """Flash attention: on, off, or auto where it is supported."""
    threads: Whole | None = Field(default=None, ge=1, le=1024, examples=[8])
    """Number of CPU threads; models that share a context use the highest value. Default: the cores that other
    processes leave, at most all available ones."""
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = Field(default=None, examples=["mean"])
    """Pooling of token embeddings; without it, that of the weights file. With `none`, `/embedding` returns a vector for
    each token, and other endpoints refuse the model."""
    rope: Rope | None = None
    """RoPE scaling, for contexts longer than the trained one."""
