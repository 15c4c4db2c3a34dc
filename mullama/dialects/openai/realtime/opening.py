"""The request that opens a realtime session, and the key that browsers send with it."""

from __future__ import annotations

from mullama.dialects.base import WireRequest
from mullama.dialects.sessions import OpenSession, Session, SessionFacts
from mullama.errors import Invalid

SUBPROTOCOLS = ("realtime",)
"""The subprotocols that a client may ask for."""
_KEYS_IN_QUERY = ("api_key", "api-key", "apikey", "key", "token")


def decode(request: WireRequest) -> OpenSession:
    """Return the session that `?model=NAME` or `?intent=transcription` asks for."""
    for name in request.query:
        if name.lower() in _KEYS_IN_QUERY:
            raise Invalid(
                f"{name}: a key in an address ends up in logs, so it is not read there",
                hint="send it as 'Authorization: Bearer KEY', or in browsers as the subprotocol"
                " 'openai-insecure-api-key.KEY' beside 'realtime'",
                field=name,
            )
    intent = request.query.get("intent", "conversation")
    if intent not in ("conversation", "transcription"):
        raise Invalid(f"intent must be conversation or transcription, not {intent[:40]!r}", field="intent")
    return OpenSession(model=request.query.get("model", ""), transcribes=intent == "transcription")


def session(facts: SessionFacts) -> Session:
    """Return the session."""
    from mullama.dialects.openai.realtime.session import RealtimeSession  # most servers hold none

    return RealtimeSession(facts)
