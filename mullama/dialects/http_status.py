"""Errors in HTTP, for all APIs: the status of each kind, and the headers that advise clients whether to retry.

A refusal (a guard, a protection or a preflight check failed) is 422 in mullama's own APIs, where 403 means missing
rights only. The official clients of Ollama, OpenAI and Anthropic know no refusal; they get 403, which none of them
retries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import assert_never

from mullama.errors import Busy, Denied, Kind, MullamaError, Unavailable

STATUS: Mapping[Kind, int] = {
    Kind.INVALID: 400,
    Kind.NOT_FOUND: 404,
    Kind.DENIED: 403,
    Kind.CONFLICT: 409,
    Kind.REFUSED: 422,
    Kind.BUSY: 429,
    Kind.TOO_LARGE: 413,
    Kind.TRANSFER: 502,
    Kind.TIMEOUT: 504,
    Kind.UNAVAILABLE: 503,
    Kind.INTERNAL: 500,
}
"""The status of each kind in mullama's own APIs; `Busy` by a rate limit has it in every API."""


def status_of(error: MullamaError, *, refused: int = STATUS[Kind.REFUSED], overloaded: int = STATUS[Kind.BUSY]) -> int:
    """Return the status of an error: 401 without a valid key, `overloaded` for a full queue, else that of its kind."""
    match error:
        case Denied(authenticated=False):
            return 401
        case Busy(limited=False):
            return overloaded
        case _:
            return refused if error.kind is Kind.REFUSED else STATUS[error.kind]


def retry_headers(error: MullamaError) -> dict[str, str]:
    """Return the headers by which official clients decide whether, and when, to send the request again."""
    match error.kind:
        case Kind.BUSY | Kind.UNAVAILABLE:
            seconds = error.retry_after if isinstance(error, Busy | Unavailable) else None
            return {"x-should-retry": "true", **({} if seconds is None else _retry_after(max(0.0, seconds)))}
        case Kind.CONFLICT | Kind.TRANSFER | Kind.TIMEOUT | Kind.INTERNAL:
            # The clients retry 409 and every status from 500 up unless this header forbids it.
            return {"x-should-retry": "false"}
        case Kind.INVALID | Kind.NOT_FOUND | Kind.DENIED | Kind.REFUSED | Kind.TOO_LARGE:
            return {}
        case _:
            assert_never(error.kind)


def _retry_after(seconds: float) -> dict[str, str]:
    """Return the delay in whole seconds, at least 1, and in milliseconds, which some clients prefer."""
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(math.ceil(seconds * 1000))}
