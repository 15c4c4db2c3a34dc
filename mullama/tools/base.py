"""The tools of servers: their values, and the seam that each provider of tools implements."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Protocol

from mullama.chat.tool_servers import function_name
from mullama.chat.types import Citation, Tool
from mullama.names import JSONValue
from mullama.struct import Struct, field


class ServerTool(Struct, frozen=True, kw_only=True):
    """One tool of one server of tools.

    Description and parameters are those of the server, unchanged: data for the model, and no instruction to mullama.
    """

    server: str
    """The name of the server in the manifest. It has no `__` and does not end with `_`."""
    name: str
    """The name that the server gives the tool."""
    description: str = ""
    parameters: Mapping[str, JSONValue] = field(default_factory=dict)
    """The JSON Schema of the arguments."""

    @property
    def function(self) -> str:
        """The name by which a model calls the tool: `SERVER__NAME`, at most 64 of the characters `[A-Za-z0-9_-]`.

        A name that is longer or has other characters is changed, and ends with a part of its digest, so that two tools
        have different names.
        """
        return function_name(self.server, self.name)

    @property
    def digest(self) -> str:
        """`sha256:…` of name, description and parameters. It changes exactly if one of them changes."""
        shown = [self.name, self.description, self.parameters]
        text = json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class ToolResult(Struct, frozen=True, kw_only=True):
    """The result of one call, as a model reads it."""

    text: str
    is_error: bool = False
    """The tool failed, and `text` has the reason."""
    citations: tuple[Citation, ...] = ()


class ToolProvider(Protocol):
    """One server of tools. The methods belong to the event loop."""

    async def tools(self) -> tuple[ServerTool, ...]:
        """Return the tools of the server, sorted by name. Raises `ToolsUnavailable`."""
        ...

    async def call(self, name: str, arguments: Mapping[str, JSONValue], *, seconds: float) -> ToolResult:
        """Return the result of a call. Cancelling the call cancels it at the server.

        name: the tool by the name of its server. seconds: the most time. A failure of the tool, and a call that takes
        longer, is a result with `is_error`. Raises `ToolsUnavailable` for a server that cannot be reached.
        """
        ...

    async def aclose(self) -> None:
        """End the connection after the calls in progress."""
        ...


def prompt_tools(tools: Iterable[ServerTool]) -> tuple[Tool, ...]:
    """Return the tools as a prompt has them, sorted by function name: the same tools are always the same text."""
    made = (Tool(name=t.function, description=t.description, parameters=t.parameters) for t in tools)
    return tuple(sorted(made, key=lambda tool: tool.name))
