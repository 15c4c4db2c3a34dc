"""Ollama's `/api/chat`: conversations, complete and streamed."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.chat import types
from mullama.chat.inventory import Loaded, LoadModel
from mullama.chat.media import MOST_MEDIA
from mullama.chat.tool_servers import search_server
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Frame, Reply, ReplyContext, StreamEvent, WireRequest
from mullama.dialects.formats import THINK
from mullama.dialects.media import from_base64, image_part, sound_part
from mullama.dialects.ollama.ndjson import (
    HEAD_SCHEMA,
    METRICS_SCHEMA,
    LineStream,
    done_reason,
    head,
    metrics,
    rendered,
    tool_call,
)
from mullama.dialects.ollama.options import (
    FORMAT,
    GENERATION,
    RENDER_ONLY,
    TRUNCATE,
    read_logprobs,
    read_options,
    shift_warning,
)
from mullama.dialects.reply_values import logprob_entries
from mullama.dialects.sampling import KEEP_ALIVE
from mullama.dialects.tools import (
    CALL_SCHEMA,
    MOST_MESSAGES,
    MOST_TOOLS,
    TOOL_CHOICE,
    TOOL_SCHEMA,
    checked_choice,
    function_call,
    function_tool,
    linked,
    unique,
)
from mullama.names import JSONValue

_ROLES: dict[str, types.Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
IMAGES = fields.many("images", from_base64, schema.STRING, MOST_MEDIA)
_TOOL_CALLS = fields.many("tool_calls", function_call, CALL_SCHEMA, MOST_TOOLS)


def _part(value: JSONValue, path: str) -> types.Part:
    """Return a content part in OpenAI's form, which clients of Ollama send too."""
    body = fields.Body(value, path)
    match body.raw("type"):
        case "text":
            return types.TextPart(text=body.need(fields.text("text")))
        case "image_url":
            return image_part(body)
        case "input_audio":
            return sound_part(body)
        case kind:
            raise fields.unfit(body.at("type"), f"text, image_url or input_audio, not {str(kind)[:40]!r}")


def _content(value: JSONValue, path: str) -> tuple[types.Part, ...]:
    if isinstance(value, str):
        return (types.TextPart(text=value),) if value else ()
    if not isinstance(value, list | tuple):
        raise fields.unfit(path, "a string or a list of parts")
    return tuple(_part(part, f"{path}[{i}]") for i, part in enumerate(value))


CONTENT: fields.Field[tuple[types.Part, ...]] = fields.Field(
    "content", _content, schema.either(schema.STRING, schema.listed(schema.RECORD))
)


def message(value: JSONValue, path: str) -> types.Message:
    """Return one turn of the conversation."""
    body = fields.Body(value, path)
    name = fields.to_text(body.raw("role"), body.at("role")).lower()
    role = _ROLES.get(name)
    if role is None:
        raise fields.unfit(body.at("role"), f"one of {', '.join(_ROLES)}, not {name[:40]!r}")
    result = role == "tool"
    return types.Message(
        role=role,
        content=(body.get(IMAGES) or ()) + (body.get(CONTENT) or ()),
        thinking=body.get(fields.text("thinking")) or None,
        tool_calls=(body.get(_TOOL_CALLS) or ()) if role == "assistant" else (),
        tool_call_id=body.get(fields.text("tool_call_id")) if result else None,
        tool_name=body.first(fields.text("tool_name"), fields.text("name")) if result else None,
    )


def _tool(value: JSONValue, path: str) -> types.Tool:
    body = fields.Body(value, path)
    return function_tool(body.child("function") or body)


MESSAGE_SCHEMA = schema.record(
    "role",
    role=schema.STRING,
    content=schema.nullable(schema.either(schema.STRING, schema.listed(schema.RECORD))),
    thinking=schema.nullable(schema.STRING),
    images=schema.nullable(schema.listed(schema.STRING, most=MOST_MEDIA)),
    tool_calls=schema.nullable(schema.listed(CALL_SCHEMA)),
    tool_name=schema.nullable(schema.STRING),
    tool_call_id=schema.nullable(schema.STRING),
)
MESSAGES = fields.many("messages", message, MESSAGE_SCHEMA, MOST_MESSAGES)
WEB_SEARCH = fields.flag("web_search")
"""A field of mullama: let the model search the web."""
_TOOLS = fields.many("tools", _tool, TOOL_SCHEMA, MOST_TOOLS)


def decode(request: WireRequest) -> types.ChatRequest | LoadModel | types.RenderRequest:
    """Decode a conversation to continue; without messages, a load or unload of the model."""
    body = fields.body_of(request.body)
    model = fields.model_named(body)
    messages = linked(body.get(MESSAGES) or ())
    if not messages:
        return LoadModel(model=model, keep_alive=body.get(KEEP_ALIVE))
    options = read_options(body)
    tools = unique(body.get(_TOOLS) or (), "tools")
    stream = body.get(fields.STREAM)
    truncate = body.get(TRUNCATE)
    chat = types.ChatRequest(
        model=model,
        messages=messages,
        stream=True if stream is None else stream,
        sampling=options.sampling,
        max_tokens=options.max_tokens,
        stop=options.stop,
        logprobs=read_logprobs(body),
        format=body.get(FORMAT),
        think=body.get(THINK),
        keep_alive=body.get(KEEP_ALIVE),
        context_size=options.context_size,
        draft=options.draft,
        tools=tools,
        tool_choice=checked_choice(body.get(TOOL_CHOICE), tools, "tool_choice"),
        continue_final=messages[-1].role == "assistant" and not messages[-1].tool_calls,
        truncate=True if truncate is None else truncate,
        tool_servers=(search_server("web_search", optional=False),) if body.get(WEB_SEARCH) else (),
        warnings=options.warnings + shift_warning(body),
    )
    return types.RenderRequest(chat=chat) if body.get(RENDER_ONLY) else chat


def _message(choice: types.Choice) -> dict[str, JSONValue]:
    calls: list[JSONValue] = [tool_call(i, call) for i, call in enumerate(choice.tool_calls)]
    return {
        "role": "assistant",
        "content": choice.text,
        **({"thinking": choice.thinking} if choice.thinking else {}),
        **({"tool_calls": calls} if calls else {}),
    }


def encode(
    context: ReplyContext[
        types.ChatRequest | LoadModel | types.RenderRequest, types.Answer | Loaded | types.DetokenizedText
    ],
) -> Reply:
    """Return the complete answer as one object."""
    if isinstance(context.operation, types.RenderRequest):
        assert isinstance(context.result, types.DetokenizedText)
        return rendered(context.operation, context.result.text, context.created)
    assert not isinstance(context.result, types.DetokenizedText)
    first = head(context.operation.model, context.created)
    match context.result:
        case Loaded():
            empty: JSONValue = {"role": "assistant", "content": ""}
            reason = "unload" if context.result.unloaded else "load"
            return Reply(body={**first, "message": empty, "done": True, "done_reason": reason})
        case types.Answer():
            choice = context.result.choices[0]
            tokens = logprob_entries(choice.logprobs)
            return Reply(
                body={
                    **first,
                    "message": _message(choice),
                    **({"logprobs": tokens} if tokens else {}),
                    "done": True,
                    "done_reason": done_reason(choice.reason),
                    **metrics(context.result.usage, context.result.timings),
                }
            )


class OllamaChatStream(LineStream):
    """Writes one NDJSON line for each piece of text and each complete tool call; the last line has the metrics."""

    def __init__(self, context: ReplyContext[types.ChatRequest, None]) -> None:
        self._head = head(context.operation.model, context.created)
        self._reason = types.StopReason.STOP
        self._joints = types.PieceJoiner()

    def _line(self, message: dict[str, JSONValue], **more: JSONValue) -> Frame:
        complete: JSONValue = {"role": "assistant", "content": "", **message}
        return Frame(data={**self._head, "message": complete, **more, "done": False})

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        match event:
            case types.TextDelta() | types.ThinkingDelta():
                thinking = isinstance(event, types.ThinkingDelta)
                text = self._joints.piece(event.text, thinking=thinking)
                more: dict[str, JSONValue] = {"logprobs": logprob_entries(event.logprobs)} if event.logprobs else {}
                return (self._line({"thinking" if thinking else "content": text}, **more),)
            case types.ToolCallFinished():
                self._joints.call()
                return (self._line({"tool_calls": [tool_call(event.index, event.call)]}),)
            case types.ToolStarted():
                self._joints.call()
            case types.Finished():
                self._reason = event.reason
            case types.Completed() if not self._ended:
                self._ended = True
                return (self._last(event),)
            case _:
                pass
        return ()

    def _last(self, event: types.Completed) -> Frame:
        return Frame(
            data={
                **self._head,
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": done_reason(self._reason),
                **metrics(event.usage, event.timings),
            }
        )


CHAT_FIELDS: tuple[fields.Field[object], ...] = (
    fields.MODEL, MESSAGES, fields.STREAM, _TOOLS, TOOL_CHOICE, WEB_SEARCH, *GENERATION,
)  # fmt: skip

RESPONSE_SCHEMA = schema.record(
    "model created_at",
    **HEAD_SCHEMA,
    message=schema.record(
        "role content",
        role=schema.constant("assistant"),
        content=schema.STRING,
        thinking=schema.STRING,
        tool_calls=schema.listed(CALL_SCHEMA),
    ),
    **METRICS_SCHEMA,
)

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/api/chat",
        decode=decode,
        encode=encode,
        stream=OllamaChatStream,
        summary="Generate a chat completion; without messages, load or unload the model",
        request_schema=fields.request_schema(*CHAT_FIELDS),
        response_schema=RESPONSE_SCHEMA,
    ),
)
