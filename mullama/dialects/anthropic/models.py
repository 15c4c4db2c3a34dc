"""Anthropic's `/v1/models`, which shares its path with OpenAI's; a request header decides."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.chat.inventory import Inventory, ListModels, ModelCard, ShowModel
from mullama.dialects import schema
from mullama.dialects.base import Reply, ReplyContext, WireRequest
from mullama.dialects.reply_values import rfc3339
from mullama.errors import Invalid
from mullama.names import JSONValue

_MOST = 1000


class ListPage(ListModels, frozen=True, kw_only=True):
    """Lists one page: at most `limit` models, after or before the model of an id."""

    limit: int = 20
    after: str | None = None
    before: str | None = None


def is_anthropic(headers: Mapping[str, str]) -> bool:
    """Return True for the headers of a client of Anthropic."""
    return "anthropic-version" in headers


def _supported(supported: bool) -> dict[str, JSONValue]:
    return {"supported": supported}


def _capabilities(card: ModelCard) -> dict[str, JSONValue]:
    thinks = "thinking" in card.capabilities
    levels = {level for level in card.thinking_levels if isinstance(level, str)}
    efforts: dict[str, JSONValue] = {w: _supported(w in levels) for w in ("low", "medium", "high", "max")}
    return {
        "batch": _supported(False),
        "citations": _supported(False),
        "code_execution": _supported(False),
        "context_management": _supported(False),
        "effort": {**_supported(bool(levels)), **efforts},
        "image_input": _supported("vision" in card.capabilities),
        "pdf_input": _supported(False),
        "server_tools": {
            **_supported(False),
            "code_execution": _supported(False),
            "web_search": _supported(False),
        },
        "structured_outputs": _supported(True),
        "thinking": {
            **_supported(thinks),
            "types": {
                "adaptive": _supported(True),
                "between_tools": _supported(True),
                "disabled": _supported(True),
                "enabled": _supported(True),
            },
        },
    }


def _model(card: ModelCard) -> dict[str, JSONValue]:
    return {
        "type": "model",
        "id": card.name,
        "display_name": card.name,
        "created_at": rfc3339(card.modified),
        "lifecycle": "active",
        "max_input_tokens": card.context_size,
        "max_tokens": card.context_size,
        "capabilities": _capabilities(card),
    }


def decode_list(request: WireRequest) -> ListPage:
    limit = request.query.get("limit", "20")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:5]) <= _MOST:
        raise Invalid(f"limit must be between 1 and {_MOST}", field="limit")
    return ListPage(limit=int(limit), after=request.query.get("after_id"), before=request.query.get("before_id"))


def decode_one(request: WireRequest) -> ShowModel:
    return ShowModel(model=request.path.get("id", ""))


def encode_list(context: ReplyContext[ListPage, Inventory]) -> Reply:
    """Return one page. An unknown id is an error, because the first page would repeat without end."""
    ids = [card.name for card in context.result.models]
    first, last = 0, len(ids)
    if context.operation.after is not None:
        first = _place(context.operation.after, ids, "after_id") + 1
    if context.operation.before is not None:
        last = _place(context.operation.before, ids, "before_id")
        first = max(first, last - context.operation.limit)
    page = context.result.models[first : min(last, first + context.operation.limit)]
    more = first > 0 if context.operation.before is not None else first + len(page) < last
    return Reply(
        body={
            "data": [_model(card) for card in page],
            "has_more": more,
            "first_id": page[0].name if page else None,
            "last_id": page[-1].name if page else None,
        }
    )


def _place(id: str, ids: list[str], field: str) -> int:
    if id not in ids:
        raise Invalid(f"{field}: there is no model {id[:80]!r}", field=field)
    return ids.index(id)


def encode_one(context: ReplyContext[ShowModel, ModelCard]) -> Reply:
    """Return the model under the requested name, which may be a route to it."""
    return Reply(body={**_model(context.result), "id": context.operation.model})


MODEL_SCHEMA = schema.record(
    "type id display_name created_at",
    type=schema.constant("model"),
    id=schema.STRING,
    display_name=schema.STRING,
    created_at=schema.TIME,
    max_input_tokens=schema.COUNT,
    max_tokens=schema.COUNT,
    capabilities=schema.RECORD,
)
LIST_SCHEMA = schema.exact(
    data=schema.listed(MODEL_SCHEMA),
    has_more=schema.BOOLEAN,
    first_id=schema.nullable(schema.STRING),
    last_id=schema.nullable(schema.STRING),
)
