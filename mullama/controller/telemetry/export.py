"""Sends traces and metrics to the collector of the manifest, beside the requests and without delaying them.

Encoding and network are in a thread of their own, so that a collector that does not answer takes none of those that
render prompts. The connection is never made to an address of the link, where clouds serve the credentials of a machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import mullama
from mullama.controller.event_log import EventLog
from mullama.controller.webhooks.delivery import HookReply, Post, post
from mullama.errors import MullamaError, Unsupported
from mullama.manifest.spec import Manifest, Otlp
from mullama.reconcile.secrets import read_secret
from mullama.runtime.metrics import Metrics
from mullama.runtime.span_queue import SpanQueue
from mullama.trace_context import Span

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from mullama.runtime.metrics_text import Family

T = TypeVar("T")

FAILED, RECOVERED = "telemetry-failed", "telemetry-recovered"
"""The events of a collector that does not accept an export, and of one that does again."""
_LINGER = 5.0  # seconds that a span waits for others
_TRIES = 5  # of one batch
_LONGEST_WAIT = 60.0
_PASSING = (0, 429, 502, 503, 504)  # no connection, and the statuses that OTLP's specification lets a client retry
_LAST = 2.0  # seconds for the last spans, at a stop


class _Signal:
    """Traces or metrics: their failures, and the time of their next request. A collector may take only one of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.broken = False
        """True from the first failure to the next success."""
        self.retry()

    def retry(self) -> None:
        """Send the next request at once."""
        self.failures = 0  # in succession
        self.not_before = 0.0

    def place(self, otlp: Otlp) -> str:
        """Return the address that takes it, as the subject of events."""
        return f"{urlsplit(otlp.endpoint).netloc}/v1/{self.name}"


class TelemetryExport:
    """Exports the spans of a queue and the families of metrics. Belongs to the event loop.

    families: returns the families of metrics; it is called on the event loop. manifest: returns the one in force.
    """

    def __init__(
        self,
        spans: SpanQueue,
        families: Callable[[], Sequence[Family]],
        metrics: Metrics,
        manifest: Callable[[], Manifest],
        event_log: EventLog,
        env: Mapping[str, str],
        *,
        send: Post = post,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spans, self._families, self._metrics = spans, families, metrics
        self._manifest, self._event_log, self._env = manifest, event_log, env
        self._send, self._clock = send, clock
        self._thread: ThreadPoolExecutor | None = None
        self._stopped = threading.Event()
        self._changed = asyncio.Event()
        self._started = time.time()
        self._batch: Sequence[Span] = ()
        self._tries = 0  # of the batch
        self._metrics_due = 0.0
        self._traces_signal, self._metrics_signal = _Signal("traces"), _Signal("metrics")

    def follow(self) -> None:
        """Follow the manifest in force, which has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Export until cancelled."""
        while True:
            self._changed.clear()
            otlp = self._manifest().observability.otlp
            if otlp is None:
                self._forget()
                await self._changed.wait()
                self._metrics_due = self._clock() + 1.0
                continue
            await self._wait(otlp)
            if self._changed.is_set():
                self._tries = 0  # another collector or other secrets
                self._traces_signal.retry()
                self._metrics_signal.retry()
                continue
            await self.export(otlp)

    async def _wait(self, otlp: Otlp) -> None:
        """Wait until something is to be exported, or the manifest changes."""
        now, retry = self._clock(), self._traces_signal.not_before
        wakers, moments = [self._changed], [now + _LINGER if retry <= now else retry]
        if retry <= now:
            wakers.append(self._spans.full)
        if otlp.metrics:
            moments.append(max(self._metrics_due, self._metrics_signal.not_before))
        seconds = max(0.0, min(moments) - now)
        tasks = [asyncio.ensure_future(waker.wait()) for waker in wakers]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def export(self, otlp: Otlp) -> None:
        """Send the spans that wait, and the metrics if they are due, until the manifest changes."""
        if not otlp.traces:  # spans of before a reload would wait for ever
            self._spans.clear()
            self._batch = ()
        while otlp.traces and self._clock() >= self._traces_signal.not_before and not self._changed.is_set():
            if not self._batch:
                self._batch, self._tries = self._spans.take(), 0
            if not self._batch:
                break
            await self._send_spans(otlp, self._batch)
        now = self._clock()
        due = otlp.metrics and max(self._metrics_signal.not_before, self._metrics_due) <= now
        if due and not self._changed.is_set():
            self._metrics_due = now + otlp.interval
            await self._send_metrics(otlp)

    async def _send_spans(self, otlp: Otlp, batch: Sequence[Span]) -> None:
        reply = await self._deliver(otlp, self._traces_signal, lambda codec: codec.spans_body(batch, self._resource()))
        self._tries += 1
        if 200 <= reply.status < 300:
            self._spans.count("exported", len(batch))
        elif reply.status in _PASSING and self._tries < _TRIES:
            return
        else:
            self._spans.count("dropped", len(batch))
        self._batch = ()

    async def _send_metrics(self, otlp: Otlp) -> None:
        await self._in_thread(lambda: importlib.import_module("mullama.runtime.metrics_text"))
        families, now = self._families(), time.time()
        await self._deliver(
            otlp,
            self._metrics_signal,
            lambda codec: codec.metrics_body(families, self._resource(), self._started, now),
        )

    async def _deliver(self, otlp: Otlp, signal: _Signal, encode: Callable[[Any], bytes]) -> HookReply:
        """Send one request, note its result, and return it."""
        try:
            reply = await self._in_thread(lambda: self._request(otlp, signal.name, encode))
        except MullamaError as error:  # a secret that is missing, an address that is refused, no extra
            reply = HookReply(-1, reason=error.message)
        except Exception as error:  # noqa: BLE001 - such as a secret that is no header; the next export may succeed
            reply = HookReply(-1, reason=f"the request could not be made ({type(error).__name__})")
        if 200 <= reply.status < 300:
            signal.retry()
            if signal.broken:
                signal.broken = False
                self._event_log.add(RECOVERED, signal.place(otlp), f"{signal.name} are exported again")
            return reply
        signal.failures += 1
        self._metrics.otlp_failures += 1
        wait = 2.0 ** min(signal.failures, 6) if reply.retry_after is None else reply.retry_after
        signal.not_before = self._clock() + min(_LONGEST_WAIT, max(1.0, wait))
        if not signal.broken:
            signal.broken = True
            reason = reply.reason or f"status {reply.status}"
            self._event_log.add(FAILED, signal.place(otlp), f"{signal.name} were not exported: {reason}")
        return reply

    def _request(self, otlp: Otlp, signal: str, encode: Callable[[Any], bytes]) -> HookReply:
        headers = {"content-type": "application/x-protobuf"}
        for name, secret in otlp.headers.items():
            value = read_secret(secret, f"observability.otlp.headers.{name}", self._env)
            if value is not None:
                headers[name] = value
        body = encode(_codec())
        return self._send(f"{otlp.endpoint}/v1/{signal}", headers, body, self._stopped.is_set)

    def _resource(self) -> dict[str, str]:
        """Return the attributes of this server."""
        host = socket.gethostname()
        return {
            "service.name": "mullama",
            "service.version": mullama.__version__,
            "service.instance.id": self._manifest().metadata.name or host,
            "host.name": host,
        }

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            from concurrent.futures import ThreadPoolExecutor  # late: most servers export nothing

            self._thread = ThreadPoolExecutor(1, "telemetry")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _forget(self) -> None:
        """Forget the spans, because the manifest exports none any more."""
        self._spans.clear()
        self._batch = ()
        self._traces_signal, self._metrics_signal = _Signal("traces"), _Signal("metrics")

    async def close(self) -> None:
        """Try once to send the spans that wait, for a moment. `run` must have ended."""
        self._changed.clear()
        otlp = self._manifest().observability.otlp
        if otlp is not None and not self._traces_signal.broken:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST):
                    await self.export(otlp)
        self._stopped.set()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _codec() -> Any:
    """Return the module that encodes. Raises `Unsupported` without the extra."""
    try:
        return importlib.import_module("mullama.controller.telemetry.otlp")
    except ImportError as error:
        raise Unsupported(
            f"traces and metrics need the extra otlp: pip install 'mullama[otlp]' ({error})",
            field="observability.otlp",
        ) from error
