"""The blocks of the hardware: memory budget, GPU offload, memory and profiles of these."""

from typing import Annotated, Literal

from pydantic import Field

from mullama.manifest.spec.context import Context
from mullama.manifest.spec.values import (
    Block,
    ExpertLayers,
    Flag,
    Layers,
    Number,
    RpcHost,
    Share,
    Size,
    Text,
    Whole,
)

MOST_DEVICES = 16
"""llama.cpp's LLAMA_MAX_DEVICES, and its largest number of RPC servers."""


class Budget(Block):
    """Memory that all models together may use."""

    ram: Share | None = Field(default=None, examples=["80%", "24GiB"])
    """Main memory: a share of the total, or a size. Default: no limit."""
    gpu: dict[Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z:./_-]{0,99}$")], Share] = Field(
        default={}, examples=[{"0": "22GiB"}, {"CUDA1": "50%", "RPC0": "12GiB"}]
    )
    """Memory of each device, by its number or as in `gpu.devices`: a share of the total, or a size."""
    reserve: Size = Field(default=0, examples=["1GiB"])
    """Main memory that always stays free."""


class Gpu(Block):
    """Offload of layers to GPUs. A change reloads the weights."""

    layers: Layers = Field(default="auto", examples=["auto", "all", 33, {"0": 30, "1": 18}])
    """Number of layers on GPUs: `auto` for as many as fit, `all`, a number, or a number for each device."""
    devices: tuple[Text, ...] = Field(default=(), max_length=MOST_DEVICES, examples=[["CUDA1"], ["RPC0", "CUDA0"]])
    """Devices that the model may use, in this order: name, PCI address, UUID, or host:port. Default: all devices."""
    experts: ExpertLayers = Field(default="auto", examples=["auto", "all", 12])
    """Layers whose experts stay in main memory: `auto` for as few as fit, `all`, or the number of them."""
    split: Literal["none", "layer", "row", "tensor"] = "layer"
    """Split of the weights between devices: none, by layer, by row, or each tensor (experimental in llama.cpp)."""
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


class HardwareProfile(Block):
    """A named set of blocks for models with `hardware: NAME`."""

    gpu: Gpu | None = None
    """Offload of layers to GPUs."""
    memory: Memory | None = None
    """Loading of the weights into memory."""
    context: Context | None = None
    """Context: the memory of conversations."""


class Hardware(Block):
    """Memory budget, devices of other hosts, and hardware profiles."""

    budget: Budget = Budget()
    """Memory that all models together may use."""
    rpc: tuple[RpcHost, ...] = Field(default=(), max_length=MOST_DEVICES, examples=[["10.0.0.2:50052"]])
    """Hosts that lend their devices (`mullama rpc`); llama.cpp's RPC has no authentication and no encryption."""
    profiles: dict[str, HardwareProfile] = Field(
        default={}, examples=[{"cpu": {"gpu": {"layers": 0}, "context": {"threads": 8}}}]
    )
    """Named sets of blocks for models with `hardware: NAME`."""
