"""Delivery of events: order, retries, failures, and the network."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mullama.controller.event_log import EventLog
from mullama.controller.webhooks.delivery import FAILED, HookReply, WebhookDelivery, post, wait_after
from mullama.errors import Refused
from mullama.manifest.spec import Manifest, Webhook
from mullama.manifest.tree import parse_resolved
from tests.hook_receiver import receiver_on_loopback

pytestmark = pytest.mark.anyio

ENV = {"KEY": "k", "HOOK": "https://secret.example.org/token"}


def hook(host: str = "a", **fields: Any) -> dict[str, Any]:
    return {"url": f"https://{host}.example.org/x", "events": ["applied", "held"], **fields}


def manifest(*hooks: dict[str, Any]) -> Manifest:
    return parse_resolved({"mullama": "v1", "models": {}, "observability": {"webhooks": list(hooks)}})


class Receiver:
    """Answers requests with these replies, then with 200, and keeps them."""

    def __init__(self, *replies: HookReply) -> None:
        self.replies = list(replies)
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.waits: list[float] = []
        self._loop, self._arrived = asyncio.get_running_loop(), asyncio.Semaphore(0)

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, cancelled: Callable[[], bool]) -> HookReply:
        self.got.append((url, json.loads(body)))
        self._loop.call_soon_threadsafe(self._arrived.release)
        return self.replies.pop(0) if self.replies else HookReply(200)

    async def pause(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def requests(self, count: int) -> None:
        """Wait for so many more requests."""
        async with asyncio.timeout(10):
            for _ in range(count):
                await self._arrived.acquire()

    def ids(self) -> list[int]:
        return [tree["data"]["id"] for _, tree in self.got]


@asynccontextmanager
async def delivering(receiver: Receiver, desired: Callable[[], Manifest], log: EventLog) -> AsyncIterator[None]:
    delivery = WebhookDelivery(log, desired, ENV, send=receiver, pause=receiver.pause)
    task = asyncio.create_task(delivery.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def failure(log: EventLog) -> dict[str, Any]:
    """Wait for the event of a message that was not delivered."""
    async with asyncio.timeout(10):
        async for event in log.follow(0):
            if event["kind"] == FAILED:
                return event
    raise AssertionError


@pytest.mark.parametrize(
    ("reply", "failures", "wait"),
    [
        (HookReply(500), 1, 1.0),
        (HookReply(0), 2, 2.0),
        (HookReply(503, retry_after=60.0), 1, 60.0),
        (HookReply(429, retry_after=86400.0), 1, 300.0),
        (HookReply(503), 9, 256.0),
        (HookReply(503), 10, None),
        (HookReply(404), 1, None),
        (HookReply(302), 1, None),
        (HookReply(400), 1, None),
    ],
)
def test_a_failure_that_may_pass_is_repeated_later(reply: HookReply, failures: int, wait: float | None) -> None:
    assert wait_after(reply, failures) == wait


async def test_selected_events_arrive_in_order_after_retries() -> None:
    log, receiver = EventLog(), Receiver(HookReply(503), HookReply(0, reason="no route"))
    async with delivering(receiver, lambda: manifest(hook()), log):
        log.add("applied", "revision 1")
        log.add("evicted", "chat")
        log.add("held", "mullama.yaml")
        await receiver.requests(4)

    assert receiver.ids() == [1, 1, 1, 3]
    assert receiver.waits == [1.0, 2.0]
    assert [event["kind"] for event in log.kept()] == ["applied", "evicted", "held"]


async def test_an_event_that_is_refused_is_reported_and_the_next_one_sent() -> None:
    log, receiver = EventLog(), Receiver(HookReply(410))
    async with delivering(receiver, lambda: manifest(hook(events=["applied", "warning"])), log):
        log.add("applied")
        log.add("applied")
        await receiver.requests(2)
        failed = await failure(log)

    assert failed["subject"] == "a.example.org"
    assert failed["message"] == "event 1 was not delivered: status 410"


async def test_a_webhook_that_waits_delays_no_other() -> None:
    log, held = EventLog(), asyncio.Event()

    class Slow(Receiver):
        async def pause(self, seconds: float) -> None:
            await held.wait()

    receiver = Slow(HookReply(503))
    async with delivering(receiver, lambda: manifest(hook("a"), hook("b")), log):
        log.add("applied")
        log.add("applied")
        await receiver.requests(3)
        assert sorted(Counter(url for url, _ in receiver.got).values()) == [1, 2], "the first one waits for its retry"
        held.set()
        await receiver.requests(2)


async def test_the_webhooks_of_the_manifest_in_force_are_called() -> None:
    log, receiver, hooks = EventLog(), Receiver(), [hook("a")]
    async with delivering(receiver, lambda: manifest(*hooks), log):
        log.add("applied")
        await receiver.requests(1)
        hooks[:] = [hook("b")]
        log.add("applied")
        await receiver.requests(1)

    assert [url for url, _ in receiver.got] == ["https://a.example.org/x", "https://b.example.org/x"]


async def test_a_webhook_that_left_the_manifest_is_not_tried_again() -> None:
    log, hooks = EventLog(), [hook("a")]

    class Leaving(Receiver):
        def __call__(self, *arguments: Any) -> HookReply:
            hooks.clear()
            return super().__call__(*arguments)

    receiver = Leaving(HookReply(503))
    async with delivering(receiver, lambda: manifest(*hooks), log):
        log.add("applied")
        await failure(log)
    assert receiver.waits == []


async def test_addresses_and_secrets_are_read_when_they_are_used() -> None:
    log, receiver = EventLog(), Receiver()
    hooks = [hook(url={"from_env": "HOOK"}), hook(secret={"from_env": "ABSENT"})]
    async with delivering(receiver, lambda: manifest(*hooks), log):
        log.add("applied")
        await receiver.requests(1)
        failed = await failure(log)

    assert receiver.got[0][0] == ENV["HOOK"]
    assert "the environment variable ABSENT is missing" in failed["message"]


async def test_a_missing_secret_is_reported_at_the_apply() -> None:
    """Before the first event that the webhook is for, which may be urgent."""
    log, receiver = EventLog(), Receiver()
    hooks = [hook(url={"from_env": "ABSENT"}, events=["degraded"]), hook(events=["applied"])]
    async with delivering(receiver, lambda: manifest(*hooks), log):
        log.add("applied")
        failed = await failure(log)
        log.add("held")
        log.add("applied")
        await receiver.requests(2)

    assert (failed["subject"], "the environment variable ABSENT is missing" in failed["message"]) == ("ABSENT", True)


# The network


@pytest.mark.parametrize("status", [200, 302, 503])
def test_a_request_has_its_body_and_follows_no_redirect(status: int) -> None:
    with receiver_on_loopback(status) as (url, got):
        reply = post(url, {"webhook-id": "evt_1"}, "{“}".encode(), lambda: False)
    assert (reply.status, reply.retry_after) == (status, 7.0)
    (headers, body) = got[0]
    assert len(got) == 1
    assert headers["webhook-id"] == "evt_1"
    assert body.decode() == "{“}"


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "0.0.0.0"]
)
def test_the_addresses_of_a_link_are_never_called(host: str) -> None:
    with pytest.raises(Refused, match="which is an address of this link"):
        post(f"http://{host}/latest", {}, b"{}", lambda: False)


def test_a_receiver_that_is_away_may_come_back() -> None:
    with receiver_on_loopback(200) as (url, _):
        pass
    assert post(url, {}, b"{}", lambda: False).status == 0


def test_a_stop_of_the_server_ends_a_request_that_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reply = post(f"http://127.0.0.1:{silent.getsockname()[1]}/x", {}, b"{}", lambda: True)
    assert (reply.status, reply.reason) == (0, "the server stops")


def test_webhooks_are_values_that_compare_and_hash() -> None:
    one, two = (Webhook.model_validate(hook(secret={"from_env": "KEY"})) for _ in range(2))
    assert {one: 1}[two] == 1
