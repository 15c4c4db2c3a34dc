"""llama-server's own endpoints; `model` selects the model."""

from __future__ import annotations

from mullama.dialects import schema
from mullama.dialects.base import Endpoint
from mullama.dialects.openai import chat
from mullama.dialects.openai.llamaserver import adapters, completion, props, rerank, resumption, router, tokens

_APPLY_TEMPLATE = Endpoint(
    method="POST",
    path="/apply-template",
    decode=chat.decode_render,
    encode=chat.encode_render,
    summary="Render the prompt of a conversation",
    request_schema=chat.REQUEST_SCHEMA,
    response_schema=schema.exact(prompt=schema.STRING),
)

ENDPOINTS = (
    *tokens.ENDPOINTS,
    _APPLY_TEMPLATE,
    *completion.ENDPOINTS,
    *rerank.ENDPOINTS,
    *props.ENDPOINTS,
    *router.ENDPOINTS,
    *adapters.ENDPOINTS,
    *resumption.ENDPOINTS,
)
