"""The pool with real workers: leases, queues, memory and stops."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Mapping

import psutil
import pytest

from mullama.errors import Busy, MullamaError, Refused, TimedOut
from mullama.runtime.attempts import Attempts
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.worker.parent import WorkerClient
from mullama.runtime.worker.spare import worker_of
from mullama.runtime.worker.spawn import spawn_worker
from tests.runtime.runtime_fixture import LocalServer, until

pytestmark = pytest.mark.anyio


async def test_an_idle_model_unloads_after_its_ttl_and_loads_with_a_request(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand", "ttl": "100ms"}}})
    assert await server.ask("a", "say one") == "one"

    await until(lambda: server.pool.pids() == ())

    assert server.status("a")["state"] == "idle"
    assert await server.ask("a", "say two") == "two"


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_the_log_of_the_engine_is_in_the_part_workers_at_debug(
    level: str, server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(level.upper(), logger="mullama.workers"):
        await server.apply({"a": server.script()})
    (pid,) = server.pool.pids()
    lines = [record.getMessage() for record in caplog.records if record.name == "mullama.workers"]
    assert (f"worker {pid}: the script a is read" in lines) is (level == "debug")


async def test_a_full_queue_and_a_request_over_its_time_are_refused(server: LocalServer) -> None:
    model = {"from": server.script(), "limits": {"parallel": 1, "queue": 1, "timeout": "3s"}}
    await server.apply({"a": model})
    first = asyncio.create_task(server.ask("a", "slow 50ms count to 1000"))
    await until(lambda: server.pool.state.active("a") == 1 or first.done())
    # Only the first request has the short limit, however slow this machine is.
    await server.apply({"a": {**model, "limits": {**model["limits"], "timeout": "1h"}}})
    second = asyncio.create_task(server.ask("a", "say second"))
    with pytest.raises(TimedOut):
        await first
    assert await second == "second"

    third = asyncio.create_task(server.ask("a", "slow 50ms count to 1000"))
    await until(lambda: server.pool.state.active("a") == 1)
    fourth = asyncio.create_task(server.ask("a", "say fourth"))
    await until(lambda: server.pool.state.queued("a") == 1)
    with pytest.raises(Busy):
        await server.ask("a", "say fifth")
    third.cancel()
    assert await fourth == "fourth"


async def test_a_client_that_leaves_gives_its_place_back(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "limits": {"parallel": 1}}})
    first = asyncio.create_task(server.ask("a", "slow 50ms count to 1000"))
    await until(lambda: server.pool.state.active("a") == 1)
    waiting = asyncio.create_task(server.ask("a", "say never"))
    await until(lambda: server.pool.state.queued("a") == 1)

    waiting.cancel()
    first.cancel()
    await asyncio.gather(waiting, first, return_exceptions=True)

    assert await server.ask("a", "say free") == "free"
    assert server.pool.state.running == {}
    assert not server.pool.state.waiting


async def test_a_model_without_room_is_served_once_there_is(server: LocalServer) -> None:
    """A refusal for memory is no failure of the model: it ends when memory is free."""
    on_demand = {"residency": {"load": "on_demand"}}
    await server.apply({"a": server.script("a"), "b": {"from": server.script("b"), **on_demand}})
    unit = server.snapshot.deployments["b"].unit
    server.pool.state.units[unit].error = Refused("not enough memory")
    server.pool.state.units[unit].no_room = True

    assert await server.ask("b", "say room") == "room"
    assert server.pool.phase(unit) is Phase.READY


async def test_a_stop_waits_for_running_requests(server: LocalServer) -> None:
    await server.apply({"a": server.script()})
    with server.suspended("a"):
        running = asyncio.create_task(server.ask("a", "slow 10ms count to 30"))
        await until(lambda: server.pool.state.active("a") == 1)

    await server.reconciler.stop()

    assert (await running).strip().endswith("30")
    assert server.pool.pids() == ()


def test_attempts_are_written_before_they_are_made_and_removed_when_they_end() -> None:
    written: list[dict[str, int]] = []
    attempts = Attempts(save=lambda counts: written.append(dict(counts)))

    attempts.begin("w")
    attempts.finish("w")
    for _ in range(Attempts.LIMIT):
        attempts.begin("w")

    assert written[:2] == [{"w": 1}, {}]
    with pytest.raises(Refused, match="ended 3 times"):
        attempts.begin("w")
    attempts.clear()
    attempts.begin("w")


async def test_old_contexts_are_removed(server: LocalServer) -> None:
    source = server.script()
    for number in range(12):
        await server.apply({"a": {"from": source, "context": {"size": 512 + number}}})

    await until(lambda: len(server.pool.state.units) == 1)
    assert len(server.pool._units) <= 2


async def test_a_load_without_descriptors_is_no_crash_and_succeeds_when_they_are_back(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})
    weights = server.snapshot.deployments["a"].unit.weights

    def exhausted() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("mullama.runtime.worker.parent.socket.socketpair", exhausted)
        asked = asyncio.create_task(server.ask("a", "say on"))
        await until(lambda: bool(server.pool.state.workers[weights].failures))
    assert await asked == "on"
    assert len(server.pool.state.workers[weights].excused) == 1


async def test_the_first_load_takes_the_spare_worker_and_the_next_starts_its_own(server: LocalServer) -> None:
    server.pool.spare.keep("scripted")
    server.pool.spare.keep("scripted")
    assert server.pool.spare.task is not None
    spare = await server.pool.spare.task
    assert server.pool.pids() == (), "it is no model's worker"

    await server.apply({"a": server.script(), "b": server.script("b")})
    workers = [server.pool.worker(server.snapshot.deployments[name].unit) for name in ("a", "b")]
    assert [worker is spare for worker in workers] == [True, False]
    os.kill(spare.pid, signal.SIGKILL)
    assert await server.ask("a", "say on") == "on"
    assert server.pool.crashes == 1


async def test_a_pool_takes_a_spawned_worker_and_starts_the_next_spare_after_a_load(server: LocalServer) -> None:
    spawned = spawn_worker("scripted")
    server.pool.spare.keep("scripted", spawned, pause=0)
    await server.apply({"a": server.script()})
    worker = server.pool.worker(server.snapshot.deployments["a"].unit)
    assert worker is not None
    assert worker.pid == spawned.process.pid

    await until(lambda: server.pool.spare.task is not None)
    assert server.pool.spare.task is not None
    spare = await server.pool.spare.task
    await server.apply({"a": server.script(), "b": server.script("b")})
    assert server.pool.worker(server.snapshot.deployments["b"].unit) is spare
    await server.pool.abort()
    assert server.pool.spare.task is None
    assert not psutil.pid_exists(spare.pid)


async def test_a_spare_worker_that_ended_is_replaced_and_one_without_a_use_ends_with_the_pool(
    server: LocalServer,
) -> None:
    server.pool.spare.keep("scripted")
    assert server.pool.spare.task is not None
    spare = await server.pool.spare.task
    os.kill(spare.pid, signal.SIGKILL)
    await until(lambda: spare._death is not None)
    await server.apply({"a": server.script()})
    assert await server.ask("a", "say on") == "on"
    assert server.pool.crashes == 0

    server.pool.spare.keep("scripted")
    unused = await server.pool.spare.task
    await server.pool.abort()
    assert not psutil.pid_exists(unused.pid)


async def test_a_spare_worker_that_is_cancelled_before_its_first_step_ends(server: LocalServer) -> None:
    spawned, second = spawn_worker("scripted"), spawn_worker("scripted")
    server.pool.spare.keep("scripted", spawned)
    server.pool.spare.keep("scripted", second)  # there is one
    assert second.process.poll() is not None
    await server.pool.abort()
    assert spawned.process.poll() is not None


@pytest.mark.parametrize("kind", ["spare", "early"])
async def test_a_worker_that_is_ready_in_the_moment_of_a_cancellation_ends(kind: str, server: LocalServer) -> None:
    server.pool.spare.keep("scripted")
    assert server.pool.spare.task is not None
    worker, gate = await server.pool.spare.task, asyncio.Event()

    async def ready() -> WorkerClient:
        await gate.wait()
        return worker

    made = asyncio.create_task(ready())
    taking = asyncio.create_task(worker_of(made) if kind == "early" else take_spare(server, made))
    made.add_done_callback(lambda _: taking.cancel())  # before the task that waits for it runs
    await asyncio.sleep(0)  # both begin, and wait
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert not psutil.pid_exists(worker.pid)


async def take_spare(server: LocalServer, spare: asyncio.Task[WorkerClient]) -> WorkerClient | None:
    server.pool.spare.task = spare
    return await server.pool.spare.take(lambda death: None)


async def test_a_start_that_is_cancelled_after_its_load_ends_the_worker(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []

    async def look(stamps: Mapping[str, str]) -> tuple[str, ...]:
        if server.pool.pids():
            loaded.extend(server.pool.pids())
            for start in server.pool._starts.values():
                start.cancel()
            await asyncio.sleep(0)
        return ()

    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})
    with monkeypatch.context() as patch:
        patch.setattr("mullama.runtime.pool._changed", look)
        asked = asyncio.create_task(server.ask("a", "say on"))
        await until(lambda: bool(loaded))
        await until(lambda: not psutil.pid_exists(loaded[0]))
    await server.pool.stop()
    await asyncio.gather(asked, return_exceptions=True)


async def test_a_stop_in_the_moment_of_a_start_ends(server: LocalServer) -> None:
    """The start is cancelled before its first step."""
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})

    async def use() -> None:
        async with server.pool.lease("a", 0):
            pass

    async with asyncio.timeout(60):
        asked, stopped = await asyncio.gather(use(), server.pool.stop(), return_exceptions=True)

    assert isinstance(asked, MullamaError)
    assert stopped is None
