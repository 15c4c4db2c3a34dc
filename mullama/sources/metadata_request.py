"""Small questions to a hub or registry: a bounded body, asked again when the failure may pass."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.sources.network import Cancellation
from mullama.sources.settings import RetryPolicy
from mullama.sources.transfer import WAIT_STATUS, backoff
from mullama.sources.web import MAX_METADATA, HttpResponse, TransientError, Web
from mullama.weights.located import Credential

QUESTIONS = RetryPolicy(tries=3, first=0.5, longest=5.0, longest_asked=30.0)


def ask(
    web: Web, url: str, headers: Mapping[str, str], credential: Credential | None = None, *,
    limit: int = MAX_METADATA, patience: RetryPolicy = QUESTIONS,
) -> tuple[HttpResponse, bytes]:  # fmt: skip
    """The last answer and its body, whatever its status; raises `TransientError` when no try got through."""
    for attempt in range(1, patience.tries + 1):
        wait = backoff(patience, attempt)
        try:
            with web.get(url, headers, credential) as answer:
                body = answer.body(limit)
        except TransientError:
            if attempt == patience.tries:
                raise
        else:
            asked = answer.retry_after
            if answer.status not in WAIT_STATUS or attempt == patience.tries:
                return answer, body
            if asked is not None:
                if asked > patience.longest_asked:
                    return answer, body
                wait = asked
        _rest(web, wait)
    raise TransientError("no try was allowed")


def _rest(web: Web, seconds: float) -> None:
    while seconds > 0:
        if web.cancelled():
            raise Cancellation
        part = min(0.25, seconds)
        web.pause(part)
        seconds -= part
