"""Long runs under load: no request is lost, no memory or descriptor leaks, no process is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.stack import COMMAND, Stack, eventually, stack_in
from tests.e2e.stream_load import Load, reload

pytestmark = pytest.mark.soak


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with stack_in(tmp_path, forks=False) as found:
        rules = [{"when": "go", "say": "A" * 60}]
        (tmp_path / "demo.script.json").write_text(json.dumps({"rules": rules}))
        found.write({"demo": {"from": "./demo.script.json", "limits": {"queue": 1000, "parallel": 64}}})
        yield found


def resources(process: psutil.Process) -> tuple[int, int, int]:
    """Return (memory in bytes, open descriptors, children)."""
    return process.memory_info().rss, process.num_fds(), len(process.children(recursive=True))


def test_a_thousand_reloads_under_load_lose_nothing_and_grow_nothing(stack: Stack) -> None:
    stack.serve()
    url = stack.ready()
    server = psutil.Process(stack.record["pid"])
    load = Load(url, "demo", 2)
    model: dict[str, Any] = {"from": "./demo.script.json", "limits": {"queue": 1000, "parallel": 64}}
    before = (0, 0, 0)
    for number in range(1000):
        model = {**model, "system": f"Edit {number}."} if number % 5 else {**model, "context": {"size": 1024 + number}}
        stack.write({"demo": model})
        reload(url)
        if number == 200:
            before = resources(server)
    load.stop()
    eventually(lambda: len(stack.status()["workers"]) == 1, stack.log)
    after = resources(server)

    assert load.failures == []
    assert after[0] - before[0] < 32 * 1024**2, (before, after)
    assert after[1] - before[1] <= 8, (before, after)
    assert after[2] == 1


def test_a_hundred_killed_workers_under_load_are_replaced(stack: Stack) -> None:
    """Requests may fail with an error of their dialect; the server stays, and no process is left."""
    stack.serve()
    url = stack.ready()
    server = psutil.Process(stack.record["pid"])
    load = Load(url, "demo", 2)
    for _ in range(100):
        eventually(lambda: bool(server.children()), stack.log)
        for child in server.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        # A model whose worker crashed often is restarted only on request.
        httpx.post(f"{url}/api/generate", json={"model": "demo"}, timeout=60)
    load.stop()

    assert {f.split(":")[0] for f in load.failures} <= {"RuntimeError"}, load.failures[:3]
    assert server.is_running()
    assert server.num_fds() < 100
    stack.apply()
    assert len(server.children(recursive=True)) == 1


def test_two_hundred_loads_and_unloads_leave_nothing(stack: Stack) -> None:
    stack.serve()
    url = stack.ready()
    server = psutil.Process(stack.record["pid"])
    before = (0, 0, 0)
    for number in range(200):
        httpx.post(f"{url}/api/generate", json={"model": "demo", "keep_alive": 0}, timeout=60)
        eventually(lambda: not server.children(), stack.log)
        assert httpx.post(f"{url}/api/generate", json={"model": "demo"}, timeout=60).status_code == 200
        if number == 40:
            before = resources(server)
    after = resources(server)

    assert after[0] - before[0] < 16 * 1024**2, (before, after)
    assert after[1] - before[1] <= 4, (before, after)
    assert after[2] == 1


@pytest.mark.anyio
async def test_five_hundred_streams_at_once_all_complete(stack: Stack) -> None:
    limits = {"concurrency": 512, "queue": 1000, "queue_timeout": "120s"}
    model = {"from": "./demo.script.json", "limits": {"queue": 1000, "parallel": 64}}
    stack.write({"demo": model}, server={"listen": ["127.0.0.1:0"], "limits": limits})
    stack.serve()
    url = stack.ready()

    async def one(client: httpx.AsyncClient) -> str:
        body = {"model": "demo", "messages": [{"role": "user", "content": "go"}], "stream": True}
        last = ""
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                last = line or last
        return last

    bounds = httpx.Limits(max_connections=600)
    async with httpx.AsyncClient(timeout=180, limits=bounds) as client:
        assert await asyncio.gather(*(one(client) for _ in range(500))) == ["data: [DONE]"] * 500


def test_forty_kills_at_random_moments_always_converge(stack: Stack) -> None:
    chosen = random.Random(11)
    stack.apply()
    for number in range(40):
        stack.write({"demo": {"from": "./demo.script.json", "context": {"size": 1024 + number}}})
        change = subprocess.Popen(
            [*COMMAND, "apply", "-f", stack.name, "--yes"], env=stack.env, cwd=stack.home,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(chosen.uniform(0.1, 1.5))  # a random moment for the kill
        victim = chosen.choice(["server", "apply"])
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(stack.record["pid"] if victim == "server" else change.pid, signal.SIGKILL)
        change.wait(60)

        stack.apply()
        stack.run("diff", "-f", stack.name, code=0)
        assert len(stack.status()["workers"]) == 1
        leftovers = [p.name for p in stack.home.glob("state/mullama/*/generations/.*")]
        assert leftovers == []
