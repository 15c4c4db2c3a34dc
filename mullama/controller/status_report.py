"""The status of a server: its conditions, and the live state of each model in the published form."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from mullama import __version__
from mullama.chat.tool_servers import SEARCH_LABEL
from mullama.codec import to_tree
from mullama.controller.certificates import Certificates
from mullama.controller.conditions import Condition, Reason, condition, tools_ready
from mullama.controller.current import Current, CurrentState
from mullama.controller.fleet.rollout_book import RolloutBook
from mullama.controller.fleet.view import part_in_fleet
from mullama.controller.git.follower import GitFollower
from mullama.controller.runs.served_files import ServedFiles
from mullama.controller.shared_memory import memory_in_use, with_shares
from mullama.controller.status import (
    DeclaredRevisions,
    StatusTracker,
    failure_reason,
    group_states,
    is_old,
    live_models,
)
from mullama.engines.base import CheckpointStats
from mullama.errors import masked
from mullama.names import DEFAULT_ROUTE
from mullama.plan.device_memory import budgets
from mullama.plan.make import changed_on_disk
from mullama.plan.observed import Device, LiveModel
from mullama.reconcile.files import Files
from mullama.runtime.base import Origin
from mullama.runtime.metrics import Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.pool import Pool
from mullama.runtime.rates.book import RateBook
from mullama.runtime.scheduler.events import FOREVER
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.scheduler.wants import unit_ttl
from mullama.runtime.serving.build import time_to_live
from mullama.runtime.serving.device_use import device_use
from mullama.runtime.snapshot import Deployment
from mullama.runtime.tools.book import ToolBook
from mullama.units import size


class StatusReport:
    """Reads the current state, the pool and the books of a server as one value. It changes nothing that serves."""

    def __init__(
        self,
        *,
        state: CurrentState,
        status: StatusTracker,
        certificates: Certificates,
        served_files: ServedFiles,
        tools: ToolBook,
        pool: Pool,
        files: Files,
        metrics: Metrics,
        rates: RateBook,
        peers: PeerBook,
        git: GitFollower,
        rollouts: RolloutBook,
    ) -> None:
        self._state, self._status, self._certificates = state, status, certificates
        self._served_files, self._tools, self._pool, self._files = served_files, tools, pool, files
        self._metrics, self._rates, self._peers, self._git = metrics, rates, peers, git
        self._rollouts = rollouts
        self._declared = DeclaredRevisions()
        self.started = time.time()
        """Unix seconds of the start of the server."""
        self.stopping = False

    def tree(self) -> dict[str, Any]:
        """Return the status of the server in its published form."""
        current = self._state.value
        snapshot, machine = current.snapshot, current.machine
        live = self.live(current)
        models = self._models(current, live)
        return {
            "format": "mullama.status/1",
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.time() - self.started, 3),
            "generation": snapshot.generation,
            "revision": snapshot.revision,
            "state": self._summary(current, live),
            "origin": origin_tree(current.origin),
            "watch": _watches(current),
            "listen": list(current.listening),
            "tls": self._certificates.tree(),
            "conditions": self._conditions(),
            "models": models,
            "memory": {**memory_in_use(models, snapshot), "places": self._places(current)},
            "routes": snapshot.aliases,
            "shares": snapshot.shares,
            "peers": self._peers.status(),
            "tools": self._tools.status(),
            "groups": group_states(snapshot, self._pool),
            "git": self._git.tree(),
            "fleet": to_tree(part_in_fleet(current.origin.fleet, snapshot.revision, self._rollouts.record)),
            "rates": self._rates.tree(),
            "machine": {
                "ram_total": machine.ram_total if machine else 0,
                "ram_available": machine.ram_available if machine else 0,
                "gpus": [_device(device) for device in (machine.gpus if machine else ())],
                "cores": machine.cores if machine else 0,
            },
            "workers": list(self._pool.pids()),
        }

    def _places(self, current: Current) -> list[dict[str, Any]]:
        """Return the memory of the loaded models on each device against its budget; main memory first."""
        if current.machine is None:
            return []
        used, budget = self._pool.memory_on, current.snapshot.manifest.hardware.budget
        return [
            {"name": name, "used": used.get(name, 0), "budget": bound}
            for name, _, bound in budgets(current.machine, budget)
        ]

    def _conditions(self) -> list[dict[str, Any]]:
        """Return the server's conditions, with the memory as it is now."""
        found = [*self._status.conditions.tree(), *self._lost_peers(), *tools_ready(self._tools.status())]
        if (over := self._pool.over_budget) is None:
            return found
        taken, budget = (size(count, digits=2) for count in over)
        message = f"{taken} in use, hardware.budget allows {budget}"
        others = [c for c in found if c["type"] != Condition.DEGRADED or c["status"]]
        return [*others, condition(Condition.DEGRADED, True, Reason.OVER_BUDGET, message)]

    def _lost_peers(self) -> list[dict[str, Any]]:
        """Return the condition of peers that get no requests; none while all answer."""
        lost = [peer for peer in self._peers.status() if peer["state"] == "ejected"]
        message = "; ".join(f"{peer['name']}: {peer['reason']}" for peer in lost)
        return [condition(Condition.PEERS_AVAILABLE, False, Reason.PEER_EJECTED, message)] if lost else []

    def live(self, current: Current) -> dict[str, LiveModel]:
        """Return the live state of each model; a model that serves again loses the failure of its last change."""
        snapshot = current.snapshot
        if self._status.failures:
            ready = (d for d in snapshot.available if self._pool.phase(d.unit) is Phase.READY)
            self._status.serving([d.name for d in ready if not is_old(d, snapshot)])
        return live_models(current.snapshot, self._pool, self._status.failures, self._served_files.changed)

    def _summary(self, current: Current, live: Mapping[str, LiveModel]) -> str:
        """Summarise the server in one word."""
        conditions = self._status.conditions
        if self.stopping:
            return "stopping"
        if not current.started:
            return "starting"
        if conditions.status(Condition.RECONCILING):
            return "reconciling"
        unwell = any(conditions.status(kind) is False for kind in (Condition.CONFIG_VALID, Condition.SYNCED))
        failed = any(model.state in ("failed", "degraded") for model in live.values())
        return "degraded" if unwell or failed or self._pool.over_budget is not None else "ready"

    def row(self, name: str) -> dict[str, Any]:
        """Return the status of one model, by its own name."""
        current = self._state.value
        return next(row for row in self._models(current, self.live(current)) if row["name"] == name)

    def _models(self, current: Current, live: Mapping[str, LiveModel]) -> list[dict[str, Any]]:
        snapshot = current.snapshot
        return with_shares([self._model(d, live[d.name], current) for d in snapshot.deployments.values()], snapshot)

    def _model(self, deployment: Deployment, live: LiveModel, current: Current) -> dict[str, Any]:
        facts = self._pool.context_facts(deployment.unit)
        worker = self._pool.worker(deployment.unit)
        load = self._pool.load(deployment.unit)
        ttl = time_to_live(deployment.model)
        state = self._pool.state
        return {
            "name": deployment.name,
            "state": live.state,
            "revision": deployment.revision,
            "declared": self._declared.of(current.snapshot).get(deployment.name),
            "generation": deployment.generation,
            "is_default": current.snapshot.names.get(DEFAULT_ROUTE) == deployment.name,
            "beside_manifest": deployment.name in current.overlay,
            "source": masked(deployment.model.from_),
            "digest": deployment.files.digest,
            "size": deployment.files.size,
            "fetched_from": self._fetched_from(deployment),
            "memory": live.memory,
            "gpu_layers": worker.facts.gpu_layers if worker else 0,
            "devices": device_use(deployment, self._pool),
            "context_size": facts.size if facts else deployment.options.size,
            "parallel": deployment.options.parallel,
            "pool": self.pool_use(deployment),
            "prefix_tokens": facts.prefix_tokens if facts else 0,
            "draft": self._draft(deployment),
            "checkpoints": self._checkpoints(deployment),
            "active": state.active(deployment.name),
            "waiting": state.queued(deployment.name),
            "load": deployment.model.residency.load,
            "ttl": None if ttl == FOREVER else ttl,
            "expires": self.expires(deployment),
            "progress": load.share if load else None,
            "worker": worker.pid if worker else None,
            "warnings": [*worker.facts.warnings, *filter(None, [worker.remark])] if worker else [],
            "conditions": self._model_conditions(deployment, live, current),
        }

    def _fetched_from(self, deployment: Deployment) -> str | None:
        """Return the places that this process downloaded the weights from; None for files that it found."""
        weights, origins = deployment.files.weights, self._files.origins
        if not origins or weights is None:
            return None
        return ", ".join(dict.fromkeys(origins[f.digest] for f in weights.pinned if f.digest in origins)) or None

    def pool_use(self, deployment: Deployment) -> dict[str, Any] | None:
        """Return the pool of a model with its use; None for a context with room for all that its requests may need."""
        facts, worker = self._pool.context_facts(deployment.unit), self._pool.worker(deployment.unit)
        if facts is None or not facts.pool:
            return None
        found = worker.seen.pools if worker else ()
        use = next((pool for pool in found if pool.context == deployment.unit.context), None)
        return {
            "size": facts.pool,
            "worst_case": facts.size * facts.parallel,
            "used": use.used if use else 0,
            "set_aside": use.set_aside if use else 0,
            "set_asides": use.set_asides if use else 0,
            "resumes": use.resumes if use else 0,
        }

    def _draft(self, deployment: Deployment) -> dict[str, Any] | None:
        """Return the kind of guesses of a model with their numbers since the start; None for a model without."""
        draft, counts = deployment.options.draft, self._metrics.models.get(deployment.name)
        if draft is None:
            return None
        return {
            "kind": draft.kind,
            "guessed": counts.draft_tokens if counts else 0,
            "accepted": counts.draft_accepted if counts else 0,
            "accepted_at": list(counts.draft_accepted_at) if counts else [],
        }

    def _checkpoints(self, deployment: Deployment) -> dict[str, Any] | None:
        """Return the numbers of the checkpoints in a model's context; None for memory that can be cut."""
        stats = self.checkpoint_stats(deployment)
        if stats is None:
            return None
        names = ("count", "bytes", "most_bytes", "restored")
        return {name: getattr(stats, name) for name in names}

    def checkpoint_stats(self, deployment: Deployment) -> CheckpointStats | None:
        worker = self._pool.worker(deployment.unit)
        found = worker.seen.checkpoints if worker else ()
        return next((stats for stats in found if stats.context == deployment.unit.context), None)

    def expires(self, deployment: Deployment) -> float | None:
        """Return when an idle model will be unloaded (unix seconds); None for never, and when it is not loaded."""
        unit = self._pool.state.units.get(deployment.unit)
        if unit is None or unit.phase is not Phase.READY:
            return None
        ttl = unit_ttl(self._pool.state, deployment.unit)
        if ttl == FOREVER:
            return None
        return time.time() + unit.last_used + ttl - asyncio.get_running_loop().time()

    def _model_conditions(self, deployment: Deployment, live: LiveModel, current: Current) -> list[dict[str, Any]]:
        degraded = self._status.failures.get(deployment.name) if deployment.unavailable is None else None
        failure = deployment.unavailable or degraded or self._pool.failure(deployment.name)
        why = failure_reason(failure) if failure else Reason.LOAD_FAILED
        if degraded is not None and is_old(deployment, current.snapshot):
            why = Reason.OLD_KEPT
        ready, reason = {
            "ready": (True, Reason.LOADED),
            "idle": (True, Reason.ON_DEMAND),
            "degraded": (True, why),
            "loading": (False, why if deployment.unavailable else Reason.LOADING),
        }.get(live.state, (False, why))
        message = "" if ready and degraded is None else live.message
        if live.state == "loading" and not message and (load := self._pool.load(deployment.unit)):
            message = load.message
        found = [condition(Condition.READY, ready, reason, message)]
        stays = deployment.model.residency.load == "at_start" and time_to_live(deployment.model) == FOREVER
        if live.state == "idle" and stays:
            unloaded = "unloaded by a client, or to make room; mullama apply loads it"
            found.append(condition(Condition.DRIFTED, True, Reason.UNLOADED, unloaded))
        elif live.changed:
            found.append(condition(Condition.DRIFTED, True, Reason.FILES_CHANGED, changed_on_disk(live.changed)))
        names = {*deployment.model.mcp, *((SEARCH_LABEL,) if deployment.model.search else ())}
        if names:  # most models have none, and each call looks at all servers
            used = [server for server in self._tools.status() if server["name"] in names]
            found += [one for one in tools_ready(used) if not one["status"]]
        if degraded is not None:
            found.append(condition(Condition.DEGRADED, True, why, live.message))
        return found

    def missing(self) -> tuple[str, ...]:
        """Return the models that load at start and never served; a placeholder before the first apply."""
        current = self._state.value
        if not current.started:
            return ("(nothing is applied yet)",)
        return tuple(
            name
            for name, d in current.snapshot.deployments.items()
            if d.model.residency.load == "at_start" and not self._has_served(d)
        )

    def _has_served(self, deployment: Deployment) -> bool:
        """Return True for a model that is loaded, or was loaded and then unloaded: it can serve the next request."""
        unit = self._pool.state.units.get(deployment.unit)
        return unit is not None and (unit.phase is Phase.READY or (unit.last_used > 0 and unit.error is None))


def _device(device: Device) -> dict[str, Any]:
    tree = {"name": device.name, "description": device.description, "total": device.total, "free": device.free}
    tree |= {"ids": list(device.ids)} if device.ids else {}
    return tree | ({"host": device.host, "fault": device.fault or None} if device.host else {})


def _watches(current: Current) -> bool:
    origin = current.origin
    return origin.checkout is not None or (origin.path is not None and current.snapshot.manifest.sync.watch)


def origin_tree(origin: Origin) -> dict[str, Any]:
    """Return the source of a manifest in its published form."""
    return {
        "path": origin.path,
        "profiles": list(origin.profiles),
        "digest": origin.digest,
        "commit": origin.commit or None,
        "targets": list(origin.targets),
        "fleet": origin.fleet or None,
    }
