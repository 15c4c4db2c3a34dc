"""Decodes requests of OpenAI's `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.chat import types
from mullama.dialects import fields, schema
from mullama.dialects.base import Reply, ReplyContext, WireRequest
from mullama.dialects.formats import THINK, effort
from mullama.dialects.openai.messages import MESSAGES
from mullama.dialects.openai.native_form import NO_OPTIONS, ReplyOptions
from mullama.dialects.openai.request_fields import COMMON, METADATA, STORE, include_usage, read_common
from mullama.dialects.openai.web_search import OPTIONS, search_of_options
from mullama.dialects.resumable_streams import CONVERSATION_HEADER
from mullama.dialects.sampling import TOP_LOGPROBS
from mullama.dialects.tools import (
    MOST_MESSAGES,
    MOST_TOOLS,
    NAME,
    TOOL_CHOICE,
    TOOL_SCHEMA,
    checked_choice,
    function_tool,
    linked,
    unique,
)
from mullama.errors import Invalid, Unsupported
from mullama.names import JSONValue
from mullama.struct import field, replace


class ChatCall(types.ChatRequest, frozen=True, kw_only=True):
    """A conversation to continue, and options of the reply's form."""

    include_usage: bool = False
    """A stream reports its token counts."""
    inline_thinking: bool = False
    """The text contains the thinking, in tags."""
    separate_thinking: bool = True
    """A field of the message contains the thinking."""
    old_functions: bool = False
    """Calls are returned as `function_call`."""
    reply: ReplyOptions = NO_OPTIONS
    store: bool = False
    """Keep the answer."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Pairs that are stored with the answer."""
    sent: tuple[Mapping[str, JSONValue], ...] = ()
    """The messages as they were sent, for an answer that is stored."""


_LOGPROBS = fields.flag("logprobs")
_PARALLEL = fields.flag("parallel_tool_calls")
_CONTINUE = fields.flag("continue_final_message")
_GENERATION_PROMPT = fields.flag("add_generation_prompt")
_KWARGS = fields.record("chat_template_kwargs")
_ENABLE_THINKING = fields.flag("enable_thinking")
_EFFORT = effort("reasoning_effort")
_TRUNCATE = fields.flag("truncate")
_SENT = fields.many("messages", fields.to_record, schema.RECORD, MOST_MESSAGES)
_TOOLS = fields.many("tools", fields.to_record, TOOL_SCHEMA, MOST_TOOLS)
_FUNCTIONS = fields.many("functions", fields.to_record, schema.record("name", name=schema.STRING), MOST_TOOLS)

_MODALITIES = fields.many("modalities", fields.to_text, schema.STRING, 8)

CHAT_FIELDS: tuple[fields.Field[object], ...] = (
    fields.MODEL, MESSAGES, fields.STREAM, *COMMON, _TOOLS, TOOL_CHOICE, _FUNCTIONS, _PARALLEL, _LOGPROBS,
    TOP_LOGPROBS, _MODALITIES, THINK, _EFFORT, _KWARGS, _CONTINUE, _GENERATION_PROMPT,
    fields.record("stream_options"), fields.record("reasoning"), fields.record(OPTIONS), STORE, METADATA,
)  # fmt: skip
REQUEST_SCHEMA = fields.request_schema(*CHAT_FIELDS, required="messages")


def decode(request: WireRequest) -> ChatCall:
    """Decode a conversation to continue."""
    call = read_chat(fields.body_of(request.body))
    if (conversation := request.headers.get(CONVERSATION_HEADER)) is None:
        return call
    return replace(call, conversation=call.conversation or conversation)


def decode_count(request: WireRequest) -> types.CountRequest:
    return types.CountRequest(chat=read_chat(fields.body_of(request.body)))


def decode_render(request: WireRequest) -> types.RenderRequest:
    return types.RenderRequest(chat=read_chat(fields.body_of(request.body)))


def encode_count(context: ReplyContext[types.CountRequest, types.TokenCount]) -> Reply:
    return Reply(body={"object": "response.input_tokens", "input_tokens": context.result.tokens})


def encode_render(context: ReplyContext[types.RenderRequest, types.DetokenizedText]) -> Reply:
    return Reply(body={"prompt": context.result.text})


def read_chat(body: fields.Body) -> ChatCall:
    """Return the request of a chat body."""
    messages = linked(body.get(MESSAGES) or ())
    if not messages:
        raise Invalid("[] is too short - 'messages'", field="messages")
    if any(name != "text" for name in body.get(_MODALITIES) or ()):
        place = body.at("modalities")
        raise Unsupported(f'{place} must be ["text"]: answers are not spoken', hint='send ["text"]', field=place)
    tools, skipped = read_tools(body)
    common = read_common(body)
    common["warnings"] += skipped
    if body.get(_LOGPROBS):
        common["logprobs"] = body.get(TOP_LOGPROBS) or 0
    old = bool(body.get(_FUNCTIONS)) and not body.get(_TOOLS)
    parallel = False if old else body.get(_PARALLEL)
    continued = _continued(body, messages)
    kwargs = body.get(_KWARGS) or {}
    store = body.get(STORE) or False
    reasoning_format = common["reply"].reasoning_format
    return ChatCall(
        model=fields.model_named(body),
        messages=messages,
        stream=body.get(fields.STREAM) or False,
        **common,
        think=_think(body),
        think_optional=True,
        tools=tools,
        tool_choice=_tool_choice(body, tools),
        parallel_tool_calls=True if parallel is None else parallel,
        template_arguments=tuple(kwargs.items()),
        open_answer=body.get(_GENERATION_PROMPT) is not False,
        continue_final=continued,
        truncate=body.get(_TRUNCATE) or False,
        tool_servers=search_of_options(body),
        include_usage=include_usage(body),
        inline_thinking=reasoning_format in ("none", "deepseek-legacy"),
        separate_thinking=reasoning_format != "none",
        old_functions=old,
        store=store,
        metadata=(body.get(METADATA) or {}) if store else {},
        sent=(body.get(_SENT) or ()) if store else (),
    )


def _continued(body: fields.Body, messages: tuple[types.Message, ...]) -> bool:
    """Return True if the answer continues the last message; refuse what contradicts that."""
    wanted, last = body.get(_CONTINUE), messages[-1]
    if wanted and body.get(_GENERATION_PROMPT):
        raise Invalid(
            "add_generation_prompt and continue_final_message cannot both be true",
            hint="the first begins an answer, the second continues the last message",
            field="continue_final_message",
        )
    if wanted and last.role != "assistant":
        raise Invalid(
            f"continue_final_message needs a last message of the assistant, not of the role {last.role}",
            field="continue_final_message",
        )
    if wanted and last.tool_calls:
        raise Invalid(
            "a message with tool calls cannot be continued",
            hint="send the results of the calls, or set continue_final_message to false",
            field="continue_final_message",
        )
    if wanted is False or last.role != "assistant" or last.tool_calls:
        return False
    if len(messages) > 1 and messages[-2].role == "assistant":
        raise Invalid(
            f"messages[{len(messages) - 2}] and the last message are both from the assistant",
            hint="join them to one, or set continue_final_message to false",
            field=f"messages[{len(messages) - 1}]",
        )
    return True


def read_tools(body: fields.Body) -> tuple[tuple[types.Tool, ...], tuple[str, ...]]:
    """Return the functions among the tools, and a warning for each tool that only OpenAI's servers run."""
    tools: list[types.Tool] = []
    skipped: list[str] = []
    for i, value in enumerate(body.get(_TOOLS) or ()):
        one = fields.Body(value, f"tools[{i}]")
        kind = one.raw("type")
        function = one.child("function")
        if function is None and kind != "function" and kind is not None:
            skipped.append(f"tools[{i}] of type {str(kind)[:40]} was left out: only functions can be called")
        else:
            tools.append(function_tool(function or one))
    if not tools:
        found = enumerate(body.get(_FUNCTIONS) or ())
        tools = [function_tool(fields.Body(value, f"functions[{i}]")) for i, value in found]
    return unique(tools, "tools"), tuple(skipped)


def _tool_choice(body: fields.Body, tools: tuple[types.Tool, ...]) -> types.ToolChoice:
    old = body.raw("function_call")
    if old is None or body.has("tool_choice"):
        return checked_choice(body.get(TOOL_CHOICE), tools, "tool_choice")
    if isinstance(old, dict):
        name = fields.Body(old, "function_call").need(NAME)
        named = types.ToolChoice(mode="required", names=(name,))
        return checked_choice(named, tools, "function_call")
    return checked_choice(TOOL_CHOICE.convert(old, "function_call"), tools, "function_call")


def _think(body: fields.Body) -> bool | str | None:
    """Return the level of thinking from the first of its fields that is present."""
    reasoning = body.child("reasoning")
    kwargs = body.child("chat_template_kwargs")
    places = (
        body.get(_EFFORT),
        reasoning.first(effort("effort"), fields.flag("enabled")) if reasoning else None,
        body.get(THINK),
        kwargs.first(effort("reasoning_effort"), _ENABLE_THINKING) if kwargs else None,
    )
    return next((level for level in places if level is not None), None)
