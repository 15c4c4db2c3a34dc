"""A server of tools on loopback that does what a test says, also what no server should do."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}

Answer = Mapping[str, Any] | bytes
"""The result of a request, or a whole response of HTTP."""


def tool(name: str, description: str = "", **schema: Any) -> dict[str, Any]:
    return {"name": name, "description": description, "inputSchema": {**SCHEMA, **schema}}


def text(*parts: str, error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": part} for part in parts], "isError": error}


def response(
    body: bytes = b"", status: str = "200 OK", kind: str = "application/json", length: int | None = None,
    headers: Sequence[str] = (),
) -> bytes:  # fmt: skip
    lines = [
        f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body) if length is None else length}",
        "Connection: close", *headers,
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class McpStub:
    """Answers requests by `listed`, `called`, and in place of both by `other`.

    seen: the method and the headers of each request. gone: is set when a client ends a connection before its answer.
    """

    def __init__(self, revision: str = MODERN) -> None:
        self.revision = revision
        self.tools: list[dict[str, Any]] = [tool("search", "Searches."), tool("read", "Reads.")]
        self.ttl = 0
        self.listed: Callable[[str | None], Answer] = lambda cursor: {"tools": self.tools}
        self.called: Callable[[str, Mapping[str, Any]], Answer] = lambda name, arguments: text(f"{name} {arguments}")
        self.other: Callable[[str], Answer | None] = lambda method: None
        self.hold = asyncio.Event()
        """Calls wait for it."""
        self.hold.set()
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.seen]

    @asynccontextmanager
    async def running(self, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[McpStub]:
        connections: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            await self._serve(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for _ in range(4):  # turns of the loop until a connection that was just accepted is among them
                await asyncio.sleep(0)
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            verb = first.split(" ")[0]
            request = json.loads(body) if body else {"method": verb}
            self.seen.append((request["method"], headers))
            answering = asyncio.ensure_future(self._response(request))
            leaving = asyncio.ensure_future(reader.read())
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                answering.cancel()
                self.gone.set()
            else:
                leaving.cancel()
                writer.write(answering.result())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _response(self, request: Mapping[str, Any]) -> bytes:
        found = await self._answer(request["method"], request.get("params") or {})
        if isinstance(found, bytes):
            return found
        tree = {"jsonrpc": "2.0", "id": request.get("id"), **found}
        return response(json.dumps(tree).encode())

    async def _answer(self, method: str, params: Mapping[str, Any]) -> Answer:
        if (found := self.other(method)) is not None:
            return found
        modern = self.revision == MODERN
        extra = {"resultType": "complete"} if modern else {}
        match method:
            case "server/discover" if modern:
                about = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "ttlMs": 0}
                return {"result": {**about, "cacheScope": "public", **extra}}
            case "initialize" if not modern:
                about = {"protocolVersion": LEGACY, "capabilities": {"tools": {}}}
                return {"result": {**about, "serverInfo": {"name": "stub", "version": "1"}}}
            case "notifications/initialized" | "notifications/cancelled":
                return response(status="202 Accepted")
            case "tools/list":
                page = self.listed(params.get("cursor"))
                cached = {"ttlMs": self.ttl, "cacheScope": "public"} if modern else {}
                return page if isinstance(page, bytes) else {"result": {**cached, **extra, **page}}
            case "tools/call":
                self.arrived.set()
                await self.hold.wait()
                found = self.called(params["name"], params.get("arguments") or {})
                return found if isinstance(found, bytes) or "error" in found else {"result": {**extra, **found}}
            case _:
                return {"error": {"code": -32601, "message": "no such method"}}


@contextmanager
def stub_in_thread(revision: str = MODERN) -> Iterator[McpStub]:
    """Run a stub for tests without a loop of their own."""
    stub, started, loop = McpStub(revision), threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        async with stub.running():
            started.set()
            await ended.wait()

    ended = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait()
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
