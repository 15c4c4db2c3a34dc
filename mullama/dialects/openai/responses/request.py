"""Decodes requests of OpenAI's `/v1/responses`, and completes them with stored responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mullama.chat.tool_servers import SEARCH_LABEL, ToolServer, function_name
from mullama.chat.types import CountRequest, Sampling, Tool, ToolChoice
from mullama.dialects import fields, schema
from mullama.dialects.base import ResponseRequest, WireRequest
from mullama.dialects.foreign_fields import llama_server_warnings
from mullama.dialects.formats import FORMAT_SCHEMA, effort, named_format
from mullama.dialects.openai.native_form import RETURN_PROGRESS, TIMINGS_PER_TOKEN
from mullama.dialects.openai.request_fields import METADATA, PROMPT_CACHE_KEY, SAFETY_IDENTIFIER, STORE, USER
from mullama.dialects.openai.responses.items import (
    INPUT_SCHEMA,
    Item,
    conversation,
    items_of,
    referenced,
)
from mullama.dialects.openai.responses.mcp import read_items, tool_servers
from mullama.dialects.openai.responses.tools import TOOLS, flat, known_tools, tool_warnings
from mullama.dialects.openai.web_search import KINDS, search_servers
from mullama.dialects.sampling import KEEP_ALIVE, MOST_TOKEN, TOP_LOGPROBS, number_field
from mullama.dialects.stored_objects import StoredObject
from mullama.dialects.tools import NAME, TOOL_CHOICE, checked_choice
from mullama.errors import Invalid, Unsupported
from mullama.names import JSONValue
from mullama.struct import replace

_MOST_CALLS = 2**31 - 1
_INSTRUCTIONS = fields.text("instructions")
_MAX_OUTPUT = fields.integer("max_output_tokens", 1, MOST_TOKEN)
_TEMPERATURE = number_field("temperature")
_TOP_P = number_field("top_p")
_PRESENCE = number_field("presence_penalty")
_FREQUENCY = number_field("frequency_penalty")
_PARALLEL = fields.flag("parallel_tool_calls")
_BACKGROUND = fields.flag("background")
_MAX_CALLS = fields.integer("max_tool_calls", 0, _MOST_CALLS)
_PREVIOUS = fields.text("previous_response_id", 256)
_TRUNCATION = fields.choice("truncation", ("auto", "disabled"))
_INCLUDE = fields.many("include", fields.to_text, schema.STRING, 64)
_SUMMARY = fields.choice("summary", ("auto", "concise", "detailed", "none"))
_FORMAT = fields.Field("format", named_format, FORMAT_SCHEMA)
_NATIVE = (RETURN_PROGRESS.name, TIMINGS_PER_TOKEN.name, _PRESENCE.name, _FREQUENCY.name)

# Fields of the request that the response object repeats.
_ECHOED = (
    "instructions", "tools", "tool_choice", "text", "reasoning", "metadata", "truncation",
    "max_output_tokens", "max_tool_calls", "background", "safety_identifier", "prompt_cache_key",
    "user", "previous_response_id", "top_logprobs", "temperature", "top_p", "presence_penalty",
    "frequency_penalty", "include", "store",
)  # fmt: skip


def decode(request: WireRequest) -> ResponseRequest:
    """Decode a conversation to continue, alone or after stored responses."""
    return _request(fields.body_of(request.body))


def decode_count(request: WireRequest) -> CountRequest:
    """Decode the same body; nothing is generated."""
    return CountRequest(chat=_request(fields.body_of(request.body)))


def _request(body: fields.Body) -> ResponseRequest:
    _check_unsupported(body)
    items = items_of(body)
    previous = body.get(_PREVIOUS)
    if not items and previous is None:
        raise Invalid("input is required", field="input")
    known, servers = known_tools(body), _servers(body.get(TOOLS) or (), items)
    tools = tuple(one.tool for one in known)
    shape = body.child("text")
    store, parallel = body.get(STORE), body.get(_PARALLEL)
    background = body.get(_BACKGROUND) or False
    if background and store is False:
        raise Invalid("background needs store: its answer is fetched later", field="store")
    needs = (*((previous,) if previous else ()), *referenced(items))
    stream = body.get(fields.STREAM) or False
    timed = stream and (body.get(TIMINGS_PER_TOKEN) or False)
    request = ResponseRequest(
        model=fields.model_named(body),
        messages=(),
        stream=stream,
        timed=timed,
        details=timed,
        progress=stream and (body.get(RETURN_PROGRESS) or False),
        sampling=_sampling(body),
        max_tokens=body.get(_MAX_OUTPUT),
        logprobs=_logprobs(body),
        format=shape.get(_FORMAT) if shape else None,
        think=_effort(body),
        think_optional=True,
        keep_alive=body.get(KEEP_ALIVE),
        user=body.first(USER, SAFETY_IDENTIFIER),
        conversation=body.get(PROMPT_CACHE_KEY),
        tools=tools,
        tool_choice=_checked_choice(body, tools, servers),
        parallel_tool_calls=True if parallel is None else parallel,
        truncate=body.get(_TRUNCATION) == "auto",
        tool_servers=servers,
        max_tool_calls=body.get(_MAX_CALLS),
        warnings=(*tool_warnings(body), *llama_server_warnings(body, "/v1/responses", read=_NATIVE)),
        needs=tuple(dict.fromkeys(needs)),
        items=items,
        previous=previous,
        store=True if store is None else store,
        background=background,
        echo=body.picked(*_ECHOED),
    )
    body.get(METADATA)
    return request if needs else _complete(request)


def _check_unsupported(body: fields.Body) -> None:
    """Raise `Unsupported` for references to stored objects, which would change the conversation."""
    for name in ("conversation", "prompt"):
        if body.has(name):
            raise Unsupported(
                f"{name} is not supported: it is not stored",
                hint="send the input itself, or previous_response_id",
                field=name,
            )


def _complete(request: ResponseRequest) -> ResponseRequest:
    """Return the request with the turns of all its items."""
    instructions = request.echo.get("instructions")
    messages = conversation(request.items, instructions if isinstance(instructions, str) else None)
    if not messages:
        raise Invalid("input contains nothing to answer", field="input")
    tools = fields.Body(request.echo).get(TOOLS) or ()
    return replace(
        request,
        messages=messages,
        approvals=read_items(request.items).pending,
        tool_servers=_servers(tools, request.items),
    )


def _servers(tools: Sequence[Item], items: Sequence[Item]) -> tuple[ToolServer, ...]:
    """Return the servers of tools that a request names, and the search of the web."""
    return (*tool_servers(tools, items), *search_servers(tools))


def _sampling(body: fields.Body) -> Sampling:
    return Sampling(
        temperature=body.get(_TEMPERATURE),
        top_p=body.get(_TOP_P),
        presence_penalty=body.get(_PRESENCE),
        frequency_penalty=body.get(_FREQUENCY),
    )


def _logprobs(body: fields.Body) -> int | None:
    included = "message.output_text.logprobs" in (body.get(_INCLUDE) or ())
    top = body.get(TOP_LOGPROBS)
    return (top or 0) if included or top else None


def _effort(body: fields.Body) -> bool | str | None:
    body.get(_INSTRUCTIONS)
    reasoning = body.child("reasoning")
    if reasoning is None:
        return None
    reasoning.get(_SUMMARY)
    return reasoning.get(effort("effort"))


def _checked_choice(body: fields.Body, tools: tuple[Tool, ...], servers: tuple[ToolServer, ...]) -> ToolChoice:
    """Return the choice. One of a server's tools is checked when they are known."""
    choice = _choice(body)
    if choice is not None and choice.server and choice.server not in {server.label for server in servers}:
        raise Invalid(f"tool_choice names {choice.server!r}, which is not among the tools", field="tool_choice")
    return choice or ToolChoice() if servers else checked_choice(choice, tools, "tool_choice")


def _choice(body: fields.Body) -> ToolChoice | None:
    value = body.raw("tool_choice")
    if isinstance(value, dict) and value.get("type") == "mcp":
        named = fields.Body(value, "tool_choice")
        label, tool = named.need(fields.text("server_label", 256)), named.get(NAME)
        names = (function_name(label, tool),) if tool else ()
        return ToolChoice(mode="required", names=names, server=label)
    if isinstance(value, dict) and value.get("type") in KINDS:
        return ToolChoice(mode="required", server=SEARCH_LABEL)
    if isinstance(value, dict) and value.get("namespace") is not None:
        named = fields.Body(value, "tool_choice")
        name = flat(named.get(fields.text("namespace", 256)), named.need(NAME))
        return ToolChoice(mode="required", names=(name,))
    return body.get(TOOL_CHOICE)


def resume(request: ResponseRequest, stored: Mapping[str, StoredObject]) -> ResponseRequest:
    """Return the request after the items of the previous response, with its references resolved."""
    before = stored[request.previous] if request.previous else None
    if before is not None and (status := before.body.get("status")) not in ("completed", "incomplete"):
        raise Invalid(f"the response {before.id} is {status}, not completed", field="previous_response_id")
    own = tuple(_resolved(item, i, stored) for i, item in enumerate(request.items))
    earlier = (*before.items, *output_of(before)) if before else ()
    complete = replace(request, items=(*earlier, *own), needs=())
    return _complete(complete)


def output_of(stored: StoredObject) -> tuple[Item, ...]:
    """Return the output items of a stored response."""
    output = stored.body.get("output")
    if not isinstance(output, list | tuple):
        return ()
    return tuple(item for item in output if isinstance(item, Mapping))


def _resolved(item: Item, index: int, stored: Mapping[str, StoredObject]) -> Item:
    if item.get("type") != "item_reference":
        return item
    for response in stored.values():
        for one in (*output_of(response), *response.items):
            if one.get("id") == item.get("id"):
                return one
    path = f"input[{index}].id"
    raise Invalid(f"{path}: there is no such item in the stored response", field=path)


def remember(request: ResponseRequest, data: JSONValue) -> StoredObject | None:
    """Return the response to store, with all its input. A failed one is stored if it was made in the background."""
    if not request.store or not isinstance(data, Mapping):
        return None
    if data.get("status") not in ("completed", "incomplete") and not request.background:
        return None
    metadata = request.echo.get("metadata")
    return StoredObject(
        id=str(data["id"]), body=data, items=request.items, model=request.model,
        metadata={str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, Mapping) else {},
    )  # fmt: skip


_FIELDS: tuple[fields.Field[object], ...] = (
    fields.MODEL,
    fields.Field("input", lambda value, path: value, INPUT_SCHEMA),
    _INSTRUCTIONS, _PREVIOUS, fields.STREAM, STORE, _BACKGROUND, TOOLS, TOOL_CHOICE, _PARALLEL, _MAX_OUTPUT, _MAX_CALLS,
    _TEMPERATURE, _TOP_P, _PRESENCE, _FREQUENCY, TOP_LOGPROBS, _TRUNCATION, _INCLUDE, METADATA,
    KEEP_ALIVE, fields.record("text"), fields.record("reasoning"), RETURN_PROGRESS, TIMINGS_PER_TOKEN,
    USER, SAFETY_IDENTIFIER, PROMPT_CACHE_KEY,
)  # fmt: skip
REQUEST_SCHEMA = fields.request_schema(*_FIELDS)
