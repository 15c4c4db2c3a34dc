"""HTTP to servers of tools: no redirect, no address of the link, no compressed and no endless answer.

Every failure becomes an answer with the status 502, whose body the caller makes of the reason. So a failure ends one
request, and not all that share its connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore2
import httpx2

from mullama import __version__
from mullama.manifest.host_addresses import IPAddress, addresses_in, is_host
from mullama.struct import Struct, replace
from mullama.tools.oauth import REFUSED, ClientCredentials, TokenTransport, failed_token
from mullama.units import size

_MOST_ERROR: Final = 64 * 1024
_MOST_RESUMED: Final = 8
"""Times that answers are continued, for each request that was sent."""
_REDIRECTS: Final = range(300, 400)
_NEEDS_TOKEN: Final = (
    "asks for a token of OAuth: give one by headers.Authorization, or declare oauth with the credentials of a client"
)
Socket = httpcore2.AsyncNetworkStream


class Guard(Struct, frozen=True, kw_only=True):
    """The limits of the requests to one server."""

    seconds: float
    """The most time to connect, and between two pieces of an answer."""
    most: int
    """The most bytes of an answer."""
    allowed: Callable[[IPAddress], bool] = is_host
    """Decides on the addresses of the host; by default all but those of the link, where clouds serve credentials."""


def open_client(
    headers: Mapping[str, str],
    guard: Guard,
    failure: Callable[[str], bytes],
    *,
    reads: bool = False,
    oauth: ClientCredentials | None = None,
) -> httpx2.AsyncClient:
    """Return a client within the limits, which uses no proxy.

    headers: sent with each request. failure: returns the body of a failed request for its reason, a clause without the
    name of the server. reads: send GET requests, too; without it, only those that continue an answer which broke off.
    oauth: gets the tokens of the requests, within the same limits.
    """
    own = {"user-agent": f"mullama/{__version__}", "accept-encoding": "identity"}
    transport: httpx2.AsyncBaseTransport = _GuardedTransport(guard, failure, reads=reads)
    if oauth is not None:
        tokens = open_client({}, replace(guard, most=_MOST_ERROR), failed_token)
        transport = TokenTransport(transport, tokens, oauth, failure)
    return httpx2.AsyncClient(
        transport=transport,
        headers={**own, **headers},
        timeout=httpx2.Timeout(guard.seconds),
        follow_redirects=False,
    )


class _Unusable(Exception):
    """An answer that must not be used; the reason is a clause. status: of a refusal of the server, else 0."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class _GuardedTransport(httpx2.AsyncBaseTransport):
    def __init__(self, guard: Guard, failure: Callable[[str], bytes], *, reads: bool) -> None:
        self._guard, self._failure, self._reads = guard, failure, reads
        self._sent = self._resumed = 0
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(), max_connections=None, max_keepalive_connections=8,
            keepalive_expiry=60.0, network_backend=_CheckedAddresses(guard.allowed),
        )  # fmt: skip

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET" and not self._reads and not self._may_resume(request):
            return httpx2.Response(405, request=request)
        self._sent += request.method != "GET"
        try:
            return await self._answer(request)
        except (_Unusable, httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as e:
            body = self._failure(_reason(e))
            refused = {REFUSED: e.status} if isinstance(e, _Unusable) else {}
            headers = {"content-type": "application/json"}
            return httpx2.Response(502, headers=headers, content=body, request=request, extensions=refused)

    def _may_resume(self, request: httpx2.Request) -> bool:
        """Return True for a request that continues an answer which broke off, as long as there are not too many."""
        if "last-event-id" not in request.headers or self._resumed >= _MOST_RESUMED * self._sent:
            return False
        self._resumed += 1
        return True

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        found = await self._pool.handle_async_request(
            httpcore2.Request(
                request.method,
                httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        headers = httpx2.Headers(found.headers)
        stream = _BoundedStream(found, self._guard.most)
        try:
            if found.status in _REDIRECTS:
                raise _Unusable(f"redirects to {_place(headers)}, which gets neither the request nor its headers")
            if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise _Unusable("sent a compressed answer, which was not asked for")
            if found.status >= 400:
                reason = await _refusal(found.status, stream, self._guard.most)
                if found.status == 401 and _wants_token(headers) and "authorization" not in request.headers:
                    reason = _NEEDS_TOKEN
                raise _Unusable(reason, found.status)
        except _ProtocolError as error:
            return httpx2.Response(found.status, headers=headers, content=error.body, request=request)
        except BaseException:
            await stream.aclose()
            raise
        return httpx2.Response(found.status, headers=headers, stream=stream, request=request)

    async def aclose(self) -> None:
        await self._pool.aclose()


class _ProtocolError(Exception):
    """An answer with the status of a failure whose body is an error of the protocol itself."""

    def __init__(self, body: bytes) -> None:
        self.body = body


async def _refusal(status: int, stream: _BoundedStream, most: int) -> str:
    """Return the reason of an answer with the status of a failure. Raises `_ProtocolError` for one of JSON-RPC."""
    body = b""
    async for piece in stream:
        body += piece
        if len(body) > min(most, _MOST_ERROR):
            break
    await stream.aclose()
    try:
        tree = json.loads(body)
    except ValueError:
        tree = None
    if isinstance(tree, dict) and "jsonrpc" in tree and isinstance(tree.get("error"), dict):
        raise _ProtocolError(body)
    if status in (401, 403):
        return f"refuses the request with status {status}: check its headers"
    return f"answered with status {status}"


def _wants_token(headers: httpx2.Headers) -> bool:
    """Return True for an answer that asks for a token of OAuth."""
    return headers.get("www-authenticate", "").lower().startswith("bearer")


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of an answer. Raises `httpx2.StreamError` beyond the bound and for a lost connection."""

    def __init__(self, response: httpcore2.Response, most: int) -> None:
        self._response, self._most = response, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        try:
            async for piece in self._response.aiter_stream():
                count += len(piece)
                if count > self._most:
                    raise httpx2.StreamError(f"the answer has more than {size(self._most)}")
                yield piece
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            raise httpx2.StreamError(f"the server {_reason(error)}") from error

    async def aclose(self) -> None:
        await self._response.aclose()


class _CheckedAddresses(httpcore2.AsyncNetworkBackend):
    """Connects to the address that was checked, so that a second look-up cannot give another one."""

    def __init__(self, allowed: Callable[[IPAddress], bool]) -> None:
        self._allowed, self._inner = allowed, httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of the library
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Socket:
        *first, last = await self._addresses(host, port, timeout)
        for address in first:  # a name such as localhost may have one of IPv6 that the server does not listen on
            with suppress(httpcore2.ConnectError):
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
        return await self._inner.connect_tcp(last, port, timeout, local_address, socket_options)

    async def _addresses(self, host: str, port: int, seconds: float | None) -> list[str]:
        """Return the addresses of the host, within the time; raise `_Unusable` when any of them is refused."""
        try:
            async with asyncio.timeout(seconds):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout("no address in time") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for text in addresses:
            if not all(map(self._allowed, addresses_in(ipaddress.ip_address(text.partition("%")[0])))):
                raise _Unusable(f"has the address {text}, to which no request is sent")
        return addresses

    async def connect_unix_socket(self, *_: Any, **__: Any) -> Socket:
        raise OSError("no unix socket is used")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _reason(error: BaseException) -> str:
    """Return a failure of a request as a clause."""
    if isinstance(error, _Unusable):
        return str(error)
    if isinstance(error, httpcore2.TimeoutException):
        return "did not answer in time"
    return f"is not reachable: {str(error) or type(error).__name__}"


def _place(headers: httpx2.Headers) -> str:
    """Return scheme and host of a redirect: the rest may have a secret."""
    try:
        parts = urlsplit(headers.get("location", ""))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"[:120] if parts.netloc else "another path"
    except ValueError:
        return "no address"
