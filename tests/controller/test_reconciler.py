"""Runs of the reconciler, with real workers: order, refusals, restarts and stops."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mullama.runtime.base import ApplyOptions
from mullama.runtime.scheduler.state import Phase
from mullama.trace_context import TraceContext, begin
from tests.runtime.runtime_fixture import LocalServer, local_server, until

pytestmark = pytest.mark.anyio


async def test_a_protected_model_is_not_removed_and_an_empty_manifest_is_refused(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "protect": True}, "b": server.script("b")})

    protected = await server.apply({"b": server.script("b")})
    empty = await server.apply({})

    assert (protected["outcome"], empty["outcome"]) == ("refused", "refused")
    assert "protect: false" in protected["hint"]
    assert "--allow-empty" in empty["hint"]
    assert server.condition("Synced")["reason"] == "Refused"
    await server.apply({"a": {"from": server.script(), "protect": False}, "b": server.script("b")})
    gone = await server.apply({}, ApplyOptions(allow_empty=True))
    assert gone["outcome"] == "applied"
    await until(lambda: server.pool.pids() == ())


async def test_a_stale_plan_is_a_conflict(server: LocalServer) -> None:
    await server.apply({"a": server.script()})

    done = await server.apply({"a": server.script("b")}, ApplyOptions(expect="another"))

    assert done["outcome"] == "conflict"


async def test_a_restarted_server_serves_models_that_load_on_demand(tmp_path: Path) -> None:
    models = {"a": {"from": "./a.script.json", "residency": {"load": "on_demand"}}}
    async with local_server(tmp_path) as server:
        server.script()
        await server.apply(models)
    async with local_server(tmp_path) as server:
        done = await server.apply(models, ApplyOptions(trigger="start"))

        assert done["outcome"] == "applied"
        assert await server.ask("a", "say back") == "back"


async def test_weights_that_ended_the_server_three_times_wait_for_an_explicit_apply(tmp_path: Path) -> None:
    async with local_server(tmp_path) as server:
        await server.apply({"a": server.script()})
        weights = server.snapshot.deployments["a"].unit.weights
    async with local_server(tmp_path) as server:
        server.attempts.counts[weights] = 3
        refused = await server.apply({"a": server.script()}, ApplyOptions(trigger="start"))
        assert refused["outcome"] == "partly_applied"
        assert "ended 3 times" in server.status("a")["conditions"][0]["message"]

        asked = await server.apply({"a": server.script()})

        assert asked["outcome"] == "applied"
        assert await server.ask("a", "say back") == "back"


async def test_a_stop_ends_an_apply_that_loads_and_informs_its_reader(server: LocalServer) -> None:
    applying = asyncio.create_task(server.apply({"a": server.script("slow", faults=True, on_load="hang")}))
    await until(lambda: any(w.phase is Phase.OPENING for w in server.pool.state.workers.values()))

    await server.reconciler.stop()

    assert "stopping" in (await applying)["message"]
    assert server.pool.pids() == ()


async def test_the_fixture_leaves_no_worker_behind(tmp_path: Path) -> None:
    """A worker that stays would make every other test here meaningless."""
    async with local_server(tmp_path) as server:
        await server.apply({"a": server.script()})
        (pid,) = server.pool.pids()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_change_that_waits_for_another_reports_it(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    slow = {"prompt": "slow 50ms count to 20", "expect": "20"}
    first = asyncio.create_task(server.apply({"a": {"from": server.script("b"), "probe": slow}}))
    await until(lambda: server.condition("Reconciling")["status"] is True)

    lines = await server.apply_lines({"a": server.script("c")})

    assert (await first)["outcome"] == "conflict", "the newer manifest does not wait for the load of the older one"
    assert lines[0] == {"event": "phase", "phase": "wait"}
    assert lines[-1]["outcome"] == "applied"


async def test_the_event_of_an_apply_has_the_trace_of_its_request(server: LocalServer) -> None:
    trace = begin(TraceContext(trace_id="0" * 31 + "1", span_id="0" * 15 + "2", flags=1))

    await server.apply({"a": server.script()})

    trace.end()
    applied = [event for event in server.event_log.kept() if event["kind"] == "applied"]
    assert [event["traceparent"] for event in applied] == ["00-00000000000000000000000000000001-0000000000000002-01"]
