"""Values as replies write them: times, durations, ids, and token probabilities."""

from __future__ import annotations

import base64
import binascii
import math
from datetime import UTC, datetime

from mullama.chat.types import TokenLogprob
from mullama.dialects import schema
from mullama.names import JSONValue

# The value of infinity: a day in 2318, the latest that the date types and time zones of all clients can hold.
_LATEST = 10_995_120_000.0

# The value of an impossible token, because JSON has no infinity.
_LEAST_LOGPROB = -9999.0

_ALTERNATIVE = schema.exact(token=schema.STRING, logprob=schema.NUMBER, bytes=schema.listed(schema.INTEGER))
LOGPROB_SCHEMA = schema.exact(
    token=schema.STRING,
    logprob=schema.NUMBER,
    bytes=schema.listed(schema.INTEGER),
    top_logprobs=schema.listed(_ALTERNATIVE),
)


def rfc3339(seconds: float) -> str:
    """Return a Unix time as RFC 3339 with microseconds and Z; infinity is a day in 2318."""
    moment = datetime.fromtimestamp(min(max(seconds, 0.0), _LATEST), UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """Return a duration in whole nanoseconds, at least 0."""
    return round(max(seconds, 0.0) * 1e9)


def prefixed(id: str, prefix: str) -> str:
    """Return the id with this prefix in place of the prefix that another dialect gave it."""
    if id.startswith(prefix):
        return id
    for other in ("call_", "toolu_", "fc_"):
        id = id.removeprefix(other)
    return prefix + id


def finite(logprob: float) -> float:
    """Return the value, or -9999 for a value that JSON cannot hold."""
    return logprob if math.isfinite(logprob) else _LEAST_LOGPROB


def logprob_entries(tokens: tuple[TokenLogprob, ...]) -> list[JSONValue]:
    """Return the probabilities in the shape that chat replies of several dialects share."""
    return [{**_entry(token), "top_logprobs": [_entry(t) for t in token.top]} for token in tokens]


def _entry(token: TokenLogprob) -> dict[str, JSONValue]:
    return {"token": token.text, "logprob": finite(token.logprob), "bytes": list(token.bytes)}


ENCODED = "mullama1."
"""The prefix of texts in `encrypted_content`."""


def encode_text(text: str) -> str:
    """Return reasoning, a summary or a result as `encrypted_content`, which clients send back."""
    return ENCODED + base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")


def decode_text(value: str) -> str | None:
    """Return the text of `encode_text`; None for content of another server."""
    if not value.startswith(ENCODED):
        return None
    try:
        return base64.b64decode(value.removeprefix(ENCODED), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
