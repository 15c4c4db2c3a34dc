"""Counters and histograms of this server, and their Prometheus text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass(slots=True)
class Histogram:
    """Seconds, in fixed buckets."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.total += seconds
        place = next((i for i, bound in enumerate(_BUCKETS) if seconds <= bound), len(_BUCKETS))
        self.counts[place] += 1

    def lines(self, name: str, labels: str) -> Iterator[str]:
        so_far = 0
        for bound, count in zip((*_BUCKETS, "+Inf"), self.counts, strict=True):
            so_far += count
            yield f'{name}_bucket{{{labels}le="{bound}"}} {so_far}'
        inner = labels.rstrip(",")
        yield f"{name}_sum{{{inner}}} {self.total:.6f}"
        yield f"{name}_count{{{inner}}} {so_far}"


@dataclass(slots=True)
class ModelStats:
    """One model's counters since the server started."""

    requests: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    decode_seconds: float = 0.0
    duration: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Stats:
    """All models, and the reloads."""

    models: dict[str, ModelStats] = field(default_factory=dict)
    reloads: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    last_reload_ok: bool = True
    last_reload_at: float = 0.0
    reconcile_seconds: Histogram = field(default_factory=Histogram)
    pulled_bytes: int = 0

    def of(self, model: str) -> ModelStats:
        return self.models.setdefault(model, ModelStats())


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One value shown beside the counters."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def render(stats: Stats, gauges: tuple[Gauge, ...]) -> str:
    """Prometheus text format 0.0.4; label values are escaped."""
    lines = [*_gauges(gauges), *_counters(stats), *_histograms(stats), *_reloads(stats)]
    return "\n".join(lines) + "\n"


def _gauges(gauges: tuple[Gauge, ...]) -> Iterator[str]:
    seen: set[str] = set()
    for gauge in sorted(gauges, key=lambda g: g.name):
        if gauge.name not in seen:
            seen.add(gauge.name)
            yield f"# HELP {gauge.name} {gauge.help}"
            yield f"# TYPE {gauge.name} gauge"
        yield f"{gauge.name}{_labels(gauge.labels)} {gauge.value:g}"


def _counters(stats: Stats) -> Iterator[str]:
    yield from _head("mullama_requests_total", "Requests that ended, by how.", "counter")
    for name, model in stats.models.items():
        for result, count in model.requests.items():
            yield f"mullama_requests_total{_labels({'model': name, 'result': result})} {count}"
    for metric, text, pick in (
        ("mullama_prompt_tokens_total", "Prompt tokens of all requests.", "prompt_tokens"),
        ("mullama_prompt_tokens_cached_total", "Prompt tokens that were not computed again.", "cached_tokens"),
        ("mullama_tokens_generated_total", "Tokens generated.", "completion_tokens"),
        ("mullama_decode_seconds_total", "Seconds spent generating, summed over requests.", "decode_seconds"),
    ):
        yield from _head(metric, text, "counter")
        for name, model in stats.models.items():
            yield f"{metric}{_labels({'model': name})} {getattr(model, pick):g}"
    yield from _head("mullama_pull_bytes_total", "Bytes fetched.", "counter")
    yield f"mullama_pull_bytes_total {stats.pulled_bytes}"


def _histograms(stats: Stats) -> Iterator[str]:
    for metric, text, pick in (
        ("mullama_request_duration_seconds", "From arrival to the last byte.", "duration"),
        ("mullama_first_token_seconds", "From arrival to the first token.", "first_token"),
    ):
        yield from _head(metric, text, "histogram")
        for name, model in stats.models.items():
            label = _labels({"model": name})[1:-1] + ","
            yield from getattr(model, pick).lines(metric, label)
    yield from _head("mullama_reconcile_duration_seconds", "One run of the reconciler.", "histogram")
    yield from stats.reconcile_seconds.lines("mullama_reconcile_duration_seconds", "")


def _reloads(stats: Stats) -> Iterator[str]:
    yield from _head("mullama_reloads_total", "Reloads by result.", "counter")
    for result, count in stats.reloads.items():
        yield f"mullama_reloads_total{_labels({'result': result})} {count}"
    yield from _head("mullama_config_last_reload_successful", "Whether the last reload was accepted.", "gauge")
    yield f"mullama_config_last_reload_successful {int(stats.last_reload_ok)}"
    yield from _head("mullama_config_last_reload_success_timestamp_seconds", "When one was accepted last.", "gauge")
    yield f"mullama_config_last_reload_success_timestamp_seconds {stats.last_reload_at:.3f}"


def _head(name: str, text: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    body = ",".join(f'{key}="{_escape(value)}"' for key, value in labels.items())
    return f"{{{body}}}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
