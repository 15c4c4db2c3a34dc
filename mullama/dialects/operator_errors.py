"""The error of the APIs of mullama itself: `{"error": {"kind", "message", "hint", "request_id"}}`."""

from __future__ import annotations

from mullama.dialects import schema
from mullama.dialects.base import Reply
from mullama.dialects.http_status import status_of
from mullama.errors import ManifestError, MullamaError
from mullama.names import JSONValue
from mullama.problems import Problem


def error_tree(error: MullamaError, request_id: str) -> dict[str, JSONValue]:
    """Return the `error` member of a reply, and of the last line of a stream."""
    tree: dict[str, JSONValue] = {
        "kind": error.kind.value,
        "message": error.message,
        "hint": error.hint,
        "request_id": request_id,
    }
    if isinstance(error, ManifestError):
        tree["problems"] = [_problem_tree(problem) for problem in error.problems]
    return tree


def _problem_tree(problem: Problem) -> dict[str, JSONValue]:
    place = problem.place
    return {
        "path": problem.path,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "message": problem.message,
        "hint": problem.hint,
    }


def error_reply(error: MullamaError, request_id: str) -> Reply:
    """Return the reply for an error before the first byte."""
    return Reply(body={"error": error_tree(error, request_id)}, status=status_of(error))


_PROBLEM = schema.record(
    "path message",
    path=schema.STRING,
    file=schema.nullable(schema.STRING),
    line=schema.nullable(schema.COUNT),
    column=schema.nullable(schema.COUNT),
    message=schema.STRING,
    hint=schema.STRING,
)
ERROR_SCHEMA = schema.exact(
    error=schema.record(
        "kind message hint request_id",
        kind=schema.STRING,
        message=schema.STRING,
        hint=schema.STRING,
        request_id=schema.STRING,
        problems=schema.listed(_PROBLEM),
    )
)
