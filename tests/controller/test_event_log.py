"""Events for followers."""

from __future__ import annotations

import logging
from typing import get_args

import pytest

from mullama.controller.event_log import _PARTS, EventLog
from mullama.manifest.spec import Logs
from mullama.manifest.spec.observability import EventKind
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


async def test_an_event_names_the_revision_in_force_and_its_models() -> None:
    event_log = EventLog()
    before = event_log.add("worker", "abc", "starting", ("a", "b"))
    event_log.generation = 4
    after = event_log.add("listening")

    assert (before["generation"], before["models"]) == (0, ["a", "b"])
    assert (after["generation"], "models" in after) == (4, False)


def test_every_event_but_a_warning_belongs_to_a_part_of_the_log() -> None:
    assert set(get_args(EventKind)) - _PARTS.keys() == {"warning"}
    assert {"http" if part == "server" else part for part in _PARTS.values()} <= vars(Logs().parts).keys()


@pytest.mark.parametrize(
    ("kind", "logger"),
    [
        ("applied", "mullama.manifest"), ("evicted", "mullama.models"), ("worker-failed", "mullama.workers"),
        ("listening", "mullama.server"), ("webhook-failed", "mullama.telemetry"), ("warning", "mullama"),
    ],
)  # fmt: skip
async def test_an_event_is_a_line_of_its_part(kind: str, logger: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mullama"):
        EventLog().add(kind, "a")
    assert [record.name for record in caplog.records] == [logger]
