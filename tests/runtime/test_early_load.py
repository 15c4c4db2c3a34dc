"""Weights that a start loads before their files are verified: taken over by the unit that wants them, or ended."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from mullama.engines.base import EngineChoice
from mullama.runtime.attempts import Attempts
from mullama.runtime.base import ApplyOptions
from mullama.runtime.worker.parent import WorkerClient
from mullama.store.index import stamp
from tests.runtime.runtime_fixture import LocalServer, until

pytestmark = pytest.mark.anyio
START = ApplyOptions(trigger="start")


async def spare(server: LocalServer) -> WorkerClient:
    server.pool.spare.keep("scripted")
    assert server.pool.spare.task is not None
    return await server.pool.spare.task


def record(server: LocalServer) -> list[dict[str, int]]:
    """Return the list to which the counts of attempts are added each time that they are written."""
    written: list[dict[str, int]] = []
    server.attempts.save = lambda counts: written.append(dict(counts))
    return written


def choice(path: Path) -> EngineChoice:
    return EngineChoice(name="scripted", files=(str(path),))


async def test_a_start_loads_its_first_model_before_its_files_are_verified(server: LocalServer) -> None:
    worker, written = await spare(server), record(server)
    await server.apply({"a": server.script(), "b": server.script("b")}, START)

    unit = server.snapshot.deployments["a"].unit
    assert server.pool.worker(unit) is worker
    assert written[:3] == [{"early": 1}, {"early": 1, unit.weights: 1}, {}]
    assert await server.ask("a", "say on") == "on"
    os.kill(worker.pid, signal.SIGKILL)
    assert await server.ask("a", "say again") == "again"
    assert server.pool.crashes == 1


@pytest.mark.parametrize("model", [{"residency": {"load": "on_demand"}}, {}])
async def test_only_a_start_loads_early_and_only_what_loads_at_start(
    server: LocalServer, model: dict[str, Any]
) -> None:
    await spare(server)
    written = record(server)
    await server.apply({"a": {"from": server.script(), **model}}, START if model else ApplyOptions())
    assert not any("early" in counts for counts in written)


async def test_a_file_that_changes_after_its_early_load_began_is_loaded_again(server: LocalServer) -> None:
    worker = await spare(server)
    server.script(template="old")
    path = server.home / "a.script.json"
    server.pool.load_early(choice(path), {str(path): stamp(str(path))})
    assert server.pool._early is not None
    await server.pool._early.task

    await server.apply({"a": server.script(template="{{ messages[0].content }} and more")}, START)

    assert server.pool.worker(server.snapshot.deployments["a"].unit) is not worker
    assert not psutil.pid_exists(worker.pid)
    assert server.attempts.counts == {}


async def test_a_start_that_fails_before_its_loads_ends_the_early_one(server: LocalServer) -> None:
    worker, written = await spare(server), record(server)
    result = await server.apply({"a": {"from": server.script(), "digest": f"sha256:{0:064}"}}, START)
    assert result["outcome"] == "transfer"
    assert written == [{"early": 1}, {}]
    await until(lambda: not psutil.pid_exists(worker.pid))
    assert await worker_of(server) is not worker


async def worker_of(server: LocalServer) -> WorkerClient | None:
    await server.apply({"a": server.script()})
    return server.pool.worker(server.snapshot.deployments["a"].unit)


async def test_a_worker_that_ends_during_an_early_load_is_replaced(server: LocalServer) -> None:
    worker = await spare(server)
    path = server.home / server.script()
    server.pool.load_early(choice(path), {str(path): stamp(str(path))})
    os.kill(worker.pid, signal.SIGKILL)
    assert await worker_of(server) is not worker
    assert await server.ask("a", "say on") == "on"
    assert server.attempts.counts == {}


async def test_a_stop_ends_an_early_load(server: LocalServer) -> None:
    worker = await spare(server)
    path = server.home / server.script()
    server.pool.load_early(choice(path), {str(path): stamp(str(path))})
    server.pool.load_early(choice(path), {})  # the first one stays
    await server.reconciler.stop()
    await until(lambda: not psutil.pid_exists(worker.pid))
    assert server.pool._early is None


def test_no_load_is_early_after_one_that_ended_the_server() -> None:
    written: list[str] = []
    before = Attempts(save=lambda counts: written.append(json.dumps(counts)))
    assert before.begin_early()

    after = Attempts(counts=json.loads(written[-1]))
    assert not after.begin_early()
    after.begin("w")
    after.finish("w")
    assert after.begin_early()
