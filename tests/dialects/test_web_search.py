"""The search of the web in the APIs: how requests ask for it, and how answers name pages."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat import types
from mullama.chat.citations import cited, pages_of
from mullama.chat.tool_servers import ToolServer, search_server
from mullama.dialects import fields
from mullama.dialects.anthropic import web_search as claude
from mullama.dialects.anthropic.blocks import to_message
from mullama.dialects.openai import web_search as gpt
from mullama.dialects.openai.responses.items import conversation
from mullama.errors import Invalid

PAGES = (
    types.Citation(url="https://a.org/", title="A", text="x" * 300), types.Citation(url="https://b.org/", title="B"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Stone [1], and wood [2].", [("[1]", 0), ("[2]", 1)]),
        ("Both[1][2]", [("[1]", 0), ("[2]", 1)]),
        ("Both [1, 2].", [("[1, 2]", 0), ("[1, 2]", 1)]),
        ("None [0] [3] [x] [] 1", []),
        ("[12345] [1", []),
        ("", []),
    ],
)
def test_numbers_in_brackets_name_pages(text: str, found: list[tuple[str, int]]) -> None:
    marks = cited(text, dict(enumerate(PAGES, 1)))
    assert [(text[one.start : one.end], PAGES.index(one.page)) for one in marks] == found
    assert cited(text, {}) == ()


def run(
    id: str, first: int, *pages: types.Citation, error: bool = False, name: str = "search", arguments: Any = None
) -> types.ToolRun:
    given = arguments or {"query": "q"}
    started = types.ToolStarted(id=id, server="search", name=name, arguments=given, search=True)
    ended = types.ToolEnded(id=id, text="[1] A", is_error=error, citations=pages, first=first)
    return types.ToolRun(started=started, ended=ended)


def test_pages_are_in_the_order_of_their_numbers() -> None:
    parts = (run("b", 2, PAGES[1]), types.TextRun(text="t"), run("a", 1, PAGES[0]), run("c", 1, error=True))
    assert pages_of(parts) == dict(enumerate(PAGES, 1))


@pytest.mark.parametrize(
    ("tools", "servers"),
    [
        ([{"type": "function"}, {"type": "web_search"}], (search_server("tools[1]"),)),
        ([{"type": "web_search_preview"}, {"type": "web_search"}], (search_server("tools[0]"),)),
        (
            [
                {
                    "type": "web_search",
                    "filters": {"allowed_domains": ["a.org"]},
                    "user_location": {"type": "approximate"},
                }
            ],
            (search_server("tools[0]", within=("a.org",)),),
        ),
        ([{"type": "file_search"}], ()),
    ],
)
def test_tools_of_openai(tools: Any, servers: tuple[ToolServer, ...]) -> None:
    assert gpt.search_servers(tools) == servers


@pytest.mark.parametrize("filters", [5, {"allowed_domains": "a.org"}, {"allowed_domains": [5]}])
def test_filters_that_do_not_fit(filters: Any) -> None:
    with pytest.raises(Invalid, match=r"tools\[0\]\.filters"):
        gpt.search_servers([{"type": "web_search", "filters": filters}])


def test_options_of_a_chat_completion() -> None:
    assert gpt.search_of_options(fields.Body({}, "")) == ()
    assert gpt.search_of_options(fields.Body({"web_search_options": {}}, "")) == (search_server("web_search_options"),)
    with pytest.raises(Invalid, match="web_search_options"):
        gpt.search_of_options(fields.Body({"web_search_options": True}, ""))


@pytest.mark.parametrize(
    ("tools", "servers", "uses"),
    [
        ([{"type": "web_search_20250305", "max_uses": 5}], (search_server("tools[0]", only=("search",)),), 5),
        (
            [
                {"type": "web_search_20260209", "allowed_domains": ["a.org"]},
                {"type": "web_fetch_20250910", "max_uses": 2},
            ],
            (
                search_server("tools[0]", only=("search",), within=("a.org",)),
                search_server("tools[1]", only=("fetch_page",)),
            ),
            None,
        ),
        (
            [{"type": "web_search_20250305", "blocked_domains": ["b.org"]}, {"name": "f"}],
            (search_server("tools[0]", only=("search",), outside=("b.org",)),),
            None,
        ),
        ([{"type": "bash_20250124"}, {"type": "custom"}], (), None),
    ],
)
def test_tools_of_anthropic(tools: Any, servers: tuple[ToolServer, ...], uses: int | None) -> None:
    assert claude.search_servers(tools) == servers
    assert claude.most_uses(tools) == uses


def test_blocks_of_anthropic_return_as_the_model_read_them() -> None:
    use, result = claude.run_blocks(run("call_1", 1, *PAGES))
    assert use["id"] == result["tool_use_id"]  # type: ignore[index, call-overload]
    called, read, spoken = to_message(
        {"role": "assistant", "content": [use, result, {"type": "text", "text": "t"}]}, "m"
    )
    (call,) = called.tool_calls
    assert (call.name, call.arguments) == ("search__search", {"query": "q"})
    assert (read.role, read.text, read.tool_call_id) == ("tool", "[1] A", call.id)
    assert spoken.text == "t"
    (alone,) = to_message({"role": "assistant", "content": [use]}, "m")
    assert alone.tool_calls == ()


def test_a_search_that_failed_and_a_page() -> None:
    failed = list(claude.run_blocks(run("c", 1, error=True)))[1]
    assert failed["content"] == {"type": "web_search_tool_result_error", "error_code": "unavailable"}  # type: ignore[index, call-overload]
    use, page = claude.run_blocks(run("c", 1, PAGES[0], name="fetch_page"))
    assert use["name"] == "web_fetch"  # type: ignore[index, call-overload]
    assert page["content"]["content"]["source"]["data"] == "[1] A"  # type: ignore[index, call-overload]
    messages = to_message({"role": "assistant", "content": [use, page]}, "m")
    assert [message.role for message in messages] == ["assistant", "tool"]


def test_citations_of_anthropic_quote_a_part_of_the_page() -> None:
    (one,) = claude.citations("Stone [1].", dict(enumerate(PAGES, 1)))
    assert one["cited_text"] == "x" * 150  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("ran", "name", "arguments", "read"),
    [
        (run("c", 1, *PAGES), "search__search", {"query": "q"}, "[1] A"),
        (run("c", 1, error=True), "search__search", {"query": "q"}, "Error: [1] A"),
        (run("c", 1, PAGES[0], name="fetch_page", arguments={"url": "u"}), "search__fetch_page", {"url": "u"}, "[1] A"),
    ],
)
def test_items_of_openai_return_as_the_model_read_them(
    ran: types.ToolRun, name: str, arguments: dict[str, Any], read: str
) -> None:
    item = gpt.call_item("ws_1", ran.started, ran.ended)
    said = {"type": "message", "role": "assistant", "content": "t"}
    called, result, spoken = conversation([item, said], None)
    (call,) = called.tool_calls
    assert (call.name, call.arguments) == (name, arguments)
    assert (result.role, result.text, result.tool_call_id) == ("tool", read, call.id)
    assert spoken.text == "t"
    foreign = {**item, "encrypted_content": "of another server"}
    assert [message.role for message in conversation([foreign, said], None)] == ["assistant"]
    unfinished = gpt.call_item("ws_1", ran.started, None)
    assert [message.role for message in conversation([unfinished, said], None)] == ["assistant"]


def test_an_item_of_a_page_that_the_model_opens() -> None:
    started = types.ToolStarted(id="c", server="search", name="fetch_page", arguments={"url": "u"}, search=True)
    item = gpt.call_item("ws_1", started, None)
    assert (item["action"], item["status"]) == ({"type": "open_page", "url": "u"}, "in_progress")
    assert gpt.call_item("ws_1", started, types.ToolEnded(id="c", text="", is_error=True))["status"] == "failed"
