"""Converts content blocks of Anthropic's messages to turns of the conversation vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

from mullama.chat import types
from mullama.chat.tool_servers import function_name
from mullama.dialects import fields, schema
from mullama.dialects.anthropic import web_search
from mullama.dialects.media import from_base64, from_url
from mullama.dialects.tools import MOST_MESSAGES, NAME, arguments_of
from mullama.errors import Invalid, Unsupported
from mullama.names import JSONValue
from mullama.struct import Struct, field

_MOST_BLOCKS = 4096
_ID = fields.text("id", 256)
_TEXT = fields.text("text")
_ROLES: dict[str, types.Role] = {"user": "user", "assistant": "assistant", "system": "system"}

# Calls that ran on Anthropic's servers. Only their results are useful to another model.
_SERVER_SIDE = ("server_tool_use", "redacted_thinking", "mcp_tool_listing", "container_upload", "compaction")


class _Turn(Struct):
    """Collects the blocks of a turn. Each tool result becomes a turn before it.

    The blocks before the result of a call that the server made are a turn of their own, before that result.
    """

    parts: list[types.Part] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[types.ToolCall] = field(default_factory=list)
    results: list[types.Message] = field(default_factory=list)
    searches: set[str] = field(default_factory=set)
    """The ids of the searches that have no result yet."""

    def run(self, result: types.Message) -> None:
        """Add the result of a call that the server made."""
        if self.calls or self.parts or self.thinking:
            self.results.append(_spoken("assistant", self))
        self.results.append(result)
        self.parts, self.thinking, self.calls = [], [], []


def to_message(value: JSONValue, path: str) -> tuple[types.Message, ...]:
    """Return the turns of one message: its tool results, then its other content."""
    body = fields.Body(value, path)
    role = body.raw("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise fields.unfit(body.at("role"), f"user, assistant or system, not {str(role)[:40]!r}")
    content = body.raw("content")
    turn = _Turn()
    if isinstance(content, str):
        turn.parts += [types.TextPart(text=content)] if content else []
    else:
        for block in _blocks(content, body.at("content")):
            _read(block, turn)
    turn.calls = [call for call in turn.calls if call.id not in turn.searches]
    return tuple(_turns(_ROLES[role], turn))


def _turns(role: types.Role, turn: _Turn) -> Iterator[types.Message]:
    yield from turn.results
    if turn.parts or turn.calls or turn.thinking or not turn.results:
        yield _spoken(role, turn)


def _spoken(role: types.Role, turn: _Turn) -> types.Message:
    return types.Message(
        role=role,
        content=tuple(turn.parts),
        thinking="\n".join(turn.thinking) or None,
        tool_calls=tuple(turn.calls),
    )


def _blocks(value: JSONValue, path: str) -> Iterator[fields.Body]:
    if not isinstance(value, list | tuple):
        raise fields.unfit(path, "a string or a list of content blocks")
    if len(value) > _MOST_BLOCKS:
        raise fields.unfit(path, f"a list of at most {_MOST_BLOCKS} blocks")
    return (fields.Body(block, f"{path}[{i}]") for i, block in enumerate(value))


def _read(block: fields.Body, turn: _Turn) -> None:
    match block.raw("type"):
        case "thinking":
            turn.thinking.append(block.need(fields.text("thinking")))
        case "tool_use":
            turn.calls.append(_call(block))
        case "tool_result":
            turn.results.append(_result(block))
        case "server_tool_use" if (call := web_search.call_of(block)) is not None:
            turn.calls.append(call)
            turn.searches.add(call.id)
        case "web_search_tool_result" | "web_fetch_tool_result":
            _search_result(block, turn)
        case "mcp_tool_use":
            turn.calls.append(_server_call(block))
        case "mcp_tool_result":
            turn.run(_result(block))
        case kind if kind in _SERVER_SIDE:
            pass
        case _:
            turn.parts += _parts(block)


def _search_result(block: fields.Body, turn: _Turn) -> None:
    """Add the result of a search. One of another server has no text that a model can read, only its titles."""
    id, text = block.get(_ID.named("tool_use_id")) or "", web_search.result_text(block)
    if id in turn.searches and text is not None:
        turn.searches.discard(id)
        turn.run(types.Message(role="tool", content=(types.TextPart(text=text),), tool_call_id=id))
    else:
        turn.parts += _search_results(block)


def _call(block: fields.Body) -> types.ToolCall:
    return types.ToolCall(id=block.need(_ID), name=block.need(NAME), arguments=arguments_of(block.raw("input")))


def _server_call(block: fields.Body) -> types.ToolCall:
    """Return a call of a tool of a server, by the name of its function."""
    name = function_name(block.need(NAME.named("server_name")), block.need(NAME))
    return types.ToolCall(id=block.need(_ID), name=name, arguments=arguments_of(block.raw("input")))


def _result(block: fields.Body) -> types.Message:
    """Return a tool's result. An error is marked in the text, because templates have no field for it."""
    parts = list(_content(block))
    if block.get(fields.flag("is_error")):
        parts.insert(0, types.TextPart(text="Error: "))
    return types.Message(role="tool", content=tuple(parts), tool_call_id=block.need(_ID.named("tool_use_id")))


def _content(block: fields.Body) -> Iterator[types.Part]:
    """Yield the parts of a block that contains a string or other blocks."""
    content = block.raw("content")
    if content is None:
        return
    if isinstance(content, str):
        yield types.TextPart(text=content)
        return
    for inner in _blocks(content, block.at("content")):
        yield from _parts(inner)


def _parts(block: fields.Body) -> list[types.Part]:
    """Return the text and images of a block."""
    kind = block.raw("type")
    match kind:
        case "text":
            return [types.TextPart(text=block.need(_TEXT))]
        case "image":
            return [_image(block)]
        case "document":
            return _document(block)
        case "search_result":
            head = f"{block.get(fields.text('title')) or ''} ({block.get(fields.text('source')) or ''})\n"
            return [types.TextPart(text=head), *_content(block)]
        case "web_search_tool_result":
            return _search_results(block)
        case "tool_reference":
            return [types.TextPart(text=block.get(fields.text("tool_name")) or "")]
        case _:
            raise fields.unfit(block.at("type"), f"a known type of content block, not {str(kind)[:40]!r}")


def _source(block: fields.Body) -> fields.Body:
    source = block.child("source")
    if source is None:
        raise Invalid(f"{block.at('source')} is required", field=block.at("source"))
    return source


def _image(block: fields.Body) -> types.MediaPart:
    source = _source(block)
    match source.raw("type"):
        case "base64":
            return from_base64(source.raw("data"), source.at("data"))
        case "url":
            return from_url(source.raw("url"), source.at("url"))
        case kind:
            raise Unsupported(
                f"an image from {str(kind)[:40]!r} is not supported",
                hint="send base64 or url",
                field=source.at("type"),
            )


def _document(block: fields.Body) -> list[types.Part]:
    source = _source(block)
    title = block.get(fields.text("title"))
    head: list[types.Part] = [types.TextPart(text=f"{title}\n")] if title else []
    match source.raw("type"):
        case "text":
            return [*head, types.TextPart(text=source.need(fields.text("data")))]
        case "content":
            return [*head, *_content(source)]
        case kind:
            raise Unsupported(
                f"a document from {str(kind)[:40]!r} is not supported",
                hint="send its text: source type text",
                field=source.at("type"),
            )


def _search_results(block: fields.Body) -> list[types.Part]:
    """Return the titles and addresses of a search that another server made."""
    content = block.raw("content")
    if not isinstance(content, list | tuple):
        return []
    hits = [fields.Body(hit, f"{block.at('content')}[{i}]") for i, hit in enumerate(content)]
    lines = [f"{h.get(fields.text('title')) or ''} ({h.get(fields.text('url')) or ''})" for h in hits]
    return [types.TextPart(text="\n".join(lines))] if lines else []


def _system(value: JSONValue, path: str) -> tuple[types.Part, ...]:
    """Return the system prompt: a string, or text blocks, of which each is a part."""
    if isinstance(value, str):
        return (types.TextPart(text=value),) if value else ()
    return tuple(part for block in _blocks(value, path) for part in _parts(block))


SYSTEM: fields.Field[tuple[types.Part, ...]] = fields.Field(
    "system", _system, schema.either(schema.STRING, schema.listed(schema.RECORD))
)
MESSAGE_SCHEMA = schema.record(
    "role content",
    role=schema.one_of(*_ROLES),
    content=schema.either(schema.STRING, schema.listed(schema.record("type", type=schema.STRING), most=_MOST_BLOCKS)),
)
MESSAGES = fields.many("messages", to_message, MESSAGE_SCHEMA, MOST_MESSAGES)
