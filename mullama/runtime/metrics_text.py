"""The metrics of this server as Prometheus text. Its library takes long to import, and the first scrape does it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mullama.runtime.metrics import Gauge, Histogram, Metrics


def render(metrics: Metrics, gauges: tuple[Gauge, ...]) -> str:
    """Return the Prometheus text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics, gauges))
    return generate_latest(registry).decode()


class _Collector(Collector):
    """Converts the counters to the metric families of prometheus_client."""

    def __init__(self, metrics: Metrics, gauges: tuple[Gauge, ...]) -> None:
        self._metrics, self._values = metrics, gauges

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counters()
        yield from self._histograms()

    def _gauges(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for gauge in self._values:
            new = GaugeMetricFamily(gauge.name, gauge.help, labels=list(gauge.labels))
            families.setdefault(gauge.name, new).add_metric(list(gauge.labels.values()), gauge.value)
        yield from families.values()
        metrics = self._metrics
        yield GaugeMetricFamily(
            "mullama_config_last_reload_successful", "1 if the last reload was accepted.", metrics.last_reload_ok
        )
        yield GaugeMetricFamily(
            "mullama_config_last_reload_success_timestamp_seconds",
            "Time of the last accepted reload.",
            metrics.last_reload_at,
        )

    def _counters(self) -> Iterator[Metric]:
        metrics = self._metrics
        ended = CounterMetricFamily("mullama_requests", "Requests by result.", labels=["model", "result"])
        for name, model in metrics.models.items():
            for result, count in model.requests.items():
                ended.add_metric([name, result], count)
        yield ended
        for metric, text, pick in (
            ("mullama_prompt_tokens", "Prompt tokens of all requests.", "prompt_tokens"),
            ("mullama_prompt_tokens_cached", "Prompt tokens taken from the cache.", "cached_tokens"),
            ("mullama_tokens_generated", "Tokens generated.", "completion_tokens"),
            ("mullama_decode_seconds", "Seconds spent generating, summed over requests.", "decode_seconds"),
        ):
            family = CounterMetricFamily(metric, text, labels=["model"])
            for name, model in metrics.models.items():
                family.add_metric([name], getattr(model, pick))
            yield family
        yield CounterMetricFamily("mullama_pull_bytes", "Downloaded bytes.", metrics.pulled_bytes)
        limited = CounterMetricFamily(
            "mullama_rate_limited", "Requests that a rate limit refused, by its field.", labels=["limit"]
        )
        for limit, count in metrics.rate_limited.items():
            limited.add_metric([limit], count)
        yield limited
        reloads = CounterMetricFamily("mullama_reloads", "Reloads by result.", labels=["result"])
        for result, count in metrics.reloads.items():
            reloads.add_metric([result], count)
        yield reloads

    def _histograms(self) -> Iterator[Metric]:
        for metric, text, pick in (
            ("mullama_request_duration_seconds", "From arrival to the last byte.", "duration"),
            ("mullama_first_token_seconds", "From arrival to the first token.", "first_token"),
        ):
            family = HistogramMetricFamily(metric, text, labels=["model"])
            for name, model in self._metrics.models.items():
                histogram: Histogram = getattr(model, pick)
                family.add_metric([name], histogram.buckets(), histogram.total)
            yield family
        runs = self._metrics.reconcile_seconds
        yield HistogramMetricFamily(
            "mullama_reconcile_duration_seconds", "One run of the reconciler.", runs.buckets(), runs.total
        )
