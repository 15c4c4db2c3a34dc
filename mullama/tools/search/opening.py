"""Opens the search of the web that a manifest declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from mullama.manifest.spec import Search
from mullama.sources.network import Allowed, is_public
from mullama.tools.base import ToolProvider
from mullama.tools.search.base import Embed, SearchEngine
from mullama.tools.search.brave import ADDRESS, BraveEngine
from mullama.tools.search.mcp_search import McpEngine
from mullama.tools.search.page_reader import PageReader
from mullama.tools.search.provider import SearchTools
from mullama.tools.search.searxng import SearxngEngine


def open_search(
    search: Search,
    key: str | None,
    server: Callable[[str], ToolProvider],
    embed: Embed | None,
    *,
    reader: PageReader,
    allowed: Allowed | None = None,
) -> SearchTools:
    """Return the tools of a search; nothing is asked yet.

    key: of the search engine. server: returns a server of tools by its name. embed: the vectors of the declared model.
    reader: its process outlives the tools. allowed: decides on the addresses of pages; None for those that are public.
    """
    return SearchTools(search, _engine(search, key, server), embed, allowed=allowed or is_public, reader=reader)


def _engine(search: Search, key: str | None, server: Callable[[str], ToolProvider]) -> SearchEngine:
    match search.provider:
        case "searxng":
            return SearxngEngine(search.url or "", key)
        case "brave":
            return BraveEngine(key or "", search.url or ADDRESS)
        case "mcp":
            name = search.server or ""

            async def opened() -> ToolProvider:
                return server(name)

            return McpEngine(name, opened, search.tool or "")
        case _:
            assert_never(search.provider)
