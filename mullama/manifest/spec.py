"""The typed manifest, after include, profile, interpolation, defaults and `like` have been worked in.

Each block of a model says what a change in it costs: files, weights, context, or live (see `plan.changes`).
Sizes are bytes, durations seconds, as numbers, once parsed; the manifest's spellings (`8MiB`, `10m`) are input only.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

DialectName = Literal["ollama", "openai", "anthropic"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]i?B?|B)?")
_UNITS = {"": 1, "b": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|s|m|h|d))+")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kM]?)/([smhd])")


def parse_size(value: object) -> object:
    """`8MiB`, `200MB`, `1024` → bytes; anything else is passed on for the type to refuse."""
    if isinstance(value, str) and (m := _SIZE.fullmatch(value.strip())):
        unit = (m[2] or "").lower().rstrip("b")
        factor = 1024 ** "kmgt".index(unit[0]) * 1024 if unit.endswith("i") else _UNITS[unit]
        return int(float(m[1]) * factor)
    return value


def parse_duration(value: object) -> object:
    """`30s`, `1h30m`, `5` (seconds), `never` → seconds, infinity for never."""
    if value == "never":
        return float("inf")
    if isinstance(value, str) and _DURATION.fullmatch(value.strip()):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
        return sum(float(n) * _SECONDS[unit] for n, unit in parts)
    return value


Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]


class Block(BaseModel):
    """A part of the manifest: closed, immutable, compared by value."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)


class SecretRef(Block):
    """Where a secret is: never the secret itself."""

    from_env: str | None = None
    from_file: str | None = None
    optional: bool = False


class Metadata(Block):
    name: str | None = None
    labels: dict[str, str] = {}


class Tls(Block):
    cert: str
    key: str


class ServerLimits(Block):
    body: Size = 8 * 1024**2
    concurrency: int = 64
    queue: int = 256
    queue_timeout: Duration = 30.0


class Server(Block):
    listen: tuple[str, ...] = ("127.0.0.1:11434",)
    dialects: tuple[DialectName, ...] = ("ollama", "openai", "anthropic")
    cors: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    tls: Tls | None = None
    limits: ServerLimits = ServerLimits()


class KeyRate(Block):
    requests: str | None = None
    tokens: str | None = None


class Key(Block):
    secret: SecretRef
    models: tuple[str, ...] = ("*",)
    roles: tuple[Literal["infer", "admin", "read"], ...] = ("infer",)
    rate: KeyRate | None = None
    priority: int = 0


class Auth(Block):
    keys: dict[str, Key] = {}


class HubSource(Block):
    endpoint: str | None = None
    token: SecretRef | None = None


class Stores(Block):
    huggingface: str = "auto"
    ollama: str = "auto"
    gguf: tuple[str, ...] = ()


class Sources(Block):
    hf: HubSource = HubSource()
    parallel: int = 3
    stores: Stores = Stores()


class Budget(Block):
    ram: str | int | None = None
    gpu: dict[str, str | int] = {}
    reserve: Size = 0


class Gpu(Block):
    """A change here loads the weights again."""

    layers: Literal["auto", "all"] | int | dict[str, int] = "auto"
    split: Literal["none", "layer", "row"] = "layer"
    main: int = 0
    tensor_split: tuple[float, ...] = ()


class Memory(Block):
    """A change here loads the weights again."""

    mmap: bool = True
    mlock: bool = False
    extra_buffers: bool = True


class Kv(Block):
    k: CacheType = "f16"
    v: CacheType = "f16"


class Rope(Block):
    scaling: Literal["none", "linear", "yarn"] | None = None
    base: float | None = None
    scale: float | None = None


class Context(Block):
    """A change here makes a new context over the loaded weights; `threads` is live."""

    size: int | None = None
    batch: int = 512
    ubatch: int | None = None
    kv: Kv = Kv()
    flash_attention: Literal["auto", "on", "off"] = "auto"
    threads: int | None = None
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = None
    rope: Rope | None = None


class HardwareProfile(Block):
    gpu: Gpu | None = None
    memory: Memory | None = None
    context: Context | None = None


class Hardware(Block):
    budget: Budget = Budget()
    profiles: dict[str, HardwareProfile] = {}


class Template(Block):
    """Jinja unless `go` or `syntax: go`; `text` holds what `file` contained once loaded."""

    text: str | None = None
    file: str | None = None
    go: str | None = None
    syntax: Literal["jinja", "go"] = "jinja"


class ManifestMessage(Block):
    role: Literal["system", "user", "assistant"]
    content: str


class Parameters(Block):
    """The Modelfile's sampling parameters; every one is live."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    repeat_last_n: int | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    num_predict: int | None = None
    num_keep: int | None = None


class Residency(Block):
    load: Literal["at_start", "on_demand"] = "at_start"
    ttl: Duration | None = None
    priority: int = 0


class ModelRate(Block):
    requests: str | None = None
    tokens: str | None = None


class Limits(Block):
    parallel: int = 4
    queue: int = 64
    timeout: Duration = 600.0
    max_tokens: int | None = None
    rate: ModelRate | None = None


class Probe(Block):
    prompt: str = ""
    expect: str | None = None
    timeout: Duration = 60.0


class Rollout(Block):
    strategy: Literal["auto", "surge", "recreate"] = "auto"
    drain_timeout: Duration = 120.0


class AdapterRef(Block):
    from_: str = Field(alias="from")
    scale: float = 1.0


class Model(Block):
    """One name that clients can call."""

    description: str | None = None
    from_: str = Field(alias="from")
    adapters: tuple[AdapterRef, ...] = ()
    mmproj: str | None = None
    draft: str | None = None
    digest: str | None = None
    gpu: Gpu = Gpu()
    memory: Memory = Memory()
    context: Context = Context()
    system: str | None = None
    template: Template | None = None
    messages: tuple[ManifestMessage, ...] = ()
    parameters: Parameters = Parameters()
    license: str | None = None
    dialects: tuple[DialectName, ...] | None = None
    residency: Residency = Residency()
    limits: Limits = Limits()
    probe: Probe | None = None
    rollout: Rollout = Rollout()
    requires: tuple[Literal["completion", "tools", "thinking", "vision", "embedding", "insert"], ...] = ()
    protect: bool = False
    task: Literal["chat", "embedding", "rerank"] = "chat"


class RouteTarget(Block):
    model: str
    weight: int = 1


class Route(Block):
    to: tuple[RouteTarget, ...]
    fallback: tuple[str, ...] = ()
    on_error: tuple[Literal["unavailable", "overloaded", "timeout"], ...] = ()


class Moved(Block):
    from_: str = Field(alias="from")
    to: str


class Group(Block):
    models: tuple[str, ...]
    max: int = 1


class Prune(Block):
    running: bool = True
    files: bool = False
    keep: Duration = 7 * 86400.0


class GitSync(Block):
    url: str
    ref: str = "main"
    path: str = "mullama.yaml"
    interval: Duration = 60.0


class Sync(Block):
    watch: bool = True
    git: GitSync | None = None


class Logs(Block):
    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    prompts: bool = False


class Observability(Block):
    metrics: bool = True
    logs: Logs = Logs()


class Manifest(Block):
    """The resolved manifest: `profiles`, `include`, `defaults`, `like` and `hardware` names are worked in."""

    mullama: Literal["v1"]
    metadata: Metadata = Metadata()
    server: Server = Server()
    auth: Auth = Auth()
    sources: Sources = Sources()
    hardware: Hardware = Hardware()
    models: dict[str, Model] = {}
    groups: dict[str, Group] = {}
    routes: dict[str, str | Route] = {}
    moved: tuple[Moved, ...] = ()
    prune: Prune = Prune()
    sync: Sync = Sync()
    observability: Observability = Observability()


def canonical(block: Block) -> dict[str, Any]:
    """The block as plain JSON values with the manifest's own key names, defaults filled in, keys sorted."""
    tree = block.model_dump(mode="json", by_alias=True)
    return dict(sorted(tree.items()))
