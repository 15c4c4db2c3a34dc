"""The servers of tools of the manifest in force: the tools that models and requests get of them.

A server that does not answer, or that changed a tool, leaves models without its tools; they are served.

Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from mullama.chat.tool_servers import SEARCH_LABEL, ToolServer
from mullama.chat.types import Tool
from mullama.errors import Denied, ToolsUnavailable, Unsupported
from mullama.manifest.spec import Manifest, Model
from mullama.plan.tools import ObservedTools, ToolChanges, ToolPins
from mullama.reconcile.tool_servers import open_server
from mullama.runtime.base import Caller
from mullama.runtime.tools.connection import (
    LOOK_SECONDS,
    NO_CHANGES,
    BookParts,
    Connect,
    Note,
    ServerConnection,
    first_looks,
)
from mullama.runtime.tools.offer import NamedServer, ToolRules
from mullama.runtime.tools.pins import KeptPins, PinRecords
from mullama.runtime.tools.search_desk import SearchDesk
from mullama.tools.base import ServerTool, ToolProvider, prompt_tools


class ToolBook:
    """The servers of tools by name. Implements `runtime.tools.offer.Toolbox`.

    manifest: returns the manifest in force. records: keeps the pins. note: receives losses, returns and changes.
    changed: is called when the tools of models are others than before. pause: waits between two looks at a server.
    """

    def __init__(
        self,
        manifest: Callable[[], Manifest],
        env: Mapping[str, str],
        records: PinRecords,
        note: Note,
        changed: Callable[[], None],
        *,
        connect: Connect = open_server,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._manifest, self._changed = manifest, changed
        self._connections: dict[str, ServerConnection] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self._parts = BookParts(
            env=env,
            connect=connect,
            pause=pause,
            pins=KeptPins(records, clock),
            note=note,
            changed=changed,
            closing=self._closing,
        )
        self.search = SearchDesk(env, self.provider)

    # The servers of the manifest

    def follow(self, manifest: Manifest, locked: Mapping[str, ToolPins]) -> None:
        """Open and close connections so that they are those of a manifest. locked: the pins of its lock file.

        A server that no model uses can be named by a request, so it is opened, too.
        """
        searched = self.search.tools
        self.search.follow(manifest)
        if self.search.tools != searched:
            self._changed()
        for name in [name for name, one in self._connections.items() if manifest.mcp.get(name) != one.server]:
            self._connections.pop(name).end()
        for name, server in manifest.mcp.items():
            connection = self._connections.get(name)
            if connection is None:
                connection = ServerConnection(name, server, locked.get(name), self._parts)
                self._connections[name] = connection
                connection.follow()
            else:
                connection.lock(locked.get(name))

    async def close(self) -> None:
        """End all connections."""
        for connection in self._connections.values():
            connection.end()
        self._connections.clear()
        for look in self._looks:
            look.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)
        await self.search.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def refresh(self, seconds: float = LOOK_SECONDS) -> None:
        """List the tools of all servers as they are now, within this time."""
        looks = [asyncio.create_task(connection.look()) for connection in self._connections.values()]
        for look in looks:
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)
        if looks:
            await asyncio.wait(looks, timeout=seconds)  # those that take longer continue

    async def first_look(self, seconds: float = LOOK_SECONDS) -> None:
        """Wait until each server was asked for its tools once, within this time."""
        await first_looks(self._connections.values(), seconds)

    # Pins

    def accept(self, servers: Collection[str]) -> None:
        """Pin the tools of these servers as they are listed now, where the lock file does not pin them."""
        named = (self._connections[name] for name in servers if name in self._connections)
        if [connection for connection in named if connection.accept()]:
            self._changed()

    def changes(self, server: str) -> ToolChanges:
        """Return the tools that a server lists otherwise than they are pinned."""
        connection = self._connections.get(server)
        return connection.changes if connection is not None else NO_CHANGES

    def observed(self, manifest: Manifest, locked: Mapping[str, ToolPins]) -> dict[str, ObservedTools]:
        """Return the tools of the servers of a manifest for a plan. locked: the pins of its lock file."""
        found = ((name, server, self._connections.get(name)) for name, server in manifest.mcp.items())
        return {
            name: connection.observed(locked.get(name))
            for name, server, connection in found
            if connection is not None and connection.server == server
        }

    # The tools of models

    @property
    def active(self) -> bool:
        """See `Toolbox`."""
        return bool(self._connections or self.search.tools)

    def rules(self, model: str) -> ToolRules:
        """See `Toolbox`."""
        found = self._manifest().models.get(model)
        if found is None:
            return ToolRules()
        return ToolRules(turns=found.tool_turns, approve=patterns_of(found), seconds=found.limits.timeout)

    async def asked(self, model: str, servers: Collection[ToolServer]) -> None:
        """See `Toolbox`."""
        found = self._manifest().models.get(model)
        others = any(not server.search for server in servers)
        names = self._connections.keys() if others else found.mcp if found is not None else ()
        await first_looks((self._connections[name] for name in names if name in self._connections), LOOK_SECONDS)

    def tools_of(self, model: str, caller: Caller) -> tuple[ServerTool, ...]:
        """See `Toolbox`."""
        found = self._manifest().models.get(model)
        if found is None:
            return ()
        allowed = self._allowed(caller)
        names = [name for name in found.mcp if allowed is None or name in allowed]
        connections = (self._connections[name] for name in names if name in self._connections)
        listed = tuple(tool for connection in connections if connection.answers for tool in connection.usable)
        searches = found.search and (allowed is None or SEARCH_LABEL in allowed)
        return (*listed, *(self.search.tools if searches else ()))

    def find(self, server: ToolServer, caller: Caller) -> NamedServer:
        """See `Toolbox`."""
        if server.search:
            return self._find_search(server, caller)
        declared = self._manifest().mcp
        named = [n for n, s in declared.items() if s.url == server.url] if server.url else [server.label]
        connection = self._connections.get(named[0]) if named else None
        if connection is None:
            raise Unsupported(
                f"{server.place or 'the request'} names a server of tools that this server does not know",
                hint="mcp in the manifest declares it, by this name or address",
                field=server.place or "tools",
            )
        allowed = self._allowed(caller)
        if allowed is not None and connection.name not in allowed:
            raise Denied(f"the key may not use the server of tools {connection.name}", authenticated=True)
        if not connection.answers:
            return NamedServer(name=connection.name, error=connection.problem)
        return NamedServer(name=connection.name, tools=connection.usable)

    def _find_search(self, server: ToolServer, caller: Caller) -> NamedServer:
        tools, allowed = self.search.tools, self._allowed(caller)
        if tools and (allowed is None or SEARCH_LABEL in allowed):
            return NamedServer(name=SEARCH_LABEL, tools=tools)
        if server.optional:
            reason = "the key may not search" if tools else "the manifest declares no search"
            return NamedServer(name=SEARCH_LABEL, error=f"the web is not searched: {reason}")
        if tools:
            raise Denied("the key may not search the web", authenticated=True)
        raise Unsupported(
            f"{server.place or 'the request'} asks for a search of the web, and this server has none",
            hint="search in the manifest declares one, or mullama serve --enable-search",
            field=server.place or None,
        )

    def provider(self, server: str) -> ToolProvider:
        """See `Toolbox`."""
        if server == SEARCH_LABEL:
            return self.search.provider()
        connection = self._connections.get(server)
        if connection is None:
            raise ToolsUnavailable(f"the server of tools {server} is not connected")
        return connection.provider()

    def seconds(self, server: str) -> float:
        """See `Toolbox`."""
        if server == SEARCH_LABEL:
            return self.search.seconds
        connection = self._connections.get(server)
        return connection.server.timeout if connection is not None else LOOK_SECONDS

    def prompt_of(self, model: Model) -> tuple[Tool, ...]:
        """Return the tools of a model as every prompt begins with them, also while their server does not answer."""
        connections = (self._connections[name] for name in model.mcp if name in self._connections)
        listed = tuple(tool for connection in connections for tool in connection.usable)
        return prompt_tools((*listed, *(self.search.tools if model.search else ())))

    def _allowed(self, caller: Caller) -> Collection[str] | None:
        """Return the servers that a key may use; None for all."""
        key = self._manifest().auth.keys.get(caller.key or "")
        return key.mcp if key is not None else None

    # Reports

    def problem(self, server: str) -> str:
        """Return the reason why a server or some of its tools are not there, as a clause; "" for none."""
        connection = self._connections.get(server)
        return connection.problem if connection is not None else ""

    def status(self) -> list[dict[str, Any]]:
        """Return each server with its state and its tools, in the order of the manifest, then the search."""
        search = [
            {
                "name": SEARCH_LABEL,
                "state": "unavailable" if self.search.problem else "ready",
                "tools": [tool.name for tool in self.search.tools],
                "changed": False,
                "message": self.search.problem,
            }
        ]
        connections = (self._connections.get(name) for name in self._manifest().mcp)
        servers = [connection.status() for connection in connections if connection is not None]
        return [*servers, *(search if self.search.tools else [])]


def patterns_of(model: Model) -> tuple[str, ...]:
    """Return the patterns of the tools of a model whose calls need an approval: of `FUNCTION` and `SERVER/TOOL`."""
    if isinstance(model.approve, str):
        return ("*",) if model.approve == "always" else ()
    plain = (pattern for pattern in model.approve if "/" not in pattern)
    return (*model.approve, *(f"*/{pattern}" for pattern in plain))
