"""Patterns of web origins (`server.cors`) and of host names (`server.allowed_hosts`). Pure.

A browser sends an origin in one spelling: lower case, without a default port, without a path (RFC 6454). A pattern may
be spelled otherwise as long as one origin, or one set of origins, is meant.
"""

import ipaddress
import re

from mullama.errors import Invalid

ANY = "*"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[^\[\]/:@?#,\s]+)(?::(?P<port>\*|[0-9]{1,5}))?",
    re.IGNORECASE,
)
_PARTS = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?:(?P<user>[^/@\s]*)@)?(?P<rest>[^/@?#\s,]*).*", re.IGNORECASE | re.DOTALL
)
_HOST = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?(\[[0-9a-f:.]+\]|[^/:@?#\s]+)(?::[0-9]*)?(?:/.*)?", re.IGNORECASE)
_EXAMPLE = "https://ui.example.org"
_LABELS = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_NAME = re.compile(rf"(?:\*\.)?{_LABELS}\.?")


def origin_pattern(text: str) -> re.Pattern[str]:
    """Return an expression that matches the origins of one entry of `server.cors`, as browsers send them.

    `*` is every origin, a host of `*.NAME` every host below that name, `*` as host or port every one.

    Raises `Invalid` with the right spelling for text that no origin can match.
    """
    if text == ANY:
        return re.compile(r".*", re.DOTALL)
    if text == "null":  # pages from files and in sandboxes
        return re.compile("null")
    stripped = text.removesuffix("/")
    match = _ORIGIN.fullmatch(stripped)
    if match is None:
        raise _no_origin(text)
    scheme, port = match["scheme"].lower(), match["port"]
    if port not in (None, "*") and int(port) > 65_535:
        raise Invalid(f"{port} is not a port", hint="0 to 65535, or * for every port")
    return re.compile(re.escape(f"{scheme}://") + _hosts(match["host"], text) + _ports(scheme, port))


def host_pattern(text: str) -> re.Pattern[str]:
    """Return an expression that matches the hosts of one entry of `server.allowed_hosts`, in canonical spelling.

    `*` is every host, `*.NAME` every host below that name. Raises `Invalid` with the right spelling.
    """
    if text == ANY:
        return re.compile(r".*")
    bare = text.removeprefix("[").removesuffix("]")
    try:
        return re.compile(re.escape(canonical_host(str(ipaddress.ip_address(bare)))))
    except ValueError:
        pass
    if found := _HOST.fullmatch(text):
        if found[1] == text:
            return re.compile(_hosts(text.rstrip("."), text))
        raise Invalid(
            f"{text[:80]!r} is not a host name: it has no scheme, port or path",
            hint=f"write {found[1].lower()}",
        )
    raise Invalid(f"{text[:80]!r} is not a host name", hint="llm.example.org or *.example.org")


def canonical_host(host: str) -> str:
    """Return a host in lower case, without brackets and final dot, and the short form of an IP address."""
    text = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _hosts(host: str, text: str) -> str:
    """Return the expression of a host: `*`, `*.NAME`, a name or an IP address."""
    if host == ANY:
        return r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])"
    if host.startswith("["):
        try:
            return re.escape(f"[{ipaddress.IPv6Address(host[1:-1])}]")
        except ValueError as error:
            raise Invalid(f"{host} is not an IPv6 address", hint="http://[::1]:3000") from error
    name = _ascii(host.lower())
    if not _NAME.fullmatch(name):
        raise Invalid(f"{text[:80]!r} has no valid host name", hint="* may stand for the first labels: *.example.org")
    if name.startswith("*."):
        return rf"{_LABELS}{re.escape(name[1:])}"
    return re.escape(name)


def _ascii(host: str) -> str:
    """Return a host as browsers send it: international names in their ASCII form."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _ports(scheme: str, port: str | None) -> str:
    if port == ANY:
        return r"(?::[0-9]{1,5})?"
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return ""
    return f":{int(port)}"


def _no_origin(text: str) -> Invalid:
    """Return the error for text that is not an origin, with the spelling that is probably meant."""
    parts = _PARTS.fullmatch(text)
    assert parts is not None
    guess = f"{(parts['scheme'] or 'https').lower()}://{parts['rest'].lower()}"
    if parts["scheme"] is None:
        reason = "the scheme is missing"
    elif parts["user"] is not None:
        reason = "it has a user name"
    else:
        reason = "it is scheme://host[:port] and nothing else"
    shown = text if parts["user"] is None else text.replace(f"{parts['user']}@", "…@")
    return Invalid(
        f"{shown[:80]!r} is not an origin: {reason}",
        hint=f"write {guess}" if parts["rest"] and _ORIGIN.fullmatch(guess) else _EXAMPLE,
    )
