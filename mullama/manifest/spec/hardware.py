"""The blocks of the hardware: memory budget, GPU offload, memory, context and profiles of these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mullama.manifest.spec.values import (
    Block,
    CacheType,
    Flag,
    Flash,
    Layers,
    Number,
    Share,
    Size,
    Whole,
)


class Budget(Block):
    """Memory that all models together may use."""

    ram: Share | None = Field(default=None, examples=["80%", "24GiB"])
    """Main memory: a share of the total, or a size. Default: no limit."""
    gpu: dict[Annotated[str, Field(pattern=r"^[0-9]{1,2}$")], Share] = Field(default={}, examples=[{"0": "22GiB"}])
    """Memory of each GPU by its number: a share of the total, or a size."""
    reserve: Size = Field(default=0, ge=0, examples=["1GiB"])
    """Main memory that always stays free."""


class Gpu(Block):
    """Offload of layers to GPUs. A change reloads the weights."""

    layers: Layers = Field(default="auto", examples=["auto", "all", 33, {"0": 30, "1": 18}])
    """Number of layers on GPUs: `auto` for as many as fit, `all`, a number, or a number for each device."""
    split: Literal["none", "layer", "row"] = "layer"
    """Split of the weights between devices: none, by layer, or by row."""
    main: Whole = Field(default=0, ge=0, le=99)
    """Device for the tensors that are not split."""
    tensor_split: tuple[Annotated[Number, Field(ge=0)], ...] = Field(default=(), max_length=16, examples=[[3, 1]])
    """Share of each device; not allowed with a map in `layers`, which contains the shares."""


class Memory(Block):
    """Loading of the weights into memory. A change reloads the weights."""

    mmap: Flag = True
    """Map the file into memory instead of reading it."""
    mlock: Flag = False
    """Lock the weights in main memory, so the system does not swap them out."""
    extra_buffers: Flag = True
    """Repack weights for the CPU: faster, but crashes on some virtual machines."""


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
    batch: Whole = Field(default=512, ge=1, le=65_536)
    """Maximum number of tokens of one decode step (logical batch)."""
    ubatch: Whole | None = Field(default=None, ge=1, le=65_536)
    """Number of tokens that are computed at once (physical batch). Default: `batch`."""
    kv: Kv = Kv()
    """Data types of the KV cache."""
    flash_attention: Flash = "auto"
    """Flash attention: on, off, or auto where it is supported."""
    threads: Whole | None = Field(default=None, ge=1, le=1024, examples=[8])
    """Number of CPU threads; models that share a context use the highest value. Default: all available cores."""
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = Field(default=None, examples=["mean"])
    """Pooling of token embeddings; without it, that of the weights file."""
    rope: Rope | None = None
    """RoPE scaling, for contexts longer than the trained one."""


class HardwareProfile(Block):
    """A named set of blocks for models with `hardware: NAME`."""

    gpu: Gpu | None = None
    """Offload of layers to GPUs."""
    memory: Memory | None = None
    """Loading of the weights into memory."""
    context: Context | None = None
    """Context: the memory of conversations."""


class Hardware(Block):
    """Memory budget and hardware profiles."""

    budget: Budget = Budget()
    """Memory that all models together may use."""
    profiles: dict[str, HardwareProfile] = Field(
        default={}, examples=[{"cpu": {"gpu": {"layers": 0}, "context": {"threads": 8}}}]
    )
    """Named sets of blocks for models with `hardware: NAME`."""
