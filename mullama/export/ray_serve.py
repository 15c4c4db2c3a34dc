"""The applications of Ray Serve for a manifest: their names, and their entries in a Serve config. Pure.

Each model is an application of its own, whose name has a digest of the fields that decide its weights and its contexts.
A change of such a field is a new application beside the old one. The other fields of a model are the `user_config` of
its deployment, which Serve changes in place. One more application, the gateway, has the HTTP routes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mullama.errors import Invalid, Unsupported
from mullama.export.base import gpu_numbers
from mullama.manifest.addresses import TcpAddress, parse_address
from mullama.manifest.spec import Manifest, Model, Server
from mullama.manifest.tree import block_to_tree, manifest_to_tree
from mullama.plan.changes import cost_of, leaves_of
from mullama.plan.fit import need_at, placement
from mullama.plan.observed import Device, KnownFiles, Machine
from mullama.plan.steps import Cost
from mullama.struct import Struct, field, replace
from mullama.weights import record

BUILDERS = "mullama.targets.ray.builders"
"""Module of the functions that Serve calls to build an application."""
ROUTER = "mullama.targets.ray.router:PrefixRouter"
"""Class that chooses the replica of a request."""
DEPLOYMENT = "model"
GATEWAY_DEPLOYMENT = "gateway"
PROCESS_BYTES = 512 * 2**20
"""Main memory of the processes of a replica beside weights and context."""
GATEWAYS = 2
"""Replicas of the gateway. A replica that takes a new `user_config` answers none then, so one is too few."""
KEPT = 3
"""Revisions before the present one that the gateway keeps for `undo`."""

_MEMORY_STEP = 256 * 2**20
"""Memory is rounded up, so that few live changes of a model, such as that of a system prompt, change it."""
_SHARES = 20
"""A GPU is divided into parts of 1/20."""
_NOT_IN_NAME = re.compile(r"[^a-z0-9]+")
_HEAVY = (Cost.CONTEXT, Cost.WEIGHTS, Cost.FILES)


class RayInput(Struct, frozen=True, kw_only=True):
    """A manifest with everything that its applications need to know."""

    manifest: Manifest
    version: str
    """Version of this program. Another one is other code, and so another application."""
    stack: str = "mullama"
    """Name that tells the applications of one manifest from those of others on the cluster."""
    generation: int = 1
    files: Mapping[str, KnownFiles] = field(default_factory=dict)
    """The files of each source, as far as they are known."""
    lock: Mapping[str, Any] = field(default_factory=dict)
    """The entries of the lock file by source, as JSON."""
    keys: Sequence[Mapping[str, Any]] | None = None
    """The API keys with the SHA-256 of their secrets; None for a gateway that reads the secrets where it runs."""
    history: Sequence[Mapping[str, Any]] = ()
    """The revisions before this one, the newest first."""


class Resources(Struct, frozen=True, kw_only=True):
    """The parts of a node that one replica takes. Ray counts them and enforces none."""

    cpus: float
    gpus: float = 0.0
    memory: int | None = None
    """Bytes; None where the header of the weights is not known."""

    def tree(self) -> dict[str, Any]:
        """Return them as `ray_actor_options`."""
        memory = {} if self.memory is None else {"memory": math.ceil(self.memory / _MEMORY_STEP) * _MEMORY_STEP}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, **memory}


def stack_name(manifest: Manifest) -> str:
    """Return the name of the stack: that of the manifest, in small letters, digits and `-`."""
    return slug(manifest.metadata.name or "mullama")


def slug(name: str) -> str:
    """Return a name in small letters, digits and `-`, at most 40 long."""
    return _NOT_IN_NAME.sub("-", name.casefold()).strip("-")[:40].rstrip("-") or "x"


def gateway_name(stack: str) -> str:
    """Return the name of the application with the HTTP routes."""
    return f"gateway-{stack}"


def application_name(given: RayInput, name: str) -> str:
    """Return `m-SLUG-REVISION` of a model: equal exactly for equal weights, contexts, files, code and resources.

    Serve replaces a replica in place for other resources, and stops it first: so those are another application too.
    """
    model = given.manifest.models[name]
    leaves = {
        path: value
        for path, value in leaves_of(_model_tree(model), "")
        if cost_of(f"models.*.{path}") in _HEAVY
    }  # fmt: skip
    digests = {source: given.files[source].digest for source in model.all_sources if source in given.files}
    parts = [given.stack, name, given.version, leaves, digests, resources(given, name).tree()]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return f"m-{slug(name)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _model_tree(model: Model) -> dict[str, Any]:
    """Return a model as a replica has it: without the number of its replicas."""
    tree = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    for name in ("scale", "hosts", "replicas"):
        tree.pop(name, None)
    return tree


def gpu_count(model: Model) -> int:
    """Return the number of GPUs that a model names; one for layers without devices, none for `auto`.

    A cluster has many machines, so `auto` has no device to look at.
    """
    layers = model.gpu.layers
    named = bool(model.gpu.devices) or (isinstance(layers, dict) and bool(layers))
    some = layers == "all" or (isinstance(layers, int) and layers > 0)
    return max((*(number + 1 for number in gpu_numbers(model)), 1 if some or named else 0))


def resources(given: RayInput, name: str) -> Resources:
    """Return the resources of one replica, by the memory arithmetic of a plan.

    A part of a GPU is asked for where `hardware.budget.gpu` states the size of one, and a whole one elsewhere.
    """
    model = given.manifest.models[name]
    known = given.files.get(model.from_)
    facts = known.facts if known else None
    cpus = float(model.context.threads or 1)
    count = gpu_count(model)
    if not count:
        place = placement(model, facts, Machine())
        need = need_at(model, facts, place)
        return Resources(cpus=cpus, memory=need.total + PROCESS_BYTES if need else None)
    size = next((share for share in given.manifest.hardware.budget.gpu.values() if isinstance(share, int)), None)
    if size is None or facts is None:
        return Resources(cpus=cpus, gpus=float(count), memory=PROCESS_BYTES if facts else None)
    devices = tuple(Device(name=f"CUDA{number}", total=size, free=size) for number in range(count))
    plain = model.model_copy(update={"gpu": model.gpu.model_copy(update={"devices": ()})})
    need = need_at(plain, facts, placement(plain, facts, Machine(gpus=devices)))
    assert need is not None
    on_devices = sum(weights + context for _, weights, context in need.devices)
    memory = max(0, need.total - on_devices) + PROCESS_BYTES
    if count > 1:
        return Resources(cpus=cpus, gpus=float(count), memory=memory)
    if on_devices > size:
        raise Invalid(
            f"models.{name} needs {on_devices} bytes of a GPU, and hardware.budget.gpu states {size}",
            hint="name more devices in gpu.layers, or fewer layers",
        )
    return Resources(cpus=cpus, gpus=math.ceil(on_devices / size * _SHARES) / _SHARES, memory=memory)


def replica_manifest(given: RayInput, name: str) -> dict[str, Any]:
    """Return the manifest of a replica as a resolved tree: one model, which loads at the start, and no routes."""
    server = block_to_tree(given.manifest.server)
    model = _model_tree(given.manifest.models[name])
    model["residency"] = {**model["residency"], "load": "at_start"}
    model["residency"].pop("ttl", None)  # the number of replicas decides
    for limit in ("rate", "rate_per_key"):
        model["limits"].pop(limit, None)  # the gateway counts
    model.pop("dialects", None)
    model["protect"] = False
    return {
        "mullama": "v1",
        "sources": block_to_tree(given.manifest.sources),
        "server": {"limits": server["limits"], "fetch_media": server["fetch_media"]},
        "observability": {"logs": block_to_tree(given.manifest.observability.logs)},
        "models": {name: model},
    }


def model_application(given: RayInput, name: str) -> dict[str, Any]:
    """Return the entry of a model in a Serve config."""
    model = given.manifest.models[name]
    parallel = model.limits.parallel
    deployment = {
        "name": DEPLOYMENT,
        **_replicas(model),
        "max_ongoing_requests": parallel,
        # Each replica of the gateway has a queue of its own, which Serve wants to have a place at least.
        "max_queued_requests": max(1, math.ceil(model.limits.queue / GATEWAYS)),
        "graceful_shutdown_timeout_s": model.rollout.drain_timeout,
        "graceful_shutdown_wait_loop_s": 1.0,
        "health_check_period_s": 10.0,
        "health_check_timeout_s": 30.0,
        "ray_actor_options": resources(given, name).tree(),
        "request_router_config": {"request_router_class": ROUTER},
        "user_config": {"manifest": replica_manifest(given, name), "lock": _locked(given, name)},
    }
    return {
        "name": application_name(given, name),
        "import_path": f"{BUILDERS}:model",
        "route_prefix": None,
        "args": {"stack": given.stack, "model": name},
        "deployments": [deployment],
    }


def _locked(given: RayInput, *names: str) -> dict[str, Any]:
    """Return the entries of the lock file for the sources of these models."""
    sources = [source for name in names for source in given.manifest.models[name].all_sources]
    return {source: given.lock[source] for source in sources if source in given.lock}


def _replicas(model: Model) -> dict[str, Any]:
    scale = model.scale
    if scale is None:
        return {"num_replicas": 1}
    return {
        "autoscaling_config": {
            "min_replicas": scale.min,
            # A new revision loads once before it gets requests, also where none is kept afterwards.
            "initial_replicas": max(scale.min, 1),
            "max_replicas": scale.max,
            "target_ongoing_requests": float(scale.target_ongoing or model.limits.parallel),
            "downscale_delay_s": scale.idle,
        }
    }


def gateway_application(given: RayInput) -> dict[str, Any]:
    """Return the entry of the gateway in a Serve config. Its `user_config` is the snapshot that requests see."""
    server = given.manifest.server
    drains = [model.rollout.drain_timeout for model in given.manifest.models.values()]
    deployment = {
        "name": GATEWAY_DEPLOYMENT,
        "num_replicas": GATEWAYS,
        "max_ongoing_requests": server.limits.concurrency + server.limits.queue,
        "graceful_shutdown_timeout_s": max(drains, default=30.0),
        "graceful_shutdown_wait_loop_s": 1.0,
        "ray_actor_options": {"num_cpus": 0.5, "memory": PROCESS_BYTES},
        "user_config": snapshot_tree(given),
    }
    return {
        "name": gateway_name(given.stack),
        "import_path": f"{BUILDERS}:gateway",
        "route_prefix": "/",
        "args": {"stack": given.stack, "version": given.version},
        "deployments": [deployment],
    }


def snapshot_tree(given: RayInput) -> dict[str, Any]:
    """Return the `user_config` of the gateway. It has digests of keys and references to secrets, and no secret."""
    manifest = given.manifest
    return {
        "format": "mullama.ray/1",
        "stack": given.stack,
        "generation": given.generation,
        "manifest": manifest_to_tree(manifest),
        "applications": {name: application_name(given, name) for name in manifest.models},
        "facts": {
            model.from_: _facts_tree(given.files[model.from_])
            for model in manifest.models.values()
            if model.from_ in given.files
        },
        "lock": _locked(given, *manifest.models),
        "keys": None if given.keys is None else [dict(key) for key in given.keys],
        "history": [dict(entry) for entry in given.history[:KEPT]],
    }  # fmt: skip


def _facts_tree(known: KnownFiles) -> dict[str, Any]:
    """Return the description of the weights of a model, by which the gateway lists it."""
    facts = replace(known.facts, tensors=(), metadata={}) if known.facts else None
    return {
        "digest": known.digest,
        "size": known.size,
        "facts": record.to_json(facts) if facts else None,
    }


def applications(given: RayInput) -> dict[str, dict[str, Any]]:
    """Return all applications of the manifest by name, the gateway last. Raises for what a cluster cannot honour."""
    require_supported(given.manifest)
    found = [model_application(given, name) for name in given.manifest.models]
    return {entry["name"]: entry for entry in (*found, gateway_application(given))}


def require_supported(manifest: Manifest) -> None:
    """Raise `Unsupported` for a block that has no meaning on a cluster of Ray, by its name."""
    for path, used, hint in _unsupported(manifest):
        if used:
            raise Unsupported(f"{path} is not available on Ray", hint=hint)


def _unsupported(manifest: Manifest) -> Iterator[tuple[str, bool, str]]:
    yield "sync.git", manifest.sync.git is not None, "apply from the checkout: mullama apply --on ray"
    yield "server.tls", manifest.server.tls is not None, "a proxy before Serve ends TLS, or serve's http_options"
    yield "hardware.rpc", bool(manifest.hardware.rpc), "Ray places whole models on nodes"
    yield "mcp", bool(manifest.mcp), "replicas call no tools; a server of one machine does"
    yield "search", manifest.search is not None, "replicas call no tools; a server of one machine does"
    yield "groups", bool(manifest.groups), "Ray has no groups; scale bounds the replicas of each model"
    yield "fleet", bool(manifest.fleet.hosts), "a cluster places models on its nodes"
    yield "peers", bool(manifest.peers), "let a mullama server before the cluster have it as a peer"
    yield "observability.webhooks", bool(manifest.observability.webhooks), "Ray's dashboard reports states"
    for name, model in manifest.models.items():
        keep = model.residency.keep
        exposed = any(adapter.expose for adapter in model.adapters)
        yield f"models.{name}.adapters.*.expose", exposed, "a request names adapters in its field lora"
        yield f"models.{name}.residency.keep", bool(keep.ram or keep.conversations), "replicas share no state"


def http_options(manifest: Manifest) -> dict[str, Any]:
    """Return Serve's HTTP options, which count for a Serve that starts: the first TCP address of `server.listen`."""
    addresses = map(parse_address, (*manifest.server.listen, *Server().listen))
    first = next(address for address in addresses if isinstance(address, TcpAddress))
    return {"host": first.host, "port": first.port or 8000}


def notes(given: RayInput) -> list[str]:
    """Return what a person should know about the applications."""
    found = []
    for name, model in given.manifest.models.items():
        if model.context.threads is None and not gpu_count(model):
            found.append(f"models.{name}.context.threads is not set, so Ray counts one CPU for a replica")
        if resources(given, name).memory is None:
            found.append(f"models.{name}: its header is not known here, so Ray counts no memory; mullama lock pins it")
        if model.residency.load != "at_start" and model.scale is None:
            found.append(f"models.{name}.residency.load: a replica on Ray loads its model at its start")
    return found
