"""Converts error responses of a server to the errors that it raised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mullama.errors import (
    Busy,
    Conflict,
    Denied,
    Internal,
    Invalid,
    Kind,
    ManifestError,
    MullamaError,
    NotFound,
    Refused,
    TimedOut,
    TooLarge,
    TransferFailed,
    Unavailable,
)

CLASSES: dict[Kind, type[MullamaError]] = {
    Kind.INVALID: Invalid,
    Kind.NOT_FOUND: NotFound,
    Kind.DENIED: Denied,
    Kind.CONFLICT: Conflict,
    Kind.REFUSED: Refused,
    Kind.BUSY: Busy,
    Kind.TOO_LARGE: TooLarge,
    Kind.TRANSFER: TransferFailed,
    Kind.TIMEOUT: TimedOut,
    Kind.UNAVAILABLE: Unavailable,
    Kind.INTERNAL: Internal,
}
_BY_STATUS = {
    400: Kind.INVALID,
    401: Kind.DENIED,
    403: Kind.DENIED,
    404: Kind.NOT_FOUND,
    409: Kind.CONFLICT,
    412: Kind.CONFLICT,
    413: Kind.TOO_LARGE,
    422: Kind.REFUSED,
    429: Kind.BUSY,
    502: Kind.TRANSFER,
    503: Kind.UNAVAILABLE,
    504: Kind.TIMEOUT,
}


def error_of(status: int, body: bytes, server: str) -> MullamaError:
    """Return the error of a response with status 400 or above; by its status if the body is not mullama's."""
    try:
        tree = json.loads(body)
    except ValueError:
        tree = None
    error = tree.get("error") if isinstance(tree, dict) else None
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return error_from_tree(error, _BY_STATUS.get(status, Kind.INTERNAL))
    text = error if isinstance(error, str) else f"{server} responded with status {status}"
    return CLASSES[_BY_STATUS.get(status, Kind.INTERNAL)](text)


def error_from_tree(tree: Mapping[str, Any], default: Kind = Kind.INTERNAL) -> MullamaError:
    """Return the error of `{"kind", "message", "hint", "problems"}`. An unknown kind becomes `default`."""
    if problems := tree.get("problems"):
        from mullama.problems import Problem

        return ManifestError(tuple(Problem.from_tree(problem) for problem in problems))
    name = tree.get("kind")
    kind = Kind(name) if name in set(Kind) else default
    return CLASSES[kind](str(tree["message"]), hint=str(tree.get("hint") or ""))
