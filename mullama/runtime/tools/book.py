"""The servers of tools of the manifest in force: their connections, and the tools that models get of them.

A model gets a tool exactly as it is pinned: by the lock file, or as it was when it was listed first, or as an apply
accepted it. A tool that its server changed since is left out until then. A server that does not answer is asked again
with growing pauses; models are served without its tools.

Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from mullama.chat.tool_servers import SEARCH_LABEL, ToolServer
from mullama.chat.types import Tool
from mullama.errors import Denied, MullamaError, ToolsUnavailable, Unsupported
from mullama.manifest.spec import Manifest, McpServer, Model
from mullama.manifest.tree import block_to_tree
from mullama.names import JSONValue
from mullama.plan.tools import ObservedTools, ToolChanges, ToolPins, compare_tools
from mullama.reconcile.tool_servers import Listed, open_server, tool_digests
from mullama.runtime.base import Caller
from mullama.runtime.tools.offer import NamedServer, ToolRules
from mullama.runtime.tools.search_desk import SearchDesk
from mullama.struct import Struct, field
from mullama.tools.base import ServerTool, ToolProvider, ToolResult, prompt_tools
from mullama.tools.listing import ToolListing, summary
from mullama.units import counted

LOOK_SECONDS: Final = 5.0
"""The longest wait of a plan for the lists of servers."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LIST_AGAIN: Final = 300.0
"""Seconds between two looks at a server that answers and does not say how long its list holds."""
_ASKED_AT_MOST, _ASKED_AT_LEAST = 60.0, 3600.0
"""The least and the most seconds between two looks, whatever a server says."""
_NOTHING: Final = ToolListing()
_SAME: Final = ToolChanges()

_log = logging.getLogger(__name__)

Note = Callable[[str, str, str], None]
"""Adds an event: kind, subject, message."""


Connect = Callable[[str, McpServer, Mapping[str, str]], Awaitable[Listed]]
"""See `reconcile.tool_servers.open_server`."""


class PinRecords(Protocol):
    """The pins of this instance on disk."""

    def tool_pins(self) -> dict[str, Any]:
        """Return what was saved; empty without any."""
        ...

    def save_tool_pins(self, pins: Mapping[str, Any]) -> None: ...


class _Entry(Struct, kw_only=True):
    """One server as the manifest declares it."""

    name: str
    server: McpServer
    locked: ToolPins | None
    provider: Listed | None = None
    known: dict[str, ServerTool] = field(default_factory=dict)
    """The tools of the last list, by name. One whose digest is the same stays the same value, and so the same text."""
    usable: tuple[ServerTool, ...] = ()
    """Those that are as they are pinned, sorted by name."""
    changes: ToolChanges = _SAME
    """The tools that are listed otherwise than they are pinned."""
    listing: ToolListing = _NOTHING
    answers: bool = False
    fault: MullamaError | None = None
    failures: int = 0
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after the first look."""
    follower: asyncio.Task[None] | None = None


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
        self._manifest, self._env, self._records, self._note, self._changed = manifest, env, records, note, changed
        self._connect, self._pause, self._clock = connect, pause, clock
        self._entries: dict[str, _Entry] = {}
        self._pins: dict[str, dict[str, Any]] | None = None  # read with the first server
        self._closing: set[asyncio.Task[None]] = set()
        self._looks: set[asyncio.Task[None]] = set()
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
        for name in [name for name, entry in self._entries.items() if manifest.mcp.get(name) != entry.server]:
            self._drop(self._entries.pop(name))
        for name, server in manifest.mcp.items():
            entry = self._entries.get(name)
            if entry is None:
                entry = _Entry(name=name, server=server, locked=locked.get(name))
                self._entries[name] = entry
                self._start(entry)
            elif entry.locked != locked.get(name):
                entry.locked, before = locked.get(name), entry.usable
                self._settle(entry)
                if entry.usable != before:
                    self._changed()

    async def close(self) -> None:
        """End all connections."""
        for entry in self._entries.values():
            self._drop(entry)
        self._entries.clear()
        for look in self._looks:
            look.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)
        await self.search.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _start(self, entry: _Entry, seconds: float = 0.0) -> None:
        """Look at a server again and again, the first time after so many seconds."""
        if entry.follower is not None:
            entry.follower.cancel()
        entry.follower = asyncio.create_task(self._follow(entry, seconds), name=f"tools of {entry.name}")

    def _drop(self, entry: _Entry) -> None:
        if entry.follower is not None:
            entry.follower.cancel()
        self._disconnect(entry)

    def _disconnect(self, entry: _Entry) -> None:
        """End the connection. The next one reads the secrets and the host file again."""
        provider, entry.provider = entry.provider, None
        if provider is not None:
            closing = asyncio.create_task(provider.aclose(), name=f"end of {entry.name}")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _follow(self, entry: _Entry, seconds: float) -> None:
        if seconds:
            await self._pause(seconds)
        while True:
            await self._look(entry)
            if entry.answers:
                keeps = entry.provider.keeps if entry.provider is not None else None
                await self._pause(min(max(keeps or _LIST_AGAIN, _ASKED_AT_MOST), _ASKED_AT_LEAST))
            else:
                await self._pause(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(entry.failures - 1, 10)))

    async def refresh(self, seconds: float = LOOK_SECONDS) -> None:
        """List the tools of all servers as they are now, within this time."""
        looks = [asyncio.create_task(self._look(entry)) for entry in self._entries.values()]
        for look in looks:
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)
        if looks:
            await asyncio.wait(looks, timeout=seconds)  # those that take longer continue

    async def first_look(self, seconds: float = LOOK_SECONDS) -> None:
        """Wait until each server was asked for its tools once, within this time."""
        await _asked(self._entries.values(), seconds)

    async def _look(self, entry: _Entry) -> None:
        async with entry.looking:
            try:
                if entry.provider is None:
                    entry.provider = await self._connect(entry.name, entry.server, self._env)
                tools = await entry.provider.tools()
            except MullamaError as error:
                self._lost(entry, error)
            except Exception as error:  # noqa: BLE001 - the others serve
                _log.error("the server of tools %s failed", entry.name, exc_info=error)
                self._lost(entry, ToolsUnavailable(f"the server of tools {entry.name} failed: {type(error).__name__}"))
            else:
                self._listed(entry, tools)
            entry.asked.set()
            if self._entries.get(entry.name) is not entry:  # dropped since
                self._disconnect(entry)

    def _lost(self, entry: _Entry, error: MullamaError) -> None:
        entry.failures += 1
        new = entry.fault is None or entry.fault.message != error.message
        before = entry.usable if entry.answers else ()
        entry.answers, entry.fault = False, error
        self._disconnect(entry)
        if self._entries.get(entry.name) is not entry:
            return
        if new:
            self._note("tools-lost", entry.name, error.message)
        if before:
            self._changed()

    def _listed(self, entry: _Entry, tools: Iterable[ServerTool]) -> None:
        if self._entries.get(entry.name) is not entry:
            return
        before, was, kept = (entry.usable if entry.answers else ()), entry.changes, entry.known
        entry.known = {
            tool.name: kept[tool.name] if tool.name in kept and kept[tool.name].digest == tool.digest else tool
            for tool in tools
        }
        entry.listing = entry.provider.listing if entry.provider is not None else _NOTHING
        returned = not entry.answers
        entry.answers, entry.fault, entry.failures = True, None, 0
        if self._pinned(entry) is None:
            self._pin(entry)
        self._settle(entry)
        if returned:
            self._note("tools-listed", entry.name, counted(len(entry.usable), "tool"))
        if entry.changes and entry.changes != was:
            self._note("tools-changed", entry.name, f"{entry.changes}; models do not get them until they are accepted")
        if entry.usable != before:
            self._changed()

    # Pins

    def _pinned(self, entry: _Entry) -> ToolPins | None:
        """Return the pins in force; None for a server that is listed for the first time since it is declared so."""
        if entry.locked is not None:
            return entry.locked
        kept = self._kept.get(entry.name)
        found = kept.get("tools") if kept is not None and kept.get("declared") == _declaration(entry.server) else None
        return found if isinstance(found, dict) else None

    @property
    def _kept(self) -> dict[str, dict[str, Any]]:
        if self._pins is None:
            self._pins = {name: pin for name, pin in self._records.tool_pins().items() if isinstance(pin, dict)}
        return self._pins

    def _pin(self, entry: _Entry) -> None:
        tools = tool_digests(entry.known.values())
        self._kept[entry.name] = {"declared": _declaration(entry.server), "tools": tools, "when": self._clock()}
        try:
            self._records.save_tool_pins(self._kept)
        except OSError as error:
            self._note("warning", entry.name, f"the pins of its tools could not be saved: {error}")

    def accept(self, servers: Collection[str]) -> None:
        """Pin the tools of these servers as they are listed now, where the lock file does not pin them."""
        accepted = False
        for entry in (self._entries[name] for name in servers if name in self._entries):
            if entry.locked is None and entry.answers and entry.changes:
                self._pin(entry)
                self._settle(entry)
                self._note("tools-accepted", entry.name, f"pinned as listed: {counted(len(entry.known), 'tool')}")
                accepted = True
        if accepted:
            self._changed()

    def changes(self, server: str) -> ToolChanges:
        """Return the tools that a server lists otherwise than they are pinned."""
        entry = self._entries.get(server)
        return entry.changes if entry is not None else _SAME

    def _settle(self, entry: _Entry) -> None:
        """Compare the last list with the pins. A request reads the outcome, because digests take their time."""
        pinned, listed = self._pinned(entry) or {}, tool_digests(entry.known.values())
        entry.usable = tuple(tool for name, tool in sorted(entry.known.items()) if pinned.get(name) == listed[name])
        entry.changes = compare_tools(pinned, listed) if entry.listing is not _NOTHING else _SAME

    def observed(self, manifest: Manifest, locked: Mapping[str, ToolPins]) -> dict[str, ObservedTools]:
        """Return the tools of the servers of a manifest for a plan. locked: the pins of its lock file."""
        found: dict[str, ObservedTools] = {}
        for name, server in manifest.mcp.items():
            entry = self._entries.get(name)
            if entry is None or entry.server != server:
                continue
            pins = locked.get(name)
            kept = self._pinned(entry) if entry.locked is None else None
            listed = tool_digests(entry.known.values()) if entry.answers else None
            found[name] = ObservedTools(pinned=pins or kept, listed=listed, locked=pins is not None)
        return found

    # The tools of models

    @property
    def active(self) -> bool:
        """See `Toolbox`."""
        return bool(self._entries or self.search.tools)

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
        names = self._entries.keys() if others else found.mcp if found is not None else ()
        await _asked((self._entries[name] for name in names if name in self._entries), LOOK_SECONDS)

    def tools_of(self, model: str, caller: Caller) -> tuple[ServerTool, ...]:
        """See `Toolbox`."""
        found = self._manifest().models.get(model)
        if found is None:
            return ()
        allowed = self._allowed(caller)
        names = [name for name in found.mcp if allowed is None or name in allowed]
        entries = (self._entries[name] for name in names if name in self._entries)
        listed = tuple(tool for entry in entries if entry.answers for tool in entry.usable)
        searches = found.search and (allowed is None or SEARCH_LABEL in allowed)
        return (*listed, *(self.search.tools if searches else ()))

    def find(self, server: ToolServer, caller: Caller) -> NamedServer:
        """See `Toolbox`."""
        if server.search:
            return self._find_search(server, caller)
        declared = self._manifest().mcp
        named = [n for n, s in declared.items() if s.url == server.url] if server.url else [server.label]
        entry = self._entries.get(named[0]) if named else None
        if entry is None:
            raise Unsupported(
                f"{server.place or 'the request'} names a server of tools that this server does not know",
                hint="mcp in the manifest declares it, by this name or address",
                field=server.place or "tools",
            )
        allowed = self._allowed(caller)
        if allowed is not None and entry.name not in allowed:
            raise Denied(f"the key may not use the server of tools {entry.name}", authenticated=True)
        if not entry.answers:
            return NamedServer(name=entry.name, error=self.problem(entry.name))
        return NamedServer(name=entry.name, tools=entry.usable)

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
        entry = self._entries.get(server)
        if entry is None:
            raise ToolsUnavailable(f"the server of tools {server} is not connected")

        def lost(used: ToolProvider, error: MullamaError) -> None:
            if entry.provider is used:  # else it is known already
                self._lost(entry, error)
                self._start(entry, _FIRST_PAUSE)

        return _Watched(entry, lost)

    def seconds(self, server: str) -> float:
        """See `Toolbox`."""
        if server == SEARCH_LABEL:
            return self.search.seconds
        entry = self._entries.get(server)
        return entry.server.timeout if entry is not None else LOOK_SECONDS

    def prompt_of(self, model: Model) -> tuple[Tool, ...]:
        """Return the tools of a model as every prompt begins with them, also while their server does not answer."""
        entries = (self._entries[name] for name in model.mcp if name in self._entries)
        listed = tuple(tool for entry in entries for tool in entry.usable)
        return prompt_tools((*listed, *(self.search.tools if model.search else ())))

    def _allowed(self, caller: Caller) -> Collection[str] | None:
        """Return the servers that a key may use; None for all."""
        key = self._manifest().auth.keys.get(caller.key or "")
        return key.mcp if key is not None else None

    # Reports

    def problem(self, server: str) -> str:
        """Return the reason why a server or some of its tools are not there, as a clause; "" for none."""
        entry = self._entries.get(server)
        if entry is None:
            return ""
        if not entry.answers:
            return entry.fault.message if entry.fault is not None else f"{server} is being asked for its tools"
        parts = (str(entry.changes), summary(entry.listing))
        return "; ".join(filter(None, parts))

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
        servers = [
            {
                "name": name,
                "state": "ready" if entry.answers else "unavailable" if entry.fault is not None else "connecting",
                "tools": [tool.name for tool in entry.usable],
                "changed": bool(entry.changes),
                "message": self.problem(name),
            }
            for name in self._manifest().mcp
            if (entry := self._entries.get(name)) is not None
        ]
        return [*servers, *(search if self.search.tools else [])]


async def _asked(entries: Iterable[_Entry], seconds: float) -> None:
    """Wait until each of these servers was asked for its tools once, within this time."""
    waiting = [entry for entry in entries if not entry.asked.is_set()]
    if not waiting:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for entry in waiting:
                await entry.asked.wait()


def patterns_of(model: Model) -> tuple[str, ...]:
    """Return the patterns of the tools of a model whose calls need an approval: of `FUNCTION` and `SERVER/TOOL`."""
    if isinstance(model.approve, str):
        return ("*",) if model.approve == "always" else ()
    plain = (pattern for pattern in model.approve if "/" not in pattern)
    return (*model.approve, *(f"*/{pattern}" for pattern in plain))


def _declaration(server: McpServer) -> str:
    """Return a digest of what decides on the tools of a server: its place and the allowed names."""
    tree = block_to_tree(server)
    shown = [tree.get("url"), tree.get("from_host"), tree["tools"]]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


class _Watched:
    """The provider of an entry, whose losses the book learns from calls, too."""

    def __init__(self, entry: _Entry, lost: Callable[[ToolProvider, MullamaError], None]) -> None:
        self._entry, self._lost = entry, lost

    async def tools(self) -> tuple[ServerTool, ...]:
        return await (await self._provider(LOOK_SECONDS)).tools()

    async def call(self, name: str, arguments: Mapping[str, JSONValue], *, seconds: float) -> ToolResult:
        used = await self._provider(min(seconds, LOOK_SECONDS))
        try:
            return await used.call(name, arguments, seconds=seconds)
        except ToolsUnavailable as error:
            self._lost(used, error)
            raise

    async def _provider(self, seconds: float) -> ToolProvider:
        """Return the provider, after the first look: an answer continues when its server is declared otherwise."""
        await _asked((self._entry,), seconds)
        if self._entry.provider is None:
            fault = self._entry.fault
            reason = fault.message if fault else f"the server of tools {self._entry.name} is not connected"
            raise ToolsUnavailable(reason)
        return self._entry.provider

    async def aclose(self) -> None:
        """Leave the connection to the book, whose it is."""
