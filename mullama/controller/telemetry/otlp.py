"""Spans and metrics as requests of OTLP in protobuf; the only module that imports OpenTelemetry.

Its packages are the extra `mullama[otlp]`. Import this module in a thread, and only for a manifest that exports: it
takes half a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

import mullama
from mullama.trace_context import SAMPLED, Span

if TYPE_CHECKING:
    from mullama.runtime.metrics_text import Family

_SCOPE = InstrumentationScope("mullama", mullama.__version__)
_NANO = 10**9
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_GENAI = {
    "mullama_request_duration_seconds": "gen_ai.server.request.duration",
    "mullama_first_token_seconds": "gen_ai.server.time_to_first_token",
}
"""Histograms that are exported under the names of the GenAI conventions too."""


def spans_body(spans: Iterable[Span], resource: Mapping[str, str]) -> bytes:
    """Return the body of a request to `/v1/traces`. resource: the attributes of this server."""
    described = Resource(dict(resource))
    return bytes(encode_spans([_span(span, described) for span in spans]).SerializeToString())


def _span(span: Span, resource: Any) -> Any:
    state = TraceState([pair.split("=", 1) for pair in span.state.split(",")] if span.state else None)
    parent = _context(span.trace_id, span.parent_id, state) if span.parent_id else None
    status = Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error)
    return ReadableSpan(
        name=span.name, context=_context(span.trace_id, span.span_id, state), parent=parent, resource=resource,
        attributes=span.attributes, kind=SpanKind.SERVER if span.serves else SpanKind.INTERNAL, status=status,
        start_time=int(span.begin * _NANO), end_time=int(span.end * _NANO), instrumentation_scope=_SCOPE,
    )  # fmt: skip


def _context(trace_id: str, span_id: str, state: Any) -> Any:
    return SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(SAMPLED), state)


def metrics_body(families: Iterable[Family], resource: Mapping[str, str], started: float, now: float) -> bytes:
    """Return the body of a request to `/v1/metrics`: cumulative sums and histograms, and gauges.

    families: as `runtime.metrics_text.families` returns them. started, now: Unix seconds.
    """
    begin, end = int(started * _NANO), int(now * _NANO)
    metrics = [metric for family in families for metric in _metrics(family, begin, end)]
    scope = ScopeMetrics(_SCOPE, metrics, "")
    data = MetricsData([ResourceMetrics(Resource(dict(resource)), [scope], "")])
    request = encode_metrics(data)
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.histogram.data_points:  # the least and the greatest value are not known
            point.ClearField("min")
            point.ClearField("max")
    return bytes(request.SerializeToString())


def _metrics(family: Family, begin: int, end: int) -> list[Any]:
    """Return a family as metrics; none if it has no values."""
    if not family.samples:
        return []
    match family.type:
        case "histogram":
            points = _histogram_points(family, begin, end)
            kinds = [(family.name, points)]
            if (name := _GENAI.get(family.name)) is not None:
                kinds.append((name, [_genai(point) for point in points]))
            return [_metric(name, family, Histogram(found, _CUMULATIVE), "s") for name, found in kinds]
        case "counter":
            numbers = _numbers(family, begin, end)
            return [_metric(family.name, family, Sum(numbers, _CUMULATIVE, True))]
        case _:
            return [_metric(family.name, family, Gauge(_numbers(family, begin, end)))]


def _metric(name: str, family: Family, data: Any, unit: str = "") -> Any:
    return Metric(name, family.documentation, unit, data)


def _numbers(family: Family, begin: int, end: int) -> list[Any]:
    return [NumberDataPoint(sample.labels, begin, end, float(sample.value)) for sample in family.samples]


def _histogram_points(family: Family, begin: int, end: int) -> list[Any]:
    """Return the histograms of a family. Prometheus counts each bucket with the smaller ones, OTLP alone."""
    found: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            found.setdefault(labels, []).append((float(sample.labels["le"]), float(sample.value)))
        elif sample.name.endswith("_sum"):
            sums[labels] = float(sample.value)
    points = []
    for labels, buckets in found.items():
        bounds = [bound for bound, _ in buckets if math.isfinite(bound)]
        counts = _differences([int(count) for _, count in buckets])
        points.append(
            HistogramDataPoint(
                dict(labels), begin, end, sum(counts), sums.get(labels, 0.0), counts, bounds, math.nan, math.nan
            )
        )
    return points


def _differences(cumulative: Sequence[int]) -> list[int]:
    return [count - before for before, count in zip((0, *cumulative), cumulative, strict=False)]


def _genai(point: Any) -> Any:
    attributes = {"gen_ai.provider.name": "mullama", "gen_ai.request.model": point.attributes.get("model", "")}
    return HistogramDataPoint(
        attributes, point.start_time_unix_nano, point.time_unix_nano, point.count, point.sum, point.bucket_counts,
        point.explicit_bounds, point.min, point.max,
    )  # fmt: skip
