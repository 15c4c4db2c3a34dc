"""Token probabilities in the shape that chat replies of several dialects share."""

from __future__ import annotations

import math

from mullama.chat.types import TokenLogprob
from mullama.dialects import schema
from mullama.names import JSONValue

# What "impossible" is written as, because JSON has no infinity.
_LEAST = -9999.0

_ONE = schema.exact(token=schema.STRING, logprob=schema.NUMBER, bytes=schema.listed(schema.INTEGER))
SCHEMA = schema.exact(
    token=schema.STRING,
    logprob=schema.NUMBER,
    bytes=schema.listed(schema.INTEGER),
    top_logprobs=schema.listed(_ONE),
)


def finite(logprob: float) -> float:
    """The value as JSON can hold it."""
    return logprob if math.isfinite(logprob) else _LEAST


def entry(token: TokenLogprob) -> dict[str, JSONValue]:
    return {
        "token": token.text,
        "logprob": finite(token.logprob),
        "bytes": list(token.bytes),
        "top_logprobs": [{"token": t.text, "logprob": finite(t.logprob), "bytes": list(t.bytes)} for t in token.top],
    }


def entries(tokens: tuple[TokenLogprob, ...]) -> list[JSONValue]:
    return [entry(token) for token in tokens]
