"""The service of a gateway: chooses the model of a request as a server does, and asks one of its replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from mullama.chat import inventory as inv
from mullama.chat import types as chat
from mullama.chat.answer import Fold
from mullama.chat.transcription import Transcribed, TranscriptionRequest
from mullama.dialects import base as dialect
from mullama.dialects.resumable_streams import CancelStream, FindStreams, ResumeStream
from mullama.dialects.sessions import OpenSession
from mullama.dialects.stored_objects import DeleteStored, FetchStored, ListStored, StoredObject, UpdateStored
from mullama.errors import Denied, EngineFailed, Invalid, MullamaError, NotFound, TimedOut, Unsupported
from mullama.manifest.spec import Manifest
from mullama.runtime.base import Access, Admission, Caller
from mullama.runtime.metering import RequestResult
from mullama.runtime.metrics import Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.pool import Pool
from mullama.runtime.rates.book import RateBook
from mullama.runtime.routing import Routable, conversation_key
from mullama.runtime.serving.model_info import cards, show_card
from mullama.runtime.serving.repeats import events_until_text
from mullama.runtime.serving.tries import R, Tries, declared, default_model, first_model
from mullama.runtime.snapshot import Deployment, Snapshot
from mullama.runtime.sound.transcription import transcript_of
from mullama.struct import Struct, field, replace
from mullama.targets.ray.wire import ApplicationReplaced, RemoteError, ReplicaLost, sent, unpacked

_T = TypeVar("_T")
_TRIES = 3
"""Replicas that a request is sent to where the one before was lost before the first text."""
_ENGINES = 2
"""Replicas that a request is sent to where the engine of the one before ended twice; each restarts its engine."""
_REMOVED = "the manifest decides on the models of a cluster"


class Replicas(Protocol):
    """The replicas of applications, by the name of an application. Every failure is a `MullamaError`.

    affinity: requests with the same bytes go to the same replica while it has room.
    """

    def stream(self, application: str, request: Any, caller: Caller, affinity: bytes) -> AsyncGenerator[Any, None]:
        """Yield lists of events, or a `RemoteError`. The first list is empty: a replica has the request then.

        Closing the iterator cancels the request.
        """
        ...

    async def ask(self, application: str, operation: Any, caller: Caller, affinity: bytes) -> Any:
        """Return a result or a `RemoteError`. A cancelled wait cancels the operation."""
        ...

    async def keep(self, applications: frozenset[str]) -> None:
        """Forget the other applications when their requests end. An application may be asked for again."""
        ...


class GatewaySnapshot(Struct, frozen=True, kw_only=True):
    """The snapshot of a gateway, which is replaced as one value."""

    snapshot: Snapshot
    applications: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Model → application."""
    stack: str = ""
    limits: Manifest | None = None
    """The manifest with the part of its rate limits that this gateway counts; None before the first snapshot."""


class GatewayService:
    """Implements `runtime.base.Service` over the replicas of a cluster."""

    def __init__(self, current: Callable[[], GatewaySnapshot], replicas: Replicas, metrics: Metrics) -> None:
        self._current, self._replicas, self._metrics = current, replicas, metrics
        self._rates = RateBook(lambda: current().limits or self._snapshot().manifest, refused=metrics.rate_limited)
        self._peers = PeerBook(lambda: self._snapshot().manifest, {}, lambda *_: None)
        self._idle_pool = Pool()  # has no unit, because the models are elsewhere
        self._waiting: dict[asyncio.Timeout, str] = {}
        """The waits of requests that no replica has yet, with their applications."""

    def switched(self) -> None:
        """End the waits for applications that the snapshot has no longer: Serve answers none of them in the end.

        The requests of them that a replica has are answered there.
        """
        kept, now = frozenset(self._current().applications.values()), asyncio.get_running_loop().time()
        for wait, application in self._waiting.items():
            if application not in kept and not wait.expired():  # else it ends already
                wait.reschedule(now)

    def _snapshot(self) -> Snapshot:
        return self._current().snapshot

    def access(self) -> Access:
        return self._snapshot().access

    def context_size(self, model: str) -> int:
        return self._snapshot().context_size(model)

    def default_model(self, caller: Caller) -> str:
        return default_model(self._snapshot(), caller, self._find)

    def admit(self, operation: dialect.Operation, caller: Caller) -> Admission | None:
        if not self._rates.active:
            return None
        try:
            model = first_model(self._snapshot, self._peers, operation, caller)
        except (NotFound, Denied):  # the request itself fails with it
            return None
        return self._rates.admit(caller.key, model)

    def _find(self, name: str, caller: Caller) -> Deployment:
        return declared(self._snapshot(), name, caller)

    def _application(self, model: str) -> str:
        try:
            return self._current().applications[model]
        except KeyError:
            raise NotFound(f"model '{model}' not found", name=model) from None

    # Completions

    async def events(
        self, request: chat.ChatRequest | chat.CompletionRequest, caller: Caller
    ) -> AsyncGenerator[Sequence[chat.Event], None]:
        async with aclosing(self._streamed(request, caller)) as stream:
            async for events in stream:
                yield events

    async def transcribe(self, request: TranscriptionRequest, caller: Caller) -> AsyncGenerator[Any, None]:
        async with aclosing(self._streamed(request, caller)) as stream:
            async for events in stream:
                yield events

    async def _streamed(self, request: Any, caller: Caller) -> AsyncGenerator[Any, None]:
        """Yield the events of a request: of the next replica after one that was lost, else of the next model."""
        _check_servers(request)
        tries = Tries(self._snapshot, self._peers, request, caller, self._metrics)
        attempts = events_until_text(lambda: self._attempt(tries, caller), _again(tries))
        async with aclosing(attempts) as stream:
            async for events in stream:
                yield events

    async def _attempt(self, tries: Tries[Any], caller: Caller) -> AsyncGenerator[Any, None]:
        """Yield the events of a replica of the present model. The wait for the first ones has an end."""
        model, begun = tries.model, time.monotonic()
        # The replica knows its model by its own name, which a route or another spelling stands for.
        request = replace(tries.request, model=model)
        key = conversation_key(tries.request, caller.key)
        usage, limit = chat.Usage(), self._patience(model)
        result: RequestResult = "error"
        try:
            application = self._application(model)
            stream = self._replicas.stream(application, request, sent(tries.caller), key)
            async with aclosing(stream):
                events = await self._placed(anext(stream, None), application, model, limit)
                while events is not None:
                    if isinstance(events, RemoteError):
                        raise unpacked(events)
                    if events:
                        if limit is not None:
                            limit = None
                            self._metrics.of(model).add_first_token(time.monotonic() - begun)
                        usage = _counted(usage, events)
                        yield events
                    events = await _next(stream, limit, model)
            result = "ok"
        except (GeneratorExit, asyncio.CancelledError):
            result = "cancelled"
            raise
        finally:
            self._end(tries, usage, begun, result)

    async def _placed(self, answer: Awaitable[_T], application: str, model: str, limit: float | None) -> _T:
        """Return the first answer of a replica. Raises `ApplicationReplaced` if the model gets another application."""
        try:
            async with asyncio.timeout(limit) as wait:
                self._waiting[wait] = application
                try:
                    return await answer
                finally:
                    del self._waiting[wait]
        except TimeoutError:
            if application not in self._current().applications.values():
                raise ApplicationReplaced(f"'{model}' has another application", retry_after=1.0) from None
            raise _no_answer(model, limit) from None

    def _patience(self, model: str) -> float | None:
        """Return the seconds that a request waits for a replica, and then for its first event."""
        deployment = self._snapshot().deployments.get(model)
        return deployment.model.limits.timeout if deployment is not None else None

    def _end(self, tries: Tries[Any], usage: chat.Usage, begun: float, result: RequestResult) -> None:
        """Count an attempt that ended, and charge its tokens to the limits."""
        model, caller, seconds = tries.model, tries.caller, time.monotonic() - begun
        counts = self._metrics.of(model)
        counts.add_end(result, seconds)
        counts.prompt_tokens += usage.prompt_tokens
        counts.completion_tokens += usage.completion_tokens
        if caller.key is not None:
            self._metrics.add_request(caller.key, model, usage)
        self._rates.charge(caller.key, model, usage.prompt_tokens + usage.completion_tokens)

    # Other operations

    async def answer(self, operation: dialect.Operation, caller: Caller) -> Any:
        match operation:
            case chat.ChatRequest() | chat.CompletionRequest():
                return await self._folded(operation, caller)
            case TranscriptionRequest():
                return await transcript_of(self.transcribe(operation, caller))
            case chat.EmbedRequest() | chat.RerankRequest():
                return await self._routed(operation, caller, self._vectors)
            case chat.CountRequest() | chat.RenderRequest():
                tries = Tries(self._snapshot, self._peers, operation.chat, caller)
                inner = replace(tries.request, model=tries.model)
                return await self._asked(tries.model, replace(operation, chat=inner), tries.caller)
            case chat.TokenizeRequest() | chat.DetokenizeRequest():
                name = self._find(operation.model, caller).name
                return await self._asked(name, replace(operation, model=name), caller)
            case FetchStored() | DeleteStored() | UpdateStored() | ListStored():
                raise Unsupported("a cluster stores no objects of clients", hint="send the whole conversation")
            case dialect.StaticReply() | OpenSession() | ResumeStream() | FindStreams() | CancelStream():
                raise Invalid("this operation needs no model")
            case _:
                return await self._inventory(operation, caller)

    async def _folded(self, request: Any, caller: Caller) -> chat.Answer:
        """Return the whole answer. A replica that is lost before the end is followed by another one."""
        _check_servers(request)

        async def attempt(tries: Tries[Any]) -> chat.Answer:
            folded = Fold()
            async with aclosing(self._attempt(tries, caller)) as stream:
                async for events in stream:
                    for event in events:
                        folded.feed(event)
            return folded.answer

        return await self._routed(request, caller, attempt)

    async def _routed(self, request: R, caller: Caller, attempt: Callable[[Tries[R]], Awaitable[_T]]) -> _T:
        """Return the result of the first attempt that does not fail: on another replica, or the next model."""
        tries = Tries(self._snapshot, self._peers, request, caller, self._metrics)
        return await _repeated(lambda: attempt(tries), _again(tries))

    async def _vectors(self, tries: Tries[Any]) -> Any:
        begun, usage = time.monotonic(), chat.Usage()
        result: RequestResult = "error"
        try:
            found = await self._once(tries.model, replace(tries.request, model=tries.model), tries.caller)
            usage, result = found.usage, "ok"
            return found
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        finally:
            self._end(tries, usage, begun, result)

    async def _asked(self, model: str, operation: Any, caller: Caller) -> Any:
        """Return the result of an operation on tokens, of another replica where one is lost."""
        return await _repeated(lambda: self._once(model, operation, caller), _again())

    async def _once(self, model: str, operation: Any, caller: Caller) -> Any:
        key = conversation_key(operation, caller.key) if isinstance(operation, Routable) else b""
        application, limit = self._application(model), self._patience(model)
        answer = self._replicas.ask(application, operation, sent(caller), key)
        # It may wait as long as it may run. Its work is done again where its application is replaced before its end.
        found = await self._placed(answer, application, model, None if limit is None else 2 * limit)
        if isinstance(found, RemoteError):
            raise unpacked(found)
        return found

    async def _inventory(self, operation: Any, caller: Caller) -> dialect.Result:
        match operation:
            case inv.ListModels():
                return inv.Inventory(models=self._cards(caller))
            case inv.ListRunning():
                listed = self._cards(caller)
                return inv.Inventory(models=tuple(c for c in listed if c.name in self._snapshot().deployments))
            case inv.ShowModel():
                deployment = self._find(operation.model, caller)
                return replace(show_card(self._snapshot(), self._idle_pool, deployment), paths=())
            case inv.LoadModel():
                name = self._find(operation.model, caller).name
                if operation.keep_alive == 0:
                    raise Unsupported(f"'{name}' cannot be unloaded by a client", hint="scale bounds its replicas")
                return inv.Loaded(model=operation.model)
            case inv.FindBlob():
                return inv.Done(found=False)
            case _:
                raise Unsupported("clients change no models of a cluster", hint=_REMOVED)

    def _cards(self, caller: Caller) -> tuple[inv.ModelCard, ...]:
        found = cards(self._snapshot(), self._idle_pool, caller)
        return tuple(replace(card, paths=(), loaded=True, state="ready") for card in found)

    def tasks(self, operation: inv.PullModel | inv.CreateModel, caller: Caller) -> AsyncIterator[inv.TaskStatus]:
        raise Unsupported("clients add no models to a cluster", hint=_REMOVED)

    async def watch(self, caller: Caller) -> AsyncGenerator[inv.ModelStateReport, None]:
        for card in self._cards(caller):
            yield inv.ModelStateReport(model=card.name, state=card.state)
        await asyncio.Event().wait()  # endless, as the states of the snapshot are

    async def store(self, stored: StoredObject, caller: Caller) -> None:
        raise Unsupported("a cluster stores no objects of clients", hint="send the whole conversation")

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes], caller: Caller) -> bool:
        raise Unsupported("clients add no files to a cluster", hint=_REMOVED)


def _again(tries: Tries[Any] | None = None) -> Callable[[MullamaError, bool], bool]:
    """Return the decision on another attempt after a failure, of one request. started: the client got a part.

    After a lost replica, the next attempt asks another one; after another failure, the next model of the route.
    """
    lost = engines = 0

    def again(error: MullamaError, started: bool) -> bool:
        nonlocal lost, engines
        if isinstance(error, ApplicationReplaced):
            return True
        if isinstance(error, ReplicaLost | EngineFailed):
            lost, engines = lost + 1, engines + isinstance(error, EngineFailed)
            if lost < _TRIES and engines < _ENGINES:
                return True
        return tries is not None and not started and tries.after(error)

    return again


async def _repeated(attempt: Callable[[], Awaitable[_T]], again: Callable[[MullamaError, bool], bool]) -> _T:
    """Return the result of the first attempt that does not fail."""
    while True:
        try:
            return await attempt()
        except MullamaError as error:
            if not again(error, False):
                raise


async def _next(stream: AsyncGenerator[Any, None], limit: float | None, model: str) -> Any:
    """Return the next events of a stream, None at its end. Raises `TimedOut` after `limit` seconds."""
    if limit is None:
        return await anext(stream, None)
    try:
        async with asyncio.timeout(limit):
            return await anext(stream, None)
    except TimeoutError:
        raise _no_answer(model, limit) from None


def _no_answer(model: str, limit: float | None) -> TimedOut:
    return TimedOut(f"no replica of '{model}' began to answer in {limit or 0:g} s")


def _counted(usage: chat.Usage, events: Sequence[Any]) -> chat.Usage:
    """Return the tokens so far. A replica reports them at the end; until then each piece of text is taken for one."""
    for event in events:
        match event:
            case chat.Started():
                usage = replace(usage, prompt_tokens=event.prompt_tokens)
            case chat.TextDelta() | chat.ThinkingDelta():
                usage = replace(usage, completion_tokens=usage.completion_tokens + 1)
            case chat.Completed() | Transcribed():
                usage = event.usage
            case _:
                pass
    return usage


def _check_servers(request: Any) -> None:
    """Raise `Unsupported` for a request that needs servers of tools, or a search of the web."""
    servers = request.tool_servers if isinstance(request, chat.ChatRequest) else ()
    if needed := [server for server in servers if not server.optional]:
        place = needed[0].place
        raise Unsupported(
            f"{place} names a server of tools, and a cluster calls no tools",
            hint="a server of one machine calls them", field=place,
        )  # fmt: skip
