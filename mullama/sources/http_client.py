"""HTTP for sources: one place with its own deadlines, its own rules for redirects, and bounds for every body.

Redirects: at most 5, never from https to http; the credential is dropped as soon as scheme, host or port change.
Bodies are requested without a content encoding and refused with one. A request can be cancelled while it waits. With
`allowed` the address of the host is checked, and the connection is made to the address that was checked.
"""

from __future__ import annotations

import random
import re
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpcore2
import httpx2

from mullama import __version__
from mullama.errors import Invalid, TooLarge, TransferFailed, masked
from mullama.sources.base import Cancelled
from mullama.sources.network import Allowed, Cancellation, Deadline, Network, Stream, allowed_address, is_public
from mullama.sources.settings import RetryPolicy, Settings, Timeouts
from mullama.units import size
from mullama.weights.located import Credential

MAX_REDIRECTS: Final = 5
MAX_METADATA: Final = 4 * 1024**2
METADATA_RETRIES: Final = RetryPolicy(tries=3, first=0.5, longest=5.0, longest_asked=30.0)
RETRY_STATUS: Final = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of failures that another try may cure."""
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_KEEPALIVE: Final = 5.0


class TransientError(Exception):
    """A failure that another try may cure."""


class TooSlow(TransientError):
    """A body delivers less than `Timeouts.slow_bytes` in `slow_seconds`."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response whose body has not been read."""

    status: int
    url: str
    """The address after all redirects."""
    headers: Mapping[str, str]
    _response: httpcore2.Response = field(repr=False)
    _waits: Timeouts = field(repr=False)
    _direct_read: int = field(repr=False)

    @property
    def host(self) -> str:
        return place_of(self.url)

    @property
    def length(self) -> int | None:
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() and len(text) < 19 else None

    @property
    def validator(self) -> str:
        """The ETag if it is a strong one, which promises equal bytes; else ""."""
        tag = self.headers.get("etag", "")
        return tag if re.fullmatch(r'"[\x21\x23-\x7e]*"', tag) else ""

    @property
    def encoded(self) -> bool:
        return self.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")

    @property
    def retry_after(self) -> float | None:
        """The wait that the server asks for in seconds; None where it names none, or a date."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isdecimal() and len(text) < 9 else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives; raise `TransientError` when it ends early, stalls or is too slow."""
        begun, since = time.monotonic(), 0
        with _failures(self.host):
            for chunk in self._pieces():
                yield chunk
                since += len(chunk)
                now = time.monotonic()
                if now - begun >= self._waits.slow_seconds:
                    if since < self._waits.slow_bytes:
                        raise TooSlow(f"{self.host} sends less than {since / (now - begun) + 1:.0f} bytes/s")
                    begun, since = now, 0

    def _pieces(self) -> Iterator[bytes]:
        """Yield the body: a large one of known length directly from the connection, any other from the HTTP parser.

        The parser copies each byte several times. It does not see a body that is read directly, so it cannot use the
        connection again and closes it.
        """
        stream, length = self._response.extensions.get("network_stream"), self.length or 0
        large = length >= self._direct_read and "transfer-encoding" not in self.headers
        if not large or not isinstance(stream, Stream) or not stream.at_body:
            yield from self._response.iter_stream()
            return
        received = 0
        for piece in stream.body(length, self._waits.idle):
            received += len(piece)
            yield piece
        if received < length:
            raise TransientError(f"{self.host} closed the connection at {received} of {length} bytes")

    def body(self, limit: int = MAX_METADATA, take: Callable[[int], None] = lambda count: None) -> bytes:
        """Return the complete body, at most `limit` bytes; raise `TooLarge` beyond.

        take: is called with the size of each piece as it arrives, and may raise.
        """
        if self.encoded:
            raise TransientError(f"{self.host} sent an encoded body that was not asked for")
        found = bytearray()
        for chunk in self.chunks():
            take(len(chunk))
            found += chunk
            if len(found) > limit:
                raise TooLarge(f"the answer of {self.host} is larger than {size(limit)}", hint=masked(self.url)[:200])
        return bytes(found)

    def close(self) -> None:
        """Close the body; a connection whose body was not read to its end is closed, too."""
        self._response.close()


class Web:
    """Sends requests over a pool of connections. Use it from one thread at a time."""

    def __init__(
        self,
        *,
        waits: Timeouts | None = None,
        allowed: Allowed | None = None,
        trusted: frozenset[tuple[str, int]] = frozenset(),
        each_host: Callable[[str], None] = lambda host: None,
        direct_read: int = 1024**2,
        cancelled: Cancelled = lambda: False,
        pause: Callable[[float], None] = time.sleep,
        direct: bool = False,
        ca_file: str | None = None,
    ) -> None:
        """each_host: is called with the host of each request, also after a redirect, and may raise.

        direct: use no proxy of the environment and follow no redirect, so that a key reaches its own server alone.
        ca_file: PEM file with certificate authorities in place of those of the system.
        """
        self.waits = waits or Timeouts()
        self._each_host = each_host
        self.pause = pause
        self.cancelled = cancelled
        self._deadline = Deadline(cancelled=cancelled)
        self._allowed, self._trusted = allowed, trusted
        self._network = Network(self._deadline, allowed=allowed, trusted=trusted)
        self._direct_read = direct_read
        self._direct, self._ca_file = direct, ca_file
        self._pools: dict[str, httpcore2.ConnectionPool] = {}
        self._tls: ssl.SSLContext | None = None

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    @contextmanager
    def get(
        self, url: str, headers: Mapping[str, str] | None = None, credential: Credential | None = None,
        *, method: str = "GET",
    ) -> Iterator[HttpResponse]:  # fmt: skip
        """Send a request, follow redirects, and yield the response with its body unread, whatever its status."""
        origin, secret = _origin(url), dict(credential.headers) if credential else {}
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(method, url, {**(headers or {}), **secret})
            if self._direct or response.status not in _REDIRECTS or "location" not in response.headers:
                break
            with _failures(response.host):
                response.close()
            url = _redirect(response)
            if _origin(url) != origin:
                secret = {}
        else:
            raise TransferFailed(f"more than {MAX_REDIRECTS} redirects, the last one to {place_of(url)}")
        try:
            yield response
        finally:
            response.close()

    def ask(
        self, url: str, headers: Mapping[str, str], credential: Credential | None = None, *,
        limit: int = MAX_METADATA, retries: RetryPolicy = METADATA_RETRIES,
    ) -> tuple[HttpResponse, bytes]:  # fmt: skip
        """Return the response to a small request with its body, after further tries where the failure may pass.

        The response is the last one, whatever its status. Raises `TransientError` when no try got a response.
        """
        for attempt in range(1, retries.tries + 1):
            wait = backoff(retries, attempt)
            try:
                with self.get(url, headers, credential) as response:
                    body = response.body(limit)
            except TransientError:
                if attempt == retries.tries:
                    raise
            else:
                asked = response.retry_after
                if response.status not in RETRY_STATUS or attempt == retries.tries:
                    return response, body
                if asked is not None:
                    if asked > retries.longest_asked:
                        return response, body
                    wait = asked
            self.rest(wait)
        raise TransientError("no try was allowed")

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        """Send a body and return the response, whose own body is dropped. A redirect is not followed."""
        response = self._send("POST", url, headers, body)
        response.close()
        return response

    def rest(self, seconds: float) -> None:
        """Pause between two tries; raise `Cancellation` when the caller cancels."""
        while seconds > 0:
            if self.cancelled():
                raise Cancellation
            part = min(0.25, seconds)
            self.pause(part)
            seconds -= part

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> HttpResponse:
        waits = self.waits
        self._each_host(_origin(url)[1])
        if self._allowed is not None and self._proxy(url):
            self._check_behind_proxy(url, self._allowed)
        try:
            # httpx2 encodes the address and the headers; the connection is httpcore2's.
            request = httpx2.Request(
                method,
                url,
                headers={"User-Agent": f"mullama/{__version__}", "Accept-Encoding": "identity", **headers},
                content=body,
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise Invalid(f"{masked(url)[:120]!r} is not an address: {error}") from error
        timeouts = {"connect": waits.connect, "pool": waits.connect, "read": waits.idle, "write": waits.idle}
        self._deadline.until = time.monotonic() + waits.connect + waits.headers
        try:
            with _failures(place_of(url)):
                response = self._pool(url).handle_request(
                    httpcore2.Request(
                        method,
                        _core_url(request.url),
                        headers=request.headers.raw,
                        content=body,
                        extensions={"timeout": timeouts},
                    )
                )
        finally:
            self._deadline.until = float("inf")
        return HttpResponse(response.status, url, httpx2.Headers(response.headers), response, waits, self._direct_read)

    def _check_behind_proxy(self, url: str, allowed: Allowed) -> None:
        """Raise `Refused` for a host that is not allowed; the proxy would connect to it without a check."""
        _, host, port = _origin(url)
        if (host, port or 0) not in self._trusted:
            with _failures(host):
                allowed_address(host, port or 0, allowed)

    def _pool(self, url: str) -> httpcore2.ConnectionPool:
        address = self._proxy(url)
        if address not in self._pools:
            self._tls = self._tls or self._context()
            proxy = httpx2.Proxy(address) if address else None
            if proxy is not None:
                self._network.trust(proxy.url.host, proxy.url.port or {"https": 443}.get(proxy.url.scheme, 80))
            self._pools[address] = httpcore2.ConnectionPool(
                ssl_context=self._tls,
                proxy=httpcore2.Proxy(_core_url(proxy.url), auth=proxy.raw_auth) if proxy else None,
                keepalive_expiry=_KEEPALIVE,
                network_backend=self._network,
            )
        return self._pools[address]

    def _proxy(self, url: str) -> str:
        return "" if self._direct else proxy_of(url)

    def _context(self) -> ssl.SSLContext:
        """Raises `TransientError` for a file of authorities that cannot be read."""
        if self._ca_file is None:
            return httpx2.create_ssl_context()
        with _failures(self._ca_file):
            return ssl.create_default_context(cafile=self._ca_file)


def place_of(url: str) -> str:
    """Return host and port of an address, without a user name and a password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def open_web(settings: Settings, cancelled: Cancelled = lambda: False) -> Web:
    """Return a `Web` with the user's settings."""
    return Web(
        waits=settings.waits, allowed=is_public if settings.public_only else None, trusted=settings.trusted,
        direct_read=settings.direct_read, cancelled=cancelled,
    )  # fmt: skip


def backoff(retries: RetryPolicy, failures: int) -> float:
    """Return the seconds to wait after so many failures: exponential, with jitter that spreads many clients."""
    return float(min(retries.longest, retries.first * 2 ** (failures - 1)) * random.uniform(0.75, 1.25))


def proxy_of(url: str) -> str:
    """Return the proxy that the environment names for an address, "" for none."""
    parts = urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.netloc):
        return ""
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all", "")


def _redirect(response: HttpResponse) -> str:
    """Return the target of a redirect; raise `TransferFailed` for one that must not be followed."""
    location = response.headers["location"]
    try:
        target = urljoin(response.url, location)
        before, after = urlsplit(response.url).scheme, _origin(target)[0]
    except (ValueError, Invalid) as error:
        raise TransferFailed(f"{response.host} redirects to {masked(location)[:120]!r}, which is no address") from error
    if after not in ("http", "https") or (before == "https" and after != "https"):
        raise TransferFailed(f"{response.host} redirects from {before} to {after or 'nowhere'}: {masked(target)[:120]}")
    return target


@contextmanager
def _failures(host: str) -> Iterator[None]:
    """Raise failures of the connection as `TransientError` with the name of the host."""
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise TransientError(f"{host} did not answer in time ({type(error).__name__})") from error
    except (
        httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError, httpcore2.UnsupportedProtocol, OSError,
    ) as error:  # fmt: skip
        raise TransientError(f"{host}: {str(error) or type(error).__name__}") from error


def _core_url(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port; raise `Invalid` for text that is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError as error:
        raise Invalid(f"{masked(url)[:120]!r} is not an address: {error}") from error
    return parts.scheme, (parts.hostname or "").lower(), port
