"""The processor time that rate limits and records of usage add to a request of the HTTP path, on a scripted model."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mullama.dialects import DIALECTS
from mullama.runtime.rates.book import RateBook
from mullama.runtime.serving.service import ModelService
from mullama.runtime.serving.usage_log import UsageLog
from mullama.runtime.span_queue import SpanQueue
from mullama.server.app import App, create_app
from mullama.store.usage import UsageFile
from tests.runtime.rates.test_book import manifest
from tests.runtime.runtime_fixture import LocalServer
from tests.server.server_fixture import PATIENT

pytestmark = [pytest.mark.anyio, pytest.mark.bench]

_WIDE = {"requests": "1G/s", "tokens": "1G/s"}
_PAIRS = 2500
_MOST = 0.03


@pytest.fixture(autouse=True)
def _quiet_collector() -> Iterator[None]:
    """Collect as rarely as the server does."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(10_000)
    yield
    gc.set_threshold(*before)


def _app(server: LocalServer, *, limited: bool) -> App:
    """Return the app of the server with or without limits of its key, its model and of both, and records of usage."""
    rates: dict[str, Any] = {"rate": _WIDE, "rate_per_key": _WIDE} if limited else {}
    key = {"rate": _WIDE, "quota": _WIDE} if limited else {}
    live, kept = manifest(key, rates), 90 * 86400.0 if limited else 0.0
    service = ModelService(
        lambda: server.snapshot, server.pool, server.commands, server.metrics, server.objects,
        RateBook(lambda: live),
        UsageLog(UsageFile(server.home / f"{limited}.sqlite"), lambda: kept, lambda _: None),
        server.captures,
        SpanQueue(lambda: None, {}),
        server.peers,
    )  # fmt: skip
    return create_app(service, server.operator, DIALECTS, PATIENT)


async def _ask(app: App, body: bytes) -> None:
    asked = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if asked.is_set():
            await asyncio.Event().wait()
        asked.set()
        return {"type": "http.request", "body": body, "more_body": False}

    statuses = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [
        (b"host", b"localhost"), (b"content-type", b"application/json"), (b"authorization", b"Bearer secret"),
        (b"content-length", str(len(body)).encode()),
    ]  # fmt: skip
    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 5), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)  # type: ignore[arg-type]
    assert statuses == [200]


@pytest.mark.timeout(600)
async def test_rates_and_usage_add_less_than_three_percent(server: LocalServer) -> None:
    """Requests with and without alternate, so both meet the same other work of the machine.

    The processor time of the sockets is left out, so the share is smaller in a server.
    """
    server.env["KEY"] = "secret"
    key = {"ci": {"secret": {"from_env": "KEY"}}}
    await server.apply({"a": server.script(default="word " * 16)}, auth={"keys": key})
    apps = [_app(server, limited=limited) for limited in (False, True)]
    message = {"role": "user", "content": "hi there " * 20}
    body = json.dumps({"model": "a", "messages": [message], "stream": True}).encode()
    (worker,) = server.pool.pids()
    clock = ~worker << 3 | 2  # the processor time of another process, as clock_getcpuclockid has it
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(_PAIRS):
        for limited in (0, 1) if number % 2 else (1, 0):
            begun = time.process_time_ns() + time.clock_gettime_ns(clock)
            await _ask(apps[limited], body)
            times[limited].append((time.process_time_ns() + time.clock_gettime_ns(clock) - begun) / 1000)
    without, both = map(statistics.median, times)
    added = statistics.median(b - a for a, b in zip(*times, strict=True))
    report = f"{without:.0f} us without, {both:.0f} us with rates and usage; pairs differ by {added:+.0f} us"
    sys.stdout.write(f"\n{report}, {added / without:+.1%}\n")
    assert added / without < _MOST, report
