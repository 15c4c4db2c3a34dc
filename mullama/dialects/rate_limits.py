"""Rate limits on the wire: what is left of the limits of a request, and the headers by which clients read it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from mullama.struct import Struct

Headers = Mapping[str, str]


class RateWindow(Struct, frozen=True, kw_only=True):
    """The limit on requests or on tokens that is nearest to its end."""

    limit: int
    """The most that is accepted at once."""
    remaining: int
    reset: float
    """Seconds until the limit is whole again."""


class RateReport(Struct, frozen=True, kw_only=True):
    """The limits of one request; None where there is none."""

    requests: RateWindow | None = None
    tokens: RateWindow | None = None

    @property
    def windows(self) -> tuple[tuple[str, RateWindow], ...]:
        """The limits by what they count."""
        pairs = (("requests", self.requests), ("tokens", self.tokens))
        return tuple((unit, window) for unit, window in pairs if window is not None)


def openai_headers(report: RateReport, now: float) -> Headers:
    """Return OpenAI's headers: `x-ratelimit-limit-requests`, `-remaining-`, and `-reset-` as a Go duration."""
    found: dict[str, str] = {}
    for unit, window in report.windows:
        found[f"x-ratelimit-limit-{unit}"] = str(window.limit)
        found[f"x-ratelimit-remaining-{unit}"] = str(window.remaining)
        found[f"x-ratelimit-reset-{unit}"] = _go_duration(window.reset)
    return found


def anthropic_headers(report: RateReport, now: float) -> Headers:
    """Return Anthropic's headers: `anthropic-ratelimit-requests-limit`, `-remaining`, and `-reset` as RFC 3339.

    now: Unix time in seconds.
    """
    found: dict[str, str] = {}
    for unit, window in report.windows:
        name = f"anthropic-ratelimit-{unit}"
        found[f"{name}-limit"] = str(window.limit)
        found[f"{name}-remaining"] = str(window.remaining)
        found[f"{name}-reset"] = datetime.fromtimestamp(math.ceil(now + window.reset), UTC).strftime("%Y-%m-%dT%XZ")
    return found


def _go_duration(seconds: float) -> str:
    """Return `20ms`, `7.5s` or `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 1000) / 1000:g}s"
    whole = math.ceil(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}h{minutes}m{whole % 60}s" if hours else f"{minutes}m{whole % 60}s"
