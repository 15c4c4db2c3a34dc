"""Spans that wait for their export: bounded, counted, sampled as OpenTelemetry samples."""

from __future__ import annotations

import pytest

from mullama.manifest.spec import Otlp
from mullama.runtime.span_queue import BATCH, MOST, SpanQueue
from mullama.trace_context import Span


def span(number: int) -> Span:
    return Span(
        trace_id="1" * 32, span_id=f"{number:016x}", parent_id="", name="n", begin=1.0, end=2.0, attributes={}
    )  # fmt: skip


def otlp(**fields: object) -> Otlp:
    return Otlp.model_validate({"endpoint": "http://localhost:4318", **fields})


def test_the_queue_is_bounded_and_counts_what_it_drops() -> None:
    counts: dict[str, int] = {}
    queue = SpanQueue(otlp, counts)

    queue.add(*map(span, range(BATCH - 1)))
    assert not queue.full.is_set()
    queue.add(*map(span, range(BATCH - 1, MOST + 7)))
    queue.add(span(0))

    assert (len(queue), queue.full.is_set(), counts) == (MOST, True, {"dropped": 8})
    assert [one.span_id for one in queue.take()] == [f"{number:016x}" for number in range(BATCH)]
    while queue.take():
        pass
    assert not queue.full.is_set()
    queue.add(span(1))
    queue.clear()
    assert (len(queue), list(queue.take())) == (0, [])


@pytest.mark.parametrize(
    ("share", "low", "sampled"),
    [(1.0, "f" * 16, True), (0.0, "0" * 16, False), (0.5, "7" + "f" * 15, True), (0.5, "8" + "0" * 15, False)],
)
def test_the_share_is_that_of_trace_ids(share: float, low: str, sampled: bool) -> None:
    assert SpanQueue(lambda: otlp(sample=share), {}).samples("f" * 16 + low) is sampled


def test_without_the_block_or_traces_nothing_is_active() -> None:
    assert not SpanQueue(lambda: None, {}).active
    assert not SpanQueue(lambda: None, {}).samples("0" * 32)
    assert not SpanQueue(lambda: otlp(traces=False), {}).active
    assert SpanQueue(otlp, {}).active
