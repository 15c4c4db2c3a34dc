"""The composition root: the only module that chooses concrete stores, sources, engines and dialects."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import mullama
from mullama.cli.app.exit_codes import outcome_code
from mullama.controller.event_log import EventLog
from mullama.controller.fleet.restart import from_fleet
from mullama.controller.git.checkout import from_checkout
from mullama.controller.git.follower import GitFollower
from mullama.controller.model_commands import ModelCommands
from mullama.controller.model_page.document import ModelDocuments
from mullama.controller.operator import LocalOperator
from mullama.controller.rate_state import RateState
from mullama.controller.reconciler import Reconciler
from mullama.controller.restart import begin
from mullama.controller.runs.change import Change, Line, unchanged
from mullama.controller.telemetry.export import TelemetryExport
from mullama.controller.telemetry.metrics_sampler import MetricsSampler
from mullama.controller.watch import fs_events
from mullama.controller.watch.editor import ManifestEditor
from mullama.controller.watch.watcher import ManifestWatcher
from mullama.controller.webhooks.delivery import WebhookDelivery
from mullama.dialects import DIALECTS
from mullama.errors import Conflict, MullamaError
from mullama.manifest.load import LoadedManifest
from mullama.manifest.spec import Manifest
from mullama.reconcile.files import Files
from mullama.runtime.attempts import Attempts
from mullama.runtime.base import ApplyOptions, Origin, Reload
from mullama.runtime.metrics import Gauge, Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.pool import Pool
from mullama.runtime.rates.book import RateBook
from mullama.runtime.serving.captures import CaptureLog
from mullama.runtime.serving.client_store import ClientStore
from mullama.runtime.serving.service import ModelService
from mullama.runtime.serving.usage_log import UsageLog
from mullama.runtime.span_queue import SpanQueue
from mullama.runtime.tools.calls import CallRunner
from mullama.runtime.tools.search_desk import embed_by
from mullama.runtime.tools.service import ToolService
from mullama.runtime.worker.spawn import SpawnedWorker
from mullama.server import log
from mullama.server.app import App, create_app
from mullama.server.http.listen import HttpServer
from mullama.server.log_book import LogBook
from mullama.server.stream_keeper import StreamKeeper
from mullama.store.client_objects import ObjectFile
from mullama.store.process import process_identity
from mullama.store.records import SERVING_LOCK, Records, ServerRecord
from mullama.store.usage import UsageFile
from mullama.struct import Struct, field

if TYPE_CHECKING:
    from mullama.reconcile.hub_models import HubBrowser

DRAIN_SECONDS = 30.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GC_THRESHOLD = 10_000  # allocations between two collections; one collection then takes a few milliseconds at most
_MAX_SOCKET_PATH = 100  # bytes; systems allow 104 to 108
_log = logging.getLogger("mullama")


def run_server(
    loaded: LoadedManifest,
    *,
    origin: Mapping[str, Any],
    records: Records,
    env: Mapping[str, str],
    held: bool,
    problem: MullamaError | None = None,
    default: str = "",
    added: frozenset[str] = frozenset(),
    worker: SpawnedWorker | None = None,
    log_levels: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Serve until stopped and return the exit code.

    held: wait for the first manifest on the control socket. problem: the reason why `loaded` is not what the file
    declares, but the last applied revision. default: a model beside the manifest that becomes the default. added: see
    `Change.added`. worker: the process of the first worker. log_levels: by part of the log, in place of those of the
    manifest.
    """
    book = LogBook()
    _log_to_stderr(loaded.manifest, log_levels, book)
    source = Origin(path=origin["path"], profiles=tuple(origin["profiles"]), digest=origin["digest"])
    if problem is None:
        loaded, source, problem = from_checkout(loaded, source, records, env)
    loaded, source = from_fleet(loaded, source, records)
    if (running := records.server()) is not None:
        raise Conflict(
            f"a server for this address is already running (pid {running.pid})", hint="mullama down stops it"
        )
    gc.freeze()  # modules and classes stay until the process ends: collections need not visit them
    gc.set_threshold(_GC_THRESHOLD)
    with records.lock("serve", name=SERVING_LOCK):
        records.free_memory()
        serving = _serve(
            loaded, source, records, env,
            held=held, problem=problem, default=default, added=added, worker=worker, log_levels=log_levels,
            book=book,
        )  # fmt: skip
        try:
            return asyncio.run(serving)
        finally:
            records.free_memory()


def _log_to_stderr(manifest: Manifest, levels: Mapping[str, str], book: LogBook) -> None:
    """Write one line for each event, in the manifest's format and level. Libraries log warnings and errors only.

    book: keeps the last lines for readers through the server.
    """
    settings = manifest.observability.logs
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log.Lines(settings.format))
    logging.basicConfig(handlers=[handler, book], level=logging.WARNING)
    log.configure(settings, levels)


async def _serve(
    loaded: LoadedManifest,
    origin: Origin,
    records: Records,
    env: Mapping[str, str],
    *,
    held: bool,
    problem: MullamaError | None,
    default: str,
    added: frozenset[str],
    worker: SpawnedWorker | None,
    log_levels: Mapping[str, str],
    book: LogBook,
) -> int:
    process = _Process.make(records, env, book)
    process.pool.spare.keep("llamacpp", worker)
    control = control_path(records, env)
    process.handle_signals()
    try:
        await process.http.start(process.app, (), control)
        try:
            process.announce(control, origin)
        except OSError as error:
            _log.error("commands find this server by --host only, because its record cannot be written: %s", error)
        # The watcher is first: a reader of server.json may save the new file at once.
        process.reconciler.state.subscribers += (
            process.watcher.follow,
            process.git.applied,
            lambda origin: process.announce(control, origin),
            lambda _: process.telemetry.follow(),
            lambda _: log.configure(process.service.access().manifest.observability.logs, log_levels),
        )
        process.watcher.start()
        if held:
            await process.stopping.wait()
            return 0
        change = Change(
            desired=loaded.manifest, origin=origin, options=ApplyOptions(trigger="start"), restored=problem is not None,
            edit=(lambda overlay: {**overlay, "default": {"route": default}}) if default else unchanged, added=added,
        )  # fmt: skip
        return await process.serve(change, problem)
    finally:
        records.withdraw(os.getpid())
        await process.close()
        # A signal that arrives now must not kill the process before it returns its exit code.
        for number in (*_STOP_SIGNALS, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


class _Process(Struct, kw_only=True):
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

    @classmethod
    def make(cls, records: Records, env: Mapping[str, str], book: LogBook) -> _Process:
        http = HttpServer()
        event_log, metrics = EventLog(), Metrics()
        attempts = Attempts(counts=records.attempts(), save=records.note_attempts)
        pool = Pool(event_log.note, attempts)
        files = Files.here(env)
        reconciler = Reconciler(
            records=records, pool=pool, files=files, http=http, env=env, event_log=event_log, metrics=metrics
        )
        watcher = ManifestWatcher(reconciler=reconciler, pool=pool, event_log=event_log, env=env)
        stopping = asyncio.Event()
        objects = ClientStore(
            ObjectFile(records.objects_path),
            lambda: reconciler.current.snapshot.manifest.server.stored,
            moved=lambda: reconciler.current.snapshot.manifest.moved,
        )
        rates = RateBook(lambda: reconciler.current.snapshot.manifest, refused=metrics.rate_limited)
        captures = CaptureLog(lambda: reconciler.current.snapshot.manifest.observability.captures)
        usage = UsageLog(
            UsageFile(records.usage_path),
            lambda: reconciler.current.snapshot.manifest.observability.usage.keep,
            reconciler.status.usage_recorded,
            moved=lambda: reconciler.current.snapshot.manifest.moved,
        )
        spans = SpanQueue(lambda: reconciler.current.snapshot.manifest.observability.otlp, metrics.spans)
        peers = PeerBook(lambda: reconciler.current.snapshot.manifest, env, event_log.note)
        models = ModelService(
            lambda: reconciler.current.snapshot,
            pool,
            ModelCommands(reconciler, files, env),
            metrics,
            objects,
            rates,
            usage,
            captures,
            spans,
            peers,
        )
        reconciler.tools.search.embed = embed_by(models)
        runner = CallRunner(reconciler.tools, metrics, spans, event_log.note, captures.add_calls)
        service = ToolService(models, models.first_model, reconciler.tools, runner)
        kept = StreamKeeper(lambda: reconciler.current.snapshot.manifest.server.resumable, metrics.streams)
        git = GitFollower(
            folder=records.git_folder,
            current=lambda: reconciler.current,
            adopt=watcher.follow,
            conditions=reconciler.status.conditions,
            event_log=event_log,
            env=env,
        )

        async def reload(reason: str) -> Reload:
            if git.settings is not None:
                await git.sync(forced=True)
            return await watcher.reload(reason)

        sampler = MetricsSampler(metrics, pool, lambda: reconciler.current, event_log)

        def hub() -> HubBrowser:
            from mullama.reconcile.hub_models import HubBrowser

            return HubBrowser(files, lambda: reconciler.current.snapshot.manifest)

        operator = LocalOperator(
            reconciler=reconciler,
            files=files,
            pool=pool,
            event_log=event_log,
            metrics=metrics,
            rates=rates,
            usage=usage,
            captures=captures,
            sampler=sampler,
            peers=peers,
            git=git,
            editor=ManifestEditor(reconciler, env),
            documents=ModelDocuments(pool, env),
            hub=hub,
            reload=reload,
            stop=stopping.set,
            env=env,
        )
        app = create_app(service, operator, DIALECTS, kept=kept, tracer=spans, log_book=book)
        metrics.gauges.append(lambda: _gauges_of(kept, app.sessions.open))
        return cls(
            records=records,
            http=http,
            app=app,
            objects=objects,
            rates=RateState(rates, records),
            usage=usage,
            git=git,
            reconciler=reconciler,
            watcher=watcher,
            service=service,
            operator=operator,
            pool=pool,
            sampler=sampler,
            peers=peers,
            telemetry=TelemetryExport(
                spans, operator.families, metrics, lambda: reconciler.current.snapshot.manifest, event_log, env
            ),
            webhooks=WebhookDelivery(event_log, lambda: reconciler.current.snapshot.manifest, env),
            stopping=stopping,
        )

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


def _gauges_of(kept: StreamKeeper, sessions: int) -> tuple[Gauge, ...]:
    return (
        Gauge(name="mullama_realtime_sessions", help="Open realtime sessions.", value=sessions),
        Gauge(name="mullama_streams_kept", help="Streams that can be taken up again.", value=len(kept)),
        Gauge(name="mullama_streams_kept_bytes", help="Bytes of these streams.", value=kept.bytes),
    )


def control_path(records: Records, env: Mapping[str, str]) -> str:
    """Return the path of the instance's control socket: short enough for the system, in a folder of the user alone."""
    runtime = env.get("XDG_RUNTIME_DIR")
    bases = [Path(runtime)] if runtime and Path(runtime).is_dir() else []
    name = f"{records.key}.sock"
    user = f"mullama-{os.getuid()}"
    paths = [base / user / name for base in (*bases, Path(tempfile.gettempdir()), Path("/tmp"))]
    path = next((p for p in paths if len(os.fsencode(p)) <= _MAX_SOCKET_PATH), paths[-1])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise Conflict(f"{path.parent} belongs to another user", hint="set XDG_RUNTIME_DIR to a folder that you own")
    return str(path)
