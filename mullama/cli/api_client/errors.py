"""An error that a server sent, made again as the error that it was."""

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
    Problem,
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
    """The error behind a status of 400 or more. What is not JSON, or not our JSON, is told by its status."""
    try:
        tree = json.loads(body)
    except ValueError:
        tree = None
    said = tree.get("error") if isinstance(tree, dict) else None
    if isinstance(said, dict) and isinstance(said.get("message"), str):
        return error_from_tree(said, _BY_STATUS.get(status, Kind.INTERNAL))
    text = said if isinstance(said, str) else f"{server} answered with status {status}"
    return CLASSES[_BY_STATUS.get(status, Kind.INTERNAL)](text)


def error_from_tree(tree: Mapping[str, Any], otherwise: Kind = Kind.INTERNAL) -> MullamaError:
    """`{"kind", "message", "hint", "problems"}` → the error; an unknown kind is taken as `otherwise`."""
    if problems := tree.get("problems"):
        return ManifestError(tuple(Problem.from_tree(problem) for problem in problems))
    said = tree.get("kind")
    kind = Kind(said) if said in set(Kind) else otherwise
    return CLASSES[kind](str(tree["message"]), hint=str(tree.get("hint") or ""))
