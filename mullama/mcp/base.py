"""The parts of the protocol that its transports share: the API behind the tools, and the rights of a session."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, Protocol

from mullama.errors import Unsupported
from mullama.struct import Struct

ToolRight = Literal["read", "infer", "admin"]
EVENTS_IDLE_SECONDS = 0.2
"""Time without an event after which the ones that are there are complete."""
EVENTS_MOST_SECONDS = 5.0
"""Time after which events are returned that come without such a pause."""


def require_sdk() -> None:
    """Raise `Unsupported` without the extra. Nothing of it is imported."""
    if "mcp" not in sys.modules and find_spec("mcp") is None:
        raise Unsupported(
            "the Model Context Protocol needs the package mcp, which is not installed",
            hint="pip install 'mullama[mcp]' installs it",
        )


class OperatorCalls(Protocol):
    """Requests to the HTTP API of one server, with the rights of one caller. Every failure is a `MullamaError`."""

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON of a response."""
        ...

    async def lines(
        self, method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """Return the objects of an NDJSON response at its end."""
        ...

    async def events(self, path: str) -> list[dict[str, Any]]:
        """Return the server-sent events that are there already."""
        ...


class McpSession(Struct, frozen=True, kw_only=True):
    """One caller of the tools."""

    api: OperatorCalls
    changes: bool = False
    """The tools that change something are offered."""
    roles: tuple[str, ...] = ("read", "infer", "admin")
    """Roles of the caller's key. The server checks them again with each request."""
    owner: str = ""
    """The name of the key, which alone may apply its plans."""

    def may(self, right: ToolRight) -> bool:
        """Return True if the caller has a right; admin has all."""
        return right in self.roles or "admin" in self.roles
