"""The servers of tools of a manifest: their connections, pins, losses and returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mullama.chat.tool_servers import ToolServer
from mullama.errors import Denied, MullamaError, NotFound, ToolsUnavailable, Unsupported
from mullama.manifest.spec import Manifest, McpServer
from mullama.names import JSONValue
from mullama.runtime.base import Caller
from mullama.runtime.tools.book import ToolBook, patterns_of
from mullama.tools.base import ServerTool, ToolResult
from mullama.tools.listing import ToolListing, usable_tools

pytestmark = pytest.mark.anyio
FAR = 20.0
OBJECT: dict[str, Any] = {"type": "object", "properties": {}}
ANYONE = Caller(dialect="openai", request_id="r")


def tool(server: str, name: str, description: str = "") -> ServerTool:
    return ServerTool(server=server, name=name, description=description, parameters=dict(OBJECT))


class World:
    """The servers behind the names of a manifest, and the disk."""

    def __init__(self) -> None:
        self.lists: dict[str, list[ServerTool] | MullamaError] = {}
        self.calls: dict[str, MullamaError] = {}
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.disk: dict[str, Any] = {}
        self.full = False
        self.events: list[tuple[str, str]] = []
        self.changes = 0
        self.waits: list[float] = []
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()

    async def open(self, name: str, server: McpServer, env: Mapping[str, str]) -> Provider:
        self.opened.append(name)
        return Provider(self, name, server)

    def tool_pins(self) -> dict[str, Any]:
        return self.disk

    def save_tool_pins(self, pins: Mapping[str, Any]) -> None:
        if self.full:
            raise OSError("no space left")
        self.disk = dict(pins)

    async def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.waiting.set()
        await self.go.wait()
        self.go.clear()

    async def next_look(self) -> None:
        """Let the pause of the only server end, and wait for its next one."""
        await self.waiting.wait()
        self.waiting.clear()
        self.go.set()
        await self.waiting.wait()


class Provider:
    keeps: float | None = None

    def __init__(self, world: World, name: str, server: McpServer) -> None:
        self._world, self._name, self._server = world, name, server
        self.listing = ToolListing()

    async def tools(self) -> tuple[ServerTool, ...]:
        found = self._world.lists[self._name]
        if isinstance(found, MullamaError):
            raise found
        self.listing = usable_tools(found, self._server.tools)
        return self.listing.tools

    async def call(self, name: str, arguments: Mapping[str, JSONValue], *, seconds: float) -> ToolResult:
        if (error := self._world.calls.get(name)) is not None:
            raise error
        return ToolResult(text=name)

    async def aclose(self) -> None:
        self._world.closed.append(self._name)


def manifest(servers: Mapping[str, Any] | None = None, **chat: Any) -> Manifest:
    declared = {"docs": {"url": "https://docs/mcp"}} if servers is None else servers
    model = {"from": "builtin:tiny", "mcp": list(declared), **chat}
    keys = {"none": {"secret": {"from_env": "A"}, "mcp": []}, "docs": {"secret": {"from_env": "B"}, "mcp": ["docs"]}}
    tree = {"mullama": "v1", "mcp": declared, "models": {"chat": model}, "auth": {"keys": keys}}
    return Manifest.model_validate(tree)


class Desk:
    """A book with its world and the manifest in force."""

    def __init__(self) -> None:
        self.world = World()
        self.world.lists = {"docs": [tool("docs", "search"), tool("docs", "read")]}
        self.manifest = manifest()
        world = self.world

        def note(kind: str, subject: str, message: str) -> None:
            world.events.append((kind, message))

        def changed() -> None:
            world.changes += 1

        self.make = lambda: ToolBook(
            lambda: self.manifest, {}, world, note, changed, connect=world.open, pause=world.pause, clock=lambda: 5.0
        )
        self.book = self.make()

    async def follow(self, new: Manifest | None = None, **locked: Mapping[str, str]) -> None:
        self.manifest = new or self.manifest
        self.book.follow(self.manifest, locked)
        await self.book.refresh(FAR)

    def names(self, caller: Caller = ANYONE) -> list[str]:
        return [one.function for one in self.book.tools_of("chat", caller)]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.world.events]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.book.close()


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
