"""The Model Context Protocol at `/mcp`: its tools are requests to this server with the credentials of the caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mullama.client.errors import error_of
from mullama.dialects.base import Reply
from mullama.errors import NotFound, Unavailable
from mullama.mcp.base import EVENTS_IDLE_SECONDS, EVENTS_MOST_SECONDS, McpSession, require_sdk
from mullama.runtime.base import Service
from mullama.server.http.body import BodyBudget, read_body
from mullama.server.http.exchange import OPERATOR, Exchange, Message, Receive, Scope, Send
from mullama.server.http.limits import Bounds
from mullama.server.inflight import Inflight
from mullama.server.route_table import HttpRoute, RouteSchema

if TYPE_CHECKING:
    from mullama.mcp.protocol import McpEndpoint

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY_LIMIT = 8 * 1024 * 1024  # bytes: a manifest with its templates
_PASSED = frozenset((
    b"authorization", b"x-api-key", b"api-key", b"host", b"user-agent", b"x-mullama-hf-token", b"x-mullama-hf-endpoint",
))  # fmt: skip


class McpRoute:
    """The route. The endpoint is made with the first request, because it imports the SDK.

    app: the application that the tools ask.
    """

    def __init__(
        self, *, app: Application, service: Service, pool: BodyBudget, inflight: Inflight, bounds: Bounds
    ) -> None:
        self._app, self._service, self._pool = app, service, pool
        self._inflight, self._bounds = inflight, bounds
        self._endpoint: McpEndpoint | None = None

    def routes(self) -> list[HttpRoute]:
        """Return the route."""
        schema = RouteSchema(
            summary="Exchange a message of the Model Context Protocol", request={"type": "object"},
            response={"type": "object"},
        )  # fmt: skip
        return [
            HttpRoute(
                method="POST", path="/mcp", access="any", handler=self._answer, error_format=OPERATOR, schema=schema,
                answers_early=True,
            )
        ]  # fmt: skip

    async def close(self) -> None:
        """End the endpoint, if there is one."""
        if self._endpoint is not None:
            await self._endpoint.close()

    async def _answer(self, exchange: Exchange, _: Mapping[str, str]) -> None:
        mode = self._service.access().manifest.server.mcp
        if mode == "none":
            raise NotFound(
                f"there is nothing at {exchange.path!r}",
                hint="the Model Context Protocol is switched off: see server.mcp",
            )
        if self._endpoint is None:
            self._endpoint = _new_endpoint()
        caller = exchange.caller
        session = McpSession(
            api=OwnApi(self._app, exchange), changes=mode == "apply", roles=caller.roles, owner=caller.key or ""
        )
        with self._pool.share() as share:
            body = await read_body(exchange, share, limit=_BODY_LIMIT, bounds=self._bounds)
            async with self._inflight.track(exchange):
                response = GatheredResponse()
                scope = {**exchange.scope, "headers": _plain_headers(exchange.scope["headers"], len(body))}
                await self._endpoint.answer(session, scope, _body_once(body), response.send)
                await exchange.reply(Reply(status=response.status), (bytes(response.body), response.media))


def _new_endpoint() -> McpEndpoint:
    """Return the endpoint. Its import takes half a second. Raises `Unsupported` without the extra."""
    require_sdk()
    from mullama.mcp.protocol import McpEndpoint

    return McpEndpoint()


def _plain_headers(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request whose body was read and unpacked, with names in lower case."""
    changed = (b"content-encoding", b"content-length", b"transfer-encoding")
    kept = [(name.lower(), value) for name, value in headers if name.lower() not in changed]
    return [*kept, (b"content-length", b"%d" % length)]


def _body_once(body: bytes) -> Receive:
    """Return ASGI's `receive` of a body that is complete, on a connection that stays open."""
    pieces = [body]

    async def receive() -> Message:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": False}
        await asyncio.Event().wait()
        raise RuntimeError("the connection was closed")

    return receive


class GatheredResponse:
    """A response that is collected."""

    def __init__(self) -> None:
        self.status = 0
        self.media = ""
        self.body = bytearray()
        self.changed = asyncio.Event()

    async def send(self, message: Message) -> None:
        """Take one message of ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.media = dict(message["headers"]).get(b"content-type", b"").decode("latin-1")
        else:
            self.body += message.get("body", b"")
        self.changed.set()

    def require_success(self) -> None:
        """Raise the error of a response that has one, or that did not come."""
        if not self.status:
            raise Unavailable("the request ended without a response")
        if self.status >= 400:
            raise error_of(self.status, bytes(self.body), "this server")


class OwnApi:
    """Sends requests to the application in this process, on the connection and with the credentials of a caller."""

    def __init__(self, app: Application, caller: Exchange) -> None:
        self._app, self._caller = app, caller

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return json.loads(await self._request(method, path, body, {}))

    async def lines(
        self, method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        answer = await self._request(method, path, body, headers)
        return [json.loads(line) for line in answer.splitlines() if line.strip()]

    async def events(self, path: str) -> list[dict[str, Any]]:
        response = GatheredResponse()
        followed = self._app(self._scope("GET", path, b"", {}), _body_once(b""), response.send)
        task = asyncio.ensure_future(followed)
        task.add_done_callback(lambda _: response.changed.set())
        try:
            async with asyncio.timeout(EVENTS_MOST_SECONDS):
                while not task.done():
                    response.changed.clear()
                    async with asyncio.timeout(EVENTS_IDLE_SECONDS if response.status else None):
                        await response.changed.wait()
        except TimeoutError:
            pass
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        response.require_success()
        return [json.loads(line[6:]) for line in bytes(response.body).splitlines() if line[:6] == b"data: "]

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> bytes:
        response = GatheredResponse()
        sent = b"" if body is None else json.dumps(body).encode()
        await self._app(self._scope(method, path, sent, headers), _body_once(sent), response.send)
        response.require_success()
        return bytes(response.body)

    def _scope(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Scope:
        plain, _, query = path.partition("?")
        kept = [pair for pair in self._caller.scope["headers"] if pair[0].lower() in _PASSED]
        own = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        trace = {} if self._caller.trace is None else {"traceparent": self._caller.trace.parent}
        more = [(name.encode(), value.encode()) for name, value in {**own, **trace}.items()]
        return {
            **self._caller.scope, "method": method, "path": unquote(plain), "raw_path": plain.encode(),
            "query_string": query.encode(), "headers": [*kept, *more],
        }  # fmt: skip
