"""The operator's view of a running server: status, plan, apply, history, metrics, built from immutable values."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from mullama import __version__
from mullama.controller.conditions import Condition, Reason, condition
from mullama.controller.reconciler import Reconciler
from mullama.controller.status import why_failed
from mullama.manifest.tree import block_to_tree, revision
from mullama.plan.observed import LiveModel
from mullama.runtime.base import ApplyOptions, Origin
from mullama.runtime.deployment import Deployment
from mullama.runtime.metrics import Gauge, render
from mullama.runtime.pool import Pool
from mullama.runtime.scheduler.events import FOREVER
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.serving.build import time_to_live


class LocalOperator:
    """Implements `runtime.base.Operator`."""

    def __init__(
        self,
        reconciler: Reconciler,
        pool: Pool,
        reload: Callable[[str], Any],
        stop: Callable[[], None],
    ) -> None:
        self._reconciler, self._pool = reconciler, pool
        self._reload, self._stop = reload, stop
        self._started = time.time()
        self._stopping = False

    def status(self) -> dict[str, Any]:
        snapshot, origin = self._reconciler.snapshot, self._reconciler.origin
        machine, live = self._reconciler.machine, self._reconciler.live()
        return {
            "format": "mullama.status/1",
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.time() - self._started, 3),
            "generation": snapshot.generation,
            "revision": snapshot.revision,
            "state": self._state(),
            "origin": {"path": origin.path, "profiles": list(origin.profiles), "digest": origin.digest},
            "listen": list(self._reconciler.listening),
            "conditions": self._reconciler.standing.conditions.tree(),
            "models": [self._model(d, live[d.name]) for d in snapshot.deployments.values()],
            "routes": {name: target for name, target in snapshot.names.items() if name != target.casefold()},
            "machine": {
                "ram_total": machine.ram_total if machine else 0,
                "ram_available": machine.ram_available if machine else 0,
                "gpus": [{"name": n, "total": t, "free": f} for n, t, f in (machine.gpus if machine else ())],
                "cores": machine.cores if machine else 0,
            },
            "workers": list(self._pool.pids()),
        }

    def _state(self) -> str:
        """One word for the whole."""
        conditions = self._reconciler.standing.conditions.items
        if self._stopping:
            return "stopping"
        if self._reconciler.snapshot.generation == 0:
            return "starting"
        if conditions.get(Condition.RECONCILING, {}).get("status"):
            return "reconciling"
        unwell = any(
            conditions.get(kind, {}).get("status") is False for kind in (Condition.CONFIG_VALID, Condition.SYNCED)
        )
        failed = any(live.state in ("failed", "degraded") for live in self._reconciler.live().values())
        return "degraded" if unwell or failed else "ready"

    def _model(self, deployment: Deployment, live: LiveModel) -> dict[str, Any]:
        facts = self._pool.context_facts(deployment.unit)
        worker = self._pool.worker(deployment.unit)
        ttl = time_to_live(deployment.model)
        state = self._pool.state
        return {
            "name": deployment.name,
            "state": live.state,
            "revision": deployment.revision,
            "generation": deployment.generation,
            "is_default": self._reconciler.snapshot.names.get("default") == deployment.name,
            "source": deployment.model.from_,
            "digest": deployment.files.digest,
            "size": deployment.files.size,
            "memory": live.memory,
            "gpu_layers": worker.facts.gpu_layers if worker else 0,
            "context_size": facts.size if facts else deployment.options.size,
            "parallel": deployment.options.parallel,
            "prefix_tokens": facts.prefix_tokens if facts else 0,
            "active": state.active(deployment.name),
            "waiting": state.queued(deployment.name),
            "load": deployment.model.residency.load,
            "ttl": None if ttl == FOREVER else ttl,
            "expires": self.expires(deployment),
            "progress": self._pool.loading.get(deployment.unit.weights),
            "worker": worker.pid if worker else None,
            "warnings": list(worker.facts.warnings) if worker else [],
            "conditions": self._model_conditions(deployment, live.state, live.message),
        }

    def expires(self, deployment: Deployment) -> float | None:
        """When an idle model will be unloaded (unix seconds), None for never or when it is not loaded."""
        unit = self._pool.state.units.get(deployment.unit)
        if unit is None or unit.phase is not Phase.READY:
            return None
        ttl = unit.keep if unit.keep is not None else time_to_live(deployment.model)
        if ttl == FOREVER:
            return None
        return time.time() + unit.last_used + ttl - asyncio.get_running_loop().time()

    def _model_conditions(self, deployment: Deployment, state: str, message: str) -> list[dict[str, Any]]:
        degraded = self._reconciler.standing.failures.get(deployment.name)
        failure = degraded or self._pool.failure(deployment.name)
        why = why_failed(failure) if failure else Reason.LOAD_FAILED
        if degraded is not None and self._is_old(deployment):
            why = Reason.OLD_KEPT
        ready, reason = {
            "ready": (True, Reason.LOADED),
            "idle": (True, Reason.ON_DEMAND),
            "degraded": (True, why),
            "loading": (False, Reason.LOADING),
        }.get(state, (False, why))
        found = [condition(Condition.READY, ready, reason, "" if ready and degraded is None else message)]
        stays = deployment.model.residency.load == "at_start" and time_to_live(deployment.model) == FOREVER
        if state == "idle" and stays:
            away = "let go by a client, or to make room; mullama apply loads it"
            found.append(condition(Condition.DRIFTED, True, Reason.UNLOADED, away))
        if degraded is not None:
            found.append(condition(Condition.DEGRADED, True, why, message))
        return found

    def _is_old(self, deployment: Deployment) -> bool:
        """Whether the model serves what was applied before, because its new revision failed."""
        desired = self._reconciler.snapshot.manifest.models.get(deployment.name)
        return desired is None or revision(desired) != deployment.revision

    def stack(self) -> dict[str, Any]:
        snapshot, origin = self._reconciler.snapshot, self._reconciler.origin
        return {
            "generation": snapshot.generation,
            "revision": snapshot.revision,
            "manifest": block_to_tree(snapshot.manifest),
            "origin": {"path": origin.path, "profiles": list(origin.profiles), "digest": origin.digest},
        }

    def missing(self) -> tuple[str, ...]:
        """A server that never applied anything is not ready either."""
        snapshot = self._reconciler.snapshot
        if snapshot.generation == 0:
            return ("(nothing is applied yet)",)
        return tuple(
            name
            for name, d in snapshot.deployments.items()
            if d.model.residency.load == "at_start" and not self._has_served(d)
        )

    def _has_served(self, deployment: Deployment) -> bool:
        """Loaded now, or loaded before and let go since: both can serve the next request."""
        unit = self._pool.state.units.get(deployment.unit)
        return unit is not None and (unit.phase is Phase.READY or (unit.last_used > 0 and unit.error is None))

    async def plan(self, manifest: Mapping[str, Any], options: ApplyOptions) -> dict[str, Any]:
        return await self._reconciler.plan(manifest, options)

    def apply(
        self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions
    ) -> AsyncIterator[dict[str, Any]]:
        return self._reconciler.apply(manifest, origin, options)

    async def reload(self, reason: str) -> dict[str, Any]:
        before = self._reconciler.snapshot.generation
        message = await self._reload(reason)
        return {"changed": self._reconciler.snapshot.generation != before, "message": message}

    def history(self) -> list[dict[str, Any]]:
        return self._reconciler.history()

    def undo(self, to: int | None) -> AsyncIterator[dict[str, Any]]:
        return self._reconciler.undo(to)

    def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        return self._reconciler.journal.follow(after)

    def metrics(self) -> str:
        return render(self._reconciler.stats, tuple(self._gauges()))

    def _gauges(self) -> list[Gauge]:
        snapshot, state = self._reconciler.snapshot, self._pool.state
        gauges = [
            Gauge(name="mullama_info", help="Version.", value=1, labels={"version": __version__}),
            Gauge(name="mullama_uptime_seconds", help="Since the start.", value=time.time() - self._started),
            Gauge(name="mullama_generation", help="Number of the applied revision.", value=snapshot.generation),
            Gauge(name="mullama_requests_active", help="Running requests.", value=len(state.running)),
            Gauge(name="mullama_requests_waiting", help="Queued requests.", value=len(state.waiting)),
            Gauge(name="mullama_worker_crashes", help="Workers that died.", value=self._pool.crashes),
        ]
        live = self._reconciler.live()
        loaded = sum(model.state in ("ready", "degraded") for model in live.values())
        gauges.append(Gauge(name="mullama_models_loaded", help="Models in memory.", value=loaded))
        for name, model in live.items():
            labels = {"model": name}
            gauges.append(
                Gauge(name="mullama_model_ready", help="1 when it can serve.", labels=labels,
                      value=model.state != "failed")
            )  # fmt: skip
            gauges.append(
                Gauge(name="mullama_model_memory_bytes", help="Estimated memory.", labels=labels, value=model.memory)
            )
        return gauges

    def stop(self) -> None:
        self._stopping = True
        self._stop()
