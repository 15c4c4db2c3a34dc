"""The metrics of a server in text form: counters as they are, and gauges that are read when they are asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mullama import __version__
from mullama.controller.current import Current, CurrentState
from mullama.controller.shared_memory import own_memory
from mullama.controller.status_report import StatusReport
from mullama.errors import Invalid
from mullama.runtime.llamacpp_metrics import LlamaCppMetrics
from mullama.runtime.metrics import Gauge, Metrics
from mullama.runtime.pool import Pool
from mullama.runtime.serving.device_use import device_use
from mullama.runtime.tools.book import ToolBook

if TYPE_CHECKING:
    from mullama.runtime.metrics_text import Family


class MetricsReport:
    """Joins the counters of requests with the gauges of models, pools and devices."""

    def __init__(
        self, *, state: CurrentState, report: StatusReport, pool: Pool, metrics: Metrics, tools: ToolBook
    ) -> None:
        self._state, self._report, self._pool = state, report, pool
        self._metrics, self._tools = metrics, tools
        self._llamacpp = LlamaCppMetrics()

    def text(self, model: str = "") -> str:
        """Return the metrics in Prometheus' text format. model: return llama-server's series of this one alone."""
        snapshot = self._state.value.snapshot
        named = snapshot.find(model, "mullama").name if model else None
        names = snapshot.manifest.observability.metric_names
        from mullama.runtime.metrics_text import render

        text = render(self._metrics, tuple(self.gauges())) if "mullama" in names and named is None else ""
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

        return families(self._metrics, tuple(self.gauges()))

    def _llamacpp_series(self, model: str | None) -> str:
        """Return llama-server's series of one model, or of all."""
        state = self._pool.state
        counts = self._metrics.models if model is None else {model: self._metrics.of(model)}
        return self._llamacpp.render(
            counts,
            processing=len(state.running) if model is None else state.active(model),
            deferred=len(state.waiting) if model is None else state.queued(model),
        )

    def gauges(self) -> list[Gauge]:
        """Return the gauges as they are now."""
        current, state = self._state.value, self._pool.state
        live = self._report.live(current)
        loaded = sum(model.state in ("ready", "degraded") for model in live.values())
        gauges = [
            Gauge(name="mullama_info", help="Version.", value=1, labels={"version": __version__}),
            Gauge(name="mullama_uptime_seconds", help="Since the start.", value=time.time() - self._report.started),
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
            if stats := self._report.checkpoint_stats(deployment):
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
            for one in self._tools.status()
        ]  # fmt: skip
        return gauges + self._of_pools(current) + self._of_devices(current) + others

    def _of_devices(self, current: Current) -> list[Gauge]:
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

    def _of_pools(self, current: Current) -> list[Gauge]:
        """Return the size and the use of each pool."""
        found = ((d.name, self._report.pool_use(d)) for d in current.snapshot.available)
        return [
            Gauge(name=f"mullama_pool_{key}", help=text, labels={"model": name}, value=use[key])
            for name, use in found
            if use is not None
            for key, text in _POOL.items()
        ]


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
