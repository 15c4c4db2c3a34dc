"""Events for followers."""

from __future__ import annotations

import pytest

from mullama.controller.event_log import EventLog
from mullama.trace_context import TraceContext, begin

pytestmark = pytest.mark.anyio


async def test_a_follower_gets_each_later_event_once_and_then_new_ones() -> None:
    event_log = EventLog()
    for _ in range(3):
        event_log.add("kind", "subject")
    seen = []
    async for event in event_log.follow(1):
        seen.append(event["id"])
        if event["id"] < 6:
            event_log.add("more")
        if len(seen) == 5:
            break

    assert seen == [2, 3, 4, 5, 6]


async def test_an_event_has_the_trace_of_the_request_that_caused_it() -> None:
    event_log = EventLog()
    trace = begin(TraceContext(trace_id="0" * 31 + "1", span_id="0" * 15 + "2", flags=1, state="a=1"))
    during = event_log.add("kind")
    trace.end()
    after = event_log.add("kind")

    assert during["traceparent"] == "00-00000000000000000000000000000001-0000000000000002-01"
    assert during["tracestate"] == "a=1"
    assert "traceparent" not in after
