"""The typed manifest.

Sizes are bytes and durations seconds, as numbers; spellings such as `8MiB` and `10m` are input only. Paths are absolute
and templates are text. `plan.changes` has the cost of a change of each field.

`definitions` has the blocks as pydantic models; at run time their compiled form is used, see `compiled`.
"""

from typing import TYPE_CHECKING

from mullama.manifest.spec.readers import CacheType, DialectName, share_of

if TYPE_CHECKING:
    from mullama.manifest.spec.definitions import (
        AdapterRef,
        Auth,
        Block,
        Budget,
        Captures,
        ClientConfig,
        ClientKey,
        Context,
        Draft,
        Embedding,
        Fleet,
        FleetHost,
        FleetRollout,
        GitSync,
        Gpu,
        Group,
        Hardware,
        HardwareProfile,
        HubSource,
        Key,
        Kv,
        Limits,
        LockedFile,
        LockedSource,
        Logs,
        Manifest,
        ManifestLock,
        ManifestMessage,
        McpServer,
        Memory,
        Metadata,
        Model,
        Moved,
        OAuth,
        Observability,
        Otlp,
        Parameters,
        Peer,
        Policy,
        Probe,
        Prune,
        RateLimit,
        RequestParameters,
        Residency,
        ResumableStreams,
        Rollout,
        Rope,
        Route,
        RouteTarget,
        Scale,
        Search,
        SecretRef,
        Server,
        ServerLimits,
        SessionBounds,
        Sources,
        SpeechToText,
        StoredObjects,
        Stores,
        Sync,
        Template,
        Tls,
        Voice,
        Webhook,
    )
else:
    from mullama.manifest.spec.compiled import Builder, CompiledBlock
    from mullama.manifest.spec.compiled_schemas import VERSION, blocks
    from mullama.manifest.spec.core import __version__

    if __version__ == VERSION:
        globals().update(blocks(Builder()), Block=CompiledBlock)
    else:
        from mullama.manifest.spec import emit

        globals().update(emit.blocks(), Block=CompiledBlock)

__all__ = [
    "AdapterRef", "Auth", "Block", "Budget", "CacheType", "Captures", "ClientConfig", "ClientKey", "Context",
    "DialectName", "Draft", "Embedding",
    "Fleet", "FleetHost", "FleetRollout", "GitSync", "Gpu", "Group", "Hardware", "HardwareProfile", "HubSource",
    "Key", "Kv", "Limits", "LockedFile", "LockedSource", "Logs", "Manifest",
    "ManifestLock", "ManifestMessage", "McpServer", "Memory", "Metadata", "Model", "Moved",
    "OAuth", "Observability", "Otlp", "Parameters", "Peer", "Policy", "Probe", "Prune", "RateLimit",
    "RequestParameters",
    "Residency", "ResumableStreams", "Rollout", "Rope", "Route", "RouteTarget", "Scale", "Search", "SecretRef",
    "Server", "ServerLimits", "SessionBounds", "Sources", "SpeechToText", "StoredObjects", "Stores", "Sync",
    "Template", "Tls", "Voice", "Webhook", "share_of",
]  # fmt: skip
