"""Models as the runtime serves them: the manifest joined with files, options and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType

from mullama.chat.model_settings import ModelSettings
from mullama.chat.request_rules import NO_RULES, RequestRules
from mullama.codec import to_tree
from mullama.engines.base import ContextOptions, EngineChoice
from mullama.errors import Invalid, ModelUnavailable, NotFound, Unsupported
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.spec.readers import PEER_SIGN
from mullama.names import JSONValue, ModelName, suggest
from mullama.plan.fit import Placement
from mullama.plan.observed import KnownFiles
from mullama.runtime.base import Access
from mullama.runtime.routing import Routing
from mullama.runtime.scheduler.events import Rules, Serve, UnitKey
from mullama.struct import Struct, field, replace
from mullama.weights.stored import ProjectorFile


class Deployment(Struct, frozen=True, kw_only=True):
    """A model at one revision, with everything that opening and serving it needs."""

    name: str
    model: Model
    revision: str
    generation: int
    files: KnownFiles
    adapters: tuple[KnownFiles, ...] = ()
    """The files of its adapters."""
    drafter: KnownFiles | None = None
    """The files of its draft model."""
    projector: ProjectorFile | None = None
    """The projector of its images and sounds."""
    choice: EngineChoice
    """The engine, files and options of its worker."""
    options: ContextOptions
    """The options of its context."""
    settings: ModelSettings
    """The settings of its prompts."""
    rules: RequestRules = NO_RULES
    """The rules for the parameters of its requests."""
    serve: Serve
    """The model as the scheduler sees it."""
    place: Placement = field(default_factory=Placement)
    """The devices of the weights, and what is placed on them."""
    modified: float = 0.0
    """Modification time of the weights, in unix seconds."""
    scales: tuple[float, ...] | None = None
    """The adapter scales of requests that name none, for a name with scales of its own; None for those of `options`."""
    unavailable: ModelUnavailable | None = None
    """The reason why the model has no unit: its files are missing or cannot be used."""

    @property
    def unit(self) -> UnitKey:
        return self.serve.unit

    @property
    def described(self) -> tuple[KnownFiles, ...]:
        """The descriptions of all files that the model loads."""
        return (self.files, *((self.drafter,) if self.drafter else ()), *self.adapters)

    @property
    def stamps(self) -> dict[str, str]:
        """The state of each file that the model loads, by path; see `KnownFiles.stamps`."""
        return {path: stamp for files in self.described for path, stamp in files.stamps.items()} | self._projector_stamp

    @property
    def adapter_stamps(self) -> dict[str, str]:
        """The state of each file that its context loads, by path; see `KnownFiles.stamps`."""
        beside = {path: stamp for files in self.described[1:] for path, stamp in files.stamps.items()}
        return beside | self._projector_stamp

    @property
    def _projector_stamp(self) -> dict[str, str]:
        projector = self.projector
        return {projector.path: projector.stamp} if projector and projector.path and projector.stamp else {}


def unit_key(
    choice: EngineChoice, digest: str, options: ContextOptions, adapters: tuple[str, ...] = (), owner: str = ""
) -> UnitKey:
    """Return the key of a unit. Models with equal keys share the context, those with equal weights the worker.

    Options that can change on a live context (threads, adapter scales, prefixes) are left out, and the size of an
    automatic pool, which is chosen when the context opens. digest: of the weights.
    adapters: the digests of the adapters. owner: the only model that may use the unit. A model with adapters owns its
    context, because its scales apply to all of it.
    """
    weights = [choice.name, digest, to_tree(replace(choice.options, fit=None))]
    context = to_tree(options)
    for live in (
        "threads", "threads_batch", "prefixes", "state_dir", "prefix_bytes", "keep_bytes", "ram_dir", "ram_bytes",
        "state_key", "use_file",
    ):  # fmt: skip
        del context[live]
    if options.pool_auto:
        del context["pool"]
    context["adapters"] = [[adapter.path for adapter in options.adapters], adapters]
    context["owner"] = owner
    return UnitKey(_digest(weights), _digest(context))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Snapshot(Struct, frozen=True, kw_only=True):
    """Everything that requests see, swapped as one value: a request sees one revision and no mixture."""

    generation: int
    revision: str
    manifest: Manifest
    access: Access
    deployments: Mapping[str, Deployment] = field(default_factory=lambda: MappingProxyType({}))
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The key of every name and route that clients may use → a model's name; of a route to several, the main one's,
    and `MODEL@PEER` for a route to peers alone."""
    routes: Mapping[str, Routing] = field(default_factory=lambda: MappingProxyType({}))
    """The key of each route with options → its targets, fallbacks and rules."""
    exposed: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """The key of each name that serves a model with one of its adapters → the adapter's number."""
    rules: Rules = field(default_factory=Rules)

    @property
    def available(self) -> tuple[Deployment, ...]:
        """The deployments that have files, and so a unit of the pool."""
        return tuple(d for d in self.deployments.values() if d.unavailable is None)

    @property
    def aliases(self) -> dict[str, str]:
        """The part of `names` with names of routes: all but the own name of each model."""
        return {name: target for name, target in self.names.items() if name != key_of(target)}

    @property
    def shares(self) -> dict[str, JSONValue]:
        """The weights of the targets and the fallbacks of each route that leads to more than one model, as JSON."""
        return {
            route.name: {
                "to": [{"model": model, "weight": weight} for model, weight in route.targets],
                "fallback": list(route.fallback),
            }
            for route in self.routes.values()
            if len(route.targets) > 1 or route.fallback
        }

    def context_size(self, name: str) -> int:
        """Return the declared context of the model behind a name; 0 without one, or for a name of no model here."""
        try:
            return self.find(name, "mullama").options.size
        except (NotFound, Unsupported):
            return 0

    def find(self, name: str, dialect: str) -> Deployment:
        """Return the deployment behind a name or route.

        Raises `NotFound` for an unknown name, and for a model that is not served in this dialect, and `Unsupported` for
        a route that leads to peers alone.
        """
        key = key_of(name)
        target = self.names.get(key)
        deployment = self.deployments.get(target) if target is not None else None
        if target is not None and PEER_SIGN in target:
            raise Unsupported(
                f"'{name}' is a model of the peer {target.rpartition(PEER_SIGN)[2]}",
                hint="a peer answers completions, embeddings and rankings only",
            )
        if deployment is None or not self.speaks(deployment, dialect):
            raise self.missing(name, dialect, known=deployment is not None)
        number = self.exposed.get(key)
        return deployment if number is None else replace(deployment, scales=scales_with(deployment, number))

    def speaks(self, deployment: Deployment, dialect: str) -> bool:
        """Return True if the model is served in this dialect; mullama's own endpoints serve every model."""
        allowed = deployment.model.dialects
        return allowed is None or dialect in allowed or dialect == "mullama"

    def missing(self, name: str, dialect: str, *, known: bool) -> NotFound:
        """Return the error for a name without a model in this dialect. known: it has one in another dialect."""
        if known:
            return NotFound(
                f"model '{name}' not found: it is not served in the {dialect} dialect",
                hint="`dialects` of the model in the manifest lists its dialects",
                name=name,
            )
        visible = [n for n, d in self.deployments.items() if self.speaks(d, dialect)]
        return NotFound(f"model '{name}' not found", name=name, near=suggest(name, visible))


def scales_with(deployment: Deployment, number: int) -> tuple[float, ...]:
    """Return the adapter scales of a model with one of its exposed adapters."""
    scales = [adapter.scale for adapter in deployment.options.adapters]
    scales[number] = deployment.model.adapters[number].scale
    return tuple(scales)


def key_of(name: str) -> str:
    """Return the form of a name in which it is looked up."""
    try:
        return ModelName.parse(name).key
    except Invalid:
        return name.casefold()
