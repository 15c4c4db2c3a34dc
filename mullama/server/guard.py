"""Checks of Host against DNS rebinding and of Origin against web pages, with the CORS headers. Pure.

The checks use the listener and the headers only, never a URL that is built from the request.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache

from mullama.errors import Denied, Invalid
from mullama.manifest.spec.web_origins import ANY, canonical_host, host_pattern, origin_pattern
from mullama.server.http.exchange import Exchange, Listener, Rejection

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?)(?::[0-9]{1,5})?")
_LOOPBACK_ORIGIN = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::[0-9]{1,5})?")
# Schemes of desktop applications; a web page cannot have such an origin.
_APP_ORIGIN = re.compile(r"(?:app|tauri|file|vscode-webview|vscode-file)://[A-Za-z0-9._-]*(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/?#@\s\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_MOST_HEADERS = 64
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_RATES = [(unit, part) for unit in ("requests", "tokens") for part in ("limit", "remaining", "reset")]
_EXPOSED = ", ".join(
    (
        *("x-request-id", "request-id", "retry-after", "retry-after-ms", "x-should-retry", "mullama-warning"),
        "mullama-model",
        "traceresponse",
        *("openai-processing-ms", "etag", "www-authenticate"),
        *(f"x-ratelimit-{part}-{unit}" for unit, part in _RATES),
        *(f"anthropic-ratelimit-{unit}-{part}" for unit, part in _RATES),
    )
)
_VARY_PREFLIGHT = (
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network"
)


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
    name = canonical_host(match[1]) if match else None
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
    if name == canonical_host(local or "") or name in map(canonical_host, listener.hosts):
        return True
    return any(pattern.fullmatch(name) for pattern in _host_patterns(allowed))


@lru_cache(maxsize=4)
def _host_patterns(allowed: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(map(host_pattern, allowed))


@lru_cache(maxsize=8)
def _origin_patterns(allowed: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(map(origin_pattern, allowed))


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def may_read(origin: str, allowed: tuple[str, ...]) -> bool:
    """Return True if pages of this origin may use the server: those of this machine, and those of `server.cors`."""
    if _LOOPBACK_ORIGIN.fullmatch(origin) or _APP_ORIGIN.fullmatch(origin):
        return True
    return any(pattern.fullmatch(origin) for pattern in _origin_patterns(allowed))


def is_own_page(
    headers: Mapping[str, str], listener: Listener, local: str | None, allowed_hosts: tuple[str, ...]
) -> bool:
    """Return True for a request of the server's own page: its origin has the host and the port of the request.

    The host must be a name of this server, also on a unix socket, so that no other name that leads here counts. The
    scheme is not compared, because a proxy may end TLS.
    """
    if "origin" not in headers:
        return False
    origin, host = _ORIGIN.fullmatch(headers["origin"]), _HOST.fullmatch(headers.get("host", ""))
    if not origin or not host or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    default = {"http": "80", "https": "443"}[origin["scheme"]]
    port = host[0][len(host[1]) + 1 :] or default
    name = canonical_host(host[1])
    same = canonical_host(origin["host"]) == name and (origin["port"] or default) == port
    return same and _is_ours(name, listener, local, allowed_hosts)


def check_origin(headers: Mapping[str, str], allowed: tuple[str, ...], *, own: bool = False) -> None:
    """Raise for a request of a foreign page. A request without an origin that no page sent is not checked.

    own: the request is one of the server's own page.
    """
    origin = headers.get("origin")
    if origin is not None:
        if not own and not may_read(origin, allowed):
            raise _denied(f"a page of {origin[:100]!r}")
    elif headers.get("sec-fetch-site") == "cross-site" and ANY not in allowed:
        raise _denied("a page of another site")


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


def cors_headers(headers: Mapping[str, str], allowed: tuple[str, ...]) -> dict[str, str]:
    """Return the CORS headers of every response, also of errors and streams.

    A page that only `*` allows may not send the credentials of its user, such as cookies of a proxy.
    """
    origin = headers.get("origin")
    if origin is None or not may_read(origin, allowed):
        return {"vary": "Origin"}
    named = tuple(pattern for pattern in allowed if pattern != ANY)
    return {
        "access-control-allow-origin": origin,
        **({"access-control-allow-credentials": "true"} if may_read(origin, named) else {}),
        "access-control-expose-headers": _EXPOSED,
        "vary": "Origin",
    }


def is_preflight(exchange: Exchange) -> bool:
    """Return whether the request is a CORS preflight."""
    return exchange.method == "OPTIONS" and "access-control-request-method" in exchange.headers


def preflight_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of the response to a preflight, next to `cors_headers`.

    A page that may use the server may send every header: none of them gives rights except the keys.
    """
    requested = [h.strip() for h in headers.get("access-control-request-headers", "").split(",")]
    granted = [h for h in requested if _HEADER_NAME.fullmatch(h)][:_MOST_HEADERS]
    response = {
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": ", ".join(granted),
        "access-control-max-age": "600",
        "vary": _VARY_PREFLIGHT,
    }
    if headers.get("access-control-request-private-network") == "true":
        response["access-control-allow-private-network"] = "true"
    return response
