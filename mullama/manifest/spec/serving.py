"""The blocks about the server itself: addresses, keys, where weights come from, routes, upkeep."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from mullama.manifest.addresses import parse_address
from mullama.manifest.spec.values import Block, DialectName, Duration, Flag, Size, Text, Whole, checked


class SecretRef(Block):
    """Where a secret is, never the secret itself: exactly one of `from_env` and `from_file`."""

    from_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", examples=["HF_TOKEN"])
    """The environment variable that holds it."""
    from_file: Text | None = Field(default=None, examples=["./secrets/admin"])
    """The file that holds it, relative to the manifest; read again when it changes."""
    optional: Flag = False
    """Whether it may be missing."""


class Metadata(Block):
    """What the manifest is called; nothing depends on it."""

    name: str | None = Field(default=None, examples=["workstation"])
    """A name for people and dashboards."""
    labels: dict[str, str] = Field(default={}, examples=[{"team": "search"}])
    """Free pairs of text."""


class Tls(Block):
    """Certificate and key of an encrypted listener."""

    cert: Text
    """The certificate chain, a PEM file."""
    key: Text
    """The private key, a PEM file."""


class ServerLimits(Block):
    """Bounds over all models together."""

    body: Size = Field(default=8 * 1024**2, ge=1024, examples=["8MiB"])
    """The largest request body."""
    concurrency: Whole = Field(default=64, ge=1, le=65_536)
    """Requests that may run at the same time."""
    queue: Whole = Field(default=256, ge=0, le=1_000_000)
    """Requests that may wait; one more is told to try later."""
    queue_timeout: Duration = Field(default=30.0, examples=["30s"])
    """How long a request waits before it is told to try later."""


class Server(Block):
    """Where and how the server listens."""

    listen: tuple[Annotated[str, AfterValidator(checked(parse_address))], ...] = Field(
        default=("127.0.0.1:11434",), min_length=1, max_length=16, examples=[["127.0.0.1:11434", "unix:./mullama.sock"]]
    )
    """Addresses: `host:port`, `[ipv6]:port` or `unix:PATH`; port 0 is any free one. Beyond loopback, keys are due."""
    dialects: tuple[DialectName, ...] = Field(default=("ollama", "openai", "anthropic"), min_length=1)
    """The wire formats that are served; a model may narrow this."""
    cors: tuple[Text, ...] = Field(default=(), max_length=64, examples=[["https://chat.example.org"]])
    """Origins of web pages that may call the server."""
    allowed_hosts: tuple[Text, ...] = Field(default=(), max_length=64, examples=[["llm.example.org"]])
    """Further names that clients may address the server by."""
    tls: Tls | None = None
    """Encrypt every TCP listener with this certificate."""
    limits: ServerLimits = ServerLimits()
    """Bounds over all models together."""


class KeyRate(Block):
    """How much a key may use."""

    requests: str | None = Field(default=None, examples=["60/m"])
    """Requests per time."""
    tokens: str | None = Field(default=None, examples=["200k/h"])
    """Tokens per time."""


class Key(Block):
    """One API key and its rights."""

    secret: SecretRef
    """Where the key itself is."""
    models: tuple[Text, ...] = Field(default=("*",), min_length=1, examples=[["small", "qwen3:*"]])
    """Names or patterns of the models and routes that it may use."""
    roles: tuple[Literal["infer", "admin", "read"], ...] = Field(default=("infer",), min_length=1)
    """infer: use models. read: see plans and status. admin: change things."""
    rate: KeyRate | None = None
    """How much it may use."""
    priority: Whole = Field(default=0, ge=-1000, le=1000)
    """Requests with a higher number are served first."""


class Auth(Block):
    """Who may use the server; without keys, everybody who reaches it may."""

    keys: dict[str, Key] = Field(default={})
    """API keys by name."""


class HubSource(Block):
    """The Hugging Face hub, or a mirror of it."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://", examples=["https://huggingface.co"])
    """Its address; absent: HF_ENDPOINT, else the hub itself."""
    token: SecretRef | None = Field(default=None, examples=[{"from_env": "HF_TOKEN", "optional": True}])
    """A token for gated and private repositories."""


class Stores(Block):
    """Folders of other tools that are looked in before any download; read, never written."""

    huggingface: Text = Field(default="auto", examples=["auto"])
    """`auto` for the usual place, `never`, or a folder."""
    ollama: Text = Field(default="auto", examples=["auto"])
    """`auto` for the usual place, `never`, or a folder."""
    gguf: tuple[Text, ...] = Field(default=(), max_length=64, examples=[["/srv/gguf"]])
    """Folders with plain GGUF files."""


class Sources(Block):
    """Where weights come from."""

    hf: HubSource = HubSource()
    """The Hugging Face hub, or a mirror of it."""
    parallel: Whole = Field(default=3, ge=1, le=16)
    """Files that are fetched at the same time."""
    stores: Stores = Stores()
    """Folders of other tools that are looked in before any download."""


class RouteTarget(Block):
    """One model that a route leads to."""

    model: Text
    """The model's name."""
    weight: Whole = Field(default=1, ge=1, le=1_000_000)
    """Its share of the requests, against the weights of the other targets."""


class Route(Block):
    """A name that leads to models by weight, with a way out when they fail."""

    to: tuple[RouteTarget, ...] = Field(min_length=1, max_length=64)
    """The models that share the requests."""
    fallback: tuple[Text, ...] = ()
    """Models to try in turn when a target fails."""
    on_error: tuple[Literal["unavailable", "overloaded", "timeout"], ...] = ()
    """Which failures lead to the fallback."""


def _route_form(value: object) -> str:
    return "route" if isinstance(value, (dict, Route)) else "name"


AnyRoute = Annotated[
    Annotated[str, Field(min_length=1), Tag("name")] | Annotated[Route, Tag("route")],
    Discriminator(_route_form),
]


class Moved(Block):
    """A model that has a new name: its weights stay loaded."""

    from_: str = Field(alias="from", min_length=1, examples=["qwen:8b"])
    """The old name."""
    to: Text = Field(examples=["qwen3:8b"])
    """The new name."""


class Group(Block):
    """Models of which only some may be loaded at the same time."""

    models: tuple[Text, ...]
    """Their names."""
    max: Whole = Field(default=1, ge=1)
    """How many may be loaded."""


class Prune(Block):
    """What goes when the manifest no longer names it."""

    running: Flag = True
    """Unload models that are no longer declared; false lets them serve until the server ends."""
    files: Flag = False
    """Delete files that mullama fetched and nothing needs any more."""
    keep: Duration = Field(default=7 * 86400.0, examples=["7d"])
    """How long such files stay before they go."""


class GitSync(Block):
    """Take the manifest from a git repository."""

    url: Text
    """The repository."""
    ref: Text = "main"
    """The branch, tag or commit."""
    path: Text = "mullama.yaml"
    """The manifest inside the repository."""
    interval: Duration = 60.0
    """How often to look."""


class Sync(Block):
    """How the server follows the manifest."""

    watch: Flag = True
    """Apply the file whenever it is saved."""
    git: GitSync | None = None
    """Take the manifest from a git repository."""


class Logs(Block):
    """What the server writes down."""

    format: Literal["text", "json"] = "text"
    """Lines for people or for programs."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important line that is written."""
    prompts: Flag = False
    """Whether prompts and answers may be written to the log."""


class Observability(Block):
    """What can be seen from outside."""

    metrics: Flag = True
    """Serve /metrics."""
    logs: Logs = Logs()
    """What the server writes down."""
