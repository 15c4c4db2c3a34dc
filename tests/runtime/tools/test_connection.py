"""The connections of a book to its servers: pins, changes, losses and returns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from mullama.chat.tool_servers import ToolServer
from mullama.errors import NotFound, ToolsUnavailable
from mullama.manifest.spec import McpServer
from mullama.runtime.tools.book import ToolBook
from mullama.tools.base import ServerTool
from tests.runtime.tools.book_fixture import ANYONE, FAR, Desk, Provider, desk, manifest, tool

__all__ = ["desk"]
pytestmark = pytest.mark.anyio


# Pins


async def test_a_changed_tool_is_left_out_until_it_is_accepted(desk: Desk) -> None:
    await desk.follow()
    desk.world.lists["docs"] = [tool("docs", "search", "now sends your files"), tool("docs", "read"), tool("docs", "w")]
    await desk.book.refresh(FAR)
    assert desk.names() == ["docs__read"]
    assert str(desk.book.changes("docs")) == "search changed; w is new"
    assert desk.world.events[-1] == (
        "tools-changed", "search changed; w is new; models do not get them until they are accepted",
    )  # fmt: skip
    assert desk.book.status()[0]["changed"]
    seen = desk.book.observed(desk.manifest, {})["docs"]
    assert seen.pinned is not None
    assert seen.listed is not None
    assert (seen.pinned.keys(), seen.listed.keys(), seen.locked) == ({"search", "read"}, {"search", "read", "w"}, False)
    desk.book.accept(["docs", "nobody"])
    assert desk.names() == ["docs__read", "docs__search", "docs__w"]
    assert not desk.book.changes("docs")
    assert desk.kinds()[-1] == "tools-accepted"
    assert desk.world.changes == 3


async def test_pins_outlive_the_server_and_hold_for_one_declaration(desk: Desk) -> None:
    await desk.follow()
    await desk.book.close()
    desk.world.lists["docs"] = [tool("docs", "search", "other")]
    desk.book = desk.make()
    await desk.follow()
    assert desk.names() == []
    assert str(desk.book.changes("docs")) == "search changed; read is gone"
    await desk.follow(manifest({"docs": {"url": "https://elsewhere/mcp"}}))
    assert desk.names() == ["docs__search"]
    assert desk.world.closed == ["docs", "docs"]
    await desk.follow(manifest({"docs": {"url": "https://elsewhere/mcp", "timeout": 3}}))
    assert desk.names() == ["docs__search"]


async def test_the_lock_file_decides_where_it_pins(desk: Desk) -> None:
    await desk.follow(docs={"search": tool("docs", "search").digest, "read": "sha256:other"})
    assert desk.names() == ["docs__search"]
    desk.book.accept(["docs"])
    assert desk.names() == ["docs__search"]
    seen = desk.book.observed(desk.manifest, {"docs": {"search": "x"}})["docs"]
    assert (seen.pinned, seen.locked) == ({"search": "x"}, True)
    changes = desk.world.changes
    await desk.follow(docs={one.name: one.digest for one in (tool("docs", "search"), tool("docs", "read"))})
    assert desk.names() == ["docs__read", "docs__search"]
    assert desk.world.changes == changes + 1
    assert desk.world.disk == {}


async def test_a_tool_keeps_its_text_while_its_digest_is_the_same(desk: Desk) -> None:
    """A server that lists the keys of its schemas in another order each time changes no prompt."""
    ab, ba = {"type": "object", "properties": {}}, {"properties": {}, "type": "object"}
    desk.world.lists["docs"] = [ServerTool(server="docs", name="a", parameters=ab)]
    await desk.follow()
    desk.world.lists["docs"] = [ServerTool(server="docs", name="a", parameters=ba)]
    await desk.book.refresh(FAR)
    (found,) = desk.book.tools_of("chat", ANYONE)
    assert list(found.parameters) == ["type", "properties"]
    assert desk.world.changes == 1


async def test_pins_that_cannot_be_saved_hold_until_the_end(desk: Desk) -> None:
    desk.world.full = True
    await desk.follow()
    assert len(desk.names()) == 2
    assert ("warning", "the pins of its tools could not be saved: no space left") in desk.world.events


async def test_damaged_records_are_no_pins(desk: Desk) -> None:
    desk.world.disk = {"docs": [], "x": 3}
    await desk.follow()
    assert len(desk.names()) == 2


# Losses


async def test_a_server_that_is_down_leaves_the_others_and_returns(desk: Desk) -> None:
    desk.world.lists |= {"web": [tool("web", "open")], "docs": ToolsUnavailable("the server of tools docs is down")}
    both = manifest({"docs": {"url": "https://docs/mcp"}, "web": {"from_host": "web"}})
    await desk.follow(both)
    assert desk.names() == ["web__open"]
    assert desk.book.problem("docs") == "the server of tools docs is down"
    assert [one["state"] for one in desk.book.status()] == ["unavailable", "ready"]
    assert desk.book.find(ToolServer(label="docs"), ANYONE).error == "the server of tools docs is down"
    with pytest.raises(ToolsUnavailable, match="docs is down"):
        await desk.book.provider("docs").call("read", {}, seconds=1.0)
    await desk.book.refresh(FAR)
    assert desk.kinds().count("tools-lost") == 1
    desk.world.lists["docs"], before = [tool("docs", "read")], desk.world.opened.count("docs")
    await desk.book.refresh(FAR)
    assert desk.names() == ["docs__read", "web__open"]
    assert desk.world.opened.count("docs") == before + 1  # with its secrets and the host file read again
    assert ("tools-listed", "1 tool") in desk.world.events


async def test_pauses_grow_while_a_server_is_down(desk: Desk) -> None:
    desk.world.lists["docs"] = ToolsUnavailable("down")
    desk.book.follow(desk.manifest, {})
    for _ in range(7):
        await desk.world.next_look()
    assert desk.world.waits == [1, 2, 4, 8, 16, 32, 60, 60]
    desk.world.lists["docs"] = [tool("docs", "read")]
    await desk.world.next_look()
    assert desk.world.waits[-1] == 300
    assert desk.names() == ["docs__read"]


async def test_a_call_that_finds_no_server_is_a_loss(desk: Desk) -> None:
    await desk.follow()
    desk.world.calls["read"] = ToolsUnavailable("gone")
    provider = desk.book.provider("docs")
    with pytest.raises(ToolsUnavailable):
        await provider.call("read", {}, seconds=1.0)
    assert desk.names() == []
    prompt = desk.book.prompt_of(desk.manifest.models["chat"])
    assert [one.name for one in prompt] == ["docs__read", "docs__search"]  # the beginning of prompts stays
    with pytest.raises(ToolsUnavailable):
        await provider.call("read", {}, seconds=1.0)
    assert desk.kinds().count("tools-lost") == 1
    desk.world.calls.clear()
    await desk.book.refresh(FAR)
    assert len(desk.names()) == 2


async def test_a_call_waits_for_a_server_that_is_declared_otherwise(desk: Desk) -> None:
    await desk.follow()
    desk.manifest = manifest({"docs": {"url": "https://docs/mcp", "timeout": "5s"}})
    desk.book.follow(desk.manifest, {})
    assert (await desk.book.provider("docs").call("read", {}, seconds=FAR)).text == "read"
    assert desk.world.opened == ["docs", "docs"]


async def test_any_failure_of_a_server_concerns_it_alone(desk: Desk) -> None:
    async def broken(name: str, server: McpServer, env: Mapping[str, str]) -> Provider:
        raise ValueError("a bug") if name == "docs" else NotFound("mcp.web.headers.A: the environment variable A is")

    desk.book = ToolBook(
        lambda: desk.manifest, {}, desk.world, lambda *_: None, lambda: None, connect=broken, pause=desk.world.pause
    )
    await desk.follow(manifest({"docs": {"url": "https://docs/mcp"}, "web": {"from_host": "web"}}))
    assert desk.book.problem("docs") == "the server of tools docs failed: ValueError"
    assert desk.book.problem("web").startswith("mcp.web.headers.A: the environment variable A is")


async def test_tools_that_are_left_out_are_reported(desk: Desk) -> None:
    desk.world.lists["docs"] = [tool("docs", "a"), tool("docs", "b"), tool("docs", "b")]
    await desk.follow(manifest({"docs": {"url": "https://docs/mcp", "tools": ["a", "b", "serach"]}}))
    assert desk.names() == ["docs__a"]
    assert desk.book.problem("docs") == "b is listed twice; no tool is named serach"


async def test_a_removed_server_is_closed(desk: Desk) -> None:
    await desk.follow()
    await desk.follow(manifest({}))
    assert (desk.names(), desk.book.active, desk.book.status()) == ([], False, [])
    with pytest.raises(ToolsUnavailable, match="is not connected"):
        desk.book.provider("docs")
    await desk.book.close()
    assert desk.world.closed == ["docs"]


async def test_a_server_that_is_dropped_while_it_is_asked_is_closed(desk: Desk) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow(Provider):
        async def tools(self) -> tuple[ServerTool, ...]:
            asked.set()
            await answer.wait()
            return await super().tools()

    async def connect(name: str, server: McpServer, env: Mapping[str, str]) -> Provider:
        desk.world.opened.append(name)
        return Slow(desk.world, name, server)

    desk.book = ToolBook(
        lambda: desk.manifest, {}, desk.world, lambda *_: None, lambda: None, connect=connect, pause=desk.world.pause
    )
    desk.book.follow(desk.manifest, {})
    await asked.wait()
    waiting = asyncio.create_task(desk.book.refresh(FAR))
    await asyncio.sleep(0)
    desk.book.follow(manifest({}), {})
    answer.set()
    await waiting
    await desk.book.close()
    assert desk.world.closed == desk.world.opened
    assert desk.world.disk == {}


async def test_a_first_look_waits_no_longer_than_its_time(desk: Desk) -> None:
    await asyncio.wait_for(desk.book.first_look(), FAR)  # noqa: TID251 - the end of a test that failed
    answer = asyncio.Event()

    class Slow(Provider):
        async def tools(self) -> tuple[ServerTool, ...]:
            await answer.wait()
            return await super().tools()

    async def connect(name: str, server: McpServer, env: Mapping[str, str]) -> Provider:
        return Slow(desk.world, name, server)

    desk.book = ToolBook(
        lambda: desk.manifest, {}, desk.world, lambda *_: None, lambda: None, connect=connect, pause=desk.world.pause
    )
    desk.book.follow(desk.manifest, {})
    await desk.book.first_look(0.01)
    assert desk.book.status()[0]["state"] == "connecting"
    answer.set()
    await desk.book.first_look(FAR)
    assert desk.book.status()[0]["state"] == "ready"


@pytest.mark.parametrize(("keeps", "pause"), [(None, 300), (0.001, 60), (600.0, 600), (1e12, 3600)])
async def test_a_server_decides_within_bounds_on_the_time_of_its_list(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, keeps: float | None, pause: float
) -> None:
    monkeypatch.setattr(Provider, "keeps", keeps)
    desk.book.follow(desk.manifest, {})
    await desk.world.waiting.wait()
    assert desk.world.waits == [pause]
