"""The user's settings of sources: the hub, parallel downloads, time limits and retries. Times are in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

from mullama.struct import Struct, field, repr_without
from mullama.weights.located import Credential


class HubSettings(Struct, frozen=True, kw_only=True):
    """A hub and its token. Empty values mean the hub library's own: HF_ENDPOINT, HF_TOKEN, the token file."""

    endpoint: str = ""
    token: str = ""
    token_from: str = ""
    """The place where the token was looked for, for messages. They never contain the token."""

    __repr__ = repr_without("token")


class Requester(Struct, frozen=True, kw_only=True):
    """The author of the request that causes a download."""

    public_only: bool = False
    """True for a client of the API: its downloads reach no host inside a network, and it names no files of this
    machine. False for the operator: a command over the control socket, or the manifest."""
    hub: HubSettings = HubSettings()
    """The endpoint and the token in the shell of the operator, for a hub that the manifest does not configure."""


requester: ContextVar[Requester] = ContextVar("requester", default=Requester())  # noqa: B039 - it is frozen
"""The author of the request in progress. Tasks that the request starts inherit it."""


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """The number of tries of a transfer and the waits between them."""

    tries: int = 5
    """Tries without progress before the transfer fails."""
    first: float = 1.0
    """The wait after the first failure; it doubles with each further one."""
    longest: float = 30.0
    """The longest wait between two tries."""
    longest_asked: float = 300.0
    """The longest wait that a server may ask for."""
    mismatches: int = 2
    """Downloads of a file that are repeated because the digest is wrong."""


class Timeouts(Struct, frozen=True, kw_only=True):
    """The time limits of a request."""

    connect: float = 10.0
    """To connect, with TLS."""
    headers: float = 30.0
    """Until all headers are received."""
    idle: float = 60.0
    """Without a byte of the body."""
    slow_bytes: int = 60_000
    """A body stalls when it delivers less than this in `slow_seconds`."""
    slow_seconds: float = 60.0


class Neighbour(Struct, frozen=True, kw_only=True):
    """Another mullama whose stored files are asked for by digest before the source of a file."""

    name: str
    """Of the peer in the manifest."""
    url: str
    credential: Credential = Credential()
    ca_file: str | None = None
    """PEM file with the certificate authorities of its certificate; None for those of the system."""
    connect: float = 5.0
    """Seconds to connect."""
    problem: str = ""
    """The reason why it cannot be asked, such as a key that this machine lacks."""


class Settings(Struct, frozen=True, kw_only=True):
    """All settings of sources."""

    hub: HubSettings = HubSettings()
    env: Mapping[str, str] = field(default_factory=dict)
    """The variables that addresses refer to."""
    parallel: int = 3
    """Files that are downloaded at the same time."""
    public_only: bool = False
    """Refuse hosts inside a private network: for downloads that a client of the API caused."""
    trusted: frozenset[tuple[str, int]] = frozenset()
    """Hosts and ports that are reached in any case: the hub that the operator has configured."""
    waits: Timeouts = Timeouts()
    patience: RetryPolicy = RetryPolicy()
    neighbours: tuple[Neighbour, ...] = ()
    """Servers that are asked for a file with a known digest before its source."""
    direct_read: int = 1024**2
    """The size in bytes from which a body is read directly from the connection; see `web.HttpResponse`."""

    __repr__ = repr_without("env")
