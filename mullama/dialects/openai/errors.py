"""The error of OpenAI's API: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import assert_never

from mullama.dialects import schema
from mullama.dialects.base import Reply
from mullama.dialects.http_status import status_of
from mullama.errors import (
    Busy,
    ContextOverflow,
    Denied,
    Invalid,
    Kind,
    MullamaError,
    NotFound,
    Unsupported,
)
from mullama.names import JSONValue


def _type_of(error: MullamaError) -> str:
    match error.kind:
        case Kind.INVALID if isinstance(error, ContextOverflow):
            kind = "exceed_context_size_error"
        case Kind.INVALID | Kind.TOO_LARGE | Kind.CONFLICT:
            kind = "invalid_request_error"
        case Kind.NOT_FOUND:
            kind = "not_found_error" if _is_model(error) else "invalid_request_error"
        case Kind.DENIED:
            allowed = isinstance(error, Denied) and error.authenticated
            kind = "permission_error" if allowed else "authentication_error"
        case Kind.REFUSED:
            kind = "permission_error"
        case Kind.BUSY:
            limited = isinstance(error, Busy) and error.limited
            kind = "rate_limit_error" if limited else "overloaded_error"
        case Kind.UNAVAILABLE:
            kind = "unavailable_error"
        case Kind.TRANSFER | Kind.TIMEOUT | Kind.INTERNAL:
            kind = "server_error"
        case _:
            assert_never(error.kind)
    return kind


def code_of(error: MullamaError) -> str | None:
    """Return the code by which clients distinguish errors of one status, if there is one."""
    match error:
        case ContextOverflow():
            return "context_length_exceeded"
        case Unsupported():
            return "unsupported_value"
        case Invalid(field=str()):
            return "invalid_value"
        case NotFound() if _is_model(error):
            return "model_not_found"
        case Denied(authenticated=False):
            return "invalid_api_key"
        case Busy():
            return "rate_limit_exceeded" if error.limited else "server_overloaded"
        case _:
            return None


def _is_model(error: MullamaError) -> bool:
    """Return True if a model was not found; a path or a stored response is no model."""
    return isinstance(error, NotFound) and bool(error.name) and not error.name.startswith(("/", "resp_"))


def message_of(error: MullamaError) -> str:
    """Return the text. For an overflow it has the sentences that clients of OpenAI and of llama-server match.

    It includes the code, because the official client shows only the text.
    """
    if isinstance(error, ContextOverflow):
        named = f"{error.field}: " if error.field else ""
        return (
            f"{named}This model's maximum context length is {error.context_size} tokens. However, your "
            f"messages resulted in {error.prompt_tokens} tokens: the request exceeds the available "
            f"context size ({code_of(error)}: {error.hint})"
        )
    if isinstance(error, NotFound) and _is_model(error):
        found = f"The model '{error.name}' does not exist or you do not have access to it"
        return f"{found} ({error.hint})" if error.hint else found
    return str(error)


def envelope(error: MullamaError) -> dict[str, JSONValue]:
    """Return the `error` member of a reply or of a stream's last event."""
    inner: dict[str, JSONValue] = {
        "message": message_of(error),
        "type": _type_of(error),
        "param": error.field if isinstance(error, Invalid) else None,
        "code": code_of(error),
    }
    if isinstance(error, ContextOverflow):
        inner |= {"n_prompt_tokens": error.prompt_tokens, "n_ctx": error.context_size}
    return inner


def error_reply(error: MullamaError, request_id: str) -> Reply:
    """Return the reply for an error before the first byte."""
    return Reply(
        body={"error": envelope(error)},
        status=status_of(error, refused=403, overloaded=429),
        headers={"x-request-id": request_id},
    )


ERROR_SCHEMA = schema.exact(
    error=schema.record(
        "message type param code",
        message=schema.STRING,
        type=schema.STRING,
        param=schema.nullable(schema.STRING),
        code=schema.nullable(schema.STRING),
    )
)
