"""What errors of every kind are in HTTP: the status, and whether and when to try again."""

from __future__ import annotations

import math
from typing import assert_never

from mullama.errors import Busy, Denied, Kind, MullamaError, Unavailable


def status_of(error: MullamaError, overloaded: int) -> int:
    """The HTTP status; `overloaded` is what this dialect's clients expect when a queue is full."""
    match error.kind:
        case Kind.INVALID:
            status = 400
        case Kind.NOT_FOUND:
            status = 404
        case Kind.DENIED:
            status = 403 if isinstance(error, Denied) and error.authenticated else 401
        case Kind.CONFLICT:
            status = 409
        case Kind.REFUSED:
            status = 403
        case Kind.BUSY:
            status = 429 if isinstance(error, Busy) and error.limited else overloaded
        case Kind.TOO_LARGE:
            status = 413
        case Kind.TRANSFER:
            status = 502
        case Kind.TIMEOUT:
            status = 504
        case Kind.UNAVAILABLE:
            status = 503
        case Kind.INTERNAL:
            status = 500
        case _:
            assert_never(error.kind)
    return status


def retry_headers(error: MullamaError) -> dict[str, str]:
    """`Retry-After` where the error knows when; for the SDKs, that other server errors are final."""
    seconds = error.retry_after if isinstance(error, Busy | Unavailable) else None
    if seconds is not None:
        wait = max(0.0, seconds)
        return {
            "retry-after": str(max(1, math.ceil(wait))),
            "retry-after-ms": str(math.ceil(wait * 1000)),
        }
    match error.kind:
        case Kind.INTERNAL | Kind.TIMEOUT | Kind.TRANSFER | Kind.CONFLICT:
            return {"x-should-retry": "false"}
        case _:
            return {}
