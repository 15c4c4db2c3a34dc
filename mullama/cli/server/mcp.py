"""`mullama mcp`: the server's status, plans and models as tools of an assistant, over standard input and output."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, TypeVar

from mullama.cli.api_client.discover import require
from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE
from mullama.cli.server.ensure import instance_options
from mullama.client.http import Client
from mullama.mcp.base import EVENTS_IDLE_SECONDS, EVENTS_MOST_SECONDS, McpSession, require_sdk

T = TypeVar("T")

_CALL_SECONDS = 3600.0


def mcp_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument(
        "--allow", action="append", default=[], choices=("apply",), metavar="apply",
        help="offer the tools that change the server, apply and undo (default: none of them)",
    )  # fmt: skip


def mcp(call: CommandContext) -> int:
    """Serve one assistant until it closes standard input. The server is looked for with each tool call."""
    require_sdk()
    from mullama.mcp.protocol import serve_stdio

    serve_stdio(McpSession(api=ServerApi(call), changes="apply" in call.options.allow))
    return DONE


class ServerApi:
    """Sends requests to the server of a command, each in a thread of its own."""

    def __init__(self, call: CommandContext) -> None:
        self._call = call

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        def ask(client: Client) -> Any:
            return client.get(path) if method == "GET" else client.post(path, body or {}, within=_CALL_SECONDS)

        return await self._asked(ask)

    async def lines(
        self, method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        return await self._asked(lambda client: list(client.lines(method, path, body, headers=headers)))

    async def events(self, path: str) -> list[dict[str, Any]]:
        def read(client: Client) -> list[dict[str, Any]]:
            found, end = [], time.monotonic() + EVENTS_MOST_SECONDS
            with closing(client.events(path, idle=EVENTS_IDLE_SECONDS)) as events:
                for event in events:
                    found.append(event)
                    if time.monotonic() > end:
                        break
            return found

        return await self._asked(read)

    async def _asked(self, ask: Callable[[Client], T]) -> T:
        return await asyncio.to_thread(lambda: ask(require(self._call).client))
