"""What a user may set about sources: the hub, how many files at once, how long to wait."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Where the hub is and who asks. Empty values mean the library's own: HF_ENDPOINT, HF_TOKEN, the token file.

    token_from says where the token came from, or was looked for in vain; it is shown, the token never.
    """

    endpoint: str = ""
    token: str = field(default="", repr=False)
    token_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a transfer is tried again, and how long it waits between (seconds)."""

    tries: int = 5
    first: float = 1.0
    longest: float = 30.0
    longest_asked: float = 300.0
    mismatches: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: to connect and to finish TLS, until all headers are there, and without a byte of a body.

    A body that delivers less than slow_bytes in slow_seconds has stalled.
    """

    connect: float = 10.0
    headers: float = 30.0
    idle: float = 60.0
    slow_bytes: int = 60_000
    slow_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """public_only: refuse addresses inside a network, for fetches that a client of the API caused."""

    hub: HubSettings = field(default_factory=HubSettings)
    parallel: int = 3
    public_only: bool = False
    waits: Timeouts = field(default_factory=Timeouts)
    patience: RetryPolicy = field(default_factory=RetryPolicy)
