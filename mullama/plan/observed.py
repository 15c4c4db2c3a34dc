"""Facts about now, as values: what was applied, what is on disk, what is in memory, what the machine has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mullama.manifest.spec import Manifest
from mullama.weights.facts import WeightFacts
from mullama.weights.stored import StoredWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFiles:
    """What is known of the files behind one source text, without a network.

    digest and size (bytes) are None where neither the store nor the lock file tells. `stored` files can be loaded now,
    and then `weights` has everything that came with them.
    """

    source: str
    digest: str | None = None
    size: int | None = None
    facts: WeightFacts | None = None
    stored: bool = False
    paths: tuple[str, ...] = ()
    weights: StoredWeights | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The last committed generation: a counter, the revision of the whole, and the wish it recorded."""

    generation: int
    revision: str
    manifest: Manifest
    when: float = 0.0


LiveState = Literal["absent", "loading", "ready", "idle", "degraded", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """One model in a running server. `revision` is the one that serves, which may be older than the wish's.

    idle: served on demand and not in memory now. memory: bytes of its weights and context.
    """

    name: str
    revision: str
    state: LiveState
    digest: str = ""
    memory: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Memory in bytes, as this process may use it (cgroup limits counted), and GPUs by index."""

    ram_total: int = 0
    ram_available: int = 0
    gpus: tuple[tuple[str, int, int], ...] = ()
    cores: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything a plan may depend on. `live` is None when no server runs (or none was asked).

    unneeded: files of our own store, by digest with their bytes, that a prune would delete; none unless the wish
    asks for it.
    """

    applied: Applied | None = None
    live: Mapping[str, LiveModel] | None = None
    files: Mapping[str, KnownFiles] = field(default_factory=dict)
    machine: Machine | None = None
    unneeded: tuple[tuple[str, int], ...] = ()
