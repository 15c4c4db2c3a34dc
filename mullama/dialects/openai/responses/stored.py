"""Endpoints of responses: create, count, compact, and for stored ones fetch, delete, cancel, list the input."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.chat.inventory import Done
from mullama.chat.types import CountRequest, TokenCount
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, WireRequest
from mullama.dialects.openai.pages import LIST_SCHEMA, PageQuery, page_of, read_page
from mullama.dialects.openai.responses import compact, reply, stream
from mullama.dialects.openai.responses.items import full_item
from mullama.dialects.openai.responses.request import REQUEST_SCHEMA, decode, decode_count, remember, resume
from mullama.dialects.stored_objects import CancelStored, DeleteStored, FetchStored, ReplayStream, StoredObject
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import field

_UNFINISHED = ("queued", "in_progress")
_LOST: JSONValue = {"code": "server_error", "message": "the server stopped before the response was complete"}


class ItemsPage(FetchStored, frozen=True, kw_only=True):
    """One page of the input items of a response."""

    page: PageQuery = field(default_factory=PageQuery)


def _id(request: WireRequest) -> str:
    return request.path.get("id", "")


def decode_fetch(request: WireRequest) -> FetchStored:
    """Decode a fetch; with `stream=true` the events of a background response after `starting_after`."""
    if request.query.get("stream", "false").lower() != "true":
        return FetchStored(kind="response", id=_id(request))
    after = request.query.get("starting_after", "-1")
    if after != "-1" and not (after.isascii() and after.isdigit() and len(after) < 16):
        raise Invalid("starting_after must be the number of an event", field="starting_after")
    return ReplayStream(kind="response", id=_id(request), starting_after=int(after))


def decode_delete(request: WireRequest) -> DeleteStored:
    return DeleteStored(kind="response", id=_id(request))


def decode_cancel(request: WireRequest) -> CancelStored:
    return CancelStored(kind="response", id=_id(request))


def decode_items(request: WireRequest) -> ItemsPage:
    return ItemsPage(kind="response", id=_id(request), page=read_page(request.query, order="desc"))


def encode_stored(context: ReplyContext[FetchStored, StoredObject]) -> Reply:
    """Return the response. One that is stored as unfinished and is not running was lost."""
    body = context.result.body
    lost = {"status": "failed", "error": _LOST} if body.get("status") in _UNFINISHED else {}
    return Reply(body={**body, **lost})


def encode_deleted(context: ReplyContext[DeleteStored, Done]) -> Reply:
    return Reply(body={"id": context.operation.id, "object": "response", "deleted": True})


def encode_items(context: ReplyContext[ItemsPage, StoredObject]) -> Reply:
    """Return one page of the input items of the response."""
    own = context.result.id.removeprefix("resp_")
    entries = [full_item(item, i, own) for i, item in enumerate(context.result.items)]
    return Reply(body=page_of(entries, context.operation.page))


def encode_count(context: ReplyContext[CountRequest, TokenCount]) -> Reply:
    return Reply(body={"object": "response.input_tokens", "input_tokens": context.result.tokens})


_DELETED: Mapping[str, JSONValue] = schema.exact(id=schema.STRING, object=schema.STRING, deleted=schema.constant(True))

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/v1/responses",
        decode=decode,
        encode=stream.encode,
        stream=stream.ResponseStream,
        background=stream.ResponseStream,
        resume=resume,
        remember=remember,
        summary="Generate a response",
        request_schema=REQUEST_SCHEMA,
        response_schema=reply.RESPONSE_SCHEMA,
    ),
    Endpoint(
        method="POST",
        path="/v1/responses/input_tokens",
        decode=decode_count,
        encode=encode_count,
        resume=resume,
        summary="Count the tokens of the input",
        request_schema=REQUEST_SCHEMA,
        response_schema=schema.exact(object=schema.STRING, input_tokens=schema.COUNT),
    ),
    Endpoint(
        method="POST",
        path="/v1/responses/compact",
        decode=compact.decode,
        encode=compact.encode,
        resume=compact.resume,
        summary="Compact a conversation to its user messages and a summary",
        request_schema=REQUEST_SCHEMA,
        response_schema=compact.RESPONSE_SCHEMA,
    ),
    Endpoint(
        method="GET",
        path="/v1/responses/{id}",
        decode=decode_fetch,
        encode=encode_stored,
        summary="Get a stored response",
        response_schema=reply.RESPONSE_SCHEMA,
    ),
    Endpoint(
        method="DELETE",
        path="/v1/responses/{id}",
        decode=decode_delete,
        encode=encode_deleted,
        summary="Delete a stored response",
        response_schema=_DELETED,
    ),
    Endpoint(
        method="POST",
        path="/v1/responses/{id}/cancel",
        decode=decode_cancel,
        encode=encode_stored,
        summary="Cancel a response",
        response_schema=reply.RESPONSE_SCHEMA,
    ),
    Endpoint(
        method="GET",
        path="/v1/responses/{id}/input_items",
        decode=decode_items,
        encode=encode_items,
        summary="List the input items of a stored response",
        response_schema=LIST_SCHEMA,
    ),
)
