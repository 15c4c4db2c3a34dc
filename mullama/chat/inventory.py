"""The values of the model inventory: what a client may ask about models, change in them, and gets told.

Requests that change something go through the overlay, the plan and the executor, like everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mullama.chat.types import Message
from mullama.names import JSONValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ListModels:
    """All models and routes that the caller may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRunning:
    """The models in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowModel:
    """One model with everything known of it; `verbose` includes long arrays and tensors."""

    model: str
    verbose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadModel:
    """Load, or unload when keep_alive is 0, without generating. forced: unload now, and end its requests."""

    model: str
    keep_alive: float | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PullModel:
    """again: ask the source anew, and read what is stored through; what does not match its digest is fetched again."""

    source: str
    name: str | None = None
    again: bool = False
    stream: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateModel:
    """A model from another one or from uploaded files (name in the request -> digest).

    said: fields of a model in the manifest's words, resolved, that hold beside the other fields.
    """

    name: str
    base: str | None = None
    said: Mapping[str, JSONValue] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    license: tuple[str, ...] = ()
    parameters: Mapping[str, JSONValue] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    quantize: str | None = None
    stream: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyModel:
    source: str
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteModel:
    """only_check: change nothing, and say whether it could be deleted."""

    model: str
    only_check: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDefault:
    """Answer with this model where a request names none."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindBlob:
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBlob:
    """The request's body is a file to keep under this digest; answered by Done, found when it was there already."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known of one model.

    size: bytes of its files. digest: of the weights, `sha256:…`, or "" when not fetched. modified: unix seconds.
    parameter_size and quantization as people write them ("8.0B", "Q4_K_M"). context_size: what one request
    may use; train_context: what the file declares. capabilities: completion, tools, thinking, insert,
    embedding, vision. thinking_levels: what `think` may be, the default first, empty when unknown.
    parallel: requests that decode together. expires: unix seconds, None while not loaded, infinity for ever.
    metadata: the file's own keys.
    """

    name: str
    digest: str = ""
    size: int = 0
    modified: float = 0.0
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_count: int = 0
    parameter_size: str = ""
    quantization: str = ""
    context_size: int = 0
    train_context: int = 0
    embedding_length: int = 0
    vocabulary: int = 0
    capabilities: tuple[str, ...] = ()
    thinking_levels: tuple[bool | str, ...] = ()
    bos_text: str = ""
    eos_text: str = ""
    description: str = ""
    license: str = ""
    system: str = ""
    template: str = ""
    template_source: str = "none"
    modelfile: str = ""
    parameters: tuple[tuple[str, JSONValue], ...] = ()
    messages: tuple[Message, ...] = ()
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    source: str = ""
    parent: str = ""
    aliases: tuple[str, ...] = ()
    loaded: bool = False
    state: str = ""
    active: int = 0
    parallel: int = 0
    memory: int = 0
    memory_gpu: int = 0
    gpu_layers: int = 0
    expires: float | None = None
    is_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Model cards, newest first."""

    models: tuple[ModelCard, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The answer to LoadModel; `unloaded` tells which way it went."""

    model: str
    unloaded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """One line of progress of a pull or a create; the last one has status `success`. file: as its source calls it.

    phase: what is done with the file (downloading, verifying, retrying …). total, completed, resumed: bytes.
    message: why something takes longer.
    """

    status: str
    file: str = ""
    phase: str = ""
    digest: str | None = None
    total: int | None = None
    completed: int | None = None
    resumed: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A change that has nothing to tell; `found` is False where a blob is absent."""

    found: bool = True
