"""A book of tools over servers of a test, whose pauses end when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest, McpServer
from mullama.names import JSONValue
from mullama.runtime.base import Caller
from mullama.runtime.tools.book import ToolBook
from mullama.tools.base import ServerTool, ToolResult
from mullama.tools.listing import ToolListing, usable_tools

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
