"""Counters and histograms of this server, and their Prometheus text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, zip_longest

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mullama.chat.types import Timings, Usage
from mullama.engines.base import Embedded, Ended
from mullama.struct import Struct, field

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Histogram(Struct):
    """A histogram of seconds in fixed buckets."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.total += seconds
        place = next((i for i, bound in enumerate(_BUCKETS) if seconds <= bound), len(_BUCKETS))
        self.counts[place] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, count of values up to it) for each bucket; the last bound is infinite."""
        bounds = (*(str(bound) for bound in _BUCKETS), "+Inf")
        return list(zip(bounds, accumulate(self.counts), strict=True))


class ModelMetrics(Struct):
    """One model's counters since the server started."""

    requests: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prompt_seconds: float = 0.0
    decode_seconds: float = 0.0
    decode_steps: int = 0
    """Tokens generated, without the first of each answer, which needs no decode of its own."""
    longest: int = 0
    """Most tokens of prompt and answer of one sequence."""
    decodes: int = 0
    """Decodes of the engine, as far as requests that ended have reported them."""
    decode_requests: int = 0
    """Sum over the decodes of the requests in each."""
    drafts: int = 0
    draft_tokens: int = 0
    draft_accepted: int = 0
    draft_accepted_at: list[int] = field(default_factory=list)
    """Accepted guesses by their position."""
    duration: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)

    def add_answers(self, usage: Usage, timings: Timings, ends: Iterable[Ended]) -> None:
        """Count the answers of one request."""
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens
        self.prompt_seconds += timings.prompt
        self.decode_seconds += timings.decode
        self.decode_steps += max(0, usage.completion_tokens - timings.answers)
        self.draft_tokens += usage.draft_tokens
        self.draft_accepted += usage.draft_accepted
        for ended in ends:
            self.longest = max(self.longest, ended.prompt_tokens + ended.completion_tokens)
            self.drafts += ended.drafts
            pairs = zip_longest(self.draft_accepted_at, ended.draft_accepted_at, fillvalue=0)
            self.draft_accepted_at = [before + more for before, more in pairs]


class Metrics(Struct):
    """The counters of one server."""

    models: dict[str, ModelMetrics] = field(default_factory=dict)
    reloads: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    last_reload_ok: bool = True
    last_reload_at: float = 0.0
    reconcile_seconds: Histogram = field(default_factory=Histogram)
    pulled_bytes: int = 0
    engines: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The last reported decodes and requests of each worker, by its process id."""

    def add_decodes(self, model: str, pid: int, reports: Iterable[Ended | Embedded]) -> None:
        """Count the decodes of a worker since its last report."""
        now = max(((r.engine_decodes, r.engine_requests) for r in reports), default=(0, 0))
        before = self.engines.get(pid, (0, 0))
        if now[0] < before[0]:
            before = (0, 0)  # another worker has the process id of one that ended
        counts = self.of(model)
        counts.decodes += now[0] - before[0]
        counts.decode_requests += now[1] - before[1]
        self.engines[pid] = now

    def of(self, model: str) -> ModelMetrics:
        return self.models.setdefault(model, ModelMetrics())


class Gauge(Struct, frozen=True, kw_only=True):
    """One value that is computed at each scrape."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


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
