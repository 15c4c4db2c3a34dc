"""The tools `search` and `fetch_page` for models."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from mullama.errors import MullamaError, Refused, TimedOut, ToolsUnavailable
from mullama.manifest.spec import Search
from mullama.manifest.spec.web_origins import canonical_host, host_pattern
from mullama.names import JSONValue
from mullama.sources.network import Allowed, is_public
from mullama.struct import Struct
from mullama.tools.base import ServerTool, ToolResult
from mullama.tools.search.base import Embed, Hit, SearchEngine
from mullama.tools.search.charset import decoded
from mullama.tools.search.declared import MOST_QUERY, search_tools
from mullama.tools.search.page_reader import PageReader, PageText, require_parser
from mullama.tools.search.quotation import QuotedPage, citations, page_text, search_text
from mullama.tools.search.ranking import Passage, best, passages_of, vector_scores, word_scores
from mullama.tools.search.web_requests import FetchedPage, fetch_page

_MOST_SEARCH: Final = 8000
"""Characters of all passages of a search."""
_MOST_PAGE: Final = 16_000
"""Characters of the passages of one page."""
_MOST_EMBEDDED: Final = 64
"""Passages of a search that the embedding model ranks; the words choose them."""
_EACH: Final = 4
_REMEMBERED: Final = 4096
_HTML: Final = ("text/html", "application/xhtml+xml", "application/xml", "text/xml")


class _Read(Struct, frozen=True, kw_only=True):
    """A page that was fetched, with the reason where it was not."""

    text: str = ""
    title: str = ""
    url: str = ""
    cut: bool = False
    note: str = ""


class _Domains(Struct, frozen=True, kw_only=True):
    """The part of the web that one request is limited to, in domains that may have a path (`example.org/blog`)."""

    within: tuple[str, ...] = ()
    """Every page for none."""
    outside: tuple[str, ...] = ()

    def has(self, url: str) -> bool:
        """Return True for an address that the request allows."""
        return (not self.within or any(_belongs(url, one) for one in self.within)) and not any(
            _belongs(url, one) for one in self.outside
        )


class SearchTools:
    """Implements `ToolProvider`. Calls may have the arguments `within` and `outside`, which a request sets: domains.

    search: the block of the manifest. engine: the search engine. embed: the vectors of the model that it declares; None
    for an order by words. allowed: decides on the addresses of pages.
    """

    def __init__(
        self,
        search: Search,
        engine: SearchEngine,
        embed: Embed | None = None,
        *,
        allowed: Allowed = is_public,
        reader: PageReader | None = None,
    ) -> None:
        self._search, self._engine, self._embed, self._allowed = search, engine, embed, allowed
        self._reader = reader or PageReader()
        self._allow, self._deny = _hosts(search.allow), _hosts(search.deny)
        self._found: OrderedDict[str, None] = OrderedDict()
        """The addresses that searches returned last: those that a model may ask for without a list of hosts."""

    async def tools(self) -> tuple[ServerTool, ...]:
        return search_tools(self._search)

    async def call(self, name: str, arguments: Mapping[str, JSONValue], *, seconds: float) -> ToolResult:
        try:
            match name:
                case "search":
                    return await self._answer_search(arguments, seconds)
                case "fetch_page":
                    return await self._answer_page(arguments, min(seconds, self._search.timeout))
                case _:
                    return _failed(f"there is no tool {name[:80]!r}")
        except ToolsUnavailable:
            raise
        except MullamaError as error:
            return _failed(str(error))

    async def aclose(self) -> None:
        await self._reader.aclose()

    async def _answer_search(self, arguments: Mapping[str, JSONValue], seconds: float) -> ToolResult:
        query, count = arguments.get("query"), arguments.get("count", self._search.results)
        if not isinstance(query, str) or not query.strip():
            return _failed("query is a text with the words to search for")
        if isinstance(count, float) and count.is_integer():
            count = int(count)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            return _failed(f"count is a number from 1 to {self._search.results}")
        end = asyncio.get_running_loop().time() + seconds
        query = query.strip()[:MOST_QUERY]
        limit = min(count, self._search.results)
        found = await self._engine.search(query, limit, seconds=min(seconds, self._search.timeout))
        hits = _usable(found, self._permits, _domains(arguments))[:limit]
        for hit in hits:
            self._remember(hit.url)
        pages = await self._read_all([hit.url for hit in hits[: self._search.pages]], end)
        sources = await self._sources(query, hits, pages, end)
        return ToolResult(text=search_text(query, sources), citations=citations(sources))

    async def _answer_page(self, arguments: Mapping[str, JSONValue], seconds: float) -> ToolResult:
        url = arguments.get("url")
        if not isinstance(url, str) or not url.strip():
            return _failed("url is the address of a page")
        url = url.strip()
        self._check_address(url)
        if not _domains(arguments).has(url):
            raise Refused(f"{url[:80]} is not a page of the domains that the request allows")
        try:
            async with asyncio.timeout(seconds):
                page = await self._read(url, seconds)
        except TimeoutError as error:
            raise TimedOut(f"the page took longer than {seconds:g} s", hint="search.timeout bounds it") from error
        passages = passages_of(page.text, 0)
        shown = best(passages, [-one.order for one in passages], room=_MOST_PAGE, each=len(passages))
        if not shown:
            return _failed("the page has no readable text")
        text = "\n".join(one.text for one in shown)
        source = QuotedPage(url=page.url, title=page.title, passages=(text,))
        return ToolResult(
            text=page_text(source, cut=page.cut or len(shown) < len(passages)), citations=citations((source,))
        )

    def _check_address(self, url: str) -> None:
        """Raise `Refused` for a page that the model may not ask for.

        An address can carry what a model read, so without a list of hosts only those are asked that a search returned.
        """
        host = _host(url)
        if host is None:
            raise Refused(f"{url[:80]!r} is not an address of the web", hint="https://HOST/PATH")
        if not self._permits(host):
            raise Refused(f"{host} is not a host that search.allow and search.deny permit")
        if not self._search.allow and url not in self._found:
            raise Refused("no search returned this address", hint="search for the page first")

    def _permits(self, host: str) -> bool:
        return (not self._search.allow or self._allow(host)) and not self._deny(host)

    def _remember(self, url: str) -> None:
        self._found[url] = None
        self._found.move_to_end(url)
        while len(self._found) > _REMEMBERED:
            self._found.popitem(last=False)

    async def _read_all(self, urls: Sequence[str], end: float) -> list[_Read]:
        """Return the pages that are read in time, each with the reason where it is not."""
        if not urls:
            return []
        seconds = min(self._search.timeout, max(0.0, end - asyncio.get_running_loop().time()))
        tasks = [asyncio.create_task(self._tried(url, seconds)) for url in urls]
        try:
            await asyncio.wait(tasks, timeout=seconds)
            late = _Read(note=f"the page took longer than {seconds:g} s")
            return [task.result() if task.done() else late for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tried(self, url: str, seconds: float) -> _Read:
        try:
            return await self._read(url, seconds)
        except MullamaError as error:
            return _Read(note=error.message)

    async def _read(self, url: str, seconds: float) -> _Read:
        page = await fetch_page(
            url, self._permits, most=self._search.max_bytes, seconds=seconds, allowed=self._allowed
        )  # fmt: skip
        text = await self._text(page)
        return _Read(text=text.text, title=text.title, url=page.url, cut=page.cut)

    async def _text(self, page: FetchedPage) -> PageText:
        content = await asyncio.to_thread(decoded, page.data, page.charset, cut=page.cut)
        if page.media not in _HTML:
            return PageText(title="", text=content)
        require_parser()
        return await self._reader.read(content)

    async def _sources(self, query: str, hits: Sequence[Hit], pages: Sequence[_Read], end: float) -> list[QuotedPage]:
        """Return the pages with their best passages; the engine's extract for a page that was not read."""
        texts = [page.text for page in pages] + [""] * (len(hits) - len(pages))
        passages = [
            passage
            for index, (hit, text) in enumerate(zip(hits, texts, strict=True))
            for passage in passages_of(text or hit.snippet, index)
        ]
        passages, scores = await self._ranked(query, passages, end)
        chosen = best(passages, scores, room=_MOST_SEARCH, each=_EACH)
        return [
            QuotedPage(
                url=hit.url,
                title=hit.title or (pages[index].title if index < len(pages) else ""),
                date=hit.date,
                passages=tuple(one.text for one in chosen if one.source == index),
                note=pages[index].note if index < len(pages) else "",
            )
            for index, hit in enumerate(hits)
        ]

    async def _ranked(self, query: str, passages: list[Passage], end: float) -> tuple[list[Passage], tuple[float, ...]]:
        """Return passages with their scores: by the model, or by words where it has none or does not answer in time."""
        scores = await asyncio.to_thread(word_scores, query, [one.text for one in passages])
        if self._embed is None or not passages:
            return passages, scores
        order = sorted(range(len(passages)), key=lambda i: (-scores[i], passages[i].order))[:_MOST_EMBEDDED]
        nearest = [passages[i] for i in sorted(order)]
        left = max(0.0, end - asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(left):
                question, vectors = await self._embed(query, [one.text for one in nearest])
        except (MullamaError, TimeoutError):
            return passages, scores
        return nearest, await asyncio.to_thread(vector_scores, question, vectors)


def _domains(arguments: Mapping[str, JSONValue]) -> _Domains:
    def texts(name: str) -> tuple[str, ...]:
        value = arguments.get(name)
        return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list | tuple) else ()

    return _Domains(within=texts("within"), outside=texts("outside"))


def _belongs(url: str, domain: str) -> bool:
    """Return True for a page of a domain or of one below it, and under its path if it has one."""
    host, slash, path = domain.partition("://")[2].partition("/") if "://" in domain else domain.partition("/")
    own, wanted = canonical_host(_host(url) or ""), canonical_host(host)
    if own != wanted and not own.endswith(f".{wanted}"):
        return False
    return not slash or f"{urlsplit(url).path}/".startswith(f"/{path.rstrip('/')}/".replace("//", "/"))


def _usable(hits: Sequence[Hit], permits: Callable[[str], bool], domains: _Domains) -> tuple[Hit, ...]:
    """Return each page once, of hosts that are permitted and domains that the request allows."""
    found: dict[str, Hit] = {}
    for hit in hits:
        host = _host(hit.url)
        if host is not None and permits(host) and domains.has(hit.url):
            found.setdefault(hit.url.partition("#")[0], hit)
    return tuple(found.values())


def _host(url: str) -> str | None:
    """Return the host of an address of the web; None for another text."""
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.scheme in ("http", "https") and parts.username is None else None
    except ValueError:
        return None


def _hosts(patterns: Sequence[str]) -> Callable[[str], bool]:
    made = [host_pattern(text) for text in patterns]
    return lambda host: any(one.fullmatch(canonical_host(host)) for one in made)


def _failed(reason: str) -> ToolResult:
    return ToolResult(text=reason, is_error=True)
