"""The values of the model inventory: requests about models, and their answers.

Requests that change something go through the overlay, the plan and the executor, as every other change does.
"""

from __future__ import annotations

from collections.abc import Mapping

from mullama.chat.types import Effective, Message, Sampling, TextRequest
from mullama.names import JSONValue
from mullama.struct import Struct, field


class ListModels(Struct, frozen=True, kw_only=True):
    """List the models and routes that the caller may use."""


class ListRunning(Struct, frozen=True, kw_only=True):
    """List the loaded models."""


class ShowModel(Struct, frozen=True, kw_only=True):
    """Return the facts of one model; `verbose` includes long arrays and tensors."""

    model: str
    verbose: bool = False
    headers: bool = False
    """Include the keys of the files' headers, whose reading takes a tenth of a second."""


class LoadModel(Struct, frozen=True, kw_only=True):
    """Load a model, or unload it when `keep_alive` is 0, without generating."""

    model: str
    keep_alive: float | None = None
    """Seconds to keep it loaded; None uses the manifest."""
    forced: bool = False
    """Unload at once and end its requests."""
    only_change: bool = False
    """Raise `Invalid` for a model that is in the wanted state."""


class WatchModels(Struct, frozen=True, kw_only=True):
    """Report the state of each model now, and every change of it; endless."""

    stream: bool = True


class ModelStateReport(Struct, frozen=True, kw_only=True):
    """The state of one model that the caller may use."""

    model: str
    state: str
    """A value of `ModelCard.state`; "" for a model that no longer exists."""


class PullModel(Struct, frozen=True, kw_only=True):
    """Download a model and declare it next to the manifest."""

    source: str
    name: str | None = None
    again: bool = False
    """Resolve the source again and verify stored files; one that does not match its digest is downloaded again."""
    stream: bool = True


class CreateModel(Struct, frozen=True, kw_only=True):
    """Create a model from another one or from uploaded files."""

    name: str
    base: str | None = None
    declared: Mapping[str, JSONValue] = field(default_factory=dict)
    """Resolved fields of the manifest, which apply in addition to the other fields."""
    files: Mapping[str, str] = field(default_factory=dict)
    """File names of the request by digest."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    license: tuple[str, ...] = ()
    parameters: Mapping[str, JSONValue] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    quantize: str | None = None
    stream: bool = True


class CopyModel(Struct, frozen=True, kw_only=True):
    source: str
    destination: str


class DeleteModel(Struct, frozen=True, kw_only=True):
    """Delete a model that the manifest does not declare."""

    model: str
    only_check: bool = False
    """Only check that the model can be deleted."""


class SetDefault(Struct, frozen=True, kw_only=True):
    """Set the model that answers requests without a model."""

    model: str


class SetAdapterScales(Struct, frozen=True, kw_only=True):
    """Set the default scales of a model's adapters; an adapter that is not listed has the scale 0."""

    model: str
    scales: tuple[tuple[int | str, float], ...]
    """(number or name of an adapter, scale)"""


class FindBlob(Struct, frozen=True, kw_only=True):
    digest: str


class StoreBlob(Struct, frozen=True, kw_only=True):
    """Store the body of the request under this digest. The answer is `Done`, with `found` for a file that exists."""

    digest: str


class Slot(Struct, frozen=True, kw_only=True):
    """A place for one answer of a context, with the request that has it or had it last."""

    id: int
    busy: bool = False
    task: int = -1
    """Number of the answer since the start of the server; -1 for none."""
    request: TextRequest | None = None
    effective: Effective | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated: int = 0
    """Tokens of the answer so far; 0 after its end."""


class AdapterCard(Struct, frozen=True, kw_only=True):
    """A LoRA adapter of a model."""

    source: str
    scale: float
    """For requests that name no adapters."""
    name: str = ""


class ModelCard(Struct, frozen=True, kw_only=True):
    """The facts of one model that clients may see."""

    name: str
    digest: str = ""
    """`sha256:…` of the weights; empty for files that are not downloaded."""
    size: int = 0
    """Bytes of its files."""
    modified: float = 0.0
    """Unix seconds."""
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_count: int = 0
    parameter_size: str = ""
    """As text: "8.0B"."""
    quantization: str = ""
    """As text: "Q4_K_M"."""
    context_size: int = 0
    """Tokens that one request may use."""
    train_context: int = 0
    """Tokens that the file declares."""
    embedding_length: int = 0
    vocabulary: int = 0
    capabilities: tuple[str, ...] = ()
    """Of completion, tools, thinking, insert, embedding, vision."""
    thinking_levels: tuple[bool | str, ...] = ()
    """Values of `think`, the default first; empty when unknown."""
    bos_text: str = ""
    eos_text: str = ""
    description: str = ""
    license: str = ""
    system: str = ""
    template: str = ""
    template_source: str = "none"
    modelfile: str = ""
    parameters: tuple[tuple[str, JSONValue], ...] = ()
    sampling: Sampling | None = None
    """The sampling of requests that set none, with every field set."""
    max_tokens: int | None = None
    """Most tokens of an answer, for requests that set no limit; None for as many as the context holds."""
    stop: tuple[str, ...] = ()
    draft: str = ""
    """How tokens are guessed ahead; "" for not at all."""
    slots: tuple[Slot, ...] = ()
    adapters: tuple[AdapterCard, ...] = ()
    """LoRA adapters, in the order of their numbers."""
    messages: tuple[Message, ...] = ()
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    """Keys of the file."""
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    projector_metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    """Keys of the projector's file; empty without one."""
    source: str = ""
    resolved: str = ""
    """The source with the file and the revision that were chosen."""
    paths: tuple[str, ...] = ()
    """Files on the server's machine, for an administrator."""
    stored: bool = False
    """All files are on the server's machine."""
    parent: str = ""
    """The model, where the card stands for it with an adapter."""
    aliases: tuple[str, ...] = ()
    """Routes to the model."""
    route_of: str = ""
    """The model, where the card stands for a route to it."""
    loaded: bool = False
    state: str = ""
    active: int = 0
    """Requests in progress."""
    parallel: int = 0
    """Requests that decode together."""
    memory: int = 0
    """Bytes."""
    memory_gpu: int = 0
    """Bytes, of `memory`."""
    gpu_layers: int = 0
    expires: float | None = None
    """Unix seconds; None while not loaded, infinity for never."""
    is_default: bool = False


class Inventory(Struct, frozen=True, kw_only=True):
    """Model cards, newest first."""

    models: tuple[ModelCard, ...]


class Loaded(Struct, frozen=True, kw_only=True):
    """The answer to `LoadModel`."""

    model: str
    unloaded: bool = False
    """The model was unloaded, not loaded."""


class TaskStatus(Struct, frozen=True, kw_only=True):
    """One progress line of a pull or a create. The last one has the status `success`."""

    status: str
    file: str = ""
    """Name of the file at its source."""
    phase: str = ""
    """State of the file: downloading, verifying, retrying …"""
    digest: str | None = None
    total: int | None = None
    """Bytes."""
    completed: int | None = None
    """Bytes."""
    resumed: int | None = None
    """Bytes."""
    message: str = ""
    """Reason for a delay."""


class Done(Struct, frozen=True, kw_only=True):
    """A change without a result."""

    found: bool = True
    """False for a blob that does not exist."""
