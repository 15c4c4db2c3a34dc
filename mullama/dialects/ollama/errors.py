"""The error of Ollama's API: `{"error": "text"}`, with the words that clients match."""

from __future__ import annotations

from mullama.dialects import schema
from mullama.dialects.base import Reply
from mullama.dialects.http_status import status_of
from mullama.errors import Busy, ContextOverflow, Denied, MullamaError, NotFound


def message_of(error: MullamaError) -> str:
    """Return the text, which begins with the words that Ollama's clients match."""
    match error:
        case ContextOverflow():
            named = f"{error.field}: " if error.field else ""
            return (
                "the prompt is longer than the context length currently available: "
                f"{error.prompt_tokens} tokens, {error.context_size} available "
                f"({named}the input length exceeds the context length; {error.hint})"
            )
        case NotFound() if error.name and not error.name.startswith("/"):
            found = f"model '{error.name}' not found"
            return f"{found} ({error.hint})" if error.hint else found
        case Busy() if not error.limited:
            busy = "server busy, please try again.  maximum pending requests exceeded"
            return f"{busy} ({error.message})"
        case Denied() if not error.authenticated:
            return f"unauthorized: {error}"
        case _:
            return str(error)


def error_reply(error: MullamaError, request_id: str) -> Reply:
    """Return the reply for an error before the first byte."""
    return Reply(
        body={"error": message_of(error)},
        status=status_of(error, refused=403, overloaded=503),
        headers={"x-request-id": request_id},
    )


ERROR_SCHEMA = schema.exact(error=schema.STRING)
