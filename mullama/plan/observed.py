"""The observed state as values: the applied revision, files on disk, loaded models, the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mullama.manifest.spec import Manifest
from mullama.plan.steps import UnusableFile
from mullama.plan.tools import ObservedTools
from mullama.struct import Struct, field
from mullama.weights.facts import WeightFacts
from mullama.weights.stored import ProjectorFile, StoredWeights


class KnownFiles(Struct, frozen=True, kw_only=True):
    """The files of one source, as far as they are known without network access."""

    source: str
    digest: str | None = None
    """Digest of the set; None if it is unknown, as for a large file that was not hashed since it changed."""
    size: int | None = None
    """Bytes of all files; None if neither the store nor the lock file has it."""
    facts: WeightFacts | None = None
    stored: bool = False
    """True if the files are on this machine and can be loaded."""
    unusable: UnusableFile | None = None
    """The reason why the files of this machine cannot be loaded; None if they can be, and for a source to fetch."""
    paths: tuple[str, ...] = ()
    stamps: Mapping[str, str] = field(default_factory=dict)
    """The state of each file for which the digest holds, by path; see `store.index.stamp`."""
    used: int = 0
    """Most tokens that requests to these weights held at once, as observed; 0 if it is not known."""
    projector: ProjectorFile | None = None
    """The projector that comes with the weights, or that the source names; None for none."""
    weights: StoredWeights | None = None
    """The stored files with their companions (projector, template); None unless `stored`."""


class Applied(Struct, frozen=True, kw_only=True):
    """The last committed revision: its number (`generation`) and its manifest with its digest (`revision`)."""

    generation: int
    revision: str
    manifest: Manifest
    when: float = 0.0


LiveState = Literal["absent", "loading", "ready", "idle", "degraded", "failed"]


class LiveModel(Struct, frozen=True, kw_only=True):
    """One model in a running server."""

    name: str
    revision: str
    """Digest of the settings that serve, which may be older than the desired ones."""
    state: LiveState
    """idle: loaded on demand and not in memory now."""
    digest: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    """The digest of the set that each of its files belongs to, by path."""
    changed: Mapping[str, str] = field(default_factory=dict)
    """Its files that changed on disk since they were described: their states now, "" for one that does not exist."""
    memory: int = 0
    """Bytes of its weights and context."""
    reason: str = ""
    message: str = ""


class Device(Struct, frozen=True, kw_only=True):
    """A compute device other than the CPU, of this machine or of a host that lends it."""

    name: str
    """llama.cpp's name, such as CUDA0; RPC0 is the first device of the first host."""
    description: str = ""
    total: int = 0
    """Bytes; 0 is unknown."""
    free: int = 0
    ids: tuple[str, ...] = ()
    """PCI address and UUID, as far as they are known."""
    host: str = ""
    """The address of the RPC server that lends the device, "" for a device of this machine."""
    number: int = 0
    """Its number among the devices of the host."""
    fault: str = ""
    """The reason why the host does not answer, "" while it does."""

    @property
    def address(self) -> str:
        """The name by which an engine finds the device: `host:port/number` for one of a host."""
        return f"{self.host}/{self.number}" if self.host else self.name


class Machine(Struct, frozen=True, kw_only=True):
    """Memory in bytes within the limits of the cgroup, and devices by their number: those of hosts last."""

    ram_total: int = 0
    ram_available: int = 0
    gpus: tuple[Device, ...] = ()
    cores: int = 1


class Observed(Struct, frozen=True, kw_only=True):
    """The observed state, as input of a plan."""

    applied: Applied | None = None
    live: Mapping[str, LiveModel] | None = None
    """Models of the running server by name; None if no server is running or none was asked."""
    files: Mapping[str, KnownFiles] = field(default_factory=dict)
    """Files by source text."""
    machine: Machine | None = None
    tools: Mapping[str, ObservedTools] = field(default_factory=dict)
    """The tools of each declared server by its name, as far as the server that runs knows them."""
    unneeded: tuple[tuple[str, int], ...] = ()
    """(digest, bytes) of the files that `prune.files` deletes; empty without `prune.files`."""
