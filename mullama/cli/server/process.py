"""One server process: its first change, the signals that it handles, and its end."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import time
from typing import Any

import mullama
from mullama.cli.app.exit_codes import outcome_code
from mullama.controller.git.follower import GitFollower
from mullama.controller.operator import LocalOperator
from mullama.controller.rate_state import RateState
from mullama.controller.reconciler import Reconciler
from mullama.controller.restart import begin
from mullama.controller.runs.change import Change, Line
from mullama.controller.telemetry.export import TelemetryExport
from mullama.controller.telemetry.metrics_sampler import MetricsSampler
from mullama.controller.watch import fs_events
from mullama.controller.watch.watcher import ManifestWatcher
from mullama.controller.webhooks.delivery import WebhookDelivery
from mullama.errors import MullamaError
from mullama.runtime.base import Origin
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.pool import Pool
from mullama.runtime.serving.client_store import ClientStore
from mullama.runtime.serving.usage_log import UsageLog
from mullama.runtime.tools.service import ToolService
from mullama.server.app import App
from mullama.server.http.listen import HttpServer
from mullama.store.process import process_identity
from mullama.store.records import Records, ServerRecord
from mullama.struct import Struct, field

DRAIN_SECONDS = 30.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("mullama")


class ServerProcess(Struct, kw_only=True):
    """The parts of one server process and the signals that end it."""

    records: Records
    http: HttpServer
    app: App
    objects: ClientStore
    rates: RateState
    usage: UsageLog
    git: GitFollower
    reconciler: Reconciler
    watcher: ManifestWatcher
    service: ToolService
    operator: LocalOperator
    pool: Pool
    webhooks: WebhookDelivery
    telemetry: TelemetryExport
    sampler: MetricsSampler
    peers: PeerBook
    stopping: asyncio.Event
    """Set by the first SIGTERM or SIGINT and by a shutdown request."""
    stop_at_once: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the second signal: requests are no longer drained."""
    reload_requested: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by SIGHUP."""
    tasks: tuple[asyncio.Task[Any], ...] = ()
    """Tasks that run until the end."""

    async def serve(self, change: Change, problem: MullamaError | None) -> int:
        """Apply the first change, and serve until stopped; return the exit code.

        A signal stops the server also while the first change downloads or loads.
        """
        first = asyncio.create_task(self._begin(change, problem))
        stopped = asyncio.create_task(self.stopping.wait())
        self.tasks += (first,)
        await asyncio.wait({first, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if first.done() and not self.reconciler.current.started:
            stopped.cancel()
            return first.result()
        await stopped
        return 0

    async def _begin(self, change: Change, problem: MullamaError | None) -> int:
        code = 0
        async for line in begin(self.reconciler, self.records, change):
            self._import_beside(line)
            if line["event"] == "result":
                code = outcome_code(line["outcome"])
        if problem is not None:
            self.reconciler.manifest_invalid(problem)
        return code

    def _import_beside(self, line: Line) -> None:
        """Import in a thread what the start needs next, while it waits: for a digest of a file, or for a worker."""
        if line["event"] != "phase":
            return
        if line["phase"] == "fetch":
            beside = asyncio.to_thread(importlib.import_module, "mullama.chat.template.jinja")
            self.tasks += (asyncio.create_task(beside),)
        elif line["phase"] == "load":
            self.tasks += (asyncio.create_task(self._import_while_opening()),)

    async def _import_while_opening(self) -> None:
        await self.pool.until_opening()
        await asyncio.to_thread(fs_events.library)

    def announce(self, control: str, origin: Origin) -> None:
        """Write server.json, by which commands find this server."""
        self.records.announce(
            ServerRecord(
                pid=os.getpid(),
                started=time.time(),
                listen=self.http.listening,
                control=control,
                manifest=origin.path,
                version=mullama.__version__,
                process_identity=process_identity(os.getpid()),
            )
        )

    def handle_signals(self) -> None:
        """Stop at SIGTERM and SIGINT, at once at the second one; read the manifest again at SIGHUP.

        These are handlers of the process and not of the event loop: asyncio restores the default action when the
        loop closes, and a late signal would then kill the process.
        """
        loop = asyncio.get_running_loop()

        def stop() -> None:
            (self.stop_at_once if self.stopping.is_set() else self.stopping).set()

        for number in _STOP_SIGNALS:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self.reload_requested.set))
        self.tasks = (
            loop.create_task(self._reload_on_request()),
            loop.create_task(self.objects.keep_tidy()),
            loop.create_task(self.rates.keep_saved()),
            loop.create_task(self.usage.keep_written()),
            loop.create_task(self.git.run()),
            loop.create_task(self.webhooks.run()),
            loop.create_task(self.telemetry.run()),
            loop.create_task(self.sampler.run()),
            loop.create_task(self.reconciler.certificates.follow()),
        )

    async def _reload_on_request(self) -> None:
        """Reload once for all signals that arrive during one reload."""
        while True:
            await self.reload_requested.wait()
            self.reload_requested.clear()
            try:
                await self.operator.reload("SIGHUP")
            except MullamaError as error:
                _log.warning("SIGHUP: %s", error)

    async def close(self) -> None:
        """Drain requests, unload models and end all tasks; `stop_at_once` cuts both short."""
        await self.watcher.close()
        at_once = asyncio.create_task(self.stop_at_once.wait())
        drain = asyncio.create_task(self._drain())
        await asyncio.wait({drain, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            await self.http.stop(0)
            await self.app.close(0)
        unload = asyncio.create_task(self.reconciler.stop())
        await asyncio.wait({unload, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not unload.done():
            await self.pool.abort()
        tasks = (drain, unload, at_once, *self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.telemetry.close()
        await self.peers.close()
        await self.reconciler.tools.close()
        self.objects.close()
        self.rates.close()
        await self.usage.close()

    async def _drain(self) -> None:
        await asyncio.gather(self.http.stop(DRAIN_SECONDS), self.app.close(DRAIN_SECONDS))


def ignore_signals() -> None:
    """Ignore the signals of `handle_signals`: a late one must not kill the process before it returns its exit code."""
    for number in (*_STOP_SIGNALS, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
