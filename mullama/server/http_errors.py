"""How the operator's API says an error, and with which HTTP status."""

from __future__ import annotations

from typing import Any

from mullama.dialects.base import Reply
from mullama.errors import Denied, Kind, ManifestError, MullamaError
from mullama.server.http.exchange import ErrorFormat

_STATUS = {
    Kind.INVALID: 400,
    Kind.DENIED: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.REFUSED: 422,
    Kind.BUSY: 429,
    Kind.TOO_LARGE: 413,
    Kind.TRANSFER: 502,
    Kind.TIMEOUT: 504,
    Kind.UNAVAILABLE: 503,
    Kind.INTERNAL: 500,
}


def status_of(error: MullamaError) -> int:
    if isinstance(error, Denied) and not error.authenticated:
        return 401
    return _STATUS[error.kind]


def _say(error: MullamaError, request_id: str) -> Reply:
    return Reply(status=status_of(error), body={"error": error_tree(error, request_id)})


OPERATOR = ErrorFormat(error=_say)


def error_tree(error: MullamaError, request_id: str) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "kind": error.kind.value,
        "message": error.message,
        "hint": error.hint,
        "request_id": request_id,
    }
    if isinstance(error, ManifestError):
        tree["problems"] = [problem.tree() for problem in error.problems]
    return tree
