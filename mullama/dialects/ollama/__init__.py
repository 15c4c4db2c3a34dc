"""The wire format of Ollama: native endpoints under `/api`, NDJSON streams, `{"error": "text"}`."""

from __future__ import annotations

from mullama.dialects.base import Dialect
from mullama.dialects.ollama import about, changes, chat, embed, generate, models
from mullama.dialects.ollama.errors import ERROR_SCHEMA, error_reply

DIALECT = Dialect(
    name="ollama",
    endpoints=(
        *about.ENDPOINTS,
        *chat.ENDPOINTS,
        *generate.ENDPOINTS,
        *embed.ENDPOINTS,
        *models.ENDPOINTS,
        *changes.ENDPOINTS,
    ),
    error=error_reply,
    error_schema=ERROR_SCHEMA,
    prefixes=("/api",),
)
