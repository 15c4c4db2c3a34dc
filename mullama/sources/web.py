"""The one way to the network: deadlines of its own, redirects by its own rules, bodies with a bound.

Redirects: at most 5, never from https to http, and what proves who asks is dropped as soon as scheme, host or
port change. Bodies are asked for as they are and refused when they come encoded. A request can be cancelled
while it waits. With `public_only` the resolved address must be a public one, and that very address is used.
"""

from __future__ import annotations

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
from mullama.errors import Invalid, TooLarge, TransferFailed
from mullama.sources.base import Cancelled
from mullama.sources.network import Deadline, Network, Stream
from mullama.sources.settings import Timeouts
from mullama.units import size
from mullama.weights.located import Credential

MAX_REDIRECTS: Final = 5
MAX_METADATA: Final = 4 * 1024**2
_LARGE: Final = 1024**2
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class TransientError(Exception):
    """The connection failed in a way that another try may cure."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response whose body has not been read. url: where it finally came from."""

    status: int
    url: str
    headers: Mapping[str, str]
    _response: httpx2.Response = field(repr=False)
    _waits: Timeouts = field(repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def length(self) -> int | None:
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() and len(text) < 19 else None

    @property
    def validator(self) -> str:
        """The ETag, if it is one that promises equal bytes."""
        tag = self.headers.get("etag", "")
        return tag if re.fullmatch(r'"[\x21\x23-\x7e]*"', tag) else ""

    @property
    def encoded(self) -> bool:
        return self.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait, if it says so in seconds."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isdecimal() and len(text) < 9 else None

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes; `TransientError` when it breaks off, stalls or crawls."""
        begun, since = time.monotonic(), 0
        with _failures(self.host):
            for chunk in self._pieces():
                yield chunk
                since += len(chunk)
                now = time.monotonic()
                if now - begun >= self._waits.slow_seconds:
                    if since < self._waits.slow_bytes:
                        raise TransientError(f"{self.host} sends less than {since / (now - begun) + 1:.0f} bytes/s")
                    begun, since = now, 0

    def _pieces(self) -> Iterator[bytes]:
        """Large ones past the parser, where the head says all that there is to know of them; then the connection is
        not used again."""
        stream, length = self._response.extensions.get("network_stream"), self.length or 0
        large = length >= _LARGE and "transfer-encoding" not in self.headers
        if not large or not isinstance(stream, Stream) or not stream.at_body:
            yield from self._response.iter_raw()
            return
        got = 0
        for piece in stream.body(length, self._waits.idle):
            got += len(piece)
            yield piece
        if got < length:
            raise TransientError(f"{self.host} closed the connection at {got} of {length} bytes")

    def body(self, limit: int = MAX_METADATA) -> bytes:
        """The whole body, at most `limit` bytes."""
        if self.encoded:
            raise TransientError(f"{self.host} sent an encoded body that was not asked for")
        found = bytearray()
        for chunk in self.chunks():
            found += chunk
            if len(found) > limit:
                raise TooLarge(f"the answer of {self.host} is larger than {size(limit)}", hint=self.url[:200])
        return bytes(found)


class Web:
    """A set of connections, for one thread at a time."""

    def __init__(
        self,
        *,
        waits: Timeouts | None = None,
        public_only: bool = False,
        cancelled: Cancelled = lambda: False,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.waits = waits or Timeouts()
        self.pause = pause
        self.cancelled = cancelled
        self._patience = Deadline(cancelled=cancelled)
        self._public_only = public_only
        self._transports: dict[str, httpx2.HTTPTransport] = {}
        self._context: ssl.SSLContext | None = None

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        for transport in self._transports.values():
            transport.close()
        self._transports.clear()

    @contextmanager
    def get(
        self, url: str, headers: Mapping[str, str] | None = None, credential: Credential | None = None,
        *, method: str = "GET",
    ) -> Iterator[HttpResponse]:  # fmt: skip
        """Ask, follow redirects, and hand out the answer with its body unread. Any status is an answer."""
        origin, proof = _origin(url), dict(credential.headers) if credential else {}
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._ask(method, url, {**(headers or {}), **proof})
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                break
            with _failures(answer.host):
                answer._response.close()
            url = self._next(answer)
            if _origin(url) != origin:
                proof = {}
        else:
            raise TransferFailed(f"more than {MAX_REDIRECTS} redirects, the last one to {urlsplit(url).netloc}")
        try:
            yield answer
        finally:
            answer._response.close()

    def _next(self, answer: HttpResponse) -> str:
        location = answer.headers["location"]
        try:
            target = urljoin(answer.url, location)
            before, after = urlsplit(answer.url).scheme, _origin(target)[0]
        except (ValueError, Invalid) as error:
            raise TransferFailed(f"{answer.host} redirects to {location[:120]!r}, which is no address") from error
        if after not in ("http", "https") or (before == "https" and after != "https"):
            raise TransferFailed(f"{answer.host} redirects from {before} to {after or 'nowhere'}: {target[:120]}")
        return target

    def _ask(self, method: str, url: str, headers: Mapping[str, str]) -> HttpResponse:
        waits = self.waits
        host = urlsplit(url).netloc
        timeouts = {"connect": waits.connect, "pool": waits.connect, "read": waits.idle, "write": waits.idle}
        try:
            request = httpx2.Request(
                method, url, extensions={"timeout": timeouts},
                headers={"User-Agent": f"mullama/{__version__}", "Accept-Encoding": "identity", **headers},
            )  # fmt: skip
        except (httpx2.InvalidURL, ValueError) as error:
            raise Invalid(f"{url[:120]!r} is not an address: {error}") from error
        self._patience.until = time.monotonic() + waits.connect + waits.headers
        try:
            with _failures(host):
                response = self._transport(url).handle_request(request)
        finally:
            self._patience.until = float("inf")
        response.request = request
        return HttpResponse(response.status_code, url, response.headers, response, waits)

    def _transport(self, url: str) -> httpx2.HTTPTransport:
        proxy = _proxy(url)
        if proxy not in self._transports:
            self._context = self._context or httpx2.create_ssl_context()
            transport = httpx2.HTTPTransport(verify=self._context, proxy=proxy or None)
            # the one place where a connection is made; the library has no public way to hand it over
            transport._pool._network_backend = Network(self._patience, public_only=self._public_only)
            self._transports[proxy] = transport
        return self._transports[proxy]


@contextmanager
def _failures(host: str) -> Iterator[None]:
    """Name the host in whatever goes wrong on the way to it."""
    try:
        yield
    except (httpx2.TimeoutException, httpcore2.TimeoutException) as error:
        raise TransientError(f"{host} did not answer in time ({type(error).__name__})") from error
    except (httpx2.TransportError, httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        raise TransientError(f"{host}: {str(error) or type(error).__name__}") from error


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port; `Invalid` for what is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError as error:
        raise Invalid(f"{url[:120]!r} is not an address: {error}") from error
    return parts.scheme, (parts.hostname or "").lower(), port


def _proxy(url: str) -> str:
    """The proxy that the environment names for this address, "" for none."""
    parts = urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.netloc):
        return ""
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all", "")
