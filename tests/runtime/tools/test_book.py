"""The tools that models, keys and requests get of the servers of a manifest."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.tool_servers import ToolServer
from mullama.errors import Denied, ToolsUnavailable, Unsupported
from mullama.runtime.base import Caller
from mullama.runtime.tools.book import patterns_of
from tests.runtime.tools.book_fixture import ANYONE, Desk, desk, manifest, tool

__all__ = ["desk"]
pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("model", "servers", "names"),
    [("chat", (), 2), ("other", (ToolServer(label="docs"),), 2), ("other", (), 0)],
)
async def test_the_first_request_waits_for_the_first_list_of_its_servers(
    desk: Desk, model: str, servers: tuple[ToolServer, ...], names: int
) -> None:
    desk.book.follow(desk.manifest, {})
    assert desk.names() == []
    await desk.book.asked(model, servers)
    assert len(desk.names()) == names


async def test_a_request_does_not_wait_again_for_a_server_that_is_down(desk: Desk) -> None:
    desk.world.lists["docs"] = ToolsUnavailable("it is down")
    await desk.follow()
    waiting = desk.book.asked("chat", ())
    with pytest.raises(StopIteration):  # without a switch to another task
        waiting.send(None)


async def test_a_model_gets_the_tools_of_its_servers(desk: Desk) -> None:
    assert (desk.book.active, desk.names()) == (False, [])
    await desk.follow()
    assert desk.book.active
    assert desk.names() == ["docs__read", "docs__search"]
    assert desk.book.tools_of("other@peer", ANYONE) == ()
    assert [one.name for one in desk.book.prompt_of(desk.manifest.models["chat"])] == ["docs__read", "docs__search"]
    assert desk.world.changes == 1
    assert desk.book.status() == [
        {"name": "docs", "state": "ready", "tools": ["read", "search"], "changed": False, "message": ""}
    ]
    assert (await desk.book.provider("docs").call("read", {}, seconds=1.0)).text == "read"
    assert desk.book.seconds("docs") == 30.0


async def test_keys_get_the_servers_that_they_name(desk: Desk) -> None:
    desk.world.lists["web"] = [tool("web", "open")]
    await desk.follow(manifest({"docs": {"url": "https://docs/mcp"}, "web": {"from_host": "web"}}))
    assert len(desk.names()) == 3
    assert desk.names(Caller(dialect="d", request_id="r", key="none")) == []
    one = Caller(dialect="d", request_id="r", key="docs")
    assert desk.names(one) == ["docs__read", "docs__search"]
    with pytest.raises(Denied):
        desk.book.find(ToolServer(label="web"), one)
    assert desk.book.find(ToolServer(label="mine", url="https://docs/mcp"), one).name == "docs"
    assert [t.name for t in desk.book.find(ToolServer(label="web"), ANYONE).tools] == ["open"]
    for unknown in (ToolServer(label="x"), ToolServer(label="docs", url="https://other/mcp")):
        with pytest.raises(Unsupported, match="does not know"):
            desk.book.find(unknown, ANYONE)


@pytest.mark.parametrize(
    ("approve", "expected"),
    [
        ("never", ()),
        ("always", ("*",)),
        (["write_*", "docs/read", "docs__x"], ("write_*", "docs/read", "docs__x", "*/write_*", "*/docs__x")),
    ],
)
async def test_the_rules_of_a_model_are_those_of_the_manifest(
    desk: Desk, approve: Any, expected: tuple[str, ...]
) -> None:
    desk.manifest = manifest(approve=approve, tool_turns=3, limits={"timeout": "9s"})
    rules = desk.book.rules("chat")
    assert (rules.turns, rules.approve, rules.seconds) == (3, expected, 9.0)
    assert patterns_of(desk.manifest.models["chat"]) == expected
    assert rules.needs_approval(tool("docs", "write_all")) == (approve != "never")
    assert rules.needs_approval(tool("web", "read")) == (approve == "always")
    assert desk.book.rules("other@peer").approve == ()
