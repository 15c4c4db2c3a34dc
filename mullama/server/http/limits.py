"""How long and how much one server process allows: every time and size of the HTTP side in one table."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Times are seconds, sizes bytes. The size of one body is the manifest's: `server.limits.body`."""

    header_time: float = 10.0  # from the first byte of a request to the end of its headers
    body_idle: float = 30.0  # without one byte of a body that was announced
    body_rate: int = 1024  # bytes a second that a body must bring on average, after body_idle
    keep_alive: float = 15.0  # between two requests on one connection
    linger: float = 2.0  # reading on after an early answer, so that the client can see it
    stall: float = 120.0  # a client that takes nothing of what is sent to it
    ping: float = 10.0  # silence in a stream before something is sent to keep it alive
    farewell: float = 1.0  # after a drain, for the last events of cut streams, and for what is not sent yet
    headers: int = 64
    header_bytes: int = 32 * 1024
    url_bytes: int = 8 * 1024
    connections: int = 1024
    body_pool: int = 256 * MIB  # all bodies of requests in progress together
    upload: int = 512 * 1024 * MIB  # one blob
    depth: int = 64  # of nested arrays and objects
    failed_keys: int = 20  # wrong keys from one address in a minute


DEFAULT = Bounds()
