"""The composition root: the only module that chooses concrete stores, sources, engines and dialects."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mullama.cli.server.process import ServerProcess, ignore_signals
from mullama.controller.event_log import EventLog
from mullama.controller.fleet.restart import from_fleet
from mullama.controller.git.checkout import from_checkout
from mullama.controller.git.follower import GitFollower
from mullama.controller.model_commands import ModelCommands
from mullama.controller.model_page.document import ModelDocuments
from mullama.controller.operator import LocalOperator
from mullama.controller.rate_state import RateState
from mullama.controller.reconciler import Reconciler
from mullama.controller.runs.change import Change, unchanged
from mullama.controller.telemetry.export import TelemetryExport
from mullama.controller.telemetry.metrics_sampler import MetricsSampler
from mullama.controller.watch.editor import ManifestEditor
from mullama.controller.watch.watcher import ManifestWatcher
from mullama.controller.webhooks.delivery import WebhookDelivery
from mullama.dialects import DIALECTS
from mullama.errors import Conflict, MullamaError
from mullama.manifest.load import LoadedManifest
from mullama.manifest.spec import Manifest, Moved
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
from mullama.server.app import create_app
from mullama.server.http.listen import HttpServer
from mullama.server.log_book import LogBook
from mullama.server.stream_keeper import StreamKeeper
from mullama.store.client_objects import ObjectFile
from mullama.store.records import SERVING_LOCK, Records
from mullama.store.usage import UsageFile
from mullama.struct import Struct

if TYPE_CHECKING:
    from mullama.reconcile.hub_models import HubBrowser

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
    process = _make_process(records, env, book)
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
        ignore_signals()


def _make_process(records: Records, env: Mapping[str, str], book: LogBook) -> ServerProcess:
    """Return the parts of a server, connected."""
    http, event_log, metrics, stopping = HttpServer(), EventLog(), Metrics(), asyncio.Event()
    pool = Pool(event_log.note, Attempts(counts=records.attempts(), save=records.note_attempts))
    files = Files.here(env)
    reconciler = Reconciler(
        records=records, pool=pool, files=files, http=http, env=env, event_log=event_log, metrics=metrics
    )
    watcher = ManifestWatcher(reconciler=reconciler, pool=pool, event_log=event_log, env=env)
    serving = _Serving.make(records, reconciler, pool, files, event_log, metrics, env)
    kept = StreamKeeper(lambda: reconciler.current.snapshot.manifest.server.resumable, metrics.streams)
    git = GitFollower(
        folder=records.git_folder, current=lambda: reconciler.current, adopt=watcher.follow,
        conditions=reconciler.status.conditions, event_log=event_log, env=env,
    )  # fmt: skip
    sampler = MetricsSampler(metrics, pool, lambda: reconciler.current, event_log)
    operator = LocalOperator(
        reconciler=reconciler,
        files=files,
        pool=pool,
        event_log=event_log,
        metrics=metrics,
        rates=serving.rates,
        usage=serving.usage,
        captures=serving.captures,
        sampler=sampler,
        peers=serving.peers,
        git=git,
        editor=ManifestEditor(reconciler, env),
        documents=ModelDocuments(pool, env),
        hub=_hub_of(files, reconciler),
        reload=_reload_of(git, watcher),
        stop=stopping.set,
    )
    app = create_app(serving.service, operator, DIALECTS, kept=kept, tracer=serving.spans, log_book=book)
    metrics.gauges.append(lambda: _gauges_of(kept, app.sessions.open))
    return ServerProcess(
        records=records,
        http=http,
        app=app,
        objects=serving.objects,
        rates=RateState(serving.rates, records),
        usage=serving.usage,
        git=git,
        reconciler=reconciler,
        watcher=watcher,
        service=serving.service,
        operator=operator,
        pool=pool,
        sampler=sampler,
        peers=serving.peers,
        telemetry=TelemetryExport(
            serving.spans, operator.families, metrics, lambda: reconciler.current.snapshot.manifest, event_log, env
        ),
        webhooks=WebhookDelivery(event_log, lambda: reconciler.current.snapshot.manifest, env),
        stopping=stopping,
    )


class _Serving(Struct, kw_only=True):
    """The parts that answer requests, and those that count them."""

    service: ToolService
    objects: ClientStore
    rates: RateBook
    usage: UsageLog
    captures: CaptureLog
    spans: SpanQueue
    peers: PeerBook

    @classmethod
    def make(
        cls,
        records: Records,
        reconciler: Reconciler,
        pool: Pool,
        files: Files,
        event_log: EventLog,
        metrics: Metrics,
        env: Mapping[str, str],
    ) -> _Serving:
        def manifest() -> Manifest:
            return reconciler.current.snapshot.manifest

        def moved() -> tuple[Moved, ...]:
            return manifest().moved

        objects = ClientStore(ObjectFile(records.objects_path), lambda: manifest().server.stored, moved=moved)
        rates = RateBook(manifest, refused=metrics.rate_limited)
        captures = CaptureLog(lambda: manifest().observability.captures)
        usage = UsageLog(
            UsageFile(records.usage_path),
            lambda: manifest().observability.usage.keep,
            reconciler.status.usage_recorded,
            moved=moved,
        )
        spans = SpanQueue(lambda: manifest().observability.otlp, metrics.spans)
        peers = PeerBook(manifest, env, event_log.note)
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
        return cls(
            service=ToolService(models, models.first_model, reconciler.tools, runner),
            objects=objects, rates=rates, usage=usage, captures=captures, spans=spans, peers=peers,
        )  # fmt: skip


def _hub_of(files: Files, reconciler: Reconciler) -> Callable[[], HubBrowser]:
    def hub() -> HubBrowser:
        from mullama.reconcile.hub_models import HubBrowser  # few servers are asked for models of the hub

        return HubBrowser(files, lambda: reconciler.current.snapshot.manifest)

    return hub


def _reload_of(git: GitFollower, watcher: ManifestWatcher) -> Callable[[str], Awaitable[Reload]]:
    async def reload(reason: str) -> Reload:
        if git.settings is not None:
            await git.sync(forced=True)
        return await watcher.reload(reason)

    return reload


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
