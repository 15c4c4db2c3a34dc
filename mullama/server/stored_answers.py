"""Stored answers: completes requests that refer to them, keeps new ones, and generates responses in the background."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mullama.chat import inventory, types
from mullama.dialects.base import Endpoint, Frame, Operation, Reply, ReplyContext, ResponseRequest, text_request
from mullama.dialects.stored_objects import CancelStored, DeleteStored, FetchStored, ReplayStream, StoredObject
from mullama.errors import Internal, MullamaError, Unsupported
from mullama.names import JSONValue
from mullama.runtime.base import Service
from mullama.server.background_runs import BackgroundRun, BackgroundRuns
from mullama.server.http.exchange import Exchange
from mullama.server.http.limits import Bounds
from mullama.server.inflight import Inflight
from mullama.server.streams import replay
from mullama.struct import Struct, replace

_log = logging.getLogger(__name__)


class StoredAnswers(Struct, frozen=True, kw_only=True):
    """The part of the endpoints that stores answers, or reads stored ones."""

    service: Service
    runs: BackgroundRuns
    inflight: Inflight
    bounds: Bounds

    async def complete(self, endpoint: Endpoint, exchange: Exchange, operation: Operation) -> Operation:
        """Return the operation, completed with the stored responses that it refers to."""
        request = text_request(operation)
        if endpoint.resume is None or not isinstance(request, ResponseRequest) or not request.needs:
            return operation
        stored = {id: await self._object(FetchStored(kind="response", id=id), exchange) for id in request.needs}
        complete = endpoint.resume(request, stored)
        if isinstance(operation, types.CountRequest):
            return replace(operation, chat=complete)
        resumed: Operation = complete
        return resumed

    async def _object(self, operation: FetchStored, exchange: Exchange) -> StoredObject:
        found = await self.service.answer(operation, exchange.caller)
        if not isinstance(found, StoredObject):
            raise Internal(f"{operation.id} is not a stored object")
        return found

    async def remember(self, endpoint: Endpoint, exchange: Exchange, operation: Operation, body: JSONValue) -> None:
        """Store the reply where the endpoint keeps replies."""
        if endpoint.remember is None or body is None:
            return
        stored = endpoint.remember(operation, body)
        if stored is None:
            return
        if self.service.access().manifest.server.stored.keep == 0 and not exchange.response_started:
            exchange.warn(("store: the manifest stores no objects (server.stored.keep is 0s)",))
        try:
            await self.service.store(stored, exchange.caller)
        except MullamaError as error:  # the answer is complete, and worth more than its copy
            _log.error("request %s: the answer could not be stored: %s", exchange.request_id, error)
            if not exchange.response_started:
                exchange.warn((f"store: {error.message}",))

    async def generate(
        self, endpoint: Endpoint, exchange: Exchange, operation: ResponseRequest, context: ReplyContext[Operation, Any]
    ) -> None:
        """Begin a response in the background; reply with its stream, or with its object in the status `queued`."""
        assert endpoint.background is not None
        assert endpoint.remember is not None
        caller, settings = exchange.caller, self.service.access().manifest.server
        if settings.stored.keep == 0:
            raise Unsupported(
                "background: its answer is fetched later, and the manifest stores none",
                hint="set server.stored.keep in the manifest", field="background",
            )  # fmt: skip
        self.runs.check_room(settings.limits.concurrency + settings.limits.queue)
        await self.service.answer(inventory.ShowModel(model=operation.model), caller)  # an error has a status now
        encoder = endpoint.background(context)
        queued = encoder.at("queued")
        remember = endpoint.remember

        async def save(body: JSONValue, frames: Sequence[Frame]) -> None:
            stored = remember(operation, body)
            if stored is not None:
                events = tuple(frame.data for frame in frames) if operation.stream else None
                await self.service.store(replace(stored, events=events), caller)

        await save(queued, ())
        run = self.runs.start(str(queued["id"]), caller, encoder, self.service.events(operation, caller), save)
        if operation.stream:
            await replay(exchange, run.follow(-1), encoder, self.inflight, self.bounds)
        else:
            await exchange.reply(Reply(body=queued))

    async def answered(self, exchange: Exchange, operation: FetchStored | DeleteStored) -> bool:
        """Reply if the operation is on a response that is generated now, or on a stream.

        Return False for an operation whose reply is the result of the service. A run that it cancels has ended then.
        """
        run = self.runs.find(operation.id, exchange.caller)
        if run is not None and isinstance(operation, CancelStored | DeleteStored):
            await self.runs.cancel(run)
            return False
        if isinstance(operation, ReplayStream):
            await self._replay(exchange, operation, run)
        elif run is not None and type(operation) is FetchStored:
            await exchange.reply(Reply(body=run.body))
        else:
            return False
        return True

    async def _replay(self, exchange: Exchange, operation: ReplayStream, run: BackgroundRun | None) -> None:
        """Reply with the events of a background response after those that the client has."""
        stored = await self._object(operation, exchange)
        after = operation.starting_after
        if run is not None:
            await replay(exchange, run.follow(after), run.encoder, self.inflight, self.bounds)
        elif stored.events:
            frames = [_frame(data) for data in stored.events[after + 1 :]]
            await replay(exchange, _single_batch(frames), None, self.inflight, self.bounds)
        else:
            raise Unsupported(
                f"the response {stored.id} cannot be streamed again: it was not created with background and stream",
                hint="fetch it without stream", field="stream",
            )  # fmt: skip


def _frame(data: JSONValue) -> Frame:
    """Return the frame of a stored event, whose name is its type."""
    return Frame(data=data, event=str(data.get("type")) if isinstance(data, Mapping) else None)


async def _single_batch(frames: Sequence[Frame]) -> AsyncIterator[Sequence[Frame]]:
    yield frames
