"""The sampler over a real pool with a scripted engine."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

import pytest

from mullama.chat.types import TextDelta
from mullama.controller.telemetry.metrics_ring import INTERVAL
from mullama.controller.telemetry.metrics_sampler import until_next
from mullama.runtime.base import MetricsQuery
from tests.runtime.runtime_fixture import LocalServer

pytestmark = pytest.mark.anyio


def history(server: LocalServer, model: str | None = None) -> dict[str, Any]:
    """Take a sample one interval later, and return the whole values with the marks."""
    server.now += INTERVAL
    server.sampler.take()
    return server.operator.metrics_history(MetricsQuery(since=time.time() - 600, model=model))


async def test_a_request_a_cancelled_one_and_a_reload_are_in_the_history(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    await server.ask("a", "say hello")
    async with aclosing(server.events("a", "slow 20ms count to 500")) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    tree = history(server)
    whole = tree["whole"]["models"]["a"]
    assert (whole["ok"], whole["cancelled"], whole["errors"]) == (1, 1, 0)
    for name in ("generated_tokens", "prompt_tokens", "first_token_p50", "wait_p95", "memory"):
        assert whole[name] > 0, name
    [mark] = tree["marks"]
    assert (mark["kind"], mark["generation"]) == ("applied", 1)
    await server.apply({"b": server.script("b")})
    after = history(server)
    assert [one["generation"] for one in after["marks"]] == [1, 2]
    assert after["whole"]["models"]["a"]["ok"] == 1  # it survives the reload that removed it


@pytest.mark.parametrize("now", [0.0, 2.4, 2.49, 2.5, 2.51, 3.0, 7.4999, 12345.678])
def test_the_next_sample_is_in_the_middle_of_an_interval(now: float) -> None:
    wait = until_next(now)
    assert INTERVAL / 10 < wait <= INTERVAL * 1.1
    assert (now + wait) % INTERVAL == pytest.approx(INTERVAL / 2)
