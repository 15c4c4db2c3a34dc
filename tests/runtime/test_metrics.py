"""What Prometheus reads, and the events that followers read."""

from __future__ import annotations

import asyncio

from mullama.controller.event_log import EventLog
from mullama.runtime.metrics import Gauge, Histogram, Metrics, render


def test_buckets_are_cumulative_and_end_with_everything() -> None:
    histogram = Histogram()
    for seconds in (0.01, 0.05, 3.0, 1000.0):
        histogram.add(seconds)

    buckets = dict(histogram.buckets())

    assert (buckets["0.05"], buckets["5.0"], buckets["+Inf"]) == (2, 3, 4)
    assert histogram.total == 1003.06


def test_every_metric_has_its_help_and_type_once_and_names_are_escaped() -> None:
    stats = Metrics()
    stats.of('we"ird\\n\n').requests["ok"] += 1
    gauges = (
        Gauge(name="g", help="G.", value=1, labels={"model": "a"}),
        Gauge(name="g", help="G.", value=2, labels={"model": "b"}),
    )

    text = render(stats, gauges)

    assert text.count("# TYPE g gauge") == 1
    helps = [line for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helps) == len(set(helps))
    assert 'mullama_requests_total{model="we\\"ird\\\\n\\n",result="ok"} 1.0' in text


def test_followers_get_every_event_after_theirs_once_and_then_the_new_ones() -> None:
    async def test() -> list[int]:
        journal = EventLog()
        for _ in range(3):
            journal.add("kind", "subject")
        seen = []
        async for event in journal.follow(1):
            seen.append(event["id"])
            if event["id"] < 6:
                journal.add("more")
            if len(seen) == 5:
                break
        return seen

    assert asyncio.run(test()) == [2, 3, 4, 5, 6]
