"""The search of the web in Anthropic's messages: its tools in a request, and the blocks and citations of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from mullama.chat import types
from mullama.chat.citations import cited
from mullama.chat.tool_servers import SEARCH_LABEL, ToolServer, function_name, search_server
from mullama.dialects import fields, schema
from mullama.dialects.fields import Body
from mullama.dialects.reply_values import ENCODED, decode_text, encode_text, prefixed
from mullama.names import JSONValue

_TOOLS: Final = {"web_search": "search", "web_fetch": "fetch_page"}
"""Tools of the search by Anthropic's names."""
_NAMES: Final = {tool: name for name, tool in _TOOLS.items()}
_DOMAINS = fields.to_text, schema.STRING, 100
_ALLOWED = fields.many("allowed_domains", *_DOMAINS)
_BLOCKED = fields.many("blocked_domains", *_DOMAINS)
_MOST_USES = fields.integer("max_uses", 1, 2**31 - 1)
_MOST_QUOTED: Final = 150
"""Characters of `cited_text`, as at Anthropic."""


def tool_of(kind: object) -> str | None:
    """Return the tool of a type such as `web_search_20250305`; None for another type."""
    if not isinstance(kind, str):
        return None
    return next((tool for name, tool in _TOOLS.items() if kind.startswith(f"{name}_")), None)


def search_servers(tools: Iterable[Mapping[str, JSONValue]]) -> tuple[ToolServer, ...]:
    """Return the tools of the search that a request asks for."""
    bodies = (Body(value, f"tools[{i}]") for i, value in enumerate(tools))
    found: dict[str, ToolServer] = {}
    for body in bodies:
        if (tool := tool_of(body.raw("type"))) is not None:
            server = search_server(
                body.path, only=(tool,), within=body.get(_ALLOWED) or (), outside=body.get(_BLOCKED) or ()
            )
            found.setdefault(tool, server)
    return tuple(found.values())


def most_uses(tools: Iterable[Mapping[str, JSONValue]]) -> int | None:
    """Return the sum of `max_uses` of these tools; None where one of them has no limit."""
    bodies = (Body(value, f"tools[{i}]") for i, value in enumerate(tools))
    uses = [body.get(_MOST_USES) for body in bodies if tool_of(body.raw("type")) is not None]
    limits = [count for count in uses if count is not None]
    return sum(limits) if limits and len(limits) == len(uses) else None


# Blocks of the answer.


def use_block(started: types.ToolStarted) -> dict[str, JSONValue]:
    """Return the block of a search, without its input."""
    return {
        "type": "server_tool_use",
        "id": prefixed(started.id, "srvtoolu_"),
        "name": _NAMES[started.name],
        "input": {},
    }


def result_block(started: types.ToolStarted, ended: types.ToolEnded) -> dict[str, JSONValue]:
    """Return the block of its result."""
    name = _NAMES[started.name]
    content: JSONValue
    if ended.is_error or (started.name != "search" and not ended.citations):
        content = {"type": f"{name}_tool_result_error", "error_code": "unavailable"}
    elif started.name == "search":
        content = [_result(page, ended.text if i == 0 else "") for i, page in enumerate(ended.citations)]
    else:
        page = ended.citations[0]
        source: JSONValue = {"type": "text", "media_type": "text/plain", "data": ended.text}
        document: JSONValue = {"type": "document", "source": source, "title": page.title or None, "citations": None}
        content = {"type": "web_fetch_result", "url": page.url, "content": document, "retrieved_at": None}
    return {"type": f"{name}_tool_result", "tool_use_id": prefixed(ended.id, "srvtoolu_"), "content": content}


def _result(page: types.Citation, text: str) -> JSONValue:
    """Return one page. text: the complete result, which the first page carries for the next request."""
    return {
        "type": "web_search_result",
        "url": page.url,
        "title": page.title,
        "encrypted_content": encode_text(text),
        "page_age": None,
    }


def run_blocks(run: types.ToolRun) -> Iterator[JSONValue]:
    """Yield the blocks of a search and of its result."""
    yield {**use_block(run.started), "input": dict(run.started.arguments)}
    if run.ended is not None:
        yield result_block(run.started, run.ended)


def citations(text: str, pages: Mapping[int, types.Citation]) -> list[JSONValue]:
    """Return the citations of a text."""
    return [
        {
            "type": "web_search_result_location",
            "url": one.page.url,
            "title": one.page.title or None,
            "encrypted_index": ENCODED,
            "cited_text": one.page.text[:_MOST_QUOTED],
        }
        for one in cited(text, pages)
    ]


# Blocks of the conversation.


def call_of(block: Body) -> types.ToolCall | None:
    """Return the call of a `server_tool_use`; None for one of another tool."""
    tool = _TOOLS.get(str(block.raw("name")))
    if tool is None:
        return None
    given = block.raw("input")
    return types.ToolCall(
        id=block.need(fields.text("id", 256)),
        name=function_name(SEARCH_LABEL, tool),
        arguments=given if isinstance(given, Mapping) else {},
    )


def result_text(block: Body) -> str | None:
    """Return the result of a search of this server as the model read it; None for one of another server."""
    content = block.raw("content")
    if isinstance(content, Mapping) and content.get("type") == "web_fetch_result":
        document = content.get("content")
        source = document.get("source") if isinstance(document, Mapping) else None
        data = source.get("data") if isinstance(source, Mapping) else None
        return data if isinstance(data, str) else None
    first = content[0] if isinstance(content, list | tuple) and content else None
    encoded = first.get("encrypted_content") if isinstance(first, Mapping) else None
    return decode_text(encoded) if isinstance(encoded, str) else None
