"""Endpoints of stored chat completions: list, fetch, update, delete, and list the messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mullama.chat.inventory import Done
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, WireRequest
from mullama.dialects.openai.chat import ChatCall
from mullama.dialects.openai.pages import LIST_SCHEMA, PageQuery, listed, page_of, read_page
from mullama.dialects.openai.request_fields import METADATA
from mullama.dialects.stored_objects import (
    DeleteStored,
    FetchStored,
    ListStored,
    StoredObject,
    StoredPage,
    UpdateStored,
)
from mullama.names import JSONValue
from mullama.struct import field

_KIND: Final = "chat.completion"


class MessagesPage(FetchStored, frozen=True, kw_only=True):
    """One page of the messages of a chat completion's request."""

    page: PageQuery = field(default_factory=PageQuery)


def remember(request: ChatCall, data: JSONValue) -> StoredObject | None:
    """Return the object to store for a request with `store`."""
    if not request.store or not isinstance(data, Mapping):
        return None
    body = {**data, "metadata": dict(request.metadata)}
    return StoredObject(
        kind=_KIND, id=str(data["id"]), body=body, items=request.sent, model=request.model, metadata=request.metadata
    )


def decode_list(request: WireRequest) -> ListStored:
    """Decode a page with its filters: `model`, and pairs such as `metadata[topic]=weather`."""
    page = read_page(request.query, order="asc")
    wanted = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in request.query.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    return ListStored(
        kind=_KIND, limit=page.limit, after=page.after, newest_first=page.newest_first,
        model=request.query.get("model"), metadata=wanted,
    )  # fmt: skip


def _id(request: WireRequest) -> str:
    return request.path.get("id", "")


def decode_fetch(request: WireRequest) -> FetchStored:
    return FetchStored(kind=_KIND, id=_id(request))


def decode_update(request: WireRequest) -> UpdateStored:
    return UpdateStored(kind=_KIND, id=_id(request), metadata=fields.body_of(request.body).need(METADATA))


def decode_delete(request: WireRequest) -> DeleteStored:
    return DeleteStored(kind=_KIND, id=_id(request))


def decode_messages(request: WireRequest) -> MessagesPage:
    return MessagesPage(kind=_KIND, id=_id(request), page=read_page(request.query, order="asc"))


def encode_list(context: ReplyContext[ListStored, StoredPage]) -> Reply:
    return Reply(body=listed([stored.body for stored in context.result.objects], more=context.result.more))


def encode_one(context: ReplyContext[Any, StoredObject]) -> Reply:
    return Reply(body=context.result.body)


def encode_deleted(context: ReplyContext[DeleteStored, Done]) -> Reply:
    return Reply(body={"id": context.operation.id, "object": "chat.completion.deleted", "deleted": True})


def encode_messages(context: ReplyContext[MessagesPage, StoredObject]) -> Reply:
    stored = context.result
    entries = [_message(message, f"{stored.id}-{i}") for i, message in enumerate(stored.items)]
    return Reply(body=page_of(entries, context.operation.page))


def _message(message: Mapping[str, JSONValue], id: str) -> dict[str, JSONValue]:
    """Return a message of the request with an id; content in parts is repeated as text."""
    content = message.get("content")
    parts = content if isinstance(content, list | tuple) else None
    if parts is not None:
        texts = (part.get("text") for part in parts if isinstance(part, Mapping))
        content = "".join(text for text in texts if isinstance(text, str))
    return {**message, "id": id, "content": content, "content_parts": parts, "name": message.get("name")}


_STORED = schema.record("id object", id=schema.STRING, object=schema.constant("chat.completion"))

LIST = Endpoint(
    method="GET",
    path="/v1/chat/completions",
    decode=decode_list,
    encode=encode_list,
    summary="List the stored chat completions",
    response_schema=LIST_SCHEMA,
)
ENDPOINTS = (
    LIST,
    Endpoint(
        method="GET",
        path="/v1/chat/completions/{id}",
        decode=decode_fetch,
        encode=encode_one,
        summary="Get a stored chat completion",
        response_schema=_STORED,
    ),
    Endpoint(
        method="POST",
        path="/v1/chat/completions/{id}",
        decode=decode_update,
        encode=encode_one,
        summary="Replace the metadata of a stored chat completion",
        request_schema=fields.request_schema(METADATA, required="metadata"),
        response_schema=_STORED,
    ),
    Endpoint(
        method="DELETE",
        path="/v1/chat/completions/{id}",
        decode=decode_delete,
        encode=encode_deleted,
        summary="Delete a stored chat completion",
        response_schema=schema.exact(id=schema.STRING, object=schema.STRING, deleted=schema.constant(True)),
    ),
    Endpoint(
        method="GET",
        path="/v1/chat/completions/{id}/messages",
        decode=decode_messages,
        encode=encode_messages,
        summary="List the messages of a stored chat completion",
        response_schema=LIST_SCHEMA,
    ),
)
