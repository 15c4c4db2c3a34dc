"""The operator's view of a running server: status, plan, apply, history and metrics."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from mullama import __version__
from mullama.chat.tool_servers import SEARCH_LABEL
from mullama.controller.conditions import Condition, Reason, condition, tools_ready
from mullama.controller.current import Current
from mullama.controller.event_log import EventLog
from mullama.controller.fleet.lease_book import LeaseBook
from mullama.controller.git.follower import GitFollower
from mullama.controller.model_page.document import ModelDocuments
from mullama.controller.reconciler import Reconciler
from mullama.controller.runs.change import Change, preview_tree
from mullama.controller.shared_memory import memory_in_use, own_memory, with_shares
from mullama.controller.status import DeclaredRevisions, failure_reason, group_states, is_old, live_models
from mullama.controller.telemetry import key_report
from mullama.controller.telemetry.live_feed import LiveFeed
from mullama.controller.telemetry.metrics_sampler import MetricsSampler
from mullama.controller.watch.editor import ManifestEditor
from mullama.engines.base import CheckpointStats
from mullama.errors import Invalid, NotFound, masked
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.names import DEFAULT_ROUTE
from mullama.plan.device_memory import budgets
from mullama.plan.make import changed_on_disk
from mullama.plan.observed import Device, LiveModel
from mullama.plan.quant_advice import Profile
from mullama.plan.steps import to_tree
from mullama.reconcile.files import Files
from mullama.runtime.base import UNDO, ApplyOptions, MetricsQuery, Origin, Reload, TextEdit
from mullama.runtime.llamacpp_metrics import LlamaCppMetrics
from mullama.runtime.metrics import Gauge, Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.pool import Pool
from mullama.runtime.rates.book import RateBook
from mullama.runtime.scheduler.events import FOREVER
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.scheduler.wants import unit_ttl
from mullama.runtime.serving.build import time_to_live
from mullama.runtime.serving.captures import CaptureLog
from mullama.runtime.serving.device_use import device_use
from mullama.runtime.serving.usage_log import UsageLog
from mullama.runtime.snapshot import Deployment
from mullama.sources.settings import requester
from mullama.store.usage import UsageQuery
from mullama.struct import replace
from mullama.units import size

if TYPE_CHECKING:
    from mullama.reconcile.hub_models import HubBrowser
    from mullama.runtime.metrics_text import Family


class LocalOperator:
    """Implements `runtime.base.Operator`. Builds the changes of requests and reads the current state as one value.

    hub: returns the way to the hub, whose libraries take long to import. reload: reads the watched file again.
    stop: begins an orderly end.
    """

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        files: Files,
        pool: Pool,
        event_log: EventLog,
        metrics: Metrics,
        rates: RateBook,
        usage: UsageLog,
        captures: CaptureLog,
        sampler: MetricsSampler,
        peers: PeerBook,
        git: GitFollower,
        editor: ManifestEditor,
        documents: ModelDocuments,
        hub: Callable[[], HubBrowser],
        reload: Callable[[str], Awaitable[Reload]],
        stop: Callable[[], None],
    ) -> None:
        self._reconciler, self._files, self._pool = reconciler, files, pool
        self._event_log, self._metrics, self._rates = event_log, metrics, rates
        self._usage, self._captures, self._git, self._editor = usage, captures, git, editor
        self._sampler, self._peers, self._documents, self._hub = sampler, peers, documents, hub
        self._status = reconciler.status
        self._reload, self._stop = reload, stop
        self._started = time.time()
        self._llamacpp = LlamaCppMetrics()
        self._declared = DeclaredRevisions()
        self._stopping = False
        self._live_feed = LiveFeed(
            event_log,
            status=self.status,
            generated=metrics.generated,
            load=lambda: (len(pool.state.running), len(pool.state.waiting)),
        )

    # Status

    def status(self) -> dict[str, Any]:
        current = self._reconciler.current
        snapshot, machine = current.snapshot, current.machine
        live = self._live(current)
        models = self._models(current, live)
        return {
            "format": "mullama.status/1",
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.time() - self._started, 3),
            "generation": snapshot.generation,
            "revision": snapshot.revision,
            "state": self._state(current, live),
            "origin": _origin(current.origin),
            "watch": _watches(current),
            "listen": list(current.listening),
            "tls": self._reconciler.certificates.tree(),
            "conditions": self._conditions(),
            "models": models,
            "memory": {**memory_in_use(models, snapshot), "places": self._places(current)},
            "routes": snapshot.aliases,
            "shares": {
                route.name: {
                    "to": [{"model": model, "weight": weight} for model, weight in route.targets],
                    "fallback": list(route.fallback),
                }
                for route in snapshot.routes.values()
                if len(route.targets) > 1 or route.fallback
            },
            "peers": self._peers.status(),
            "tools": self._reconciler.tools.status(),
            "groups": group_states(snapshot, self._pool),
            "git": self._git.tree(),
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
        found = [*self._status.conditions.tree(), *self._lost_peers(), *tools_ready(self._reconciler.tools.status())]
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

    def _live(self, current: Current) -> dict[str, LiveModel]:
        reconciler, snapshot = self._reconciler, current.snapshot
        if self._status.failures:
            ready = (d for d in snapshot.available if self._pool.phase(d.unit) is Phase.READY)
            self._status.serving([d.name for d in ready if not is_old(d, snapshot)])
        return live_models(current.snapshot, self._pool, self._status.failures, reconciler.served_files.changed)

    def _state(self, current: Current, live: Mapping[str, LiveModel]) -> str:
        """Summarise the server in one word."""
        conditions = self._status.conditions
        if self._stopping:
            return "stopping"
        if not current.started:
            return "starting"
        if conditions.status(Condition.RECONCILING):
            return "reconciling"
        unwell = any(conditions.status(kind) is False for kind in (Condition.CONFIG_VALID, Condition.SYNCED))
        failed = any(model.state in ("failed", "degraded") for model in live.values())
        return "degraded" if unwell or failed or self._pool.over_budget is not None else "ready"

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
            "pool": self._pool_use(deployment),
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

    async def model(self, name: str, *, paths: bool) -> dict[str, Any]:
        current = self._reconciler.current
        known = current.require(name)
        row = next(row for row in self._models(current, self._live(current)) if row["name"] == known)
        return await self._documents.describe(row, current, paths=paths)

    def open_file(self, digest: str) -> int:
        blobs = self._files.index.blobs
        if not blobs.has(digest):
            raise NotFound(f"the store has no file {digest}", name=digest)
        return blobs.open(digest)

    async def worker_log(self, name: str) -> dict[str, Any]:
        current = self._reconciler.current
        return await self._documents.log(current.snapshot.deployments[current.require(name)])

    def _fetched_from(self, deployment: Deployment) -> str | None:
        """Return the places that this process downloaded the weights from; None for files that it found."""
        weights, origins = deployment.files.weights, self._files.origins
        if not origins or weights is None:
            return None
        return ", ".join(dict.fromkeys(origins[f.digest] for f in weights.pinned if f.digest in origins)) or None

    def _pool_use(self, deployment: Deployment) -> dict[str, Any] | None:
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

    def _pool_gauges(self, current: Current) -> list[Gauge]:
        """Return the size and the use of each pool."""
        found = ((d.name, self._pool_use(d)) for d in current.snapshot.available)
        return [
            Gauge(name=f"mullama_pool_{key}", help=text, labels={"model": name}, value=use[key])
            for name, use in found
            if use is not None
            for key, text in _POOL.items()
        ]

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
        stats = self._checkpoint_stats(deployment)
        if stats is None:
            return None
        names = ("count", "bytes", "most_bytes", "restored")
        return {name: getattr(stats, name) for name in names}

    def _checkpoint_stats(self, deployment: Deployment) -> CheckpointStats | None:
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
            used = [server for server in self._reconciler.tools.status() if server["name"] in names]
            found += [one for one in tools_ready(used) if not one["status"]]
        if degraded is not None:
            found.append(condition(Condition.DEGRADED, True, why, live.message))
        return found

    async def look_at_files(self) -> None:
        await self._reconciler.served_files.look()

    def stack(self) -> dict[str, Any]:
        current = self._reconciler.current
        # A server that starts serves nothing yet, and plans from the last revision of the previous process.
        applied = self._reconciler.planner.applied() or current.snapshot
        return {
            "generation": applied.generation,
            "revision": applied.revision,
            "manifest": block_to_tree(applied.manifest),
            "origin": _origin(current.origin),
        }

    def captures(self) -> list[dict[str, Any]]:
        return [capture.tree(texts=False) for capture in self._captures.list()]

    def capture(self, id: int) -> dict[str, Any]:
        for capture in self._captures.list():
            if capture.id == id:
                return capture.tree(texts=True)
        raise NotFound(f"there is no capture {id}", name=str(id), hint="see observability.captures")

    def live(self) -> AsyncIterator[dict[str, Any]]:
        return self._live_feed.follow()

    def follow_captures(self, after: int) -> AsyncIterator[dict[str, Any]]:
        return self._captures.follow(after)

    def git_notice(self, body: bytes, headers: Mapping[str, str]) -> None:
        self._git.notice(body, headers)

    def metrics_history(self, query: MetricsQuery) -> dict[str, Any]:
        return self._sampler.read(query)

    async def usage(self, query: UsageQuery) -> list[dict[str, Any]]:
        return await self._usage.read(query)

    async def key_report(self) -> dict[str, Any]:
        snapshot = self._reconciler.current.snapshot
        recorded = snapshot.manifest.observability.usage.keep > 0
        since = time.time() - key_report.DAYS * 86400
        usage = await self._usage.read(UsageQuery(since=since, by=("key",))) if recorded else None
        last_used = await self._usage.last_used() if recorded else {}
        in_force = {key.name for key in snapshot.access.keys}
        return key_report.key_report(snapshot.manifest, in_force, self._rates.by_key(), usage, last_used)

    async def search_hub(self, query: str, *, limit: int, every: bool) -> list[dict[str, Any]]:
        hub, author = self._hub(), requester.get()
        return await asyncio.to_thread(hub.search, query, limit=limit, every=every, author=author)

    async def hub_advice(self, source: str, *, context: int, profile: Profile) -> dict[str, Any]:
        hub, author = self._hub(), requester.get()
        return await asyncio.to_thread(hub.advice, source, context=context, profile=profile, author=author)

    def missing(self) -> tuple[str, ...]:
        """Return the models that load at start and never served; a placeholder before the first apply."""
        current = self._reconciler.current
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

    # Changes

    async def plan(self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions) -> dict[str, Any]:
        known = origin if origin.path else self._reconciler.current.origin
        desired = await asyncio.to_thread(parse_resolved, manifest)
        change = Change(desired=desired, origin=known, options=options)
        return preview_tree(await self._reconciler.preview(change))

    async def apply(
        self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions
    ) -> AsyncGenerator[dict[str, Any], None]:
        desired = await asyncio.to_thread(parse_resolved, manifest)
        change = Change(desired=desired, origin=origin, options=options)
        async with aclosing(self._reconciler.apply(change)) as lines:
            async for line in lines:
                yield line

    async def undo(
        self, to: int | None, options: ApplyOptions, fleet: str = ""
    ) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(self._reconciler.apply(self._undo(to, options, fleet))) as lines:
            async for line in lines:
                yield line

    async def plan_undo(self, to: int | None) -> dict[str, Any]:
        return preview_tree(await self._reconciler.preview(self._undo(to, UNDO)))

    async def drift(self) -> dict[str, Any]:
        return to_tree(await self._reconciler.drift())

    async def refresh(self) -> dict[str, Any]:
        return to_tree(await self._reconciler.refresh())

    async def manifest_text(self) -> dict[str, Any]:
        return await self._editor.read()

    async def plan_text(self, text: str, profiles: tuple[str, ...] | None) -> dict[str, Any]:
        return await self._editor.plan(text, profiles)

    def save_text(self, edit: TextEdit, options: ApplyOptions) -> AsyncIterator[dict[str, Any]]:
        return self._editor.save(edit, options)

    def _undo(self, to: int | None, options: ApplyOptions, fleet: str = "") -> Change:
        desired, overlay = self._reconciler.history.restore(to)
        return Change(
            desired=desired,
            # An earlier revision is no commit: the git repository is followed further from its next one.
            origin=replace(self._reconciler.current.origin, commit="", targets=(), fleet=fleet),
            options=options,
            edit=lambda _: overlay,
        )

    async def reload(self, reason: str) -> dict[str, Any]:
        before = self._reconciler.current.snapshot.generation
        result = await self._reload(reason)
        changed = self._reconciler.current.snapshot.generation != before
        return {"changed": changed, "outcome": result.outcome, "message": result.message}

    def stop(self) -> None:
        self._stopping = True
        self._stop()

    # Records

    def history(self) -> list[dict[str, Any]]:
        return self._reconciler.history.listed()

    async def compare_revisions(self, before: int, after: int) -> dict[str, Any]:
        return await asyncio.to_thread(self._reconciler.history.compare, before, after)

    def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        return self._event_log.follow(after)

    def metrics(self, model: str = "") -> str:
        snapshot = self._reconciler.current.snapshot
        named = snapshot.find(model, "mullama").name if model else None
        names = snapshot.manifest.observability.metric_names
        from mullama.runtime.metrics_text import render

        text = render(self._metrics, tuple(self._gauges())) if "mullama" in names and named is None else ""
        if "llamacpp" in names:
            text += self._llamacpp_series(named)
        elif named is not None:
            raise Invalid(
                f"?model={model}: only llama-server's series are those of one model",
                hint="mullama's own have the label model; observability.metric_names adds llamacpp",
                field="model",
            )
        return text

    def families(self) -> Sequence[Family]:
        """Return the families of mullama's own metrics."""
        from mullama.runtime.metrics_text import families

        return families(self._metrics, tuple(self._gauges()))

    @property
    def leases(self) -> LeaseBook:
        return self._reconciler.leases

    @property
    def started(self) -> int:
        return int(self._started)

    def _llamacpp_series(self, model: str | None) -> str:
        """Return llama-server's series of one model, or of all."""
        state = self._pool.state
        counts = self._metrics.models if model is None else {model: self._metrics.of(model)}
        return self._llamacpp.render(
            counts,
            processing=len(state.running) if model is None else state.active(model),
            deferred=len(state.waiting) if model is None else state.queued(model),
        )

    def _gauges(self) -> list[Gauge]:
        current, state = self._reconciler.current, self._pool.state
        live = self._live(current)
        loaded = sum(model.state in ("ready", "degraded") for model in live.values())
        gauges = [
            Gauge(name="mullama_info", help="Version.", value=1, labels={"version": __version__}),
            Gauge(name="mullama_uptime_seconds", help="Since the start.", value=time.time() - self._started),
            Gauge(name="mullama_generation", help="Number of the applied revision.", value=current.snapshot.generation),
            Gauge(name="mullama_requests_active", help="Running requests.", value=len(state.running)),
            Gauge(name="mullama_requests_waiting", help="Queued requests.", value=len(state.waiting)),
            Gauge(name="mullama_worker_crashes", help="Worker crashes.", value=self._pool.crashes),
            Gauge(name="mullama_models_loaded", help="Models in memory.", value=loaded),
        ]
        own = own_memory({name: model.memory for name, model in live.items()}, current.snapshot)
        for name, model in live.items():
            labels, ready = {"model": name}, model.state != "failed"
            gauges += [
                Gauge(name="mullama_model_ready", help="1 if the model can serve.", labels=labels, value=ready),
                Gauge(name="mullama_model_memory_bytes", help=_MEMORY, labels=labels, value=own[name]),
                Gauge(name="mullama_model_requests_active", help=_RUNNING, labels=labels, value=state.active(name)),
                Gauge(name="mullama_model_requests_waiting", help=_QUEUED, labels=labels, value=state.queued(name)),
            ]
        for deployment in current.snapshot.deployments.values():
            if stats := self._checkpoint_stats(deployment):
                labels = {"model": deployment.name}
                gauges += [
                    Gauge(name="mullama_model_checkpoint_bytes", help=_KEPT, labels=labels, value=stats.bytes),
                    Gauge(name="mullama_model_checkpoints_used", help=_USED, labels=labels, value=stats.restored),
                ]
        others = [gauge for part in self._metrics.gauges for gauge in part()]
        gauges += [
            Gauge(
                name="mullama_tool_server_ready", help="1 if it lists its tools.", labels={"server": one["name"]},
                value=one["state"] == "ready",
            )
            for one in self._reconciler.tools.status()
        ]  # fmt: skip
        return gauges + self._pool_gauges(current) + self._device_gauges(current) + others

    def _device_gauges(self, current: Current) -> list[Gauge]:
        """Return the memory of each device, and that of each model on it; none on a machine without devices."""
        gauges = []
        for device in current.machine.gpus if current.machine else ():
            labels = {"device": device.name}
            gauges += [
                Gauge(name="mullama_device_up", help="1 if it answers.", labels=labels, value=not device.fault),
                Gauge(name="mullama_device_total_bytes", help="Memory of a device.", labels=labels, value=device.total),
            ]
        for deployment in current.snapshot.deployments.values():
            for use in device_use(deployment, self._pool):
                labels = {"model": deployment.name, "device": use["name"]}
                text = "Memory of a model on a device."
                gauges.append(Gauge(name="mullama_model_device_bytes", help=text, labels=labels, value=use["bytes"]))
        return gauges


_POOL = {
    "size": "Tokens of the pool.",
    "worst_case": "Tokens that all requests may need at once.",
    "used": "Tokens of the pool in use.",
    "set_aside": "Requests that wait for room after they began.",
    "set_asides": "Times that a request was set aside.",
    "resumes": "Times that a request was resumed.",
}
_KEPT = "Main memory of the checkpoints in the model's context."
_USED = "Prompts that continued from a checkpoint since the context was opened."
_RUNNING, _QUEUED = "Running requests of a model.", "Queued requests of a model."
_MEMORY = "Estimated memory; weights and contexts that models share count for the first of them only."


def _device(device: Device) -> dict[str, Any]:
    tree = {"name": device.name, "description": device.description, "total": device.total, "free": device.free}
    tree |= {"ids": list(device.ids)} if device.ids else {}
    return tree | ({"host": device.host, "fault": device.fault or None} if device.host else {})


def _watches(current: Current) -> bool:
    origin = current.origin
    return origin.checkout is not None or (origin.path is not None and current.snapshot.manifest.sync.watch)


def _origin(origin: Origin) -> dict[str, Any]:
    return {
        "path": origin.path,
        "profiles": list(origin.profiles),
        "digest": origin.digest,
        "commit": origin.commit or None,
        "targets": list(origin.targets),
        "fleet": origin.fleet or None,
    }
