"""Loads that hang: they end by themselves, by an unload and by the end of the wish, and no request waits for ever."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import psutil
import pytest

from mullama.chat.inventory import LoadModel
from mullama.errors import MullamaError, Unavailable
from mullama.runtime.worker.watchdog import StallLimits
from tests.runtime.runtime_fixture import CALLER, LocalServer, until

pytestmark = pytest.mark.anyio

ON_DEMAND = {"residency": {"load": "on_demand"}}


def hanging(server: LocalServer, **fields: Any) -> dict[str, Any]:
    """A model whose load waits for ever, as one from a dead device does."""
    return {"from": server.script("stuck", on_load="hang"), **ON_DEMAND, **fields}


async def loading(server: LocalServer) -> int:
    """Wait until the hanging load has begun; return its process."""
    await until(lambda: bool(server.pool.pids()))
    return server.pool.pids()[0]


async def unload(server: LocalServer, **more: Any) -> None:
    await server.service.answer(LoadModel(model="stuck", keep_alive=0.0, **more), CALLER)


async def test_a_load_without_progress_is_given_up(server: LocalServer) -> None:
    server.pool.limits = StallLimits(quiet=0.5, ping=0.05)
    await server.apply({"stuck": hanging(server)}, server={"limits": {"queue_timeout": "100ms"}})

    with pytest.raises(MullamaError, match="the worker hung: it made no progress") as caught:
        await server.ask("stuck", "hello")

    assert isinstance(caught.value, Unavailable)
    assert caught.value.retry_after == 2.0


async def test_a_stopped_load_is_given_up(server: LocalServer) -> None:
    await server.apply({"stuck": hanging(server)}, server={"limits": {"queue_timeout": "100ms"}})
    server.pool.limits = StallLimits(ping=0.05)
    asked = asyncio.create_task(server.ask("stuck", "hello"))
    pid = await loading(server)
    os.kill(pid, signal.SIGSTOP)
    load = server.pool.load(server.snapshot.deployments["stuck"].unit)
    assert load is not None
    load.worker._watchdog.limits = StallLimits(quiet=0.3, ping=0.05)

    with pytest.raises(Unavailable, match="its process is stopped"):
        await asked
    assert not psutil.pid_exists(pid)


async def test_a_request_waits_for_a_load_no_longer_than_its_limit(server: LocalServer) -> None:
    limits = {"timeout": "200ms"}
    await server.apply({"stuck": hanging(server, limits=limits)}, server={"limits": {"queue_timeout": "100ms"}})

    with pytest.raises(Unavailable, match="stuck is still loading; the request waited") as caught:
        await server.ask("stuck", "hello")

    assert caught.value.retry_after == 10.0
    assert server.pool.pids(), "the load continues: the client is told to ask again"


@pytest.mark.parametrize("forced", [False, True])
async def test_an_unload_ends_the_load_and_its_requests(forced: bool, server: LocalServer) -> None:
    await server.apply({"stuck": hanging(server)})
    asked = asyncio.create_task(server.ask("stuck", "hello"))
    pid = await loading(server)
    assert server.status("stuck")["conditions"][0]["message"] == "the weights are being loaded: 0%"

    await unload(server, forced=forced)

    with pytest.raises(Unavailable, match="stuck was unloaded"):
        await asked
    await until(lambda: not psutil.pid_exists(pid))
    assert server.status("stuck")["state"] == "idle"


async def test_a_request_that_leaves_does_not_end_the_load(server: LocalServer) -> None:
    await server.apply({"stuck": hanging(server)})
    asked = asyncio.create_task(server.ask("stuck", "hello"))
    pid = await loading(server)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert server.pool.pids() == (pid,)


async def test_a_manifest_without_the_model_ends_its_load(server: LocalServer) -> None:
    await server.apply({"stuck": hanging(server), "a": server.script()})
    asked = asyncio.create_task(server.ask("stuck", "hello"))
    await until(lambda: len(server.pool.pids()) == 2)

    await server.apply({"a": server.script()})

    with pytest.raises(Unavailable, match="stuck was removed from the manifest"):
        await asked
    await until(lambda: len(server.pool.pids()) == 1)
