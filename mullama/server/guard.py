"""Checks of Host against DNS rebinding and of Origin against web pages, with the CORS headers. Pure.

The checks use the listener and the headers only, never a URL that is built from the request.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from mullama.errors import Denied, Invalid
from mullama.server.http.exchange import Exchange, Listener, Rejection

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?)(?::[0-9]{1,5})?")
_LOOPBACK_ORIGIN = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::[0-9]{1,5})?")
# Schemes of desktop applications; a web page cannot have such an origin.
_APP_ORIGIN = re.compile(r"(?:app|tauri|file|vscode-webview|vscode-file)://[A-Za-z0-9._-]*(?::[0-9]{1,5})?")
_ALLOWED_HEADER = re.compile(
    r"authorization|content-type|content-encoding|user-agent|accept|x-requested-with|x-api-key|if-match|"
    r"last-event-id|openai-[a-z-]+|anthropic-[a-z-]+|x-stainless-[a-z-]+|x-request-id",
    re.IGNORECASE,
)
_METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
_EXPOSED = "x-request-id, request-id, retry-after, x-should-retry, mullama-warning, openai-processing-ms, etag"


def check_host(host: str | None, listener: Listener, local: str | None, allowed: tuple[str, ...]) -> None:
    """Raise unless `host` names this server.

    Its names are loopback, the hosts of the listener, the address that the connection reached (`local`), and
    `server.allowed_hosts`. Requests over unix sockets are not checked.
    """
    if listener.kind != "tcp":
        return
    if host is None:
        raise Rejection(400, Invalid("the request has no Host header"), close=True)
    match = _HOST.fullmatch(host)
    name = _plain(match[1]) if match else None
    if name is not None and _is_ours(name, listener, local, allowed):
        return
    raise Rejection(
        403,
        Denied(
            f"{host[:100]!r} is not a host name of this server",
            hint="add the name to server.allowed_hosts in the manifest",
            authenticated=True,
        ),
        close=True,
    )


def _is_ours(name: str, listener: Listener, local: str | None, allowed: tuple[str, ...]) -> bool:
    if name == "localhost" or name.endswith(".localhost") or _is_loopback(name):
        return True
    if name == _plain(local or "") or name in map(_plain, listener.hosts):
        return True
    return any(_covers(_plain(pattern), name) for pattern in allowed)


def _covers(pattern: str, name: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _plain(host: str) -> str:
    """Return the canonical form of a host: lower case, no brackets, no final dot, the short form of IP addresses."""
    text = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_origin(headers: Mapping[str, str], allowed: tuple[str, ...]) -> str | None:
    """Return the origin to allow by CORS, None for a request that no page sent; raise for a foreign page."""
    origin = headers.get("origin")
    if origin is None:
        if headers.get("sec-fetch-site") == "cross-site":
            raise _denied("a page of another site")
        return None
    if origin not in allowed and not _LOOPBACK_ORIGIN.fullmatch(origin) and not _APP_ORIGIN.fullmatch(origin):
        raise _denied(f"a page of {origin[:100]!r}")
    return origin


def _denied(page: str) -> Rejection:
    return Rejection(
        403,
        Denied(
            f"{page} may not use this server",
            hint="add its origin to server.cors in the manifest",
            authenticated=True,
        ),
        close=True,
    )


def cors_headers(origin: str) -> dict[str, str]:
    """Return the headers of every response to an allowed page."""
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": _EXPOSED,
        "vary": "Origin",
    }


def is_preflight(exchange: Exchange) -> bool:
    """Return whether the request is a CORS preflight."""
    return exchange.method == "OPTIONS" and "access-control-request-method" in exchange.headers


def preflight_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of the response to a preflight, next to `cors_headers`."""
    requested = [h.strip() for h in headers.get("access-control-request-headers", "").split(",")]
    response = {
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": ", ".join(h for h in requested if _ALLOWED_HEADER.fullmatch(h)),
        "access-control-max-age": "600",
    }
    if headers.get("access-control-request-private-network") == "true":
        response["access-control-allow-private-network"] = "true"
    return response
