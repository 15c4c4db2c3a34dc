"""The wire format of Ollama: native endpoints under `/api`, NDJSON streams, `{"error": "text"}`."""

from __future__ import annotations

from mullama.dialects.base import Dialect
from mullama.dialects.ollama import chat, embed, generate, model_admin, models, version
from mullama.dialects.ollama.errors import ERROR_SCHEMA, error_reply

DIALECT = Dialect(
    name="ollama",
    endpoints=(
        *version.ENDPOINTS,
        *chat.ENDPOINTS,
        *generate.ENDPOINTS,
        *embed.ENDPOINTS,
        *models.ENDPOINTS,
        *model_admin.ENDPOINTS,
    ),
    error=error_reply,
    error_schema=ERROR_SCHEMA,
    prefixes=("/api",),
)
