"""The handler of every endpoint of every dialect: reads the body, decodes, calls the service, encodes, sends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, cast

from mullama.chat import inventory, types
from mullama.chat.transcription import Transcript, TranscriptionRequest
from mullama.dialects.base import (
    Dialect,
    Endpoint,
    Operation,
    Reply,
    ReplyContext,
    ResponseRequest,
    StaticReply,
    Streamed,
    StreamEncoder,
    StreamEvent,
    WireRequest,
    is_streamed,
    model_of,
    size_of,
    text_request,
    with_model,
)
from mullama.dialects.native import MANAGEMENT
from mullama.dialects.resumable_streams import (
    CONVERSATION_HEADER,
    CancelStream,
    FindStreams,
    ResumableOperation,
    ResumeStream,
)
from mullama.dialects.sessions import OpenSession
from mullama.dialects.stored_objects import DeleteStored, FetchStored
from mullama.errors import Internal
from mullama.offload import LARGE, compute
from mullama.runtime.base import Caller, SentRequest, Service
from mullama.server.http.body import BodyBudget, BodyShare, parse_body, pieces, read_body
from mullama.server.http.exchange import ErrorFormat, Exchange, to_body
from mullama.server.http.form import read_form
from mullama.server.http.limits import Bounds
from mullama.server.inflight import Inflight
from mullama.server.route_table import HttpRoute, RouteSchema
from mullama.server.sessions import Sessions
from mullama.server.stored_answers import StoredAnswers
from mullama.server.stream_keeper import StreamKeeper
from mullama.server.streams import relay
from mullama.struct import Struct, replace

_LIMITED = (
    types.TextRequest
    | types.EmbedRequest
    | types.RerankRequest
    | types.CountRequest
    | types.RenderRequest
    | types.TokenizeRequest
    | types.DetokenizeRequest
    | TranscriptionRequest
)
"""The operations that count as requests of the rate limits."""


class Endpoints(Struct, frozen=True, kw_only=True):
    """Handles the requests to the dialects' endpoints."""

    service: Service
    pool: BodyBudget
    forms: BodyBudget
    inflight: Inflight
    bounds: Bounds
    version: str
    sessions: Sessions
    stored: StoredAnswers
    kept: StreamKeeper

    def routes(self, dialects: Mapping[str, Dialect]) -> list[HttpRoute]:
        """Return the routes of the dialects, and mullama's own, which every configuration of dialects keeps."""
        return [
            *(
                self._route(name, dialect, endpoint)
                for name, dialect in dialects.items()
                for endpoint in dialect.endpoints
            ),
            *(self._route(None, MANAGEMENT, endpoint) for endpoint in MANAGEMENT.endpoints),
        ]

    def _route(self, name: str | None, dialect: Dialect, endpoint: Endpoint) -> HttpRoute:
        return HttpRoute(
            method=endpoint.method,
            path=endpoint.path,
            access=endpoint.access,
            handler=partial(self.handle, endpoint),
            error_format=ErrorFormat(
                error=dialect.error,
                id_header=dialect.id_header,
                schema=dialect.error_schema,
                rate_headers=dialect.rate_headers,
            ),
            dialect=name,
            when=endpoint.when,
            schema=_schema(endpoint),
        )

    async def handle(self, endpoint: Endpoint, exchange: Exchange, params: Mapping[str, str]) -> None:
        """Serve one request to this endpoint."""
        request = WireRequest(path=params, query=exchange.query, headers=exchange.headers)
        if endpoint.raw:
            await self._upload(endpoint, exchange, request)
            return
        if endpoint.form:
            limits = self.service.access().manifest.server.limits
            with self.forms.share() as share:
                async with read_form(exchange, share, limit=limits.media.sound, bounds=self.bounds) as form:
                    await self._serve(endpoint, exchange, endpoint.decode(replace(request, **form)), b"")
            return
        # The share is held to the end, because the decoded request refers to the body's text.
        with self.pool.share() as share:
            raw = await self._read_body(exchange, share)
            self._keep_for_captures(exchange, raw)
            decoded = await compute(len(raw), self._decode, endpoint, request, raw)
            await self._serve(endpoint, exchange, decoded, raw)

    async def _serve(self, endpoint: Endpoint, exchange: Exchange, decoded: Operation, raw: bytes) -> None:
        """Answer the operation of a request. raw: its body, for the log; b"" for a form."""
        operation = self._named(decoded, exchange.caller)
        self._take_notes(exchange, operation, raw)
        self._admit(exchange, operation)
        if isinstance(operation, OpenSession):
            await self.sessions.serve(endpoint, exchange, operation)
            return
        operation = await self.stored.complete(endpoint, exchange, operation)
        context = self._context(exchange, operation)
        if isinstance(operation, StaticReply):
            await exchange.reply(endpoint.encode(context))
        elif isinstance(operation, ResponseRequest) and operation.background and endpoint.background:
            await self.stored.generate(endpoint, exchange, operation, context)
        elif isinstance(operation, FetchStored | DeleteStored):
            if not await self.stored.answered(exchange, operation):
                await self._answer(endpoint, exchange, context)
        elif isinstance(operation, ResumableOperation):
            await self._resumable(endpoint, exchange, operation, context)
        elif endpoint.stream is not None and is_streamed(operation):
            await self._stream(endpoint, exchange, operation, endpoint.stream(context))
        else:
            await self._answer(endpoint, exchange, context)

    def _named(self, operation: Operation, caller: Caller) -> Operation:
        """Return the operation with the name of the default model if its request names none."""
        if model_of(operation) != "":
            return operation
        named: Operation = with_model(operation, self.service.default_model(caller))
        return named

    def _admit(self, exchange: Exchange, operation: Operation) -> None:
        """Apply the rate limits to an operation that computes; raise `Busy` for one that is refused."""
        if not isinstance(operation, _LIMITED):
            return
        admission = self.service.admit(operation, exchange.caller)
        if admission is None:
            return
        exchange.extra |= exchange.error_format.rate_headers(admission.report, time.time())
        if admission.refusal is not None:
            raise admission.refusal

    def _keep_for_captures(self, exchange: Exchange, raw: bytes) -> None:
        captures = self.service.access().manifest.observability.captures
        if captures is not None and captures.bodies != "none" and raw:
            query = exchange.scope["query_string"].decode("latin-1")
            sent = SentRequest(path=f"{exchange.path}?{query}" if query else exchange.path, body=raw)
            exchange.caller = replace(exchange.caller, sent=sent)

    async def _read_body(self, exchange: Exchange, share: BodyShare) -> bytes:
        if exchange.method in ("GET", "HEAD"):
            return b""
        limit = self.service.access().manifest.server.limits.body
        return await read_body(exchange, share, limit=limit, bounds=self.bounds)

    def _decode(self, endpoint: Endpoint, request: WireRequest, raw: bytes) -> Operation:
        return endpoint.decode(replace(request, body=parse_body(raw, self.bounds.depth)))

    async def _answer(self, endpoint: Endpoint, exchange: Exchange, context: ReplyContext[Operation, Any]) -> None:
        """Reply with the complete result."""
        async with self.inflight.track(exchange):
            result = await self._result(context.operation, exchange.caller)
        _note_usage(exchange, result)
        if isinstance(result, types.Answer):
            exchange.warn(result.warnings)
            exchange.answered_by(result.effective.model if result.effective else "")
        elif isinstance(result, types.Vectors | types.Ranking | Transcript):
            exchange.answered_by(result.answered_by)
        size = size_of(result)
        reply, body = await compute(size, self._encode, endpoint, replace(context, result=result), size)
        await self.stored.remember(endpoint, exchange, context.operation, reply.body)
        await exchange.reply(reply, body)

    def _encode(
        self, endpoint: Endpoint, context: ReplyContext[Operation, Any], size: int
    ) -> tuple[Reply, tuple[bytes, str]]:
        reply = endpoint.encode(context)
        return reply, to_body(reply, large=size >= LARGE)

    # Streams

    async def _stream(
        self, endpoint: Endpoint, exchange: Exchange, operation: Streamed, encoder: StreamEncoder
    ) -> None:
        """Reply with the stream of an operation, which is kept if its client may take it up again."""

        async def answer(exchange: Exchange) -> None:
            events = self._events(operation, exchange.caller)
            remember = partial(self.stored.remember, endpoint, exchange, operation)
            await relay(exchange, events, encoder, self.inflight, self.bounds, remember)

        conversation = exchange.headers.get(CONVERSATION_HEADER)
        if not conversation or encoder.media != "text/event-stream" or text_request(operation) is None:
            await answer(exchange)
        elif not self.kept.keeps:
            exchange.warn((f"{CONVERSATION_HEADER}: the manifest keeps no streams (server.resumable.keep is 0s)",))
            await answer(exchange)
        else:
            await self.kept.send(exchange, self.kept.start(conversation, exchange, answer), 0, self.inflight)

    async def _resumable(
        self,
        endpoint: Endpoint,
        exchange: Exchange,
        operation: ResumableOperation,
        context: ReplyContext[Operation, Any],
    ) -> None:
        """Reply to an operation on kept streams."""
        match operation:
            case ResumeStream(offset=offset):
                await self.kept.send(exchange, self.kept.find(operation, exchange.caller), offset, self.inflight)
            case FindStreams():
                found = self.kept.look_up(operation, exchange.caller)
                await exchange.reply(endpoint.encode(replace(context, result=found)))
            case CancelStream():
                self.kept.cancel(operation, exchange.caller)
                await exchange.reply(endpoint.encode(context))

    def _events(self, operation: Streamed, caller: Caller) -> AsyncIterator[Sequence[StreamEvent]]:
        match operation:
            case types.ChatRequest() | types.CompletionRequest():
                return self.service.events(operation, caller)
            case TranscriptionRequest():
                return self.service.transcribe(operation, caller)
            case inventory.PullModel() | inventory.CreateModel():
                return _single(self.service.tasks(operation, caller))
            case inventory.WatchModels():
                return _single(self.service.watch(caller))

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
        """Write the body to the blob store as it arrives."""
        operation = endpoint.decode(request)
        if not isinstance(operation, inventory.StoreBlob):
            raise Internal(f"{endpoint.path} accepts a blob and decodes no digest")
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

    def _take_notes(self, exchange: Exchange, operation: Operation, raw: bytes) -> None:
        """Keep the parts of an operation that the log line and the headers show."""
        exchange.notes.model = model_of(operation) or ""
        if (text := text_request(operation)) is not None:
            exchange.warn(text.warnings)
        elif isinstance(operation, TranscriptionRequest):
            exchange.warn(operation.warnings)
        if self.service.access().manifest.observability.logs.prompts:
            exchange.notes.prompt = raw.decode()


async def _single(statuses: AsyncIterator[StreamEvent]) -> AsyncIterator[Sequence[StreamEvent]]:
    async with aclosing(cast(Any, statuses)):
        async for status in statuses:
            yield (status,)


def _schema(endpoint: Endpoint) -> RouteSchema:
    return RouteSchema(
        summary=endpoint.summary,
        request=endpoint.request_schema,
        response=endpoint.response_schema,
        stream=getattr(endpoint.stream, "media", None),
        raw=endpoint.raw,
        form=endpoint.form,
    )


def _note_usage(exchange: Exchange, result: Any) -> None:
    if isinstance(result, types.Answer | types.Vectors | types.Ranking | Transcript):
        exchange.notes.prompt_tokens = result.usage.prompt_tokens
        exchange.notes.completion_tokens = result.usage.completion_tokens
