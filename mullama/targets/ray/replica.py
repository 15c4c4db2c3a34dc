"""The runtime of one model in a replica: the same reconciler, pool and service as in a server, without HTTP."""

from __future__ import annotations

import json
import logging
import shutil
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from mullama.chat.transcription import TranscriptionRequest
from mullama.controller.event_log import EventLog
from mullama.controller.model_commands import ModelCommands
from mullama.controller.reconciler import Reconciler
from mullama.controller.runs.change import Change
from mullama.dialects.base import Operation
from mullama.errors import EngineFailed, Internal, MullamaError
from mullama.folders import state_root
from mullama.manifest.tree import parse_resolved
from mullama.names import LOCK_NAME
from mullama.reconcile.files import Files
from mullama.runtime.attempts import Attempts
from mullama.runtime.base import ApplyOptions, Caller, Origin
from mullama.runtime.metrics import Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.pool import Pool
from mullama.runtime.rates.book import RateBook
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.serving.captures import CaptureLog
from mullama.runtime.serving.client_store import ClientStore
from mullama.runtime.serving.completion import Request
from mullama.runtime.serving.service import ModelService
from mullama.runtime.serving.usage_log import UsageLog
from mullama.runtime.span_queue import SpanQueue
from mullama.store.client_objects import ObjectFile
from mullama.store.records import Records
from mullama.store.usage import UsageFile
from mullama.targets.ray.chunks import coalesced
from mullama.targets.ray.wire import FindRefusal, RemoteError, packed

CHUNK_SECONDS = (0.005, 0.01, 0.02, 0.04)
"""Least times between the messages of one answer. A message costs a replica, a gateway and Ray a hundred times as much
as a token, so a long answer has 25 in a second, which a reader still sees as a flow."""

_log = logging.getLogger(__name__)


class NoListeners:
    """The HTTP server of a replica, which has none."""

    async def listen_on(self, addresses: tuple[str, ...], tls: ssl.SSLContext | None = None) -> tuple[str, ...]:
        return ()

    async def renew(self, tls: ssl.SSLContext, *, drain: bool = False) -> None:
        pass


class ModelReplica:
    """Serves one model to the gateways.

    name: unique among the replicas of the node. Its state folder is removed at the end. The files of models are in the
    store of the node, which all replicas share: one of them downloads a file, and the others wait for it.
    """

    def __init__(self, name: str, env: Mapping[str, str]) -> None:
        self._records = records = Records(state_root(env) / "ray", name)
        records.create()
        self._origin = records.folder / "mullama.yaml"
        self._refusal: RemoteError | None = None
        event_log, metrics, files = EventLog(), Metrics(), Files.here(env)
        self._pool = pool = Pool(event_log.note, Attempts(counts=records.attempts(), save=records.note_attempts))
        self._reconciler = reconciler = Reconciler(
            records=records, pool=pool, files=files, http=NoListeners(), env=env, event_log=event_log, metrics=metrics
        )

        def manifest() -> Any:
            return reconciler.current.snapshot.manifest

        self._objects = ClientStore(ObjectFile(records.objects_path), lambda: manifest().server.stored)
        self._usage = UsageLog(UsageFile(records.usage_path), lambda: 0.0, lambda error: None)
        self._peers = PeerBook(manifest, env, event_log.note)
        self._service = ModelService(
            lambda: reconciler.current.snapshot,
            pool,
            ModelCommands(reconciler, files, env),
            metrics,
            self._objects,
            RateBook(manifest),
            self._usage,
            CaptureLog(lambda: None),
            SpanQueue(lambda: None, metrics.spans),
            self._peers,
        )

    async def configure(self, config: Mapping[str, Any]) -> None:
        """Serve this manifest: files are fetched, the model is loaded and probed, and then requests see it.

        Raises for the first manifest that cannot be served. A later one leaves the present one serving, because Serve
        ends a replica that raises; `FindRefusal` asks for the reason.
        """
        lock = json.dumps({LOCK_NAME: 1, "sources": dict(config["lock"])})
        self._origin.with_name(LOCK_NAME).write_text(lock, encoding="utf-8")
        change = Change(
            desired=parse_resolved(config["manifest"]), options=ApplyOptions(trigger="api"),
            origin=Origin(path=str(self._origin)), added=frozenset(),
        )  # fmt: skip
        first, result = not self._reconciler.current.started, {}
        async for line in self._reconciler.apply(change):
            if line["event"] == "result":
                result = line
        failed = [model["message"] for model in result.get("models", {}).values() if not model["ok"]]
        if result.get("outcome") == "applied" and not failed:
            self._refusal = None
            return
        message = "; ".join(failed) or result.get("message") or "the model is not served"
        if first:
            raise EngineFailed(message)
        self._refusal = packed(EngineFailed(f"the new settings are not used: {message}"))
        _log.error("the new settings are not used: %s", message)

    async def stream(self, request: Request | TranscriptionRequest, caller: Caller) -> AsyncGenerator[Any, None]:
        """Yield the events of a request in lists of those that arrived together; a `RemoteError` in place of a raise.

        The first list is empty and comes at once: a gateway then knows that the request is here. Closing the iterator
        cancels the request.
        """
        yield []
        events: AsyncIterator[Sequence[Any]] = (
            self._service.transcribe(request, caller)
            if isinstance(request, TranscriptionRequest)
            else self._service.events(request, caller)
        )
        try:
            async with aclosing(coalesced(events, CHUNK_SECONDS)) as chunks:
                async for some in chunks:
                    yield some
        except Exception as error:  # noqa: BLE001 - it travels as a value
            yield self._value_of(error, request, caller)

    async def ask(self, operation: Operation | FindRefusal, caller: Caller) -> Any:
        """Return the result of any other operation, or a `RemoteError`."""
        if isinstance(operation, FindRefusal):
            return self._refusal
        try:
            return await self._service.answer(operation, caller)
        except Exception as error:  # noqa: BLE001 - it travels as a value
            return self._value_of(error, operation, caller)

    def _value_of(self, error: Exception, request: object, caller: Caller) -> RemoteError:
        """Return the failure of a request as a value. An unexpected one is logged here, and named by its request."""
        if isinstance(error, EngineFailed) and self._pool.quarantine.blames(request):
            # Another replica would lose its engine, too.
            return packed(Internal(f"the request ended the engine: {error.message}", hint=error.hint))
        if isinstance(error, MullamaError):
            return packed(error)
        _log.error("request %s failed", caller.request_id, exc_info=error)
        return packed(Internal("an internal error", hint=f"the log of the replica has {caller.request_id}"))

    def check_health(self) -> None:
        """Raise if the model is not loaded and no load is in progress. A long request is no reason."""
        for deployment in self._reconciler.current.snapshot.available:
            failure = self._pool.failure(deployment.name)
            if failure is not None and self._pool.phase(deployment.unit) not in (Phase.READY, Phase.OPENING):
                raise failure

    async def close(self) -> None:
        """Unload the model and remove the state folder."""
        await self._reconciler.stop()
        await self._peers.close()
        self._objects.close()
        await self._usage.close()
        shutil.rmtree(Path(self._records.folder), ignore_errors=True)
