"""API keys of requests: lookup, roles, and a limit on wrong keys from one address."""

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
_MINUTE = 60.0


def secret_of(headers: Mapping[str, str]) -> str | None:
    """Return the secret of a request: its bearer token, or the header x-api-key."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key") or None


def match_key(secret: str, keys: Sequence[KeyRecord]) -> KeyRecord | None:
    """Return the key with this secret. The time taken does not depend on the secret."""
    digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
    found: KeyRecord | None = None
    for key in keys:
        if hmac.compare_digest(digest, key.sha256):
            found = key
    return found


def may(roles: Sequence[Role], access: AccessClass) -> bool:
    """Return whether these roles allow this class of route; admin allows all."""
    match access:
        case "public":
            return True
        case "infer" | "read" | "admin":
            return access in roles or "admin" in roles
        case never:
            assert_never(never)


class Failures:
    """Counts wrong keys per address and minute, for a bounded number of addresses."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """The number of addresses with failures."""
        return len(self._times)

    def check(self, address: str) -> None:
        """Raise `Busy` while this address is over its limit. Then a right key is refused too."""
        times = self._times.get(_block(address))
        if times is None:
            return
        self._forget(times)
        if len(times) >= self._limit:
            raise Busy(
                "too many requests with a wrong API key from this address",
                hint="check the key of every client behind this address",
                retry_after=times[0] + _MINUTE - self._clock(),
                limited=True,
            )

    def add(self, address: str) -> None:
        """Count a wrong key from this address."""
        block = _block(address)
        times = self._times.setdefault(block, deque(maxlen=self._limit))
        times.append(self._clock())
        self._times.move_to_end(block)
        while len(self._times) > _REMEMBERED:
            self._times.popitem(last=False)

    def _forget(self, times: deque[float]) -> None:
        while times and times[0] <= self._clock() - _MINUTE:
            times.popleft()


def _block(address: str) -> str:
    """Return the unit that is counted: an IPv4 address, or an IPv6 /64, which belongs to one client."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def find_key(headers: Mapping[str, str], keys: Sequence[KeyRecord], address: str, failures: Failures) -> KeyRecord:
    """Return the key of a request to a server that has keys; raise `Denied` or `Busy`."""
    secret = secret_of(headers)
    if secret is None:
        raise Denied(
            "this server needs an API key",
            hint="send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
        )
    failures.check(address)
    key = match_key(secret, keys)
    if key is None:
        failures.add(address)
        raise Denied("the API key is not valid", hint="keys are declared under auth.keys")
    return key
