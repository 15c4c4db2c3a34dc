"""Times, durations and ids as replies write them."""

from __future__ import annotations

from datetime import UTC, datetime

# Where "for ever" ends: 2318, the farthest that every client's date type and time zone can hold.
_FAR = 10_995_120_000.0


def rfc3339(seconds: float) -> str:
    """A time as RFC 3339 with microseconds and Z; infinity is a day in 2318."""
    moment = datetime.fromtimestamp(min(max(seconds, 0.0), _FAR), UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    return round(max(seconds, 0.0) * 1e9)


def prefixed(id: str, prefix: str) -> str:
    """The id with this prefix, whatever prefix it had in the vocabulary of another dialect."""
    if id.startswith(prefix):
        return id
    for other in ("call_", "toolu_", "fc_"):
        id = id.removeprefix(other)
    return prefix + id
