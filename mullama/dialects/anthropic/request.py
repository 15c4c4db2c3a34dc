"""Decodes requests of Anthropic's `/v1/messages`."""

from __future__ import annotations

from mullama.chat import types
from mullama.chat.tool_servers import ToolServer
from mullama.dialects import fields, schema
from mullama.dialects.anthropic.blocks import MESSAGES, SYSTEM
from mullama.dialects.anthropic.mcp import SERVERS, TOOLSET, tool_servers
from mullama.dialects.anthropic.web_search import most_uses, search_servers, tool_of
from mullama.dialects.base import WireRequest
from mullama.dialects.foreign_fields import llama_server_warnings
from mullama.dialects.formats import effort, json_schema
from mullama.dialects.sampling import KEEP_ALIVE, MOST_STOPS, MOST_TOKEN, STOP, integer_field, number_field
from mullama.dialects.tools import (
    DESCRIPTION,
    MOST_TOOLS,
    NAME,
    STRICT,
    checked_choice,
    linked,
    unique,
)
from mullama.errors import Invalid
from mullama.names import JSONValue

MAX_TOKENS = fields.integer("max_tokens", 0, MOST_TOKEN)
_TEMPERATURE = number_field("temperature")
_TOP_P = number_field("top_p")
_TOP_K = integer_field("top_k")
_EFFORT = effort("effort")
_PARALLEL = fields.flag("disable_parallel_tool_use")
_INPUT_SCHEMA = fields.record("input_schema")
_TOOL_SCHEMA = schema.record("name", name=schema.STRING, input_schema=schema.RECORD)
_TOOLS = fields.many("tools", fields.to_record, _TOOL_SCHEMA, MOST_TOOLS)


def _stops(value: JSONValue, path: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(value):
        raise fields.unfit(path, "a list of strings that are not empty")
    return STOP.convert(value, path)


STOP_SEQUENCES: fields.Field[tuple[str, ...]] = fields.Field(
    "stop_sequences", _stops, schema.listed(schema.STRING, most=MOST_STOPS)
)


def decode(request: WireRequest) -> types.ChatRequest:
    """Decode a conversation to continue."""
    body = fields.body_of(request.body)
    model = fields.model_named(body)
    limit = body.get(MAX_TOKENS)
    if not limit:
        raise Invalid("max_tokens is required and must be positive", field="max_tokens")
    return _chat(body, model, limit)


def decode_count(request: WireRequest) -> types.CountRequest:
    """Decode the same body without a limit; nothing is generated."""
    body = fields.body_of(request.body)
    return types.CountRequest(chat=_chat(body, fields.model_named(body), None))


def _chat(body: fields.Body, model: str, limit: int | None) -> types.ChatRequest:
    messages = _messages(body)
    declared = body.get(_TOOLS) or ()
    servers = (*tool_servers(body, declared), *search_servers(declared))
    tools, skipped = _tools(body)
    choice, parallel = _tool_choice(body, tools, servers)
    think, budget = _think(body)
    return types.ChatRequest(
        model=model,
        messages=messages,
        stream=body.get(fields.STREAM) or False,
        sampling=types.Sampling(temperature=body.get(_TEMPERATURE), top_p=body.get(_TOP_P), top_k=body.get(_TOP_K)),
        max_tokens=limit,
        stop=body.get(STOP_SEQUENCES) or (),
        format=_format(body),
        think=think,
        think_budget=budget,
        think_optional=True,
        keep_alive=body.get(KEEP_ALIVE),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        continue_final=messages[-1].role == "assistant" and not messages[-1].tool_calls,
        tool_servers=servers,
        shows_calls=bool(servers),
        max_tool_calls=most_uses(declared),
        user=_user(body),
        warnings=skipped + _ineffective(body) + llama_server_warnings(body, "/v1/messages"),
    )


def _messages(body: fields.Body) -> tuple[types.Message, ...]:
    messages = body.get(MESSAGES)
    if not messages:
        raise Invalid("messages is required", field="messages")
    system = body.get(SYSTEM)
    first = (types.Message(role="system", content=system),) if system else ()
    return linked((*first, *(turn for turns in messages for turn in turns)))


def _tools(body: fields.Body) -> tuple[tuple[types.Tool, ...], tuple[str, ...]]:
    """Return the tools with a schema, and a warning for each typed tool, which only Anthropic's models know."""
    tools: list[types.Tool] = []
    skipped: list[str] = []
    for i, value in enumerate(body.get(_TOOLS) or ()):
        one = fields.Body(value, f"tools[{i}]")
        kind = one.raw("type")
        if kind == TOOLSET or tool_of(kind) is not None:
            continue
        if kind not in (None, "custom"):
            skipped.append(f"tools[{i}] of type {str(kind)[:40]} was left out: it has no schema")
        else:
            tools.append(_tool(one))
    return unique(tools, "tools"), tuple(skipped)


def _tool(one: fields.Body) -> types.Tool:
    return types.Tool(
        name=one.need(NAME),
        description=one.get(DESCRIPTION) or "",
        parameters=one.get(_INPUT_SCHEMA),
        strict=one.get(STRICT) or False,
    )


def _tool_choice(
    body: fields.Body, tools: tuple[types.Tool, ...], servers: tuple[ToolServer, ...]
) -> tuple[types.ToolChoice, bool]:
    """Return the choice, and True where several calls at once are allowed.

    servers: those of the request, whose tools are known later.
    """
    choice = body.child("tool_choice")
    if choice is None:
        return types.ToolChoice(), True
    kind = fields.to_text(choice.raw("type"), choice.at("type"))
    match kind:
        case "auto":
            chosen = types.ToolChoice()
        case "none":
            chosen = types.ToolChoice(mode="none")
        case "any":
            chosen = types.ToolChoice(mode="required")
        case "tool":
            chosen = types.ToolChoice(mode="required", names=(choice.need(NAME),))
        case _:
            raise fields.unfit(choice.at("type"), f"auto, any, tool or none, not {kind[:40]!r}")
    return chosen if servers else checked_choice(chosen, tools, "tool_choice"), not choice.get(_PARALLEL)


def _think(body: fields.Body) -> tuple[bool | str | None, int | None]:
    """Return the level of thinking, and its most tokens."""
    output = body.child("output_config")
    level = output.get(_EFFORT) if output else None
    thinking = body.child("thinking")
    if thinking is None:
        return level, None
    kind = thinking.raw("type")
    match kind:
        case "disabled" | "between_tools":
            return False, None
        case "adaptive":
            return level, None
        case "enabled":
            budget = thinking.get(fields.integer("budget_tokens", 0, MOST_TOKEN))
            return True if level is None else level, budget
        case _:
            wanted = f"enabled, disabled or adaptive, not {str(kind)[:40]!r}"
            raise fields.unfit(thinking.at("type"), wanted)


def _format(body: fields.Body) -> types.ResponseFormat | None:
    """Return the schema of the answer, from its current or its former field."""
    output = body.child("output_config")
    form = (output.child("format") if output else None) or body.child("output_format")
    if form is None:
        return None
    if form.raw("type") != "json_schema":
        raise fields.unfit(form.at("type"), "json_schema")
    return json_schema(form.raw("schema"), form.at("schema"))


def _ineffective(body: fields.Body) -> tuple[str, ...]:
    """Return warnings for fields that have an effect on Anthropic's servers only."""
    names = ("container", "context_management")
    return tuple(f"{name} has no effect here" for name in names if body.has(name))


def _user(body: fields.Body) -> str | None:
    metadata = body.child("metadata")
    return metadata.get(fields.text("user_id", 4096)) if metadata else None


_FIELDS: tuple[fields.Field[object], ...] = (
    fields.MODEL, MESSAGES, SYSTEM, fields.STREAM, _TEMPERATURE, _TOP_P, _TOP_K, STOP_SEQUENCES, _TOOLS,
    SERVERS, KEEP_ALIVE, fields.record("tool_choice"), fields.record("thinking"), fields.record("output_config"),
    fields.record("metadata"),
)  # fmt: skip
COUNT_SCHEMA = fields.request_schema(*_FIELDS, required="messages")
REQUEST_SCHEMA = fields.request_schema(
    *_FIELDS, fields.integer("max_tokens", 1, MOST_TOKEN), required="messages max_tokens"
)
