"""Events for followers."""

from __future__ import annotations

import pytest

from mullama.controller.event_log import EventLog

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
