"""The tools of a search as a manifest declares them. Pure."""

from __future__ import annotations

from typing import Final

from mullama.chat.tool_servers import SEARCH_LABEL
from mullama.manifest.spec import Search
from mullama.names import JSONValue
from mullama.tools.base import ServerTool

MOST_QUERY: Final = 400
"""Characters of a question."""


def search_tools(search: Search) -> tuple[ServerTool, ...]:
    """Return the tools as the manifest declares them."""
    query: JSONValue = {
        "type": "string",
        "minLength": 1,
        "maxLength": MOST_QUERY,
        "description": "words to search for",
    }
    count: JSONValue = {
        "type": "integer", "minimum": 1, "maximum": search.results,
        "description": f"number of pages; {search.results} by default",
    }  # fmt: skip
    pages = "any of its allowed hosts, or one that a search returned" if search.allow else "one that a search returned"
    return (
        ServerTool(
            server=SEARCH_LABEL,
            name="fetch_page",
            description="Read a page of the web as text.",
            parameters=_object(
                {"url": {"type": "string", "minLength": 1, "description": f"address of the page: {pages}"}}, "url"
            ),
        ),
        ServerTool(
            server=SEARCH_LABEL,
            name="search",
            description="Search the web. The result is a numbered list of pages with quotations.",
            parameters=_object({"query": query, "count": count}, "query"),
        ),
    )


def _object(properties: dict[str, JSONValue], required: str) -> dict[str, JSONValue]:
    return {"type": "object", "properties": properties, "required": [required], "additionalProperties": False}
