"""`/v1/responses/compact`: replaces a conversation by its user messages and a summary that the model writes."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.chat.types import Answer, ToolChoice, text_message
from mullama.dialects import schema
from mullama.dialects.base import Reply, ReplyContext, ResponseRequest, WireRequest
from mullama.dialects.openai.responses.items import full_item
from mullama.dialects.openai.responses.reply import USAGE_SCHEMA, usage_of
from mullama.dialects.openai.responses.request import decode as decode_response
from mullama.dialects.openai.responses.request import resume as resume_response
from mullama.dialects.reply_values import encode_text
from mullama.dialects.stored_objects import StoredObject
from mullama.names import JSONValue
from mullama.struct import field_names, replace

_MOST_TOKENS = 1024
_INSTRUCTION = (
    "Summarize the conversation up to here. The summary replaces it: keep every fact, name, number, decision, "
    "result of a tool and open task that a later answer may need. Write the summary only."
)


class CompactRequest(ResponseRequest, frozen=True, kw_only=True):
    """A conversation to summarize."""


def decode(request: WireRequest) -> CompactRequest:
    """Decode the fields of a response that describe a conversation; those of its generation have no effect."""
    plain = decode_response(request)
    values = {name: getattr(plain, name) for name in field_names(plain)}
    made = CompactRequest(
        **{
            **values, "stream": False, "store": False, "background": False, "tools": (), "format": None,
            "tool_choice": ToolChoice(mode="none"),
            "max_tokens": _MOST_TOKENS, "think": False, "think_optional": True, "truncate": True,
        }
    )  # fmt: skip
    return made if made.needs else _asking(made)


def resume(request: CompactRequest, stored: Mapping[str, StoredObject]) -> CompactRequest:
    complete = resume_response(request, stored)
    assert isinstance(complete, CompactRequest)
    return _asking(complete)


def _asking(request: CompactRequest) -> CompactRequest:
    messages = (*request.messages, text_message("user", _INSTRUCTION))
    return replace(request, messages=messages, tool_servers=(), approvals=())


def encode(context: ReplyContext[CompactRequest, Answer]) -> Reply:
    """Return all user messages, then one item that holds the summary."""
    items = context.operation.items
    output: list[JSONValue] = [
        full_item(item, i, context.id)
        for i, item in enumerate(items)
        if item.get("type") in (None, "message") and item.get("role") == "user"
    ]
    summary = {
        "id": f"cmp_{context.id}",
        "type": "compaction",
        "encrypted_content": encode_text(context.result.choices[0].text),
    }
    return Reply(
        body={
            "id": f"resp_{context.id}",
            "object": "response.compaction",
            "created_at": int(context.created),
            "output": [*output, summary],
            "usage": usage_of(context.result.usage),
        }
    )


RESPONSE_SCHEMA = schema.exact(
    id=schema.STRING,
    object=schema.constant("response.compaction"),
    created_at=schema.COUNT,
    output=schema.listed(schema.record("type id", type=schema.STRING, id=schema.STRING)),
    usage=USAGE_SCHEMA,
)
