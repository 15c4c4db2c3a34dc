"""The search of the web of a manifest: its key, its changes, and the models and requests that get it."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.chat.tool_servers import SEARCH_LABEL, ToolServer, search_server
from mullama.errors import Denied, ToolsUnavailable, Unsupported
from mullama.manifest.spec import Manifest
from mullama.runtime.base import Caller
from mullama.runtime.tools.book import ToolBook
from mullama.runtime.tools.offer import OfferedTools, ToolOffer, offer
from mullama.runtime.tools.search_desk import SearchDesk, embed_by
from mullama.tools.base import ServerTool, ToolProvider, ToolResult
from tests.tools.search.conftest import web
from tests.tools.search.stub_web import StubWeb, only_here

__all__ = ["web"]
pytestmark = pytest.mark.anyio
ANYONE = Caller(dialect="openai", request_id="r")
RESULTS = {"results": [{"url": "https://a.example.org/", "title": "A", "content": "extract"}]}
FUNCTIONS = ["search__fetch_page", "search__search"]


def manifest(search: Any = None, **models: Any) -> Manifest:
    keys = {
        "none": {"secret": {"from_env": "A"}, "mcp": []}, "search": {"secret": {"from_env": "B"}, "mcp": ["search"]},
    }  # fmt: skip
    declared = {name: {"from": "builtin:tiny", **tree} for name, tree in models.items()}
    tree = {"mullama": "v1", "models": declared, "auth": {"keys": keys}}
    return Manifest.model_validate({**tree, **({"search": search} if search else {})})


class Book:
    """A book of tools that follows manifests, and counts changes of the tools of models."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self.manifest, self.changes, self.events = manifest(), 0, list[str]()
        self.env = env or {}

        def changed() -> None:
            self.changes += 1

        self.made = ToolBook(
            lambda: self.manifest, self.env, Records(), lambda *event: self.events.append(event[1]), changed
        )
        self.made.search = SearchDesk(self.env, self.made.provider, allowed=only_here)

    def follow(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.made.follow(manifest, {})


class Records:
    def tool_pins(self) -> dict[str, Any]:
        return {}

    def save_tool_pins(self, pins: Any) -> None:
        raise AssertionError("the tools of a search are mullama's own")


def functions(tools: Any) -> list[str]:
    return sorted(tool.function for tool in tools)


async def test_models_get_the_tools_that_the_manifest_gives_them(web: StubWeb) -> None:
    book, searxng = Book(), {"provider": "searxng", "url": web.url, "pages": 0}
    book.follow(manifest(a={}))
    assert not book.made.active
    book.follow(manifest(searxng, a={}, b={"search": True}))
    assert book.made.active
    assert book.made.tools_of("a", ANYONE) == ()
    assert functions(book.made.tools_of("b", ANYONE)) == FUNCTIONS
    assert functions(book.made.tools_of("b", Caller(dialect="openai", request_id="r", key="search"))) == FUNCTIONS
    assert book.made.tools_of("b", Caller(dialect="openai", request_id="r", key="none")) == ()
    assert [tool.name for tool in book.made.prompt_of(book.manifest.models["b"])] == FUNCTIONS
    assert book.made.prompt_of(book.manifest.models["a"]) == ()
    assert book.changes == 1
    book.follow(manifest({**searxng, "timeout": 3.0}, b={"search": True}))
    assert book.changes == 1, "the same tools"
    book.follow(manifest({**searxng, "results": 7}, b={"search": True}))
    assert book.changes == 2
    book.follow(manifest(b={}))
    assert (book.changes, book.made.active) == (3, False)
    await book.made.close()


async def test_a_call_is_answered_by_the_search_in_force(web: StubWeb) -> None:
    web.json("/search", RESULTS)
    book = Book({"K": "one"})
    book.follow(manifest({"provider": "searxng", "url": web.url, "pages": 0, "key": {"from_env": "K"}}, b={}))
    for key in ("one", "two"):
        book.env["K"] = key
        result = await book.made.provider(SEARCH_LABEL).call("search", {"query": "x"}, seconds=60)
        assert "[1] A\nhttps://a.example.org/\n> extract" in result.text
        assert web.requests[-1][1]["authorization"] == f"Bearer {key}"
    first = book.made.provider(SEARCH_LABEL)
    assert first is book.made.provider(SEARCH_LABEL)
    assert book.made.seconds(SEARCH_LABEL) == 30
    book.env["K"] = ""
    with pytest.raises(ToolsUnavailable, match="the environment variable K is missing or empty"):
        book.made.provider(SEARCH_LABEL)
    (status,) = book.made.status()
    assert (status["name"], status["state"]) == ("search", "unavailable")
    assert "K is missing" in status["message"]
    book.env["K"] = "two"
    book.made.provider(SEARCH_LABEL)
    assert book.made.status()[0]["state"] == "ready"
    book.follow(manifest(b={}))
    with pytest.raises(ToolsUnavailable, match="declares no search"):
        book.made.provider(SEARCH_LABEL)
    assert book.made.status() == []
    await book.made.close()


async def test_pages_are_read_and_ranked_by_the_declared_model(web: StubWeb) -> None:
    page = web.page("/a", "\n".join(["Old bridges. " * 40] * 6 + ["A wall of stone. " * 30]), "text/plain")
    web.json("/search", {"results": [{"url": page, "title": "A"}]})
    book = Book()
    book.follow(manifest({"provider": "searxng", "url": web.url, "embed": "e"}, e={"task": "embedding"}))
    asked: list[chat.EmbedRequest] = []

    class Vectors:
        """A service whose model likes stone."""

        def access(self) -> Any:
            return book

        async def answer(self, operation: Any, caller: Caller) -> chat.Vectors:
            asked.append(operation)
            vectors = tuple((1.0, 0.0) if "stone" in text or text == "q" else (0.0, 1.0) for text in operation.inputs)
            return chat.Vectors(vectors=vectors, usage=chat.Usage())

    book.made.search.embed = embed_by(Vectors())  # type: ignore[arg-type]
    result = await book.made.provider(SEARCH_LABEL).call("search", {"query": "q"}, seconds=60)
    assert "> A wall of stone." in result.text
    assert [request.model for request in asked] == ["e", "e"]
    assert asked[0].inputs == ("q",)
    await book.made.close()


async def test_a_tool_of_a_declared_server_is_the_engine() -> None:
    class Server:
        async def tools(self) -> tuple[ServerTool, ...]:
            return (ServerTool(server="d", name="find"),)

        async def call(self, name: str, arguments: Any, *, seconds: float) -> ToolResult:
            return ToolResult(text='[{"url": "https://a.example.org/", "title": "A"}]')

        async def aclose(self) -> None:
            """End nothing."""

    def server(name: str) -> ToolProvider:
        assert name == "d"
        return Server()

    desk = SearchDesk({}, server)
    desk.follow(manifest({"provider": "mcp", "server": "d", "tool": "find", "pages": 0}))
    assert "[1] A" in (await desk.provider().call("search", {"query": "q"}, seconds=60)).text
    await desk.close()


def offered(request: chat.ChatRequest, model: str, book: Book, caller: Caller = ANYONE) -> ToolOffer | None:
    return offer(request, model, book.made, caller, OfferedTools())


def request(*servers: ToolServer, **more: Any) -> chat.ChatRequest:
    return chat.ChatRequest(model="a", messages=(chat.text_message("user", "q"),), tool_servers=servers, **more)


async def test_a_request_asks_for_the_search(web: StubWeb) -> None:
    book = Book()
    book.follow(manifest({"provider": "searxng", "url": web.url}, a={}, b={"search": True}))
    made = offered(request(search_server("web_search", optional=False)), "a", book)
    assert made is not None
    assert sorted(made.tools) == FUNCTIONS
    assert made.listings == ()
    limited = search_server("tools[0]", only=("search",), within=("example.org",))
    for model in ("a", "b"):
        made = offered(request(limited), model, book)
        assert made is not None
        assert list(made.tools) == ["search__search"]
        assert dict(made.tools["search__search"].fixed) == {"within": ["example.org"]}
    none = Caller(dialect="openai", request_id="r", key="none")
    with pytest.raises(Denied, match="the key may not search the web"):
        offered(request(search_server("web_search", optional=False)), "a", book, none)
    made = offered(request(search_server("tools[1]")), "a", book, none)
    assert made is not None
    assert made.request.warnings == ("tools[1]: the web is not searched: the key may not search",)
    await book.made.close()


async def test_a_request_for_a_search_that_is_not_declared() -> None:
    book = Book()
    with pytest.raises(Unsupported, match="web_search asks for a search of the web, and this server has none"):
        offered(request(search_server("web_search", optional=False)), "a", book)
    made = offered(request(search_server("tools[1]")), "a", book)
    assert made is not None
    assert (made.tools, made.request.tools) == ({}, ())
    assert made.request.warnings == ("tools[1]: the web is not searched: the manifest declares no search",)
