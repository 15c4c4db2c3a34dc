"""The pins of servers of tools that the lock file does not pin.

A server is pinned as it was listed first, or as an apply accepted it. A server that is declared otherwise is pinned
again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mullama.manifest.spec import McpServer
from mullama.manifest.tree import block_to_tree
from mullama.plan.tools import ToolPins


class PinRecords(Protocol):
    """The pins of this instance on disk."""

    def tool_pins(self) -> dict[str, Any]:
        """Return what was saved; empty without any."""
        ...

    def save_tool_pins(self, pins: Mapping[str, Any]) -> None: ...


class KeptPins:
    """The pins by server. clock: returns the Unix time in seconds."""

    def __init__(self, records: PinRecords, clock: Callable[[], float]) -> None:
        self._records, self._clock = records, clock
        self._read: dict[str, dict[str, Any]] | None = None  # with the first server

    def of(self, name: str, server: McpServer) -> ToolPins | None:
        """Return the pins of a server; None for one that is listed for the first time since it is declared so."""
        kept = self._kept.get(name)
        found = kept.get("tools") if kept is not None and kept.get("declared") == _declaration(server) else None
        return found if isinstance(found, dict) else None

    def keep(self, name: str, server: McpServer, pins: ToolPins) -> None:
        """Pin the tools of a server. Raises `OSError` for pins that hold until the end of the process only."""
        self._kept[name] = {"declared": _declaration(server), "tools": pins, "when": self._clock()}
        self._records.save_tool_pins(self._kept)

    @property
    def _kept(self) -> dict[str, dict[str, Any]]:
        if self._read is None:
            self._read = {name: pin for name, pin in self._records.tool_pins().items() if isinstance(pin, dict)}
        return self._read


def _declaration(server: McpServer) -> str:
    """Return a digest of what decides on the tools of a server: its place and the allowed names."""
    tree = block_to_tree(server)
    shown = [tree.get("url"), tree.get("from_host"), tree["tools"]]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]
