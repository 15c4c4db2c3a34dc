"""A replica of the gateway: the HTTP application of mullama, whose snapshot is the `user_config` of its deployment."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NoReturn, cast

from mullama import __version__
from mullama.controller.api_keys import resolve_access
from mullama.dialects import DIALECTS
from mullama.errors import Invalid, NotFound, Unsupported
from mullama.export.ray_serve import GATEWAYS
from mullama.manifest.spec import Gpu, Manifest, Model
from mullama.manifest.tree import manifest_to_tree, parse_resolved, revision
from mullama.plan.make import EMPTY
from mullama.plan.observed import KnownFiles
from mullama.runtime.base import Access, KeyRecord, Operator
from mullama.runtime.metrics import Metrics
from mullama.runtime.serving.build import DeploymentBuilder
from mullama.runtime.snapshot import Deployment, Snapshot
from mullama.server.app import create_app
from mullama.server.http.exchange import Receive, Scope, Send
from mullama.struct import replace
from mullama.targets.ray.rate_share import shared_rates
from mullama.targets.ray.service import GatewayService, GatewaySnapshot, Replicas
from mullama.weights import record


class Gateway:
    """An ASGI application. `configure` replaces its snapshot as one value."""

    def __init__(self, replicas: Replicas, env: Mapping[str, str]) -> None:
        self._env, self._replicas = env, replicas
        access = Access(manifest=EMPTY, keys=(), generation=0)
        nothing = Snapshot(generation=0, revision="", manifest=EMPTY, access=access)
        self._value = GatewaySnapshot(snapshot=nothing)
        self.metrics = Metrics()
        self.service = GatewayService(lambda: self._value, replicas, self.metrics)
        operator = GatewayOperator(lambda: self._value, self.metrics)
        self._app = create_app(self.service, cast(Operator, operator), DIALECTS)

    async def configure(self, config: Mapping[str, Any]) -> None:
        """Serve this snapshot. All of it is parsed before the present one is replaced; raises for a wrong one."""
        self._value = await asyncio.to_thread(snapshot_of, config, self._env)
        self.service.switched()
        await self._replicas.keep(frozenset(self._value.applications.values()))

    def check_health(self) -> None:
        """Raise nothing: a gateway that runs is healthy.

        Serve calls it each period, and replaces a replica where it raises or does not return. A lost model is no
        reason: requests for it are refused by the gateway, and another gateway would refuse them, too.
        """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._app.close(0)
                await send({"type": "lifespan.shutdown.complete"})
                return


def snapshot_of(config: Mapping[str, Any], env: Mapping[str, str]) -> GatewaySnapshot:
    """Return the snapshot of a `user_config`. Raises for one of another format, and for a wrong manifest.

    Its manifest has no stored objects and no streams that clients take up again: the gateways share no state.
    """
    if config.get("format") != "mullama.ray/1":
        raise Invalid(f"the user_config has the format {config.get('format')!r}, not mullama.ray/1")
    declared, generation = parse_resolved(config["manifest"]), int(config["generation"])
    server = declared.server
    server = server.model_copy(
        update={
            "stored": server.stored.model_copy(update={"keep": 0.0}),
            "resumable": server.resumable.model_copy(update={"keep": 0.0}),
            "ui": False,
        }
    )
    manifest = declared.model_copy(update={"server": server})
    access = _access(manifest, generation, config["keys"], env)
    builder, found = DeploymentBuilder(machine=None, prefixes=None), dict[str, Deployment]()
    for name, model in manifest.models.items():
        found[name] = _deployment(builder, name, model, config["facts"].get(model.from_), generation)
    made = builder.snapshot(manifest, found, generation, None, access)
    return GatewaySnapshot(
        snapshot=replace(made, revision=revision(declared)),
        applications=MappingProxyType(dict(config["applications"])),
        stack=config["stack"],
        limits=shared_rates(manifest, GATEWAYS),
    )


def _access(manifest: Manifest, generation: int, keys: Any, env: Mapping[str, str]) -> Access:
    if keys is None:
        return resolve_access(manifest, generation, env)
    records = tuple(
        KeyRecord(
            name=key["name"], sha256=bytes.fromhex(key["sha256"]), models=tuple(key["models"]),
            roles=tuple(key["roles"]), priority=key["priority"],
        )
        for key in keys
    )  # fmt: skip
    if manifest.auth.keys and not records:
        raise NotFound("auth.keys: the snapshot has none of the declared keys")
    return Access(manifest=manifest, keys=records, generation=generation)


def _deployment(builder: DeploymentBuilder, name: str, model: Model, known: Any, generation: int) -> Deployment:
    """Return a deployment that lists the model. Its prompts are rendered by the replicas, with the template there."""
    files = KnownFiles(source=model.from_)
    if known is not None:
        facts = record.from_json(known["facts"]) if known.get("facts") else None
        files = replace(files, digest=known.get("digest"), size=known.get("size"), facts=facts)
    plain = model.model_copy(update={"gpu": Gpu(), "adapters": (), "draft": None})
    made = builder.build(name, plain, files, generation)
    return replace(made, model=model, revision=revision(model))


class GatewayOperator:
    """The operator API of a gateway: its health, metrics and status. `mullama apply --on ray` changes it."""

    def __init__(self, current: Callable[[], GatewaySnapshot], metrics: Metrics) -> None:
        self._current, self._metrics = current, metrics
        self.started = int(time.time())

    def status(self) -> dict[str, Any]:
        current = self._current()
        snapshot = current.snapshot
        state = "ready" if snapshot.generation else "starting"
        return {
            "format": "mullama.status/1",
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.time() - self.started, 3),
            "generation": snapshot.generation,
            "revision": snapshot.revision,
            "state": state,
            "stack": current.stack,
            "conditions": [],
            "models": [
                {"name": name, "state": "ready", "application": current.applications.get(name, "")}
                for name in snapshot.deployments
            ],
            "routes": snapshot.aliases,
        }

    async def look_at_files(self) -> None:
        """Look at nothing: the files are on the nodes of the replicas."""

    def missing(self) -> tuple[str, ...]:
        return () if self._current().snapshot.generation else ("the snapshot",)

    def stack(self) -> dict[str, Any]:
        snapshot = self._current().snapshot
        return {
            "generation": snapshot.generation,
            "revision": snapshot.revision,
            "manifest": manifest_to_tree(snapshot.manifest),
            "origin": {"path": None, "profiles": []},
        }

    def metrics(self, model: str = "") -> str:
        from mullama.runtime.metrics_text import render

        return render(self._metrics, ())

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(_refuse, name)


def _refuse(name: str, *_: Any, **__: Any) -> NoReturn:
    raise Unsupported(
        f"a gateway on Ray has no {name.replace('_', ' ')}", hint="mullama diff, apply, status and logs take --on ray"
    )
