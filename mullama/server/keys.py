"""API keys of requests: lookup, roles, and limits on wrong keys."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

from mullama.errors import Busy, Denied
from mullama.runtime.base import KeyRecord, Role
from mullama.server.route_table import AccessClass

_REMEMBERED = 10_000  # addresses with failures; beyond that the oldest are forgotten
_MOST_CREDENTIALS = 8  # of one request; clients and proxies send one or two
_MINUTE = 60.0
_KEY_PROTOCOL = "openai-insecure-api-key."


def credentials_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets of a request: its bearer tokens, and the values of the headers x-api-key and api-key.

    A page in a browser cannot set headers of a WebSocket: it sends the key as a subprotocol, as OpenAI's clients do.

    A client may send several, as when its own setting and that of a proxy meet. A header that is given twice is
    joined with a comma, which may be part of a secret, too.
    """
    found: list[str] = []
    authorization = headers.get("authorization", "")
    for part in dict.fromkeys((authorization, *authorization.split(","))):
        scheme, _, token = part.strip().partition(" ")
        if scheme.lower() == "bearer":
            found.append(token.strip())
    for name in ("x-api-key", "api-key"):
        value = headers.get(name, "").strip()
        found += [value, *map(str.strip, value.split(","))]
    for offered in headers.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(_KEY_PROTOCOL):
            found.append(offered.strip().removeprefix(_KEY_PROTOCOL))
    return tuple(dict.fromkeys(secret for secret in found if secret))[:_MOST_CREDENTIALS]


def match_key(secret: str, keys: Sequence[KeyRecord]) -> KeyRecord | None:
    """Return the key with this secret. The time taken does not depend on the secret."""
    digest = _digest(secret)
    found: KeyRecord | None = None
    for key in keys:
        if hmac.compare_digest(digest, key.sha256):
            found = key
    return found


def key_of_digest(digest: bytes | None, keys: Sequence[KeyRecord]) -> KeyRecord | None:
    """Return the key whose secret has this digest, for a request that began with it."""
    return next((key for key in keys if digest is not None and hmac.compare_digest(digest, key.sha256)), None)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def may(roles: Sequence[Role], access: AccessClass) -> bool:
    """Return whether these roles allow this class of route; admin allows all."""
    match access:
        case "public" | "any":
            return True
        case "infer" | "read" | "files" | "admin":
            return access in roles or "admin" in roles
        case never:
            assert_never(never)


class Failures:
    """Counts wrong credentials per address and minute, for a bounded number of addresses.

    The same wrong credential counts for itself, so a client with an old key does not stop the others behind its
    address, and different ones count together, because they are guesses.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        # By address, then by digest of the credential: the times of its failures.
        self._times: OrderedDict[str, dict[bytes, deque[float]]] = OrderedDict()

    def __len__(self) -> int:
        """The number of addresses with failures."""
        return len(self._times)

    def add(self, address: str, secret: str) -> None:
        """Count a wrong credential from this address, or raise `Busy` while one of its limits is reached."""
        block, now = _block(address), self._clock()
        wrong = self._recent(block, now)
        digest = _digest(secret)
        times = wrong.get(digest)
        if times is not None and len(times) >= self._limit:
            raise _too_often(times[0] + _MINUTE - now)
        if times is None and len(wrong) >= self._limit:
            raise _too_often(min(times[-1] for times in wrong.values()) + _MINUTE - now)
        wrong.setdefault(digest, deque()).append(now)
        self._times[block] = wrong
        self._times.move_to_end(block)
        while len(self._times) > _REMEMBERED:
            self._times.popitem(last=False)

    def _recent(self, block: str, now: float) -> dict[bytes, deque[float]]:
        """Return the failures of the last minute."""
        recent = {}
        for digest, times in self._times.get(block, {}).items():
            while times and times[0] <= now - _MINUTE:
                times.popleft()
            if times:
                recent[digest] = times
        return recent


def _too_often(seconds: float) -> Busy:
    return Busy(
        "too many requests with a wrong API key from this address",
        hint="correct the key of this client",
        retry_after=seconds,
        limited=True,
    )


def _block(address: str) -> str:
    """Return the unit that is counted: an IPv4 address, or an IPv6 /64, which belongs to one client."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def find_key(
    headers: Mapping[str, str], keys: Sequence[KeyRecord], address: str, failures: Failures, access: AccessClass
) -> KeyRecord:
    """Return the key of a request to a server that has keys; raise `Denied`, or `Busy` for too many wrong ones.

    Any valid credential serves, whatever else the request or others from its address send. Of several, the first
    that may use this class of route is preferred.
    """
    secrets = credentials_of(headers)
    if not secrets:
        raise Denied(
            "this server needs an API key",
            hint="send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
        )
    found = [key for secret in secrets if (key := match_key(secret, keys)) is not None]
    if found:
        return next((key for key in found if may(key.roles, access)), found[0])
    failures.add(address, secrets[0])
    raise Denied("the API key is not valid", hint="keys are declared under auth.keys")
