"""The tools that one request offers to its model, beside those of its client."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from mullama.chat import types as chat
from mullama.chat.tool_servers import ToolServer
from mullama.errors import Invalid, Unsupported
from mullama.runtime.base import Caller
from mullama.runtime.tools.loop import LoopLimits, Offered, offered_tool
from mullama.struct import Struct, replace
from mullama.tools.base import ServerTool, ToolProvider


class ToolRules(Struct, frozen=True, kw_only=True):
    """The rules of a model for the tools that this server calls for it."""

    turns: int = 8
    """Times that one answer may call tools."""
    approve: tuple[str, ...] = ()
    """Patterns of the tools whose calls a person must approve: of `FUNCTION`, or of `SERVER/NAME`."""
    seconds: float | None = None
    """The time limit of a request; None for a model of a peer, which has a limit of its own."""

    def needs_approval(self, tool: ServerTool) -> bool:
        """Return True if a person must approve each call of the tool."""
        names = (tool.function, f"{tool.server}/{tool.name}")
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.approve for name in names)


class NamedServer(Struct, frozen=True, kw_only=True):
    """A server of tools that a request names, as the manifest declares it."""

    name: str
    """In the manifest."""
    tools: tuple[ServerTool, ...] = ()
    """Those that the caller may use."""
    error: str = ""
    """The reason why it has none now."""


class Toolbox(Protocol):
    """The servers of tools of the manifest in force."""

    @property
    def active(self) -> bool:
        """True if the manifest declares any."""
        ...

    def rules(self, model: str) -> ToolRules:
        """Return the rules of a model; the defaults for a model of a peer."""
        ...

    async def asked(self, model: str, servers: Collection[ToolServer]) -> None:
        """Wait until each server of a model was asked for its tools once; every server if the request names any.

        So the first requests after a start have their tools. Ends after some seconds in any case.
        """
        ...

    def tools_of(self, model: str, caller: Caller) -> tuple[ServerTool, ...]:
        """Return the tools that the manifest gives to a model, of servers that are ready and that the key may use."""
        ...

    def find(self, server: ToolServer, caller: Caller) -> NamedServer:
        """Return a server that a request names.

        Raises `Unsupported` for one that the manifest does not declare, and `Denied` for one that the key may not use.
        """
        ...

    def provider(self, server: str) -> ToolProvider:
        """Return the server of this name in the manifest. Raises `ToolsUnavailable` for one that is not connected."""
        ...

    def seconds(self, server: str) -> float:
        """Return the most seconds of one call."""
        ...


class ToolOffer(Struct, frozen=True, kw_only=True):
    """The tools of this server that one request offers."""

    request: chat.ChatRequest
    """With these tools before those of the client, in sorted order: the same beginning of every prompt."""
    tools: dict[str, Offered]
    """By function."""
    clients: frozenset[str]
    """The names of the client's own tools."""
    limits: LoopLimits
    listings: tuple[chat.ToolsListed, ...] = ()
    """The servers that the request names, whose tools the conversation does not list yet."""

    @property
    def empty(self) -> bool:
        """True if the server has nothing to call and nothing to list: the request is answered as one without tools."""
        return not (self.tools or self.listings or self.request.approvals)


class OfferedTools:
    """The tools of models as requests offer them: made once, and again when they or the rules of the model change."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[ServerTool, ...], ToolRules, tuple[Offered, ...]]] = {}

    def of(self, model: str, tools: tuple[ServerTool, ...], rules: ToolRules) -> tuple[Offered, ...]:
        """Return these tools of a model, in the order of their functions."""
        made = self._made.get(model)
        if made is None or made[0] != tools or made[1] != rules:
            offered = (offered_tool(tool, approve=rules.needs_approval(tool)) for tool in tools)
            made = self._made[model] = (tools, rules, tuple(sorted(offered, key=lambda one: one.function)))
        return made[2]


def offer(
    request: chat.ChatRequest, model: str, toolbox: Toolbox, caller: Caller, known: OfferedTools
) -> ToolOffer | None:
    """Return the tools that this server offers for a request to a model; None for none.

    known: the tools of models that were offered before.

    Raises `Invalid` for a request that they cannot be added to, and the errors of `Toolbox.find`.
    """
    found = [(server, _found(server, toolbox, caller)) for server in request.tool_servers]
    if request.tool_choice.mode == "none" and not request.approvals:
        return None
    rules, named = toolbox.rules(model), {one.name for _, one in found}
    offered = [one for one in known.of(model, toolbox.tools_of(model, caller), rules) if one.tool.server not in named]
    for server, one in found:
        offered += _of_server(server, one.tools, rules)
    if not offered and not found and not request.approvals:
        return None
    tools = _checked(offered, request)
    if request.tool_choice.mode == "required" and not tools and not request.tools:
        raise Invalid("tool_choice asks for a call, but there are no tools", field="tool_choice")
    asked = _chosen(_warned(request, found), tools.values())
    own = tuple(tools[function].prompt for function in sorted(tools))
    return ToolOffer(
        request=replace(asked, tools=(*own, *request.tools), server_tools=len(own)),
        tools=tools,
        clients=frozenset(tool.name for tool in request.tools),
        limits=LoopLimits(turns=rules.turns, calls=request.max_tool_calls),
        listings=tuple(_listing(server, one) for server, one in found if not server.listed),
    )


def _found(server: ToolServer, toolbox: Toolbox, caller: Caller) -> NamedServer:
    """Return a server that a request names. Raises `Unsupported` for credentials, which the manifest declares."""
    found = toolbox.find(server, caller)
    if server.credentials:
        place = f"{server.place}.{server.credentials}"
        raise Unsupported(
            f"{place} is not sent to the server of tools: the manifest declares the headers of mcp.{found.name}",
            hint="leave it out", field=place,
        )  # fmt: skip
    return found


def _warned(request: chat.ChatRequest, found: Iterable[tuple[ToolServer, NamedServer]]) -> chat.ChatRequest:
    """Return the request with a warning for each optional server that is not there."""
    missing = tuple(f"{server.place}: {one.error}" for server, one in found if server.optional and one.error)
    return replace(request, warnings=(*request.warnings, *missing)) if missing else request


def _of_server(server: ToolServer, tools: Iterable[ServerTool], rules: ToolRules) -> list[Offered]:
    """Return the tools of a server that the request names, as far as the request allows them."""
    return [
        offered_tool(
            tool,
            label=server.label,
            approve=rules.needs_approval(tool) or server.approve.needs(tool.name),
            fixed=server.fixed,
        )
        for tool in tools
        if server.offers(tool.name)
    ]


def _checked(offered: Sequence[Offered], request: chat.ChatRequest) -> dict[str, Offered]:
    """Return the tools by function. Raises `Invalid` for a name that the client uses, or uses twice."""
    tools: dict[str, Offered] = {}
    for one in offered:
        if one.function in tools:
            raise Invalid(f"two servers of tools have the label {one.label!r}", field="tools")
        tools[one.function] = one
    for tool in request.tools:
        if tool.name in tools:
            raise Invalid(
                f"tools has {tool.name!r}, which is the name of a tool of this server",
                hint="give the function another name", field="tools",
            )  # fmt: skip
    known = {*tools, *(tool.name for tool in request.tools)}
    for name in request.tool_choice.names:
        if name not in known:
            raise Invalid(f"tool_choice names {name!r}, which is not among the tools", field="tool_choice")
    if tools and request.n > 1:
        raise Unsupported(
            "a model with tools of this server gives one answer at a time", hint="send n: 1, or no n", field="n"
        )
    return tools


def _chosen(request: chat.ChatRequest, offered: Iterable[Offered]) -> chat.ChatRequest:
    """Return the request with the functions of the server that its choice names."""
    choice = request.tool_choice
    if not choice.server:
        return request
    functions = tuple(sorted(one.function for one in offered if one.label == choice.server))
    wanted = tuple(name for name in choice.names if name in functions) if choice.names else functions
    if not wanted:
        raise Invalid(
            f"tool_choice asks for a tool of {choice.server!r}, which offers no such tool", field="tool_choice"
        )
    return replace(request, tool_choice=replace(choice, names=wanted, server=""))


def _listing(server: ToolServer, found: NamedServer) -> chat.ToolsListed:
    tools = tuple(
        chat.Tool(name=tool.name, description=tool.description, parameters=tool.parameters)
        for tool in found.tools
        if server.offers(tool.name)
    )
    return chat.ToolsListed(server=server.label, tools=tools, error=found.error)
