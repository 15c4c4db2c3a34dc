"""The connection to one server of tools: its looks, its losses, and the tools of its last list.

A tool is usable exactly as it is pinned: by the lock file, or as it was when it was listed first, or as an apply
accepted it. A tool that its server changed since is left out until then. A server that does not answer is asked again
with growing pauses.

Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from mullama.errors import MullamaError, ToolsUnavailable
from mullama.manifest.spec import McpServer
from mullama.names import JSONValue
from mullama.plan.tools import ObservedTools, ToolChanges, ToolPins, compare_tools
from mullama.reconcile.tool_servers import Listed, tool_digests
from mullama.runtime.tools.pins import KeptPins
from mullama.struct import Struct
from mullama.tools.base import ServerTool, ToolProvider, ToolResult
from mullama.tools.listing import ToolListing, summary
from mullama.units import counted

LOOK_SECONDS: Final = 5.0
"""The longest wait of a plan or of a call for the lists of servers."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LIST_AGAIN: Final = 300.0
"""Seconds between two looks at a server that answers and does not say how long its list holds."""
_ASKED_AT_MOST, _ASKED_AT_LEAST = 60.0, 3600.0
"""The least and the most seconds between two looks, whatever a server says."""
_NOTHING: Final = ToolListing()
NO_CHANGES: Final = ToolChanges()

_log = logging.getLogger(__name__)

Note = Callable[[str, str, str], None]
"""Adds an event: kind, subject, message."""

Connect = Callable[[str, McpServer, Mapping[str, str]], Awaitable[Listed]]
"""See `reconcile.tool_servers.open_server`."""


class BookParts(Struct, frozen=True, kw_only=True):
    """The parts of a book of tools that its connections share."""

    env: Mapping[str, str]
    connect: Connect
    pause: Callable[[float], Awaitable[None]]
    """Waits between two looks at a server, in seconds."""
    pins: KeptPins
    note: Note
    """Receives losses, returns and changes."""
    changed: Callable[[], None]
    """Is called when the tools of models are others than before."""
    closing: set[asyncio.Task[None]]
    """The ends of connections that are in progress."""


class ServerConnection:
    """The connection to a server as the manifest declares it. locked: its pins in the lock file; None without any."""

    def __init__(self, name: str, server: McpServer, locked: ToolPins | None, parts: BookParts) -> None:
        self.name, self.server, self._locked, self._parts = name, server, locked, parts
        self.usable: tuple[ServerTool, ...] = ()
        """The tools that are as they are pinned, sorted by name. They stay while the server does not answer."""
        self.changes = NO_CHANGES
        """The tools that are listed otherwise than they are pinned."""
        self.answers = False
        """The last look found the server."""
        self._provider: Listed | None = None
        self._known: dict[str, ServerTool] = {}  # one whose digest is the same stays the same value and the same text
        self._listing = _NOTHING
        self._fault: MullamaError | None = None
        self._failures = 0
        self._looking = asyncio.Lock()
        self._looked = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._ended = False

    # Looks

    def follow(self, seconds: float = 0.0) -> None:
        """Look at the server again and again, the first time after so many seconds."""
        if self._follower is not None:
            self._follower.cancel()
        self._follower = asyncio.create_task(self._follow(seconds), name=f"tools of {self.name}")

    async def _follow(self, seconds: float) -> None:
        if seconds:
            await self._parts.pause(seconds)
        while True:
            await self.look()
            if self.answers:
                keeps = self._provider.keeps if self._provider is not None else None
                await self._parts.pause(min(max(keeps or _LIST_AGAIN, _ASKED_AT_MOST), _ASKED_AT_LEAST))
            else:
                await self._parts.pause(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures - 1, 10)))

    async def look(self) -> None:
        """List the tools as they are now."""
        async with self._looking:
            try:
                if self._provider is None:
                    self._provider = await self._parts.connect(self.name, self.server, self._parts.env)
                tools = await self._provider.tools()
            except MullamaError as error:
                self._lost(error)
            except Exception as error:  # noqa: BLE001 - the others serve
                _log.error("the server of tools %s failed", self.name, exc_info=error)
                self._lost(ToolsUnavailable(f"the server of tools {self.name} failed: {type(error).__name__}"))
            else:
                self._listed(tools)
            self._looked.set()
            if self._ended:
                self._disconnect()

    @property
    def looked(self) -> bool:
        """True after the first look, also one that found no server."""
        return self._looked.is_set()

    async def first_look(self) -> None:
        """Wait for the first look."""
        await self._looked.wait()

    def end(self) -> None:
        """End the looks and the connection."""
        self._ended = True
        if self._follower is not None:
            self._follower.cancel()
        self._disconnect()

    def _disconnect(self) -> None:
        """End the connection. The next one reads the secrets and the host file again."""
        provider, self._provider = self._provider, None
        if provider is not None:
            closing = asyncio.create_task(provider.aclose(), name=f"end of {self.name}")
            self._parts.closing.add(closing)
            closing.add_done_callback(self._parts.closing.discard)

    def _lost(self, error: MullamaError) -> None:
        self._failures += 1
        new = self._fault is None or self._fault.message != error.message
        before = self.usable if self.answers else ()
        self.answers, self._fault = False, error
        self._disconnect()
        if self._ended:
            return
        if new:
            self._parts.note("tools-lost", self.name, error.message)
        if before:
            self._parts.changed()

    def _listed(self, tools: Iterable[ServerTool]) -> None:
        if self._ended:
            return
        before, was, kept = (self.usable if self.answers else ()), self.changes, self._known
        self._known = {
            tool.name: kept[tool.name] if tool.name in kept and kept[tool.name].digest == tool.digest else tool
            for tool in tools
        }
        self._listing = self._provider.listing if self._provider is not None else _NOTHING
        returned = not self.answers
        self.answers, self._fault, self._failures = True, None, 0
        if self._pinned() is None:
            self._pin()
        self._settle()
        if returned:
            self._parts.note("tools-listed", self.name, counted(len(self.usable), "tool"))
        if self.changes and self.changes != was:
            message = f"{self.changes}; models do not get them until they are accepted"
            self._parts.note("tools-changed", self.name, message)
        if self.usable != before:
            self._parts.changed()

    # Pins

    def lock(self, pins: ToolPins | None) -> None:
        """Compare the tools with these pins of the lock file from now on."""
        if pins == self._locked:
            return
        self._locked, before = pins, self.usable
        self._settle()
        if self.usable != before:
            self._parts.changed()

    def accept(self) -> bool:
        """Pin the tools as they are listed now, where the lock file does not pin them. False if nothing changes."""
        if self._locked is not None or not self.answers or not self.changes:
            return False
        self._pin()
        self._settle()
        self._parts.note("tools-accepted", self.name, f"pinned as listed: {counted(len(self._known), 'tool')}")
        return True

    def observed(self, locked: ToolPins | None) -> ObservedTools:
        """Return the tools for a plan. locked: the pins of its lock file."""
        kept = self._pinned() if self._locked is None else None
        listed = tool_digests(self._known.values()) if self.answers else None
        return ObservedTools(pinned=locked or kept, listed=listed, locked=locked is not None)

    def _pinned(self) -> ToolPins | None:
        """Return the pins in force; None before the first list."""
        return self._locked if self._locked is not None else self._parts.pins.of(self.name, self.server)

    def _pin(self) -> None:
        try:
            self._parts.pins.keep(self.name, self.server, tool_digests(self._known.values()))
        except OSError as error:
            self._parts.note("warning", self.name, f"the pins of its tools could not be saved: {error}")

    def _settle(self) -> None:
        """Compare the last list with the pins. A request reads the outcome, because digests take their time."""
        pinned, listed = self._pinned() or {}, tool_digests(self._known.values())
        self.usable = tuple(tool for name, tool in sorted(self._known.items()) if pinned.get(name) == listed[name])
        self.changes = compare_tools(pinned, listed) if self._listing is not _NOTHING else NO_CHANGES

    # Calls and reports

    def provider(self) -> ToolProvider:
        """Return the server to call. A call that does not find it is a loss of the connection."""
        return _WatchedProvider(self)

    async def connected(self, seconds: float) -> ToolProvider:
        """Return the server after the first look, which ends within this time: an answer continues when its server is
        declared otherwise. Raises `ToolsUnavailable` for a server that is not there."""
        await first_looks((self,), seconds)
        if self._provider is None:
            reason = self._fault.message if self._fault else f"the server of tools {self.name} is not connected"
            raise ToolsUnavailable(reason)
        return self._provider

    def lost_by(self, used: ToolProvider, error: MullamaError) -> None:
        """Note that a call lost its server, unless another call or a look noted it."""
        if self._provider is used:
            self._lost(error)
            self.follow(_FIRST_PAUSE)

    @property
    def problem(self) -> str:
        """The reason why the server or some of its tools are not there, as a clause; "" for none."""
        if not self.answers:
            return self._fault.message if self._fault is not None else f"{self.name} is being asked for its tools"
        return "; ".join(filter(None, (str(self.changes), summary(self._listing))))

    def status(self) -> dict[str, Any]:
        """Return the state of the server and the names of its usable tools."""
        return {
            "name": self.name,
            "state": "ready" if self.answers else "unavailable" if self._fault is not None else "connecting",
            "tools": [tool.name for tool in self.usable],
            "changed": bool(self.changes),
            "message": self.problem,
        }


async def first_looks(connections: Iterable[ServerConnection], seconds: float) -> None:
    """Wait until each of these servers was asked for its tools once, within this time."""
    waiting = [connection for connection in connections if not connection.looked]
    if not waiting:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for connection in waiting:
                await connection.first_look()


class _WatchedProvider:
    """The provider of a connection, which learns of losses from calls, too."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    async def tools(self) -> tuple[ServerTool, ...]:
        return await (await self._connection.connected(LOOK_SECONDS)).tools()

    async def call(self, name: str, arguments: Mapping[str, JSONValue], *, seconds: float) -> ToolResult:
        used = await self._connection.connected(min(seconds, LOOK_SECONDS))
        try:
            return await used.call(name, arguments, seconds=seconds)
        except ToolsUnavailable as error:
            self._connection.lost_by(used, error)
            raise

    async def aclose(self) -> None:
        """Leave the connection to the book, whose it is."""
