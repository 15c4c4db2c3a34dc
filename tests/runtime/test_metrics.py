"""The Prometheus text of the counters."""

from __future__ import annotations

from mullama.runtime.metrics import Gauge, Histogram, Metrics
from mullama.runtime.metrics_text import render


def test_buckets_are_cumulative_and_end_with_everything() -> None:
    histogram = Histogram()
    for seconds in (0.01, 0.05, 3.0, 1000.0):
        histogram.add(seconds)

    buckets = dict(histogram.buckets())

    assert (buckets["0.05"], buckets["5.0"], buckets["+Inf"]) == (2, 3, 4)
    assert histogram.total == 1003.06


def test_every_metric_has_its_help_and_type_once_and_names_are_escaped() -> None:
    metrics = Metrics()
    metrics.of('we"ird\\n\n').requests["ok"] += 1
    gauges = (
        Gauge(name="g", help="G.", value=1, labels={"model": "a"}),
        Gauge(name="g", help="G.", value=2, labels={"model": "b"}),
    )

    text = render(metrics, gauges)

    assert text.count("# TYPE g gauge") == 1
    helps = [line for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helps) == len(set(helps))
    assert 'mullama_requests_total{model="we\\"ird\\\\n\\n",result="ok"} 1.0' in text
