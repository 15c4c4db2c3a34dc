"""The answers of search engines, right and wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mullama.errors import Busy, Denied, MullamaError, TimedOut, TooLarge, ToolsUnavailable
from mullama.tools.base import ServerTool, ToolProvider, ToolResult
from mullama.tools.search.base import Hit
from mullama.tools.search.brave import BraveEngine
from mullama.tools.search.mcp_search import McpEngine, arguments_for, hits_of
from mullama.tools.search.searxng import SearxngEngine
from tests.runtime.runtime_fixture import until
from tests.tools.search.stub_web import StubWeb

pytestmark = pytest.mark.anyio

SEARXNG = {
    "query": "bridges",
    "number_of_results": 3,
    "results": [
        {
            "url": "https://a.example.org/1",
            "title": "Old &amp; new <b>bridges</b>",
            "content": "All about\n <em>bridges</em>.",
            "engine": "x",
            "engines": ["x", "y"],
            "score": 3.0,
            "category": "general",
            "publishedDate": "2026-03-01T00:00:00",
        },
        {"title": "no address", "content": "7"},
        {"url": "https://b.example.org/", "title": None, "content": 5, "publishedDate": None},
    ],
    "answers": [],
    "infoboxes": [],
    "suggestions": ["arches"],
    "unresponsive_engines": [["z", "timeout"]],
}
BRAVE = {
    "type": "search",
    "query": {"original": "bridges", "more_results_available": True},
    "web": {
        "type": "search",
        "results": [
            {
                "title": "Bridges",
                "url": "https://a.example.org/1",
                "description": "All about <strong>bridges</strong>.",
                "page_age": "2026-03-01T00:00:00",
                "extra_snippets": ["More.", 7, "Even more."],
                "meta_url": {"hostname": "a.example.org"},
            }
        ],
    },
}


async def test_searxng(web: StubWeb) -> None:
    web.json("/search", SEARXNG)
    found = await SearxngEngine(web.url).search("old bridges", 5, seconds=20)
    assert found == (
        Hit(
            url="https://a.example.org/1",
            title="Old & new bridges",
            snippet="All about bridges.",
            date="2026-03-01T00:00:00",
        ),
        Hit(url="https://b.example.org/"),
    )
    assert await SearxngEngine(web.url + "/search", "K").search("b", 1, seconds=20) == found[:1]
    (first, plain), (_, keyed) = web.requests
    assert first == "/search?q=old+bridges&format=json"
    assert "authorization" not in plain
    assert keyed["authorization"] == "Bearer K"
    assert keyed["user-agent"].startswith("mullama/")


async def test_brave(web: StubWeb) -> None:
    address = web.json("/res/v1/web/search", BRAVE)
    (found,) = await BraveEngine("K", address).search("bridges " * 60, 30, seconds=20)
    assert found == Hit(
        url="https://a.example.org/1",
        title="Bridges",
        snippet="All about bridges.\nMore.\nEven more.",
        date="2026-03-01T00:00:00",
    )
    ((path, headers),) = web.requests
    assert headers["x-subscription-token"] == "K"
    assert path.count("bridges") == 50
    assert "count=20" in path
    web.json("/res/v1/web/search", {"type": "search", "query": {}})
    assert await BraveEngine("K", address).search("nothing", 5, seconds=20) == ()


@pytest.mark.parametrize(
    ("status", "tree", "kind", "words"),
    [
        (401, {}, Denied, "check search.key"),
        (403, {}, Denied, "add json to search.formats"),
        (429, {}, Busy, "wants fewer requests"),
        (500, {}, ToolsUnavailable, "status 500"),
        (200, [], ToolsUnavailable, "another form"),
        (200, {"results": 5}, ToolsUnavailable, "another form"),
    ],
)
async def test_an_engine_that_refuses(
    web: StubWeb, status: int, tree: Any, kind: type[MullamaError], words: str
) -> None:
    web.json("/search", tree, status)
    with pytest.raises(kind) as caught:
        await SearxngEngine(web.url, "SECRET").search("x", 5, seconds=20)
    assert words in str(caught.value)
    assert "SECRET" not in str(caught.value)


async def test_an_engine_that_sends_a_page_or_nothing(web: StubWeb) -> None:
    web.page("/search", "<html>not here</html>")
    with pytest.raises(ToolsUnavailable, match="no JSON"):
        await SearxngEngine(web.url).search("x", 5, seconds=20)
    web.silent("/search")
    with pytest.raises(TimedOut, match=r"did not answer in 0.2 s"):
        await SearxngEngine(web.url).search("x", 5, seconds=0.2)
    with pytest.raises(ToolsUnavailable, match="not reachable"):
        await SearxngEngine("http://127.0.0.1:1").search("x", 5, seconds=20)
    with pytest.raises(ToolsUnavailable, match="address of this link"):
        await SearxngEngine("http://169.254.169.254").search("x", 5, seconds=20)


async def test_an_answer_that_is_too_large_or_too_deep(web: StubWeb) -> None:
    web.page("/search", b'{"results": [' + b" " * 5 * 1024**2 + b"]}", "application/json")
    with pytest.raises(TooLarge, match="larger than 4 MiB"):
        await SearxngEngine(web.url).search("x", 5, seconds=20)
    web.page("/search", b"[" * 200_000, "application/json")
    with pytest.raises(ToolsUnavailable, match="no JSON"):
        await SearxngEngine(web.url).search("x", 5, seconds=20)
    web.endless("/search", b" " * 65536, "application/json")
    with pytest.raises(TooLarge):
        await SearxngEngine(web.url).search("x", 5, seconds=20)


async def test_a_cancelled_search_ends_at_once(web: StubWeb) -> None:
    web.silent("/search")
    task = asyncio.create_task(SearxngEngine(web.url).search("x", 5, seconds=120))
    await until(lambda: bool(web.requests))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_key_does_not_follow_a_redirect_to_another_host(web: StubWeb) -> None:
    other = web.url.replace("127.0.0.1", "localhost")
    web.redirect("/search", f"{other}/other")
    web.json("/other", SEARXNG)
    assert await SearxngEngine(web.url, "SECRET").search("x", 5, seconds=20)
    assert "authorization" in web.requests[0][1]
    assert "authorization" not in web.requests[1][1]


class Server:
    """A server of tools with one tool."""

    def __init__(self, result: ToolResult, **properties: Any) -> None:
        self.result, self.calls = result, list[tuple[str, Any, float]]()
        self.tool = ServerTool(server="d", name="find", parameters={"type": "object", "properties": properties})

    async def tools(self) -> tuple[ServerTool, ...]:
        return (self.tool,)

    async def call(self, name: str, arguments: Any, *, seconds: float) -> ToolResult:
        self.calls.append((name, arguments, seconds))
        return self.result

    async def aclose(self) -> None:
        raise AssertionError("the server belongs to others")


async def test_a_tool_of_a_server_searches() -> None:
    server = Server(ToolResult(text="Title: A\nURL: https://a.org/\nDescription: of A"), q={}, num_results={})

    async def open_server() -> ToolProvider:
        return server

    found = await McpEngine("d", open_server, "find").search("x", 3, seconds=5)
    assert found == (Hit(url="https://a.org/", title="A", snippet="of A"),)
    assert server.calls == [("find", {"q": "x", "num_results": 3}, 5)]
    with pytest.raises(ToolsUnavailable, match="d has no tool search"):
        await McpEngine("d", open_server, "search").search("x", 3, seconds=5)
    server.result = ToolResult(text="quota", is_error=True)
    with pytest.raises(ToolsUnavailable, match="the search by d failed: quota"):
        await McpEngine("d", open_server, "find").search("x", 3, seconds=5)


def test_arguments_have_the_names_of_the_schema() -> None:
    assert arguments_for(ServerTool(server="d", name="t"), "x", 3) == {"query": "x"}


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ('[{"url": "https://a.org/", "title": "A", "snippet": "s"}]', [("https://a.org/", "A", "s")]),
        ('{"results": [{"link": "https://a.org/", "name": "A"}, {"title": "x"}]}', [("https://a.org/", "A", "")]),
        ('{"web": {"results": [{"url": "https://a.org/", "description": "d"}]}}', [("https://a.org/", "", "d")]),
        (
            "Title: A\nDescription: one\ntwo\nURL: https://a.org/\n\nTitle: B\nURL: https://b.org/",
            [("https://a.org/", "A", "one two"), ("https://b.org/", "B", "")],
        ),
        ("1. [A](https://a.org/x) is good", [("https://a.org/x", "A", "1. [A](https://a.org/x) is good")]),
        ("see https://a.org/x.", [("https://a.org/x", "", "see https://a.org/x.")]),
        ("nothing found", []),
        ("7", []),
    ],
)
def test_results_of_tools_in_their_usual_forms(text: str, hits: list[tuple[str, str, str]]) -> None:
    assert [(hit.url, hit.title, hit.snippet) for hit in hits_of(text)] == hits
