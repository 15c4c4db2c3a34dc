"""The blocks of the manifest as pydantic models: their types, defaults, messages and JSON Schema."""

from typing import Literal

from pydantic import Field

from mullama.manifest.spec.context import Context, Kv, Rope
from mullama.manifest.spec.draft import Draft
from mullama.manifest.spec.fleet import Fleet, FleetHost, FleetRollout, LockedFile, LockedSource, ManifestLock
from mullama.manifest.spec.hardware import Budget, Gpu, Hardware, HardwareProfile, Memory
from mullama.manifest.spec.model import (
    AdapterRef,
    Embedding,
    Limits,
    ManifestMessage,
    Model,
    Probe,
    Residency,
    Rollout,
    Scale,
    SpeechToText,
    Template,
    Voice,
)
from mullama.manifest.spec.observability import Captures, Logs, Observability, Otlp, Webhook
from mullama.manifest.spec.parameters import Parameters
from mullama.manifest.spec.policy import Policy
from mullama.manifest.spec.routes import (
    AnyRoute,
    ClientConfig,
    ClientKey,
    Group,
    Peer,
    RequestParameters,
    Route,
    RouteTarget,
)
from mullama.manifest.spec.server import (
    Auth,
    HubSource,
    Key,
    Metadata,
    Moved,
    Prune,
    RateLimit,
    ResumableStreams,
    SecretRef,
    Server,
    ServerLimits,
    SessionBounds,
    Sources,
    StoredObjects,
    Stores,
    Tls,
)
from mullama.manifest.spec.sync import GitSync, Sync
from mullama.manifest.spec.tools import McpServer, OAuth, Search
from mullama.manifest.spec.values import Block

__all__ = [
    "AdapterRef", "Auth", "Block", "Budget", "Captures", "ClientConfig", "ClientKey", "Context", "Draft", "Embedding",
    "Fleet",
    "FleetHost", "FleetRollout", "GitSync", "Gpu", "Group",
    "Hardware", "HardwareProfile", "HubSource", "Key", "Kv", "Limits", "LockedFile", "LockedSource", "Logs",
    "Manifest", "ManifestLock", "ManifestMessage",
    "McpServer", "Memory", "Metadata", "Model", "Moved", "OAuth", "Observability", "Otlp", "Parameters", "Peer",
    "Policy",
    "Probe", "Prune", "RateLimit", "RequestParameters", "Residency", "ResumableStreams", "Rollout", "Rope", "Route",
    "RouteTarget", "Scale", "Search", "SecretRef", "Server", "ServerLimits", "SessionBounds", "Sources", "SpeechToText",
    "StoredObjects",
    "Stores", "Sync", "Template", "Tls", "Voice", "Webhook",
]  # fmt: skip


class Manifest(Block):
    """The manifest after includes, profiles, interpolation, defaults and `like`."""

    mullama: Literal["v1"]
    """Version of the format."""
    metadata: Metadata = Metadata()
    """Name and labels of the manifest, for people."""
    server: Server = Server()
    """The HTTP server."""
    auth: Auth = Auth()
    """Authentication; required if the server listens on an address other than loopback."""
    sources: Sources = Sources()
    """Sources of weights."""
    hardware: Hardware = Hardware()
    """Memory budget and hardware profiles."""
    models: dict[str, Model] = Field(default={})
    """Models by the name that clients call."""
    groups: dict[str, Group] = Field(default={})
    """Sets of models with a limit on how many are loaded at the same time."""
    peers: dict[str, Peer] = Field(default={})
    """Other servers that routes lead to."""
    routes: dict[str, AnyRoute] = Field(default={})
    """Additional names for models; `default` is the model for requests that name none."""
    mcp: dict[str, McpServer] = Field(default={}, max_length=64)
    """Servers of tools by the Model Context Protocol, which models name in `mcp`."""
    search: Search | None = None
    """Search of the web, for models with `search: true`. Nothing is searched without it."""
    moved: tuple[Moved, ...] = Field(default=(), max_length=1000)
    """Renamed models, routes and API keys."""
    prune: Prune = Prune()
    """Removal of models and files that the manifest no longer names."""
    sync: Sync = Sync()
    """Updates from a changed manifest."""
    fleet: Fleet = Fleet()
    """Several servers that this manifest describes; without hosts it describes one."""
    lock: ManifestLock = ManifestLock()
    """Pins of files and of tools, for a manifest without a lock file beside it: an apply of a fleet writes those of its
    lock file into the manifests of the hosts. They have precedence over a lock file."""
    clients: dict[str, ClientConfig] = Field(default={}, examples=[{"codex": {"model": "chat"}}])
    """Coding agents and other programs that use this server, by name. `mullama clients apply` edits their files."""
    observability: Observability = Observability()
    """Metrics and logs."""
