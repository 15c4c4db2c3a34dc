"""Endpoints of responses: create, count, and for stored ones fetch, delete, cancel, list the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mullama.chat.inventory import Done
from mullama.chat.types import CountRequest, TokenCount
from mullama.dialects import schema
from mullama.dialects.base import (
    CancelResponse,
    DeleteResponse,
    Endpoint,
    FetchResponse,
    ListResponseItems,
    Reply,
    ReplyContext,
    StoredResponse,
    WireRequest,
)
from mullama.dialects.openai.responses import reply, stream
from mullama.dialects.openai.responses.items import Item
from mullama.dialects.openai.responses.request import REQUEST_SCHEMA, decode, decode_count, remember, resume
from mullama.errors import Invalid, NotFound, Unsupported
from mullama.names import JSONValue

_MOST = 100
_PREFIXES = {"function_call": "fc", "reasoning": "rs", "custom_tool_call": "ctc"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsPage(ListResponseItems):
    """Lists one page of the items: `limit` items after an id, in an order."""

    limit: int = 20
    after: str | None = None
    newest_first: bool = True


def _id(request: WireRequest) -> str:
    return request.path.get("id", "")


def decode_fetch(request: WireRequest) -> FetchResponse:
    if request.query.get("stream", "false").lower() == "true":
        raise Unsupported("a stored response cannot be streamed again", hint="fetch it without stream", field="stream")
    return FetchResponse(id=_id(request))


def decode_delete(request: WireRequest) -> DeleteResponse:
    return DeleteResponse(id=_id(request))


def decode_cancel(request: WireRequest) -> CancelResponse:
    return CancelResponse(id=_id(request))


def decode_items(request: WireRequest) -> ItemsPage:
    limit, order = request.query.get("limit", "20"), request.query.get("order", "desc")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:5]) <= _MOST:
        raise Invalid(f"limit must be between 1 and {_MOST}", field="limit")
    if order not in ("asc", "desc"):
        raise Invalid("order must be asc or desc", field="order")
    return ItemsPage(
        id=_id(request),
        limit=int(limit),
        after=request.query.get("after"),
        newest_first=order == "desc",
    )


def encode_stored(context: ReplyContext[FetchResponse | CancelResponse, StoredResponse]) -> Reply:
    return Reply(body=context.result.body)


def encode_deleted(context: ReplyContext[DeleteResponse, Done]) -> Reply:
    if not context.result.found:
        raise NotFound(f"there is no stored response {context.operation.id[:80]!r}", name=context.operation.id)
    return Reply(body={"id": context.operation.id, "object": "response", "deleted": True})


def _listed(item: Item, index: int, response: str) -> dict[str, JSONValue]:
    """Return the item with an id, in its full form."""
    kind = item.get("type") or "message"
    prefix = _PREFIXES.get(str(kind), "msg")
    full: dict[str, JSONValue] = {
        "id": f"{prefix}_{response.removeprefix('resp_')}_in{index:x}",
        "type": kind,
        "status": "completed",
    }
    complete = {**full, **item}
    content = complete.get("content")
    if kind == "message" and isinstance(content, str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        complete["content"] = [{"type": part, "text": content}]
    return complete


def encode_items(context: ReplyContext[ItemsPage, StoredResponse]) -> Reply:
    """Return one page of the input items of the response."""
    items = [_listed(item, i, context.result.id) for i, item in enumerate(context.result.items)]
    if context.operation.newest_first:
        items.reverse()
    ids = [item["id"] for item in items]
    if context.operation.after is not None and context.operation.after not in ids:
        raise Invalid(f"after: there is no item {context.operation.after[:80]!r}", field="after")
    first = ids.index(context.operation.after) + 1 if context.operation.after is not None else 0
    page = items[first : first + context.operation.limit]
    return Reply(
        body={
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": first + len(page) < len(items),
        }
    )


def encode_count(context: ReplyContext[CountRequest, TokenCount]) -> Reply:
    return Reply(body={"object": "response.input_tokens", "input_tokens": context.result.tokens})


_ITEMS_SCHEMA = schema.exact(
    object=schema.constant("list"),
    data=schema.listed(schema.RECORD),
    first_id=schema.nullable(schema.STRING),
    last_id=schema.nullable(schema.STRING),
    has_more=schema.BOOLEAN,
)
_DELETED: Mapping[str, JSONValue] = schema.exact(id=schema.STRING, object=schema.STRING, deleted=schema.constant(True))

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/v1/responses",
        decode=decode,
        encode=stream.encode,
        stream=stream.ResponseStream,
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
        summary="Count the tokens of the input",
        request_schema=REQUEST_SCHEMA,
        response_schema=schema.exact(object=schema.STRING, input_tokens=schema.COUNT),
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
        response_schema=_ITEMS_SCHEMA,
    ),
)
