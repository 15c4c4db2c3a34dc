"""The blocks about the machine: layers, memory, contexts, named sets of them, and what may be used at all."""

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
    """How much memory all models together may use."""

    ram: Share | None = Field(default=None, examples=["80%", "24GiB"])
    """Main memory: a share of what there is, or a size."""
    gpu: dict[Annotated[str, Field(pattern=r"^[0-9]{1,2}$")], Share] = Field(default={}, examples=[{"0": "22GiB"}])
    """Memory of each GPU, by its number."""
    reserve: Size = Field(default=0, ge=0, examples=["1GiB"])
    """Main memory that is left free whatever happens."""


class Gpu(Block):
    """Which layers leave the CPU; a change loads the weights again."""

    layers: Layers = Field(default="auto", examples=["auto", "all", 33, {"0": 30, "1": 18}])
    """`auto` for as many as fit, `all`, a number, or a number for each device."""
    split: Literal["none", "layer", "row"] = "layer"
    """How the weights are split between devices."""
    main: Whole = Field(default=0, ge=0, le=99)
    """The device for everything that is not split."""
    tensor_split: tuple[Annotated[Number, Field(ge=0)], ...] = Field(default=(), max_length=16, examples=[[3, 1]])
    """The share of each device; not beside a map of layers, which says it already."""


class Memory(Block):
    """How the weights are held in memory; a change loads them again."""

    mmap: Flag = True
    """Map the file instead of reading it."""
    mlock: Flag = False
    """Keep the weights from being swapped out."""
    extra_buffers: Flag = True
    """Let the CPU keep repacked weights: faster where it works, a crash on some virtual machines."""


class Kv(Block):
    """How precise the cache of a context is."""

    k: CacheType = "f16"
    """The type of the keys."""
    v: CacheType = "f16"
    """The type of the values; a quantised one needs flash attention."""


class Rope(Block):
    """How positions are stretched beyond what the model was trained on."""

    scaling: Literal["none", "linear", "yarn"] | None = None
    """The method; absent: as the file says."""
    base: Number | None = Field(default=None, gt=0)
    """The base frequency; absent: as the file says."""
    scale: Number | None = Field(default=None, gt=0)
    """The factor on the frequency; absent: as the file says."""


class Context(Block):
    """The memory of conversations; a change makes a new context over the loaded weights."""

    size: Whole | None = Field(default=None, ge=1, le=2**31 - 1, examples=[16384])
    """Tokens that one request may use, whatever `limits.parallel` is; absent: as the file says."""
    batch: Whole = Field(default=512, ge=1, le=65_536)
    """Tokens of one decode step."""
    ubatch: Whole | None = Field(default=None, ge=1, le=65_536)
    """Tokens that are computed at once; absent: the engine's choice."""
    kv: Kv = Kv()
    """How precise the cache is."""
    flash_attention: Flash = "auto"
    """on, off, or auto for where it works."""
    threads: Whole | None = Field(default=None, ge=1, le=1024, examples=[8])
    """CPU threads; absent: as many as the process may use. Models that share a context have the most one asks for."""
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = Field(default=None, examples=["mean"])
    """How token embeddings become one; absent: as the file says."""
    rope: Rope | None = None
    """How positions are stretched beyond what the model was trained on."""


class HardwareProfile(Block):
    """A named set of blocks that models take over with `hardware: NAME`."""

    gpu: Gpu | None = None
    """Which layers leave the CPU."""
    memory: Memory | None = None
    """How the weights are held in memory."""
    context: Context | None = None
    """The memory of conversations."""


class Hardware(Block):
    """What the machine offers to models."""

    budget: Budget = Budget()
    """How much memory all models together may use."""
    profiles: dict[str, HardwareProfile] = Field(
        default={}, examples=[{"cpu": {"gpu": {"layers": 0}, "context": {"threads": 8}}}]
    )
    """Named sets of blocks that models take over with `hardware: NAME`."""
