"""Delivers events to webhooks: in order, with retries, without delaying the server.

Each webhook has a queue of its own, so one that does not answer delays no other. The connection is never made to an
address of the link, where clouds serve the credentials of a machine; any other address is the choice of the manifest.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from mullama.controller.event_log import EventLog
from mullama.controller.webhooks.message import message
from mullama.errors import MullamaError
from mullama.manifest.host_addresses import is_host
from mullama.manifest.spec import Manifest, SecretRef, Webhook
from mullama.reconcile.secrets import read_secret
from mullama.struct import Struct, field

_WAITING = 256
"""Events of one webhook that wait; beyond it the oldest is dropped."""
_TRIES = 10
_LONGEST_WAIT = 300.0
_PASSING = (408, 425, 429)
FAILED = "webhook-failed"
"""The event of a message that was not delivered. No webhook receives it."""


class HookReply(Struct, frozen=True):
    """The result of one try: a status, 0 for none, with the wait that the receiver asks for."""

    status: int
    retry_after: float | None = None
    reason: str = ""


class Post(Protocol):
    """Sends one request from a thread. cancelled: becomes true when the server stops."""

    def __call__(
        self, url: str, headers: Mapping[str, str], body: bytes, cancelled: Callable[[], bool]
    ) -> HookReply: ...


def post(url: str, headers: Mapping[str, str], body: bytes, cancelled: Callable[[], bool]) -> HookReply:
    """Send a request over the network."""
    from mullama.sources.http_client import TransientError, Web
    from mullama.sources.network import Cancellation
    from mullama.sources.settings import Timeouts

    waits = Timeouts(connect=3.0, headers=10.0, idle=5.0)
    try:
        with Web(waits=waits, allowed=is_host, cancelled=cancelled) as web:
            response = web.post(url, headers, body)
            return HookReply(response.status, response.retry_after)
    except Cancellation:
        return HookReply(0, reason="the server stops")
    except TransientError as error:
        return HookReply(0, reason=str(error))


def wait_after(reply: HookReply, failures: int) -> float | None:
    """Return the seconds until the next try after so many failures; None if another try is useless."""
    passing = reply.status == 0 or reply.status in _PASSING or reply.status >= 500
    if not passing or failures >= _TRIES:
        return None
    doubled = min(_LONGEST_WAIT, 2.0 ** (failures - 1))
    return min(_LONGEST_WAIT, max(doubled, reply.retry_after or 0.0))


class _Queue(Struct):
    """The events that one webhook has not received yet, and the task that sends them."""

    events: deque[Mapping[str, Any]] = field(default_factory=deque)
    dropped: int = 0
    task: asyncio.Task[None] | None = None


class WebhookDelivery:
    """Sends the events of a log to the webhooks of the manifest in force. Belongs to the event loop.

    manifest: returns the manifest in force. pause: waits between two tries.
    """

    def __init__(
        self,
        event_log: EventLog,
        manifest: Callable[[], Manifest],
        env: Mapping[str, str],
        *,
        send: Post = post,
        pause: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._event_log, self._manifest, self._env = event_log, manifest, env
        self._send, self._pause = send, pause
        self._queues: dict[Webhook, _Queue] = {}
        self._born = f"{time.time_ns():x}"
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Follow the log until cancelled; then end the deliveries in progress."""
        try:
            async for event in self._event_log.follow(0):
                self._offer(event)
                if event["kind"] == "applied":
                    for name, reason in await asyncio.to_thread(self._absent):
                        self._event_log.add(FAILED, name, reason)
        finally:
            self._stopped.set()
            tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _offer(self, event: Mapping[str, Any]) -> None:
        hooks = self._manifest().observability.webhooks
        for gone in self._queues.keys() - set(hooks):
            if (queue := self._queues[gone]).task is None:
                del self._queues[gone]
            else:
                queue.events.clear()
        for hook in hooks:
            if event["kind"] not in hook.events:
                continue
            queue = self._queues.setdefault(hook, _Queue())
            if len(queue.events) >= _WAITING:
                queue.events.popleft()
                queue.dropped += 1
            queue.events.append(event)
            if queue.task is None:
                queue.task = asyncio.create_task(self._deliver(hook, queue))

    def _absent(self) -> list[tuple[str, str]]:
        """Return the name and the reason of each webhook that lacks a secret: its events may be rare, and urgent."""
        found = []
        for hook in self._manifest().observability.webhooks:
            try:
                self._secrets(hook)
            except MullamaError as error:
                if "applied" not in hook.events:  # else its delivery reports that
                    found.append((_name(hook), error.message))
        return found

    async def _deliver(self, hook: Webhook, queue: _Queue) -> None:
        """Send the events of a queue, oldest first, until it is empty."""
        try:
            while queue.events:
                event = queue.events.popleft()
                if (reason := await self._one(hook, event)) is not None:
                    dropped, queue.dropped = queue.dropped, 0
                    more = f" ({dropped} older ones were dropped)" if dropped else ""
                    self._event_log.add(FAILED, _name(hook), f"event {event['id']} was not delivered: {reason}{more}")
        finally:
            queue.task = None

    async def _one(self, hook: Webhook, event: Mapping[str, Any]) -> str | None:
        """Send one event; return the reason why it was not delivered, None if it was."""
        uid, failures = f"evt_{self._born}_{event['id']}", 0
        while True:
            try:
                reply = await self._try(hook, event, uid)
            except MullamaError as error:  # a secret that is missing, an address that is refused
                return error.message
            if 200 <= reply.status < 300:
                return None
            failures += 1
            reason = reply.reason or f"status {reply.status}"
            wait = wait_after(reply, failures)
            if wait is None or hook not in self._manifest().observability.webhooks:
                return reason
            await self._pause(wait)

    async def _try(self, hook: Webhook, event: Mapping[str, Any], uid: str) -> HookReply:
        url, secret = self._secrets(hook)
        if not url:
            return HookReply(400, reason="the address is missing")
        name = self._manifest().metadata.name or "server"
        made = message(hook, event, server=name, uid=uid, secret=secret, now=int(time.time()))
        return await asyncio.to_thread(self._send, url, made.headers, made.body, self._stopped.is_set)

    def _secrets(self, hook: Webhook) -> tuple[str | None, str | None]:
        """Return the address and the secret of a webhook. Raises as `read_secret`."""
        url = hook.url if isinstance(hook.url, str) else self._secret(hook.url, "url")
        return url, None if hook.secret is None else self._secret(hook.secret, "secret")

    def _secret(self, ref: SecretRef, name: str) -> str | None:
        return read_secret(ref, f"observability.webhooks.{name}", self._env)


def _name(hook: Webhook) -> str:
    """Return the host of a webhook, which is no secret; the place of an address that is one."""
    if isinstance(hook.url, str):
        return urlsplit(hook.url).hostname or ""
    return hook.url.from_env or hook.url.from_file or ""
