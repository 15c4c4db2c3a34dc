"""A declared server of tools as a search engine: one of its tools searches."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from mullama.errors import ToolsUnavailable
from mullama.names import JSONValue
from mullama.tools.base import ServerTool, ToolProvider
from mullama.tools.search.base import Hit
from mullama.tools.search.fields import text_of

_QUERIES: Final = ("query", "q", "search_query", "search", "question", "text")
_COUNTS: Final = ("count", "limit", "num_results", "max_results", "numResults", "maxResults", "n", "num")
_LISTS: Final = ("results", "items", "organic", "data", "hits", "pages")
_ADDRESSES: Final = ("url", "link", "href")
_TITLES: Final = ("title", "name")
_EXTRACTS: Final = ("snippet", "description", "content", "text", "summary")
_LABEL = re.compile(r"^\W*(title|url|link|description|snippet|content|summary)\W{0,3}:\W{0,2}\s*(.*)$", re.IGNORECASE)
_LINK = re.compile(r"\[([^\]\n]{1,300})\]\((https?://[^\s)]{1,2000})\)")
_ADDRESS = re.compile(r"https?://[^\s<>\"')\]]{1,2000}")


class McpEngine:
    """Implements `SearchEngine`. server: returns the provider. tool: the name that the server gives the tool."""

    def __init__(self, name: str, server: Callable[[], Awaitable[ToolProvider]], tool: str) -> None:
        self._name, self._server, self._tool = name, server, tool

    async def search(self, query: str, count: int, *, seconds: float) -> tuple[Hit, ...]:
        provider = await self._server()
        tool = next((one for one in await provider.tools() if one.name == self._tool), None)
        if tool is None:
            raise ToolsUnavailable(f"the server of tools {self._name} has no tool {self._tool}", hint="see search.tool")
        result = await provider.call(self._tool, arguments_for(tool, query, count), seconds=seconds)
        if result.is_error:
            raise ToolsUnavailable(f"the search by {self._name} failed: {result.text[:200]}")
        return hits_of(result.text)[:count]


def arguments_for(tool: ServerTool, query: str, count: int) -> dict[str, JSONValue]:
    """Return the arguments of a search by the names in the schema of the tool."""
    properties = tool.parameters.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    question = next((name for name in _QUERIES if name in known), "query")
    number = next((name for name in _COUNTS if name in known), None)
    return {question: query, **({number: count} if number else {})}


def hits_of(text: str) -> tuple[Hit, ...]:
    """Return the pages of a result: JSON, lines with labels (`Title: …`, `URL: …`), or any text with addresses."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return _labelled(text) or _linked(text)
    return tuple(hit for one in _list(tree) if (hit := _hit(one)).url)


def _list(tree: Any) -> list[dict[str, Any]]:
    if isinstance(tree, dict):
        inner = (tree["web"],) if isinstance(tree.get("web"), dict) else ()
        lists = [one.get(key) for one in (tree, *inner) for key in _LISTS]
        tree = next((found for found in lists if isinstance(found, list)), [tree])
    return [one for one in tree if isinstance(one, dict)] if isinstance(tree, list) else []


def _hit(one: dict[str, Any]) -> Hit:
    def first(names: tuple[str, ...]) -> str:
        return next((text for name in names if (text := text_of(one, name))), "")

    return Hit(url=first(_ADDRESSES), title=first(_TITLES), snippet=first(_EXTRACTS))


def _labelled(text: str) -> tuple[Hit, ...]:
    """Return the pages of lines with labels; a label that is there already begins the next page."""
    found: list[dict[str, str]] = []
    label = ""
    for line in text.splitlines():
        match = _LABEL.match(line)
        if match is None:
            if found and label and line.strip():
                found[-1][label] += f" {line.strip()}"
            continue
        label = {"link": "url", "description": "snippet", "content": "snippet", "summary": "snippet"}.get(
            match[1].lower(), match[1].lower()
        )
        if not found or label in found[-1]:
            found.append({})
        found[-1][label] = match[2].strip()
    hits = (_hit(one) for one in found)
    return tuple(hit for hit in hits if _ADDRESS.fullmatch(hit.url))


def _linked(text: str) -> tuple[Hit, ...]:
    """Return the addresses of a text, with the words of a link as the title and their line as the extract."""
    found: dict[str, Hit] = {}
    for line in text.splitlines():
        links = [(url, title) for title, url in _LINK.findall(line)]
        for url, title in links or [(url.rstrip(".,;:"), "") for url in _ADDRESS.findall(line)]:
            found.setdefault(url, Hit(url=url, title=title, snippet=" ".join(line.split())[:500]))
    return tuple(found.values())
