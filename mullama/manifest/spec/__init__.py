"""The typed manifest, after include, profile, interpolation, defaults and `like` have been worked in.

Each block of a model says what a change in it costs: files, weights, context, or live (see `plan.changes`).
Sizes are bytes, durations seconds, as numbers, once parsed; the manifest's spellings (`8MiB`, `10m`) are input only.
Paths are absolute and templates are text once loaded.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mullama.manifest.spec.hardware import (
    Budget,
    Context,
    Gpu,
    Hardware,
    HardwareProfile,
    Kv,
    Memory,
    Rope,
)
from mullama.manifest.spec.model import (
    AdapterRef,
    Limits,
    ManifestMessage,
    Model,
    ModelRate,
    Parameters,
    Probe,
    Residency,
    Rollout,
    Template,
)
from mullama.manifest.spec.serving import (
    AnyRoute,
    Auth,
    GitSync,
    Group,
    HubSource,
    Key,
    KeyRate,
    Logs,
    Metadata,
    Moved,
    Observability,
    Prune,
    Route,
    RouteTarget,
    SecretRef,
    Server,
    ServerLimits,
    Sources,
    Stores,
    Sync,
    Tls,
)
from mullama.manifest.spec.values import Block, CacheType, DialectName, share_of

__all__ = [
    "AdapterRef", "Auth", "Block", "Budget", "CacheType", "Context", "DialectName", "GitSync", "Gpu", "Group",
    "Hardware", "HardwareProfile", "HubSource", "Key", "KeyRate", "Kv", "Limits", "Logs", "Manifest",
    "ManifestMessage", "Memory", "Metadata", "Model", "ModelRate", "Moved", "Observability", "Parameters", "Probe",
    "Prune", "Residency", "Rollout", "Rope", "Route", "RouteTarget", "SecretRef", "Server", "ServerLimits",
    "Sources", "Stores", "Sync", "Template", "Tls", "share_of",
]  # fmt: skip


class Manifest(Block):
    """The resolved manifest."""

    mullama: Literal["v1"]
    """The version of this format."""
    metadata: Metadata = Metadata()
    """What the manifest is called; nothing depends on it."""
    server: Server = Server()
    """Where and how the server listens."""
    auth: Auth = Auth()
    """Who may use the server; needed when a listener is not loopback."""
    sources: Sources = Sources()
    """Where weights come from."""
    hardware: Hardware = Hardware()
    """What the machine offers to models."""
    models: dict[str, Model] = Field(default={})
    """The models, by the names that clients call them."""
    groups: dict[str, Group] = Field(default={})
    """Models of which only some may be loaded at the same time."""
    routes: dict[str, AnyRoute] = Field(default={})
    """Further names that clients may use; `default` answers when a request names no model."""
    moved: tuple[Moved, ...] = Field(default=(), max_length=1000)
    """Models that have a new name."""
    prune: Prune = Prune()
    """What goes when the manifest no longer names it."""
    sync: Sync = Sync()
    """How the server follows the manifest."""
    observability: Observability = Observability()
    """What can be seen from outside."""
