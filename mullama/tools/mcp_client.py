"""Servers of tools by the Model Context Protocol, over streamable HTTP and as commands of the machine; by its SDK.

A server decides on all that it sends, so lists have a bound of pages, answers one of bytes, and everything one of time.
Servers of the revision 2026-07-28 and of those before are asked. The time for which a list may be kept (`ttlMs`) is
honoured.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import anyio
import mcp_types as types
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

import mullama
from mullama.errors import ToolsUnavailable
from mullama.names import JSONValue
from mullama.struct import Struct, field, repr_without
from mullama.tools.base import ServerTool, ToolResult
from mullama.tools.guarded_http import Guard, open_client
from mullama.tools.host_file import HostCommand
from mullama.tools.listing import ToolListing, usable_tools
from mullama.tools.mcp_process import ErrorOutput, command_streams
from mullama.tools.oauth import ClientCredentials
from mullama.units import size

MOST_PAGES: Final = 32
_MOST_LISTED: Final = 1024
_LEAST_ANSWER: Final = 4 * 1024**2
_CLOSING: Final = 8.0
"""Seconds for the orderly end of a connection."""
_FAILED: Final = -32_099
_OWN: Final = secrets.token_hex(8)
"""Marks the errors that this module makes of failures of HTTP; no server knows it."""

# The reasons of failures are in the condition of the server; the SDK would log texts of servers.
logging.getLogger("mcp.client").setLevel(logging.CRITICAL + 1)


class HttpAddress(Struct, frozen=True, kw_only=True):
    """A server of tools by its address."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """With their secrets."""
    oauth: ClientCredentials | None = None
    """Gets the tokens of the requests; None for a server without OAuth, or with a token in the headers."""

    __repr__ = repr_without("headers")


class _Connection(Struct, kw_only=True, eq=False):
    """One connection to a server. Dropped, it ends after the calls in progress, each of which has its own time."""

    opened: asyncio.Future[Client]
    end: asyncio.Event = field(default_factory=asyncio.Event)
    owner: asyncio.Task[None] | None = None
    """Keeps it open."""
    calls: int = 0
    dropped: bool = False

    def drop(self) -> None:
        """End the connection as soon as no call uses it."""
        self.dropped = True
        if not self.calls:
            self.end.set()

    @contextmanager
    def used(self) -> Iterator[Client]:
        """Keep the open connection for a call."""
        self.calls += 1
        try:
            yield self.opened.result()
        finally:
            self.calls -= 1
            if self.dropped:
                self.drop()


class McpClient:
    """One server of tools. It is asked for the first time when it is used, and again after each failure.

    name: of the server in the manifest. allowed: names or patterns of its tools. seconds: the most time to connect and
    to list the tools. most: the most bytes of the text of a result. Implements `tools.base.ToolProvider`.
    """

    def __init__(
        self, name: str, place: HttpAddress | HostCommand, *, allowed: Sequence[str], seconds: float, most: int
    ) -> None:
        self._name, self._place, self._allowed = name, place, tuple(allowed)
        self._seconds, self._most = seconds, most
        self._connection: _Connection | None = None
        self._ending: set[_Connection] = set()
        self._closed = False
        self._legacy = False
        """The next connection begins with `initialize`: the server did not answer the question for its revisions."""
        self._errors = ErrorOutput()
        self.listing = ToolListing()
        """The last list of its tools."""
        self.keeps: float | None = None
        """Seconds for which the server allows to keep the list; None where it does not say."""

    async def tools(self) -> tuple[ServerTool, ...]:
        """See `ToolProvider`. Sets `listing`."""
        connection = await self._connected()
        try:
            async with asyncio.timeout(self._seconds):
                listed = await self._list(connection.opened.result())
        except TimeoutError as error:
            self._drop(connection)
            raise self._unavailable(f"did not list its tools in {self._seconds:g} s") from error
        except (MCPError, ValueError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self._drop(connection)
            raise self._unavailable(_reason(error)) from error
        self.listing = await asyncio.to_thread(usable_tools, listed, self._allowed)
        return self.listing.tools

    async def _list(self, client: Client) -> list[ServerTool]:
        listed: list[ServerTool] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            if cursor is None:
                self.keeps = page.ttl_ms / 1000 if page.ttl_ms else None
            listed += [_tool(self._name, tool) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                return listed
            if cursor in seen or len(listed) > _MOST_LISTED:
                break
            seen.add(cursor)
        raise self._unavailable(f"lists its tools on more than {MOST_PAGES} pages, or has more than {_MOST_LISTED}")

    async def call(self, name: str, arguments: Mapping[str, JSONValue], *, seconds: float) -> ToolResult:
        """See `ToolProvider`."""
        connection = await self._connected()
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=name, arguments=dict(arguments)))
        try:
            with connection.used() as client:
                async with asyncio.timeout(seconds):
                    # Not `call_tool`: it checks results by a schema of the server, whose patterns can take any time.
                    found = await client.session.send_request(request, types.CallToolResult)
        except TimeoutError:
            return ToolResult(text=f"The tool did not answer within {seconds:g} s.", is_error=True)
        except MCPError as error:
            if _is_lost(error):
                self._drop(connection)
                raise self._unavailable(_reason(error)) from error
            return ToolResult(
                text=cut(f"The tool failed: {error.error.message.removeprefix(_UNREADABLE)}", self._most), is_error=True
            )
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self._drop(connection)
            raise self._unavailable(_reason(error)) from error
        except ValueError:
            return ToolResult(text="The tool sent a result of a wrong form, or asks for input.", is_error=True)
        return ToolResult(text=cut(_text(found), self._most), is_error=found.is_error)

    async def aclose(self) -> None:
        """See `ToolProvider`."""
        self._closed = True
        if self._connection is not None:
            self._drop(self._connection)
        ending = tuple(self._ending)
        for connection in ending:
            await connection.end.wait()
        owners = [connection.owner for connection in ending if connection.owner is not None]
        if owners:
            _, late = await asyncio.wait(owners, timeout=_CLOSING)
            for owner in late:
                owner.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # The connection

    async def _connected(self) -> _Connection:
        """Return the open connection; connect first where there is none."""
        if self._closed:
            raise self._unavailable("is not declared any more")
        connection = self._connection
        if connection is None or connection.owner is None or connection.owner.done():
            connection = _Connection(opened=asyncio.get_running_loop().create_future())
            connection.owner = asyncio.create_task(self._hold(connection), name=f"mcp {self._name}")
            self._connection = connection
        try:
            async with asyncio.timeout(self._seconds):
                await asyncio.shield(connection.opened)
        except TimeoutError as error:
            self._drop(connection)
            if connection.owner is not None:
                connection.owner.cancel()
            self._legacy = not self._legacy
            raise self._unavailable(f"did not answer in {self._seconds:g} s") from error
        return connection

    def _drop(self, connection: _Connection) -> None:
        """End a connection after its calls; the next use makes another one."""
        if self._connection is connection:
            self._connection = None
        connection.drop()
        if connection.owner is not None and not connection.owner.done():
            self._ending.add(connection)
            connection.owner.add_done_callback(lambda _: self._ending.discard(connection))

    async def _hold(self, connection: _Connection) -> None:
        """Keep one connection open. The SDK wants its begin and its end in one task."""
        opened = connection.opened
        try:
            async with self._session() as client:
                if not opened.done():
                    opened.set_result(client)
                await connection.end.wait()
        except asyncio.CancelledError:
            self._fail(opened, "closed the connection")  # not a cancellation: other callers wait for it, too
            raise
        except Exception as error:  # noqa: BLE001 - the SDK raises groups of whatever its tasks raise
            self._fail(opened, _reason(_first(error)))

    def _fail(self, opened: asyncio.Future[Client], reason: str) -> None:
        if not opened.done():
            opened.set_exception(self._unavailable(reason))
            opened.exception()  # no caller may be left to read it

    def _session(self) -> Client:
        most = max(_LEAST_ANSWER, 4 * self._most)  # a result travels as text and as structure, both escaped
        info = types.Implementation(name="mullama", version=mullama.__version__)
        if isinstance(self._place, HostCommand):
            self._errors = ErrorOutput()
            streams: Any = command_streams(self._place, most, self._errors)
        else:
            streams = _http_streams(self._place, Guard(seconds=self._seconds, most=most))
        return Client(streams, client_info=info, mode="legacy" if self._legacy else "auto")

    def _unavailable(self, reason: str) -> ToolsUnavailable:
        last = self._errors.last_line
        return ToolsUnavailable(
            f"the server of tools {self._name} {reason}" + (f"; it wrote: {last}" if last else ""),
            hint=f"mcp.{self._name} declares it",
        )


def _http_streams(place: HttpAddress, guard: Guard) -> Any:
    """Return the transport of an address. Its client is closed with it."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def streams() -> Any:
        async with (
            open_client(place.headers, guard, _failure, oauth=place.oauth) as http,
            streamable_http_client(place.url, http_client=http, max_sse_event_size=guard.most) as pair,
        ):
            yield pair

    return streams()


def _failure(reason: str) -> bytes:
    """Return the reason of a failed request as an error of the protocol."""
    error = {"code": _FAILED, "message": reason, "data": _OWN}
    return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()


def _is_lost(error: MCPError) -> bool:
    """Return True for an error that the server itself did not send, and that concerns more than one call."""
    own = error.error.data == _OWN or error.error.code == types.CONNECTION_CLOSED
    return own and not error.error.message.startswith(_BROKEN_STREAM)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _reason(error: BaseException) -> str:
    """Return a failure as a clause after the name of the server."""
    match error:
        case MCPError() if error.error.data == _OWN:
            return error.error.message
        case MCPError() if error.error.message.startswith(_BROKEN_STREAM):
            return "sent a stream of events that is too large or ends early"
        case MCPError() if error.error.code == types.CONNECTION_CLOSED:
            return "closed the connection"
        case MCPError():
            return f"answered with an error: {_printable(error.error.message.removeprefix(_UNREADABLE))}"
        case FileNotFoundError():
            return f"is a command that does not exist: {error.filename}"
        case OSError():
            return f"is a command that cannot be started: {error.strerror}"
        case ToolsUnavailable():
            return error.message
        case ValueError():
            return "answered in a wrong form"
        case _:
            return "closed the connection"


_BROKEN_STREAM: Final = "SSE stream "
"""The beginning of the messages of the SDK for the streams of one answer."""
_UNREADABLE: Final = "Failed to parse JSON response: "


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:200]


def _tool(server: str, tool: types.Tool) -> ServerTool:
    return ServerTool(
        server=server, name=tool.name, description=tool.description or "", parameters=tool.input_schema
    )  # fmt: skip


def _text(found: types.CallToolResult) -> str:
    """Return a result as text; what is none is named."""
    parts = [_part(part) for part in found.content]
    if not parts and found.structured_content is not None:
        return json.dumps(found.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _part(part: types.ContentBlock) -> str:
    match part:
        case types.TextContent():
            return part.text
        case types.ImageContent() | types.AudioContent():
            return f"[{part.type} of the type {_printable(part.mime_type)}, which is left out]"
        case types.ResourceLink():
            return f"[{_printable(part.name)}]({_printable(str(part.uri))})"
        case types.EmbeddedResource(resource=types.TextResourceContents(text=text)):
            return text
        case _:
            return "[a resource that is no text, which is left out]"


def cut(text: str, most: int) -> str:
    """Return at most `most` bytes of a text, with a line that says so where it is longer."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return data.decode()
    return f"{data[:most].decode('utf-8', 'ignore')}\n[cut here: {size(most)} of {size(len(data))}]"
