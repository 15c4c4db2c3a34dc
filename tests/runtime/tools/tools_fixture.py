"""A service with tools over a server in this process: the tools are functions of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any

from mullama.chat import types as chat
from mullama.chat.answer import fold
from mullama.chat.tool_servers import ToolServer
from mullama.errors import ToolsUnavailable, Unsupported
from mullama.names import JSONValue
from mullama.runtime.base import Caller
from mullama.runtime.tools.calls import CallRunner
from mullama.runtime.tools.offer import NamedServer, ToolRules
from mullama.runtime.tools.service import ToolService
from mullama.tools.base import ServerTool, ToolProvider, ToolResult
from tests.runtime.runtime_fixture import CALLER, LocalServer, request_of

Work = Callable[[Mapping[str, JSONValue]], Awaitable[str | ToolResult]]


class FunctionServer:
    """A server of tools whose tools are functions."""

    def __init__(self, name: str, tools: Mapping[str, Work]) -> None:
        self._name, self._tools = name, tools
        self.seen: list[tuple[str, Mapping[str, JSONValue]]] = []
        self.cancelled = asyncio.Event()

    async def tools(self) -> tuple[ServerTool, ...]:
        return tuple(
            ServerTool(server=self._name, name=name, description=f"the {name}", parameters={"type": "object"})
            for name in sorted(self._tools)
        )

    async def call(self, name: str, arguments: Mapping[str, JSONValue], *, seconds: float) -> ToolResult:
        self.seen.append((name, arguments))
        try:
            result = await self._tools[name](arguments)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return ToolResult(text=result) if isinstance(result, str) else result

    async def aclose(self) -> None:
        pass


class Tools:
    """Implements `Toolbox`. Every model has the tools of all servers unless `models` names them."""

    def __init__(self, **servers: FunctionServer) -> None:
        self.servers, self.rule, self.limit = servers, ToolRules(), 30.0
        self.models: Mapping[str, tuple[str, ...]] | None = None
        self.listed: dict[str, tuple[ServerTool, ...]] = {}
        self.down = ""
        self.waited: list[str] = []

    @classmethod
    async def of(cls, **servers: Mapping[str, Work]) -> Tools:
        made = cls(**{name: FunctionServer(name, tools) for name, tools in servers.items()})
        made.listed = {name: await server.tools() for name, server in made.servers.items()}
        return made

    active = True

    def rules(self, model: str) -> ToolRules:
        return self.rule

    async def asked(self, model: str, servers: Collection[ToolServer]) -> None:
        self.waited.append(model)

    def tools_of(self, model: str, caller: Caller) -> tuple[ServerTool, ...]:
        names = tuple(self.servers) if self.models is None else self.models.get(model, ())
        return tuple(tool for name in names for tool in self.listed[name])

    def find(self, server: ToolServer, caller: Caller) -> NamedServer:
        name = server.url.removeprefix("http://").removesuffix(".example/mcp") or server.label
        if name not in self.servers:
            raise Unsupported(f"no server {name}", field=f"{server.place}.server_url")
        return NamedServer(name=name, tools=() if self.down else self.listed[name], error=self.down)

    def provider(self, server: str) -> ToolProvider:
        if self.down:
            raise ToolsUnavailable(self.down)
        return self.servers[server]

    def seconds(self, server: str) -> float:
        return self.limit


def service_with(server: LocalServer, tools: Tools) -> ToolService:
    calls = CallRunner(tools, server.metrics, server.spans, server.event_log.note, server.captures.add_calls)
    return ToolService(server.service, server.service.first_model, tools, calls)


async def events_of(service: ToolService, request: chat.ChatRequest, caller: Caller = CALLER) -> list[chat.Event]:
    found: list[chat.Event] = []
    async with aclosing(service.events(request, caller)) as stream:  # type: ignore[type-var]  # a generator
        async for events in stream:
            found += events
    return found


async def both(service: ToolService, text: str, **more: Any) -> tuple[chat.Answer, chat.Answer]:
    """Return the streamed and the whole answer of model a."""
    streamed = fold(await events_of(service, request_of("a", text, stream=True, **more)))
    whole = await service.answer(request_of("a", text, **more), CALLER)
    assert isinstance(whole, chat.Answer)
    return streamed, whole
