"""The error of Anthropic's API: `{"type": "error", "error": {type, message}, request_id}`."""

from __future__ import annotations

from typing import assert_never

from mullama.dialects import schema
from mullama.dialects.base import Reply
from mullama.dialects.http_status import status_of
from mullama.errors import Busy, ContextOverflow, Denied, Invalid, Kind, MullamaError
from mullama.names import JSONValue


def _type_of(error: MullamaError) -> str:
    match error.kind:
        case Kind.INVALID | Kind.CONFLICT:
            kind = "invalid_request_error"
        case Kind.NOT_FOUND:
            kind = "not_found_error"
        case Kind.DENIED:
            allowed = isinstance(error, Denied) and error.authenticated
            kind = "permission_error" if allowed else "authentication_error"
        case Kind.REFUSED:
            kind = "permission_error"
        case Kind.TOO_LARGE:
            kind = "request_too_large"
        case Kind.BUSY:
            limited = isinstance(error, Busy) and error.limited
            kind = "rate_limit_error" if limited else "overloaded_error"
        case Kind.UNAVAILABLE:
            kind = "overloaded_error"
        case Kind.TIMEOUT:
            kind = "timeout_error"
        case Kind.TRANSFER | Kind.INTERNAL:
            kind = "api_error"
        case _:
            assert_never(error.kind)
    return kind


def message_of(error: MullamaError) -> str:
    """Return the text, with the field in front; an overflow has the words that clients match."""
    if isinstance(error, ContextOverflow):
        return f"prompt is too long: {error.prompt_tokens} tokens > {error.context_size} maximum ({error.hint})"
    if isinstance(error, Invalid) and error.field and not error.message.startswith(error.field):
        return f"{error.field}: {error}"
    return str(error)


def envelope(error: MullamaError, request_id: str) -> dict[str, JSONValue]:
    """Return the body of an error reply, which is also the data of an error event."""
    return {
        "type": "error",
        "error": {"type": _type_of(error), "message": message_of(error)},
        "request_id": request_id,
    }


def error_reply(error: MullamaError, request_id: str) -> Reply:
    """Return the reply for an error before the first byte."""
    return Reply(
        body=envelope(error, request_id),
        status=status_of(error, refused=403, overloaded=529),
        headers={"request-id": request_id},
    )


ERROR_SCHEMA = schema.exact(
    type=schema.constant("error"),
    error=schema.exact(type=schema.STRING, message=schema.STRING),
    request_id=schema.STRING,
)
