"""The wire formats of OpenAI, and llama-server's own endpoints that people script against."""

from __future__ import annotations

from mullama.dialects.base import Dialect
from mullama.dialects.openai import endpoints
from mullama.dialects.openai.errors import ERROR_SCHEMA, error_reply

DIALECT = Dialect(
    name="openai",
    endpoints=endpoints.ENDPOINTS,
    error=error_reply,
    error_schema=ERROR_SCHEMA,
    prefixes=("/v1",),
)
