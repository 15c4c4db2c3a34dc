"""The search of the web in OpenAI's APIs: how a request asks for it, its items, and the annotations of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from mullama.chat.citations import cited
from mullama.chat.tool_servers import SEARCH_LABEL, ToolServer, function_name, search_server
from mullama.chat.types import Citation, ToolCall, ToolEnded, ToolStarted
from mullama.dialects import fields, schema
from mullama.dialects.fields import Body
from mullama.dialects.reply_values import decode_text, encode_text
from mullama.names import JSONValue

KINDS: Final = (
    "web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11",
)  # fmt: skip
"""The types of the tool, which all mean the same here."""
OPTIONS: Final = "web_search_options"
_ID = fields.text("id", 256)
_DOMAINS = fields.many("allowed_domains", fields.to_text, schema.STRING, 100)


def search_servers(tools: Iterable[Mapping[str, JSONValue]]) -> tuple[ToolServer, ...]:
    """Return the search that the tools of a request ask for."""
    bodies = (Body(tool, f"tools[{i}]") for i, tool in enumerate(tools))
    return tuple(_server(body) for body in bodies if body.raw("type") in KINDS)[:1]


def _server(body: Body) -> ToolServer:
    filters = body.child("filters")
    domains = filters.get(_DOMAINS) if filters is not None else None
    return search_server(body.path, within=domains or ())


def search_of_options(body: Body) -> tuple[ToolServer, ...]:
    """Return the search that `web_search_options` of a chat completion asks for."""
    return (search_server(OPTIONS),) if body.child(OPTIONS) is not None else ()


def call_item(id: str, started: ToolStarted, ended: ToolEnded | None, status: str = "") -> dict[str, JSONValue]:
    """Return the item of a search, or of a page that the model opens.

    `encrypted_content` has the result as the model read it, for the next request.
    """
    result = "in_progress" if ended is None else "failed" if ended.is_error else "completed"
    action: dict[str, JSONValue]
    if started.name == "search":
        query = started.arguments.get("query")
        action = {"type": "search", "query": query, "queries": [query]}
        if ended is not None:
            action["sources"] = [{"type": "url", "url": page.url} for page in ended.citations]
    else:
        action = {"type": "open_page", "url": started.arguments.get("url")}
    item: dict[str, JSONValue] = {"id": id, "type": "web_search_call", "status": status or result, "action": action}
    if ended is not None:
        item["encrypted_content"] = encode_text(f"Error: {ended.text}" if ended.is_error else ended.text)
    return item


def call_of(item: Body) -> ToolCall:
    """Return the call of an item of the conversation."""
    action = item.child("action")
    given = {name: action.raw(name) for name in ("query", "url") if action.has(name)} if action is not None else {}
    name = "fetch_page" if "url" in given else "search"
    return ToolCall(id=item.need(_ID), name=function_name(SEARCH_LABEL, name), arguments=given)


def result_of(item: Body) -> str | None:
    """Return the result of a search as the model read it; None for an item without one of this server."""
    encoded = item.raw("encrypted_content")
    return decode_text(encoded) if isinstance(encoded, str) else None


def response_annotations(text: str, pages: Mapping[int, Citation]) -> list[JSONValue]:
    """Return the annotations of a text in the form of the Responses API."""
    return [
        {
            "type": "url_citation",
            "start_index": one.start,
            "end_index": one.end,
            "url": one.page.url,
            "title": one.page.title,
        }
        for one in cited(text, pages)
    ]


def chat_annotations(text: str, pages: Mapping[int, Citation]) -> list[JSONValue]:
    """Return the annotations of a text in the form of chat completions."""
    found: list[JSONValue] = []
    for one in cited(text, pages):
        place: JSONValue = {
            "start_index": one.start, "end_index": one.end, "url": one.page.url, "title": one.page.title,
        }  # fmt: skip
        found.append({"type": "url_citation", "url_citation": place})
    return found
