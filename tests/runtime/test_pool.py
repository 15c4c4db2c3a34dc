"""The pool with real workers: leases, room for two, cutting, and the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mullama.errors import Busy, MullamaError, Refused, TimedOut
from mullama.runtime.pool import Attempts
from mullama.runtime.scheduler.state import Phase
from tests.runtime.runtime_fixture import run, stand, until


def test_an_idle_model_goes_after_its_time_and_comes_back_when_asked(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "residency": {"load": "on_demand", "ttl": "100ms"}}})
            assert await s.ask("a", "say one") == "one"

            await until(lambda: s.pool.pids() == ())

            assert s.status("a")["state"] == "idle"
            assert await s.ask("a", "say two") == "two"

    run(test)


def test_a_full_queue_and_a_request_that_takes_too_long_are_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            model = {"from": s.script(), "limits": {"parallel": 1, "queue": 1, "timeout": "3s"}}
            await s.apply({"a": model})
            first = asyncio.create_task(s.ask("a", "slow 50ms count to 1000"))
            await until(lambda: s.pool.state.active("a") == 1 or first.done())
            # Only the first is to be short of time, whatever this machine does meanwhile.
            await s.apply({"a": {**model, "limits": {**model["limits"], "timeout": "1h"}}})
            second = asyncio.create_task(s.ask("a", "say second"))
            with pytest.raises(TimedOut):
                await first
            assert await second == "second"

            third = asyncio.create_task(s.ask("a", "slow 50ms count to 1000"))
            await until(lambda: s.pool.state.active("a") == 1)
            fourth = asyncio.create_task(s.ask("a", "say fourth"))
            await until(lambda: s.pool.state.queued("a") == 1)
            with pytest.raises(Busy):
                await s.ask("a", "say fifth")
            third.cancel()
            assert await fourth == "fourth"

    run(test)


def test_a_client_that_leaves_gives_its_place_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "limits": {"parallel": 1}}})
            first = asyncio.create_task(s.ask("a", "slow 50ms count to 1000"))
            await until(lambda: s.pool.state.active("a") == 1)
            waiting = asyncio.create_task(s.ask("a", "say never"))
            await until(lambda: s.pool.state.queued("a") == 1)

            waiting.cancel()
            first.cancel()
            await asyncio.gather(waiting, first, return_exceptions=True)

            assert await s.ask("a", "say free") == "free"
            assert s.pool.state.running == {}
            assert s.pool.state.waiting == []

    run(test)


def test_a_model_without_room_is_served_once_there_is(tmp_path: Path) -> None:
    """Being refused for memory is no failure of the model: it must not outlast the lack."""

    async def test() -> None:
        async with stand(tmp_path) as s:
            on_demand = {"residency": {"load": "on_demand"}}
            await s.apply({"a": s.script("a"), "b": {"from": s.script("b"), **on_demand}})
            unit = s.reconciler.snapshot.deployments["b"].unit
            s.pool.state.units[unit].error = Refused("not enough memory")
            s.pool.state.units[unit].crowded = True

            assert await s.ask("b", "say room") == "room"
            assert s.pool.phase(unit) is Phase.READY

    run(test)


def test_a_request_that_ended_two_workers_is_refused_and_others_are_not(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script()})

            for _ in range(2):
                with pytest.raises(MullamaError, match="exit code 1"):
                    await s.ask("a", "crash exit")

            with pytest.raises(MullamaError, match="crashed the engine twice"):
                await s.ask("a", "crash exit")
            assert await s.ask("a", "say well") == "well"

    run(test)


def test_stopping_lets_what_runs_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script()})
            with s.still("a"):
                running = asyncio.create_task(s.ask("a", "slow 10ms count to 30"))
                await until(lambda: s.pool.state.active("a") == 1)

            await s.reconciler.stop()

            assert (await running).strip().endswith("30")
            assert s.pool.pids() == ()

    run(test)


def test_attempts_are_written_before_they_are_made_and_struck_when_they_end() -> None:
    written: list[dict[str, int]] = []
    attempts = Attempts(save=lambda counts: written.append(dict(counts)))

    attempts.begin("w")
    attempts.finish("w")
    for _ in range(Attempts.LIMIT):
        attempts.begin("w")

    assert written[:2] == [{"w": 1}, {}]
    with pytest.raises(Refused, match="ended 3 times"):
        attempts.begin("w")
    attempts.forgive()
    attempts.begin("w")
