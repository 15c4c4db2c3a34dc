"""The one handler of every endpoint of every dialect: body, decode, service, encode, bytes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from mullama.chat import inventory, types
from mullama.dialects.base import (
    Dialect,
    Endpoint,
    FetchResponse,
    Operation,
    ReplyContext,
    ResponseRequest,
    StaticReply,
    StoredResponse,
    StreamEvent,
    WireRequest,
)
from mullama.dialects.native import MANAGEMENT
from mullama.errors import Internal
from mullama.names import JSONValue
from mullama.runtime.base import Caller, Service
from mullama.server.http.body import BodyBudget, BodyShare, pieces, read_json
from mullama.server.http.exchange import ErrorFormat, Exchange
from mullama.server.http.limits import Bounds
from mullama.server.inflight import Inflight
from mullama.server.routes import HttpRoute, RouteSchema
from mullama.server.streams import relay


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What every endpoint needs: the runtime, the shared pool of body bytes, the list of running requests."""

    service: Service
    pool: BodyBudget
    inflight: Inflight
    bounds: Bounds
    version: str

    def routes(self, dialects: Mapping[str, Dialect]) -> list[HttpRoute]:
        """Those of the dialects, and mullama's own, which are there whatever dialects are served."""
        spoken = [
            self._route(name, dialect, endpoint) for name, dialect in dialects.items() for endpoint in dialect.endpoints
        ]
        return [*spoken, *(self._route(None, MANAGEMENT, endpoint) for endpoint in MANAGEMENT.endpoints)]

    def _route(self, name: str | None, dialect: Dialect, endpoint: Endpoint) -> HttpRoute:
        async def serve(exchange: Exchange, params: Mapping[str, str]) -> None:
            with self.pool.share() as share:
                await self._serve(endpoint, exchange, params, share)

        return HttpRoute(
            method=endpoint.method,
            path=endpoint.path,
            access=endpoint.access,
            serve=serve,
            voice=ErrorFormat(error=dialect.error, id_header=dialect.id_header, schema=dialect.error_schema),
            dialect=name,
            when=endpoint.when,
            shape=_shape(endpoint),
        )

    async def _serve(self, endpoint: Endpoint, exchange: Exchange, params: Mapping[str, str], share: BodyShare) -> None:
        request = WireRequest(path=params, query=exchange.query, headers=exchange.headers)
        if endpoint.raw:
            await self._upload(endpoint, exchange, request)
            return
        limit = self.service.access().manifest.server.limits.body
        if exchange.method in ("GET", "HEAD"):
            body, raw = None, b""
        else:
            body, raw = await read_json(exchange, share, limit=limit, bounds=self.bounds)
        operation = endpoint.decode(replace(request, body=body))
        self._note(exchange, operation, raw)
        await self._perform(endpoint, exchange, operation)

    async def _perform(self, endpoint: Endpoint, exchange: Exchange, operation: Operation) -> None:
        context = self._context(exchange, operation)
        if isinstance(operation, StaticReply):
            await exchange.reply(endpoint.encode(context))
            return
        operation = await self._resumed(endpoint, exchange, operation)
        context = replace(context, operation=operation)
        if endpoint.stream is not None and getattr(operation, "stream", False):
            encoder = endpoint.stream(context)
            stream = self._stream(operation, exchange.caller)
            remember = partial(self._remember, endpoint, exchange, operation)
            await relay(exchange, stream, encoder, self.inflight, self.bounds, remember)
            return
        async with self.inflight.lifeline(exchange):
            result = await self._result(operation, exchange.caller)
        _count(exchange, result)
        exchange.warn(getattr(result, "warnings", ()))
        reply = endpoint.encode(replace(context, result=result))
        self._remember(endpoint, exchange, operation, reply.body)
        await exchange.reply(reply)

    async def _resumed(self, endpoint: Endpoint, exchange: Exchange, operation: Operation) -> Operation:
        """The operation completed with the stored responses that it needs, where it names any."""
        if endpoint.resume is None or not isinstance(operation, ResponseRequest) or not operation.needs:
            return operation
        stored: dict[str, StoredResponse] = {}
        for id in operation.needs:
            found = await self.service.answer(FetchResponse(id=id), exchange.caller)
            if not isinstance(found, StoredResponse):
                raise Internal(f"{id} is not a stored response")
            stored[id] = found
        return endpoint.resume(operation, stored)

    def _remember(self, endpoint: Endpoint, exchange: Exchange, operation: Operation, body: JSONValue) -> None:
        if endpoint.remember is None or body is None:
            return
        stored = endpoint.remember(operation, body)
        if stored is not None:
            self.service.store_response(stored, exchange.caller)

    def _stream(self, operation: Operation, caller: Caller) -> AsyncIterator[Sequence[StreamEvent]]:
        match operation:
            case types.ChatRequest() | types.CompletionRequest():
                return self.service.events(operation, caller)
            case inventory.PullModel() | inventory.CreateModel():
                return _each_alone(self.service.tasks(operation, caller))
            case _:
                raise Internal(f"{type(operation).__name__} cannot be streamed")

    async def _result(self, operation: Operation, caller: Caller) -> Any:
        if not isinstance(operation, inventory.PullModel | inventory.CreateModel):
            return await self.service.answer(operation, caller)
        last: inventory.TaskStatus | None = None
        async with aclosing(cast(Any, self.service.tasks(operation, caller))) as statuses:
            async for status in statuses:
                last = status
        if last is None:
            raise Internal("a task ended without a status")
        return last

    async def _upload(self, endpoint: Endpoint, exchange: Exchange, request: WireRequest) -> None:
        operation = endpoint.decode(request)
        if not isinstance(operation, inventory.StoreBlob):
            raise Internal(f"{endpoint.path} takes a blob but decodes no digest")
        chunks = pieces(exchange, limit=self.bounds.upload, bounds=self.bounds)
        async with aclosing(chunks):
            new = await self.service.receive_blob(operation.digest, chunks, exchange.caller)
        done = inventory.Done(found=not new)
        await exchange.reply(endpoint.encode(replace(self._context(exchange, operation), result=done)))

    def _context(self, exchange: Exchange, operation: Operation) -> ReplyContext[Operation, Any]:
        model = exchange.notes.model
        return ReplyContext(
            operation=operation,
            result=None,
            id=exchange.id,
            created=time.time(),
            version=self.version,
            context_size=self.service.context_size(model) if model else 0,
        )

    def _note(self, exchange: Exchange, operation: Operation, raw: bytes) -> None:
        """What the log and the headers tell of an operation."""
        inner = getattr(operation, "chat", operation)
        exchange.notes.model = str(getattr(inner, "model", ""))
        exchange.warn(getattr(inner, "warnings", ()))
        if self.service.access().manifest.observability.logs.prompts:
            exchange.notes.prompt = raw.decode()


async def _each_alone(statuses: AsyncIterator[inventory.TaskStatus]) -> AsyncIterator[Sequence[StreamEvent]]:
    async with aclosing(cast(Any, statuses)):
        async for status in statuses:
            yield (status,)


def _shape(endpoint: Endpoint) -> RouteSchema:
    return RouteSchema(
        summary=endpoint.summary,
        request=endpoint.request_schema,
        response=endpoint.response_schema,
        stream=getattr(endpoint.stream, "media", None),
        raw=endpoint.raw,
    )


def _count(exchange: Exchange, result: Any) -> None:
    usage = getattr(result, "usage", None)
    if isinstance(usage, types.Usage):
        exchange.notes.prompt_tokens = usage.prompt_tokens
        exchange.notes.completion_tokens = usage.completion_tokens
