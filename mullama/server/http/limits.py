"""The time and size limits of the HTTP server of one process."""

from __future__ import annotations

from mullama.struct import Struct

MIB = 1024 * 1024


class Bounds(Struct, frozen=True, kw_only=True):
    """Times are seconds, sizes are bytes. The manifest sets those of bodies and sessions, in `server.limits`."""

    header_time: float = 10.0  # from the first byte of a request to the end of its headers
    body_idle: float = 30.0  # without a byte of an announced body
    body_rate: int = 1024  # bytes per second: the least average rate of a body, after body_idle
    keep_alive: float = 15.0  # between two requests on one connection
    linger: float = 2.0  # reading after an early response, see `BoundedProtocol.close_gracefully`
    stall: float = 120.0  # without the client reading anything of a response
    ping: float = 10.0  # without an event in a stream, before a keep-alive is sent
    flush: float = 1.0  # after a drain, for the error events of streams that were ended, and for the send buffers
    headers: int = 64
    header_bytes: int = 32 * 1024
    url_bytes: int = 8 * 1024
    connections: int = 1024
    body_pool: int = 256 * MIB  # the bodies of all requests in progress
    form_pool: int = 4096 * MIB  # on the disk: the files of the forms of all requests in progress
    upload: int = 512 * 1024 * MIB  # one blob
    depth: int = 64  # nested arrays and objects
    session_ping: float = 20.0  # between two pings of a WebSocket; a client that answers none is disconnected
    message: int = 8 * MIB  # one message of a WebSocket
    failed_keys: int = 20  # wrong keys from one address in a minute


DEFAULT = Bounds()
